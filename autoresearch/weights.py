"""Whose weights a study keeps, each in a folder as `autoresearch.model_folder` says.

    settle(study)                # keep the champion's, drop what is in its way
    weights_of(study, 7)         # raises NoData, CorruptFile

They are in `.autoresearch/weights/TAG/NNNN`. A folder appears whole or not at all, so a kill leaves
the weights of a trial or none. The ledger holds the hash of what was scored: other weights are
never taken for a trial's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from autoresearch.engine.errors import EngineError
from autoresearch.engine.state import BASELINE, State
from autoresearch.engine.task import Part
from autoresearch.engine.trial import Replicate, Trial, TrialStatus
from autoresearch.model_folder import FACTS_NAME, SCRIPT_NAME, WEIGHTS_NAME, Weights, describe
from prepare.cache import read_json, sha256_file, sync
from prepare.errors import CorruptFile, NoData, PrepareError
from prepare.settings import FILE_NAME, Settings

if TYPE_CHECKING:
    from autoresearch.study import Study

_FRESH = ".new"


class Keeping(Part):
    """The table `[weights]` of autoresearch.toml."""

    keep: Literal["champion", "all", "none"] = Field(
        "champion",
        description="whose weights are kept: the champion's and the baseline's, every champion's, "
        "or nobody's",
    )


def settle(study: Study, sweep: bool = False) -> list[str]:
    """Keep the weights that are wanted, drop the others; what didn't work, in words.

    Called again, also after a kill at any point, it finishes what was begun. sweep: look through
    the runs of all trials for weights that a kill left there, and tell of champions' that go: an
    earlier version kept them, or an earlier setting.
    """
    state, problems = study.state, []
    wanted = wanted_trials(state, study.keeping.keep)
    for number in wanted:
        try:
            _keep(study, state.trials[number])
        except (OSError, PrepareError, EngineError) as error:
            problems.append(f"the weights of trial {number} are not kept: {error}")
        except (KeyError, TypeError, ValueError) as error:  # a record of another version
            why = f"its record can't be read ({type(error).__name__})"
            problems.append(f"the weights of trial {number} are not kept: {why}")
    gone: set[int] = set()
    try:
        gone |= _drop_others(study, wanted)
        gone |= _clear_runs(study, state, wanted, sweep)
    except OSError as error:
        problems.append(f"weights that nobody needs are still there: {error}")
    if sweep and gone:
        which = ", ".join(map(str, sorted(gone)))
        problems.append(
            f"dropped the weights of former champions ({which}): {FILE_NAME} asks for "
            f'keep = "{study.keeping.keep}" under [weights]'
        )
    return problems


def wanted_trials(state: State, keep: str) -> list[int]:
    """Whose weights are to be kept.

    The latest kept trial's, too: where an earlier champion was brought back, it may yet return.
    """
    kept = [t.id for t in state.trials.values() if t.status is TrialStatus.KEEP]
    if keep == "none":
        return []
    if keep == "all":
        return kept
    return [n for n in kept if n in (BASELINE, state.champion, kept[-1])]


def weights_of(study: Study, trial_id: int) -> Weights:
    """The kept weights of a trial. Raises NoData or CorruptFile."""
    place = study.weights / f"{trial_id:04d}"
    trial = study.state.trials.get(trial_id)
    if not place.is_dir():
        raise NoData(
            f"the weights of trial {trial_id} are not kept",
            "the champion's and the baseline's are, unless [weights] says otherwise, and what was "
            f'dropped stays so; `keep = "all"` there, in {FILE_NAME}, keeps every champion\'s from '
            "then on",
        )
    found = Weights.open(place)
    if trial is None or not _belongs(found.facts, trial):
        raise CorruptFile(
            f"{place} holds the weights of another trial than the ledger's {trial_id}",
            "delete that folder",
        )
    return found


def has_weights(study: Study, trial_id: int) -> bool | None:
    """Whether those of a trial are kept; None where none of its runs left any, or none may be."""
    if (study.weights / f"{trial_id:04d}").is_dir():
        return True
    left_some = any("weights" in run.details for run in study.state.trials[trial_id].replicates)
    return False if left_some and study.keeping.keep != "none" else None


def _belongs(facts: Mapping[str, Any], trial: Trial) -> bool:
    scored = {run.details.get("weights") for run in trial.replicates}
    known = facts.get("sha256") in scored or scored == {None}
    return known and (facts.get("trial"), facts.get("commit")) == (trial.id, trial.commit)


def _keep(study: Study, trial: Trial) -> None:
    """Make the folder of a trial's weights, if its runs have any."""
    target = study.weights / f"{trial.id:04d}"
    with contextlib.suppress(CorruptFile, FileNotFoundError):
        if _belongs(read_json(target / FACTS_NAME), trial):
            return
    run = best_run(study, trial)
    if run is None:
        return
    shutil.rmtree(target, ignore_errors=True)
    source = _folder(study, trial, run) / WEIGHTS_NAME
    fresh = target.with_name(target.name + _FRESH)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    _link(source, fresh / WEIGHTS_NAME)
    result = read_json(source.with_name("result.json"))
    digest = sha256_file(fresh / WEIGHTS_NAME)
    if run.details.get("weights", digest) != digest or result.get("val_bpb") != run.score:
        raise CorruptFile(f"{source} isn't what was scored")
    program = study.workspace.read(str(trial.commit), SCRIPT_NAME)
    settings = _settings_of(study, trial)
    describe(fresh, program, settings, result, {"study": study.tag, **_decision(trial)}, digest)
    for path in fresh.iterdir():
        sync(path)
    _sync_folder(fresh)
    os.replace(fresh, target)
    _sync_folder(target.parent)


