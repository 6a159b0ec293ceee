"""What a candidate process may say, as typed messages: anything else is a ProtocolError.

The other side runs code that nobody vouches for. A field of a wrong type, NaN or a number beyond
all sense ends the run with a reason here, and not with a traceback further on.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from prepare.channel import ProtocolError

MAX_TEXT = 2000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
PHASES = frozenset(
    {"startup", "import", "build", "warmup", "training", "scoring", "sampling"},
)
FAILURES = frozenset(
    {
        "syntax_error",
        "import_error",
        "nan",
        "invalid_output",
        "exit",
        "out_of_memory",
        "exception",
    }
)


class _Message(BaseModel):
    # Strict: True is no number and "7" neither. Numbers are finite and of a size that JSON,
    # floats and 64-bit columns can hold.
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, extra="ignore")


class Hello(_Message):
    """What this machine is, said before any of the candidate's code is loaded."""

    backend: str
    compute_dtype: str
    hardware: dict[str, Any]
    hardware_id: str
    policy: dict[str, Any]
    versions: dict[str, str]
    peak_flops: float | None = Field(None, gt=0)
    measured_peak_flops: float | None = Field(None, gt=0)


class Built(_Message):
    """The model's size, in its own word."""

    num_params: int = Field(ge=0, le=10**15)
    flops_per_token: float = Field(ge=0, le=1e18)
    depth: int | None = None

    @field_validator("depth", mode="before")
    @classmethod
    def _whole_number_or_none(cls, value: Any) -> Any:
        usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**6
        return value if usable else None


class Touched(_Message):
    """What the audit hook saw: an act (read, write, list, start, socket, signal) and its target."""

    act: str = Field(max_length=20)
    target: str = Field(max_length=400)
    forbidden: bool

    @field_validator("act", "target")
    @classmethod
    def _printable(cls, value: str) -> str:
        return _CONTROL.sub("?", value)


class Open(_Message):
    """A wish for batches of so many rows."""

    rows: int = Field(ge=1, le=65536)


class Progress(_Message):
    """An optimizer step, for whoever looks on; NaN is a loss that people want to see."""

    model_config = ConfigDict(allow_inf_nan=True)

    step: int = Field(ge=0, le=10**15)
    loss: float | None = None


class Weights(_Message):
    """The weights are written."""

    peak_memory_mb: float = Field(0.0, ge=0, le=1e12)
    steps: int = Field(0, ge=0, le=10**15)


Kind = TypeVar("Kind", bound=_Message)


def parse(model: type[Kind], message: dict[str, Any]) -> Kind:
    """The message as `model`. Raises ProtocolError that names the first field that is wrong."""
    try:
        return model.model_validate(message)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ProtocolError(f"{message['kind']!r}: {where}: {first['msg']}") from error


def failed_report(message: dict[str, Any]) -> tuple[str, str, str]:
    """(phase, kind, text) of a `failed` message: known words, and a bounded, printable text."""
    phase, kind = message.get("phase"), message.get("failure")
    return (
        phase if isinstance(phase, str) and phase in PHASES else "training",
        kind if isinstance(kind, str) and kind in FAILURES else "exception",
        _CONTROL.sub("", str(message.get("message"))[:MAX_TEXT]),
    )
