"""Guided backprop and deconvnet, written slowly and without a tape.

A `TorchFunctionMode` replaces every rectifier that Python code calls (module, functional, method, in-place, operator)
by an `autograd.Function` with the rule; everything else is plain autograd. With f the rectifier, x its input, g the
signal that arrives from above:

    guided     f'(x) · max(g, 0)     Springenberg et al. 2015, arXiv:1412.6806, §3, for any rectifier
    deconvnet         max(g, 0)      Zeiler & Fergus 2014, arXiv:1311.2901, §2.1; max-pooling keeps its switches

f' is torch's own derivative, so at the kink x = 0 `relu` gives 0 and `clamp(min=0)` gives 1.
Rectifiers are the functions in `RECTIFIERS` (`hardtanh` whatever its bounds) and `clamp`/`clip`/`clamp_min` with the
number 0 as minimum. Sigmoid, tanh, hardsigmoid, softmax are none. A rectifier that the user spells with other
operations (`x * sigmoid(x)`, `maximum(x, 0)`, `where`, `x[x < 0] = 0`) is not seen and keeps its plain derivative.
A rectifier inside TorchScript cannot be seen from Python: refused.
"""

import inspect
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Rule = Literal["plain", "guided", "deconvnet"]
Score = Callable[[Any], Tensor]

_SHARP = ["relu", "relu6", "hardtanh", "leaky_relu", "prelu", "rrelu", "threshold"]
_SMOOTH = ["elu", "selu", "celu", "silu", "gelu", "hardswish", "mish", "softplus"]
RECTIFIERS = frozenset(_SHARP + _SMOOTH)
CLAMPS = frozenset(["clamp", "clip", "clamp_min"])
_SCRIPTED = re.compile(r"aten::(" + "|".join(sorted(RECTIFIERS | CLAMPS)) + r")_?\(")


def positive(signal: Tensor) -> Tensor:
    """max(signal, 0)."""
    return torch.where(signal > 0, signal, torch.zeros_like(signal))


def value_and_derivative(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """y and dy/dx of an elementwise function."""
    keep = torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t)  # hides this from checkpointing's hooks
    with torch.enable_grad(), keep:
        leaf = x.detach().clone().requires_grad_()
        y = function(leaf)
        (slope,) = torch.autograd.grad(y.sum(), leaf)
    return y.detach(), slope


class _Rectify(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], rule: Rule) -> Tensor:
        y, slope = value_and_derivative(function, x)
        ctx.save_for_backward(slope)
        ctx.rule = rule
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (slope,) = ctx.saved_tensors
        (g,) = grads
        signal = {"plain": slope * g, "guided": slope * positive(g), "deconvnet": positive(g)}[ctx.rule]
        return signal, None, None


def _name(func: Any) -> str:
    """`relu_` of `torch.relu_`, `Tensor.relu_`, `F.relu_`, `torch.ops.aten.relu_.default`."""
    return getattr(func, "__name__", "").split(".")[0].lstrip("_")


