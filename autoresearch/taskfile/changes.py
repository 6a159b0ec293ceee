"""Which files were found changed, and who was told of it; for several threads.

    changes = Changes(look)                 # look(): the files that differ from its last call
    with changes.watched() as told:         # a run, or a proposal, is under way
        changes.untold()                    # what changed before, as far as nobody is told of it
        ...
        told()                              # what changed meanwhile

Several runs and proposals go on at the same time. A file that changes meanwhile is told to each of
them, whoever noticed it first: which of them changed it can't be known. Whoever begins later is not
told of it any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

_NAMED = 5  # files told by name


class Changes:
    """What is told are names in words, or "" if nothing changed.

    Each look at the files is made under `lock`: what it compares with moves along.
    """

    def __init__(self, look: Callable[[], Iterable[str]]) -> None:
        self.lock = threading.RLock()
        self._look = look
        self._found: list[str] = []
        self._untold: set[int] = set()  # places in what was found
        self._watched_from: list[int] = []  # by each that is under way

    @contextmanager
    def watched(self) -> Iterator[Callable[[], str]]:
        """What is given looks, and says what changed since this was entered."""
        with self.lock:
            mark = self._find()
            self._watched_from.append(mark)
        try:
            yield lambda: self._since(mark)
        finally:
            with self.lock:
                self._watched_from.remove(mark)

    def untold(self) -> str:
        """Without a look: what was found so far, but for what others under way will be told."""
        with self.lock:
            end = min(self._watched_from, default=len(self._found))
            return self._tell({place for place in self._untold if place < end})

    def _since(self, mark: int) -> str:
        with self.lock:
            return self._tell(set(range(mark, self._find())))

    def _find(self) -> int:
        """Look; how much was found until now."""
        new = list(self._look())
        self._untold |= set(range(len(self._found), len(self._found) + len(new)))
        self._found += new
        return len(self._found)

    def _tell(self, places: set[int]) -> str:
        self._untold -= places
        names = sorted({self._found[place] for place in places})
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return ", ".join(names[:_NAMED]) + more
