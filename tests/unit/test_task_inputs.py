"""Inputs of a task: seen where they lie, written by nobody, watched, and never a way out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoresearch.engine.errors import TaskError
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.sandbox import Tier, all_tiers, choose
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Replicate
from autoresearch.study import Options
from autoresearch.taskfile.files import Place
from autoresearch.taskfile.guard import Guard
from autoresearch.taskfile.inputs import Inputs
from autoresearch.taskfile.measure import CommandMeasure
from autoresearch.taskfile.model import load
from autoresearch.taskfile.study import TaskStudy

TASK = """\
id: demo
artifacts: {{include: ["*.txt"]}}
mutator: {{type: search}}
objective: {{}}
inputs: {inputs}
runner: {{command: [{python}, run.py]{runner}}}
scorer: {{command: [python, score.py, "{{output}}"{words}], parse: float{scorer}}}
{more}
"""
# The score is what the runner wrote, plus what the scorer reads of its own.
SCORE = """\
import sys
from pathlib import Path
total = int(Path(sys.argv[1], "out").read_text())
print(total + sum(int(Path(path).read_text()) for path in sys.argv[2:]))
"""
SUM = "from pathlib import Path; n = sum(int(p.read_text()) for p in Path('data').rglob('*.n'));"
RUN = SUM + "Path('out').write_text(str(n))"
DATA = {"data/train/a.n": "1", "data/train/b.n": "2", "data/test/c.n": "40"}


class Made:
    """A task in a folder, and its measurements."""

    def __init__(self, root: Path, tier: Tier) -> None:
        self.root, self.tier = root, tier
        self.folder = root / "task"
        self.events: list[str] = []

    def write(self, run: str = RUN, **fields: str) -> None:
        """The task with these fields of TASK, and its files."""
        known = {"python": "python", "inputs": "[data/]", "runner": "", "words": "", "scorer": ""}
        text = TASK.format(**{**known, "more": "", **fields})
        files = {"task.yaml": text, "a.txt": "1", "score.py": SCORE, "run.py": run, **DATA}
        for name, content in files.items():
            place = self.folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)

    def begin(self) -> None:
        """As a study does."""
        file = self.folder / "task.yaml"
        self.place, self.task = Place.of(file), load(file)
        self.programs = self.place.programs(self.task)
        guard = Guard.of(self.place, self.task)
        self.measure = CommandMeasure(self.task, guard, self.tier, "id")
        self.program = self.root / "program"
        for name in self.programs:
            place = self.program / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text((self.folder / name).read_text())
        self.count = iter(range(99))

    def once(self) -> Replicate:
        """One measurement."""
        run_dir = self.root / "runs" / str(next(self.count))
        run_dir.parent.mkdir(exist_ok=True)

        def hear(name: str, data: Any) -> None:
            self.events.append(str(data.get("message", "")))

        return self.measure(MeasureRequest(self.program, 0, run_dir, hear))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    """A task, begun: `make(run=..., tier=..., inputs=...)`."""

    def build(tier: str = "process", **fields: str) -> Made:
        made = Made(tmp_path, choose(tier))
        made.write(**fields)
        made.begin()
        return made

    return build


def strict_tiers() -> list[str]:
    return [tier.name for tier in all_tiers() if tier.strict and not tier.problem()]


# -- seen where they lie ---------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["process", *strict_tiers()])
def test_runner_and_scorer_see_inputs_that_were_not_copied(tier, make):
    made = make(tier, run="assert __import__('os').path.islink('data')\n" + RUN)
    assert made.programs == ("a.txt", "run.py"), "no candidate has them"
    found = made.once()
    assert found.score == 43.0, found.failure
    left = Path(found.details["run_dir"], "output")
    assert [path.name for path in left.iterdir()] == ["out"], "the link is gone after the run"
    assert (made.folder / "data/train/a.n").read_text() == "1"


@pytest.mark.parametrize("tier", strict_tiers())
def test_no_program_writes_an_input(tier, make):
    write = "from pathlib import Path; Path('data/train/a.n').write_text('9')\n"
    failure = make(tier, run=write + RUN).once().failure
    assert failure is not None and "may not write in the input data" in failure.message
    assert "HF_DATASETS_CACHE" in failure.message


@pytest.mark.parametrize("tier", strict_tiers())
@pytest.mark.parametrize("how", ["inputs", "command"])
def test_what_is_the_scorers_own_the_runner_does_not_see(how, tier, make):
    words, scorer = ', "data/test/c.n"', ", inputs: data/test/"
    made = make(tier, words=words, scorer=scorer if how == "inputs" else "")
    found = made.once()
    assert found.score == 43.0, found.failure
    peek = f"from pathlib import Path; Path({str(made.folder / 'data/test/c.n')!r}).read_text()\n"
    (made.program / "run.py").write_text(peek + RUN)
    failure = made.once().failure
    assert failure is not None and failure.kind == "exit_code", "not by its full path either"


def test_what_both_commands_name_both_see(make):
    both = make(python="python, run.py, data/test/c.n", words=', "data/test/c.n"')
    assert both.once().score == 83.0


def test_one_scorers_own_is_hidden_from_the_other(tmp_path):
    made = Made(tmp_path, choose("process"))
    made.write(
        scorer=", inputs: data/test/",
        more="holdout: {command: [python, score.py], inputs: data/train/b.n}",
    )
    inputs = Inputs.of(made.folder, load(made.folder / "task.yaml"))
    assert inputs.view("runner") == ("data/train/a.n",)
    assert inputs.view("scorer") == ("data/test", "data/train/a.n")
    assert inputs.view("holdout") == ("data/train",)


def test_what_git_ignores_may_be_an_input(make, tmp_path):
    made = make()
    subprocess.run(["git", "init", "-q", str(made.folder)], check=True)
    (made.folder / ".gitignore").write_text("data/\n")
    made.begin()
    assert made.once().score == 43.0 and "data/train/a.n" not in made.programs


def test_globs_name_files_and_folders(tmp_path):
    made = Made(tmp_path, choose("process"))
    made.write(inputs='["data/*/[ac].n", "**/b.n", data/train/a.n]')
    inputs = Inputs.of(made.folder, load(made.folder / "task.yaml"))
    assert inputs.roots == ("data/test/c.n", "data/train/a.n", "data/train/b.n")


# -- watched ---------------------------------------------------------------------------------------


def test_an_input_that_changed_between_runs_is_told_and_scores_are_no_longer_compared(make):
    made = make()
    first, again = made.once(), made.once()
    assert first.score_id == again.score_id and not any(made.events)
    (made.folder / "data/train/a.n").write_text("7")
    (made.folder / "data/train/new.n").write_text("1")
    found = made.once()
    assert found.score == 50.0 and found.score_id != first.score_id
    told = [event for event in made.events if event]
    assert len(told) == 1 and "data/train/a.n, data/train/new.n" in told[0]
    (made.folder / "data/train/a.n").write_text("1")
    (made.folder / "data/train/new.n").unlink()
    assert made.once().score_id == first.score_id, "small files count by what is in them"


def test_an_input_that_changed_between_sessions_is_told(tmp_path):
    made = Made(tmp_path, choose("process"))
    made.write()
    file, told = made.folder / "task.yaml", []

    def session() -> None:
        options = Options(sandbox="process")
        with TaskStudy.write(file, options, lambda name, data: told.append((name, data))):
            pass

    session()
    session()
    assert not told
    (made.folder / "data/train/a.n").write_text("7")
    session()
    assert [name for name, _ in told] == ["warning"] and "since the last run: data" in str(told)
    assert len(Ledger(made.folder / "work/results.jsonl").records("study")) == 2


def test_a_small_file_that_was_only_touched_is_the_same(make):
    made = make()
    first = made.once()
    (made.folder / "data/train/a.n").touch()
    assert made.once().score_id == first.score_id and not any(made.events)


def test_a_large_file_counts_by_its_time(make, monkeypatch):
    monkeypatch.setattr("autoresearch.taskfile.watch.SMALL", 0)
    made = make()
    first = made.once()
    (made.folder / "data/train/a.n").write_text("1")
    assert made.once().score_id != first.score_id and any(made.events)


def test_a_runner_that_changes_an_input_breaks_a_rule(make):
    write = "from pathlib import Path; Path('data/train/a.n').write_text('900')\n"
    failure = make(run=write + RUN).once().failure
    assert failure is not None and failure.kind == "tampered"
    assert "data/train/a.n" in failure.message


def test_a_candidate_that_lays_files_at_an_inputs_place_breaks_a_rule(make):
    made = make()
    (made.program / "data").mkdir()
    (made.program / "data/a.n").write_text("999")
    failure = made.once().failure
    assert failure is not None and failure.kind == "tampered" and "at data" in failure.message


# -- never a way out -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("/etc", "absolute"),
        ("../other", "leaves the task's folder"),
        ("data/../../other", "leaves the task's folder"),
        ("~/data", "absolute"),
        ("nothing/", "nothing here is nothing/"),
        ("'*.none'", "nothing here is"),
        ("work/", "holds the records"),
        ("out", "link out of the task's folder, to ../other"),
        ("out/inner", "link out of the task's folder"),
        ("inside", "inside is a link"),
        ("a.txt", "a.txt is an artifact, and in the input a.txt"),
        ("'**'", "is a link"),
    ],
)
def test_inputs_that_are_refused(given, said, tmp_path):
    made = Made(tmp_path, choose("process"))
    made.write(inputs=f"[{given}]")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/inner").write_text("secret")
    (made.folder / "out").symlink_to("../other")
    (made.folder / "inside").symlink_to("data")
    (made.folder / "work").mkdir()
    with pytest.raises(TaskError, match=said):
        made.begin()


@pytest.mark.parametrize("tier", strict_tiers())
def test_a_link_in_an_input_leads_nowhere(tier, make, tmp_path):
    (tmp_path / "secret.n").write_text("500")
    made = make(tier)
    (made.folder / "data/secret.n").symlink_to("../../secret.n")
    made.begin()
    failure = made.once().failure
    assert failure is not None and "secret.n" in failure.log_tail


@pytest.mark.parametrize("tier", strict_tiers())
def test_a_program_on_path_may_lie_in_a_folder_that_is_hidden(tier, make, tmp_path, monkeypatch):
    tool = tmp_path / "tools" / "theirs"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\necho 3 > out\nls {tool.parent} > seen || true\n")
    tool.chmod(0o755)
    (tool.parent / "secret").write_text("")
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    made = make(tier, python="theirs")
    found = made.once()
    assert found.score == 3.0, found.failure
    seen = (Path(found.details["run_dir"]) / "output" / "seen").read_text()
    assert "secret" not in seen


@pytest.mark.parametrize("tier", ["process", *strict_tiers()])
def test_a_run_that_fails_for_a_cache_in_the_home_folder_says_so(tier, make, tmp_path, monkeypatch):
    cache = tmp_path / "home" / ".cache"
    cache.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(cache.parent))
    monkeypatch.setenv("HF_HOME", str(cache))
    failure = make(tier, run="raise SystemExit(1)", runner=", pass_env: [HF_HOME]").once().failure
    told = failure is not None and f"HF_HOME is {cache}, which the sandbox" in failure.message
    assert told == (tier != "process"), failure


# -- environments ----------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment in the task's folder, made by a Python that is a link elsewhere."""
    folder, python = tmp_path / "task" / ".venv", tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.symlink_to(os.path.realpath(sys.executable))
    argv = [str(python), "-m", "venv", "--without-pip", "--symlinks", str(folder)]
    subprocess.run(argv, check=True)
    return folder


@pytest.mark.parametrize("tier", ["process", *strict_tiers()])
def test_a_runner_uses_an_environment_of_the_project(tier, make, environment):
    site = next(environment.glob("lib/python3*/site-packages"))
    (site / "theirs.py").write_text("VALUE = 5")
    run = "import theirs; open('out', 'w').write(str(theirs.VALUE))"
    made = make(tier, run=run, python=".venv/bin/python", inputs="[.venv]")
    assert made.programs == ("a.txt", *sorted(DATA), "run.py")
    found = made.once()
    assert found.score == 5.0, found.failure


def test_an_environment_that_imports_the_users_own_files_is_refused(make, environment):
    site = next(environment.glob("lib/python3*/site-packages"))
    (environment.parent / "src").mkdir()
    (site / "theirs.pth").write_text(f"import os\n{environment.parent / 'src'}\n")
    fields = {"python": ".venv/bin/python", "inputs": "[.venv, data/]"}
    with pytest.raises(TaskError, match="own files in place of the candidate's") as error:
        make(**fields)
    assert error.value.hint == "runner: env: {PYTHONPATH: src}"
    assert make(**fields, runner=", env: {PYTHONPATH: src}").once().score == 43.0
