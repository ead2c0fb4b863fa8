"""Methods of one walk backwards: saliency, gradient × input, guided backpropagation, deconvnet (A1–A4)."""

from collections import Counter
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from pellucid.core.operations import KINDS
from pellucid.core.pull import Rules
from pellucid.core.trace import Node, Trace
from pellucid.methods.case import Case
from pellucid.methods.registry import Verdict, method
from pellucid.rules.rectifiers import DECONVNET, GUIDED

SMOOTH = frozenset({"silu", "gelu", "hardswish", "mish", "elu", "selu", "celu", "softplus", "mul"})
PER_PIXEL = "change of the score per unit of normalised input"


def _rectifiers(trace: Trace) -> list[Node]:
    return [node for node in trace.nodes if node.kind == "rectifier"]


def _count(nodes: list[Node]) -> str:
    return ", ".join(f"{name} ×{n}" for name, n in Counter(node.base for node in nodes).most_common())


def rectifier_doctor(rule: str) -> Callable[[Trace], Verdict]:
    """What a rectifier rule can do on a network: exact where every rectifier is piecewise linear."""

    def doctor(trace: Trace) -> Verdict:
        found = _rectifiers(trace)
        smooth = [node for node in found if node.base in SMOOTH]
        if not found:
            return Verdict("approximate", "no rectifier was met, so this is the plain gradient")
        if smooth:
            return Verdict(
                "approximate", f"{_count(found)}; the papers define ReLU only, smooth ones follow our {rule} rule"
            )
        return Verdict("exact", f"rectifiers met: {_count(found)}")

    return doctor


def _deconvnet_doctor(trace: Trace) -> Verdict:
    verdict = rectifier_doctor("deconvnet")(trace)
    pools = [n for n in trace.nodes if n.base.startswith(tuple(KINDS["max_pool"]))]
    if pools:
        return verdict
    return Verdict(verdict.fit, f"{verdict.why}; no max-pooling, so no switches tie the map to this picture")


@method(
    "saliency",
    title="Saliency (gradient)",
    site="input",
    signed=False,
    reduce="max_abs",
    units=PER_PIXEL,
    source="Simonyan, Vedaldi & Zisserman 2013, arXiv:1312.6034, section 3",
    misleads="when it is read as evidence: it shows where the score is sensitive, and looks noisy on deep networks",
)
def saliency(case: Case) -> Float[Tensor, "b c *space"]:
    """The gradient of the score: `M = ∂ S_c / ∂ x`; the heat is `max_channels |M|` as in the paper.

    Returns:
        Signed gradient, `(b, c, ...)`, change of the score per unit of normalised input.
    """
    return case.pull()


@method(
    "gradient_x_input",
    title="Gradient × Input",
    site="input",
    units="share of the score (sums to it on a network without biases)",
    source="Shrikumar et al. 2016, arXiv:1605.01713, section 3; Kindermans et al. 2016, arXiv:1611.07270",
    misleads="where pixels are zero after normalisation: they get no heat, however much they matter",
)
def gradient_x_input(case: Case) -> Float[Tensor, "b c *space"]:
    """`R = x ⊙ ∂ S_c / ∂ x`; on a bias-free ReLU network `Σ R = S_c`."""
    return case.x * case.pull()


@method(
    "guided_backprop",
    title="Guided Backpropagation",
    site="input",
    units="guided signal (no unit; compare places, not sizes)",
    source="Springenberg et al. 2015, arXiv:1412.6806, section 3.4",
    misleads="when classes are compared: it sharpens edges that no class needs, so their maps look alike",
    doctor=rectifier_doctor("guided"),
)
def guided_backprop(case: Case) -> Float[Tensor, "b c *space"]:
    """The walk backwards with `R_in = f'(x) · max(R_out, 0)` at every rectifier."""
    return _modified(case, GUIDED)


@method(
    "deconvnet",
    title="DeconvNet",
    site="input",
    units="projected signal (no unit; compare places, not sizes)",
    source="Zeiler & Fergus 2014, arXiv:1311.2901, section 2.1",
    misleads="when it is read as evidence: it shows what the layers can rebuild, nearly the same for every class",
    doctor=_deconvnet_doctor,
)
def deconvnet(case: Case) -> Float[Tensor, "b c *space"]:
    """The walk backwards with `R_in = max(R_out, 0)` at every rectifier and the switches of every max-pool.

    With a `unit` target this is the projection of that unit back to the pixels.
    """
    return _modified(case, DECONVNET)


def _modified(case: Case, rules: Rules) -> Tensor:
    """A walk under rectifier rules, told as approximate where its rule goes beyond the paper's."""
    smooth = [node for node in _rectifiers(case.trace) if node.base in SMOOTH]
    if smooth:
        case.approximate.append(
            f"{rules.name} is defined for ReLU; {_count(smooth)} follow pellucid's rule for smooth rectifiers"
        )
    if not _rectifiers(case.trace):
        case.approximate.append(f"{rules.name} met no rectifier: this is the plain gradient")
    return case.pull(rules)
