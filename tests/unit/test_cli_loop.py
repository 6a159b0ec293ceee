"""The commands that drive a study, with a harness whose score is a function of the constants."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autoresearch import cli
from autoresearch.commands.export import readme
from autoresearch.commands.trial import EXIT_CODES
from autoresearch.engine.constants import constants_of
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.loop import Loop
from autoresearch.engine.task import Budget, MeasureRequest
from autoresearch.engine.trial import Failure, Replicate
from autoresearch.pretraining import Pretraining
from autoresearch.study import Study, lineage
from prepare.settings import Settings
from tests.unit.command_line import enter_fake_workspace, git, make_fake_workspace, run

SEED = """import prepare

MATRIX_LR = 0.04  # too small: 0.08 is best
DEPTH = 4


def build_model(spec):
    return DEPTH
"""


def measure(self: Pretraining, request: MeasureRequest) -> Replicate:
    """val_bpb falls towards MATRIX_LR 0.08; a little noise by the seed."""
    request.run_dir.mkdir(parents=True)
    (request.run_dir / "train.log").write_text("hello \x1b[2J from the candidate\n")
    source = (request.folder / "train.py").read_text()
    if "crash" in source:
        failure = Failure("training", "exception", "it broke", "Traceback ...\nIt broke")
        return Replicate(request.seed, None, failure=failure)
    if "peek" in source:
        failure = Failure("scoring", "causality", "it looks ahead")
        return Replicate(request.seed, None, failure=failure)
    value = constants_of(source)["MATRIX_LR"]
    score = 1 + abs(value - 0.08) + random.Random(f"{request.seed} {value}").gauss(0, 1e-4)
    request.on_event("phase", {"phase": "training"})
    return Replicate(
        request.seed,
        score,
        metrics={"peak_memory_mb": 512.0, "tokens_per_second": 1000.0},
        score_id="id",
        disturbed="a neighbour" if "disturbed" in source else "",
        details={"tier": "none", "backend": "cpu", "curve": [[0.0, 3.0], [1.0, score]]},
    )


@pytest.fixture
def workspace(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a small train.py, and no real harness."""
    return make_fake_workspace(tmp_path / "w", monkeypatch, measure, SEED)


def edit(workspace: Path, new: str, old: str = "MATRIX_LR = 0.04") -> None:
    path = workspace / "train.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def trial(capsys: pytest.CaptureFixture[str], message: str, *more: str) -> tuple[int, dict]:
    code, out, _ = run(capsys, "trial", "-m", message, "--json", *more)
    return code, json.loads(out.splitlines()[-1])


# -- run ---------------------------------------------------------------------------------------


def test_a_night_of_search(workspace: Path, capsys) -> None:
    code, out, err = run(capsys, "run", "--trials", "4", "--tag", "mar5")
    assert code == 0, err
    lines = [line for line in out.splitlines() if line.startswith("trial ")]
    assert len(lines) == 5 and "baseline" in lines[0], "a line per decision and no more"
    assert "Ended: 4 trials done" in out and "Best: " in out and "autoresearch results" in out
    assert git("status", "--porcelain") == "" and git("branch", "--show-current") == "main"
    table = (workspace / "results.tsv").read_text().splitlines()
    assert table[0].split("\t") == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert len(table) == 6
    headers = Ledger(workspace / "results.jsonl").records("study")
    assert [header["tag"] for header in headers] == ["mar5"]
    code, out, _ = run(capsys, "run", "--trials", "1", "--json", "--policy", "greedy")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [e["event"] for e in events if e["event"] == "decided"] == ["decided"]
    begun = [(e["limits"], e["trials_before"]) for e in events if e["event"] == "begin"]
    assert begun == [({"trials": 1}, 5)], "what a watcher reckons with"
    assert events[-1]["tag"] == "mar5" and events[-1]["next"]
    assert len(Ledger(workspace / "results.jsonl").records("study")) == 2, "the policy is new"


