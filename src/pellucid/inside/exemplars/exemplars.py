"""`exemplars`: the pictures of a data set that excite units most."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pellucid.core.errors import FileError, ImageError, SettingError
from pellucid.core.progress import Progress, watching
from pellucid.images.datasets import Data, Pictures, pictures
from pellucid.inside.exemplars.result import Exemplars
from pellucid.inside.exemplars.scan import Scan
from pellucid.inside.exemplars.sketch import affordable
from pellucid.inside.exemplars.tally import Wanted
from pellucid.inside.opened import Opened, Unit, opened
from pellucid.methods.run import check_seed
from pellucid.models.model import Model
from pellucid.models.resolve import the_model
from pellucid.store.files import read_tensors


def exemplars(
    model: Model | nn.Module | str,
    data: Data,
    *,
    layers: str | Sequence[str] | None = None,
    units: str | Unit | int | Sequence[str | Unit | int] | None = None,
    top: int = 9,
    bottom: int = 0,
    random: int = 0,
    quantile_bins: int = 0,
    batch: int | None = None,
    limit: int | None = None,
    resume: str | Path | None = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> Exemplars:
    """The pictures of a data set that excite each unit most, in one pass over it.

    A unit's value for a picture is the highest of its map, `max_p A_k(p)`; of equal values the picture with the lower
    number comes first, so nothing depends on the size of a batch. What the unit saw there is cut out by its
    theoretical receptive field: pixels outside it can't change the value.

    Args:
        data: whatever `pictures` takes: a folder, a zip, a list, a tensor of inputs, a torch data set.
        layers: module paths; the last layer with maps where neither layers nor units are named.
        units: `"LAYER:CHANNEL"`; or channel numbers, the same in each of the layers.
        top: pictures with the highest values for each unit.
        bottom: pictures whose highest value is lowest.
        random: pictures drawn by seed, the same ones for each unit.
        quantile_bins: groups of equally many pictures by value, of each of which one is shown.
        batch: pictures at once; 8 where it is None (64 on an accelerator), fewer where memory asks for it.
        limit: look at so many pictures at most, spread evenly over the data.
        resume: a .safetensors file that holds how far the pass came; it goes on from there.
        seed: for what is drawn.

    Returns:
        What was found; where the work was cancelled, as far as it came, with a note.

    Raises:
        ImageError: no picture can be read.
        LayerError: no such layer or unit.
        FileError: `resume` is of another network, other data or other settings.
        SettingError: a setting is out of range.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)).eval()
        >>> found = exemplars(net, torch.rand(20, 1, 8, 8), layers="1", progress=False)
        >>> [e.number for e in found.of("1:0").top] == [e.number for e in found.of("1:0").top[::-1]][::-1]
        True

    Source: Zeiler & Fergus 2014, arXiv:1311.2901, section 4; Bau et al. 2017, arXiv:1704.05796, section 2.3.
    """
    _check(top=top, bottom=bottom, random=random, quantile_bins=quantile_bins)
    if batch is not None and batch < 1:
        raise SettingError(f"batch is {batch}; take at least 1 picture at once, or batch=None")
    check_seed(seed)
    known = the_model(model)
    data = pictures(data, known.preprocess, limit=limit)
    inside = _opened(known, data)
    channels = _channels(inside, layers, units)
    kept = affordable(sum(map(len, channels.values())))
    scan = Scan(inside, data, channels, Wanted(top, bottom, random, quantile_bins, seed, kept))
    place = None if resume is None else Path(resume)
    if place is not None and place.suffix != ".safetensors":
        raise FileError(f"resume is {place}; name a file that ends in .safetensors")
    if place is not None and place.exists():
        scan.load(place)
    with watching(progress) as bar:
        scan.run(batch, place, bar)
    return Exemplars(scan)


def reopened(path: Path, model: Model | nn.Module | str, data: Data) -> Exemplars:
    """What `Exemplars.save` wrote."""
    known = the_model(model)
    data = pictures(data, known.preprocess)
    _, facts = read_tensors(path)
    if not isinstance(facts.get("settings"), dict) or "units" not in facts:
        raise FileError(f"{path} holds no exemplars; give a file that Exemplars.save or resume= wrote")
    scan = Scan(_opened(known, data), data, facts["units"], Wanted(**facts["settings"]))
    scan.load(path)
    return Exemplars(scan)


def _check(**counts: int) -> None:
    for name, count in counts.items():
        if count < 0:
            raise SettingError(f"{name} is {count}; ask for 0 or more")


def _opened(model: Model, data: Pictures) -> Opened:
    """The network recorded on the first picture that can be read."""
    for number in range(len(data)):
        if number in data.failed:
            continue
        try:
            return opened(model, data.input(number)[None])
        except ImageError as error:
            data.failed[number] = str(error)
    why = next(iter(data.failed.values()))
    raise ImageError(f"none of {len(data)} pictures can be read; the first of them: {why}")


def _channels(inside: Opened, layers: Any, units: Any) -> dict[str, list[int]]:
    """The units that are asked for, by layer."""
    names = None if layers is None else [layers] if isinstance(layers, str) else list(layers)
    given = [] if units is None else [units] if isinstance(units, str | Unit | int) else list(units)
    if (names is not None and not names) or (units is not None and not given):
        raise SettingError('nothing to watch; name layers such as layers=["layer3"], or units=["layer3:17"]')
    named = [inside.unit(one) for one in given if isinstance(one, str | Unit)]
    numbers = [one for one in given if isinstance(one, int)]
    found = dict[str, list[int]]()
    for layer in names if names is not None else [] if named else [inside.layer(None)]:
        whole = list(range(inside.units(inside.layer(layer))))
        found[layer] = [inside.unit(Unit(layer, n)).channel for n in numbers] if numbers else [] if named else whole
    for unit in named:
        found.setdefault(unit.layer, []).append(unit.channel)
    return {layer: list(dict.fromkeys(channels)) for layer, channels in found.items() if channels}
