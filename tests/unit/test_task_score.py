"""What a scorer printed: one score, or a failure of the scorer that says what was wrong."""

from __future__ import annotations

from typing import Any

import pytest

from autoresearch.engine.proposers.process import Finished
from autoresearch.engine.trial import Failure
from autoresearch.taskfile.model import Scorer
from autoresearch.taskfile.score import Scored, read_score


def scorer(**more: Any) -> Scorer:
    return Scorer(command=("python", "score.py"), **more)


def score(text: str, code: int = 0, stopped: str = "", **more: Any) -> Scored | Failure:
    return read_score(scorer(**more), Finished(code, text, "", 0.1, stopped))


@pytest.mark.parametrize(
    ("text", "more", "expected"),
    [
        ('{"score": 3}', {}, 3.0),
        ('loading ...\n{"score": 0.5}\ndone\n', {}, 0.5),
        ('{\n  "score": 2\n}', {}, 2.0),
        ('{"note": 1}\n{"score": 4}', {}, 4.0),
        ('{"result": {"f1": 0.25}, "score": "x"}', {"score_field": "result.f1"}, 0.25),
        (" 1.5e-3 \n\n", {"parse": "float"}, 0.0015),
        ("loss 3\nacc=0.75\n", {"parse": "regex", "pattern": r"acc=([0-9.]+)"}, 0.75),
        ("anything", {"parse": "exit_code"}, 1.0),
    ],
)
def test_reads_the_one_score(text, more, expected):
    assert score(text, **more) == Scored(expected)


def test_an_exit_code_is_a_score_where_asked_and_a_crash_elsewhere():
    assert score("", code=3, parse="exit_code") == Scored(0.0)
    assert score("", code=-9, parse="exit_code").kind == "crash"
    failure = score('{"score": 3}', code=1)
    assert isinstance(failure, Failure) and (failure.phase, failure.kind) == ("scorer", "crash")


def test_metrics_are_numbers_with_names():
    found = score('{"score": 1, "metrics": {"bytes": 10, "f1": 0.5}}')
    assert found == Scored(1.0, {"bytes": 10.0, "f1": 0.5})
    for metrics in ('{"a b": 1}', '{"a": "1"}', '{"a": true}', "[1]", '{"a": 1, "a": 2}', "3"):
        assert score(f'{{"score": 1, "metrics": {metrics}}}').kind == "malformed", metrics
    assert score('{"score": 1, "metrics": {"a": NaN}}').kind == "not_finite"


@pytest.mark.parametrize(
    ("text", "kind", "more"),
    [
        ("", "no_score", {}),
        ("hello", "no_score", {}),
        ('{"scor": 1}', "no_score", {}),
        ("[1, 2]", "no_score", {}),
        ('{"score": 1}\n{"score": 1}', "two_scores", {}),
        ('{"score": 1, "score": 2}', "two_scores", {}),
        ('{"score": NaN}', "not_finite", {}),
        ('{"score": 1e999}', "not_finite", {}),
        ('{"score": -Infinity}', "not_finite", {}),
        ('{"score": ' + "9" * 400 + "}", "not_finite", {}),
        ('{"score": "3"}', "malformed", {}),
        ('{"score": true}', "malformed", {}),
        ('{"score": null}', "malformed", {}),
        ("[" * 100_000, "no_score", {}),
        ("", "no_score", {"parse": "float"}),
        ("1\n2\n", "two_scores", {"parse": "float"}),
        ("1 2", "malformed", {"parse": "float"}),
        ("nan", "not_finite", {"parse": "float"}),
        ("inf", "not_finite", {"parse": "float"}),
        ("", "no_score", {"parse": "regex", "pattern": "a=(.*)"}),
        ("a=1\na=2", "two_scores", {"parse": "regex", "pattern": "a=(.*)"}),
        ("a=x", "malformed", {"parse": "regex", "pattern": "a=(.*)"}),
        ("a=nan", "not_finite", {"parse": "regex", "pattern": "a=(.*)"}),
    ],
)
def test_anything_else_is_the_scorers_failure(text, kind, more):
    failure = score(text, **more)
    assert isinstance(failure, Failure)
    assert (failure.phase, failure.kind) == ("scorer", kind) and failure.message


def test_a_scorer_that_had_to_be_stopped_has_no_score():
    assert score('{"score": 3}', stopped="deadline").kind == "timeout"
    assert score('{"score": 3}', stopped="output").kind == "flood"