def test_run_refuses_edits_before_it_begins_anything(workspace: Path, capsys) -> None:
    edit(workspace, "MATRIX_LR = 0.05")
    code, _, err = run(capsys, "run", "--trials", "1")
    assert code == 3 and "train.py" in err and "git commit" in err
    assert git("branch", "--list", "autoresearch/*") == ""
    assert not (workspace / "results.jsonl").exists()


def test_what_is_asked_wrongly(workspace: Path, capsys, tmp_path: Path) -> None:
    for arguments, words in (
        (("--agent", "serach"), "search"),
        (("--agent-option", "seed"), "KEY=VALUE"),
        (("--agent-option", "colour=3"), "colour"),
        (("--policy", "gready"), "greedy"),
    ):
        code, _, err = run(capsys, "run", "--trials", "1", *arguments)
        assert code == 2 and words in err, err
    run(capsys, "trial", "-m", "baseline", "--tag", "one")
    code, _, err = run(capsys, "run", "--tag", "two")
    assert code == 2 and "'one'" in err and "mv results.jsonl" in err
    (workspace / "autoresearch.toml").write_text(Settings().dumps() + "\n[task]\npolice = 'x'\n")
    code, _, err = run(capsys, "status")
    assert code == 2 and "police" in err


def settings(workspace: Path, task: str, **changes: object) -> None:
    (workspace / "autoresearch.toml").write_text(Settings(**changes).dumps() + task)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("[tasks]\nx = 1", "has no 'tasks'"),
        ("[task]\npolicy = 5", "task.policy is 5"),
        ("[task.logging]\ntail_lines = 9", "has no 'logging'"),
        ("[task]\npolicy = 'konfirm'", "autoresearch.toml: task.policy.name"),
        ("[task]\nconstraints = 5", "autoresearch.toml: task.constraints"),
        ("[task]\nconstraints = ['peak_memroy_mb < 9']", "'peak_memory_mb'"),
        ("[task]\nconstraints = ['num_steps > 2 * baseline.nm_steps']", "'num_steps'"),
    ],
)
def test_a_task_table_that_would_be_overlooked_is_refused(
    workspace: Path, capsys, task: str, words: str
) -> None:
    settings(workspace, "\n" + task)
    code, _, err = run(capsys, "run", "--trials", "1")
    assert code == 2 and words in err, err
    assert git("branch", "--list", "autoresearch/*") == ""


def test_a_constraint_that_the_baseline_breaks_is_told(workspace: Path, capsys) -> None:
    settings(workspace, "\n[task]\nconstraints = 'peak_memory_mb < 100'")
    code, _, err = run(capsys, "run", "--trials", "1")
    assert code == 0 and err.count("the baseline itself breaks a constraint: peak_memory_mb") == 1


def test_runs_are_pruned_unless_asked_otherwise(workspace: Path, capsys, monkeypatch) -> None:
    given: list[bool] = []

    def watched(self: Pretraining, request: MeasureRequest) -> Replicate:
        if request.run_dir.name.startswith("candidate"):
            given.append(bool(request.champion_curves))
        return measure(self, request)

    monkeypatch.setattr(Pretraining, "measure", watched)
    assert run(capsys, "run", "--trials", "1")[0] == 0 and given[0]
    assert not any(given[1:]), "a repeat decides, so it is never cut short"
    given.clear()
    assert run(capsys, "run", "--trials", "1", "--no-prune")[0] == 0 and given
    assert not any(given)


def test_the_machine_is_kept_awake_meanwhile(workspace: Path, capsys, monkeypatch) -> None:
    asked: list[str] = []

    @contextlib.contextmanager
    def awake() -> Iterator[str]:
        asked.append("begin")
        yield "no way was found"
        asked.append("end")

    def watched(self: Pretraining, request: MeasureRequest) -> Replicate:
        assert asked and asked[-1] == "begin"
        return measure(self, request)

    monkeypatch.setattr("autoresearch.awake.awake", awake)
    monkeypatch.setattr(Pretraining, "measure", watched)
    code, _, err = run(capsys, "run", "--trials", "1")
    assert code == 0 and "may fall asleep: no way was found" in err
    git("switch", "-q", git("branch", "--list", "autoresearch/*", "--format=%(refname:short)"))
    edit(workspace, "MATRIX_LR = 0.0777")
    code, result = trial(capsys, "by hand")
    assert result["trial"]["replicates"], result
    assert run(capsys, "verify", "--fresh-seeds", "2")[0] == 0
    assert asked == ["begin", "end"] * 3


