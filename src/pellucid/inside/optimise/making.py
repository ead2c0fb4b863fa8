"""`optimise`: pictures that a network's units, layers or classes would like best."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pellucid.core.chunks import in_chunks, out_of_memory
from pellucid.core.errors import SettingError, check_known
from pellucid.core.progress import Progress, watching
from pellucid.images.datasets import pictures
from pellucid.inside.opened import Opened, opened
from pellucid.inside.optimise.canvases import Canvas, Fourier, Pixels
from pellucid.inside.optimise.chance import source
from pellucid.inside.optimise.climb import EPS, Climb, Group, View, fitted
from pellucid.inside.optimise.colour import Colours, colours
from pellucid.inside.optimise.maco import Crops, Maco, Phases, amounts, opacity
from pellucid.inside.optimise.optimised import Optimised
from pellucid.inside.optimise.space import Space, space_of
from pellucid.inside.optimise.transforms import Transforms, draws, looked_at, transforms_of
from pellucid.inside.optimise.wishes import objective_of
from pellucid.models.model import Model

USUAL, BLOCK = 32, 256
LARGER = 2  # the canvas of MACO, of which crops are looked at


@dataclass(frozen=True, eq=False)
class Plan:
    """All that is decided before the first step.

    Attributes:
        start: pixels to start from, (1, c, h, w), instead of chance.
        wished: pixels of a picture to imitate.
    """

    opened: Opened
    space: Space
    colours: Colours
    size_px: tuple[int, int]
    steps: int
    seed: int
    learning_rate: float
    transforms: Transforms
    parametrisation: Any
    snapshots: tuple[int, ...]
    amount: Tensor | None = None
    amount_words: str = ""
    start: Tensor | None = None
    wished: Tensor | None = None


def plan(
    known: Opened,
    *,
    parametrisation: Any,
    steps: int,
    size_px: int | Sequence[int] | None,
    transforms: Transforms | str,
    colour: Any,
    data: Any,
    learning_rate: float | int,
    seed: int,
    snapshots: Sequence[int],
) -> Plan:
    """Settings checked and what hangs on the network worked out.

    Raises:
        SettingError: a setting is out of range.
    """
    if not isinstance(parametrisation, Maco):
        check_known("parametrisation", parametrisation, ("fourier", "pixels", "maco"))
    maco = Maco() if parametrisation == "maco" else parametrisation if isinstance(parametrisation, Maco) else None
    if isinstance(steps, bool) or steps < 1 or not learning_rate > 0:
        raise SettingError(f"steps is at least 1 and learning_rate above 0; {steps} and {learning_rate} came")
    if wrong := [step for step in snapshots if not 0 <= step <= steps]:
        raise SettingError(f"snapshots after step {wrong[0]} came for {steps} steps; use 0 to {steps}")
    source_ = None if data is None else pictures(data, known.model.preprocess)
    space = space_of(known, source_)
    size = _size(size_px, space, LARGER if maco else 1)
    mixed = colours(colour, space, source_)
    amount, words = amounts(space, mixed, size, source_) if maco else (None, "")
    return Plan(
        known, space, mixed, size, steps, seed, float(learning_rate), transforms_of(transforms),
        maco or parametrisation, tuple(snapshots), amount, words,
    )  # fmt: skip


def _size(given: int | Sequence[int] | None, space: Space, larger: int) -> tuple[int, int]:
    """Height and width; the network's input size, or a multiple of it, by default."""
    if given is None:
        return space.size_px[0] * larger, space.size_px[1] * larger
    size = (given, given) if isinstance(given, int) else tuple(given)
    if len(size) != 2 or min(size) < 2:
        raise SettingError(f"size_px is a side or (height, width) of at least 2 pixels, not {given!r}")
    return size[0], size[1]


