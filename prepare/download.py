"""Files from the web, whole and verified or not at all.

    download([RemoteFile(url, path)], on_event)

A file is fetched into `NAME.part` and gets its name when its size and SHA-256 are what the server
(or a manifest) said. A download that was cut, or killed, goes on from its last byte: the request
carries Range and If-Range, and a server that ignores them sends the whole file again. Transient
errors are retried with growing, jittered waits; a file that doesn't exist is not.

Beside each file lies `NAME.json` with size, SHA-256 and ETag: a later run checks the size and
asks nobody.

hub.py tells what the environment has to say: mirror, offline mode, token.

huggingface_hub would do half of this: it checks the size but not the SHA-256, and brings its own
cache layout and a binary transfer client. Two hundred lines over httpx keep the rules in one place.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prepare.cache import (
    Event,
    explained,
    ignore_event,
    read_json,
    require_space,
    sync,
    writable_folder,
    write_json,
)
from prepare.errors import CorruptFile, DataError, DownloadError, IncompleteShard
from prepare.hub import authorization, host_of, offline, without_address
from prepare.responses import Expected, Transient, check_status, range_start

if TYPE_CHECKING:
    import httpx

WORKERS = 8
BLOCK = 1 << 20
REPORT_SECONDS = 0.2
REDIRECTS = 8


@dataclass(frozen=True)
class RemoteFile:
    """What to fetch and where to put it; size and sha256 as a manifest states them, if one does."""

    url: str
    path: Path
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Patience:
    """How long to go on trying; tests wait less."""

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 30.0
    timeout: float = 30.0

    def seconds(self, failures: int, asked: float | None) -> float:
        """Wait before the next attempt: doubling, jittered by half, or what Retry-After asks."""
        doubled = min(self.first_wait * 2 ** (failures - 1), self.longest_wait)
        return min(max(doubled * random.uniform(0.5, 1.0), asked or 0.0), self.longest_wait)


def present(file: RemoteFile) -> bool:
    """Whether the file is here and as long as its server said; it was verified on arrival."""
    try:
        about = read_json(_about(file.path))
        return file.path.stat().st_size == about["size"] == (file.size or about["size"])
    except (OSError, CorruptFile, KeyError):
        return False


def checksum(path: Path) -> str:
    """SHA-256 of a downloaded file as it was verified on arrival."""
    return str(read_json(_about(path))["sha256"])


def download(
    files: Sequence[RemoteFile],
    on_event: Event = ignore_event,
    workers: int = WORKERS,
    patience: Patience | None = None,
) -> None:
    """Fetch what isn't here yet, several files at a time.

    Raises DownloadError (gone, forbidden, offline, no patience left), CorruptFile (wrong checksum),
    IncompleteShard (wrong size), DiskFull, UnwritableCache. What is done by then stays.
    """
    missing = [file for file in files if not present(file)]
    if not missing:
        return
    if offline():
        raise _offline_error(missing, len(files))
    for folder in {file.path.parent for file in missing}:
        writable_folder(folder)
    transfer = _Transfer(missing, on_event, patience or Patience())
    with transfer.client(), ThreadPoolExecutor(min(workers, len(missing))) as pool:
        futures = [pool.submit(transfer.fetch, file) for file in missing]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # an interrupt stops the workers too
            transfer.stop.set()
            for future in futures:
                future.cancel()
        # The first error is the reason; the others stopped because of it.
        errors = [error for future in done if (error := future.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, _Stopped)):
            raise error


def _offline_error(missing: Sequence[RemoteFile], total: int) -> DataError:
    hint = "unset AUTORESEARCH_OFFLINE and HF_HUB_OFFLINE, or use the embedded corpus"
    for file in missing:
        if file.path.exists() or _part(file.path).exists():
            return IncompleteShard(
                f"{file.path.name} is only half here, and offline mode forbids the network", hint
            )
    return DownloadError(
        f"{missing[0].path.name} is not here, and offline mode forbids the network "
        f"({len(missing)} of {total} files are missing)",
        hint,
    )


class _Stopped(Exception):
    """Another file failed for good."""


@dataclass
class _Transfer:
    """The state that the workers of one `download` share."""

    files: Sequence[RemoteFile]
    on_event: Event
    patience: Patience
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._sizes: dict[Path, tuple[int, int | None]] = {}
        self._reported = 0.0

    @contextmanager
    def client(self) -> Iterator[None]:
        import httpx

        timeout = httpx.Timeout(self.patience.timeout)
        with httpx.Client(timeout=timeout, follow_redirects=False) as self._http:
            yield

    def fetch(self, file: RemoteFile) -> None:
        """Fetch one file, trying again as long as that makes sense.

        Failures are counted anew whenever more of the file than ever has arrived.
        """
        failures, wrong, furthest = 0, 0, _size(_part(file.path))
        while True:
            if self.stop.is_set():
                raise _Stopped
            try:
                with explained(file.path):
                    self._attempt(file)
                return
            except (CorruptFile, IncompleteShard) as error:
                # Once more from the start: a proxy or a disk may have erred; twice is the server.
                wrong += 1
                if wrong > 1:
                    raise
                label, reason, asked = "", error.message, None  # these name the file
            except Transient as error:
                label, reason, asked = f"{file.path.name}: ", str(error), error.asked
            arrived = _size(_part(file.path))
            failures = 1 if arrived > furthest else failures + 1
            furthest = max(furthest, arrived)
            if failures >= self.patience.attempts:
                kept = f", {arrived:,} bytes are kept" if arrived else ""
                raise DownloadError(
                    f"{file.path.name} could not be downloaded from {host_of(file.url)}: {reason}",
                    f"try again later{kept}; AUTORESEARCH_MIRROR names another host",
                )
            self.on_event("warning", {"message": f"{label}{reason}; trying again"})
            self.stop.wait(self.patience.seconds(failures, asked))

    def _attempt(self, file: RemoteFile) -> None:
        part, state = _part(file.path), _about(_part(file.path))
        have, noted = _size(part), _read_note(state)
        tag = noted.get("etag")
        headers = {"Range": f"bytes={have}-", "If-Range": tag} if have and tag else {}
        with self._open(file, headers) as (response, facts):
            expected = Expected.of((file.size, file.sha256), response, facts, noted)
            if response.status_code == 416:
                # Nothing follows what we have: either it is all there, or it is another file's.
                if have != expected.size:
                    part.unlink()
                    raise _incomplete(file, have, expected.size)
            else:
                if response.status_code != 206 or range_start(response) != have:
                    have = 0
                self._receive(file, response, expected, have)
        self._accept(file, expected)

    @contextmanager
    def _open(
        self, file: RemoteFile, headers: dict[str, str]
    ) -> Iterator[tuple[httpx.Response, dict[str, str]]]:
        """A streamed response, and the hub's facts about the file, which come with its redirect.

        Redirects are followed here because their headers count. Raises Transient, DownloadError.
        """
        import httpx

        url, facts = file.url, dict[str, str]()
        try:
            for _ in range(REDIRECTS):
                # Sizes and ranges count stored bytes, so nothing may be compressed on the way.
                own = {"Accept-Encoding": "identity", **headers, **authorization(url)}
                request = self._http.build_request("GET", url, headers=own)
                response = self._http.send(request, stream=True)
                try:
                    for name, value in response.headers.items():
                        if name.startswith("x-linked-"):
                            facts[name] = value
                    if response.has_redirect_location:
                        url = str(response.url.join(response.headers["location"]))
                        continue
                    check_status(file.path.name, file.url, response)
                    yield response, facts
                    return
                finally:
                    response.close()
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise DownloadError(
                f"{without_address(error)} ({host_of(file.url)})", "check AUTORESEARCH_MIRROR"
            ) from None
        except httpx.TransportError as error:
            raise Transient(f"{type(error).__name__}: {without_address(error)}") from None
        raise DownloadError(
            f"{host_of(file.url)} redirects without end", "check AUTORESEARCH_MIRROR"
        )

    def _receive(
        self, file: RemoteFile, response: httpx.Response, expected: Expected, have: int
    ) -> None:
        part = _part(file.path)
        self._require_space(file, have, expected.size)
        note = {"size": expected.size, "sha256": expected.sha256, "etag": expected.tag}
        write_json(_about(part), note)
        with open(part, "r+b" if have else "wb") as target:
            target.seek(have)
            target.truncate()
            for block in response.iter_raw():
                if self.stop.is_set():
                    raise _Stopped
                target.write(block)
                have += len(block)
                self._report(file, have, expected.size)

    def _require_space(self, file: RemoteFile, have: int, size: int | None) -> None:
        """Raise DiskFull unless all that is under way fits on the disk."""
        with self._lock:
            self._sizes[file.path] = (have, size)
            under_way = sum(total - done for done, total in self._sizes.values() if total)
        require_space(file.path.parent, under_way)

    def _accept(self, file: RemoteFile, expected: Expected) -> None:
        """Give the file its name if it is as promised. Raises IncompleteShard, CorruptFile."""
        part = _part(file.path)
        size = part.stat().st_size
        if expected.size is not None and size != expected.size:
            if size > expected.size:
                part.unlink()
            raise _incomplete(file, size, expected.size)
        found = sha256_of(part)
        if expected.sha256 is not None and found != expected.sha256:
            part.unlink()
            raise CorruptFile(
                f"{file.path.name} has SHA-256 {found[:12]}… instead of {expected.sha256[:12]}…",
                "try again; if it stays so, the server or AUTORESEARCH_MIRROR holds another file",
            )
        sync(part)
        os.replace(part, file.path)
        write_json(_about(file.path), {"size": size, "sha256": found, "etag": expected.tag})
        _about(part).unlink(missing_ok=True)
        self._report(file, size, size, last=True)

    def _report(self, file: RemoteFile, done: int, total: int | None, last: bool = False) -> None:
        with self._lock:
            self._sizes[file.path] = (done, total)
            now = time.monotonic()
            if not last and now - self._reported < REPORT_SECONDS:
                return
            self._reported = now
            sizes = list(self._sizes.values())
            known = [size for _, size in sizes if size]
            # Files not begun yet count as large as those begun, so that the bar runs evenly.
            mean = sum(known) / len(known) if known else 0.0
            data = {
                "task": "download",
                "file": file.path.name,
                "done": sum(size for size, _ in sizes),
                "total": int(sum(known) + mean * (len(self.files) - len(known))) or None,
                "unit": "bytes",
            }
        self.on_event("preparing", data)


def sha256_of(path: Path) -> str:
    """SHA-256 in hex, with large blocks."""
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(8 * BLOCK):
            state.update(block)
    return state.hexdigest()


def _incomplete(file: RemoteFile, size: int, expected: int | None) -> IncompleteShard:
    return IncompleteShard(
        f"{file.path.name} has {size} bytes instead of {expected}",
        "try again; if it stays so, name another AUTORESEARCH_MIRROR",
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _about(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_note(path: Path) -> dict[str, Any]:
    """What an earlier attempt wrote about the part it left; nothing if it left none."""
    try:
        return read_json(path)
    except (OSError, CorruptFile):
        return {}
