"""What the workers of a test cluster measure: whatever the program's do.json asks for."""

import json
import os
import time
from pathlib import Path

from autoresearch.engine.trial import Replicate
from prepare.errors import DiskFull


class Asked:
    def __init__(self, spec, company):
        self.spec, self.company, self.earlier = spec, company, 0

    def remember(self, runs):
        self.earlier = len(list(runs))

    def measure(self, request):
        ask = json.loads((request.folder / "do.json").read_text())
        request.run_dir.mkdir(parents=True)
        for number in range(ask.get("events", 0)):
            request.on_event("progress", {"number": number})
        if "problem" in ask:
            raise DiskFull("no space left on the node's disk", "free some")
        if "note" in ask:  # how often it was begun, and by which process
            with open(ask["note"], "a") as note:
                note.write(f"{os.getpid()}\n")
            begun = len(Path(ask["note"]).read_text().split())
            if begun <= ask.get("dies", 0):
                os._exit(9)
            if begun <= ask.get("hangs", 0):
                time.sleep(60)
        time.sleep(ask.get("sleep", 0))
        (request.run_dir / "log.txt").write_text("done")
        (request.run_dir / "result.json").write_text(json.dumps({"run_dir": str(request.run_dir)}))
        if "large" in ask:
            (request.run_dir / "weights.bin").write_bytes(bytes(range(256)) * (ask["large"] // 256))
        details = {
            "run_dir": str(request.run_dir),
            "pid": os.getpid(),
            "cache": os.environ.get("AUTORESEARCH_CACHE"),
            "dtype": os.environ.get("AUTORESEARCH_DTYPE"),
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "program": __import__("autoresearch").__file__,
            "company": list(self.company()),
            "earlier": self.earlier,
            "corpus": self.spec["settings"]["corpus"],
            "canary": 1.0,
        }
        return Replicate(request.seed, float(request.seed), details=details)


KINDS = {"asked": Asked}