def optimise(
    model: Model | nn.Module | str,
    objective: Any,
    *,
    parametrisation: Any = "fourier",
    steps: int = 256,
    count: int = 1,
    size_px: int | Sequence[int] | None = None,
    transforms: Transforms | str = "robust",
    colour: Any = None,
    data: Any = None,
    image: Any = None,
    start: Any = None,
    learning_rate: float | int = 0.05,
    seed: int = 0,
    snapshots: Sequence[int] = (),
    progress: Progress | bool | None = None,
) -> Optimised:
    """Make the picture that an objective would like best, `argmax_u E_τ[objective(τ(u))]`, by gradient ascent (Adam).

    Args:
        model: the network.
        objective: `"LAYER:CHANNEL"`, `"LAYER:CHANNEL@centre"`, `"LAYER"`, `"logit:LABEL"`, a `Unit`, a target, a
            `pel.objectives` expression, or a list of these; each gets pictures of its own.
        parametrisation: `"fourier"`, `"pixels"`, `"maco"` or a `Maco` with settings.
        steps: of the ascent.
        count: pictures for each objective; see `objectives.diversity` for different ones.
        size_px: side or (height, width); the network's input size by default.
        transforms: `"robust"`, `"strong"`, `"none"` or `Transforms`; drawn for each picture by itself.
        colour: `None` (from the data, where there are any), `"imagenet"`, `"none"`, or a matrix (c, c).
        data: pictures of the network's kind: their colours, their spectrum (MACO), their range.
        image: an example of the input; needed where the preprocessing is not known.
        start: a picture to start from (feature accentuation).
        seed: with each picture's own name it decides over chance: n at once equal n one by one.
        snapshots: steps after which the pictures are kept.

    Returns:
        The pictures; when the work is cancelled, as far as they got, with a note.

    Raises:
        LayerError, TargetError: no such layer, unit or class.
        SettingError: a setting is out of range.
        ModelError: the network does not take pictures.

    Example:
        >>> found = optimise("builtin:photos", "stage2.1:3", steps=2)
        >>> found.pictures.shape
        (1, 3, 32, 32)

    Source: Olah, Mordvintsev & Schubert 2017, Distill, "Feature visualization".
    """
    known = opened(model, image)
    made = plan(
        known, parametrisation=parametrisation, steps=steps, size_px=size_px, transforms=transforms, colour=colour,
        data=data, learning_rate=learning_rate, seed=seed, snapshots=snapshots,
    )  # fmt: skip
    return carried_out(with_start(made, start), objectives_in(objective), count=count, progress=progress)


def objectives_in(given: Any) -> list[Any]:
    """One or several."""
    found = list(given) if isinstance(given, list | tuple) else [given]
    if not found:
        raise SettingError("no objective came; give at least one")
    return found


def with_start(made: Plan, start: Any) -> Plan:
    """The plan with a picture to start from, brought to its size."""
    from dataclasses import replace

    return made if start is None else replace(made, start=pixels_of(made, start))


def pixels_of(made: Plan, image: Any) -> Float[Tensor, "1 c h w"]:
    """A picture, or an input of the network, as pixels of the size that is worked on."""
    from pellucid.methods.pictures import one_image

    x = one_image(made.opened.model, image)[0][None].to(made.space.home.device, made.space.dtype)
    if x.dim() != 4 or x.shape[1] != made.space.channels:
        raise SettingError(f"a picture of {made.space.channels} channels was expected, {tuple(x.shape[1:])} came")
    pixels = made.space.pixels(x).clamp(0, 1)
    return fitted(pixels, torch.empty(0, 0, *made.size_px))


def carried_out(
    made: Plan, asked: Sequence[Any], *, count: int = 1, progress: Progress | bool | None = None, title: str = ""
) -> Optimised:
    """Pictures for every objective, as many at a time as memory allows."""
    if isinstance(count, bool) or count < 1:
        raise SettingError(f"count is at least 1, not {count}")
    wanted = [objective_of(one, made.opened) for one in asked]
    readings = [one.on(made.opened) for one in wanted]
    idle = next((one.words for one, r in zip(wanted, readings, strict=True) if not r.layers), None)
    if idle is not None:
        raise SettingError(f'the objective "{idle}" reads nothing from the network; add a unit, a layer or a class')
    names = [[one.words if count == 1 else f"{one.words} #{k}" for k in range(count)] for one in wanted]
    notes = [*made.space.notes, *made.opened.notes]
    with watching(progress) as bar, torch.inference_mode(False):
        bar.expect(made.steps * count * len(wanted))
        parts = list(_chunks(made, [(r, count) for r in readings], names, bar, notes))
    return _joined(made, names, readings, count, parts, notes)


