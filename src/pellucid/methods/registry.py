"""Declare a method once; it then appears in Python, on the command line and in the report.

A method is one function `(case, *, settings) -> (b, ...)`. Its keyword-only parameters are its settings: the
annotation gives the type, the default the default, `Annotated[..., "help"]` the sentence shown to users.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from torch import Tensor

from pellucid.core.errors import MethodError, SettingError, nearest
from pellucid.core.trace import Trace
from pellucid.methods.case import Case

Site = Literal["input", "layer"]
Reduce = Literal["sum", "max_abs", "sum_abs", "none"]
Fit = Literal["exact", "approximate", "impossible"]


@dataclass(frozen=True)
class Setting:
    """One setting of a method."""

    name: str
    kind: Any
    default: Any
    help: str = ""

    def check(self, method: str, value: Any) -> Any:
        """The value as the setting's type.

        Raises:
            SettingError: what came, what is expected.
        """
        kind = self.kind
        if get_origin(kind) is Literal:
            if value not in get_args(kind):
                raise SettingError(
                    f"{method}: {self.name}={value!r}; use one of {', '.join(map(repr, get_args(kind)))}"
                )
            return value
        if kind is bool and isinstance(value, str) and value.lower() in ("true", "false", "yes", "no"):
            return value.lower() in ("true", "yes")
        if kind in (int, float) and isinstance(value, str):
            value = _number(method, self.name, value, kind)
        if kind in (int, float, bool) and (
            not isinstance(value, (int, float)) or (kind is not bool and isinstance(value, bool))
        ):
            raise SettingError(f"{method}: {self.name}={value!r}; expected {kind.__name__}")
        if kind in (int, float) and not isfinite(float(value)):
            raise SettingError(f"{method}: {self.name}={value!r}; expected a finite number")
        if kind is int and value != int(value):
            raise SettingError(f"{method}: {self.name}={value!r}; expected a whole number")
        return kind(value) if kind in (int, float, bool) else value


def _number(method: str, name: str, text: str, kind: type) -> int | float:
    try:
        return kind(text)
    except ValueError as error:
        raise SettingError(f"{method}: {name}={text!r}; expected {kind.__name__}") from error


@dataclass(frozen=True)
class Verdict:
    """What a method can do on one network: how exactly, and the operations that decide it."""

    fit: Fit
    why: str


@dataclass(frozen=True, eq=False)
class Method:
    """A declared method; calling it with settings gives it those settings.

    Attributes:
        name: in Python, CLI, report.
        title: as the paper writes it.
        site: whether the map lies on the input or on a layer's grid.
        signed: whether negative heat means something.
        reduce: how channels become one heat.
        units: what one unit of heat is.
        source: the paper.
        misleads: one sentence: when this map misleads.
        doctor: what it can do on a recorded network.
        layered: whether it looks at a layer that the user may choose.
    """

    name: str
    title: str
    site: Site
    signed: bool
    reduce: Reduce
    units: str
    source: str
    misleads: str
    compute: Callable[..., Tensor]
    settings: Mapping[str, Setting]
    doctor: Callable[[Trace], Verdict]
    layered: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Any]:
        """Every setting with its value."""
        return {name: self.given.get(name, s.default) for name, s in self.settings.items()}

    def __call__(self, **settings: Any) -> "Method":
        checked = {}
        for name, value in settings.items():
            if name not in self.settings:
                known = ", ".join(self.settings) or "none"
                raise SettingError(
                    f'{self.name} has no setting "{name}"{nearest(name, self.settings) or "."} Its settings: {known}'
                )
            checked[name] = self.settings[name].check(self.name, value)
        return Method(**{**self.__dict__, "given": {**self.given, **checked}})

    def run(self, case: Case) -> Tensor:
        return self.compute(case, **self.values)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.values.items())})"


METHODS: dict[str, Method] = {}


def always_exact(trace: Trace) -> Verdict:
    """The verdict of methods that need nothing but derivatives."""
    return Verdict("exact", "the recorded derivative of every operation")


def asks_scores(trace: Trace) -> Verdict:
    """The verdict of methods that need nothing but scores of edited images."""
    return Verdict("exact", "the network's own scores of edited images")


def method(
    name: str,
    *,
    title: str,
    site: Site,
    source: str,
    units: str,
    misleads: str,
    signed: bool = True,
    reduce: Reduce | None = None,
    doctor: Callable[[Trace], Verdict] = always_exact,
    layered: bool | None = None,
) -> Callable[[Callable[..., Tensor]], Method]:
    """Register a function as a method; from here on it is in the CLI and in the report."""

    def declare(function: Callable[..., Tensor]) -> Method:
        channels = reduce or ("none" if site == "layer" else "sum" if signed else "sum_abs")
        made = Method(
            name,
            title,
            site,
            signed,
            channels,
            units,
            source,
            misleads,
            function,
            _settings(function),
            doctor,
            layered=site == "layer" if layered is None else layered,
        )
        METHODS[name] = made
        return made

    return declare


def _settings(function: Callable[..., Tensor]) -> dict[str, Setting]:
    hints = get_type_hints(function, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        kind, words = hints[name], ""
        if get_origin(kind) is Annotated:
            kind, words = get_args(kind)[0], str(get_args(kind)[1])
        found[name] = Setting(name, kind, parameter.default, words)
    return found


def find(name: "str | Method") -> Method:
    """A method by its name.

    Raises:
        MethodError: no such method; the nearest names are offered.
    """
    if isinstance(name, Method):
        return name
    key = str(name).strip().lower().replace("-", "_")
    if key not in METHODS:
        raise MethodError(
            f'no method "{name}"{nearest(key, METHODS) or ";"} `pellucid methods` lists all {len(METHODS)}'
        )
    return METHODS[key]
