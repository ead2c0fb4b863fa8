"""Reruns of a recording: incremental = full = the naive loop, in 1-D to 3-D, whatever the operations."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from method_cases import CONV, NORM, D, random_input
from networks.common import seeded
from pellucid.core import rerun
from pellucid.core.ahead import answers
from pellucid.core.edits import Box, Boxed, Masked
from pellucid.core.local import spaces
from pellucid.core.record import record
from pellucid.core.rerun import CannotRerunError, Rerun
from pellucid.core.target import logit, probability, unit
from pellucid.core.trace import Trace
from pellucid.core.windows import Axis

EXACT = 1e-11
MAXPOOL: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVGPOOL: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
GLOBAL: dict[int, Any] = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


def boxes_in(space: tuple[int, ...], count: int, seed: int, largest: int = 6) -> list[Box]:
    """Boxes of random places and sizes, some of them at the borders."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        sides = [chance.randint(1, min(largest, n)) for n in space]
        starts = [chance.choice([0, n - s, chance.randint(0, n - s)]) for n, s in zip(space, sides, strict=True)]
        found.append(tuple((a, a + s) for a, s in zip(starts, sides, strict=True)))
    return found


def painted(x: Tensor, boxes: list[Box], rows: list[int] | None = None) -> Boxed:
    """Boxes under strong noise, so that what they change is large."""
    return Boxed(x, 3 * random_input(*x.shape, seed=99, dtype=x.dtype), boxes, rows)


def naive(net: nn.Module, x: Tensor, edits: Boxed, index: int = 1) -> Tensor:
    """One edited picture after the other through the module."""
    found = []
    for number, (row, box) in enumerate(zip(edits.rows, edits.boxes, strict=True)):
        edited = x[row : row + 1].clone()
        edited[(0, slice(None), *(slice(a, b) for a, b in box))] = edits.inside(number)
        with torch.no_grad():
            found.append(net(edited)[0, index])
    return torch.stack(found)


def off(found: Tensor, expected: Tensor, before: Tensor) -> float:
    """Largest error over the largest change that the edits made."""
    change = (expected - before).abs().max()
    assert change > 1e-6, "the edits must change something, or nothing is tested"
    return float((found - expected).abs().max() / change)


def agree(net: nn.Module, x: Tensor, edits: Boxed, plans: tuple[str, ...] = ("incremental", "full")) -> None:
    trace, expected = record(net, x), naive(net, x, edits)
    before = trace.scores[edits.rows, 1]
    for plan in plans:
        found = answers(trace, edits, logit(1), plan=plan)  # pyright: ignore[reportArgumentType]
        assert off(found.values, expected, before) < EXACT, plan
        assert plan in found.plan


class Odd(nn.Module):
    """Every local operation in one network: strides, dilations, groups, pools, a residual sum, slices, pads, cats."""

    def __init__(self, axes: int, stride: int, dilation: int, groups: int, padding: int) -> None:
        super().__init__()
        conv = CONV[axes]
        self.axes = axes
        self.first = conv(3, 8, 3, stride=stride, dilation=dilation, padding=padding)
        self.norm = NORM[axes](8)
        self.grouped = conv(8, 8, 3, padding=1, groups=groups, bias=False)
        self.wide = conv(8, 4, 5, padding=2)
        self.strided = conv(12, 8, 2, stride=2)
        self.max = MAXPOOL[axes](3, 2, 1)
        self.mean = AVGPOOL[axes](2, 1, 1)
        self.last = nn.Linear(8, 5)
        self.norm.running_mean.uniform_(-0.5, 0.5)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        x = x + self.grouped(x) * 0.5
        x = torch.cat([x, torch.tanh(self.wide(x))], 1)
        x = self.max(F.pad(x, (1, 0) * self.axes, value=0.3))
        x = F.leaky_relu(self.strided(self.mean(x)))
        x = x[..., ::1]
        return self.last(x.flatten(2).mean(2))


