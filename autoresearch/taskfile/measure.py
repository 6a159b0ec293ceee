"""Runner and scorer, jailed: the Measure of a task file.

    measure = CommandMeasure(task, guard, tier, score_id)
    replicate = measure(MeasureRequest(folder, seed, run_dir))

The runner works in a fresh copy of the candidate. The scorer works in a folder that holds its own
files alone, laid out afresh each time: no file of a candidate can be imported by it, and nothing
that a candidate writes there lasts. It reads the candidate and what the runner left.

Several measurements may be under way in threads of this process: what they share is locked.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import statistics
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoresearch.engine.errors import Rejected
from autoresearch.engine.jail import environment, run_jailed
from autoresearch.engine.proposers.process import Finished
from autoresearch.engine.proposers.text import last_lines
from autoresearch.engine.sandbox import Tier
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Failure, Replicate
from autoresearch.neighbours import Neighbours
from autoresearch.taskfile.files import fingerprint
from autoresearch.taskfile.guard import Guard
from autoresearch.taskfile.inputs import RUNNER, Inputs, InTheWay
from autoresearch.taskfile.leavings import leave_new_files, why_it_failed
from autoresearch.taskfile.model import Program, Runner, Scorer, TaskFile
from autoresearch.taskfile.score import PHASE, Scored, missing_metric, read_score

TAMPERED = "tampered"
# Kinds of failure that mean a broken rule, not a broken program.
RULES = frozenset({TAMPERED})
LOG_NAME = "run.log"
AGREEING_RUNS = 3  # of which all repeats agree: then there is no noise to average
LOOK_SECONDS = 0.25  # between two looks at a machine on which time is measured, 2 ms each


class _Failed(Exception):
    """Ends a measurement. Never leaves this module."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass
