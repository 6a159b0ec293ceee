"""Record val_bpb and training-loss curves of many seeds and edits, for benchmarks/decisions.py.

    python benchmarks/record_noise.py [--seeds 12] [--output benchmarks/results/recorded_noise.json]

A small model on the embedded corpus with a fixed number of tokens, so that another process on
the machine costs time but changes no number. Runs already in the file are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_OUTPUT = ROOT / "benchmarks" / "results" / "recorded_noise.json"

BASE = {
    "DEPTH": "2",
    "ASPECT_RATIO": "64",
    "HEAD_DIM": "64",
    "TOTAL_BATCH_SIZE": "1024",
    "DEVICE_BATCH_SIZE": "4",
}
# Edits that an agent would try; the ones on the schedule make early losses misleading.
VARIANTS: dict[str, dict[str, str]] = {
    "baseline": {},
    "matrix_lr_half": {"MATRIX_LR": "0.02"},
    "matrix_lr_double": {"MATRIX_LR": "0.08"},
    "embedding_lr_half": {"EMBEDDING_LR": "0.3"},
    "warmdown_late": {"WARMDOWN_RATIO": "0.2"},
    "warmdown_early": {"WARMDOWN_RATIO": "0.9"},
    "warmup": {"WARMUP_RATIO": "0.3"},
    "all_lr_triple": {"MATRIX_LR": "0.12", "EMBEDDING_LR": "1.8", "UNEMBEDDING_LR": "0.012"},
    "all_lr_tenth": {"MATRIX_LR": "0.004", "EMBEDDING_LR": "0.06", "UNEMBEDDING_LR": "0.0004"},
    "full_windows": {"WINDOW_PATTERN": '"L"'},
    "rope_base": {"ROPE_BASE": "1000.0"},
    "small_batch": {"TOTAL_BATCH_SIZE": "512", "DEVICE_BATCH_SIZE": "2"},
    "large_batch": {"TOTAL_BATCH_SIZE": "4096"},
    "shallow": {"DEPTH": "1", "ASPECT_RATIO": "128"},
}


def with_constants(source: str, values: dict[str, str]) -> str:
    """The train module with these constants replaced. Raises KeyError if one is missing."""
    for name, value in values.items():
        source, count = re.subn(rf"(?m)^{name} = [^#\n]*", f"{name} = {value}  ", source, count=1)
        if not count:
            raise KeyError(f"train.py has no constant {name}")
    return source


def record(variant: dict[str, str], seed: int, token_budget: int) -> dict[str, Any]:
    """One run: its val_bpb (None when it failed) and [share of the budget, loss] points."""
    from prepare.experiment import run_experiment
    from prepare.outcome import Result
    from prepare.settings import Settings

    settings = Settings(
        preset="demo",
        corpus_bytes=4_000_000,
        vocab_size=1024,
        max_seq_len=256,
        token_budget=token_budget,
        eval_bytes=60_000,
        seed=seed,
        warmup_timeout=60.0,
    )
    curve: list[list[float]] = []

    def listen(name: str, data: dict[str, Any]) -> None:
        if name == "progress" and data["loss"] is not None:
            curve.append([round(data["tokens"] / token_budget, 5), round(data["loss"], 5)])

    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "train.py"
        source = (ROOT / "train.py").read_text(encoding="utf-8")
        script.write_text(with_constants(source, {**BASE, **variant}), encoding="utf-8")
        outcome = run_experiment(
            script, settings, backend="cpu", run_dir=Path(folder) / "run", on_event=listen
        )
    score = outcome.val_bpb if isinstance(outcome, Result) else None
    problem = "" if isinstance(outcome, Result) else f"{outcome.kind}: {outcome.message}"[:200]
    return {"seed": seed, "val_bpb": score, "problem": problem, "curve": curve}


def main() -> None:
    """Record the runs that are missing and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=12, help="seeds of the baseline")
    parser.add_argument("--variant-seeds", type=int, default=3, help="seeds of every edit")
    parser.add_argument("--tokens", type=int, default=100_000, help="training tokens of a run")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    options = parser.parse_args()
    os.environ.setdefault("AUTORESEARCH_COMPILE", "0")
    os.environ.setdefault("AUTORESEARCH_DTYPE", "float32")
    data: dict[str, Any] = {"tokens": options.tokens, "base": BASE, "edits": VARIANTS, "runs": {}}
    if options.output.is_file():
        data["runs"] = json.loads(options.output.read_text(encoding="utf-8"))["runs"]
    jobs = [("baseline", seed) for seed in range(1, options.seeds + 1)]
    jobs += [(v, s) for s in range(1, options.variant_seeds + 1) for v in VARIANTS]
    for name, seed in jobs:
        runs = data["runs"].setdefault(name, [])
        if any(run["seed"] == seed for run in runs):
            continue
        runs.append(record(VARIANTS[name], seed, options.tokens))
        print(name, seed, runs[-1]["val_bpb"], runs[-1]["problem"], len(runs[-1]["curve"]))
        options.output.write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
