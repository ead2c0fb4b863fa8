"""Architectures: torchvision's with random weights, and the real networks of the shared test data.

`build` leaves nothing at its idle starting value: zero heads and gates, unit slopes, layer scales of 1e-6 and
untouched BatchNorm statistics would make a comparison pass without meaning.
"""

import importlib.util
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_SIZES: dict[str, int] = {
    "alexnet": 64,
    "convnext_small": 64,
    "convnext_tiny": 64,
    "densenet121": 64,
    "densenet161": 64,
    "densenet169": 64,
    "densenet201": 64,
    "efficientnet_b0": 64,
    "efficientnet_b1": 64,
    "efficientnet_b2": 64,
    "efficientnet_b3": 64,
    "efficientnet_b4": 64,
    "efficientnet_v2_m": 64,
    "efficientnet_v2_s": 64,
    "googlenet": 64,
    "inception_v3": 96,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "mnasnet0_75": 64,
    "mnasnet1_0": 64,
    "mnasnet1_3": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_large": 64,
    "mobilenet_v3_small": 64,
    "regnet_x_1_6gf": 64,
    "regnet_x_3_2gf": 64,
    "regnet_x_400mf": 64,
    "regnet_x_800mf": 64,
    "regnet_y_1_6gf": 64,
    "regnet_y_3_2gf": 64,
    "regnet_y_400mf": 64,
    "regnet_y_800mf": 64,
    "resnet101": 64,
    "resnet152": 64,
    "resnet18": 64,
    "resnet34": 64,
    "resnet50": 64,
    "resnext101_32x8d": 64,
    "resnext50_32x4d": 64,
    "shufflenet_v2_x0_5": 64,
    "shufflenet_v2_x1_0": 64,
    "shufflenet_v2_x1_5": 64,
    "shufflenet_v2_x2_0": 64,
    "squeezenet1_0": 64,
    "squeezenet1_1": 64,
    "swin_s": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11": 32,
    "vgg11_bn": 32,
    "vgg13_bn": 32,
    "vgg16": 32,
    "vgg16_bn": 32,
    "vgg19": 32,
    "vit_b_16": 64,
    "vit_b_32": 64,
    "wide_resnet50_2": 64,
}
_WORDS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},  # its own start is slow
    "inception_v3": {"init_weights": False},
    "vit_b_16": {"image_size": 64},
    "vit_b_32": {"image_size": 64},
}
CLASSES = 20


def torchvision_names() -> dict[str, int]:
    """Name → side of the input in pixels: 57 architectures; one gradient of each takes a minute."""
    return dict(_SIZES)


