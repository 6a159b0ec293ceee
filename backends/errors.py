"""What can go wrong between train.py and the hardware, each with what to do next.

BackendError                    exit 1
├── UnknownBackend              exit 2   no backend has this name
├── UnknownOverride             exit 2   an AUTORESEARCH_... variable is nonsense
├── BackendUnavailable          exit 4   known, but this machine can't offer it, and why
├── AttentionUnavailable        exit 4   an implementation can't be loaded or launched
├── KernelUnavailable           exit 4   a kernel, or FP8, was asked for and can't run here
├── WeightsMismatch             exit 5   a weights file is unreadable or another model's
├── RanksApart                  exit 5   devices that train together don't have the same weights
├── RankLost                    exit 5   another of the processes that train together is gone
└── UnsupportedOperation        exit 5   train.py asks for something the backend doesn't have
    (also an AttributeError, so that hasattr answers False)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class BackendError(Exception):
    """Base of all: `message` says what happened, `hint` what to do next."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.message = message
        self.hint = hint


class UnknownBackend(BackendError):
    """No backend has this name."""

    exit_code = 2

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(*_unknown("backend", name, known))
        self.name = name


class UnknownOverride(BackendError):
    """An environment variable or option asks for a value that doesn't exist."""

    exit_code = 2

    def __init__(self, source: str, value: str, known: Iterable[str]) -> None:
        super().__init__(*_unknown(f"value of {source}:", value, known))
        self.source = source
        self.value = value


class BackendUnavailable(BackendError):
    """The backend is known, but this machine can't offer it."""

    exit_code = 4

    def __init__(self, backend: str, reason: str, hint: str = "") -> None:
        super().__init__(f"backend {backend} is not available: {reason}", hint)
        self.backend = backend
        self.reason = reason


class AttentionUnavailable(BackendError):
    """An attention implementation can't be loaded, or failed its first launch."""

    exit_code = 4

    def __init__(self, name: str, reason: str, hint: str = "") -> None:
        super().__init__(f"attention {name} is not available: {reason}", hint)
        self.name = name
        self.reason = reason


class KernelUnavailable(BackendError):
    """A kernel, or FP8, was asked for by name and can't run here."""

    exit_code = 4

    def __init__(self, item: str, reason: str) -> None:
        hint = f"unset AUTORESEARCH_{item.upper()} to have it chosen by what runs here"
        super().__init__(f"the {item} that was asked for is not available: {reason}", hint)
        self.item = item
        self.reason = reason


class WeightsMismatch(BackendError):
    """A weights file can't be read, or its names or shapes aren't those of the model."""

    exit_code = 5


class RanksApart(BackendError):
    """Devices that train one model together have different weights."""

    exit_code = 5

    def __init__(self, apart: float) -> None:
        super().__init__(
            f"the weights of the devices differ by {apart:.1%}: they were not trained on the same "
            "gradients",
            "call runtime.backward(model) or loss.backward(), which average them over the devices, "
            "and let no choice depend on the rows of one device alone",
        )
        self.apart = apart


class RankLost(BackendError):
    """Another of the processes that train one model together ended, or can't be reached."""

    exit_code = 5

    def __init__(self, reason: str) -> None:
        super().__init__(f"another device's process is gone: {reason}")
        self.reason = reason


class UnsupportedOperation(BackendError, AttributeError):
    """The candidate asks for something that this backend doesn't have."""

    exit_code = 5


def near_matches(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Names in `known` that look like `name`, the likeliest first."""
    return difflib.get_close_matches(name.lower(), list(known), n=most, cutoff=0.5)


def _unknown(what: str, name: str, known: Iterable[str]) -> tuple[str, str]:
    """Message and hint for a name that isn't among the `known` ones."""
    known = tuple(known)
    near = near_matches(name, known)
    suggestion = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {name!r}", f"{suggestion}known: {', '.join(known)}"
