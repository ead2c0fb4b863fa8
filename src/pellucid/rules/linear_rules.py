"""Relevance rules of linear operations, each an equation written as data.

Every rule shares out what arrives in proportion to contributions:

    R_i = Σ_terms share · Σ_j  (Σ_pairs u_i v_ij) / (z_j ± ε) · R_j,      z_j = Σ_i Σ_pairs u_i v_ij + part of b_j

where `u` is a part of the input and `v` a part of the weight. The stabiliser ε has the sign of z, and 0 counts as
positive.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.core.derivatives import Grads
from pellucid.core.errors import SettingError
from pellucid.core.trace import Node
from pellucid.rules.ledger import Ledger, Sent
from pellucid.rules.linear_map import LinearMap, linear_map, precise
from pellucid.rules.structure import structure

Part = Callable[[Tensor], Tensor]
EPSILON = 1e-6


def same(t: Tensor) -> Tensor:
    """The whole of it."""
    return t


def positive(t: Tensor) -> Tensor:
    """`t⁺ = max(t, 0)`."""
    return t.clamp(min=0)


def negative(t: Tensor) -> Tensor:
    """`t⁻ = min(t, 0)`."""
    return t.clamp(max=0)


def nothing(t: Tensor) -> Tensor:
    """Zero."""
    return torch.zeros_like(t)


def ones(t: Tensor) -> Tensor:
    """One, for each number."""
    return torch.ones_like(t)


Bounds = Callable[[Node], Tensor]


@dataclass(frozen=True, eq=False)
class Bound:
    """A bound of an operation's input, in place of a part of it."""

    given: Tensor | Bounds

    def at(self, m: LinearMap) -> Tensor:
        found = self.given if isinstance(self.given, Tensor) else self.given(m.node)
        return found.to(m.x).expand_as(m.x)


def stabiliser(z: Tensor, epsilon: float) -> Tensor:
    """`ε sgn z`, where 0 counts as positive."""
    return torch.copysign(torch.full((), epsilon, dtype=z.dtype, device=z.device), z)


@dataclass(frozen=True)
class Term:
    """One quotient of a rule.

    Attributes:
        pairs: which part of the input meets which part of the weight.
        bias: the part of the bias in the denominator; that share of the relevance stays there.
        share: the factor on what arrives.
        where: outputs, by their recorded value, for which the term holds; None for all.
    """

    pairs: "tuple[tuple[Part | Bound, Part], ...]"
    bias: Part = same
    share: float = 1.0
    where: Callable[[Tensor], Tensor] | None = None

    def negated(self) -> "Term":
        pairs = tuple((u, _of_negative(v)) for u, v in self.pairs)
        return replace(
            self,
            pairs=pairs,
            bias=nothing if self.bias is nothing else _of_negative(self.bias),
            where=None if self.where is None else _of_negative(self.where),
        )


def _of_negative(part: Part) -> Part:
    return lambda t: part(-t)


@dataclass(frozen=True)
class LinearRule:
    """A rule for convolutions, linear layers and BatchNorm alone.

    Attributes:
        name: as in receipts, with its numbers.
        terms: its quotients.
        epsilon: the stabiliser's size; 0 for none (what arrives at a zero denominator then stays there).
        bias: "absorb" leaves the bias's share with the bias; "ignore" shares out everything among the inputs.
    """

    name: str
    terms: tuple[Term, ...]
    epsilon: float = EPSILON
    bias: str = "absorb"

    def negated(self) -> "LinearRule":
        """The same rule for the layer `−W x − b`."""
        return replace(self, name=f"{self.name}, negated", terms=tuple(term.negated() for term in self.terms))

    def __call__(self, node: Node, grads: Grads, ledger: Ledger) -> Sent:
        m = linear_map(node, structure(ledger.trace))
        kept: dict[str, Tensor] = {}
        sent = [self._term(term, m, precise(grads[0]), kept, ledger) for term in self.terms if grads[0] is not None]
        return [sent[0] if len(sent) == 1 else torch.stack(sent).sum(0)], kept

    def _term(self, term: Term, m: LinearMap, arriving: Tensor, kept: dict[str, Tensor], ledger: Ledger) -> Tensor:
        R = arriving if term.share == 1 else term.share * arriving
        if term.where is not None:
            R = torch.where(term.where(m.y), R, torch.zeros_like(R))
        bias = None if m.bias is None or self.bias == "ignore" or term.bias is nothing else term.bias(m.bias)
        recorded = term.pairs == ((same, same),) and m.exact_output
        quotients = _recorded(m) if recorded else _computed(m, term.pairs)
        z = quotients.z if bias is None else quotients.z + bias
        if self.epsilon:
            signed = stabiliser(z, self.epsilon)
            s = R / (z + signed)
            ledger.keep(kept, "epsilon", s, m.node, times=signed)
        else:
            blocked = z == 0
            s = torch.where(blocked, torch.zeros_like(z), R / z)
            ledger.keep(kept, "zero denominator", R * blocked, m.node)
        if bias is not None:
            ledger.keep(kept, "bias", s, m.node, times=bias)
        return quotients.back(s)


class _Quotients(NamedTuple):
    """`z = Σ_i Σ_pairs u_i v_ij` without bias, and `s -> Σ_pairs u_i Σ_j v_ij s_j`."""

    z: Tensor
    back: Callable[[Tensor], Tensor]


def _recorded(m: LinearMap) -> _Quotients:
    """The whole input with the whole weight: what was recorded is not computed again."""
    return _Quotients(m.y if m.bias is None else m.y - m.bias, lambda s: m.x * m.back(s))


