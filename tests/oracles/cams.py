"""Class activation maps, written slowly from their papers.

A is the activation of one layer for ONE image, `(channels, *space)`; G, same shape, the derivative of the score by A.
A map has the shape `space`, raw: not scaled to 0..1, not enlarged. Where a paper ends in a ReLU, `relu=False` gives
the signed map. Batches: `each(method, A, G)`. `full_gradient` and `bias_terms` work on the network itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .rectifiers import Score, guided_backprop

# ------------------------------------------------------------------------------------------------ what a layer holds


class _Tap:
    """A forward hook that keeps a private copy of the layer's output and lets the network go on with another."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise TypeError(f"the layer returns {type(output).__name__}, not a tensor")
        kept = output.clone()
        self.kept.append(kept)
        self.values.append(kept.detach().clone())
        return kept.clone()


def activation_and_gradient(
    model: nn.Module, layer: str, inputs: Any, score: Score, call: int = -1
) -> tuple[Tensor, Tensor]:
    """A and dS/dA, both `(b, channels, *space)`, at the output of a named module.

    Later in-place operations cannot overwrite them: the network goes on with a copy. (So a network that relies on the
    module's output sharing memory with another tensor it still holds is out of reach.)

    Args:
        model: Its output must not change through the hook; this is checked.
        layer: Path of a module, "" for the model.
        inputs: A tensor or a tuple of tensors.
        score: From the model's output to a scalar (for a batch: the sum over its images).
        call: Which call of the module, where it is called several times.
    """
    leaves = [t.detach().clone().requires_grad_() for t in ((inputs,) if isinstance(inputs, Tensor) else inputs)]
    tap = _Tap()
    handle = model.get_submodule(layer).register_forward_hook(tap)
    try:
        with torch.enable_grad():
            total = score(model(*[leaf.clone() for leaf in leaves]))
            (gradient,) = torch.autograd.grad(total, tap.kept[call], allow_unused=True)
    finally:
        handle.remove()
    with torch.no_grad():
        without = score(model(*[leaf.detach().clone() for leaf in leaves]))
    torch.testing.assert_close(total.detach(), without, rtol=1e-4, atol=1e-6)
    activation = tap.values[call]
    return activation, torch.zeros_like(activation) if gradient is None else gradient.detach()


def each(method: Callable[..., Tensor], *stacks: Tensor) -> Tensor:
    """`method` on every image by itself: `(b, *space)`."""
    return torch.stack([method(*parts) for parts in zip(*stacks, strict=True)])


def rectify(values: Tensor, relu: bool) -> Tensor:
    return torch.where(values > 0, values, torch.zeros_like(values)) if relu else values


def weighted(weights: Tensor, A: Tensor) -> Tensor:
    """Σ_k w_k A_k, one channel after the other."""
    total = torch.zeros_like(A[0])
    for w, channel in zip(weights, A, strict=True):
        total = total + w * channel
    return total


# ---------------------------------------------------------------------------------------- maps from A and G, one image


def cam(A: Tensor, row: Tensor) -> Tensor:
    """Zhou et al. 2016, eq. 2: M = Σ_k w_k A_k, signed; `row` is the class's row of the linear head.

    With a global-average-pooling head, mean(M) + bias = the class's score.
    """
    return weighted(row, A)


def grad_cam(A: Tensor, G: Tensor, relu: bool = True) -> Tensor:
    """Selvaraju et al. 2017, eq. 1 and 2: w_k = mean_ij G_k; M = ReLU(Σ_k w_k A_k)."""
    weights = torch.stack([g.mean() for g in G])
    return rectify(weighted(weights, A), relu)


def grad_cam_plus_plus(A: Tensor, G: Tensor, relu: bool = True) -> Tensor:
    """Chattopadhay et al. 2018, with Y = exp(S), G = dS/dA.

    α = G² / (2 G² + (Σ_ab A_ab) G³), 0 where G = 0; w_k = Σ_ij α ReLU(G); M = ReLU(Σ_k w_k A_k).
    The positive factor exp(S) of dY/dA is left out of w_k: it scales the whole map.
    """
    weights = []
    for a, g in zip(A, G, strict=True):
        below = 2 * g**2 + a.sum() * g**3
        alpha = torch.where(below != 0, g**2 / torch.where(below != 0, below, 1), 0)
        weights.append((alpha * rectify(g, True)).sum())
    return rectify(weighted(torch.stack(weights), A), relu)


