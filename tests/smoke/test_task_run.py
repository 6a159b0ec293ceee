"""Task files end to end: real mutators and scorers, jailed or not, through the command line."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoresearch import cli
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.sandbox import best_tier
from autoresearch.engine.task import Budget
from autoresearch.engine.trial import Trial
from autoresearch.taskfile.study import TaskStudy

TASK = """\
id: numbers
artifacts: {include: ["a.txt", "b.txt", "sub/*.txt"]}
mutation: {max_files: 2, max_changed_lines: 6, max_bytes: 400}
mutator: {type: command, command: python mutate.py, timeout_seconds: 30}
scorer:
  {command: [python, score.py, "{program}"], timeout_seconds: 20, files: [hidden.json]}
objective: {direction: maximize}
"""
SCORE = """\
import json, sys
from pathlib import Path
unit = json.loads(Path("hidden.json").read_text())["unit"]
total = sum(int(p.read_text().split()[0]) for p in Path(sys.argv[1]).glob("*.txt"))
print(json.dumps({"score": unit * total, "metrics": {"files": 2}}))
"""
# Keeps the edit itself in one line; `request` says what was tried.
MUTATE = """\
import json, os, sys
from pathlib import Path
request = json.load(sys.stdin)
{edit}
print(json.dumps({{"description": "an edit"}}))
"""
UP = "p = Path('a.txt'); p.write_text(str(int(p.read_text()) + 1) + chr(10))"


def write(folder: Path, name: str, text: str) -> None:
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Makes a task whose mutator runs this statement, with this scorer."""

    def build(edit: str = UP, score: str = SCORE, task: str = TASK, **files: str) -> Path:
        folder = tmp_path / "t"
        write(folder, "task.yaml", task)
        write(folder, "score.py", score)
        write(folder, "mutate.py", MUTATE.format(edit=edit))
        write(folder, "hidden.json", '{"unit": 10}')
        write(folder, "a.txt", "1\n")
        write(folder, "b.txt", "2\n")
        for name, text in files.items():
            write(folder, name.replace("__", "."), text)
        return folder

    return build


def tree(folder: Path) -> dict[str, str]:
    """Every file of the user's: its mode, the time of its last change, and its content."""

    def facts(path: Path) -> str:
        status, digest = path.lstat(), hashlib.sha256(path.read_bytes()).hexdigest()
        return f"{status.st_mode:o} {status.st_mtime_ns} {digest}"

    return {
        str(path.relative_to(folder)): facts(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != "work"
    }


def run(capsys: Any, folder: Path, *more: str) -> tuple[int, dict[str, Any], str]:
    code = cli.run(["task", "run", str(folder), "--json", *more])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]) if out else {}, out + err


def trials(folder: Path) -> list[Trial]:
    return Ledger(folder / "work" / "results.jsonl").trials()


# -- a study -------------------------------------------------------------------------------------


def test_keeps_reach_the_users_files_and_a_deterministic_scorer_costs_no_repeats(make, capsys):
    folder = make(program__md="be bold")
    before = tree(folder)
    code, document, said = run(capsys, folder, "--trials", "3")
    assert code == 0, said
    assert [(t.status.value, t.score) for t in trials(folder)] == [
        ("keep", 30.0), ("keep", 40.0), ("keep", 50.0), ("keep", 60.0)
    ]  # fmt: skip
    assert [len(t.replicates) for t in trials(folder)] == [3, 1, 1, 1]
    assert (folder / "a.txt").read_text() == "4\n"
    assert {n for n, h in tree(folder).items() if before.get(n) != h} == {"a.txt"}
    assert document["counts"] == {"keep": 3} and document["champion"] == 3
    code, document, _ = run(capsys, folder, "--once")
    assert code == 0 and document["champion"] == 4, "it goes on where it stopped"
    assert len(Ledger(folder / "work/results.jsonl").records("study")) == 1


def test_a_keep_reaches_the_users_files_before_the_next_proposal(make):
    folder = make()
    seen = []

    def watch(name: str, data: Any) -> None:
        if name == "proposing":
            seen.append((folder / "a.txt").read_text())

    with TaskStudy.write(folder / "task.yaml", on_event=watch) as study:
        study.loop.run(study.mutator(), Budget(trials=3))  # type: ignore[call-arg]
    assert seen == ["1\n", "2\n", "3\n"]


