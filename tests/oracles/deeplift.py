"""DeepLIFT written from Shrikumar et al. 2017, arXiv:1704.02685, on a network given as a graph of explicit matrices.

Δ is the value minus its value for the reference. A multiplier m of x for a target t satisfies m·Δx = contribution.

    affine          m_x = W^T m_y                                                                    eq. 3 (chain rule)
    Rescale         m_x = m_y · Δy/Δx, and m_y · f'(x) where Δx = 0                                  §3.5.2
    RevealCancel    Δx± = sums of the positive and negative contributions to x                       §3.5.3
                    Δy+ = 1/2 (f(x0 + Δx+) - f(x0)) + 1/2 (f(x0 + Δx- + Δx+) - f(x0 + Δx-)), Δy- alike
                    m_x± = m_y · Δy±/Δx±; an input i of the affine map gets W_ji m_x+ where W_ji Δi > 0,
                    W_ji m_x- where it is < 0, the mean of both where it is 0                        §3.5.1
    max-pool        with c = max(y, y0): m (c - y0) to the winner in x, m (y - c) to the winner in x0, over their Δx
    product         Δ(ab) = Δa (b + b0)/2 + Δb (a + a0)/2

Every rule sums to Δ by itself, so Σ_i m_i Δx_i = Δt for any target unit t. One example, flat float64 vectors,
no image of a batch beside it. A BatchNorm that is merged into a convolution is one matrix here, alone it is its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


def matrix_of(function: Function, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """W (outputs, inputs) and b of an affine function of one example, by putting in one unit vector after the other."""
    count = int(torch.tensor(shape).prod())
    bias = function(torch.zeros(1, *shape, dtype=torch.float64)).reshape(-1)
    columns = []
    bias = bias.detach()
    for i in range(count):
        unit = torch.zeros(count, dtype=torch.float64)
        unit[i] = 1
        columns.append(function(unit.reshape(1, *shape)).reshape(-1).detach() - bias)
    return torch.stack(columns, 1), bias


def pool_windows(
    shape: Sequence[int], kernel: int, stride: int, padding: int = 0, dilation: int = 1
) -> tuple[list[list[int]], tuple[int, ...]]:
    """For every output of a max-pool over the spatial axes of (channels, *space), its flat input positions."""
    channels, space = shape[0], tuple(shape[1:])
    sizes = [(n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for n in space]
    flat = torch.arange(channels * int(torch.tensor(space).prod())).reshape(channels, *space)
    found = []
    for c, *corner in product(range(channels), *map(range, sizes)):
        window = []
        for offset in product(range(kernel), repeat=len(space)):
            at = [stride * p - padding + dilation * o for p, o in zip(corner, offset, strict=True)]
            if all(0 <= a < n for a, n in zip(at, space, strict=True)):
                window.append(int(flat[(c, *at)]))
        found.append(window)
    return found, (channels, *sizes)


@dataclass(eq=False)
class Node:
    """One value of the graph; `shape` is that of one example."""

    kind: str
    parents: "tuple[Node, ...]"
    shape: tuple[int, ...]
    matrices: tuple[Tensor, ...] = ()
    bias: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    function: Function = torch.relu
    windows: list[list[int]] = field(default_factory=list)
    reveal: bool = False


class Graph:
    """Nodes in the order in which they were added; the first is the input."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.nodes = [Node("input", (), tuple(shape))]

    @property
    def input(self) -> Node:
        return self.nodes[0]

    def _add(self, node: Node) -> Node:
        self.nodes.append(node)
        return node

    def affine(self, x: Node, function: Function) -> Node:
        matrix, bias = matrix_of(function, x.shape)
        shape = tuple(function(torch.zeros(1, *x.shape, dtype=torch.float64)).shape[1:])
        return self._add(Node("affine", (x,), shape, (matrix,), bias))

    def add(self, *terms: Node) -> Node:
        eye = torch.eye(_count(terms[0].shape), dtype=torch.float64)
        return self._add(Node("affine", terms, terms[0].shape, (eye,) * len(terms)))

    def cat(self, *parts: Node) -> Node:
        """Along the channels, the first axis of an example."""
        counts = [_count(p.shape) for p in parts]
        whole = torch.eye(sum(counts), dtype=torch.float64)
        shape = (sum(p.shape[0] for p in parts), *parts[0].shape[1:])
        return self._add(Node("affine", parts, shape, tuple(whole.split(counts, 1))))

    def elementwise(self, x: Node, function: Function, reveal: bool = False) -> Node:
        return self._add(Node("elementwise", (x,), x.shape, function=function, reveal=reveal))

    def max_pool(self, x: Node, kernel: int, stride: int, padding: int = 0, dilation: int = 1) -> Node:
        windows, shape = pool_windows(x.shape, kernel, stride, padding, dilation)
        return self._add(Node("max", (x,), shape, windows=windows))

    def product(self, a: Node, b: Node) -> Node:
        return self._add(Node("product", (a, b), a.shape))

    def sequential(self, x: Node, *modules: nn.Module, reveal: bool = False) -> Node:
        """Modules one after the other: max-pools by their windows, activations elementwise, everything else affine."""
        for module in modules:
            if isinstance(module, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d):
                x = self.max_pool(x, module.kernel_size, module.stride, module.padding, module.dilation)
            elif type(module).__module__ == "torch.nn.modules.activation":
                x = self.elementwise(x, module, reveal)
            else:
                x = self.affine(x, module)
        return x

    def values(self, x: Tensor) -> dict[Node, Tensor]:
        """Node → its flat value for one example."""
        found = {self.input: x.reshape(-1)}
        for node in self.nodes[1:]:
            found[node] = _value(node, [found[p] for p in node.parents])
        return found

    def multipliers(self, x: Tensor, reference: Tensor, target: Node, unit: int) -> dict[Node, Tensor]:
        """Node → m of each of its elements for one unit of `target`."""
        at, base = self.values(x), self.values(reference)
        plus, minus = ({n: torch.zeros_like(at[n]) for n in self.nodes} for _ in range(2))
        plus[target][unit] = minus[target][unit] = 1
        for node in reversed(self.nodes[1:]):
            for parent, (p, m) in zip(node.parents, _back(node, plus[node], minus[node], at, base), strict=True):
                plus[parent] += p
                minus[parent] += m
        return {n: _joined(plus[n], minus[n], at[n] - base[n]) for n in self.nodes}

    def contributions(self, x: Tensor, reference: Tensor, unit: int, of: Node | None = None) -> Tensor:
        """m·Δ of the input (or node `of`) for a unit of the last node, shaped as one example."""
        of = of or self.input
        m = self.multipliers(x, reference, self.nodes[-1], unit)[of]
        return (m * (self.values(x)[of] - self.values(reference)[of])).reshape(of.shape)


