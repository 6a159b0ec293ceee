"""The fused kernels but attention: run without a GPU, and compiled for ones that aren't here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.kernels import Device, Tiling
from tests.backends.kernels import offline

DEVICES = {"sm_90": Device("sm_90", 227 * 2**10), "gfx942": Device("gfx942", 64 * 2**10)}


def test_in_the_interpreter(interpreter: Callable[[str], None]) -> None:
    interpreter("interpreted_fused.py")


def kernels() -> dict[str, tuple[Any, Tiling, dict[str, str], dict[str, Any]]]:
    """Kernel, tiling, types of its arguments and constants, in bfloat16."""
    import triton.language as tl

    from backends.kernels import adamw, gram, rotate_norm, softcap

    floats = dict.fromkeys(("cap", "alpha", "beta", "epsilon"), "fp32")
    names = ("logits", "x", "add", "out", "cos", "sin", "upstream")
    halves = {f"{name}_ptr": "*bf16" for name in names}
    singles = {f"{name}_ptr": "*fp32" for name in ("scale", "loss", "numbers")}
    longs = {"target_ptr": "*i64", "table_ptr": "*i64"}
    sizes = ["V", "row_stride", "R", "S", "count", "T", "H", "half"]
    sizes += [f"{t}_{axis}" for t in ("x", "add") for axis in "nrsbthd"]
    types = {**floats, **halves, **singles, **longs, **dict.fromkeys(sizes, "i32")}
    loss = {"IGNORED": -1, "CAPPED": True, "GRADIENT": True, "WHOLE": True, "BLOCK": 8192}
    product = {"ADDED": True, "FACTOR": tl.bfloat16, "x_s": 1, "add_s": 1}
    step = {"PARAM": tl.bfloat16, "GRAD": tl.bfloat16, "ALIGNED": True, "COLUMNS": 5}
    turn = {"ROWS": 16, "HALF": 64, "x_d": 1}
    return {
        "softcap": (softcap._softcap_rows, Tiling((), 16), types, loss),
        "gram": (gram._gram_tile, gram.TILINGS[-1], types, product),
        "adamw": (adamw._adamw_block, Tiling((("BLOCK", adamw.BLOCK),)), types, step),
        "rotate_norm": (rotate_norm._rotate_norm_rows, Tiling(()), types, turn),
    }


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["softcap", "gram", "adamw", "rotate_norm"])
def test_they_compile_for_a_gpu(
    name: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which sees what the interpreter doesn't: types, layouts and shared memory."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed (pip install triton): kernels are not compiled")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    taken = offline.shared_memory(kernels()[name][0], DEVICES[device], *kernels()[name][1:])
    assert taken <= DEVICES[device].shared_memory
