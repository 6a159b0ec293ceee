"""What an edit means, whatever it looks like; and the limits that it must keep."""

import contextlib

import pytest

from autoresearch.engine.change import (
    Change,
    FileChange,
    Outside,
    champion_message,
    check,
    check_python,
    diff_hash,
)
from autoresearch.engine.errors import Rejected
from autoresearch.engine.normalise import digest
from autoresearch.engine.task import Task
from autoresearch.engine.trial import DiffStat


def python(text: str) -> str:
    return digest("a.py", text.encode())


BODY = '''
"""Doc."""
def f(x, n=2):
    total = 0
    for i in range(n):
        total += x * i
    return total
'''

SAME = {
    "comments and layout": BODY.replace("total = 0", "total  =  (0)  # start").replace(
        "    return", "\n    return"
    ),
    "one local renamed": BODY.replace("total", "acc"),
    "both locals renamed": BODY.replace("total", "b").replace(" i ", " a ").replace("* i", "* a"),
    "crlf": BODY.replace("\n", "\r\n"),
    "spelling of a number": BODY.replace("= 0\n", "= 0x0\n"),
}
OTHER = {
    "docstring": BODY.replace("Doc", "Dok"),
    "parameter renamed": BODY.replace("n=2", "m=2").replace("range(n)", "range(m)"),
    "function renamed": BODY.replace("def f", "def g"),
    "number": BODY.replace("= 0\n", "= 1\n"),
    "type of a number": BODY.replace("= 0\n", "= 0.0\n"),
    "another variable used": BODY.replace("return total", "return i"),
    "a global used": BODY.replace("return total", "return other"),
    "indentation": BODY.replace("    return", "        return"),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_program(name):
    assert python(SAME[name]) == python(BODY)


@pytest.mark.parametrize("name", OTHER)
def test_another_program(name):
    assert python(OTHER[name]) != python(BODY)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        # Names that are seen from outside the function keep their meaning.
        ("x = 1\ny = x", "z = 1\ny = z", False),
        ("def f():\n a = 1\n return locals()", "def f():\n b = 1\n return locals()", False),
        ("def f():\n a = 1\n return eval('a')", "def f():\n b = 1\n return eval('a')", False),
        ("def f():\n global a\n a = 1", "def f():\n global b\n b = 1", False),
        ("def f():\n import a\n return a", "def f():\n import b\n return b", False),
        ("class C:\n a = 1", "class C:\n b = 1", False),
        (
            "def f():\n class C:\n  a = 1\n return C",
            "def f():\n class C:\n  b = 1\n return C",
            False,
        ),
        ("def f():\n def g(): pass\n return g", "def f():\n def h(): pass\n return h", False),
        # Closures, comprehensions, handlers and walruses follow their function.
        (
            "def f():\n a = 1\n def g():\n  nonlocal a\n  a += 1\n  return a\n return g",
            "def f():\n b = 1\n def g():\n  nonlocal b\n  b += 1\n  return b\n return g",
            True,
        ),
        ("def f():\n a = 1\n return lambda: a", "def f():\n b = 1\n return lambda: b", True),
        ("def f():\n a = 1\n return lambda a: a", "def f():\n b = 1\n return lambda a: a", True),
        ("def f():\n a = 1\n return lambda a: a", "def f():\n b = 1\n return lambda a: b", False),
        (
            "def f():\n a = 1\n return [a for _ in x]",
            "def f():\n b = 1\n return [b for _ in x]",
            True,
        ),
        (
            "def f():\n a = [1]\n return [a for a in a]",
            "def f():\n b = [1]\n return [a for a in a]",
            False,
        ),
        (
            "def f():\n a = [1]\n return [a for a in a]",
            "def f():\n b = [1]\n return [a for a in b]",
            True,
        ),
        (
            "def f():\n return [(a := i) for i in x], a",
            "def f():\n return [(b := i) for i in x], b",
            True,
        ),
        (
            "def f():\n try: pass\n except E as a: return a",
            "def f():\n try: pass\n except E as b: return b",
            True,
        ),
        ("def f():\n with o() as a: return a", "def f():\n with o() as b: return b", True),
        # A method doesn't see names of its class.
        (
            "def f():\n a = 1\n class C:\n  a = 2\n  def g(self): return a\n return C",
            "def f():\n b = 1\n class C:\n  a = 2\n  def g(self): return b\n return C",
            True,
        ),
        (
            "def f():\n a = 1\n class C:\n  def g(self):\n   x = 2\n  k = a\n return C",
            "def f():\n b = 1\n class C:\n  def g(self):\n   x = 2\n  k = a\n return C",
            False,
        ),
        # Two variables exchanged in one place.
        (
            "def f():\n a = 1\n b = 2\n return a - b",
            "def f():\n a = 1\n b = 2\n return b - a",
            False,
        ),
        (
            "def f():\n a = 1\n b = 2\n return a - b",
            "def f():\n b = 1\n a = 2\n return b - a",
            True,
        ),
    ],
)
def test_renaming(one, two, same):
    assert (python(one) == python(two)) is same


