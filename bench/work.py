"""A row of the table: a piece of work, its ideal number of passes, its target, and who does it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from nets import Network
from peers import Contender

Count = float | Callable[[Network], float]


@dataclass(frozen=True)
class Target:
    """What `specs/performance.md` asks of pellucid; None where it asks nothing.

    Attributes:
        times: at most so many times the ideal.
        beats_peers: never slower than the fastest peer.
        extra_mb: peak memory above that of the loaded network.
        times_on: network -> `times`, where it depends on the network.
    """

    times: float | None = None
    beats_peers: bool = False
    extra_mb: float | None = None
    times_on: Mapping[str, float] = field(default_factory=dict)

    def on(self, network: str) -> "Target":
        """What it asks on one network."""
        return replace(self, times=self.times_on.get(network, self.times), times_on={})


@dataclass(frozen=True)
class Row:
    """One piece of work.

    Attributes:
        ideal: unit -> how many, or how many on a network; units are in `harness.UNITS`.
        contenders: pellucid first.
        reference: the ideal pass whose result pellucid's must equal.
        calls: how often the work is done while its memory is watched.
        long: the ideal passes are measured beside every call of every contender; only pellucid's memory is watched.
    """

    name: str
    group: str
    ideal: Mapping[str, Count]
    target: Target
    contenders: tuple[Contender, ...]
    reference: str | None = None
    calls: int = 3
    long: bool = False

    def ideal_on(self, net: Network) -> dict[str, float]:
        """Unit -> how many on one network."""
        return {unit: count(net) if callable(count) else count for unit, count in self.ideal.items()}
