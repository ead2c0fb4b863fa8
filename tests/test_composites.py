"""Composites: from data, from files, by layer and by position; every mistake told with a remedy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pellucid.rules as public
from compare import class_seed, relative
from method_cases import heat, pooled, random_input
from networks.common import seeded
from pellucid.core.errors import FileError, PellucidError, SettingError
from pellucid.core.record import record
from pellucid.core.trace import Trace
from pellucid.rules import composites as c
from pellucid.rules import linear_rules as linear
from pellucid.rules.composites import BASE, Choice, Composite, composite_from, read_composite
from pellucid.rules.structure import structure
from relevance_cases import walked

LINES: list[dict[str, Any]] = [
    {"rule": "flat", "position": "first"},
    {"rule": "gamma", "gamma": 0.1, "layer": "3", "kind": "convolution"},
    {"rule": "zero", "kind": "linear"},
    {"rule": "sum_epsilon", "epsilon": 1, "kind": "average_pool"},
]


def met(composite: Composite, model: nn.Module, x: Tensor) -> dict[str, str]:
    """Layer -> rule, for what the walk met."""
    found = walked(model, x, composite)
    return {node.path: entry.rule for node, entry in found.ledger.entries.items()}


def test_lines_choose_rules_in_order() -> None:
    rules = met(composite_from(LINES), pooled(), random_input(1, 3, 8, 8))
    assert rules == {
        "0": "flat",
        "1": "merged",
        "2": "pass",
        "3": "gamma(0.1)",
        "4": "merged",
        "5": "pass",
        "6": "epsilon",
        "7": "route",
        "8": "zero",
    }
    rest = met(composite_from([], base="epsilon_alpha2_beta1"), pooled(), random_input(1, 3, 8, 8))
    assert rest["0"] == rest["3"] == "alpha_beta(2, 1)" and rest["8"] == "epsilon(1e-06)"


def test_lines_say_the_same_as_python() -> None:
    model, x = pooled(), random_input(2, 3, 8, 8)
    own = Composite(
        "mine",
        (
            Choice(public.flat(), position="first"),
            Choice(public.gamma(0.1), "convolution", "3"),
            Choice(public.zero(), "linear"),
            Choice(c.RULES["sum_epsilon"](epsilon=1.0), "average_pool"),
            *public.epsilon_plus().choices,
        ),
    )
    assert torch.equal(walked(model, x, composite_from(LINES)).heat, walked(model, x, own).heat)
    assert torch.equal(heat(model, x, "lrp", composite=own), heat(model, x, "lrp", composite=composite_from(LINES)))


@pytest.mark.parametrize("rule", sorted(c.RULES))
def test_every_rule_has_a_name_for_files(rule: str) -> None:
    numbers = {"low": -1.0, "high": 1.0} if rule == "box" else {}
    made = composite_from([{"rule": rule, **numbers}]).choices[0].rule
    assert callable(made) and getattr(made, "name", "")


@pytest.mark.parametrize("kind", sorted(c.KINDS_OF_RULES))
def test_every_kind_can_be_named(kind: str) -> None:
    assert composite_from([{"rule": "pass", "kind": kind}]).choices[0].kind == kind


class Stems(nn.Module):
    """Two stems of one picture, and two heads that are summed."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.body = nn.Conv2d(4, 4, 1)
        self.head_a, self.head_b, self.unused = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body((self.left(x) + self.right(x.flip(3))).relu()).relu().mean((2, 3))
        self.unused(y)
        return self.head_a(y) + self.head_b(y)


def test_first_and_last_follow_the_data_and_not_the_order_of_registration() -> None:
    model, x = seeded(Stems)().double(), random_input(2, 3, 6, 6)
    facts = structure(record(model, x))
    assert {n.path for n in facts.first} == {"left", "right"}
    assert {n.path for n in facts.last} == {"head_a", "head_b"}
    found = met(
        composite_from([{"rule": "w_square", "position": "first"}, {"rule": "zero", "position": "last"}]), model, x
    )
    rules = {name: found[name] for name in ("left", "right", "body", "head_a", "head_b")}
    assert [*rules.values()] == ["w_square", "w_square", "z_plus", "zero", "zero"]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("features.*", ["features.0", "features.2"]),
        ("*.2", ["features.2"]),
        ("feature?.0", ["features.0"]),
        ("x", []),
    ],
)
def test_patterns_of_layers(pattern: str, wanted: list[str]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.features(x).mean((2, 3)))

    found = met(composite_from([{"rule": "gamma", "layer": pattern}]), seeded(Net)().double(), random_input(1, 3, 8, 8))
    assert sorted(name for name, rule in found.items() if rule.startswith("gamma")) == wanted


