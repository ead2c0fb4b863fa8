"""The first principal component of a stack of maps."""

import torch
from jaxtyping import Float
from torch import Tensor


def first_component(maps: Float[Tensor, "b k *space"]) -> Float[Tensor, "b *space"]:
    """`M V₁`: each position's channels projected on the first right singular vector, not centred.

    The singular vector comes from the smaller of the two Gram matrices; the sign makes the sum ≥ 0.
    """
    found = []
    for image in maps:
        rows = image.flatten(1).T.double()
        positions, channels = rows.shape
        if channels <= positions:
            projection = rows @ torch.linalg.eigh(rows.T @ rows)[1][:, -1]
        else:
            values, vectors = torch.linalg.eigh(rows @ rows.T)
            projection = vectors[:, -1] * values[-1].clamp(min=0).sqrt()
        sign = -1.0 if projection.sum() < 0 else 1.0
        found.append((sign * projection).reshape(image.shape[1:]).to(maps.dtype))
    return torch.stack(found)
