"""One trial, as the ledger keeps it: what was tried, what was measured, what was decided.

    trial = Trial(id=7, parent=3, status=TrialStatus.KEEP, ...)
    assert Trial.from_dict(trial.to_dict()) == trial

`to_dict` gives plain JSON values: numbers that JSON lacks are the strings "nan", "inf" and "-inf".
`from_dict` refuses unknown and missing fields and values of another type (RecordError).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from autoresearch.engine.errors import RecordError

T = TypeVar("T")


class TrialStatus(str, Enum):
    """How a trial ended. `keep`, `discard` and `crash` are upstream's words."""

    KEEP = "keep"
    DISCARD = "discard"
    CRASH = "crash"
    REJECTED = "rejected"  # broke a rule; the reason says which
    PRUNED = "pruned"  # stopped early: hopeless beyond noise
    NOISY = "noisy"  # the machine was disturbed; nothing was concluded

    def __str__(self) -> str:
        return self.value


COST_SOURCES = ("native", "estimated", "unknown")


@dataclass(frozen=True)
class Failure:
    """Why a run has no score: the phase it died in, a structured kind, its last log lines."""

    phase: str
    kind: str
    message: str
    log_tail: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Failure:
        """The inverse of `to_dict`. Raises RecordError."""
        return _build(cls, data, dict.fromkeys(("phase", "kind", "message", "log_tail"), _text))


@dataclass(frozen=True)
class Replicate:
    """One run of one program with one seed. `disturbed` says why the machine was noisy, if so."""

    seed: int
    score: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)  # by phase
    failure: Failure | None = None
    disturbed: str = ""
    score_id: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)  # JSON values: probes, tier, policy

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return _plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Replicate:
        """The inverse of `to_dict`. Raises RecordError."""
        readers: dict[str, Callable[[Any], Any]] = {
            "seed": _integer,
            "score": _optional(_number),
            "metrics": _numbers,
            "seconds": _numbers,
            "failure": _optional(Failure.from_dict),
            "disturbed": _text,
            "score_id": _text,
            "details": _mapping,
        }
        return _build(cls, data, readers)