def xgrad_cam(A: Tensor, G: Tensor, relu: bool = True) -> Tensor:
    """Fu et al. 2020: w_k = Σ_ij A_k G_k / Σ_ij A_k, 0 where a channel sums to 0; M = ReLU(Σ_k w_k A_k)."""
    weights = []
    for a, g in zip(A, G, strict=True):
        total = a.sum()
        weights.append((a * g).sum() / total if total != 0 else torch.zeros_like(total))
    return rectify(weighted(torch.stack(weights), A), relu)


def hires_cam(A: Tensor, G: Tensor, relu: bool = True) -> Tensor:
    """Draelos & Carin 2020: M = Σ_k G_k ⊙ A_k (the paper's map is signed: `relu=False`)."""
    return rectify((A * G).sum(0), relu)


def layer_cam(A: Tensor, G: Tensor, relu: bool = True) -> Tensor:
    """Jiang et al. 2021: M = ReLU(Σ_k ReLU(G_k) ⊙ A_k)."""
    return rectify((rectify(G, True) * A).sum(0), relu)


def eigen_cam(A: Tensor, centred: bool = False) -> Tensor:
    """Muhammad & Yeasin 2020: A as a matrix (pixels × channels) = U Σ Vᵀ; M = A v₁. No class, no ReLU.

    The paper leaves the sign open. Here v₁ is turned so that Σ_ij M · (Σ_k A_k) ≥ 0: the map goes with the summed
    activation. `centred=True` takes every channel's mean away first, as pytorch-grad-cam does (the sign then follows
    the centred sum). Compare with `up_to_sign` where a convention is not at stake.
    """
    matrix = A.flatten(1).T
    matrix = matrix - matrix.mean(0) if centred else matrix
    _, vectors = torch.linalg.eigh(matrix.T @ matrix)
    component = matrix @ vectors[:, -1]
    sign = -1.0 if (component * matrix.sum(1)).sum() < 0 else 1.0
    return (sign * component).reshape(A.shape[1:])


def eigen_grad_cam(A: Tensor, G: Tensor, centred: bool = False) -> Tensor:
    """Eigen-CAM of A ⊙ G; the same convention of sign, so that it goes with HiResCAM."""
    return eigen_cam(A * G, centred)


def up_to_sign(found: Tensor, expected: Tensor) -> Tensor:
    """`found`, turned to the side of `expected`."""
    return -found if (found * expected).sum() < 0 else found


# ------------------------------------------------------------------------------------------------------- to the pixels

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def enlarge(maps: Tensor, size: tuple[int, ...], align_corners: bool = False) -> Tensor:
    """`(b, *space)` to `(b, *size)`, (bi-, tri-)linear."""
    return F.interpolate(maps[:, None], size=size, mode=MODES[len(size)], align_corners=align_corners)[:, 0]


def guided_grad_cam(model: nn.Module, layer: str, x: Tensor, score: Score, call: int = -1) -> Tensor:
    """Selvaraju et al. 2017, §3.2: guided backprop ⊙ enlarged Grad-CAM (with its ReLU), shaped as x."""
    A, G = activation_and_gradient(model, layer, x, score, call)
    maps = enlarge(each(grad_cam, A, G), tuple(x.shape[2:]))
    return guided_backprop(model, x, score) * maps[:, None]


# ------------------------------------------------------------------------------------------------------------ FullGrad

_LINEAR = frozenset(f"{kind}{n}d" for kind in ("conv", "conv_transpose") for n in (1, 2, 3)) | {"linear"}