def best_run(study: Study, trial: Trial) -> Replicate | None:
    """The best calm run of a trial whose weights are still there, or its best one at all."""
    sign = 1 if study.task.objective.direction == "minimize" else -1
    runs = [
        run
        for run in trial.replicates
        if run.score is not None and (_folder(study, trial, run) / WEIGHTS_NAME).is_file()
    ]
    return min(runs, key=lambda r: (bool(r.disturbed), sign * (r.score or 0.0)), default=None)


def _folder(study: Study, trial: Trial, run: Replicate) -> Path:
    """Where a run lies now: the workspace may have been moved since."""
    recorded = str(run.details.get("run_dir") or "none")
    return study.run_folder(trial.id) / recorded.replace("\\", "/").rsplit("/", 1)[-1]


def _decision(trial: Trial) -> dict[str, Any]:
    scored = sum(run.score is not None and not run.disturbed for run in trial.replicates)
    return {
        "trial": trial.id,
        "commit": trial.commit,
        "idea": trial.description,
        "score": trial.score,
        "runs": scored,
        "delta": trial.delta,
        "confidence": trial.confidence,
        "parent": trial.parent,
    }


def _settings_of(study: Study, trial: Trial) -> Settings:
    """The settings that a trial was made under: the latest that the ledger has before it."""
    found: Mapping[str, Any] = {}
    for record in study.ledger.records():
        if record["kind"] == "study":
            found = record["settings"]
        elif record["kind"] == "trial" and record["id"] == trial.id:
            break
    return Settings.model_validate(found)


def _drop_others(study: Study, wanted: list[int]) -> set[int]:
    """Remove the folders of those that aren't wanted; whose they were."""
    names = {f"{number:04d}" for number in wanted}
    others = [folder for folder in study.weights.glob("[0-9]*") if folder.name not in names]
    for folder in others:
        shutil.rmtree(folder)
    return {int(folder.name) for folder in others if folder.name.isdecimal()}


def _clear_runs(study: Study, state: State, wanted: list[int], sweep: bool) -> set[int]:
    """Remove weights from the folders of runs, where they are kept by now or not wanted; which
    former champions had their only ones there."""
    trials, gone = state.trials.values(), set()
    for trial in trials if sweep else (t for t in trials if t.status is TrialStatus.KEEP):
        kept = (study.weights / f"{trial.id:04d}").is_dir()
        if kept or trial.id not in wanted:
            for path in study.run_folder(trial.id).glob(f"*/{WEIGHTS_NAME}"):
                path.unlink(missing_ok=True)
                if trial.status is TrialStatus.KEEP and not kept:
                    gone.add(trial.id)
    return gone


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
