"""Networks that use many different operators."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from .common import IMAGE, Entry, Trunk, seeded


class DenseConcat(Trunk):
    """DenseNet's pattern: pre-activation BatchNorm, concatenation with everything before."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(8 + 4 * i) for i in range(3)])
        self.convs = nn.ModuleList([nn.Conv2d(8 + 4 * i, 4, 3, padding=1, bias=False) for i in range(3)])
        self.join = nn.Conv2d(20, 8, 1)

    def middle(self, x: Tensor) -> Tensor:
        features = [x]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)), inplace=True)))
        return self.join(torch.cat(features, 1))


class Depthwise(Trunk):
    """MobileNetV2's block: expand, depthwise, project, ReLU6, residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *[nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True)],
            *[nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True)],
            *[nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8)],
        )

    def middle(self, x: Tensor) -> Tensor:
        return x + self.block(x * 4)


class SqueezeExcite(Trunk):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def middle(self, x: Tensor) -> Tensor:
        gate = self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1))))
        other = self.up(F.silu(self.down(x.mean((2, 3), keepdim=True))))
        return F.relu(x * torch.sigmoid(gate)) * F.hardsigmoid(other)


class Act(Trunk):
    """One activation, as a module."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act

    def middle(self, x: Tensor) -> Tensor:
        return self.act(self.conv2(self.act(2 * x)))


class HandSwish(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        x = x * torch.sigmoid(x)
        return x.sigmoid() * self.conv2(x) + x * F.relu6(x + 3) / 6


class _Swish(torch.autograd.Function):
    """EfficientNet's memory-saving swish."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return g * s * (1 + x * (1 - s))


class CustomFunction(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        return _Swish.apply(self.conv2(_Swish.apply(x)))  # type: ignore[return-value]


class ConvNextBlock(Trunk):
    """Depthwise 7×7, channels last, LayerNorm, linear, GELU, layer scale, residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm, self.wide, self.narrow = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(24, 8)
        self.gamma = nn.Parameter(torch.linspace(-1, 1, 8))

    def middle(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.narrow(F.gelu(self.wide(y)))).permute(0, 3, 1, 2)


class Norms(Trunk):
    """GroupNorm, InstanceNorm, local response, RMS, standardised by hand, unit vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.group, self.instance = nn.GroupNorm(4, 8), nn.InstanceNorm2d(8, affine=True)
        self.response, self.rms = nn.LocalResponseNorm(3), nn.RMSNorm(12)

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(self.group(x)) + self.instance(x)
        x = self.rms(self.response(x))
        x = (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.normalize(x, dim=1) * torch.rsqrt(x.var((2, 3), keepdim=True, unbiased=False) + 0.1)


class TrackedInstanceNorm(Trunk):
    """InstanceNorm that uses stored statistics in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(x))


class UpAndDown(Trunk):
    """Pixel shuffle, nearest and bilinear enlargement, transposed convolution, channel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1, groups=2)
        self.shuffle = nn.PixelShuffle(2)

    def middle(self, x: Tensor) -> Tensor:
        small = F.interpolate(F.relu(self.up(x)), scale_factor=0.5, mode="nearest")
        wide = self.shuffle(F.pixel_unshuffle(x, 2))
        fine = F.interpolate(F.interpolate(small, size=(9, 7), mode="bilinear"), size=x.shape[2:], mode="bicubic")
        return F.channel_shuffle(fine + wide, 4)


class Pools(Trunk):
    """Overlapping max-pool with ceil_mode, adaptive pools to odd sizes, unpooling with indices, power-mean."""

    def middle(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(x), 3, stride=2, padding=1, ceil_mode=True)
        y, where = F.max_pool2d(x, 2, return_indices=True)
        y = F.max_unpool2d(y, where, 2, output_size=x.shape[2:])
        z = F.adaptive_avg_pool2d(x, (5, 3)).repeat(1, 1, 1, 2) + F.adaptive_max_pool2d(y, (5, 6))
        return F.avg_pool2d(F.lp_pool2d(z.abs() + 0.1, 2, 2, 1), 3, 1, 1, ceil_mode=True, count_include_pad=False)


class Padding(Trunk):
    """Every padding mode, also in the convolution; crop, roll, flip, rot90, repeat."""

    def __init__(self) -> None:
        super().__init__()
        self.circular = nn.Conv2d(8, 8, 3, padding=2, dilation=2, padding_mode="circular")
        self.same = nn.Conv2d(8, 8, (2, 5), padding="same")

    def middle(self, x: Tensor) -> Tensor:
        x = F.pad(F.pad(x, (1, 2, 0, 1), mode="reflect"), (2, 1, 1, 0), mode="replicate")
        x = F.pad(self.same(F.relu(self.circular(x))), (-1, -2, -1, 0), value=0.3)
        x = torch.roll(x, (1, -2), (2, 3)) + torch.flip(x, (3,))
        return x + torch.rot90(x[:, :, :11, :11], 1, (2, 3)).repeat(1, 1, 2, 2)[:, :, : x.shape[2], : x.shape[3]]


class Einsum(Trunk):
    """einsum, matmul, bmm: channel attention, bilinear pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(8, 8) / 3)

    def middle(self, x: Tensor) -> Tensor:
        flat = F.relu(x).flatten(2)
        affinity = torch.softmax(torch.bmm(flat, flat.transpose(1, 2)) / 12, -1)
        y = torch.einsum("bij,bjn,jk->bkn", affinity, flat, self.mix)
        gram = torch.matmul(y, flat.mT) / flat.shape[-1]
        return (y + gram @ flat + self.mix @ flat).unflatten(2, x.shape[2:])


