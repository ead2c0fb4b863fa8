"""Cover a part of the picture and ask again: windows that slide, regions, and pairs of regions (B4, B5)."""

import itertools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.ahead import PlanName, Precision
from pellucid.core.edits import Box, Boxed, Edits, Masked, covered
from pellucid.core.errors import MethodError, SettingError
from pellucid.core.receipt import Check
from pellucid.core.rerun import CannotRerunError
from pellucid.core.runners import prepared
from pellucid.core.tables import curve, table
from pellucid.core.trace import Trace
from pellucid.images.fills import Fill, fills
from pellucid.images.regions import Regions
from pellucid.methods.case import Case
from pellucid.methods.covering import Paint, paint_of, region_columns, regions_of
from pellucid.methods.registry import Verdict, method

WINDOWS_ACROSS, SMALLEST_PX = 14, 4
DISAGREE = 0.5
MOST_WINDOWS = 200_000
Fills = Annotated[Any, "what covers: grey, black, white, mean, blur, noise, inpaint, zero, donor:FILE; several with +"]
Plan = Annotated[PlanName, "how it is computed; the answers are the same"]
Exactness = Annotated[Precision, "bf16: convolutions in bfloat16, faster and approximate"]


def rerun_doctor(trace: Trace) -> Verdict:
    """How much of the network one window of the default size computes again."""
    x = trace.inputs[0]
    if len(x.shape) < 3:
        return Verdict("impossible", "the input has no positions that could be covered")
    side = _default_window(x.shape[2:])
    middle = tuple(((n - side) // 2, (n + side) // 2) for n in x.shape[2:])
    try:
        share, _ = prepared(trace, x, trace.output, 0, False).reach(middle)
    except CannotRerunError as error:
        return Verdict("exact", f"every edit is run in full: {error}")
    return Verdict("exact", f"a window of {side} px computes {min(share, 1):.0%} of the network again")


@method(
    "occlusion",
    title="Occlusion",
    site="input",
    reduce="none",
    units="drop of the score when this place is covered",
    source="Zeiler & Fergus 2014, arXiv:1311.2901, section 4.2",
    doctor=rerun_doctor,
    misleads="where the paint looks like something itself, or a thing is larger than the window: see the disagreement",
)
def occlusion(
    case: Case,
    *,
    window_px: Annotated[Any, "side of the window, or one per axis as 16x8; 0 is a fourteenth of the shorter side"] = 0,
    stride_px: Annotated[Any, "step from window to window, or one per axis; 0 is half the window"] = 0,
    fill: Fills = "grey+blur",
    plan: Plan = "auto",
    precision: Exactness = "full",
) -> Float[Tensor, "b *space"]:
    """`M(p) = mean over the windows W that cover p of f(x) − f(x with W painted)`, then the mean over the fills.

    Windows begin at 0, stride, 2·stride …, until one reaches the border, where it is cut off. All channels are covered
    together. With several fills each one's map is kept, and `½ (max − min)` over them is the disagreement.

    Raises:
        SettingError: a window larger than the image, a stride below one or beyond the window, an unknown fill.
    """
    x, chosen = case.x, fills(fill)
    windows = windows_of(x.shape[2:], window_px, stride_px)
    boxes, rows = windows * len(x), [image for image in range(len(x)) for _ in windows]
    asked: dict[str, Tensor] = {}
    for one in chosen:
        edits = _boxed(x, boxes, rows, [paint_of(case, one, image) for image in range(len(x))])
        drops = case.score()[rows] - _finite(case.answers(edits, plan=plan, precision=precision), one)
        asked[one.name] = _spread(x, boxes, rows, drops.to(x))
    return _joined(case, asked)


def windows_of(space: Sequence[int], window_px: Any, stride_px: Any) -> list[Box]:
    """The windows, the last axis fastest.

    Raises:
        SettingError: as for `occlusion`.
    """
    window = _per_axis("window_px", window_px, space, _default_window(space))
    stride = [s or max(1, w // 2) for s, w in zip(_per_axis("stride_px", stride_px, space, 0), window, strict=True)]
    for size, side, step in zip(space, window, stride, strict=True):
        if side > size:
            raise SettingError(f"window_px={side} came for an image of {size} pixels; use at most {size}")
        if step > side:
            raise SettingError(f"stride_px={step} leaves pixels between windows of {side}; use at most {side}")
    starts = [
        [a for a in range(0, size, step) if a == 0 or a - step + side < size]
        for size, side, step in zip(space, window, stride, strict=True)
    ]
    count = torch.tensor([len(s) for s in starts]).prod().item()
    if count > MOST_WINDOWS:
        raise SettingError(f"{count:,} windows came of it; use a larger stride_px, for at most {MOST_WINDOWS:,}")
    corners = itertools.product(*starts)
    return [tuple((a, min(a + w, n)) for a, w, n in zip(c, window, space, strict=True)) for c in corners]


def _default_window(space: Sequence[int]) -> int:
    return min(max(round(min(space) / WINDOWS_ACROSS), SMALLEST_PX), min(space))


def _per_axis(name: str, given: Any, space: Sequence[int], default: int) -> list[int]:
    parts = given.lower().split("x") if isinstance(given, str) else given
    values = list(parts) if isinstance(parts, (list, tuple)) else [parts]
    try:
        sizes = [int(v) for v in values]
        whole = all(float(v) == s for v, s in zip(values, sizes, strict=True))
    except (TypeError, ValueError, OverflowError):
        sizes, whole = [], False
    if not whole or len(sizes) not in (1, len(space)) or min(sizes) < 0 or (min(sizes) == 0 and len(sizes) > 1):
        raise SettingError(
            f"{name}={given!r} came; use a whole number from 1 on, or one for each of {len(space)} axes as in 16x8"
        )
    return [s or default for s in sizes] * (len(space) if len(sizes) == 1 else 1)


def _boxed(x: Tensor, boxes: Sequence[Box], rows: Sequence[int], paints: Sequence[Paint]) -> Edits:
    """The boxes of every image under its own paint."""
    if all(isinstance(p, Tensor) for p in paints):
        return Boxed(x, torch.cat([p.expand_as(x[:1]) for p in paints if isinstance(p, Tensor)]), boxes, rows)

    def masks(which: Sequence[int]) -> Tensor:
        keep = torch.ones(len(which), *x.shape[2:], dtype=torch.bool, device=x.device)
        for place, i in enumerate(which):
            keep[(place, *(slice(a, b) for a, b in boxes[i]))] = False
        return keep

    return Masked(x, _by_image(paints, rows), masks, rows, boxes)


def _by_image(paints: Sequence[Paint], rows: Sequence[int]) -> Callable[[Sequence[int], Tensor], Tensor]:
    """Paints that hang on the mask; every edit gets its own image's."""

    def paint(which: Sequence[int], masks: Tensor) -> Tensor:
        made = []
        for image in dict.fromkeys(rows[i] for i in which):
            mine = [place for place, i in enumerate(which) if rows[i] == image]
            own = paints[image]
            found = own if isinstance(own, Tensor) else own([which[p] for p in mine], masks[mine])
            made.append((mine, found))
        out = made[0][1].new_empty(len(which), *made[0][1].shape[1:])
        for mine, found in made:
            out[mine] = found
        return out

    return paint


def _finite(values: Tensor, fill: Fill) -> Tensor:
    if not torch.isfinite(values).all():
        raise MethodError(
            f'under fill "{fill.name}" {int((~torch.isfinite(values)).sum())} of {len(values)} scores are not numbers; '
            "the network overflows there: use another fill or float32"
        )
    return values


def _spread(x: Tensor, boxes: Sequence[Box], rows: Sequence[int], drops: Tensor) -> Tensor:
    """At every pixel the mean of the drops of the windows that cover it."""
    total = torch.zeros(len(x), *x.shape[2:], dtype=torch.float64, device=x.device)
    count = torch.zeros_like(total[0])
    for number, (box, row, drop) in enumerate(zip(boxes, rows, drops.double(), strict=True)):
        place = tuple(slice(a, b) for a, b in box)
        total[(row, *place)] += drop
        if number < len(boxes) // len(x):
            count[place] += 1
    return (total / count).to(x)


def _joined(case: Case, asked: dict[str, Tensor]) -> Tensor:
    """The mean over the fills; with several, each one's map and where they disagree."""
    maps = torch.stack(list(asked.values()))
    mean = maps.mean(0)
    if len(asked) == 1:
        return mean
    spread = (maps.amax(0) - maps.amin(0)) / 2
    case.extra_maps.update({f"fill {name}": heat for name, heat in asked.items()})
    case.extra_maps["disagreement"] = spread
    sums = zip(spread.flatten(1).sum(1).tolist(), mean.flatten(1).abs().sum(1).tolist(), strict=True)
    for image, (apart, size) in enumerate(sums):
        share = apart / size if size else 0.0
        text = (
            f"half the distance between the fills {', '.join(asked)}, as a share of the heat: the paint decides so much"
        )
        case.checks[image].append(
            Check("disagreement between fills", share, DISAGREE, "pass" if share <= DISAGREE else "warn", text)
        )
    return mean


@method(
    "region_occlusion",
    title="Region occlusion",
    site="input",
    reduce="none",
    units="drop of the score when this region is covered",
    source="Zeiler & Fergus 2014, arXiv:1311.2901, section 4.2, with regions in place of windows",
    doctor=rerun_doctor,
    misleads="where two regions say the same: neither is missed alone; look at the pairs",
)
def region_occlusion(
    case: Case,
    *,
    regions: Annotated[
        Any, "slic, grid, felzenszwalb or quickshift with :COUNT, or a file or array of labels"
    ] = "slic:50",
    fill: Fills = "grey+blur+mean",
    pairs: Annotated[int, "how many of the strongest regions are also covered two by two"] = 0,
    plan: Plan = "auto",
    precision: Exactness = "full",
) -> Float[Tensor, "b *space"]:
    """`Δ(R) = f(x) − f(x with region R painted)`, at every pixel of R; the mean over the fills.

    Pairs: `I(R, S) = Δ(R ∪ S) − Δ(R) − Δ(S)`; above zero the two count for more together than alone, below zero one
    stands in for the other. Tables: the regions, the pairs, and the score as regions are covered one after the other,
    the strongest first. Pixels that belong to no region get 0.

    Raises:
        SettingError: no region, unknown regions or fills, fewer than two regions with pairs.
    """
    if pairs < 0 or pairs == 1:
        raise SettingError(f"pairs={pairs} came; use 0 for none, or 2 and more")
    chosen = fills(fill)
    maps: dict[str, list[Tensor]] = {one.name: [] for one in chosen}
    for image in range(len(case.x)):
        found = regions_of(case, regions, image)
        drops = _Regions(case, image, found, chosen, plan, precision).told(pairs)
        padded = torch.cat([drops, drops.new_zeros(len(drops), 1)], 1)
        for one, values in zip(chosen, padded, strict=True):
            maps[one.name].append(values[found.labels.to(values.device)])
    return _joined(case, {name: torch.stack(heats).to(case.x) for name, heats in maps.items()})


class _Regions:
    """The questions about one image's regions."""

    def __init__(
        self, case: Case, image: int, regions: Regions, chosen: Sequence[Fill], plan: PlanName, precision: Precision
    ) -> None:
        self.case, self.image, self.regions, self.fills = case, image, regions, chosen
        self.plan: PlanName = plan
        self.precision: Precision = precision
        self.paints = [paint_of(case, one, image) for one in chosen]

    def drops(self, hidden: Tensor) -> Tensor:
        """`f(x) − f(x with these regions painted)`, `(fills, n)`, for `hidden` (n, regions)."""
        x, image, found = self.case.x[self.image : self.image + 1], self.image, []
        for one, paint in zip(self.fills, self.paints, strict=True):
            edits = _OfImage(covered(x, paint, self.regions.labels.to(x.device), ~hidden.to(x.device)), image)
            found.append(_finite(self.case.answers(edits, plan=self.plan, precision=self.precision), one))
        return self.case.score()[image].double() - torch.stack(found).double()

    def told(self, pairs: int) -> Tensor:
        """Every region's drop under every fill, `(fills, regions)`; tables on the way."""
        count = self.regions.count
        alone = self.drops(torch.eye(count, dtype=torch.bool))
        order = alone.mean(0).argsort(descending=True, stable=True).tolist()
        self._table(alone, order)
        if pairs:
            self._pairs(alone, order[: max(pairs, 2)])
        self._curve(order)
        return alone

    def _table(self, alone: Tensor, order: Sequence[int]) -> None:
        mean, spread = alone.mean(0).tolist(), ((alone.amax(0) - alone.amin(0)) / 2).tolist()
        columns, first = region_columns(self.case, self.regions, self.image)
        rows = [(*first[r], *alone[:, r].tolist(), mean[r], spread[r]) for r in order]
        columns += (*(f"effect {one.name}" for one in self.fills), "mean", "disagreement")
        note = (
            "effect: how far the score drops when the region is covered; disagreement: half the distance between fills"
        )
        self.case.tables[self.image].append(table("regions", columns, rows, note))

    def _pairs(self, alone: Tensor, strongest: Sequence[int]) -> None:
        if len(strongest) < 2:
            raise SettingError(f"pairs need two regions, and there is {len(strongest)}; use more regions")
        found = list(itertools.combinations(strongest, 2))
        hidden = torch.zeros(len(found), self.regions.count, dtype=torch.bool)
        for number, pair in enumerate(found):
            hidden[number, list(pair)] = True
        together, single = self.drops(hidden).mean(0).tolist(), alone.mean(0).tolist()
        rows = [
            (a, b, t, single[a] + single[b], t - single[a] - single[b])
            for (a, b), t in zip(found, together, strict=True)
        ]
        rows.sort(key=lambda row: -abs(row[4]))
        note = "interaction above zero: the two count for more together; below zero: one stands in for the other"
        self.case.tables[self.image].append(
            table("pairs", ("region a", "region b", "together", "sum", "interaction"), rows, note)
        )

    def _curve(self, order: Sequence[int]) -> None:
        hidden = torch.zeros(len(order), len(order), dtype=torch.bool)
        for number, region in enumerate(order):
            hidden[number:, region] = True
        score = float(self.case.score()[self.image])
        scores = score - self.drops(hidden)
        names = tuple(f"score {one.name}" for one in self.fills)
        rows = [(0, *[score] * len(names)), *((n, *s) for n, s in enumerate(scores.T.tolist(), 1))]
        note = "the score as regions are covered one after the other, the strongest first"
        self.case.tables[self.image].append(curve("covered", ("regions covered", *names), rows, note))


class _OfImage:
    """Edits of one image of several."""

    def __init__(self, edits: Masked, image: int) -> None:
        self.edits, self.boxes, self.inputs, self.inside = edits, edits.boxes, edits.inputs, edits.inside
        self.rows: Sequence[int] = [image] * len(edits.rows)
