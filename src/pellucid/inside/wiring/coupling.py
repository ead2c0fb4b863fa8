"""How strongly each unit of one place depends on each unit of an earlier one, asked in four ways."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.baselines import baseline as named_baseline
from pellucid.core.errors import MethodError, SettingError, check_known
from pellucid.core.progress import Progress
from pellucid.core.pull import Walk
from pellucid.core.trace import Trace
from pellucid.images.datasets import Pictures
from pellucid.inside.opened import Opened
from pellucid.inside.wiring.places import Place, downstream, recordings
from pellucid.inside.wiring.switching import fills, without
from pellucid.inside.wiring.tally import Tally
from pellucid.methods.deeplift import multipliers, reference_of
from pellucid.models.model import Model
from pellucid.rules.composites import PRESETS, Composite, excitation, read_composite

How = Literal["ablation", "relevance", "deep_lift", "gradient"]
SAID: dict[str, str] = {
    "ablation": "fall of the later unit's mean when the earlier unit is off",
    "relevance": "relevance that reaches the earlier unit from the later unit's mean",
    "deep_lift": "share in the change of the later unit's mean from the reference",
    "gradient": "activation of the earlier unit times the gradient of the later unit's mean",
}
ZERO, EXCITATION = "zero", "excitation"
Ask = Callable[[Trace, Place, Place, Sequence[int], Sequence[int], Progress], Tensor]


@dataclass(frozen=True)
class Asking:
    """One way of asking, with its settings.

    Attributes:
        fill: of a unit that is off, for `ablation`: `"zero"`, or its `"mean"` over all pictures.
        composite: the relevance rules, for `relevance`: a preset, a file, or a Composite.
        baseline: the reference, for `deep_lift`: `"zero"` in the network's input space (the mean colour where inputs
            are normalised), a named baseline, or a tensor of inputs.
    """

    how: str = "ablation"
    fill: str = ZERO
    composite: Any = "epsilon_plus"
    baseline: Any = ZERO

    def __post_init__(self) -> None:
        check_known("way of asking", self.how, SAID)
        check_known("fill", self.fill, (ZERO, "mean"))

    def prepared(self, data: Pictures, first: Opened, source: str) -> Ask:
        """What answers `(recording, source, target, sources, targets, bar) -> (b, sources, targets)`."""
        if self.how == "ablation":
            return _ablation(fills(data, first, source, self.fill))
        if self.how == "deep_lift":
            return _deep_lift(first.model, self.baseline)
        return _relevance(composite_of(self.composite)) if self.how == "relevance" else _gradient


def coupled(
    asking: Asking,
    data: Pictures,
    first: Opened,
    source: str,
    target: str,
    bar: Progress,
    sources: Sequence[int] | None = None,
    targets: Sequence[int] | None = None,
) -> tuple[Tally, Tally]:
    """`C_ij` over the pictures, for some units or all, and the means of the later units."""
    a, b = downstream(first.trace, source, target)
    rows, columns = (list(range(p.units)) if chosen is None else list(chosen)
                     for p, chosen in ((a, sources), (b, targets)))  # fmt: skip
    ask, found, level = asking.prepared(data, first, source), Tally(), Tally()
    bar.expect(len(data) * len(rows if asking.how == "ablation" else columns))
    for _, now in recordings(data, first):
        a, b = downstream(now.trace, source, target)
        found.add(ask(now.trace, a, b, rows, columns, bar))
        level.add(b.means(b.value.data)[:, columns])
    if not np.isfinite(found.mean).all():
        raise MethodError(
            f'what goes from "{source}" to "{target}" is not finite: {first.model.name} makes NaN or infinite numbers '
            "of these pictures; look at its layers with pel.maps"
        )
    return found, level


def _ablation(away: Float[Tensor, "1 units *ones"]) -> Ask:
    """`C_ij = b_j − b_j(a_i := fill)`."""

    def ask(
        trace: Trace, a: Place, b: Place, sources: Sequence[int], targets: Sequence[int], bar: Progress
    ) -> Float[Tensor, "b sources targets"]:
        before, after = b.means(b.value.data), without(trace, a, sources, away, b, bar)
        return (before[:, None] - after)[:, :, list(targets)]

    return ask


def _gradient(
    trace: Trace, a: Place, b: Place, sources: Sequence[int], targets: Sequence[int], bar: Progress
) -> Float[Tensor, "b sources targets"]:
    """`C_ij = Σ_p a_i,p ∂b_j/∂a_i,p`."""
    return _columns(a, b, sources, targets, bar, lambda seed: Walk(trace, {b.value: seed}).at(a.value) * a.value.data)


def _relevance(composite: Composite) -> Ask:
    """`C_ij = Σ_p R_i,p`, the walk started with `R_j = b_j`."""

    def ask(
        trace: Trace, a: Place, b: Place, sources: Sequence[int], targets: Sequence[int], bar: Progress
    ) -> Float[Tensor, "b sources targets"]:
        def shared(seed: Tensor) -> Tensor:
            return Walk(trace, {b.value: seed * b.value.data}, composite.on(trace)).at(a.value)

        return _columns(a, b, sources, targets, bar, shared)

    return ask


def _deep_lift(model: Model, baseline: Any) -> Ask:
    """`C_ij = Σ_p m_Δa_i,p,Δb_j Δa_i,p`; `Σ_i C_ij = Δb_j` where everything goes through the source."""

    def ask(
        trace: Trace, a: Place, b: Place, sources: Sequence[int], targets: Sequence[int], bar: Progress
    ) -> Float[Tensor, "b sources targets"]:
        reference = reference_of(trace, reference_input(model, trace.inputs[0].data, baseline))
        change = reference.change(a.value)
        return _columns(
            a,
            b,
            sources,
            targets,
            bar,
            lambda seed: multipliers(trace, {b.value: seed}, reference).at(a.value) * change,
        )

    return ask


def _columns(
    a: Place,
    b: Place,
    sources: Sequence[int],
    targets: Sequence[int],
    bar: Progress,
    shared: Callable[[Tensor], Tensor],
) -> Float[Tensor, "b sources targets"]:
    """One walk for each later unit, started at its mean; what arrives at each earlier unit, summed over positions."""
    found = []
    for unit in targets:
        seed = torch.zeros_like(b.value.data)
        one = b.per_unit(seed)[:, unit]
        one.fill_(len(seed) / max(one.numel(), 1))
        arrived = a.per_unit(shared(seed))[:, list(sources)]
        found.append(arrived.flatten(2).sum(2) if arrived.dim() > 2 else arrived)
        bar.advance(len(seed), f"{a.name} to {b.name}")
    return torch.stack(found, 2) if found else a.value.data.new_zeros(len(a.value.data), len(sources), 0)


def reference_input(model: Model, x: Float[Tensor, "b ..."], baseline: Any) -> Float[Tensor, "b ..."]:
    """What inputs are compared with.

    Raises:
        SettingError: a named baseline, and the preprocessing is not known; or a tensor of another form.
    """
    if isinstance(baseline, Tensor):
        if baseline.shape[-x.dim() + 1 :] != x.shape[1:]:
            raise SettingError(f"a baseline of {tuple(baseline.shape)} came for inputs of {tuple(x.shape[1:])}")
        return baseline.to(x).expand_as(x)
    if baseline == ZERO:
        return torch.zeros_like(x)
    if model.preprocess is None:
        raise SettingError(
            f'baseline "{baseline}" is made of pixels, and how {model.name} prepares them is not known; give '
            'preprocess=…, "zero", or a tensor of inputs'
        )
    pixels = model.preprocess.denormalise(x)
    return model.preprocess.normalise(named_baseline(baseline, pixels)).to(x)


def composite_of(name: Any) -> Composite:
    """Relevance rules by the name of a preset, from a file, or as they are.

    Raises:
        SettingError: no such preset.
    """
    if isinstance(name, Composite):
        return name
    if isinstance(name, (str, Path)) and Path(name).suffix.lower() in (".json", ".yaml", ".yml"):
        return read_composite(name)
    known = {**PRESETS, EXCITATION: excitation}
    check_known("composite", name, known)
    return known[str(name)]()
