"""Our GPU kernels and training, checked and timed: one call, one table, one file of results.

    python benchmarks/gpu.py                          # under 8 minutes, no arguments needed
    python benchmarks/gpu.py --sections loss,gram     # some of it
    python benchmarks/gpu.py --upstream train.py      # upstream's script in the same call
    python benchmarks/gpu.py --dry-run                # every section, tiny, without a GPU

Needs a CUDA or ROCm GPU, torch with Triton, and what `backends` imports: numpy, filelock,
platformdirs, psutil, safetensors. Each section runs in a process of its own, so that a kernel that
takes its process down costs that section alone; what failed is in the results and in the table with
the type of its error. Variants take turns and the median of seven samples counts. Inputs are
random; small ones may lie in a cache, as in training they would. Exit code 4 without a GPU, 1 where
a kernel computes something wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NO_GPU, WRONG_RESULT = 4, 1  # exit codes
UPSTREAM_SECONDS = 40.0
# Most seconds of each section, the most telling first; what TOTAL_SECONDS leaves no room for is
# recorded as such.
SECONDS = {
    "limits": 30,
    "correctness": 120,
    "policy": 120,
    "training": 130,
    "warm_training": 60,
    "upstream": 140,
    "attention": 120,
    "loss": 60,
    "fp8_training": 80,
    "gram": 50,
    "adamw": 30,
    "rotate_norm": 30,
    "max_autotune": 150,
}
TOTAL_SECONDS = 460.0
ASKED_FOR = {  # variables of one section
    "fp8_training": {"AUTORESEARCH_LINEAR": "fp8"},
    "max_autotune": {"AUTORESEARCH_COMPILE": "max-autotune"},
}
TRAINING = ("training", "warm_training", *ASKED_FOR)
HAS_GROUPS = hasattr(os, "killpg")  # of processes; Windows has none
LEAST_SECONDS = 10.0  # a section isn't begun with less
# A dry run probes nothing: it would find out how fast this processor is.
DRY_RUN = {
    "AUTORESEARCH_BACKEND": "cpu",
    "AUTORESEARCH_DTYPE": "bfloat16",
    "AUTORESEARCH_COMPILE": "0",
    "AUTORESEARCH_ATTENTION": "sdpa",
    "TRITON_INTERPRET": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the sections, write the results, print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="file of results [$OUT, else results/]")
    parser.add_argument("--sections", help=f"some of: {', '.join(SECONDS)}")
    parser.add_argument("--preset", default="", help="[the most demanding that fits the device]")
    parser.add_argument("--upstream", type=Path, metavar="FILE", help="upstream's train.py")
    parser.add_argument("--seconds", type=float, default=TOTAL_SECONDS, help="[%(default)s]")
    parser.add_argument("--dry-run", action="store_true", help="tiny, without a GPU")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    names = [name.strip() for name in options.sections.split(",")] if options.sections else []
    unknown = set(names) - set(SECONDS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}: see --help")
    if options.child:
        return child(options, names)
    environment = {**os.environ, **(DRY_RUN if options.dry_run else {})}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    device = "dry run" if options.dry_run else device_name(environment)
    if device is None:
        return NO_GPU
    names = names or [name for name in SECONDS if name != "upstream" or options.upstream]
    output = options.output or default_output(device)
    document = measure(options, names, environment, device, output)
    print(table(document))
    print(f"\nwritten to {output}")
    checked = document["sections"].get("correctness", {}).get("rows", [])
    return WRONG_RESULT if not all(row.get("right", True) for row in checked) else 0


def device_name(environment: Mapping[str, str]) -> str | None:
    """The GPU's name, asked in a process of its own; None, with the reason said, without one."""
    code = "import torch; print(torch.cuda.get_device_name(0))"
    command = [sys.executable, "-c", code]
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if asked.returncode == 0:
        return asked.stdout.strip()
    said = asked.stderr.strip().splitlines()[-1:] or ["torch gave no reason"]
    print(f"no GPU that torch can use: {said[0]}", file=sys.stderr)
    print("try `--dry-run`, or `autoresearch doctor` for what is here", file=sys.stderr)
    return None


def default_output(device: str) -> Path:
    """$OUT/gpu-<device>.json where OUT is set, else in benchmarks/results."""
    slug = "-".join(device.lower().replace("nvidia", "").replace("amd", "").split())
    folder = Path(os.environ["OUT"]) if os.environ.get("OUT") else ROOT / "benchmarks" / "results"
    return folder / f"gpu-{slug}.json"


def measure(
    options: argparse.Namespace,
    names: Iterable[str],
    environment: Mapping[str, str],
    device: str,
    output: Path,
) -> dict[str, Any]:
    """All sections' results, written anew after each."""
    until = time.monotonic() + options.seconds
    began = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    document: dict[str, Any] = {"device": device, "began": began, "sections": {}}
    if not options.upstream:
        document["upstream"] = "not run: no --upstream FILE was given"
    output.parent.mkdir(parents=True, exist_ok=True)
    groups = [[name] for name in names]
    if options.dry_run:
        together = [name for name in names if name not in ASKED_FOR]
        groups = [group for group in (together, *([n] for n in names if n in ASKED_FOR)) if group]
    for group in groups:
        left = until - time.monotonic()
        if left < LEAST_SECONDS:
            late = {"what": "section", "type": "OutOfTime", "message": "no seconds were left"}
            found = {name: {"rows": [], "failures": [late]} for name in group}
        else:
            limit = left if options.dry_run else min(left, SECONDS[group[0]])
            print(f"{', '.join(group)} ...", file=sys.stderr, flush=True)
            # A dry run compiles nothing, whatever its section asks for.
            asked = {**ASKED_FOR.get(group[0], {}), **(DRY_RUN if options.dry_run else {})}
            found = in_process(options, group, {**environment, **asked}, limit)
        document["sections"].update(found)
        output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


