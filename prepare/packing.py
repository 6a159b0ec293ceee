"""Which tokens make up which row: nothing is lost, nothing starves.

    plan = plan_rows(store.offsets, max_seq_len)
    rows = Rows(store, plan)
    rows.read(indices, out)          # out: (len(indices), T + 1)

A row has C = T + 1 tokens; the model reads row[:-1] and predicts row[1:]. Documents begin with BOS.

- A row starts with a document's BOS, or continues a document. A continuation repeats the last token
  that an earlier row showed: position 0 is never a target, so every token except BOS is a target
  exactly once.
- Behind it come whole documents, each the longest that still fits (best fit). What then is left at
  the end takes the beginning of a document that continues at the start of another row.
- Only the last rows of a plan, when nothing is left to put in, end in BOS; a gap of a single token
  is BOS too (the beginning of a document of which nothing is seen yet).

The plan does not decide the order of reading: feed.py does, so that documents longer than a row are
spread evenly.

How it is made, for hundreds of millions of tokens: documents of one length are interchangeable, so
rows with the same space left are filled together (`_fill_together`), which costs a few array
operations per length instead of a step per document. Rows filled to the last token are kept. The
rest are dissolved and packed one by one (`_Sequential`), with a single document cut at a time.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prepare.cache import atomic_path, read_json, writable_folder, write_json
from prepare.errors import CorruptFile

if TYPE_CHECKING:
    from prepare.tokens import TokenStore

VERSION = 1
# Runs shorter than this on average are gathered token by token (about 3 ns each), longer ones are
# copied run by run (about 0.3 us each): measured on an x86 server.
SHORT_RUN = 192
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RowPlan:
    """Rows as runs of tokens in the store; the runs of a row fill its T + 1 places exactly."""

    max_seq_len: int  # T
    n_tokens: int  # of the store it was made for
    starts: Ints  # (n_rows + 1,) first run of each row
    sources: Ints  # (n_runs,) position in the store's tokens
    lengths: Ints  # (n_runs,) tokens in the run
    long_tokens: Ints  # (n_rows,) targets, BOS not counted, in documents longer than a row

    @property
    def n_rows(self) -> int:
        """Rows in an epoch."""
        return len(self.starts) - 1

    def save(self, folder: Path) -> None:
        """Write the arrays beside each other; `plan.json` last."""
        writable_folder(folder)
        for name in ("starts", "sources", "lengths", "long_tokens"):
            with atomic_path(folder / f"{name}.npy") as temporary, open(temporary, "wb") as file:
                np.save(file, getattr(self, name), allow_pickle=False)
        about = {"version": VERSION, "max_seq_len": self.max_seq_len, "n_tokens": self.n_tokens}
        sizes = {"n_rows": self.n_rows, "n_runs": len(self.sources)}
        write_json(folder / "plan.json", {**about, **sizes})

    @classmethod
    def load(cls, folder: Path) -> RowPlan:
        """Map a saved plan.

        Raises FileNotFoundError if there is none, CorruptFile if it is broken.
        """
        about = read_json(folder / "plan.json")
        try:
            arrays = {
                name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
                for name in ("starts", "sources", "lengths", "long_tokens")
            }
            plan = cls(int(about["max_seq_len"]), int(about["n_tokens"]), **arrays)
            sound = (about["version"], about["n_rows"], about["n_runs"]) == (
                VERSION,
                plan.n_rows,
                len(plan.sources),
            ) and len(plan.lengths) == len(plan.sources) == int(plan.starts[-1])
        except (OSError, ValueError, KeyError) as error:
            raise CorruptFile(
                f"row plan in {folder}: {error}", "delete it and prepare again"
            ) from error
        if not sound:
            raise CorruptFile(
                f"row plan in {folder} does not fit itself", "delete it and prepare again"
            )
        return plan


class Rows:
    """Rows of a plan, read from the store they were planned for."""

    def __init__(self, store: TokenStore, plan: RowPlan) -> None:
        """Raises CorruptFile if the plan was made for another store."""
        if plan.n_tokens != len(store.tokens):
            raise CorruptFile(
                f"the row plan is for {plan.n_tokens} tokens, the store has {len(store.tokens)}",
                "delete it and prepare again",
            )
        self.store, self.plan = store, plan

    def __len__(self) -> int:
        return self.plan.n_rows

    @property
    def max_seq_len(self) -> int:
        """T: a row has T + 1 tokens."""
        return self.plan.max_seq_len

    @property
    def dtype(self) -> np.dtype[np.integer]:
        """uint16 or uint32, whichever holds every token id."""
        return self.store.tokens.dtype

    def read_all(self) -> NDArray[np.integer]:
        """Every row of the plan, (n_rows, T + 1): meant for validation, which is small."""
        out = np.empty((len(self), self.max_seq_len + 1), self.dtype)
        self.read(np.arange(len(self)), out)
        return out

    def read(self, indices: Ints, out: NDArray[np.integer]) -> None:
        """Copy rows `indices` into `out` (len(indices), T + 1), whose dtype holds every id.

        Raises CorruptFile for a plan that names tokens which the store hasn't.
        """
        if not out.flags.c_contiguous:
            raise ValueError("out must be contiguous")
        plan, tokens = self.plan, self.store.tokens
        first = plan.starts[indices]
        counts = plan.starts[np.asarray(indices) + 1] - first
        ends = np.cumsum(counts)
        runs = np.repeat(first - (ends - counts), counts)
        runs += np.arange(len(runs))
        sources, lengths = plan.sources[runs], plan.lengths[runs]
        if len(runs) and (sources.min() < 0 or (sources + lengths).max() > len(tokens)):
            raise CorruptFile("the row plan names tokens that aren't there", "prepare again")
        stops = np.cumsum(lengths)
        flat = out.reshape(-1)
        if len(flat) < SHORT_RUN * len(runs):
            positions = np.repeat(sources - (stops - lengths), lengths)
            positions += np.arange(len(flat))
            # Clipped, for nothing is: to look at each position took a tenth of the time.
            flat[:] = np.asarray(tokens).take(positions, mode="clip")
            return
        begin = 0
        for source, stop in zip(sources.tolist(), stops.tolist(), strict=True):
            flat[begin:stop] = tokens[source : source + stop - begin]
            begin = stop


def plan_rows(offsets: Ints, max_seq_len: int) -> RowPlan:
    """Plan rows of `max_seq_len` + 1 tokens for documents tokens[offsets[i] : offsets[i + 1]].

    Every document has at least one token, its BOS.
    """
    offsets = np.asarray(offsets, np.int64)
    capacity = max_seq_len + 1
    lengths = np.diff(offsets)
    runs = _Runs()
    is_long = lengths > capacity
    long_ids = np.flatnonzero(is_long)
    sequential = _Sequential(capacity, runs)
    short_ids = np.flatnonzero(~is_long)
    leftover = _fill_together(short_ids, lengths, offsets, capacity, runs)
    sequential.run(leftover, long_ids, lengths, offsets)
    return runs.plan(max_seq_len, offsets, is_long)


class _Runs:
    """Collects runs (row, place in the row, source, length) and sorts them into a plan."""

    def __init__(self) -> None:
        self.n_rows = 0
        self._parts: list[tuple[Ints, Ints, Ints, Ints]] = []

    def add(self, rows: Ints, places: Ints, sources: Ints, lengths: Ints) -> None:
        self._parts.append((rows, places, sources, lengths))

    def plan(self, max_seq_len: int, offsets: Ints, is_long: NDArray[np.bool_]) -> RowPlan:
        empty = np.zeros(0, np.int64)
        columns = zip(*self._parts, strict=True) if self._parts else [(empty,)] * 4
        rows, places, sources, lengths = (np.concatenate(column) for column in columns)
        order = np.lexsort((places, rows))
        rows, places, sources, lengths = (a[order] for a in (rows, places, sources, lengths))
        starts = np.searchsorted(rows, np.arange(self.n_rows + 1))
        document = np.searchsorted(offsets, sources, side="right") - 1
        begins = (places == 0) | (sources == offsets[document])  # a first token, or a BOS, is none
        targets = (lengths - begins) * is_long[document]
        long_tokens = np.bincount(rows, weights=targets, minlength=self.n_rows).astype(np.int64)
        starts = starts.astype(np.int64)
        return RowPlan(max_seq_len, int(offsets[-1]), starts, sources, lengths, long_tokens)


def _fill_together(ids: Ints, lengths: Ints, offsets: Ints, capacity: int, runs: _Runs) -> Ints:
    """Fill rows with whole documents, all rows with equal space at once; keep those that come out
    full.

    Returns the ids of the documents that are in no kept row.
    """
    for _ in range(8):
        n_rows = int(lengths[ids].sum()) // capacity
        if n_rows < 64:
            break
        left = _fill_once(ids, lengths, offsets, capacity, runs, n_rows)
        gained = len(ids) - len(left)
        ids = left
        if gained < len(ids) // 20:
            break
    return ids


def _fill_once(
    ids: Ints, lengths: Ints, offsets: Ints, capacity: int, runs: _Runs, n_rows: int
) -> Ints:
    ids = ids[np.argsort(lengths[ids], kind="stable")]
    stops = np.searchsorted(lengths[ids], np.arange(capacity + 1), side="right")
    begins = np.concatenate(([0], stops[:-1]))  # documents of length n: ids[begins[n] : stops[n]]
    available = [n for n in range(1, capacity + 1) if stops[n] > begins[n]]
    taken = begins.copy()
    groups: dict[int, list[Ints]] = {capacity: [np.arange(n_rows)]}  # space left -> rows
    placed: list[tuple[Ints, Ints, int]] = []  # rows, ids, place
    for space in range(capacity, 1, -1):
        if space not in groups:
            continue
        rows = np.concatenate(groups.pop(space))
        while len(rows):
            position = bisect_right(available, space) - 1
            if position < 0:
                break
            length = available[position]
            count = min(len(rows), int(stops[length] - taken[length]))
            chosen = ids[taken[length] : taken[length] + count]
            taken[length] += count
            if taken[length] == stops[length]:
                available.pop(position)
            placed.append((rows[:count], chosen, capacity - space))
            groups.setdefault(space - length, []).append(rows[:count])
            rows = rows[count:]
    return _keep_full(placed, groups, ids, lengths, offsets, capacity, runs, n_rows)


def _keep_full(
    placed: list[tuple[Ints, Ints, int]],
    groups: dict[int, list[Ints]],
    ids: Ints,
    lengths: Ints,
    offsets: Ints,
    capacity: int,
    runs: _Runs,
    n_rows: int,
) -> Ints:
    """Hand the full rows to `runs`, renumbered; return the documents of the others."""
    if not placed:
        return ids
    number = np.full(n_rows, -1, np.int64)
    filler = np.concatenate(groups.get(1, []) or [np.zeros(0, np.int64)])
    full = np.sort(np.concatenate([*groups.get(0, []), filler]))
    number[full] = runs.n_rows + np.arange(len(full))
    runs.n_rows += len(full)
    rows = number[np.concatenate([part[0] for part in placed])]
    chosen = np.concatenate([part[1] for part in placed])
    places = np.repeat([part[2] for part in placed], [len(part[0]) for part in placed])
    kept = rows >= 0
    runs.add(rows[kept], places[kept], offsets[chosen[kept]], lengths[chosen[kept]])
    # The store's first token is a BOS: it stands for every BOS that fills a gap.
    at = number[filler]
    runs.add(at, np.full(len(at), capacity - 1), np.zeros_like(at), np.ones_like(at))
    return np.setdiff1d(ids, chosen[kept], assume_unique=True)


class _Sequential:
    """Packs what is left row by row; at most one document is half shown at any time."""

    def __init__(self, capacity: int, runs: _Runs) -> None:
        self.capacity, self.runs = capacity, runs
        self.rows: list[int] = []
        self.places: list[int] = []
        self.sources: list[int] = []
        self.sizes: list[int] = []

    def run(self, short_ids: Ints, long_ids: Ints, lengths: Ints, offsets: Ints) -> None:
        """Pack all documents named by the ids."""
        by_length: dict[int, list[int]] = {}
        for document, length in zip(short_ids.tolist(), lengths[short_ids].tolist(), strict=True):
            by_length.setdefault(length, []).append(document)
        for stack in by_length.values():
            stack.reverse()
        self.available = sorted(by_length)
        self.by_length = by_length
        self.longs = list(zip(offsets[long_ids].tolist(), lengths[long_ids].tolist(), strict=True))
        self.longs.reverse()
        self.offsets = offsets
        piece = self._next_opener()
        while piece is not None:
            piece = self._row(*piece) or self._next_opener()
        columns = (self.rows, self.places, self.sources, self.sizes)
        self.runs.add(*(np.array(column, np.int64) for column in columns))

    def _row(self, source: int, length: int) -> tuple[int, int] | None:
        """Fill rows beginning with a piece; return the rest of a document that was cut, if any."""
        while length > self.capacity:
            self._put(0, source, self.capacity)
            self.runs.n_rows += 1
            source, length = source + self.capacity - 1, length - self.capacity + 1
        self._put(0, source, length)
        place = length
        while place < self.capacity:
            found = self._take(self.capacity - place)
            if found is None:
                break
            self._put(place, *found)
            place += found[1]
        rest = self._fill_gap(place)
        self.runs.n_rows += 1
        return rest

    def _fill_gap(self, place: int) -> tuple[int, int] | None:
        gap = self.capacity - place
        cut = self._next_opener() if gap > 1 else None
        if cut is None:
            for filler in range(place, self.capacity):
                self._put(filler, 0, 1)
            return None
        source, length = cut
        self._put(place, source, gap)
        return source + gap - 1, length - gap + 1

    def _next_opener(self) -> tuple[int, int] | None:
        """A document to open a row or to cut: a long one, else the longest."""
        if self.longs:
            return self.longs.pop()
        return self._take(self.capacity)

    def _take(self, space: int) -> tuple[int, int] | None:
        """Take the longest document of at most `space` tokens; (source, length)."""
        position = bisect_right(self.available, space) - 1
        if position < 0:
            return None
        length = self.available[position]
        stack = self.by_length[length]
        document = stack.pop()
        if not stack:
            self.available.pop(position)
        return int(self.offsets[document]), length

    def _put(self, place: int, source: int, length: int) -> None:
        self.rows.append(self.runs.n_rows)
        self.places.append(place)
        self.sources.append(source)
        self.sizes.append(length)
