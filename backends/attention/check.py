"""Run an attention function once on a device, forward and backward, against the reference."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from backends.attention import reference

if TYPE_CHECKING:
    from backends.attention import AttentionFunction

SHAPE = {"batch": 2, "length": 320, "heads": 4, "key_heads": 2, "width": 64}
WINDOWS = (100, 128, None)


def largest_difference(
    function: AttentionFunction, backend: str, dtype: str, compiled: bool
) -> tuple[float, str]:
    """The largest difference relative to the reference's largest value, and where it is.

    `backend` is a torch backend's name, `dtype` a torch dtype's. A NaN counts as infinitely far.
    """
    device = torch.device("cuda" if backend == "rocm" else backend)
    if compiled:
        function = torch.compile(function, dynamic=False, fullgraph=True)
    worst, where = 0.0, ""
    for window in WINDOWS:
        q, k, v, dy = _inputs()
        tensors = [torch.tensor(a, dtype=getattr(torch, dtype), device=device) for a in (q, k, v)]
        leaves = q_, k_, v_ = tuple(t.requires_grad_() for t in tensors)
        y = function(q_, k_, v_, window)
        y.backward(torch.tensor(dy, dtype=y.dtype, device=device))
        got = [y.detach(), *(leaf.grad for leaf in leaves)]
        wanted = [reference.attention(q, k, v, window), *reference.gradients(q, k, v, window, dy)]
        for part, mine, truth in zip(("y", "dq", "dk", "dv"), got, wanted, strict=True):
            difference = _relative(mine, truth)
            if difference > worst:
                worst, where = difference, f"{part} at window {window}"
    return worst, where


def _inputs() -> list[np.ndarray]:
    """q, k, v and dy, values that bfloat16 holds exactly, so that only the arithmetic differs."""
    random = np.random.default_rng(0)
    batch, length, width = SHAPE["batch"], SHAPE["length"], SHAPE["width"]
    heads = (SHAPE["heads"], SHAPE["key_heads"], SHAPE["key_heads"], SHAPE["heads"])
    return [random.integers(-128, 129, (batch, length, h, width)) / 64.0 for h in heads]


def _relative(mine: torch.Tensor | None, truth: np.ndarray) -> float:
    if mine is None:
        return math.inf
    difference = float(np.abs(mine.float().cpu().numpy() - truth).max() / np.abs(truth).max())
    return math.inf if math.isnan(difference) else difference
