"""What a candidate printed: its log, kept to a size, and the end of it that people are shown."""

from __future__ import annotations

import os
import re
from collections import deque
from pathlib import Path
from typing import BinaryIO

from prepare.runfiles import read_end

LOG_TAIL_LINES = 50
LOG_TAIL_BYTES = 16_000
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def cut_log(log: BinaryIO, kept: int) -> None:
    """Leave the last `kept` bytes of a log, if it is longer, behind a line that says so."""
    try:
        size = os.fstat(log.fileno()).st_size
        if size <= kept:
            return
        with open(log.fileno(), "rb+", closefd=False) as file:
            file.seek(size - kept)
            rest = file.read(kept)
            file.seek(0)
            file.write(b"[%d bytes before this were left out]\n" % (size - kept) + rest)
            file.truncate()
    except OSError:  # a full disk: the log stays as it is
        return


def log_tail(path: Path) -> str:
    """The last 50 lines (16 kB) of a log, without control characters."""
    text = read_end(path, LOG_TAIL_BYTES).decode("utf-8", errors="replace")
    # A progress bar rewrites its line with carriage returns: only its last state is of use.
    lines = deque(
        (line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n")), LOG_TAIL_LINES
    )
    return "\n".join(_CONTROL.sub("", line) for line in lines).strip()
