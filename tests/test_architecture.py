"""The house rules that a machine can hold: who imports whom, sizes, READMEs, annotations, a light import."""

import ast
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "pellucid"
SOURCES = sorted(PACKAGE.rglob("*.py"))
LEVELS = {
    "core": 0,
    **dict.fromkeys(("models", "images", "render", "store"), 1),
    "rules": 2,
    **dict.fromkeys(("methods", "inside", "concepts", "training"), 3),
    "evaluate": 4,
    "studies": 5,
    **dict.fromkeys(("cli", "web"), 6),
}
DOORS = ("cli", "web")
HEAVY = ("torchvision", "timm", "transformers", "matplotlib", "skimage", "scipy", "typer", "rich", "pandas", "sklearn")
PEERS = ("captum", "zennit", "quantus", "pytorch_grad_cam", "torchcam")
UNFINISHED = re.compile(
    r"\b(TODO|FIXME)\b(?!: \w)|raise NotImplementedError(?!\(f?[\"'])"
)  # a reason given is accepted
ELSEWHERE = re.compile(r"/work\b|\bshared/")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _module(path: Path) -> tuple[str, ...]:
    """The dotted name of a source file, as parts."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def _imports(path: Path, tree: ast.AST) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Every import in a file, also inside functions: line, and absolute name with the imported one at its end."""
    package = _module(path) if path.name == "__init__.py" else _module(path)[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, tuple(alias.name.split("."))) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            yield from ((node.lineno, (*base, alias.name)) for alias in node.names)


def _own_imports() -> Iterator[tuple[Path, int, tuple[str, ...]]]:
    for path in SOURCES:
        for line, name in _imports(path, ast.parse(path.read_text(encoding="utf-8"))):
            if name[0] == "pellucid":
                yield path, line, name


def _offence(room: str, other: str) -> str | None:
    """Why a file of one room may not import another room; None where it may."""
    if room == other:
        return None
    if room == "core":
        return "core imports nobody"
    if other in DOORS:
        return "nothing imports a door"
    if LEVELS[other] > LEVELS[room]:
        return f"level {LEVELS[room]} imports level {LEVELS[other]}"
    return None


def test_there_is_something_to_look_at():
    assert len(SOURCES) > 5
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"} <= set(LEVELS)


def test_imports_run_downwards_only():
    offenders = []
    for path, line, name in _own_imports():
        room = _module(path)[1:2]
        if not room:
            continue  # the top of the package may import anything
        if len(name) < 2 or name[1] not in LEVELS:
            offenders.append(
                f"{_name(path)}:{line} imports {'.'.join(name)}: name the room, not the top of the package"
            )
        elif why := _offence(room[0], name[1]):
            offenders.append(f"{_name(path)}:{line} imports {'.'.join(name)}: {why}")
    assert not offenders, "\n".join(offenders)


@pytest.mark.parametrize(
    ("room", "other", "allowed"),
    [
        ("methods", "rules", True), ("methods", "inside", True), ("render", "images", True), ("cli", "studies", True),
        ("web", "cli", False), ("core", "images", False), ("rules", "methods", False), ("evaluate", "studies", False),
    ],
)  # fmt: skip
def test_the_direction_itself(room, other, allowed):
    assert (_offence(room, other) is None) == allowed


def test_our_own_imports_resolve():
    modules = {_module(path) for path in SOURCES}
    offenders = [
        f"{_name(path)}:{line} imports {'.'.join(name)}"
        for path, line, name in _own_imports()
        if name not in modules and name[:-1] not in modules
    ]
    assert not offenders, "\n".join(offenders)


def test_relative_and_late_imports_are_seen():
    text = "from . import a\ndef f():\n    from ..rules.gradient import b\n    import pellucid.cli.main, torch\n"
    found = [name for _, name in _imports(PACKAGE / "methods" / "cams.py", ast.parse(text))]
    assert sorted(".".join(name) for name in found) == [
        "pellucid.cli.main",
        "pellucid.methods.a",
        "pellucid.rules.gradient.b",
        "torch",
    ]


