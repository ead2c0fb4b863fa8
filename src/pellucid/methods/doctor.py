"""What works on a network: for each method exact, approximate or impossible, and the operations that decide it."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.core.errors import ModelError
from pellucid.core.record import record
from pellucid.core.target import custom
from pellucid.core.trace import Trace, filled
from pellucid.methods.passes import tried_gradients
from pellucid.methods.registry import METHODS, Verdict
from pellucid.models.model import Model, wrap

SAME = 1e-4
ANY_SIZE_PX = 224


@dataclass(frozen=True)
class Diagnosis:
    """The findings on one network.

    Attributes:
        operations: how often each operation was recorded.
        gradient_error: largest difference between the recorded gradient and autograd's, relative to its largest value.
        warnings: what a user should know before trusting any map.
        verdicts: method name -> what it can do here.
    """

    model: str
    input_shape: tuple[int, ...]
    operations: dict[str, int]
    gradient_error: float
    warnings: tuple[str, ...]
    verdicts: dict[str, Verdict]


def doctor(model: Model | nn.Module, x: Tensor | None = None) -> Diagnosis:
    """Record the network once, compare its gradient with autograd's, and ask every method.

    Args:
        x: an input; noise of the model's input size when none is given.

    Raises:
        ModelError: no input was given and the input size is not known.
    """
    model = model if isinstance(model, Model) else wrap(model)
    x = example_input(model) if x is None else x
    trace = record(model.module, x)
    error = gradient_error(trace)
    warnings = [*model.notes, *trace.notes, *trace.strangers]
    functions = sorted({n.function for n in trace.nodes if n.function})
    if functions:
        warnings.append(
            f"custom functions {', '.join(functions)}: what they recorded is differentiated, not their own backward"
        )
    if error > SAME:
        warnings.append(
            f"the recorded gradient differs from autograd's by {error:.1e}; a custom backward is the likely cause"
        )
    operations = dict(Counter(n.base for n in trace.nodes).most_common())
    verdicts = {name: method.doctor(trace) for name, method in METHODS.items()}
    return Diagnosis(model.name, tuple(x.shape), operations, error, tuple(warnings), verdicts)


def gradient_error(trace: Trace) -> float:
    """Largest difference between the recorded gradient of the largest score and autograd's, over the larger of
    their largest values.

    NaN where autograd has no gradient to compare with, as in a network that runs under `no_grad`.
    """
    target = custom(lambda y: y.flatten(1).amax(1) if y.dim() > 1 else y, "largest score")
    arguments = filled(trace.arguments)
    rows = list(range(trace.batch))
    theirs = tried_gradients(trace, target, trace.inputs[0].data, (arguments[0][1:], arguments[1]), rows)
    if theirs is None:
        return float("nan")
    mine = trace.pull(target).input()
    size = torch.maximum(mine.abs().max(), theirs[0].abs().max()).clamp(min=torch.finfo(mine.dtype).tiny)
    return float((mine - theirs[0]).abs().max() / size)


def example_input(model: Model) -> Tensor:
    """Seeded noise of the size that the network's preprocessing makes, `(1, c, h, w)`.

    Raises:
        ModelError: no preprocessing is known.
    """
    if model.preprocess is None:
        raise ModelError(
            f"the input size of {model.name} is not known; give an input, or preprocess=pel.preprocess(crop_px=…)"
        )
    side = model.preprocess.resize_px
    size = model.preprocess.input_size_px or ((side, side) if isinstance(side, int) else (ANY_SIZE_PX, ANY_SIZE_PX))
    random = torch.Generator().manual_seed(0)
    pixels = torch.rand(1, model.preprocess.channels, *size, generator=random)
    first = next((p for p in model.module.parameters() if p.is_floating_point()), torch.empty(0))
    return model.preprocess.normalise(pixels).to(first.detach())
