"""One layer in one picture: all its channels as heat maps, in any order, with their numbers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int64
from PIL import Image

from pellucid.core.errors import SettingError, check_known
from pellucid.core.tables import Table, table
from pellucid.inside.maps import drawing
from pellucid.inside.maps.channels import SORTS, Channels
from pellucid.inside.maps.spread import Spread
from pellucid.inside.showing import Shows
from pellucid.render.bar_chart import bar_chart
from pellucid.render.fitting import fitted
from pellucid.render.leaf import picture_html
from pellucid.render.paint import plain
from pellucid.render.sheet import in_rows, sheet
from pellucid.render.tabular import tables_html

Scale = Literal["channel", "data"]
SCALES = ("channel", "data")
PER_PAGE = 64


@dataclass(frozen=True, eq=False)
class LayerMaps(Shows):
    """Every channel of a layer.

    Attributes:
        network: its name.
        layer: the layer's name.
        values: `(c, *space)`, its output; `(c,)` for a layer without positions.
        channels: numbers and marks, one for each channel.
        target: towards what `channels.support` is counted, in words.
        spread: where the data set's values lie; None where none was given.
        names: the classes, where the channels are the network's classes.
        picture: what the network was fed, as people see it.
        by, scale: the order and the limits of `image`, `html` and `tables`; see `sorted`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from pellucid.inside.maps import maps
        >>> found = maps(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten()).eval(), torch.ones(1, 1, 8, 8))
        >>> found.of("1").values.shape
        (3, 6, 6)
    """

    network: str
    layer: str
    values: Float32[np.ndarray, "c *space"]
    channels: Channels
    target: str
    spread: Spread | None = None
    names: tuple[str, ...] | None = None
    picture: Image.Image | None = None
    by: str = "variance"
    scale: Scale = "channel"

    @property
    def title(self) -> str:
        return f"{self.network} · {self.layer}"

    @property
    def count(self) -> int:
        """How many channels there are."""
        return len(self.values)

    @property
    def signed(self) -> bool:
        """Whether any value is below zero."""
        return bool((self.values < 0).any())

    @property
    def sparsity(self) -> float:
        """The fraction of all values that are exactly zero."""
        return float(self.channels.sparsity.mean())

    def order(self, by: str = "variance") -> Int64[np.ndarray, "c"]:
        """All channels, the largest first; by number, mean, max, variance, sparsity or support."""
        return self.channels.order(by)

    def sorted(self, by: str, scale: Scale = "channel") -> "LayerMaps":
        """The same layer, shown and saved in another order, or with the limits of the data set.

        Raises:
            SettingError: no such order or scale, or no data set was given.
        """
        check_known("order", by, SORTS)
        self.limits(0, scale)
        return replace(self, by=by, scale=scale)

    def limits(self, channel: int, scale: Scale = "channel") -> tuple[float, float]:
        """Least and greatest value of a channel here, or its 0.1 and 99.9 percentile in the data set.

        Raises:
            SettingError: no such scale, or no data set was given.
        """
        check_known("scale", scale, SCALES)
        if scale == "channel":
            usual = self.values[channel][np.isfinite(self.values[channel])]
            return (float(usual.min()), float(usual.max())) if usual.size else (0.0, 0.0)
        if self.spread is None:
            raise SettingError('scale "data" came without a data set; open the picture with maps(…, data=FOLDER)')
        return float(self.spread.low[channel]), float(self.spread.high[channel])

    def normalised(self, scale: Scale = "channel") -> Float32[np.ndarray, "c *space"]:
        """Each channel from 0 at its lower limit to 1 at its upper one; where both are equal, 1 above.

        Args:
            scale: `"channel"`, its own limits in this picture, under which a dead channel's rounding looks like any
                other; or `"data"`, percentiles of the data set, which show how much a channel does here.
        """
        ends = np.array([self.limits(c, scale) for c in range(self.count)], np.float64)
        shape = (-1, *[1] * (self.values.ndim - 1))
        low, high = (ends[:, k].reshape(shape) for k in (0, 1))
        share = (self.values - low) / np.where(high > low, high - low, 1.0)
        return np.where(high > low, np.clip(share, 0, 1), self.values > high).astype(np.float32)

    def page(
        self, by: str | None = None, *, page: int = 0, top: int | None = None, scale: Scale | None = None
    ) -> Image.Image:
        """A contact sheet of 64 channels, each with its number, mark and limits; bars for a layer without positions.

        Args:
            by: in which order; see `order`. That of `sorted` where it is None.
            page: the first is 0.
            top: only the first so many.
            scale: see `normalised`.

        Raises:
            SettingError: no such order, page or scale.
        """
        by, scale = by or self.by, scale or self.scale
        if top is not None and top < 1:
            raise SettingError(f"top={top} came; ask for at least 1 channel")
        order = self.order(by)[:top]
        pages = max(1, -(-len(order) // PER_PAGE))
        if not 0 <= page < pages:
            raise SettingError(f'page {page} came; "{self.layer}" has {pages}, from 0 to {pages - 1}')
        shown = [int(c) for c in order[page * PER_PAGE : (page + 1) * PER_PAGE]]
        words = f"{self.title}, by {by}" + (f", page {page + 1} of {pages}" if pages > 1 else "")
        left = [] if self.picture is None else [(fitted(self.picture, 224), ["input"])]
        if self.values.ndim == 1:
            names = [self._called(c) for c in shown]
            return sheet(words, left, [[(bar_chart(names, [float(self.values[c]) for c in shown]), [])]])
        panels = [self._cell(c, scale) for c in shown]
        return sheet(words, left, in_rows(panels, drawing.COLUMNS), self._key(scale))

    def pages(self, by: str | None = None, *, scale: Scale | None = None) -> Iterator[Image.Image]:
        """All sheets, one after another; see `page`."""
        for page in range(-(-self.count // PER_PAGE)):
            yield self.page(by, page=page, scale=scale)

    def image(self) -> Image.Image:
        """The first sheet; a layer without positions has no variance and is shown by its values."""
        return self.page("max" if self.values.ndim == 1 and self.by == "variance" else None)

    def html(self) -> str:
        """Every sheet, then the numbers."""
        first = picture_html(self.image(), self.sentence())
        rest = (picture_html(self.page(page=n), f"page {n + 1}") for n in range(1, -(-self.count // PER_PAGE)))
        return f"{first}{''.join(rest)}{tables_html(self.tables)}"

    def facts(self) -> dict[str, Any]:
        """The layer as JSON values, without its maps."""
        pictures = None if self.spread is None else self.spread.pictures
        return {**super().facts(), "layer": self.layer, "by": self.by, "pictures of the data set": pictures}

    def sentence(self) -> str:
        """How many channels there are, how much of them is zero, and which are dead or saturated."""
        marks = [self.channels.mark(c) for c in range(self.count)]
        told = [f"{marks.count(mark)} {mark}" for mark in ("dead", "silent here", "saturated")]
        grid = "×".join(map(str, self.values.shape[1:]))
        size = f"{self.count} channels of {grid}" if grid else f"{self.count} units without positions"
        against = "" if self.spread is not None else " (no data set was asked)"
        return f"{self.layer}: {size}; {100 * self.sparsity:.1f} % zeros; {', '.join(told)}{against}"

    @property
    def tables(self) -> tuple[Table, ...]:
        """The numbers of every channel, in the order of `sorted`."""
        c = self.channels
        columns = ["channel", "mean", "max", "variance", "zeros (fraction)", f"support of {self.target}"]
        columns += ["at a limit (fraction)", "mark", *(["percentile of the max"] if self.spread else [])]
        rows = []
        for k in map(int, self.order(self.by)):
            row = [self._called(k), c.mean[k], c.max[k], c.variance[k], c.sparsity[k], c.support[k], c.at_limit[k]]
            rank = [] if self.spread is None else [100 * self.spread.rank(k, float(c.max[k]))]
            rows.append([*row, c.mark(k), *rank])
        return (table("channels", columns, rows),)

    def __repr__(self) -> str:
        return f"LayerMaps({self.sentence()})"

    def _called(self, channel: int) -> str:
        return f"{channel}" if self.names is None else f"{channel} {self.names[channel]}"

    def _cell(self, channel: int, scale: Scale) -> tuple[Image.Image, list[str]]:
        low, high = self.limits(channel, scale)
        mark = self.channels.mark(channel)
        words = [f"{channel}{f' · {mark}' if mark else ''}", f"{plain(low)} … {plain(high)}"]
        return drawing.cell(self.values[channel], low, high, self.signed, drawing.CELL_PX), words

    def _key(self, scale: Scale) -> Image.Image:
        of = "in this picture" if scale == "channel" else "in the data set"
        if self.signed:
            end = "largest size" if scale == "channel" else "99.9 % of the sizes"
            return drawing.key(
                f"-{end}", end, True, f"of each channel {of}; below each map its least and greatest value"
            )
        low, high = ("least", "greatest") if scale == "channel" else ("0.1 %", "99.9 %")
        return drawing.key(low, high, False, f"of each channel {of}; below each map these two numbers")
