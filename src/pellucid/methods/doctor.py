"""What works on a network: for each method exact, approximate or impossible, and the operations that decide it."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.core.errors import ModelError
from pellucid.core.preserve import preserved
from pellucid.core.record import main_output, record
from pellucid.core.trace import Trace
from pellucid.methods.registry import METHODS, Verdict
from pellucid.models.model import Model, wrap

SAME = 1e-4


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
    x = _example(model) if x is None else x
    trace = record(model.module, x)
    error = gradient_error(trace)
    warnings = [*model.notes, *trace.notes, *trace.strangers]
    functions = sorted({n.function for n in trace.nodes if n.function})
    if functions:
        warnings.append(f"custom functions {', '.join(functions)}: their recorded operations are differentiated, not their own backward")
    if error > SAME:
        warnings.append(f"the recorded gradient differs from autograd's by {error:.1e}; a custom backward is the likely cause")
    operations = dict(Counter(n.base for n in trace.nodes).most_common())
    verdicts = {name: method.doctor(trace) for name, method in METHODS.items()}
    return Diagnosis(model.name, tuple(x.shape), operations, error, tuple(warnings), verdicts)


def gradient_error(trace: Trace) -> float:
    """Largest difference between the recorded gradient of the best class and autograd's, over its largest value."""
    seed = torch.zeros_like(trace.scores)
    flat = trace.scores.flatten(1) if trace.scores.dim() > 1 else trace.scores[:, None]
    seed.view(flat.shape).scatter_(1, flat.argmax(1, keepdim=True), 1)
    mine = trace.pull(seed).input()
    x = trace.inputs[0].data.detach().clone().requires_grad_()
    with preserved(trace.module), torch.enable_grad():
        output = main_output(trace.module(x))[0]
        (theirs,) = torch.autograd.grad(output, x, seed)
    return float((mine - theirs).abs().max() / theirs.abs().max().clamp(min=torch.finfo(theirs.dtype).tiny))


def _example(model: Model) -> Tensor:
    size = model.preprocess.input_size_px if model.preprocess is not None else None
    if model.preprocess is None or size is None:
        raise ModelError(f"the input size of {model.name} is not known; give an input, or preprocess=pel.preprocess(crop_px=…)")
    random = torch.Generator().manual_seed(0)
    pixels = torch.rand(1, model.preprocess.channels, *size, generator=random)
    first = next((p for p in model.module.parameters() if p.is_floating_point()), torch.empty(0))
    return model.preprocess.normalise(pixels).to(first.detach())
