"""The documentation: made pages are up to date, links lead somewhere, every block runs, figures come from commands."""

import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

import pellucid as pel
from pellucid.cli.main import app
from pellucid.core import runners
from pellucid.methods import METHODS, conservation, deeplift, fullgrad, occlusion, paths, surrogates
from pellucid.methods.cams import COMPLETE as CAM_COMPLETE
from pellucid.methods.masks.extremal import AREA_OFF
from pellucid.methods.masks.rise import AGREE
from pellucid.methods.shapley import solve
from pellucid.models.builtin import shipped
from pellucid.models.resolve import sources

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
WRITTEN = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *WRITTEN]
METHOD_PAGES = sorted((ROOT / "docs" / "methods").glob("*.md"))
EVERYWHERE = [*PAGES, *METHOD_PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
ROWS = [
    f"{letter}{n}" for letter, last in zip("ABCDEFG", (13, 9, 10, 5, 4, 4, 6), strict=True) for n in range(1, last + 1)
]
MODULE = """from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def _commands(path: Path) -> list[str]:
    lines = [line for block in _blocks(path, "bash") for line in block.splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.startswith("pellucid")]


@pytest.fixture(scope="module")
def make_docs() -> ModuleType:
    found = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with what the pages speak of: a cat, the user's own module and its weights; methods are put back."""
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed; make test installs it")
    Image.fromarray(data.chelsea()).save(tmp_path / "cat.png")
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "module.py").write_text(MODULE)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    save_file(net.state_dict(), tmp_path / "best.safetensors")
    monkeypatch.chdir(tmp_path)
    before = dict(pel.METHODS)
    yield tmp_path
    pel.METHODS.clear()
    pel.METHODS.update(before)


def test_the_pages_of_the_methods_are_up_to_date(make_docs):
    assert make_docs.out_of_date() == [], "run python scripts/make_docs.py"


def test_the_pages_are_the_same_on_every_run(make_docs):
    assert make_docs.pages() == make_docs.pages()


def test_every_method_has_its_page_and_picture(make_docs):
    names = {name for name, method in pel.METHODS.items() if method.compute.__module__.startswith("pellucid.")}
    assert names == {path.stem for path in METHOD_PAGES} - {"README"}
    sizes = {name: (ROOT / "docs" / "pictures" / f"{name}.png").stat().st_size for name in names}
    assert not {name: size for name, size in sizes.items() if size > make_docs.MOST_BYTES}
    assert (ROOT / "docs" / "pictures" / "demo.png").stat().st_size <= make_docs.MOST_DEMO_BYTES


