"""What `status --watch` and a running loop draw: pure functions from `standing`'s document.

frame(document, console)       # a rich renderable: all of it
below(document, console)       # the part that changes, to stand below a loop's own lines
one_line_of(document)          # all of it in a line of plain text
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autoresearch.console import describe
from autoresearch.engine.trial import in_dollars
from autoresearch.narration import compared, duration, extra_runs, number
from autoresearch.now import HELD

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.segment import Segment
    from rich.text import Text

MOST_BESIDE = 4  # lines for runs beside the first
WIDEST = 100  # columns of bars and curves
WANTED = 12  # lines of `below`, all told
NARROW = 80  # columns; below, tables leave out what can be had from `show`
STYLES = {"keep": "green", "crash": "red", "rejected": "red", "noisy": "yellow"}
WINDOW = 0.05  # share of the budget over which a loss is averaged to be compared


# -- words ---------------------------------------------------------------------------------------


def rows(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The study in aligned lines: a name and its words each."""
    champion, noise = document["champion"], document["noise"]
    found = [("study", f"{document['tag']}  (branch autoresearch/{document['tag']})")]
    if champion is not None:
        gain = "" if champion["gain"] is None else f"  ({champion['gain']:+.4f} since the baseline)"
        score = f"{document['metric']} {number(champion['score'])}"
        found.append(("champion", f"trial {champion['id']}  {score}{gain}"))
        if champion["id"]:
            found.append(("", champion["idea"]))
            found.append(("baseline", number(document["baseline"])))
    if noise is not None:
        found.append(("noise", f"standard deviation {noise['sd']:.2g} of one run"))
    found.append(("trials", tried(document)))
    cost = spent(document)
    if cost:
        found.append(("proposals", cost))
    return found


def tried(document: Mapping[str, Any]) -> str:
    """`3 keep, 9 discard, 1 crash; 5 extra runs to be sure`, and how many an hour."""
    ended = ", ".join(f"{n} {name}" for name, n in document["counts"].items()) or "none yet"
    words = "; ".join(filter(None, (ended, extra_runs(document["extra_runs"]))))
    rate = document["pace"].get("trials_per_hour")
    return words if rate is None else f"{words}  ({rate:{'.3g' if rate < 100 else ',.0f'}} an hour)"


def spent(document: Mapping[str, Any]) -> str:
    """What proposals cost so far, "" for nothing."""
    if not (document["dollars"] or document["tokens"]):
        return ""
    return f"{in_dollars(document['dollars'])}, {document['tokens']:,} tokens"


def extent(document: Mapping[str, Any]) -> str:
    """How far the loop under way is, and when it ends as far as that is known; "" without one."""
    pace = document["pace"]
    if "done" not in pace:
        return ""
    limits = pace["limits"]
    words = [f"{pace['done']} of {limits['trials']} trials" if "trials" in limits else ""]
    words.append(f"{duration(pace['seconds'])} so far")
    if "hours" in limits:
        words.append(f"up to {limits['hours']:g} h")
    if "dollars" in limits:
        words.append(f"{in_dollars(document['dollars'])} of {limits['dollars']:g}")
    if "tokens" in limits:
        words.append(f"{document['tokens']:,} of {limits['tokens']:,} tokens")
    if "seconds_left" in pace:
        words.append(f"about {duration(pace['seconds_left'])} left")
    if document.get("asked") and document["now"].get("phase") != HELD:
        words.append(f"asked to {document['asked']} after this trial")
    return ", ".join(filter(None, words))


def doing(document: Mapping[str, Any]) -> list[str]:
    """What is under way: the first trial in up to two lines (which one; which run of it, and what
    goes on), then what is under way beside it."""
    now = document["now"]
    trial, run = now.get("trial", {}), now.get("run", {})
    lines = []
    if trial.get("id") is not None:
        lines.append(f"trial {trial['id']}  {' '.join(str(trial.get('description')).split())}")
    which = f"run {run['number']}: {run['label']}, seed {run['seed']}" if "label" in run else ""
    lines.append(": ".join(filter(None, (which, str(now.get("phase") or "")))))
    return [*(_plain(line) for line in lines if line), *beside(document)]


