"""Times top_words() of PROGRAM/fast.py against the reference, and compares their answers.

    python stopwatch.py PROGRAM SEED

Each runs in a process of its own; the clock is here, around question and answer. The questions are
many, alike and short, and the fastest counts: other programs on the machine then hardly change it.
No question is asked twice of one process, so nothing is gained by remembering. The candidate isn't
running while the reference is timed, before and after it. It runs as the same user as this: so that
it can't write into this process, clock and all, Linux is told to keep others out.
"""

import ast
import ctypes
import json
import random
import subprocess
import sys
import time
from pathlib import Path

PR_SET_DUMPABLE = 4  # include/uapi/linux/prctl.h; 0 closes /proc/PID/mem and /proc/PID/fd
ROUNDS, WORDS = 60, 1_000
LETTERS = "abcdefghijklmnopqrstuvwxyzäöüéß"
EDGES = ["", " ", "one", "One one ONE", "a-b_c d2e", "x² y½ z", "end.", "İstanbul ﬁne ǅ"]


def questions(seed: int) -> list[dict]:
    """Texts of words with a few frequent ones among many; odd ones first."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(LETTERS, k=draw.randint(1, 9))) for _ in range(500)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    asked = [{"text": text, "n": 3} for text in EDGES]
    for _ in range(ROUNDS):
        chosen = draw.choices(words, weights, k=WORDS)
        forms = [draw.choice((w, w, w.title(), w.upper())) for w in chosen]
        text = "".join(f + draw.choice((" ", " ", ", ", "\n", " 7 ", "-")) for f in forms)
        asked.append({"text": text, "n": draw.randint(1, 60)})
    return asked


def run(module: Path, asked: list[dict]) -> tuple[float, list]:
    """The fastest answer's seconds, and all answers, by a process of its own."""
    worker = subprocess.Popen(
        [sys.executable, "-I", "worker.py", str(module)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    seconds, answers = [], []
    try:
        for question in asked:
            line = json.dumps(question) + "\n"
            began = time.perf_counter()
            worker.stdin.write(line)
            worker.stdin.flush()
            answer = worker.stdout.readline()
            seconds.append(time.perf_counter() - began)
            answers.append(json.loads(answer))
    except (BrokenPipeError, ValueError):
        pass  # it died, or said what is no answer: too few answers are wrong answers
    finally:
        worker.kill()
        worker.wait()
    return min(seconds[len(EDGES) :], default=1.0), answers


def code_lines(source: str) -> int:
    """Lines of code as Python would write them: layout and comments count for nothing."""
    return len(ast.unparse(ast.parse(source)).splitlines())


if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
program, seed = Path(sys.argv[1]), int(sys.argv[2])
asked = questions(seed)
reference = Path("reference.py").resolve()
before, truth = run(reference, asked)
candidate, answers = run(program / "fast.py", asked)
after, _ = run(reference, asked)

right = sum(one == other for one, other in zip(answers, truth, strict=False))
wrong = len(truth) - right
# What didn't answer everything has no time; its wrong answers say so.
ratio = candidate / min(before, after) if len(answers) == len(asked) else 1.0
metrics = {"wrong_answers": wrong, "code_lines": code_lines((program / "fast.py").read_text())}
print(json.dumps({"time_ratio": ratio, "metrics": metrics}))
