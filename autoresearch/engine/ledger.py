"""The ledger: `results.jsonl`, one record a line, appended, synced, chained by hashes.

    with Ledger(workspace / "results.jsonl") as ledger:     # the one writer, until the block ends
        ledger.append({"kind": "study", "task": "pretraining"})
        ledger.append_trial(trial)
    Ledger(path).trials()                                   # anyone may read at any time

It is the truth. `append` returns only when the record is on disk. A kill at any instant leaves
either the whole record or a torn last line, which the next writer sets aside in
`results.jsonl.torn`. Damage anywhere else is reported by `verify` and refuses further writing.
Order is the order of lines, not of clocks.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autoresearch.engine.chain import Chain, Problem, canonical, read_chain, seal
from autoresearch.engine.errors import (
    LedgerDamaged,
    LedgerError,
    LedgerUnwritable,
)
from autoresearch.engine.holder import Claim
from autoresearch.engine.trial import Trial, TrialStatus

# What the ledger itself puts into a record of kind "trial", beside the trial's own fields.
ENVELOPE = ("kind", "seq", "prev", "hash")
_CHANGED_HINT = "run `autoresearch verify`, then start again"
_TSV_COLUMNS = ("commit", "val_bpb", "memory_gb", "status", "description")
# Upstream knows three words; what we say more exactly is for it a discard or a crash.
_TSV_STATUS = {
    TrialStatus.REJECTED: "crash",
    TrialStatus.PRUNED: "discard",
    TrialStatus.NOISY: "discard",
}


class Ledger:
    """Append-only records in `path`. Reading takes no lock; writing takes it for a `with` block."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._claim = Claim(self.path)
        self._mutex = threading.RLock()
        self._fd: int | None = None
        self._end = 0
        self._seq = 0
        self._head = ""
        self._trial_ids: set[int] = set()
        self._unsynced = False  # records were written since the disk was last waited for
        # What was read and verified so far: the next reading goes on behind it.
        self._known: Chain = read_chain(b"")
        self._known_file: tuple[int, int] | None = None

    # -- reading ---------------------------------------------------------------------------------

    def records(self, kind: str | None = None) -> list[dict[str, Any]]:
        """All records in order, or those of one kind. A torn last line is left out.

        Lines that this object has read before are neither read nor verified again; the records
        are shared, so don't change them. Raises LedgerDamaged if the chain is broken before its
        end, LedgerUnwritable if the file can't be read.
        """
        chain = self._go_on_reading()
        if any(problem.fatal for problem in chain.problems):
            chain = self._read()  # another ledger may stand in its place
        self._refuse_damage(chain)
        return [r for r in chain.records if kind is None or r.get("kind") == kind]

    def trials(self) -> list[Trial]:
        """The trials in order. Raises LedgerDamaged, RecordError."""
        return [_trial(record) for record in self.records("trial")]

    def verify(self) -> list[Problem]:
        """What is wrong with the chain; empty if all is well. Never raises for what it finds."""
        chain = self._read()
        problems = list(chain.problems)
        seen: set[int] = set()
        for number, record in enumerate(chain.records, 1):
            if record.get("kind") != "trial":
                continue
            if record.get("id") in seen:
                text = f"trial {record['id']} is recorded a second time"
                problems.append(Problem(number, "duplicate", text))
            seen.add(record.get("id", -1))
        return problems

    # -- writing ---------------------------------------------------------------------------------

    def __enter__(self) -> Ledger:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Become the writer; a torn last line is set aside first.

        Raises LedgerBusy naming the other writer, LedgerDamaged, LedgerUnwritable.
        """
        if self._fd is not None:
            return
        self._claim.acquire()
        try:
            self._fd = self._open_file()
            chain = self._read()
            self._refuse_damage(chain)
            self._mend(chain)
            self._go_on_from(chain)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop being the writer. Harmless if it isn't one."""
        try:
            if self._fd is not None:
                self.sync()
                os.close(self._fd)
        finally:
            self._fd = None
            self._claim.release()

    def append(self, record: Mapping[str, Any], synced: bool = True) -> dict[str, Any]:
        """Write one record and return it with `seq`, `prev` and `hash`, once it is on disk.

        Without `synced` it outlives this process at once, and a power cut from the next `sync` or
        synced record on. Takes the lock for this one record if it isn't held. Raises LedgerBusy,
        LedgerDamaged, LedgerUnwritable (the ledger is as it was before), LedgerError for what
        isn't a record.
        """
        with self._mutex:
            if self._fd is not None:
                return self._append(record, synced)
            with self:
                return self._append(record)

    def sync(self) -> None:
        """Return when every record that was written would survive a power cut."""
        with self._mutex:
            if self._fd is None or not self._unsynced:
                return
            try:
                os.fsync(self._fd)
            except OSError as error:
                raise _unwritable(self.path, error) from error
            self._unsynced = False

    def _append(self, record: Mapping[str, Any], synced: bool = True) -> dict[str, Any]:
        self._refuse_changed()
        if not isinstance(record.get("kind"), str):
            raise LedgerError("a record needs a field 'kind' that says what it is")
        if record["kind"] == "trial" and record.get("id") in self._trial_ids:
            raise LedgerError(f"trial {record['id']} is in the ledger already")
        sealed = seal(record, self._seq, self._head)
        line = canonical(sealed) + b"\n"
        self._write(line, synced)
        self._end += len(line)
        self._seq, self._head = self._seq + 1, sealed["hash"]
        if record["kind"] == "trial":
            self._trial_ids.add(record["id"])
        return sealed

    def append_trial(self, trial: Trial, synced: bool = True) -> dict[str, Any]:
        """Write one trial; see `append`. A trial id is written at most once."""
        return self.append({"kind": "trial", **trial.to_dict()}, synced)

    # -- the file --------------------------------------------------------------------------------

    def _read(self) -> Chain:
        """The whole file, verified from its first line."""
        self._known, self._known_file = read_chain(b""), None
        return self._go_on_reading()

    def _go_on_reading(self) -> Chain:
        """What is known of the file, and what was appended since."""
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                same = self._known_file == (stat.st_dev, stat.st_ino)
                known = self._known if same else read_chain(b"")
                if stat.st_size < known.end:
                    known = read_chain(b"")
                file.seek(known.end)
                chain = read_chain(file.read(), known)
        except FileNotFoundError:
            return read_chain(b"")
        except OSError as error:
            raise LedgerUnwritable(
                f"can't read {self.path}: {error.strerror or error}", "check its permissions"
            ) from error
        if not chain.problems and not chain.unfinished:
            self._known, self._known_file = chain, (stat.st_dev, stat.st_ino)
        return chain

    def _refuse_damage(self, chain: Chain) -> None:
        fatal = [problem for problem in chain.problems if problem.fatal]
        if fatal:
            raise LedgerDamaged(
                f"{self.path}: {fatal[0]}",
                "restore the file from a backup, or move it aside to begin a new study; the "
                f"{len(chain.records)} records before that line are good",
            )

    def _open_file(self) -> int:
        """Open for appending; a new file's folder entry is synced too."""
        flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            try:
                return os.open(self.path, flags)
            except FileNotFoundError:
                fd = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o644)
            sync_folder(self.path.parent)
            return fd
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _mend(self, chain: Chain) -> None:
        """Set a torn tail aside; give a good last line the newline that it lacks."""
        assert self._fd is not None
        self._end = chain.end
        try:
            if chain.tail:
                torn = self.path.with_name(self.path.name + ".torn")
                with torn.open("ab") as aside:
                    aside.write(chain.tail + b"\n")
                    aside.flush()
                    os.fsync(aside.fileno())
                os.ftruncate(self._fd, chain.end)
                os.fsync(self._fd)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        if chain.unfinished:
            self._write(b"\n")
            self._end += 1

    def _go_on_from(self, chain: Chain) -> None:
        """Continue behind the last good record."""
        self._seq, self._head = len(chain.records), chain.head
        self._trial_ids = {r["id"] for r in chain.records if r.get("kind") == "trial"}

    def _refuse_changed(self) -> None:
        """Nobody else writes while we hold the lock; if the file says otherwise, look closely."""
        assert self._fd is not None
        ours = os.fstat(self._fd)
        try:
            named = os.stat(self.path)
        except OSError as error:
            raise LedgerDamaged(f"{self.path} is gone: {error.strerror}", _CHANGED_HINT) from error
        same_file = (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)
        if same_file and ours.st_size == self._end:
            return
        # An interrupt can hit between the sync and our own count: then the record is there, whole.
        chain = self._read()
        known = self._seq == 0 or (
            len(chain.records) >= self._seq and chain.records[self._seq - 1]["hash"] == self._head
        )
        if not same_file or not known or chain.problems:
            text = f"{self.path} was changed by another program while this one was writing it"
            raise LedgerDamaged(text, _CHANGED_HINT)
        self._end = chain.end
        self._go_on_from(chain)

    def _write(self, data: bytes, synced: bool = True) -> None:
        """All of `data` in the file (on disk), or the file as before and LedgerUnwritable."""
        assert self._fd is not None
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            if synced:
                os.fsync(self._fd)
            self._unsynced = not synced
        except BaseException as error:
            # Also for Ctrl-C between two writes: half a line must not stay while we go on.
            self._cut_back()
            if isinstance(error, OSError):
                raise _unwritable(self.path, error) from error
            raise

    def _cut_back(self) -> None:
        assert self._fd is not None
        try:
            os.ftruncate(self._fd, self._end)
            os.fsync(self._fd)
        except OSError:
            # The next writer sets the torn line aside. This one must not append behind it.
            self.close()