class Attention(Trunk):
    """nn.MultiheadAttention over places, then scaled_dot_product_attention with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.qkv = nn.Linear(8, 24)

    def middle(self, x: Tensor) -> Tensor:
        tokens = F.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
        y = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        q, k, v = self.qkv(y).view(*y.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mask = torch.ones(y.shape[1], y.shape[1], dtype=torch.bool).tril()
        y = y + F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        return y.transpose(1, 2).reshape(x.shape[0], 8, x.shape[2] // 2, x.shape[3] // 2)


class Encoder(Trunk):
    """nn.TransformerEncoderLayer, which has a fused fast path in evaluation, and a learned class token."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, activation="gelu", batch_first=True)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.place = nn.Parameter(torch.randn(1, 17, 8) / 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.adaptive_avg_pool2d(self.bn1(self.conv1(x)), 4).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.place
        return self.head(self.layer(tokens)[:, 0])


class FunctionalBatchNorm(Trunk):
    """BatchNorm as a function (one without affine parameters), Conv by `F.conv2d`, BatchNorm1d after a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.bn = nn.Linear(8, 8), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        bn = self.bn1
        x = F.batch_norm(F.conv2d(x, self.conv1.weight, padding=1), bn.running_mean, bn.running_var, bn.weight, bn.bias)
        x = F.batch_norm(F.relu(x), bn.running_mean, bn.running_var, eps=0.01)
        return self.head(F.relu(self.bn(self.fc(F.relu(self.conv2(x)).amax((2, 3))))))


class Parametrised(Trunk):
    """weight_norm and spectral_norm as parametrisations, the old weight_norm, weights standardised in the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a = parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.b = parametrizations.spectral_norm(nn.Conv2d(8, 8, 1))

    def middle(self, x: Tensor) -> Tensor:
        w = self.conv2.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / w.std((1, 2, 3), keepdim=True)
        return F.conv2d(F.relu(self.b(F.relu(self.a(x)))), w, self.conv2.bias, padding=1)


class DynamicWeights(Trunk):
    """Filters that the picture itself makes (grouped over the batch)."""

    def __init__(self) -> None:
        super().__init__()
        self.maker = nn.Linear(8, 8 * 9)

    def middle(self, x: Tensor) -> Tensor:
        filters = self.maker(x.mean((2, 3))).view(-1, 1, 3, 3)
        merged = F.conv2d(x.reshape(1, -1, *x.shape[2:]), filters, padding=1, groups=filters.shape[0])
        return F.relu(merged.view_as(x)) + x


