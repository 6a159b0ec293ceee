"""`autoresearch doctor --report`: useful, and with nothing of who and where in it."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

from autoresearch import bug_report, cli, diagnosis
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.trial import Failure, Replicate, Trial, TrialStatus
from autoresearch.init import make_workspace
from autoresearch.private import Private
from prepare.settings import Settings
from tests.unit.command_line import run

HOST = "orchid-lab-7"
SECRETS = (
    "hf_" + "a1B2" * 8,
    "sk-proj-" + "Zz9" * 9,
    "ghp_" + "q7" * 18,
    "wandb-very-private-value",
)
REMOTE = f"https://ada:{SECRETS[2]}@git.lovelace.example/ada/hidden-project.git"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, a user, a machine and a workspace, all with names of their own."""
    home = tmp_path / "Users" / "adalovelace"
    (home / "cache").mkdir(parents=True)
    for name, value in {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "USER": "adalovelace",
        "LOGNAME": "adalovelace",
        "HOSTNAME": f"{HOST}.lovelace.example",
        "AUTORESEARCH_CACHE": str(home / "cache"),
        "AUTORESEARCH_MIRROR": f"https://ada:{SECRETS[3]}@mirror.lovelace.example/hub",
        "HF_TOKEN": SECRETS[0],
        "CUDA_AUTH_TOKEN": SECRETS[1],
        "WANDB_API_KEY": SECRETS[3],
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    (home / ".gitconfig").write_text(
        "[user]\nname = Augusta King\nemail = augusta@lovelace.example\n"
    )
    return home


LOG = f"""Traceback (most recent call last):
  File "/work space of mine/quiet-idea/train.py", line 7, in <module>
    load("/data/embargoed-corpus/shard-01.bin", token="{SECRETS[1]}")
ConnectionError: https://u:{SECRETS[0]}@10.20.30.40:8443/api?key={SECRETS[2]} from {HOST}
adalovelace@{HOST}.lovelace.example: D:\\work\\embargoed\\notes.txt and api_key = hunter2hunter2
"""


@pytest.fixture
def workspace(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study whose last crash, settings and remote hold all that must not be told."""
    folder = home / "hush-hush"
    settings = Settings(corpus=str(home / "embargoed-corpus"), time_budget=77.0)
    make_workspace(folder, {"train.py": "X = 1\n", "autoresearch.toml": settings.dumps()}, "begin")
    for arguments in (["remote", "add", "skunkworks", REMOTE],):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    ledger = Ledger(folder / "results.jsonl")
    ledger.append({"kind": "study", "tag": "mar5"})
    failure = Failure("training", "exception", f"can't read {home}/hush-hush/train.py", LOG)
    idea = "an idea nobody shall know"
    for number, status in enumerate(("keep", "crash")):
        runs = (Replicate(0, None if number else 2.0, failure=failure if number else None),)
        parent = 0 if number else None
        ledger.append_trial(
            Trial(number, parent, TrialStatus(status), "r", description=idea, replicates=runs)
        )
    monkeypatch.chdir(folder)
    return folder


FOUND = {
    "hardware": {"backend": "cuda", "name": "RTX 4090", "driver": "580.1", "memory_bytes": 2**34},
    "passed_over": [{"backend": "mlx", "reason": "not Apple's", "hint": "see {cache}/probes"}],
    "policy": {"compute_dtype": "bfloat16", "reasons": {"compute_dtype": "53.1 ms"}},
    "probes": {"cuda attention": {"flash": "1.2 ms"}},
    "peak_flops": {"value": 1.65e14, "source": "datasheet"},
    "checks": [{"name": "cache", "ok": False, "says": "{cache} can't be written"}],
}


@pytest.fixture
def report(workspace: Path, home: Path, capsys, monkeypatch) -> str:
    """Made after a command failed unexpectedly."""
    text = json.dumps(FOUND).replace("{cache}", str(home / "cache"))
    monkeypatch.setattr(diagnosis, "diagnose", lambda requested: json.loads(text))

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError(f"{home}/hush-hush/program.md, {REMOTE}")

    with monkeypatch.context() as broken:
        broken.setattr("autoresearch.opening.open_study", fail)
        with pytest.raises(ZeroDivisionError):
            cli.run(["show", "1", "--dir", str(workspace)])
    code, out, _ = run(capsys, "doctor", "--report")
    assert code == 0
    return out


def test_nothing_private_is_in_it(report: str, home: Path) -> None:
    private = [
        *SECRETS,
        *(str(home), "adalovelace", "Augusta", "augusta", "lovelace", HOST, "orchid"),
        *("hush-hush", "embargoed", "quiet-idea", "skunkworks", "hidden-project", "hunter2"),
        *("10.20.30.40", "nobody shall know", "mirror.", "ada:", "notes.txt", "of mine"),
    ]
    assert not [words for words in private if words in report], report


def test_what_helps_is_in_it(report: str) -> None:
    for words in (
        *("torch", "python", "RTX 4090", "580.1", "53.1 ms", "not Apple's", "1.65e+14 FLOPS"),
        *("WRONG", "can't be written", "experiment.time_budget | 77.0", "1 crash"),
        *("trial 1: training: exception", "train.py", "ConnectionError", "ZeroDivisionError"),
        *("`autoresearch show`", "<autoresearch>/autoresearch/cli.py", "Read this before"),
        "CUDA_AUTH_TOKEN | set",
    ):
        assert words in report, words


def test_addresses_of_both_kinds_and_paths_with_spaces() -> None:
    hide = Private({"/h/ada": "~"}, {}, ())
    for private in (
        *("fe80::1ff:fe23:4567:890a", "2001:DB8:85a3::8a2e:370:7334", "::ffff:10.1.2.3"),
        *("2001:0db8:0:0:0:ff00:42:8329", "64:ff9b::a01:203"),
    ):
        told = hide(f"from [{private}]:443, or {private}.")
        assert told == "from [<address>]:443, or <address>."
    usual = "at 12:34:56 of x[1::2], y[::2], ::1 and std::vector, 3.5 s for 1 / 2"
    assert hide(usual) == usual
    for text, told in {
        "can't open /mnt/My Quiet Plan/run one/train.py: gone": "can't open /.../train.py: gone",
        "no file /mnt/nas/quiet corpus of mine.txt, in 3 s": "no file /..., in 3 s",
        "in ~/My Quiet Plan/x.log now": "in ~/.../*.log now",
        r"in C:\Users\Ada Lovelace\Quiet Plan\a.bin": "in ~/...",
        "read /mnt/a/b and /mnt/c/d in 3.5 s": "read /... and /... in 3.5 s",
        "/data/x done at 12 or so (1/2)": "/... done at 12 or so (1/2)",
    }.items():
        assert hide(text) == told


def test_it_is_told_without_a_workspace_or_hardware(
    home: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    from backends.errors import BackendError

    def fail(requested: str | None) -> None:
        raise BackendError(f"no driver in {home}/lib")

    monkeypatch.setattr(diagnosis, "diagnose", fail)
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "doctor", "--report", "--json")
    text = json.loads(out)["markdown"]
    assert code == 0 and "no driver in ~/..." in text and "none is known" in text
    assert "## Workspace" not in text


def test_a_known_error_is_remembered_and_words_typed_are_not(home: Path, capsys) -> None:
    run(capsys, "show", "3", "--dir", str(home / "nowhere-to-be-told"))
    kept = json.loads((home / "cache" / bug_report.LAST_ERROR).read_text())
    assert (
        kept["command"] == "show" and kept["exit_code"] == 2 and "UsageError" in kept["traceback"]
    )
    run(capsys, "docter")
    again = json.loads((home / "cache" / bug_report.LAST_ERROR).read_text())
    assert again == kept, "a mistyped command is no error of ours"


@pytest.mark.parametrize("dir_", ["quiet-idea", "../quiet-idea/deep", "quiet-idea/deep-hush/"])
def test_a_folder_that_was_typed_is_not_told(
    home: Path, tmp_path: Path, capsys, monkeypatch, dir_: str
) -> None:
    """By its relative name, which a message repeats as it was typed."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(diagnosis, "diagnose", lambda requested: FOUND)
    assert "quiet-idea" in run(capsys, "show", "3", "--dir", dir_)[2]
    _, report, _ = run(capsys, "doctor", "--report")
    assert "`autoresearch show`" in report
    assert "quiet" not in report and "hush" not in report


def test_words_that_are_no_paths_stay(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    typed = ["run", "--agent", "claude", "--to=out/deep", "mine", "/srv/x", "--dir=secret"]
    text = "run claude: mine-too, mine, out, deep/x, srv, secret"
    expected = "run claude: mine-too, <path>, <path>, <path>/x, srv, <path>"
    assert bug_report.without_names(text, typed) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/eve/x/train.py", "~/.../train.py"),
        (r"C:\Users\Eve\secret\run.py", "~/.../*.py"),
        ("/usr/lib/libcuda.so.1 and /dev/nvidia0", "/usr/lib/libcuda.so.1 and /dev/nvidia0"),
        ("/venv/lib/python3.12/site-packages/torch/x.py", "<packages>/torch/x.py"),
        ("https://huggingface.co/me/private", "https://huggingface.co/..."),
        ("git@git.example:me/it.git", "<remote>"),
        ("127.0.0.1 is here, 192.168.1.7 isn't", "127.0.0.1 is here, <address> isn't"),
        ("aa:bb:cc:dd:ee:0f", "<address>"),
        ("1/2 of the steps, loss 3.5/4", "1/2 of the steps, loss 3.5/4"),
    ],
)
def test_what_is_hidden_and_what_is_not(text: str, expected: str) -> None:
    assert Private({}, {})(text) == expected
