"""Any program as a proposer: it edits files in its working directory.

    proposer = CommandProposer("python my_proposer.py --greedy")

The program is started in a scratch copy of the champion and gets one JSON object on stdin:

    {"workspace": ".", "artifacts": ["train.py"], "program": "program.md's path, absolute",
     "notes": "...", "history": {...digest...}, "seconds": 600, "attempt": 0, "failure": null,
     "seed": 7, "dollars_left": null, "start": null, "in_flight": []}

`start` names the former champion whose program is in the workspace instead of the champion's,
`in_flight` the ideas that are being measured meanwhile; these also end the list of what was tried
in `history`, with the status "in_flight", so that who proposes what wasn't tried passes them over.
It may print a line of JSON, the last one counts: {"description": "...", "predicted": -0.004,
"cost": {"dollars": 0.01, "tokens_in": 900, "tokens_out": 80}}. Its exit code is not trusted: an
edit counts, and no edit is no proposal. {"description": "why", "exhausted": true} without an edit
says that there will be none any more.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoresearch.engine.jail import environment, run_jailed
from autoresearch.engine.proposers.base import (
    EXHAUSTED,
    NO_EDIT,
    UNKNOWN_COST,
    Proposal,
    ProposalRequest,
    ProposerOptions,
    ProposerUnavailable,
    snapshot,
)
from autoresearch.engine.proposers.digest import Entry
from autoresearch.engine.proposers.outcome import judge
from autoresearch.engine.proposers.process import (
    Finished,
    needed_environment,
    run_program,
)
from autoresearch.engine.proposers.text import number, said
from autoresearch.engine.sandbox import Tier
from autoresearch.engine.trial import Cost, Trial

SOON_SECONDS = 5.0  # in which a program answers that works off a list
IN_FLIGHT = "in_flight"  # status in the history of what is being measured


class CommandProposer:
    """Runs `command` (a list, or a string split as a shell would) for every proposal.

    The program sees the common environment variables and those named in `pass_env`. It works in
    the folder `cwd` of the scratch copy. With a `tier` it is jailed: it can write in the copy
    alone and read nothing of yours beside it, and it has no network unless `network`.

    One that answers soon is asked once at a time, and so knows of each idea before its own: many
    work off a list. Asked together they would all propose the same.
    """

    name = "command"

    def __init__(
        self,
        command: str | Sequence[str],
        *,
        pass_env: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        cwd: str = ".",
        tier: Tier | None = None,
        network: bool = False,
    ) -> None:
        self._argv = (
            split_command(command) if isinstance(command, str) else [str(x) for x in command]
        )
        if not self._argv:
            raise ProposerOptions("proposer command: the command is empty", "give a program")
        self._pass_env = tuple(pass_env)
        self._environ = environ
        self._cwd = cwd
        self._tier = tier
        self._network = network
        self._took = 0.0  # seconds, the latest answer

    @property
    def reentrant(self) -> bool:
        """May it be asked in several threads at the same time?"""
        return self._took > SOON_SECONDS

    def check(self) -> None:
        """Raises ProposerUnavailable when there is no such program."""
        path = needed_environment(self._pass_env, self._environ).get("PATH")
        if shutil.which(self._argv[0], path=path) is None:
            raise ProposerUnavailable(
                f"proposer command: there is no program {self._argv[0]!r} to start",
                "give the full path of a program that can be executed",
            )

    def propose(self, request: ProposalRequest) -> Proposal:
        """Run the program once. Raises ProposerUnavailable when it can't be started."""
        before = snapshot(request.folder)
        with tempfile.TemporaryDirectory(prefix="autoresearch-command-") as private:
            program = Path(private) / "program.md"
            program.write_text(request.program, encoding="utf-8")
            try:
                stdin = json.dumps(_message(request, program), ensure_ascii=False).encode()
                done = self._run(request, stdin, Path(private))
            except OSError as error:
                raise ProposerUnavailable(
                    f"proposer command: {self._argv[0]} can't be started: {error}",
                    "give the full path of a program that can be executed",
                ) from error
        self._took = done.seconds
        report = said(done.stdout)
        proposal = judge(
            request,
            before,
            done,
            description=str(report.get("description") or ""),
            predicted=number(report.get("predicted")),
            cost=_cost(report.get("cost")),
            name="the command",
        )
        if proposal.problem_kind == NO_EDIT and report.get("exhausted") is True:
            return replace(proposal, problem_kind=EXHAUSTED, problem=str(report["description"]))
        return proposal

    def _run(self, request: ProposalRequest, stdin: bytes, private: Path) -> Finished:
        cwd = request.folder / self._cwd
        if self._tier is None:
            return run_program(
                self._argv,
                cwd=cwd,
                env=needed_environment(self._pass_env, self._environ),
                stdin=stdin,
                seconds=request.seconds,
                cancelled=request.cancelled,
            )
        return run_jailed(
            self._argv,
            tier=self._tier,
            cwd=cwd,
            env=environment(self._pass_env, network=self._network),
            private=private,
            writable=[request.folder],
            network=self._network,
            stdin=stdin,
            seconds=request.seconds,
            cancelled=request.cancelled,
        )

    def observe(self, trial: Trial) -> None:
        """Nothing to do: the history is handed over with every request."""


def split_command(command: str) -> list[str]:
    """Its words, as a shell would split them. Raises ValueError for an unclosed quote."""
    if os.name != "nt":
        return shlex.split(command)
    return [part.strip('"') for part in shlex.split(command, posix=False)]


def _message(request: ProposalRequest, program: Path) -> dict[str, Any]:
    history = request.digest.to_dict()
    undecided = dict.fromkeys(field.name for field in dataclasses.fields(Entry))
    history["tried"] += [
        {**undecided, "status": IN_FLIGHT, "description": description, "reason": ""}
        for description in request.in_flight
    ]
    return {
        "workspace": str(request.folder),
        "artifacts": list(request.artifacts),
        "program": str(program),
        "notes": request.notes,
        "history": history,
        "seconds": request.seconds,
        "attempt": request.attempt,
        "failure": None if request.failure is None else request.failure.to_dict(),
        "seed": request.seed,
        "dollars_left": request.dollars_left,
        "start": request.start,
        "in_flight": list(request.in_flight),
    }


def _cost(value: Any) -> Cost:
    """What the program says it cost; a faulty entry is unknown, never zero."""
    if not isinstance(value, Mapping):
        return UNKNOWN_COST
    dollars = number(value.get("dollars"))
    tokens = [number(value.get(name)) for name in ("tokens_in", "tokens_out")]
    if any(item is not None and item < 0 for item in (dollars, *tokens)):
        return UNKNOWN_COST
    counts = [None if item is None else int(item) for item in tokens]
    known = "unknown" if dollars is None and counts == [None, None] else "native"
    return Cost(dollars, counts[0], counts[1], known)