def _computed(m: LinearMap, pairs: tuple[tuple[Part | Bound, Part], ...]) -> _Quotients:
    some = [(u, v) for u, v in pairs if not (u is negative and m.positive_input)]
    leaves = [(u.at(m) if isinstance(u, Bound) else u(m.x)).detach().requires_grad_() for u, _ in some]
    with torch.enable_grad():
        parts = [m.apply(leaf, v(m.weight)) for leaf, (_, v) in zip(leaves, some, strict=True)]
        z = parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)

    def back(s: Tensor) -> Tensor:
        found = torch.autograd.grad(z, leaves, s)
        sent = [leaf.detach() * g for leaf, g in zip(leaves, found, strict=True)]
        return sent[0] if len(sent) == 1 else torch.stack(sent).sum(0)

    return _Quotients(z.detach(), back)


def epsilon(epsilon: float = EPSILON) -> LinearRule:
    """`R_i = Σ_j x_i w_ij / (z_j + ε sgn z_j) R_j` with `z_j = Σ_i x_i w_ij + b_j` (Bach et al. 2015, eq. 58)."""
    return LinearRule(f"epsilon({epsilon:g})", (Term(((same, same),)),), epsilon)


def zero() -> LinearRule:
    """The ε rule without stabiliser, LRP-0 (Bach et al. 2015, eq. 56); what arrives at z = 0 stays there."""
    return LinearRule("zero", (Term(((same, same),)),), 0.0)


def gamma(gamma: float = 0.25, epsilon: float = EPSILON) -> LinearRule:
    """`w → w + γ w⁺`, `b → b + γ b⁺`, for inputs ≥ 0 (Montavon et al. 2019, section 10.2.3)."""
    raised = lambda w: w + gamma * w.clamp(min=0)  # noqa: E731
    return LinearRule(f"gamma({gamma:g})", (Term(((same, raised),), bias=raised),), epsilon)


def signed_gamma(gamma: float = 0.25, epsilon: float = EPSILON) -> LinearRule:
    """The γ rule for inputs of either sign (Andéol et al. 2021).

    Where `y_j > 0` the positive contributions `x⁺w⁺ + x⁻w⁻` are raised by γ, where `y_j < 0` the negative ones.
    """
    up = lambda w: w + gamma * w.clamp(min=0)  # noqa: E731
    down = lambda w: w + gamma * w.clamp(max=0)  # noqa: E731
    above = Term(((positive, up), (negative, down)), bias=up, where=lambda y: y >= 0)
    below = Term(((positive, down), (negative, up)), bias=down, where=lambda y: y < 0)
    return LinearRule(f"signed_gamma({gamma:g})", (above, below), epsilon)


def alpha_beta(alpha: float = 2.0, beta: float = 1.0, epsilon: float = EPSILON) -> LinearRule:
    """`R_i = Σ_j (α z_ij⁺/z_j⁺ − β z_ij⁻/z_j⁻) R_j`, `α − β = 1` (Bach et al. 2015, eq. 60).

    `z_ij⁺ = x_i⁺w_ij⁺ + x_i⁻w_ij⁻`; the denominators hold the bias of that sign.

    Raises:
        SettingError: α − β is not 1, which would add relevance or take some away.
    """
    if abs(alpha - beta - 1) > 1e-9:
        raise SettingError(f"alpha={alpha:g} and beta={beta:g} came; alpha - beta must be 1, as in 2 and 1")
    plus = Term(((positive, positive), (negative, negative)), bias=positive, share=alpha)
    minus = Term(((positive, negative), (negative, positive)), bias=negative, share=-beta)
    terms = (plus, minus) if beta else (plus,)
    return LinearRule(f"alpha_beta({alpha:g}, {beta:g})", terms, epsilon)


def z_plus(epsilon: float = EPSILON, bias: str = "absorb") -> LinearRule:
    """`R_i = Σ_j z_ij⁺ / z_j⁺ R_j`, the αβ rule with α = 1 (Montavon et al. 2017, eq. 16 for x ≥ 0)."""
    name = "z_plus" if bias == "absorb" else "z_plus(no bias)"
    return replace(alpha_beta(1.0, 0.0, epsilon), name=name, bias=bias)


def w_square(epsilon: float = 0.0) -> LinearRule:
    """`R_i = Σ_j w_ij² / Σ_i w_ij² R_j` (Montavon et al. 2017, eq. 12); padded places count for nothing."""
    return LinearRule("w_square", (Term(((ones, torch.square),), bias=nothing),), epsilon)


def flat(epsilon: float = 0.0) -> LinearRule:
    """`R_i = Σ_j 1/n_j R_j` over the inputs that j reads (Lapuschkin et al. 2019)."""
    return LinearRule("flat", (Term(((ones, ones),), bias=nothing),), epsilon)


def box(low: "Tensor | Bounds", high: "Tensor | Bounds", epsilon: float = EPSILON) -> LinearRule:
    """`R_i = Σ_j (x_i w_ij − l_i w_ij⁺ − h_i w_ij⁻) / Σ_i (…) R_j` for inputs in [l, h] (Montavon et al. 2017, eq. 14).

    Args:
        low, high: the bounds in the network's own units, of a shape that fits the input; or, for each operation, what
            finds them.
    """
    minus_positive = lambda w: -w.clamp(min=0)  # noqa: E731
    minus_negative = lambda w: -w.clamp(max=0)  # noqa: E731
    pairs = ((same, same), (Bound(low), minus_positive), (Bound(high), minus_negative))
    return LinearRule("box", (Term(pairs, bias=nothing),), epsilon)