class SpatialTransformer(Trunk):
    """affine_grid and grid_sample with an angle from the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.pose = nn.Linear(8, 6)

    def middle(self, x: Tensor) -> Tensor:
        theta = 0.1 * self.pose(x.mean((2, 3))).view(-1, 2, 3) + torch.eye(2, 3, dtype=x.dtype)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(F.relu(x), grid, padding_mode="border", align_corners=False)


class Indexing(Trunk):
    """Selection and order: topk, sort, gather, index_select, unbind, stack, where, cumsum, tril, masked_select."""

    def middle(self, x: Tensor) -> Tensor:
        top = x.flatten(2).topk(4, dim=2).values.mean(2)[:, :, None, None]
        order = x.mean((2, 3)).argsort(1)
        y = torch.gather(x, 1, order[:, :, None, None].expand_as(x))
        y = torch.stack(y.unbind(1)[::-1], 1).index_select(1, torch.tensor([0, 2, 1, 3, 5, 4, 7, 6]))
        y = torch.where(y > x, y, 0.2 * x) + torch.cumsum(x, 3).tril() / 12
        return torch.maximum(y, x.sort(2).values) + torch.minimum(top, y) + y.masked_select(y > 0).sum() * 1e-3


class Reductions(Trunk):
    """Sums, products, norms, logsumexp, max with index, powers, comparisons, softmax over places."""

    def middle(self, x: Tensor) -> Tensor:
        weights = F.softmax(x.flatten(2), -1).view_as(x)
        best, _ = x.max(1, keepdim=True)
        size = torch.linalg.vector_norm(x, dim=1, keepdim=True) + x.pow(2).sum((2, 3), keepdim=True).sqrt()
        lse = torch.logsumexp(x, (2, 3), keepdim=True) + (1 + 0.01 * x).prod(3, keepdim=True)
        sharp = torch.exp(-x.abs()) / (1 + x**2) + torch.log1p(x.abs()) ** 1.5
        return weights * best + size * sharp + lse * (x > 0) + F.glu(torch.cat([x, -x], 1), 1) + 1 / (2 + size)


class Casts(Trunk):
    """Half the network in another precision and memory layout."""

    def middle(self, x: Tensor) -> Tensor:
        y = F.relu(x.double()).contiguous(memory_format=torch.channels_last)
        y = (y * torch.arange(1, 9).view(8, 1, 1) / 4).type_as(x)
        return self.conv2(y.to(memory_format=torch.contiguous_format)).to(x.dtype) + x.float().to(x)


class SplitBranches(Trunk):
    """ShuffleNet and Inception patterns: split, branches of different kinds, interleave; a dead branch."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [nn.Conv2d(4, 2, (1, 3), padding=(0, 1)), nn.Conv2d(4, 2, (3, 1), padding=(1, 0))]
        )
        self.unused = nn.Conv2d(8, 8, 1)

    def middle(self, x: Tensor) -> Tensor:
        left, right = torch.split(x, [4, 4], 1)
        dead = self.unused(x).relu()
        found = [F.relu(branch(left)) for branch in self.branches]
        joined = torch.cat([*found, F.max_pool2d(right, 3, 1, 1)], 1) + 0 * dead
        b, c, h, w = joined.shape
        return joined.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


class Dropouts(Trunk):
    """Dropout of all kinds, off in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.drop2, self.alpha = nn.Dropout(0.5, inplace=True), nn.Dropout2d(0.3), nn.AlphaDropout(0.2)

    def middle(self, x: Tensor) -> Tensor:
        x = self.drop2(F.relu(self.drop(x)))
        return F.dropout(self.alpha(F.selu(x)), 0.5, training=self.training)


def _act(act: nn.Module) -> Entry:
    return seeded(lambda: Act(deepcopy(act))), IMAGE


_ACTS: dict[str, nn.Module] = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "hardtanh": nn.Hardtanh(-0.5, 0.8),
    "leaky_relu": nn.LeakyReLU(0.1),
    "prelu": nn.PReLU(8, 0.3),
    "rrelu": nn.RReLU(),
    "elu": nn.ELU(0.7),
    "selu": nn.SELU(),
    "celu": nn.CELU(0.5),
    "silu": nn.SiLU(),
    "silu_inplace": nn.SiLU(inplace=True),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "hardswish": nn.Hardswish(),
    "mish": nn.Mish(),
    "softplus": nn.Softplus(2.0),
    "threshold": nn.Threshold(0.1, 0.05),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "hardsigmoid": nn.Hardsigmoid(),
    "softsign": nn.Softsign(),
    "logsigmoid": nn.LogSigmoid(),
    "softshrink": nn.Softshrink(0.1),
}
_CLASSES: dict[str, type[nn.Module]] = {
    "dense_concat": DenseConcat,
    "depthwise_relu6": Depthwise,
    "squeeze_excite": SqueezeExcite,
    "hand_swish": HandSwish,
    "custom_function": CustomFunction,
    "convnext_block": ConvNextBlock,
    "norms": Norms,
    "tracked_instance_norm": TrackedInstanceNorm,
    "up_and_down": UpAndDown,
    "pools": Pools,
    "padding": Padding,
    "einsum": Einsum,
    "attention": Attention,
    "encoder": Encoder,
    "functional_batch_norm": FunctionalBatchNorm,
    "parametrised": Parametrised,
    "dynamic_weights": DynamicWeights,
    "spatial_transformer": SpatialTransformer,
    "indexing": Indexing,
    "reductions": Reductions,
    "casts": Casts,
    "split_branches": SplitBranches,
    "dropouts_off": Dropouts,
}
OPERATORS: dict[str, Entry] = {
    **{name: (seeded(cls), IMAGE) for name, cls in _CLASSES.items()},
    **{f"act_{name}": _act(act) for name, act in _ACTS.items()},
}
