"""Task files that went wrong, as people write them; and the published schema says what is taken."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from autoresearch.engine.errors import TaskError
from autoresearch.taskfile.model import TaskFile, load, schema

TASK = """\
id: demo
artifacts: {include: notes.md}
mutator: {type: search}
scorer: {command: python score.py}
objective: {direction: maximize}
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "line 1: it must be a table"),
        (b"# only a comment\n", "line 1: it must be a table"),
        (b"- id: demo\n", "line 1: it must be a table"),
        (TASK.encode("utf-16"), "not UTF-8"),
        (TASK + "budget:\n\ttrials: 3\n", "line 7: while scanning"),
        (TASK + "description: a: b\n", "line 6: mapping values"),
        (TASK + "description: 'open\n", "line 7: while scanning a quoted scalar"),
        (TASK + 'description: "a\0"\n', "line 6: unacceptable character"),
        (TASK + "on: push\n", "line 6: unknown key 'on'"),
        (
            TASK + "runner: &r {command: x}\nholdout: {<<: *r}\n",
            "line 7: holdout: unknown key '<<'",
        ),
        (TASK + "runner: *nowhere\n", "line 6: found undefined alias"),
        (TASK + "budget: {trials: yes}\n", "line 6: budget.trials: it must be a whole number"),
        (TASK + "budget: {trials: '3'}\n", "it must be a whole number, without quotes or a point"),
        (TASK + "budget: {trials: 1e3}\n", "line 6: budget.trials: "),
        (TASK + "mutation: {allow_delete: yes}\n", "it must be true or false; it is 'yes'"),
        (TASK + "constraints: {words: 3}\n", "line 6: constraints: it must be a list"),
        (TASK + "constraints: [3]\n", "line 6: constraints[0]: it must be text; it is 3"),
        (TASK + "runner: python run.py\n", "line 6: runner: it must be a table of keys"),
        (
            TASK + "runner: {command: x, env: {A: 1}}\n",
            "runner.env.A: it must be text: write it in",
        ),
        (TASK.replace("demo", "12"), "line 1: id: it must be text: write it in quotes; it is 12"),
        (TASK.replace("mutator: {type: search}\n", ""), "line 1: mutator: it is missing"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_what_to_write(text, said, tmp_path):
    file = tmp_path / "task.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TaskError) as caught:
        load(file)
    assert said in caught.value.message and caught.value.message.startswith("task.yaml")
    assert caught.value.hint and caught.value.exit_code == 2


@pytest.mark.parametrize("change", [("\n", "\r\n"), ("id", "\ufeffid")])
def test_other_editors_files_are_read(change, tmp_path):
    file = tmp_path / "task.yaml"
    file.write_bytes(TASK.replace(*change, -1 if change[0] == "\n" else 1).encode())
    assert load(file).id == "demo"


# -- the schema ----------------------------------------------------------------------------------

FULL: dict[str, Any] = {
    "id": "demo",
    "description": "text",
    "artifacts": {"include": ["a"], "exclude": "b"},
    "mutation": {"max_files": 1, "max_bytes": 5, "allow_delete": False},
    "objective": {"metric": "m", "direction": "maximize", "target": 3.0},
    "constraints": ["a <= 3"],
    "policy": {"name": "greedy", "confidence": 0.9, "min_effect": 0.1, "noise_seeds": 3},
    "budget": {"trials": 3, "hours": 1.5, "dollars": 2.0, "tokens": 5},
    "logging": {"tail_lines": 5, "max_bytes": 5000},
    "inputs": "data/",
    "mutator": {"type": "command", "command": ["a", "b"], "cwd": ".", "options": {"a": 1}},
    "runner": {"command": "x", "timeout_seconds": 3, "env": {"A": "b"}, "retries": 2},
    "scorer": {"command": "x {program}", "files": ["a/"], "parse": "json", "repeats": 3},
    "holdout": {"command": "x", "parse": "regex", "pattern": "(a)", "network": False},
    "secondary": {"w": "minimize"},
}
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        3,
        -1,
        0.5,
        1e300,
        10**12,
        "x",
        "",
        "a b",
        "../x",
        "confirm",
        "minimize",
    ),
    *([], {}, ["x"], [3], [None], [[]], {"x": 1}, {"a": "b"}),
]
PYTHON = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
PYTHON |= {"null": type(None), "array": list, "object": dict}
NUMBER, TEXT = (int, float), str
# What a bound says of values that it is meant for; others pass.
BOUNDS: dict[str, tuple[Any, Any]] = {
    "minimum": (NUMBER, lambda value, bound: value >= bound),
    "maximum": (NUMBER, lambda value, bound: value <= bound),
    "exclusiveMinimum": (NUMBER, lambda value, bound: value > bound),
    "exclusiveMaximum": (NUMBER, lambda value, bound: value < bound),
    "minLength": (TEXT, lambda value, bound: len(value) >= bound),
    "maxLength": (TEXT, lambda value, bound: len(value) <= bound),
    "pattern": (TEXT, lambda value, bound: re.search(bound, value) is not None),
    "minItems": (list, lambda value, bound: len(value) >= bound),
    "enum": (object, lambda value, bound: value in bound),
    "const": (object, lambda value, bound: value == bound),
}
COVERED = {*BOUNDS, "$ref", "anyOf", "type", "items", "properties", "required", "propertyNames"}
COVERED |= {"additionalProperties", "patternProperties", "description", "title", "default"}


