"""Whole layers share the score (B7)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pellucid.core.errors import LayerError, SettingError, TargetError
from pellucid.core.layout import UNKNOWN, layout
from pellucid.core.progress import Progress, watching
from pellucid.core.record import record
from pellucid.core.replay import replayed
from pellucid.core.tables import Table, table
from pellucid.core.target import Target
from pellucid.core.trace import Trace, Value
from pellucid.methods.choose import choose_targets
from pellucid.methods.shapley.exact import MOST_PLAYERS, exact
from pellucid.methods.shapley.game import Game, Shares, coalitions
from pellucid.models.model import Model, wrap


@dataclass(frozen=True, eq=False)
class LayerShares:
    """What each layer contributed to a score.

    Attributes:
        layers: module paths.
        target: what the score is, for each image.
        off: the state of a layer that is off.
        shares: `φ`, in units of the score; each row sums to `scores − empty`.
        scores: of the images as they are.
        empty: with every layer off.
        tables: the shares with the layers' names, for each image.
    """

    layers: tuple[str, ...]
    target: tuple[str, ...]
    off: str
    shares: Float[Tensor, "b n"]
    scores: Float[Tensor, " b"]
    empty: Float[Tensor, " b"]
    tables: tuple[Table, ...]

    def __repr__(self) -> str:
        first = ", ".join(
            f"{name} {share:+.3g}" for name, share in zip(self.layers, self.shares[0].tolist(), strict=True)
        )
        return f"LayerShares({self.target[0]}: {first}{', …' if len(self.shares) > 1 else ''})"


def layer_shapley(
    model: Model | nn.Module,
    *inputs: Tensor,
    layers: Sequence[str],
    target: Any = "top1",
    off: Literal["zero", "mean"] = "zero",
    progress: Progress | bool | None = None,
) -> LayerShares:
    """Which layers a score came from: `φ_i = Σ_{S ∌ i} |S|! (n − |S| − 1)! / n! · (v(S ∪ i) − v(S))`.

    `v(S)` is the score when only the layers S give out what they compute, and every other one its off state. A layer
    that is on computes from whatever arrives, so a layer gains nothing while one behind it, through which all of it
    passes, is off. All `2ⁿ` combinations are run from one recording.

    Args:
        inputs: what the network takes, already normalised.
        layers: two to twelve module paths; `"relu#0"` names one of several calls.
        target: one target, as for `attribute`.
        off: zero, or each channel of the untouched image's output as its mean over the cells (layers with maps only).
        progress: False for none.

    Returns:
        The shares of every image, in units of the score, with a table each.

    Raises:
        LayerError: fewer than two layers or more than twelve, no such layer, or two names for one value.
        TargetError: several targets.
        MethodError: the score is not a number with some layers off; they are named.

    Source:
        Shapley 1953; layers as players are this project's reading of Ghorbani & Zou 2020, arXiv:2002.09815.
    """
    model = model if isinstance(model, Model) else wrap(model)
    with watching(progress) as bar:
        trace = record(model.module, *inputs)
        chosen = choose_targets(target, model, trace)
        if len(chosen) != 1:
            raise TargetError(f"{len(chosen)} targets came; give one")
        values = _values(trace, list(layers))
        away = {value: _off(trace, name, value, off) for name, value in zip(layers, values, strict=True)}
        worth = _worth(trace, chosen[0], away, bar)
    found = [_solved(worth[:, image], list(layers)) for image in range(trace.batch)]
    words = tuple(chosen[0].name(image) for image in range(trace.batch))
    shares = torch.stack([torch.from_numpy(one.values) for one in found])
    tables = tuple(_table(layers, one) for one in found)
    return LayerShares(tuple(layers), words, off, shares, worth[-1], worth[0], tables)


def _values(trace: Trace, layers: list[str]) -> list[Value]:
    if not 2 <= len(layers) <= MOST_PLAYERS:
        raise LayerError(f"{len(layers)} layers came; give 2 to {MOST_PLAYERS} (`pellucid layers` lists them)")
    values = [trace.at(name) for name in layers]
    for place, value in enumerate(values):
        first = values.index(value)
        if first != place:
            raise LayerError(f'"{layers[first]}" and "{layers[place]}" give out the same value; keep one of them')
    return values


def _off(trace: Trace, name: str, value: Value, off: str) -> Tensor:
    if off not in ("zero", "mean"):
        raise SettingError(f'off="{off}" came; use "zero" or "mean"')
    if not value.differentiable:
        raise LayerError(f'layer "{name}" gives out {value.dtype}; choose one that gives floating numbers')
    if off == "zero":
        return torch.zeros_like(value.data)
    channel = layout(trace).get(value, UNKNOWN).channel
    if len(value.shape) < 3 or channel is None:
        raise LayerError(f'layer "{name}" gives {tuple(value.shape)}, which has no cells to average; use off="zero"')
    cells = [axis for axis in range(1, len(value.shape)) if axis != channel]
    return value.data.mean(cells, keepdim=True).expand_as(value.data)


def _worth(trace: Trace, target: Target, away: dict[Value, Tensor], bar: Progress) -> Float[Tensor, "m b"]:
    """The score of every image in each of the `2ⁿ` combinations, in the order of `coalitions`."""
    read, values, found = target.value(trace), list(away), []
    bar.expect(2 ** len(values))
    for keep in coalitions(len(values)):
        edits = {value: away[value] for value, on in zip(values, keep, strict=True) if not on}
        current = replayed(trace, edits=edits, stop=read.position + 1)
        data = current[read] if read in current else read.data  # noqa: SIM401
        found.append(target.read(data, list(range(trace.batch))).reshape(-1).cpu().double())
        bar.advance()
    return torch.stack(found)


def _solved(worth: Float[Tensor, " m"], layers: list[str]) -> Shares:
    place = 2 ** torch.arange(len(layers))
    game = Game(len(layers), lambda keep: worth[(keep.long() * place).sum(1)], absent="layers {} off", names=layers)
    return exact(game)


def _table(layers: Sequence[str], shares: Shares) -> Table:
    note = f"{shares.how}; score {shares.full:.4g}, with every layer off {shares.empty:.4g}"
    return table("layers", ("layer", "share (score)"), list(zip(layers, shares.values.tolist(), strict=True)), note)
