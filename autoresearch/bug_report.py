"""A bug report in Markdown, with nothing private in it: `autoresearch doctor --report`.

    text = bug_report(folder, "auto")

What the application's last error was is kept in the cache (`remember`), so that the report of the
day after still has it.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from autoresearch.engine.proposers.text import last_lines
from autoresearch.private import SECRET_NAME, SHORTEST_NAME, Private
from backends.errors import BackendError
from prepare.cache import cache_root, read_json
from prepare.errors import PrepareError

LAST_ERROR = "last-error.json"
# Names in a path that tell nothing of whose it is, and stand in every traceback.
OURS = frozenset(
    {"autoresearch", "backends", "prepare", "commands", "engine", "train.py", "task.yaml"}
)
PACKAGES = (
    "autoresearch",
    "torch",
    "triton",
    "triton-rocm",
    "mlx",
    "numpy",
    "safetensors",
    "kernels",
    "flash-attn",
    "optuna",
    "pydantic",
    "click",
    "rich",
    "pyarrow",
    "mcp",
    "openai",
)
# Variables of others that change what runs.
HEARD = ("CUDA_", "HIP_", "ROCR_", "HSA_", "PYTORCH_", "TORCH", "TRITON_", "OMP_", "MLX_", "NCCL_")
FIRST_LINE = (
    "Read this before you send it. Names, folders, addresses and tokens were taken out, as far as "
    "a program can tell."
)


def bug_report(folder: Path, backend: str | None) -> str:
    """The report, about the workspace in `folder` too if it is one."""
    from autoresearch.diagnosis import diagnose

    parts = [f"<!-- {FIRST_LINE} -->", _table("Versions", _versions())]
    try:
        found: dict[str, Any] = diagnose(backend)
    except (BackendError, PrepareError) as error:
        parts.append(f"## Hardware\n\nnot told: {error.message} ({error.hint})")
    else:
        parts += _hardware(found)
    parts.append(_table("Environment", _variables()))
    parts += _workspace(folder)
    parts.append(_last_error())
    hide = Private.of_this_machine(folder)
    return hide("\n\n".join(part for part in parts if part)) + "\n"


def _table(title: str, rows: Any) -> str:
    """A heading and a table of two columns, "" without a row."""
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *lines]) if lines else ""


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _versions() -> Iterator[tuple[str, str]]:
    yield "system", f"{platform.system()} {platform.release()} {platform.machine()}"
    yield "python", f"{platform.python_implementation()} {sys.version.split()[0]}"
    for name in PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _hardware(found: dict[str, Any]) -> list[str]:
    """What was found, what will be used and why, what was measured, and what is wrong."""
    policy, reasons = found["policy"], found["policy"].get("reasons", {})
    left_out = ("reasons", "environment", "probe_shape")
    chosen = [
        (name, f"{value} ({reasons[name]})" if name in reasons else value)
        for name, value in policy.items()
        if name not in left_out
    ]
    probes = [(name, json.dumps(value, default=str)) for name, value in found["probes"].items()]
    passed = [
        (miss["backend"], f"{miss['reason']} {miss['hint']}") for miss in found["passed_over"]
    ]
    peak = found["peak_flops"]
    hardware = [*found["hardware"].items(), ("peak", peak and f"{peak['value']:.4g} FLOPS")]
    checks = [
        (check["name"], f"{'ok' if check['ok'] else 'WRONG'}: {check['says']}")
        for check in found["checks"]
    ]
    return [
        _table("Hardware", hardware),
        _table("Passed over", passed),
        _table("Policy", chosen),
        _table("Probes", probes),
        _table("Checks", checks),
    ]


def _variables() -> Iterator[tuple[str, str]]:
    """Variables that change what runs; one that could be secret is told as set."""
    from autoresearch.configuration import VARIABLES, without_credentials

    ours = {variable.name for variable in VARIABLES}
    for name, value in sorted(os.environ.items()):
        if name in ours or name.startswith(("AUTORESEARCH_", *HEARD)):
            shown = without_credentials(value) if "://" in value else value
            yield name, "set" if SECRET_NAME.search(name) else shown


def _workspace(folder: Path) -> list[str]:
    """Settings other than by default, how trials ended, and the last that failed."""
    from autoresearch.configuration import DEFAULT, configuration
    from autoresearch.engine.errors import EngineError
    from autoresearch.opening import open_study, task_of
    from autoresearch.standing import counts
    from prepare.settings import FILE_NAME

    try:
        rows: list[tuple[str, Any]] = []
        if (folder / FILE_NAME).is_file():
            settings = configuration(folder, {})
            rows = [(s.name, s.value) for s in settings if "." in s.name and s.source != DEFAULT]
        elif task_of(folder) is None:
            return []
        state = open_study(folder).state
    except (EngineError, PrepareError) as error:
        return [f"## Workspace\n\nnot told: {error.message} ({error.hint})"]
    ended = ", ".join(f"{number} {name}" for name, number in counts(state).items()) or "no trial"
    parts = [_table("Workspace", [*rows, ("trials", ended)])]
    failures = [
        (trial, run.failure)
        for trial in state.trials.values()
        for run in trial.replicates
        if run.failure is not None and str(trial.status) == "crash"
    ]
    if failures:
        trial, failure = failures[-1]
        words = f"trial {trial.id}: {failure.phase}: {failure.kind}: {failure.message}"
        log = last_lines(failure.log_tail, 15, 3_000)
        parts.append(_block("Last trial that crashed", words, log))
    return parts


def _block(title: str, words: str, text: str) -> str:
    """A heading, a line, and text as it is."""
    body = f"\n\n```text\n{text.replace('```', '``')}\n```" if text.strip() else ""
    return f"## {title}\n\n{words}{body}"


# -- the last error ------------------------------------------------------------------------------


def remember(command: str, error: BaseException, exit_code: int, typed: Sequence[str] = ()) -> None:
    """Keep an error for the next report; without a cache that can be written, none is kept.

    typed: the words of the call. Messages repeat folders that they name, and those are taken out.
    """
    place = cache_root()
    if not place.is_dir():
        return
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    document = {
        "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "exit_code": exit_code,
        "message": without_names(f"{type(error).__name__}: {error}"[:2_000], typed),
        "traceback": without_names("".join(lines)[-20_000:], typed),
    }
    try:
        (place / LAST_ERROR).write_text(json.dumps(document, indent=1), encoding="utf-8")
    except OSError:
        return


def without_names(text: str, typed: Sequence[str]) -> str:
    """The text without what relative paths among these words name; `Private` knows absolute ones.

    A path has a separator, or is there, or stands behind `--dir`.
    """
    names: set[str] = set()
    for before, word in zip(["", *typed], typed, strict=False):
        option, _, path = word.partition("=") if word.startswith("--") else (before, "", word)
        relative = bool(path) and not Path(path).is_absolute()
        if relative and (option == "--dir" or re.search(r"[\\/]", path) or os.path.exists(path)):
            names.update(re.split(r"[\\/]", path))
    for name in sorted(names - OURS, key=len, reverse=True):
        if len(name) < SHORTEST_NAME:
            continue
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "<path>", text)
    return text


def _last_error() -> str:
    try:
        error = read_json(cache_root() / LAST_ERROR)
    except (OSError, PrepareError):
        return "## Last error\n\nnone is known"
    where = f"`autoresearch {error.get('command')}`, {error.get('at')}"
    words = f"{where}, exit code {error.get('exit_code')}: {error.get('message')}"
    return _block("Last error", words, str(error.get("traceback", "")))
