"""The command line as a newcomer meets it: help, near matches, errors with exit codes, JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from autoresearch import cli
from autoresearch.commands.bench import command as bench
from autoresearch.commands.cluster import command as cluster
from autoresearch.options import ATTENTION, BACKENDS, SECONDS


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = cli.run(list(args))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_names_every_command_and_loads_no_framework() -> None:
    code = (
        "import sys; from autoresearch import cli\n"
        "assert cli.run(['--help']) == 0\n"
        "heavy = {'torch', 'mlx', 'numpy', 'pyarrow', 'rich', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in cli.COMMANDS:
        assert f"\n  {name} " in done.stdout


GROUPS = {"bench": bench.commands, "cluster": cluster.commands}


@pytest.mark.parametrize(
    "name", [*cli.COMMANDS, *(f"{group} {name}" for group in GROUPS for name in GROUPS[group])]
)
def test_each_command_has_help_and_json(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out, _ = run(capsys, *name.split(), "--help")
    assert code == 0
    assert name in GROUPS or "--json" in out


def test_help_of_a_command_loads_no_framework() -> None:
    code = (
        "import sys; from autoresearch import cli\n"
        "for name in cli.COMMANDS: assert cli.run([name, '--help']) == 0\n"
        "assert not {'torch', 'mlx'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unknown_command_suggests_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "docter")
    assert (code, out) == (2, "")
    assert "'docter'" in err and "'doctor'" in err and "--help" in err


def test_unknown_backend_suggests_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "doctor", "--backend", "cudaa")
    assert code == 2
    assert "'cuda'" in err


def test_unknown_option_is_a_usage_error_too(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "doctor", "--jsn")
    assert code == 2
    assert "--jsn" in err


def test_errors_are_json_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "doctor", "--backend", "cudaa", "--json")
    assert (code, err) == (2, "")
    error = json.loads(out)["error"]
    assert error["exit_code"] == 2 and "cudaa" in error["message"] and error["hint"]


def test_train_outside_a_workspace_says_what_to_do(
    capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "train")
    assert code == 2
    assert "train.py" in err and "autoresearch init" in err
    (tmp_path / "train.py").write_text("")
    code, _, err = run(capsys, "train")
    assert code == 2
    assert "autoresearch.toml" in err


def test_a_typed_error_is_a_message_with_a_hint(
    capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    from autoresearch import diagnosis
    from prepare.errors import UnwritableCache

    def fail(requested: str | None) -> None:
        raise UnwritableCache("can't write /x", "set AUTORESEARCH_CACHE")

    monkeypatch.setattr(diagnosis, "diagnose", fail)
    code, out, err = run(capsys, "doctor")
    assert (code, out) == (4, "")
    assert err.splitlines()[-2:] == ["Error: can't write /x", "  set AUTORESEARCH_CACHE"]


@pytest.mark.parametrize(
    ("error", "expected"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left"), 4)]
)
def test_interrupts_and_a_full_disk_are_no_tracebacks(
    capsys: pytest.CaptureFixture[str], monkeypatch, error: BaseException, expected: int
) -> None:
    from autoresearch import diagnosis

    def fail(requested: str | None) -> None:
        raise error

    monkeypatch.setattr(diagnosis, "diagnose", fail)
    code, _, err = run(capsys, "doctor")
    assert code == expected
    assert "Traceback" not in err and "\nError: " in err


def test_an_unexpected_error_is_not_hidden(monkeypatch) -> None:
    from autoresearch import diagnosis

    def fail(requested: str | None) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(diagnosis, "diagnose", fail)
    with pytest.raises(ZeroDivisionError):
        cli.run(["doctor"])


def test_names_are_those_of_backends() -> None:
    from backends.hardware import REQUESTS
    from backends.policy import ATTENTION as KNOWN

    assert set(BACKENDS) == set(REQUESTS)
    assert set(ATTENTION) == set(KNOWN)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("1h", 3600), (" 2 m ", 120)]
)
def test_durations(text: str, seconds: float) -> None:
    assert SECONDS.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "5 days", "1e9h", "nan", "five"])
def test_wrong_durations_are_usage_errors(capsys: pytest.CaptureFixture[str], text: str) -> None:
    code, _, err = run(capsys, "train", f"--time-budget={text}")
    assert code == 2
    assert "not a duration" in err
