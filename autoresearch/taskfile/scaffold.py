"""A new task: one that runs at once, or one proposed for a project that is there already.

make_task(Path("my-task"))      # a text, a scorer, and a program that edits
make_task(Path("."))            # in a folder with files: a task.yaml beside them, to be completed
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from autoresearch.engine.errors import TaskError
from autoresearch.taskfile.project import proposed_task

FILE_NAME = "task.yaml"
TEMPLATES = (FILE_NAME, "artifact.md", "score.py", "mutate.py")


def make_task(folder: Path) -> list[str]:
    """Write a task into a folder; the names of its new files. No file is overwritten.

    Raises TaskError where there is one already, or no folder can be.
    """
    if folder.exists() and not folder.is_dir():
        raise TaskError(f"{folder} is a file", "name a folder")
    if (folder / FILE_NAME).exists():
        raise TaskError(f"{folder / FILE_NAME} is there already", "edit it, or name another folder")
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name).strip("-_") or "task"
    folder.mkdir(parents=True, exist_ok=True)
    if has_project(folder):
        text, more = proposed_task(folder.resolve(), name)
        texts = {FILE_NAME: text, **more}
    else:
        source = resources.files("autoresearch") / "templates" / "task"
        texts = {file: (source / f"{file}.txt").read_text(encoding="utf-8") for file in TEMPLATES}
        texts = {file: text.replace("TASK_ID", name) for file, text in texts.items()}
        if not (folder / ".gitignore").exists():
            texts[".gitignore"] = "work/\n"
    for file, text in texts.items():
        with (folder / file).open("x", encoding="utf-8", newline="\n") as opened:
            opened.write(text)
    return list(texts)


def has_project(folder: Path) -> bool:
    """Are there files beside git's own?"""
    own = {".git", ".gitignore", ".gitattributes", "README.md", "LICENSE"}
    return folder.is_dir() and any(place.name not in own for place in folder.iterdir())
