"""Messages between the harness and a candidate process: JSON in length-prefixed frames.

The other side runs code that nobody vouches for, so a frame is bounded, must be a JSON object
with a `kind`, and anything else is a ProtocolError. Arrays travel in files: mapped by the
candidate (`shared_array`), read and written by the harness (`SharedFile`).
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import tempfile
import threading
from collections import deque
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil

MAX_FRAME_BYTES = 4 * 1024 * 1024
MEMORY_MARGIN = 4  # shared memory must fit this many times into what is available
# What logits may travel as; bfloat16 goes as its bit pattern.
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_HEADER = struct.Struct(">I")


class ChannelClosed(Exception):
    """The other side is gone."""


class ProtocolError(Exception):
    """The other side sent something that is no message of ours."""


class Channel:
    """Send and receive messages over two byte streams. Sending is safe from several threads."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()

    def send(self, kind: str, **fields: Any) -> None:
        """Send one message. Raises ChannelClosed if the other side is gone."""
        self._waiting.append(_frame(kind, fields))
        with self._lock:
            self._flush()

    def send_soon(self, kind: str, **fields: Any) -> None:
        """Send one message now, or with the next one when one is being sent already.

        For callbacks that Python may run in the middle of `send`. Raises ChannelClosed.
        """
        self._waiting.append(_frame(kind, fields))
        if self._lock.acquire(blocking=False):
            try:
                self._flush()
            finally:
                self._lock.release()

    def _flush(self) -> None:
        try:
            while self._waiting:
                frame = memoryview(self._waiting.popleft())
                while frame:  # an unbuffered pipe may take a part only
                    frame = frame[self._writer.write(frame) :]
            self._writer.flush()
        except (OSError, ValueError) as error:
            raise ChannelClosed(str(error)) from error

    def receive(self) -> dict[str, Any]:
        """Wait for one message. Raises ChannelClosed at the end, ProtocolError on nonsense."""
        (size,) = _HEADER.unpack(self._read(_HEADER.size))
        if size > MAX_FRAME_BYTES:
            raise ProtocolError(f"a frame of {size} bytes; at most {MAX_FRAME_BYTES} are allowed")
        try:
            message = json.loads(self._read(size))
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"a frame that is not JSON: {error}") from error
        if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
            raise ProtocolError("a frame that is not a message")
        return message

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            try:
                part = self._reader.read(size)
            except (OSError, ValueError) as error:
                raise ChannelClosed(str(error)) from error
            if not part:
                raise ChannelClosed("end of stream")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _frame(kind: str, fields: dict[str, Any]) -> bytes:
    data = json.dumps({"kind": kind, **fields}).encode()
    return _HEADER.pack(len(data)) + data


def scratch_folder(need_bytes: int) -> Path:
    """A new folder for shared arrays: in memory where `need_bytes` fit four times, else on disk.

    Containers often give /dev/shm 64 MiB only, hence the check.
    """
    memory = Path("/dev/shm")
    parent = None
    if memory.is_dir() and os.access(memory, os.W_OK):
        parent = memory if shutil.disk_usage(memory).free > 4 * need_bytes else None
    return Path(tempfile.mkdtemp(prefix="autoresearch-", dir=parent))


class SharedFile:
    """The harness's side of a shared array: `size` bytes, opened once, never mapped.

    A candidate that cuts a file off would crash a process that has it mapped; reads and writes
    merely come up short. On Linux it is memory without a name, of a sealed size, that the process
    inherits as an open file: no path leads to it. Elsewhere it is a file.
    """

    def __init__(self, size: int) -> None:
        """It must exist before the process that is to see it starts. Raises OSError."""
        self._folder: Path | None = None
        file = _sealed_memory(size)
        if file is None:
            self._folder = scratch_folder(size)
            file = (self._folder / "array").open("x+b", buffering=0)
            os.truncate(file.fileno(), size)
        self._file = file
        self.size = size

    @property
    def handles(self) -> tuple[int, ...]:
        """Open files that the candidate process must inherit."""
        return () if self._folder else (self._file.fileno(),)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files that the candidate process must be able to write."""
        return (self._folder / "array",) if self._folder else ()

    @property
    def address(self) -> dict[str, Any]:
        """What `shared_array` needs to find it."""
        return {"path": str(self.paths[0])} if self._folder else {"handle": self._file.fileno()}

    def write(self, offset: int, array: np.ndarray) -> None:
        """Write all of `array` at `offset` bytes. Raises OSError."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        while data:
            count = _write_at(self._file, data, offset)
            data, offset = data[count:], offset + count

    def read(self, offset: int, size: int) -> np.ndarray:
        """A copy of `size` bytes from `offset` on, as uint8; fewer where the file was cut off."""
        out = np.empty(size, np.uint8)
        view, done = out.data, 0
        while done < size:
            count = _read_at(self._file, view[done:], offset + done)
            if not count:
                break
            done += count
        return out[:done]

    def close(self) -> None:
        """Give it back."""
        self._file.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


# An inherited file shares its position with the candidate, which moves it when it maps the file: a
# seek and a write after it would race. Where there are no positioned calls, no file is inherited.


def _write_at(file: FileIO, data: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(file.fileno(), data, offset)
    file.seek(offset)
    return file.write(data)


def _read_at(file: FileIO, into: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(file.fileno(), [into], offset)
    file.seek(offset)
    return file.readinto(into) or 0


def _sealed_memory(size: int) -> FileIO | None:
    """Memory that can be made neither shorter nor longer; None where there is no such thing."""
    if sys.platform != "linux" or psutil.virtual_memory().available < MEMORY_MARGIN * size:
        return None
    import fcntl

    try:
        memory = os.memfd_create("autoresearch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:  # forbidden in this container
        return None
    os.truncate(memory, size)
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
    return FileIO(memory, "r+b")


def shared_array(address: dict[str, Any], shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The candidate's side: the start of what is at `address`, mapped.

    Args:
        shape: its dimensions. dtype: a NumPy dtype name such as "uint16".
    """
    if "path" in address:
        return np.memmap(address["path"], dtype=np.dtype(dtype), mode="r+", shape=shape)
    with FileIO(int(address["handle"]), "r+b", closefd=False) as file:
        return np.memmap(file, dtype=np.dtype(dtype), mode="r+", shape=shape)