class CommandMeasure:
    """Measures candidates of one task.

    `score_id` names all that a score depends on beside them and the inputs: these are added.
    """

    task: TaskFile
    guard: Guard
    tier: Tier
    score_id: str
    role: str = "scorer"  # or "holdout"
    # Of so many runs in a row the repeats agreed exactly; once they didn't, they never count again.
    agreed: int = 0
    noisy: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __call__(self, request: MeasureRequest) -> Replicate:
        """Run and score `request.folder` once; never raises for what it or the scorer does.

        A cancelled request ends soon, with whatever.
        """
        began, seconds = time.monotonic(), dict[str, float]()
        request.run_dir.mkdir(parents=True)
        failure: Failure | None = None
        scored, score_id = Scored(0.0), ""
        watch = Neighbours(every=LOOK_SECONDS)
        try:
            # What doesn't measure time isn't disturbed, and isn't watched.
            with watch if self._scorer.timed else contextlib.nullcontext():
                scored, score_id = self._measure(request, seconds)
        except _Failed as failed:
            failure = failed.failure
        times = {f"{phase}_seconds": value for phase, value in seconds.items()}
        metrics = {**times, **scored.metrics, self.task.objective.metric: scored.score}
        if self._scorer.timed:
            metrics["others_cpu_share"] = watch.share
        if failure is None and self.role == "scorer":
            failure = missing_metric(self.task, metrics)
        seconds["total"] = time.monotonic() - began
        details = {"tier": self.tier.name, "run_dir": str(request.run_dir)}
        if failure is not None:
            return Replicate(request.seed, None, seconds=seconds, failure=failure, details=details)
        return Replicate(
            request.seed,
            scored.score,
            metrics=metrics,
            seconds=seconds,
            disturbed=watch.disturbance,
            score_id=score_id,
            details={**details, "agreed": self.agreed},
        )

    def remember(self, runs: Iterable[Replicate]) -> CommandMeasure:
        """Take from earlier runs, in any order, whether repeats of this score agreed; itself."""
        score_id = self._score_id
        told = [
            int(run.details["agreed"])
            for run in runs
            if run.score_id == score_id and "agreed" in run.details
        ]
        if told:
            self.noisy = 0 in told
            self.agreed = 0 if self.noisy else max(told)
        return self

    @property
    def deterministic(self) -> bool:
        """Is one scoring of a run enough? A coarse score agrees with itself by chance, for once."""
        return self.agreed >= AGREEING_RUNS and not self.noisy

    @property
    def _score_id(self) -> str:
        """With other inputs it is another score."""
        inputs = self.guard.inputs.digest(self.role)
        if not inputs:
            return self.score_id
        return hashlib.sha256(f"{self.score_id} {inputs}".encode()).hexdigest()[:16]

    @property
    def _inputs(self) -> Inputs:
        return self.guard.inputs.inputs

    @property
    def _scorer(self) -> Scorer:
        if self.role == "holdout" and self.task.holdout is not None:
            return self.task.holdout
        return self.task.scorer

    def _measure(self, request: MeasureRequest, seconds: dict[str, float]) -> tuple[Scored, str]:
        """What it scores, and the score's id. Raises _Failed."""
        files, inputs = self.guard.changes, self.guard.inputs.changes
        with files.watched() as files_changed, inputs.watched() as inputs_changed:
            _refuse_tampering(files.untold(), "while the candidate was made")
            changed = inputs.untold()
            if changed:
                text = f"inputs changed since the last run: {changed}"
                text += "; the champion is measured anew"
                request.on_event("warning", {"message": text})
            before = _prints(request.folder)
            found: Scored | _Failed
            try:
                found = self._run_and_score(request, seconds)
            except _Failed as failed:
                if request.cancelled():
                    raise  # nobody hears of it, so nothing is told to it
                found = failed
            # Tampering is told whatever else went wrong: it may be why.
            _refuse_tampering(files_changed(), "while the candidate ran")
            if _prints(request.folder) != before:
                raise _Failed(Failure("runner", TAMPERED, "the candidate's own files changed"))
            with inputs.lock:  # other runs look, too, and what they find changes the score's id
                changed = inputs_changed()
                score_id = "" if changed or isinstance(found, _Failed) else self._score_id
        if changed:
            raise _Failed(Failure("runner", TAMPERED, f"inputs changed while it ran: {changed}"))
        leave_new_files(request.run_dir / "output", request.folder, self._most_bytes)
        if isinstance(found, _Failed):
            raise found
        return found, score_id

    def _run_and_score(self, request: MeasureRequest, seconds: dict[str, float]) -> Scored:
        words = {"program": str(request.folder), "seed": str(request.seed)}
        if self.task.runner is not None:
            output = request.run_dir / "output"
            request.on_event("phase", {"phase": "running"})
            with _timed(seconds, "runner"):
                try:
                    self._run(request, output, {**words, "program": str(output)})
                finally:
                    self._inputs.unlink(output)
            away = self.guard.leads_out(output)
            if away:
                raise _Failed(Failure("runner", TAMPERED, f"it left what leads out: {away}"))
            words["output"] = str(output)
        request.on_event("phase", {"phase": "scoring"})
        with _timed(seconds, "scorer"):
            return self._score(request, words)

    # -- the runner ------------------------------------------------------------------------------

    def _run(self, request: MeasureRequest, output: Path, words: Mapping[str, str]) -> None:
        """Run it in a copy of the candidate until it succeeds or its retries are used up."""
        runner = self.task.runner
        assert runner is not None
        for attempt in range(runner.retries + 1):
            shutil.rmtree(output, ignore_errors=True)
            shutil.copytree(
                request.folder, output, symlinks=True, ignore=shutil.ignore_patterns(".git")
            )
            try:
                readable = self._inputs.link(RUNNER, output)
                done = self._program(
                    runner, output, request, words, writable=[output], readable=readable
                )
                failure = self._runner_failure(done, runner)
            except InTheWay as error:
                raise _Failed(Failure("runner", TAMPERED, error.message)) from error
            except OSError as error:
                failure = Failure("runner", "missing", str(error))
            if failure is None:
                return
            if attempt < runner.retries:
                text = f"the runner failed, attempt {attempt + 2} follows: {failure.message}"
                request.on_event("warning", {"message": text})
        assert failure is not None
        raise _Failed(failure)

    def _runner_failure(self, done: Finished, runner: Runner) -> Failure | None:
        if done.stopped == "deadline":
            kind, message = "timeout", f"it was not done after {runner.timeout_seconds:g} s"
        elif done.stopped:
            kind, message = "flood", "it printed without end"
        elif done.returncode < 0:
            kind, message = "killed", f"it died of signal {-done.returncode}"
        elif done.returncode:
            kind, message = "exit_code", f"it exited with status {done.returncode}"
            message += why_it_failed(self._inputs, runner, self.tier, done.tail)
        else:
            return None
        return Failure("runner", kind, message, self._tail(done))

    # -- the scorer ------------------------------------------------------------------------------

    def _score(self, request: MeasureRequest, words: Mapping[str, str]) -> Scored:
        """Score as often as asked, or once where that is known to agree exactly."""
        asked = 1 if self.deterministic else self._scorer.repeats
        found = [self._score_once(request, words, at) for at in range(asked)]
        if asked > 1:
            with self._lock:
                self.noisy |= any(item != found[0] for item in found)
                self.agreed = 0 if self.noisy else self.agreed + 1
        names = {name for item in found for name in item.metrics}
        return Scored(
            statistics.fmean(item.score for item in found),
            {
                name: statistics.fmean(i.metrics[name] for i in found if name in i.metrics)
                for name in sorted(names)
            },
        )

    def _score_once(self, request: MeasureRequest, words: Mapping[str, str], at: int) -> Scored:
        folder = request.run_dir / f"{self.role}-{at}"
        prints = self.guard.lay_out(self.role, folder)
        readable = [request.folder]
        readable += self._linked_inputs(folder)
        readable += [Path(words["output"])] if "output" in words else []
        try:
            done = self._program(
                self._scorer, folder, request, words, writable=[folder], readable=readable
            )
        except OSError as error:
            raise _Failed(Failure(PHASE, "missing", str(error))) from error
        if not self.guard.intact(prints, folder):
            raise _Failed(Failure(PHASE, TAMPERED, "the scorer's files changed while it scored"))
        shutil.rmtree(folder, ignore_errors=True)
        found = read_score(self._scorer, done)
        if isinstance(found, Failure):
            raise _Failed(replace(found, log_tail=self._tail(done)))
        return found

    def _linked_inputs(self, folder: Path) -> list[Path]:
        try:
            return self._inputs.link(self.role, folder)
        except OSError as error:
            raise _Failed(Failure(PHASE, "missing", str(error))) from error

    # -- both ------------------------------------------------------------------------------------

    def _program(
        self,
        program: Program,
        cwd: Path,
        request: MeasureRequest,
        words: Mapping[str, str],
        *,
        writable: list[Path],
        readable: list[Path] | None = None,
    ) -> Finished:
        """Run one command, jailed, and log what it printed. Raises OSError if it can't start."""
        argv = [_filled(word, words) for word in program.command]
        known = {f"AUTORESEARCH_{name.upper()}": value for name, value in words.items()}
        private = request.run_dir / "private"
        try:
            done = run_jailed(
                argv,
                tier=self.tier,
                cwd=cwd,
                env=environment(program.pass_env, {**known, **program.env}, program.network),
                private=private,
                readable=readable or [],
                writable=writable,
                network=program.network,
                seconds=program.timeout_seconds,
                cancelled=request.cancelled,
                kept_bytes=min(self._most_bytes, 1_000_000),
            )
        finally:
            shutil.rmtree(private, ignore_errors=True)
        if request.cancelled():
            raise _Failed(Failure("runner", "cancelled", "nobody waits for it any more"))
        log = request.run_dir / LOG_NAME
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(argv)}\n{done.stdout}{done.stderr}\n")
        return done

    @property
    def _most_bytes(self) -> int:
        return self.task.logging.max_bytes

    def _tail(self, done: Finished) -> str:
        return last_lines(done.tail, self.task.logging.tail_lines)


class _timed:
    """Adds the seconds of a block to a table."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self._seconds, self._name = seconds, name

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._name] = time.monotonic() - self._began


def tampered(changed: str, when: str) -> Failure:
    """That the scorer's files changed on disk, which ones, and when that was."""
    message = (
        f"{changed} changed on disk {when}; scoring goes on with what it was: if the change is "
        "yours, start again"
    )
    return Failure(PHASE, TAMPERED, message)


def _refuse_tampering(changed: str, when: str) -> None:
    if changed:
        raise _Failed(tampered(changed, when))


def _filled(word: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        word = word.replace("{" + name + "}", value)
    return word


def _prints(folder: Path) -> dict[str, str]:
    """What a candidate's folder holds. Raises _Failed for what no candidate holds."""
    try:
        return fingerprint(folder)
    except Rejected as error:
        raise _Failed(Failure("runner", TAMPERED, error.message)) from error