def beside(document: Mapping[str, Any]) -> list[str]:
    """Runs beside that of `doing`'s first lines, one each, and who is asked for an edit."""
    now = document["now"]
    trial, run = now.get("trial", {}), now.get("run", {})
    names = ("id", "label", "seed")
    first = [{**run, "id": trial.get("id")}.get(name) for name in names]
    others = [
        _in_flight(other, trial.get("id"))
        for other in now.get("flight", ())
        if [other.get(name) for name in names] != first
    ]
    if len(others) > MOST_BESIDE:
        others[MOST_BESIDE - 1 :] = [f"and {len(others) - MOST_BESIDE + 1} more runs"]
    return [_plain(line) for line in (*others, str(now.get("asking", ""))) if line]


def _in_flight(run: Mapping[str, Any], first: int | None) -> str:
    """A run beside the first in a line: `trial 8 seed 3, training 45%: the idea`."""
    which = "" if run.get("id") == first else f"trial {run.get('id')} "
    label = "" if run.get("label") == "candidate" else f"{run.get('label')} "
    words = f"{which}{label}seed {run.get('seed')}, {run.get('phase') or 'begins'}"
    by_tokens = run.get("token_budget") is not None
    total = run.get("token_budget" if by_tokens else "budget")
    if total and run.get("phase") == "training":
        done = float(run.get("tokens" if by_tokens else "elapsed") or 0)
        words += f" {min(1.0, done / float(total)):.0%}"
    return words if run.get("id") == first else f"{words}: {run.get('description', '')}"


def warning_of(document: Mapping[str, Any]) -> str:
    """What the loop warned of in the trial under way, the latest, or ""."""
    return _plain(str(document["now"].get("trial", {}).get("warning") or ""))


def one_line_of(document: Mapping[str, Any]) -> str:
    """All of it in a line of plain text."""
    champion = document["champion"]
    best = "no champion yet"
    if champion is not None:
        best = f"champion {champion['id']} {document['metric']} {number(champion['score'])}"
    at = doing(document) if document["running"] else []
    flight = document["now"].get("flight", ()) if document["running"] else ()
    if len(flight) > 1:
        ids = sorted({run["id"] for run in flight if "id" in run})
        trials = f"trial{'' if len(ids) == 1 else 's'} {', '.join(map(str, ids))}"
        at = [f"{len(flight)} runs under way of {trials}"]
    return "; ".join(
        [f"{document['tag']}: {best}", f"trials: {tried(document)}", *(at or [standing(document)])]
    )


def decision_of(item: Mapping[str, Any]) -> str:
    """A decision in a line: `trial 3  discard  +0.0021  the idea: the reason`."""
    words = [f"trial {item['id']}", item["status"], number(item["delta"], "+.4f")]
    return "  ".join([*words, _why(item)])


def _why(item: Mapping[str, Any]) -> str:
    """An idea with its reason; of the baseline the reason alone, which says it all."""
    idea, reason = str(item["idea"]), str(item["reason"])
    return reason if reason.startswith(idea) else f"{idea}: {reason}"


def standing(document: Mapping[str, Any]) -> str:
    """Whether something runs, and if not how it ended."""
    if document["running"]:
        return "running"
    if document["killed"]:
        return "the loop was killed: started again it goes on where it was"
    if document.get("over"):
        return "the loop has ended"
    return "nothing runs" if document["trials"] else "no study here yet: waiting for one"


def _plain(text: str) -> str:
    from autoresearch.engine.proposers.text import one_line

    return one_line(text, 300)


# -- a frame -------------------------------------------------------------------------------------


