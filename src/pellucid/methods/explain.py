"""From a picture and a network to explanations: the call that most people need."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.core.errors import ImageError, MethodError, SettingError, TraceError
from pellucid.core.progress import Progress, watching
from pellucid.core.record import record
from pellucid.core.trace import Trace
from pellucid.images.decode import Picture
from pellucid.images.placement import Placement
from pellucid.methods.choose import for_images, top_scores
from pellucid.methods.pictures import ImageLike, Shown, home_of, prepared, seen
from pellucid.methods.registry import Method, find
from pellucid.methods.run import Layers, MethodLike, Outcome, Plan, run
from pellucid.models.model import Model, check_input
from pellucid.models.resolve import the_model
from pellucid.render.explanation import Explanation, Prediction
from pellucid.render.panel import Panel

BATCH = 4
LIBRARIES = ("pellucid", "torch", "numpy", "Pillow")


def explain(
    model: Model | nn.Module | str,
    images: ImageLike | Tensor | Sequence[ImageLike],
    *,
    methods: MethodLike | Sequence[MethodLike] | None = None,
    targets: Any = "top1",
    layers: Layers = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
    **settings: Any,
) -> Explanation | Panel:
    """Which pixels a decision came from.

    Args:
        model: a `Model`, any `nn.Module` in eval mode, or a name such as `"torchvision:resnet50"`.
        images: a path, bytes, PIL image, array, `Picture`, a list of them, or a tensor `(b, c, h, w)` of
            normalised inputs (shown as they are where the preprocessing is not known).
        methods: names or methods with settings; Grad-CAM when none is given.
        targets: what to explain: `"top1"`, `"top3"`, a class number or label, `"A vs B"`, a `Target`, a list of these,
            or one class per image.
        layers: for methods that look at a layer; the last one with maps when none is given (named in the result).
        seed: for everything random; the same seed gives the same result on the same machine.
        progress: False for none; by default work over two seconds shows progress.
        settings: settings of the method, if it is one.

    Returns:
        An `Explanation` for one image, method, target and layer; otherwise a `Panel` of them.

    Raises:
        PellucidError: every user mistake, with a remedy.

    Example:
        >>> import pellucid as pel, numpy as np
        >>> one = pel.explain("builtin:photos", np.zeros((40, 60, 3), np.uint8))
        >>> one.method, one.heat.shape
        ('grad_cam', (40, 60))
    """
    model = the_model(model)
    chosen = _methods(methods, settings)
    single = not isinstance(images, (Tensor, list, tuple))
    shown = _from_tensor(model, images) if isinstance(images, Tensor) else [prepared(model, i) for i in _listed(images)]
    if not shown:
        raise ImageError("no image came; give at least one")
    found: list[list[Explanation]] = []
    with watching(progress) as bar:
        for batch in _batches(shown):
            first = len(found)
            asked = for_images(targets, range(first, first + len(batch)), len(shown))
            found.extend(_explain_batch(model, batch, chosen, asked, layers, seed, bar))
    flat = [e for image in found for e in image]
    return flat[0] if single and len(flat) == 1 else Panel(flat)


def _methods(asked: MethodLike | Sequence[MethodLike] | None, settings: dict[str, Any]) -> list[Method]:
    names = ["grad_cam"] if asked is None else [asked] if isinstance(asked, (str, Method)) else list(asked)
    if not names:
        raise MethodError("no method came; `pellucid methods` lists them")
    found = [find(name) for name in names]
    if settings and len(found) > 1:
        raise SettingError(
            f"settings {sorted(settings)} came for {len(found)} methods; give them to one, as in saliency(…)"
        )
    return [m(**settings) for m in found] if settings else found


def _listed(images: Any) -> Iterable[Any]:
    return images if isinstance(images, (list, tuple)) else [images]


def _from_tensor(model: Model, x: Tensor) -> list[Shown]:
    if x.dim() != 4 or not x.is_floating_point():
        raise ImageError(
            f"a tensor of shape {tuple(x.shape)} and {x.dtype} came; explain takes floating (b, c, h, w) inputs, "
            "pel.attribute takes any shape"
        )
    notes = (
        model.notes
        if model.preprocess is not None
        else (*model.notes, "the picture shows the input rescaled to its own range")
    )
    return [
        Shown(Picture(seen(one, model.preprocess), f"input {i}"), Placement.identity(*x.shape[2:]), one.detach(), notes)
        for i, one in enumerate(x)
    ]


def _batches(shown: Sequence[Shown]) -> Iterable[list[Shown]]:
    """Neighbours of one input size together, a few at a time."""
    batch: list[Shown] = []
    for one in shown:
        if batch and (len(batch) == BATCH or one.x.shape != batch[0].x.shape):
            yield batch
            batch = []
        batch.append(one)
    yield batch


def _explain_batch(
    model: Model, batch: list[Shown], methods: list[Method], targets: Any, layers: Layers, seed: int, bar: Progress
) -> list[list[Explanation]]:
    x = torch.stack([one.x for one in batch]).to(home_of(model.module))
    try:
        trace = record(model.module, x)
    except TraceError:
        check_input(model, x)  # a wrong number of channels is told in plainer words
        raise
    plan = Plan.on(trace, model, methods, targets, layers, seed, bar, [one.placement for one in batch])
    return explanations(model, batch, trace, plan)


def explanations(model: Model, batch: Sequence[Shown], trace: Trace, plan: Plan) -> list[list[Explanation]]:
    """What a plan gives on a recording, for each of its images."""
    outcomes = run(trace, plan)
    return [[_explanation(model, one, i, trace, outcome) for outcome in outcomes] for i, one in enumerate(batch)]


def _explanation(model: Model, one: Shown, image: int, trace: Trace, outcome: Outcome) -> Explanation:
    method, receipt = outcome.method, outcome.receipts[image]
    heat = outcome.attribution[image].detach().float().cpu().contiguous()
    return Explanation(
        attribution=heat.clone(),
        method=method.name,
        title=method.title,
        target=outcome.target.name(image, lambda c: _class_name(model, c)),
        score=float(outcome.scores[image]),
        site="input" if method.site == "input" else "layer",
        layer=outcome.layer if method.layered else None,
        layer_chosen=outcome.layer_chosen,
        signed=method.signed,
        reduce="none" if heat.dim() == 2 else method.reduce,
        settings=_plain(method.values),
        units=method.units,
        receipt=replace(receipt, notes=tuple(dict.fromkeys((*receipt.notes, *one.notes)))),
        seconds=outcome.seconds,
        picture=one.picture,
        placement=one.placement,
        predictions=_predictions(model, trace, image),
        model=model.name,
        versions=_versions(),
        misleads=method.misleads,
        source=method.source,
        tables=outcome.tables[image],
        extra_maps={name: m[image].detach().float().cpu().contiguous() for name, m in outcome.extra_maps.items()},
    )


def _class_name(model: Model, index: int) -> str:
    known = model.labels is not None and index < len(model.labels)
    return f"{index} {model.label(index)}" if known else str(index)


def _predictions(model: Model, trace: Trace, image: int) -> tuple[Prediction, ...]:
    scores = top_scores(trace)[image]
    if class_scores_are_dense(trace):
        return ()
    shares = torch.sigmoid(scores) if len(scores) == 1 else torch.softmax(scores, 0)
    best = shares.topk(min(5, len(shares)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return tuple(Prediction(_label(model, i), i, p) for i, p in pairs)


def class_scores_are_dense(trace: Trace) -> bool:
    """Whether the network gives a score per position, so that there is no one prediction."""
    return trace.output.data.dim() > 2


def _label(model: Model, index: int) -> str:
    known = model.labels is None or index < len(model.labels)
    return model.label(index) if known else f"class {index}"


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON values; a tensor is named by its shape, other objects by their words."""

    def plain(value: Any) -> Any:
        if isinstance(value, (Tensor, np.ndarray)):
            return f"{type(value).__name__} {tuple(value.shape)}".lower()
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)

    return {name: plain(value) for name, value in values.items()}


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def open(path: str | Path) -> Explanation:
    """An explanation that was saved as `.pel`; see `Explanation.open`."""
    return Explanation.open(path)
