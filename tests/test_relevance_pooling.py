"""Max-pooling under relevance: the winner takes all, or the window shares in proportion."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from method_cases import heat
from networks.zoo import wake
from pellucid.core.record import record
from pellucid.rules.composites import Choice, epsilon_plus
from pellucid.rules.pooling import Proportional

D = torch.float64
POOLS = {
    "1-D": (nn.MaxPool1d(3, 2, 1), (2, 2, 11)),
    "2-D": (nn.MaxPool2d(2), (2, 2, 6, 6)),
    "overlapping": (nn.MaxPool2d(3, 2, 1), (2, 2, 7, 8)),
    "dilated": (nn.MaxPool2d((2, 3), 1, dilation=2), (1, 2, 7, 8)),
    "ceil": (nn.MaxPool2d(3, 2, ceil_mode=True), (1, 2, 8, 8)),
    "3-D": (nn.MaxPool3d(2, 2), (1, 2, 4, 4, 4)),
    "adaptive": (nn.AdaptiveMaxPool2d((2, 3)), (1, 2, 4, 6)),
}


def windows(pool: nn.Module, shape: torch.Size) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """For each place of the output the places of the input that can win there, found by trying each one."""
    found: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for place in product(*map(range, shape)):
        x = torch.full((1, 1, *shape), -1.0)
        x[(0, 0, *place)] = 1.0
        for out in (pool(x)[0, 0] == 1).nonzero().tolist():
            found.setdefault(tuple(out), []).append(place)
    return found


@pytest.mark.parametrize("name", POOLS)
def test_the_window_shares_in_proportion_to_size(name: str) -> None:
    pool, shape = POOLS[name]
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=D)
    trace = record(pool, x)
    R = torch.randn(trace.output.shape, dtype=D)
    composite = epsilon_plus().with_choices(Choice(Proportional(), "max_pool"))
    walk = trace.pull(R, composite)
    expected = torch.zeros_like(x)
    for image, channel in product(range(shape[0]), range(shape[1])):
        for out, places in windows(pool, x.shape[2:]).items():
            sizes = [float(x[(image, channel, *place)].abs()) for place in places]
            for place, size in zip(places, sizes, strict=True):
                expected[(image, channel, *place)] += size / sum(sizes) * R[(image, channel, *out)]
    assert torch.allclose(walk.input(), expected, rtol=0, atol=1e-12)
    assert torch.allclose(walk.rules.ledger.closing(), torch.zeros(shape[0], dtype=D), atol=1e-12)


def test_a_window_of_zeros_keeps_what_arrived_and_a_single_number_wins_all() -> None:
    x = torch.zeros(1, 1, 4, 4, dtype=D)
    x[0, 0, 0, 1] = 2.0
    trace = record(nn.MaxPool2d(2), x)
    walk = trace.pull(torch.ones(1, 1, 2, 2, dtype=D), epsilon_plus().with_choices(Choice(Proportional(), "max_pool")))
    assert torch.equal(walk.input(), (x > 0).to(D))
    assert float(walk.rules.ledger.totals()["zero denominator"]) == 3.0


class Pooled(nn.Module):
    """A max-pool in the middle, and a maximum over all places."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(nn.functional.max_pool2d(self.a(x).relu(), 2).amax((2, 3)))


def test_from_a_line_of_a_composite() -> None:
    from pellucid.rules.composites import composite_from

    torch.manual_seed(0)
    model, x = Pooled().to(D).eval(), torch.randn(2, 3, 8, 8, dtype=D)
    wake(model)
    own = composite_from([{"rule": "proportional", "kind": "max_pool"}])
    winner, shared = heat(model, x, "lrp"), heat(model, x, "lrp", composite=own)
    assert not torch.allclose(winner, shared)
    assert (shared != 0).sum() > (winner != 0).sum()
