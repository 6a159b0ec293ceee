"""`autoresearch prepare`: text, tokenizer and tokens, made once and cached."""

from __future__ import annotations

from pathlib import Path

import click

from autoresearch.options import json_option, workspace_option


@click.command("prepare")
@workspace_option
@click.option("--preset", metavar="NAME", help="Prepare this preset's data; no workspace needed.")
@json_option
def command(folder: Path, preset: str | None, json_mode: bool) -> None:
    """Make the data ready: text, tokenizer, tokens.

    Everything is cached and resumes after an interruption. `autoresearch train` does the same when
    it has to.
    """
    from autoresearch.console import Output
    from autoresearch.preset import load_preset
    from prepare.cache import cache_root
    from prepare.dataset import prepare_dataset
    from prepare.settings import Settings

    out = Output(json_mode)
    settings = load_preset(preset).settings if preset else Settings.load(folder)
    with out.progress() as on_event:
        dataset = prepare_dataset(settings, on_event=on_event)
    facts = {
        "corpus": settings.corpus,
        "vocab_size": dataset.tokenizer.vocab_size,
        "max_seq_len": settings.max_seq_len,
        "train_rows": len(dataset.train),
        "val_rows": len(dataset.val),
        "val_bytes": dataset.val_bytes,
        "floor_bpb": dataset.floor_bpb,
        "fingerprint": dataset.fingerprint,
        "cache": str(cache_root()),
    }
    out.heading("Data is ready")
    out.facts([(key, _text(value)) for key, value in facts.items() if value is not None])
    out.result(facts, then=["autoresearch train"])


def _text(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
