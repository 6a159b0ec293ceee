"""What a preset's five minutes give, beside the plain model at two other settings.

    python benchmarks/presets.py                                    # 18 minutes of an idle machine
    python benchmarks/presets.py --preset cpu-tinystories --text FILE --repeats 3
    python benchmarks/presets.py --vocab-size 4096      # and the preset with this vocabulary

Every run is `autoresearch train`: the same machine, text and seconds, the exact val_bpb of the same
validation text, which is per byte and so doesn't depend on the vocabulary. The settings take turns;
each repeat has a seed of its own. The plain model is reference/plain.py.

- "fork": what the macOS fork of upstream trains (depth 4, rows of 2,048, a vocabulary of 8,192,
  65,536 tokens a step, no windows), in eager bf16.
- "well set": rows of 512, a vocabulary of 4,096, 2,048 tokens a step, bf16, compiled.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import backends
from autoresearch.bench.conditions import Conditions
from autoresearch.bench.loop import PROGRAM, environment
from autoresearch.bench.variants import reference_path
from autoresearch.constants import apply_constants
from autoresearch.preset import load_preset
from autoresearch.workspace_files import seed_path
from prepare.settings import FILE_NAME, Settings

RESULTS = Path(__file__).resolve().parent / "results"
CORPUS_BYTES = 20_000_000
EVAL_BYTES = 400_000
SHOWN = ("val_bpb", "tokens", "num_steps", "tokens_per_second", "num_params", "total_seconds")
PLAIN = {"DEPTH": 4, "ASPECT_RATIO": 64, "HEAD_DIM": 64}


@dataclass(frozen=True)
class Setting:
    """A train module's constants, what of the experiment goes with them, and how it computes."""

    source: Path
    constants: dict[str, Any]
    vocab_size: int
    max_seq_len: int
    environment: dict[str, str] = field(default_factory=dict)


def settings_for(preset: str, vocab_size: int | None = None) -> dict[str, Setting]:
    """The plain ones and the preset's, by name; with `vocab_size` the preset with that, too."""
    plain = reference_path("plain.py")
    fork = {"TOTAL_BATCH_SIZE": 65536, "DEVICE_BATCH_SIZE": 16, "WINDOW_PATTERN": "L"}
    well_set = {"TOTAL_BATCH_SIZE": 2048, "DEVICE_BATCH_SIZE": 4, "WINDOW_PATTERN": "SSSL"}
    bf16 = {"AUTORESEARCH_DTYPE": "bfloat16", "AUTORESEARCH_ATTENTION": "sdpa"}
    ours = load_preset(preset)
    settings = {
        "fork": Setting(
            plain, {**PLAIN, **fork}, 8192, 2048, {**bf16, "AUTORESEARCH_COMPILE": "0"}
        ),
        "well set": Setting(
            plain, {**PLAIN, **well_set}, 4096, 512, {**bf16, "AUTORESEARCH_COMPILE": "1"}
        ),
        preset: Setting(
            seed_path("train.py"), ours.train, ours.settings.vocab_size, ours.settings.max_seq_len
        ),
    }
    if vocab_size is not None:
        name = f"{preset} V{vocab_size}"
        settings[name] = replace(settings[preset], vocab_size=vocab_size)
    return settings


def train(setting: Setting, folder: Path, text: str, seconds: float, seed: int) -> dict[str, Any]:
    """One run's result. Raises RuntimeError with what it printed if it failed."""
    folder.mkdir(parents=True, exist_ok=True)
    source = setting.source.read_text(encoding="utf-8")
    script = folder / "train.py"
    script.write_text(apply_constants(source, setting.constants), encoding="utf-8")
    experiment = Settings(
        corpus=text,
        corpus_bytes=CORPUS_BYTES,
        vocab_size=setting.vocab_size,
        max_seq_len=setting.max_seq_len,
        time_budget=seconds,
        eval_bytes=EVAL_BYTES,
        seed=seed,
        score_timeout=1800,
    )
    (folder / FILE_NAME).write_text(experiment.dumps(), encoding="utf-8")
    done = subprocess.run(
        [*PROGRAM, "train", "--json"],
        cwd=folder,
        env={**environment(), **setting.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    results = [event for event in events if event.get("event") == "result"]
    if done.returncode != 0 or not results:
        raise RuntimeError(f"a run in {folder} failed: {(done.stderr or done.stdout)[-500:]}")
    return results[-1]


def summary(rows: list[dict[str, Any]], preset: str) -> dict[str, float]:
    """The median val_bpb of each setting, and by what part the preset's is lower."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["setting"], []).append(row["val_bpb"])
    medians = {name: statistics.median(values) for name, values in scores.items()}
    ours = medians.get(preset)
    if ours is None:
        return medians
    lower = {f"below {name}": 1 - ours / m for name, m in medians.items() if name != preset}
    return {**medians, **lower}


def measure(
    settings: dict[str, Setting], text: str, seconds: float, repeats: int
) -> Iterator[dict[str, Any]]:
    """A row for each run, as it ends."""
    with tempfile.TemporaryDirectory(prefix="autoresearch-presets-") as place:
        for seed in range(1, repeats + 1):
            for name, setting in settings.items():
                folder = Path(place) / f"{name.replace(' ', '-')}-{seed}"
                with Conditions(backends.select("cpu").hardware) as conditions:
                    result = train(setting, folder, text, seconds, seed)
                row = {"setting": name, "seed": seed, **{key: result[key] for key in SHOWN}}
                yield {**row, "conditions": conditions.to_dict()}


def main() -> None:
    """Run the settings in turns, writing the results after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cpu-tinystories", help="[%(default)s]")
    parser.add_argument("--text", default="embedded", help="a corpus or a path [%(default)s]")
    parser.add_argument("--seconds", type=float, default=300.0, help="[%(default)s]")
    parser.add_argument("--repeats", type=int, default=1, help="[%(default)s]")
    parser.add_argument("--vocab-size", type=int, help="measure the preset with this one, too")
    parser.add_argument("--only", help="some of the settings, by comma")
    parser.add_argument("--output", type=Path, help="[results/presets-PRESET.json]")
    options = parser.parse_args()
    output = options.output or RESULTS / f"presets-{options.preset}.json"
    if not output.parent.is_dir():
        parser.error(f"no folder {output.parent}")
    settings = settings_for(options.preset, options.vocab_size)
    names = options.only.split(",") if options.only else list(settings)
    if unknown := set(names) - set(settings):
        parser.error(f"no setting {', '.join(sorted(unknown))}: there are {', '.join(settings)}")
    settings = {name: settings[name] for name in names}
    text = options.text if options.text == "embedded" else str(Path(options.text).resolve())
    rows: list[dict[str, Any]] = []
    for row in measure(settings, text, options.seconds, options.repeats):
        rows.append(row)
        said = {key: row[key] for key in ("setting", "seed", "val_bpb", "tokens", "num_steps")}
        print("  ".join(f"{key} {value}" for key, value in said.items()), flush=True)
        document = {
            "text": Path(text).name,
            "seconds": options.seconds,
            "settings": {
                name: {
                    "train": setting.constants,
                    "vocab_size": setting.vocab_size,
                    "max_seq_len": setting.max_seq_len,
                    "environment": setting.environment,
                }
                for name, setting in settings.items()
            },
            "rows": rows,
            "median": summary(rows, options.preset),
        }
        output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(summary(rows, options.preset), indent=1))


if __name__ == "__main__":
    main()