@dataclass(frozen=True)
class Cost:
    """What the proposer cost, and how that is known: by the provider, by a guess, or not."""

    dollars: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    known: str = "unknown"

    def __post_init__(self) -> None:
        if self.known not in COST_SOURCES:
            raise RecordError(f"cost.known: {self.known!r} is none of {', '.join(COST_SOURCES)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return _plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cost:
        """The inverse of `to_dict`. Raises RecordError."""
        readers: dict[str, Callable[[Any], Any]] = {
            "dollars": _optional(_number),
            "tokens_in": _optional(_integer),
            "tokens_out": _optional(_integer),
            "known": _text,
        }
        return _build(cls, data, readers)


def in_dollars(amount: float) -> str:
    """`12.50 dollars`, `0.00420 dollars`: three digits of what is small."""
    places = 2 if amount >= 1 or amount <= 0 else 2 - math.floor(math.log10(amount))
    return f"{amount:.{places}f} dollars"


@dataclass(frozen=True)
class DiffStat:
    """Size of an edit: files touched, lines added, lines removed."""

    files: int = 0
    added: int = 0
    removed: int = 0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DiffStat:
        """The inverse of `dataclasses.asdict`. Raises RecordError."""
        return _build(cls, data, dict.fromkeys(("files", "added", "removed"), _integer))


@dataclass(frozen=True)
class Trial:
    """One line of the ledger. `delta` is score minus the champion's, in the objective's unit."""

    id: int
    parent: int | None  # id of the champion it was measured against; None for the baseline
    status: TrialStatus
    reason: str
    description: str = ""
    start: int | None = None  # the trial whose program was edited, where that isn't the parent's
    combines: tuple[int, ...] = ()  # the trials whose edits were put together
    commit: str | None = None
    diff_hash: str = ""
    diff_stat: DiffStat = DiffStat()
    score: float | None = None
    score_id: str = ""
    replicates: tuple[Replicate, ...] = ()
    champion_replicates: tuple[Replicate, ...] = ()  # run extra for this decision
    delta: float | None = None
    confidence: float | None = None
    extra_runs: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)  # by phase
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[tuple[float, float], ...] = ()  # (seconds of budget, training loss)
    tier: str = ""
    backend: str = ""
    hardware_id: str = ""
    proposer: str = ""
    cost: Cost = Cost()
    predicted: float | None = None
    mended: int = 0  # times that it crashed and its proposer repaired it
    # Champions that it was better than, each replaced before it could be kept: its edit was put on
    # the next one and measured there. `parent` and what was measured are of the last one.
    won_against: tuple[int, ...] = ()
    # Runs on the cheap kind of device, its own and the champion's; they only sort out, see Loop.
    screening: tuple[Replicate, ...] = ()
    champion_screening: tuple[Replicate, ...] = ()
    warning: str = ""  # what a reader should know of the runs, though it decided nothing
    started_at: str = ""  # UTC, ISO 8601
    finished_at: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, in the order of the fields."""
        return _plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trial:
        """The inverse of `to_dict`. Raises RecordError."""
        return _build(cls, data, _TRIAL_READERS)


_AS_THEY_ARE = frozenset({str, int, bool, type(None)})  # nearly all that a trial holds


def _plain(value: Any) -> Any:
    """Dataclasses, enums and tuples as JSON values; a number that JSON lacks as its name."""
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if names := _names(kind):  # type: ignore[arg-type]  # types can be hashed
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass; none of anything else."""
    return tuple(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else ()


def _build(
    cls: Callable[..., T], data: Mapping[str, Any], readers: Mapping[str, Callable[[Any], Any]]
) -> T:
    """`cls` from `data`, each field through its reader, the reader's complaint under its name."""
    name = getattr(cls, "__name__", "record")
    if not isinstance(data, Mapping):
        raise RecordError(f"{name}: a table is expected, this is {type(data).__name__}")
    unknown = sorted(set(data) - set(readers))
    if unknown:
        raise RecordError(
            f"{name}: unknown field {unknown[0]!r}", "a newer autoresearch wrote it: upgrade"
        )
    required = {
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(data))
    if missing:
        raise RecordError(f"{name}: field {missing[0]!r} is missing")
    values = {}
    for key, item in data.items():
        try:
            values[key] = readers[key](item)
        except RecordError as error:
            raise RecordError(f"{name}.{key}: {error.message}", error.hint) from error
        except (TypeError, ValueError) as error:
            raise RecordError(f"{name}.{key}: {error}") from error
    return cls(**values)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"an integer is expected, this is {value!r}")
    return value


def _number(value: Any) -> float:
    if type(value) is float:  # nearly all are, hundreds in each curve
        return value
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"a number is expected, this is {value!r}")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text is expected, this is {value!r}")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"a table is expected, this is {value!r}")
    return dict(value)


def _numbers(value: Any) -> dict[str, float]:
    return {str(key): _number(item) for key, item in _mapping(value).items()}


def _optional(reader: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value is None else reader(value)


def _tuple_of(reader: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    def read(value: Any) -> tuple[T, ...]:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"a list is expected, this is {value!r}")
        return tuple(reader(item) for item in value)

    return read


def _point(value: Any) -> tuple[float, float]:
    seconds, loss = value
    return _number(seconds), _number(loss)


_TRIAL_READERS: dict[str, Callable[[Any], Any]] = {
    "id": _integer,
    "parent": _optional(_integer),
    "status": TrialStatus,
    "reason": _text,
    "description": _text,
    "start": _optional(_integer),
    "combines": _tuple_of(_integer),
    "commit": _optional(_text),
    "diff_hash": _text,
    "diff_stat": DiffStat.from_dict,
    "score": _optional(_number),
    "score_id": _text,
    "replicates": _tuple_of(Replicate.from_dict),
    "champion_replicates": _tuple_of(Replicate.from_dict),
    "delta": _optional(_number),
    "confidence": _optional(_number),
    "extra_runs": _integer,
    "seconds": _numbers,
    "metrics": _numbers,
    "curve": _tuple_of(_point),
    "tier": _text,
    "backend": _text,
    "hardware_id": _text,
    "proposer": _text,
    "cost": Cost.from_dict,
    "predicted": _optional(_number),
    "mended": _integer,
    "won_against": _tuple_of(_integer),
    "screening": _tuple_of(Replicate.from_dict),
    "champion_screening": _tuple_of(Replicate.from_dict),
    "warning": _text,
    "started_at": _text,
    "finished_at": _text,
}
