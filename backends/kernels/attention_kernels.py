"""Triton kernels of sliding-window causal attention: forward, and two for the backward pass.

A program owns one block of BLOCK rows and walks over the others' rows in steps of STEP, from the
first that any of its rows meets to the last: what lies outside the window is never read. Only steps
at the window's edges compare positions. Nothing is added up between programs, so the same tensors
give the same bits: the keys' gradients are made by walking over all query heads that share a key
head, the queries' by a kernel of their own. Method: Dao, FlashAttention-2 (arXiv 2307.08691).

Scores are in units of log2: GPUs have an instruction for 2**x and none for e**x.

Legend: B batch, T sequence (`length`), H heads, D head width (WIDTH; PADDED to a power of two);
x_b, x_t, x_h strides of x along B, T, H; D is innermost.
"""

# Triton reads a kernel's annotations as its own, and only constants have one.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

import triton
import triton.language as tl

# Twenty arguments a kernel: one to a line they would be most of the file.
# fmt: off

@triton.jit
def _tile(base, first, stride, length, CHECKED: tl.constexpr, ROWS: tl.constexpr,
          WIDTH: tl.constexpr, PADDED: tl.constexpr, PRODUCT: tl.constexpr):
    """Rows first .. first + ROWS of a (T, D) matrix, in the type of products.

    Zeros beyond D, and beyond T where CHECKED: without it all rows have to exist.
    """
    row, column = tl.arange(0, ROWS), tl.arange(0, PADDED)
    # 64 bits up to the block: a long sequence of many heads has over 2**31 elements.
    pointers = base + tl.cast(first, tl.int64) * stride + row[:, None] * stride + column[None, :]
    if CHECKED:
        inside = (first + row < length)[:, None] & (column < WIDTH)[None, :]
        tile = tl.load(pointers, mask=inside, other=0.0)
    elif PADDED > WIDTH:
        tile = tl.load(pointers, mask=(column < WIDTH)[None, :], other=0.0)
    else:
        tile = tl.load(pointers)
    return tile.to(PRODUCT)


