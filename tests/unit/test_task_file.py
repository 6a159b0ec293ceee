"""A task file checks itself: keys are known and typed, paths stay inside, YAML is plain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoresearch.engine.errors import TaskError
from autoresearch.taskfile.files import Place
from autoresearch.taskfile.model import TaskFile, load, parse, schema
from autoresearch.taskfile.reading import YamlError, read_yaml

TASK = """\
id: demo
artifacts: {include: notes.md}
mutator:
  type: command
  command: python mutate.py --greedy
objective: {direction: maximize}
scorer:
  command: [python, score.py, "{program}"]
  timeout_seconds: 5
  files: rubric/
"""


def read(text: str) -> TaskFile:
    return parse(read_yaml(text), "task.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "t"
    (root / "rubric").mkdir(parents=True)
    files = {"notes.md": "x", "mutate.py": "", "score.py": "", "rubric/a.json": "{}"}
    for name, text in {**files, "task.yaml": TASK}.items():
        (root / name).write_text(text)
    return root


def test_defaults_and_round_trip():
    task = read(TASK)
    assert task.scorer.command == ("python", "score.py", "{program}")
    assert task.mutator.command == ("python", "mutate.py", "--greedy")
    assert (task.scorer.parse, task.scorer.repeats, task.objective.metric) == ("json", 1, "score")
    assert task.policy.name == "confirm" and task.runner is None and task.mutator.sandbox
    again = TaskFile.model_validate(task.model_dump(mode="json"))
    assert again == task


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("id: demo", "idd: demo", "line 1: unknown key 'idd'; did you mean 'id'?"),
        ("  files: rubric/", "  file: rubric/", "line 10: scorer: unknown key 'file'; did you "),
        ("timeout_seconds: 5", "timeout_seconds: '5'", "line 9: scorer.timeout_seconds: Input sho"),
        ("timeout_seconds: 5", "timeout_seconds: true", "line 9: scorer.timeout_seconds"),
        ("timeout_seconds: 5", "timeout_seconds: -1", "greater than 0; it is -1"),
        ("timeout_seconds: 5", "timeout_seconds: .nan", "line 9: scorer.timeout_seconds"),
        ("maximize", "up", "line 6: objective.direction: Input should be 'minimize' or 'max"),
        ("{program}", "{progam}", "did you mean {program}?"),
        ("{program}", "{output}", "there is no runner"),
        ("score.py", "/opt/score.py", "'/opt/score.py' is absolute"),
        ("score.py", "C:\\\\score.py", "is absolute"),
        ("score.py", "--to=/opt/x", "'/opt/x' is absolute"),
        ("score.py", "../score.py", "leaves the task's folder"),
        ("notes.md", "../notes.md", "line 2: artifacts.include: '../notes.md' leaves"),
        ("notes.md", "/notes.md", "is absolute"),
        ("rubric/", "~/rubric", "is absolute"),
        ("type: command", "type: agent", "`command` belongs to `type: command`"),
        ("type: command", "type: shell", "line 4: mutator.type"),
        ("command: python mutate.py --greedy", "name: claude", "`command` belongs to"),
        ("python mutate.py --greedy", "''", "the command is empty"),
        ("python mutate.py --greedy", "python 'mutate", "No closing quotation"),
        ("  timeout_seconds: 5", "  parse: regex", "`pattern` belongs to"),
        ("  timeout_seconds: 5", "  parse: regex\n  pattern: a", "must have one group"),
        ("  timeout_seconds: 5", "  parse: regex\n  pattern: (", "pattern: "),
        ("  timeout_seconds: 5", "  env: {A: 1}", "scorer.env.A: it must be text: write"),
        ("  timeout_seconds: 5", "  env: {A B: x}", "'A B' can't name a variable"),
        ("id: demo", "id: demo\nconstraints: [x <= 2 ** 3]", "line 2: constraints[0]"),
        ("id: demo", "id: demo\nbudget: {trails: 3}", "line 2: budget: unknown key 'trails'"),
        ("id: demo", "id: demo\nsecondary: {a: down}", "line 2: secondary.a"),
    ],
)
def test_names_the_line_and_the_key(old, new, said):
    assert old in TASK
    with pytest.raises(TaskError) as caught:
        read(TASK.replace(old, new, 1))
    assert said in caught.value.message and caught.value.exit_code == 2 and caught.value.hint


def test_an_agent_is_named_with_a_near_match():
    text = TASK.replace("  type: command\n  command: python mutate.py --greedy", "  type: agent")
    assert read(text.replace("agent", "agent\n  name: claude")).mutator.name == "claude"
    with pytest.raises(TaskError, match="did you mean 'claude'"):
        read(text.replace("agent", "agent\n  name: clade"))


BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n" for old, new in ["ab", "bc", "cd", "de"]
)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "first in line 1"),
        ("a: !!python/object/apply:os.system [ls]", 1, "tags such as"),
        ("a: !!int '3'", 1, "tags such as"),
        ("a: [1\n", 2, "flow"),
        (BOMB, 1, "aliases counted"),
        ("a: &x [*x]", 1, "nested deeper"),
        ("[" * 3000, 1, "nested deeper"),
        ("? [a]\n: 1", 1, "a key must be a word"),
        ("a: 1\n--- \nb: 1", 2, "another document"),
        ("a: \x07", 1, "special characters"),
        ("x" * 1_000_001, 1, "longer than"),
    ],
)
def test_refuses_yaml_that_is_more_than_plain(text, line, said):
    with pytest.raises(YamlError) as caught:
        read_yaml(text)
    assert said in caught.value.message and caught.value.line == line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("12", 12),
        ("-0x1F", "-0x1F"),
        ("0x1F", 31),
        ("012", 12),
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("~", None),
        ("'12'", "12"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("[1, a]", (1, "a")),
    ],
)
def test_reads_plain_values_as_yaml_1_2_does(text, value):
    found = read_yaml(f"a: {text}").value["a"]
    assert found == value and type(found) is type(value)


def test_the_schema_is_json_and_knows_every_key():
    document = json.loads(schema())
    assert set(document["properties"]) == set(TaskFile.model_fields)
    assert not document["additionalProperties"]
    assert document["properties"]["constraints"]["items"] == {"type": "string"}
    kinds = document["$defs"]["Runner"]["properties"]["command"]["anyOf"]
    assert [kind["type"] for kind in kinds] == ["string", "array"]


def test_files_that_judge_are_nobody_elses(folder: Path):
    place, task = Place.of(folder / "task.yaml"), load(folder / "task.yaml")
    assert place.judging(task) == {"scorer": ("rubric/a.json", "score.py")}
    assert place.programs(task) == ("mutate.py", "notes.md")
    (folder / "__pycache__").mkdir()
    for name in ("program.md", "__pycache__/x.pyc", ".gitattributes"):
        (folder / name).write_text("ours")
    (folder / "work").mkdir()
    (folder / "work" / "x").write_text("ours")
    assert place.programs(task) == ("mutate.py", "notes.md")


def test_what_is_judged_cannot_judge(folder: Path):
    text = TASK.replace("notes.md", "['*.md', '*.py']")
    (folder / "task.yaml").write_text(text)
    with pytest.raises(TaskError, match=r"score.py is an artifact and the scorer's"):
        Place.of(folder / "task.yaml").programs(load(folder / "task.yaml"))


def test_links_out_and_missing_files_are_told(folder: Path, tmp_path: Path):
    place, task = Place.of(folder / "task.yaml"), load(folder / "task.yaml")
    (tmp_path / "outside").write_text("secret")
    (folder / "link").symlink_to("../outside")
    with pytest.raises(TaskError, match="link out of the task's folder"):
        place.programs(task)
    (folder / "link").unlink()
    (folder / "score.py").unlink()
    (folder / "score.py").symlink_to("mutate.py")
    with pytest.raises(TaskError, match="a link; a scorer's file"):
        place.judging(task)
    (folder / "notes.md").rename(folder / "note.md")
    (folder / "score.py").unlink()
    with pytest.raises(TaskError, match=r"no file here is notes.md"):
        place.programs(task)
    with pytest.raises(TaskError, match="no task file"):
        load(folder / "nothing.yaml")
