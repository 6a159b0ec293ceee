"""A Task says what may change and by how much, what counts as better, and when to stop.

    task = Task.parse({"id": "pretraining", "artifacts": {"include": ["train.py"]},
                       "objective": {"metric": "val_bpb", "direction": "minimize"}})

It is frozen and checks itself: an unknown key is refused with the nearest known one. How a
candidate is run and scored is given to the loop beside it, as one callable: `Measure`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from autoresearch.engine import globs
from autoresearch.engine.constraint import Constraint
from autoresearch.engine.errors import TaskError
from autoresearch.engine.trial import Replicate, in_dollars

Event = Callable[[str, Mapping[str, Any]], None]
Curve = Sequence[tuple[float, float]]


class Part(BaseModel):
    """Frozen, and an unknown key is refused with the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        for key in data:
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), list(cls.model_fields), 1, 0.5)
                known = ", ".join(cls.model_fields)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {known}"
                # The key goes along: whoever read a file says in which line it stands.
                facts = {"key": str(key), "hint": hint}
                raise PydanticCustomError("unknown_key", "unknown key '{key}'; {hint}", facts)
        return data


class Artifacts(Part):
    """The files that may change, as globs relative to the task's folder."""

    include: tuple[str, ...] = Field(min_length=1, description="globs of what may change")
    exclude: tuple[str, ...] = Field((), description="globs of what may not, after all")

    @field_validator("include", "exclude", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("include", "exclude")
    @classmethod
    def _relative(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(globs.check_glob(pattern) for pattern in value)

    def match(self, path: str) -> bool:
        """Is this POSIX path, relative to the task, an artifact?"""
        return globs.matches(path, self.include, self.exclude)

    def may_hold(self, folder: str) -> bool:
        """Could something below this POSIX path be an artifact?"""
        return globs.may_hold(folder, self.include)


class Mutation(Part):
    """How much one trial may change."""

    max_files: int = Field(10, ge=1, description="files touched")
    max_changed_lines: int = Field(2_000, ge=1, description="lines added plus lines removed")
    max_bytes: int = Field(1_000_000, ge=1, description="bytes of the changed files together")
    allow_new_files: bool = Field(False, description="may artifacts be added")
    allow_delete: bool = Field(False, description="may artifacts be removed")
    refuse_known: bool = Field(
        True,
        description="refuse edits that mean nothing and programs that were tried before; when "
        "false they are measured like any other, which shows how often a policy keeps what does "
        "nothing",
    )


class Objective(Part):
    """The number that decides."""

    metric: str = Field("score", min_length=1, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    direction: Literal["minimize", "maximize"] = "minimize"
    target: float | None = Field(None, description="a champion this good ends the study")

    def better(self, score: float, than: float) -> bool:
        """Is `score` strictly better? NaN never is."""
        return score < than if self.direction == "minimize" else score > than

    def reached(self, score: float | None) -> bool:
        """Is `score` as good as the target? Never without one."""
        if score is None or self.target is None:
            return False
        return score == self.target or self.better(score, self.target)


class Deciding(Part):
    """Which policy decides, and how sure it must be."""

    name: Literal["confirm", "greedy"] = "confirm"
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="asked before a keep")
    min_effect: float = Field(0.0, ge=0.0, description="smallest difference worth keeping")
    noise_seeds: int = Field(3, ge=1, le=20, description="baseline runs that measure the noise")


class Budget(Part):
    """When to stop; None is no limit. What is under way counts."""

    trials: int | None = Field(None, ge=1)
    hours: float | None = Field(None, gt=0)
    dollars: float | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=1, description="the proposer's tokens, in and out")

    def spent(self, dollars: float, tokens: int) -> str:
        """Which limit of what proposals cost these reach, in words; "" where none is."""
        if self.dollars is not None and dollars >= self.dollars:
            return f"{in_dollars(dollars)} spent"
        if self.tokens is not None and tokens >= self.tokens:
            return f"{tokens:,} tokens spent"
        return ""


class Logging(Part):
    """What is kept of a run's output."""

    tail_lines: int = Field(50, ge=1, le=1_000, description="last lines handed to the proposer")
    max_bytes: int = Field(10_000_000, ge=1_000, description="largest log of one run")


def _constraint(value: Any) -> Any:
    return Constraint.parse(value) if isinstance(value, str) else value


ConstraintText = Annotated[
    Constraint,
    BeforeValidator(_constraint),
    PlainSerializer(str),
    WithJsonSchema({"type": "string"}),
]


class Task(Part):
    """One thing to optimise. `model_dump(mode="json")` and `parse` are inverse."""

    id: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    artifacts: Artifacts
    mutation: Mutation = Mutation()  # type: ignore[call-arg]
    objective: Objective
    constraints: tuple[ConstraintText, ...] = ()
    policy: Deciding = Deciding()  # type: ignore[call-arg]
    budget: Budget = Budget()  # type: ignore[call-arg]
    logging: Logging = Logging()  # type: ignore[call-arg]

    @field_validator("constraints", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("policy", mode="before")
    @classmethod
    def _policy_by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Task:
        """Check and build. Raises TaskError that names the key and what is allowed."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "task"
            message = first["msg"].removeprefix("Value error, ")
            raise TaskError(f"{where}: {message}", "see docs of the task file") from error

    def broken_constraint(self, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> str:
        """The first constraint that these metrics break, and how; "" if all hold."""
        reasons = (constraint.broken(metrics, baseline) for constraint in self.constraints)
        return next((reason for reason in reasons if reason), "")


def _ignore(name: str, data: Mapping[str, Any]) -> None:
    """Takes an event and does nothing."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class MeasureRequest:
    """One run to make. `folder` holds the program, `run_dir` takes everything the run writes.

    cancelled: whether the run is of no use any more. Only a measure that runs beside others is
    asked to look at it, and to end soon.
    """

    folder: Path
    seed: int
    run_dir: Path
    on_event: Event = field(default=_ignore, compare=False)
    # Of the champion's runs, in spent budget and loss; given when a hopeless run may be stopped.
    champion_curves: tuple[Curve, ...] = ()
    cancelled: Callable[[], bool] = field(default=_never, compare=False)


class Measure(Protocol):
    """Runs and scores one program once. A failing program is a Replicate with a failure."""

    def __call__(self, request: MeasureRequest) -> Replicate:
        """Run `request.folder` with `request.seed` and score it."""
        ...
