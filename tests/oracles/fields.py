"""Receptive fields by brute force: what a unit can see, what it does see, and receptive-field matrices (RFM).

Theoretical field (specification §1.11): the set of pixels p with ∂a/∂x_p ≠ 0 for some weights. It is read off a twin of
the network with equal positive weights and no biases, in which every rectifier and norm is the identity and every
max-pool a sum over its window: nothing can cancel, so a pixel is seen if and only if f(e_p) > 0.

For a plain sequence (Araujo et al. 2019, doi 10.23915/distill.00021), pixel 0 having its centre at coordinate 0:

    r ← r + (k − 1) d j        start ← start + ((k − 1) d / 2 − p) j        j ← j s

Effective field: Luo et al. 2016, arXiv:1701.04128. RFM and coupling: specification §2.3, no paper.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_SAME = """relu relu6 hardtanh leaky_relu prelu rrelu threshold elu selu celu silu gelu hardswish mish softplus sigmoid
tanh hardsigmoid logsigmoid softsign tanhshrink softshrink hardshrink softmax log_softmax clamp clamp_min clamp_max clip
batch_norm instance_norm group_norm layer_norm local_response_norm dropout""".split()
_POOLS = ("max_pool1d", "max_pool2d", "max_pool3d")
_WHOLE = ("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")


def out_length(n: int, k: int, s: int, p: int, d: int = 1, ceil: bool = False) -> int:
    """⌊(n + 2p − d(k−1) − 1)/s⌋ + 1; with `ceil` ⌈·⌉ + 1, less one where the last window would start in the padding."""
    room = n + 2 * p - d * (k - 1) - 1
    length = (-(-room // s) if ceil else room // s) + 1
    return length - 1 if ceil and (length - 1) * s >= n + p else length


def many(value: Any, axes: int) -> tuple[int, ...]:
    return (int(value),) * axes if isinstance(value, int) else tuple(int(v) for v in value)


def sum_pool(
    x: Tensor, k: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Tensor:
    """The sum over each window of a max-pool, zeros outside, whatever its padding, dilation and rounding."""
    axes = x.ndim - 2
    k = many(k, axes)
    s = k if stride is None or stride == [] else many(stride, axes)
    p, d = many(padding, axes), many(dilation, axes)
    lengths = [out_length(n, *how, ceil_mode) for n, *how in zip(x.shape[2:], k, s, p, d, strict=True)]
    ends = [(m - 1) * b + (a - 1) * c + 1 for m, a, b, c in zip(lengths, k, s, d, strict=True)]
    pad: list[int] = []
    for n, low, end in list(zip(x.shape[2:], p, ends, strict=True))[::-1]:
        pad += [low, max(0, end - n - low)]
    wide = F.pad(x, pad)[(..., *(slice(0, end) for end in ends))]
    ones = torch.ones(x.shape[1], 1, *k, dtype=x.dtype)
    return getattr(F, f"conv{axes}d")(wide, ones, stride=s, dilation=d, groups=x.shape[1])


class _Linear(TorchFunctionMode):
    """Rectifiers and norms pass on what they get, max-pools sum."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, words = getattr(func, "__name__", "").strip("_"), dict(kwargs or {})
        if name not in (*_SAME, *_POOLS, *_WHOLE):
            return func(*args, **words)
        x = args[0] if args else words.pop("input")
        if name in _SAME:
            return x
        words.pop("return_indices", None)
        if name in _WHOLE:
            size = args[1] if len(args) > 1 else words["output_size"]
            return getattr(F, name.replace("max", "avg"))(x, size)
        k = args[1] if len(args) > 1 else words.pop("kernel_size")
        return sum_pool(x, k, *args[2:6], **words)


class Twin:
    """The positive linear twin of a network, up to one of its modules.

    Args:
        model: Left as it is.
        layer: The dotted name of the module whose output is looked at; "" for the network's own output.
        bypass: Modules that pass on what they get, such as squeeze-and-excitation gates.
    """

    def __init__(self, model: nn.Module, layer: str, bypass: Sequence[str] = ()) -> None:
        self.model, self.layer = copy.deepcopy(model).double().eval(), layer
        for name in bypass:
            self.model.set_submodule(name, nn.Identity())
        for module in self.model.modules():
            for name, weight in module.named_parameters(recurse=False):
                fan = max(1, weight[0].numel()) if weight.ndim > 1 else 1
                weight.data.fill_(0.0 if name.startswith("bias") else 1.0 / fan)

    def __call__(self, x: Tensor) -> Tensor:
        with _Linear():
            return output_of(self.model, self.layer, x)