def _floor(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return kwargs["min"] if "min" in kwargs else (args[1] if len(args) > 1 else None)


def is_rectifier(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether this call of a torch function is a rectifier in the sense of the module's docstring."""
    name = _name(func).removesuffix("_")
    if name in CLAMPS:
        low = _floor(name, args, kwargs)
        return isinstance(low, int | float) and low == 0
    return name in RECTIFIERS


def _split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The input tensor, the other positional arguments, the other keywords."""
    rest = dict(kwargs)
    if args:
        return args[0], args[1:], rest
    return rest.pop("input" if "input" in rest else "self"), (), rest


def _out_of_place(func: Any, name: str) -> Any:
    """The twin of `func` that does not write into its input."""
    if not name.endswith("_"):
        return func
    base = name.removesuffix("_")
    homes = (torch, torch.nn.functional, torch.Tensor)
    return next(getattr(home, base) for home in homes if hasattr(home, base))


class RectifierMode(TorchFunctionMode):
    """Within it, every rectifier passes signals back by `rule`; `seen` counts the rectifiers by name."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule: Rule = rule
        self.seen: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not is_rectifier(func, args, kwargs):
            return func(*args, **kwargs)
        x, rest, words = _split(args, kwargs)
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return func(*args, **kwargs)
        return self._rectify(func, x, rest, words)

    def _rectify(self, func: Any, x: Tensor, rest: tuple[Any, ...], words: dict[str, Any]) -> Tensor:
        name = _name(func)
        if inspect.isfunction(func) and "inplace" in inspect.signature(func).parameters:
            inplace = bool(inspect.signature(func).bind(x, *rest, **words).arguments.get("inplace", False))
            words.pop("inplace", None)
            rest = rest[:-1] if inplace and rest and rest[-1] is True else rest
        else:
            inplace = name.endswith("_")
        twin = _out_of_place(func, name)
        y: Tensor = _Rectify.apply(x, lambda t: twin(t, *rest, **words), self.rule)  # type: ignore[assignment]
        self.seen[name.removesuffix("_")] += 1
        return x.copy_(y) if inplace else y


def refuse_scripted(model: nn.Module) -> None:
    """Raises NotImplementedError where a TorchScript part holds a rectifier."""
    for path, module in model.named_modules():
        graph = getattr(module, "inlined_graph", None) if isinstance(module, torch.jit.ScriptModule) else None
        if graph is not None and _SCRIPTED.search(str(graph)):
            raise NotImplementedError(f"TorchScript module {path or 'model'!r} holds a rectifier; use its eager twin")


def _engine_backward(total: Tensor, leaves: list[Tensor]) -> Any:
    """`torch.autograd.grad`, which would switch the mode off while it runs, without its wrapper."""
    engine: Any = torch.autograd.Variable._execution_engine  # type: ignore[attr-defined]
    words = {"allow_unreachable": True, "accumulate_grad": False}
    return engine.run_backward((total,), (torch.ones_like(total),), False, False, tuple(leaves), **words)


def signals(model: nn.Module, inputs: Any, score: Score, rule: Rule) -> tuple[tuple[Tensor, ...], Counter[str]]:
    """One signal per input, and the rectifiers met.

    Args:
        model: Left as it is.
        inputs: A tensor, or a tuple of tensors that `model(*inputs)` takes.
        score: From the model's output to a scalar (for a batch: the sum over its images).
        rule: "guided", "deconvnet", or "plain" for the exact gradient through the same machinery.
    """
    refuse_scripted(model)
    single = isinstance(inputs, Tensor)
    leaves = [t.detach().clone().requires_grad_() for t in ((inputs,) if single else inputs)]
    mode = RectifierMode(rule)
    with torch.enable_grad(), mode:  # backward inside too: checkpointing recomputes there
        total = score(model(*[leaf.clone() for leaf in leaves]))
        count = Counter(mode.seen)
        found = _engine_backward(total, leaves)
    return tuple(torch.zeros_like(t) if g is None else g.detach() for t, g in zip(leaves, found, strict=True)), count


def _one_or_all(inputs: Any, found: tuple[Tensor, ...]) -> Any:
    return found[0] if isinstance(inputs, Tensor) else found


def guided_backprop(model: nn.Module, inputs: Any, score: Score) -> Any:
    """Springenberg 2015: a tensor shaped as the input (a tuple for a tuple of inputs)."""
    return _one_or_all(inputs, signals(model, inputs, score, "guided")[0])


def deconvnet(model: nn.Module, inputs: Any, score: Score) -> Any:
    """Zeiler & Fergus 2014: a tensor shaped as the input (a tuple for a tuple of inputs)."""
    return _one_or_all(inputs, signals(model, inputs, score, "deconvnet")[0])


def plain(model: nn.Module, inputs: Any, score: Score) -> Any:
    """The exact gradient, through the same mode: it must equal plain autograd."""
    return _one_or_all(inputs, signals(model, inputs, score, "plain")[0])


def rectifiers(model: nn.Module, inputs: Any, score: Score) -> Counter[str]:
    """How often each rectifier ran in one forward."""
    return signals(model, inputs, score, "plain")[1]
