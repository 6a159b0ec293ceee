"""A task checks itself: paths stay inside, keys are known, constraints are parsed and never run."""

import pytest

from autoresearch.engine.constraint import Constraint
from autoresearch.engine.errors import TaskError
from autoresearch.engine.task import Artifacts, Task

NAN = float("nan")


def table(**more):
    base = {
        "id": "pretraining",
        "artifacts": {"include": ["train.py"]},
        "objective": {"metric": "val_bpb", "direction": "minimize"},
    }
    return {**base, **more}


def test_defaults_and_round_trip():
    task = Task.parse(table(constraints=["peak_memory_mb <= 1.2 * baseline.peak_memory_mb"]))
    assert task.policy.name == "confirm" and task.policy.confidence == 0.95
    assert not task.mutation.allow_new_files and not task.mutation.allow_delete
    assert Task.parse(task.model_dump(mode="json")) == task
    assert Task.parse(table(policy="greedy")).policy.name == "greedy"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"artefacts": {}}, "did you mean 'artifacts'"),
        ({"mutation": {"max_file": 3}}, "did you mean 'max_files'"),
        ({"objective": {"metric": "x", "direction": "down"}}, "objective.direction"),
        ({"policy": {"confidence": 1.0}}, "policy.confidence"),
        ({"policy": {"confidence": NAN}}, "policy.confidence"),
        ({"id": "../x"}, "id"),
        ({"budget": {"hours": 0}}, "budget.hours"),
        ({"constraints": ["x <= 2 ** 3"]}, "constraints.0"),
    ],
)
def test_names_the_key_that_is_wrong(more, said):
    with pytest.raises(TaskError, match=said) as caught:
        Task.parse(table(**more))
    assert caught.value.exit_code == 2 and caught.value.hint


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x.py",
        "a/../../x",
        "~/x",
        "C:/x",
        "c:x",
        "a\\b",
        "",
        " a",
        "a//b",
        "./a",
        ".git/config",
        "sub/.GIT/hooks/*",
        ".gitattributes",
        "a\nb",
        "a[b",
    ],
)
def test_refuses_paths_that_leave_or_steer(path):
    with pytest.raises(TaskError, match=r"artifacts\.include"):
        Task.parse(table(artifacts={"include": [path]}))


@pytest.mark.parametrize(
    ("pattern", "path", "yes"),
    [
        ("*.py", "train.py", True),
        ("*.py", "a/train.py", False),
        ("**/*.py", "train.py", True),
        ("**/*.py", "a/b/train.py", True),
        ("a/**/z.txt", "a/z.txt", True),
        ("a/**/z.txt", "ab/z.txt", False),
        ("src/", "src/a/b.txt", True),
        ("a/**", "a/b/c", True),
        ("?.md", "a.md", True),
        ("?.md", "ab.md", False),
        ("[ab].md", "b.md", True),
        ("[!ab].md", "b.md", False),
        ("[!a]b", "/b", False),
        ("train.py", "trainxpy", False),
        ("train.py", "Train.py", False),
        ("**", "a/.git/config", False),
        ("**", ".GitAttributes", False),
        ("**", "__pycache__/x.cpython-311.pyc", False),
        ("**", ".autoresearch/work/1/x", False),
        ("**", "prompts/ü b.md", True),
    ],
)
def test_globs(pattern, path, yes):
    assert Artifacts(include=(pattern,)).match(path) is yes


@pytest.mark.parametrize(
    ("pattern", "folder", "yes"),
    [
        ("train.py", "lib", False),
        ("train.py", "train.py", False),
        ("lib/**", "lib", True),
        ("lib/**", "lib/a/b", True),
        ("lib/*.py", "lib", True),
        ("lib/*.py", "lib/a", False),
        ("l*/a/*.py", "lib/a", True),
        ("a/b/c.py", "a", True),
        ("a/b/c.py", "a/x", False),
        ("**/*.py", "anything/at/all", True),
    ],
)
def test_folders_that_may_hold_artifacts(pattern, folder, yes):
    assert Artifacts(include=(pattern,)).may_hold(folder) is yes


def test_exclude_wins():
    artifacts = Artifacts(include=("**/*.py",), exclude=("prepare/",))
    assert artifacts.match("train.py") and not artifacts.match("prepare/data.py")


def test_better_is_strict_and_never_nan():
    down = Task.parse(table()).objective
    up = Task.parse(table(objective={"metric": "x", "direction": "maximize"})).objective
    assert down.better(1.0, 2.0) and not down.better(2.0, 2.0) and not down.better(NAN, 2.0)
    assert up.better(2.0, 1.0) and not up.better(NAN, 1.0)


@pytest.mark.parametrize(
    ("text", "metrics", "baseline", "broken"),
    [
        ("m <= 1.2 * baseline.m", {"m": 12.0}, {"m": 10.0}, False),
        ("m <= baseline.m * 1.2", {"m": 12.1}, {"m": 10.0}, True),
        ("m<2", {"m": 2.0}, {}, True),
        ("m >= 0.5*2*baseline.k", {"m": 3.0}, {"k": 3.0}, False),
        ("m > -1e3", {"m": 0.0}, {}, False),
        ("m <= 5", {"m": NAN}, {}, True),
        ("m >= 5", {"m": NAN}, {}, True),
        ("m <= 5", {}, {}, True),
        ("m <= baseline.k", {"m": 1.0}, {}, True),
    ],
)
def test_constraints(text, metrics, baseline, broken):
    constraint = Constraint.parse(text)
    assert bool(constraint.broken(metrics, baseline)) is broken
    assert Constraint.parse(str(constraint)) == constraint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "m == 3",
        "m <= ",
        "m <= x",
        "m <= baseline.a * baseline.b",
        "m <= 2 * (3)",
        "m <= 1e999",
        "m <= nan",
        "__import__('os').system('x') <= 1",
        "m <= 2 * __import__('os')",
        "m <= baseline.__class__.x",
        "m <= " + "1*" * 200 + "1",
    ],
)
def test_constraints_refuse_everything_else(text):
    with pytest.raises(ValueError):
        Constraint.parse(text)


def test_first_broken_constraint_is_told():
    task = Task.parse(table(constraints=["a <= 1", "b <= baseline.b"]))
    assert task.broken_constraint({"a": 1.0, "b": 2.0}, {"b": 2.0}) == ""
    assert "bound 2" in task.broken_constraint({"a": 1.0, "b": 3.0}, {"b": 2.0})
