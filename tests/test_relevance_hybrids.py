"""Relevance on transformers' networks: it works, or says precisely what is approximate."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from method_cases import outcome
from networks.zoo import wake

pytestmark = pytest.mark.zoo
NETWORKS: dict[str, tuple[dict, int, bool]] = {  # configuration, pixels, attention
    "ViT": ({"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96,
             "image_size": 32, "patch_size": 8}, 32, True),
    "Swin": ({"image_size": 64, "patch_size": 4, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4],
              "window_size": 4}, 64, True),
    "ConvNext": ({"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]}, 64, False),
    "ResNet": ({"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}, 64, False),
}  # fmt: skip


@pytest.fixture
def build() -> Callable[[str], nn.Module]:
    transformers = pytest.importorskip("transformers")

    def make(name: str) -> nn.Module:
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(num_labels=5, **NETWORKS[name][0])
        model = getattr(transformers, f"{name}ForImageClassification")(config).double().eval()
        wake(model)
        return model

    return make


@pytest.mark.parametrize("method", ["lrp", "deep_lift", "excitation_backprop"])
@pytest.mark.parametrize("name", NETWORKS)
def test_transformers_networks(build: Callable[[str], nn.Module], name: str, method: str) -> None:
    _, pixels, attention = NETWORKS[name]
    words = {"baseline": "zero"} if method == "deep_lift" else {}
    found = outcome(build(name), torch.randn(2, 3, pixels, pixels, dtype=torch.float64), method, **words)
    receipt = found.receipts[0]
    told = " ".join(receipt.approximate)
    assert bool(told) == attention and ("attention" in told) == attention
    assert all(abs(c.value) < 1e-6 for c in receipt.checks if c.name.endswith("error"))
    assert found.attribution.abs().sum() > 0
