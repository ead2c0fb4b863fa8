"""What came of a spike-timing rule: which synapses it favours, and whether it agrees with the weights."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from PIL import Image
from torch import Tensor

from pellucid.core.tables import Table, table
from pellucid.inside.showing import Shows
from pellucid.inside.wiring.drawing import matrix_picture
from pellucid.inside.wiring.tally import known
from pellucid.render.sheet import beside, stacked

LISTED = 20


@dataclass(frozen=True, eq=False)
class StdpProbe(Shows):
    """The change that spike timing makes to a copy of a layer's weights.

    Attributes:
        change: Δw of every synapse, in the scale in which the largest weight is `start.max()`; as the layer's weight.
        start: w before.
        covariance: of the strengths before and behind each synapse over the pictures.
        causal: in what part of the pictures in which its channel fired a synapse grew; NaN where it never did.
        fired: for each channel in how many pictures it fired (over all passes).
        spatial, groups: whether it is a convolution, and of how many groups.
        accuracy, accuracy_after: of the network and of the updated copy; None without labels.
        same_fraction: part of the pictures that the updated copy decides as the network does.
        weight: the updated weight of the copy.
    """

    model: str
    layer: str
    pictures: int
    change: Float64[np.ndarray, "out *rest"]
    start: Float64[np.ndarray, "out *rest"]
    covariance: Float64[np.ndarray, "out *rest"]
    causal: Float64[np.ndarray, "out *rest"]
    fired: Int64[np.ndarray, " out"]
    spatial: bool
    groups: int
    accuracy: float | None
    accuracy_after: float | None
    same_fraction: float
    weight: Tensor

    @property
    def title(self) -> str:
        """Of which layer."""
        return f"What spike timing makes of {self.layer}"

    @property
    def potentiation(self) -> Float64[np.ndarray, " out"]:
        """Mean Δw over each output channel's synapses."""
        return self.change.reshape(len(self.change), -1).mean(1)

    @property
    def agreement(self) -> float:
        """`cos(Δw, |W|)`; NaN where nothing changed."""
        return _cosine(self.change, self.start)

    @property
    def agreements(self) -> Float64[np.ndarray, " out"]:
        """`cos(Δw, |W|)` channel by channel; NaN where nothing changed."""
        return np.array([_cosine(d, w) for d, w in zip(self.change, self.start, strict=True)])

    @property
    def sign_agreement(self) -> float:
        """Part of the changed synapses that grow where the covariance is positive and shrink where it is negative."""
        moved = (self.change != 0) & (self.covariance != 0)
        return float((np.sign(self.change) == np.sign(self.covariance))[moved].mean()) if moved.any() else float("nan")

    @property
    def covariance_agreement(self) -> float:
        """Correlation of `Δw / w (1 − w)` with the covariance, over all synapses; NaN where one is constant."""
        room = self.start * (1 - self.start)
        live = room > 0
        relative, with_it = self.change[live] / room[live], self.covariance[live]
        if live.sum() < 2 or np.ptp(relative) == 0 or np.ptp(with_it) == 0:
            return float("nan")
        return float(np.corrcoef(relative, with_it)[0, 1])

    @property
    def coupling(self) -> Float64[np.ndarray, "sources targets"]:
        """Δw from input channel to output channel, summed over the kernel; NaN between different groups."""
        return self._by_channel(self.change.reshape(*self.change.shape[:2], -1).sum(2))

    @property
    def causality(self) -> Float64[np.ndarray, "sources targets"]:
        """`causal` from input channel to output channel, averaged over the kernel; NaN between different groups."""
        return self._by_channel(self.causal.reshape(*self.causal.shape[:2], -1).mean(2))

    def _by_channel(self, synapses: Float64[np.ndarray, "out per"]) -> Float64[np.ndarray, "sources targets"]:
        out, per = synapses.shape
        found = np.full((per * self.groups, out), np.nan)
        for j in range(out):
            first = j // (out // self.groups) * per
            found[first : first + per, j] = synapses[j]
        return found

    @property
    def edges(self) -> list[tuple[int, int, float]]:
        """The links of the coupling graph that change most: input channel, output channel, Δw."""
        found = np.nan_to_num(self.coupling)
        order = np.argsort(-np.abs(found), axis=None, kind="stable")[:LISTED]
        return [
            (int(i), int(j), float(found[i, j])) for i, j in zip(*np.unravel_index(order, found.shape), strict=True)
        ]

    def image(self) -> Image.Image:
        parts = [
            matrix_picture(
                matrix, title, [str(i) for i in range(len(matrix))], [str(j) for j in range(len(self.change))],
                sides=("input channels", "output channels"), units=units, diverging=diverging,
            )
            for matrix, title, units, diverging in (
                (self.coupling, f"{self.model}: {self.title}",
                 f"change of w, summed over the kernel; {self.pictures} pictures", True),
                (self.causality, "How often a synapse grew",
                 "part of the pictures in which the output channel fired, mean over the kernel", False),
            )
        ]  # fmt: skip
        found = stacked(parts) if len(self.change) > 2 * len(self.coupling) else beside(parts)
        assert found is not None
        return found

    def sentence(self) -> str:
        if not self.change.any():
            return f"Nothing of {self.layer} learns anything in {self.pictures} pictures."
        grown = float((self.change > 0).mean())
        told = (
            f"Over {self.pictures} pictures {grown:.1%} of the synapses of {self.layer} grow. The change has a "
            f"cosine of {self.agreement:.2f} with the size of the weights"
        )
        if np.isfinite(self.covariance_agreement):
            told += (
                f"; its size relative to them correlates by {self.covariance_agreement:.2f} with the covariance of "
                "what fires before and behind"
            )
        told += f". The updated copy decides {self.same_fraction:.0%} of the pictures as before"
        if self.accuracy is None or self.accuracy_after is None:
            return f"{told}."
        return f"{told}; its accuracy is {self.accuracy_after:.1%}, that of the network {self.accuracy:.1%}."

    @property
    def tables(self) -> tuple[Table, ...]:
        agree = [known(a) for a in self.agreements]
        rows = sorted(
            zip(range(len(self.change)), self.potentiation.tolist(), agree, self.fired.tolist(), strict=True),
            key=lambda row: -abs(row[1]),
        )
        channels = table("channels", ("channel", "mean Δw", "cos(Δw, |W|)", "pictures in which it fired"), rows)
        return channels, table("links", ("input channel", "output channel", "Δw"), self.edges)

    def facts(self) -> dict[str, Any]:
        return {
            **super().facts(), "model": self.model, "layer": self.layer, "pictures": self.pictures,
            "agreement": known(self.agreement), "sign_agreement": known(self.sign_agreement),
            "covariance_agreement": known(self.covariance_agreement), "accuracy": self.accuracy,
            "accuracy_after": self.accuracy_after, "same_fraction": self.same_fraction,
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"StdpProbe({self.model}, {self.layer}, {self.pictures} pictures, cos {self.agreement:.2f})"


def _cosine(a: Float64[np.ndarray, "*shape"], b: Float64[np.ndarray, "*shape"]) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum() / size) if size else float("nan")
