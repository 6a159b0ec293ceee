"""Weights that are kept: whose, that they are theirs, and what a kill leaves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import backends
from autoresearch.engine.executor import Inline
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Replicate
from autoresearch.model_folder import FACTS_NAME, WEIGHTS_NAME, Weights
from autoresearch.pretraining import Pretraining
from autoresearch.sampling import read_text
from autoresearch.study import Study
from autoresearch.weights import settle, weights_of
from prepare.cache import sha256_file
from prepare.errors import CandidateError, CorruptFile, NoData, UsageError
from prepare.settings import Settings
from tests.unit.command_line import make_fake_workspace, run

SMALL = Settings(corpus_bytes=40_000, eval_bytes=2_000, vocab_size=256, max_seq_len=32)
RUN = {
    "verified": True,
    "score_id": "id",
    "seed": 42,
    "tokens": 1000,
    "tokens_per_second": 100.0,
    "num_steps": 10,
    "num_params": 1234,
    "training_seconds": 10.0,
    "backend": "cpu",
    "hardware": {"name": "A machine", "id": "h"},
    "policy": {
        "compute_dtype": "float32",
        "attention": "sdpa",
        "reasons": {"attention": "flash failed: no /home/somebody/secret/flash.so"},
    },
    "versions": {"torch": "2.13"},
    "tier": "none",
    "run_dir": "/home/somebody/secret",
}


def measure(study: Pretraining, request: MeasureRequest) -> Replicate:
    """A run that leaves weights, a hundred times the depth better per layer."""
    program = (request.folder / "train.py").read_text()
    depth = int(program.split("DEPTH = ")[1].split()[0])
    score = 2.0 - depth / 10 + request.seed % 7 / 1000
    request.run_dir.mkdir(parents=True)
    file = request.run_dir / WEIGHTS_NAME
    file.write_text(f"weights of DEPTH = {depth}, seed {request.seed}")
    result = {"status": "ok", "val_bpb": score, **RUN, "seed": request.seed}
    (request.run_dir / "result.json").write_text(json.dumps(result))
    details = {"tier": "none", "run_dir": str(request.run_dir), "weights": sha256_file(file)}
    return Replicate(request.seed, score, score_id="id", details=details)


@dataclass
class Workspace:
    folder: Path
    capsys: pytest.CaptureFixture[str]

    def trial(self, depth: int) -> None:
        (self.folder / "train.py").write_text(f"DEPTH = {depth}\n")
        code, _, err = run(self.capsys, "trial", "-m", f"*depth* {depth} https://example.org @ada")
        assert code in (0, 10), err

    @property
    def study(self) -> Study:
        return Study.read(self.folder)

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.study.weights.iterdir())

    def left_in_runs(self) -> list[str]:
        return [str(path) for path in self.study.runs.glob(f"**/{WEIGHTS_NAME}")]


@pytest.fixture
def workspace(
    tmp_path: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Workspace:
    table = f'\n[weights]\nkeep = "{getattr(request, "param", "champion")}"\n'
    files = {"autoresearch.toml": SMALL.dumps() + table}
    folder = make_fake_workspace(tmp_path / "w", monkeypatch, measure, "DEPTH = 1\n", files)
    monkeypatch.setattr("prepare.sample.write_text", write)
    return Workspace(folder, capsys)


def write(script: Path, *_: object, **named: Any) -> Iterator[str]:
    """Weights that say which they are."""
    yield "I am "
    yield script.read_text()


def test_the_champions_and_the_baselines_are_kept_and_no_others(workspace: Workspace) -> None:
    for depth in (3, 2, 5):
        workspace.trial(depth)
    assert workspace.study.state.champion == 3
    assert workspace.kept() == ["0000", "0003"] and not workspace.left_in_runs()
    found = weights_of(workspace.study, 3)
    assert found.file.read_text().startswith("weights of DEPTH = 5")
    assert found.script.read_text() == "DEPTH = 5\n"
    assert (found.max_seq_len, found.tokenizer.vocab_size) == (32, 256)
    best = min(r.score for r in workspace.study.state.trials[3].replicates)  # type: ignore[type-var]
    assert found.facts["val_bpb"] == best and found.facts["runs"] > 1
    with pytest.raises(NoData, match="trial 1 are not kept"):
        weights_of(workspace.study, 1)
    # An earlier champion again: the one before it may come back, and does.
    code, out, err = run(workspace.capsys, "undo", "0", "--json")
    assert json.loads(out)["weights"] is True and "weights" not in err
    run(workspace.capsys, "undo", "3")
    assert workspace.kept() == ["0000", "0003"]
    # One whose weights went when it was beaten: that is said.
    code, out, err = run(workspace.capsys, "undo", "1")
    assert code == 0 and "weights are gone" in err and '"all"' in err


def test_each_new_champion_writes_a_text_and_a_failure_ends_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.trial(3)
    assert read_text(workspace.study.weights / "0001")["text"] == "I am DEPTH = 3\n"
    assert not read_text(workspace.study.weights / "0000"), "a baseline isn't asked"

    def failing(*_: object, **named: Any) -> Iterator[str]:
        assert named["seconds"] <= 60 and named["sandbox"].strict
        raise CandidateError("no text was written: NaN")

    with monkeypatch.context() as patch:
        patch.setattr("prepare.sample.write_text", failing)
        (workspace.folder / "train.py").write_text("DEPTH = 5\n")
        code, _, err = run(workspace.capsys, "trial", "-m", "x")
    assert code == 0 and "champion wrote no text: no text was written: NaN" in err
    assert workspace.kept() == ["0000", "0002"]
    # Where several runs are under way at a time, one of them is timed: it waits for the end.
    with Study.write(workspace.folder) as study:
        study.loop.executor = Inline(study.loop.measure)
        study._event("decided", {"trial": study.state.trials[2].to_dict()})
        assert not read_text(study.weights / "0002")
    # What `sample` writes stands there from then on.
    monkeypatch.setattr(backends, "select", lambda requested=None: None)
    code, out, err = run(workspace.capsys, "sample", "--prompt", "Who?", "--seed", 4)
    found = read_text(workspace.study.weights / "0002")
    assert (code, out) == (0, "Who?I am DEPTH = 5\n\n"), err
    assert (found["prompt"], found["text"], found["seed"]) == ("Who?", "I am DEPTH = 5\n", 4)


def test_a_card_says_what_they_are_and_names_no_folder(workspace: Workspace) -> None:
    workspace.trial(4)
    folder = weights_of(workspace.study, 1).folder
    text = (folder / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---")[1])
    result = metadata["model-index"][0]["results"][0]
    facts = json.loads((folder / FACTS_NAME).read_text())
    assert result["metrics"][0]["value"] == facts["val_bpb"]
    commit = workspace.study.state.trials[1].commit
    for word in (commit, facts["sha256"], "A machine", "id:", r"\*depth\* 4", "float32"):
        assert str(word) in text
    assert "https://" not in text and "@ada" not in text, "no link, nobody is called"
    assert "secret" not in text and "secret" not in json.dumps(facts)


@pytest.mark.parametrize(
    ("workspace", "names"),
    [("all", ["0000", "0001", "0002"]), ("none", [])],
    indirect=["workspace"],
)
def test_a_setting_keeps_all_or_none(workspace: Workspace, names: list[str]) -> None:
    workspace.trial(3)
    workspace.trial(5)
    there = workspace.kept() if workspace.study.weights.exists() else []
    assert there == names and not workspace.left_in_runs()
    # Another setting from now on, or another version's habit: what goes is told, once.
    left = workspace.study.run_folder(1) / "candidate-0" / WEIGHTS_NAME
    left.parent.mkdir(exist_ok=True)
    left.write_text("as an earlier version left them")
    file = workspace.folder / "autoresearch.toml"
    file.write_text(file.read_text().replace('"all"', '"champion"'))
    said: list[Any] = []
    for _ in range(2):
        with Study.write(workspace.folder, on_event=lambda name, data: said.append(data)):
            pass
    told = [one["message"] for one in said if "former champions (1)" in one.get("message", "")]
    assert len(told) == 1 and workspace.study.keeping.keep in told[0]
    assert not workspace.left_in_runs()


def test_a_wrong_setting_is_told_before_anything_runs(workspace: Workspace) -> None:
    (workspace.folder / "autoresearch.toml").write_text(SMALL.dumps() + "[weights]\nkep = 1\n")
    code, _, err = run(workspace.capsys, "trial", "-m", "x")
    assert code == 2 and "'keep'" in err and not workspace.study.state.trials
    with pytest.raises(UsageError):
        _ = workspace.study.keeping


def test_other_weights_are_never_taken_for_a_trials(workspace: Workspace) -> None:
    workspace.trial(4)
    found = weights_of(workspace.study, 1)
    found.file.write_text("other")
    with pytest.raises(CorruptFile, match="hash"):
        Weights.open(found.folder)
    facts = json.loads((found.folder / FACTS_NAME).read_text())
    (found.folder / FACTS_NAME).write_text(
        json.dumps({"sha256": sha256_file(found.file), "settings": facts["tokenizer"]})
    )
    with pytest.raises(CorruptFile, match="which context"):
        _ = Weights.open(found.folder).max_seq_len
    # What was scored is gone, and something else lies in its place.
    (found.folder / FACTS_NAME).unlink()
    for result in workspace.study.run_folder(1).glob("candidate-*/result.json"):
        result.with_name(WEIGHTS_NAME).write_text("other")
    said: list[Any] = []
    with Study.write(workspace.folder, on_event=lambda name, data: said.append(data)):
        assert [one["message"] for one in said if "isn't what was scored" in one["message"]]
    with pytest.raises(NoData):
        weights_of(workspace.study, 1)
    os.rename(workspace.study.weights / "0000", workspace.study.weights / "moved")
    with pytest.raises(NoData):
        weights_of(workspace.study, 0)


STEPS = ("link", "replace", "mkdir", "unlink", "fsync", "rmdir")


def killed_at(number: int, work: Callable[[], Any]) -> bool:
    """Do `work` in another process, which dies at its `number`th change of a file; did it?"""
    child = os.fork()
    if child == 0:
        left = number

        def dying(usual: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(9)
                return usual(*args, **named)

            return call

        for name in STEPS:
            setattr(os, name, dying(getattr(os, name)))
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_point_leaves_whole_weights_of_the_right_trial(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept is decided and recorded; the process that then keeps the weights dies at every step."""
    workspace.trial(3)
    with monkeypatch.context() as patch:
        patch.setattr(Study, "_settle_weights", lambda self, sweep=False: None)
        workspace.trial(5)
    study = workspace.study
    assert study.state.champion == 2 and workspace.left_in_runs()
    deaths = 0
    while killed_at(deaths, lambda: settle(study, sweep=True)):
        deaths += 1
        for name in workspace.kept():
            if name.isdigit():  # what has its name is whole
                found = weights_of(study, int(name))
                depth = {0: 1, 1: 3, 2: 5}[int(name)]
                assert found.file.read_text().startswith(f"weights of DEPTH = {depth},")
        # Until the champion's are safe, they lie where the run left them.
        assert "0002" in workspace.kept() or any("/0002/" in p for p in workspace.left_in_runs())
    assert deaths > 10
    assert workspace.kept() == ["0000", "0002"] and not workspace.left_in_runs()


@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError(28, "No space left"), "No space"), (TypeError("None"), "record can't be read")],
)
def test_what_cannot_be_kept_is_told_and_ends_nothing(
    error: Exception, said: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, or the record of a version that had other fields."""

    def failing(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("autoresearch.weights.describe", failing)
        (workspace.folder / "train.py").write_text("DEPTH = 4\n")
        code, _, err = run(workspace.capsys, "trial", "-m", "x")
    assert code == 0 and "weights of trial 1 are not kept" in err and said in err
    with pytest.raises(NoData):
        weights_of(workspace.study, 1)
    with Study.write(workspace.folder) as study:  # there is space again
        assert weights_of(study, 1).facts["trial"] == 1
