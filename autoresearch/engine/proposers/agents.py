"""Headless coding agents as proposers: a fresh, short call per proposal, judged by its diff.

    proposer = AgentProposer("claude", model="sonnet", max_dollars=0.5)
    proposer.check()                # the installed program and its version
    proposal = proposer.propose(request)

What differs between agents stands in agent_table. An agent gets the common environment variables
and its own keys, a private folder for settings, its deadline, and no terminal to ask on: stdin
ends after the prompt.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.engine.proposers.agent_table import TABLE, Agent, Call
from autoresearch.engine.proposers.base import (
    BUDGET,
    Proposal,
    ProposalRequest,
    ProposerUnavailable,
    UnknownProposer,
    artifact_files,
    cost_of,
    snapshot,
)
from autoresearch.engine.proposers.outcome import judge
from autoresearch.engine.proposers.process import needed_environment, run_program
from autoresearch.engine.proposers.prompt import instructions
from autoresearch.engine.proposers.text import clean, number, one_line, said
from autoresearch.engine.trial import Trial

CHECK_SECONDS = 60.0
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)*(?:[-+.\w]*)?")


@dataclass(frozen=True)
class Installed:
    """A program that was found, and its version as it says."""

    program: str
    version: str


class AgentProposer:
    """Calls one of the agents in `agent_table.TABLE`.

    `program` is a path instead of a search on PATH; `model` the agent's own name of one; `extra`
    arguments of yours, put before the prompt; `pass_env` further variables it may see; `prices`
    dollars per million tokens in and out, where the agent itself says none; `home` another home
    folder than the user's (without their logins). Raises UnknownProposer.
    """

    reentrant = True

    def __init__(
        self,
        name: str,
        *,
        program: str | None = None,
        model: str | None = None,
        max_dollars: float | None = None,
        turns: int = 40,
        extra: Sequence[str] = (),
        pass_env: Sequence[str] = (),
        prices: tuple[float, float] | None = None,
        home: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        if name not in TABLE:
            raise UnknownProposer(f"no coding agent {name!r}", f"known: {', '.join(TABLE)}")
        self.name = name
        self._agent = TABLE[name]
        self._program = program
        self._model = model
        self._max_dollars = max_dollars
        self._turns = turns
        self._extra = list(extra)
        self._pass_env = tuple(pass_env)
        self._prices = prices
        self._home = home
        self._environ = environ
        self._installed: Installed | None = None

    @property
    def confines(self) -> str:
        """What the agent's own settings keep it from, in words."""
        return self._agent.confines

    def check(self) -> Installed:
        """The installed program, once found to know our flags.

        Raises ProposerUnavailable when it is missing, doesn't answer, or lacks a flag.
        """
        if self._installed is None:
            self._installed = self._look()
        return self._installed

    def propose(self, request: ProposalRequest) -> Proposal:
        """One call of the agent. Raises ProposerUnavailable."""
        dollars = _least(self._max_dollars, request.dollars_left)
        if dollars is not None and dollars <= 0:
            return Proposal("", problem="no money is left for a call", problem_kind=BUDGET)
        installed = self.check()
        before = snapshot(request.folder)
        with tempfile.TemporaryDirectory(prefix=f"autoresearch-{self.name}-") as private:
            call = Call(
                folder=request.folder.resolve(),
                private=Path(private).resolve(),
                artifacts=artifact_files(request.folder, request.artifacts) or request.artifacts,
                prompt=instructions(request),
                model=self._model,
                dollars=dollars,
                turns=self._turns,
            )
            self._write(call)
            try:
                done = run_program(
                    [installed.program, *self._arguments(call)],
                    cwd=call.folder,
                    env={**self._base(), **self._agent.environment(call)},
                    stdin=call.prompt.encode() if self._agent.stdin else b"",
                    seconds=request.seconds,
                    cancelled=request.cancelled,
                )
            except OSError as error:
                raise self._unavailable(f"can't be started: {error}") from error
            report = self._agent.parse(done, call.private)
        stated = said(report.message)
        return judge(
            request,
            before,
            done,
            description=str(stated.get("description") or "") or _first_line(report.message),
            predicted=number(stated.get("predicted")),
            cost=cost_of(report.dollars, report.tokens_in, report.tokens_out, self._prices),
            name=self.name,
            failure=f"says: {report.error}" if report.error else "",
            exits=self._agent.exits,
            message=report.message,
        )

    def observe(self, trial: Trial) -> None:
        """Nothing to do: every call is fresh and gets the digest."""

    # -- the program -------------------------------------------------------------------------------

    def _base(self) -> dict[str, str]:
        env = needed_environment((*self._agent.keys, *self._pass_env), self._environ)
        env.update({"TERM": "dumb", "NO_COLOR": "1", "CI": "1"})
        if self._home is not None:
            env = {name: value for name, value in env.items() if not name.startswith("XDG_")}
            env.update({"HOME": str(self._home), "USERPROFILE": str(self._home)})
        return env

    def _arguments(self, call: Call) -> list[str]:
        arguments = self._agent.arguments(call)
        if not self._extra:
            return arguments
        # Before the prompt, where one is the last argument; behind the flags everywhere else.
        last = 1 if arguments[-1] in ("-", call.prompt) else 0
        if len(arguments) > 1 and arguments[-2] == "-p":
            last = 2
        at = len(arguments) - last
        return [*arguments[:at], *self._extra, *arguments[at:]]

    def _write(self, call: Call) -> None:
        call.prompt_file.write_text(call.prompt, encoding="utf-8")
        for name, content in self._agent.files(call).items():
            text = content if isinstance(content, str) else json.dumps(content, indent=1)
            (call.private / name).write_text(text, encoding="utf-8")

    def _look(self) -> Installed:
        path = self._base().get("PATH")
        names = (self._program,) if self._program else self._agent.programs
        found = _which(names, path)
        if found is None:
            raise self._unavailable(f"no program {' or '.join(names)} on PATH")
        version = _VERSION.search(self._ask(found, ["--version"]))
        text = self._ask(found, list(self._agent.help))
        missing = [flag for flag in self._flags() if not _mentions(text, flag)]
        if text and missing:
            raise self._unavailable(
                f"{found} {version[0] if version else '(unknown version)'} does not know "
                f"{', '.join(missing)}"
            )
        return Installed(found, version[0] if version else "unknown")

    def _ask(self, program: str, arguments: list[str]) -> str:
        """What it prints. Raises ProposerUnavailable when it fails or hangs."""
        with tempfile.TemporaryDirectory(prefix="autoresearch-check-") as folder:
            try:
                done = run_program(
                    [program, *arguments], cwd=Path(folder), env=self._base(), seconds=CHECK_SECONDS
                )
            except OSError as error:
                raise self._unavailable(f"can't be started: {error}") from error
        if done.stopped or done.returncode != 0:
            how = "hung" if done.stopped else f"ended with status {done.returncode}"
            raise self._unavailable(f"`{' '.join(arguments)}` {how}: {one_line(done.tail, 200)}")
        return clean(f"{done.stdout}\n{done.stderr}")

    def _flags(self) -> list[str]:
        """The flags that a call uses, all that may be in it."""
        call = Call(Path("/f"), Path("/p"), ("train.py",), "prompt", model="m", dollars=1.0)
        return sorted({a for a in self._agent.arguments(call) if re.fullmatch(r"--?[a-zA-Z-]+", a)})

    def _unavailable(self, message: str) -> ProposerUnavailable:
        return ProposerUnavailable(
            f"agent {self.name}: {message}", f"install or update it: {self._agent.install}"
        )


def _mentions(text: str, flag: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text) is not None


def _which(names: Sequence[str], path: str | None) -> str | None:
    """The first of these programs that is on the path."""
    return next(filter(None, (shutil.which(name, path=path) for name in names)), None)


def _least(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None


def _first_line(message: str) -> str:
    """The first line of an agent's message, without marks of a heading or list."""
    for line in clean(message).splitlines():
        if stripped := line.strip(" #*-`>"):
            return one_line(stripped)
    return ""


def agents_found(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Names of the agents on PATH with their programs; nothing is run."""
    path = needed_environment((), environ).get("PATH")
    found: dict[str, str] = {}
    for name, agent in TABLE.items():
        program = _which(agent.programs, path)
        if program:
            found[name] = program
    return found


__all__ = ["TABLE", "Agent", "AgentProposer", "Installed", "agents_found"]
