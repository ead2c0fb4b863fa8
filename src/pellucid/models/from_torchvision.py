"""`torchvision:NAME`: weights, preprocessing and labels from torchvision's own metadata."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from pellucid.core.errors import ModelError, nearest
from pellucid.images.transforms import Preprocess
from pellucid.models.checkpoints import class_count, fit, read_state
from pellucid.models.libraries import library, reachable
from pellucid.models.model import Model
from pellucid.models.untrained import RANDOM_NOTE, is_random, seeded

DENSE_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")
TAUGHT_ON = 1000  # classes of ImageNet


def load_torchvision(name: str, weights: str | Path | None) -> Model:
    """A classification or segmentation network of torchvision.

    Args:
        name: as in `torchvision.models.list_models()`.
        weights: a file of weights; `"random"`; or None for torchvision's default ones, from the folder where
            `torch.hub` keeps them, downloaded where they are not there yet.

    Raises:
        MissingExtraError: torchvision is not installed.
        ModelError: it does not fit torch, knows no such network, or the weights can't be had or don't fit.
    """
    models = library("torchvision").models
    _known(models, name)
    full, facts = f"torchvision:{name}", models.get_model_weights(name)
    default = facts.DEFAULT if len(facts) else None
    preprocess = preprocess_of_transforms(default.transforms()) if default else None
    labels = tuple(default.meta.get("categories") or ()) or None if default else None
    if is_random(weights):
        return Model(_build(models, name, None, {}), full, preprocess, labels, (RANDOM_NOTE,))
    if weights is not None:
        file = Path(weights)
    elif default is not None:
        file = fetched(default.url, full)
    else:
        raise ModelError(f'torchvision has no weights for {name}; give weights=FILE, or weights="random"')
    state, notes = read_state(file)
    return _filled(models, Model(nn.Identity(), full, preprocess, labels, notes), default, state, file)


def preprocess_of_transforms(transforms: Any) -> Preprocess | None:
    """torchvision's preset (`resize_size`, `crop_size`, `mean`, `std`, `interpolation`) as a Preprocess."""
    resize, mean = getattr(transforms, "resize_size", None), getattr(transforms, "mean", None)
    if resize is None or mean is None:
        return None
    return Preprocess(
        resize_px=_size(resize),
        crop_px=_size(getattr(transforms, "crop_size", None)),
        mean=tuple(mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value.removesuffix("-exact"),
    )


def fetched(url: str, full: str) -> Path:
    """The file of `url` in torch.hub's folder, downloaded (and checked by its hash) where it is not there yet.

    Raises:
        ModelError: neither there nor to be had; says which file belongs where.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / Path(urlsplit(url).path).name
    if file.is_file():
        return file
    remedy = (
        f"put {file.name} (from {url}) into {folder}, or give weights=FILE with weights of your own, "
        f'or weights="random" for an untrained network'
    )
    if not reachable(url):
        raise ModelError(
            f"the weights of {full} are not on this machine and {urlsplit(url).hostname} can't be reached; {remedy}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        hash_prefix = re.search(r"-([a-f0-9]{8,})\.", file.name)
        torch.hub.download_url_to_file(url, str(file), hash_prefix[1] if hash_prefix else None, progress=False)
    except (URLError, OSError, RuntimeError) as error:
        raise ModelError(f"the weights of {full} could not be downloaded ({error}); {remedy}") from error
    return file


def _filled(models: Any, model: Model, default: Any, state: Mapping[str, Tensor], file: Path) -> Model:
    """Build the architecture that the weights are for, and fill it."""
    name = model.name.removeprefix("torchvision:")
    state = {DENSE_KEY.sub(r"\1\2", key): value for key, value in state.items()} if "densenet" in name else state
    taught = len(model.labels) if model.labels else TAUGHT_ON
    module, notes = _build(models, name, default, state), model.notes
    classes = class_count(module.state_dict(), state, taught)
    if classes != taught:
        module = _build(models, name, default, state, num_classes=classes)
        notes += (f"{file.name} is for {classes} classes, not torchvision's {taught}; their names are not known",)
    notes += fit(module, state, file, model.name)
    return Model(module, model.name, model.preprocess, model.labels if classes == taught else None, notes)


def _known(models: Any, name: str) -> None:
    names = [*models.list_models(module=models), *models.list_models(module=models.segmentation)]
    if name in names:
        return
    if name in models.list_models():
        raise ModelError(f"torchvision:{name} is no image classifier; e.g. torchvision:resnet50 is one")
    raise ModelError(f'torchvision has no network "{name}"{nearest(name, names) or "; e.g. resnet50"}')


def _build(models: Any, name: str, default: Any, state: Mapping[str, Tensor], **options: Any) -> nn.Module:
    """The untrained architecture, with the settings that torchvision's own weights were trained under."""
    if name in ("googlenet", "inception_v3"):
        auxiliary = any(key.startswith(("aux1", "aux2", "AuxLogits")) for key in state)
        options |= {"init_weights": not state, "aux_logits": auxiliary, "transform_input": bool(state)}
    if name.startswith("vit_") and default is not None and state:
        options["image_size"] = default.meta["min_size"][0]
    if name in models.list_models(module=models.segmentation):
        options |= {"weights_backbone": None, "aux_loss": any("aux_classifier" in key for key in state)}
    with seeded():
        return models.get_model(name, weights=None, **options)


def _size(sides: Any) -> int | tuple[int, int] | None:
    if sides is None or isinstance(sides, int):
        return sides
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])