ODD = [
    (axes, stride, dilation, groups, padding)
    for axes in (1, 2, 3)
    for stride, dilation, groups, padding in [(1, 1, 1, 1), (2, 1, 8, 0), (3, 2, 2, 2), (1, 3, 4, 3)]
]


@pytest.mark.parametrize(("axes", "stride", "dilation", "groups", "padding"), ODD)
def test_incremental_is_the_naive_loop(axes: int, stride: int, dilation: int, groups: int, padding: int) -> None:
    side = {1: 61, 2: 37, 3: 19}[axes]
    net = seeded(lambda: Odd(axes, stride, dilation, groups, padding))().to(D).eval()
    x = random_input(2, 3, side, *[side - 2] * (axes - 1))
    boxes = boxes_in(tuple(x.shape[2:]), 24, seed=axes)
    agree(net, x, painted(x, boxes, [i % 2 for i in range(24)]))


def test_a_wrong_halo_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One position too few on one side: the laws above would fail, and the answers don't rely on it."""
    net = seeded(lambda: Odd(2, 1, 1, 1, 1))().to(D).eval()
    x = random_input(1, 3, 37, 35)
    edits = painted(x, [((10, 14), (12, 17)), ((3, 5), (4, 9))])
    trace, expected = record(net, x), naive(net, x, edits)
    right = Axis.reached

    def short(self: Axis, start: int, stop: int, length: int) -> tuple[int, int]:
        low, high = right(self, start, stop, length)
        return low + (self.kernel > 1), high

    monkeypatch.setattr(Axis, "reached", short)
    wrong = Rerun(trace, trace.inputs[0], trace.output)(edits, [0, 1], windowed=True)[:, 1]
    assert off(wrong, expected, trace.scores[[0, 0], 1]) > 1e-3
    found = answers(trace, edits, logit(1), plan="incremental")
    assert off(found.values, expected, trace.scores[[0, 0], 1]) < EXACT, "the network itself must be asked then"
    assert any("so the network was asked itself" in note for note in found.notes)


