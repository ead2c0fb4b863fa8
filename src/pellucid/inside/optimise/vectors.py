"""Icons: for each of many activation vectors a small picture whose middle excites a layer in that direction."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import LayerError, SettingError
from pellucid.core.progress import Progress
from pellucid.inside.opened import Opened
from pellucid.inside.optimise.groups import boundary
from pellucid.inside.optimise.making import carried_out, plan
from pellucid.inside.optimise.wishes import Objective, aimed

ICON_PX, MARGIN_WEIGHT = 96, 0.5


def invert_vectors(
    opened: Opened,
    layer: str,
    vectors: Float[Tensor, "n c"],
    *,
    whiten: Float[Tensor, "c c"] | None = None,
    cosine_power: int | float = 2,
    icon_px: int | Sequence[int] | None = None,
    steps: int = 128,
    data: object = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> Float[np.ndarray, "n channels h w"]:
    """For each vector v a picture that maximises `h·(S v) max(0.1, cos(h, v))^p` in the middle of a layer's maps.

    The length of `S v` does not matter: each is brought to length 1, so that the penalty on a busy margin weighs the
    same for all.

    Args:
        vectors: one per row, with a number for each of the layer's units.
        whiten: S, the inverse of the second moment `E[h hᵀ]`; the identity by default.
        cosine_power: p.
        icon_px: side of the icons; the network's input, but 96 at most, by default.
        data: pictures for the colours.

    Returns:
        Pixels in [0, 1], one picture per vector; when cancelled, those that were begun.

    Raises:
        LayerError: no such layer, it has no maps, or another number of units.

    Source: Carter et al. 2019, Distill, "Activation atlas".
    """
    opened.spatial(opened.layer(layer))
    if vectors.shape[1] != opened.units(layer):
        raise LayerError(f'vectors of {vectors.shape[1]} came for the {opened.units(layer)} units of layer "{layer}"')
    if not len(vectors):
        raise SettingError("no vectors came; give at least one")
    sides = opened.trace.inputs[0].shape[2:]
    size = icon_px if icon_px is not None else [min(n, ICON_PX) for n in sides]
    made = plan(
        opened, parametrisation="fourier", steps=steps, size_px=size, transforms="strong", colour=None, data=data,
        learning_rate=0.05, seed=seed, snapshots=(),
    )  # fmt: skip
    asked = [_icon(layer, v, whiten, cosine_power, number) for number, v in enumerate(vectors.detach().float().cpu())]
    found = carried_out(made, asked, progress=progress)
    return found.eight_bit.transpose(0, 3, 1, 2).astype(np.float32) / 255


def _icon(layer: str, vector: Float[Tensor, "c"], whiten: Tensor | None, power: int | float, number: int) -> Objective:
    pushed = vector if whiten is None else whiten.to(vector) @ vector
    pushed = pushed / pushed.norm().clamp(min=torch.finfo(torch.float32).tiny)
    towards = aimed(layer, vector[None], pushed[None], power, "centre")
    return Objective(f"vector {number}", (towards - MARGIN_WEIGHT * boundary()).on)
