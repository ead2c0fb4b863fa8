"""`atlas`: what a layer tells apart, on one map of icons (C7)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pellucid.core.errors import Cancelled, ImageError, SettingError, TargetError
from pellucid.core.progress import Progress, watching
from pellucid.images.datasets import Pictures, pictures
from pellucid.inside.atlas.cells import Grid, gridded, rgb, side_for, supporters, whitening
from pellucid.inside.atlas.collecting import Samples, collect
from pellucid.inside.atlas.layout import lay_out, which_layout
from pellucid.inside.atlas.result import Atlas
from pellucid.inside.opened import Opened, opened
from pellucid.inside.optimise.vectors import invert_vectors
from pellucid.methods.pictures import seen
from pellucid.methods.run import check_seed
from pellucid.models.model import Model
from pellucid.models.resolve import the_model

LEAST, LEAST_OF_CLASS, MOST_OF_CLASS = 6, 4, 2000
ICONS_AT_ONCE = 16
PATCH_PX = 48

Invert = Callable[..., Any]


def atlas(
    model: Model | nn.Module | str,
    data: Any,
    layer: str | None = None,
    *,
    grid: int | None = None,
    layout: str = "auto",
    class_: int | str | None = None,
    samples: int | None = None,
    least: int | None = None,
    icons: bool = True,
    icon_px: int | None = None,
    steps: int = 128,
    invert: Invert = invert_vectors,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> Atlas:
    """What a layer tells apart, as a map: activations of many pictures, neighbours alike, each cell drawn as an icon.

    From every picture one activation h at a random place is taken, the border left out. All are laid out on a plane
    and put into cells; the icon of a cell is the picture that maximises `h·(S v) max(0.1, cos(h, v))²` for the cell's
    mean v, with `S = E[h hᵀ]⁻¹`. A cell is named after the class to which its activations give most,
    `Σ_i h_i ∂ S_c / ∂ h_i`, and its size grows with the logarithm of how many lie in it.

    Args:
        data: pictures: a folder, a .zip, a list, or inputs (n, c, h, w).
        layer: the last one with maps by default.
        grid: cells along each side; by default such that a cell holds about twenty activations.
        layout: `umap`, `tsne`, `pca`, or `auto` for the first of these that is installed.
        class_: a class, by number or label: the atlas of what gives to it.
        samples: how many activations; one from each picture by default.
        least: cells with fewer are not drawn; 6, or 4 in the atlas of a class, by default.
        icons: whether icons are made; without them cells show patches of the data.
        icon_px: side of the icons; the network's input, but 96 at most, by default.
        steps: of the ascent that makes the icons.
        invert: makes icons of vectors, as `invert_vectors` does.

    Returns:
        The atlas. When it is stopped while icons are made, those made so far are kept, the fullest cells first.

    Raises:
        LayerError: no such layer, or it has no maps.
        ImageError: no picture of the data can be used.
        SettingError: a setting is out of range, or no cell holds enough.
        MissingExtraError: the layout needs a library that is not installed.
        Cancelled: stopped before there was anything to keep.

    Source: Carter, Armstrong, Schubert, Johnson & Olah 2019, Distill, doi 10.23915/distill.00015.
    """
    plan = _planned(model, data, layer, grid, class_, steps, least, seed)
    notes = [*plan.notes]
    with watching(progress) as bar:
        whole = found = collect(plan.opened, plan.layer, plan.given, samples, seed, bar, notes)
        if plan.class_ is not None:
            found = found.only(np.flatnonzero(supporters(found.attributions, plan.class_, MOST_OF_CLASS)))
        kind, told = which_layout(layout, len(found))
        notes += [told] if told else []
        places = lay_out(found.vectors, kind, seed=seed, single_class=plan.class_ is not None)
        enough = (LEAST if plan.class_ is None else LEAST_OF_CLASS) if least is None else least
        cells = gridded(found, places, grid or side_for(len(found)), enough, plan.class_)
        patches = _patches(plan, found, cells)
        drawn: UInt8[np.ndarray, "m h w 3"] = np.zeros((0, 1, 1, 3), np.uint8)
        order = sorted(range(len(cells.cells)), key=lambda k: -cells.cells[k].count)
        if icons and plan.pictorial:
            pushed = torch.from_numpy(whitening(whole.vectors))
            drawn = _icons(plan, cells, order, pushed, invert, icon_px, steps, seed, bar, notes)
    settings = {"layout": kind, "least": enough, "steps": steps, "seed": seed}
    return _result(plan, found, cells, tuple(order[: len(drawn)]), drawn, patches, settings, notes)


def _result(
    plan: "_Plan", found: Samples, cells: Grid, order: tuple[int, ...], drawn: UInt8[np.ndarray, "i h w 3"],
    patches: UInt8[np.ndarray, "m e p q 3"], settings: dict[str, Any], notes: list[str],
) -> Atlas:  # fmt: skip
    """All of it, with what was chosen and what went wrong."""
    if not plan.pictorial:
        notes.append("icons and patches are made for networks that take pictures only.")
    if plan.given.failed:
        notes.append(f"{len(plan.given.failed)} pictures could not be used and were passed over.")
    known = {"layer": plan.layer, "grid": len(cells.counts), "samples": len(found), "class": plan.class_}
    model = plan.opened.model
    labels = tuple(model.label(c) for c in range(found.attributions.shape[1]))
    names = tuple(str(plan.given.names[int(n)]) for n in found.pictures)
    return Atlas(
        model.name, plan.layer, labels, names, found, cells, order, drawn, patches,
        {**known, **settings, "icons": len(drawn)}, tuple(dict.fromkeys(notes)),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is worked on."""

    opened: Opened
    layer: str
    given: Pictures
    class_: int | None
    notes: tuple[str, ...]

    @property
    def pictorial(self) -> bool:
        return len(self.opened.trace.inputs[0].shape) == 4


