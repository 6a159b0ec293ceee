"""Eight edits that an agent would write run unmodified on torch and on MLX, with equal losses."""

from typing import Any

import numpy as np
import pytest

from tests.backends.natural_edits import EDITS, edited
from tests.backends.train_child import SEED_MODULE, TINY, run_child

pytest.importorskip("mlx.core")
STEPS = 6


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[float]]]:
    """Losses by backend, then by edit. MLX compiles; torch, where that takes minutes, does not."""
    folder = tmp_path_factory.mktemp("edits")
    seed = SEED_MODULE.read_text(encoding="utf-8")
    jobs: list[dict[str, Any]] = []
    for name in EDITS:
        path = folder / f"train_{name.replace(' ', '_').replace('-', '_')}.py"
        path.write_text(edited(seed, name), encoding="utf-8")
        weights = str(path.with_suffix(".safetensors"))
        jobs.append({"kind": "train", "module": str(path), "constants": TINY})
        jobs[-1].update(weights=weights, steps=STEPS)
    found = {}
    for backend in ("cpu", "mlx"):
        results = run_child(folder, backend, jobs, compiled=backend == "mlx")
        found[backend] = {
            name: result["losses"] for name, result in zip(EDITS, results, strict=True)
        }
    return found


@pytest.mark.parametrize("name", EDITS)
def test_same_losses_on_both(losses: dict[str, dict[str, list[float]]], name: str) -> None:
    expected, got = np.array(losses["cpu"][name]), np.array(losses["mlx"][name])
    assert len(expected) == len(got) == STEPS
    assert expected[-1] < expected[0] - 0.1, "nothing was learned"
    assert np.abs(expected - got).max() < 1e-5, np.abs(expected - got)


def test_edits_change_the_losses(losses: dict[str, dict[str, list[float]]]) -> None:
    """No edit is lost on the way: no two of them train alike."""
    last = [run[-1] for run in losses["cpu"].values()]
    assert len(set(last)) == len(EDITS)