def test_how_fast_the_machine_is_is_remembered(workspace: Path, capsys, monkeypatch) -> None:
    known: list[int] = []

    def watched(self: Pretraining, request: MeasureRequest) -> Replicate:
        known.append(len(self._canaries.get(("h", "bf16"), [])))
        run = measure(self, request)
        told = {"canary": 1e12, "hardware_id": "h", "conditions": {"compute_dtype": "bf16"}}
        return replace(run, details={**run.details, **told})

    monkeypatch.setattr(Pretraining, "measure", watched)
    run(capsys, "run", "--trials", "1")
    made = len(known)
    run(capsys, "run", "--trials", "1")
    assert known[0] == 0 and known[made] >= 3


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", (1, True, True, "confirm", 0.95)),
        ("--frontier 3 --no-combine --no-prune", (3, False, False, "confirm", 0.95)),
        ("--confidence 0.9", (1, True, True, "confirm", 0.9)),
        ("--policy greedy", (1, True, True, "greedy", None)),
    ],
)
def test_what_is_typed_reaches_the_loop(
    workspace: Path, capsys, monkeypatch, typed: str, expected: tuple[object, ...]
) -> None:
    found: list[tuple[object, ...]] = []

    def looked_at(self: Loop, proposer: object, budget: Budget) -> str:
        confidence = getattr(self.policy, "confidence", None)
        found.append((self.frontier, self.combine, self.prune, self.policy.name, confidence))
        assert (budget.hours, budget.trials, budget.dollars, budget.tokens) == (8, 3, 1.5, 700)
        return "looked at"

    monkeypatch.setattr(Loop, "run", looked_at)
    limits = "--hours 8 --trials 3 --dollars 1.5 --tokens 700"
    code, out, _ = run(capsys, "run", *limits.split(), *typed.split())
    assert code == 0 and "Ended: looked at" in out and found == [expected]


def test_other_settings_are_told(workspace: Path, capsys) -> None:
    assert "other settings" not in run(capsys, "run", "--trials", "1")[2]
    settings(workspace, "", time_budget=11.0)
    assert "time_budget 300.0 -> 11.0" in run(capsys, "run", "--trials", "1")[2]
    assert "other settings" not in run(capsys, "run", "--trials", "1")[2]


def test_limits_of_the_file_hold_beside_those_given(workspace: Path, capsys, tmp_path) -> None:
    settings(workspace, "\n[task.budget]\ntrials = 2")
    out = run(capsys, "run", "--hours", "5")[1]
    assert "Ended: 2 trials done" in out
    out = run(capsys, "run", "--hours", "5", "--trials", "1")[1]
    assert "Ended: 1 trial done" in out


@pytest.mark.parametrize("limit", ["dollars", "tokens"])
def test_a_limit_that_can_not_be_kept_is_told(workspace: Path, capsys, limit: str) -> None:
    script = workspace.parent / "propose.py"
    script.write_text(
        "import pathlib, random\npath = pathlib.Path('train.py')\n"
        "path.write_text(path.read_text() + f'Z{random.random()} = 1\\n'.replace('.', ''))\n"
    )
    command = ("run", "--agent", "command", "--agent-option", f"command=python3 {script}")
    code, out, err = run(capsys, *command, f"--{limit}", "1", "--trials", "2")
    assert code == 0 and "2 trials done" in out and err.count(f"--{limit} can't end") == 1
    code, out, err = run(capsys, *command, f"--{limit}", "1")
    assert code == 0 and "asked to stop" in out and "add --hours or --trials" in err
    code, out, err = run(capsys, "run", f"--{limit}", "1", "--trials", "1")
    assert f"--{limit} can't" not in err, "search costs nothing, and says so"


