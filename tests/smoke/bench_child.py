"""Runs measuring jobs of `bench` in one process: python bench_child.py JOBS.json

A job is a dict: `module` is one of autoresearch.bench, `job` what its `serve` is given, `asks` what
it is asked. The answers, `ready` first, are written to the file that JOBS.json names as `out`.
"""

import contextlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from prepare.channel import ChannelClosed


class Script:
    """A channel that asks what it was told to ask, keeps the answers, and then is closed."""

    def __init__(self, asks: list[dict[str, Any]]) -> None:
        self.asks, self.answers = list(asks), []

    def receive(self) -> dict[str, Any]:
        if not self.asks:
            raise ChannelClosed("asked enough")
        return self.asks.pop(0)

    def send(self, kind: str, **fields: Any) -> None:
        self.answers.append({"kind": kind, **fields})


def main(path: str) -> None:
    work = json.loads(Path(path).read_text())
    found = []
    for one in work["jobs"]:
        script = Script(one["asks"])
        serve = importlib.import_module(f"autoresearch.bench.{one['module']}").serve
        with contextlib.suppress(ChannelClosed):
            serve(script, one["job"])
        found.append(script.answers)
    Path(work["out"]).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
