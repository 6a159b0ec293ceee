"""Stands in for a coding agent: behaves well or badly, and prints what the real one would print.

python fake_agent.py AGENT BEHAVIOUR RECORD arguments...

Appends what it was given (arguments, environment, stdin, settings files) to the JSON file RECORD.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SAID = 'Done.\n{"description": "halve DEPTH", "predicted": -0.004}'
HELP = {
    "claude": "-p --output-format --tools --permission-mode --settings --setting-sources "
    "--strict-mcp-config --no-session-persistence --max-budget-usd --model",
    "codex": "--json -o --sandbox -C --skip-git-repo-check --ephemeral --ignore-user-config "
    "--ignore-rules -c -m",
    "gemini": "-p -o --approval-mode --skip-trust --policy -m",
    "opencode": "--format -m",
    "aider": "--message-file --yes-always --no-auto-commits --no-dirty-commits "
    "--no-suggest-shell-commands --no-detect-urls --no-check-update --no-stream --no-pretty "
    "--map-tokens --no-gitignore --no-show-release-notes --no-show-model-warnings "
    "--analytics-disable --subtree-only --input-history-file --chat-history-file --model --file",
    "cursor": "-p --force --trust --output-format --sandbox --workspace --model",
    "qwen": "-p --output-format --approval-mode --max-session-turns --model",
    "goose": "-i --no-session --max-turns --with-builtin --model",
}


def print_result(agent: str, message: str, error: str) -> None:
    """In the agent's own format: 1,200 tokens in, 34 out, 0.05 dollars where it tells dollars."""
    if agent in ("claude", "qwen", "cursor"):
        result = {
            "type": "result",
            "subtype": "error_during_execution" if error else "success",
            "is_error": bool(error),
            "result": error or message,
            "usage": {
                "input_tokens": 200,
                "cache_read_input_tokens": 1000,
                "output_tokens": 34,
            },
        }
        if agent == "claude":
            result["total_cost_usd"] = 0.05
        print(json.dumps([{"type": "system"}, result] if agent == "qwen" else result))
    elif agent == "codex":
        print(json.dumps({"type": "thread.started", "thread_id": "0"}))
        item = {"id": "item_0", "type": "agent_message", "text": message}
        print(json.dumps({"type": "item.completed", "item": item}))
        if error:
            print(json.dumps({"type": "turn.failed", "error": {"message": error}}))
        else:
            usage = {"input_tokens": 1200, "cached_input_tokens": 1000, "output_tokens": 34}
            print(json.dumps({"type": "turn.completed", "usage": usage}))
    elif agent == "gemini":
        tokens = {"prompt": 1200, "candidates": 30, "thoughts": 4, "total": 1234}
        stats = {"models": {"some-model": {"tokens": tokens}}}
        if error:
            print("a line of log", file=sys.stderr)
            print(
                json.dumps({"error": {"type": "Error", "message": error}}, indent=2),
                file=sys.stderr,
            )
        else:
            print(json.dumps({"response": message, "stats": stats}, indent=2))
    elif agent == "opencode":
        print(json.dumps({"type": "text", "part": {"text": message}}))
        if error:
            data = {"name": "APIError", "data": {"message": error}}
            print(json.dumps({"type": "error", "error": data}))
        for cost in (0.02, 0.03):
            tokens = {"input": 100, "output": 17, "cache": {"read": 500, "write": 0}}
            print(json.dumps({"type": "step_finish", "part": {"cost": cost, "tokens": tokens}}))
    elif agent == "aider":
        print(error or message)
        print("Tokens: 1.2k sent, 34 received. Cost: $0.05 message, $0.05 session.")
    else:
        print(error or message)


def edit(path: str = "train.py") -> None:
    text = Path(path).read_text(encoding="utf-8")
    Path(path).write_text(text.replace("DEPTH = 8", "DEPTH = 4"), encoding="utf-8")


def behave(agent: str, behaviour: str) -> int:
    if behaviour == "edits":
        edit()
        print_result(agent, SAID, "")
    elif behaviour == "edits_too_much":
        edit()
        Path("prepare.py").write_text("cheat = True\n")
        Path("sitecustomize.py").write_text("")
        with Path("train.py").open("a") as file:
            file.write("# more\n" * 5000)
        print_result(agent, SAID, "")
    elif behaviour == "edits_elsewhere":
        Path("prepare.py").write_text("cheat = True\n")
        print_result(agent, SAID, "")
    elif behaviour == "edits_nothing":
        print_result(agent, "I have looked at the file and it is fine.", "")
    elif behaviour == "hangs":
        edit()
        linger(10_000)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(10_000)
    elif behaviour == "leaves_children":
        edit()
        linger(10_000)
        print_result(agent, SAID, "")
    elif behaviour == "floods":
        block = "x" * 65_536 + "\n"
        while True:
            sys.stdout.write(block)
    elif behaviour == "fails_with_0":
        print_result(agent, "", "Credit balance is too low \x1b[31m(red)\x1b[0m")
    elif behaviour == "fails_with_1":
        print("no key", file=sys.stderr)
        return 41
    elif behaviour == "dies":
        edit()
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGSEGV if hasattr(signal, "SIGSEGV") else signal.SIGTERM)
    elif behaviour == "asks":
        print("May I edit train.py? [y/N]", flush=True)
        answer = sys.stdin.readline()
        if answer.strip() == "y":
            edit()
        print_result(agent, f"You answered {answer!r}.", "")
    elif behaviour == "babbles":
        edit()
        print("\udcff not JSON {".encode("utf-8", "surrogateescape"))
    return 0


def linger(seconds: int) -> None:
    """A child in a session of its own, as a daemon would be, and one in our group."""
    sleeper = [sys.executable, "-c", f"import time; time.sleep({seconds})"]
    for apart in (True, False):
        subprocess.Popen(sleeper, start_new_session=apart)


def main() -> int:
    agent, behaviour, record, *arguments = sys.argv[1:]
    if "--version" in arguments:
        print(f"{agent} 1.2.3 (fake)")
        return 0
    if "--help" in arguments:
        known = HELP[agent]
        print("options:\n " + (known.rpartition(" ")[0] if behaviour == "old" else known))
        return 0
    files = {}
    for argument in arguments:
        path = Path(argument)
        if path.is_absolute() and path.is_file():
            files[path.name] = path.read_text(encoding="utf-8")
    for name, value in os.environ.items():
        if name.endswith(("SETTINGS_PATH", "CONFIG_DIR")):
            place = Path(value)
            for path in [place] if place.is_file() else sorted(place.glob("*.json")):
                files[path.name] = path.read_text(encoding="utf-8")
    given = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "stdin": "" if behaviour == "asks" else sys.stdin.read(),
        "cwd": os.getcwd(),
        "files": files,
    }
    Path(record).write_text(json.dumps(given), encoding="utf-8")
    return behave(agent, behaviour)


if __name__ == "__main__":
    sys.exit(main())