class _Reached(Exception):
    pass


def output_of(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """What the module gives out when it first runs, before any later in-place rectifier; the rest does not run."""
    if not layer:
        return model(x)

    def stop(module: nn.Module, inputs: Any, output: Tensor) -> None:
        raise _Reached(output.clone())

    handle = model.get_submodule(layer).register_forward_hook(stop)
    try:
        model(x)
    except _Reached as reached:
        return reached.args[0]
    finally:
        handle.remove()
    raise ValueError(f"{layer} did not run")


def middle(shape: Sequence[int]) -> tuple[int, ...]:
    """⌊n/2⌋ along each axis: of a 2 × 2 in the middle the one at the bottom right."""
    return tuple(n // 2 for n in shape)


def support_by_perturbation(twin: Twin, unit: Sequence[int], channels: int, size: Sequence[int]) -> np.ndarray:
    """Whether the unit moves when a pixel goes from 0 to 1 in all channels: one forward a pixel. Bool, `size`."""
    seen = np.zeros(tuple(size), dtype=bool)
    for place in product(*map(range, size)):
        x = torch.zeros(1, channels, *size, dtype=torch.float64)
        x[(0, slice(None), *place)] = 1
        with torch.no_grad():
            seen[place] = bool((twin(x)[(0, slice(None), *unit)] > 0).any())
    return seen


def support_by_gradient(twin: Twin, unit: Sequence[int], channels: int, size: Sequence[int]) -> np.ndarray:
    """Σ_c ∂(Σ_k a_k)/∂x_c > 0 at each pixel: the same, in one backward."""
    x = torch.ones(1, channels, *size, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        (g,) = torch.autograd.grad(twin(x)[(0, slice(None), *unit)].sum(), x)
    return (g[0].sum(0) > 0).numpy()


def box(support: np.ndarray) -> list[tuple[int, int]]:
    """(first, last) of the support along each axis, both inside it."""
    return [(int(hit.min()), int(hit.max())) for hit in np.nonzero(support)]


@dataclass(frozen=True)
class Axis:
    """The field along one axis: unit i sees start + i·stride ± (size − 1)/2."""

    size: int
    stride: int
    start: float

    def span(self, i: int) -> tuple[int, int]:
        """The first and the last coordinate that unit i sees, borders ignored."""
        first = self.start + i * self.stride - (self.size - 1) / 2
        return round(first), round(first) + self.size - 1


def field(model: nn.Module, layer: str, channels: int, size: Sequence[int], bypass: Sequence[str] = ()) -> list[Axis]:
    """Size, stride and start along each axis, from two neighbouring units in the middle of a big enough picture."""
    twin, found = Twin(model, layer, bypass), []
    with torch.no_grad():
        unit = middle(twin(torch.ones(1, channels, *size, dtype=torch.float64)).shape[2:])
    here = box(support_by_gradient(twin, unit, channels, size))
    for axis, (first, last) in enumerate(here):
        if first == 0 or last == size[axis] - 1:
            raise ValueError(f"the field reaches the border along axis {axis}: take a bigger picture")
        before = tuple(i - (a == axis) for a, i in enumerate(unit))
        step = first - box(support_by_gradient(twin, before, channels, size))[axis][0]
        found.append(Axis(last - first + 1, step, (first + last) / 2 - unit[axis] * step))
    return found


def recursion(steps: Sequence[tuple[int, int, int, int]]) -> Axis:
    """The field of a plain sequence of (k, s, p, d), by the module's three equations."""
    r, j, start = 1, 1, 0.0
    for k, s, p, d in steps:
        r, start, j = r + (k - 1) * d * j, start + ((k - 1) * d / 2 - p) * j, j * s
    return Axis(r, j, start)


def steps_of(layers: Sequence[nn.Module], axis: int = 0) -> list[tuple[int, int, int, int]]:
    """(k, s, p, d) along one axis of every convolution and pool; anything else sees one cell."""
    found = []
    for layer in layers:
        if hasattr(layer, "kernel_size"):
            k = layer.kernel_size if layer.__class__.__name__.startswith("Conv") else many(layer.kernel_size, 2)
            numbers = [layer.stride, layer.padding, getattr(layer, "dilation", 1)]
            found.append((k[axis], *(many(v, len(k))[axis] for v in numbers)))
    return found


# --------------------------------------------------------------------------------------------------- effective field


def gradient(model: nn.Module, layer: str, image: Tensor, channel: int, unit: Sequence[int]) -> Tensor:
    """∂a/∂x for one picture `(C, *space)`: as the picture."""
    x = image[None].clone().requires_grad_()
    with torch.enable_grad():
        (g,) = torch.autograd.grad(output_of(model, layer, x.clone())[(0, channel, *unit)], x)
    return g[0].detach()


def effective_field(
    model: nn.Module, layer: str, images: Tensor, channel: int, unit: Sequence[int], squared: bool = False
) -> np.ndarray:
    """E_x Σ_c |∂a/∂x_c|, or the mean square Σ_c (∂a/∂x_c)²; `space`. Luo et al. 2016, §2."""
    total = np.zeros(images.shape[2:])
    for image in images:
        g = gradient(model, layer, image, channel, unit).double().numpy()
        total += (g**2 if squared else np.abs(g)).sum(0)
    return total / len(images)


def centroid(heat: np.ndarray) -> list[float]:
    """Σ q·h(q) / Σ h(q) along each axis."""
    return [float((heat * place).sum() / heat.sum()) for place in np.indices(heat.shape)]


def moment_sigmas(heat: np.ndarray) -> list[float]:
    """√(Σ (q − centroid)² h(q) / Σ h(q)) along each axis."""
    pairs = zip(np.indices(heat.shape), centroid(heat), strict=True)
    return [float(np.sqrt(((place - mean) ** 2 * heat).sum() / heat.sum())) for place, mean in pairs]


def fitted_sigma(heat: np.ndarray, centre: Sequence[float] | None = None) -> float:
    """σ that minimises min_A Σ_q (h(q) − A exp(−|q − centre|²/(2σ²)))²: a scan, then finer scans around the best."""
    middle_ = centroid(heat) if centre is None else centre
    squares = sum((place - mean) ** 2 for place, mean in zip(np.indices(heat.shape), middle_, strict=True))

    def error(sigma: float) -> float:
        bell = np.exp(-squares / (2 * sigma**2))
        return float(((heat - bell * (heat * bell).sum() / (bell**2).sum()) ** 2).sum())

    low, high = 0.2, 2.0 * max(heat.shape)
    for _ in range(30):
        tries = np.geomspace(low, high, 21)
        best = int(np.argmin([error(t) for t in tries]))
        low, high = tries[max(0, best - 1)], tries[min(20, best + 1)]
    return float((low + high) / 2)


def area(heat: np.ndarray, unit: Sequence[int], share: float = 1 - 0.9545) -> int:
    """How many pixels have more than `share` of the value at the field's centre."""
    return sum(1 for value in heat.ravel() if value > share * heat[tuple(unit)])


def padding_mass(heat: np.ndarray, top_left: Sequence[int], size: Sequence[int]) -> float:
    """The share of a field's mass that lies outside the picture when the field's corner is put at `top_left`."""
    lost = 0.0
    for place in np.ndindex(*heat.shape):
        if any(not 0 <= a + b < n for a, b, n in zip(place, top_left, size, strict=True)):
            lost += heat[place]
    return float(lost / heat.sum())


# ------------------------------------------------------------------------------------------ receptive-field matrices


def places(fields: Sequence[Axis], cells: Sequence[int], size: Sequence[int]) -> list[tuple[int, ...]]:
    """The units whose whole field lies inside the picture."""
    inside = []
    for unit in product(*map(range, cells)):
        spans = [axis.span(i) for axis, i in zip(fields, unit, strict=True)]
        if all(first >= 0 and last < n for (first, last), n in zip(spans, size, strict=True)):
            inside.append(unit)
    return inside


def patch(picture: Any, fields: Sequence[Axis], unit: Sequence[int]) -> Any:
    """The part of a picture `(C, *space)` that a unit sees."""
    spans = [axis.span(i) for axis, i in zip(fields, unit, strict=True)]
    return picture[(slice(None), *(slice(first, last + 1) for first, last in spans))]


def rfm(
    model: nn.Module,
    layer: str,
    channel: int,
    images: Tensor,
    fields: Sequence[Axis],
    signal: str,
    fill: Tensor | None = None,
    whiten: bool = False,
) -> np.ndarray:
    """The mean over images and places (fields inside the picture only) of what comes from each cell of the field.

        contribution   x·∂a/∂x                       (C, *R)
        gradient       |∂a/∂x|                       (C, *R)
        correlation    Σ a·patch / Σ a − mean patch  (C, *R); whiten: times the inverse covariance of the patches
        occlusion      a − a(x with the cell taken from `fill`)  (1, *R), all channels of a cell at once

    The matrix itself is the sum over C. `fill`, as `images`, is what a cell is painted with.
    """
    terms: list[np.ndarray] = []
    weights: list[float] = []
    for number, image in enumerate(images):
        with torch.no_grad():
            a = output_of(model, layer, image[None])[0, channel]
        for unit in places(fields, a.shape, image.shape[1:]):
            seen = patch(image, fields, unit).double().numpy()
            weights.append(float(a[unit]))
            if signal == "correlation":
                terms.append(seen)
            elif signal == "occlusion":
                assert fill is not None
                terms.append(_occluded(model, layer, channel, image, fill[number], fields, unit))
            else:
                g = patch(gradient(model, layer, image, channel, unit), fields, unit).double().numpy()
                terms.append(np.abs(g) if signal == "gradient" else seen * g)
    mean = sum(terms) / len(terms)
    if signal != "correlation":
        return mean
    found = sum(w * t for w, t in zip(weights, terms, strict=True)) / sum(weights) - mean
    if whiten:
        apart = [(t - mean).ravel() for t in terms]
        covariance = sum(np.outer(t, t) for t in apart) / len(apart)
        found = (np.linalg.pinv(covariance) @ found.ravel()).reshape(found.shape)
    return found


def _occluded(
    model: nn.Module,
    layer: str,
    channel: int,
    image: Tensor,
    fill: Tensor,
    fields: Sequence[Axis],
    unit: tuple[int, ...],
) -> np.ndarray:
    """a − a(cell painted), for every cell of one unit's field."""
    corner = [axis.span(i)[0] for axis, i in zip(fields, unit, strict=True)]
    lost = np.zeros((1, *(axis.size for axis in fields)))
    with torch.no_grad():
        usual = output_of(model, layer, image[None])[(0, channel, *unit)]
        for cell in product(*(range(axis.size) for axis in fields)):
            place = (slice(None), *(a + b for a, b in zip(corner, cell, strict=True)))
            painted = image.clone()
            painted[place] = fill[place]
            lost[(0, *cell)] = float(usual - output_of(model, layer, painted[None])[(0, channel, *unit)])
    return lost


def coupling(below: nn.Module, above: nn.Module, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """C_ij = mean over images and places q of B of Σ_p A_i(p) ∂B_j(q)/∂A_i(p), A = below(x), B = above(A).

    Returns the signed matrix and the one with |·| of every term (the mass); `(channels of A, channels of B)`.
    """
    signed, mass, count = 0.0, 0.0, 0
    for image in images:
        A = below(image[None]).detach().requires_grad_()
        B = above(A.clone())
        rows, sizes = np.zeros((A.shape[1], B.shape[1])), np.zeros((A.shape[1], B.shape[1]))
        for j in range(B.shape[1]):
            for q in np.ndindex(*B.shape[2:]):
                (g,) = torch.autograd.grad(B[(0, j, *q)], A, retain_graph=True)
                term = (A.detach() * g)[0].double().reshape(A.shape[1], -1).numpy()
                rows[:, j] += term.sum(1)
                sizes[:, j] += np.abs(term).sum(1)
        signed, mass, count = signed + rows, mass + sizes, count + int(np.prod(B.shape[2:]))
    return signed / count, mass / count
