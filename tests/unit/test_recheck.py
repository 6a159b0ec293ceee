"""The gain of a study, measured again on seeds that nothing was decided by."""

import random

import pytest

from autoresearch.engine.errors import StudyStopped
from autoresearch.engine.recheck import NothingToRecheck, Recheck, RecheckFailed, recheck
from autoresearch.engine.state import State
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Replicate
from tests.unit.studies import measure, run


def test_gain_and_confidence_are_those_of_a_paired_t_test():
    found = Recheck.of(3, (7, 8, 9), (1.00, 1.02, 0.98), (0.95, 0.94, 0.96), "minimize")
    assert found.gain == pytest.approx(0.05)
    assert found.se == pytest.approx(0.03 / 3**0.5)
    assert found.wins == 3
    # Student's t of 2.887 with 2 degrees of freedom: one-sided p = 0.051.
    assert found.confidence == pytest.approx(0.949, abs=0.005)


def test_a_score_that_should_rise_gains_by_rising():
    found = Recheck.of(3, (7, 8), (1.0, 1.1), (1.5, 1.7), "maximize")
    assert found.gain == pytest.approx(0.55)
    assert found.wins == 2


def test_exact_repeats_are_sure():
    assert Recheck.of(1, (1, 2), (1.0, 1.0), (0.5, 0.5), "minimize").confidence == 1.0
    assert Recheck.of(1, (1, 2), (1.0, 1.0), (1.0, 1.0), "minimize").confidence == 0.0


def test_one_seed_is_refused():
    with pytest.raises(ValueError, match="two seeds"):
        Recheck.of(1, (1,), (1.0,), (0.5,), "minimize")


def test_both_programs_run_on_seeds_that_no_trial_had(make_loop):
    loop = make_loop()
    _, trials = run(loop, "VALUE = 0.9\n")
    used = {run.seed for trial in trials for run in trial.replicates}
    with loop:
        found = recheck(loop, 4)
        again = recheck(loop, 2)
    assert found.gain == pytest.approx(0.1, abs=0.03)
    assert found.wins == 4
    assert len({*found.seeds, *again.seeds} - used) == 6
    # The noise is drawn from seed and value: these are runs of those programs on those seeds.
    noises = [random.Random(f"{seed} 0.9").gauss(0, 0.01) for seed in found.seeds]
    assert [score - 0.9 for score in found.champion] == pytest.approx(noises)


def test_it_is_recorded_and_decides_nothing(make_loop):
    loop = make_loop()
    run(loop, "VALUE = 0.9\n")
    before = State.of(loop.ledger.records())
    with loop:
        found = recheck(loop, 2)
    record = loop.ledger.records("recheck")[-1]
    assert (record["trial"], tuple(record["champion"])) == (1, found.champion)
    assert not loop.ledger.verify()
    after = State.of(loop.ledger.records())
    assert (after.champion, after.next_id) == (before.champion, before.next_id)
    assert after.scores_of(1, "same") == before.scores_of(1, "same")


def test_a_champion_that_is_the_baseline_has_no_gain(make_loop):
    loop = make_loop()
    run(loop)
    with loop, pytest.raises(NothingToRecheck):
        recheck(loop, 2)


def test_a_disturbed_machine_gives_no_number(make_loop):
    loop = make_loop()
    run(loop, "VALUE = 0.9\n")

    def disturbed(request: MeasureRequest) -> Replicate:
        return Replicate(request.seed, 1.0, disturbed="a neighbour", score_id="same")

    loop.measure = disturbed
    with loop, pytest.raises(RecheckFailed, match="a neighbour"):
        recheck(loop, 2)
    assert not loop.ledger.records("recheck")


def test_asked_to_stop_it_records_nothing(make_loop):
    loop = make_loop()
    run(loop, "VALUE = 0.9\n")
    runs = []

    def stopping(request: MeasureRequest) -> Replicate:
        runs.append(request.seed)
        loop.stop_asked = True
        return measure(request)

    loop.measure = stopping
    with loop, pytest.raises(StudyStopped, match="asked to stop"):
        recheck(loop, 3)
    assert len(runs) == 1
    assert not loop.ledger.records("recheck")
