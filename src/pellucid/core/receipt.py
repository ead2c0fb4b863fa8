"""What an explanation can show for itself: checks with numbers, and everything that was approximate."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["pass", "warn", "fail", "told"]


@dataclass(frozen=True)
class Check:
    """One measured check: its number, the bound it was held against, and what that means.

    `verdict` is `told` where a number is reported for information and has no bound.
    """

    name: str
    value: float
    bound: float | None
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Receipt:
    """The checks of one explanation.

    Attributes:
        checks: measured checks.
        approximate: every step that was not exact, one sentence each; empty where all was exact.
        notes: what was chosen for the user or done to the picture on the way.
        operations: how many recorded operations each rule handled, by `rule: operation`.
    """

    checks: tuple[Check, ...] = ()
    approximate: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    operations: Mapping[str, int] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The worst verdict among the checks; `warn` at best where a step was approximate; `told` without a bound."""
        found = {check.verdict for check in self.checks}
        if "fail" in found:
            return "fail"
        if "warn" in found or self.approximate:
            return "warn"
        return "pass" if "pass" in found else "told"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Receipt":
        return cls(
            checks=tuple(Check(**check) for check in data["checks"]),
            approximate=tuple(data["approximate"]),
            notes=tuple(data["notes"]),
            operations=dict(data["operations"]),
        )
