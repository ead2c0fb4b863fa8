"""Going uphill on an input itself: first with momentum, then by steps that must rise."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.errors import Cancelled
from pellucid.core.progress import Progress
from pellucid.core.watch import Watch
from pellucid.inside.opened import Opened
from pellucid.inside.optimise.space import Space
from pellucid.inside.optimise.wishes import Reading, Seen

ENOUGH, FASTER, FLAT, MEMORY = 1e-4, 1.5, 1e-9, 10
MOMENTUM, ROAM, ROAMING_FRACTION = 0.9, 0.1, 0.75


@dataclass(eq=False)
class Ascent:
    """An input on its way up `S(I) − λ ‖I‖²`.

    Attributes:
        x: where it is; at the end the highest place that was found (since the last blur).
        heights: the objective after every step.
        score: S at the end.
    """

    opened: Opened
    reading: Reading
    decay: float
    blur_px: float
    blur_every: int
    heights: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    score: float = 0.0

    def __post_init__(self) -> None:
        self.watch = Watch(self.opened.trace, list(dict.fromkeys(self.reading.layers)))

    def up(self, steps: int, space: Space, bar: Progress) -> None:
        """First with momentum and steps that get smaller, then with steps that must rise, from the highest place."""
        home = space.home.dtype if space.home.numel() else torch.float32
        self.x = torch.zeros(1, space.channels, *space.size_px, dtype=home, device=space.home.device)
        self.height, slope = self._slope(self.x)
        if not bool(slope.abs().max() > 0):
            self.notes.append("no gradient leads to the mean picture: it does not excite this class at all")
        self.best = (self.height, self.x)
        roaming = int(steps * ROAMING_FRACTION)
        if self._roam(slope, roaming, steps, bar):
            self._settle(roaming, steps, bar)
        self.x = self.best[1]
        self.score = self.measured(self.x)

    def _roam(self, slope: Tensor, roaming: int, steps: int, bar: Progress) -> bool:
        """`v ← 0.9 v + 0.1 g / rms(g)`, `I ← I + η (1 − t/T) v`; whether to go on."""
        speed = torch.zeros_like(slope)
        for step in range(roaming):
            speed = MOMENTUM * speed + (1 - MOMENTUM) * slope / slope.square().mean().sqrt().clamp(min=1e-30)
            self.x = self.x + ROAM * (1 - step / roaming) * speed
            slope = self._moved(step)
            if self._told(bar, step, steps):
                return False
        return True

    def _settle(self, first: int, steps: int, bar: Progress) -> None:
        """`I ← I + ρ g`; ρ is halved where that is below the last ten heights, else fitted to the curvature."""
        self.x = self.best[1]
        self.height, slope = self._slope(self.x)
        rate, lately = 1 / (2 * self.decay), [self.height]
        for step in range(first, steps):
            size = float(slope.double().square().sum())
            found, steeper = self._slope(self.x + rate * slope)
            if found >= min(lately) + ENOUGH * rate * size:
                before, self.x = slope, self.x + rate * slope
                rate = _next_rate(rate * before, before - steeper, rate)
                slope = self._moved(step)
                lately = [*lately[1 - MEMORY :], self.height]
            else:
                rate /= 2
                self.heights.append(self.height)
            if self._told(bar, step, steps) or rate * size**0.5 <= FLAT * (1 + float(self.x.norm())):
                break

    def _moved(self, step: int) -> Tensor:
        """What a step led to: the slope there; now and then blurred."""
        blurs = self.blur_px > 0 and (step + 1) % self.blur_every == 0
        if blurs:
            self.x = _blurred(self.x, self.blur_px)
        self.height, slope = self._slope(self.x)
        if blurs or self.height > self.best[0]:
            self.best = (self.height, self.x)
        self.heights.append(self.height)
        return slope

    def _told(self, bar: Progress, step: int, steps: int) -> bool:
        """Whether the work is to end, having been cancelled."""
        try:
            bar.advance(1, "making a class image")
        except Cancelled:
            self.notes.append(f"stopped after {step + 1} of {steps} steps")
            return True
        return False

    def _slope(self, x: Tensor) -> tuple[float, Tensor]:
        """`S_c − λ ‖I‖²` and its gradient."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            height = self._read(leaf) - self.decay * leaf.double().square().sum()
            (slope,) = torch.autograd.grad(height, leaf)
        return float(height.detach()), slope

    def measured(self, x: Tensor) -> float:
        """The score alone."""
        with torch.no_grad():
            return float(self._read(x))

    def _read(self, x: Tensor) -> Tensor:
        outputs = dict(zip(self.watch.layers, self.watch(x), strict=True))
        return self.reading.read(Seen(self.opened, outputs, x))[0].double()


def _next_rate(moved: Tensor, fell: Tensor, rate: float) -> float:
    """`s·s / s·(g − g')`, the rate that fits the curvature of the last step (Barzilai & Borwein 1988)."""
    bent = float((moved.double() * fell.double()).sum())
    return float(moved.double().square().sum()) / bent if bent > 0 else rate * FASTER


def _blurred(x: Float[Tensor, "1 c h w"], deviation_px: float) -> Float[Tensor, "1 c h w"]:
    """A Gaussian blur that repeats the border."""
    reach = max(1, round(3 * deviation_px))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device) / deviation_px) ** 2)
    line = (weights / weights.sum()).expand(x.shape[1], 1, -1)
    padded = F.pad(x, [reach] * 4, mode="replicate")
    down = F.conv2d(padded, line[..., None], groups=x.shape[1])
    return F.conv2d(down, line[:, :, None], groups=x.shape[1])
