"""VisualBackProp on a chain of layers, written from Bojarski et al. 2016 (arXiv:1611.05418, section III), slowly.

1. Average the feature maps of each layer over its channels, after the ReLU.
2. Scale the deepest averaged map up by a deconvolution with the filter size and stride of the layer it came from, all
   weights one and no bias, and multiply it with the averaged map of the layer before.
3. Go on to the input. Here the result is divided by its largest value.
"""

import itertools

import torch
from torch import Tensor, nn


def visual_backprop(layers: nn.Sequential, x: Tensor) -> Tensor:
    """`(b, *space)` for a chain of convolutions, transposed convolutions, pools, BatchNorms and ReLUs."""
    states = [x]
    for layer in layers:
        states.append(layer(states[-1]).detach())
    running = None
    for layer, before, after in reversed(list(zip(layers, states[:-1], states[1:], strict=True))):
        if isinstance(layer, nn.ReLU):
            average = sum(after[:, k] for k in range(after.shape[1])) / after.shape[1]
            running = average if running is None else running * average
        elif running is not None and not isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            running = _scaled_up(layer, running, tuple(before.shape[2:]))
    assert running is not None, "the chain has no ReLU"
    return running / running.flatten(1).amax(1).view(-1, *[1] * (running.dim() - 1))


def _scaled_up(layer: nn.Module, small: Tensor, size: tuple[int, ...]) -> Tensor:
    """Every position adds its value to all positions that the layer computed it from, one after the other."""
    axes = len(size)
    kernel, stride, padding, dilation = (
        _each(getattr(layer, name, 1), axes) for name in ("kernel_size", "stride", "padding", "dilation")
    )
    large = small.new_zeros(small.shape[0], *size)
    written_by_input = isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    one_side = size if written_by_input else tuple(small.shape[1:])
    for place in itertools.product(*map(range, one_side)):
        for tap in itertools.product(*map(range, kernel)):
            other = tuple(
                p * s - q + t * d for p, s, q, t, d in zip(place, stride, padding, tap, dilation, strict=True)
            )
            out, source = (other, place) if written_by_input else (place, other)
            inside = zip((*out, *source), (*small.shape[1:], *size), strict=True)
            if all(0 <= i < n for i, n in inside):
                large[(slice(None), *source)] += small[(slice(None), *out)]
    return large


def _each(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def by_deconvolution(layers: nn.Sequential, x: Tensor) -> Tensor:
    """The same by torch's transposed convolution, for convolutions without padding that fit their input exactly."""
    states = [x]
    for layer in layers:
        states.append(layer(states[-1]).detach())
    running = torch.ones(())
    for layer, after in reversed(list(zip(layers, states[1:], strict=True))):
        if isinstance(layer, nn.ReLU):
            running = after.mean(1, keepdim=True) * running
        elif isinstance(layer, nn.Conv2d) and running.dim():
            ones = torch.ones(1, 1, *layer.kernel_size, dtype=x.dtype)
            running = nn.functional.conv_transpose2d(running, ones, stride=layer.stride)
    return running[:, 0] / running.flatten(1).amax(1).view(-1, 1, 1)
