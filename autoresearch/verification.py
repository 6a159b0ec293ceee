"""Is the study what its ledger says? The chain of records, and git against them.

for finding in verify(open_study(folder)):
    print(finding)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from autoresearch.engine.change import state_hash
from autoresearch.engine.errors import GitFailed, WorkspaceError
from autoresearch.engine.git import open_repository
from autoresearch.engine.ledger import export_tsv
from autoresearch.engine.state import BASELINE, State
from autoresearch.engine.study import Study as StudyRefs
from autoresearch.engine.trial import Trial, TrialStatus
from autoresearch.opening import AnyStudy
from autoresearch.study import TSV_NAME


@dataclass(frozen=True)
class Finding:
    """Something that doesn't fit. `where`: ledger, git or files."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def verify(study: AnyStudy) -> list[Finding]:
    """Everything that is wrong, the chain first; nothing is mended. Empty if all fits."""
    found = [Finding("ledger", str(problem)) for problem in study.ledger.verify()]
    if found:
        return found  # what can't be trusted isn't compared with anything
    records = study.ledger.records()
    state = State.of(records)
    if not state.trials and not study.git_root.exists():
        return []  # a task whose study has not begun
    found += _scores(state)
    try:
        found += _refs(study, state)
        if state.trials:
            found += _git(study, state, _comparable(records))
    except WorkspaceError as error:
        found.append(Finding("git", error.message))
    return found + list(_table(study)) if state.trials else found


def _comparable(records: list[dict[str, Any]]) -> bool:
    """Were all hashes of programs made by this minor version of Python, whose trees they hash?"""
    here = sys.version.split()[0].rsplit(".", 1)[0]
    headers = [record["versions"]["python"] for record in records if record["kind"] == "study"]
    return all(version.rsplit(".", 1)[0] == here for version in headers)


def _scores(state: State) -> Iterator[Finding]:
    """A trial's parent must be a kept trial that was decided before it; ids tell no order."""
    decided: set[int] = set()
    kept: set[int] = set()
    for trial in state.trials.values():
        if trial.parent is not None and trial.parent not in kept:
            yield Finding("ledger", f"trial {trial.id} names {trial.parent} as its champion")
        if trial.parent is None and trial.id != BASELINE:
            yield Finding("ledger", f"trial {trial.id} names no champion")
        if trial.start is not None and trial.start not in kept:
            yield Finding("ledger", f"trial {trial.id} names {trial.start} as where it began")
        for rival in trial.won_against:
            if rival not in kept:
                yield Finding("ledger", f"trial {trial.id} names {rival} as a champion it met")
        for member in trial.combines:
            if member not in decided:
                yield Finding("ledger", f"trial {trial.id} names {member} as a member")
        decided.add(trial.id)
        if trial.status is TrialStatus.KEEP:
            kept.add(trial.id)


def _refs(study: AnyStudy, state: State) -> Iterator[Finding]:
    """Every trial's commit, of those that weren't kept too, is reachable, and there are no more."""
    refs = StudyRefs(open_repository(study.git_root), study.tag)
    commits = refs.trial_commits()
    lost = sorted(set(commits) - {*state.trials, *state.begun})
    if lost and not state.trials:
        numbers = ", ".join(map(str, lost))
        text = f"git has trials {numbers} of {study.tag}, and {study.ledger.path.name} has none"
        yield Finding("ledger", text)
    for trial_id in lost if state.trials else ():
        text = f"git has a commit of trial {trial_id}, which isn't there: its line was removed, or "
        yield Finding(
            "ledger", text + "a kill came before it, and the next writer drops the commit"
        )
    unnamed = {
        trial.id: trial.commit
        for trial in (*state.trials.values(), *state.begun.values())
        if trial.commit and trial.id != BASELINE and commits.get(trial.id) != trial.commit
    }
    gone = refs.lost(unnamed)
    if gone:
        yield Finding("git", f"the commits of trials {', '.join(map(str, gone))} are gone")
    there = [str(trial_id) for trial_id in unnamed if trial_id not in gone]
    if there:
        text = f"refs/autoresearch/{study.tag} lacks trials {', '.join(there)}"
        yield Finding("git", f"{text}; the next writer names them again")


def _git(study: AnyStudy, state: State, comparable: bool) -> Iterator[Finding]:
    workspace = study.workspace
    kept = [t for t in state.trials.values() if t.status is TrialStatus.KEEP]
    for trial in kept:
        yield from _commit(study, trial, comparable)
    expected = [(t.id, t.commit) for t in kept if t.id != BASELINE]
    on_branch = [
        (k.trial_id, k.commit) for k in workspace.history(str(state.trials[BASELINE].commit))
    ]
    for trial_id, commit in expected:
        if (trial_id, commit) not in on_branch:
            text = f"trial {trial_id} was kept, and {str(commit)[:10]} isn't on {workspace.branch}"
            yield Finding("git", text)
    for trial_id, commit in on_branch:
        if (trial_id, commit) not in expected:
            text = f"{commit[:10]} on {workspace.branch} says trial {trial_id}, which wasn't kept"
            yield Finding("git", text)
    if sorted(on_branch) == sorted(expected) and on_branch != expected:
        yield Finding("git", f"{workspace.branch} has the kept trials in another order")
    champion = None if state.champion is None else state.trials[state.champion]
    if champion is not None and champion.commit:
        head = workspace.champion_commit
        if not _same(study, champion.commit, head):
            text = f"{workspace.branch} ends with another program than trial {champion.id}'s"
            yield Finding("git", text)


def _commit(study: AnyStudy, trial: Trial, comparable: bool) -> Iterator[Finding]:
    """The commit of a kept trial exists, and holds the program that was measured."""
    try:
        meaning = study.workspace.meaning(str(trial.commit), study.task)
    except GitFailed:
        yield Finding("git", f"trial {trial.id} was kept, and its commit {trial.commit} is gone")
        return
    if comparable and state_hash(meaning) != trial.diff_hash:
        yield Finding("git", f"the commit of trial {trial.id} holds another program than measured")


def _same(study: AnyStudy, one: str, other: str) -> bool:
    try:
        return study.workspace.meaning(one, study.task) == study.workspace.meaning(
            other, study.task
        )
    except GitFailed:
        return False


def _table(study: AnyStudy) -> Iterator[Finding]:
    table = study.root / TSV_NAME
    text = table.read_text(encoding="utf-8") if table.is_file() else None
    if text is not None and text != export_tsv(study.ledger.trials()):
        yield Finding("files", f"{TSV_NAME} differs from the ledger; the next trial writes it anew")