def test_a_second_writer_is_refused_by_name(workspace: Path, capsys) -> None:
    with Study.write(workspace):
        code, _, err = run(capsys, "run", "--trials", "1")
        assert code == 3 and "process" in err and "the study" in err and str(workspace) in err
        code, out, _ = run(capsys, "status", "--json")
        assert code == 0 and "process" in json.loads(out)["running"]
    code, out, _ = run(capsys, "status", "--json")
    assert json.loads(out)["running"] is None


def test_one_interrupt_ends_after_the_trial_and_two_at_once(
    workspace: Path, capsys, monkeypatch
) -> None:
    presses = {"candidate": 1}

    def pressed(self: Pretraining, request: MeasureRequest) -> Replicate:
        label = request.run_dir.name.split("-")[0]
        for _ in range(presses.get(label, 0)):
            signal.raise_signal(signal.SIGINT)
        return measure(self, request)

    monkeypatch.setattr(Pretraining, "measure", pressed)
    code, out, err = run(capsys, "run")
    assert code == 0 and "Ended: asked to stop" in out and "Ctrl-C again" in err
    assert len(Ledger(workspace / "results.jsonl").trials()) == 2
    presses["candidate"] = 2
    code, _, err = run(capsys, "run")
    assert code == 130 and "interrupted" in err
    assert len(Ledger(workspace / "results.jsonl").trials()) == 2
    presses.clear()
    assert run(capsys, "run", "--trials", "1")[0] == 0, "and it goes on"
    assert run(capsys, "verify")[0] == 0


def test_a_table_of_the_agents_own_is_not_overwritten(workspace: Path, capsys) -> None:
    (workspace / "results.tsv").write_text("mine\n")
    run(capsys, "run", "--trials", "1", "--tag", "mar5")
    assert (workspace / "results.tsv.before-mar5").read_text() == "mine\n"
    assert git("status", "--porcelain") == ""


# -- trial -------------------------------------------------------------------------------------


def test_a_good_edit_is_kept_on_a_branch_of_its_own(workspace: Path, capsys) -> None:
    edit(workspace, "MATRIX_LR = 0.06")
    code, result = trial(capsys, "a larger rate", "--predict", "-0.02", "--tag", "mar5")
    assert code == 0 and result["trial"]["status"] == "keep", result["trial"]["reason"]
    assert result["trial"]["predicted"] == -0.02 and result["trial"]["proposer"] == "checkout"
    assert git("branch", "--show-current") == "autoresearch/mar5"
    assert git("status", "--porcelain") == ""
    assert "MATRIX_LR = 0.06" in (workspace / "train.py").read_text()
    assert "a larger rate" in git("log", "-1", "--format=%s")
    assert git("show", "main:train.py") == SEED.strip(), "the other branch is as it was"


def test_other_ends_put_train_py_back(workspace: Path, capsys) -> None:
    for new, status in (
        ("MATRIX_LR = 0.01", "discard"),
        ("MATRIX_LR = 'crash'", "crash"),
        ("MATRIX_LR = ='", "rejected"),
        ("MATRIX_LR = 0.08\npeek = 1", "rejected"),
        ("MATRIX_LR = 0.01  # again", "rejected"),
    ):
        edit(workspace, new)
        code, result = trial(capsys, f"try {status}")
        assert (result["trial"]["status"], code) == (status, EXIT_CODES[status])
        assert (workspace / "train.py").read_text() == SEED, status
        assert result["train.py"] == "put back" and result["next"]
    assert git("status", "--porcelain") == ""
    diff = (workspace / ".autoresearch/runs").glob("*/0002/change.diff")
    git("apply", *map(str, diff))
    assert "crash" in (workspace / "train.py").read_text(), "and what failed can be had again"


