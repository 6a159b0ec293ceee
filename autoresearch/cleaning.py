"""What lies in our cache and in a workspace that can be made or fetched again, and removing it.

    for heap in heaps(folder):
        heap.name, heap.what, heap.places, heap.bytes
    with unused(chosen, folder):        # raises DataError naming who uses one of them
        remove(heap)

A cache folder may be anywhere (AUTORESEARCH_CACHE), also where other things lie: only what has the
names that we give is ours, and nothing of a repository, such as a workspace called `demo`. Nothing
behind a link is looked at or removed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from platformdirs import user_cache_dir

from autoresearch.engine.errors import LedgerBusy
from autoresearch.engine.holder import Claim
from autoresearch.engine.workspace import OWN_FOLDER
from prepare.cache import CACHE_VARIABLE, cache_root
from prepare.errors import DataError, PrepareError
from prepare.settings import FILE_NAME

_ID = r"[0-9a-f]{16}"
# Folder in the cache -> names in it that are ours, and what it costs to be without them.
CACHE = {
    "compiled": (_ID + r"(\.[0-9a-f]{8}\.(tmp|old))?", "compiled kernels: compiled again"),
    "corpora": ("climbmix|tinystories", "downloaded text: fetched again"),
    "prepared": (_ID + r"-\d+-\d+(\..*)?", "tokens: made again from the text"),
    "probes": (_ID + r"\.(json|lock)|headers", "speed figures: measured again"),
    "demo": (r"autoresearch\.toml|train\.py|runs", "the demo's runs"),
    "dashboard": (r"vega-.*\.js", "the charts' program: made again"),
}
STUDY = {
    "scratches": "copies that a killed run left",
    "runs": "logs and edits of trials that weren't kept, and of earlier studies",
    "weights": "weights of earlier studies: trained again",
    "trackers": "what trackers wrote here: nobody has it twice",
}
NAMES = (*CACHE, *STUDY)
# Commands that use the cache while they work; the others only look.
WORKING = ("run", "trial", "train", "combine", "task", "demo", "prepare", "verify", "bench")


@dataclass(frozen=True)
class Heap:
    """One kind of things, `places` that may each go as a whole."""

    name: str
    what: str
    places: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """What removing it frees, as far as it can be read."""
        return sum(size(place) for place in self.places)


def heaps(folder: Path) -> list[Heap]:
    """Everything that could be removed, of the cache and of the workspace in `folder`, if one."""
    cache = cache_root()
    found = [
        Heap(name, what, tuple(_named(cache / name, pattern)))
        for name, (pattern, what) in CACHE.items()
    ]
    if (folder / FILE_NAME).is_file():
        own = folder.resolve() / OWN_FOLDER
        for name, places in (
            ("scratches", _named(own / "work", ".*@.*")),
            ("runs", _old_runs(folder)),
            ("weights", _old_weights(folder)),
            ("trackers", _named(own / "trackers", r"[^.].*")),
        ):
            found.append(Heap(name, STUDY[name], tuple(places)))
    return found


def _named(root: Path, pattern: str) -> Iterator[Path]:
    """What has one of our names, right under a folder that is no link."""
    if root.is_symlink() or not root.is_dir() or (root / ".git").exists():
        return
    yield from sorted(path for path in root.iterdir() if re.fullmatch(pattern, path.name))


def _old_runs(folder: Path) -> Iterator[Path]:
    """Run folders of other studies, and of this one's trials that never were champion."""
    from autoresearch.study import Study, champions

    study = Study.read(folder)
    kept = {f"{number:04d}" for number in champions(study.ledger.records())}
    known = {f"{number:04d}" for number in study.state.trials}
    for place in _named(study.root / OWN_FOLDER / "runs", ".*"):
        if place.name != study.tag:
            yield place
            continue
        yield from (path for path in _named(place, r"\d{4,}") if path.name in known - kept)


def _old_weights(folder: Path) -> Iterator[Path]:
    """Weights of other studies: those of this one are kept as its settings say."""
    from autoresearch.study import Study

    study = Study.read(folder)
    root = study.root / OWN_FOLDER / "weights"
    yield from (path for path in _named(root, r"[^.].*") if path.name != study.tag)


def size(place: Path) -> int:
    """Bytes of a file or of all files under a folder; what a link points to is none of it."""
    try:
        if place.is_symlink() or place.is_file():
            return place.lstat().st_size
    except OSError:
        return 0
    total = 0
    for parent, _, files in os.walk(place):
        for name in files:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:  # it went meanwhile
                continue
    return total


@contextmanager
def unused(chosen: Sequence[Heap], folder: Path) -> Iterator[None]:
    """Nobody works with what is chosen, and inside no study of the workspace begins to.

    Raises DataError naming who does.
    """
    from autoresearch.study import LEDGER_NAME

    for heap in chosen:
        user = _cache_at_work() if heap.name in CACHE else ""
        if user:
            raise _in_use(heap, user)
    of_study = next((heap for heap in chosen if heap.name in STUDY), None)
    if of_study is None:
        yield
        return
    claim = Claim(folder.resolve() / LEDGER_NAME)
    try:
        claim.acquire()
    except LedgerBusy as busy:
        raise _in_use(of_study, busy.message) from busy
    try:
        yield
    finally:
        claim.release()


def _in_use(heap: Heap, user: str) -> DataError:
    return DataError(f"{heap.name} is in use: {user}", "wait until it ends; nothing is gone")


def _cache_at_work() -> str:
    """A process of ours that uses this cache folder."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    cache = cache_root().resolve()
    for process in psutil.process_iter():
        try:
            command = _command(process.cmdline()) if process.pid not in mine else ""
            if not command:
                continue
            used = process.environ().get(CACHE_VARIABLE) or user_cache_dir("autoresearch")
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # another user's, with a cache of its own
        if Path(used).is_absolute() and Path(used).resolve() != cache:
            continue
        return f"`autoresearch {command}` is running (process {process.pid})"
    return ""


def _command(words: list[str]) -> str:
    """Which working command of ours a command line is, "" if it is none."""
    for place, word in enumerate(words[:-1]):
        ours = Path(word).stem == "autoresearch" or word == "autoresearch.cli"
        if ours and words[place + 1] in WORKING:
            return words[place + 1]
        if word == "-m" and words[place + 1] == "prepare.child":
            return "train"
    return ""


def remove(heap: Heap) -> int:
    """Remove all its places; how many bytes that freed. Raises PrepareError for what stays."""
    freed = 0
    for place in heap.places:
        n_bytes = size(place)
        try:
            if place.is_symlink() or not place.is_dir():
                place.unlink(missing_ok=True)
            else:
                shutil.rmtree(place)
        except OSError as error:
            raise PrepareError(
                f"{place} can't be removed: {error.strerror or error}", "see who owns it"
            ) from error
        freed += n_bytes
    return freed