def in_process(
    options: argparse.Namespace, names: list[str], environment: Mapping[str, str], seconds: float
) -> dict[str, Any]:
    """Sections in one process of their own: what they wrote, also if it died or was stopped."""
    with tempfile.TemporaryDirectory(prefix="gpu-bench-") as folder:
        command = [sys.executable, str(Path(__file__).resolve()), "--child", folder]
        command += ["--sections", ",".join(names), "--seconds", str(seconds - 5)]
        command += ["--preset", options.preset] if options.preset else []
        command += ["--upstream", str(options.upstream.resolve())] if options.upstream else []
        command += ["--dry-run"] if options.dry_run else []
        end = run_command(command, environment, seconds)
        found = {}
        for name in names:
            path = Path(folder) / f"{name}.json"
            nothing = {"rows": [], "failures": []}
            found[name] = json.loads(path.read_text()) if path.exists() else nothing
            if end and (name == names[-1] or not path.exists()):
                found[name]["failures"].append({"what": "section", **end})
    return found


def run_command(
    command: list[str], environment: Mapping[str, str], seconds: float
) -> dict[str, str] | None:
    """Run it, silent; why it did not end well. What it started ends with it."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            message = f"stopped after {seconds:.0f} s: the rest was not measured"
            return {"type": "TimeoutExpired", "message": message}
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody is left: it ended as it should
                if HAS_GROUPS:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
            process.wait()
        if status == 0:
            return None
        said.seek(0)
        last = said.read().decode(errors="replace").strip().splitlines()[-1:]
        return {"type": "ProcessDied", "message": f"status {status}: {' '.join(last)[:300]}"}


def child(options: argparse.Namespace, names: list[str]) -> int:
    """In the process of some sections."""
    import gpu_training
    import torch
    from gpu_correctness import correctness
    from gpu_speed import SECTIONS
    from gpu_timing import Section

    torch._dynamo.config.recompile_limit = 64  # each case is a shape of its own
    until = time.monotonic() + options.seconds
    for name in names:
        section = Section(name, options.child / f"{name}.json", until, options.dry_run)
        if name in TRAINING:
            run = (gpu_training.training, section, options.preset, name == "training")
        elif name == "upstream":
            run = (gpu_training.upstream, section, options.upstream, UPSTREAM_SECONDS)
        elif name == "policy":
            run = (gpu_training.policy, section)
        else:
            run = ({**SECTIONS, "correctness": correctness}[name], section)
        section.attempt("section", partial(*run))
        section.save()
    return 0


# The table


def table(document: Mapping[str, Any]) -> str:
    """A line per row that has a number, failures last."""
    sections = document["sections"]
    lines = [f"{document['device']}, {document['began']}"]
    limits = {row["case"]: row for row in sections.get("limits", {}).get("rows", [])}
    for name, section in sections.items():
        lines.append(f"\n== {name} ({section.get('seconds', 0):.0f} s)")
        first: dict[str, float] = {}
        for row in section["rows"]:
            lines += line(row, first, limits)
    lines += failures(sections)
    if "upstream" in document:
        lines.append(f"\nupstream: {document['upstream']}")
    return "\n".join(lines)


def failures(sections: Mapping[str, Any]) -> list[str]:
    """Each kind of failure once, with where it was met first and how often."""
    first: dict[tuple[str, str, str], str] = {}
    counts: Counter[tuple[str, str, str]] = Counter()
    for name, section in sections.items():
        for failure in section["failures"]:
            kind = (name, failure["type"], failure["message"])
            first.setdefault(kind, failure["what"])
            counts[kind] += 1
    lines = ["\n== failed"] if first else []
    for (name, kind, message), what in first.items():
        times = counts[name, kind, message]
        often = f" ({times} times)" if times > 1 else ""
        lines.append(f"{name}: {what}{often}: {kind}: {message}")
    return lines


def line(
    row: Mapping[str, Any], first: dict[str, float], limits: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """A row as text: its number, its spread, how it stands to the case's first and to the limit."""
    if "difference" in row:
        mark = "" if row["right"] else "   WRONG"
        return [f"{row['case']:52s} {row['difference']:10.2e}{mark}"]
    if "median" not in row:
        return []
    text = f"{row['case'][:36]:36s} {row.get('variant', '')[:22]:22s} {row['median']:12,.5g}"
    text += f" {row['unit']}"
    if "lowest" in row:
        text += f" ({row['lowest']:,.4g} to {row['highest']:,.4g})"
    if row["unit"] == "ms":
        start = first.setdefault(row["case"], row["median"])
        text += f"  {start / row['median']:.2f}x"
        for need, unit, limit in (
            ("flops", "TFLOP/s", "matrix product"),
            ("bytes", "GB/s", "copy"),
        ):
            if row.get(need):
                rate = row[need] / row["median"] * 1e3
                text += f"  {rate / (1e12 if need == 'flops' else 1e9):,.4g} {unit}"
                if limit in limits and limits[limit][need]:
                    best = limits[limit][need] / limits[limit]["median"] * 1e3
                    text += f" ({100 * rate / best:.0f}%)"
    return [text]


if __name__ == "__main__":
    sys.exit(main())
