"""The architectures of the networks that ship: sizes, what they see, what norms merged into convolutions change."""

import json

import pytest
import torch
from safetensors.torch import save
from torch import nn

import pellucid as pel
from pellucid.core.errors import ModelError
from pellucid.models import builtin, load
from pellucid.models.networks import ARCHITECTURES, BagNet, PlainNet, build
from pellucid.training.norms import with_norms, without_norms

SMALL = [name for name in ARCHITECTURES if name != "photo"]
PLAIN = ["plain", "bagnet", "volume"]
LAST = {"plain": 8, "bagnet": 16, "batchnorm": 8, "preactivation": 8, "relu6": 8, "volume": 8}
MACS = {"bagnet": 55e6, "volume": 50e6}


def example(name, batch=2, side=None):
    shape = (1, *(side or 32,) * 3) if name == "volume" else (3, *(side or 64,) * 2)
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(1))


def multiplications(module, x):
    counted = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear):
            layer.register_forward_hook(lambda m, _, out: counted.append(out[0].numel() * m.weight[0].numel()))
    module(x[:1])
    return sum(counted)


@pytest.mark.parametrize("name", SMALL)
def test_a_network_is_small_and_takes_any_size(name):
    module = build(name, 7).eval()
    assert module(example(name)).shape == (2, 7)
    assert module(example(name, side=40)).shape == (2, 7)
    assert sum(p.numel() for p in module.parameters()) <= 370_000
    assert len(save(module.state_dict())) <= 1.5e6
    assert 8e6 < multiplications(module, example(name)) < MACS.get(name, 35e6)


@pytest.mark.parametrize("name", SMALL)
def test_the_head_is_linear_on_averaged_maps(name):
    module = build(name, 7).eval()
    maps = []
    module.pool.register_forward_hook(lambda _m, inputs, _out: maps.append(inputs[0]))
    scores = module(example(name))
    assert maps[0].shape[2:] == (LAST[name],) * (example(name).ndim - 2)
    exact = maps[0].flatten(2).mean(2) @ module.head.weight.T + module.head.bias
    assert torch.allclose(scores, exact, atol=1e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_networks_have_no_norm(name):
    assert not any("Norm" in type(m).__name__ for m in build(name, 3).modules())


def test_each_awkward_structure_is_there():
    kinds = lambda name: [type(m).__name__ for m in build(name, 3).modules()]  # noqa: E731
    after = [kinds("batchnorm")[i + 1] for i, kind in enumerate(kinds("batchnorm")) if kind == "Conv2d"]
    assert set(after) == {"BatchNorm2d"}
    assert kinds("preactivation")[-4:] == ["BatchNorm2d", "ReLU", "AdaptiveAvgPool2d", "Linear"]
    assert "ReLU6" in kinds("relu6")
    assert any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1 for m in build("relu6", 3).modules())


def receptive_field(module, x):
    """Side of the smallest square that holds every pixel on which the middle of the last maps depends."""
    x = x.double().requires_grad_()
    maps = module.double().features(x)
    maps[0, :, maps.shape[2] // 2, maps.shape[3] // 2].sum().backward()
    rows, columns = (x.grad[0].abs().sum(0) > 0).nonzero(as_tuple=True)
    return int(max(rows.max() - rows.min(), columns.max() - columns.min())) + 1


@pytest.mark.parametrize(("network", "px"), [(BagNet, BagNet.RECEPTIVE_FIELD_PX), (PlainNet, 62)])
def test_the_receptive_field_is_as_told(network, px):
    torch.manual_seed(0)
    module = network(3)
    for layer in module.features:
        if isinstance(layer, nn.Conv2d):
            layer.weight.data.abs_()  # nothing is switched off by a ReLU, so every pixel counts
    found = 0
    for i in range(20):  # max pooling passes on one pixel of four: together they show every one
        x = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(i))
        found = max(found, receptive_field(module, x))
    assert found <= px
    assert found >= px - 4
    assert f"{px}" in network.__doc__


def test_a_bag_of_features_is_blind_beyond_its_window():
    module = build("bagnet", 3).eval()
    x = example("bagnet", 1)
    y = x.clone()
    y[..., 40:, :] = 0
    window = module.features(x)[0, :, 4, 8], module.features(y)[0, :, 4, 8]
    assert torch.equal(*window)


@pytest.mark.parametrize("name", PLAIN)
def test_merged_norms_leave_the_function_as_it_was(name):
    torch.manual_seed(0)
    plain = build(name, 3)
    normed = with_norms(plain)
    assert sum("Norm" in type(m).__name__ for m in normed.modules()) == sum(
        isinstance(m, nn.Conv2d | nn.Conv3d) for m in plain.modules()
    )
    x = example(name, 4)
    for _ in range(3):
        normed.train()(x)
    for layer in normed.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(layer.weight, 1, 0.2)
            nn.init.normal_(layer.bias, 0, 0.2)
    merged = without_norms(normed)
    assert {key: value.shape for key, value in merged.state_dict().items()} == {
        key: value.shape for key, value in plain.state_dict().items()
    }
    expected = normed.eval()(x).detach()
    assert torch.allclose(merged(x), expected, atol=1e-4 * float(expected.abs().max()))


def test_an_unknown_architecture_is_told():
    with pytest.raises(ModelError, match='did you mean "bagnet"'):
        build("bagnett", 3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Weights of every network, untrained, in the place of the package's."""
    for name, architecture in (("scenes", "plain"), ("scenes-relu6", "relu6"), ("volumes", "volume")):
        torch.manual_seed(0)
        facts = {"architecture": architecture, "classes": ["a", "b", "c"], "figures": {"test_accuracy": 0.97}}
        pictures = {"input_px": 64, "mean": [0.5] * 3, "std": [0.2] * 3}
        size = {"input_shape": [1, 32, 32, 32]} if name == "volumes" else pictures
        (tmp_path / f"{name}.json").write_text(json.dumps({**facts, **size}))
        (tmp_path / f"{name}.safetensors").write_bytes(save(build(architecture, 3).state_dict()))
    monkeypatch.setattr(builtin, "shipped", lambda: tmp_path)
    return tmp_path


def test_networks_are_built_from_their_cards(folder):
    model = load("builtin:scenes-relu6")
    assert type(model.module).__name__ == "Relu6Net"
    assert model.preprocess is not None
    assert model.preprocess.resize_px == 64
    assert model.notes == ()
    assert "RANDOM WEIGHTS" in load("builtin:scenes", weights="random").notes[0]
    assert "3 classes, 97.0 % right on test pictures" in builtin.card("scenes")
    with pytest.raises(ModelError, match="not in this installation"):
        builtin.card("scenes-bagnet")


def test_the_network_for_volumes_takes_tensors(folder):
    model = load("builtin:volumes")
    assert model.preprocess is None
    assert "takes tensors of shape (n, 1, 32, 32, 32)" in model.notes[0]
    x = example("volume")
    (found,) = pel.attribute(model, x, methods="saliency", progress=False)
    assert found.attribution.shape[-3:] == (32, 32, 32)


@pytest.mark.parametrize("name", builtin.CARDS)
def test_the_weights_that_ship_fit(name):
    if not (builtin.shipped() / f"{name}.safetensors").is_file():
        pytest.skip(f"builtin:{name} is not trained yet")
    model = load(f"builtin:{name}")
    assert model.labels
    assert (builtin.shipped() / f"{name}.md").is_file()
    if name != "photos":
        assert len((builtin.shipped() / f"{name}.safetensors").read_bytes()) <= 1.5e6
