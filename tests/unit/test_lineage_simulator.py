"""The simulator behind the defaults of --combine and --frontier: what ideas come to together."""

import numpy as np
import pytest

from tests.unit.benchmark_scripts import benchmark


@pytest.fixture(scope="module")
def bench():
    with benchmark("lineage_simulator") as module:
        yield module


@pytest.mark.parametrize(
    ("together", "worth"),
    [("additive", 3 + 2 - 1 + 4), ("sub-additive", 3 + 1 - 1 + 4), ("conflicting", 3 - 1 - 1 + 4)],
)
def test_what_ideas_of_one_area_are_worth_together(bench, together, worth):
    effects, areas = np.array([3.0, 2.0, -1.0, 4.0]), np.array([0, 0, 0, 1])
    landscape = bench.Landscape(effects, areas, together, 0)
    assert landscape.quality(frozenset(range(4))) == worth
    assert landscape.quality(frozenset()) == 0
    one, other = frozenset([0]), frozenset([1])
    assert landscape.merge(one, other) == landscape.merge(other, one)
    assert landscape.merge(one, frozenset([3])), "edits of different areas"


def test_near_misses_are_tried_together_once(bench):
    """Ideas of 1.5 sigma, which one decision seldom finds: three at once it does."""
    landscape = bench.Landscape(np.full(60, 1.5), np.arange(60), "additive", 0)
    plain, combined = (
        bench.study_of(bench.WAYS[name], landscape, 60, [1, 2]) for name in ("plain", "combine")
    )
    held = [i for trial in combined.state.trials.values() for i in trial.combines]
    assert len(held) >= 3 and len(held) == len(set(held))
    assert combined.counts["combined keep"] >= 1 and not plain.counts["combined keep"]
    for study in (plain, combined):
        assert study.study.quality == 1.5 * len(study.champion)
        assert study.study.spent >= 60
    begun = bench.study_of(bench.WAYS["frontier 2"], landscape, 60, [1, 2])
    assert any(removed for _, removed in begun.edits.values()), "begun before the champion"
