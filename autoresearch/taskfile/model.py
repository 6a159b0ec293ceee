"""What a task file may say: the engine's Task, and how to propose, run and score.

    task = load(Path("tasks/speed/task.yaml"))      # raises TaskError naming key and line

Commands are split into words as a shell would, and run without one. Three words are filled in:

    {program}   folder of the candidate: the task's files with its edit, without the scorer's
    {output}    the runner's working folder, after it ran
    {seed}      of this run; runs of champion and candidate share seeds
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from autoresearch.engine import globs
from autoresearch.engine.errors import TaskError
from autoresearch.engine.proposers.base import AGENTS
from autoresearch.engine.proposers.command import split_command
from autoresearch.engine.task import Part, Task
from autoresearch.notify import Notify
from autoresearch.taskfile.reading import Document, YamlError, read_yaml
from autoresearch.trackers import Tracking

PLACEHOLDERS = ("program", "output", "seed")
_NAMED = re.compile(r"\{([a-z_]+)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What pydantic says in Python's words.
_MUST_BE = {
    "missing": "it is missing",
    "tuple_type": "it must be a list",
    "dict_type": "it must be a table of keys",
    "model_type": "it must be a table of keys",
    "dataclass_exact_type": "it must be text",
    "string_type": "it must be text: write it in quotes",
    "bool_type": "it must be true or false",
    "int_type": "it must be a whole number, without quotes or a point",
}
NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"


def _command(value: Any) -> Any:
    """The words of a command."""
    words = tuple(split_command(value)) if isinstance(value, str) else value
    if not isinstance(words, tuple):
        return words
    if not words or not words[0]:
        raise ValueError("the command is empty")
    for word in words:
        if isinstance(word, str):
            _check_word(word)
    return words


def _check_word(word: str) -> None:
    """Refuse paths that lead out of the task's folder, and placeholders that are misspelt."""
    if "\0" in word:
        raise ValueError("a word holds a NUL character")
    # Of `--option=value` the value may be a path too.
    for part in {word, word.partition("=")[2]}:
        spaced = any(c.isspace() for c in part)
        if not spaced and (part.startswith(("/", "~/")) or re.match(r"[A-Za-z]:[\\/]", part)):
            raise ValueError(f"{part!r} is absolute; paths are relative to the task file")
        if ".." in re.split(r"[\\/]", part):
            raise ValueError(f"{part!r} leaves the task's folder")
    for name in _NAMED.findall(word):
        near = difflib.get_close_matches(name, PLACEHOLDERS, 1, 0.7)
        if name not in PLACEHOLDERS and near:
            raise ValueError(f"no placeholder {{{name}}}; did you mean {{{near[0]}}}?")


_WORDS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
Command = Annotated[
    tuple[str, ...],
    BeforeValidator(_command),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, _WORDS]}),
]
_GLOB = {"type": "string", "minLength": 1}


def _globs(value: Any) -> Any:
    """One glob, or many."""
    value = (value,) if isinstance(value, str) else value
    if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
        return value
    return tuple(globs.check_glob(pattern) for pattern in value)


Globs = Annotated[
    tuple[str, ...],
    BeforeValidator(_globs),
    WithJsonSchema({"anyOf": [_GLOB, {"type": "array", "items": _GLOB}]}),
]
Seconds = Annotated[float, Field(gt=0, le=30 * 86_400)]


class Program(Part):
    """A command, and what it may use. It sees no network and no variable of yours by itself."""

    command: Command = Field(description="words, or one line that is split into words")
    timeout_seconds: Seconds = Field(600.0, description="then it is ended, with all it started")
    env: dict[str, str] = Field({}, description="variables it sees")
    pass_env: tuple[str, ...] = Field((), description="names of your variables that it may see")
    network: bool = Field(False, description="may it use the network")

    @field_validator("env", "pass_env")
    @classmethod
    def _variables(cls, value: Any) -> Any:
        for name in value:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} can't name a variable")
        return value


class Runner(Program):
    """Runs the candidate, in a fresh copy of it."""

    retries: int = Field(0, ge=0, le=10, description="further attempts when it fails")


class Scorer(Program):
    """Prints one score, in a folder that holds its own files alone; the candidate is {program}."""

    files: Globs = Field(
        (), description="globs of its files, beside those its command names; nobody else sees them"
    )
    parse: Literal["json", "regex", "exit_code", "float"] = Field(
        "json",
        description="json: an object with score_field; float: one number; regex: the one match "
        "of pattern; exit_code: 1 for exit code 0, else 0",
    )
    score_field: str = Field("score", min_length=1, description="json: its name, a.b for nested")
    metrics_field: str = Field("metrics", min_length=1, description="json: a table of numbers")
    pattern: str | None = Field(None, description="regex: with one group, the number")
    inputs: Globs = Field((), description="inputs that it alone sees; see the task's `inputs`")
    timed: bool = Field(
        False,
        description="it measures time: a run during which other programs took much of the machine "
        "is made again, twice at most, and then noisy",
    )
    repeats: int = Field(
        1,
        ge=1,
        le=100,
        description="scorings per run, averaged; one, once those of 3 runs agreed exactly",
    )

    @model_validator(mode="after")
    def _pattern_fits(self) -> Scorer:
        if (self.parse == "regex") != (self.pattern is not None):
            raise ValueError("`pattern` belongs to `parse: regex`, and to nothing else")
        if self.pattern is not None:
            try:
                groups = re.compile(self.pattern).groups
            except re.error as error:
                raise ValueError(f"pattern: {error}") from error
            if groups != 1:
                raise ValueError(f"pattern must have one group, the number; it has {groups}")
        return self


