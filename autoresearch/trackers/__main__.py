"""The tracker's process: `python -m autoresearch.trackers NAME FOLDER STUDY`.

A trial per line of JSON comes in, an answer per line goes out: {"problem": ""} or what went wrong.
Whatever the tracker prints goes to standard error, which is its log; if it asks for something, it
hears nothing.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from autoresearch.trackers import TrackedTrial, find_tracker


def main() -> None:
    """Until no more trials come."""
    name, place, study = sys.argv[1:]
    trials = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    with open(os.devnull, encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    if hasattr(os, "nice"):
        os.nice(19)  # trials are being timed
    tracker = None
    for line in trials:
        problem = ""
        try:
            tracker = tracker or find_tracker(name).make(Path(place), study)
            tracker.trial(TrackedTrial.from_dict(json.loads(line)))
        except Exception as error:  # noqa: BLE001 - of a package that isn't ours; it is told
            traceback.print_exc()
            problem = type(error).__name__  # its text may hold a key, and stays in the log
        answers.write(json.dumps({"problem": problem}) + "\n")
    if tracker is not None:
        tracker.close()


if __name__ == "__main__":
    main()