def _chunks(
    made: Plan, groups: Sequence[Group], names: Sequence[Sequence[str]], bar: Progress, notes: list[str]
) -> Iterator["Part"]:
    stopped = False

    def work(which: Sequence[int]) -> "Part | None":
        nonlocal stopped
        if stopped:
            return None
        part = _climbed(made, [groups[i] for i in which], [n for i in which for n in names[i]], bar)
        stopped = part.climb.stopped
        return part

    looks = made.parametrisation.crops if isinstance(made.parametrisation, Maco) else 1
    each = _bytes(made) * groups[0][1] * looks
    for first in range(0, len(groups), BLOCK):  # so few that no sizes are tried out: they differ by rounding
        block = range(first, min(first + BLOCK, len(groups)))
        found = in_chunks(
            block, work, device=made.space.home.device, bytes_each=each, usual=USUAL, told=notes.append
        )  # fmt: skip
        yield from (part for _, part in found if part is not None)


@dataclass(frozen=True, eq=False)
class Part:
    """Pictures that were made together."""

    climb: Climb
    pixels: Tensor
    values: Tensor
    peaks: list[float]


def _climbed(made: Plan, groups: Sequence[Group], names: Sequence[str], bar: Progress) -> Part:
    random = [source(made.seed, name) for name in names]
    canvas, view, optimiser = _tools(made, random)
    maco = isinstance(made.parametrisation, Maco)
    climb = Climb(made.opened, made.space, groups, canvas, view, made.wished, weighed=maco)
    if not maco and made.size_px != made.space.size_px:
        _try_size(made, climb)
    with torch.inference_mode(False), torch.enable_grad():
        climb.up(made.steps, optimiser, made.snapshots, bar)
    with torch.no_grad():
        pixels = canvas.pixels().detach()
    whole = torch.from_numpy(made.space.eight_bits(pixels)).permute(0, 3, 1, 2).to(pixels) / 255
    seen = fitted(whole, made.opened.trace.inputs[0].data) if maco else whole
    values, peaks = climb.measured(made.space.fed(seen), whole)
    return Part(climb, pixels, values, peaks)


def _try_size(made: Plan, climb: Climb) -> None:
    """
    Raises:
        SettingError: the network can't take pictures of another size than it was recorded with.
    """
    one = torch.full((1, made.space.channels, *made.size_px), 0.5, dtype=made.space.dtype)
    try:
        with torch.no_grad():
            climb.watch(made.space.fed(one.to(made.space.home.device)))
    except Exception as error:
        if out_of_memory(error):
            raise
        sides, own = (" × ".join(map(str, size)) for size in (made.size_px, made.space.size_px))
        raise SettingError(
            f"{made.opened.model.name} does not take pictures of {sides} px ({error}); "
            f"leave out size_px: it takes {own}"
        ) from error


def _tools(made: Plan, random: Sequence[torch.Generator]) -> tuple[Canvas, View, torch.optim.Optimizer]:
    """Canvas, view and optimiser of a parametrisation."""
    home = torch.empty(0, dtype=made.space.dtype, device=made.space.home.device)
    if isinstance(made.parametrisation, Maco):
        assert made.amount is not None
        phases = Phases(random, made.amount, made.size_px, made.colours, home)
        crops = Crops(made.parametrisation, random, made.steps, made.space.size_px)
        rate = made.parametrisation.learning_rate
        return phases, crops, torch.optim.NAdam(phases.parameters, lr=rate, maximize=True)
    start = None if made.start is None else made.start.expand(len(random), -1, -1, -1)
    args = (random, made.space.channels, made.size_px, made.colours, home)
    canvas: Canvas = Fourier(*args, start=start) if made.parametrisation == "fourier" else Pixels(*args, start=start)
    view = Robust(made.transforms, draws(random, made.steps), made.size_px)
    adam = torch.optim.Adam(canvas.parameters, lr=made.learning_rate, eps=EPS, maximize=True, fused=True)
    return canvas, view, adam


