"""One unmodified train.py on torch and on MLX: same weights in, same numbers out (fp32)."""

from typing import Any

import numpy as np
import pytest

from tests.backends.train_child import SEED_MODULE, TINY, run_child

pytest.importorskip("mlx.core")
STEPS = 20


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results on torch, which makes the weights, then on MLX, which loads them; both compile."""
    folder = tmp_path_factory.mktemp("parity")
    found: dict[str, Any] = {}
    for backend in ("cpu", "mlx"):
        job = {
            "kind": "parity",
            "module": str(SEED_MODULE),
            "constants": TINY,
            "weights": str(folder / "weights.safetensors"),
            "fresh": str(folder / "fresh.safetensors"),
            "steps": STEPS,
            "gradients": str(folder / f"{backend}-gradients.npz"),
            "updated": str(folder / f"{backend}-updated.npz"),
            "decayed": str(folder / f"{backend}-decayed.npz"),
        }
        (found[backend],) = run_child(folder, backend, [job], compiled=True)
        for name in ("gradients", "updated", "decayed"):
            found[backend][name] = dict(np.load(job[name]))
    half = {**job, "kind": "train", "weights": str(folder / "half.safetensors"), "fresh": True}
    half["plain_adamw"] = True
    (found["bfloat16"],) = run_child(folder, "cpu", [half], dtype="bfloat16")
    return found


def test_each_ran_where_it_should(both: dict[str, Any]) -> None:
    assert both["cpu"]["runtime"] == "torch"
    assert both["mlx"]["runtime"] == "mlx"


def test_first_loss_within_1e_5(both: dict[str, Any]) -> None:
    assert abs(both["cpu"]["loss"] - both["mlx"]["loss"]) < 1e-5


def test_gradients_within_1e_4_relative(both: dict[str, Any]) -> None:
    expected, got = both["cpu"]["gradients"], both["mlx"]["gradients"]
    assert expected.keys() == got.keys()
    for name, gradient in expected.items():
        scale = np.linalg.norm(gradient)
        assert scale > 0, name
        assert np.linalg.norm(gradient - got[name]) / scale < 1e-4, name


def test_losses_of_20_steps_within_1e_5(both: dict[str, Any]) -> None:
    expected, got = (np.array(both[name]["losses"]) for name in ("cpu", "mlx"))
    assert len(expected) == len(got) == STEPS
    assert expected[-1] < expected[0] - 2
    assert np.abs(expected - got).max() < 1e-5


def test_weights_after_20_optimizer_steps_within_1e_5(both: dict[str, Any]) -> None:
    expected, got = both["cpu"]["updated"], both["mlx"]["updated"]
    assert expected.keys() == got.keys()
    for name, weights in expected.items():
        assert np.abs(weights - got[name]).max() < 1e-5, name


def test_cautious_decay_differs_where_a_sign_is_undecided_only(both: dict[str, Any]) -> None:
    """It asks whether update * weight >= 0: an update of about 0 falls on either side."""
    expected, got = both["cpu"]["decayed"], both["mlx"]["decayed"]
    apart = [np.abs(expected[name] - got[name]) > 1e-5 for name in expected]
    assert sum(a.sum() for a in apart) <= 1e-4 * sum(a.size for a in apart)


def test_torch_compiles_without_graph_break_or_recompilation(both: dict[str, Any]) -> None:
    """One graph for the model, one per shape of matrix, one per shape that AdamW meets."""
    assert both["cpu"]["graph_breaks"] == {}
    assert both["cpu"]["graphs"] == 1 + 4 + 2


def test_bfloat16_trains_as_float32_does(both: dict[str, Any]) -> None:
    """No step is decided by rounding: of the scalars' first gradient nothing else is left."""
    expected, got = (np.array(both[name]["losses"]) for name in ("cpu", "bfloat16"))
    assert np.abs(expected - got).max() < 0.03
