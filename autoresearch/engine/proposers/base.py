"""Who proposes: the interface, and what every proposer shares.

    proposer = find_proposer("claude", {"model": "..."})
    proposal = proposer.propose(request)      # edits request.folder's artifacts in place
    proposer.observe(trial)                   # what became of it; also replayed after a restart

A proposer is judged by the diff it leaves in `request.folder`, never by what it says or by its
exit code. `propose` raises nothing for what a proposer does wrong: `problem` says it. It raises
ProposerUnavailable when there is no proposer to speak of (program or package missing).

Others plug in through entry points of the group "autoresearch.proposers": a callable that takes
the options as keyword arguments and returns a Proposer.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from autoresearch.engine.errors import EngineError
from autoresearch.engine.globs import matches
from autoresearch.engine.proposers.digest import Digest
from autoresearch.engine.trial import Cost, Failure, Trial

GROUP = "autoresearch.proposers"
LARGE = 64_000_000  # bytes of a file whose content isn't looked at
# Module and callable of the proposers that come with the package; loaded when asked for.
BUILT_IN = {
    "search": ("autoresearch.engine.proposers.search", "SearchProposer"),
    "command": ("autoresearch.engine.proposers.command", "CommandProposer"),
    "api": ("autoresearch.engine.proposers.api", "ApiProposer"),
}
AGENTS = ("claude", "codex", "gemini", "opencode", "aider", "cursor", "qwen", "goose")

# Kinds of Proposal.problem.
TIMEOUT = "timeout"  # the deadline passed
NO_EDIT = "no_edit"  # it ended and no artifact differs
FLOOD = "flood"  # it printed without end
FAILED = "failed"  # it said that it failed, and left no edit
REFUSED = "refused"  # no answer by its own decision: authentication, limits, invalid blocks
EXHAUSTED = "exhausted"  # it has nothing left to propose
CANCELLED = "cancelled"  # we were asked to stop
BUDGET = "budget"  # no money left for it

CONFLICT = "conflict"  # kind of a failure: the edit doesn't merge with the present champion

UNKNOWN_COST = Cost(dollars=None, tokens_in=None, tokens_out=None, known="unknown")
NO_COST = Cost(dollars=0.0, tokens_in=0, tokens_out=0, known="native")


class ProposerError(EngineError):
    """A proposer can't be had as asked.

    ProposerError
    ├── UnknownProposer       exit 2   no proposer of that name
    ├── ProposerOptions       exit 2   an option is wrong
    └── ProposerUnavailable   exit 4   its program or package is missing, or too old
    """

    exit_code = 2


class UnknownProposer(ProposerError):
    """No proposer of that name."""


class ProposerOptions(ProposerError):
    """An option of a proposer is wrong."""


class ProposerUnavailable(ProposerError):
    """The program or package behind a proposer is missing, or too old."""

    exit_code = 4


@dataclass(frozen=True)
class ProposalRequest:
    """What a proposer gets. `folder` is a scratch copy: the artifacts there are edited in place.

    `artifacts` are paths or globs (engine.globs), and no other file is taken back. `seconds` is
    the deadline, `attempt` 0 for a new idea and 1 or 2 for mending the edit that is in `folder`
    and ended in `failure`. A failure of the kind CONFLICT is an edit that the folder no longer
    holds: its log is the diff, and the folder has another champion to make it on. `notes` are the
    human's, and win over all else.
    """

    folder: Path
    artifacts: tuple[str, ...]
    program: str
    digest: Digest
    seconds: float
    attempt: int = 0
    failure: Failure | None = None
    seed: int = 0
    dollars_left: float | None = None
    notes: str = ""
    cancelled: Callable[[], bool] | None = None
    start: int | None = None  # the trial whose program is in `folder`, where not the champion's
    in_flight: tuple[str, ...] = ()  # descriptions of the trials that are under way meanwhile


@dataclass(frozen=True)
class Proposal:
    """What a proposer says about the edit it left; `problem` is "" unless there is none to try.

    `problem_kind` is one of this module's constants, "" without a problem. `broke_rule` is the rule
    that was broken while the edit was made, and how: it is rejected then, and not measured.
    `changed` names the files that differ, others than artifacts too: what to take back is the
    workspace's decision.
    """

    description: str
    predicted: float | None = None
    cost: Cost = UNKNOWN_COST
    log_tail: str = ""
    problem: str = ""
    problem_kind: str = ""
    broke_rule: str = ""
    seconds: float = 0.0
    changed: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Proposer(Protocol):
    """Anything that edits artifacts when asked.

    Two more attributes, each False where it is missing, say how it may be asked while trials are
    under way. instant: it answers in a moment, and is asked whenever a device is free (it gets an
    empty digest: what it knows it observed). reentrant: `propose` may run in several threads at the
    same time. Without either it is asked ahead, once at a time, in a thread of its own; trials are
    observed in that thread before.
    """

    name: str

    def propose(self, request: ProposalRequest) -> Proposal:
        """Edit the artifacts in `request.folder`, within `request.seconds`."""
        ...

    def observe(self, trial: Trial) -> None:
        """Learn what became of a trial, of its own or another's."""
        ...


