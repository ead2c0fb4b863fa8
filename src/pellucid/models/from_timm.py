"""`timm:NAME`: weights, preprocessing and labels from timm's own configuration."""

from math import floor
from pathlib import Path
from typing import Any

from torch import nn

from pellucid.core.errors import ModelError, nearest
from pellucid.images.transforms import Preprocess
from pellucid.models.checkpoints import class_count, fit, read_state
from pellucid.models.libraries import hub, hub_is_offline, library
from pellucid.models.model import Model
from pellucid.models.untrained import RANDOM_NOTE, is_random, seeded


def load_timm(name: str, weights: str | Path | None) -> Model:
    """A network of timm.

    Args:
        name: as in `timm.list_models()`, with or without a tag (`resnet50.a1_in1k`).
        weights: a file of weights; `"random"`; or None for timm's own, from the cache of Hugging Face's hub,
            downloaded where they are not there yet.

    Raises:
        MissingExtraError: timm is not installed.
        ModelError: timm knows no such network, or the weights can't be had or don't fit.
    """
    timm = library("timm")
    full = f"timm:{name}"
    if not timm.is_model(name):
        names = timm.list_models()
        raise ModelError(f'timm has no network "{name}"{nearest(name.split(".")[0], names) or "; e.g. resnet50"}')
    if weights is None:
        module, notes, labelled = _pretrained(timm, name), (), True
    elif is_random(weights):
        module, notes, labelled = _build(timm, name), (RANDOM_NOTE,), True
    else:
        module, notes, labelled = _filled(timm, name, Path(weights))
    preprocess, missed = preprocess_of_config(timm.data.resolve_model_data_config(module))
    return Model(module, full, preprocess, _labels(timm, module) if labelled else None, notes + missed)


def preprocess_of_config(config: dict[str, Any]) -> tuple[Preprocess | None, tuple[str, ...]]:
    """timm's evaluation transform as a Preprocess, or what of it can't be said so.

    With crop mode `center` the shorter side becomes floor(side / crop_pct), with `squash` both sides do.
    """
    channels, *sides = config["input_size"]
    mode = config.get("crop_mode") or "center"
    resize = [floor(side / config["crop_pct"]) for side in sides]
    if mode not in ("center", "squash") or (mode == "center" and resize[0] != resize[1]):
        shape = "×".join(map(str, sides))
        return None, (f"timm prepares pictures with crop mode {mode} to {shape} px, which has no equal here",)
    preprocess = Preprocess(
        resize_px=resize[0] if mode == "center" else (resize[0], resize[1]),
        crop_px=(sides[0], sides[1]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        channels=channels,
        interpolation=config["interpolation"],
    )
    return preprocess, ()


def _pretrained(timm: Any, name: str) -> nn.Module:
    offline = hub_is_offline()
    try:
        with seeded(), hub(offline):
            return timm.create_model(name, pretrained=True)
    except Exception as error:  # timm, the hub and its HTTP client each have errors of their own
        source = timm.get_pretrained_cfg(name)
        where = source.hf_hub_id or source.url if source else None
        if where is None:
            raise ModelError(f'timm has no weights for {name}; give weights=FILE, or weights="random"') from error
        why = (
            "and Hugging Face's hub can't be reached" if offline else f"({type(error).__name__}: {_first_line(error)})"
        )
        raise ModelError(
            f"the weights of timm:{name} ({where}) are not on this machine {why}; download them elsewhere "
            f'and give weights=FILE, or weights="random" for an untrained network'
        ) from error


def _filled(timm: Any, name: str, file: Path) -> tuple[nn.Module, tuple[str, ...], bool]:
    state, notes = read_state(file)
    module = _build(timm, name)
    taught = module.num_classes
    classes = class_count(module.state_dict(), state, taught)
    if classes != taught:
        module = _build(timm, name, num_classes=classes)
        notes += (f"{file.name} is for {classes} classes, not timm's {taught}; their names are not known",)
    return module, notes + fit(module, state, file, f"timm:{name}"), classes == taught


def _build(timm: Any, name: str, **options: Any) -> Any:
    with seeded():
        return timm.create_model(name, pretrained=False, **options)


def _labels(timm: Any, module: Any) -> tuple[str, ...] | None:
    """ImageNet's class names, where the number of classes is one of an ImageNet."""
    subset = timm.data.infer_imagenet_subset(module)
    return tuple(timm.data.ImageNetInfo(subset).label_descriptions()) if subset else None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]
