"""The study that a folder holds: a workspace's or a task file's.

study = open_study(folder)      # tag, task, root, ledger, state, workspace, run_folder(n), now_file
"""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Union

from autoresearch.engine.task import Event
from autoresearch.engine.workspace import OWN_FOLDER
from autoresearch.study import Options, Study
from prepare.settings import FILE_NAME, Settings

if TYPE_CHECKING:
    from autoresearch.taskfile.study import TaskStudy

TASK_NAME = "task.yaml"
AnyStudy = Union[Study, "TaskStudy"]


def there(folder: Path) -> str:
    """What a command needs to look at the same study: ` --dir FOLDER`, or "" for this folder."""
    return "" if folder == Path(".") else f" --dir {shlex.quote(str(folder))}"


def go_on(folder: Path) -> str:
    """The command that goes on with the study of a folder."""
    if holds_task(folder):
        return f"autoresearch task run {shlex.quote(str(folder))}"
    return f"autoresearch run{there(folder)}"


def open_study(folder: Path) -> AnyStudy:
    """A folder with autoresearch.toml is a workspace, else one with task.yaml a task.

    Raises what Study.read and TaskStudy.read can raise.
    """
    if holds_task(folder):
        from autoresearch.taskfile.study import TaskStudy

        return TaskStudy.read(folder / TASK_NAME)
    return Study.read(folder)


def write_study(
    folder: Path, options: Options | None = None, on_event: Event | None = None
) -> AbstractContextManager[AnyStudy]:
    """The same with its loop, as its one writer. Of a task only the sandbox is an option.

    Raises what Study.write and TaskStudy.write can raise.
    """
    if holds_task(folder):
        from autoresearch.taskfile.study import TaskStudy

        sandbox = "auto" if options is None else options.sandbox
        return TaskStudy.write(folder / TASK_NAME, sandbox, on_event)
    return Study.write(folder, options, on_event)


def own_folder(folder: Path) -> Path:
    """Where what is ours lies in a workspace or beside a task file. Raises PrepareError, TaskError.

    It is made beside a task file, so that git overlooks it; in a workspace git does already.
    """
    if not holds_task(folder):
        Settings.load(folder)
        return folder / OWN_FOLDER
    from autoresearch.taskfile.repository import make_work_folder
    from autoresearch.taskfile.study import TaskStudy

    work = TaskStudy.read(folder / TASK_NAME).place.work
    make_work_folder(work)
    return work


def holds_task(folder: Path) -> bool:
    """Whether a folder is a task's, and no workspace."""
    return (folder / TASK_NAME).is_file() and not (folder / FILE_NAME).is_file()