class Gated(nn.Module):
    """A squeeze-and-excitation gate early on: everything behind it hangs on every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.gate, self.last = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return self.last(self.second(x).relu().mean((2, 3)))


class Attending(nn.Module):
    """Self-attention over positions behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu().flatten(2).transpose(1, 2)
        return self.last(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Writing(nn.Module):
    """Writes into a part of a tensor, which no rerun with another number of images can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x[:, :4] = x[:, :4] * 2
        return self.last(x.mean((2, 3)))


class Spelt(nn.Module):
    """Channels regrouped, split and put last, as in ShuffleNet and ConvNeXt; an in-place sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depth = nn.Conv2d(3, 8, 3, padding="same"), nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.norm, self.mix, self.last = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 5)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.first(x))
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)
        left, right = x.chunk(2, 1)
        x = torch.cat([right, left.softmax(1)], 1)
        y = self.mix(self.norm(self.depth(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        x += self.scale * F.gelu(y)
        return self.last(F.adaptive_avg_pool2d(x[:, :, ::2, 1:], 1).flatten(1))


class Unpooled(nn.Module):
    """Puts maxima back to where they were: the places of the winners are read again later on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.pool, self.last = nn.MaxPool2d(2, return_indices=True), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x, places = self.pool(self.first(x))
        x = F.max_unpool2d(x.relu(), places, 2)
        return self.last(self.second(x).relu().mean((2, 3)))


@pytest.mark.parametrize("make", [Gated, Attending, Spelt, Unpooled])
def test_global_and_reshaping_operations_stay_exact(make: Callable[[], nn.Module]) -> None:
    net = seeded(make)().to(D).eval()
    x = random_input(2, 3, 20, 22)
    edits = painted(x, boxes_in((20, 22), 12, seed=5), [i % 2 for i in range(12)])
    trace, expected = record(net, x), naive(net, x, edits)
    found = answers(trace, edits, logit(1), plan="incremental")
    assert off(found.values, expected, trace.scores[edits.rows, 1]) < EXACT


def test_what_cannot_be_rerun_is_asked_in_full_and_told() -> None:
    net = seeded(Writing)().to(D).eval()
    x = random_input(1, 3, 12, 12)
    edits = painted(x, boxes_in((12, 12), 6, seed=1))
    trace = record(net, x)
    with pytest.raises(CannotRerunError):
        Rerun(trace, trace.inputs[0], trace.output)
    found = answers(trace, edits, logit(1), plan="incremental")
    assert off(found.values, naive(net, x, edits), trace.scores[[0] * 6, 1]) < EXACT
    assert found.plan == "full" and any("every edit was run in full" in note for note in found.notes)


class Deciding(nn.Module):
    """Goes another way for bright pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) if float(x.mean()) > 0 else self.second(x)
        return self.last(x.relu().mean((2, 3)))


@pytest.mark.parametrize("plan", ["auto", "incremental", "full"])
def test_a_network_that_decides_by_the_picture_is_asked_itself(plan: Any) -> None:
    """A rerun would keep to the way that was recorded, and only some of the edits would tell."""
    net = seeded(Deciding)().to(D).eval()
    x = random_input(1, 3, 10, 10).abs()
    boxes = [((0, 2), (0, 2)), ((0, 10), (0, 10))] * 20
    edits = Boxed(x, -x, boxes)
    trace = record(net, x)
    assert trace.reads
    found = answers(trace, edits, logit(1), plan=plan)
    assert off(found.values, naive(net, x, edits), trace.scores[[0] * 40, 1]) < EXACT
    assert any("may go another way" in note for note in found.notes) or plan == "full"


def test_only_what_an_edit_can_reach_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The positions that convolutions compute, counted: a small box costs a small part of the picture."""
    net = seeded(
        lambda: nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    )()
    x = random_input(1, 3, 64, 64, dtype=torch.float32)
    made: list[int] = []
    right = F.conv2d
    trace = record(net.eval(), x)
    monkeypatch.setattr(F, "conv2d", lambda *a: (made.append(right(*a)[0, 0].numel()), right(*a))[1])
    again = Rerun(trace, trace.inputs[0], trace.output)
    again(painted(x, [((20, 24), (30, 34))]), [0], windowed=True)
    assert made == [6 * 6, 8 * 8, 10 * 10]
    assert again.reach(((20, 24), (30, 34)))[0] < 0.1
    assert again.reach(None)[0] == 1.0


def test_readouts_inside_and_behind_a_softmax() -> None:
    net = seeded(lambda: nn.Sequential(Odd(2, 2, 1, 1, 1), nn.Softmax(1)))().to(D).eval()
    x = random_input(1, 3, 25, 25)
    edits = painted(x, boxes_in((25, 25), 5, seed=3))
    trace = record(net, x)
    for target in (logit(1), probability(1), unit("0.max", 2, "max")):
        both = [answers(trace, edits, target, plan=plan).values for plan in ("incremental", "full")]
        single = [target.score(record(net, edits.inputs([i]))) for i in range(5)]
        before = target.score(trace).expand(5)
        assert off(both[0], torch.cat(single), before) < EXACT
        assert off(both[1], torch.cat(single), before) < EXACT


def test_bfloat16_is_near_and_not_the_same() -> None:
    net = seeded(lambda: Odd(2, 1, 1, 1, 1))().eval()
    x = random_input(1, 3, 33, 33, dtype=torch.float32)
    trace, edits = record(net, x), painted(x, boxes_in((33, 33), 6, seed=4))
    half, whole = (answers(trace, edits, logit(1), precision=p, plan="incremental").values for p in ("bf16", "full"))
    apart = float((half - whole).abs().max() / whole.abs().max())
    assert 0 < apart < 0.05


def test_soft_masks_and_edits_without_boxes() -> None:
    net = seeded(lambda: Odd(2, 1, 1, 1, 1))().to(D).eval()
    x = random_input(2, 3, 17, 19)
    masks = torch.rand(7, 17, 19, generator=torch.Generator().manual_seed(1), dtype=D)
    rows = [0, 1, 1, 0, 0, 1, 0]
    edits = Masked(x, torch.zeros_like(x), lambda which: masks[list(which)], rows)
    found = answers(record(net, x), edits, logit(1))
    with torch.no_grad():
        expected = net(x[rows] * masks[:, None])[:, 1]
    assert off(found.values, expected, record(net, x).scores[rows, 1]) < EXACT
    assert found.plan == "full" and found.difference is None


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Reruns that run out of memory beyond three edits at once."""
    sizes: list[int] = []
    right = rerun.Rerun.__call__

    def call(self: Rerun, edits: Any, which: Any, *, windowed: bool) -> Tensor:
        sizes.append(len(which))
        if len(which) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return right(self, edits, which, windowed=windowed)

    monkeypatch.setattr(rerun.Rerun, "__call__", call)
    yield sizes


def test_running_out_of_memory_halves_the_chunk(crowded: list[int]) -> None:
    net = seeded(lambda: Odd(2, 1, 1, 1, 1))().to(D).eval()
    x = random_input(1, 3, 21, 21)
    edits = painted(x, boxes_in((21, 21), 10, seed=6))
    trace = record(net, x)
    found = answers(trace, edits, logit(1), plan="incremental")
    assert off(found.values, naive(net, x, edits), trace.scores[[0] * 10, 1]) < EXACT
    assert max(crowded) > 3 and crowded[-1] <= 3
    assert any("memory ran out" in note for note in found.notes)


def test_the_recording_is_freed_with_its_rerun() -> None:
    import gc
    from weakref import ref

    net = seeded(lambda: Odd(2, 1, 1, 1, 1))().to(D).eval()
    x = random_input(1, 3, 21, 21)
    trace: Trace | None = record(net, x)
    answers(trace, painted(x, boxes_in((21, 21), 4, seed=7)), logit(1), plan="incremental")  # pyright: ignore
    gone = ref(trace)
    gc.disable()
    try:
        trace = None
        assert gone() is None
    finally:
        gc.enable()


def test_axes_reach_what_reads_them() -> None:
    """`reached` and `needed` against the definition: output o reads o·stride − before + j·dilation."""
    chance = random.Random(0)
    for _ in range(300):
        axis = Axis(chance.randint(1, 5), chance.randint(1, 4), chance.randint(-2, 4), chance.randint(1, 3))
        start = chance.randint(0, 20)
        stop, length = start + chance.randint(1, 6), chance.randint(1, 20)
        reads = {
            o: {o * axis.stride - axis.before + j * axis.dilation for j in range(axis.kernel)} for o in range(length)
        }
        changed = [o for o, read in reads.items() if read & set(range(start, stop))]
        low, high = axis.reached(start, stop, length)
        assert set(changed) <= set(range(low, high))
        if changed and axis.dilation == 1 and axis.stride <= axis.kernel:
            assert (low, high) == (changed[0], changed[-1] + 1), "no more than needed where reads leave no gaps"
        first, count = axis.needed(2, 3)
        assert set().union(*(reads.get(o, {first}) for o in (2, 3, 4))) <= set(range(first, first + count))


def test_spaces_follow_the_axes() -> None:
    net = seeded(Spelt)().to(D).eval()
    trace = record(net, random_input(1, 3, 10, 12))
    found = spaces(trace, trace.inputs[0])
    assert found[trace.at("depth")] == (2, 3)
    assert found[trace.at("norm")] == found[trace.at("mix")] == (1, 2)
    assert trace.at("last") not in found