class Mutator(Part):
    """Who proposes edits: a command of yours, a coding agent, a model API, or search."""

    type: Literal["command", "agent", "api", "search"]
    command: Command | None = Field(None, description="command: edits files in its folder")
    cwd: str = Field(".", description="command: a folder of the task's")
    name: str | None = Field(None, description=f"agent: one of {', '.join(AGENTS)}")
    options: dict[str, Any] = Field({}, description="the proposer's own, such as model")
    timeout_seconds: Seconds = Field(900.0, description="for one proposal")
    sandbox: bool = Field(True, description="command: jailed; false lets it use what you can")
    network: bool = Field(False, description="command: may it use the network in its jail")
    pass_env: tuple[str, ...] = Field((), description="names of your variables that it may see")

    @field_validator("cwd")
    @classmethod
    def _inside(cls, value: str) -> str:
        return value if value == "." else globs.check_glob(value.rstrip("/"))

    @model_validator(mode="after")
    def _fits(self) -> Mutator:
        needs = {"command": "command", "agent": "name"}
        for kind, key in needs.items():
            if (self.type == kind) != (getattr(self, key) is not None):
                raise ValueError(f"`{key}` belongs to `type: {kind}`, which needs it")
        if self.type != "command" and (self.cwd != "." or not self.sandbox or self.network):
            raise ValueError("`cwd`, `sandbox` and `network` belong to `type: command`")
        if self.name is not None and self.name not in AGENTS:
            near = difflib.get_close_matches(self.name, AGENTS, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(AGENTS)}"
            raise ValueError(f"no coding agent {self.name!r}; {hint}")
        return self


class TaskFile(Task):
    """A whole task file."""

    inputs: Globs = Field(
        (),
        description="globs of files and folders, such as data sets and .venv, that runner and "
        "scorer read where they lie; nobody writes them, no mutator sees them",
    )
    mutator: Mutator
    runner: Runner | None = Field(None, description="left out: the scorer looks at the files")
    scorer: Scorer
    holdout: Scorer | None = Field(None, description="a scorer for kept edits only, to compare")
    secondary: dict[Annotated[str, Field(pattern=NAME)], Literal["minimize", "maximize"]] = Field(
        {}, description="metrics that also matter; `results --pareto` shows the best trade-offs"
    )

    notify: Notify = Notify()  # type: ignore[call-arg]
    tracker: Tracking = Tracking()  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _output_needs_a_runner(self) -> TaskFile:
        programs = [p for p in (self.scorer, self.holdout) if p is not None]
        if self.runner is None and any("{output}" in w for p in programs for w in p.command):
            raise ValueError("{output} is the runner's folder, and there is no runner")
        if self.runner is not None and any("{output}" in word for word in self.runner.command):
            raise ValueError("runner: its own folder is {output} already; write relative paths")
        return self


def load(file: Path) -> TaskFile:
    """Read and check a task file. Raises TaskError naming the line, the key and what is allowed."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise TaskError(
            f"no task file {file}", "make one that runs with `autoresearch task new NAME`"
        ) from error
    except IsADirectoryError as error:
        raise TaskError(
            f"{file} is a folder", f"name its task file: {file / 'task.yaml'}"
        ) from error
    except UnicodeDecodeError as error:
        raise TaskError(f"{file.name}: it is not UTF-8", "save it as UTF-8") from error
    try:
        document = read_yaml(text)
    except YamlError as error:
        raise TaskError(
            f"{file.name}, line {error.line}: {error.message}", "a task file is YAML"
        ) from error
    return parse(document, file.name)


def parse(document: Document, name: str) -> TaskFile:
    """The task that a document describes. Raises TaskError."""
    if not isinstance(document.value, Mapping):
        text = f"{name}, line 1: it must be a table of keys"
        raise TaskError(text, "see `autoresearch task schema`")
    try:
        return TaskFile.model_validate(document.value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        path = [part for part in first["loc"] if part != "[key]"]
        key = (first.get("ctx") or {}).get("key")
        line = document.line([*path, key] if key is not None else path)
        where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
        said = _MUST_BE.get(first["type"]) or first["msg"].removeprefix("Value error, ")
        given = first["input"]
        if first["type"] != "unknown_key" and _is_short(given):
            said += f"; it is {given!r}"
        raise TaskError(
            f"{name}, line {line}: {where + ': ' if where else ''}{said}",
            "see `autoresearch task schema` for all keys",
        ) from error


def _is_short(value: Any) -> bool:
    plain = isinstance(value, (str, int, float, bool))
    return plain and len(str(value)) <= 60 and not (isinstance(value, float) and math.isnan(value))


def schema() -> str:
    """JSON Schema of a task file, for editors."""
    found = TaskFile.model_json_schema(mode="validation")
    # What validators take beside the type itself.
    named = [(found, "policy"), (found["$defs"]["Artifacts"], "include")]
    named += [(found["$defs"]["Artifacts"], "exclude"), (found["$defs"]["Notify"], "command")]
    for table, key in named:
        known = table["properties"][key]
        short = {"enum": ["confirm", "greedy"]} if key == "policy" else {"type": "string"}
        kept = {name: known.pop(name) for name in ("description", "default") if name in known}
        table["properties"][key] = {**kept, "anyOf": [short, known]}
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found["title"] = "autoresearch task file"
    return json.dumps(found, indent=2)
