"""The coupling of two layers as a matrix, its units in groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from PIL import Image
from torch import nn

from pellucid.core.errors import SettingError
from pellucid.core.progress import Progress, watching
from pellucid.core.tables import Table, table
from pellucid.images.datasets import Data
from pellucid.inside.showing import Shows
from pellucid.inside.wiring.clusters import Groups, blocks, grouped
from pellucid.inside.wiring.coupling import SAID, ZERO, Asking, How, coupled
from pellucid.inside.wiring.drawing import matrix_picture
from pellucid.inside.wiring.places import gathered, names_of
from pellucid.inside.wiring.tally import known
from pellucid.methods.run import check_seed
from pellucid.models.model import Model
from pellucid.models.resolve import the_model

LISTED = 30


@dataclass(frozen=True, eq=False)
class CouplingMatrix(Shows):
    """How strongly each unit of one place depends on each unit of an earlier one.

    Attributes:
        matrix: `C_ij`, earlier unit i on later unit j, in the unit of the later unit's mean; mean over the pictures.
        errors: its standard errors; NaN for a single picture.
        level: mean of each later unit.
        groups: of units, found or given; `groups.tightness` says how much more lies inside them than expected.
        given: the groups were given.
    """

    model: str
    source: str
    target: str
    how: str
    matrix: Float64[np.ndarray, "sources targets"]
    errors: Float64[np.ndarray, "sources targets"]
    level: Float64[np.ndarray, " targets"]
    source_names: tuple[str, ...]
    target_names: tuple[str, ...]
    groups: Groups
    given: bool
    pictures: int

    @property
    def title(self) -> str:
        """Which two places."""
        return f"What goes from {self.source} to {self.target}"

    @property
    def blocks(self) -> Float64[np.ndarray, "groups groups"]:
        """The part of all coupling between each group of earlier units and each group of later ones."""
        return blocks(self.matrix, self.groups)

    def image(self) -> Image.Image:
        g = self.groups
        cuts = [
            np.flatnonzero(np.diff(of[order])) + 1 for of, order in ((g.rows, g.row_order), (g.columns, g.column_order))
        ]
        return matrix_picture(
            self.matrix[np.ix_(g.row_order, g.column_order)],
            f"{self.model}: {self.title}",
            [self.source_names[i] for i in g.row_order],
            [self.target_names[j] for j in g.column_order],
            sides=(f"units of {self.source}", f"units of {self.target}"),
            units=f"{SAID[self.how]}; {self.pictures} pictures",
            cuts=(cuts[0].tolist(), cuts[1].tolist()),
        )  # fmt: skip

    def sentence(self) -> str:
        if not self.matrix.any():
            return f"Nothing of {self.source} counts for {self.target} in {self.pictures} pictures."
        i, j = np.unravel_index(np.argmax(np.abs(self.matrix)), self.matrix.shape)
        verb = "raises" if self.matrix[i, j] >= 0 else "lowers"
        return (
            f"The strongest of {self.matrix.size} links: {self.source}:{self.source_names[i]} {verb} "
            f"{self.target}:{self.target_names[j]} by {abs(self.matrix[i, j]):.3g}. {self._tight()}"
        )

    def _tight(self) -> str:
        g, how = self.groups, "given" if self.given else "found"
        anew = "" if self.given else " and grouped anew"
        return (
            f"{g.inside_fraction:.0%} of all coupling lies inside the {g.count} groups that were {how}, "
            f"{100 * g.tightness:.1f} points more than units of the same total strength would give "
            f"({100 * g.chance:.1f} points for links that are shuffled{anew})."
        )

    @property
    def tables(self) -> tuple[Table, ...]:
        order = np.argsort(-np.abs(self.matrix), axis=None, kind="stable")[:LISTED]
        rows = []
        for i, j in zip(*np.unravel_index(order, self.matrix.shape), strict=True):
            rows.append((self.source_names[i], self.target_names[j], self.matrix[i, j], known(self.errors[i, j])))
        links = table("links", (self.source, self.target, "strength", "± standard error"), rows, SAID[self.how])
        shares = [[f"group {g}", *row] for g, row in enumerate(self.blocks.tolist(), 1)]
        names = (f"{self.source} to {self.target}", *(f"group {g}" for g in range(1, self.groups.count + 1)))
        return links, table("groups", names, shares, self._tight() if self.matrix.any() else "")

    def facts(self) -> dict[str, Any]:
        g = self.groups
        return {
            **super().facts(), "model": self.model, "source": self.source, "target": self.target, "how": self.how,
            "pictures": self.pictures, "matrix": self.matrix.tolist(),
            "source_groups": g.rows.tolist(), "target_groups": g.columns.tolist(),
            "inside_fraction": known(g.inside_fraction), "tightness": known(g.tightness), "chance": known(g.chance),
        }  # fmt: skip

    def __repr__(self) -> str:
        size = "×".join(map(str, self.matrix.shape))
        return f"CouplingMatrix({self.source} to {self.target}, {size}, {self.how}, {self.pictures} pictures)"


def coupling_matrix(
    model: Model | nn.Module | str,
    source: str,
    target: str,
    data: Data,
    *,
    how: How = "ablation",
    fill: str = ZERO,
    composite: Any = "epsilon_plus",
    baseline: Any = ZERO,
    clusters: int | None = None,
    groups: tuple[Sequence[Any], Sequence[Any]] | None = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> CouplingMatrix:
    """How strongly each unit of one layer depends on each unit of an earlier one, and which belong together.

    b_j is the later unit's mean over its positions. Every way of asking answers in its unit:

        ablation    `b_j − b_j(a_i := fill)`
        gradient    `Σ_p a_i,p ∂b_j/∂a_i,p`
        deep_lift   `Σ_p m_Δa_i,p,Δb_j Δa_i,p`, with `Σ_i C_ij = Δb_j` where everything goes through the source
        relevance   `Σ_p R_i,p` of a walk that starts with `b_j`

    Ablation runs what lies between the layers once for each earlier unit, the others walk once for each later unit.

    Args:
        source, target: layers, the earlier one first; `"input"` and `"classes"` are the network's ends.
        data: a folder, pictures, or inputs `(n, c, ...)`.
        fill: for `ablation`, what stands for a unit that is off: `"zero"`, or its `"mean"` over all pictures.
        composite: for `relevance`, the rules: a preset, a file, or a Composite.
        baseline: for `deep_lift`, the reference: `"zero"` in the network's input space, a name, or a tensor.
        clusters: how many groups are sought; chosen where it is None.
        groups: the groups themselves: a mark for every earlier unit, and one for every later unit.
        seed: of the grouping.

    Raises:
        LayerError: no such layer, or the target does not depend on the source.
        SettingError: a setting out of range.
        MethodError: an operation on the way has no faithful relevance rule.
        ImageError: no picture can be read.
    """
    if clusters is not None and clusters < 1:
        raise SettingError(f"clusters={clusters} came; give at least one")
    check_seed(seed)
    asking, chosen = Asking(how, fill, composite, baseline), the_model(model)
    with watching(progress) as bar:
        data, first = gathered(chosen, data)
        names = names_of(first, source), names_of(first, target)
        given = None if groups is None else _marked(groups, (len(names[0]), len(names[1])))
        found, level = coupled(asking, data, first, source, target, bar)
    return CouplingMatrix(
        chosen.name, source, target, how, found.mean, found.error, level.mean, *names,
        grouped(found.mean, clusters, given, seed), given is not None, found.count,
    )  # fmt: skip


def _marked(groups: tuple[Sequence[Any], Sequence[Any]], sizes: tuple[int, int]) -> Any:
    """The same marks as numbers, over both layers.

    Raises:
        SettingError: not one mark for every unit.
    """
    if tuple(map(len, groups)) != sizes:
        raise SettingError(
            f"{' and '.join(str(len(g)) for g in groups)} marks came for {sizes[0]} and {sizes[1]} units"
        )
    number = {mark: i for i, mark in enumerate(dict.fromkeys([*groups[0], *groups[1]]))}
    return tuple(np.array([number[mark] for mark in side]) for side in groups)
