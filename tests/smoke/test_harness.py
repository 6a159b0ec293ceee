"""The harness with real processes: one honest candidate, and each way of failing, by its name."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from prepare.errors import UsageError
from prepare.experiment import run_experiment
from prepare.outcome import Failure, Result, format_summary
from prepare.settings import Settings
from tests.smoke.candidates import write_candidate


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Words in an order that a bigram can learn; bytes are the tokens."""
    draw = random.Random(0)
    words = ["red", "green", "blue", "cat", "dog", "house", "runs", "sleeps"]
    folder = tmp_path_factory.mktemp("corpus")
    for name, documents in (("train.txt", 400), ("valid.txt", 40)):
        texts = [" ".join(draw.choice(words) for _ in range(80)) for _ in range(documents)]
        (folder / name).write_text("<|endoftext|>".join(texts), encoding="utf-8")
    return folder


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
def settings(corpus) -> Settings:
    return Settings(
        corpus=str(corpus),
        vocab_size=256,
        max_seq_len=64,
        token_budget=30_000,
        time_budget=20.0,
        eval_bytes=4_000,
        startup_timeout=60.0,
        warmup_timeout=30.0,
        score_timeout=60.0,
    )


def run(tmp_path: Path, settings: Settings, **changes: str) -> Result | Failure:
    return run_experiment(write_candidate(tmp_path, **changes), settings, run_dir=tmp_path / "run")


def failure(outcome: Result | Failure) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


@dataclass(frozen=True)
class Run:
    outcome: Result | Failure
    folder: Path
    events: list[tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def honest(tmp_path_factory, settings) -> Run:
    """One run of an honest candidate that prints what it likes, where a secret lies about."""
    folder = tmp_path_factory.mktemp("honest")
    says = 'print("val_bpb: 0.000001"); print("env", sorted(os.environ)); sys.stdout.flush()'
    events: list[tuple[str, dict[str, Any]]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_do_not_show")
        outcome = run_experiment(
            write_candidate(folder, after=says),
            settings,
            run_dir=folder / "run",
            on_event=lambda name, data: events.append((name, data)),
        )
    assert isinstance(outcome, Result), outcome
    return Run(outcome, folder / "run", events)


def test_an_honest_candidate_gets_a_verified_number(honest):
    outcome = honest.outcome
    assert outcome.verified
    assert 0.3 < outcome.val_bpb < 2.5  # eight words, seen two letters at a time
    assert outcome.tokens >= 30_000
    assert outcome.num_steps == outcome.tokens // (4 * 64)
    assert outcome.depth == 1
    assert outcome.scored_bytes >= 4_000
    assert {"other future", "alone"} <= set(outcome.probes)
    assert json.loads((honest.folder / "result.json").read_text())["val_bpb"] == outcome.val_bpb
    phases = [data["phase"] for name, data in honest.events if name == "phase"]
    assert phases[-4:] == ["warmup", "training", "scoring"] or phases[-1] == "scoring"
    summary = format_summary(outcome).splitlines()
    assert len(summary) == 10
    assert summary[1] == f"val_bpb:          {outcome.val_bpb:.6f}"
    assert summary[-1].startswith("depth:")


def test_what_a_candidate_prints_is_ignored(honest):
    assert honest.outcome.val_bpb > 0.3
    assert "val_bpb: 0.000001" in (honest.folder / "train.log").read_text()


def test_secrets_are_kept_from_the_candidate(honest):
    log = (honest.folder / "train.log").read_text()
    assert "env ['" in log and "HF_TOKEN" not in log


def test_the_same_seed_gives_the_same_number(honest, tmp_path, settings):
    again = run(tmp_path, settings)
    assert isinstance(again, Result)
    assert again.val_bpb == honest.outcome.val_bpb
    assert again.score_id == honest.outcome.score_id


def test_a_time_budget_ends_training_and_is_the_harness_clock(tmp_path, settings):
    timed = settings.model_copy(update={"token_budget": None, "time_budget": 1.0})
    outcome = run(tmp_path, timed)
    assert isinstance(outcome, Result), outcome
    assert 0.75 < outcome.training_seconds < 1.0 * 1.02 + 5.0


@pytest.mark.parametrize(
    ("changes", "phase", "kind", "words"),
    [
        ({"build": "raise RuntimeError('no model today')"}, "build", "exception", "no model today"),
        ({"build": "os._exit(0)"}, "build", "exit", "before it was done"),
        ({"build": "os.kill(os.getpid(), 9)"}, "build", "killed", "memory"),
        ({"build": "os.write(1, b'x'); sys.exit(0)"}, "build", "exit", "SystemExit"),
    ],
)
def test_a_failure_names_its_phase_and_kind(tmp_path, settings, changes, phase, kind, words):
    """More kinds are in tests/unit/test_child.py and test_cli_train.py."""
    outcome = failure(run(tmp_path, settings, **changes))
    assert (outcome.phase, outcome.kind) == (phase, kind)
    assert words in outcome.message + outcome.log_tail
    assert json.loads((tmp_path / "run" / "result.json").read_text())["kind"] == kind


def test_a_hang_is_ended_by_the_harness_clock(tmp_path, settings):
    short = settings.model_copy(update={"warmup_timeout": 3.0})
    outcome = failure(run(tmp_path, short, build="time.sleep(1000)"))
    assert outcome.kind == "timeout"
    assert set(outcome.seconds) == {"startup"}
    assert outcome.seconds["startup"] > 3.0
    assert not any("prepare.child" in " ".join(p.cmdline()) for p in psutil.Process().children())


def test_training_on_after_the_budget_is_refused(tmp_path, settings):
    timed = settings.model_copy(update={"token_budget": None, "time_budget": 1.0})
    late = "time.sleep(60) if run.progress > 0 else None"
    outcome = failure(run(tmp_path, timed, after=late))
    assert (outcome.phase, outcome.kind) == ("training", "timeout")
    assert set(outcome.seconds) == {"startup", "warmup", "training"}
    assert outcome.seconds["training"] > 1.0
    assert "run.batches() ends" in outcome.message


def test_answers_that_are_no_language_model_get_no_number(tmp_path, settings):
    """Other answers are in tests/unit: test_child.py, test_evaluate.py; causality in exploits."""
    few = "logits = logits if targets is not None else logits[:, :, :9]"
    outcome = failure(run(tmp_path, settings, logits=few))
    assert (outcome.phase, outcome.kind) == ("scoring", "invalid_output")
    assert set(outcome.seconds) == {"startup", "warmup", "training", "scoring"}
    assert "must return logits of shape" in outcome.message


def test_a_model_that_takes_no_batches_gets_no_number(tmp_path, settings):
    script = write_candidate(tmp_path)
    source = script.read_text().replace("enumerate(run.batches(4))", "enumerate(())")
    script.write_text(source)
    outcome = failure(run_experiment(script, settings, run_dir=tmp_path / "run"))
    assert outcome.kind == "no_training"


def test_a_missing_script_is_a_usage_error(tmp_path, settings):
    with pytest.raises(UsageError, match="no such file"):
        run_experiment(tmp_path / "nowhere.py", settings)


def test_a_file_of_another_kind_is_told_what_it_lacks(tmp_path, settings):
    script = tmp_path / "train.py"
    script.write_text("print('hello')\n")
    outcome = failure(run_experiment(script, settings, run_dir=tmp_path / "run"))
    assert "build_model() and train()" in outcome.message
