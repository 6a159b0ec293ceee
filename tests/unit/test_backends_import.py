"""`import backends` is free: no framework loads, nothing is probed; the names are as promised."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import backends
from backends.errors import BackendUnavailable, UnknownBackend, UnknownOverride

ROOT = Path(__file__).resolve().parents[2]


def run_python(code: str, **environment: str) -> dict:
    """Run code in a fresh interpreter; it prints one JSON object."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AUTORESEARCH_")}
    environment = {
        **clean,
        "PYTHONPATH": str(ROOT),
        "AUTORESEARCH_COMPILE": "0",
        "AUTORESEARCH_DTYPE": "float32",
        "AUTORESEARCH_ATTENTION": "block_local",
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import_loads_no_framework_and_does_no_work():
    seen = run_python(
        "import sys\n"
        "events = []\n"
        "watched = ('socket', 'subprocess')\n"
        "sys.addaudithook(lambda e, a: events.append(e) if e.startswith(watched) else 0)\n"
        "import backends, json\n"
        "heavy = [m for m in ('torch', 'mlx', 'triton', 'numpy', 'psutil') if m in sys.modules]\n"
        "print(json.dumps({'heavy': heavy, 'events': events, 'dir': dir(backends)}))"
    )
    assert seen["heavy"] == []
    assert seen["events"] == []
    assert seen["dir"] == sorted(backends.__all__)


def test_judging_hardware_needs_no_framework():
    seen = run_python(
        "import sys, json, backends.hardware, backends.devices, backends.policy, backends.errors\n"
        "print(json.dumps([m for m in ('torch', 'mlx') if m in sys.modules]))"
    )
    assert seen == []


def test_names_are_pytorch_itself_on_torch():
    pytest.importorskip("torch")
    seen = run_python(
        "import json\nfrom backends import torch, nn, F\nimport torch as real, sys\n"
        "same = [torch is real, nn is real.nn, F is real.nn.functional]\n"
        "print(json.dumps([*same, 'mlx' in sys.modules]))",
        AUTORESEARCH_BACKEND="cpu",
    )
    assert seen == [True, True, True, False]


def test_environment_of_the_policy_is_set_but_never_overwritten():
    pytest.importorskip("torch")
    code = (
        "import json, os\nimport backends\nenvironment = backends.select().policy.environment\n"
        "backends.torch\nprint(json.dumps({k: os.environ[k] for k in environment}))"
    )
    plain = run_python(code, AUTORESEARCH_BACKEND="cpu", GOMP_SPINCOUNT="7")
    assert plain.get("GOMP_SPINCOUNT", "7") == "7"


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'jax'"):
        _ = backends.jax


def test_unknown_backend_names_its_near_match(monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_BACKEND", "cdua")
    with pytest.raises(UnknownBackend, match="did you mean 'cuda'"):
        backends.select()


def test_empty_request_is_auto(monkeypatch):
    pytest.importorskip("torch")
    for name in ("DTYPE", "COMPILE", "ATTENTION"):
        monkeypatch.delenv(f"AUTORESEARCH_{name}", raising=False)
    monkeypatch.setenv("AUTORESEARCH_DTYPE", "float32")
    monkeypatch.setenv("AUTORESEARCH_COMPILE", "0")
    monkeypatch.setenv("AUTORESEARCH_ATTENTION", "block_local")
    monkeypatch.setenv("AUTORESEARCH_BACKEND", "")
    assert backends.select() is backends.select("auto")


def test_nonsense_override_says_what_is_allowed(monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_DTYPE", "bf16")
    with pytest.raises(UnknownOverride, match="bfloat16"):
        backends.select("cpu")


def test_unavailable_backend_says_why():
    torch = pytest.importorskip("torch")
    if torch.version.hip:
        pytest.skip("this torch has ROCm")
    with pytest.raises(BackendUnavailable, match="ROCm"):
        backends.select("rocm")


def test_selection_reproduces_itself_in_a_child(monkeypatch):
    """Of its own, the child would choose otherwise: see `run_python`."""
    pytest.importorskip("torch")
    monkeypatch.setenv("AUTORESEARCH_DTYPE", "bfloat16")
    monkeypatch.setenv("AUTORESEARCH_COMPILE", "0")
    monkeypatch.setenv("AUTORESEARCH_ATTENTION", "sdpa")
    monkeypatch.setenv("AUTORESEARCH_LOSS", "triton")
    monkeypatch.setenv("AUTORESEARCH_GRAM", "triton")
    chosen = backends.select("cpu").environment()
    assert (chosen["AUTORESEARCH_DTYPE"], chosen["AUTORESEARCH_ATTENTION"]) == ("bfloat16", "sdpa")
    assert chosen["AUTORESEARCH_LOSS"] == chosen["AUTORESEARCH_GRAM"] == "triton"
    seen = run_python(
        "import backends, json\nprint(json.dumps(backends.select().environment()))", **chosen
    )
    assert seen == chosen
