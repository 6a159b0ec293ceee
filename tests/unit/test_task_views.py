"""The Pareto front: what no other trial beats in one metric without losing in another."""

from __future__ import annotations

import itertools
import random

from autoresearch.engine.trial import Trial, TrialStatus
from autoresearch.taskfile.views import front

WAYS = {"score": "maximize", "words": "minimize"}


def trial(number: int, status: TrialStatus = TrialStatus.DISCARD, **metrics: float) -> Trial:
    return Trial(number, 0, status, "", metrics=metrics)


def ids(trials: list[Trial], ways: dict[str, str] = WAYS) -> list[int]:
    return [found.id for found in front(trials, ways)]


def test_a_trade_off_is_kept_and_what_is_worse_in_both_is_not():
    trials = [
        trial(0, score=1, words=10),
        trial(1, score=2, words=20),
        trial(2, score=1.5, words=20),
        trial(3, score=1, words=11),
    ]
    assert ids(trials) == [0, 1]


def test_equals_stand_side_by_side_and_broken_rules_are_no_choice():
    trials = [
        trial(0, score=1, words=10),
        trial(1, score=1, words=10),
        trial(2, TrialStatus.REJECTED, score=9, words=1),
        trial(3, score=9),
        trial(4, score=float("nan"), words=1),
    ]
    assert ids(trials) == [0, 1]


def test_the_front_is_what_its_definition_says():
    draw = random.Random(1)
    trials = [trial(n, a=draw.randint(0, 9), b=draw.randint(0, 9)) for n in range(60)]
    found = set(ids(trials, {"a": "minimize", "b": "maximize"}))
    for one in trials:
        beaten = any(
            o.metrics["a"] <= one.metrics["a"]
            and o.metrics["b"] >= one.metrics["b"]
            and o.metrics != one.metrics
            for o in trials
        )
        assert (one.id in found) == (not beaten)
    assert len(list(itertools.islice(found, 2))) == 2
