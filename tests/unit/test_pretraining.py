"""Pretraining as a task: pruning, disturbance, scripts that score themselves; no real run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autoresearch.engine.judging import PRUNED
from autoresearch.engine.task import MeasureRequest
from autoresearch.neighbours import Neighbours
from autoresearch.pretraining import (
    RULES,
    UNVERIFIED,
    Pretraining,
    Prospects,
    pretraining_task,
    thin,
)
from prepare.outcome import Failure, Result
from prepare.settings import Settings

STEPS = 200
CURVE = [(t / STEPS, 2 + math.exp(-5 * t / STEPS)) for t in range(1, STEPS + 1)]


def result(**changes: Any) -> Any:
    """A Result with only what is looked at."""
    numbers = dict.fromkeys(
        (
            *("val_bpb", "tokens", "tokens_per_second", "peak_memory_mb", "num_steps"),
            *("num_params", "startup_seconds", "warmup_seconds", "training_seconds"),
            *("scoring_seconds", "total_seconds"),
        ),
        1.0,
    )
    others = {
        "verified": True,
        "score_id": "id",
        "tier": "process",
        "backend": "cpu",
        "hardware": {"id": "h"},
        "policy": {"compute_dtype": "float32", "attention": "sdpa", "reasons": {}},
        "versions": {"torch": "2.13.0"},
        "probes": {},
        "run_dir": "",
        "weights": None,
        "mfu_percent": None,
        "mfu_measured_percent": None,
        "measured_peak_flops": None,
        "not_protected_against": ("ptrace",),
        "touched": (),
    }
    return SimpleNamespace(**{**numbers, **others, **changes})


def trained(scale: float, unit: str, ended: list[float]) -> Callable[..., Any]:
    """A harness whose training loss is `scale` times the champion's after the first step."""

    def run(script: Path, settings: Settings, *, on_event: Any, **options: Any) -> Result:
        for number, (share, loss) in enumerate(CURVE):
            spent = share * float(settings.token_budget or settings.time_budget)
            loss = loss * scale if number else loss
            ended.append(share)
            on_event("progress", {unit: spent, "loss": loss})
        return result()

    return run


def measure(study: Pretraining, tmp_path: Path, *curves: Any) -> Any:
    return study.measure(MeasureRequest(tmp_path, 3, tmp_path / "run", champion_curves=curves))


@pytest.mark.parametrize("tokens", [None, 5_000])
def test_a_hopeless_run_is_stopped_in_either_budget(tokens: int | None, tmp_path: Path) -> None:
    settings = Settings(token_budget=tokens)
    budget = float(tokens or settings.time_budget)
    champion = [(share * budget, loss) for share, loss in CURVE]
    ended: list[float] = []
    unit = "elapsed" if tokens is None else "tokens"
    study = Pretraining(settings, run=trained(2.0, unit, ended))
    stopped = measure(study, tmp_path, champion, champion)
    assert stopped.failure is not None and stopped.failure.kind == PRUNED
    assert "hopeless" in stopped.failure.message
    assert 0.5 < ended[-1] < 0.7
    assert stopped.score is None and stopped.details["curve"]
    for curves in ((), ([(2 * x, y) for x, y in champion],)):
        ended.clear()
        assert measure(study, tmp_path, *curves).score == 1.0, "no champion of this budget"
        assert ended[-1] == 1.0
    as_good = Pretraining(settings, run=trained(1.0, unit, ended))
    assert measure(as_good, tmp_path, champion).score == 1.0


def test_a_disturbed_run_is_not_called_hopeless() -> None:
    hopeless = [(share, 2 * loss if n else loss) for n, (share, loss) in enumerate(CURVE)]
    Prospects((CURVE,), 1.0, lambda: False).look(hopeless[:140])
    with pytest.raises(Exception, match="hopeless"):
        Prospects((CURVE,), 1.0, lambda: True).look(hopeless[:140])
    busy = SimpleNamespace(disturbance="other processes took half of the machine")
    assert not Pretraining(Settings())._calm(busy)  # type: ignore[arg-type]
    assert Pretraining(Settings(token_budget=1_000))._calm(busy)  # type: ignore[arg-type]


