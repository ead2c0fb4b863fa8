"""How the parts of a small network are wired: weights, biases, ablation, DeepLIFT between layers, VisualBackProp, STDP.

FullGrad: Srinivas & Fleuret 2019, arXiv:1905.00780; VisualBackProp: Bojarski et al. 2016, arXiv:1611.05418; DeepLIFT:
Shrikumar et al. 2017, arXiv:1704.02685, §3; STDP probe: specification §2.4, nearest Ferré et al. 2018
(doi 10.3389/fncom.2018.00024). Networks are `nn.Sequential`s in evaluation mode, one picture with its batch axis.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

D = torch.float64

# ------------------------------------------------------------------------------------------------- weights and biases


def norm_matrix(layer: nn.Module) -> np.ndarray:
    """N[i, o] = ‖W[o, i]‖₂ over the kernel's cells, |W[o, i]| for a linear layer; 0 between different groups."""
    w, groups = layer.weight.detach().double().numpy(), getattr(layer, "groups", 1)
    out, per_in = len(w), w.shape[1]
    found = np.zeros((per_in * groups, out))
    for o in range(out):
        for i in range(per_in):
            found[o // (out // groups) * per_in + i, o] = np.sqrt((w[o, i] ** 2).sum())
    return found


def implicit_bias(layer: nn.BatchNorm2d) -> np.ndarray:
    """β − μγ/√(σ² + ε), a number a channel: what batch-norm gives out for zeros."""
    gamma = torch.ones(layer.num_features) if layer.weight is None else layer.weight.detach()
    beta = torch.zeros(layer.num_features) if layer.bias is None else layer.bias.detach()
    mean, var = layer.running_mean.double(), layer.running_var.double()
    return (beta.double() - mean * gamma.double() / torch.sqrt(var + layer.eps)).numpy()


def explicit_bias(layer: nn.Module) -> np.ndarray | None:
    """The bias that a layer adds to its output, None where it adds none."""
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        return implicit_bias(layer)
    bias = getattr(layer, "bias", None)
    return None if bias is None else bias.detach().double().numpy()


def full_gradient(
    net: nn.Sequential, x: Tensor, target: int, forget_norms: bool = False
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """f = Σ x·∂f/∂x + Σ_l Σ b_l·∂f/∂z_l, z_l the output of layer l: the parts ("input", "0", "1", …) and their maps.

    Exact for nets of ReLUs, max- and average-pools. A convolution's bias and the implicit one of the batch-norm above
    it count apart, each times the gradient at its own output. Maps are x·∂ and b·∂ before any |·|, `(C, *cells)`.
    """
    outputs = [x.detach().clone().requires_grad_()]
    for layer in net:
        outputs.append(layer(outputs[-1].clone()))
    grads = torch.autograd.grad(outputs[-1][0, target], outputs)
    maps = {"input": (outputs[0] * grads[0])[0].detach().double().numpy()}
    for number, layer in enumerate(net):
        bias = explicit_bias(layer)
        if bias is None or (forget_norms and isinstance(layer, nn.BatchNorm2d)):
            continue
        g = grads[number + 1][0].double().numpy()
        maps[str(number)] = bias.reshape(-1, *[1] * (g.ndim - 1)) * g
    return {name: float(part.sum()) for name, part in maps.items()}, maps


def visual_backprop(net: nn.Sequential, x: Tensor) -> np.ndarray:
    """From the top rectified map down: mean over channels × what came from above, spread by the kernel's ones.

    With Ā_n the channel mean after the n-th rectified convolution (before any pool): M_N = Ā_N, M_n = Ā_n · up(M_n+1),
    the map = up(M_1) at the picture's size. `up` is the transposed convolution, all ones, of every layer between (the
    same kernel, stride, padding), as in the paper; pools count as kernels too.
    """
    means: list[Tensor | None] = []
    sizes, a = [], x
    for layer in net:
        sizes.append(a.shape[2:])
        a = layer(a)
        means.append(a.detach().mean(1, keepdim=True) if isinstance(layer, nn.ReLU) else None)
    heat: Tensor | None = None
    for layer, mean, size in list(zip(net, means, sizes, strict=True))[::-1]:
        if mean is not None:
            heat = mean if heat is None else mean * heat
        if heat is not None and hasattr(layer, "kernel_size"):
            heat = ones_back(heat, layer, size)
    assert heat is not None
    return heat[0, 0].double().numpy()


def ones_back(heat: Tensor, layer: nn.Module, size: Sequence[int]) -> Tensor:
    """out[s i − p + d u] += heat[i] for every cell u of the kernel; the outside is dropped."""

    def two(value):
        return (value, value) if isinstance(value, int) else tuple(value)

    k, p, s = two(layer.kernel_size), two(layer.padding), two(layer.stride)
    d = two(getattr(layer, "dilation", 1))
    out = torch.zeros(1, 1, *size, dtype=heat.dtype)
    for y, c, u, v in np.ndindex(*heat.shape[2:], *k):
        row, column = s[0] * y - p[0] + d[0] * u, s[1] * c - p[1] + d[1] * v
        if 0 <= row < size[0] and 0 <= column < size[1]:
            out[0, 0, row, column] += heat[0, 0, y, c]
    return out


# ------------------------------------------------------------------------------------------------------------ ablation


def ablation_matrix(
    model: nn.Module, above: str, layer: str, images: Tensor, fill: str = "zero", absolute: bool = False
) -> np.ndarray:
    """E[i, j] = mean over images and cells of (B_j as usual − B_j with channel i of A put to zero).

    A is what module `layer` gives out, B what `above` gives out ("" for the whole network). `fill="mean"` puts the
    channel to its own mean over the cells of the picture; `absolute` takes |·| of each difference before the mean.
    """
    width = [0]

    def look(i: int | None, image: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def put(module, inputs, output):
            width[0] = output.shape[1]
            if i is None:
                return None
            changed = output.clone()
            changed[:, i] = 0 if fill == "zero" else output[:, i].mean()
            return changed

        handles = [model.get_submodule(layer).register_forward_hook(put)]
        if above:
            handles.append(model.get_submodule(above).register_forward_hook(lambda m, a, o: seen.append(o.clone())))
        try:
            with torch.no_grad():
                out = model(image[None])
        finally:
            for handle in handles:
                handle.remove()
        return (seen[-1] if above else out)[0].double()

    total: np.ndarray | float = 0.0
    for image in images:
        usual = look(None, image)
        rows = []
        for i in range(width[0]):
            lost = usual - look(i, image)
            rows.append((lost.abs() if absolute else lost).reshape(len(lost), -1).mean(1).numpy())
        total = total + np.stack(rows)
    return np.asarray(total / len(images))


# ------------------------------------------------------------------------------------------------------------ DeepLIFT

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh, nn.Softplus)


def multipliers(layers: Sequence[nn.Module], x: Tensor, ref: Tensor) -> np.ndarray:
    """m[j, i] of output neuron j to input neuron i of a few layers, by the Rescale rule and the chain rule (eq. 3).

        linear map y = W x + b      m = W, read off by unit vectors
        elementwise y = f(x)        m_i = Δy_i/Δx_i, f'(x_i) where Δx_i = 0

    and m of the whole is the matrix product. x, ref `(1, …)`: what comes in, for the picture and for the reference.
    Layers are in float64 and evaluation mode. Max-pools have no one rule and are refused.
    """
    x, ref, m = x.detach().to(D), ref.detach().to(D), np.eye(x[0].numel())
    for layer in layers:
        with torch.no_grad():
            y, y_ref = layer(x.clone()), layer(ref.clone())
        if isinstance(layer, RECTIFIERS):
            step = np.zeros(x[0].numel())
            flat = zip(x.flatten(), ref.flatten(), y.flatten(), y_ref.flatten(), strict=True)
            for i, (a, a_ref, b, b_ref) in enumerate(flat):
                step[i] = float((b - b_ref) / (a - a_ref)) if a != a_ref else slope(layer, a)
            m = step[:, None] * m
        elif isinstance(
            layer, nn.Conv2d | nn.Linear | nn.AvgPool2d | nn.AdaptiveAvgPool2d | nn.Flatten | nn.BatchNorm2d
        ):
            m = matrix_of(layer, x.shape) @ m
        elif not isinstance(layer, nn.Identity | nn.Dropout):
            raise NotImplementedError(f"no Rescale rule for {layer}")
        x, ref = y, y_ref
    return m


def slope(layer: nn.Module, a: Tensor) -> float:
    """f'(a), torch's own."""
    leaf = a.detach().clone().requires_grad_()
    return float(torch.autograd.grad(layer(leaf.clone()), leaf)[0])


def matrix_of(layer: nn.Module, shape: Sequence[int]) -> np.ndarray:
    """Column i is layer(e_i) − layer(0)."""
    with torch.no_grad():
        zero = torch.zeros(tuple(shape), dtype=D)
        base, columns = layer(zero).flatten(), []
        for i in range(zero.numel()):
            unit = zero.clone()
            unit.view(-1)[i] = 1
            columns.append((layer(unit).flatten() - base).numpy())
    return np.stack(columns, 1)


def influence(net: nn.Sequential, below: int, above: int, x: Tensor, ref: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """C_ij = Σ over places of m_{Δa_i Δb_j} Δa_i, A and B the outputs of layers number `below` and `above`.

    Returns the channel × channel matrix `(A, B)`, and Δb summed over places: Σ_i C_ij = Δb_j.
    """
    net = copy.deepcopy(net).to(D).eval()
    x, ref = x.detach().to(D), ref.detach().to(D)
    with torch.no_grad():
        a, a_ref = net[: below + 1](x.clone()), net[: below + 1](ref.clone())
        b, b_ref = net[: above + 1](x.clone()), net[: above + 1](ref.clone())
    m = multipliers(list(net[below + 1 : above + 1]), a, a_ref)
    parts = m * (a - a_ref).flatten().numpy()[None, :]  # (neurons of B, neurons of A)
    per = parts.reshape(b.shape[1], b[0, 0].numel(), a.shape[1], a[0, 0].numel()).sum((1, 3))
    return per.T, (b - b_ref)[0].reshape(b.shape[1], -1).sum(1).numpy()


# ---------------------------------------------------------------------------------------------------------------- STDP


def latency(a: np.ndarray) -> np.ndarray:
    """t = 1 − (a − min)/(max − min) over all that is given: the strongest fires at 0; all at 1 if nothing differs."""
    low, high = a.min(), a.max()
    return 1 - (a - low) / (high - low) if high > low else np.ones(a.shape)


def windowed(t_pre: float, t_post: float, back: float = 0.05, ahead: float = 0.3) -> bool:
    """Potentiate if −τ₁ ≤ t_post − t_pre ≤ τ₂."""
    return -back <= t_post - t_pre <= ahead


def literal(t_pre: float, t_post: float) -> bool:
    """Potentiate if the input fires before the output, or with it: the pairwise rule as the words have it."""
    return t_pre <= t_post


def stdp(
    weights: np.ndarray,
    pre: Sequence[np.ndarray],
    post: Sequence[np.ndarray],
    rule: Callable[[float, float], bool] = windowed,
    gain: float = 0.004,
    loss: float = 0.003,
    peak: float = 1.0,
) -> np.ndarray:
    """Δw of a dense layer: each example in turn adds +a⁺ w (1 − w) where the rule says so, else −a⁻ w (1 − w).

    weights `(out, in)` start as peak · |W|/max|W|; `pre` and `post` hold an example's latencies, `(in,)` and `(out,)`.
    A post latency of nan did not win and learns nothing. A weight at 0 or 1 never moves: with a peak of 1 equal
    weights learn nothing.
    """
    start = peak * np.abs(weights) / np.abs(weights).max()
    w = start.copy()
    for t_in, t_out in zip(pre, post, strict=True):
        for j in range(w.shape[0]):
            for i in range(w.shape[1]):
                if not np.isnan(t_out[j]):
                    w[j, i] += (gain if rule(t_in[i], t_out[j]) else -loss) * w[j, i] * (1 - w[j, i])
    return w - start


def winners(layer: nn.Conv2d, x: Tensor, a: Tensor) -> tuple[list[np.ndarray], list[float]]:
    """Winner-take-all, k = 1: for each output channel the latencies of the patch under its first cell, and its own.

    x `(1, C, H, W)` comes in, a `(1, K, h, w)` comes out (rectified or not). Latencies over all of x and all
    of a; padding is an input of 0 on x's scale. Patches `(C, kh, kw)`; groups are not handled.
    """
    p, inside = layer.padding, x[0].detach().double().numpy()
    low, high = inside.min(), inside.max()
    wide = np.pad(inside, ((0, 0), (p[0], p[0]), (p[1], p[1])))
    t_in = 1 - (wide - low) / (high - low) if high > low else np.ones(wide.shape)
    t_out, patches, times = latency(a[0].detach().double().numpy()), [], []
    for k in range(a.shape[1]):
        y, c = np.unravel_index(np.argmin(t_out[k]), t_out[k].shape)
        rows = [y * layer.stride[0] + u * layer.dilation[0] for u in range(layer.kernel_size[0])]
        columns = [c * layer.stride[1] + v * layer.dilation[1] for v in range(layer.kernel_size[1])]
        patches.append(t_in[:, rows][:, :, columns])
        times.append(float(t_out[k, y, c]))
    return patches, times


def stdp_conv(
    layer: nn.Conv2d,
    pairs: Sequence[tuple[Tensor, Tensor]],
    rule: Callable[[float, float], bool] = windowed,
    peak: float = 1.0,
) -> np.ndarray:
    """Δw of a convolution, as its weight: one example after another, each channel learns from its winning patch."""
    w0 = layer.weight.detach().double().numpy()
    start = peak * np.abs(w0) / np.abs(w0).max()
    total = start.copy()
    for x, a in pairs:
        patches, times = winners(layer, x, a)
        for k, (patch, time) in enumerate(zip(patches, times, strict=True)):
            for cell in np.ndindex(*patch.shape):
                w = total[(k, *cell)]
                total[(k, *cell)] += (0.004 if rule(patch[cell], time) else -0.003) * w * (1 - w)
    return total - start


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """The share of (positive, negative) pairs in which the positive scores higher, ties half."""
    yes = [s for s, label in zip(scores, labels, strict=True) if label]
    no = [s for s, label in zip(scores, labels, strict=True) if not label]
    return sum((a > b) + 0.5 * (a == b) for a in yes for b in no) / (len(yes) * len(no))
