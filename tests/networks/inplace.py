"""Networks that write into tensors: in place, through views, into buffers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .common import IMAGE, Entry, Trunk, seeded


class InplaceResidual(nn.Module):
    """The ResNet block: BatchNorm, ReLU(inplace) on its output, `out += identity`, ReLU(inplace) again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.head(self.relu(out).mean((2, 3)))


class Activations(Trunk):
    """Every in-place spelling of a rectifier, one after the other."""

    def middle(self, x: Tensor) -> Tensor:
        x = F.leaky_relu_(F.elu_(x) * 1.1, 0.2)
        x = F.hardswish(F.silu(x + 0.3, inplace=True) * 2, inplace=True)
        x = F.mish(F.celu_(F.selu_(3 * x) - 0.1, 0.5) * 1.5, inplace=True)
        x = x.clone().clamp_(min=0).sub_(0.2).mul_(1.5).relu_()
        return F.threshold(F.relu6(x + 0.1, inplace=True) - F.hardtanh_(0.5 * x, -1, 2), 0.02, 0.01, inplace=True)


class ViewRelu(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        x[:, :2].relu_()
        return x


class ViewAdd(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        x[:, 1].add_(x[:, 0], alpha=0.5)
        x[:, 2:4] -= 0.7 * x[:, 4:6]
        return x


class SavedThenWritten(Trunk):
    """A product's factor is overwritten later: autograd has lost it and refuses; a plain forward does it."""

    def middle(self, x: Tensor) -> Tensor:
        y = x[:, :4] * x[:, 4:]
        x[:, 4:].relu_()
        return torch.cat([y, x[:, 4:]], 1)


class SavedThenWrittenTwin(Trunk):
    """What `SavedThenWritten` computes, out of place."""

    def middle(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :4] * x[:, 4:], F.relu(x[:, 4:])], 1)


