"""Batches of rows, epoch after epoch, in an order that depends on nothing but the seed.

    feed = Feed(rows, seed=42)
    epoch = feed.fill(out)           # out: (B, T + 1)

Rows are dealt like cards: sorted by how much of them comes from documents longer than a row (ties
by a hash of row, seed and epoch), then dealt in turn to blocks of about 32, so that every block
has the corpus' share of such text; then blocks, and rows within a block, are shuffled. Each epoch
deals anew. The hash is computed here and not drawn from numpy's generators, whose streams may
change between versions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prepare.packing import Ints, Rows

BLOCK = 32


class Feed:
    """An endless sequence of rows."""

    def __init__(self, rows: Rows, seed: int) -> None:
        if not len(rows):
            raise ValueError("there are no rows to feed")
        self.rows, self.seed = rows, seed
        self.epoch, self._position = 0, 0
        self._order = row_order(rows.plan.long_tokens, seed, 0)

    def fill(self, out: NDArray[np.integer]) -> int:
        """Fill `out` (B, T + 1) with the next B rows; return the last one's epoch, from 0."""
        filled = 0
        while filled < len(out):
            if self._position == len(self._order):
                self.epoch, self._position = self.epoch + 1, 0
                self._order = row_order(self.rows.plan.long_tokens, self.seed, self.epoch)
            take = min(len(out) - filled, len(self._order) - self._position)
            indices = self._order[self._position : self._position + take]
            self.rows.read(indices, out[filled : filled + take])
            filled += take
            self._position += take
        return self.epoch


def row_order(long_tokens: Ints, seed: int, epoch: int) -> Ints:
    """A permutation of the rows; any 1,000 in sequence hold the overall share of long tokens."""
    n_rows = len(long_tokens)
    n_blocks = -(-n_rows // BLOCK)
    noise = scramble(np.arange(n_rows, dtype=np.uint64), seed, epoch, 0)
    ranked = np.lexsort((noise, long_tokens))
    turn, block = np.divmod(np.arange(n_rows), n_blocks)
    block = np.where(
        turn % 2, n_blocks - 1 - block, block
    )  # back and forth, or block 0 gets the least
    block_noise = scramble(np.arange(n_blocks, dtype=np.uint64), seed, epoch, 1)
    return ranked[np.lexsort((noise[ranked], block_noise[block]))]


def scramble(values: NDArray[np.uint64], *salts: int) -> NDArray[np.uint64]:
    """A hash of each value and the salts, uniform over 64 bits.

    SplitMix64's finaliser (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
    2014).
    """
    with np.errstate(over="ignore"):
        for salt in (*salts, 0):
            values = values + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 & (1 << 64) - 1)
            values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            values = values ^ (values >> np.uint64(31))
    return values
