"""Exported networks: they compute the same under their own layer names, and what could run code is never opened."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim

from pellucid.core.errors import ModelError
from pellucid.models import load
from pellucid.models.archive_safety import harmless_size, refuse_code
from pellucid.models.networks import PhotoNet

GRAPH, SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
Change = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("export") / "photo.pt2"
    sizes = {0: Dim("b", min=1, max=64), 2: Dim("h", min=32, max=512), 3: Dim("w", min=32, max=512)}
    net = PhotoNet(widths=(4, 4, 4)).eval()
    torch.export.save(torch.export.export(net, (torch.randn(2, 3, 32, 36),), dynamic_shapes=(sizes,)), file)
    torch.save(net.state_dict(), file.with_suffix(".pt"))
    return file


def tampered(source: Path, target: Path, changes: dict[str, Change], added: dict[str, bytes] | None = None) -> Path:
    """A copy of the archive with some parts rewritten and some added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            data = old.read(name)
            change = changes.get(name.partition("/")[2])
            new.writestr(name, change(data) if change else data)
        for name, data in (added or {}).items():
            new.writestr(f"{root}/{name}", data)
    return target


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return exec, (touching(self.path),)


def touching(path: Path) -> str:
    return f"open('{path}','w').close()"


def saved(thing: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


def entry(name: str | None, file: str) -> Change:
    """Make an entry of a list of tensors a pickled one."""

    def change(data: bytes) -> bytes:
        found = json.loads(data)
        key = next(iter(found["config"])) if name is None else name
        found["config"][key] = {**found["config"].get(key, {"is_param": False, "tensor_meta": None}), "path_name": file}
        found["config"][key]["use_pickle"] = True
        return json.dumps(found).encode()

    return change


def text(old: str, new: str) -> Change:
    def change(data: bytes) -> bytes:
        assert old in data.decode()
        return data.decode().replace(old, new).encode()

    return change


def graph(edit: Callable[[dict], None]) -> Change:
    def change(data: bytes) -> bytes:
        found = json.loads(data)
        edit(found["graph_module"])
        return json.dumps(found).encode()

    return change


def executing(canary: Path) -> dict[str, tuple[dict[str, Change], dict[str, bytes]]]:
    """Archives by which torch.export.load executes a line of Python."""
    evil = Canary(canary)
    call = json.dumps(f"exec({touching(canary)!r})")[1:-1]
    return {
        "sample inputs": ({SAMPLES: lambda _: saved(((evil,), {}))}, {}),
        "constant": ({CONSTANTS: entry("c", "opaque_obj_0")}, {"data/constants/opaque_obj_0": pickle.dumps(evil)}),
        "weight": ({WEIGHTS: entry(None, "weight_99")}, {"data/weights/weight_99": saved(evil)}),
        "size": ({GRAPH: text("Symbol('s77', positive=True, integer=True)", call)}, {}),
    }


@pytest.mark.parametrize("kind", ["sample inputs", "constant", "weight", "size"])
@pytest.mark.filterwarnings("ignore")
def test_what_torch_would_execute_is_refused_unopened(exported, tmp_path, kind, capsys):
    canary = tmp_path / "canary"
    changes, added = executing(canary)[kind]
    file = tampered(exported, tmp_path / "evil.pt2", changes, added)
    with pytest.raises(ModelError, match="refused unopened"):
        load(file)
    assert not canary.exists()
    try:
        torch.export.load(file)
    except Exception as error:  # torch stumbles after the deed
        print(error)
    assert canary.exists()


def with_target(name: str) -> Change:
    return graph(lambda module: module["graph"]["nodes"][0].update(target=name))


TREE = '[1, {"type": "collections.defaultdict", "context": {"default_factory_module": "this"}, "children_spec": []}]'
KEYS = '[1, {"type": "builtins.dict", "context": "[\\"a=print(1), b\\"]", "children_spec": []}]'


@pytest.mark.parametrize(
    "change",
    [
        with_target("torch.os.system"),
        with_target("torch.ops.load_library"),
        with_target("torch.ops.aten.save.default"),
        with_target("torch.ops.aten.from_file.default"),
        with_target("torch.ops.mine.run.default"),
        with_target("_operator.call"),
        with_target("_operator.methodcaller"),
        text('"adaptive_avg_pool2d"', '"print(1)#"'),
        text('"adaptive_avg_pool2d"', '"import"'),
        graph(lambda module: module["graph"]["nodes"][0]["inputs"][0].update(name="a=print(1), b")),
        graph(lambda module: module["module_call_graph"][0]["signature"].update(in_spec=TREE)),
        graph(lambda module: module["module_call_graph"][0]["signature"].update(out_spec=KEYS)),
        graph(lambda module: module["module_call_graph"][0]["signature"].update(in_spec="no json")),
        graph(lambda module: module["graph"]["nodes"][0]["metadata"].update(nn_module_stack='L,x"),print(1),y')),
        graph(lambda module: module["graph"]["tensor_values"].update({"print(1)": {}})),
        text('"guards_code": []', '"guards_code": ["print(1)"]'),
        lambda data: b"[" + data + b"]",
    ],
)
def test_an_altered_graph_is_refused(exported, tmp_path, change):
    with pytest.raises(ModelError, match=r"refused unopened|can't open"):
        load(tampered(exported, tmp_path / "evil.pt2", {GRAPH: change}))


@pytest.mark.parametrize(
    "name",
    ["data/aotinductor/model/x.so", "models/other.json", "data/weights/model.pt", "data/constants/model.pt", "x.py"],
)
def test_an_unknown_part_is_refused(exported, tmp_path, name):
    with pytest.raises(ModelError, match=f'the part "{name}"'):
        refuse_code(tampered(exported, tmp_path / "evil.pt2", {}, {name: b"x"}))


def test_old_and_foreign_archives_are_refused(exported, tmp_path):
    old = tampered(exported, tmp_path / "old.pt2", {})
    with zipfile.ZipFile(old, "a") as archive:
        archive.writestr("version", "8.8")
    with pytest.raises(ModelError, match=r"before 2\.8"):
        load(old)
    (tmp_path / "text.pt2").write_text("hello")
    with zipfile.ZipFile(tmp_path / "zip.pt2", "w") as archive:
        archive.writestr("a/b", "hello")
    torch.jit.save(torch.jit.script(nn.ReLU()), tmp_path / "script.pt2")
    (tmp_path / "cut.pt2").write_bytes(exported.read_bytes()[:5000])
    for name in ("text.pt2", "zip.pt2", "script.pt2", "cut.pt2"):
        with pytest.raises(ModelError, match="export it again"):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("expression", "harmless"),
    [
        ("Symbol('s77', positive=True, integer=True)", True),
        ("Mul(Integer(128), Add(FloorDiv(Add(Symbol('s0'), Integer(-1)), Integer(4)), Integer(1)))", True),
        ("s0//4 + 2*s1**2 - u0 >= 1.5e-3", True),
        ("Max(1, s0) & ~Eq(s1, 2)", True),
        ("exec('x')", False),
        ("s0.__class__", False),
        ("Symbol('a b')", False),
        ("[s0 for s0 in s1]", False),
        ("lambda: s0", False),
        ('Symbol("s0")', False),
        ("Integer(1)\nimport os", False),
        ("open", False),
    ],
)
def test_sizes_are_arithmetic_and_nothing_else(expression, harmless):
    assert harmless_size(expression) == harmless