@pytest.mark.parametrize("more", [b"def precious(:\n", b"# precious\n", b"# \xff\0 precious\n"])
def test_an_edit_that_a_check_refuses_is_not_lost(workspace: Path, capsys, more: bytes) -> None:
    edited = SEED.encode() + more
    (workspace / "train.py").write_bytes(edited)
    code, result = trial(capsys, "big")
    assert code == EXIT_CODES["rejected"] and result["train.py"] == "put back"
    assert (workspace / "train.py").read_text() == SEED
    folder = next((workspace / ".autoresearch/runs").glob("*/0001"))
    if b"\xff" in more:
        assert (folder / "edited/train.py").read_bytes() == edited
    else:
        assert any("git apply" in step for step in result["next"])
        git("apply", str(folder / "change.diff"))
        assert (workspace / "train.py").read_bytes() == edited


def test_an_idea_is_words_on_one_line(workspace: Path, capsys) -> None:
    edit(workspace, "MATRIX_LR = 0.06")
    for message in ("", " \n\x1b[2J"):
        assert run(capsys, "trial", "-m", message)[0] == 2
    assert run(capsys, "trial", "-m", "x", "--predict", "nan")[0] == 2
    assert "MATRIX_LR = 0.06" in (workspace / "train.py").read_text()
    code, result = trial(capsys, "red \x1b[31mrate\nTrial: 99\u202e " + "x" * 5000)
    idea = result["trial"]["description"]
    assert code == 0 and idea.startswith("red rate Trial: 99 x") and len(idea) == 1000
    assert git("log", "-1", "--format=%(trailers:key=Trial,valueonly)") == "1"


def test_a_refused_trial_leaves_the_checkout_alone(workspace: Path, capsys) -> None:
    trial(capsys, "baseline")
    git("switch", "-q", "main")
    with Study.write(workspace):
        code, _, err = run(capsys, "trial", "-m", "meanwhile")
    assert code == 3 and "process" in err and git("branch", "--show-current") == "main"


def test_a_noisy_trial_leaves_the_edit_to_be_tried_again(workspace: Path, capsys) -> None:
    edit(workspace, "MATRIX_LR = 0.08\ndisturbed = 1")
    code, result = trial(capsys, "try")
    assert code == EXIT_CODES["noisy"] and result["train.py"] == "as edited"
    assert "disturbed" in (workspace / "train.py").read_text()


def test_what_is_no_trial(workspace: Path, capsys) -> None:
    code, result = trial(capsys, "baseline")
    assert code == 0 and result["trial"]["id"] == 0, "without an edit: the baseline"
    code, _, err = run(capsys, "trial", "-m", "nothing")
    assert code == 2 and "nothing was edited" in err
    (workspace / "autoresearch.toml").write_text(Settings(seed=7).dumps())
    code, out, _ = run(capsys, "trial", "-m", "another seed")
    assert code == EXIT_CODES["rejected"] and "autoresearch.toml" in out
    git("restore", "autoresearch.toml")
    (workspace / "program.md").write_text("be careful\n")  # the human's, and not committed
    (workspace / "notes.py").write_text("x = 1\n")
    edit(workspace, "MATRIX_LR = 0.01")
    assert trial(capsys, "worse")[0] == EXIT_CODES["discard"]
    assert (workspace / "program.md").read_text() == "be careful\n"
    assert (workspace / "notes.py").is_file()


def test_an_edit_on_another_commit_is_not_mixed_in(workspace: Path, capsys) -> None:
    edit(workspace, "MATRIX_LR = 0.06")
    assert trial(capsys, "first")[0] == 0
    git("switch", "-q", "main")
    edit(workspace, "MATRIX_LR = 0.07")
    code, _, err = run(capsys, "trial", "-m", "from main")
    assert code == 2 and "git stash" in err
    assert "0.07" in (workspace / "train.py").read_text()
    git("restore", "train.py")
    code, _, err = run(capsys, "trial", "-m", "from main")
    assert code == 2 and "nothing was edited" in err
    assert git("branch", "--show-current").startswith("autoresearch/")


# -- looking, undoing, checking ----------------------------------------------------------------


