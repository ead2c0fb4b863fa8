"""What is asked of several pictures together, what they are to resemble, and what is held against them."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pellucid.inside.opened import Opened
from pellucid.inside.optimise.wishes import Objective, Reading, Seen


def diversity(layer: str) -> Objective:
    """How alike the pictures of an objective are to a layer, `mean_{j≠i} cos(G_i, G_j)`; subtract it.

    `G = A Aᵀ` holds the products of channels (Gram matrix), which tell styles apart. One picture alone has 0.

    Source: Olah, Mordvintsev & Schubert 2017, Distill, "Feature visualization".
    """

    def on(opened: Opened) -> Reading:
        opened.layer(layer)

        def read(seen: Seen) -> Tensor:
            maps = seen.maps(layer)
            flat = maps.flatten(2) if maps.dim() > 2 else maps[:, :, None]
            grams = F.normalize((flat @ flat.transpose(1, 2)).flatten(1), dim=1)
            n = len(grams)
            return ((grams @ grams.T).sum(1) - grams.square().sum(1)) / max(n - 1, 1)

        return Reading((layer,), read)

    return Objective(f"likeness in {layer}", on)


def alignment(layer: str) -> Objective:
    """How close neighbours among the pictures of an objective are in a layer, `− mean (A_i − A_{i±1})²`; add it."""

    def on(opened: Opened) -> Reading:
        opened.layer(layer)

        def read(seen: Seen) -> Tensor:
            a = seen.outputs[layer].flatten(1)
            if len(a) == 1:
                return 0 * a.sum(1)
            steps = (a[1:] - a[:-1]).square().mean(1)
            ends = F.pad(steps, (1, 0)) + F.pad(steps, (0, 1))
            return -ends

        return Reading((layer,), read)

    return Objective(f"alignment in {layer}", on)


def likeness(layer: str) -> Objective:
    """How well a layer's maps match those of the picture that is imitated, `− ‖A − A₀‖² / ‖A₀‖²`.

    Source: Mahendran & Vedaldi 2015, arXiv:1412.0035, equation 2.
    """

    def read(seen: Seen) -> Tensor:
        a, wished = seen.outputs[layer].flatten(1), seen.wished[layer].flatten(1)
        return -(a - wished).square().sum(1) / wished.square().sum(1).clamp(min=1e-12)

    return Objective(f"match of {layer}", lambda opened: Reading((opened.layer(layer),), read))


def exaggeration(layer: str, cosine_power: int | float = 4) -> Objective:
    """A layer's maps along those of the picture that is imitated, `A·A₀ / ‖A₀‖² max(0.1, cos(A, A₀))^p`."""

    def read(seen: Seen) -> Tensor:
        a, wished = seen.outputs[layer].flatten(1), seen.wished[layer].flatten(1)
        dot = (a * wished).sum(1) / wished.square().sum(1).clamp(min=1e-12)
        return dot * F.cosine_similarity(a, wished, dim=1).clamp(min=0.1) ** float(cosine_power)

    return Objective(f"exaggeration of {layer}", lambda opened: Reading((opened.layer(layer),), read))


def total_variation() -> Objective:
    """How much neighbouring pixels differ, `mean |∂_y u| + mean |∂_x u|`; subtract it."""

    def read(pixels: Float[Tensor, "n c h w"]) -> Tensor:
        down, across = pixels.diff(dim=2).abs(), pixels.diff(dim=3).abs()
        return down.flatten(1).mean(1) + across.flatten(1).mean(1)

    return _penalty("total variation", read)


def l1() -> Objective:
    """How far pixels are from grey, `mean |u − ½|`; subtract it."""
    return _penalty("L1", lambda pixels: (pixels - 0.5).abs().flatten(1).mean(1))


def l2() -> Objective:
    """How far pixels are from grey, `mean (u − ½)²`; subtract it."""
    return _penalty("L2", lambda pixels: (pixels - 0.5).square().flatten(1).mean(1))


def boundary(width_fraction: int | float = 0.1) -> Objective:
    """How far the pixels of the margin are from grey, `mean over the margin (u − ½)²`; subtract it.

    Args:
        width_fraction: width of the margin, as a part of the shorter side.
    """

    def read(pixels: Float[Tensor, "n c h w"]) -> Tensor:
        h, w = pixels.shape[2:]
        width = max(1, round(float(width_fraction) * min(h, w)))
        margin = pixels.new_ones(h, w)
        margin[width : h - width, width : w - width] = 0
        return ((pixels - 0.5).square() * margin).flatten(1).sum(1) / (margin.sum() * pixels.shape[1])

    return _penalty("margin", read)


def _penalty(words: str, read: Callable[[Tensor], Tensor]) -> Objective:
    return Objective(words, lambda opened: Reading((), lambda seen: read(seen.pixels)))
