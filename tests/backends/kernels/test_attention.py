"""Attention kernels: where they run, which tilings are tried where, and what they compute."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from backends import attention as attentions
from backends.errors import AttentionUnavailable
from backends.hardware import Hardware
from backends.kernels import Device, Tiling, attention_tilings, unavailable
from tests.backends.kernels import offline

KIB = 2**10
DEVICES = {
    "sm_75": Device("sm_75", 64 * KIB),
    "sm_80": Device("sm_80", 163 * KIB),
    "sm_86": Device("sm_86", 99 * KIB),
    "sm_89": Device("sm_89", 99 * KIB),
    "sm_90": Device("sm_90", 227 * KIB),
    "sm_100": Device("sm_100", 227 * KIB),
    "sm_120": Device("sm_120", 99 * KIB),
    "gfx90a": Device("gfx90a", 64 * KIB),
    "gfx942": Device("gfx942", 64 * KIB),
    "gfx950": Device("gfx950", 160 * KIB),
    "gfx1100": Device("gfx1100", 64 * KIB),
    "gfx1201": Device("gfx1201", 64 * KIB),
}
H100 = Hardware("cuda", "nvidia", "", "sm_90", 2**36, 1, "", "torch", "2", "Linux", ("triton",))
KERNELS = ("forward", "query_gradients", "key_gradients")


def test_in_the_interpreter(interpreter: Callable[[str], None]) -> None:
    interpreter("interpreted_attention.py")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("padded", [16, 64, 128, 256])
@pytest.mark.parametrize("name", DEVICES)
def test_each_device_has_a_few_tilings_that_fit(name: str, padded: int, kernel: str) -> None:
    device = DEVICES[name]
    found = attention_tilings.tilings(kernel, device, padded, 2)
    assert 1 <= len(found) <= attention_tilings.MOST
    assert len(set(found)) == len(found)
    for tiling in found:
        sizes = dict(tiling.sizes)
        assert all(size >= 16 and size.bit_count() == 1 for size in sizes.values())
        if device.nvidia:  # what a program walks over is in shared memory, and more besides
            assert 2 * tiling.stages * sizes["STEP"] * padded * 2 < device.shared_memory
        if not device.nvidia or device.capability < 80:
            assert tiling.stages == 1


def test_what_a_device_offers_decides() -> None:
    """Hopper's tiles don't fit an RTX 4090; Turing can't pipeline loads."""
    large, small, old = (
        attention_tilings.tilings("forward", DEVICES[name], 128, 2)
        for name in ("sm_90", "sm_89", "sm_75")
    )
    assert large[0].stages == 3 and small[0].stages == 2 and old[0].stages == 1
    exact = attention_tilings.tilings("forward", DEVICES["sm_90"], 128, 4)
    assert exact == old  # no matrix instructions for float32 either
    waves = attention_tilings.tilings("forward", DEVICES["gfx942"], 128, 2)
    assert waves != attention_tilings.tilings("forward", DEVICES["gfx1100"], 128, 2)


def types() -> dict[str, str]:
    """Of the kernels' arguments, in bfloat16."""
    tensors = dict.fromkeys(("q", "k", "v", "y", "dy", "dq", "dk", "dv"), "*bf16")
    sums = {"lse": "*fp32", "delta": "*fp32", "scale": "fp32", "gain": "fp32"}
    strides = dict.fromkeys((f"{t}_{axis}" for t in ("q", "k", "v", "dy") for axis in "bth"), "i32")
    sizes = ("length", "window", "heads", "key_heads", "group", "size_class")
    return {**tensors, **sums, **strides, **dict.fromkeys(sizes, "i32")}


@pytest.mark.parametrize("name", ["sm_90", "gfx942"])
def test_they_compile_for_a_gpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which sees what the interpreter doesn't: types, layouts and shared memory."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed (pip install triton): kernels are not compiled")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton.language as tl

    from backends.kernels import attention_kernels

    constants = {"WIDTH": 64, "PADDED": 64, "PRODUCT": tl.bfloat16}
    tiling = Tiling((("BLOCK", 64), ("STEP", 32)), 4, 1)
    for kernel in KERNELS:
        function = getattr(attention_kernels, kernel)
        taken = offline.shared_memory(function, DEVICES[name], tiling, types(), constants)
        assert 0 < taken <= DEVICES[name].shared_memory


def test_where_it_can_not_run_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {
        "no kernels for mps": replace(H100, backend="mps"),
        "no kernels for cpu": replace(H100, backend="cpu"),
        "from sm_75 on, this is sm_70": replace(H100, architecture="sm_70"),
    }
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert unavailable(H100) == ""
    assert unavailable(replace(H100, backend="rocm", architecture="gfx1201")) == ""
    for reason, hardware in cases.items():
        with pytest.raises(AttentionUnavailable, match=reason):
            attentions.load("triton", hardware)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AttentionUnavailable, match="Triton is not installed") as caught:
        attentions.load("triton", H100)
    assert "pip install triton" in caught.value.hint
