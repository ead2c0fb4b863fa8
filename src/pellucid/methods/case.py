"""One case: the recording of a batch of images and one target, as a method sees it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pellucid.core import baselines
from pellucid.core.ahead import Answers, PlanName, Precision, answers
from pellucid.core.chunks import out_of_memory
from pellucid.core.edits import Edits
from pellucid.core.errors import MethodError, SettingError
from pellucid.core.layers import last_spatial
from pellucid.core.layout import UNKNOWN, layout
from pellucid.core.progress import Progress
from pellucid.core.pull import EXACT, Rules, Walk
from pellucid.core.receipt import Check
from pellucid.core.record import record
from pellucid.core.runners import Readout, further_arguments
from pellucid.core.tables import Table
from pellucid.core.target import Target
from pellucid.core.trace import Trace, Value, bytes_held
from pellucid.images.placement import Placement
from pellucid.images.transforms import Preprocess
from pellucid.methods.passes import agree, eligible, module_gradients, tried_gradients

PASS_BYTES = 300 * 2**20
LARGEST_PASS = 8


@dataclass(eq=False)
class Walks:
    """The walks of one target that several methods share: one per rule table."""

    trace: Trace
    target: Target
    keep: set[Value] = field(default_factory=set)
    found: dict[str, Walk] = field(default_factory=dict)
    autograd_agrees: bool | None = None

    def under(self, rules: Rules) -> Walk:
        if rules.name not in self.found:
            self.found[rules.name] = Walk(self.trace, self.target.seeds(self.trace), rules, self.keep)
        return self.found[rules.name]


@dataclass(eq=False)
class Case:
    """What a method works with.

    Attributes:
        trace: the recording of the images `x`.
        target: the number to explain.
        walks: walks shared with the other methods of the panel.
        preprocess: how pixels become inputs; None where that isn't known.
        layer: the chosen layer's path (layer methods), and its value.
        seed: for everything random.
        placements: where each input lies on its picture; None for plain tensors.
        checks, approximate, notes: what the method adds to the receipt, one list per image for checks.
        tables: what the method found besides its map, one list per image.
        extra_maps: further maps `(b, ...)` on the grid of the main one, by what they show.
        used: names of the rule tables that it walked under.
    """

    trace: Trace
    target: Target
    walks: Walks
    preprocess: Preprocess | None = None
    layer: str | None = None
    seed: int = 0
    progress: Progress = field(default_factory=Progress)
    placements: Sequence[Placement] | None = None
    checks: list[list[Check]] = field(default_factory=list)
    tables: list[list[Table]] = field(default_factory=list)
    extra_maps: dict[str, Tensor] = field(default_factory=dict)
    approximate: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.checks = self.checks or [[] for _ in range(self.trace.batch)]
        self.tables = self.tables or [[] for _ in range(self.trace.batch)]

    @property
    def x(self) -> Tensor:
        """The network's input, `(b, c, ...)`."""
        return self.trace.inputs[0].data

    @property
    def site(self) -> Value:
        """The value of the chosen layer."""
        return last_spatial(self.trace)[1] if self.layer is None else self.trace.at(self.layer)

    def pull(self, rules: Rules = EXACT) -> Tensor:
        """What arrives at the input under a rule table, `(b, c, ...)`; one walk per table and target."""
        return self.walk(rules).input()

    def walk(self, rules: Rules = EXACT) -> Walk:
        """The walk under a rule table that the methods of a panel share."""
        self.used.add(rules.name)
        return self.walks.under(rules)

    def activation(self) -> Tensor:
        """`A`, the chosen layer's output, `(b, k, ...)`."""
        return self.maps(self.site.data)

    def gradient(self, *, negated: bool = False) -> Tensor:
        """`G = ∂ score / ∂ A` (or `−G`), `(b, k, ...)`; the walk goes back only as far as the layer."""
        found = self.maps(self.walk().at(self.site))
        return -found if negated else found

    def maps(self, tensor: Tensor, place: Value | None = None) -> Tensor:
        """A tensor of the shape of the chosen layer (or of another value) with its channels on axis 1."""
        if tensor.dim() != self.x.dim() or tensor.dim() < 3:
            raise MethodError(
                f'layer "{self.layer}" gives {tuple(tensor.shape)}, which has no maps; choose a layer with maps '
                "(`pellucid layers` lists them)"
            )
        channel = layout(self.trace).get(self.site if place is None else place, UNKNOWN).channel
        return tensor if channel is None else tensor.movedim(channel, 1)

    def score(self) -> Tensor:
        """The target's number for each image, `(b,)`."""
        return self.target.score(self.trace)

    def noise(self, shape: Sequence[int], stream: int = 0) -> Tensor:
        """Standard normal noise, the same for the same seed whatever the batch."""
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + stream)
        return torch.randn(*shape, generator=random).to(self.x)

    def baseline(self, name: Any, stream: int = 0) -> Tensor:
        """A baseline in the network's input space, from its name in pixel space, or a tensor of inputs."""
        if isinstance(name, Tensor):
            return self._as_input(name)
        if name == "zero":
            return torch.zeros_like(self.x)
        if self.preprocess is None:
            raise SettingError(
                f'baseline "{name}" lives in pixel space, and the preprocessing is not known; give preprocess=, '
                'baseline="zero" (zeros in input space) or a tensor'
            )
        pixels = self.preprocess.denormalise(self.x)  # one by one: noise must not depend on the batch
        found = torch.cat([baselines.baseline(str(name), one[None], seed=self.seed + stream) for one in pixels])
        return self.preprocess.normalise(found).to(self.x)

    def _as_input(self, tensor: Tensor) -> Tensor:
        try:
            return tensor.to(self.x).expand_as(self.x)
        except RuntimeError as error:
            raise SettingError(
                f"a baseline of shape {tuple(tensor.shape)} came; the network's input is {tuple(self.x.shape)}"
            ) from error

    def pass_size(self) -> int:
        """How many images fit one pass within the memory that a method may take."""
        if "bytes held" not in self.trace.memo:
            self.trace.memo["bytes held"] = bytes_held(self.trace)
        each = max(self.trace.memo["bytes held"] // self.trace.batch, 1)
        return int(max(1, min(LARGEST_PASS, PASS_BYTES // (2 * each))))

    def many(
        self,
        samples: Iterable[tuple[Tensor, int]],
        total: int,
        take: Callable[[Tensor, Tensor, list[int]], None],
        rules: Rules = EXACT,
    ) -> None:
        """Pull many variants of the images, a few at a time.

        Args:
            samples: input `(c, ...)` and the number of the image that it is a variant of.
            total: how many.
            take: called with gradients `(n, c, ...)`, scores `(n,)` and image numbers, pass by pass.
        """
        self.progress.expect(total)
        waiting: list[tuple[Tensor, int]] = []
        size = self.pass_size()
        for sample in samples:
            waiting.append(sample)
            if len(waiting) == size:
                size = self._one_pass(waiting, take, rules, size)
                waiting = []
        if waiting:
            self._one_pass(waiting, take, rules, size)

    def _one_pass(self, batch: list[tuple[Tensor, int]], take: Any, rules: Rules, size: int) -> int:
        """One recording and walk, in smaller parts when memory runs out; how many images fitted."""
        rows = [row for _, row in batch]
        found = self._if_it_fits(torch.stack([x for x, _ in batch]), rows, rules)
        if found is not None:
            take(*found, rows)
            self.progress.advance(len(batch))
            return size
        size = len(batch) // 2
        self.notes.append(f"memory ran out at {len(batch)} images a pass; went on with {size}")
        while batch:
            part, batch = batch[:size], batch[size:]
            size = self._one_pass(part, take, rules, size)
        return size

    def _if_it_fits(self, x: Tensor, rows: list[int], rules: Rules) -> tuple[Tensor, Tensor] | None:
        """Gradients and scores; None where memory ran out on more than one image (freed by then)."""
        try:
            return self.gradients(x, rows, rules)
        except (MemoryError, RuntimeError) as error:
            if len(rows) == 1 or not out_of_memory(error):
                raise
        return None

    def gradients(self, x: Tensor, rows: list[int], rules: Rules = EXACT) -> tuple[Tensor, Tensor]:
        """`∂ score / ∂ x` (or what arrives under other rules) and the scores for new inputs."""
        if rules is EXACT and self._autograd_agrees(x[:1], rows[:1]):
            found = module_gradients(self.trace, self.target, x, further_arguments(self.trace, rows), rows)
            if found is not None:
                return found
        return self._recorded_gradients(x, rows, rules)

    def _autograd_agrees(self, x: Tensor, rows: list[int]) -> bool:
        """Tried on one image, once for every recording and target."""
        if self.walks.autograd_agrees is None:
            agrees = False
            if eligible(self.trace, self.target):
                theirs = tried_gradients(self.trace, self.target, x, further_arguments(self.trace, rows), rows)
                agrees = theirs is not None and agree(self._recorded_gradients(x, rows, EXACT)[0], theirs[0])
            self.walks.autograd_agrees = agrees
        return self.walks.autograd_agrees

    def _recorded_gradients(self, x: Tensor, rows: list[int], rules: Rules) -> tuple[Tensor, Tensor]:
        trace = self._record(x, rows)
        scores = self.target.score(trace, rows)
        return Walk(trace, self.target.seeds(trace, rows), rules, free=True).input(), scores

    def answers(
        self,
        edits: Edits,
        *,
        readout: Readout | None = None,
        place: Value | None = None,
        plan: PlanName = "auto",
        precision: Precision = "full",
    ) -> Tensor:
        """What the network says to edits: the target's number, `(n,)`, or another readout's `(n, ...)`.

        Args:
            edits: of the images, or of the value `place`.
            plan: how it is computed; the answers are the same.
        """
        self.progress.expect(len(edits.rows))
        found = answers(
            self.trace,
            edits,
            readout or self.target,
            place=place,
            plan=plan,
            precision=precision,
            progress=self.progress,
        )
        self.notes += [note for note in found.notes if note not in self.notes]
        if precision == "bf16":
            self.approximate.append("edits were rerun with convolutions in bfloat16")
        self._check_rerun(found, set(edits.rows))
        return found.values

    def _check_rerun(self, found: Answers, images: set[int]) -> None:
        """Put how far a rerun was from the network into the receipts."""
        if found.difference is None:
            return
        verdict = "pass" if found.difference <= found.bound else "fail"
        text = f"one edit by the {found.plan} rerun against the network itself, over its largest value"
        check = Check("rerun against the network", found.difference, found.bound, verdict, text)
        for image in images:
            earlier = [c for c in self.checks[image] if c.name == check.name]
            if not earlier or earlier[0].value < check.value:
                self.checks[image] = [c for c in self.checks[image] if c.name != check.name] + [check]

    def scores(self, x: Tensor, rows: list[int]) -> Tensor:
        """The target's number for new inputs, `(n,)`; `rows` says which image each is a variant of."""
        return self.target.score(self._record(x, rows), rows)

    def _record(self, x: Tensor, rows: list[int]) -> Trace:
        args, kwargs = further_arguments(self.trace, rows)
        return record(self.trace.module, x, *args, **kwargs)
