"""What each layer contributes to the decision: its share of the score, and what the score loses with its maps blank."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.core.errors import TraceError
from pellucid.core.progress import Progress
from pellucid.core.replay import replayed
from pellucid.core.tables import Cell, Table, table
from pellucid.core.target import Target
from pellucid.core.trace import Value
from pellucid.inside.maps.channels import usable
from pellucid.inside.opened import Opened
from pellucid.methods.fullgrad import layer_shares

COLUMNS = ("layer", "kind", "share of the score", "score with its mean", "change")
NOTE = (
    "the shares are those of FullGrad: what the biases of the layer add, and what comes from the input; they sum to "
    "the score. The mean: every map of the layer is replaced by its mean, so that only where things are is lost"
)


def contributions(inside: Opened, target: Target, bar: Progress) -> Table:
    """A row for the input and for each layer: FullGrad's share, and the score when the layer's maps are blank.

    `S = x·∇S + Σ_layers b·∂S/∂b`; and `S(A := mean over positions of A)` for every layer with maps.

    Args:
        target: whose score is taken apart.
        bar: told after each layer.

    Source: Srinivas & Fleuret 2019, arXiv:1905.00780 (the shares).
    """
    trace = inside.trace
    shares = {name: float(share[0]) for name, share in layer_shares(trace, target).items()}
    score = float(target.score(trace)[0])
    names = _distinct(inside, shares)
    bar.expect(len(names))
    rows: list[Sequence[Cell]] = []
    for name in ["input", *(n for n in shares if n not in names and n != "input"), *names]:
        blank = _blank(inside, target, name) if name in names else None
        change = None if blank is None else blank - score
        rows.append((name or "the network itself", trace.kinds.get(name, ""), shares.get(name), blank, change))
        if name in names:
            bar.advance(1, f"without the maps of {name}")
    return table("contributions", COLUMNS, rows, NOTE)


def _distinct(inside: Opened, shares: dict[str, float]) -> list[str]:
    """Layers in the order in which they ran: of several that give out the same, the innermost, and all with a share."""
    innermost = {tuple(calls): path for path, calls in inside.trace.layers.items() if any(calls)}
    for path, calls in inside.trace.layers.items():
        if any(calls) and path.count(".") > innermost[tuple(calls)].count("."):
            innermost[tuple(calls)] = path
    kept = set(innermost.values())
    paths = [p for p, calls in inside.trace.layers.items() if any(calls) and (p in kept or p in shares)]
    return sorted(
        paths, key=lambda path: inside.trace.layers[path][0][0].position if inside.trace.layers[path][0] else 0
    )


def _blank(inside: Opened, target: Target, layer: str) -> float | None:
    """The score when the maps of a layer are their means; None where it has none, or the rest can't be run again."""
    edits = {v: _mean(inside, v, f"{layer}#{n}") for n, c in enumerate(inside.trace.layers[layer]) for v in c[:1]}
    edits = {value: mean for value, mean in edits.items() if mean is not None}
    if not edits:
        return None
    value = target.value(inside.trace)
    try:
        changed = replayed(inside.trace, edits=edits)
    except TraceError:
        return None
    return float(target.read(changed.get(value, value.data), [0])[0])


def _mean(inside: Opened, value: Value, layer: str) -> Tensor | None:
    """A value with each channel at its mean over the positions."""
    if not usable(inside, value) or len(value.shape) < 3:
        return None
    channel = inside.channel_axis(layer)
    axes = [a for a in range(1, len(value.shape)) if a != channel]
    if all(value.shape[a] == 1 for a in axes):
        return None
    with torch.no_grad():
        return value.data.mean(axes, keepdim=True).expand(value.shape).contiguous()
