"""The seed train module keeps its contract with the harness, on torch and on MLX."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.backends.train_child import SEED_MODULE, TINY, run_child

REFUSALS = {
    "nan": ({}, True, "FloatingPointError: the loss is nan at step 0"),
    "indivisible": (
        {"TOTAL_BATCH_SIZE": 1000},
        False,
        "ValueError: TOTAL_BATCH_SIZE (1000) must be a multiple of DEVICE_BATCH_SIZE * max_seq_len",
    ),
    "groups": ({"HEADS_PER_KV_HEAD": 3}, False, "ValueError: 4 query heads cannot share"),
    "pattern": ({"WINDOW_PATTERN": "SXL"}, False, "ValueError: WINDOW_PATTERN 'SXL' may hold"),
}


def job(kind: str, folder: Path, constants: dict[str, Any] | None = None, **more: Any) -> dict:
    return {
        "kind": kind,
        "module": str(SEED_MODULE),
        "constants": {**TINY, **(constants or {})},
        "weights": str(folder / "weights.safetensors"),
        **more,
    }


@pytest.fixture(
    scope="module",
    params=["cpu-float32", "cpu-bfloat16", "cpu-float16", "mlx-float32", "mlx-bfloat16"],
)
def child(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All of a backend's results, from one process."""
    backend, dtype = request.param.split("-")
    if backend == "mlx":
        pytest.importorskip("mlx.core")
    folder = tmp_path_factory.mktemp(request.param)
    jobs = [job("learns", folder, steps=25), job("answers", folder)]
    jobs += [job("refuses", folder, c, poison=poison) for c, poison, _ in REFUSALS.values()]
    learned, answered, *refused = run_child(
        folder, backend, jobs, dtype=dtype, compiled=backend == "mlx"
    )
    return {
        "dtype": dtype,
        "learned": learned,
        "answered": answered,
        "refused": dict(zip(REFUSALS, refused, strict=True)),
    }


def test_importing_does_nothing(child: Any) -> None:
    assert child["learned"]["printed"] == ""


def test_loss_falls(child: Any) -> None:
    losses = child["learned"]["losses"]
    assert len(losses) == 25
    assert losses[0] > 5.0
    assert losses[-1] < 2.5, losses  # the rows hold ln 4 = 1.39 nats per token
    assert child["learned"]["logged"]["lr_multiplier"] == 1.0


def test_a_warm_up_leaves_no_trace(child: Any) -> None:
    assert child["learned"]["losses"] == child["learned"]["losses_after_warm_up"]
    assert child["learned"]["same_weights"]


def test_master_weights_are_fp32_and_embeddings_in_the_compute_dtype(child: Any) -> None:
    tables = "float32" if child["dtype"] == "float16" else child["dtype"]
    for name, dtype in child["learned"]["dtypes"].items():
        is_table = name.startswith("wte") or "value_embed" in name
        assert dtype == (tables if is_table else "float32"), name


def test_logits_are_fp32_causal_and_agree_with_the_loss(child: Any) -> None:
    answered = child["answered"]
    assert answered["shape"] == [4, 64, 256]
    assert answered["dtype"] == "float32"
    tolerance = 1e-5 if child["dtype"] == "float32" else 2e-2
    assert math.isclose(answered["loss"], answered["plain_loss"], abs_tol=tolerance)
    assert answered["moved_before"] == 0.0
    assert answered["moved_after"] > 0.01


def test_flops_per_token(child: Any) -> None:
    shapes = child["answered"]["parameters"]
    matrices = sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if len(shape) == 2 and "embed" not in name and not name.startswith("wte")
    )
    windows = 33 + 64  # half the context and the token itself, then all of it
    assert child["answered"]["flops_per_token"] == 6 * matrices + 12 * 64 * windows


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses_with_a_typed_error(child: Any, case: str) -> None:
    assert child["refused"][case]["raised"].startswith(REFUSALS[case][2])