@pytest.fixture(scope="module")
def study_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trials: 1 kept, 2 discarded, 3 kept, 4 crashed. Made once; each test gets a copy."""
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_CACHE", str(place / "cache"))
        folder = make_fake_workspace(place / "w", patch, measure, SEED)
        for old, new in (
            ("MATRIX_LR = 0.04", "MATRIX_LR = 0.05"),
            ("MATRIX_LR = 0.05", "MATRIX_LR = 0.01"),
            ("MATRIX_LR = 0.05", "MATRIX_LR = 0.07"),
            ("MATRIX_LR = 0.07", "MATRIX_LR = 'crash'"),
        ):
            edit(folder, new, old)
            cli.run(["trial", "-m", f"{new} it is", "--json"])
    return folder


@pytest.fixture
def studied(study_made: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "w"
    shutil.copytree(study_made, folder, symlinks=True)
    enter_fake_workspace(folder, monkeypatch, measure)
    return folder


def test_results_status_show_and_log(studied: Path, capsys) -> None:
    code, out, _ = run(capsys, "results", "--json")
    statuses = [t["status"] for t in json.loads(out)["trials"]]
    assert code == 0 and statuses == ["keep", "keep", "discard", "keep", "crash"]
    assert [t["id"] for t in json.loads(run(capsys, "results", "--kept", "--json")[1])["trials"]]
    code, out, _ = run(capsys, "results", "--tsv")
    assert out == (studied / "results.tsv").read_text() and out.count("\n") == 6
    code, out, _ = run(capsys, "results")
    assert "MATRIX_LR = 0.07 it is" in out and ">99%" in out and "100%" not in out
    status = json.loads(run(capsys, "status", "--json")[1])
    assert status["champion"]["id"] == 3 and status["counts"]["crash"] == 1
    extra = sum(trial.extra_runs for trial in Ledger(studied / "results.jsonl").trials())
    assert status["extra_runs"] == extra > 1
    out = run(capsys, "status")[1]
    assert "champion  trial 3" in out and f"1 crash; {extra} extra runs to be sure" in out
    assert "1 extra run to be sure" in run(capsys, "show", "3")[1]
    code, out, _ = run(capsys, "show", "2")
    assert code == 0 and "-MATRIX_LR = 0.05" in out and "+MATRIX_LR = 0.01" in out
    assert "training loss" in out and "discard: " in out
    assert "It broke" in run(capsys, "show", "4")[1]
    code, out, _ = run(capsys, "log", "4")
    assert "from the candidate" in out and "\x1b" not in out
    code, _, err = run(capsys, "show", "9")
    assert code == 2 and "0 to 4" in err


def test_the_end_of_a_run_says_what_was_found_and_how_to_take_it(studied: Path, capsys) -> None:
    code, out, err = run(capsys, "run", "--trials", "1")
    assert code == 0, err
    best = json.loads(run(capsys, "status", "--json")[1])["champion"]
    said = next(line for line in out.splitlines() if line.startswith("Best: "))
    assert said.startswith(f"Best: trial {best['id']}, val_bpb {best['score']:.6f}: ")
    assert f"{best['gain']:+.4f}" in said and "decided with" in said
    assert "extra runs to be sure" in out.split("Ended: ")[1].splitlines()[0]
    steps = out[out.index("\nNext") :]
    branch = git("branch", "--list", "autoresearch/*", "--format=%(refname:short)")
    for step in (f"git switch {branch} ", "autoresearch export ", "verify --fresh-seeds 5 "):
        assert step in steps, steps
    out = run(capsys, "run", "--trials", "1", "--dir", studied)[1]
    assert f"git -C {studied} switch {branch} " in out


def test_undo_is_recorded_and_can_be_undone(studied: Path, capsys) -> None:
    code, out, _ = run(capsys, "undo")
    assert code == 0 and "trial 1 is the champion again" in out
    assert "MATRIX_LR = 0.05" in (studied / "train.py").read_text()
    assert git("status", "--porcelain") == ""
    assert run(capsys, "verify")[0] == 0
    edit(studied, "MATRIX_LR = 0.09", "MATRIX_LR = 0.05")
    code, result = trial(capsys, "from trial 1")
    assert result["trial"]["parent"] == 1 and result["trial"]["status"] == "keep"
    assert run(capsys, "verify")[0] == 0
    assert run(capsys, "undo", "3")[0] == 0
    assert "MATRIX_LR = 0.07" in (studied / "train.py").read_text()
    code, _, err = run(capsys, "undo", "2")
    assert code == 2 and "discard" in err
    kept = json.loads(run(capsys, "results", "--kept", "--json")[1])["trials"]
    assert [t["id"] for t in kept] == [0, 1, 3]


def test_a_kill_between_the_undo_and_git_is_mended(studied: Path, capsys) -> None:
    Ledger(studied / "results.jsonl").append({"kind": "champion", "trial": 1})
    assert run(capsys, "verify")[0] == 3, "seen"
    with Study.write(studied):
        pass
    assert "MATRIX_LR = 0.05" in (studied / "train.py").read_text()
    assert run(capsys, "verify")[0] == 0


def test_verify_names_what_does_not_fit(studied: Path, capsys) -> None:
    code, out, _ = run(capsys, "verify")
    assert code == 0 and "git agrees" in out
    edit(studied, "MATRIX_LR = 0.2", "MATRIX_LR = 0.07")
    git("-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-qam", "by hand")
    code, out, _ = run(capsys, "verify")
    assert code == 3 and "another program than trial 3's" in out
    edit(studied, "MATRIX_LR = 0.3", "MATRIX_LR = 0.2")
    code, _, err = run(capsys, "trial", "-m", "on top")
    assert code == 3 and "autoresearch undo 3" in err
    git("restore", "train.py")
    assert run(capsys, "undo", "3")[0] == 0
    assert run(capsys, "verify")[0] == 0
    git("update-ref", git("symbolic-ref", "HEAD"), "main")
    problems = json.loads(run(capsys, "verify", "--json")[1])["problems"]
    assert any("trial 1 was kept" in p["message"] for p in problems)
    path = studied / "results.jsonl"
    path.write_text(path.read_text().replace("0.05 it is", "0.06 it is"))
    code, out, _ = run(capsys, "verify")
    assert code == 3 and "ledger" in out


def test_a_study_is_written_from_one_worktree_alone(studied: Path, capsys, tmp_path: Path) -> None:
    other = tmp_path / "other"
    git("worktree", "add", "-q", "-b", "side", str(other), "main")
    tag = Study.read(studied).tag
    for holder in (studied, None):  # while it is written there, and at any other time
        with Study.write(holder) if holder else contextlib.nullcontext():
            code, _, err = run(capsys, "run", "--dir", other, "--trials", "1", "--tag", tag)
        assert (code, str(studied) in err) == ((3, True) if holder else (2, False)), err
    assert "bring the results.jsonl back" in err and "1, 2, 3, 4" in err
    assert run(capsys, "verify")[0] == 0
    assert run(capsys, "run", "--dir", other, "--trials", "1", "--tag", "another")[0] == 0
    assert run(capsys, "verify")[0] == 0


def test_verify_sees_lines_and_refs_that_are_gone(studied: Path, capsys) -> None:
    tag, path = Study.read(studied).tag, studied / "results.jsonl"
    whole = path.read_bytes()
    for lines, words in ((0, "trials 1, 2, 3, 4"), (-1, "trial 4, which isn't there")):
        path.write_bytes(b"".join(whole.splitlines(keepends=True)[:lines]))
        (studied / "results.tsv").unlink(missing_ok=True)
        code, out, _ = run(capsys, "verify")
        assert code == 3 and words in out
    path.unlink()
    assert run(capsys, "verify")[0] == 3
    code, _, err = run(capsys, "run", "--trials", "1")
    assert code == 2 and "bring the results.jsonl back" in err
    path.write_bytes(whole)
    git("update-ref", "-d", f"refs/autoresearch/{tag}/2")
    code, out, _ = run(capsys, "verify")
    assert code == 3 and "lacks trials 2" in out
    git("update-ref", f"refs/autoresearch/{tag}/2", str(Study.read(studied).state.trials[2].commit))
    git("update-ref", "-d", f"refs/autoresearch/{tag}/start")
    code, out, _ = run(capsys, "verify")
    assert code == 0, out
    for name in ("1", "2"):
        git("update-ref", "-d", f"refs/autoresearch/{tag}/{name}")
    git("gc", "--quiet", "--prune=now")
    code, out, _ = run(capsys, "verify")
    assert code == 3 and "the commits of trials 2 are gone" in out and "lacks trials 1;" in out
    said: list[object] = []
    with Study.write(
        studied, on_event=lambda name, data: said.append(data.get("message"))
    ) as study:
        start = git("rev-parse", f"refs/autoresearch/{tag}/start")
        assert start == study.state.trials[0].commit
    assert any("lost the commits of trials 2:" in str(text) for text in said)
    assert "lacks" not in run(capsys, "verify")[1]


def test_verify_measures_the_gain_again_on_fresh_seeds(studied: Path, capsys) -> None:
    champion = Study.read(studied).state.champion
    code, out, err = run(capsys, "verify", "--fresh-seeds", "3")
    assert code == 0 and "git agrees" in out, err
    assert "1000000" in out and f"trial {champion} is better" in out and "3 of 3 seeds" in out
    code, out, _ = run(capsys, "verify", "--fresh-seeds", "2", "--json")
    found = json.loads(out.splitlines()[-1])["recheck"]
    assert found["seeds"] == [1_000_003, 1_000_004], "others than before"
    assert found["gain"] == pytest.approx(0.03, abs=1e-3)
    assert len(Ledger(studied / "results.jsonl").records("recheck")) == 2
    assert run(capsys, "verify")[0] == 0
    assert run(capsys, "verify", "--fresh-seeds", "1")[0] == 2
    assert run(capsys, "undo", "0")[0] == 0
    code, _, err = run(capsys, "verify", "--fresh-seeds", "2")
    assert code == 2 and "no gain to measure again" in err


def test_export_can_be_applied_elsewhere(studied: Path, capsys, tmp_path: Path) -> None:
    code, out, _ = run(capsys, "export", "--to", tmp_path / "out", "--json")
    document = json.loads(out)
    assert code == 0 and document["champion"] == 3
    assert "MATRIX_LR = 0.07" in (tmp_path / "out/train.py").read_text()
    patches = [tmp_path / "out" / name for name in document["files"] if "patches/" in name]
    assert [p.name for p in patches] == ["0001-trial-1.patch", "0002-trial-3.patch"]
    assert "confidence" in patches[0].read_text() and "seed 0" in patches[0].read_text()
    assert "| 3 |" in (tmp_path / "out/README.md").read_text()
    clone = tmp_path / "clone"
    git("clone", "-q", "-b", "main", str(studied), str(clone))
    who = ("-c", "user.name=u", "-c", "user.email=u@example.org")
    git("-C", str(clone), *who, "am", "-q", *map(str, patches))
    assert (clone / "train.py").read_text() == (tmp_path / "out/train.py").read_text()
    code, _, err = run(capsys, "export", "--to", tmp_path / "out")
    assert code == 2 and "not empty" in err
    study = Study.read(studied)
    kept = [replace(t, description="[a](b) <img src=x>") for t in lineage(study.state)]
    assert r"| \[a\](b) \<img src=x> |" in readme(study, kept), "ideas are others' words"


def test_before_there_is_a_study(workspace: Path, capsys) -> None:
    for command in ("status", "results", "verify"):
        assert run(capsys, command)[0] == 0, command
    for command in ("undo", "export", "log", "show 0"):
        code, _, err = run(capsys, *command.split())
        assert code == 2 and err.startswith("Error: "), command
    assert git("branch", "--list", "autoresearch/*") == "", "looking begins nothing"
