"""The sections of gpu.py about speed: the limits, and each kernel against its rivals.

Legend: B batch, T time, H heads, D head width; N tokens or matrices, V vocabulary, R x S a matrix.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from functools import partial
from types import ModuleType

import torch
import torch.nn.functional as F
from gpu_timing import Section
from torch import Tensor

from backends import attention, gram, softcap
from backends.hardware import Hardware, detect

BF16 = torch.bfloat16
CAP = 15.0


@functools.cache
def hardware() -> Hardware:
    """This device, without asking how fast anything is on it."""
    return detect("cpu" if not torch.cuda.is_available() else "auto")[0]


def kernel(section: Section, name: str) -> ModuleType | None:
    """The module of a Triton kernel; None, with the failure recorded, where there is no Triton."""
    return section.attempt(
        f"triton {name}", partial(importlib.import_module, f"backends.kernels.{name}")
    )


def limits(section: Section) -> None:
    """What nothing can beat: the library's matrix product, and a copy."""
    n = 64 if section.tiny else 8192
    a, b = (torch.randn(n, n, device=section.device).to(BF16) for _ in range(2))
    out = torch.empty_like(a)
    section.compare("matrix product", {"library": lambda: torch.mm(a, b, out=out)}, 2.0 * n**3)
    size = 1 << (16 if section.tiny else 31)
    source = torch.randint(127, (size,), dtype=torch.int8, device=section.device)
    copy = torch.empty_like(source)
    section.compare("copy", {"library": lambda: copy.copy_(source)}, bytes=2.0 * size)


