"""A new workspace: a folder with its files, as a git repository with a first commit.

    make_workspace(Path("my-research"), {"train.py": "...", ...}, message="Start from preset demo")

It never overwrites: a folder that holds anything is refused.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from prepare.errors import EnvironmentProblem, MissingTool, UsageError
from prepare.settings import FILE_NAME

# Author of the first commit where git knows none; passed by -c, so that no config is written.
FALLBACK_IDENTITY = {"user.name": "autoresearch", "user.email": "autoresearch@localhost"}


def make_workspace(folder: Path, files: Mapping[str, str], message: str) -> str:
    """Write `files` (path inside the folder -> text), commit them, return the short hash.

    Raises UsageError when the folder isn't empty, MissingTool without git, EnvironmentProblem when
    git fails.
    """
    check_target(folder)
    git_version()
    folder.mkdir(parents=True, exist_ok=True)
    # The user's init template may carry hooks; an empty one keeps them out of the workspace.
    git(folder, "-c", "init.defaultBranch=main", "init", "--quiet", "--template=")
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    # Line endings stay as written: train.py's bytes are what is hashed, on every system.
    git(folder, "config", "core.autocrlf", "false")
    git(folder, "add", "--force", "--", *files)
    git(
        folder,
        *_identity(folder),
        "-c",
        "commit.gpgSign=false",
        "commit",
        "--quiet",
        "--no-verify",
        "-m",
        message,
    )
    return git(folder, "rev-parse", "--short", "HEAD").strip()


def check_target(folder: Path) -> None:
    """Raises UsageError unless `folder` is missing or an empty folder."""
    if folder.is_file():
        raise UsageError(f"{folder} is a file", "name a new folder")
    if (folder / FILE_NAME).exists():
        raise UsageError(
            f"{folder.resolve()} is already a workspace",
            "name another folder; init never overwrites one",
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(
            f"{folder.resolve()} is not empty",
            "name a new or an empty folder; init never overwrites",
        )


def git_version() -> str:
    """`git version 2.39.5`. Raises MissingTool when there is no git."""
    if shutil.which("git") is None:
        raise MissingTool(
            "git is not installed (or not on PATH)",
            "install git: a workspace is a git repository, so that every kept change has a commit",
        )
    return subprocess.run(
        ["git", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()


def git(folder: Path, *arguments: str) -> str:
    """Run git in `folder` and return its stdout. Raises EnvironmentProblem with git's own words."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        words = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise EnvironmentProblem(
            f"git failed in {folder}: {words}", "mend what git names, then try again"
        )
    return done.stdout


def _identity(folder: Path) -> list[str]:
    arguments = []
    for key, value in FALLBACK_IDENTITY.items():
        known = subprocess.run(["git", "config", key], cwd=folder, capture_output=True, text=True)
        if not known.stdout.strip():
            arguments += ["-c", f"{key}={value}"]
    return arguments