def test_a_rule_that_does_not_fit_an_operation_leaves_it_to_the_next_line() -> None:
    rules = met(composite_from([{"rule": "gamma"}, {"rule": "zero", "layer": "2"}]), pooled(), random_input(1, 3, 8, 8))
    assert (rules["0"], rules["2"], rules["6"], rules["8"]) == ("gamma(0.25)", "pass", "ratio", "gamma(0.25)")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"rule": "gama"}, 'no relevance rule "gama"; did you mean .*gamma'),
        ({"rule": ["gamma"]}, "no relevance rule"),
        ({"kind": "convolution"}, "a line of a composite is"),
        ({"rule": "zero", "kind": "conv"}, 'no kind of operation "conv"; did you mean "convolution"'),
        ({"rule": "zero", "position": "firs"}, 'no position "firs"; did you mean "first"'),
        ({"rule": "zero", "position": None}, "no position"),
        ({"rule": "zero", "layer": 3}, "layer: 3 came; give a pattern"),
        ({"rule": "gamma", "gama": 1.0}, 'rule gamma has no "gama"; did you mean "gamma"'),
        ({"rule": "zero", "epsilon": 1.0}, 'rule zero has no "epsilon"; it takes nothing'),
        ({"rule": "gamma", "gamma": "big"}, "gamma='big' came for rule gamma; give a number from 0 up"),
        ({"rule": "gamma", "gamma": -1}, "gamma=-1 came"),
        ({"rule": "gamma", "gamma": float("nan")}, "gamma=nan came"),
        ({"rule": "epsilon", "epsilon": True}, "epsilon=True came"),
        ({"rule": "alpha_beta", "alpha": 2, "beta": 2}, "alpha - beta must be 1"),
        ({"rule": "z_plus", "bias": "drop"}, "bias='drop' came for rule z_plus; give one like 'absorb'"),
        ({"rule": "gate", "split": "yes"}, "split='yes' came for rule gate; give one like False"),
        ({"rule": "pass", "name": "mine"}, 'rule pass has no "name"'),
    ],
)
def test_mistakes_in_a_line(line: Any, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        composite_from([line])


def test_an_unknown_base() -> None:
    with pytest.raises(SettingError, match='no composite "epsilon_pluss"; did you mean "epsilon_plus"'):
        composite_from([], base="epsilon_pluss")


def test_whole_numbers_will_do() -> None:
    assert composite_from([{"rule": "alpha_beta", "alpha": 2, "beta": 1}]).choices[0].rule.name == "alpha_beta(2, 1)"  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("ending", [".json", ".yaml", ".yml", ".YAML"])
def test_files(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"mine{ending}"
    data = {"base": "epsilon_gamma", "rules": LINES}
    if ending == ".json":
        path.write_text(json.dumps(data))
    else:
        yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
        path.write_text(yaml.safe_dump(data))
    composite = read_composite(path)
    assert composite.name == "mine"
    model, x = pooled(), random_input(2, 3, 8, 8)
    wanted = walked(model, x, composite_from(LINES, base="epsilon_gamma")).heat
    assert torch.equal(walked(model, x, composite).heat, wanted)
    assert torch.equal(heat(model, x, "lrp", composite=str(path)), heat(model, x, "lrp", composite=path))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", b"{", r"a\.json is no JSON"),
        ("a.json", b"[]", r"expected \{base: …, name: …, rules"),
        ("a.json", b'{"rules": {}}', r"expected \{base"),
        ("a.json", b'{"rules": [], "unknown": "generic"}', r"expected \{base"),
        ("a.json", b"\xff\xfe\x00", "is no text"),
        ("a.yaml", b"rules: [", r"a\.yaml is no YAML"),
        ("a.yaml", b"", r"expected \{base"),
        ("a.yaml", b"rules: !!python/object/apply:os.system ['true']", "is no YAML"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, name: str, text: bytes, words: str) -> None:
    if name.endswith("yaml"):
        pytest.importorskip("yaml", reason="PyYAML is not installed")
    path = tmp_path / name
    path.write_bytes(text)
    with pytest.raises(FileError, match=words):
        read_composite(path)


def test_mistakes_inside_a_well_formed_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for data in ({"rules": [{"rule": "x"}]}, {"rules": [], "base": "x"}):
        path.write_text(json.dumps(data))
        with pytest.raises(SettingError, match=r'no .* "x"'):
            read_composite(path)
    for data in ({"rules": [], "base": ["x"]}, {"rules": [1]}):
        path.write_text(json.dumps(data))
        with pytest.raises(FileError, match="expected"):
            read_composite(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "no.json", tmp_path):
        with pytest.raises(FileError, match=r"there is no composite .*; presets: epsilon, "):
            read_composite(path)
    with pytest.raises(FileError, match="there is no composite"):
        heat(pooled(), random_input(1, 3, 8, 8), "lrp", composite=str(tmp_path / "no.yaml"))


def test_yaml_needs_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "yaml", None)
    path = tmp_path / "a.yaml"
    path.write_text("rules: []")
    with pytest.raises(PellucidError, match="PyYAML"):
        read_composite(path)


# --------------------------------------------------------------------------------------------------- presets


@pytest.mark.parametrize("name", sorted(c.PRESETS))
def test_presets_have_their_names(name: str) -> None:
    made = c.PRESETS[name]()
    assert made.name == ("epsilon(1e-06)" if name == "epsilon" else name)
    assert made.unknown == "refuse"


def test_the_ledger_names_every_operation_once() -> None:
    model, x = pooled(), random_input(1, 3, 8, 8)
    trace: Trace = record(model, x)
    found = walked(trace, None, public.epsilon_plus(), class_seed(trace))
    assert [*found.ledger.entries] == [*reversed(trace.nodes)]
    unknown = Composite("generic", (), "generic")
    generic: Callable[[], Tensor] = lambda: walked(trace, None, unknown, class_seed(trace)).heat  # noqa: E731
    zero = Composite("same", (*(Choice(linear.epsilon(), k) for k in ("convolution", "linear", "batch_norm")), *BASE))
    assert generic().shape == walked(trace, None, zero, class_seed(trace)).heat.shape
    assert relative(generic(), generic()) == 0
