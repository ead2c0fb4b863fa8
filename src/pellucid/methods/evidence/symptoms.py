"""What a user may mean by a symptom: a mask, regions, the hottest part of a map, or units of a layer."""

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.errors import LayerError, SettingError
from pellucid.core.layout import UNKNOWN, layout
from pellucid.core.trace import Value
from pellucid.images.placement import Placement
from pellucid.images.regions import Regions
from pellucid.methods.covering import regions_of
from pellucid.methods.evidence.asking import Asked
from pellucid.methods.explain import explain
from pellucid.render.explanation import Explanation
from pellucid.render.visible import visible

FORMS = (
    "a mask (array or file), regions with their numbers (slic:50#3,7, or (regions, [3, 7])), the hottest part of a map "
    "(heat:grad_cam:0.1, or (explanation, 0.1)), or units (unit:layer4:5,9)"
)
_MOST_NAMED = 8


@dataclass(frozen=True, eq=False)
class Symptom:
    """What is taken away: pixels, or units of a layer.

    Attributes:
        words: what it is, for people.
        mask: on the network's input grid.
        place, axis, units: of a layer's value, where the channels lie in it, and which of them.
    """

    words: str
    mask: Bool[Tensor, "*space"] | None = None
    place: Value | None = None
    axis: int = 1
    units: tuple[int, ...] = ()


def symptom_of(asked: Asked, given: Any, count: int, name: str = "symptom") -> Symptom:
    """The symptom that a user gave.

    Args:
        given: see `FORMS`.
        count: about how many regions, where none is named.
        name: what it is called in errors.

    Raises:
        SettingError: it can't be read as one, is empty, or is the whole picture.
    """
    if isinstance(given, str) and given.startswith("unit:"):
        return _units(asked, given)
    if isinstance(given, str) and given.startswith("heat:"):
        given = _explained(asked, given)
    words, mask = _masked(asked, given, count)
    if mask.shape != asked.shape:
        raise SettingError(f"a {name} of {tuple(mask.shape)} came; the network's input is {asked.shape}")
    if not mask.any():
        raise SettingError(f"the {name} is empty: it has no pixel that the network sees; mark at least one")
    if mask.all():
        raise SettingError(f"the {name} is the whole picture, so that nothing is left to compare it with; mark a part")
    return Symptom(words, mask)


def _masked(asked: Asked, given: Any, count: int) -> tuple[str, Tensor]:
    if isinstance(given, tuple) and len(given) == 2:
        what, which = given
        if isinstance(which, float):
            return _hottest(asked, what, which)
        return _some(_regions(asked, what, count), which)
    if isinstance(given, Explanation):
        raise SettingError("a map came without saying how much of it; give (explanation, 0.1) for its hottest tenth")
    if isinstance(given, (str, PathLike)):
        text, words = str(given), visible(Path(given).name)
        what, hash_, numbers = text.rpartition("#")
        if hash_ and all(n.strip().isdigit() for n in numbers.split(",")):
            return _some(_regions(asked, what, count), [int(n) for n in numbers.split(",")], words)
        return only_mask(_regions(asked, text, count), words)
    return only_mask(_regions(asked, given, count), "the mask")


def _regions(asked: Asked, given: Any, count: int) -> Regions:
    if isinstance(given, np.ndarray) and given.dtype == np.uint8 and len(set(np.unique(given)) - {0}) < 2:
        given = given > 0
    try:
        return regions_of(asked.case, given, 0, count=count)
    except SettingError as error:
        raise SettingError(f"{str(error).rstrip('.')}. A symptom is {FORMS}") from error


def only_mask(found: Regions, words: str) -> tuple[str, Tensor]:
    """The one region there is, as a mask, with its words.

    Raises:
        SettingError: there are several.
    """
    if found.count > 1:
        raise SettingError(
            f"{words} has {found.count} regions, and a symptom is some of them; name them by number, as in slic:50#3,7 "
            "or (regions, [3, 7])"
        )
    return words, found.labels >= 0


def _some(found: Regions, which: Any, words: str = "") -> tuple[str, Tensor]:
    numbers = [which] if isinstance(which, int) else list(which) if isinstance(which, Iterable) else []
    if not numbers or any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) for n in numbers):
        raise SettingError(f"{which!r} came for the regions of a symptom; give their numbers, such as [3, 7]")
    wrong = next((n for n in numbers if not 0 <= n < found.count), None)
    if wrong is not None:
        raise SettingError(f"there is no region {wrong}; they are numbered 0 to {found.count - 1}")
    mask = torch.isin(found.labels, torch.tensor([int(n) for n in numbers]))
    return words or _named(found, [int(n) for n in numbers]), mask


def _named(found: Regions, numbers: list[int]) -> str:
    names = [found.names[n] if found.names else str(n) for n in numbers]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{found.kind} {'regions' if len(names) > 1 else 'region'} {', '.join(names[:_MOST_NAMED])}{more}"


