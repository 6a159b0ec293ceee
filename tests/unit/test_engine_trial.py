"""Records survive JSON exactly, and what isn't a record is refused by name."""

import json

import pytest

from autoresearch.engine.errors import RecordError
from autoresearch.engine.trial import Cost, DiffStat, Failure, Replicate, Trial, TrialStatus


def full_trial() -> Trial:
    bad = Replicate(
        seed=2,
        score=float("nan"),
        failure=Failure("training", "nan", "loss is NaN", "step 3\nloss nan"),
        disturbed="clock slowed",
        details={"probes": {"future": "held"}},
    )
    good = Replicate(1, 0.97, {"tokens": 1e6}, {"training": 20.0}, score_id="abc")
    return Trial(
        id=7,
        parent=3,
        status=TrialStatus.KEEP,
        reason="better with 0.97 confidence",
        description="raise the learning rate",
        start=2,
        combines=(4, 6),
        commit="0" * 40,
        diff_hash="f" * 64,
        diff_stat=DiffStat(1, 2, 3),
        score=0.97,
        score_id="abc",
        replicates=(good, bad),
        champion_replicates=(good,),
        delta=-0.004,
        confidence=0.97,
        extra_runs=2,
        seconds={"training": 20.0},
        metrics={"peak_memory_mb": float("inf")},
        curve=((1.0, 5.5), (2.0, float("-inf"))),
        tier="process",
        backend="cpu",
        hardware_id="h1",
        proposer="search",
        cost=Cost(0.01, 100, 20, "native"),
        predicted=-0.004,
        warning="200 s passed before its clock started",
        started_at="2026-01-01T00:00:00+00:00",
        finished_at="2026-01-01T00:05:00+00:00",
    )


def test_round_trip_through_strict_json():
    trial = full_trial()
    text = json.dumps(trial.to_dict(), allow_nan=False)
    again = Trial.from_dict(json.loads(text))
    # NaN differs from itself, so compare what is written.
    assert again.to_dict() == trial.to_dict()
    assert again.replicates[1].score != again.replicates[1].score
    assert again.metrics["peak_memory_mb"] == float("inf")
    assert again.status is TrialStatus.KEEP


def test_least_trial_round_trips():
    trial = Trial(1, None, TrialStatus.CRASH, "out of memory")
    assert Trial.from_dict(trial.to_dict()) == trial


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"status": "kept"}, "Trial.status"),
        ({"id": "7"}, "Trial.id"),
        ({"id": True}, "Trial.id"),
        ({"score": "0.9"}, "Trial.score"),
        ({"replicates": [{"seed": 1}]}, "'score' is missing"),
        ({"replicates": [{"seed": 1, "score": None, "failure": {"phase": 3}}]}, "failure"),
        ({"cost": {"known": "rumour"}}, "rumour"),
        ({"curve": [[1.0]]}, "Trial.curve"),
        ({"metrics": {"a": "x"}}, "Trial.metrics"),
    ],
)
def test_refuses_what_is_no_trial(change, said):
    with pytest.raises(RecordError, match=said):
        Trial.from_dict({**full_trial().to_dict(), **change})


def test_refuses_a_missing_field():
    data = full_trial().to_dict()
    del data["reason"]
    with pytest.raises(RecordError, match="'reason' is missing"):
        Trial.from_dict(data)


def test_statuses_are_the_designs_words():
    assert [str(s) for s in TrialStatus] == [
        "keep",
        "discard",
        "crash",
        "rejected",
        "pruned",
        "noisy",
    ]