class Robust:
    """Each step sees every picture once, transformed."""

    looks = 1

    def __init__(self, transforms: Transforms, random: Float[Tensor, "steps n 6"], size_px: tuple[int, int]) -> None:
        self.transforms, self.random, self.size_px = transforms, random, size_px

    def __call__(self, pixels: Tensor, step: int) -> Tensor:
        if self.transforms.still:
            return pixels
        matrices = self.transforms.matrices(self.random[step], self.size_px)
        return looked_at(pixels, matrices.to(pixels), self.size_px)


def _bytes(made: Plan) -> int:
    """What one picture takes on its way through the network and back, about."""
    trace = made.opened.trace
    nodes = sum(v.shape.numel() * v.dtype.itemsize for n in trace.nodes for v in n.outputs if v is not None)
    h, w = made.space.size_px
    larger = 1.0 if isinstance(made.parametrisation, Maco) else made.size_px[0] * made.size_px[1] / (h * w)
    return int(nodes / trace.batch * larger)


def _joined(
    made: Plan, names: Sequence[Sequence[str]], readings: Sequence[Any], count: int, parts: Sequence[Part],
    notes: list[str],
) -> Optimised:  # fmt: skip
    """One result from all chunks; when some were stopped or never begun, that is told."""
    pixels = torch.cat([p.pixels for p in parts])
    done, total = len(pixels), count * len(readings)
    steps = min(p.climb.steps_done for p in parts)
    flat = [n for group in names for n in group][:done]
    units = [r.unit for r in readings for _ in range(count)][:done]
    if done < total:
        notes.append(f"stopped before the last {total - done} of {total} pictures were begun")
    never = torch.cat([p.climb.never for p in parts])
    notes += [f"{n} was never excited: no gradient leads to the picture" for n, a in zip(flat, never, strict=True) if a]
    kept = sorted({step for p in parts for step in p.climb.kept})
    common = [s for s in kept if all(s in p.climb.kept for p in parts)]
    return Optimised(
        model=made.opened.model.name,
        names=tuple(flat),
        pictures=made.space.units(pixels).cpu().numpy(),
        eight_bit=made.space.eight_bits(pixels),
        values=tuple(torch.cat([p.values for p in parts]).tolist()),
        units=tuple(units),
        peaks=tuple(peak for p in parts for peak in p.peaks),
        heights=torch.cat([torch.stack(p.climb.heights[:steps], 1) for p in parts]).cpu().numpy(),
        snapshots={s: made.space.eight_bits(torch.cat([p.climb.kept[s] for p in parts])) for s in common},
        opacity=_opacity(parts),
        settings=_settings(made),
        notes=tuple(dict.fromkeys([*notes, *(n for p in parts for n in p.climb.notes)])),
    )


def _opacity(parts: Sequence[Part]) -> Float[np.ndarray, "n h w"] | None:
    found = [p.climb.strength for p in parts if p.climb.strength is not None]
    return opacity(torch.cat(found)) if len(found) == len(parts) else None


def _settings(made: Plan) -> dict[str, Any]:
    return {
        "parametrisation": made.parametrisation
        if isinstance(made.parametrisation, str)
        else repr(made.parametrisation),
        "steps": made.steps,
        "size_px": list(made.size_px),
        "learning_rate": made.learning_rate,
        "transforms": repr(made.transforms),
        "colours": made.colours.words,
        **({"amounts": made.amount_words} if made.amount_words else {}),
        "seed": made.seed,
    }
