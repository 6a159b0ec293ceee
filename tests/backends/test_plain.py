"""benchmarks/reference/plain.py is train.py's model: it is what train.py's speed is told by."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.backends.train_child import ROOT, SEED_MODULE, TINY, run_child

PLAIN = ROOT / "benchmarks" / "reference" / "plain.py"


def job(kind: str, module: Path, weights: Path, **more: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "module": str(module),
        "constants": TINY,
        "weights": str(weights),
        **more,
    }


def test_same_weights_losses_and_flops_as_train(tmp_path: Path) -> None:
    if not PLAIN.is_file():
        pytest.skip("benchmarks are not part of this installation")
    disturbed = tmp_path / "disturbed.safetensors"
    fresh = {module: tmp_path / f"{module.stem}.safetensors" for module in (SEED_MODULE, PLAIN)}
    jobs = []
    for module in fresh:
        jobs.append(job("train", module, disturbed, steps=3))
        jobs.append(job("train", module, fresh[module], steps=1, fresh=True))
        jobs.append(job("answers", module, disturbed))
    (ours, _, answered), (plain, _, plain_answered) = np.array_split(
        run_child(tmp_path, "cpu", jobs), 2
    )
    assert np.allclose(ours["losses"], plain["losses"], rtol=0, atol=1e-4)
    assert len(plain["losses"]) == 3 and plain["losses"][0] != plain["losses"][-1]
    assert plain_answered["parameters"] == answered["parameters"]
    assert plain_answered["flops_per_token"] == answered["flops_per_token"]
    assert abs(plain_answered["loss"] - answered["plain_loss"]) < 1e-4
    assert plain_answered["moved_before"] == 0.0
    drawn, drawn_plain = (load_file(path) for path in fresh.values())
    assert drawn.keys() == drawn_plain.keys()
    for name, weights in drawn.items():
        assert np.array_equal(weights, drawn_plain[name]), name