def picture(name: str, batch: int = 1, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """A smooth random input of the architecture's size."""
    random = torch.Generator().manual_seed(seed)
    side = _SIZES[name]
    coarse = torch.randn(batch, 3, 8, 8, generator=random, dtype=torch.float64)
    fine = torch.randn(batch, 3, side, side, generator=random, dtype=torch.float64)
    return (nn.functional.interpolate(coarse, size=(side, side), mode="bilinear") + 0.3 * fine).to(dtype)


def build(name: str, seed: int = 0, classes: int = CLASSES) -> nn.Module:
    """The architecture with random weights in evaluation mode; auxiliary heads answer in training only."""
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = {"weights": None, "num_classes": classes, **_WORDS.get(name, {})}
        model = getattr(torchvision.models, name)(**words).eval()
        wake(model)
        settle(model, picture(name, 8, seed + 1))
    return model


def wake(model: nn.Module) -> None:
    """Replaces every constant parameter (zero heads and biases, unit slopes, layer scales) by random numbers."""
    with torch.no_grad():
        for path, p in model.named_parameters():
            flat = p.flatten()
            if p.numel() == 1 or not bool((flat == flat[0]).all()):
                continue
            if p.ndim >= 2 and not path.endswith("layer_scale"):
                p.normal_(0, max(p[0].numel(), 1) ** -0.5)
            elif float(flat[0]) == 0:
                p.uniform_(-0.1, 0.1)
            else:
                p.uniform_(0.5, 1.5)
                p.flatten()[::7].neg_()


def settle(model: nn.Module, x: Tensor) -> None:
    """BatchNorm statistics from one batch, shaken layer by layer, so that normalisation is neither idle nor perfect."""
    handles = [m.register_forward_pre_hook(_shake) for m in model.modules() if isinstance(m, _BatchNorm)]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()


def _shake(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """What comes in has this mean and variance; the stored ones are off by a third of a deviation and by half."""
    assert isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None
    axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
    var, mean = torch.var_mean(inputs[0], axes)
    var = var.clamp(min=0.1 * float(var.mean()) + 1e-6)
    norm.running_mean.copy_(mean + 0.3 * torch.randn_like(mean) * var.sqrt())
    norm.running_var.copy_(var * torch.empty_like(var).uniform_(0.7, 1.5))


def class_score(output: Any, index: int = 1) -> Tensor:
    """Class `index`, summed over the batch; the main head's where there are several."""
    main = output if isinstance(output, Tensor) else getattr(output, "logits", output[0])
    return main[:, index].sum()


# ---------------------------------------------------------------------------------------------------- real networks


@dataclass(frozen=True)
class Real:
    """A trained network.

    Attributes:
        model: In evaluation mode, float32.
        preprocess: Picture `(h, w, 3)` (MNIST: `(h, w)`) uint8 to the model's input `(1, c, h, w)`.
        picture: One picture that the network gets right.
        x: preprocess(picture).
        label: The picture's class.
    """

    name: str
    model: nn.Module
    preprocess: Callable[[np.ndarray], Tensor]
    picture: np.ndarray
    x: Tensor
    label: int


def shared_models(data: Path) -> ModuleType:
    """`models.py` of the shared data folder, imported from where it lies."""
    spec = importlib.util.spec_from_file_location("shared_data_models", data / "models.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _bytes_to_batch(picture: np.ndarray) -> Tensor:
    deep = picture[..., None] if picture.ndim == 2 else picture
    return torch.from_numpy(deep.copy()).permute(2, 0, 1)[None]


def _warp(picture: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR))


def squeezenet_input(picture: np.ndarray, prepare: Callable[[Tensor], Tensor]) -> Tensor:
    """Warped to 256 × 256, central 227 × 227."""
    return prepare(_bytes_to_batch(_warp(picture, 256)[14:241, 14:241]))


def mobilenet_input(picture: np.ndarray, prepare: Callable[[Tensor], Tensor]) -> Tensor:
    """Central 87.5 % of each side, warped to 224 × 224."""
    h, w = picture.shape[:2]
    top, left = round(h * 0.0625), round(w * 0.0625)
    return prepare(_bytes_to_batch(_warp(picture[top : h - top, left : w - left], 224)))


def _photo(data: Path) -> tuple[np.ndarray, int]:
    """The first picture of the sample (a bald eagle, class 22), that both ImageNet networks get right."""
    from PIL import Image

    entry = json.loads((data / "imagenet_sample" / "labels.json").read_text())[0]
    with Image.open(data / "imagenet_sample" / "images" / entry["file"]) as image:
        return np.asarray(image.convert("RGB")), entry["index"]


def _cifar_photo(data: Path, name: str) -> np.ndarray:
    from PIL import Image

    with zipfile.ZipFile(data / "cifar10" / "test.zip") as archive, archive.open(name) as file:
        return np.asarray(Image.open(file).convert("RGB"))


def real_squeezenet(data: Path, shared: ModuleType) -> Real:
    import torchvision
    from safetensors.torch import load_file

    model = torchvision.models.squeezenet1_1(weights=None)
    weights = load_file(data / "imagenet" / "squeezenet1_1_fp16.safetensors")
    model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=True)
    photo, label = _photo(data)
    return _real("squeezenet1_1", model, lambda p: squeezenet_input(p, shared.prep_tv), photo, label)


def real_mobilenet(data: Path, shared: ModuleType) -> Real:
    import torchvision

    model = torchvision.models.mobilenet_v2(weights=None)
    model.load_state_dict(shared.load_q8(data / "imagenet" / "mobilenet_v2_1.0_224_q8.safetensors"), strict=False)
    photo, label = _photo(data)
    model = shared.tf_same_(model)
    return _real("mobilenet_v2", model, lambda p: mobilenet_input(p, shared.prep_m128), photo, label)


def real_cifar(data: Path, shared: ModuleType) -> Real:
    from safetensors.torch import load_file

    model = shared.CifarResNet(3)
    model.load_state_dict(load_file(data / "cifar10" / "resnet20.safetensors"), strict=True)
    photo = _cifar_photo(data, "airplane/0000.jpg")
    return _real("cifar_resnet20", model, lambda p: shared.prep_tv(_bytes_to_batch(p)), photo, 0)


def real_mnist(data: Path, shared: ModuleType) -> Real:
    from safetensors.torch import load_file

    model = shared.SimpleNetMNIST()
    model.load_state_dict(load_file(data / "mnist" / "simplenet_mnist.safetensors"), strict=True)
    with np.load(data / "mnist" / "mnist_test_2000.npz") as archive:
        digit, label = archive["images"][0], int(archive["labels"][0])
    return _real("simplenet_mnist", model, lambda p: shared.prep_mnist(_bytes_to_batch(p)), digit, label)


def _real(
    name: str, model: nn.Module, preprocess: Callable[[np.ndarray], Tensor], picture: np.ndarray, label: int
) -> Real:
    return Real(name, model.eval(), preprocess, picture, preprocess(picture), label)


REAL: dict[str, Callable[[Path, ModuleType], Real]] = {
    "squeezenet1_1": real_squeezenet,
    "mobilenet_v2": real_mobilenet,
    "cifar_resnet20": real_cifar,
    "simplenet_mnist": real_mnist,
}


def real(data: Path) -> Iterator[Real]:
    """The trained networks of the shared data folder, one after the other."""
    shared = shared_models(data)
    for load in REAL.values():
        yield load(data, shared)
