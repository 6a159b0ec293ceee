"""A new task that runs at once: a text, a scorer, and a program that edits.

make_task(Path("my-task"))
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from autoresearch.engine.errors import TaskError

TEMPLATES = ("task.yaml", "artifact.md", "score.py", "mutate.py")


def make_task(folder: Path) -> list[str]:
    """Write a task into a new or empty folder; the names of its files. Raises TaskError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TaskError(f"{folder} is not empty", "name a new folder")
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name).strip("-_") or "task"
    folder.mkdir(parents=True, exist_ok=True)
    source = resources.files("autoresearch") / "templates" / "task"
    for file in TEMPLATES:
        text = (source / f"{file}.txt").read_text(encoding="utf-8")
        (folder / file).write_text(text.replace("TASK_ID", name), encoding="utf-8", newline="\n")
    (folder / ".gitignore").write_text("work/\n", encoding="utf-8")
    return [*TEMPLATES, ".gitignore"]
