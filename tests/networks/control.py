"""Networks with reuse, control flow, TorchScript, state, unusual inputs and outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .common import IMAGE, Entry, Trunk, seeded


class FunctionalReluReused(Trunk):
    """`F.relu` and `torch.relu`; one convolution and one BatchNorm called twice."""

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv2(F.relu(x))))
        return torch.relu(self.bn1(self.conv2(x)) + x)


class ModuleReluReused(Trunk):
    """One `nn.ReLU` for the whole network."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def middle(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        return self.relu(self.conv2(x) + 0.5 * self.relu(x - 0.3))


class ShapeControl(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        while x.shape[-1] > 4:
            x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return x if x.size(2) % 2 else x.repeat(1, 1, 2, 2)


class DataControl(Trunk):
    """Branch and number of rounds depend on the values."""

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(x)) if x.abs().mean() > 0.05 else torch.tanh(x)
        rounds = 0
        while float(x.norm()) > 5.0 and rounds < 6:
            x, rounds = x * 0.6 + 0.01 * self.conv2(x), rounds + 1
        return x if torch.any(x > 1e-3) else -x


class Routing(Trunk):
    """Every image takes one of two ways, chosen by its own values; shapes depend on the data."""

    def middle(self, x: Tensor) -> Tensor:
        chosen = x[:, 0, 5, 5] > x[:, 1, 6, 5]
        out = torch.zeros_like(x)
        out[chosen] = F.relu(self.conv2(x[chosen]))
        rest = torch.nonzero(~chosen)[:, 0]
        return out.index_put((rest,), torch.tanh(x[rest]))


class ScriptPart(nn.Module):
    """What the scripted sub-module holds: branch on the data, loop, in-place, a rectifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn(self.conv(x)))
        if bool(y.mean() > 100.0):
            y = -y
        for i in range(2):
            y = y + F.relu6(x * float(i + 1))
        return y


class EagerSubmodule(Trunk):
    """The eager twin of `scripted_submodule`."""

    def __init__(self) -> None:
        super().__init__()
        part: nn.Module = ScriptPart()
        self.part = part

    def middle(self, x: Tensor) -> Tensor:
        return F.silu(self.part(x))


def scripted_submodule() -> nn.Module:
    """An eager network with one scripted part."""
    model = seeded(EagerSubmodule)()
    model.part = torch.jit.script(model.part)
    return model


class Plain(nn.Module):
    """What is scripted and traced whole."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)) + x)
        return self.head(x.mean(dim=[2, 3]))


def scripted() -> nn.Module:
    return torch.jit.script(seeded(Plain)())


def frozen() -> nn.Module:
    """Scripted and frozen: the weights are constants in the graph. It cannot change its dtype: float32 only."""
    return torch.jit.freeze(scripted().eval())


def traced() -> nn.Module:
    model = seeded(Plain)()
    return torch.jit.trace(model, torch.zeros(IMAGE[0]))


class Net1d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(2, 6, 5, stride=2, padding=2), nn.BatchNorm1d(6)
        self.conv2, self.head = nn.Conv1d(6, 6, 3, padding=2, dilation=2, groups=2), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.relu(self.bn1(self.conv1(x))), 3, 2)
        return self.head(F.elu(self.conv2(x)).mean(-1))


