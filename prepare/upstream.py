"""Scripts in the style of karpathy/autoresearch: they train, score themselves and print.

They run as they are, and their records say `verified: false`: the number is the script's own
word. What they import from `prepare` is in `prepare.upstream_api`.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from prepare.errors import UsageError
from prepare.orphans import MARK_VARIABLE, Guard, kill_marked
from prepare.outcome import Failure, Outcome, Result
from prepare.process import (
    SLICE,
    child_environment,
    describe_exit,
    kill_tree,
    log_tail,
)
from prepare.runfiles import create, read_end
from prepare.settings import Settings
from prepare.watch import Bounds

if TYPE_CHECKING:
    from prepare.training import EventSink

NAMES = ("MAX_SEQ_LEN", "TIME_BUDGET", "Tokenizer", "make_dataloader", "evaluate_bpb")
SETTINGS_VARIABLE = "AUTORESEARCH_SETTINGS"
# Upstream's rule: a run that takes twice its budget is hopeless. Start-up and scoring come on top.
SLOWEST = 2.0
SUMMARY_BYTES = 1 << 20  # the summary comes last
_SUMMARY = re.compile(r"^(\w+):\s+([-+0-9.eE]+|nan|inf)\s*$", re.MULTILINE)


def style_of(script: Path) -> Literal["module", "upstream"] | Failure:
    """Which contract a script follows, read from its text; nothing of it is executed.

    Returns a Failure for a script that isn't Python or follows neither.
    """
    source = script.read_bytes()
    try:
        tree = ast.parse(source, filename=str(script))
    except (RecursionError, MemoryError):
        return Failure("import", "syntax_error", f"{script.name}: nested too deeply to be parsed")
    except (SyntaxError, ValueError) as error:
        where = f"{script.name}, line {getattr(error, 'lineno', None) or '?'}"
        detail = getattr(error, "msg", None) or str(error)
        text = (getattr(error, "text", None) or "").strip()
        message = f"{where}: {detail}" + (f": {text}" if text else "")
        return Failure("import", "syntax_error", message)
    names = set(_top_level_names(tree))
    if {"build_model", "train"} <= names:
        return "module"
    if _imports_upstream_names(tree):
        return "upstream"
    missing = " and ".join(f"{name}()" for name in ("build_model", "train") if name not in names)
    return Failure(
        "import", "import_error", f"{script.name} defines no {missing}: see program.md's contract"
    )


def _top_level_names(tree: ast.Module) -> list[str]:
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names.extend(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.extend(alias.asname or alias.name for alias in node.names)
    return names


def _imports_upstream_names(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == "prepare"
        and {alias.name for alias in node.names} & set(NAMES)
        for node in ast.walk(tree)
    )


def run_script(
    script: Path,
    settings: Settings,
    folder: Path,
    environment: Mapping[str, str],
    emit: EventSink,
) -> Outcome:
    """Run an upstream-style script to its end and read the summary it prints, unverified.

    Raises UsageError where several devices are to train one model.
    """
    if settings.devices > 1:
        raise UsageError(
            f"devices = {settings.devices}, and an upstream-style script trains on one",
            "set `devices = 1` in autoresearch.toml, or write it as a train module",
        )
    emit("phase", {"phase": "training"})
    emit("warning", {"message": "an upstream-style script scores itself: verified is false"})
    log = folder / "train.log"
    started = time.monotonic()
    limit = SLOWEST * settings.time_budget + settings.startup_timeout + settings.score_timeout
    with create(log) as output, Guard() as guard:
        extra = {SETTINGS_VARIABLE: json.dumps(settings.model_dump()), MARK_VARIABLE: guard.mark}
        process = subprocess.Popen(
            [sys.executable, str(script.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=child_environment({**environment, **extra}),
            start_new_session=os.name == "posix",
        )
        try:
            stopped = _watch(process, output, limit)
        finally:
            kill_tree(process.pid)
            process.wait()
            kill_marked(guard.mark)
    seconds = time.monotonic() - started
    if stopped is not None:
        return Failure("training", *stopped, log_tail(log), run_dir=str(folder))
    code = process.returncode
    if code != 0:
        kind = "killed" if code < 0 else "exception"
        return Failure("training", kind, describe_exit(code), log_tail(log), run_dir=str(folder))
    return _read_summary(log, settings, seconds, folder)


def _watch(
    process: subprocess.Popen[bytes], output: BinaryIO, limit: float
) -> tuple[str, str] | None:
    """Wait for the script; (kind, message) if it ran too long or wrote too much."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        try:
            process.wait(timeout=SLICE)
            return None
        except subprocess.TimeoutExpired:
            if os.fstat(output.fileno()).st_size > Bounds().log_bytes:
                return "invalid_output", "the script floods its log"
    return "timeout", f"the script ran for more than {limit:.0f} s"


def _is_finite(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _read_summary(log: Path, settings: Settings, seconds: float, folder: Path) -> Outcome:
    text = read_end(log, SUMMARY_BYTES).decode("utf-8", errors="replace")
    figures = {name: float(value) for name, value in _SUMMARY.findall(text) if _is_finite(value)}
    bpb = figures.get("val_bpb", float("nan"))
    if not 0 < bpb < float("inf"):
        message = "the script printed no line `val_bpb: NUMBER`"
        return Failure("scoring", "invalid_output", message, log_tail(log), run_dir=str(folder))
    training = figures.get("training_seconds", seconds)
    tokens = round(figures.get("total_tokens_M", 0.0) * 1e6)
    return Result(
        val_bpb=bpb,
        score_id="unverified",
        verified=False,
        training_seconds=training,
        total_seconds=seconds,
        startup_seconds=0.0,
        warmup_seconds=0.0,
        scoring_seconds=0.0,
        peak_memory_mb=figures.get("peak_vram_mb", 0.0),
        mfu_percent=figures.get("mfu_percent"),
        mfu_measured_percent=None,
        measured_peak_flops=None,
        tokens=tokens,
        tokens_per_second=tokens / training if training > 0 else 0.0,
        num_steps=int(figures.get("num_steps", 0)),
        num_params=round(figures.get("num_params_M", 0.0) * 1e6),
        depth=int(figures.get("depth", 0)) or None,
        backend="unknown",
        hardware={},
        policy={},
        versions={},
        tier="process",
        probes={},
        floor_bpb=None,
        scored_tokens=0,
        scored_bytes=0,
        seed=settings.seed,
        weights=None,
        run_dir=str(folder),
        not_protected_against=("anything: the script holds the text and scores itself",),
    )
