"""What can go wrong before a number exists, each with an exit code and what to do next.

PrepareError                       exit 1
├── UsageError                     exit 2   the request itself is wrong
├── DataError                      exit 3
│   ├── NoData                     nothing to train on at that place
│   ├── IncompleteShard            a download stopped half-way
│   ├── CorruptFile                checksum or structure is wrong
│   ├── VocabularyMismatch         tokens, tokenizer and settings disagree
│   └── DownloadError              the server, or offline mode, said no
├── EnvironmentProblem             exit 4
│   ├── DiskFull
│   ├── UnwritableCache
│   └── MissingTool                git, a compiler, an extra
└── CandidateError                 exit 5   train.py failed; carried in a Failure
"""

from __future__ import annotations

from typing import ClassVar


class PrepareError(Exception):
    """Base of all: `message` says what happened, `hint` what to do next."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PrepareError):
    """The request itself is wrong: an unknown name, a value out of range."""

    exit_code = 2


class DataError(PrepareError):
    """Something is wrong with text, tokens or tokenizer."""

    exit_code = 3


class NoData(DataError):
    """There is nothing to train on at the place that was named."""


class IncompleteShard(DataError):
    """A file is shorter than its server said."""


class CorruptFile(DataError):
    """A file's checksum or structure is wrong."""


class VocabularyMismatch(DataError):
    """Tokens, tokenizer and settings disagree about the vocabulary."""


class DownloadError(DataError):
    """A download failed for good, or offline mode forbids it."""


class EnvironmentProblem(PrepareError):
    """This machine lacks something that the work needs."""

    exit_code = 4


class DiskFull(EnvironmentProblem):
    """Not enough free disk for what is about to be written."""


class UnwritableCache(EnvironmentProblem):
    """The cache folder can't be written."""


class MissingTool(EnvironmentProblem):
    """A program or an optional package that this command needs is not installed."""


class CandidateError(PrepareError):
    """The candidate train.py failed; details are in the Failure that carries this."""

    exit_code = 5