class ChunkMul(Trunk):
    """autograd refuses to write into an output of `chunk`; a plain forward does it."""

    def middle(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        a.mul_(torch.sigmoid(b))
        return x


class SliceMul(Trunk):
    """What `ChunkMul` computes, in a spelling that autograd takes."""

    def middle(self, x: Tensor) -> Tensor:
        a, b = x[:, :4], x[:, 4:]
        a.mul_(torch.sigmoid(b))
        return x


class ZerosWrite(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        out = torch.zeros(x.shape, dtype=x.dtype, device=x.device)
        out[:, :4] = F.relu(x[:, :4])
        out[:, 4:7] = 2 * x[:, 5:]
        return out


class EmptyWrite(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        out[..., ::2] = x[..., 1::2].relu()
        out[..., 1::2] = x[..., ::2] * 3
        return out


class TransposeInplace(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        x.transpose(1, 3).mul_(torch.linspace(0.5, 2, 8, dtype=x.dtype))
        x.permute(2, 0, 3, 1)[3:6].relu_()
        return x


class OtherView(Trunk):
    """A write through one view is read through the base and through another, older view."""

    def middle(self, x: Tensor) -> Tensor:
        early = x[:, 1:5]
        flat = x.view(x.shape[0], -1)
        before = early * 1.0
        x[:, 3:].mul_(2.0)
        flat[:, :100].relu_()
        return torch.cat([early * before, x[:, :2], flat.view_as(x)[:, 6:]], 1)


class ReshapeAlias(Trunk):
    """`reshape` and `flatten` give a view here, so the write reaches `x`; `contiguous` gives x itself."""

    def middle(self, x: Tensor) -> Tensor:
        x.reshape(x.shape[0], 2, -1)[:, 0].mul_(0.5)
        x.flatten(2)[:, 3] += 1.0
        x.contiguous().abs_()
        return x


class MaskedZero(Trunk):
    """A hand-written ReLU by `index_put_`, plus `masked_fill_`: no rectifier that can be seen."""

    def middle(self, x: Tensor) -> Tensor:
        x[x < 0] = 0
        return x.masked_fill_(x > 1.5, 1.5)


class MaskedScale(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        mask = x > 0.2
        x[mask] = x[mask] * 3
        x[:, [0, 3, 5]] = x[:, [1, 2, 4]].sin()
        return x


class CopyIntoSlices(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        x[:, :3].copy_(x[:, 5:])
        x[:, 3:4, ::2].copy_(x.mean(1, keepdim=True)[:, :, ::2])
        x[:, 7].fill_(0.25)
        x[:, 6].zero_()
        return x


class InplaceOnInput(Trunk):
    """Normalises the caller's own tensor: a recorder must work on a copy, or the user's picture changes."""

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.1).div_(0.7)
        x[:, 0].relu_()
        return super().forward(x)


class IndexAdd(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        where = torch.tensor([1, 1, 4])
        x = x.index_add(1, where, x[:, :3])
        x.index_add_(1, where, x[:, 5:].clone(), alpha=0.5)
        x.index_copy_(1, torch.tensor([7]), x[:, :1].clone())
        return x.scatter_add(1, torch.full_like(x[:, :1], 2, dtype=torch.long), x[:, 3:4])


class ChannelLoop(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        for i in range(1, x.shape[1]):
            x[:, i] *= 0.5 + torch.sigmoid(x[:, i - 1])
        return x


class MetadataInplace(Trunk):
    """`unsqueeze_`, `transpose_`, `squeeze_` change the tensor's shape, not its values."""

    def middle(self, x: Tensor) -> Tensor:
        gate = x.mean((2, 3))
        gate.unsqueeze_(2).unsqueeze_(3)
        y = x * torch.sigmoid(gate)
        y.transpose_(2, 3).squeeze_(1)
        return y.relu_()


class Diagonal(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        x.diagonal(dim1=2, dim2=3).mul_(4.0)
        windows = x.unfold(3, 3, 1)
        return x + F.pad(windows.amax(-1), (1, 1))


class OutArgument(Trunk):
    """`out=`, which autograd refuses where a gradient is wanted."""

    def middle(self, x: Tensor) -> Tensor:
        buffer = torch.empty_like(x)
        torch.mul(x, 2.0, out=buffer)
        return F.relu(buffer)


class OutArgumentTwin(Trunk):
    """What `OutArgument` computes."""

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(x * 2.0)


class Accumulate(Trunk):
    """A sum that is built in place over a loop, with `addcmul_`, `lerp_` and `add_` of scaled terms."""

    def middle(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for shift in range(3):
            total += torch.roll(x, shift, 3) * (shift + 1)
        return total.addcmul_(x, x, value=0.3).lerp_(x, 0.25)


class ExpandedWrite(Trunk):
    """A small tensor is expanded, cloned and written; the source stays."""

    def middle(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        wide = mean.expand_as(x).clone()
        wide[:, :, 2:5, 2:5] += x[:, :, 2:5, 2:5]
        return F.relu(wide) + mean


class SharedStorage(Trunk):
    """Two names for one tensor; `detach`-free; the second is written, the first is read."""

    def middle(self, x: Tensor) -> Tensor:
        y = x.view_as(x)
        z = F.relu(x)
        y.add_(z)
        return x - 0.5 * z


_CLASSES: dict[str, type[nn.Module]] = {
    "inplace_residual": InplaceResidual,
    "inplace_activations": Activations,
    "view_relu": ViewRelu,
    "view_add": ViewAdd,
    "saved_then_written": SavedThenWritten,
    "saved_then_written_twin": SavedThenWrittenTwin,
    "chunk_mul": ChunkMul,
    "slice_mul": SliceMul,
    "zeros_write": ZerosWrite,
    "empty_write": EmptyWrite,
    "transpose_inplace": TransposeInplace,
    "other_view": OtherView,
    "reshape_alias": ReshapeAlias,
    "masked_zero": MaskedZero,
    "masked_scale": MaskedScale,
    "copy_into_slices": CopyIntoSlices,
    "inplace_on_input": InplaceOnInput,
    "index_add": IndexAdd,
    "channel_loop": ChannelLoop,
    "metadata_inplace": MetadataInplace,
    "diagonal_unfold": Diagonal,
    "out_argument": OutArgument,
    "out_argument_twin": OutArgumentTwin,
    "accumulate": Accumulate,
    "expanded_write": ExpandedWrite,
    "shared_storage": SharedStorage,
}
INPLACE: dict[str, Entry] = {name: (seeded(cls), IMAGE) for name, cls in _CLASSES.items()}
NO_AUTOGRAD = {
    "chunk_mul": "slice_mul",
    "out_argument": "out_argument_twin",
    "saved_then_written": "saved_then_written_twin",
}