def test_an_exported_network_computes_the_same_under_its_own_names(exported):
    torch.manual_seed(0)
    net = PhotoNet(widths=(4, 4, 4)).eval()
    net.load_state_dict(torch.load(exported.with_suffix(".pt"), weights_only=True))
    model = load(exported)
    x = torch.randn(3, 3, 40, 64)
    assert torch.equal(model(x), net(x))
    assert {"stem.0", "stage1.1.conv1", "stage2.2.2", "head"} <= {name for name, _ in model.module.named_modules()}
    seen = []
    model.module.get_submodule("stage1.1").register_forward_hook(lambda *parts: seen.append(parts[2]))
    model(x)
    assert seen[0].shape == (3, 4, 20, 32)
    assert not any(layer.training for layer in model.module.modules())
    assert model.notes[0].startswith("exported for inputs of any × 3 × any × any")


def test_control_flow_dictionaries_and_constants_survive(tmp_path):
    class Awkward(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.register_buffer("shift", torch.randn(4))

        def forward(self, x):
            with torch.no_grad():
                x = x * 2
            y = nn.functional.gelu(self.conv(x), approximate="tanh")
            y = torch.cond(y.sum() > 0, lambda t: t * 2, lambda t: t - 1, (y,))
            return {
                "logits": y.mean((2, 3)) + self.shift + torch.tensor([1.0, 2, 3, 4]),
                "maps": [torch.einsum("bchw->bhwc", y)],
            }

    net, x = Awkward().eval(), torch.randn(2, 3, 8, 8)
    torch.export.save(torch.export.export(net, (x,)), tmp_path / "net.pt2")
    model = load(tmp_path / "net.pt2")
    assert torch.equal(model(-x)["logits"], net(-x)["logits"])
    assert torch.equal(model(x)["maps"][0], net(x)["maps"][0])
    assert "2 × 3 × 8 × 8" in model.notes[0]


@pytest.mark.parametrize("layer", [nn.Dropout(), nn.BatchNorm2d(3)])
def test_an_export_in_training_mode_is_refused(tmp_path, layer):
    net = nn.Sequential(nn.Conv2d(3, 3, 1), layer).train()
    torch.export.save(torch.export.export(net, (torch.randn(2, 3, 8, 8),)), tmp_path / "net.pt2")
    with pytest.raises(ModelError, match=r"training mode.*net\.eval\(\)"):
        load(tmp_path / "net.pt2")


def test_facts_come_from_the_file_beside(exported, tmp_path):
    file = tmp_path / "net.pt2"
    file.write_bytes(exported.read_bytes())
    facts = {"labels": [str(i) for i in range(10)], "preprocess": {"resize_px": 36, "crop_px": 32}}
    file.with_suffix(".json").write_text(json.dumps(facts))
    model = load(file)
    assert model.labels == tuple("0123456789")
    assert model.preprocess is not None
    assert model.preprocess.input_size_px == (32, 32)
    assert load(file, labels=list("abcdefghij")).label(1) == "b"
    file.with_suffix(".json").write_text("[]")
    with pytest.raises(ModelError, match="should look like"):
        load(file)


def test_an_export_takes_no_other_weights_and_must_exist(exported, tmp_path):
    with pytest.raises(ModelError, match="brings its own weights"):
        load(exported, weights="w.pt")
    with pytest.raises(ModelError, match="no file"):
        load(tmp_path / "none.pt2")
