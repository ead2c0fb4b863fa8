"""The one loop: look at the pictures under small changes, and move them uphill."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.errors import Cancelled
from pellucid.core.progress import Progress
from pellucid.core.watch import Watch
from pellucid.inside.opened import Opened
from pellucid.inside.optimise.canvases import Canvas
from pellucid.inside.optimise.space import Space
from pellucid.inside.optimise.waking import woken
from pellucid.inside.optimise.wishes import Reading, Seen

WAKING_STEPS = 16
EPS = 1e-12

Group = tuple[Reading, int]  # an objective, and how many pictures are made for it together


@runtime_checkable
class View(Protocol):
    """How a step looks at the pictures.

    Attributes:
        looks: how often each picture is seen in one step; all pictures once, then all again.
    """

    looks: int

    def __call__(self, pixels: Tensor, step: int) -> Tensor:
        """The pictures `(n, c, h, w)` as the network sees them in this step, `(looks n, c, y, x)`."""
        ...


@dataclass(eq=False)
class Climb:
    """Pictures on their way up.

    Attributes:
        groups: what they are made for, in order.
        wished: the picture that is imitated, `(1, c, h, w)` in [0, 1].
        heights: after the loop, the objective of every picture at every step, as it was seen.
        kept: step -> the pictures as they were then.
        never: which pictures no gradient ever led to.
        strength: sum over steps of |∂ objective / ∂ pixel|, where `weighed`.
    """

    opened: Opened
    space: Space
    groups: Sequence[Group]
    canvas: Canvas
    view: View
    wished: Tensor | None = None
    weighed: bool = False
    heights: list[Tensor] = field(default_factory=list)
    kept: dict[int, Tensor] = field(default_factory=dict)
    strength: Tensor | None = None
    steps_done: int = 0
    stopped: bool = False
    broken: bool = False
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layers = list(dict.fromkeys(layer for reading, _ in self.groups for layer in reading.layers))
        self.watch = Watch(self.opened.trace, self.layers)
        self.sizes = [count for _, count in self.groups]

    def up(self, steps: int, optimiser: torch.optim.Optimizer, snapshots: Sequence[int], bar: Progress) -> None:
        """So many steps; ends early, keeping what there is, when the work is cancelled."""
        asleep = torch.zeros(sum(self.sizes), dtype=torch.bool)
        self.never = ~asleep
        with self.watch.holding():
            for step in range(steps):
                if step in snapshots:
                    self.kept[step] = self.canvas.pixels().detach()
                optimiser.zero_grad()
                before, asleep = asleep, self._gradient(step)
                self.never = self.never & asleep
                _forget(optimiser, before & ~asleep)
                optimiser.step()
                self.steps_done = step + 1
                try:
                    bar.advance(len(asleep), "making pictures")
                except Cancelled:
                    self.stopped = True
                    self.notes.append(f"stopped after {step + 1} of {steps} steps")
                    break
        if self.steps_done in snapshots:
            self.kept[self.steps_done] = self.canvas.pixels().detach()

    def _gradient(self, step: int) -> Tensor:
        """Fill in the gradients of the canvas; which pictures have none."""
        pixels = self.canvas.pixels()
        if self.weighed:
            pixels.retain_grad()
        x = self.space.fed(self.view(pixels, step))
        leaf, flat = x.detach().requires_grad_(), pixels.detach().requires_grad_()
        wished = self._wished(step, len(pixels))
        outputs = dict(zip(self.layers, self.watch(leaf), strict=True))
        looks = self.view.looks
        values = self.values(outputs, flat, wished, looks)
        at_x, at_pixels = torch.autograd.grad(values.sum(), [leaf, flat], allow_unused=True)
        at_x = torch.zeros_like(x) if at_x is None else at_x
        pull = at_x.abs().flatten(1).sum(1)
        if not bool(torch.isfinite(pull).all()):
            at_x = self._held_still(at_x, pull, step)
        asleep = pull.view(looks, -1).eq(0).all(0)
        if step < WAKING_STEPS and bool(asleep.any()):
            total = lambda found: self.values(found, flat.detach(), wished, looks).sum()  # noqa: E731
            up = woken(self.opened, leaf.detach(), self.layers, total)
            at_x = torch.where(asleep.repeat(looks).view(-1, 1, 1, 1), up.to(at_x), at_x)
        starts = [(x, at_x)] if at_pixels is None else [(x, at_x), (pixels, at_pixels)]
        torch.autograd.backward([s for s, _ in starts], [g for _, g in starts])
        if self.weighed and pixels.grad is not None:
            size = pixels.grad.abs().sum(1)
            self.strength = size if self.strength is None else self.strength + size
        self.heights.append(values.detach())
        return asleep.cpu()

    def _wished(self, step: int, count: int) -> Mapping[str, Tensor]:
        if self.wished is None:
            return {}
        with torch.no_grad():
            same = self.view(self.wished.expand(count, -1, -1, -1), step)
            return dict(zip(self.layers, self.watch(self.space.fed(same)), strict=True))

    def values(
        self, outputs: Mapping[str, Tensor], pixels: Tensor, wished: Mapping[str, Tensor], looks: int
    ) -> Float[Tensor, "n"]:
        """The objective of every picture, the mean over its looks."""
        count = len(self.sizes)
        parts = {layer: out.split(self.sizes * looks) for layer, out in outputs.items()}
        wishes = {layer: out.split(self.sizes * looks) for layer, out in wished.items()}
        own = pixels.split(self.sizes)
        found = []
        for number, (reading, _) in enumerate(self.groups):
            each = []
            for look in range(looks):
                place = look * count + number
                seen = {layer: parts[layer][place] for layer in reading.layers}
                wish = {layer: wishes[layer][place] for layer in reading.layers if layer in wishes}
                each.append(reading.read(Seen(self.opened, seen, own[number], wish)).to(pixels.dtype))
            found.append(torch.stack(each).mean(0) if looks > 1 else each[0])
        return torch.cat(found)

    def measured(self, x: Tensor, pixels: Tensor) -> tuple[Float[Tensor, "n"], list[float]]:
        """For inputs as they are: every picture's objective, and the highest value on the map of its unit."""
        with torch.no_grad():
            outputs = dict(zip(self.layers, self.watch(x), strict=True))
            plain = {}
            if self.wished is not None:
                given = self.space.fed(self.wished).expand(len(x), -1, -1, -1)
                plain = dict(zip(self.layers, self.watch(fitted(given, x)), strict=True))
            values = self.values(outputs, pixels, plain, 1)
        return values, self._peaks(outputs)

    def _held_still(self, gradient: Tensor, pull: Tensor, step: int) -> Tensor:
        """Pictures whose gradient is not finite stay where they are for a step."""
        if not self.broken:
            self.notes.append(f"the gradient was not finite for some pictures, first in step {step + 1}")
            self.broken = True
        return torch.where(torch.isfinite(pull).view(-1, 1, 1, 1), gradient, torch.zeros_like(gradient))

    def _peaks(self, outputs: Mapping[str, Tensor]) -> list[float]:
        found, start = [], 0
        for reading, count in self.groups:
            if reading.unit is None:
                found += [float("nan")] * count
            else:
                maps = self.opened.maps(reading.unit.layer, outputs[reading.unit.layer])[start : start + count]
                found += maps[:, reading.unit.channel].reshape(count, -1).amax(1).tolist()
            start += count
        return found


def fitted(x: Tensor, like: Tensor) -> Tensor:
    """Brought to the size of another."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False, antialias=True)


def _forget(optimiser: torch.optim.Optimizer, awake: Tensor) -> None:
    """Pictures that have just been woken start afresh: what woke them was of another size than what follows."""
    if not bool(awake.any()):
        return
    for state in optimiser.state.values():
        for moment in state.values():
            if isinstance(moment, Tensor) and moment.dim() > 1:
                moment[awake.to(moment.device)] = 0
