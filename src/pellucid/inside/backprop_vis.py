"""BackpropVis: where a class is seen, in which detail, and by which weights and biases, on one sheet (A13)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from PIL import Image
from torch import nn

from pellucid.core.errors import ImageError, TargetError
from pellucid.core.progress import Progress, watching
from pellucid.core.receipt import Check, Receipt
from pellucid.core.tables import Table, table
from pellucid.core.target import Target
from pellucid.core.trace import Trace
from pellucid.images.placement import Placement
from pellucid.inside import backprop_vis_sheet
from pellucid.inside.carriers import Carrier, carriers
from pellucid.inside.opened import Opened, pictured
from pellucid.inside.showing import Shows
from pellucid.methods.explain import explanations
from pellucid.methods.fullgrad import CLOSED, INPUT, layer_shares
from pellucid.methods.pictures import Shown
from pellucid.methods.registry import METHODS, Method
from pellucid.methods.run import Plan
from pellucid.models.model import Model
from pellucid.render import paint
from pellucid.render.explanation import Explanation

GATED = "gated_backprop"


@dataclass(frozen=True, eq=False)
class BackpropVis(Shows):
    """One score of one picture, taken apart.

    Attributes:
        model, target, score: what was explained.
        layer: where the class activation map was read.
        maps: by method: the CAM, the backprop map, their product, VisualBackProp (where there is one) and FullGrad.
        shares: of the score: the input's, and each layer's biases'; they sum to the score.
        carriers: the layer's channels through which most of the score goes, and the filters that make them.
        receipt: completeness of the shares, and what was approximate in any map.
    """

    model: str
    target: str
    score: float
    layer: str
    maps: Mapping[str, Explanation]
    shares: Mapping[str, float]
    carriers: tuple[Carrier, ...]
    receipt: Receipt
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.model}: {self.target}, score {self.score:.4g}"

    def image(self) -> Image.Image:
        return backprop_vis_sheet.drawn(self.title, self.layer, self.maps, self.shares, self.carriers)

    def sentence(self) -> str:
        biases = {name: share for name, share in self.shares.items() if name != INPUT}
        largest = max(biases, key=lambda name: abs(biases[name]), default=None)
        told = [f"{self.target}: of the score {paint.number(self.score)} the picture itself gives "]
        told[0] += f"{paint.number(self.shares[INPUT])}, biases give {paint.number(sum(biases.values()))}"
        if largest is not None:
            told.append(f"most of it in {largest or 'the network itself'} ({paint.number(biases[largest])})")
        channels = ", ".join(f"{c.channel} ({paint.number(c.carries)})" for c in self.carriers[:3])
        told.append(
            f"at {self.layer} {f'most goes through channels {channels}' if channels else 'nothing goes through'}"
        )
        return "; ".join((*told, *self.receipt.approximate, *self.notes)) + "."

    @property
    def tables(self) -> tuple[Table, ...]:
        return _shares_table(self.shares, self.score), _channels_table(self.carriers), _paths_table(self.carriers)

    def facts(self) -> dict[str, Any]:
        known = {"model": self.model, "target": self.target, "score": self.score, "layer": self.layer}
        return {**known, "receipt": self.receipt.to_json(), "notes": list(self.notes), **super().facts()}

    def __repr__(self) -> str:
        return f"BackpropVis({self.model}, {self.target}, {' × '.join(list(self.maps)[:2])} at {self.layer})"


def backprop_vis(
    model: Model | nn.Module | str,
    image: Any,
    *,
    target: Any = "top1",
    cam: str = "grad_cam",
    backprop: str = "guided_backprop",
    layer: str | None = None,
    channels: int = 6,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> BackpropVis:
    """A class activation map as a gate in front of a backprop map, and the weights and biases that carry it.

    Beside the maps: VisualBackProp, which knows no class, as the baseline; FullGrad's shares of the input and of each
    layer's biases, `S = Σ x·∂S/∂x + Σ_layers Σ b·∂S/∂b`; and the channels of the CAM's layer through which most of the
    score goes, `Σ_positions A·∂S/∂A`, with their filters, biases and BatchNorm's `β − μγ/σ`.

    Args:
        image: whatever `explain` takes for one picture.
        target: one score; see docs/targets.md.
        cam, backprop: names that the method `gated_backprop` takes.
        layer: where the CAM is read; the last one with maps where None.
        channels: how many channels are shown.

    Raises:
        ImageError: no picture, or several.
        TargetError: no such target, or several.
        SettingError: an unknown CAM or backprop map.
        LayerError, MethodError: the CAM can't be read there.

    Source: the reading of the name in the brief: a CAM times a backprop map (Selvaraju et al. 2017, arXiv:1610.02391),
    weights and biases beside it (Srinivas & Fleuret 2019, arXiv:1905.00780), against VisualBackProp (Bojarski et al.
    2016, arXiv:1611.05418).
    """
    gated = METHODS[GATED](cam=cam, backprop=backprop)
    with watching(progress) as bar:
        one = pictured(model, image)
        picture = _shown(one)
        methods, notes = _methods(gated, one.trace)
        plan = Plan.on(one.trace, one.model, methods, target, layer, seed, bar, [picture.placement])
        if len(plan.targets) == 1 and not torch.isfinite(plan.targets[0].score(one.trace)).all():
            raise TargetError("the score is not finite on this input, so nothing carries it; look for NaN in the input")
        if len(plan.targets) != 1:
            raise TargetError(f"{len(plan.targets)} targets came; backprop_vis takes one score apart, such as top1")
        ((*found,),) = explanations(one.model, [picture], one.trace, plan)
        shares, receipt = _shares(one.trace, plan.targets[0], found)
        place = plan.layers[0][0]
        carrying = carriers(one.trace, plan.targets[0], one.trace.at(place), bar, channels)
    maps = {explanation.method: explanation for explanation in found}
    score = found[0].score
    return BackpropVis(one.model.name, found[0].target, score, place, maps, shares, carrying, receipt, notes)


def _shown(one: Opened) -> Shown:
    if one.picture is None or one.trace.batch != 1:
        raise ImageError(
            f"an input of shape {tuple(one.trace.inputs[0].shape)} came; backprop_vis draws one picture; for signals, "
            f"volumes and batches take pel.attribute(…, methods={GATED!r})"
        )
    return Shown(one.picture, cast(Placement, one.placement), one.trace.inputs[0].data[0], one.notes)


def _methods(gated: Method, trace: Trace) -> tuple[list[Method], tuple[str, ...]]:
    """The CAM, the backprop map, their product, the baseline where there is one, and FullGrad."""
    named = [METHODS[str(gated.values[part])] for part in ("cam", "backprop")]
    baseline = METHODS["visual_backprop"]
    verdict = baseline.doctor(trace)
    if verdict.fit == "impossible":
        return [*named, gated, METHODS["fullgrad"]], (verdict.why,)
    return [*named, gated, baseline, METHODS["fullgrad"]], ()


def _shares(trace: Trace, target: Target, found: list[Explanation]) -> tuple[dict[str, float], Receipt]:
    """The shares of the score, and a receipt of their sum with what was approximate in any of the maps."""
    shares = {name: float(share[0]) for name, share in layer_shares(trace, target).items()}
    score = float(target.score(trace)[0])
    residual = abs(sum(shares.values()) - score) / max(abs(score), 1e-12)
    text = f"input and bias shares sum to {sum(shares.values()):.5g}, the score is {score:.5g}"
    sums = Check("completeness residual", residual, CLOSED, "pass" if residual <= CLOSED else "warn", text)
    theirs = [replace(c, name=f"{e.method}: {c.name}") for e in found for c in e.receipt.checks]
    approximate = [f"{e.method}: {words}" for e in found if e.method != GATED for words in e.receipt.approximate]
    notes = [words for e in found for words in e.receipt.notes]
    return shares, Receipt((sums, *theirs), tuple(approximate), tuple(dict.fromkeys(notes)))


def _shares_table(shares: Mapping[str, float], score: float) -> Table:
    rows = [(name or "the network itself", share, share / score if score else None) for name, share in shares.items()]
    note = "FullGrad: the input's share and what the biases of each layer add; they sum to the score"
    return table("shares", ("from", "share", "of the score"), rows, note)


def _channels_table(found: tuple[Carrier, ...]) -> Table:
    rows = [
        (c.channel, c.carries, c.weight, f.kernel.name, f.number, f.length, f.bias, f.scale, f.shift)
        for c in found
        for f in c.filters
    ]
    rows += [(c.channel, c.carries, c.weight, *[None] * 6) for c in found if not c.filters]
    columns = ("channel", "carries", "CAM weight", "made by", "filter", "length", "bias", "γ/σ", "β − μγ/σ")
    return table(
        "channels", columns, rows, "carries: the sum over the channel's map of A · ∂S/∂A, in units of the score"
    )


def _paths_table(found: tuple[Carrier, ...]) -> Table:
    rows = [(c.channel, f.kernel.name, source, value) for c in found for f in c.filters for source, value in f.fed()]
    note = "the channels of the layer before that reach these filters most, by the sum of weight times activation"
    return table("paths", ("channel", "made by", "from channel", "w · a"), rows, note)
