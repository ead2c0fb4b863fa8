"""Edits of a picture, in the network's input space, made only when they are asked for."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Box = tuple[tuple[int, int], ...]  # (start, stop) along each spatial axis


@runtime_checkable
class Edits(Protocol):
    """Many edited versions of the images of a recording."""

    @property
    def rows(self) -> Sequence[int]:
        """For each edit the number of the image that it changes; its length is how many edits there are."""
        ...

    @property
    def boxes(self) -> Sequence[Box] | None:
        """For each edit the box outside which it leaves the image as it is; None where it may change all of it."""
        ...

    def inputs(self, which: Sequence[int]) -> Float[Tensor, "n c *space"]:
        """Some of the edited images, whole."""
        ...

    def inside(self, which: int) -> Float[Tensor, "c *box"]:
        """What one edit puts into its box; never called where there are no boxes."""
        ...


@runtime_checkable
class OfChannels(Edits, Protocol):
    """Edits of a layer, each of one channel."""

    @property
    def channels(self) -> Sequence[int]:
        """For each edit the number of its channel."""
        ...

    def channel(self, which: Sequence[int]) -> Float[Tensor, "n *space"]:
        """What some of the edits put into their channels."""
        ...


class Boxed:
    """Boxes of an image covered with paint.

    Args:
        x: the images.
        paint: what is put in place of them, of the shape of the images.
        boxes: one for each edit, all inside the image.
        rows: the image of each edit; all of the first by default.
    """

    def __init__(
        self,
        x: Float[Tensor, "b c *space"],
        paint: Float[Tensor, "b c *space"],
        boxes: Sequence[Box],
        rows: Sequence[int] | None = None,
    ) -> None:
        self.x, self.paint, self.boxes = x, paint, boxes
        self.rows = [0] * len(boxes) if rows is None else rows

    def inputs(self, which: Sequence[int]) -> Float[Tensor, "n c *space"]:
        found = self.x[[self.rows[i] for i in which]]
        for place, i in enumerate(which):
            found[(place, slice(None), *_slices(self.boxes[i]))] = self.inside(i)
        return found

    def inside(self, which: int) -> Float[Tensor, "c *box"]:
        return self.paint[(self.rows[which], slice(None), *_slices(self.boxes[which]))]


class Masked:
    """Images mixed with paint under masks: `m ⊙ x + (1 − m) ⊙ paint`.

    Args:
        masks: `which -> (n, *space)`: for some of the edits how much of each pixel is kept, from 0 to 1 (or bool).
        paint: of the shape of the images, or a function `(which, masks) -> (n, c, *space)` where it hangs on the mask.
        rows: the image of each edit.
        boxes: where each mask is not one everywhere, if that is known.
    """

    def __init__(
        self,
        x: Float[Tensor, "b c *space"],
        paint: Float[Tensor, "b c *space"] | Callable[[Sequence[int], Tensor], Tensor],
        masks: Callable[[Sequence[int]], Tensor],
        rows: Sequence[int],
        boxes: Sequence[Box] | None = None,
    ) -> None:
        self.x, self.paint, self.masks, self.rows, self.boxes = x, paint, masks, rows, boxes

    def inputs(self, which: Sequence[int]) -> Float[Tensor, "n c *space"]:
        mask = self.masks(which).to(self.x.device)
        of = [self.rows[i] for i in which]
        x = self.x[0].expand(len(of), *self.x.shape[1:]) if len(self.x) == 1 else self.x[of]
        if isinstance(self.paint, Tensor):
            paint = self.paint[0] if len(self.paint) == 1 else self.paint[of]
        else:
            paint = self.paint(which, mask)
        if mask.dtype is torch.bool:
            return torch.where(mask[:, None], x, paint)
        return torch.lerp(paint.expand_as(x), x, mask[:, None].to(x))

    def inside(self, which: int) -> Float[Tensor, "c *box"]:
        if self.boxes is None:
            raise NotImplementedError("edits without boxes have no inside")
        return self.inputs([which])[(0, slice(None), *_slices(self.boxes[which]))]


def covered(
    x: Float[Tensor, "b c *space"],
    paint: Float[Tensor, "b c *space"] | Callable[[Sequence[int], Tensor], Tensor],
    labels: Int[Tensor, "*space"],
    keep: Bool[Tensor, "n regions"],
    row: int = 0,
) -> Masked:
    """One image with some of its regions covered.

    Args:
        labels: the region of every pixel, 0 to regions - 1; pixels of -1 belong to none and are always kept.
        keep: for each edit the regions that stay as they are.
    """
    padded = torch.cat([keep, keep.new_ones(len(keep), 1)], 1)  # the label -1 picks the last column

    def masks(which: Sequence[int]) -> Tensor:
        return padded[list(which)][:, labels]

    return Masked(x, paint, masks, [row] * len(keep), _hull_boxes(labels, keep))


def _hull_boxes(labels: Tensor, keep: Tensor) -> list[Box]:
    """For each edit the box around everything that it covers; a box of one pixel where it covers nothing."""
    regions = keep.shape[1]
    lows, highs = [], []
    for axis in range(labels.dim()):
        places = torch.arange(labels.shape[axis]).view([-1 if a == axis else 1 for a in range(labels.dim())])
        places, of = places.expand(labels.shape).reshape(-1), labels.reshape(-1).cpu()
        known = of >= 0
        low = torch.full((regions,), labels.shape[axis]).scatter_reduce(0, of[known], places[known], "amin")
        high = torch.zeros(regions, dtype=torch.long).scatter_reduce(0, of[known], places[known] + 1, "amax")
        hidden = ~keep.cpu()
        lows.append(torch.where(hidden, low, labels.shape[axis]).amin(1))
        highs.append(torch.where(hidden, high, 0).amax(1))
    pairs = zip(
        zip(*(t.tolist() for t in lows), strict=True), zip(*(t.tolist() for t in highs), strict=True), strict=True
    )
    return [tuple((a, b) if a < b else (0, 1) for a, b in zip(low, high, strict=True)) for low, high in pairs]


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box)