def test_it_works_inside_the_users_repository_and_leaves_it_alone(make, capsys, tmp_path):
    folder = make()
    top = folder.parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=top, capture_output=True, text=True, check=True)
        return done.stdout

    git("init", "-q")
    write(top, ".gitignore", "t/ignored/\n")
    write(folder, "ignored/data.bin", "large")
    git("add", "-A")
    git("-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "mine")
    head = git("rev-parse", "HEAD")
    code, _, said = run(capsys, folder, "--trials", "1")
    assert code == 0, said
    assert git("status", "--porcelain") == " M t/a.txt\n"
    assert git("rev-parse", "HEAD") == head and git("branch", "--list", "auto*") == ""
    listed = git("-C", "t/work/repository", "ls-tree", "-r", "--name-only", "HEAD").split()
    assert listed == ["a.txt", "b.txt", "mutate.py"], "neither what judges nor what git ignores"


def test_noise_is_known_and_a_runner_is_measured(make, capsys):
    task = TASK.replace('"{program}"', '"{output}"') + (
        "runner: {command: [python, run.py, '{seed}'], retries: 1, env: {FACTOR: '10'}}\n"
        "budget: {trials: 1}\n"
    )
    noisy = (
        "import os, sys, random\nfrom pathlib import Path\n"
        "if not Path('again').exists() and sys.argv[1] == '0' and 'x' in os.environ: sys.exit(1)\n"
        "base = sum(int(Path(n).read_text()) for n in ('a.txt', 'b.txt'))\n"
        "noise = random.Random(sys.argv[1] + str(base)).gauss(0, 0.5)\n"
        "Path('out.txt').write_text(str(base * int(os.environ['FACTOR']) + noise))\n"
        "Path('a.txt').write_text('999')\n"
    )
    score = (
        "import sys\nfrom pathlib import Path\nprint((Path(sys.argv[1]) / 'out.txt').read_text())"
    )
    task = task.replace("timeout_seconds: 20", "timeout_seconds: 20, parse: float")
    folder = make(task=task, score=score, run__py=noisy)
    code, _, said = run(capsys, folder)
    assert code == 0, said
    first, second = trials(folder)
    assert len({r.score for r in first.replicates}) == 3
    assert second.status.value == "keep" and len(second.replicates) > 1, second.reason
    assert "runner_seconds" in first.metrics and first.tier
    output = folder / "work" / "runs" / "0000" / "baseline-0" / "output"
    assert sorted(p.name for p in output.iterdir()) == ["a.txt", "out.txt"], "what it wrote"
    assert (folder / "a.txt").read_text() == "2\n", "what a runner writes is no edit"


def test_holdout_is_scored_on_keeps_only_and_constraints_and_targets_hold(make, capsys):
    task = TASK.replace("{direction: maximize}", "{direction: maximize, target: 50}") + (
        "holdout: {command: [python, held.py, '{program}'], parse: float}\n"
        "constraints: [files <= baseline.files]\n"
    )
    held = "import sys\nfrom pathlib import Path\nprint((Path(sys.argv[1])/'a.txt').read_text())"
    folder = make(task=task, held__py=held)
    code, document, said = run(capsys, folder, "--trials", "9")
    assert code == 0 and "target" in document["reason"], said
    assert [t.score for t in trials(folder)] == [30.0, 40.0, 50.0]
    assert {k: r["score"] for k, r in document["holdout"].items()} == {
        "0": 1.0, "1": 2.0, "2": 3.0
    }  # fmt: skip


# -- rules ---------------------------------------------------------------------------------------

REFUSED = {
    "too many files": (
        "[Path(n).write_text('7' + chr(10)) for n in ('a.txt', 'b.txt', 'sub/c.txt')]",
        "max-files",
    ),
    "too many lines": ("Path('a.txt').write_text('1' + chr(10) * 30)", "max-lines"),
    "too many bytes": ("Path('a.txt').write_text('1 ' + 'x' * 500)", "max-bytes"),
    "a new file": (f"Path('sub/new.txt').write_text('1'); {UP}", "new-file"),
    "a deletion": (f"os.remove('b.txt'); {UP}", "deleted-file"),
    "a symlink": ("os.remove('a.txt'); os.symlink('b.txt', 'a.txt')", "symlink"),
    "an edit of what is no artifact": (
        f"Path('mutate.py').write_text('pass'); {UP}",
        "not-an-artifact",
    ),
    "a scorer of its own": (
        f"Path('score.py').write_text('print(9e9)'); {UP}",
        "not-an-artifact",
    ),
    "no effect": ("Path('a.txt').write_text('1' + chr(10) + ' ')", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_limits_hold_and_nothing_of_the_users_changes(name, make, capsys):
    edit, rule = REFUSED[name]
    folder = make(edit=edit)
    write(folder, "sub/c.txt", "3\n")
    before = tree(folder)
    code, _, said = run(capsys, folder, "--once")
    last = trials(folder)[-1]
    assert tree(folder) == before, said
    assert last.id == 1 and last.status.value != "keep"
    if rule:
        assert code == 11 and last.status.value == "rejected", (last.reason, said)
        assert last.reason.startswith(f"{rule}: "), last.reason


def test_a_mutator_that_reaches_for_the_scorer_is_stopped_or_found_out(make, capsys):
    folder = make()
    scorer = folder / "score.py"
    reach = f"Path({str(scorer)!r}).write_text('print(9e9)'); {UP}"
    write(folder, "mutate.py", MUTATE.format(edit=reach))
    before = tree(folder)
    if best_tier()[0].strict:
        code = cli.run(["task", "run", str(folder), "--once"])
        out, err = capsys.readouterr()
        # Where its folder can be made, as in a /tmp of its own, it writes to nothing that lasts.
        assert {n for n, h in tree(folder).items() if before[n] != h} <= {"a.txt"}, out + err
        assert all(trial.score <= 40 for trial in trials(folder))
        before = tree(folder)
    code, _, said = run(capsys, folder, "--once", "--sandbox", "process")
    last = trials(folder)[-1]
    assert code == 11 and "tampered" in last.reason and "score.py" in last.reason, said
    after = tree(folder)
    assert {n for n in after if after[n] != before[n]} == {"score.py"}, "told, and not undone"


def test_a_program_cannot_read_what_judges_nor_the_home_folder(make, capsys):
    if not best_tier()[0].strict:
        pytest.skip("no strict sandbox here")
    folder = make(task=TASK + "runner: {command: [python, run.py]}\n")
    probe = (
        "import os, sys\nfrom pathlib import Path\n"
        f"for name in ({str(folder / 'hidden.json')!r}, {str(folder / 'score.py')!r}):\n"
        "    try: print('READ', open(name).read())\n"
        "    except OSError: print('hidden')\n"
        "import socket\n"
        "try: socket.create_connection(('127.0.0.1', 9), 1); print('READ network')\n"
        "except ConnectionRefusedError: print('READ network')\n"
        "except OSError: print('hidden')\n"
    )
    write(folder, "run.py", probe)
    code, _, said = run(capsys, folder, "--once")
    assert code == 0, said
    log = (folder / "work/runs/0001/candidate-1/run.log").read_text()
    assert log.count("hidden\n") == 3 and "READ" not in log, log


# -- scorers that fail ---------------------------------------------------------------------------

BROKEN = {
    "crash": ("raise SystemExit('broken scorer')", "crash"),
    "hang": ("import time; time.sleep(60)", "timeout"),
    "nothing": ("pass", "no_score"),
    "nan": ("print('{\"score\": NaN}')", "not_finite"),
    "two": ("print('{\"score\": 1}'); print('{\"score\": 2}')", "two_scores"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_scorer_is_no_fault_of_the_candidate(name, make, capsys):
    how, kind = BROKEN[name]
    # Fine on the baseline: it breaks on whatever comes next.
    score = SCORE.replace(
        "unit =", f"if '2' in Path(sys.argv[1], 'a.txt').read_text(): {how}; sys.exit()\nunit ="
    )
    folder = make(score=score, task=TASK.replace("timeout_seconds: 20", "timeout_seconds: 3"))
    before = tree(folder)
    code, _, said = run(capsys, folder, "--once")
    last = trials(folder)[-1]
    assert code == 5 and last.status.value == "crash", said
    assert last.reason.startswith(f"scorer: {kind}: "), last.reason
    assert len(last.replicates) == 1, "nobody is asked to mend what the scorer broke"
    assert tree(folder) == before


def test_a_scorer_that_fails_at_once_stops_the_study_with_its_words(make, capsys):
    folder = make(score="raise SystemExit('no rubric')")
    code = cli.run(["task", "check", str(folder)])
    out, _ = capsys.readouterr()
    assert code == 5 and "scorer: crash" in out and "no rubric" in out
    code, _, said = run(capsys, folder, "--once")
    assert code != 0 and "scorer" in said


# -- the user's files ----------------------------------------------------------------------------


def test_an_edit_of_the_users_made_meanwhile_is_never_overwritten(make, capsys):
    folder = make()
    run(capsys, folder, "--once")
    mine = f"Path({str(folder / 'a.txt')!r}).write_text('77' + chr(10)); {UP}"
    write(folder, "mutate.py", MUTATE.format(edit=mine))
    code = cli.run(["task", "run", str(folder), "--once", "--sandbox", "process"])
    _, err = capsys.readouterr()
    assert code == 0 and "a.txt was edited meanwhile" in err
    assert (folder / "a.txt").read_text() == "77\n" and trials(folder)[-1].score == 50.0
    code, _, said = run(capsys, folder, "--once")
    assert code == 3 and "edited since" in said
    write(folder, "a.txt", "2\n")
    write(folder, "mutate.py", MUTATE.format(edit=UP))
    code, _, said = run(capsys, folder, "--once")
    assert code == 0, said
    assert (folder / "a.txt").read_text() == "4\n", "put back, it follows the champion again"


def test_other_files_that_change_make_other_scores(make, capsys):
    folder = make()
    run(capsys, folder, "--once")
    write(folder, "hidden.json", '{"unit": 5}')
    code, _, said = run(capsys, folder, "--once")
    assert code == 0, said
    first, second = trials(folder)[1:]
    assert first.score_id != second.score_id and second.score == 25.0
    assert [r.score for r in second.champion_replicates][:1] == [20.0], "measured anew"


def test_the_commands_of_a_study_work_on_a_task(make, capsys):
    task = TASK + (
        "holdout: {command: [python, score.py, '{program}'], files: [hidden.json]}\n"
        "secondary: {size: minimize}\n"
    )
    score = SCORE.replace('{"files": 2}', '{"size": (total - 3) // 2}')
    folder = make(task=task, score=score)

    def call(*words: str) -> tuple[int, str]:
        code = cli.run([*words, "--dir", str(folder)])
        out, err = capsys.readouterr()
        return code, out + err

    assert call("verify")[0] == 0, "not begun"
    assert call("export")[0] == 2
    assert run(capsys, folder, "--trials", "3")[0] == 0
    assert call("verify")[1].startswith("9 records, all as they were written")
    code, said = call("results", "--pareto")
    assert code == 0 and [line.split()[0] for line in said.splitlines()[3:5]] == ["3", "1"], said
    assert "held out" in said and "60" in said
    assert "10 -> 20" not in said and "trial 2" not in said
    code, said = call("show", "2")
    assert code == 0 and "-2" in said and "+3" in said and "tier" in said
    code, said = call("log", "2")
    assert code == 0 and '"score": 50' in said
    assert "champion  trial 3" in call("status")[1]
    code, said = call("export")
    place = folder / "work" / "export-numbers"
    assert code == 0 and (place / "artifacts" / "a.txt").read_text() == "4\n", said
    assert "+4" in (place / "champion.diff").read_text()
    assert "mutate" not in (place / "champion.diff").read_text()
    assert (
        len(list((place / "patches").iterdir())) == 3
        and "scorer" in (place / "README.md").read_text()
    )
    assert call("undo", "1")[0] == 0 and (folder / "a.txt").read_text() == "2\n"
    code, said = call("verify", "--fresh-seeds", "2")
    assert code == 0 and "better" in said, said
    records = (folder / "work" / "results.jsonl").read_text()
    (folder / "work" / "results.jsonl").write_text(records.replace("40.0", "41.0", 1))
    assert call("verify")[0] == 3


# -- beside --------------------------------------------------------------------------------------


def test_new_check_and_run_go_together(tmp_path: Path, capsys):
    folder = tmp_path / "my task"
    assert cli.run(["task", "new", str(folder)]) == 0
    assert cli.run(["task", "new", str(folder)]) == 2, "not over what is there"
    capsys.readouterr()
    before = tree(folder)
    assert cli.run(["task", "check", str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] and report["noise"] == 0 and report["hidden"] == {"scorer": ["score.py"]}
    assert tree(folder) == before and not list((folder / "work").glob("check*"))
    code, document, said = run(capsys, folder)
    assert code == 0 and document["counts"] == {"keep": 4, "discard": 1}, said
    assert "nothing left to propose" in document["reason"]


def test_schema_and_misspelt_commands(capsys):
    assert cli.run(["task", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "autoresearch task file"
    assert cli.run(["task", "chek", "x"]) == 2
    assert "Did you mean 'check'" in capsys.readouterr().err


def test_edits_that_were_not_kept_are_tried_together(make, capsys):
    edit = (
        "n = len(request['history']['tried'])\n"
        "p = Path('ab'[n - 1] + '.txt'); p.write_text(p.read_text() + f'more {n}' + chr(10))"
    )
    folder = make(edit)
    assert run(capsys, folder, "--trials", "2")[1]["counts"] == {"discard": 2}
    code = cli.run(["combine", "1", "2", "--dir", str(folder), "--json"])
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 10 and document["trial"]["combines"] == [1, 2], document
    assert document["trial"]["diff_stat"] == {"files": 2, "added": 2, "removed": 0}
    assert (folder / "a.txt").read_text() == "1\n"
