"""Which rule speaks for which operation: composites, as ready-made tables and as the user's own."""

import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid.core.derivatives import Grads, argument
from pellucid.core.errors import FileError, MethodError, MissingExtraError, SettingError, check_known, nearest
from pellucid.core.pull import Rule, Rules
from pellucid.core.trace import Node, Trace
from pellucid.rules import linear_rules as linear
from pellucid.rules.ledger import Entry, Ledger, Sent
from pellucid.rules.pooling import Proportional
from pellucid.rules.relevance import (
    Epsilon,
    Gate,
    Generic,
    Pass,
    Product,
    Ratio,
    Route,
    Softmax,
    Winner,
    arrived_at,
    sent_from,
)
from pellucid.rules.structure import is_linear, structure

RelevanceRule = Callable[[Node, Grads, Ledger], Sent]
POSITIONS = ("any", "first", "last")
# Operations outside the vocabulary's kinds that only move, copy or pick numbers.
ROUTES = frozenset(
    "write where masked_fill masked_scatter masked_select lift_fresh positive pixel_shuffle pixel_unshuffle "
    "channel_shuffle upsample_nearest1d upsample_nearest2d upsample_nearest3d copy zero fill index_put index_copy "
    "select_scatter slice_scatter scatter unfold im2col rot90 diagonal diag_embed tril triu sort topk max min "
    "take_along_dim repeat_interleave max_unpool2d".split()
)
ELEMENTWISE = frozenset(
    "abs pow square sqrt log1p expm1 erf atan asinh softshrink hardshrink log_sigmoid_forward".split()
)
SUMMING = frozenset("sum".split())
KINDS_OF_RULES = (
    "convolution", "linear", "batch_norm", "sum", "average_pool", "max_pool", "upsample", "scale", "product", "softmax",
    "norm", "rectifier", "squash", "clamp", "dropout", "view", "concatenate",
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """One line of a composite: the rule for the operations that it names.

    Attributes:
        kind: a kind of operation; None for any.
        layer: pattern of the module path (`*` and `?`); None for any.
        position: "first" or "last" of the linear operations in the data flow, or "any".
    """

    rule: RelevanceRule
    kind: str | None = None
    layer: str | None = None
    position: str = "any"

    def speaks_for(self, node: Node, trace: Trace) -> bool:
        if self.kind is not None and self.kind != kind_of_rule(node):
            return False
        if self.layer is not None and not fnmatchcase(node.path, self.layer):
            return False
        if self.position == "any":
            return True
        facts = structure(trace)
        return node in (facts.first if self.position == "first" else facts.last)


def kind_of_rule(node: Node) -> str:
    """The kind by which relevance rules are chosen, by what an operation does to the numbers.

    Sums over axes count as average pools, `-x` as a scale, `b + w ⊙ x` as a norm, `x @ W` as linear, and a
    convolution whose filters were computed from the input as a product.
    """
    if is_linear(node):
        return "linear" if node.base == "matmul" else node.kind
    if node.kind in ("convolution", "linear"):
        return "product"
    if node.base == "neg":
        return "scale"
    if node.base == "addcmul" and len(node.inputs) == 1:
        return "norm"
    if node.base in ELEMENTWISE:
        return "rectifier"
    if node.kind == "clamp" and len(node.inputs) == 2:
        return "view"
    if node.base in SUMMING:
        return "average_pool"
    if node.base in ROUTES:
        return "view"
    return node.kind


BASE: tuple[Choice, ...] = (
    Choice(linear.epsilon(), "convolution"),
    Choice(linear.epsilon(), "linear"),
    Choice(Pass(), "batch_norm"),
    Choice(Ratio(), "sum"),
    Choice(Ratio(), "average_pool"),
    Choice(Ratio(), "upsample"),
    Choice(Winner(), "max_pool"),
    Choice(Gate(), "scale"),
    Choice(Product(), "product"),
    Choice(Softmax(), "softmax"),
    *(Choice(Pass(), kind) for kind in ("norm", "rectifier", "squash", "clamp", "dropout", "detach")),
    *(Choice(Route(), kind) for kind in ("view", "concatenate")),
)


@dataclass(frozen=True)
class Composite:
    """An ordered table of choices; the first that speaks for an operation, and fits it, gives its rule.

    Attributes:
        unknown: "refuse" raises at an operation without a faithful rule; "generic" takes `x ∂/∂x` of it and says so.
    """

    name: str
    choices: tuple[Choice, ...]
    unknown: str = "refuse"

    def with_choices(self, *choices: Choice, name: str | None = None) -> "Composite":
        """The same composite with choices that come before its own."""
        return replace(self, choices=(*choices, *self.choices), name=name or self.name)

    def on(self, trace: Trace) -> "RelevanceRules":
        """The rule table for one walk over one recording, with its ledger."""
        return RelevanceRules(self.name, composite=self, trace=trace, ledger=Ledger(trace))

    def rule(self, node: Node, trace: Trace) -> RelevanceRule | None:
        """The rule of an operation; None where no faithful one is known."""
        if node in structure(trace).merged:
            return MERGED
        return next((c.rule for c in self.choices if c.speaks_for(node, trace) and _fits(c.rule, node)), None)


MERGED = Pass("merged")


def _fits(rule: RelevanceRule, node: Node) -> bool:
    """Whether a rule's formula holds for an operation."""
    if isinstance(rule, linear.LinearRule):
        return is_linear(node) or node.kind == "batch_norm"
    if isinstance(rule, Proportional):
        return node.kind == "max_pool" and len(node.inputs) == 1
    if isinstance(rule, (Pass, Winner)):
        return len(node.inputs) == 1 or node.gate is not None
    if isinstance(rule, Gate):
        return node.base != "div" or node.args[0] is node.inputs[0]
    if isinstance(rule, (Ratio, Epsilon)):
        return node.kind != "sum" or node.base in ("add", "sub", "rsub")
    if isinstance(rule, Route) and node.base in ("index_put", "scatter"):
        return not argument(node, "accumulate", False) and argument(node, "reduce", None) is None
    if isinstance(rule, Product):
        return node.base == "scaled_dot_product_attention" or len(node.inputs) <= 2
    return True


@dataclass(frozen=True)
class RelevanceRules(Rules):
    """A composite at work on one recording, with the ledger of its walk."""

    composite: Composite = field(kw_only=True)
    trace: Trace = field(kw_only=True)
    ledger: Ledger = field(kw_only=True)

    def pick(self, node: Node) -> Rule:
        rule = self.composite.rule(node, self.trace)
        if rule is None and self.composite.unknown == "generic":
            rule = Generic()
        if rule is None:
            raise MethodError(
                f"{self.name} has no faithful rule for {node.name} in {node.path or 'the network'}; choose another "
                'method, or unknown="generic" for an approximation that is told in the receipt'
            )
        return self._accounted(rule)

    def _accounted(self, rule: RelevanceRule) -> Rule:
        """The rule, which also writes its account."""
        name = getattr(rule, "name", type(rule).__name__)

        def accounted(node: Node, grads: Grads) -> Grads:
            sent, kept = rule(node, grads, self.ledger)
            arrived, went = arrived_at(node, grads, self.ledger), sent_from(node, sent, self.ledger)
            linear_size = None
            if isinstance(rule, linear.LinearRule) and sent[0] is not None:
                linear_size = self.ledger.size(sent[0], node.inputs[0])
            self.ledger.entries[node] = Entry(name, arrived, went, kept, linear_size)
            return sent

        accounted.__name__ = name
        return accounted


def epsilon_only(epsilon: float = linear.EPSILON) -> Composite:
    """The ε rule everywhere; with ε = 0 LRP-0."""
    rule = linear.epsilon(epsilon) if epsilon else linear.zero()
    return Composite(f"epsilon({epsilon:g})", (Choice(rule, "convolution"), Choice(rule, "linear"), *BASE))


def epsilon_plus(epsilon: float = linear.EPSILON) -> Composite:
    """z⁺ in convolutions, ε in linear layers."""
    return _by_kind("epsilon_plus", linear.z_plus(epsilon), linear.epsilon(epsilon))


def epsilon_alpha2_beta1(epsilon: float = linear.EPSILON) -> Composite:
    """α2β1 in convolutions, ε in linear layers."""
    return _by_kind("epsilon_alpha2_beta1", linear.alpha_beta(2.0, 1.0, epsilon), linear.epsilon(epsilon))


def epsilon_gamma(gamma: float = 0.25, epsilon: float = linear.EPSILON) -> Composite:
    """γ (for inputs of either sign) in convolutions, ε in linear layers."""
    return _by_kind("epsilon_gamma", linear.signed_gamma(gamma, epsilon), linear.epsilon(epsilon))


def epsilon_gamma_box(
    low: Tensor | linear.Bounds, high: Tensor | linear.Bounds, gamma: float = 0.25, epsilon: float = linear.EPSILON
) -> Composite:
    """The box rule at the first layer, γ in the other convolutions, ε in linear layers."""
    box = Choice(linear.box(low, high, epsilon), position="first")
    return epsilon_gamma(gamma, epsilon).with_choices(box, name="epsilon_gamma_box")


def epsilon_plus_flat(epsilon: float = linear.EPSILON) -> Composite:
    """ε and z⁺ with the flat rule at the first layer."""
    return epsilon_plus(epsilon).with_choices(Choice(linear.flat(), position="first"), name="epsilon_plus_flat")


def epsilon_alpha2_beta1_flat(epsilon: float = linear.EPSILON) -> Composite:
    """ε and α2β1 with the flat rule at the first layer."""
    first = Choice(linear.flat(), position="first")
    return epsilon_alpha2_beta1(epsilon).with_choices(first, name="epsilon_alpha2_beta1_flat")


def deep_taylor(low: Tensor | linear.Bounds | None = None, high: Tensor | linear.Bounds | None = None) -> Composite:
    """z⁺ everywhere, without biases; at the first layer the box rule, or w² where no bounds are known."""
    first = linear.w_square() if low is None or high is None else linear.box(low, high, linear.EPSILON)
    return _by_kind("deep_taylor", linear.z_plus(bias="ignore"), linear.z_plus(bias="ignore")).with_choices(
        Choice(first, position="first")
    )


def excitation() -> Composite:
    """Excitation backprop: z⁺ without biases everywhere, on positive activations."""
    return _by_kind("excitation", linear.z_plus(bias="ignore"), linear.z_plus(bias="ignore"))


def _by_kind(name: str, convolution: linear.LinearRule, dense: linear.LinearRule) -> Composite:
    return Composite(name, (Choice(convolution, "convolution"), Choice(dense, "linear"), *BASE))


PRESETS: dict[str, Callable[[], Composite]] = {
    "epsilon": epsilon_only,
    "zero": lambda: replace(epsilon_only(0.0), name="zero"),
    "epsilon_plus": epsilon_plus,
    "epsilon_alpha2_beta1": epsilon_alpha2_beta1,
    "epsilon_gamma": epsilon_gamma,
    "epsilon_plus_flat": epsilon_plus_flat,
    "epsilon_alpha2_beta1_flat": epsilon_alpha2_beta1_flat,
}
BOUNDED: dict[str, Callable[..., Composite]] = {"epsilon_gamma_box": epsilon_gamma_box}


def _box(low: float = 0.0, high: float = 1.0) -> linear.LinearRule:
    """The box rule with one pair of bounds for all channels, in the network's own units."""
    return linear.box(torch.tensor(float(low)), torch.tensor(float(high)))


RULES: dict[str, Callable[..., RelevanceRule]] = {
    "zero": linear.zero, "epsilon": linear.epsilon, "gamma": linear.gamma, "signed_gamma": linear.signed_gamma,
    "alpha_beta": linear.alpha_beta, "z_plus": linear.z_plus, "w_square": linear.w_square, "flat": linear.flat,
    "box": _box,
    "pass": Pass, "ratio": Ratio, "sum_epsilon": Epsilon, "winner": Winner, "proportional": Proportional,
    "gate": Gate, "product": Product, "route": Route, "generic": Generic,
}  # fmt: skip


BOUNDS = ("low", "high")
KEYS = frozenset({"base", "name", "rules"})
WORDS = {"bias": ("absorb", "ignore"), "attention": ("shared", "constant")}


def composite_from(lines: Sequence[Mapping[str, Any]], *, base: str = "epsilon_plus", name: str = "own") -> Composite:
    """A composite from plain data: each line names a rule, its numbers, and the operations that it is for.

    Example:
        >>> composite_from([{"rule": "gamma", "gamma": 0.1, "layer": "features.*", "kind": "convolution"}]).name
        'own'

    Args:
        lines: the first that speaks for an operation counts; keys `rule`, the rule's numbers, and `kind`, `layer`
            (a pattern) or `position` ("first", "last").
        base: the preset that speaks for the rest.

    Raises:
        SettingError: an unknown rule, kind, position or base, or a number that the rule doesn't have.
    """
    check_known("composite", base, [*PRESETS])
    return PRESETS[base]().with_choices(*(_choice(line) for line in lines), name=name)


def _choice(line: Mapping[str, Any]) -> Choice:
    if not isinstance(line, Mapping) or "rule" not in line:
        raise SettingError(f"a line of a composite is {line!r}; write {{rule: …, layer: …, kind: …}}")
    words = {"rule": None, "kind": None, "layer": None, "position": "any", **line}
    name, kind, layer, position = (words.pop(key) for key in ("rule", "kind", "layer", "position"))
    check_known("relevance rule", name, [*RULES])
    if kind is not None:
        check_known("kind of operation", kind, KINDS_OF_RULES)
    check_known("position", position, POSITIONS)
    if layer is not None and not isinstance(layer, str):
        raise SettingError(f"layer: {layer!r} came; give a pattern of module paths, such as features.*")
    return Choice(RULES[name](**_settings(name, words)), kind, layer, position)


def _settings(name: str, words: Mapping[str, Any]) -> dict[str, Any]:
    """What a line says beside its rule, held against what the rule takes: numbers that are not negative, and words."""
    taken = {k: p.default for k, p in inspect.signature(RULES[name]).parameters.items() if k != "name"}
    found = {}
    for word, value in words.items():
        if word not in taken:
            raise SettingError(f'rule {name} has no "{word}"{nearest(word, taken)}; it takes {[*taken] or "nothing"}')
        if isinstance(taken[word], float):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            least = -math.inf if word in BOUNDS else 0
            if not number or not least <= value < math.inf or value == -math.inf:
                raise SettingError(
                    f"{word}={value!r} came for rule {name}; give a number{'' if word in BOUNDS else ' from 0 up'}"
                )
            value = float(value)
        elif type(value) is not type(taken[word]) or value not in WORDS.get(word, (value,)):
            raise SettingError(f"{word}={value!r} came for rule {name}; give one like {taken[word]!r}")
        found[word] = value
    return found


def read_composite(path: str | Path) -> Composite:
    """A composite from a .json or .yaml file: `{base: epsilon_plus, rules: [{rule: …, layer: …}, …]}`.

    Raises:
        FileError: no such file, or not of that form.
        SettingError: as for `composite_from`.
        MissingExtraError: a .yaml file, and PyYAML is not installed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(f"there is no composite {path} ({error.strerror}); presets: {', '.join(PRESETS)}") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is no text ({error.reason}); a composite is written in JSON or YAML") from error
    data = _parsed(path, text)
    if not _is_composite(data):
        raise FileError(f"{path}: expected {{base: …, name: …, rules: [{{rule: …, layer: …}}, …]}}")
    return composite_from(data["rules"], base=data.get("base", "epsilon_plus"), name=str(data.get("name", path.stem)))


def _is_composite(data: Any) -> bool:
    if not isinstance(data, dict) or not {*data} <= KEYS or not isinstance(data.get("rules"), list):
        return False
    return all(isinstance(line, dict) for line in data["rules"]) and isinstance(data.get("base", ""), str)


def _parsed(path: Path, text: str) -> Any:
    if path.suffix.lower() in (".yaml", ".yml"):
        try:
            import yaml
        except ImportError as error:
            raise MissingExtraError("PyYAML", "yaml", "a composite in YAML (JSON works without)") from error
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise FileError(f"{path} is no YAML ({error})") from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise FileError(f"{path} is no JSON ({error})") from error
