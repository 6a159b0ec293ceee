"""One measurement of a task: repeats, retries, limits, and what a program can't change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoresearch.engine.sandbox import choose
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Replicate
from autoresearch.neighbours import Neighbours
from autoresearch.taskfile.files import Place
from autoresearch.taskfile.guard import Guard
from autoresearch.taskfile.measure import CommandMeasure
from autoresearch.taskfile.model import load
from autoresearch.taskfile.study import score_id_of

TASK = """\
id: demo
artifacts: {{include: a.txt}}
mutator: {{type: search}}
objective: {{}}
scorer: {{command: [python, score.py, "{{program}}"], parse: float, timeout_seconds: 20, {scorer}}}
{more}
"""
READ = "import sys; print(open(sys.argv[1] + '/a.txt').read())"
Measured = Callable[..., Replicate]


@pytest.fixture
def measured(tmp_path: Path) -> Callable[..., Measured]:
    """A task with this scorer and runner; its measurements, one per call."""

    def build(score: str = READ, run: str = "", scorer: str = "", **runner: Any) -> Measured:
        folder = tmp_path / "task"
        folder.mkdir()
        fields = "".join(f", {name}: {value}" for name, value in runner.items())
        more = f"runner: {{command: [python, run.py]{fields}}}" if run else ""
        files = {"a.txt": "1", "score.py": score, "run.py": run}
        for name, text in {**files, "task.yaml": TASK.format(scorer=scorer, more=more)}.items():
            (folder / name).write_text(text)
        place, task = Place.of(folder / "task.yaml"), load(folder / "task.yaml")
        guard = Guard.of(place, task)
        measure = CommandMeasure(task, guard, choose("process"), "id")
        program = tmp_path / "program"
        program.mkdir()
        for name in ("a.txt", "run.py"):
            (program / name).write_text((folder / name).read_text())
        count = iter(range(99))

        def once(seed: int = 0) -> Replicate:
            return measure(MeasureRequest(program, seed, tmp_path / str(next(count))))

        once.measure = measure
        return once

    return build


def scorings(run: Replicate) -> int:
    return (Path(run.details["run_dir"]) / "run.log").read_text().count("score.py")


def test_repeats_that_agree_are_made_once(measured):
    once = measured(scorer="repeats: 3")
    runs = [once() for _ in range(4)]
    assert {run.score for run in runs} == {1.0} and runs[-1].metrics["score"] == 1.0
    assert [scorings(run) for run in runs] == [3, 3, 3, 1]
    runs_again = once.measure.remember(runs)
    assert runs_again.deterministic, "a restart knows it"


def test_repeats_of_a_noisy_scorer_are_averaged_every_time(measured, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("")
    # The first two scorings agree, as those of a coarse score do now and then.
    score = f"f = open({str(counter)!r}, 'a'); f.write('x'); print(max(2, f.tell()))"
    once = measured(score=score, scorer="repeats: 2")
    runs = [once() for _ in range(5)]
    assert [run.score for run in runs] == [2.0, 3.5, 5.5, 7.5, 9.5]
    again = once.measure.remember(runs)
    assert again.noisy and not again.deterministic


def test_a_runner_is_tried_again_in_a_fresh_copy(measured, tmp_path):
    again = tmp_path / "again"
    run = (
        f"import os, sys; from pathlib import Path; first = not os.path.exists({str(again)!r})\n"
        f"assert not Path('left').exists(); Path('left').write_text(''); Path('{again}').touch()\n"
        "sys.exit(first)"
    )
    assert measured(run=run, retries=1)().score == 1.0


@pytest.mark.parametrize(
    ("run", "kind", "more"),
    [
        ("import sys; print('bad luck'); sys.exit(3)", "exit_code", {}),
        ("import time; time.sleep(60)", "timeout", {"timeout_seconds": 1}),
        ("import os; os.kill(os.getpid(), 9)", "killed", {}),
        ("while True: print('x' * 100_000)", "flood", {}),
        ("open('../../program/a.txt', 'w').write('9')", "tampered", {}),
        ("open('../../task/score.py', 'w').write('print(9)')", "tampered", {}),
    ],
)
def test_a_runner_that_fails_says_how(run, kind, more, measured):
    failure = measured(run=run, **more)().failure
    assert failure is not None and failure.kind == kind, failure
    if kind == "exit_code":
        assert "bad luck" in failure.log_tail and failure.phase == "runner"


def test_tampering_is_told_once_and_scoring_goes_on_with_what_was(measured, tmp_path):
    once = measured()
    (tmp_path / "task" / "score.py").write_text("print(99)")
    assert once().failure.kind == "tampered"
    assert once().score == 1.0


def test_a_scorer_cannot_be_led_by_files_beside_the_artifacts(measured, tmp_path):
    once = measured(score="import json, sys; print(json.loads('7'))")
    (tmp_path / "program" / "json.py").write_text("def loads(text): return 99")
    assert once().score == 7.0


def test_of_a_runners_folder_what_it_wrote_is_kept_if_it_is_little(measured):
    run = "open('out.txt', 'w').write('5'); open('a.txt', 'w').write('2')"
    found = measured(run=run)()
    output = Path(found.details["run_dir"]) / "output"
    assert sorted(path.name for path in output.iterdir()) == ["a.txt", "out.txt"]
    assert found.score == 1.0, "the artifacts are scored as they were proposed"


def test_what_is_too_much_to_keep_is_dropped(measured):
    run = "f = open('out.bin', 'wb'); f.truncate(20_000_000)"
    found = measured(run=run)()
    assert found.score == 1.0 and not (Path(found.details["run_dir"]) / "output").exists()


def test_secrets_and_home_stay_outside(measured, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    monkeypatch.setenv("GIVEN", "5")
    score = (
        "import os; assert 'SECRET_KEY' not in os.environ and 'private' in os.environ['HOME']\n"
        "print(os.environ['GIVEN'] + os.environ['SET'] + os.environ['AUTORESEARCH_SEED'])"
    )
    once = measured(score=score, scorer="pass_env: [GIVEN], env: {SET: '6'}")
    assert once(seed=7).score == 567.0


def test_only_where_time_is_measured_the_machine_is_watched(measured, monkeypatch):
    monkeypatch.setattr(Neighbours, "__enter__", lambda self: pytest.fail("it was watched"))
    run = measured()()
    assert run.score == 1.0 and run.disturbed == "" and "others_cpu_share" not in run.metrics


def test_a_timed_run_says_what_disturbed_it(measured, monkeypatch):
    monkeypatch.setattr(Neighbours, "share", 0.4)
    timed = measured(scorer="timed: true")()
    assert timed.score == 1.0, "it is measured all the same: the engine makes it again"
    assert timed.disturbed == "other processes took 40% of the machine"
    assert timed.metrics["others_cpu_share"] == 0.4


def test_that_time_matters_makes_it_no_other_score(tmp_path):
    ids = set()
    for timed in ("", "timed: true", "repeats: 2"):
        file = tmp_path / "task.yaml"
        file.write_text(TASK.format(scorer=timed, more=""))
        ids.add((timed == "repeats: 2", score_id_of(load(file), "scorer", "files", "support")))
    assert len(ids) == 2
