"""Files of weights and the user's own code: what is read, what is stripped, what is refused and how it is told."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pellucid.core.errors import ModelError
from pellucid.models import load
from pellucid.models.checkpoints import class_count, fit, read_state, strip

CODE = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, model=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)
    def forward(self, x):
        return self.head(self.bn(self.conv(x)).mean((2, 3)))
class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Net()
    def forward(self, x):
        return self.model(x)
def build(): return Net()
def needs(depth): return Net()
def fails(): raise RuntimeError("no licence\\nline two")
def number(): return 7
ready = Net().eval()
class nested:
    build = staticmethod(build)
"""


class Canary:
    """Creates a file when unpickled as code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with the user's code in `usernet.py`."""
    (tmp_path / "usernet.py").write_text(CODE)
    (tmp_path / "faulty.py").write_text("import not_there_at_all")
    (tmp_path / "loud.py").write_text("raise ValueError('boo')")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("usernet", "faulty", "loud"):
        sys.modules.pop(name, None)


def state() -> dict[str, torch.Tensor]:
    namespace: dict = {}
    exec(CODE, namespace)
    return {key: torch.randn(value.shape).to(value.dtype) for key, value in namespace["Net"]().state_dict().items()}


def same(module: nn.Module, wanted: dict[str, torch.Tensor]) -> bool:
    own = module.state_dict()
    return own.keys() == wanted.keys() and all(torch.equal(own[key], wanted[key]) for key in wanted)


def test_a_factory_is_imported_called_and_put_in_evaluation_mode(here):
    before = list(sys.path)
    model = load("usernet:build")
    assert sys.path == before
    assert not any(layer.training for layer in model.module.modules())
    assert model.name == "usernet:build"
    assert any("eval() was called" in note for note in model.notes)
    assert any("factory left" in note for note in model.notes)
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize("name", ["Net", "build", "ready", "nested.build"])
def test_a_class_a_function_or_a_module_object_will_do(here, name):
    assert type(load(f"usernet:{name}").module).__name__ == "Net"


def test_a_module_already_in_evaluation_mode_is_not_noted(here):
    assert not any("eval()" in note for note in load("usernet:ready").notes)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("usernet:biuld", 'did you mean "build"'),
        ("usernet:needs", "needs no arguments"),
        ("usernet:fails", r"RuntimeError: no licence\)"),
        ("usernet:number", "returned an object of type int"),
        ("usernet:CONSTANT", "has no"),
        ("usernet:__name__", "of type str"),
        ("no_such_thing:build", "no module"),
        ("no_such.thing:build", "no module"),
        ("faulty:build", '"not_there_at_all", which is not installed'),
        ("loud:build", "ValueError: boo"),
    ],
)
def test_what_is_wrong_with_a_factory_is_told(here, spec, said):
    with pytest.raises(ModelError, match=said):
        load(spec)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_fill_the_network(here, suffix):
    wanted = state()
    save_file(wanted, here / "w.safetensors") if suffix == ".safetensors" else torch.save(wanted, here / f"w{suffix}")
    model = load("usernet:build", weights=here / f"w{suffix}")
    assert same(model.module, wanted)
    assert not any("factory left" in note for note in model.notes)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "model.module."])
@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
def test_wrappers_are_taken_off_and_noted(here, prefix, nest):
    wanted = state()
    saved = {prefix + key: value for key, value in wanted.items()}
    torch.save({nest: saved, "epoch": 3} if nest else saved, here / "w.pt")
    model = load("usernet:build", weights="w.pt")
    assert same(model.module, wanted)
    assert any(f'"{prefix}" was taken off' in note for note in model.notes)
    assert any(f'taken from "{nest}"' in note for note in model.notes) == bool(nest)


def test_a_prefix_that_is_the_networks_own_stays(here):
    wanted = {f"model.{key}": value for key, value in state().items()}
    torch.save(wanted, here / "w.pt")
    model = load("usernet:Wrapped", weights="w.pt")
    assert same(model.module, wanted)
    assert not any("taken off" in note for note in model.notes)


def test_half_precision_is_widened_and_noted(here):
    wanted = {key: value.half() if value.is_floating_point() else value for key, value in state().items()}
    save_file(wanted, here / "w.safetensors")
    model = load("usernet:build", weights="w.safetensors")
    assert model.module.state_dict()["conv.weight"].dtype == torch.float32
    assert torch.equal(model.module.state_dict()["conv.weight"], wanted["conv.weight"].float())
    assert any("float16" in note for note in model.notes)


