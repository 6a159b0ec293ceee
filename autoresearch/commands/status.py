"""`autoresearch status`: where the study stands, and what runs now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import json_option, workspace_option

if TYPE_CHECKING:
    from autoresearch.console import Output
    from autoresearch.study import Study


@click.command("status")
@workspace_option
@json_option
def command(folder: Path, json_mode: bool) -> None:
    """The champion, the noise, how trials ended, what proposals cost, and what runs now."""
    from autoresearch.console import Output
    from autoresearch.study import Study

    out = Output(json_mode)
    study = Study.read(folder)
    facts = look(study)
    show(out, study, facts)
    steps = ["autoresearch results    every trial"] if facts["trials"] else []
    if facts["running"] is None:
        steps.append("autoresearch run        go on" if steps else "autoresearch run    begin")
    out.result(facts, then=steps)


def look(study: Study) -> dict[str, Any]:
    """The facts, as JSON values."""
    from autoresearch.commands.run import status_counts
    from autoresearch.engine.holder import Holder
    from autoresearch.now import read_now

    state = study.state
    champion = None if state.champion is None else state.trials[state.champion]
    baseline = state.trials.get(0)
    noise = None if champion is None else state.noise(champion.score_id)
    holder = Holder.read(study.ledger.path.with_name(study.ledger.path.name + ".holder"))
    running = holder if holder is not None and holder.alive() is not False else None
    return {
        "tag": study.tag,
        "trials": len(state.trials),
        "counts": status_counts(study),
        "baseline": None if baseline is None else baseline.score,
        "champion": None
        if champion is None
        else {"id": champion.id, "score": champion.score, "idea": champion.description},
        "noise": None if noise is None else {"sd": noise.sd, "dof": noise.dof},
        "dollars": state.dollars,
        "tokens": state.tokens,
        "running": None if running is None else str(running),
        "now": read_now(study.now_file) if running is not None else {},
    }


def show(out: Output, study: Study, facts: dict[str, Any]) -> None:
    """The facts as lines."""
    from autoresearch.narration import number

    champion, noise = facts["champion"], facts["noise"]
    rows = [("study", f"{facts['tag']}  (branch autoresearch/{facts['tag']})")]
    if champion is not None:
        words = f"trial {champion['id']}  {number(champion['score'])}  {champion['idea']}"
        rows += [("champion", words), ("baseline", number(facts["baseline"]))]
    if noise is not None:
        rows.append(("noise", f"standard deviation {noise['sd']:.2g} of one run"))
    counts = ", ".join(f"{n} {name}" for name, n in facts["counts"].items())
    rows.append(("trials", counts or "none yet"))
    if facts["dollars"] or facts["tokens"]:
        rows.append(("proposals", f"{facts['dollars']:.2f} dollars, {facts['tokens']:,} tokens"))
    rows.append(("running", facts["running"] or "nothing"))
    if facts["now"]:
        rows.append(("now", doing(facts["now"])))
    out.facts(rows)


def doing(now: dict[str, Any]) -> str:
    """What the loop was at when it last said so."""
    from autoresearch.console import describe, left_words

    words = []
    if now.get("id") is not None:
        words.append(f"trial {now['id']}")
        words.append(" ".join(str(now.get("description", "")).split()))
    if now.get("label"):
        words.append(f"{now['label']}, seed {now.get('seed')}")
    words += [str(now.get("phase", ""))]
    if now.get("phase") == "training":
        words += [describe(now), left_words(now)]
    return "  ".join(word for word in words if word)