def attention_speed(section: Section) -> None:
    """Forward and backward of each implementation, as many tokens in each case."""
    for T in (64,) if section.tiny else (2048, 8192, 1024, 4096):
        for window in (T // 2, T // 4):
            section.check_time()
            _attention_case(section, T, window)


def _attention_case(section: Section, T: int, window: int) -> None:
    tokens, H, D = (128, 2, 64) if section.tiny else (32768, 8, 128)
    shape = (tokens // T, T, H, D)
    q, k, v = (
        torch.randn(shape, device=section.device).to(BF16).requires_grad_() for _ in range(3)
    )
    dy = torch.randn_like(q)

    def step(function: Callable[..., Tensor]) -> object:
        return torch.autograd.grad(function(q, k, v, window), (q, k, v), dy)

    variants = {}
    for name in attention.NAMES:
        load = partial(attention.load, name, hardware())
        function = section.attempt(f"T {T}: {name}", load)
        if function is not None:
            variants[name] = partial(step, function)
    pairs = sum(min(i, window) + 1 for i in range(T))
    # Two products forward and five backward, each of 2 D operations per visible pair.
    section.compare(f"T {T}, window {window}", variants, 14.0 * D * H * shape[0] * pairs)


def loss_speed(section: Section) -> None:
    """The soft-capped loss with both gradients, and what it holds in memory."""
    for width, vocabulary in ((16, 64),) if section.tiny else ((512, 8192), (1024, 32768)):
        _loss_case(section, 32 if section.tiny else 65536, width, vocabulary)


def plain_loss(x: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
    """All logits at once in fp32."""
    logits = (x @ weight.to(x.dtype).T).float()
    return F.cross_entropy(cap * torch.tanh(logits / cap), targets)


def _loss_case(section: Section, n: int, width: int, vocabulary: int) -> None:
    x = torch.randn(n, width, device=section.device).to(BF16).requires_grad_()
    weight = torch.randn(vocabulary, width, device=section.device) * (4 * width**-0.5)
    weight.requires_grad_()
    targets = torch.randint(vocabulary, (n,), device=section.device)

    def step(function: Callable[..., Tensor]) -> object:
        return torch.autograd.grad(function(x, weight, targets, CAP), (x, weight))

    ways = {
        "plain, compiled": section.compiled(plain_loss),
        "chunked": softcap.softcap_cross_entropy,
        "chunked, compiled": section.compiled(softcap.softcap_cross_entropy),
    }
    if ours := kernel(section, "softcap"):
        ways["triton"] = ours.softcap_cross_entropy
        ways["triton, compiled"] = section.compiled(ours.softcap_cross_entropy)
    variants = {name: partial(step, function) for name, function in ways.items()}
    case = f"N {n}, D {width}, V {vocabulary}"
    section.compare(case, variants, 6.0 * n * width * vocabulary)
    for name, call in variants.items():
        peak = section.attempt(f"{case}, memory: {name}", partial(section.peak_mb, call))
        if peak is not None:
            section.row(case=f"{case}, memory", variant=name, median=peak, unit="MB")


def gram_speed(section: Section) -> None:
    """Both products of an orthogonalisation's step, as they are compiled in it."""
    shapes = ((2, 70, 100),) if section.tiny else ((24, 512, 512), (8, 512, 2048), (8, 1536, 6144))
    for N, R, S in shapes:
        _gram_case(section, N, R, S)


def polynomial(product: Callable[..., Tensor], x: Tensor) -> Tensor:
    """b G + c G G with G = x x^T, as train.py's orthogonalize makes it."""
    once = product(x)
    return product(once, alpha=0.5, add=once, beta=-2.8)


def _gram_case(section: Section, N: int, R: int, S: int) -> None:
    x = torch.randn(N, R, S, device=section.device).to(BF16) * (R * S) ** -0.5
    compiled = section.compiled(polynomial)
    ours = kernel(section, "gram")
    ways = {"matmul": gram.gram, **({"triton": ours.gram} if ours else {})}
    variants = {name: partial(compiled, function, x) for name, function in ways.items()}
    # Of the full products: symmetry leaves half of it to do.
    section.compare(f"{N} x {R} x {S}", variants, 2.0 * N * R * R * (S + R))


ADAMW = [0.01, 0.2, 0.05, 0.5, 0.5, 1e-10, 0.999]  # rate, mixes, biases, epsilon, shrink


def plain_adamw(p: Tensor, g: Tensor, mean: Tensor, square: Tensor, numbers: Tensor) -> None:
    """train.py's adamw_step."""
    lr, mix1, mix2, bias1, bias2, eps, shrink = numbers.unbind()
    g = g.to(mean.dtype)
    mean.add_((g - mean) * mix1)
    square.add_((g.square() - square) * mix2)
    p.copy_(p.to(mean.dtype) * shrink - lr * (mean / bias1) / ((square / bias2).sqrt() + eps))


def foreach_adamw(ps: list, gs: list, means: list, squares: list, numbers: Tensor) -> None:
    """The same for lists, in the operations that torch.compile fuses across a list."""
    lr, mix1, mix2, bias1, bias2, eps, shrink = numbers.unbind()
    gs = [g.float() for g in gs]
    ahead = torch._foreach_sub(gs, means)
    torch._foreach_add_(means, torch._foreach_mul(ahead, mix1))
    ahead = torch._foreach_sub(torch._foreach_mul(gs, gs), squares)
    torch._foreach_add_(squares, torch._foreach_mul(ahead, mix2))
    below = torch._foreach_sqrt(torch._foreach_div(squares, bias2))
    updates = torch._foreach_div(torch._foreach_div(means, bias1), torch._foreach_add(below, eps))
    wide = torch._foreach_mul([p.float() for p in ps], shrink)
    torch._foreach_copy_(ps, torch._foreach_sub(wide, torch._foreach_mul(updates, lr)))


def adamw_speed(section: Section) -> None:
    """The embeddings and scalars of the h100 preset: six large tensors and two tiny ones."""
    large = (64, 16) if section.tiny else (8192, 512)
    params = [torch.randn(large, device=section.device).to(BF16) for _ in range(6)]
    params += [torch.randn(8, device=section.device) for _ in range(2)]
    grads = [torch.randn_like(p) for p in params]
    means = [torch.zeros_like(p, dtype=torch.float32) for p in params]
    squares = [torch.zeros_like(m) for m in means]
    numbers = torch.tensor(ADAMW, device=section.device)
    one, many = section.compiled(plain_adamw), section.compiled(foreach_adamw)

    def each() -> None:
        for quartet in zip(params, grads, means, squares, strict=True):
            one(*quartet, numbers)

    variants = {
        "compiled, one by one": each,
        "compiled, list": lambda: many(params, grads, means, squares, numbers),
    }
    if ours := kernel(section, "adamw"):
        variants["triton"] = partial(ours.adamw_step, params, grads, means, squares, numbers)
    elements = sum(p.numel() for p in params)
    section.compare(f"{len(params)} tensors", variants, bytes=22.0 * elements)


def rotate_norm(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """train.py's norm(rotate(x, cos, sin))."""
    left, right = x.chunk(2, dim=-1)
    y = torch.cat([left * cos + right * sin, right * cos - left * sin], dim=-1)
    return F.rms_norm(y, (y.size(-1),))


def rotate_norm_speed(section: Section) -> None:
    """Forward and backward of a layer's queries."""
    B, T, H, D = (1, 32, 2, 64) if section.tiny else (32, 2048, 8, 128)
    x = torch.randn(B, T, H, D, device=section.device).to(BF16).requires_grad_()
    angles = torch.randn(1, T, 1, D // 2, device=section.device)
    cos, sin = angles.cos().to(BF16), angles.sin().to(BF16)
    dy = torch.randn_like(x)
    ways = {
        "plain": rotate_norm,
        "plain, compiled": section.compiled(rotate_norm),
    }
    if ours := kernel(section, "rotate_norm"):
        ways["triton"] = ours.rotate_norm

    def step(function: Callable[..., Tensor]) -> object:
        return torch.autograd.grad(function(x, cos, sin), x, dy)

    variants = {name: partial(step, function) for name, function in ways.items()}
    # Read x, write y; read x and dy, write dx.
    section.compare(f"{B} x {T} x {H} x {D}", variants, bytes=5.0 * 2 * x.numel())


SECTIONS: dict[str, Callable[[Section], None]] = {
    "limits": limits,
    "attention": attention_speed,
    "loss": loss_speed,
    "gram": gram_speed,
    "adamw": adamw_speed,
    "rotate_norm": rotate_norm_speed,
}
