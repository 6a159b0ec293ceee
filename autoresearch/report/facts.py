"""What a study came to, in figures and words: the tiles of a page and the lists of a Markdown file.

for fact in figures(story): ...       # best score, trials, time, training, cost ...
for fact in circumstances(story): ... # hardware, policy, settings, noise
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from autoresearch.engine.trial import in_dollars
from autoresearch.narration import duration
from autoresearch.report.forms import gain, score
from autoresearch.report.looks import WORDS

Story = Mapping[str, Any]
OTHER_SCORE = "the baseline's score meant something else"
DAYS = 2 * 86_400.0  # seconds from which days are counted


@dataclass(frozen=True)
class Fact:
    """A name, what it is, and what is to be known of it."""

    name: str
    value: str
    note: str = ""


def verdict(story: Story) -> str:
    """The study in a sentence or two, for the top of the page."""
    totals, metric, best = story["totals"], story["metric"], story["best"]
    if best is None:
        ended = "no trial yet" if not story["trials"] else "no trial has a score"
        return f"{ended[0].upper()}{ended[1:]}."
    if not totals["trials"]:
        return f"The baseline was measured: {metric} {score(story, best)}. Nothing was tried yet."
    tried = f"{totals['trials']:,} trial{'' if totals['trials'] == 1 else 's'}"
    if not totals["kept"]:
        stands = f"{metric} {score(story, best)}"
        return f"None of {tried} was shown to be better than the baseline, {stands}."
    kept_words = f"{totals['kept']} kept idea{'' if totals['kept'] == 1 else 's'} of {tried}"
    if story["baseline"] is None or totals["gain"] is None:
        return f"{metric} {score(story, best)}, after {kept_words}; {OTHER_SCORE}."
    base, effects = story["baseline"], gain(story, totals["gain"])
    share = f" ({abs(totals['gain'] / base):.1%})" if base else ""
    change = f"{metric} {score(story, base)} → {score(story, best)}, by {kept_words}"
    if totals["kept"] == 1:
        return f"{change}: {effects}{share} on the same seeds."
    # The scores are of other seeds each, so their difference is another number.
    return f"{change}, whose effects, each on the same seeds, add up to {effects}{share}."


def figures(story: Story) -> list[Fact]:
    """The figures that count, the most important first."""
    found = [*_score(story), *_checked(story), *_floor(story), *_tries(story), *_time(story)]
    return [*found, *_training(story), *_cost(story)]


def _score(story: Story) -> Iterator[Fact]:
    if story["best"] is None:
        return
    noise = story["noise"]
    note = "" if noise is None else f"one run scatters by ±{noise['sd']:.2g}"
    note = "repeats agree exactly" if noise and not noise["sd"] else note
    yield Fact(f"best {story['metric']}", score(story, story["best"]), note)
    found, base = story["totals"]["gain"], story["baseline"]
    if story["totals"]["kept"] and base is not None and found is not None:
        yield Fact("gain", gain(story, found), f"from {score(story, base)}, effects added up")


def _checked(story: Story) -> Iterator[Fact]:
    found = story["recheck"]
    if found is None:
        return
    seeds = len(found["seeds"])
    trial = f"trial {found['trial']}"
    note = f"{trial} on {seeds} fresh seeds, {found['wins']} won, {found['confidence']:.1%} sure"
    yield Fact("gain rechecked", gain(story, found["gain"]), note)


def _floor(story: Story) -> Iterator[Fact]:
    floor, best, base = story["floor"], story["best"], story["baseline"]
    if floor is None or best is None:
        return
    note = f"the text's entropy is {floor:.4f}"
    if base is not None and base > floor and best < base:
        note += f"; {(base - best) / (base - floor):.0%} of the way from the baseline"
    yield Fact("above the floor", f"{best - floor:.4f}", note)


def _tries(story: Story) -> Iterator[Fact]:
    totals = story["totals"]
    ended = totals["counts"]
    counts = [f"{ended[name]:,} {word}" for name, word in WORDS.items() if name in ended]
    if totals["no_proposals"]:
        counts.append(f"asked {totals['no_proposals']} more for nothing")
    yield Fact("trials", f"{totals['trials']:,}", ", ".join(counts))


def _time(story: Story) -> Iterator[Fact]:
    totals = story["totals"]
    if not totals["hours"]:
        return
    note = f"{long(totals['run_seconds'])} of them in {totals['runs']:,} runs"
    still = totals["still_seconds"]
    if still:
        note += f"; it stood still for {long(still)}"
    yield Fact("time", long(3600 * totals["hours"]), note)


def _training(story: Story) -> Iterator[Fact]:
    totals = story["totals"]
    if totals["tokens"]:
        extra = totals["extra_runs"]
        note = f"{extra:,} extra run{'' if extra == 1 else 's'} to be sure" if extra else ""
        yield Fact("tokens trained on", large(totals["tokens"]), note)


def _cost(story: Story) -> Iterator[Fact]:
    totals = story["totals"]
    asked = [row for row in story["trials"] if row["proposer"]]
    if not asked:
        return
    tokens = totals["proposer_tokens"]
    note = f"{large(tokens)} tokens of proposers" if tokens else ""
    unknown = totals["dollars_unknown"]
    if unknown == len(asked):
        yield Fact("cost", "not known", note or "the proposer doesn't say")
        return
    if unknown:
        note = "; ".join(filter(None, (note, f"not known of {unknown} of {len(asked)} proposals")))
    if any(row["cost_known"] == "estimated" for row in asked):
        note = "; ".join(filter(None, (note, "estimated in part")))
    free = not totals["dollars"] and not unknown
    value = "nothing" if free else in_dollars(totals["dollars"])
    yield Fact("cost", value, note or ("no model was asked" if free else ""))


def circumstances(story: Story) -> list[Fact]:
    """On what, by which rules and under which settings all this was measured."""
    found = [*_when(story), *_machines(story), *_deciding(story)]
    conditions = {k: v for k, v in story["settings"].items() if not isinstance(v, dict)}
    words = ", ".join(f"{name} {value}" for name, value in conditions.items())
    versions = ", ".join(f"{name} {value}" for name, value in story["versions"].items())
    found += [Fact("settings", words), Fact("versions", versions)]
    return [fact for fact in found if fact.value]


def _when(story: Story) -> Iterator[Fact]:
    began, ended = story["totals"]["started_at"], story["totals"]["finished_at"]
    if began:
        yield Fact("when", f"{when(began)} to {when(ended)}")


def _machines(story: Story) -> Iterator[Fact]:
    for machine in story["machines"]:
        words = [machine["backend"]] if machine["backend"] else []
        words.append(f"isolated by {machine['tier']}")
        words += [f"{name} {value}" for name, value in machine["conditions"].items()]
        count = machine["trials"]
        trials = f"{count} trial{'' if count == 1 else 's'}"
        name = machine["name"] or machine["hardware_id"] or "its name is not recorded"
        yield Fact("hardware", name, ", ".join([*words, trials]))


def _deciding(story: Story) -> Iterator[Fact]:
    policy = story["policy"]
    words = str(policy["name"])
    if policy["name"] == "confirm":
        words += f": keeps what is better with {policy['confidence']:.0%} confidence"
    yield Fact("policy", words)
    for constraint in story["constraints"]:
        yield Fact("constraint", constraint)
    for part in story["parts"]:
        noise = part["noise"]
        known = "noise not known"
        if noise is not None:
            known = f"noise {noise['sd']:.2g}, {noise['dof']:.0f} degrees of freedom"
        begun = "" if not part["first"] else f"from trial {part['first']} on; "
        yield Fact("score id", part["score_id"], begun + known)


def long(seconds: float) -> str:
    """A duration; days where hours would be many."""
    return duration(seconds) if seconds < DAYS else f"{seconds / 86_400:.1f} days"


def large(number: float) -> str:
    """`1.46 G`, `20.0 k`, `312`."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}"


def when(text: str) -> str:
    """An ISO time as `2026-03-05 22:10 UTC`; as it is where it is none."""
    try:
        at = datetime.datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{at.astimezone(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