def frame(
    document: Mapping[str, Any], console: Console, note: str = "", height: int | None = None
) -> RenderableType:
    """One picture of it all, as wide as the console; `note` ends its last line.

    height: lines that there are; where they don't do, fewer decisions are shown.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [_facts(document)]
    if document["now"]:
        parts += [Text(), _running(document, console)]
    recent = document["recent"]
    if height is not None:
        used = len(console.render_lines(Group(*parts), pad=False))
        room = height - used - 4  # two blank lines, the table's head, the last line
        recent = recent[-room:] if room > 0 else []
    if recent:
        parts += [Text(), _decisions(recent, console.width)]
    last = ". ".join(filter(None, (standing(document), note)))
    parts += [Text(), _text(last, style="dim")]
    return Group(*parts)


def below(document: Mapping[str, Any], console: Console) -> RenderableType:
    """The trial under way, the champion, how many were tried, until when, and what that cost.

    At most half of the terminal's lines, or what is needed: above stands what was decided.
    """
    from rich.console import Group
    from rich.segment import Segment, Segments

    parts: list[RenderableType] = [_rule(console)]
    if document["now"]:
        parts.append(_running(document, console))
    told = ("champion", "trials", "budget", "proposals")
    lines = [line for line in [*rows(document), ("budget", extent(document))] if line[0] in told]
    parts.append(_grid([line for line in lines if line[1]]))
    drawn = console.render_lines(Group(*parts), pad=False)
    wanted = WANTED + len(beside(document))
    room = max(console.height // 2, min(wanted, console.height - 4))
    # Between lines alone: one behind the last would leave the first standing when it is redrawn.
    joined = [part for line in drawn[:room] for part in (Segment.line(), *_stripped(line))]
    return Segments(joined[1:])


def _stripped(line: Sequence[Segment]) -> list[Segment]:
    """Without blanks at its end: what a terminal echoes there (^C) must not begin a line."""
    from rich.segment import Segment

    kept = list(line)
    while kept and not kept[-1].text.strip():
        kept.pop()
    return [*kept[:-1], *(Segment(part.text.rstrip(), part.style) for part in kept[-1:])]


def _rule(console: Console) -> RenderableType:
    """A line across, in characters that the terminal has."""
    ascii_only = not console.encoding.lower().replace("-", "").startswith("utf")
    return _text(("-" if ascii_only else "─") * min(console.width, WIDEST), style="dim")


def _facts(document: Mapping[str, Any]) -> RenderableType:
    """The study's lines and the loop's."""
    lines = rows(document)
    ends = extent(document)
    if ends:
        lines.append(("budget", ends))
    return _grid(lines)


def _grid(lines: Sequence[tuple[str, str]]) -> RenderableType:
    """Names and words; an idea is cut where the terminal ends."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2), pad_edge=False, expand=True)
    grid.add_column(style="bold", min_width=max((len(name) for name, _ in lines), default=0))
    grid.add_column(ratio=1)
    for name, words in lines:
        grid.add_row(_text(name), _text(words, no_wrap=not name))
    return grid


