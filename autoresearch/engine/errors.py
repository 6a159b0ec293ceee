"""What can go wrong in the loop, each with an exit code and what to do next.

EngineError                     exit 1
├── TaskError                   exit 2   the task's definition is wrong
├── RecordError                 exit 3   a record isn't what its schema says
├── Rejected                    exit 5   a candidate's edit broke a rule; names the rule
├── StudyStopped                exit 1   the loop can't go on by itself
├── LedgerError                 exit 3
│   ├── LedgerDamaged                    the chain is broken before its end
│   ├── LedgerBusy                       another process is writing; names it
│   └── LedgerUnwritable        exit 4   disk full, read-only, no permission
└── WorkspaceError              exit 3
    ├── NoRepository                     not a git repository, or not its top
    ├── UncommittedChanges               work of the user's that would be mixed up
    ├── ChampionMoved                    the branch isn't where the ledger says
    ├── GitFailed                        a git command failed; carries what it said
    └── MissingGit              exit 4
"""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """Base of all: `message` says what happened, `hint` what to do next."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class TaskError(EngineError):
    """The task's definition is wrong: an unknown key, a value out of range, a path that escapes."""

    exit_code = 2


class RecordError(EngineError):
    """A record has a field that its schema lacks, lacks one, or holds one of the wrong type."""

    exit_code = 3


class Rejected(EngineError):
    """A candidate's edit broke a rule. `rule` is a stable name, `message` says how."""

    exit_code = 5

    def __init__(self, rule: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.rule = rule


class StudyStopped(EngineError):
    """The loop can't go on by itself; the message says why, the hint what to do."""


class LedgerError(EngineError):
    """The ledger refuses: a record that isn't JSON, a trial that is there already."""

    exit_code = 3


class LedgerDamaged(LedgerError):
    """A line before the end was changed, removed or added: the chain of hashes is broken."""


class LedgerBusy(LedgerError):
    """Another process is writing this ledger; the message names it."""


class LedgerUnwritable(LedgerError):
    """The ledger can't be written here and now; what was in it is intact."""

    exit_code = 4


class WorkspaceError(EngineError):
    """Something about the workspace's repository stands in the way."""

    exit_code = 3


class NoRepository(WorkspaceError):
    """The folder is not the top of a git repository with at least one commit."""


class UncommittedChanges(WorkspaceError):
    """Artifacts in the user's working tree differ from what is committed."""


class ChampionMoved(WorkspaceError):
    """The study's branch is not where this commit expects it."""


class GitFailed(WorkspaceError):
    """A git command failed; the message is what it said."""


class MissingGit(WorkspaceError):
    """There is no git on this machine."""

    exit_code = 4