def test_text_is_compared_without_stray_spaces():
    one = digest("a.yaml", b"a:\n  b:  1 \r\n\n")
    assert one == digest("a.yaml", b"a:\n\n  b: 1\n")
    assert one != digest("a.yaml", b"a:\nb: 1\n")
    assert digest("a.bin", b"\xff 1") != digest("a.bin", b"\xff  1")
    assert digest("a.py", b"def (") == digest("a.py", b"def ( ")  # no Python: as text


def test_deep_nesting_ends_in_a_digest_or_a_refusal():
    for text in ("-" * 20_000 + "1", "(" * 5_000, "a" + ".b" * 20_000, "1" + "+1" * 50_000):
        assert len(python(text)) == 64
        with contextlib.suppress(Rejected):
            check_python("a.py", text.encode())


def change(old: bytes | None = b"a\n", new: bytes | None = b"b\n", **more) -> Change:
    base = {
        "base": "0" * 40,
        "tree": "1" * 40,
        "files": (FileChange("train.py", old, new),),
        "outside": (),
        "diff": "",
        "stat": DiffStat(1, 1, 1),
        "bytes": len(new or b""),
    }
    return Change(**{**base, **more})


def task(**mutation) -> Task:
    return Task.parse(
        {
            "id": "t",
            "artifacts": {"include": ["train.py"]},
            "objective": {"metric": "m"},
            "mutation": mutation,
        }
    )


@pytest.mark.parametrize(
    ("edit", "limits", "rule"),
    [
        (change(files=()), {}, "empty"),
        (change(old=None), {}, "new-file"),
        (change(new=None), {}, "deleted-file"),
        (change(stat=DiffStat(3, 1, 1)), {"max_files": 2}, "max-files"),
        (change(stat=DiffStat(1, 3, 2)), {"max_changed_lines": 4}, "max-lines"),
        (change(new=b"x" * 11), {"max_bytes": 10}, "max-bytes"),
        (change(new=b"x = (\n"), {}, "syntax"),
        (change(new=b"x = '\0'\n"), {}, "syntax"),
        (change(new=b"# \xff\n"), {}, "syntax"),
        (change(new=b"return 1\n"), {}, "syntax"),
        (change(new=b"# coding: utf-7\n"), {}, "syntax"),
        (change(new=b"# coding: nonsense\n"), {}, "syntax"),
        (change(outside=(Outside("prepare/a.txt", "changed"),)), {}, "not-an-artifact"),
        (change(outside=(Outside("conftest.py", "new"),)), {}, "not-an-artifact"),
        (change(outside=(Outside("torch/__init__.PY", "new"),)), {}, "not-an-artifact"),
    ],
)
def test_each_rule_by_name(edit, limits, rule):
    with pytest.raises(Rejected) as caught:
        check(edit, task(**limits))
    assert caught.value.rule == rule and caught.value.message


def test_what_keeps_the_rules_passes():
    check(change(), task())
    check(change(old=None), task(allow_new_files=True))
    check(change(new=None), task(allow_delete=True))
    notes = (Outside("program.md", "changed"),)
    check(change(outside=notes), task(), allowed=["program.md"])


def test_a_syntax_error_names_its_line():
    with pytest.raises(Rejected, match=r"train\.py, line 3.*if x = 2"):
        check_python("train.py", b"x = 1\n\nif x = 2:\n    pass\n")


def test_hash_names_the_result_not_the_way():
    one = change(meaning={"a": "1"}, base_meaning={"a": "0"})
    two = change(meaning={"a": "1"}, base_meaning={"a": "9"})
    assert diff_hash(one) == diff_hash(two) != diff_hash(change(meaning={"a": "2"}))
    assert change(meaning={"a": "1"}, base_meaning={"a": "1"}).means_nothing
    assert not one.means_nothing


def test_message_of_a_champion():
    assert champion_message("val_bpb", 1.234567, 1.2, "idea", {"Trial": 3}) == (
        "val_bpb 1.23457 -> 1.2: idea\n\nTrial: 3\n"
    )
    assert champion_message("m", None, 2.0, "") == "m 2: no description\n"
