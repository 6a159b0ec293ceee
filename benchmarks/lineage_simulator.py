"""What `run --combine` and `run --frontier K` are worth: whole studies at equal compute, drawn.

    python benchmarks/lineage_simulator.py [--studies 160] [--runs 100] [--output FILE]

A program is a set of ideas; what they come to together depends on how ideas of one area (the
optimizer, attention ...) go together:

    additive       effects add up
    sub-additive   of an area's gains the second counts half, the third a quarter ...
    conflicting    of an area's gains the best counts alone, and each other costs half of itself

Harm always counts in full. Half of the pairs of one area edit the same lines, so that they can't be
merged. The policy, the choice of near-misses and of a former champion are the engine's own; all
ways see the same proposals in the same order, and spend the same number of runs. Everything is in
sigma, the standard deviation of one ordinary run, as in decisions.py.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from decision_simulator import Proposals, Study, gaussian  # noqa: E402

from autoresearch.engine.combining import (  # noqa: E402
    CONSIDERED,
    LOOP_LEAST,
    LOOP_MEMBERS,
    MOST_MEMBERS,
    near_misses,
)
from autoresearch.engine.frontier import start_of  # noqa: E402
from autoresearch.engine.policy import Confirm  # noqa: E402
from autoresearch.engine.state import State  # noqa: E402
from autoresearch.engine.task import Objective  # noqa: E402
from autoresearch.engine.trial import Replicate, Trial, TrialStatus  # noqa: E402

RESULTS = HERE / "results"
OBJECTIVE = Objective(metric="score", direction="minimize", target=None)
AREAS = 8
SCORE_ID = "same"
TOGETHER = ("additive", "sub-additive", "conflicting")
PROPOSALS = {
    "3% help": Proposals(),
    "10% help, mostly little": Proposals(helping=0.1, sizes="small"),
    "25% help, mostly little": Proposals(helping=0.25, sizes="small"),
}

Ideas = frozenset[int]


@dataclass(frozen=True)
class Way:
    """How a study chooses what to try next."""

    combine: bool = False
    fewest: int = LOOP_MEMBERS  # near-misses that are tried together
    least: float = LOOP_LEAST  # what each must look better by, in standard deviations of a run
    frontier: int = 1


WAYS = {
    "plain": Way(),
    "combine": Way(combine=True),
    "any two": Way(combine=True, fewest=2, least=0.0),
    "frontier 2": Way(frontier=2),
    "frontier 3": Way(frontier=3),
}


@dataclass(frozen=True)
class Landscape:
    """What sets of ideas are truly worth. effects: (N,) by idea. areas: (N,) the area of each."""

    effects: np.ndarray
    areas: np.ndarray
    together: str
    clash: int  # draws which pairs of an area edit the same lines

    def quality(self, ideas: Ideas) -> float:
        """The true quality of a program with these ideas."""
        total = 0.0
        gains: dict[int, list[float]] = {}
        for idea in ideas:
            effect = float(self.effects[idea])
            if effect <= 0 or self.together == "additive":
                total += effect
            else:
                gains.setdefault(int(self.areas[idea]), []).append(effect)
        for own in gains.values():
            own.sort(reverse=True)
            if self.together == "sub-additive":
                total += sum(gain / 2**rank for rank, gain in enumerate(own))
            else:
                total += own[0] - sum(own[1:]) / 2
        return total

    def merge(self, one: Ideas, other: Ideas) -> bool:
        """Whether the edits of two sets of ideas touch different lines."""
        return not any(
            self.areas[a] == self.areas[b] and (a * 31 + b * 31 + self.clash) % 2
            for a in one
            for b in other
        )


@dataclass
class Lineage:
    """A study over sets of ideas: the loop's choices, the simulator's measurements."""

    study: Study
    landscape: Landscape
    way: Way
    state: State = field(default_factory=State)
    programs: dict[int, Ideas] = field(default_factory=dict)
    # What a trial's edit adds to the champion of its time, and what it takes away.
    edits: dict[int, tuple[Ideas, Ideas]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def start(self) -> None:
        """Measure the baseline: a program without ideas."""
        self.study.start()
        self._record(0, None, TrialStatus.KEEP, frozenset(), None, ())

    @property
    def champion(self) -> Ideas:
        """The ideas of the best program so far."""
        return self.programs[self.state.champion or 0]

    def combination(self) -> tuple[tuple[int, ...], Ideas]:
        """The near-misses to be tried together, and the program; too few: none are."""
        least = self.way.least * self.study.noise().sd
        trials = [trial.id for trial in near_misses(self.state, OBJECTIVE, least)[:CONSIDERED]]
        members: list[int] = []
        ideas = self.champion
        for first in range(max(1, len(trials) - self.way.fewest + 1)):
            members, ideas = [], self.champion
            for trial in trials[first:]:
                added, removed = self.edits[trial]
                if len(members) == MOST_MEMBERS or (ideas | added) - removed == ideas:
                    continue
                if all(self.landscape.merge(added, self.edits[other][0]) for other in members):
                    members.append(trial)
                    ideas = (ideas | added) - removed
            if len(members) >= self.way.fewest:
                break
        return tuple(members), ideas

    def turn(self, idea: int, limit: float) -> bool:
        """The next trial; True if it was of `idea`, which a combination leaves for the next."""
        members, ideas = self.combination() if self.way.combine else ((), self.champion)
        combined = len(members) >= self.way.fewest
        if not combined:
            start = start_of(self.state, OBJECTIVE, self.way.frontier)
            ideas = (self.champion if start is None else self.programs[start.id]) | {idea}
        number, parent = self.state.next_id, self.state.champion
        decision = self.study.judge(self.landscape.quality(ideas), number, limit)
        if decision is not None:
            status = TrialStatus(decision.action)
            self.counts.update([f"{'combined ' if combined else ''}{status}"])
            # The simulator's scores are minimised, as the engine's objective says.
            delta = None if decision.delta is None else -decision.delta
            held = members if combined else ()
            self._record(number, parent, status, ideas, delta, held)
        return not combined

    def _record(
        self,
        number: int,
        parent: int | None,
        status: TrialStatus,
        ideas: Ideas,
        delta: float | None,
        combines: tuple[int, ...],
    ) -> None:
        champion = self.champion if self.state.trials else frozenset()
        self.edits[number] = (ideas - champion, champion - ideas)
        self.programs[number] = ideas
        kept = status is TrialStatus.KEEP
        scores = self.study.champion.items() if kept else ()
        self.state.add(
            Trial(
                number,
                parent,
                status,
                "",
                commit=str(number),
                diff_hash=str(sorted(ideas)),
                delta=delta,
                score_id=SCORE_ID,
                combines=combines,
                replicates=tuple(Replicate(s, x, score_id=SCORE_ID) for s, x in scores),
            )
        )


def study_of(way: Way, landscape: Landscape, budget: int, seed: list[int]) -> Lineage:
    """A whole study of `budget` runs, the baseline's included."""
    study = Study(Confirm(), gaussian, np.random.default_rng(seed))
    lineage = Lineage(study, landscape, way)
    lineage.start()
    idea = 0
    while study.spent < budget and idea < len(landscape.effects):
        idea += lineage.turn(idea, budget)
    return lineage