def artifact_files(folder: Path, artifacts: Sequence[str]) -> tuple[str, ...]:
    """The files (paths with "/", relative to `folder`) that these globs match, sorted."""
    return tuple(path for path in _files(folder) if matches(path, tuple(artifacts), ()))


def _files(folder: Path) -> list[str]:
    """Every file under `folder` but git's own and compiled leftovers, links included."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in (".git", "__pycache__")]
        links = [name for name in folders if Path(parent, name).is_symlink()]
        found += [Path(parent, name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(path for path in found if path != ".git")


def snapshot(folder: Path) -> dict[str, str]:
    """What lies at each path of `folder` but git's own: a hash of the content, a link's target.

    Of a large file size and time tell: what an agent unpacked there could take hours to read.
    """
    hashes: dict[str, str] = {}
    for key in _files(folder):
        path = folder / key
        if path.is_symlink():
            hashes[key] = "link:" + os.readlink(path)
        elif path.is_file():
            hashes[key] = _hash(path)
        else:
            hashes[key] = "special"  # a pipe or a socket: never opened, it could wait for ever
    return hashes


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        status = path.stat()
        if status.st_size > LARGE:
            return f"large:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        return f"unreadable:{error.errno}"
    return digest.hexdigest()


def changed_files(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """Paths added, removed or different between two snapshots, sorted."""
    return tuple(
        sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    )


def touches(changed: Sequence[str], artifacts: Sequence[str]) -> bool:
    """Whether a changed path is an artifact."""
    return any(matches(path, tuple(artifacts), ()) for path in changed)


def cost_of(
    dollars: float | None,
    tokens_in: int | None,
    tokens_out: int | None,
    prices: tuple[float, float] | None = None,
) -> Cost:
    """The cost as told, or estimated with `prices` (dollars per million tokens in and out)."""
    if dollars is not None:
        return Cost(dollars, tokens_in, tokens_out, "native")
    if prices is not None and tokens_in is not None and tokens_out is not None:
        estimate = (tokens_in * prices[0] + tokens_out * prices[1]) / 1e6
        return Cost(estimate, tokens_in, tokens_out, "estimated")
    return Cost(None, tokens_in, tokens_out, "unknown")


def find_proposer(name: str, options: Mapping[str, Any] | None = None) -> Proposer:
    """The proposer of that name: a coding agent, one of ours, or an installed plug-in.

    Raises UnknownProposer, ProposerUnavailable or ProposerOptions.
    """
    options = dict(options or {})
    if name in AGENTS:
        from autoresearch.engine.proposers.agents import AgentProposer

        return _make(name, functools.partial(AgentProposer, name), options)
    if name in BUILT_IN:
        module, attribute = BUILT_IN[name]
        return _make(name, getattr(import_module(module), attribute), options)
    plugins = {entry.name: entry for entry in metadata.entry_points(group=GROUP)}
    if name in plugins:
        try:
            factory = plugins[name].load()
        except ImportError as error:
            raise ProposerUnavailable(
                f"the plug-in proposer {name!r} can't be loaded: {error}",
                f"install again what provides {plugins[name].value}",
            ) from error
        return _make(name, factory, options)
    known = [*BUILT_IN, *AGENTS, *plugins]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    raise UnknownProposer(f"no proposer {name!r}", hint)


def _make(name: str, factory: Callable[..., Any], options: dict[str, Any]) -> Proposer:
    _check_names(name, factory, options)
    try:
        proposer = factory(**options)
    except TypeError as error:
        raise ProposerOptions(
            f"proposer {name}: {error}", f"given were {', '.join(options) or 'no options'}"
        ) from error
    if not isinstance(proposer, Proposer):
        raise ProposerOptions(
            f"proposer {name}: {type(proposer).__name__} has no name, propose and observe",
            "implement autoresearch.engine.proposers.base.Proposer",
        )
    return proposer


def _check_names(name: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raises ProposerOptions for an option that the factory doesn't know, or needs and hasn't."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return  # some callables have none to look at
    if any(item.kind is item.VAR_KEYWORD for item in parameters):
        return
    known = [item.name for item in parameters]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise ProposerOptions(f"proposer {name} has no option {option!r}", hint)
    for item in parameters:
        needed = item.default is item.empty and item.kind is not item.VAR_POSITIONAL
        if needed and item.name not in options:
            raise ProposerOptions(
                f"proposer {name} needs the option {item.name!r}",
                f"--agent-option {item.name}=...",
            )
