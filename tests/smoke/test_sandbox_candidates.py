"""Candidates in every isolation tier of this machine: an honest one, and some that reach out."""

import os
import random
import shutil
import sys
from pathlib import Path

import pytest

from autoresearch.engine.sandbox import Tier, all_tiers
from backends import compiled_headers
from prepare import process, watch
from prepare.experiment import run_experiment
from prepare.isolation import NEVER_STOPPED, access_for
from prepare.outcome import Failure, Result
from prepare.settings import Settings
from tests.smoke.candidates import write_candidate


@pytest.fixture(params=all_tiers(), ids=lambda tier: tier.name)
def tier(request) -> Tier:
    reason = request.param.problem()
    if reason:
        pytest.skip(f"no {request.param.name} here: {reason}")
    return request.param


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch, tmp_path_factory):
    """No probing and no compiling; one cache for all."""
    base = tmp_path_factory.getbasetemp() / "sandbox-cache"
    for name, value in {
        "AUTORESEARCH_CACHE": str(base),
        "AUTORESEARCH_BACKEND": "cpu",
        "AUTORESEARCH_DTYPE": "float32",
        "AUTORESEARCH_COMPILE": "0",
        "AUTORESEARCH_ATTENTION": "sdpa",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    draw = random.Random(0)
    words = ["red", "green", "blue", "cat", "dog", "house", "runs", "sleeps"]
    folder = tmp_path_factory.mktemp("corpus")
    for name, documents in (("train.txt", 200), ("valid.txt", 30)):
        texts = [" ".join(draw.choice(words) for _ in range(80)) for _ in range(documents)]
        (folder / name).write_text("<|endoftext|>".join(texts), encoding="utf-8")
    return folder


@pytest.fixture
def settings(corpus) -> Settings:
    return Settings(
        corpus=str(corpus),
        vocab_size=256,
        max_seq_len=64,
        token_budget=8_000,
        time_budget=20.0,
        eval_bytes=3_000,
        startup_timeout=90.0,
        warmup_timeout=90.0,
        score_timeout=90.0,
    )


def run(tier: Tier, tmp_path: Path, settings: Settings, **changes: str) -> Result | Failure:
    script = write_candidate(tmp_path, **changes)
    return run_experiment(script, settings, run_dir=tmp_path / "run", sandbox=tier)


def test_an_honest_candidate_trains_and_is_scored(tier, tmp_path, settings, monkeypatch):
    """A sandbox has another home: the speed figures in the home's cache are found all the same."""
    act = "pass"
    if sys.platform == "linux":  # where XDG_CACHE_HOME moves the home's cache
        monkeypatch.delenv("AUTORESEARCH_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        figures = tmp_path / "cache" / "autoresearch" / "probes"
        figures.mkdir(parents=True)
        (figures / "cpu.json").write_text("{}")
        folder = "__import__('backends.speed').speed.folder()"
        act = f"assert [p.name for p in {folder}.iterdir()] == ['cpu.json']"
    outcome = run(tier, tmp_path, settings, build=act)
    assert isinstance(outcome, Result), outcome
    assert outcome.tier == tier.name
    assert outcome.not_protected_against == (*tier.does_not_stop(), *NEVER_STOPPED)
    assert outcome.touched == ()
    assert Path(outcome.weights or "").is_file()
    assert not (tmp_path / "run" / "work").exists()


def test_the_text_and_the_network_are_out_of_reach(tier, tmp_path, settings, corpus):
    """Both in one run; the refusal of the text is what it ends by."""
    path = str(corpus / "valid.txt")
    act = f"""
    refused = []
    for reach in (
        lambda: open({path!r}).read(),
        lambda: __import__("socket").create_connection(("127.0.0.1", 9)),
    ):
        try:
            reach()
        except OSError as error:
            refused.append(error)
    assert len(refused) == 2, refused
    raise refused[0]"""
    outcome = run(tier, tmp_path, settings, build=act.strip())
    assert isinstance(outcome, Failure), outcome
    assert any(f"read {path} (forbidden)" in line for line in outcome.touched)
    sockets = [line for line in outcome.touched if line.startswith("socket ")]
    assert any(line.endswith("(forbidden)") for line in sockets), "it would end a run by itself"
    assert outcome.tier == tier.name
    if tier.strict:
        assert outcome.kind == "exception"
        assert "FileNotFoundError" in outcome.message or "PermissionError" in outcome.message
    else:
        assert outcome.kind == "forbidden"
        assert path in outcome.message


def test_a_refusal_that_is_swallowed_still_ends_an_unprotected_run(tmp_path, settings, corpus):
    unprotected = all_tiers()[-1]
    act = f"""
    try:
        open({str(corpus / "valid.txt")!r})
    except OSError:
        pass"""
    outcome = run(unprotected, tmp_path, settings, build=act.strip())
    assert isinstance(outcome, Failure), outcome
    assert outcome.kind == "forbidden"


def test_too_many_processes_end_the_run(tier, tmp_path, settings, monkeypatch):
    if sys.platform == "win32":
        pytest.skip("it forks")
    few = watch.Bounds(processes=20)
    monkeypatch.setattr(process, "Bounds", lambda: few)
    act = "[os.fork() or (time.sleep(60), os._exit(0)) for _ in range(40)]; time.sleep(60)"
    outcome = run(tier, tmp_path, settings, build=act)
    assert isinstance(outcome, Failure), outcome
    assert outcome.kind == "resource_limit"
    assert "20 are allowed" in outcome.message


def test_filling_the_run_folder_ends_the_run(tmp_path):
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    said: list[str] = []
    bounds = watch.Bounds(folder_bytes=1 << 20)
    looking = watch.Watch(1 << 30, tmp_path, said.append, bounds, interval=0.01)
    looking.start()
    looking.join(timeout=10)
    assert "3 MiB" in said[0]
    assert "1 MiB are allowed" in said[0]


def test_a_candidate_is_granted_its_own_files_and_no_other_trials(tmp_path):
    for name in ("train.py", "helper.py", "results.tsv", ".env"):
        (tmp_path / name).write_text("")
    for name in ("runs", ".git", ".autoresearch", "data", "package"):
        (tmp_path / name).mkdir()
    access = access_for(tmp_path / "train.py", None, [tmp_path / "data"])
    granted = {path.name for path in access.readable if path.parent == tmp_path}
    assert granted == {"train.py", "helper.py", "package"}
    hidden = {path.name for path in access.hidden}
    assert {"runs", ".git", ".autoresearch", ".env", "results.tsv", "data"} <= hidden


def test_torch_compile_works_with_the_harness_header_and_what_it_made_is_kept(
    tier, tmp_path, settings, monkeypatch
):
    if not tier.strict or shutil.which("c++") is None:
        pytest.skip("for strict tiers, with a C++ compiler")
    monkeypatch.setenv("AUTORESEARCH_COMPILE", "1")
    compiled_headers.make_once()
    act = (
        "runtime.compile(lambda x: (x * 2).sin().sum())(torch.ones(64))\n"
        "    from torch._inductor import codecache\n"
        f"    assert codecache._HEADER_DIR == {str(compiled_headers.folder())!r}"
    )
    outcome = run(tier, tmp_path, settings, build=act)
    assert isinstance(outcome, Result), outcome
    assert outcome.touched == ()
    kept = Path(os.environ["AUTORESEARCH_CACHE"]) / "compiled"
    assert any(path.suffix == ".so" for path in kept.rglob("*"))