def test_a_stale_page_is_seen(make_docs, monkeypatch):
    page, *_ = METHOD_PAGES
    pages = make_docs.pages()
    monkeypatch.setattr(make_docs, "pages", lambda: {**pages, page: pages[page] + "more"})
    assert make_docs.out_of_date() == [f"{_name(page)} is out of date"]


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _broken(path: Path) -> list[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        place, _, anchor = link.partition("#")
        goal = path if not place else (path.parent / place).resolve()
        if link.startswith(("http://", "https://")):
            continue
        if not goal.exists() or (anchor and anchor not in _anchors(goal)):
            found.append(link)
    return found


@pytest.mark.parametrize("path", EVERYWHERE, ids=_name)
def test_every_link_leads_somewhere(path):
    assert _broken(path) == []


def test_a_broken_link_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n[x](no.md) [y](#a-page) [z](#other) [w](https://example.org)\n```\n[v](no)\n```\n")
    assert _broken(page) == ["no.md", "#other"]


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_pages_are_short(path):
    most = 200 if path == README else 120
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= most
    assert not [line for line in lines if len(line) > 120 and "|" not in line and "](" not in line and "#" not in line]


@pytest.mark.parametrize("path", [p for p in (*PAGES, *METHOD_PAGES) if _blocks(p, "python")], ids=_name)
def test_python_blocks_run_as_they_stand(path, workplace):
    names: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(_blocks(path, "python"), 1):
        exec(compile(block, f"{_name(path)}, block {number}", "exec", dont_inherit=True), names)


@pytest.mark.parametrize("path", [p for p in PAGES if _commands(p)], ids=_name)
def test_commands_run_as_they_stand(path, workplace):
    for number, command in enumerate(_commands(path)):
        words = [word if word not in ("cat/", "demo/") else f"out{number}" for word in shlex.split(command)[1:]]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"


@pytest.mark.parametrize("path", [p for p in METHOD_PAGES if _commands(p)], ids=_name)
def test_commands_of_methods_run(path, workplace):
    (command,) = _commands(path)
    result = CliRunner().invoke(app, [*shlex.split(command)[1:], "--quiet"])
    assert result.exit_code == 0, result.output
    assert (workplace / path.stem / "report.html").exists()


def test_the_readmes_make_targets_exist():
    wanted = re.findall(r"^make (\w+)", "\n".join(_blocks(README, "bash")), re.MULTILINE)
    assert wanted == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in wanted)


def _features() -> dict[str, list[str]]:
    rows = [line.strip().strip("|").split("|") for line in README.read_text(encoding="utf-8").splitlines()]
    found = [[cell.strip() for cell in row] for row in rows if re.fullmatch(r"[A-G]\d+", row[0].strip())]
    assert len({row[0] for row in found}) == len(found), "a row stands twice"
    return {row[0]: row[1:] for row in found}


def test_the_feature_table_has_every_row_of_the_mission_once():
    found = _features()
    assert list(found) == ROWS
    assert {name: row[2] for name, row in found.items() if row[2] not in ("done", "partly", "not yet")} == {}


def test_what_is_done_has_a_page_and_what_is_not_claims_none():
    for name, (_, here, state, page) in _features().items():
        if state == "not yet":
            assert (here, page) == ("", ""), name
        else:
            links = re.findall(r"\]\((docs/[^)]+\.md)\)", page)
            assert here and links and all((ROOT / link).exists() for link in links), name


def test_every_method_stands_in_its_row(make_docs):
    found = _features()
    for row, names in make_docs.ROWS.items():
        assert [n for n in names.split() if f"`{n}`" not in found[row][1]] == [], row


def test_figures_come_from_a_command():
    """The one measured figure is the accuracy that scripts/train_photos.py --measure prints and photos.json keeps."""
    accuracy = 100 * json.loads((shipped() / "photos.json").read_text(encoding="utf-8"))["test_accuracy"]
    figures = {path: re.findall(r"(\d+\.\d+) %", path.read_text(encoding="utf-8")) for path in EVERYWHERE}
    assert figures[README]
    wrong = [(_name(p), f) for p, found in figures.items() for f in found if f != f"{accuracy:.{len(f) - 3}f}"]
    assert wrong == []


def test_the_bounds_of_the_receipts_are_the_real_ones():
    text = (ROOT / "docs" / "receipts.md").read_text(encoding="utf-8")
    table = {
        (c[0].strip(" `"), c[1].strip()): c[3].strip()
        for c in (x.strip("|").split("|") for x in text.splitlines())
        if len(c) == 5
    }
    bounds = {
        (check, re.search(r"\[(\w+)\]", methods)[1]): float(bound)  # pyright: ignore[reportOptionalSubscript]
        for (check, methods), bound in table.items()
        if "[" in methods
    }
    assert bounds == {
        ("completeness residual", "integrated_gradients"): paths.COMPLETE,
        ("completeness residual", "cam"): CAM_COMPLETE,
        ("completeness residual", "fullgrad"): fullgrad.CLOSED,
        ("completeness in standard errors", "expected_gradients"): paths.STANDARD_ERRORS,
        ("conservation error", "lrp"): conservation.CLOSED,
        ("largest relevance on the way", "lrp"): conservation.BLOWN_UP,
        ("summation-to-delta error", "deep_lift"): deeplift.COMPLETE,
        ("rerun against the network", "occlusion"): runners.SAME[torch.float32],
        ("disagreement between fills", "occlusion"): occlusion.DISAGREE,
        ("surrogate R²", "lime"): surrogates.LEAST_R2,
        ("efficiency residual", "shap"): solve.EFFICIENT,
        ("standard error", "shap"): METHODS["shap"].values["error_fraction"],
        ("correlation of two halves", "rise"): AGREE,
        ("area error", "extremal_perturbation"): AREA_OFF,
    }
    assert f"more than {conservation.UNEXCITED:.0%}".replace("%", " %") in text


def test_every_check_of_a_receipt_is_explained():
    text = (ROOT / "docs" / "receipts.md").read_text(encoding="utf-8")
    panel = pel.explain("builtin:photos", [np.zeros((32, 32, 3), np.uint8)], methods=list(pel.METHODS), progress=False)
    names = {check.name for one in panel for check in one.receipt.checks}
    assert len(names) >= 4
    assert not [name for name in names if f"`{name}`" not in text]


def test_the_command_line_page_knows_every_command_and_option():
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    commands = typer.main.get_command(app).commands
    assert not [name for name in commands if f"`{name}`" not in text]
    options = {o for c in commands.values() for p in c.params for o in p.opts if o.startswith("--")}
    assert not [option for option in options - {"--help"} if f"`{option}`" not in text]
    assert set(re.findall(r"`(--[\w-]+)", text)) <= options | {"--help", "--version"}


def test_the_command_line_page_knows_every_key(workplace):
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    result = CliRunner().invoke(app, ["explain", "cat.png", "--json", "--localise", "0.15"])
    (facts,) = json.loads(result.stdout)
    assert "box" in facts
    assert not [key for key in (*facts, *facts["receipt"]) if f"`{key}`" not in text]


def test_the_page_of_models_knows_every_form():
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert not [source.spec for source in sources() if f"`{source.spec}`" not in text]


def test_the_index_names_every_page():
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert not [p.name for p in WRITTEN if p.name != "README.md" and f"]({p.name})" not in text]
