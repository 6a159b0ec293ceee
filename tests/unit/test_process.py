"""What a candidate process may inherit, what its log shows, how its end is described."""

import os
import subprocess
import sys
import time

import psutil

from prepare.logs import log_tail
from prepare.process import child_environment, describe_exit, kill_tree


def test_secrets_stay_behind_and_the_rest_goes_along(monkeypatch):
    secrets = ("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD")
    for name in (*secrets, "AUTORESEARCH_WEBHOOK"):
        monkeypatch.setenv(name, "do-not-show")
    monkeypatch.setenv("AUTORESEARCH_SOMETHING", "kept")
    environment = child_environment({"AUTORESEARCH_BACKEND": "cpu"})
    assert "do-not-show" not in environment.values()
    assert environment["AUTORESEARCH_SOMETHING"] == "kept"
    assert environment["AUTORESEARCH_BACKEND"] == "cpu"


def test_a_log_tail_has_fifty_lines_and_no_control_characters(tmp_path):
    path = tmp_path / "log"
    lines = [f"line {n}" for n in range(100)]
    path.write_bytes(
        "\n".join(lines).encode() + b"\n\x1b[31mred\x1b[0m \x07be\xc2\x9bll\nold\rnew\n\xff"
    )
    tail = log_tail(path).splitlines()
    assert len(tail) == 50
    assert tail[-3:] == ["red bell", "new", "\ufffd"]
    assert "line 99" in tail


def test_a_missing_log_is_an_empty_tail(tmp_path):
    assert log_tail(tmp_path / "none") == ""


def test_ends_are_described():
    assert "status 3" in describe_exit(3)
    assert "memory" in describe_exit(-9)
    assert "SIGSEGV" in describe_exit(-11)


def test_killing_takes_grandchildren_along():
    grandchild = "import subprocess, sys, time; "
    grandchild += "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    grandchild += "print(p.pid, flush=True); time.sleep(600)"
    parent = subprocess.Popen(
        [sys.executable, "-c", grandchild],
        stdout=subprocess.PIPE,
        start_new_session=os.name == "posix",
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    kill_tree(parent.pid)
    parent.wait(timeout=10)
    parent.stdout.close()
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the grandchild lives on")
