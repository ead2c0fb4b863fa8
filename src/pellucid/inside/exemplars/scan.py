"""One pass over a data set: many units at once, interrupted and gone on with, the network never waiting for files."""

import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.chunks import fitting, out_of_memory
from pellucid.core.errors import Cancelled, FileError, LayerError
from pellucid.core.progress import Progress
from pellucid.core.watch import Watch
from pellucid.images.datasets import Pictures
from pellucid.inside.exemplars.tally import Tally, Wanted
from pellucid.inside.opened import Opened, untaken
from pellucid.methods.pictures import home_of
from pellucid.store.files import read_tensors, write_tensors
from pellucid.training.checkpoint import checksum

FORMAT = "pellucid exemplars 1"
MOST = 64  # pictures in a pass
CACHED_BYTES = 10 * 2**20  # of the largest value of a pass: beyond that a processor waits for its memory
SAVE_SECONDS = 30.0
VALUES = 2**20  # of each unit, that go into its distribution; more are thinned out


@dataclass(eq=False)
class Scan:
    """A pass over a data set: how far it has come, and what it holds.

    Attributes:
        channels: for each layer the units that are watched.
        following: the picture with which it goes on.
        read: how many pictures were counted.
        sizes: inputs of another size than the recorded one: number -> its spatial size.
    """

    inside: Opened
    data: Pictures
    channels: dict[str, list[int]]
    wanted: Wanted
    following: int = 0
    read: int = 0
    sizes: dict[int, list[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    torn: bool = False

    def __post_init__(self) -> None:
        self.tallies = {layer: Tally(len(units), self.wanted) for layer, units in self.channels.items()}

    def run(self, batch: int | None, resume: Path | None, bar: Progress) -> None:
        """Go through the rest of the data; what was counted is kept, and written to `resume`, whatever stops it.

        Raises:
            Cancelled: before anything was counted.
        """
        if self.following >= len(self.data):
            return
        watch, size = Watch(self.inside.trace, list(self.channels)), batch or self._usual()
        bar.expect(len(self.data) - self.following)
        try:
            with torch.inference_mode(False), torch.no_grad(), watch.holding():
                while size:
                    size = self._stream(watch, size, resume, bar)
            self.following = len(self.data)
        except Cancelled:
            if not self.read:
                raise
            self.notes.append(f"stopped on request after {self.read} of {len(self.data)} pictures")
        finally:
            if resume is not None and self.read and not self.torn:
                self.save(resume)

    def _stream(self, watch: Watch, size: int, resume: Path | None, bar: Progress) -> int:
        """Go on to the end: 0; or until memory runs out: a smaller batch."""
        saved = time.monotonic()
        for numbers, x in self.data.batches(size, self.following):
            try:
                outputs = watch(x.to(home_of(self.inside.model.module)))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise untaken(self.inside.model, x, error) from error
                if len(x) == 1:
                    raise
                self.notes.append(f"memory ran out at {len(x)} pictures a pass; went on with {len(x) // 2}")
                return len(x) // 2
            before = self.following
            self._count(numbers, list(x.shape[2:]), outputs)
            bar.advance(self.following - before, "which pictures excite the units")
            if resume is not None and time.monotonic() - saved > SAVE_SECONDS:
                self.save(resume)
                saved = time.monotonic()
        return 0

    def _count(self, numbers: list[int], size_px: list[int], outputs: list[Tensor]) -> None:
        """All layers, or none: what is interrupted in between is not written."""
        self.torn = True
        for name, output in zip(self.channels, outputs, strict=True):
            maps = self._maps(name, output, len(numbers))
            self.tallies[name].add(numbers, maps, self._step(maps.shape[2]))
        if size_px != list(self.inside.trace.inputs[0].shape[2:]):
            self.sizes.update(dict.fromkeys(numbers, size_px))
        self.following, self.read = numbers[-1] + 1, self.read + len(numbers)
        self.torn = False

    def _maps(self, name: str, output: Tensor, images: int) -> Float[Tensor, "b u n"]:
        if len(output) != images:
            raise LayerError(f'layer "{name}" mixes the pictures of a batch; leave it out of layers=')
        maps, units = self.inside.maps(name, output), self.channels[name]
        maps = maps.reshape(*maps.shape[:2], -1)
        return maps if len(units) == maps.shape[1] else maps[:, units]

    def thinned(self, layer: str) -> bool:
        """Whether only some of the layer's values went into its distribution."""
        return self._step(prod(self.inside.positions(layer))) > 1

    def _step(self, positions: int) -> int:
        return min(max(1, len(self.data) * positions // VALUES), positions)

    def _usual(self) -> int:
        """As many pictures as bounded memory, and on a processor its caches, allow."""
        trace = self.inside.trace
        images = len(trace.inputs[0].data)
        watched = sum(self.inside.value(name).data.nbytes for name in self.channels)
        values = [v for node in trace.nodes for v in node.outputs if v is not None]
        largest = max(v.shape.numel() * v.dtype.itemsize for v in values)
        device = home_of(self.inside.model.module).device
        room = max(fitting(device, (3 * watched + 2 * largest) // images))
        return min(MOST, room, max(1, CACHED_BYTES * images // largest) if device.type == "cpu" else MOST)

    # ---------------------------------------------------------------------------------------------------- files

    def save(self, path: Path, *, overwrite: bool = True) -> None:
        """Write all that is held, in one step."""
        tensors, facts = dict[str, Tensor](), dict[str, Any]()
        for number, tally in enumerate(self.tallies.values()):
            mine, facts[str(number)] = tally.state()
            tensors |= {f"{number}.{k}": t for k, t in mine.items()}
        state = {"following": self.following, "read": self.read, "sizes": list(self.sizes.items())}
        failed = list(self.data.failed.items())
        facts = {"format": FORMAT, **self.identity(), **state, "failed": failed, "tallies": facts}
        write_tensors(path, tensors, facts, overwrite=overwrite)

    def load(self, path: Path) -> None:
        """Take up what an earlier pass wrote.

        Raises:
            FileError: it is of another network, other data or other settings.
        """
        tensors, facts = read_tensors(path)
        for name, mine in self.identity().items():
            if facts.get("format") != FORMAT or facts.get(name) != mine:
                raise FileError(f"{path} is of {WORDS[name]}; give another file, or delete it to begin again")
        for number, layer in enumerate(self.channels):
            own = {k.partition(".")[2]: t for k, t in tensors.items() if k.partition(".")[0] == str(number)}
            self.tallies[layer] = Tally.of(len(self.channels[layer]), self.wanted, own, facts["tallies"][str(number)])
        self.following, self.read = facts["following"], facts["read"]
        self.sizes = dict(facts["sizes"])
        self.data.failed.update(dict(facts["failed"]))

    @cached_property
    def _weights(self) -> str:
        tensors = self.inside.model.module.state_dict().values()
        return checksum(*(t.reshape(-1) for t in tensors if isinstance(t, Tensor)))

    def identity(self) -> dict[str, Any]:
        """By what a file is told to belong to this pass."""
        return {
            "network": [type(self.inside.model.module).__name__, self._weights],
            "data": self.data.digest(),
            "units": {layer: list(units) for layer, units in self.channels.items()},
            "settings": asdict(self.wanted),
        }


WORDS = {
    "network": "another network",
    "data": "other data",
    "units": "other layers or units",
    "settings": "other settings (top, bottom, random, quantile_bins, seed)",
}