def _argument(names: str, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
    order = names.split()
    return kwargs[name] if name in kwargs else dict(zip(order, args, strict=False)).get(name)


class _BiasMode(TorchFunctionMode):
    """Keeps, for every operation with a bias, the bias (per channel) and a private copy of the operation's output."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Tensor, Tensor]] = []
        self.axes: list[int] = []  # where the channels are

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        bias = self._bias(name, args, kwargs)
        if bias is None:
            return out
        kept = out.clone()
        axis = kept.ndim - 1 if name == "linear" else kept.ndim - bias.ndim if name == "layer_norm" else 1
        shape = [1] * axis + list(bias.shape) + [1] * (kept.ndim - axis - bias.ndim)
        self.found.append((bias.detach().reshape(shape), kept))
        self.axes.append(axis)
        return kept.clone()

    def _bias(self, name: str, args: Any, kwargs: Any) -> Tensor | None:
        if name in _LINEAR:
            return _argument("input weight bias", args, kwargs, "bias")
        if name == "batch_norm":
            return self._implicit(args, kwargs)
        if name == "layer_norm":
            return _argument("input normalized_shape weight bias", args, kwargs, "bias")
        return _argument("input num_groups weight bias", args, kwargs, "bias") if name == "group_norm" else None

    def _implicit(self, args: Any, kwargs: Any) -> Tensor:
        """BatchNorm in evaluation: β − γ μ / √(σ² + ε)."""
        names = "input running_mean running_var weight bias training momentum eps"
        mean, var, gamma, beta, eps = (
            _argument(names, args, kwargs, n) for n in ("running_mean", "running_var", "weight", "bias", "eps")
        )
        slope = (1.0 if gamma is None else gamma) / torch.sqrt(var + (1e-5 if eps is None else eps))
        return (0.0 if beta is None else beta) - slope * mean


@dataclass(frozen=True)
class FullGradient:
    """The parts of the score: x ⊙ ∇ₓS, and b ⊙ ∇_b S for every bias at every place where it acts, batch first."""

    value: Tensor
    input_term: Tensor
    bias_terms: list[Tensor]
    channel_axes: list[int]

    def residual(self) -> Tensor:
        """S − Σ of the parts; 0 for a piecewise linear network without other constants. For a batch: of the sum."""
        return self.value - self.input_term.sum() - sum(term.sum() for term in self.bias_terms)


def full_gradient(model: nn.Module, x: Tensor, score: Score) -> FullGradient:
    """Srinivas & Fleuret 2019, completeness. Biases of conv, transposed conv, linear and normalisation calls.

    BatchNorm's is the implicit one. Layer- and GroupNorm's affine bias counts, their centring does not: with them,
    with smooth activations or other added constants, the residual is not 0.
    """
    leaf = x.detach().clone().requires_grad_()
    mode = _BiasMode()
    with torch.enable_grad(), mode:
        total = score(model(leaf.clone()))
    kept = [out for _, out in mode.found]
    gradients = torch.autograd.grad(total, [leaf, *kept], allow_unused=True)
    known = [torch.zeros_like(t) if g is None else g for t, g in zip([leaf, *kept], gradients, strict=True)]
    terms = [bias * g for (bias, _), g in zip(mode.found, known[1:], strict=True)]
    return FullGradient(total.detach(), x * known[0], [term.detach() for term in terms], mode.axes)


def _rescaled(maps: Tensor, over: Literal["channel", "layer", "none"]) -> Tensor:
    """(channels, *space) to 0..1; a constant map becomes 0."""
    if over == "none":
        return maps
    if over == "channel":
        return torch.stack([_rescaled(m[None], "layer")[0] for m in maps])
    low, high = maps.min(), maps.max()
    return (maps - low) / (high - low) if high > low else torch.zeros_like(maps)


def full_grad(
    model: nn.Module,
    x: Tensor,
    score: Score,
    rescale: Literal["channel", "layer", "none"] = "channel",
    align_corners: bool = False,
) -> Tensor:
    """Srinivas & Fleuret 2019: Σ_channels ψ(input term) + Σ_layers Σ_channels ψ(bias term), `(b, *space)`.

    ψ = enlarge(rescale(|·|)), rescaled per channel as in the paper's sum ("layer": a layer's channels together, as in
    the authors' code). Terms without spatial axes (linear layers) have no place in the map.
    """
    parts = full_gradient(model, x, score)
    total = torch.zeros_like(x[:, 0])
    for term, axis in zip([parts.input_term, *parts.bias_terms], [1, *parts.channel_axes], strict=True):
        if term.ndim != x.ndim:
            continue
        for image, maps in enumerate(term.abs().movedim(axis, 1)):
            big = enlarge(_rescaled(maps, rescale), tuple(x.shape[2:]), align_corners)
            total[image] = total[image] + big.sum(0)
    return total