def deep_shap(graph: Graph, x: Tensor, references: Sequence[Tensor], unit: int) -> Tensor:
    """Lundberg & Lee 2017, §4.2, in its usual form: the mean of the contributions over the references."""
    total = torch.zeros(graph.input.shape, dtype=torch.float64)
    for reference in references:
        total += graph.contributions(x, reference, unit)
    return total / len(references)


def _count(shape: Sequence[int]) -> int:
    return int(torch.tensor(shape).prod())


def _value(node: Node, parents: list[Tensor]) -> Tensor:
    if node.kind == "affine":
        return sum((w @ p for w, p in zip(node.matrices, parents, strict=True)), node.bias)
    if node.kind == "elementwise":
        return node.function(parents[0].reshape(1, *node.shape).clone()).reshape(-1)
    if node.kind == "max":
        return torch.stack([parents[0][window].max() for window in node.windows])
    return parents[0] * parents[1]


def _joined(plus: Tensor, minus: Tensor, delta: Tensor) -> Tensor:
    """The multiplier of a whole Δ: of its positive part where it is positive."""
    return torch.where(delta > 0, plus, torch.where(delta < 0, minus, (plus + minus) / 2))


def _back(
    node: Node, plus: Tensor, minus: Tensor, at: dict[Node, Tensor], base: dict[Node, Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """For each parent the multipliers of its positive and of its negative part."""
    if node.kind == "affine":
        return [(m, m) for m in _affine_back(node, plus, minus, at, base)]
    m = _joined(plus, minus, at[node] - base[node])
    if node.kind == "elementwise":
        return [_reveal_back(node, m, at, base) if node.reveal else _rescale_back(node, m, at, base)]
    if node.kind == "max":
        found = _max_back(node, m, at, base)
        return [(found, found)]
    a, b = node.parents
    for_a, for_b = m * (at[b] + base[b]) / 2, m * (at[a] + base[a]) / 2
    return [(for_a, for_a), (for_b, for_b)]


def _affine_back(
    node: Node, plus: Tensor, minus: Tensor, at: dict[Node, Tensor], base: dict[Node, Tensor]
) -> list[Tensor]:
    found = []
    for parent, w in zip(node.parents, node.matrices, strict=True):
        delta = at[parent] - base[parent]
        m = torch.zeros_like(delta)
        for i in range(len(delta)):
            m[i] = (w[:, i] * _joined(plus, minus, w[:, i] * delta[i])).sum()
        found.append(m)
    return found


def _slope(node: Node, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        (found,) = torch.autograd.grad(_value(node, [leaf]).sum(), leaf)
    return found


def _ratio(rise: Tensor, run: Tensor, otherwise: Tensor) -> Tensor:
    return torch.where(run == 0, otherwise, rise / torch.where(run == 0, torch.ones_like(run), run))


def _rescale_back(node: Node, m: Tensor, at: dict[Node, Tensor], base: dict[Node, Tensor]) -> tuple[Tensor, Tensor]:
    x, x0 = at[node.parents[0]], base[node.parents[0]]
    found = m * _ratio(at[node] - base[node], x - x0, _slope(node, x))
    return found, found


def signed_contributions(node: Node, at: dict[Node, Tensor], base: dict[Node, Tensor]) -> tuple[Tensor, Tensor]:
    """Δx+ and Δx- of a node: sums of the contributions of either sign, of itself where it is no affine map."""
    if node.kind != "affine":
        delta = at[node] - base[node]
        return delta.clamp(min=0), delta.clamp(max=0)
    plus, minus = torch.zeros_like(at[node]), torch.zeros_like(at[node])
    for parent, w in zip(node.parents, node.matrices, strict=True):
        for i, delta in enumerate(at[parent] - base[parent]):
            plus += (w[:, i] * delta).clamp(min=0)
            minus += (w[:, i] * delta).clamp(max=0)
    return plus, minus


def _reveal_back(node: Node, m: Tensor, at: dict[Node, Tensor], base: dict[Node, Tensor]) -> tuple[Tensor, Tensor]:
    parent = node.parents[0]
    x0, slope = base[parent], _slope(node, at[parent])
    plus, minus = signed_contributions(parent, at, base)

    def f(x: Tensor) -> Tensor:
        return _value(node, [x])

    rise = ((f(x0 + plus) - f(x0)) + (f(x0 + minus + plus) - f(x0 + minus))) / 2
    fall = ((f(x0 + minus) - f(x0)) + (f(x0 + plus + minus) - f(x0 + plus))) / 2
    return m * _ratio(rise, plus, slope), m * _ratio(fall, minus, slope)


def _max_back(node: Node, m: Tensor, at: dict[Node, Tensor], base: dict[Node, Tensor]) -> Tensor:
    x, x0 = at[node.parents[0]], base[node.parents[0]]
    shares = torch.zeros_like(x)
    winners: dict[int, float] = {}
    for j, window in enumerate(node.windows):
        here, there = window[int(x[window].argmax())], window[int(x0[window].argmax())]
        y, y0 = float(x[here]), float(x0[there])
        top = max(y, y0)
        shares[here] += m[j] * (top - y0)
        shares[there] += m[j] * (y - top)
        if y == y0:
            winners[here] = winners.get(here, 0.0) + float(m[j])
    still = torch.zeros_like(x)
    for position, share in winners.items():
        still[position] = share
    return _ratio(shares, x - x0, still)
