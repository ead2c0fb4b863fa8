"""The parts of a picture that units see, cut out of it."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor


def patches(
    x: Float[Tensor, "c *space"], corners: Sequence[tuple[int, ...]], size: Sequence[int]
) -> tuple[Float[Tensor, "n c *size"], Bool[Tensor, "n *size"]]:
    """A window of one size at each corner; 0 beyond the border, and where the window is within it.

    Example:
        >>> found, there = patches(torch.arange(4.0).view(1, 4), [(-1,), (2,)], (3,))
        >>> found[:, 0].tolist(), there.tolist()
        ([[0.0, 0.0, 1.0], [2.0, 3.0, 0.0]], [[False, True, True], [True, True, False]])
    """
    count, axes = len(corners), len(size)
    index, there = [], torch.ones(count, *size, dtype=torch.bool)
    starts = np.array(corners, dtype=np.int64).reshape(count, axes)
    for a, (side, length) in enumerate(zip(size, x.shape[1:], strict=True)):
        at = torch.from_numpy(starts[:, a])[:, None] + torch.arange(side)
        shape = [count, *(side if b == a else 1 for b in range(axes))]
        index.append(at.clamp(0, length - 1).view(shape))
        there &= ((at >= 0) & (at < length)).view(shape)
    found = x.cpu()[(slice(None), *index)].movedim(0, 1)
    return found * there[:, None], there