def compare(
    proposals: Proposals, together: str, studies: int, budget: int, seed: int
) -> dict[str, Any]:
    """The champion's true quality by way, and each way's difference from `plain`, paired."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    counts = {name: Counter[str]() for name in WAYS}
    for index in range(studies):
        random = np.random.default_rng([seed, index])
        effects = proposals.draw(random, budget)
        areas = random.integers(AREAS, size=budget)
        landscape = Landscape(effects, areas, together, index)
        for name, way in WAYS.items():
            lineage = study_of(way, landscape, budget, [seed, index, 1])
            found[name].append(lineage.study.quality)
            counts[name] += lineage.counts
    report: dict[str, Any] = {}
    for name, values in found.items():
        gains = [a - b for a, b in zip(values, found["plain"], strict=True)]
        report[name] = {
            "quality": round(statistics.fmean(values), 3),
            "gain": round(statistics.fmean(gains), 3),
            "se": round(statistics.stdev(gains) / math.sqrt(studies), 3),
            "counts": {key: round(n / studies, 2) for key, n in sorted(counts[name].items())},
        }
    return report


def markdown(report: dict[str, Any]) -> str:
    """The table for benchmarks/README.md."""
    names = [name for name in WAYS if name != "plain"]
    lines = [
        "| proposals | together | runs | plain | " + " | ".join(names) + " | combinations kept |",
        "|" + "---|" * (5 + len(names)),
    ]
    for row in report["rows"]:
        ways = row["ways"]
        cells = [f"{ways[name]['gain']:+.2f} ± {ways[name]['se']:.2f}" for name in names]
        tried = ways["combine"]["counts"]
        kept = tried.get("combined keep", 0.0)
        of = kept + tried.get("combined discard", 0.0)
        first = [row["proposals"], row["together"], str(row["runs"])]
        cells = [*first, f"{ways['plain']['quality']:.2f}", *cells, f"{kept:.1f} of {of:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run every row, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description="Compare --combine and --frontier, simulated.")
    parser.add_argument("--studies", type=int, default=160, help="whole studies per row and way")
    parser.add_argument("--runs", type=int, nargs="*", default=[100])
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS / "lineage.json")
    options = parser.parse_args()
    started = time.perf_counter()
    report: dict[str, Any] = {
        "studies": options.studies,
        "seed": options.seed,
        "areas": AREAS,
        "noise": "gaussian",
        "rows": [],
    }
    for runs in options.runs:
        for name, proposals in PROPOSALS.items():
            for together in TOGETHER:
                studies = max(2, options.studies * 100 // runs)
                ways = compare(proposals, together, studies, runs, options.seed)
                row = {"proposals": name, "together": together, "runs": runs, "studies": studies}
                report["rows"].append({**row, "ways": ways})
                print(f"{time.perf_counter() - started:.0f} s", row, ways, flush=True)
    print(markdown(report))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
