"""A model card: what weights are, as Markdown that a person or a model hub reads.

text = card(facts)        # facts as `autoresearch.model_folder` writes them into model.json
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from autoresearch.engine.proposers.text import one_line

WORDS = 300  # characters of an idea


def card(facts: Mapping[str, Any], usage: str = "") -> str:
    """The card. usage: a section on how to use what lies beside it, as Markdown."""
    parts = [
        f"---\n{yaml.safe_dump(_metadata(facts), sort_keys=False, allow_unicode=True)}---",
        f"# {name_of(facts)}",
        _opening(facts),
        _table("What it is", _identity(facts)),
        _table("How it was trained", _training(facts)),
        usage,
        _LIMITS,
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


_LIMITS = """## What to know

Trained for minutes on little text: it shows what a training program achieves in that time, and
knows nothing of the world. Nothing was done to keep it from writing what it should not."""


def name_of(facts: Mapping[str, Any]) -> str:
    """`mar5, trial 7`, or `autoresearch train` of a single run."""
    if facts.get("trial") is None:
        return "One run of autoresearch train"
    return f"{facts['study']}, trial {facts['trial']}"


def _metadata(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What model hubs read."""
    metric = {"type": "bits_per_byte", "name": "val_bpb", "value": facts["val_bpb"]}
    result = {
        "task": {"type": "text-generation"},
        "dataset": {"name": facts["settings"]["corpus"], "type": facts["settings"]["corpus"]},
        "metrics": [metric],
    }
    return {
        "library_name": "autoresearch",
        "pipeline_tag": "text-generation",
        "tags": ["autoresearch"],
        "model-index": [{"name": name_of(facts), "results": [result]}],
    }


def _opening(facts: Mapping[str, Any]) -> str:
    settings = facts["settings"]
    text = (
        f"A small language model, trained for {facts['training_seconds']:.0f} s on "
        f"{settings['corpus']} by autoresearch. It reads the validation "
        f"text at **{facts['val_bpb']:.6f} bits per byte** (val_bpb, lower is better)"
    )
    if not facts.get("verified"):
        return text + ", a number that its own program printed."
    return text + ", computed by the harness from the model's answers."


def _identity(facts: Mapping[str, Any]) -> dict[str, str]:
    rows = {
        "val_bpb": f"{facts['val_bpb']:.6f}, of the run with seed {facts['seed']}, whose weights "
        "these are",
        "score id": f"{facts['score_id']}: only numbers with this id may be compared",
    }
    if facts.get("trial") is not None:
        rows |= {
            "trial's val_bpb": f"{facts['score']:.6f}, the mean of {facts['runs']} runs; the best "
            "run's weights are kept, and one run's score flatters",
            "idea": _plain(facts.get("idea")),
            "effect": _effect(facts),
            "train.py": f"commit {facts['commit']}",
        }
    floor = facts.get("floor_bpb")
    if floor is not None:
        rows["the text's entropy"] = f"{floor:.4f} bits per byte: nothing gets below"
    return rows | {"weights": f"SHA-256 {facts['sha256']}"}


def _effect(facts: Mapping[str, Any]) -> str:
    if facts.get("delta") is None:
        return ""
    sure = facts.get("confidence")
    words = f"{facts['delta']:+.6f} against trial {facts['parent']}"
    return words if sure is None else f"{words}, confidence {sure:.3f}"


def _training(facts: Mapping[str, Any]) -> dict[str, str]:
    settings, hardware, policy = facts["settings"], facts["hardware"] or {}, facts["policy"] or {}
    versions = ", ".join(f"{name} {number}" for name, number in (facts["versions"] or {}).items())
    dtype, attention = policy.get("compute_dtype"), policy.get("attention")
    return {
        "parameters": f"{facts['num_params']:,}, by its own count",
        "tokens": f"{facts['tokens']:,} in {facts['training_seconds']:.1f} s "
        f"({facts['tokens_per_second']:,.0f} tokens/s), {facts['num_steps']:,} steps",
        "MFU": _mfu(facts),
        "text": f"{settings['corpus']}, vocabulary {settings['vocab_size']}, context "
        f"{settings['max_seq_len']} tokens",
        "tokenizer": f"fingerprint {facts['tokenizer']}",
        "hardware": f"{hardware.get('name', '?')} ({facts['backend']}), id {hardware.get('id')}",
        "arithmetic": f"{dtype}, attention {attention}" if dtype else "",
        "versions": versions,
        "isolation": f"tier {facts['tier']}",
    }


def _mfu(facts: Mapping[str, Any]) -> str:
    if facts.get("mfu_percent") is not None:
        return f"{facts['mfu_percent']:.1f}% of the datasheet's peak"
    if facts.get("mfu_measured_percent") is not None:
        return f"{facts['mfu_measured_percent']:.1f}% of the peak measured beforehand"
    return ""


def _table(title: str, rows: Mapping[str, str]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value]
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *lines])


def _plain(text: Any) -> str:
    """What a proposer wrote, as text of one cell: no markup, no link."""
    from autoresearch.report.markdown import escape

    return escape(one_line(str(text or ""), WORDS))
