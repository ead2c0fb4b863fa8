"""`hf:NAME`: an image classifier of transformers, from a local folder or Hugging Face's hub."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from pellucid.core.errors import ModelError, SettingError
from pellucid.images.transforms import Preprocess
from pellucid.models.checkpoints import fit, read_state
from pellucid.models.libraries import broken, hub, hub_is_offline, library
from pellucid.models.model import Model, read_labels
from pellucid.models.untrained import RANDOM_NOTE, is_random, seeded

CONVNEXT_WARPS_FROM_PX = 384  # ConvNextImageProcessor warps from this size on, and crops below


def load_hf(name: str, weights: str | Path | None) -> Model:
    """An image classifier of transformers; no code of the repository is run (`trust_remote_code=False`).

    The output of its module is a `ModelOutput`; the scores are its `.logits`.

    Args:
        name: a folder with `config.json`, or the id of a repository on Hugging Face's hub.
        weights: a file of weights; `"random"`; or None for the ones of the folder or repository.

    Raises:
        MissingExtraError: transformers is not installed.
        ModelError: it can't be imported, there is no such classifier, or the weights can't be had or don't fit.
    """
    transformers = library("transformers")
    auto = _auto_classes(transformers)
    offline = not Path(name).is_dir() and hub_is_offline()
    options = {"local_files_only": offline or Path(name).is_dir(), "trust_remote_code": False}
    with _explained(name, offline), seeded(), hub(offline), _no_bars(transformers):
        if weights is None:
            module, notes = auto["model"].from_pretrained(name, **options), ()
        else:
            module = auto["model"].from_config(auto["config"].from_pretrained(name, **options))
            notes = (RANDOM_NOTE,) if is_random(weights) else _own_weights(module, Path(weights), name)
        processor = _processor(auto["processor"], name, options)
    preprocess, missed = preprocess_of_processor(processor)
    return Model(module, f"hf:{name}", preprocess, read_labels(module.config.id2label), notes + missed)


def preprocess_of_processor(facts: Mapping[str, Any] | None) -> tuple[Preprocess | None, tuple[str, ...]]:
    """An image processor's settings as a Preprocess, or what of them can't be said so."""
    if facts is None:
        return None, ("it has no preprocessor_config.json",)
    if facts.get("do_flip_channel_order"):
        return None, ("its processor swaps red and blue, which has no equal here",)
    try:
        mean, std = _normalisation(facts)
        resize, crop = _sizes(facts)
        return Preprocess(resize, crop, mean, std, len(mean), _interpolation(facts)), ()
    except (SettingError, KeyError, TypeError, ValueError) as error:
        return None, (f"the settings of its processor have no equal here ({error})",)


def _sizes(facts: Mapping[str, Any]) -> tuple[int | tuple[int, int] | None, int | tuple[int, int] | None]:
    """What to resize to and what to crop, as the processors of transformers compute them."""
    kind, size = str(facts.get("image_processor_type", "")), facts.get("size") or {}
    crop = _pair(facts.get("crop_size")) if facts.get("do_center_crop") else None
    if not facts.get("do_resize", True):
        return None, crop
    shorter, fraction = size.get("shortest_edge"), facts.get("crop_pct")
    if size.get("longest_edge"):
        raise ValueError(f"size {dict(size)}")
    if shorter is None:
        return _scaled(_pair(size), fraction), crop
    if kind.startswith("ConvNext"):
        return (shorter, shorter) if shorter >= CONVNEXT_WARPS_FROM_PX else int(shorter / fraction), (shorter, shorter)
    if kind.startswith("Levit"):
        return int(256 / 224 * shorter), crop
    return int(shorter / fraction) if fraction else shorter, crop


def _scaled(pair: tuple[int, int], fraction: float | None) -> int | tuple[int, int]:
    """PoolFormer's resize: a square size divided by `crop_pct` is a shorter side."""
    if not fraction:
        return pair
    if pair[0] != pair[1]:
        raise ValueError(f"crop_pct with the size {pair}")
    return int(pair[0] / fraction)


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    return (size["shortest_edge"],) * 2 if size.get("shortest_edge") else (size["height"], size["width"])


def _normalisation(facts: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std in units of [0, 1] pixels: x = (255 p f - o - mean) / std with rescale factor f and offset o.

    EfficientNet's `include_top` divides by std once more.
    """
    normalised = facts.get("do_normalize", True)
    mean = tuple(facts.get("image_mean") or ()) if normalised else ()
    mean = mean or (0.0, 0.0, 0.0)
    own_std = tuple(facts.get("image_std") or (1.0,) * len(mean))
    std = own_std if normalised else (1.0,) * len(mean)
    if facts.get("include_top"):
        std = tuple(once * again for once, again in zip(std, own_std, strict=True))
    gain = 255 * (facts.get("rescale_factor") or 1 / 255) if facts.get("do_rescale", True) else 255.0
    offset = 1.0 if facts.get("rescale_offset") else 0.0
    return tuple((value + offset) / gain for value in mean), tuple(value / gain for value in std)


def _interpolation(facts: Mapping[str, Any]) -> Any:
    resample = facts.get("resample")
    return "bilinear" if resample is None else Image.Resampling(resample).name.lower()


def _processor(auto: Any, name: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings of the image processor; None where there is none."""
    try:
        return auto.from_pretrained(name, **options).to_dict()
    except OSError:
        return None


def _auto_classes(transformers: Any) -> dict[str, Any]:
    try:
        return {
            "model": transformers.AutoModelForImageClassification,
            "config": transformers.AutoConfig,
            "processor": transformers.AutoImageProcessor,
        }
    except (ImportError, RuntimeError) as error:
        raise broken("transformers", error) from error


def _own_weights(module: Any, file: Path, name: str) -> tuple[str, ...]:
    state, notes = read_state(file)
    return notes + fit(module, state, file, f"hf:{name}")


@contextmanager
def _explained(name: str, offline: bool) -> Iterator[None]:
    """Turn what transformers raises into one sentence."""
    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        if offline:
            raise ModelError(
                f"hf:{name} is no folder here and not in the cache of Hugging Face's hub, which can't be reached; "
                "download the repository where there is a network and give its folder: hf:FOLDER"
            ) from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"transformers can't load hf:{name} as an image classifier ({reason}); give a folder with config.json and "
            "model.safetensors, or the id of an image-classification repository such as microsoft/resnet-50"
        ) from error


@contextmanager
def _no_bars(transformers: Any) -> Iterator[None]:
    """No progress bar and no message below an error."""
    logging = transformers.utils.logging
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
