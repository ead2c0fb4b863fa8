"""Exact gradients of many inputs by plain autograd on the module, where that gives the recording's numbers.

Autograd on the module is a few percent cheaper than recording every pass. It is used only after one image
has shown that both give the same gradient; custom backward functions, `no_grad` blocks inside the
network and targets inside it keep the recording.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pellucid.core.preserve import preserved
from pellucid.core.record import main_output
from pellucid.core.runners import SAME, difference
from pellucid.core.target import Target, class_scores
from pellucid.core.trace import Trace


def module_gradients(
    trace: Trace, target: Target, x: Tensor, others: Any, rows: list[int], run: Callable[..., Any] | None = None
) -> tuple[Tensor, Tensor] | None:
    """`∂ score / ∂ x` and the scores by autograd; None where no gradient reaches the input.

    Args:
        others: the network's further arguments and keywords.
        rows: the number of the image that each input is a variant of.
        run: what to call instead of the module itself.
    """
    args, kwargs = others
    with preserved(trace.module), torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        output = main_output((run or trace.module)(leaf.clone(), *args, **kwargs))[0]
        if output is None or not output.requires_grad:
            return None
        scores = target.read(output, rows).reshape(-1)
        (found,) = torch.autograd.grad(scores.sum(), leaf, allow_unused=True)
    return None if found is None else (found, scores.detach())


def tried_gradients(
    trace: Trace, target: Target, x: Tensor, others: Any, rows: list[int]
) -> tuple[Tensor, Tensor] | None:
    """As `module_gradients`, on copies of the buffers; None also where autograd fails or a buffer is written."""
    module, buffers = trace.module, dict(trace.module.named_buffers())
    if buffers and any(isinstance(m, torch.jit.ScriptModule) for m in module.modules()):
        return None
    copies = {name: buffer.clone() for name, buffer in buffers.items()}
    try:
        found = module_gradients(
            trace, target, x, others, rows, lambda *a, **k: torch.func.functional_call(module, copies, a, k)
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return None
    return found if all(torch.equal(copies[name], buffer) for name, buffer in buffers.items()) else None


def eligible(trace: Trace, target: Target) -> bool:
    """Whether autograd on the module could stand for the recording at all."""
    plain = trace.scores.dtype in SAME and not torch.is_inference_mode_enabled()
    reads_output = target.layer is None and (target.whole or class_scores(trace) is trace.output)
    return plain and reads_output and not any(node.function for node in trace.nodes)


def agree(mine: Tensor, theirs: Tensor | None) -> bool:
    """Whether two gradients are the same up to rounding."""
    return theirs is not None and difference(theirs, mine) <= SAME[mine.dtype]
