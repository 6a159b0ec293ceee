"""Stand-ins for sbatch, srun, scontrol, ray and autoresearch: a submission script really runs.

    install(folder)        # commands of those names, to be put first on PATH

sbatch and srun know the options that Slurm's manual gives them and refuse others. Each call is one
line of JSON in `$FAKE_LOG`: who, where, the arguments, the environment that matters. `ray start`
listens where the head would and stays until it is ended; what `autoresearch run` does is
`$FAKE_STUDY`: an exit code, or `stay` until a signal comes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "scontrol", "ray", "autoresearch")
SBATCH = {
    "account", "cpus-per-task", "gpus-per-node", "job-name", "mem", "no-kill", "nodes",
    "ntasks-per-node", "open-mode", "output", "partition", "requeue", "signal", "time",
}  # fmt: skip
SRUN = {
    "cpus-per-task", "exclude", "kill-on-bad-exit", "nodelist", "nodes", "ntasks",
    "ntasks-per-node", "overlap",
}  # fmt: skip
SHOWN = ("FAKE_NODE", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "SLURM_JOB_ID", "SLURM_GPUS_PER_NODE")


def install(folder: Path) -> None:
    """Make the commands in `folder`."""
    for name in COMMANDS:
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{__file__}" {name} "$@"\n')
        command.chmod(0o755)


def note(who: str, args: list[str], **more: object) -> None:
    """One line in the log."""
    shown = {name: os.environ[name] for name in SHOWN if name in os.environ}
    line = json.dumps({"who": who, "args": args, "environment": shown, **more}) + "\n"
    with open(os.environ["FAKE_LOG"], "a") as log:
        log.write(line)


def options(args: list[str], known: set[str]) -> tuple[dict[str, str], list[str]]:
    """`--name=value` options, and what comes behind them. Exits for one that isn't known."""
    found: dict[str, str] = {}
    for at, word in enumerate(args):
        match = re.fullmatch(r"--([a-z-]+)(?:=(.*))?", word)
        if match is None:
            return found, args[at:]
        if match[1] not in known:
            sys.exit(f"unrecognized option '{word}'")
        found[match[1]] = match[2] or ""
    return found, []


def sbatch(args: list[str]) -> int:
    """Run the script as slurmd would on the first node, in an environment like Slurm's."""
    asked, (script, *rest) = options(args, SBATCH)
    head = Path(script).read_text().split("\nset -", 1)[0]
    lines = re.findall(r"^#SBATCH (.+)$", head, re.M)
    given = {**options(lines, SBATCH)[0], **asked}
    nodes = int(given["nodes"])
    os.environ |= {
        "SLURM_JOB_ID": os.environ["FAKE_JOB"],
        "SLURM_SUBMIT_DIR": os.getcwd(),
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_JOB_NODELIST": f"127.0.0.[1-{nodes}]",
        "SLURM_CPUS_PER_TASK": given["cpus-per-task"],
        "FAKE_NODE": "127.0.0.1",
    }
    if "gpus-per-node" in given:
        os.environ["SLURM_GPUS_PER_NODE"] = given["gpus-per-node"]
    note("sbatch", args, given=given)
    os.execvp("bash", ["bash", script, *rest])


def hosts() -> list[str]:
    return [f"127.0.0.{n}" for n in range(1, int(os.environ["SLURM_JOB_NUM_NODES"]) + 1)]


def srun(args: list[str]) -> int:
    """A task a node; a signal goes on to all, as srun's does."""
    asked, command = options(args, SRUN)
    places = [
        host
        for host in hosts()
        if host in asked.get("nodelist", host).split(",")
        and host not in asked.get("exclude", "").split(",")
    ][: int(asked["nodes"])]
    assert len(places) == int(asked["nodes"]) == int(asked["ntasks"]), (asked, places)
    note("srun", args)
    tasks = [subprocess.Popen(command, env={**os.environ, "FAKE_NODE": each}) for each in places]
    signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
    return max(task.wait() for task in tasks)


def scontrol(args: list[str]) -> int:
    """`show hostnames`: names that this machine resolves."""
    assert args[:2] == ["show", "hostnames"], args
    print("\n".join(hosts()))
    return 0


def ray(args: list[str]) -> int:
    """`ray start --block`, the head's with a socket that answers."""
    note("ray", args)
    if os.environ.get("FAKE_RAY") == "fails":
        return 1
    words = dict(word.partition("=")[::2] for word in args)
    with socket.socket() as listening:
        if "--head" in words:
            listening.bind((words["--node-ip-address"], int(words["--port"])))
            listening.listen()
        stay("ray ended", args)
    return 0


def autoresearch(args: list[str]) -> int:
    """`cluster wait` tries the head's address once a moment; `run` does as it was told."""
    if args[:1] == ["run"]:
        wait_for_workers()  # as a study waits for devices; on a busy machine they come late
    note("autoresearch", args)
    if args[:2] == ["cluster", "wait"]:
        host, port = args[2].split(":")
        for _ in range(100 if os.environ.get("FAKE_RAY") != "fails" else 3):
            try:
                socket.create_connection((host, int(port))).close()
                return 0
            except OSError:
                time.sleep(0.05)
        return 4
    told = os.environ["FAKE_STUDY"]
    if told == "stay":
        stay("study ended", args)
        return 143
    return int(told)


def wait_for_workers() -> None:
    """Until every node but the first has joined, or twenty seconds."""
    for _ in range(400):
        calls = map(json.loads, Path(os.environ["FAKE_LOG"]).read_text().splitlines())
        joined = [each for each in calls if each["who"] == "ray" and "--head" not in each["args"]]
        if len(joined) >= int(os.environ.get("SLURM_JOB_NUM_NODES", 1)) - 1:
            return
        time.sleep(0.05)


def stay(word: str, args: list[str]) -> None:
    """Until SIGTERM."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    for _ in range(600):
        if stopped:
            break
        time.sleep(0.05)
    note(word if stopped else "left behind", args)


if __name__ == "__main__":
    name, *given = sys.argv[1:]
    sys.exit(globals()[name](given))
