"""Cover a part of the picture and ask the network again, one cover at a time.

x is ONE picture `(channels, *space)`, paint the same shape, f a network from `(b, channels, *space)` to `(b, classes)`.
`where` is a bool array `(*space)`: True is covered, in every channel at once.

Zeiler & Fergus 2014 (§4.2) slide a grey square and draw the score at its place; the paper says neither what happens at
the border nor how overlapping squares are joined. Both are settings here. The map is Captum's: a pixel gets the mean,
over the windows that cover it, of f(x) − f(covered); a pixel that no window covers gets 0.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Network = Callable[[Tensor], Tensor]
D = torch.float64
Edge = Literal["clip", "every", "inside", "shift"]


def ask(f: Network, x: Tensor, target: int) -> float:
    """The score of one class for one picture, as a batch of one."""
    with torch.no_grad():
        return float(f(x[None])[0, target])


def cover(x: Tensor, where: Tensor, paint: Tensor) -> Tensor:
    """The picture with the paint where `where` is True, position by position."""
    edited = x.clone()
    for place in itertools.product(*(range(n) for n in where.shape)):
        if where[place]:
            edited[(slice(None), *place)] = paint[(slice(None), *place)]
    return edited


def starts(size: int, window: int, stride: int, edge: Edge) -> list[int]:
    """Where windows begin along one axis: 0, stride, 2·stride, …, until

    * clip (Captum): a window has reached the border; that one is cut off there;
    * every: they would begin outside; the last ones are cut off (more windows than "clip" if stride < window);
    * inside: they would stick out; pixels at the end may stay uncovered;
    * shift: as "inside", and one more that ends at the border if pixels are left.
    """
    found = list(range(0, size, stride))
    if edge == "every":
        return found
    if edge == "clip":
        return [s for s in found if s == 0 or s - stride + window < size]
    whole = [s for s in found if s + window <= size]
    left = not whole or whole[-1] + window < size
    return [*whole, size - window] if edge == "shift" and left else whole


def windows(space: Sequence[int], window: Sequence[int], stride: Sequence[int], edge: Edge) -> list[Tensor]:
    """Every window as a bool array `(*space)`, the last axis fastest."""
    found = []
    for corner in itertools.product(*(starts(*sizes, edge) for sizes in zip(space, window, stride, strict=True))):
        where = torch.zeros(tuple(space), dtype=torch.bool)
        where[tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))] = True
        found.append(where)
    return found


def drop(f: Network, x: Tensor, where: Tensor, paint: Tensor, target: int) -> float:
    """Δ = f(x) − f(x covered)."""
    return ask(f, x, target) - ask(f, cover(x, where, paint), target)


def spread(covers: Sequence[Tensor], values: Sequence[float]) -> Tensor:
    """To each pixel the mean of the values of the covers that hide it; 0 where none does. `(*space)`."""
    total, times = torch.zeros(covers[0].shape, dtype=D), torch.zeros(covers[0].shape, dtype=D)
    for where, value in zip(covers, values, strict=True):
        total = total + value * where.to(D)
        times = times + where.to(D)
    return torch.where(times > 0, total / times.clamp(min=1), total)


def occlusion(
    f: Network,
    x: Tensor,
    paint: Tensor,
    target: int,
    window: Sequence[int],
    stride: Sequence[int],
    edge: Edge = "clip",
) -> Tensor:
    """The occlusion map `(*space)`; `window` and `stride` one number for each axis of space."""
    covers = windows(x.shape[1:], window, stride, edge)
    return spread(covers, [drop(f, x, where, paint, target) for where in covers])


def region_drops(f: Network, x: Tensor, labels: Tensor, paint: Tensor, target: int) -> list[float]:
    """Δ(r) for r = 0, 1, …; labels `(*space)` are integers, −1 belongs to no region."""
    return [drop(f, x, labels == region, paint, target) for region in range(int(labels.max()) + 1)]


def region_map(f: Network, x: Tensor, labels: Tensor, paint: Tensor, target: int) -> Tensor:
    """Δ of its region at each pixel, 0 outside all. `(*space)`."""
    drops = region_drops(f, x, labels, paint, target)
    return spread([labels == region for region in range(len(drops))], drops)


def interaction(f: Network, x: Tensor, labels: Tensor, paint: Tensor, target: int, a: int, b: int) -> float:
    """I(a, b) = Δ(a ∪ b) − Δ(a) − Δ(b): 0 where the two act independently, below 0 where each can stand in."""
    both = drop(f, x, (labels == a) | (labels == b), paint, target)
    return both - drop(f, x, labels == a, paint, target) - drop(f, x, labels == b, paint, target)


def disagreement(maps: Sequence[Tensor]) -> Tensor:
    """How far the maps of several fills lie apart at each pixel: half the distance of the highest from the lowest."""
    stack = torch.stack(list(maps))
    return (stack.amax(0) - stack.amin(0)) / 2


def covered_in_turn(
    f: Network, x: Tensor, labels: Tensor, paint: Tensor, target: int, order: Sequence[int]
) -> list[float]:
    """The score with nothing covered, with the first region, with the first two, …"""
    scores, where = [ask(f, x, target)], torch.zeros(labels.shape, dtype=torch.bool)
    for region in order:
        where = where | (labels == region)
        scores.append(ask(f, cover(x, where, paint), target))
    return scores
