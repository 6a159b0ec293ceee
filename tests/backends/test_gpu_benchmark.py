"""benchmarks/gpu.py where there is no GPU: every section runs, tiny, and nothing fails unseen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.unit.benchmark_scripts import benchmark

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="no benchmarks in this installation")

UPSTREAM = """
import torch
from kernels import get_kernel
fa3 = get_kernel("somebody/flash-attention-3").flash_attn_interface
from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, make_dataloader, evaluate_bpb
assert Tokenizer.from_directory().get_vocab_size() == 8192 and TIME_BUDGET > 0
x, y, epoch = next(make_dataloader(None, 2, MAX_SEQ_LEN, "train"))
assert torch.equal(x[:, 1:], y[:, :-1])
q = torch.randn(1, 9, 2, 16)
full, short = (fa3.flash_attn_func(q, q, q, causal=True, window_size=(w, 0)) for w in (9, 3))
assert torch.allclose(full[:, :4], short[:, :4], atol=1e-5) and not torch.equal(full, short)
for step in range(6):
    print(f"\\rstep {step:05d} | dt: 5ms | tok/sec: {1000 * step:,} | mfu: 1%", end="", flush=True)
print(f"\\n---\\nval_bpb:          {evaluate_bpb(None, None, 2):.6f}\\nmfu_percent:      12.50")
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )


def test_a_dry_run_fills_every_section(tmp_path: Path) -> None:
    upstream, output = tmp_path / "upstream.py", tmp_path / "gpu.json"
    upstream.write_text(UPSTREAM)
    done = run("--dry-run", "--upstream", str(upstream), "--output", str(output))
    assert done.returncode == 0, done.stdout + done.stderr
    sections = json.loads(output.read_text())["sections"]
    for name, section in sections.items():
        assert section["rows"], f"{name}: {section['failures']}"
        for failure in section["failures"]:  # what this machine has no use for, and nothing else
            assert failure["type"] in (
                "AttentionUnavailable",
                "ModuleNotFoundError",
                "NotImplementedError",
            ), failure
    checked = sections["correctness"]["rows"]
    assert {row["case"].split()[0] for row in checked} >= {"attention", "loss", "gram"}
    assert all(row["right"] for row in checked)
    rates = sections["upstream"]["rows"]
    assert [row["median"] for row in rates if row["case"] == "upstream"] == [4000.0]
    assert any(row.get("median") == 12.5 for row in rates)
    assert "sdpa (its own comes from a hub" in str(rates)
    ways = {
        name: (row["linear"], row["compile_mode"])
        for name, section in sections.items()
        for row in section["rows"]
        if row["case"] == "model"
    }
    assert ways == {
        "training": ("plain", ""),
        "warm_training": ("plain", ""),
        "fp8_training": ("fp8", ""),
        "max_autotune": ("plain", ""),
    }
    assert "== correctness" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    done = run()
    assert done.returncode == 4
    assert "no GPU" in done.stderr
    assert "--dry-run" in done.stderr


def test_a_section_that_is_stopped_or_dies_costs_itself_alone(tmp_path, monkeypatch) -> None:
    with benchmark("gpu") as gpu:
        script = tmp_path / "child.py"
        script.write_text(
            "import os, pathlib, sys, time\n"
            "a = sys.argv\n"
            "name, folder = a[a.index('--sections') + 1], pathlib.Path(a[a.index('--child') + 1])\n"
            'pathlib.Path(folder / f"{name}.json").write_text(\'{"rows": [{}], "failures": []}\')\n'
            "time.sleep(60) if name == 'loss' else os._exit(139)\n"
        )
        monkeypatch.setattr(gpu, "__file__", str(script))
        monkeypatch.setattr(gpu, "SECONDS", {"gram": 60, "loss": 1.0, "adamw": 60})
        monkeypatch.setattr(gpu, "device_name", lambda environment: "NVIDIA Something 1")
        monkeypatch.setenv("OUT", str(tmp_path / "out"))
        assert gpu.main([]) == 0
        document = json.loads((tmp_path / "out" / "gpu-something-1.json").read_text())
    found = {name: section["failures"][0] for name, section in document["sections"].items()}
    assert found["gram"]["type"] == "ProcessDied"
    assert "139" in found["gram"]["message"]
    assert found["loss"]["type"] == "TimeoutExpired"
    assert [section["rows"] for section in document["sections"].values()] == [[{}]] * 3
    assert "no --upstream" in document["upstream"]


def test_a_wrong_kernel_is_marked_and_failures_are_counted() -> None:
    with benchmark("gpu") as gpu:
        failure = {"what": "T 64: fa3", "type": "AttentionUnavailable", "message": "no"}
        rows = [
            {"case": "gram triton", "difference": 0.5, "right": False},
            {"case": "loss", "variant": "a", "median": 2.0, "unit": "ms", "flops": 1e12},
            {"case": "loss", "variant": "b", "median": 1.0, "unit": "ms", "flops": 1e12},
        ]
        limit = {"case": "matrix product", "median": 1.0, "unit": "ms", "flops": 2e12}
        sections = {
            "limits": {"rows": [limit], "failures": []},
            "loss": {"rows": rows, "failures": [failure, failure]},
        }
        lines = gpu.table({"device": "x", "began": "now", "sections": sections})
    assert "WRONG" in lines
    assert "2.00x  1,000 TFLOP/s (50%)" in lines
    assert "T 64: fa3 (2 times): AttentionUnavailable: no" in lines