def takes(node: dict[str, Any], value: Any, defs: dict[str, Any]) -> bool:
    """Does a JSON Schema take a value? As much of the language as ours uses."""
    node = {**(defs[node["$ref"].rpartition("/")[2]] if "$ref" in node else {}), **node}
    assert set(node) <= COVERED, set(node) - COVERED
    if "anyOf" in node and not any(takes(item, value, defs) for item in node["anyOf"]):
        return False
    kind = node.get("type")
    if kind is not None:
        number = isinstance(value, bool) and kind in ("integer", "number")
        if number or not isinstance(value, PYTHON[kind]):
            return False
    for name, (meant_for, holds) in BOUNDS.items():
        if name in node and isinstance(value, meant_for) and not holds(value, node[name]):
            return False
    if isinstance(value, list):
        return all(takes(node.get("items", {}), item, defs) for item in value)
    if isinstance(value, dict):
        return all(name in value for name in node.get("required", ())) and all(
            takes(node.get("propertyNames", {}), key, defs) and takes(inner, item, defs)
            for key, item in value.items()
            for inner in _of_key(node, key)
        )
    return True


def _of_key(node: dict[str, Any], key: str) -> list[dict[str, Any]]:
    if key in node.get("properties", {}):
        return [node["properties"][key]]
    found = [s for p, s in node.get("patternProperties", {}).items() if re.search(p, key)]
    more = node.get("additionalProperties", True)
    return found or [more if isinstance(more, dict) else {} if more else {"enum": []}]


def read(value: Any) -> Any:
    """As YAML is read: lists are tuples."""
    if isinstance(value, list):
        return tuple(map(read, value))
    return {k: read(v) for k, v in value.items()} if isinstance(value, dict) else value


def problem(document: dict[str, Any]) -> str:
    """The kind of what the model refuses; "" if it takes it."""
    try:
        TaskFile.model_validate(read(document), strict=True)
    except ValidationError as error:
        return str(error.errors()[0]["type"])
    return ""


def variants() -> Iterator[tuple[str, dict[str, Any]]]:
    """The full task with one value exchanged, or left out, at every place."""
    waiting: list[tuple[str | int, ...]] = [(key,) for key in FULL]
    while waiting:
        path = waiting.pop()
        *outer, last = path
        inner: Any = FULL
        for key in path:
            inner = inner[key]
        if isinstance(inner, (dict, list)):
            keys = inner if isinstance(inner, dict) else range(len(inner))
            waiting += [(*path, key) for key in keys]
        for new in [*VALUES, ...]:
            document = copy.deepcopy(FULL)
            around: Any = document
            for key in outer:
                around = around[key]
            if new is ...:
                del around[last]
            else:
                around[last] = new
            yield f"{path}: {new!r}", document


def test_schema_and_model_take_and_refuse_the_same():
    published = json.loads(schema())
    defs = published.pop("$defs")
    published.pop("$schema")
    assert problem(FULL) == "" and takes(published, FULL, defs)
    # What belongs together, and what a word means, no schema can say: it takes more there.
    beyond = {"value_error", "unknown_key"}
    taken = refused = 0
    for name, document in variants():
        kind, there = problem(document), takes(published, document, defs)
        assert there == (kind == "") or (there and kind in beyond), f"{name}: model {kind!r}"
        taken += there
        refused += not there
    assert taken > 100 and refused > 500, "both happen"


def test_every_example_is_taken_by_both():
    published = json.loads(schema())
    defs = published.pop("$defs")
    published.pop("$schema")
    files = sorted(Path(__file__).parents[2].glob("tasks/*/task.yaml"))
    assert len(files) >= 4
    for file in files:
        document = load(file).model_dump(mode="json", exclude_defaults=True)
        assert takes(published, document, defs), file
