"""Files of results: written, read, compared by ratio, shown as tables.

document = to_document(reports, conditions.to_dict())
compared = compare(document, read(path))       # ratio by ratio, of reports that fit each other
[line for line in compared if line.regressed]
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.bench.samples import HIGHER, Report
from prepare.errors import CorruptFile

FORMAT = "autoresearch-bench-1"
MARGIN = 0.05  # two good days were seen to differ by less

Document = Mapping[str, Any]


def to_document(reports: Sequence[Report], conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "format": FORMAT,
        "conditions": dict(conditions),
        "reports": [report.to_dict() for report in reports],
    }


def read(path: Path) -> dict[str, Any]:
    """A file that `--output` wrote. Raises CorruptFile."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptFile(f"{path}: {error}", "name a file that --output wrote") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CorruptFile(f"{path} has no results of `bench`", "name a file that --output wrote")
    return document


@dataclass(frozen=True)
class Compared:
    """One ratio, then and now; `change` is the share by which it got better."""

    subject: str
    name: str
    before: float
    now: float
    change: float
    regressed: bool


def compare(now: Document, before: Document) -> list[Compared]:
    """The ratios that both have, of reports with the same sizes; the machines may differ.

    Regressed is what is worse by more than MARGIN, with neither median within the other's spread.
    """
    known = {
        (report["subject"], _key(report["about"]), ratio["name"]): ratio
        for report in before["reports"]
        for ratio in report["ratios"]
    }
    found = []
    for report in now["reports"]:
        for ratio in report["ratios"]:
            earlier = known.get((report["subject"], _key(report["about"]), ratio["name"]))
            if earlier is not None:
                found.append(_compared(report["subject"], ratio, earlier))
    return found


def _key(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True)


def _compared(subject: str, ratio: Mapping[str, Any], earlier: Mapping[str, Any]) -> Compared:
    now, before = ratio["median"], earlier["median"]
    up = ratio["better"] == HIGHER
    change = (now / before if up else before / now) - 1
    if up:
        beyond = now < earlier["lowest"] and before > ratio["highest"]
    else:
        beyond = now > earlier["highest"] and before < ratio["lowest"]
    regressed = beyond and change < -MARGIN
    return Compared(subject, ratio["name"], before, now, change, regressed)


# Tables

RATIOS = ("subject", "ratio", ">median", ">lowest to highest", "better")
FIGURES = ("subject", "figure", ">median", ">lowest to highest", "unit")
COMPARED = ("subject", "ratio", ">before", ">now", ">change", "")


def ratio_rows(document: Document) -> list[list[str]]:
    """Text in the order of RATIOS."""
    return [
        [report["subject"], ratio["name"], *_spread(ratio), ratio["better"]]
        for report in document["reports"]
        for ratio in report["ratios"]
    ]


def figure_rows(document: Document) -> list[list[str]]:
    """Text in the order of FIGURES."""
    return [
        [report["subject"], figure["name"], *_spread(figure), figure["unit"]]
        for report in document["reports"]
        for figure in report["figures"]
    ]


def compared_rows(compared: Iterable[Compared]) -> list[list[str]]:
    """Text in the order of COMPARED."""
    return [
        [
            line.subject,
            line.name,
            number(line.before),
            number(line.now),
            f"{line.change:+.1%}",
            "REGRESSED" if line.regressed else "",
        ]
        for line in compared
    ]


def remarks(document: Document) -> list[str]:
    """Sizes, notes and failures, a line each."""
    lines = []
    for report in document["reports"]:
        about = ", ".join(f"{name} {value}" for name, value in report["about"].items())
        lines.append(f"{report['subject']}: {about}")
        lines += [f"{report['subject']}: {note}" for note in report["notes"]]
        failures = report["failures"].items()
        lines += [f"{report['subject']}: {name} failed: {why}" for name, why in failures]
    return lines


def conditions_line(conditions: Mapping[str, Any]) -> str:
    """Where and how, in one sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in conditions["versions"].items())
    loads = " to ".join(str(load) for load in conditions["load_average"] if load is not None)
    return (
        f"{conditions['device']} ({conditions['backend']}), {conditions['cpu_count']} cores, "
        f"{conditions['os']}; {versions}; load average {loads or 'unknown'}, other processes took "
        f"{conditions['others_cpu_share']:.0%} of the machine; {conditions['began']}."
    )


def markdown(document: Document) -> str:
    """All of a document, for README or a job's summary."""
    parts = [conditions_line(document["conditions"]), _table(RATIOS, ratio_rows(document))]
    parts.append(_table(FIGURES, figure_rows(document)))
    parts.append("\n".join(f"- {line}" for line in remarks(document)))
    return "\n\n".join(parts) + "\n"


def compared_markdown(compared: Sequence[Compared]) -> str:
    """A comparison, for a job's summary."""
    return _table(COMPARED, compared_rows(compared)) + "\n"


def number(value: float) -> str:
    """Three digits of small numbers, whole large ones."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _spread(samples: Mapping[str, Any]) -> tuple[str, str]:
    lowest, highest = number(samples["lowest"]), number(samples["highest"])
    spread = f"{lowest} to {highest}" if len(samples["samples"]) > 1 else ""
    return number(samples["median"]), spread


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    names = [column.removeprefix(">") for column in columns]
    ruler = ["---:" if column.startswith(">") else "---" for column in columns]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in [names, ruler, *rows]
    )