class Net3d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4)
        self.conv2, self.head = nn.Conv3d(4, 6, (1, 3, 3)), nn.Linear(6, 3)
        self.up = nn.ConvTranspose3d(6, 6, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool3d(F.relu(self.bn1(self.conv1(x)), inplace=True), 2)
        x = F.max_pool3d(self.up(F.relu(self.conv2(x))), 2, 1)
        return self.head(F.adaptive_avg_pool3d(x, 1).flatten(1))


class TwoInputs(Trunk):
    """A picture and a vector; the vector scales the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(4, 8)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = x * torch.sigmoid(self.scale(vector))[:, :, None, None] + self.conv2(x)
        return self.head(x.mean((2, 3)))


class DictOutput(Trunk):
    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        features = F.relu(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return {"features": features, "logits": self.head(features.mean((2, 3)))}


class TupleOutput(Trunk):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        features = F.relu(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return self.head(features.mean((2, 3))), features


@dataclass
class Answer:
    """Output as many libraries have it."""

    logits: Tensor
    hidden: list[Tensor]


class DataclassOutput(Trunk):
    def forward(self, x: Tensor) -> Answer:  # type: ignore[override]
        features = F.relu(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return Answer(self.head(features.amax((2, 3))), [features])


class Named(NamedTuple):
    """Output of a network with an auxiliary head."""

    logits: Tensor
    aux: Tensor


class NamedTupleOutput(Trunk):
    def forward(self, x: Tensor) -> Named:  # type: ignore[override]
        features = F.relu(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return Named(self.head(features.mean((2, 3))), self.head(features.amax((2, 3))))


class OneColumn(Trunk):
    """Output (b, 1)."""

    def __init__(self) -> None:
        super().__init__(classes=1)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(x)


class OneValue(OneColumn):
    """Output (b,)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze(1)


class Segmentation(Trunk):
    """Output (b, 5, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        up = F.interpolate(F.relu(self.conv2(low)), size=x.shape[2:], mode="bilinear", align_corners=False)
        return self.mask(up)


class Probabilities(Trunk):
    """The softmax is inside the network."""

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(super().forward(F.relu(x + 0.5)), dim=1)


class Checkpointed(Trunk):
    """Memory-saving recomputation of a block."""

    def block(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(x, inplace=False)))

    def middle(self, x: Tensor) -> Tensor:
        x = checkpoint(self.block, x, use_reentrant=False)
        return F.silu(x) + checkpoint(self.block, x, use_reentrant=False)


class MutatesBuffers(Trunk):
    """Counts its calls and keeps a running mean, also in evaluation. The output does not depend on either."""

    calls: Tensor
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(8))

    def middle(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.mean.mul_(0.9).add_(x.detach().mean((0, 2, 3)), alpha=0.1)
        return F.relu(x)


class KeepsFeatures(Trunk):
    """Stores its own activations on itself, as many user models do."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Tensor] = {}

    def middle(self, x: Tensor) -> Tensor:
        self.seen["x"] = x
        self.last = F.relu(self.seen["x"])
        return self.last


class FrozenBackbone(Trunk):
    """The trunk runs under `no_grad`: autograd has no gradient to the picture, the network has one."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = F.relu(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return self.head(features.mean((2, 3)))


class OpenBackbone(Trunk):
    """The twin of `FrozenBackbone`."""

    def forward(self, x: Tensor) -> Tensor:
        features = F.relu(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return self.head(features.mean((2, 3)))


def with_user_hooks() -> nn.Module:
    """A pre-hook that pads, a hook that replaces the output."""
    model = seeded(FunctionalReluReused)()
    model.conv1.padding = (0, 0)  # type: ignore[union-attr]
    model.conv1.register_forward_pre_hook(lambda module, args: (F.pad(args[0], (0, 2, 0, 2)),))  # type: ignore[union-attr]
    model.bn1.register_forward_hook(lambda module, args, out: out * 0.5 + args[0])  # type: ignore[union-attr]
    return model


class Nested(Trunk):
    """Sub-modules in lists and dicts, a lambda layer, a module called through another name."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(inplace=True)) for _ in range(3)])
        self.table = nn.ModuleDict({"a": nn.Conv2d(8, 8, 1), "b": nn.ReLU6()})
        self.alias = self.parts[0]
        self.function: Callable[[Tensor], Tensor] = lambda t: t.clamp(min=0) * 0.7

    def middle(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x) + x
        return self.function(self.table["b"](self.table["a"](self.alias(x))))


class Vmapped(Trunk):
    """`torch.vmap` over the images."""

    def one(self, image: Tensor) -> Tensor:
        return torch.relu(image * image.mean()) + 0.1 * image

    def middle(self, x: Tensor) -> Tensor:
        return torch.vmap(self.one)(x)


class VmappedTwin(Vmapped):
    """The same without `vmap`."""

    def middle(self, x: Tensor) -> Tensor:
        return torch.stack([self.one(image) for image in x])


class OptionalArguments(Trunk):
    """Keyword with a default, a list of tensors handed from part to part."""

    def parts(self, xs: list[Tensor], scale: float = 1.0, extra: Any = None) -> list[Tensor]:
        return [F.relu(x * scale) if extra is None else x for x in xs]

    def middle(self, x: Tensor) -> Tensor:
        return torch.stack(self.parts(list(x.split(2, 1)), scale=1.3), 2).flatten(1, 2)


_CLASSES: dict[str, type[nn.Module]] = {
    "functional_relu_reused": FunctionalReluReused,
    "module_relu_reused": ModuleReluReused,
    "shape_control": ShapeControl,
    "data_control": DataControl,
    "routing": Routing,
    "eager_submodule": EagerSubmodule,
    "eager_whole": Plain,
    "dict_output": DictOutput,
    "tuple_output": TupleOutput,
    "dataclass_output": DataclassOutput,
    "namedtuple_output": NamedTupleOutput,
    "one_column": OneColumn,
    "one_value": OneValue,
    "segmentation": Segmentation,
    "probabilities": Probabilities,
    "checkpointed": Checkpointed,
    "mutates_buffers": MutatesBuffers,
    "keeps_features": KeepsFeatures,
    "frozen_backbone": FrozenBackbone,
    "open_backbone": OpenBackbone,
    "nested": Nested,
    "vmapped": Vmapped,
    "vmapped_twin": VmappedTwin,
    "optional_arguments": OptionalArguments,
}
CONTROL: dict[str, Entry] = {
    **{name: (seeded(cls), IMAGE) for name, cls in _CLASSES.items()},
    "scripted_submodule": (scripted_submodule, IMAGE),
    "scripted_whole": (scripted, IMAGE),
    "scripted_frozen": (frozen, IMAGE),
    "traced_whole": (traced, IMAGE),
    "user_hooks": (with_user_hooks, IMAGE),
    "conv1d": (seeded(Net1d), ((2, 2, 40),)),
    "conv3d": (seeded(Net3d), ((2, 1, 8, 8, 8),)),
    "two_inputs": (seeded(TwoInputs), (IMAGE[0], (2, 4))),
}
NO_AUTOGRAD = {"frozen_backbone": "open_backbone"}
HIDDEN = {
    "scripted_submodule": "eager_submodule",
    "scripted_whole": "eager_whole",
    "scripted_frozen": "eager_whole",
    "traced_whole": "eager_whole",
    "vmapped": "vmapped_twin",
}
BATCH_DEPENDENT = frozenset({"data_control", "indexing"})
WRITES_STATE = frozenset({"mutates_buffers"})