def _unwritable(path: Path, error: OSError) -> LedgerUnwritable:
    """The typed error, with what to do about this errno."""
    hints = {
        errno.ENOSPC: "free some disk, then start again",
        errno.EDQUOT: "your quota is used up: free some disk, then start again",
        errno.EFBIG: "the file size limit (ulimit -f) is reached: raise it, then start again",
        errno.EROFS: "the file system is read-only: work on one that can be written",
        errno.EACCES: "you lack the permission to write there",
        errno.EPERM: "you lack the permission to write there",
    }
    hint = hints.get(error.errno or 0, "check the disk, then start again")
    text = f"can't write {path}: {error.strerror or error}; what was recorded is intact"
    if error.errno == errno.ENOSPC:
        text += f" ({_free_bytes(path)} bytes free)"
    return LedgerUnwritable(text, hint)


def _free_bytes(path: Path) -> int | str:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return "unknown"


def sync_folder(folder: Path) -> None:
    """Make a new name in `folder` survive a power cut, where the system can."""
    if os.name == "nt":
        return  # NTFS journals names; folders can't be opened
    fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that can't
            raise
    finally:
        os.close(fd)


def _trial(record: Mapping[str, Any]) -> Trial:
    """The trial of a record of kind "trial"."""
    return Trial.from_dict({key: item for key, item in record.items() if key not in ENVELOPE})


def export_tsv(trials: Iterable[Trial]) -> str:
    """Upstream's five columns, tab separated: commit, val_bpb, memory_gb, status, description.

    As there, a trial without a score has 0.000000 and 0.0, commits are cut to 7 characters.
    """
    rows = ["\t".join(_TSV_COLUMNS)]
    for trial in trials:
        memory_gb = trial.metrics.get("peak_memory_mb", 0.0) / 1024
        status = _TSV_STATUS.get(trial.status, str(trial.status))
        rows.append(
            "\t".join(
                (
                    (trial.commit or "")[:7] or "-" * 7,
                    f"{0.0 if trial.score is None else trial.score:.6f}",
                    f"{memory_gb:.1f}",
                    status,
                    " ".join(trial.description.split()),
                )
            )
        )
    return "\n".join(rows) + "\n"
