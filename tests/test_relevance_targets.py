"""Relevance methods and what they are asked: contrasts, and what speaks for and against."""

import pytest
import torch
from torch import Tensor, nn

from method_cases import heat, pooled, random_input
from pellucid.core.errors import MethodError
from pellucid.core.target import contrast


def test_what_speaks_for_and_against_add_up() -> None:
    model, x = pooled(), random_input(2, 3, 8, 8)
    parts = {part: heat(model, x, "lrp", composite="epsilon", part=part) for part in ("both", "positive", "negative")}
    assert parts["positive"].min() >= 0 >= parts["negative"].max() and parts["negative"].min() < 0
    assert torch.equal(parts["positive"] + parts["negative"], parts["both"])


@pytest.mark.parametrize("method", ["sglrp", "clrp"])
def test_a_contrast_names_the_only_opponent(method: str) -> None:
    model, x = pooled(), random_input(2, 3, 8, 8)
    against_all, against_one, against_other = (
        heat(model, x, method, targets) for targets in (1, contrast(1, 0), contrast(1, 2))
    )
    assert not torch.allclose(against_one, against_other) and not torch.allclose(against_one, against_all)
    if method == "sglrp":
        assert torch.allclose(against_one, -heat(model, x, method, contrast(0, 1)) * _ratio(model, x), atol=1e-9)


def _ratio(model: nn.Module, x: Tensor) -> Tensor:
    """`Σ R_a / Σ R_b`, by which the two walks of a contrast are matched."""
    sums = [heat(model, x, "lrp", k, composite="deep_taylor", start="one").flatten(1).sum(1) for k in (1, 0)]
    return (sums[0] / sums[1]).view(-1, 1, 1, 1)


@pytest.mark.parametrize("method", ["deep_taylor", "excitation_backprop", "contrastive_excitation_backprop"])
def test_a_contrast_is_refused_where_one_class_is_shared_out(method: str) -> None:
    with pytest.raises(MethodError, match="explains one class"):
        heat(pooled(), random_input(2, 3, 8, 8), method, contrast(1, 0))
