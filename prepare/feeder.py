"""Batches on their way to a candidate: packed ahead of need into memory that it shares.

ring = SharedFile(ring_bytes(max_seq_len))      # before the process starts
feeder = Feeder(process, feed, rows, row_tokens, ring)
feeder.start()
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from prepare.cache import explained
from prepare.channel import ProtocolError, SharedFile
from prepare.errors import PrepareError
from prepare.feed import Feed
from prepare.process import CandidateProcess

# Batches packed and announced ahead of need.
SLOTS = 4
# Tokens in one batch: beyond any device, and the ring of them still fits a small /dev/shm.
MAX_BATCH_TOKENS = 2**24
MAX_TOKEN_BYTES = 4


def ring_bytes(max_seq_len: int) -> int:
    """Size of the ring for batches of any allowed size; untouched memory costs nothing."""
    rows = MAX_BATCH_TOKENS // max_seq_len
    return SLOTS * rows * (max_seq_len + 1) * MAX_TOKEN_BYTES


class Feeder(threading.Thread):
    """Packs batches into a ring ahead of need and announces each filled slot.

    It hands out at most `limit` batches, and counts those it handed out and those that were read.
    """

    def __init__(
        self,
        process: CandidateProcess,
        feed: Feed,
        rows: int,
        row_tokens: int,
        ring: SharedFile,
        limit: int | None = None,
    ) -> None:
        """ring: shared with the process since it was started, see `ring_bytes`."""
        super().__init__(daemon=True)
        self._process, self._feed, self._limit = process, feed, limit
        dtype = feed.rows.dtype
        self._batch = np.empty((rows, row_tokens), dtype)
        self._ring = ring
        self._free = threading.Semaphore(SLOTS)
        self._stopped = threading.Event()
        self.handed_out = self.read = 0
        self.error: BaseException | None = None
        self._fill(0)  # ready before it is asked for, and before the clock starts
        shape = [SLOTS, rows, row_tokens]
        self.announcement = {"ring": ring.address, "shape": shape, "dtype": dtype.name}

    def _fill(self, slot: int) -> None:
        self._feed.fill(self._batch)
        with explained(Path("shared memory")):
            self._ring.write(slot * self._batch.nbytes, self._batch)

    def run(self) -> None:
        try:
            while self._limit is None or self.handed_out < self._limit:
                self._free.acquire()
                if self._stopped.is_set():
                    return
                slot = self.handed_out % SLOTS
                if self.handed_out:
                    self._fill(slot)
                self.handed_out += 1
                self._process.send("slot", slot=slot)
        except (OSError, PrepareError) as error:  # reported by the owner
            self.error = error

    def released(self) -> None:
        """One slot was read and may be filled again. Raises ProtocolError if none was."""
        if self.read >= self.handed_out:
            raise ProtocolError("'released': a batch that was never handed out")
        self.read += 1
        self._free.release()

    def stop(self) -> None:
        """Hand out no more."""
        self._stopped.set()
        self._free.release()

    def close(self) -> None:
        """Stop filling."""
        self.stop()
        if self.is_alive():
            self.join(timeout=10)
