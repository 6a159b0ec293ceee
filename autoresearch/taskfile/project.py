"""A task file for a project that is there already: a proposal, made from the names of its files.

text, more = proposed_task(folder)      # task.yaml, and files that it needs beside it

Nothing is run or imported, and no file is changed.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from importlib import resources
from pathlib import Path, PurePosixPath

from autoresearch.engine.git import Git
from autoresearch.engine.proposers.base import AGENTS

CONFIGS = ("config", "configs", "conf")
SETTINGS = (".json", ".toml", ".yaml", ".yml")
TRAINS, SCORES = ("train", "finetune", "run", "main"), ("eval", "score", "bench", "test_")
ENVIRONMENTS = (".venv", "venv", "env")
DATA = ("data", "dataset", "datasets", "checkpoints", "pretrained", "weights", "models")
SCORER = "score_run.py"
MOST_ARTIFACTS = 6
_UNUSUAL = re.compile(r"[^A-Za-z0-9._/+-]")
_DEPTH = 3  # folders deep


def proposed_task(folder: Path, task_id: str) -> tuple[str, dict[str, str]]:
    """The text of a task file, and of files to write beside it, by name."""
    files = [name for name in _files(folder) if not _UNUSUAL.search(name)]
    inputs = _inputs(folder)
    files = [name for name in files if not name.startswith(tuple(f"{i}/" for i in inputs))]
    programs = [name for name in files if name.endswith(".py")]
    train = _first(programs, TRAINS)
    score = _first([name for name in programs if name != train], SCORES)
    python = _python(folder, inputs)
    seed = " --seed {seed}" if train and "--seed" in _text(folder / train) else ""
    agent = next((name for name in AGENTS if shutil.which(name)), AGENTS[0])
    source = (folder / "src").is_dir()
    words = {
        "TASK_ID": task_id,
        "ARTIFACTS": json.dumps(_artifacts(files, train)),
        "INPUTS": f"inputs: {json.dumps([f'{i}/' for i in inputs])}" if inputs else "# inputs: []",
        "AGENTS": ", ".join(AGENTS),
        "AGENT": agent,
        "RUNNER": f"{python} {_started(folder, train or 'train.py')}{seed}",
        "ENV": "env: {PYTHONPATH: src}" if source else "# env: {PYTHONPATH: src}",
        "SCORER": f"{python} {score or SCORER} {{output}}",
    }
    templates = resources.files("autoresearch") / "templates" / "task"
    text = (templates / "project.yaml.txt").read_text(encoding="utf-8")
    text = re.sub(r"\b[A-Z]+(_ID)?\b", lambda m: words.get(m[0], m[0]), text)
    if score or (folder / SCORER).exists():
        return text, {}
    return text, {SCORER: (templates / f"{SCORER}.txt").read_text(encoding="utf-8")}


def _files(folder: Path) -> list[str]:
    """What the project's git tracks or would; without git what lies not too deep, sorted."""
    git = Git(folder)
    if git.maybe("rev-parse", "--is-inside-work-tree") == "true":
        named = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        return sorted(name for name in set(named) if name and (folder / name).is_file())
    found = (path for depth in range(_DEPTH) for path in folder.glob("*/" * depth + "*"))
    names = (path.relative_to(folder).as_posix() for path in found if path.is_file())
    return sorted(name for name in names if not name.startswith("."))


def _inputs(folder: Path) -> list[str]:
    """Environments, and folders of data: those that hold no Python."""
    found = [name for name in ENVIRONMENTS if (folder / name / "pyvenv.cfg").is_file()]
    for name in DATA:
        place = folder / name
        code = place.is_dir() and any([*place.glob("*.py"), *place.glob("*/*.py")])
        if place.is_dir() and not code:
            found.append(name)
    return [name for name in found if not (folder / name).is_symlink()]


def _python(folder: Path, inputs: Iterable[str]) -> str:
    for name in inputs:
        for program in ("bin/python", "Scripts/python.exe"):
            if (folder / name / program).exists():
                return f"{name}/{program}"
    return "python"


def _started(folder: Path, program: str) -> str:
    """How Python is told to run it: a module of a package below src/ by its name."""
    parts = PurePosixPath(program).with_suffix("").parts
    package = len(parts) > 2 and parts[0] == "src"
    if package and (folder / "src" / parts[1] / "__init__.py").is_file():
        return f"-m {'.'.join(parts[1:])}"
    return program


def _first(programs: Iterable[str], beginnings: tuple[str, ...]) -> str:
    """The program that lies highest among those whose name begins with the first that fits."""
    ordered = sorted(programs, key=lambda name: (name.count("/"), name))
    for beginning in beginnings:
        for name in ordered:
            if PurePosixPath(name).name.startswith(beginning) and not name.startswith("tests/"):
                return name
    return ""


def _artifacts(files: Iterable[str], train: str) -> list[str]:
    """Settings, what trains, and models; else all Python at the top."""
    found = [train] if train else []
    for name in files:
        path = PurePosixPath(name)
        settings = path.suffix in SETTINGS and path.parts[0] in CONFIGS
        if settings or (path.suffix == ".py" and path.stem.startswith("model")):
            found.append(name)
    return list(dict.fromkeys(found))[:MOST_ARTIFACTS] or ["*.py"]


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")
