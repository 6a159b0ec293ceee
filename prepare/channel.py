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
import tempfile
import threading
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MAX_FRAME_BYTES = 4 * 1024 * 1024
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

    def send(self, kind: str, **fields: Any) -> None:
        """Send one message. Raises ChannelClosed if the other side is gone."""
        data = json.dumps({"kind": kind, **fields}).encode()
        frame = memoryview(_HEADER.pack(len(data)) + data)
        try:
            with self._lock:
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
    """The harness's side of a shared array: a file of `size` bytes, opened once, never mapped.

    A candidate that cuts the file off would crash a process that has it mapped; reads and writes
    merely come up short.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._file = path.open("x+b", buffering=0)
        os.truncate(self._file.fileno(), size)

    def write(self, offset: int, array: np.ndarray) -> None:
        """Write all of `array` at `offset` bytes. Raises OSError."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        self._file.seek(offset)
        while data:
            data = data[self._file.write(data) :]

    def read(self, offset: int, size: int) -> np.ndarray:
        """A copy of `size` bytes from `offset` on, as uint8; fewer where the file was cut off."""
        out = np.empty(size, np.uint8)
        view, done = out.data, 0
        self._file.seek(offset)
        while done < size:
            count = self._file.readinto(view[done:])
            if not count:
                break
            done += count
        return out[:done]

    def close(self) -> None:
        """Close it; whoever made its folder removes it."""
        self._file.close()


def shared_array(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The candidate's side: the file at `path`, mapped.

    Args:
        shape: its dimensions. dtype: a NumPy dtype name such as "uint16".
    """
    return np.memmap(path, dtype=np.dtype(dtype), mode="r+", shape=shape)
