# mypy: disable-error-code="no-untyped-def"
"""Products of matrices with their own transpose: half of the tiles are computed, all are written.

    g = gram(x)                                        # x @ x.mT
    p = gram(g, alpha=c, add=g, beta=b)                # b * g + c * (g @ g) of a symmetric g

x (..., R, S) -> (..., R, R). A program computes one tile on or below the diagonal and writes it and
its mirror image: half of the arithmetic and, since tiles of x are what is read, half of the reads.

Legend: N matrices, R rows, S columns.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.kernels import Tiling, launch, product_type


def gram(x: Tensor, alpha: float = 1.0, add: Tensor | None = None, beta: float = 0.0) -> Tensor:
    """beta * add + alpha * x @ x.mT in x's dtype, summed in fp32 and rounded once.

    x (..., R, S) in fp32, fp16 or bf16 with any strides; add (..., R, R), of any shape that
    broadcasts to the product's.
    """
    shape = (*x.shape[:-1], x.shape[-2])
    x_NRS = x.reshape(-1, *x.shape[-2:])
    add_NRR = None if add is None else add.expand(shape).reshape(-1, *shape[-2:])
    return _gram(x_NRS, alpha, add_NRR, beta).view(shape)


def _tiling(block: int, depth: int, warps: int, stages: int) -> Tiling:
    return Tiling((("BLOCK", block), ("DEPTH", depth)), warps, stages)


# A stage holds two tiles of BLOCK x DEPTH: in 2-byte types 8, 16, 16 and 32 KiB. Shared memory of a
# program: 64 KiB on sm_75 and on AMD up to gfx1201 (160 on gfx950), 99 on sm_86, sm_89 and sm_120,
# 163 on sm_80, 227 on sm_90 and sm_100 (CUDA C++ Programming Guide, "Technical Specifications per
# Compute Capability"; AMD's ISA guides, LDS). What doesn't fit is passed over when it is timed; the
# first fits everywhere, in fp32 too, in which larger tiles than 64 x 64 spill registers.
TILINGS = (
    _tiling(64, 32, warps=4, stages=2),
    _tiling(64, 64, warps=4, stages=3),
    _tiling(128, 32, warps=8, stages=4),
    _tiling(128, 64, warps=8, stages=3),
)
TILINGS_FP32 = TILINGS[:2]


@torch.library.custom_op("autoresearch::gram", mutates_args=())
def _gram(x: Tensor, alpha: float, add: Tensor | None, beta: float) -> Tensor:
    N, R, S = x.shape
    out = x.new_empty((N, R, R))

    def grid(meta: dict[str, int]) -> tuple[int, int]:
        tiles = triton.cdiv(R, meta["BLOCK"])
        return tiles * (tiles + 1) // 2, N

    added = x if add is None else add  # not read if there is nothing to add
    launch(
        _gram_tile,
        grid,
        TILINGS_FP32 if x.dtype == torch.float32 else TILINGS,
        ("R", "S", "ADDED"),
        x,
        added,
        out,
        R,
        S,
        *x.stride(),
        *added.stride(),
        alpha,
        beta,
        ADDED=add is not None,
        FACTOR=product_type(x.dtype),
        results=("out_ptr",),
    )
    return out


@_gram.register_fake
def _(x, alpha, add, beta):
    N, R, _ = x.shape
    return x.new_empty((N, R, R))


def _keep_input(ctx, inputs, output):
    x, ctx.alpha, add, ctx.beta = inputs
    ctx.added = add is not None
    ctx.save_for_backward(x)


def _backward(ctx, upstream):
    (x,) = ctx.saved_tensors
    both = upstream + upstream.mT
    return ctx.alpha * (both @ x), None, ctx.beta * upstream if ctx.added else None, None


_gram.register_autograd(_backward, setup_context=_keep_input)


@triton.jit
def _gram_tile(
    x_ptr,
    add_ptr,
    out_ptr,
    R,
    S,
    x_n,
    x_r,
    x_s,
    add_n,
    add_r,
    add_s,
    alpha,
    beta,
    ADDED: tl.constexpr,
    FACTOR: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Tile (i, j), j <= i, of one matrix, and its mirror image (j, i)."""
    tile = tl.program_id(0)
    n = tl.program_id(1).to(tl.int64)
    # Row i of tiles begins at number i (i + 1) / 2; the root is right to within one row.
    i = ((tl.sqrt(8.0 * tile.to(tl.float32) + 1.0) - 1.0) * 0.5).to(tl.int32)
    i = tl.where(i * (i + 1) // 2 > tile, i - 1, i)
    i = tl.where((i + 1) * (i + 2) // 2 <= tile, i + 1, i)
    j = tile - i * (i + 1) // 2

    rows = i * BLOCK + tl.arange(0, BLOCK)
    columns = j * BLOCK + tl.arange(0, BLOCK)
    depth = tl.arange(0, DEPTH)
    # Rows beyond the last read another row: what they give is not written.
    a_ptr = x_ptr + n * x_n + (rows % R)[:, None] * x_r + depth[None, :] * x_s
    b_ptr = x_ptr + n * x_n + (columns % R)[None, :] * x_r + depth[:, None] * x_s
    product = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for start in range(0, S, DEPTH):
        left = S - start
        a = tl.load(a_ptr, mask=depth[None, :] < left, other=0.0)
        b = tl.load(b_ptr, mask=depth[:, None] < left, other=0.0)
        product = tl.dot(a.to(FACTOR), b.to(FACTOR), product, input_precision="ieee")
        a_ptr += DEPTH * x_s
        b_ptr += DEPTH * x_s

    product *= alpha
    _write(product, add_ptr, out_ptr, n, rows, columns, R, add_n, add_r, add_s, beta, ADDED)
    if i != j:
        mirrored = tl.trans(product)
        _write(mirrored, add_ptr, out_ptr, n, columns, rows, R, add_n, add_r, add_s, beta, ADDED)


@triton.jit
def _write(
    tile,
    add_ptr,
    out_ptr,
    n,
    rows,
    columns,
    R,
    add_n,
    add_r,
    add_s,
    beta,
    ADDED: tl.constexpr,
):
    """Write a tile, with the same tile of `add` added."""
    inside = (rows[:, None] < R) & (columns[None, :] < R)
    if ADDED:
        at = n * add_n + rows[:, None] * add_r + columns[None, :] * add_s
        tile += beta * tl.load(add_ptr + at, mask=inside, other=0.0).to(tl.float32)
    at = n * R * R + rows[:, None] * R + columns[None, :]
    tl.store(out_ptr + at, tile.to(out_ptr.dtype.element_ty), mask=inside)
