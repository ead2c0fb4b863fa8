"""The strongest links of a network as a graph: DeepLIFT from layer to layer, checked by ablation."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float64
from PIL import Image
from torch import nn

from pellucid.core.errors import LayerError, MethodError, SettingError
from pellucid.core.progress import Progress, watching
from pellucid.core.ranks import spearman
from pellucid.core.tables import Table, table
from pellucid.images.datasets import Data, Pictures
from pellucid.inside.opened import Opened
from pellucid.inside.showing import Shows
from pellucid.inside.wiring.coupling import ZERO, Asking, coupled, reference_input
from pellucid.inside.wiring.graph_drawing import graph_picture
from pellucid.inside.wiring.places import (
    CLASSES,
    chain,
    downstream,
    gathered,
    names_of,
    place,
    probabilities,
    recordings,
)
from pellucid.inside.wiring.switching import without
from pellucid.inside.wiring.tally import Tally, known
from pellucid.methods.deeplift import reference_of
from pellucid.models.model import Model
from pellucid.models.resolve import the_model


@dataclass(frozen=True)
class Edge:
    """One link.

    Attributes:
        source, target: names of the units, such as `"layer3:17"` or `"classes:cat"`.
        strength: `C_ij`, the part of the change of the later unit's mean from the reference that the earlier one
            brings; mean over the pictures.
        error: its standard error; NaN for a single picture.
        ablated: how far the later unit's mean falls when the earlier one is put to the reference.
    """

    source: str
    target: str
    strength: float
    error: float
    ablated: float


@dataclass(frozen=True, eq=False)
class InfluenceGraph(Shows):
    """Units of some layers and the classes, and the strongest links between neighbours.

    Attributes:
        layers: from the first to the last, with `"classes"` at the end.
        nodes: for each layer the units that are drawn, by name.
        edges: for each pair of neighbours its strongest links, strongest first.
        agreement: for each pair of neighbours Spearman's correlation of C with ablation over all links between the
            units drawn and all earlier units.
        drawn_agreement: the same over all drawn edges, pair by pair scaled to the largest.
    """

    model: str
    layers: tuple[str, ...]
    nodes: tuple[tuple[str, ...], ...]
    edges: tuple[tuple[Edge, ...], ...]
    agreement: tuple[float, ...]
    drawn_agreement: float
    pictures: int
    title: str = "Who influences whom"

    def image(self) -> Image.Image:
        links = [[(e.source, e.target, e.strength) for e in pair] for pair in self.edges]
        return graph_picture(
            f"{self.model}: who influences whom (DeepLIFT, {self.pictures} pictures)", self.layers, self.nodes, links
        )

    def sentence(self) -> str:
        best = [pair[0] for pair in self.edges if pair]
        if not best:
            return f"Nothing of these layers counts for the classes in {self.pictures} pictures."
        told = "; ".join(f"{e.source} {'raises' if e.strength > 0 else 'lowers'} {e.target}" for e in best)
        checks = ", ".join(f"{rho:.2f}" for rho in self.agreement)
        return (
            f"The strongest links: {told}. Against ablation, Spearman is {checks} for the pairs of "
            f"layers, {self.drawn_agreement:.2f} for the links drawn."
        )

    @property
    def tables(self) -> tuple[Table, ...]:
        rows = [(e.source, e.target, e.strength, known(e.error), e.ablated) for pair in self.edges for e in pair]
        columns = ("from", "to", "C (DeepLIFT)", "± standard error", "by ablation")
        return (table("links", columns, rows, self.sentence()),)

    def facts(self) -> dict[str, Any]:
        return {
            **super().facts(), "model": self.model, "layers": list(self.layers), "pictures": self.pictures,
            "nodes": [list(names) for names in self.nodes], "agreement": [known(rho) for rho in self.agreement],
            "drawn_agreement": known(self.drawn_agreement),
        }  # fmt: skip

    def __repr__(self) -> str:
        count = sum(map(len, self.edges))
        return f"InfluenceGraph({' > '.join(self.layers)}, {count} links, {self.pictures} pictures)"


def influence_graph(
    model: Model | nn.Module | str,
    layers: Sequence[str] | None,
    data: Data,
    *,
    top: int = 30,
    units: int = 12,
    baseline: Any = ZERO,
    progress: Progress | bool | None = None,
) -> InfluenceGraph:
    """Which units bring about which, from layer to layer and up to the classes.

    `C_ij = Σ_p m_Δa_i,p,Δb_j Δa_i,p` by the Rescale rule, averaged over the pictures. The classes are the most probable
    ones; from these backwards each layer keeps the units with the largest `Σ_j |C_ij|`. Every link of a kept unit is
    asked for again by ablation: the earlier unit at its reference values.

    Args:
        layers: any number, in any order; by default the last three through which everything goes.
        data: a folder, pictures, or inputs `(n, c, ...)`.
        top: how many links are drawn between two layers.
        units: how many units of a layer are drawn at most.
        baseline: the reference: `"zero"` in the network's input space, a named baseline, or a tensor of inputs.

    Raises:
        LayerError: no such layer, or one does not depend on the one before it.
        SettingError: a setting out of range.
        ImageError: no picture can be read.

    Source: as described in the project's first description; DeepLIFT: Shrikumar, Greenside & Kundaje 2017,
        arXiv:1704.02685, section 3.
    """
    if top < 1 or units < 1:
        raise SettingError(f"top={top} and units={units} came; give at least one of each")
    asking, chosen = Asking("deep_lift", baseline=baseline), the_model(model)
    with watching(progress) as bar:
        data, first = gathered(chosen, data)
        names = _in_order(first, layers)
        work = _Work(data, first, asking, bar, top, units)
        pairs = [work.pair(a, b) for a, b in reversed(list(pairwise(names)))][::-1]
    nodes = [tuple(work.name(layer, i) for i in sorted(work.kept[layer])) for layer in names]
    scaled = [_scaled(pair) for pair in pairs]
    drawn = spearman(*(np.concatenate([s[side] for s in scaled]) for side in (0, 1)))
    return InfluenceGraph(
        chosen.name, tuple(names), tuple(nodes), tuple(pair.edges for pair in pairs),
        tuple(pair.agreement for pair in pairs), drawn, work.pictures,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Pair:
    edges: tuple[Edge, ...]
    agreement: float


@dataclass(eq=False)
class _Work:
    """Pair after pair, from the classes backwards; `kept` holds the units of each layer that are drawn."""

    data: Pictures
    first: Opened
    asking: Asking
    bar: Progress
    top: int
    units: int

    def __post_init__(self) -> None:
        self.kept: dict[str, list[int]] = {}
        self.pictures = 0

    def name(self, layer: str, unit: int) -> str:
        return f"{layer}:{names_of(self.first, layer)[unit]}"

    def pair(self, source: str, target: str) -> _Pair:
        if target not in self.kept:
            self.kept[target] = self._said()
        targets = self.kept[target]
        found, _ = coupled(self.asking, self.data, self.first, source, target, self.bar, targets=targets)
        C, errors, self.pictures = found.mean, found.error, found.count
        self.kept[source] = _best(np.abs(C).sum(1), self.units)
        E = self._ablated(source, target, targets)
        rows = self.kept[source]
        strongest = sorted(((i, j) for i in rows for j in range(len(targets)) if C[i, j]), key=lambda p: -abs(C[p]))
        edges = [
            Edge(
                self.name(source, i), self.name(target, targets[j]), float(C[i, j]), float(errors[i, j]), float(E[i, j])
            )
            for i, j in strongest[: self.top]
        ]
        return _Pair(tuple(edges), spearman(C.ravel(), E.ravel()))

    def _said(self) -> list[int]:
        """The classes that the network finds most probable over all pictures."""
        tally = Tally()
        for _, now in recordings(self.data, self.first):
            classes = place(now.trace, CLASSES)
            tally.add(probabilities(classes.means(classes.value.data)))
        if not np.isfinite(tally.mean).all():
            name = self.first.model.name
            raise MethodError(f"the answer is not finite: {name} makes NaN or infinite numbers of these pictures")
        return _best(tally.mean, self.units)

    def _ablated(self, source: str, target: str, targets: list[int]) -> Float64[np.ndarray, "sources targets"]:
        """How far later units fall when an earlier one is put to its reference values."""
        tally = Tally()
        self.bar.expect(len(self.data) * place(self.first.trace, source).units)
        for _, now in recordings(self.data, self.first):
            a, b = downstream(now.trace, source, target)
            start = reference_input(self.first.model, now.trace.inputs[0].data, self.asking.baseline)
            away = a.per_unit(reference_of(now.trace, start).before(a.value))
            before = b.means(b.value.data)
            after = without(now.trace, a, list(range(a.units)), away, b, self.bar)
            tally.add((before[:, None] - after)[:, :, targets])
        return tally.mean


def _in_order(first: Opened, layers: Sequence[str] | None) -> list[str]:
    end = place(first.trace, CLASSES).value
    known = chain(first.trace)[:-1][-3:] if layers is None else layers
    known = [name for name in known if name != CLASSES and place(first.trace, name).value is not end]
    names = sorted(dict.fromkeys(known), key=lambda name: place(first.trace, name).value.position)
    if not names:
        raise LayerError("no layer before the classes came; name one or more")
    for pair in pairwise([*names, CLASSES]):
        downstream(first.trace, *pair)
    return [*names, CLASSES]


def _best(strength: Float64[np.ndarray, " n"], count: int) -> list[int]:
    order = np.argsort(-strength, kind="stable")[:count]
    return sorted(int(i) for i in order if strength[i] > 0)


def _scaled(pair: _Pair) -> tuple[Float64[np.ndarray, " e"], Float64[np.ndarray, " e"]]:
    """Strengths and ablations of a pair's edges, each over the largest, so that pairs can be put together."""
    both = np.array([[e.strength, e.ablated] for e in pair.edges]).reshape(-1, 2)
    both = both / np.maximum(np.abs(both).max(0, initial=0), 1e-30)
    return both[:, 0], both[:, 1]
