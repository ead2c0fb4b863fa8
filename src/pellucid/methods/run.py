"""Run methods on one recording: every method, target and layer, sharing the walks."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.core.errors import MethodError, SettingError
from pellucid.core.layers import last_spatial
from pellucid.core.progress import Progress, watching
from pellucid.core.receipt import Check, Receipt
from pellucid.core.record import record
from pellucid.core.tables import Table
from pellucid.core.target import Target, class_scores
from pellucid.core.trace import Trace, bytes_held
from pellucid.images.placement import Placement
from pellucid.images.transforms import Preprocess
from pellucid.methods.case import Case, Walks
from pellucid.methods.choose import choose_targets
from pellucid.methods.registry import Method, find
from pellucid.models.model import Model, wrap

MethodLike = str | Method
LARGEST_SEED = 2**40
Layers = str | Sequence[str] | None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one method gave for one target and layer on a batch.

    Attributes:
        attribution: `(b, c, ...)` at the input, `(b, ...)` on a layer's grid.
        scores: the target's number for each image.
        receipts: one per image.
        tables: what was found besides the map, for each image.
        extra_maps: further maps on the grid of the attribution, by what they show.
    """

    method: Method
    target: Target
    layer: str | None
    layer_chosen: bool
    attribution: Tensor
    scores: Tensor
    receipts: tuple[Receipt, ...]
    seconds: float
    tables: tuple[tuple[Table, ...], ...] = ()
    extra_maps: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        at = f" at {self.layer}" if self.layer else ""
        return f"Outcome({self.method.name}{at}, {self.target.name()}, {tuple(self.attribution.shape)})"


@dataclass(frozen=True)
class Plan:
    """Everything that is to be computed on one recording."""

    methods: Sequence[Method]
    targets: Sequence[Target]
    layers: Sequence[tuple[str, bool]]
    preprocess: Preprocess | None = None
    seed: int = 0
    progress: Progress = field(default_factory=Progress)
    placements: Sequence[Placement] | None = None

    @classmethod
    def on(
        cls,
        trace: Trace,
        model: Model,
        methods: Sequence[Method],
        targets: Any,
        layers: Layers,
        seed: int,
        bar: Progress,
        placements: Sequence[Placement] | None = None,
    ) -> "Plan":
        """What a user asked for, read against the recording it will run on."""
        trace.memo["bytes held"] = bytes_held(trace)  # before anything computes a value again and keeps it
        check_seed(seed)
        chosen = choose_targets(targets, model, trace)
        return cls(methods, chosen, choose_layers(layers, methods, trace), model.preprocess, seed, bar, placements)


def attribute(
    model: Model | nn.Module,
    *inputs: Tensor,
    methods: MethodLike | Sequence[MethodLike] = "grad_cam",
    targets: Any = "top1",
    layers: Layers = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> list[Outcome]:
    """Raw attributions of any tensor input: 1-D signals, 2-D images, 3-D volumes, several inputs.

    Args:
        inputs: what the network takes, already normalised; the map is for the first.
        methods, targets, layers: one or several; every combination is computed from one recording.

    Returns:
        One outcome per target, method and layer, in that order.

    Raises:
        TraceError, TargetError, LayerError, MethodError, SettingError: as their messages say.
    """
    model = model if isinstance(model, Model) else wrap(model)
    with watching(progress) as bar:
        trace = record(model.module, *inputs)
        chosen = [find(m) for m in ([methods] if isinstance(methods, (str, Method)) else methods)]
        plan = Plan.on(trace, model, chosen, targets, layers, seed, bar)
        return run(trace, plan)


def choose_layers(asked: Layers, methods: Sequence[Method], trace: Trace) -> list[tuple[str, bool]]:
    """Layer paths, each with whether it was chosen for the user; checked to exist and to have maps."""
    if not any(m.layered for m in methods):
        return []
    if asked is None or asked in ("auto", ["auto"]):
        return [(last_spatial(trace)[0], True)]
    names = [asked] if isinstance(asked, str) else list(asked)
    for name in names:
        trace.at(name)
    return [(name, False) for name in names]


def run(trace: Trace, plan: Plan) -> list[Outcome]:
    """Every method of the plan; walks are shared per target, and kept layers are known before the first one."""
    keep = {trace.at(name) for name, _ in plan.layers}
    found = []
    for target in plan.targets:
        walks = Walks(trace, target, keep)
        for method in plan.methods:
            for layer, chosen in plan.layers if method.layered else [(None, False)]:
                case = Case(trace, target, walks, plan.preprocess, layer, plan.seed, plan.progress, plan.placements)
                found.append(_outcome(method, case, chosen))
    return found


def _outcome(method: Method, case: Case, chosen: bool) -> Outcome:
    start = time.perf_counter()
    with torch.no_grad():
        attribution = method.run(case)
    seconds = time.perf_counter() - start
    if attribution.shape[0] != case.trace.batch:
        raise MethodError(
            f"{method.name} gave {tuple(attribution.shape)} for {case.trace.batch} images; expected one map per image"
        )
    receipts = tuple(_receipt(case, attribution[i], i) for i in range(case.trace.batch))
    tables = tuple(tuple(found) for found in case.tables)
    return Outcome(
        method, case.target, case.layer, chosen, attribution, case.score(), receipts, seconds, tables, case.extra_maps
    )


def _receipt(case: Case, heat: Tensor, image: int) -> Receipt:
    trace = case.trace
    functions = sorted({n.function for n in trace.nodes if n.function})
    approximate = [
        *case.approximate,
        *trace.strangers,
        *(
            f"custom function {name}: its recorded operations are differentiated, not its own backward"
            for name in functions
        ),
    ]
    notes = [*case.notes, *trace.notes]
    if case.target.layer is None and not case.target.whole and class_scores(trace) is not trace.output:
        notes.append("the network ends in a softmax; the score before it is explained")
    walks = (case.walks.found[name] for name in sorted(case.used))
    met = {f"{rule}: {name}": count for walk in walks for (rule, name), count in walk.met.items()}
    return Receipt(
        (*case.checks[image], _finite(heat)), tuple(dict.fromkeys(approximate)), tuple(dict.fromkeys(notes)), met
    )


def _finite(heat: Tensor) -> Check:
    bad = float((~torch.isfinite(heat)).double().mean())
    if bad:
        return Check(
            "values that are not numbers", bad, 0.0, "fail", "part of the map overflowed or is undefined; don't use it"
        )
    if not heat.any():
        return Check(
            "share of zero values",
            1.0,
            1.0,
            "warn",
            "the map is zero everywhere: nothing reached this place under these rules",
        )
    return Check("values that are not numbers", 0.0, None, "told", "every value of the map is a number")


def check_seed(seed: int) -> None:
    """
    Raises:
        SettingError: a seed that random numbers can't start from.
    """
    if not 0 <= seed < LARGEST_SEED:
        raise SettingError(f"seed={seed} came; use a whole number from 0 to {LARGEST_SEED - 1}")
