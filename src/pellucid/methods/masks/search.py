"""Masks that are searched for by the gradient of the network's answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.edits import Masked
from pellucid.core.errors import SettingError
from pellucid.methods.case import Case
from pellucid.methods.masks.ground import numbers, whole

MOST_STEPS = 10_000
FIRST, SECOND = 0.9, 0.999  # Adam's averages (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1)
COUNTS = {"preserve": (1.0, 0.0), "delete": (0.0, -1.0), "both": (1.0, -1.0)}
Balance = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True, eq=False)
class Search:
    """What is asked of masks; each mask is searched for by itself, many in parallel.

    A mask m marks the pixels that matter. Its reward is `a f(m ⊙ x + (1 − m) ⊙ paint) − b f((1 − m) ⊙ x + m ⊙ paint)`:
    the score of what it keeps (preserve: a = 1, b = 0), of what it leaves over (delete: a = 0, b = 1), or both.

    Attributes:
        method: the name, for errors.
        rows: the image of each mask.
        paint: what is seen where a picture is hidden, for every image.
        variant: preserve, delete or both.
        masks: from parameters in 0..1 to masks `(n, *space)`.
        cost: from parameters and masks to what each mask costs, `(n,)`.
        balance: from `∂ cost / ∂ parameters`, `∂ reward / ∂ parameters` and the share of steps done to the slope to
            go down.
        jitter_px: how far the image is shifted at random under the masks, the same for all of a step.
    """

    case: Case
    method: str
    rows: Sequence[int]
    paint: Tensor
    variant: str
    masks: Callable[[Tensor], Tensor]
    cost: Callable[[Tensor, Tensor], Tensor]
    balance: Balance
    jitter_px: int = 0

    def found(self, start: Float[Tensor, "n *grid"], steps: int, rate: float) -> Float[Tensor, "n *grid"]:
        """The parameters after so many steps of Adam, clamped to 0..1 after each."""
        parameters, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
        random = torch.Generator().manual_seed(self.case.seed)
        self.case.progress.expect(steps * len(self.rows) * sum(count != 0 for count in COUNTS[self.variant]))
        for step in range(1, steps + 1):
            shift = torch.randint(-self.jitter_px, self.jitter_px + 1, (start.dim() - 1,), generator=random).tolist()
            slope = self.balance(*self.slopes(parameters, shift), (step - 1) / max(1, steps - 1))
            first.mul_(FIRST).add_(slope, alpha=1 - FIRST)
            second.mul_(SECOND).addcmul_(slope, slope, value=1 - SECOND)
            size = (second / (1 - SECOND**step)).sqrt() + 1e-8
            parameters = (parameters - rate * first / (1 - FIRST**step) / size).clamp(0, 1)
        return parameters

    def slopes(
        self, parameters: Float[Tensor, "n *grid"], shift: Sequence[int]
    ) -> tuple[Float[Tensor, "n *grid"], Float[Tensor, "n *grid"]]:
        """`∂ cost / ∂ parameters` and `∂ reward / ∂ parameters`, by the chain rule through the mask."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = parameters.detach().clone().requires_grad_()
            masks = self.masks(leaf)
            (cost,) = torch.autograd.grad(self.cost(leaf, masks).sum(), leaf, retain_graph=True)
            with torch.no_grad():
                uphill = self.uphill(masks.detach(), shift)
            (reward,) = torch.autograd.grad(masks, leaf, uphill)
        return cost, reward

    def uphill(self, masks: Float[Tensor, "n *space"], shift: Sequence[int]) -> Float[Tensor, "n *space"]:
        """`∂ reward / ∂ m = Σ_channels (x − paint) ⊙ ∂ f / ∂ input`, on images shifted by so many pixels."""
        x, paint = (_shifted(images, shift) for images in (self.case.x, self.paint))
        found, size = torch.zeros_like(masks), self.case.pass_size()
        for start in range(0, len(masks), size):
            part = slice(start, start + size)
            rows = list(self.rows[part])
            way = x[rows] - paint[rows]
            for count, shown in zip(COUNTS[self.variant], (masks[part], 1 - masks[part]), strict=True):
                if count:
                    slope, scores = self.case.gradients((paint[rows] + shown[:, None] * way).to(x), rows)
                    numbers(scores, self.method)
                    found[part] += (slope * way).sum(1)  # 1 - m turns the sign, and so does its count
                    self.case.progress.advance(len(rows))
        return found

    def answers(self, masks: Float[Tensor, "n *space"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """The scores of what every mask keeps, and of what it leaves over."""
        both = torch.cat([masks, 1 - masks])
        rows = [*self.rows, *self.rows]
        edits = Masked(self.case.x, self.paint, lambda which: both[list(which)], rows)
        kept, left = numbers(self.case.answers(edits), self.method).chunk(2)
        return kept, left


def check_search(steps: int, rate: float, jitter_fraction: float) -> None:
    """
    Raises:
        SettingError: settings of a search outside their limits.
    """
    whole("steps", steps, 1, MOST_STEPS)
    if not 0 < rate <= 1:
        raise SettingError(f"rate={rate}; use a number above 0 and at most 1, such as 0.05")
    if not 0 <= jitter_fraction <= 0.25:
        raise SettingError(f"jitter_fraction={jitter_fraction}; use 0 to 0.25, such as 0.03")


def _shifted(images: Tensor, shift: Sequence[int]) -> Tensor:
    """Images moved by so many pixels along each axis; what comes in at an edge repeats the edge."""
    for axis, by in enumerate(shift, 2):
        if by:
            places = torch.arange(images.shape[axis], device=images.device) - by
            images = images.index_select(axis, places.clamp(0, images.shape[axis] - 1))
    return images
