"""Prepared text on its way to nodes: once to each, whatever the number of workers and trials.

    tokens = Tokens.of(settings)            # the driver's, prepared there if it wasn't
    tokens.missing()                        # on a node: what its cache lacks
    receive(tokens, chunks, ray.get)        # under a lock, so that of two workers one fetches

A node gets tokens, plans and tokenizer, and never the corpus: it needs no network, and nothing of
the corpus' place on the driver. Where the cache is on a shared file system all of it is found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoresearch.cluster.wire import CHUNK, inside
from prepare.cache import atomic_path, cache_root, lock, require_space, sha256_file
from prepare.corpus import PREPARED
from prepare.dataset import prepare_dataset, prepared_files
from prepare.errors import CorruptFile
from prepare.files import file_hashes
from prepare.settings import Settings


@dataclass(frozen=True)
class Tokens:
    """The files that an experiment reads: their folder's name in any cache, their content."""

    key: str
    corpus: str  # what names it in the settings of a machine that has no more than these files
    files: Mapping[str, tuple[int, str]]  # bytes and SHA-256 by POSIX path inside the folder

    @classmethod
    def of(cls, settings: Settings, on_event: Callable[..., None] | None = None) -> Tokens:
        """What these settings read, prepared on this machine. Raises PrepareError."""
        prepare_dataset(settings, on_event)
        fingerprint, folder, paths = prepared_files(settings)
        sums = file_hashes(paths)
        files = {
            path.relative_to(folder).as_posix(): (path.stat().st_size, digest)
            for path, digest in zip(paths, sums, strict=True)
        }
        return cls(folder.name, f"{PREPARED}{fingerprint}", files)

    @classmethod
    def loads(cls, text: str) -> Tokens:
        """The inverse of `dumps`."""
        said = json.loads(text)
        files = {path: (int(size), str(digest)) for path, (size, digest) in said["files"].items()}
        return cls(said["key"], said["corpus"], files)

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @property
    def folder(self) -> Path:
        """Where they are, or would be, on this machine."""
        return inside(cache_root() / "prepared", self.key)

    def missing(self) -> list[str]:
        """Paths that this machine's cache lacks, or has with another content."""
        there = [path for path in self.files if self._has_size(path)]
        sums = file_hashes([inside(self.folder, path) for path in there])
        same = {
            path for path, digest in zip(there, sums, strict=True) if digest == self.files[path][1]
        }
        return [path for path in self.files if path not in same]

    def _has_size(self, path: str) -> bool:
        place = inside(self.folder, path)
        return place.is_file() and place.stat().st_size == self.files[path][0]

    def pieces(self, path: str) -> Iterator[bytes]:
        """A file's content, a piece at a time."""
        with open(inside(self.folder, path), "rb") as file:
            while data := file.read(CHUNK):
                yield data


def receive(
    tokens: Tokens, chunks: Mapping[str, Sequence[Any]], get: Callable[[Any], bytes]
) -> list[str]:
    """Write those of the offered files that are still missing; their paths.

    chunks: references to a file's pieces, by path; get: fetches one. Raises CorruptFile where what
    came isn't what was promised, DiskFull, UnwritableCache.
    """
    with lock(cache_root() / "locks" / f"{tokens.key}.lock"):
        wanted = [path for path in tokens.missing() if path in chunks]
        require_space(tokens.folder, sum(tokens.files[path][0] for path in wanted))
        for path in wanted:
            place = inside(tokens.folder, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(place) as temporary:
                with open(temporary, "wb") as file:
                    for reference in chunks[path]:
                        file.write(get(reference))
                if sha256_file(temporary) != tokens.files[path][1]:
                    raise CorruptFile(f"{path} of {tokens.key} came damaged", "run it again")
    return wanted
