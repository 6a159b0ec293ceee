"""Every setting of a workspace, with its value and where that comes from.

    for setting in configuration(folder, {"backend": "cpu"}):
        setting.name, setting.value, setting.source, setting.what

Sources, the first that says something wins: an option of the command, an environment variable,
autoresearch.toml (where `init` wrote the preset's values), the default. Values that could be
secret are told as set, never shown.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from autoresearch.task_table import TASK_KEYS, read_task
from prepare.errors import UsageError
from prepare.settings import FILE_NAME, Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OPTION, DEFAULT = "option", "default"
HIDDEN = "set (not shown)"
_SECRET = re.compile(r"token|secret|password|key|credential|url|command|webhook", re.IGNORECASE)


@dataclass(frozen=True)
class Variable:
    """An environment variable: what it sets, and what holds where it is unset or empty."""

    name: str
    default: str
    what: str


VARIABLES = (
    Variable("AUTORESEARCH_BACKEND", "auto", "the backend, unless --backend names one"),
    Variable("AUTORESEARCH_ATTENTION", "auto", "the attention, unless --attention names one"),
    Variable("AUTORESEARCH_DTYPE", "auto", "the type of computation"),
    Variable("AUTORESEARCH_COMPILE", "auto", "1, 0 or max-autotune: compile the training step"),
    Variable("AUTORESEARCH_LOSS", "auto", "how the loss over the vocabulary is computed"),
    Variable("AUTORESEARCH_GRAM", "auto", "how Muon's products are computed"),
    Variable("AUTORESEARCH_LINEAR", "auto", "how linear layers are computed"),
    Variable("AUTORESEARCH_CACHE", "", "the cache folder"),
    Variable("AUTORESEARCH_MIRROR", "", "a host with the hub's layout; wins over HF_ENDPOINT"),
    Variable("HF_ENDPOINT", "", "the same, known to other programs too"),
    Variable("AUTORESEARCH_OFFLINE", "0", "1: no network"),
    Variable("HF_HUB_OFFLINE", "0", "the same, known to other programs too"),
    Variable("HF_TOKEN", "", "goes to the hub alone"),
)


@dataclass(frozen=True)
class Setting:
    """One setting. `name` is where it is set: `experiment.time_budget`, or a variable's name."""

    name: str
    value: Any
    source: str
    what: str = ""


def configuration(folder: Path, options: Mapping[str, Any]) -> list[Setting]:
    """The settings of the workspace in `folder`; options that weren't given are None.

    Raises UsageError and TaskError for a file that isn't right, as `run` would.
    """
    settings = Settings.load(folder)
    path = folder / FILE_NAME
    task = read_task(path, options.get("policy"), options.get("confidence"))
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    given = {name for name, value in options.items() if value is not None}
    return [
        *_experiment(settings, document.get("experiment", {})),
        *_task(task.model_dump(mode="json"), document.get("task", {}), given),
        *_other_tables(document),
        *_environment(options),
    ]


def _experiment(settings: Settings, table: Mapping[str, Any]) -> Iterator[Setting]:
    """What a val_bpb means. A value that is the preset's own is said to be that."""
    from autoresearch.preset import load_preset

    try:
        preset: Mapping[str, Any] = load_preset(settings.preset).settings.model_dump()
    except UsageError:  # one of somebody else's
        preset = {}
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        source = DEFAULT
        if name in table:
            from_preset = name == "preset" or (name in preset and preset[name] == table[name])
            source = f"{FILE_NAME}, as preset {settings.preset}" if from_preset else FILE_NAME
        yield Setting(f"experiment.{name}", value, source, field.description or "")


def _task(task: Mapping[str, Any], table: Mapping[str, Any], given: set[str]) -> Iterator[Setting]:
    """What a study may change, and how it decides."""
    options = {"policy.name": "policy", "policy.confidence": "confidence"}
    policy = table.get("policy", {})
    table = {**table, "policy": {"name": policy} if isinstance(policy, str) else policy}
    for key in TASK_KEYS:
        parts = task[key]
        for name, value in parts.items() if isinstance(parts, Mapping) else [("", parts)]:
            inside = table.get(key, {})
            in_file = name in inside if isinstance(parts, Mapping) else key in table
            whole = ".".join(filter(None, (key, name)))
            by_option = options.get(whole) in given
            source = (
                f"{OPTION} --{options[whole]}" if by_option else FILE_NAME if in_file else DEFAULT
            )
            yield Setting(f"task.{whole}", value, source)


def _other_tables(document: Mapping[str, Any]) -> Iterator[Setting]:
    """What else the file says, as it stands there."""
    for table, items in document.items():
        if table in ("experiment", "task"):
            continue
        for name, value in items.items():
            shown = HIDDEN if _SECRET.search(name) else value
            yield Setting(f"{table}.{name}", shown, FILE_NAME)


def _environment(options: Mapping[str, Any]) -> Iterator[Setting]:
    """The variables that are listened to, and the options that win over them."""
    from prepare.cache import cache_root

    for variable in VARIABLES:
        value = os.environ.get(variable.name, "").strip()
        source = "environment" if value else DEFAULT
        option = variable.name.removeprefix("AUTORESEARCH_").lower()
        if options.get(option) is not None:
            value, source = options[option], f"{OPTION} --{option}"
        elif variable.name == "AUTORESEARCH_CACHE":
            value = str(cache_root())
        elif variable.name == "HF_TOKEN":
            value = HIDDEN if value else ""
        elif "://" in value:
            value = without_credentials(value)
        yield Setting(variable.name, value or variable.default or None, source, variable.what)


def without_credentials(url: str) -> str:
    """A URL without its user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return HIDDEN
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"