def test_old_batch_norms_without_a_counter_fit(here):
    torch.save({key: value for key, value in state().items() if "num_batches" not in key}, here / "w.pt")
    load("usernet:build", weights="w.pt")


def test_what_does_not_fit_is_listed_and_nothing_is_copied():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 5))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    wrong = {
        "0.weight": torch.ones(4, 1, 3, 3),
        "0.bias": torch.ones(4),
        "1.weights": torch.ones(5, 4),
        **{f"extra{i}": torch.ones(2) for i in range(5)},
    }
    with pytest.raises(ModelError) as told:
        fit(net, wrong, Path("w.pt"), "mine")
    text = str(told.value)
    assert text.startswith("w.pt does not fit mine: 2 missing")
    assert '"1.weight" 5×4, near "1.weights"' in text
    assert '6 unexpected ("1.weights" 5×4, near "1.weight"' in text
    assert '"extra1"' in text
    assert '"extra2"' not in text
    assert '1 of another shape ("0.weight" is 4×1×3×3 in the file, 4×3×3×3 in the network)' in text
    assert "\n" not in text
    assert same(net, before)


def test_the_number_of_classes_is_read_off_the_head():
    own = {"conv.weight": torch.ones(1000, 3, 1, 1), "fc.weight": torch.ones(1000, 8), "fc.bias": torch.ones(1000)}
    ten = {**own, "fc.weight": torch.ones(10, 8), "fc.bias": torch.ones(10)}
    assert class_count(own, ten, 1000) == 10
    assert class_count(own, {f"module.{key}": value for key, value in ten.items()}, 1000) == 10
    assert class_count(own, own, 1000) == 1000
    assert class_count(own, {**ten, "fc.bias": torch.ones(11)}, 1000) == 1000
    assert class_count(own, {**own, "fc.weight": torch.ones(10, 9)}, 1000) == 1000


def test_strip_ends_on_names_that_never_fit():
    stripped, taken = strip({"module.a": torch.ones(1), "module.b": torch.ones(1)}, {"c": torch.ones(1)})
    assert set(stripped) == {"a", "b"}
    assert taken == "module."
    assert strip({}, {"c": torch.ones(1)}) == ({}, "")


@pytest.mark.parametrize("nested", [False, True])
def test_code_in_a_pickle_is_refused_and_not_executed(tmp_path, nested):
    canary = tmp_path / "canary"
    torch.save({"state_dict": state(), "args": Canary(canary)} if nested else Canary(canary), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="never executed"):
        read_state(tmp_path / "w.pt")
    assert not canary.exists()
    torch.load(tmp_path / "w.pt", weights_only=False)
    assert canary.exists()


def test_a_pickled_module_and_torchscript_are_refused(tmp_path):
    torch.save(nn.Conv2d(3, 4, 3), tmp_path / "whole.pt")
    with pytest.raises(ModelError, match=r"torch\.nn\.modules\.conv\.Conv2d.*state_dict"):
        read_state(tmp_path / "whole.pt")
    torch.jit.save(torch.jit.script(nn.ReLU()), tmp_path / "script.pt")
    with pytest.raises(ModelError, match="TorchScript"):
        read_state(tmp_path / "script.pt")


def test_broken_and_foreign_files_are_told(tmp_path):
    save_file(state(), tmp_path / "good.safetensors")
    whole = (tmp_path / "good.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    torch.save(state(), tmp_path / "good.pt")
    whole = (tmp_path / "good.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    for name in ("cut.safetensors", "cut.pt", "empty.pt", "text.pth"):
        with pytest.raises(ModelError, match=f"{name}.*copy it again"):
            read_state(tmp_path / name)
    for name in ("none.pt", "list.pt"):
        with pytest.raises(ModelError, match="holds no weights"):
            read_state(tmp_path / name)
    for name in ("absent.pt", "."):
        with pytest.raises(ModelError, match="no file"):
            read_state(tmp_path / name)
    (tmp_path / "a.npz").write_text("")
    with pytest.raises(ModelError, match="no file of weights"):
        read_state(tmp_path / "a.npz")