def _explained(asked: Asked, text: str) -> tuple[Any, float]:
    """The map of `heat:METHOD:FRACTION`."""
    method, _, fraction = text.removeprefix("heat:").rpartition(":")
    try:
        share = float(fraction)
    except ValueError as error:
        raise SettingError(f'"{text}" came; write heat:METHOD:FRACTION, such as heat:grad_cam:0.1') from error
    if asked.picture is None:
        raise SettingError("maps are drawn of 2-D pictures; give a mask or regions")
    image = asked.case.x if asked.picture.name == "input" else asked.picture
    found = explain(
        asked.model, image, methods=method, targets=asked.decision.target, seed=asked.case.seed, progress=False
    )
    return (found if isinstance(found, Explanation) else found[0]), share


def _hottest(asked: Asked, what: Any, fraction: float) -> tuple[str, Tensor]:
    """The pixels with the most positive heat, as many as the fraction says; of equal ones the first."""
    if not 0 < fraction < 1:
        raise SettingError(f"fraction {fraction} of a map came; give a number between 0 and 1, such as 0.1")
    heat = torch.from_numpy(np.array(_heat(asked, what), dtype=np.float64))
    wanted = max(1, round(fraction * heat.numel()))
    flat = torch.nan_to_num(heat.flatten(), nan=0.0, posinf=torch.inf, neginf=0.0)
    order = flat.argsort(descending=True, stable=True)[:wanted]
    order = order[flat[order] > 0]
    mask = torch.zeros(heat.numel(), dtype=torch.bool)
    mask[order] = True
    name = what.title if isinstance(what, Explanation) else "the map"
    if not mask.any():
        raise SettingError(f"{name} has no positive heat, so it marks no symptom; try another method or target")
    return f"the hottest {100 * mask.double().mean():.3g} % of {name}", mask.view(heat.shape)


def _heat(asked: Asked, what: Any) -> Float[np.ndarray, "*space"]:
    """A map on the network's input grid."""
    if isinstance(what, Explanation):
        if asked.placement is None or tuple(what.placement.original_px) != tuple(asked.placement.original_px):
            raise SettingError(
                f"a map of a picture of {what.placement.original_px} px came for another one; explain the same picture"
            )
        return _sampled(what.heat, asked.placement)
    heat = what.detach().cpu().numpy() if isinstance(what, Tensor) else np.asarray(what)
    if heat.dtype.kind != "f":
        raise SettingError(f"a map of {heat.dtype} came with a fraction; give floats, or a mask without a fraction")
    if heat.shape == asked.shape:
        return heat
    if asked.placement is not None and heat.shape == tuple(asked.placement.original_px):
        return _sampled(heat, asked.placement)
    raise SettingError(f"a map of {heat.shape} came; the network's input is {asked.shape}")


def _sampled(heat: np.ndarray, placement: Placement) -> np.ndarray:
    """A map of the picture at the centre of each pixel of the input; NaN outside the picture."""
    height, width = placement.input_px
    y, x = placement.to_original(np.arange(height) + 0.5, np.arange(width) + 0.5)
    rows, columns = np.floor(y).astype(int), np.floor(x).astype(int)
    inside = ((rows >= 0) & (rows < heat.shape[0]))[:, None] & ((columns >= 0) & (columns < heat.shape[1]))
    found = heat[np.clip(rows, 0, heat.shape[0] - 1)[:, None], np.clip(columns, 0, heat.shape[1] - 1)]
    return np.where(inside, found, np.nan)


def _units(asked: Asked, text: str) -> Symptom:
    """The units of `unit:LAYER:NUMBERS`."""
    layer, _, numbers = text.removeprefix("unit:").rpartition(":")
    if not layer or not all(n.strip().isdigit() for n in numbers.split(",")):
        raise SettingError(f'"{text}" came; write unit:LAYER:NUMBERS, such as unit:layer4:5,9')
    place = asked.case.trace.at(layer)
    axes = layout(asked.case.trace).get(place, UNKNOWN)
    axis = 1 if axes.channel is None else axes.channel
    if len(place.shape) < 2 or place.shape[0] != 1 or axes.batch not in (0, None):
        raise LayerError(
            f'layer "{layer}" gives {tuple(place.shape)}, which has no units for each picture; try another'
        )
    units = tuple(sorted({int(n) for n in numbers.split(",")}))
    if units[-1] >= place.shape[axis]:
        raise LayerError(
            f'unit {units[-1]} came, layer "{layer}" has {place.shape[axis]} (0 to {place.shape[axis] - 1})'
        )
    if len(units) == place.shape[axis]:
        raise SettingError(
            f'all units of layer "{layer}" came, so that nothing is left to compare them with; name some'
        )
    shown = ", ".join(map(str, units[:_MOST_NAMED])) + (" …" if len(units) > _MOST_NAMED else "")
    return Symptom(f"{'units' if len(units) > 1 else 'unit'} {shown} of {layer}", None, place, axis, units)
