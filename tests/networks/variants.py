"""One network, spelled in many ways with identical weights: every map of every method must be identical."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .common import IMAGE, Factory, seeded

VARIANT_SHAPES = IMAGE
Act = Callable[[Tensor], Tensor]


class Variant(nn.Module):
    """conv-BN-act, conv-BN + residual-act, overlapping max-pool, conv-act, average, linear. No input of an act is 0."""

    def __init__(self, act: Act | None = None) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv3, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)
        self.act = act

    def a(self, x: Tensor) -> Tensor:
        assert self.act is not None
        return self.act(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.bn1(self.conv1(x)))
        x = self.a(self.bn2(self.conv2(x)) + x)
        x = self.a(self.conv3(F.max_pool2d(x, 3, 2, 1)))
        return self.head(x.mean(dim=(2, 3)))


class Separate(Variant):
    """One module per activation."""

    def __init__(self, make: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.acts = nn.ModuleList([make() for _ in range(3)])
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.acts[0](self.bn1(self.conv1(x)))
        x = self.acts[1](self.bn2(self.conv2(x)) + x)
        x = self.acts[2](self.conv3(self.pool(x)))
        return self.head(x.mean(dim=(2, 3)))


class Inplace(Separate):
    """In-place activations and `+=`."""

    def __init__(self, make: Callable[[], nn.Module] = lambda: nn.ReLU(inplace=True)) -> None:
        super().__init__(make)

    def forward(self, x: Tensor) -> Tensor:
        x = self.acts[0](self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(x))
        y += x
        y = self.conv3(self.pool(self.acts[1](y)))
        return self.head(self.acts[2](y).mean(dim=(2, 3)))


class IntoViews(Variant):
    """The activation is written into halves of the tensor, through views and a transposed view."""

    def a(self, x: Tensor) -> Tensor:
        x[:, :4].relu_()
        x.transpose(1, 3)[..., 4:].relu_()
        return x


class IntoBuffer(Variant):
    """The activation is written into a fresh tensor, slice by slice."""

    def a(self, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        out[:, ::2] = F.relu(x[:, ::2])
        out[:, 1::2] = F.relu(x[:, 1::2])
        return out


class Checkpointed(Variant):
    def a(self, x: Tensor) -> Tensor:
        return checkpoint(F.relu, x, use_reentrant=False)  # type: ignore[return-value]


class Functional(Variant):
    """Everything by functions; the modules only hold the weights."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self._bn(F.conv2d(x, self.conv1.weight, None, 1, 1), self.bn1))
        x = F.relu(torch.add(self._bn(F.conv2d(x, self.conv2.weight, padding="same"), self.bn2), x))
        x = torch.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        x = torch.conv2d(x, self.conv3.weight, self.conv3.bias, padding=1).relu()
        return F.linear(torch.mean(x, (-2, -1)), self.head.weight, self.head.bias)

    def _bn(self, x: Tensor, bn: nn.BatchNorm2d) -> Tensor:
        return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.1, bn.eps)


class Tail(nn.Module):
    """The second half, for a scripted sub-module."""

    def __init__(self, whole: Separate) -> None:
        super().__init__()
        self.conv3, self.head, self.pool = whole.conv3, whole.head, whole.pool

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv3(self.pool(x))).mean(dim=[2, 3]))


class ScriptedTail(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.whole = Separate()
        self.tail: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        w = self.whole
        x = F.relu(w.bn1(w.conv1(x)))
        assert self.tail is not None
        return self.tail(F.relu(w.bn2(w.conv2(x)) + x))


def _same_weights(model: nn.Module) -> nn.Module:
    """The weights of the plain spelling, whatever the order in which this one made its own."""
    base = seeded(lambda: Variant(F.relu))().state_dict()
    model.load_state_dict(base, strict=True)
    return model.eval()


def _scripted_tail() -> nn.Module:
    model = ScriptedTail()
    _same_weights(model.whole)
    model.tail = torch.jit.script(Tail(model.whole).eval())
    return model.eval()


def _factory(make: Callable[[], nn.Module]) -> Factory:
    def factory() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            return _same_weights(make())

    return factory


def _scripted() -> nn.Module:
    return torch.jit.script(_same_weights(ScriptWhole()))


def _traced() -> nn.Module:
    return torch.jit.trace(_same_weights(Separate()), torch.zeros(IMAGE[0]))


class ScriptWhole(nn.Module):
    """Plain enough for TorchScript."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv3, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)) + x)
        x = torch.relu(self.conv3(F.max_pool2d(x, 3, 2, 1)))
        return self.head(x.mean(dim=[2, 3]))


VARIANTS: dict[str, Factory] = {
    "functional": _factory(lambda: Variant(F.relu)),
    "all_functional": _factory(Functional),
    "method": _factory(lambda: Variant(lambda x: x.relu())),
    "reused_module": _factory(lambda: Variant(nn.ReLU())),
    "separate_modules": _factory(Separate),
    "inplace": _factory(Inplace),
    "functional_inplace": _factory(lambda: Variant(lambda x: F.relu(x, inplace=True))),
    "method_inplace": _factory(lambda: Variant(lambda x: x.relu_())),
    "clamp": _factory(lambda: Variant(lambda x: x.clamp(min=0))),
    "clamp_min_inplace": _factory(lambda: Variant(lambda x: x.clamp_min_(0.0))),
    "threshold": _factory(lambda: Variant(lambda x: F.threshold(x, 0.0, 0.0))),
    "leaky_of_zero": _factory(lambda: Variant(lambda x: F.leaky_relu(x, 0.0))),
    "operator": _factory(lambda: Variant(torch.ops.aten.relu.default)),
    "into_views": _factory(IntoViews),
    "into_buffer": _factory(IntoBuffer),
    "checkpointed": _factory(Checkpointed),
    "scripted_tail": _scripted_tail,
    "scripted": _scripted,
    "traced": _traced,
}


SMOOTH_VARIANTS: dict[str, Factory] = {
    "functional": _factory(lambda: Variant(F.silu)),
    "reused_module": _factory(lambda: Variant(nn.SiLU())),
    "separate_modules": _factory(lambda: Separate(nn.SiLU)),
    "inplace": _factory(lambda: Inplace(lambda: nn.SiLU(inplace=True))),
    "functional_inplace": _factory(lambda: Variant(lambda x: F.silu(x, inplace=True))),
    "operator": _factory(lambda: Variant(torch.ops.aten.silu.default)),
}