@triton.jit
def _store(base, tile, first, stride, length, ROWS: tl.constexpr, WIDTH: tl.constexpr,
           PADDED: tl.constexpr):
    """Write a tile's rows and columns that exist, in the type of the matrix."""
    row, column = tl.arange(0, ROWS), tl.arange(0, PADDED)
    pointers = base + tl.cast(first, tl.int64) * stride + row[:, None] * stride + column[None, :]
    inside = (first + row < length)[:, None] & (column < WIDTH)[None, :]
    tl.store(pointers, tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _keys_met(EDGES: tl.constexpr, start, length, window, BLOCK: tl.constexpr, STEP: tl.constexpr):
    """Walk over the keys that some of the queries start .. start + BLOCK see, as `_walk` has it."""
    begin = tl.maximum(start - window, 0) // STEP * STEP
    end = tl.minimum(start + BLOCK, length)
    inside = tl.cdiv(tl.maximum(start + BLOCK - 1 - window, 0), STEP) * STEP
    return _walk(EDGES, begin, inside, (start + 1) // STEP * STEP, end, STEP)


@triton.jit
def _queries_met(EDGES: tl.constexpr, start, length, window, BLOCK: tl.constexpr,
                 STEP: tl.constexpr):
    """Walk over the queries that see some of the keys start .. start + BLOCK."""
    begin = start // STEP * STEP
    end = tl.minimum(start + BLOCK + window, length)
    inside = tl.cdiv(start + BLOCK - 1, STEP) * STEP
    return _walk(EDGES, begin, inside, tl.minimum(start + window + 1, length) // STEP * STEP, end,
                 STEP)


@triton.jit
def _walk(EDGES: tl.constexpr, begin, inside, outside, end, STEP: tl.constexpr):
    """How to walk over begin .. end: number of steps, first row, step of the jump, its rows.

    Between `inside` and `outside` every pair sees each other, and no position needs comparing. So
    one walk takes the EDGES on both sides, jumping over what the other walk takes.
    """
    stop = tl.cdiv(end, STEP) * STEP
    inside = tl.minimum(inside, stop)
    outside = tl.maximum(inside, outside)
    if EDGES:
        jump = (inside - begin) // STEP
        return jump + (stop - outside) // STEP, begin, jump, outside - inside
    else:
        return (outside - inside) // STEP, inside, 0, 0


@triton.jit
def _attend(acc, highest, total, q, k, v, k_t, v_t, walk, start, length, window, scale,
            CHECKED: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, PRODUCT: tl.constexpr,
            BLOCK: tl.constexpr, STEP: tl.constexpr):
    """Take the keys of a walk into a block of queries: sums, highest scores, totals of weights."""
    steps, begin, jump, gap = walk
    query = start + tl.arange(0, BLOCK)
    for step in range(steps):
        first = begin + step * STEP
        if CHECKED:
            first += tl.where(step < jump, 0, gap)
        keys = _tile(k, first, k_t, length, CHECKED, STEP, WIDTH, PADDED, PRODUCT)
        values = _tile(v, first, v_t, length, CHECKED, STEP, WIDTH, PADDED, PRODUCT)
        score = tl.dot(q, tl.trans(keys), input_precision="ieee") * scale
        if CHECKED:
            behind = query[:, None] - (first + tl.arange(0, STEP))[None, :]
            score = tl.where((behind >= 0) & (behind <= window), score, float("-inf"))
        higher = tl.maximum(highest, tl.max(score, 1))
        shift = higher
        if CHECKED:  # a row that has met no key of its own yet: -inf - -inf would be NaN
            shift = tl.where(higher == float("-inf"), 0.0, higher)
        weight = tl.exp2(score - shift[:, None])
        shrink = tl.exp2(highest - shift)
        total = total * shrink + tl.sum(weight, 1)
        acc = tl.dot(weight.to(PRODUCT), values, acc * shrink[:, None], input_precision="ieee")
        highest = higher
    return acc, highest, total


@triton.jit(do_not_specialize=["window", "size_class"])
def forward(q, k, v, y, lse, length, window, heads, group, scale, q_b, q_t, q_h, k_b, k_t, k_h, v_b,
            v_t, v_h, size_class, WIDTH: tl.constexpr, PADDED: tl.constexpr, PRODUCT: tl.constexpr,
            BLOCK: tl.constexpr, STEP: tl.constexpr):
    """One block of queries of one head: y, and each row's log2 of its sum of 2**score."""
    blocks = tl.cdiv(length, BLOCK)
    row = tl.program_id(0) // blocks  # of B x H
    start = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK  # the longest walk first
    b, h = tl.cast(row // heads, tl.int64), tl.cast(row % heads, tl.int64)
    q += b * q_b + h * q_h
    k += b * k_b + h // group * k_h
    v += b * v_b + h // group * v_h
    queries = _tile(q, start, q_t, length, True, BLOCK, WIDTH, PADDED, PRODUCT)
    acc = tl.zeros([BLOCK, PADDED], tl.float32)
    highest = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for edges in tl.static_range(2):
        walk = _keys_met(edges == 1, start, length, window, BLOCK, STEP)
        acc, highest, total = _attend(
            acc, highest, total, queries, k, v, k_t, v_t, walk, start, length, window, scale,
            edges == 1, WIDTH, PADDED, PRODUCT, BLOCK, STEP)
    total = tl.where(total == 0.0, 1.0, total)  # rows behind the end, which are not stored
    y_t = heads * WIDTH
    y += b * length * y_t + h * WIDTH
    _store(y, acc / total[:, None], start, y_t, length, BLOCK, WIDTH, PADDED)
    position = start + tl.arange(0, BLOCK)
    lse += tl.cast(row, tl.int64) * length
    tl.store(lse + position, highest + tl.log2(total), mask=position < length)


@triton.jit
def _dscore(score, dy_v, lse, delta, behind, window, CHECKED: tl.constexpr):
    """A tile's weights, and the gradients of its scores."""
    weight = tl.exp2(score - lse)
    if CHECKED:
        weight = tl.where((behind >= 0) & (behind <= window), weight, 0.0)
    return weight, weight * (dy_v - delta)


@triton.jit
def _walk_keys(acc, q, dy, lse, delta, k, v, k_t, v_t, walk, start, length, window, scale,
               CHECKED: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
               PRODUCT: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr):
    """Add to a block of queries' gradients what the keys of a walk give them."""
    steps, begin, jump, gap = walk
    query = start + tl.arange(0, BLOCK)
    for step in range(steps):
        first = begin + step * STEP
        if CHECKED:
            first += tl.where(step < jump, 0, gap)
        keys = _tile(k, first, k_t, length, CHECKED, STEP, WIDTH, PADDED, PRODUCT)
        values = _tile(v, first, v_t, length, CHECKED, STEP, WIDTH, PADDED, PRODUCT)
        score = tl.dot(q, tl.trans(keys), input_precision="ieee") * scale
        dy_v = tl.dot(dy, tl.trans(values), input_precision="ieee")
        behind = query[:, None] - (first + tl.arange(0, STEP))[None, :]
        _, dscore = _dscore(score, dy_v, lse[:, None], delta[:, None], behind, window, CHECKED)
        acc = tl.dot(dscore.to(PRODUCT), keys, acc, input_precision="ieee")
    return acc


@triton.jit(do_not_specialize=["window", "size_class"])
def query_gradients(q, k, v, y, dy, lse, delta, dq, length, window, heads, group, scale, gain, q_b,
                    q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, dy_b, dy_t, dy_h, size_class,
                    WIDTH: tl.constexpr, PADDED: tl.constexpr, PRODUCT: tl.constexpr,
                    BLOCK: tl.constexpr, STEP: tl.constexpr):
    """One block of queries of one head: dq, and delta, the sum of dy * y, for `key_gradients`."""
    blocks = tl.cdiv(length, BLOCK)
    row = tl.program_id(0) // blocks
    start = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK
    b, h = tl.cast(row // heads, tl.int64), tl.cast(row % heads, tl.int64)
    q += b * q_b + h * q_h
    k += b * k_b + h // group * k_h
    v += b * v_b + h // group * v_h
    dy += b * dy_b + h * dy_h
    y_t = heads * WIDTH
    made = b * length * y_t + h * WIDTH  # y and dq are ours, contiguous
    position = start + tl.arange(0, BLOCK)
    lse += tl.cast(row, tl.int64) * length
    delta += tl.cast(row, tl.int64) * length

    dys = _tile(dy, start, dy_t, length, True, BLOCK, WIDTH, PADDED, PRODUCT)
    ys = _tile(y + made, start, y_t, length, True, BLOCK, WIDTH, PADDED, PRODUCT)
    deltas = tl.sum(dys.to(tl.float32) * ys.to(tl.float32), 1)
    tl.store(delta + position, deltas, mask=position < length)
    lses = tl.load(lse + position, mask=position < length, other=0.0)
    queries = _tile(q, start, q_t, length, True, BLOCK, WIDTH, PADDED, PRODUCT)
    acc = tl.zeros([BLOCK, PADDED], tl.float32)
    for edges in tl.static_range(2):
        walk = _keys_met(edges == 1, start, length, window, BLOCK, STEP)
        acc = _walk_keys(
            acc, queries, dys, lses, deltas, k, v, k_t, v_t, walk, start, length, window,
            scale, edges == 1, WIDTH, PADDED, PRODUCT, BLOCK, STEP)
    _store(dq + made, acc * gain, start, y_t, length, BLOCK, WIDTH, PADDED)


@triton.jit
def _walk_queries(dk, dv, keys, values, q, dy, lse, delta, q_t, dy_t, walk, start, length, window,
                  scale, CHECKED: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
                  PRODUCT: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr):
    """Add to a block of keys' gradients what the queries of a walk give them, of one head."""
    steps, begin, jump, gap = walk
    key = start + tl.arange(0, BLOCK)
    for step in range(steps):
        first = begin + step * STEP
        if CHECKED:
            first += tl.where(step < jump, 0, gap)
        query = first + tl.arange(0, STEP)
        queries = _tile(q, first, q_t, length, CHECKED, STEP, WIDTH, PADDED, PRODUCT)
        dys = _tile(dy, first, dy_t, length, CHECKED, STEP, WIDTH, PADDED, PRODUCT)
        if CHECKED:  # beyond T dy is zero, and so is what comes of it
            lses = tl.load(lse + query, mask=query < length, other=0.0)
            deltas = tl.load(delta + query, mask=query < length, other=0.0)
        else:
            lses, deltas = tl.load(lse + query), tl.load(delta + query)
        score = tl.dot(keys, tl.trans(queries), input_precision="ieee") * scale
        dy_v = tl.dot(values, tl.trans(dys), input_precision="ieee")
        behind = query[None, :] - key[:, None]
        weight, dscore = _dscore(
            score, dy_v, lses[None, :], deltas[None, :], behind, window, CHECKED)
        dv = tl.dot(weight.to(PRODUCT), dys, dv, input_precision="ieee")
        dk = tl.dot(dscore.to(PRODUCT), queries, dk, input_precision="ieee")
    return dk, dv


@triton.jit(do_not_specialize=["window", "size_class"])
def key_gradients(q, k, v, dy, lse, delta, dk, dv, length, window, key_heads, group, scale, gain,
                  q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, dy_b, dy_t, dy_h, size_class,
                  WIDTH: tl.constexpr, PADDED: tl.constexpr, PRODUCT: tl.constexpr,
                  BLOCK: tl.constexpr, STEP: tl.constexpr):
    """One block of keys of one key head: dk and dv, over all query heads that share it."""
    blocks = tl.cdiv(length, BLOCK)
    row = tl.program_id(0) // blocks  # of B x key heads
    start = tl.program_id(0) % blocks * BLOCK
    b, key_head = tl.cast(row // key_heads, tl.int64), tl.cast(row % key_heads, tl.int64)
    k += b * k_b + key_head * k_h
    v += b * v_b + key_head * v_h
    keys = _tile(k, start, k_t, length, True, BLOCK, WIDTH, PADDED, PRODUCT)
    values = _tile(v, start, v_t, length, True, BLOCK, WIDTH, PADDED, PRODUCT)
    dks = tl.zeros([BLOCK, PADDED], tl.float32)
    dvs = tl.zeros([BLOCK, PADDED], tl.float32)
    for member in range(group):
        h = key_head * group + member
        head_row = (b * key_heads * group + h) * length
        for edges in tl.static_range(2):
            walk = _queries_met(edges == 1, start, length, window, BLOCK, STEP)
            dks, dvs = _walk_queries(
                dks, dvs, keys, values, q + b * q_b + h * q_h, dy + b * dy_b + h * dy_h,
                lse + head_row, delta + head_row, q_t, dy_t, walk, start, length, window,
                scale, edges == 1, WIDTH, PADDED, PRODUCT, BLOCK, STEP)
    k_row = key_heads * WIDTH
    made = b * length * k_row + key_head * WIDTH  # dk and dv are ours, contiguous
    _store(dk + made, dks * gain, start, k_row, length, BLOCK, WIDTH, PADDED)
    _store(dv + made, dvs, start, k_row, length, BLOCK, WIDTH, PADDED)
