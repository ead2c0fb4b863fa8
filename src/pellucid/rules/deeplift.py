"""DeepLIFT: multipliers of differences from a reference, played backwards over a recording and its reference.

Every operation sends back `m_Δx = Σ_y m_Δy · Δy/Δx`, so that `Σ_i m_i Δx_i` is the same number at every cut: the
change of the score from the reference. This is the table of which operation follows which rule.
"""

from dataclasses import dataclass, field
from typing import Literal

from pellucid.core.derivatives import Grads, argument
from pellucid.core.pull import Rule, Rules
from pellucid.core.trace import Node
from pellucid.rules.differences import (
    DifferenceRule,
    Reference,
    along_the_path,
    derivative,
    extremum,
    midpoint,
    normalise,
    quotient,
    rescale,
    through,
)
from pellucid.rules.reveal_cancel import linear_of_two, producer, reveal_cancel
from pellucid.rules.structure import is_linear

Nonlinearity = Literal["rescale", "reveal_cancel", "genomics"]
LINEAR_KINDS = frozenset({"average_pool", "view", "concatenate", "sum", "upsample", "dropout"})
LINEAR_BASES = frozenset(
    "write sum neg copy fill zero lift_fresh clone cumsum tril triu diagonal unfold rot90 trace real "
    "index_add index_copy index_put masked_fill masked_select scatter scatter_add slice_scatter select_scatter "
    "index_select take affine_grid_generator repeat_interleave where max_unpool2d max_unpool3d im2col col2im".split()
)
CURVED_KINDS = frozenset({"rectifier", "squash", "clamp"})
CURVED_BASES = frozenset(
    "abs exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square pow reciprocal sin cos tan asin acos atan sinh cosh "
    "erf erfc sign round floor ceil trunc softshrink hardshrink log_sigmoid log_sigmoid_forward div".split()
)
PRODUCTS = frozenset("mul bmm baddbmm matmul addmm mm linear addcmul lerp".split())
EXTREMA = frozenset("max maximum amin min minimum".split())


@dataclass(frozen=True)
class DeepLiftRules(Rules):
    """The rule table for one recording and one reference."""

    reference: Reference = field(kw_only=True)
    nonlinearity: Nonlinearity = field(kw_only=True, default="rescale")

    def pick(self, node: Node) -> Rule:
        rule = self._rule(node)

        def send(node: Node, grads: Grads) -> Grads:
            return rule(node, grads, self.reference)

        send.__name__ = rule.__name__.strip("_")
        return send

    def _rule(self, node: Node) -> DifferenceRule:
        rule = rule_of(node)
        if self.reference.chooses_differently(node):
            return along_the_path
        if node in self.reference.revealed:
            return linear_of_two
        return self._bend if rule is rescale and self.nonlinearity != "rescale" else rule

    def _bend(self, node: Node, grads: Grads, reference: Reference) -> Grads:
        """RevealCancel where the operation before is linear, of the kind that is asked for."""
        linear = producer(node, reference.trace)
        if linear is not None and (self.nonlinearity == "reveal_cancel" or linear.kind == "linear"):
            return reveal_cancel(node, grads, reference, linear)
        if self.nonlinearity == "reveal_cancel":
            reference.whole.add(f"{node.name} in {node.path or 'the network'}")
        return rescale(node, grads, reference)


def rule_of(node: Node) -> DifferenceRule:
    """The rule of an operation when activations are rescaled."""
    if node.gate is not None or _is_curve(node):
        return rescale
    if node.kind == "detach":
        return through
    if is_linear(node) or node.kind in LINEAR_KINDS or node.base in LINEAR_BASES or _is_affine_norm(node):
        return derivative
    if node.kind == "max_pool" or node.base in EXTREMA:
        return extremum
    if node.kind == "norm" and len(node.inputs) == 1 and not node.base.startswith("native"):
        return normalise
    if node.base in PRODUCTS or node.kind == "convolution" or _divides_by_a_constant(node):
        return midpoint
    return quotient if _is_quotient(node) else along_the_path


def _is_curve(node: Node) -> bool:
    """A function of one number, applied to each number by itself."""
    known = node.kind in CURVED_KINDS or node.base in CURVED_BASES
    alone = len(node.inputs) == 1 and node.inputs[0].shape == node.output.shape
    return known and alone and not _divides_by_a_constant(node)


def _divides_by_a_constant(node: Node) -> bool:
    plain = node.base == "div" and argument(node, "rounding_mode") is None
    return plain and len(node.inputs) == 1 and node.args[0] is node.inputs[0]


def _is_quotient(node: Node) -> bool:
    return node.base == "div" and argument(node, "rounding_mode") is None and len(node.inputs) == 2


def _is_affine_norm(node: Node) -> bool:
    """A normalisation by stored statistics."""
    if len(node.inputs) != 1:
        return False
    if node.kind == "batch_norm":
        return argument(node, "running_var") is not None and not argument(node, "training", False)
    return node.base == "instance_norm" and argument(node, "use_input_stats") is False
