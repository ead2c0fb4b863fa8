"""Rank the methods by how far their maps agree with the truth."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from pellucid.core.errors import Cancelled, MethodError, ModelError, PellucidError, SettingError, check_known
from pellucid.core.progress import Progress, watching
from pellucid.evaluate.controls import CONTROLS, REFERENCE, perfect
from pellucid.evaluate.importances import Answered, batches, inputs, rightly_answered
from pellucid.evaluate.questions import Question, choose_question, classes_of
from pellucid.evaluate.ranking import Kind, Ranking, Row, interval
from pellucid.evaluate.truth import Agreement, agreement
from pellucid.images.decode import Picture
from pellucid.images.scenes import Scene, Shortcut, compose, render, stream
from pellucid.images.scenes.scene import check_whole
from pellucid.methods import METHODS
from pellucid.methods.doctor import doctor
from pellucid.methods.explain import BATCH, explain
from pellucid.methods.registry import Method, find
from pellucid.methods.run import LARGEST_SEED, MethodLike
from pellucid.models.model import Model
from pellucid.models.resolve import the_model
from pellucid.render.explanation import Explanation
from pellucid.render.panel import Panel

DATA = ("scenes",)
MOST_PICTURES = 100_000
CHUNK = 4 * BATCH  # scenes held at a time
COMPONENTS = ("share", "rank_correlation", "pointing")

Heat = np.ndarray
Maps = Callable[[Sequence[Answered]], list[Heat]]


@dataclass
class _Contestant:
    """A method or a control map, and what it has reached so far."""

    name: str
    kind: Kind
    maps: Maps
    found: list[Agreement] = field(default_factory=list)
    seconds: float = 0.0

    def judge(self, answered: Sequence[Answered]) -> None:
        """Score its maps of these pictures."""
        start = time.perf_counter()
        maps = self.maps(answered)
        self.seconds += time.perf_counter() - start
        self.found += [agreement(heat, one.known) for heat, one in zip(maps, answered, strict=True)]

    def row(self, seed: int) -> Row:
        """What it has reached, as means over the pictures."""
        counted = [one.counted for one in self.found]
        means = {key: float(np.mean([getattr(one, key) for one in counted])) for key in COMPONENTS}
        scores = np.array([one.score for one in counted])
        low, high = interval(scores, seed)
        undefined = sum(not one.defined for one in self.found)
        seconds = self.seconds / len(scores)
        return Row(self.name, self.kind, float(scores.mean()), low, high, **means, seconds=seconds, undefined=undefined)


def rank(
    model: Model | nn.Module | str = "builtin:scenes",
    *,
    data: str = "scenes",
    methods: MethodLike | Sequence[MethodLike] | None = None,
    n: int = 100,
    seed: int = 0,
    split: str = "test",
    px: int = 64,
    truth: str | None = None,
    target: str | None = None,
    shortcut: Shortcut | None = None,
    progress: Progress | bool | None = None,
) -> Ranking:
    """Methods sorted by the truth score of their maps on pictures whose truth is known.

    The score of a map is the mean of three numbers in [0, 1]: the share of positive heat on the decisive pixels,
    `(1 + ρ) / 2` for the rank correlation ρ of the parts' heat with their importances, and pointing; see
    `evaluate.truth`. Pictures that the network gets wrong are left out: their decisive pixels decided nothing.

    Args:
        model: knows the classes of the scenes.
        methods: names, or methods with settings; all that are possible on the network when none is given.
        n: pictures drawn, every class equally often.
        seed: of pictures, bootstrap and everything random in the methods; the same seed gives the same scores.
        split: another word gives other pictures; the networks that ship were trained on "train".
        px: side of the pictures.
        truth: "decisive" (why this class and not its sibling?) or "mark" (a planted mark says the class); None takes
            "mark" for a network that is known to follow one.
        target: "contrast" of the two classes or the "logit" of one; None takes contrast for decisive, logit for mark.
        shortcut: the mark that is planted; None takes what the card of a built-in network says.

    Raises:
        SettingError, MethodError: as their messages say.
        ModelError: the network does not know the classes of the scenes, or gets no picture right.
        Cancelled: on request.

    Example:
        >>> rank("builtin:photos")
        Traceback (most recent call last):
        pellucid.core.errors.ModelError: builtin:photos lacks "house", and only a network that knows the 10 classes ...
    """
    check_known("data to rank on", data, DATA)
    check_whole("n", n, MOST_PICTURES)
    check_whole("seed", seed, LARGEST_SEED - 1)
    if n == 0:
        raise SettingError("n=0 pictures came; give at least one")
    scenes = stream(n, seed=seed, px=px, split=split)
    model = the_model(model)
    classes, question = classes_of(model), choose_question(model, truth, target, shortcut)
    chosen, refused = _methods(model, methods, px)
    contest = [
        *(
            _Contestant(label, "method", _explained(model, one, question, classes, seed))
            for label, one in chosen.items()
        ),
        *(_Contestant(name, "control", _control(name, seed)) for name in CONTROLS),
        _Contestant(REFERENCE, "reference", lambda answered: [perfect(one.known.mask) for one in answered]),
    ]
    with watching(progress) as bar:
        bar.expect(n * (1 + len(contest)))
        hidden, wrong = _judge_all(model, question, classes, scenes, contest, refused, bar)
    used = n - hidden - wrong
    if not used:
        raise ModelError(
            f"{model.name} answered none of {n} pictures rightly, so there is nothing to rank; raise n, or train it "
            "first"
        )
    rows = (one.row(seed) for one in contest if one.name not in refused)
    order = tuple(sorted(rows, key=lambda row: (-row.score, row.name)))
    return Ranking(
        model.name, data, question.truth, question.words, n, used, wrong, hidden, seed, split, px, order, refused
    )


def _judge_all(
    model: Model,
    question: Question,
    classes: dict[str, int],
    scenes: Iterable[Scene],
    contest: Sequence[_Contestant],
    refused: dict[str, str],
    bar: Progress,
) -> tuple[int, int]:
    """Every contestant on every picture, a few pictures at a time; how many were hidden and how many wrong.

    A method that fails is taken out, with its reason in `refused`.
    """
    hidden = wrong = 0
    for chunk in batches(scenes, CHUNK):
        posed = [one for scene in chunk if (one := question.pose(scene)) is not None]
        answered = rightly_answered(model, question, classes, posed)
        bar.advance(len(chunk), "measuring what the parts are worth")
        hidden += len(chunk) - len(posed)
        wrong += len(posed) - len(answered)
        for one in contest:
            if answered and one.name not in refused:
                try:
                    one.judge(answered)
                except Cancelled:
                    raise
                except Exception as error:  # a method of the user's own may raise anything; the others go on
                    refused[one.name] = _reason(error)
            bar.advance(len(chunk), f"judging {one.name}")
    return hidden, wrong


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, PellucidError) else f"{type(error).__name__}: {error}"


def _methods(
    model: Model, asked: MethodLike | Sequence[MethodLike] | None, px: int
) -> tuple[dict[str, Method], dict[str, str]]:
    """The methods to rank, by the name they stand under, and those that are impossible here with the reason."""
    if asked is None:
        verdicts = doctor(model, inputs(model, [render(compose(0, px=px)).pixels])).verdicts
        possible = {name: METHODS[name] for name, one in verdicts.items() if one.fit != "impossible"}
        return possible, {name: one.why for name, one in verdicts.items() if one.fit == "impossible"}
    found = [find(one) for one in ([asked] if isinstance(asked, (str, Method)) else asked)]
    if not found:
        raise MethodError("no method came; `pellucid methods` lists them")
    return {_label(one): one for one in found}, {}


def _label(method: Method) -> str:
    given = ", ".join(f"{key}={value!r}" for key, value in method.given.items())
    return f"{method.name}({given})" if given else method.name


def _explained(model: Model, method: Method, question: Question, classes: dict[str, int], seed: int) -> Maps:
    """The maps that `explain` gives, on the pictures' own grid."""

    def maps(answered: Sequence[Answered]) -> list[Heat]:
        found: list[Heat] = []
        for few in batches(answered, BATCH):
            pictures = [Picture(one.posed.picture.pixels, "scene") for one in few]
            targets = question.targets([one.posed for one in few], classes)
            panel = explain(model, pictures, methods=[method], targets=targets, seed=seed, progress=False)
            found += [_on_picture(one) for one in (panel if isinstance(panel, Panel) else [panel])]
        return found

    return maps


def _on_picture(one: Explanation) -> Heat:
    """The heat on the picture; none where the network did not look. Values that are no numbers stay so."""
    if not np.isfinite(one.native).all():
        return np.full(one.heat.shape, np.nan)
    return np.nan_to_num(one.heat)


def _control(name: str, seed: int) -> Maps:
    return lambda answered: [
        CONTROLS[name](one.posed.picture.pixels, (seed, one.posed.picture.scene.seed)) for one in answered
    ]