def test_a_script_that_scores_itself_breaks_a_rule(tmp_path: Path) -> None:
    def run(*arguments: Any, **options: Any) -> Any:
        return result(verified=False, val_bpb=0.1)

    outcome = measure(Pretraining(Settings(), run=run), tmp_path)
    assert outcome.score is None
    assert outcome.failure is not None and outcome.failure.kind == UNVERIFIED
    assert outcome.details["tier"] == "process", "whatever tier was asked for: it ran outside"
    assert UNVERIFIED in RULES


def test_failures_and_options_are_handed_on(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def run(script: Path, settings: Settings, **options: Any) -> Any:
        seen.update(options, seed=settings.seed, script=script)
        touched = ("open /etc/passwd",)
        return Failure("training", "nan", "it is nan", "log", tier="landlock", touched=touched)

    champion = tmp_path / "champion.py"
    tier = SimpleNamespace(name="landlock", does_not_stop=lambda: ("signals",))
    here = SimpleNamespace(backend="cpu", id="h")
    study = Pretraining(Settings(), "cpu", None, tier, champion, run, lambda: here)
    outcome = measure(study, tmp_path)
    assert outcome.failure is not None and outcome.failure.kind == "nan"
    assert outcome.seconds["total"] >= 0
    assert outcome.details["tier"] == "landlock" and outcome.details["touched"]
    assert "signals" in outcome.details["not_protected_against"]
    assert (outcome.details["backend"], outcome.details["hardware_id"]) == ("cpu", "h")
    assert seen["seed"] == 3 and seen["backend"] == "cpu" and seen["sandbox"] is tier
    assert "warm_from" not in seen, "there is no champion yet"
    champion.write_text("")
    measure(study, tmp_path)
    assert seen["warm_from"] == champion


def test_a_machine_slower_than_usual_disturbs_also_when_asked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Neighbours, "disturbance", "")
    speed = [100.0]

    def run(*arguments: Any, **options: Any) -> Any:
        return result(measured_peak_flops=speed[0])

    runs = [measure(Pretraining(Settings(), run=run), tmp_path) for _ in range(3)]
    speed[0] = 60.0
    assert not measure(Pretraining(Settings(), run=run), tmp_path).disturbed, "nothing is usual yet"
    known = Pretraining(Settings(), run=run).remember(runs)
    assert "60% of its usual speed" in measure(known, tmp_path).disturbed
    assert not measure(
        Pretraining(Settings(token_budget=9), run=run).remember(runs), tmp_path
    ).disturbed
    other = [replace(run, details={**run.details, "hardware_id": "another"}) for run in runs]
    assert not measure(Pretraining(Settings(), run=run).remember(other), tmp_path).disturbed
    said = [bool(measure(known, tmp_path).disturbed) for _ in range(5)]
    assert said[0] and not said[-1], "what stays slower becomes usual"


def test_how_a_score_was_computed_is_recorded(tmp_path: Path) -> None:
    policy = {**result().policy, "linear": "fp8"}
    study = Pretraining(Settings(), run=lambda *arguments, **options: result(policy=policy))
    recorded = measure(study, tmp_path).details["conditions"]
    assert recorded["attention"] == "sdpa" and recorded["torch"] == "2.13.0"
    assert recorded["linear"] == "fp8", "else an FP8 score is held against a plain one unnoticed"
    assert recorded["power"] in ("mains", "battery")
    assert "reasons" not in recorded


def test_thin_keeps_both_ends() -> None:
    assert thin(CURVE, 10)[0] == CURVE[0] and thin(CURVE, 10)[-1] == CURVE[-1]
    assert len(thin(CURVE, 10)) == 10 and thin(CURVE[:5], 10) == CURVE[:5]


def test_one_limit_that_is_set_does_not_loosen_the_others() -> None:
    usual = pretraining_task().mutation
    task = pretraining_task(mutation={"refuse_known": False})
    assert task.mutation == usual.model_copy(update={"refuse_known": False})
    assert usual.max_files == 1 and usual.max_changed_lines == 1_500
