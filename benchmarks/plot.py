"""A picture of MFU by backend from results of `autoresearch bench mfu --output`; needs matplotlib.

    python benchmarks/plot.py RESULTS.json [RESULTS.json ...] --output mfu.svg

A bar is the median of one backend's MFU against the matrix product measured in the same run, and
its line the spread from the lowest to the highest.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from autoresearch.bench import results


def bars(documents: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(label, ratio) of each MFU against a measured peak, file by file."""
    found = []
    for name, document in documents.items():
        for report in document["reports"]:
            for ratio in report["ratios"]:
                if report["subject"] == "mfu" and ratio["name"].endswith("measured peak"):
                    backend = ratio["name"].removeprefix("MFU of ").partition(",")[0]
                    found.append((f"{backend}\n{name}", ratio))
    return found


def draw(found: list[tuple[str, dict[str, Any]]], output: Path) -> None:
    """One bar each, into a file whose ending says the format."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 1.5 * len(found), 4), layout="constrained")
    axes = figure.subplots()
    heights = [100 * ratio["median"] for _, ratio in found]
    down = [100 * (ratio["median"] - ratio["lowest"]) for _, ratio in found]
    up = [100 * (ratio["highest"] - ratio["median"]) for _, ratio in found]
    drawn = axes.bar([label for label, _ in found], heights, yerr=(down, up), capsize=4)
    axes.bar_label(drawn, fmt="%.1f%%", label_type="center", color="white")
    axes.set_ylabel("MFU, % of a measured matrix product")
    axes.set_ylim(bottom=0)
    figure.savefig(output)


def main() -> None:
    """Read the files and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, default=Path("mfu.svg"))
    options = parser.parse_args()
    found = bars({path.stem: results.read(path) for path in options.files})
    if not found:
        parser.error("no file has an MFU against a measured peak")
    draw(found, options.output)


if __name__ == "__main__":
    main()
