"""What tests of the workspace share: a task, an edit, git as the user calls it, what is theirs."""

import subprocess
from pathlib import Path

from autoresearch.engine.change import Change
from autoresearch.engine.task import Task
from autoresearch.engine.workspace import Workspace

SEED = "# seed\nLR = 0.1\n\n\ndef train(model):\n    step = 0\n    return step + LR\n"


def make_task(**more) -> Task:
    base = {
        "id": "t",
        "artifacts": {"include": ["train.py", "lib/**"]},
        "objective": {"metric": "val_bpb"},
    }
    return Task.parse({**base, **more})


TASK = make_task()
OPEN = make_task(mutation={"allow_new_files": True, "allow_delete": True})


def git(root: Path, *arguments: str) -> str:
    settings = ["core.hooksPath=/nowhere", "user.name=U", "user.email=u@x", "commit.gpgsign=false"]
    flags = [part for item in settings for part in ("-c", item)]
    done = subprocess.run(
        ["git", *flags, *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def edit(folder: Path, old: str = "0.1", new: str = "0.2") -> None:
    file = folder / "train.py"
    file.write_bytes(file.read_bytes().replace(old.encode(), new.encode()))


def edited(workspace: Workspace, trial_id: int, old: str = "0.1", new: str = "0.2") -> Change:
    scratch = workspace.scratch(trial_id)
    edit(scratch, old, new)
    change = workspace.collect(scratch, TASK)
    workspace.drop(scratch)
    return change


def snapshot(root: Path) -> dict[str, object]:
    """All that is the user's: files, index, HEAD, branches, settings, hooks."""
    files = {
        str(p.relative_to(root)): p.read_bytes()
        for p in root.rglob("*")
        if p.is_file() and p.relative_to(root).parts[0] not in (".git", ".autoresearch")
    }
    own = root / ".git"
    steering = [own / "config", own / "HEAD", own / "index", *sorted((own / "hooks").iterdir())]
    branches = git(root, "for-each-ref", "refs/heads/main", "refs/heads/other", "refs/tags")
    return {
        "files": files,
        "git": {str(place): place.read_bytes() for place in steering},
        "branches": branches,
    }
