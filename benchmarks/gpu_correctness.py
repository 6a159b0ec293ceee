"""The section of gpu.py that checks every kernel against its definition in fp64.

Legend: T time, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from gpu_speed import ADAMW, BF16, CAP, hardware, kernel, plain_adamw, rotate_norm
from gpu_timing import Section, difference
from torch import Tensor

from backends import attention, gram, softcap

WRONG = 2e-2  # bf16 operands give 1e-3 to 1e-2: beyond this something is computed wrongly


def correctness(section: Section) -> None:
    """Every kernel in bf16 against fp64, and beside it what the library's way gives."""
    torch.manual_seed(0)
    checks = {
        "attention": _check_attention,
        "loss": _check_loss,
        "gram": _check_gram,
        "adamw": _check_adamw,
        "rotate_norm": _check_rotate_norm,
    }
    for what, check in checks.items():
        section.attempt(what, partial(check, section))


def _report(section: Section, case: str, found: list[Tensor], truth: list[Tensor]) -> None:
    """A row with the largest difference of several tensors."""
    worst = max(difference(f, t) for f, t in zip(found, truth, strict=True))
    section.row(case=case, difference=worst, right=worst <= WRONG)


def _leaves(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().clone().requires_grad_() for t in tensors]


def _with_gradients(
    function: Callable[..., Tensor], leaves: list[Tensor], upstream: Tensor
) -> list[Tensor]:
    out = function(*leaves)
    return [out, *torch.autograd.grad(out, leaves, upstream.to(out.dtype))]


def dense_attention(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """The definition, with all scores in memory."""
    T, group = q.shape[1], q.shape[2] // k.shape[2]
    k, v = (t.repeat_interleave(group, dim=2) for t in (k, v))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1] ** 0.5
    behind = torch.arange(T, device=q.device)[:, None] - torch.arange(T, device=q.device)
    seen = (behind >= 0) & (behind <= (T if window is None else window))
    return torch.einsum("bhij,bjhd->bihd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)


def _check_attention(section: Section) -> None:
    T = 70 if section.tiny else 1000  # fits no block
    for D in (64, 128):
        for window in (T // 3, None):
            _check_attention_case(section, T, D, window)


def _check_attention_case(section: Section, T: int, D: int, window: int | None) -> None:
    """Every implementation with four query heads to a key head."""
    shapes = [(2, T, heads, D) for heads in (8, 2, 2, 8)]
    q, k, v, dy = (torch.randn(shape, device=section.device).to(BF16) for shape in shapes)
    wide = _leaves(q.double(), k.double(), v.double())
    truth = _with_gradients(lambda *t: dense_attention(*t, window), wide, dy)

    def check(name: str, case: str) -> None:
        function = attention.load(name, hardware())
        found = _with_gradients(lambda *t: function(*t, window), _leaves(q, k, v), dy)
        _report(section, case, found, truth)

    for name in attention.NAMES:
        case = f"attention {name}, head {D}, window {window}"
        section.attempt(case, partial(check, name, case))


def _check_loss(section: Section) -> None:
    n, vocabulary, width = (30, 70, 8) if section.tiny else (1000, 5000, 512)
    x = torch.randn(n, width, device=section.device).to(BF16)
    weight = torch.randn(vocabulary, width, device=section.device) * (4 * width**-0.5)
    targets = torch.randint(vocabulary, (n,), device=section.device)
    targets[::7] = softcap.IGNORE_INDEX
    # The weight as the products see it: its rounding is no kernel's doing.
    wide = _leaves(x.double(), weight.to(BF16).double())

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        logits = CAP * torch.tanh(x @ weight.T / CAP)
        return F.cross_entropy(logits, targets, ignore_index=softcap.IGNORE_INDEX)

    upstream = torch.ones((), device=section.device)
    truth = _with_gradients(plain, wide, upstream)
    ways = {"chunked": softcap.softcap_cross_entropy}
    if ours := kernel(section, "softcap"):
        ways["triton"] = ours.softcap_cross_entropy
    for name, function in ways.items():
        capped = partial(function, targets=targets, cap=CAP)
        found = _with_gradients(capped, _leaves(x, weight), upstream)
        _report(section, f"loss {name}", found, truth)


def _check_gram(section: Section) -> None:
    ours = kernel(section, "gram")
    ways = {"matmul": gram.gram, **({"triton": ours.gram} if ours else {})}
    R, S = (70, 40) if section.tiny else (700, 1100)
    x, add = (torch.randn(3, R, n, device=section.device).to(BF16) for n in (S, R))
    for layout, x_NRS in (("wide", x), ("tall", x.mT.contiguous().mT)):
        truth = gram.gram(x_NRS.double(), 0.5, add.double(), -2.0)
        for name, function in ways.items():
            found = function(x_NRS, 0.5, add, -2.0)
            _report(section, f"gram {name}, {layout}", [found], [truth])


def _check_adamw(section: Section) -> None:
    ours = kernel(section, "adamw")
    cases = [(shape, dtype) for shape in ((3, 501), (64, 96)) for dtype in (torch.float32, BF16)]
    for shape, dtype in cases if ours else ():
        param, grad = (torch.randn(shape, device=section.device).to(dtype) for _ in range(2))
        mean, square = torch.randn_like(param).float(), torch.rand_like(param).float()
        lists = [[t.clone()] for t in (param, grad, mean, square)]
        ours.adamw_step(*lists, torch.tensor(ADAMW))
        wide = [t.double() for t in (param, grad, mean, square)]
        plain_adamw(*wide, torch.tensor(ADAMW, dtype=torch.float64, device=section.device))
        found, truth = [lists[i][0] for i in (0, 2, 3)], [wide[i] for i in (0, 2, 3)]
        _report(section, f"adamw triton, {dtype}, {shape}", found, truth)


def _check_rotate_norm(section: Section) -> None:
    ours = kernel(section, "rotate_norm")
    ways = {"plain": rotate_norm, **({"triton": ours.rotate_norm} if ours else {})}

    def check(D: int) -> None:
        x = torch.randn(2, 70, 3, 3, D, device=section.device).to(BF16)[:, :, 1]
        angles = torch.randn(1, 70, 1, D // 2, device=section.device)
        cos, sin = angles.cos().to(BF16), angles.sin().to(BF16)
        dy = torch.randn_like(x)
        wide = partial(rotate_norm, cos=cos.double(), sin=sin.double())
        truth = _with_gradients(wide, _leaves(x.double()), dy)
        for name, function in ways.items():
            found = _with_gradients(partial(function, cos=cos, sin=sin), _leaves(x), dy)
            _report(section, f"rotate_norm {name}, head {D}", found, truth)

    for D in (64, 128):
        check(D)
