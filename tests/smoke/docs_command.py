"""`autoresearch` as the documentation's blocks call it in tests: a workspace that it makes is tiny.

All else is the command itself. What a reader gets by `init` trains for 40 seconds and more; here
it learns a few rows of bytes, and one run decides.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from autoresearch import cli
from tests.smoke.tiny import TINY

SIZES = {**TINY, "TOTAL_BATCH_SIZE": 128, "DEVICE_BATCH_SIZE": 4}
TASK = '\n[task]\npolicy = {name = "greedy", noise_seeds = 1}\n'


def shrink(folder: Path) -> None:
    """Make a workspace's study one of seconds, and commit that."""
    from autoresearch.engine.constants import apply_constants
    from prepare.settings import FILE_NAME, Settings

    settings = Settings(
        corpus_bytes=100_000, vocab_size=256, max_seq_len=32, token_budget=2_048, eval_bytes=2_000
    )
    (folder / FILE_NAME).write_text(settings.dumps() + TASK, encoding="utf-8")
    script = folder / "train.py"
    text = apply_constants(script.read_text(encoding="utf-8"), SIZES)
    script.write_text(text, encoding="utf-8")
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", *who, "commit", "-qam", "Tiny"], cwd=folder, check=True)


def main(args: list[str]) -> int:
    """Run the command; after an `init DIR` make what it made tiny."""
    code = cli.run(args)
    if code == 0 and args[:1] == ["init"]:
        shrink(Path(args[1]))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