def test_no_other_attribution_library_is_imported():
    offenders = [
        f"{_name(path)}:{line} imports {'.'.join(name)}"
        for path in SOURCES
        for line, name in _imports(path, ast.parse(path.read_text(encoding="utf-8")))
        if name[0] in PEERS
    ]
    assert not offenders, "\n".join(offenders)


def test_every_folder_has_a_short_readme():
    offenders = []
    for folder in sorted({path.parent for path in SOURCES} - {PACKAGE}):
        readme = folder / "README.md"
        lines = len(readme.read_text(encoding="utf-8").splitlines()) if readme.exists() else 0
        if not 1 <= lines <= 20:
            offenders.append(f"{_name(readme)} has {lines} lines; 1 to 20 are wanted")
    assert not offenders, "\n".join(offenders)


def test_no_file_is_longer_than_400_lines():
    files = [
        *SOURCES,
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "bench").rglob("*.py"),
        *(ROOT / "scripts").rglob("*.py"),
    ]
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert not {name: lines for name, lines in lengths.items() if lines > 400}


def _lines_with(pattern: re.Pattern[str], files: list[Path]) -> list[str]:
    return [
        f"{_name(path)}:{number} {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def test_nothing_is_left_unfinished():
    offenders = _lines_with(UNFINISHED, SOURCES)
    assert not offenders, "\n".join(offenders)


def test_nothing_points_to_the_place_where_it_was_written():
    kinds = (".py", ".md", ".html", ".css", ".js", ".json", ".txt", ".toml")
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix in kinds]
    offenders = _lines_with(ELSEWHERE, files)
    assert not offenders, "\n".join(offenders)


def _bare(function: ast.FunctionDef | ast.AsyncFunctionDef, in_class: bool) -> list[str]:
    """The arguments of a function, and its return, that carry no annotation."""
    ordered = [*function.args.posonlyargs, *function.args.args]
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)
    arguments = ordered[1 if in_class and not static else 0 :] + function.args.kwonlyargs
    arguments += [one for one in (function.args.vararg, function.args.kwarg) if one]
    return [one.arg for one in arguments if one.annotation is None] + ([] if function.returns else ["return"])


def _unannotated(tree: ast.Module) -> Iterator[str]:
    """Public functions and methods with something unannotated."""
    stack: list[tuple[ast.AST, bool]] = [(node, False) for node in tree.body]
    while stack:
        node, in_class = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            bare = [] if node.name.startswith("_") else _bare(node, in_class)
            if bare:
                yield f"{node.lineno} {node.name}: {', '.join(bare)}"
        else:
            stack += [(child, isinstance(node, ast.ClassDef)) for child in ast.iter_child_nodes(node)]


def test_every_public_function_is_annotated():
    offenders = [
        f"{_name(path)}:{found}"
        for path in SOURCES
        for found in _unannotated(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not offenders, "\n".join(offenders)


def test_an_unannotated_function_is_seen():
    text = "def f(a, *, b: int, **c) -> int: ...\nclass A:\n    def g(self): ...\n"
    text += "    @staticmethod\n    def h(a) -> int: ...\n"
    assert sorted(_unannotated(ast.parse(text))) == ["1 f: a, c", "3 g: return", "5 h: a"]


def test_import_pellucid_is_light():
    code = "import sys, json, pellucid; pellucid.explain; names = {name.split('.')[0] for name in sys.modules}"
    code += "; print(json.dumps(sorted(names)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert run.returncode == 0, run.stderr
    loaded = json.loads(run.stdout)
    assert "torch" in loaded
    assert not [name for name in HEAVY + PEERS if name in loaded]


def test_the_package_carries_its_type_marker_and_its_version():
    assert (PACKAGE / "py.typed").exists()
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert declared
    try:
        installed = importlib.metadata.version("pellucid")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("pellucid runs from its sources, uninstalled")
    assert installed == declared[1]


@pytest.mark.parametrize("path", sorted([*(ROOT / "scripts").glob("*.py"), *(ROOT / "bench").glob("*.py")]), ids=_name)
def test_scripts_and_bench_ask_for_names_that_exist(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    asked = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("pellucid")]
    for node in asked:
        module = importlib.import_module(node.module)
        missing = [a.name for a in node.names if not hasattr(module, a.name)]
        assert not [name for name in missing if importlib.util.find_spec(f"{node.module}.{name}") is None]
