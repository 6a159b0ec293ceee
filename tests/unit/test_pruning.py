"""Training curves that are hopeless, and those that only look so."""

import math
import random

import pytest

from autoresearch.engine.pruning import Pruner

BUDGET = 300.0


def curve(worse=0.0, warmdown=0.5, until=1.0, seed=0, start=9.0, steps=200):
    """Losses over seconds; a term that goes with the learning rate hides the level."""
    noise = random.Random(seed)
    points = [(0.0, start)]
    for step in range(1, int(steps * until) + 1):
        t = step / steps
        rate = min(1.0, (1 - t) / warmdown)
        level = 3.0 + worse + 0.5 * (0.05 + t) ** -0.4 + 0.15 * rate
        points.append((t * BUDGET, level + noise.gauss(0, 0.03)))
    return points


CHAMPIONS = [curve(seed=seed) for seed in (1, 2, 3)]


def judge(points, champions=CHAMPIONS, **settings):
    return Pruner(**settings).judge(points, champions, BUDGET)


def test_hopeless_is_stopped_and_says_why():
    verdict = judge(curve(worse=1.5, until=0.65, seed=4))
    assert verdict.stop and verdict.behind > 0
    assert "hopeless" in verdict.reason and "champion's" in verdict.reason


@pytest.mark.parametrize("until", [0.05, 0.3, 0.5, 0.97])
def test_nothing_is_stopped_too_early_or_at_the_end(until):
    assert not judge(curve(worse=5.0, until=until, seed=4)).stop


@pytest.mark.parametrize("until", [0.6, 0.75, 0.85, 0.94])
@pytest.mark.parametrize("warmdown", [0.05, 0.2, 1.0])
def test_other_schedules_are_not_stopped(until, warmdown):
    assert not judge(curve(warmdown=warmdown, until=until, seed=5)).stop


def test_slightly_worse_runs_to_its_end():
    assert not judge(curve(worse=0.05, until=0.9, seed=6)).stop


def test_loss_of_another_kind_is_not_compared():
    verdict = judge(curve(worse=9.0, until=0.7, start=18.0, seed=7))
    assert not verdict.stop and "not the same quantity" in verdict.reason


def test_one_spike_stops_nothing():
    points = curve(until=0.7, seed=8)
    points[-1] = (points[-1][0], 50.0)
    assert not judge(points).stop


def test_broken_losses_are_stopped_after_the_minimum():
    broken = [(t, math.nan if t > 100 else loss) for t, loss in curve(until=0.6)]
    assert judge(broken).stop
    assert not judge([p for p in broken if p[0] < 0.5 * BUDGET]).stop


def test_without_a_finished_champion_nothing_is_stopped():
    points = curve(worse=2.0, until=0.7)
    assert not judge(points, champions=[]).stop
    assert not judge(points, champions=[curve(until=0.6)]).stop
    assert judge(points, champions=CHAMPIONS[:1]).stop


def test_senseless_settings_are_refused():
    with pytest.raises(ValueError):
        Pruner(min_share=0.99)
    with pytest.raises(ValueError):
        Pruner(catch_up=0.5)
    with pytest.raises(ValueError):
        Pruner().judge([], [], budget=0.0)