def _planned(
    model: Model | nn.Module | str, data: Any, layer: str | None, grid: int | None, class_: int | str | None,
    steps: int, least: int | None, seed: int,
) -> _Plan:  # fmt: skip
    if grid is not None and (isinstance(grid, bool) or not 1 <= grid <= 200):
        raise SettingError(f"grid={grid} came; cells along each side are 1 to 200")
    for name, value in (("steps", steps), ("least", 1 if least is None else least)):
        if isinstance(value, bool) or value < 1:
            raise SettingError(f"{name}={value} came; take at least 1")
    check_seed(seed)
    chosen = the_model(model)
    given = pictures(data, chosen.preprocess)
    inside = opened(chosen, _first(given))
    name = inside.spatial(inside.layer(layer))
    notes = () if layer is not None else (f'layer "{name}" was chosen for you.',)
    number = chosen.index(class_) if isinstance(class_, str) else class_
    classes = inside.trace.scores.shape[1] if inside.trace.scores.dim() > 1 else 1
    if number is not None and not 0 <= number < classes:
        raise TargetError(f"class {number} came; the network has {classes} classes (0 to {classes - 1})")
    return _Plan(inside, name, given, number, notes)


def _first(given: Pictures) -> Tensor:
    """One input of the data set, by which the network is opened."""
    why = "it is empty"
    for number in range(len(given)):
        try:
            return given.input(number)[None]
        except ImageError as error:
            given.failed[number] = why = str(error)
    raise ImageError(f"no picture of the data set can be used: {why}")


def _patches(plan: _Plan, found: Samples, cells: Grid) -> UInt8[np.ndarray, "m e p p 3"]:
    """What the examples of each cell see, brought to one size; grey where there is none."""
    most = max(len(cell.examples) for cell in cells.cells)
    out = np.full((len(cells.cells), most, PATCH_PX, PATCH_PX, 3), 128, np.uint8)
    if not plan.pictorial:
        return out[:, :0]
    wanted: dict[int, list[tuple[int, int, int]]] = {}
    for k, cell in enumerate(cells.cells):
        for e, sample in enumerate(cell.examples):
            wanted.setdefault(int(found.pictures[sample]), []).append((k, e, sample))
    for number, uses in wanted.items():
        shown = seen(plan.given.input(number), plan.opened.model.preprocess)
        for k, e, sample in uses:
            (top, bottom), (left, right) = found.boxes[sample].tolist()
            out[k, e] = _square(shown[top:bottom, left:right])
    return out


def _square(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "p p 3"]:
    from PIL import Image

    kind = Image.Resampling.LANCZOS if max(pixels.shape[:2]) > PATCH_PX else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize((PATCH_PX, PATCH_PX), kind))


def _icons(
    plan: _Plan, cells: Grid, order: list[int], pushed: Float[Tensor, "c c"], invert: Invert, icon_px: int | None,
    steps: int, seed: int, bar: Progress, notes: list[str],
) -> UInt8[np.ndarray, "m h w 3"]:  # fmt: skip
    """Icons of the cells in this order, a few at a time; those that were finished before somebody stopped the work."""
    made: list[np.ndarray] = []
    for start in range(0, len(order), ICONS_AT_ONCE):
        which = order[start : start + ICONS_AT_ONCE]
        try:
            pixels = invert(
                plan.opened, plan.layer, torch.from_numpy(cells.means[which]), whiten=pushed, icon_px=icon_px,
                steps=steps, data=plan.given, seed=seed, progress=bar,
            )  # fmt: skip
            bar.advance(0)
        except (Cancelled, KeyboardInterrupt):
            notes.append(f"stopped after {len(made)} of {len(order)} icons; other cells show a patch of the data.")
            break
        made += [rgb(np.asarray(one)) for one in pixels]
    return np.stack(made) if made else np.zeros((0, 1, 1, 3), np.uint8)
