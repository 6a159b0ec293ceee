"""One model on two devices, processes on this CPU: in every tier, and when one goes wrong."""

import random
import re
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from autoresearch.engine.sandbox import SeatbeltTier, Tier, all_tiers
from prepare.devices import OPENED_FOR_DEVICES
from prepare.errors import EnvironmentProblem
from prepare.experiment import run_experiment
from prepare.outcome import Failure, Result
from prepare.settings import Settings
from tests.smoke.candidates import write_candidate

ON_THE_SECOND = "if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1: "


@pytest.fixture(autouse=True, scope="module")
def plain_machine(tmp_path_factory):
    """No probing and no compiling: these tests are about the harness."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("AUTORESEARCH_BACKEND", "cpu")
        patch.setenv("AUTORESEARCH_DTYPE", "float32")
        patch.setenv("AUTORESEARCH_COMPILE", "0")
        patch.setenv("AUTORESEARCH_ATTENTION", "sdpa")
        yield


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    draw = random.Random(0)
    words = ["red", "green", "blue", "cat", "dog", "house", "runs", "sleeps"]
    folder = tmp_path_factory.mktemp("corpus")
    for name, documents in (("train.txt", 200), ("valid.txt", 20)):
        texts = [" ".join(draw.choice(words) for _ in range(80)) for _ in range(documents)]
        (folder / name).write_text("<|endoftext|>".join(texts), encoding="utf-8")
    return Settings(
        corpus=str(folder),
        vocab_size=256,
        max_seq_len=64,
        token_budget=8_000,
        time_budget=20.0,
        eval_bytes=2_000,
        startup_timeout=90.0,
        warmup_timeout=90.0,
        score_timeout=90.0,
        devices=2,
    )


def run(
    folder: Path, settings: Settings, tier: Tier | None = None, **changes: str
) -> Result | Failure:
    script = write_candidate(folder, **changes)
    return run_experiment(script, settings, run_dir=folder / "run", sandbox=tier)


def failure(outcome: Result | Failure) -> Failure:
    assert isinstance(outcome, Failure), outcome
    left = [" ".join(p.cmdline()) for p in psutil.Process().children(recursive=True)]
    assert not any("prepare.child" in line for line in left)
    return outcome


@dataclass(frozen=True)
class Alone:
    outcome: Result
    weights: dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, settings) -> Alone:
    """The same program, seed and budget on one device."""
    outcome = run(tmp_path_factory.mktemp("alone"), settings.model_copy(update={"devices": 1}))
    assert isinstance(outcome, Result), outcome
    return Alone(outcome, load_file(outcome.weights or ""))


@pytest.mark.parametrize("tier", all_tiers(), ids=lambda tier: tier.name)
def test_two_devices_make_the_model_that_one_makes(tier, tmp_path, settings, alone):
    if tier.problem() or tier.loopback_problem():
        pytest.skip(f"no {tier.name} here: {tier.problem() or tier.loopback_problem()}")
    outcome = run(tmp_path, settings, tier)
    assert isinstance(outcome, Result), outcome
    assert outcome.devices == 2
    assert (outcome.tokens, outcome.num_steps) == (alone.outcome.tokens, alone.outcome.num_steps)
    assert outcome.val_bpb == pytest.approx(alone.outcome.val_bpb, abs=1e-4)
    weights = load_file(outcome.weights or "")
    # Steps of one size: a gradient that is nothing but rounding may take another sign.
    apart = {n: (weights[n] - w).abs() for n, w in alone.weights.items()}
    assert all(a.gt(1e-5).float().mean() < 1e-3 for a in apart.values()), apart
    assert outcome.score_id != alone.outcome.score_id
    assert outcome.touched == ()
    assert OPENED_FOR_DEVICES[tier.strict] in outcome.not_protected_against


@pytest.mark.parametrize(
    ("act", "kind", "words"),
    [
        ("raise ArithmeticError('no more')", "exception", "device 1 .*ArithmeticError: no more"),
        # Gradients of its own after they were averaged: found when the warm-up ends.
        ("model.table.weight.grad.neg_()", "exception", "weights of the devices differ"),
    ],
)
def test_what_goes_wrong_on_one_device_is_told_of_it(tmp_path, settings, act, kind, words):
    failed = failure(run(tmp_path, settings, step=ON_THE_SECOND + act))
    assert failed.kind == kind, failed
    assert re.search(words, failed.message), failed
    if "raise" in act:
        assert "ArithmeticError: no more" in failed.log_tail


def test_one_device_that_hangs_ends_the_trial_for_all(tmp_path, settings):
    timed = settings.model_copy(update={"token_budget": None, "time_budget": 1.0})
    hangs = ON_THE_SECOND.replace(": ", " and run.progress > 0: time.sleep(600)")
    failed = failure(run(tmp_path, timed, step=hangs))
    assert (failed.phase, failed.kind) == ("training", "timeout"), failed


def test_the_second_device_is_watched_as_the_first(tmp_path, settings):
    secret = str(Path(settings.corpus) / "valid.txt")
    failed = failure(run(tmp_path, settings, step=ON_THE_SECOND + f"open({secret!r}).read()"))
    assert failed.kind == "forbidden", failed
    assert any(f"read {secret}" in line for line in failed.touched)


def test_a_tier_without_a_loopback_of_its_own_says_so(tmp_path, settings):
    with pytest.raises(EnvironmentProblem, match=r"in the sandbox sandbox-exec.*loopback"):
        run(tmp_path, settings, SeatbeltTier())
