"""`autoresearch sample [TRIAL]`: text that a champion's weights write."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autoresearch.options import backend_option, json_option, sandbox_option, workspace_option

if TYPE_CHECKING:
    from autoresearch.model_folder import Weights


@click.command("sample")
@click.argument("trial_id", type=click.IntRange(min=0), metavar="[TRIAL]", required=False)
@click.option(
    "--weights",
    "place",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder with weights in place of a trial's: the run folder of `autoresearch train`, or "
    "what `export --hf-dir` wrote.",
)
@click.option("--prompt", default="", metavar="TEXT", help="What the text begins with.")
@click.option(
    "--tokens", type=click.IntRange(min=1), default=200, show_default=True, help="At most so many."
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.8,
    show_default=True,
    help="0 takes the likeliest token every time.",
)
@click.option("--top-k", type=click.IntRange(min=1), help="Draw from the K likeliest.  [all]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@workspace_option
@backend_option
@sandbox_option
@json_option
def command(
    trial_id: int | None,
    place: Path | None,
    prompt: str,
    tokens: int,
    temperature: float,
    top_k: int | None,
    seed: int,
    folder: Path,
    backend: str | None,
    sandbox: str,
    json_mode: bool,
) -> None:
    """Write a text with the weights of TRIAL, the champion unless named.

    The weights of the champion and of the baseline are kept. They run on any backend, whichever
    they were trained on, in the same sandbox as trials do. It ends where the model ends a document.
    The same seed draws the same text on the same machine. `autoresearch dashboard` shows the text
    that was written last; of a new champion a run has one written between two trials.
    """
    import backends
    from autoresearch.commands.train import chosen_tier
    from autoresearch.console import Output, looking
    from autoresearch.engine.proposers.text import clean
    from autoresearch.sampling import put_text
    from prepare.errors import PrepareError
    from prepare.sample import Drawing, write_text

    out = Output(json_mode)
    weights, hidden = _find(folder, trial_id, place)
    drawing = Drawing(temperature, top_k, seed)
    tier = chosen_tier(sandbox)
    if json_mode:
        backends.select(backend)  # what isn't there is told as such
    else:
        with out.progress() as on_event, looking(on_event):
            backends.select(backend)
    begun = time.monotonic()
    pieces: list[str] = []
    if not json_mode:
        click.echo(clean(prompt), nl=False)
    for piece in write_text(
        weights.script,
        weights.tokenizer,
        weights.max_seq_len,
        weights.file,
        prompt=prompt,
        tokens=tokens,
        drawing=drawing,
        backend=backend,
        sandbox=tier,
        hidden=hidden,
    ):
        pieces.append(piece)
        if not json_mode:
            click.echo(clean(piece), nl=False)
    out.say()
    text = "".join(pieces)
    if place is None:
        try:
            put_text(weights.folder, text, prompt, drawing)
        except (PrepareError, OSError) as error:  # it was written, which is what was asked for
            out.warn(f"`autoresearch dashboard` won't show this text: {error}")
    if json_mode:
        out.result(
            {
                "prompt": prompt,
                "text": text,
                "trial": weights.facts.get("trial"),
                "val_bpb": weights.facts.get("val_bpb"),
                "weights": str(weights.file),
                "seconds": time.monotonic() - begun,
            }
        )


def _find(
    folder: Path, trial_id: int | None, place: Path | None
) -> tuple[Weights, tuple[Path, ...]]:
    """Weights of a trial or in a folder, and where the study's text lies, hidden from its trials.

    Raises UsageError, NoData, CorruptFile.
    """
    from autoresearch.model_folder import Weights
    from autoresearch.opening import go_on
    from autoresearch.study import Study
    from autoresearch.weights import weights_of
    from prepare.errors import UsageError
    from prepare.isolation import text_folders

    if place is not None:
        if trial_id is not None:
            raise UsageError("a trial and --weights name two things", "name one of them")
        return Weights.open(place), ()
    study = Study.read(folder)
    champion = study.state.champion
    if champion is None:
        raise UsageError("there is no champion yet", f"begin with `{go_on(folder)}`")
    weights = weights_of(study, champion if trial_id is None else trial_id)
    return weights, text_folders(study.settings)
