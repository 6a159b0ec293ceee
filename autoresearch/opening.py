"""The study that a folder holds: a workspace's or a task file's.

study = open_study(folder)      # tag, task, root, ledger, state, workspace, run_folder(n), now_file
"""

from __future__ import annotations

import re
import shlex
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Union

from autoresearch.engine.task import Event
from autoresearch.engine.workspace import OWN_FOLDER
from autoresearch.study import Options, Study
from prepare.errors import UsageError
from prepare.settings import FILE_NAME, Settings

if TYPE_CHECKING:
    from autoresearch.taskfile.study import TaskStudy

TASK_NAME = "task.yaml"
_SCORER = re.compile(rb"""^[ {"']*scorer["']?\s*:""", re.MULTILINE)
AnyStudy = Union[Study, "TaskStudy"]


def there(folder: Path) -> str:
    """What a command needs to look at the same study: ` --dir FOLDER`, or "" for this folder."""
    return "" if folder == Path(".") else f" --dir {shlex.quote(str(folder))}"


def in_git(folder: Path) -> str:
    """What git needs to work in the same folder: ` -C FOLDER`, or "" for this one."""
    return "" if folder == Path(".") else f" -C {shlex.quote(str(folder))}"


def go_on(folder: Path) -> str:
    """The command that goes on with the study of a folder."""
    if holds_task(folder):
        return f"autoresearch task run {shlex.quote(str(folder))}"
    return f"autoresearch run{there(folder)}"


def open_study(folder: Path, options: Options | None = None) -> AnyStudy:
    """A folder with autoresearch.toml is a workspace, else one with a task file a task.

    Raises what `task_of`, Study.read and TaskStudy.read can raise.
    """
    file = task_of(folder)
    if file is not None:
        from autoresearch.taskfile.study import TaskStudy

        return TaskStudy.read(file)
    return Study.read(folder, options)


def write_study(
    folder: Path,
    options: Options | None = None,
    on_event: Event | None = None,
    refuse_edits: bool = False,
) -> AbstractContextManager[AnyStudy]:
    """The same with its loop, as its one writer. A task takes few of the options, and always
    refuses artifacts that were edited.

    Raises what Study.write and TaskStudy.write can raise.
    """
    file = task_of(folder)
    if file is not None:
        from autoresearch.taskfile.study import TaskStudy

        return TaskStudy.write(file, options, on_event)
    return Study.write(folder, options, on_event, refuse_edits)


def own_folder(folder: Path) -> Path:
    """Where what is ours lies in a workspace or beside a task file. Raises PrepareError, TaskError.

    It is made beside a task file, so that git overlooks it; in a workspace git does already.
    """
    file = task_of(folder)
    if file is None:
        Settings.load(folder)
        return folder / OWN_FOLDER
    from autoresearch.taskfile.repository import make_work_folder
    from autoresearch.taskfile.study import TaskStudy

    work = TaskStudy.read(file).place.work
    make_work_folder(work)
    return work


def holds_task(folder: Path) -> bool:
    """Whether a folder is a task's, and no workspace. Raises UsageError for several tasks."""
    return task_of(folder) is not None


def task_of(folder: Path) -> Path | None:
    """The task file of a folder that is no workspace; of a file itself. Raises UsageError."""
    return None if (folder / FILE_NAME).is_file() else find_task(folder)


def find_task(given: Path) -> Path | None:
    """The task file that a path means: itself, or the folder's task.yaml, or its only other one.

    None where a folder has none. Raises UsageError where it has several and no task.yaml.
    """
    if given.is_file():
        return given
    if (given / TASK_NAME).is_file():
        return given / TASK_NAME
    found = sorted(path for path in given.glob("*.y*ml") if _looks_like_task(path))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UsageError(f"{given} holds several task files: {names}", f"name one: {found[0]}")
    return found[0] if found else None


def _looks_like_task(path: Path) -> bool:
    """A YAML file with the key `scorer`, right or wrong in all else."""
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return False
    with path.open("rb") as file:
        return _SCORER.search(file.read(1_000_000)) is not None
