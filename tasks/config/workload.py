"""Measures the settings in PROGRAM/store.py on a log store with records drawn by SEED.

    python workload.py PROGRAM SEED

space is what is stored as a share of the records as they are; the same settings give the same.
read_ratio is the time of reading records here and there, as a share of what it takes with
REFERENCE, in the same run.
"""

import ast
import json
import random
import sys
import time
import zlib
from pathlib import Path

ALLOWED = {
    "BLOCK_RECORDS": (1, 100_000),
    "LEVEL": (0, 9),
    "WINDOW_BITS": (9, 15),
    "MEMORY_LEVEL": (1, 9),
}
REFERENCE = {"BLOCK_RECORDS": 8, "LEVEL": 6, "WINDOW_BITS": 15, "MEMORY_LEVEL": 8}
RECORDS, READS, PASSES = 4_000, 40, 60


def records(seed: int) -> list[bytes]:
    """Lines as a web service logs them."""
    draw = random.Random(seed)
    paths = [f"/api/v1/{draw.choice('uopi')}{draw.randint(1, 400)}" for _ in range(120)]
    agents = [f"client/{draw.randint(1, 9)}.{draw.randint(0, 30)} (python)" for _ in range(25)]
    clock, lines = 1_700_000_000.0, []
    for _ in range(RECORDS):
        clock += draw.expovariate(3)
        line = {
            "time": round(clock, 3),
            "path": paths[min(int(draw.expovariate(0.05)), 119)],
            "status": draw.choices((200, 304, 404, 500), (90, 6, 3, 1))[0],
            "agent": draw.choice(agents),
            "id": f"{draw.getrandbits(48):012x}",
        }
        lines.append(json.dumps(line).encode())
    return lines


def settings(source: str) -> dict[str, int]:
    """The constants, or {} where one is missing, no whole number, or out of its range."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found[getattr(node.targets[0], "id", "")] = node.value.value
    for name, (low, high) in ALLOWED.items():
        value = found.get(name)
        if type(value) is not int or not low <= value <= high:
            return {}
    return {name: found[name] for name in ALLOWED}


def store(lines: list[bytes], chosen: dict[str, int]) -> list[bytes]:
    """The records in compressed blocks."""
    size, blocks = chosen["BLOCK_RECORDS"], []
    for at in range(0, len(lines), size):
        packer = zlib.compressobj(
            chosen["LEVEL"], zlib.DEFLATED, chosen["WINDOW_BITS"], chosen["MEMORY_LEVEL"]
        )
        blocks.append(packer.compress(b"\n".join(lines[at : at + size])) + packer.flush())
    return blocks


def seconds(blocks: list[bytes], size: int, wanted: list[int]) -> float:
    """To read these records, the fastest of several passes."""
    passes = []
    for _ in range(PASSES):
        began = time.perf_counter()
        for record in wanted:
            zlib.decompress(blocks[record // size]).split(b"\n")[record % size]
        passes.append(time.perf_counter() - began)
    return min(passes)


program, seed = Path(sys.argv[1]), int(sys.argv[2])
chosen = settings((program / "store.py").read_text(encoding="utf-8"))
if not chosen:
    print(json.dumps({"space": 1.0, "metrics": {"invalid": 1, "read_ratio": 1}}))
    sys.exit()
lines = records(seed)
wanted = random.Random(seed + 1).choices(range(RECORDS), k=READS)
blocks = store(lines, chosen)
usual = store(lines, REFERENCE)
ratio = seconds(blocks, chosen["BLOCK_RECORDS"], wanted) / seconds(usual, 8, wanted)
space = sum(map(len, blocks)) / sum(map(len, lines))
print(json.dumps({"space": space, "metrics": {"invalid": 0, "read_ratio": ratio}}))
