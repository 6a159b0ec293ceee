"""The harness with real processes: one honest candidate, and each way of failing, by its name."""

import json
import random
from pathlib import Path

import psutil
import pytest

from prepare.errors import UsageError
from prepare.experiment import run_experiment
from prepare.outcome import Failure, Result, format_summary
from prepare.settings import Settings
from tests.smoke.candidates import write_candidate


@pytest.fixture(scope="module")
def cache_root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


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


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch, cache_root):
    """No probing and no compiling: these tests are about the harness."""
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(cache_root))
    monkeypatch.setenv("AUTORESEARCH_BACKEND", "cpu")
    monkeypatch.setenv("AUTORESEARCH_DTYPE", "float32")
    monkeypatch.setenv("AUTORESEARCH_COMPILE", "0")
    monkeypatch.setenv("AUTORESEARCH_ATTENTION", "sdpa")


@pytest.fixture
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


def test_an_honest_candidate_gets_a_verified_number(tmp_path, settings):
    events = []
    outcome = run_experiment(
        write_candidate(tmp_path),
        settings,
        run_dir=tmp_path / "run",
        on_event=lambda name, data: events.append((name, data)),
    )
    assert isinstance(outcome, Result), outcome
    assert outcome.verified
    assert 0.3 < outcome.val_bpb < 2.5  # eight words, seen two letters at a time
    assert outcome.tokens >= 30_000
    assert outcome.num_steps == outcome.tokens // (4 * 64)
    assert outcome.depth == 1
    assert outcome.scored_bytes >= 4_000
    assert {"other future", "alone"} <= set(outcome.probes)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["val_bpb"] == outcome.val_bpb
    phases = [data["phase"] for name, data in events if name == "phase"]
    assert phases[-4:] == ["warmup", "training", "scoring"] or phases[-1] == "scoring"
    summary = format_summary(outcome).splitlines()
    assert len(summary) == 10
    assert summary[1] == f"val_bpb:          {outcome.val_bpb:.6f}"
    assert summary[-1].startswith("depth:")


def test_the_same_seed_gives_the_same_number(tmp_path, settings):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (run(tmp_path / name, settings) for name in "ab")
    assert isinstance(first, Result)
    assert isinstance(second, Result)
    assert first.val_bpb == second.val_bpb
    assert first.score_id == second.score_id


def test_a_time_budget_ends_training_and_is_the_harness_clock(tmp_path, settings):
    timed = settings.model_copy(update={"token_budget": None, "time_budget": 2.0})
    outcome = run(tmp_path, timed)
    assert isinstance(outcome, Result), outcome
    assert 1.5 < outcome.training_seconds < 2.0 * 1.02 + 5.0


def test_what_a_candidate_prints_is_ignored(tmp_path, settings):
    outcome = run(tmp_path, settings, after='print("val_bpb: 0.000001"); sys.stdout.flush()')
    assert isinstance(outcome, Result), outcome
    assert outcome.val_bpb > 0.3
    assert "val_bpb: 0.000001" in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.parametrize(
    ("changes", "phase", "kind", "words"),
    [
        ({"import": "import not_installed_anywhere"}, "import", "import_error", "not_installed"),
        ({"import": "def broken(:"}, "import", "syntax_error", "line 12"),
        ({"build": "raise RuntimeError('no model today')"}, "build", "exception", "no model today"),
        ({"after": "raise FloatingPointError('the loss is nan')"}, "warmup", "nan", "nan"),
        ({"build": "raise MemoryError('too wide')"}, "build", "out_of_memory", "too wide"),
        ({"build": "torch.empty(1 << 46)"}, "build", "out_of_memory", "allocate"),
        ({"build": "os._exit(0)"}, "build", "exit", "before it was done"),
        ({"build": "os.kill(os.getpid(), 9)"}, "build", "killed", "memory"),
        ({"build": "os.write(1, b'x'); sys.exit(0)"}, "build", "exit", "SystemExit"),
    ],
)
def test_a_failure_names_its_phase_and_kind(tmp_path, settings, changes, phase, kind, words):
    outcome = failure(run(tmp_path, settings, **changes))
    assert (outcome.phase, outcome.kind) == (phase, kind)
    assert words in outcome.message + outcome.log_tail
    assert json.loads((tmp_path / "run" / "result.json").read_text())["kind"] == kind


def test_a_hang_is_ended_by_the_harness_clock(tmp_path, settings):
    short = settings.model_copy(update={"warmup_timeout": 3.0})
    outcome = failure(run(tmp_path, short, build="time.sleep(1000)"))
    assert outcome.kind == "timeout"
    assert not any("prepare.child" in " ".join(p.cmdline()) for p in psutil.Process().children())


def test_training_on_after_the_budget_is_refused(tmp_path, settings):
    timed = settings.model_copy(update={"token_budget": None, "time_budget": 1.0})
    late = "time.sleep(60) if run.progress > 0 else None"
    outcome = failure(run(tmp_path, timed, after=late))
    assert (outcome.phase, outcome.kind) == ("training", "timeout")
    assert "run.batches() ends" in outcome.message


@pytest.mark.parametrize(
    ("logits", "kind"),
    [
        # The token that is asked for, one position early.
        (
            "logits = logits + 9 * F.one_hot(torch.roll(tokens, -1, 1), logits.size(-1))",
            "causality",
        ),
        ("logits = logits if targets is not None else logits * float('nan')", "not_finite"),
        ("logits = logits if targets is not None else logits[:, :, :9]", "invalid_output"),
        ("logits = logits if targets is not None else logits.double()", "invalid_output"),
    ],
)
def test_answers_that_are_no_language_model_get_no_number(tmp_path, settings, logits, kind):
    outcome = failure(run(tmp_path, settings, logits=logits))
    assert (outcome.phase, outcome.kind) == ("scoring", kind)


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


def test_secrets_are_kept_from_the_candidate(tmp_path, settings, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_do_not_show")
    outcome = run(tmp_path, settings, after="print('env', sorted(os.environ))")
    assert isinstance(outcome, Result)
    assert "HF_TOKEN" not in (tmp_path / "run" / "train.log").read_text()
