"""How much one activation vector gives to the score of each class, for all classes at once."""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from pellucid.core.layers import ancestors, between
from pellucid.core.target import class_scores
from pellucid.core.trace import Trace, Value


def attributions(trace: Trace, value: Value, vectors: Float[Tensor, "b ..."]) -> Float[Tensor, "b k"]:
    """`Σ_i ∂ S_c / ∂ A_i · v_i` for every class c: the score's derivative along v, a vector for each picture.

    One forward pass in forward mode gives all classes; where an operation has no forward derivative, one backward walk
    for each class gives the same numbers.

    Args:
        value: A, a recorded layer that leads to the scores.
        vectors: v, in the shape of A.

    Source: Carter et al. 2019, Distill, "Activation atlas", attribution of a spatial activation.
    """
    end = class_scores(trace)
    if value not in ancestors(trace, end):
        return torch.zeros(len(vectors), _per_class(end.data).shape[1])
    try:
        found = forwards(trace, value, end, vectors)
    except (RuntimeError, NotImplementedError):
        found = backwards(trace, value, end, vectors)
    return _per_class(found).float().cpu()


@torch.no_grad()
def forwards(trace: Trace, value: Value, end: Value, vectors: Tensor) -> Tensor:
    """The derivative of what lies between, by dual numbers."""
    with torch.inference_mode(False), warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch scripts some of its own derivatives
        current = {value: forward_ad.make_dual(value.data.detach().clone(), vectors.to(value.data))}
        for position in between(trace, value, end):
            node = trace.nodes[position]
            out = node.run({v: current[v] if v in current else v.data for v in node.inputs})  # noqa: SIM401
            results = [out] if isinstance(out, Tensor) else list(out)
            for v, result in zip(node.outputs, results, strict=True):
                if v is not None and v is not value:
                    current[v] = result
        tangent = forward_ad.unpack_dual(current[end]).tangent
        return torch.zeros_like(end.data) if tangent is None else tangent.clone()


def backwards(trace: Trace, value: Value, end: Value, vectors: Tensor) -> Tensor:
    """The same, one class after another."""
    columns = []
    for c in range(_per_class(end.data).shape[1]):
        seed = torch.zeros_like(end.data)
        flat = (
            seed.view(len(seed), 1, -1) if seed.dim() == 1 else seed.flatten(2) if seed.dim() > 2 else seed[..., None]
        )
        flat[:, c] = 1 / flat.shape[2]
        arrived = trace.pull({end: flat.view_as(seed)}, keep=[value]).at(value)
        columns.append((arrived * vectors.to(arrived)).flatten(1).sum(1))
    return torch.stack(columns, 1)


def _per_class(scores: Tensor) -> Float[Tensor, "b k"]:
    """One number a class; a dense output is averaged over its places."""
    if scores.dim() == 1:
        return scores[:, None]
    return scores if scores.dim() == 2 else scores.flatten(2).mean(2)