def _running(document: Mapping[str, Any], console: Console) -> RenderableType:
    """The trial under way, its bar and its curve."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    now = document["now"]
    run = now.get("run", {})
    others = beside(document)
    first = doing(document)[: -len(others) or None]
    lines: list[RenderableType] = [
        _text(line, style="bold" if number == 0 else "", no_wrap=True)
        for number, line in enumerate(first)
    ]
    done, total = progress(document)
    if total:
        width = min(console.width, WIDEST)
        unit = "s" if run.get("token_budget") is None else "tokens"
        words = _text(f"{100 * done / total:3.0f}%  {done:,.0f} of {total:,.0f} {unit}")
        bar = Table.grid(padding=(0, 2), pad_edge=False)
        bar.add_row(ProgressBar(total=total, completed=done, width=width // 2), words)
        lines += [bar, _text(describe(run), no_wrap=True), *_curves(document, width, console)]
    lines += [_text(line, no_wrap=True) for line in others]
    warning = warning_of(document)
    if warning:
        lines.append(_text(warning, style="yellow"))
    return Group(*lines)


def progress(document: Mapping[str, Any]) -> tuple[float, float]:
    """Spent and whole budget of the run that trains now, in seconds or tokens; (0, 0) if none does.

    A clock runs on between two notes of it.
    """
    now = document["now"]
    run = now.get("run", {})
    by_tokens = run.get("token_budget") is not None
    total = run.get("token_budget" if by_tokens else "budget")
    if total is None:
        return 0.0, 0.0
    done = float(run.get("tokens" if by_tokens else "elapsed") or 0)
    if now.get("phase") == "training":
        rate = float(run.get("tokens_per_second") or 0) if by_tokens else 1.0
        done += rate * max(0.0, document["at"] - float(now["at"]))
    return min(done, float(total)), float(total)


def _curves(document: Mapping[str, Any], width: int, console: Console) -> list[RenderableType]:
    """The run's losses above the champion's at the same share of the budget."""
    run = document["now"]["run"]
    budget = float(run.get("token_budget") or run["budget"])
    own = [(float(a), float(b)) for a, b in run.get("curve") or () if b is not None]
    champion = document["champion"] or {}
    other = [(float(a), float(b)) for a, b in champion.get("curve") or ()]
    if len(own) < 2:
        return []
    if not other or run.get("label") == "champion" or not 0.9 < other[-1][0] / budget < 1.1:
        other = []  # of another budget, or itself
    names = ("this run  ", "champion  ")
    mine, theirs = compared(own, other, budget, width - len(names[0]), console.encoding)
    lines = [_text(names[0] + mine, style="cyan", no_wrap=True)]
    if theirs:
        lines.append(_text(names[1] + theirs, style="dim", no_wrap=True))
        here = own[-1][0]
        a, b = (_level(curve, here, WINDOW * budget) for curve in (own, other))
        if a is not None and b is not None:
            lines.append(
                _text(f"loss {a:.4f}, the champion's {b:.4f} at this point ({a - b:+.4f})")
            )
    return list(lines)


def _level(curve: Sequence[tuple[float, float]], at: float, window: float) -> float | None:
    """Mean loss over the window that ends at `at`, by the nearest point where it holds none."""
    inside = [loss for spent, loss in curve if at - window <= spent <= at]
    if inside:
        return sum(inside) / len(inside)
    before = [loss for spent, loss in curve if spent <= at]
    return before[-1] if before else None


def _decisions(recent: Sequence[Mapping[str, Any]], width: int) -> RenderableType:
    """The latest decisions, newest last, a line each."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2), pad_edge=False, expand=True)
    widths = {">trial": 5, "status": 8, ">effect": 7, ">sure": 4, "idea": None}
    names = [name for name in widths if width >= NARROW or name != ">sure"]
    for name in names:
        table.add_column(
            justify="right" if name.startswith(">") else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if widths[name] is None else None,
            min_width=widths[name],
        )
    table.add_row(*[_text(name.removeprefix(">"), style="bold") for name in names])
    for item in recent:
        cells = {
            ">trial": str(item["id"]),
            "status": item["status"],
            ">effect": number(item["delta"], "+.4f"),
            ">sure": number(item["confidence"], ".0%"),
            "idea": item["idea"] if item["delta"] is not None else _why(item),
        }
        style = STYLES.get(item["status"], "")
        table.add_row(*[_text(cells[name], style=style) for name in names])
    return table


def _text(words: str, style: str = "", no_wrap: bool = False) -> Text:
    """Text taken literally, cut rather than wrapped where asked."""
    from rich.text import Text

    overflow: Any = "ellipsis" if no_wrap else None
    return Text(words, style=style, no_wrap=no_wrap or None, overflow=overflow)
