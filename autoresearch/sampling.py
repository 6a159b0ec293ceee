"""What weights that are kept write: a short text beside them, with how it was drawn.

    champion_writes(study)                    # after a keep; what goes wrong is a warning
    read_text(study.weights / "0007")         # {"text", "prompt", "seed", ...}, or {}

The writer of a study has each new champion write between two trials, when nothing is timed; where
several are under way, the last champion at the end. A page that shows the text runs nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prepare.cache import write_json
from prepare.errors import PrepareError

if TYPE_CHECKING:
    from autoresearch.study import Study
    from prepare.sample import Drawing

TEXT_NAME = "sample.json"
TOKENS = 150
SECONDS = 60.0  # that a champion's text may hold the night up
MOST = 20_000  # characters of a text that are kept


def champion_writes(study: Study) -> None:
    """Have a champion that wrote none yet write a text, to be called while no run is being timed.

    A baseline's text is nobody's wish until `autoresearch sample`.
    """
    from autoresearch.weights import weights_of
    from prepare.isolation import text_folders
    from prepare.sample import Drawing, write_text

    champion = study.loop.state.champion
    if not champion or study.jail is None or not (study.weights / f"{champion:04d}").is_dir():
        return
    if read_text(study.weights / f"{champion:04d}"):
        return
    backend, sandbox = study.jail
    drawing = Drawing()
    try:
        weights = weights_of(study, champion)
        pieces = write_text(
            weights.script,
            weights.tokenizer,
            weights.max_seq_len,
            weights.file,
            tokens=TOKENS,
            drawing=drawing,
            backend=backend,
            sandbox=sandbox,
            hidden=text_folders(study.settings),
            seconds=SECONDS,
        )
        put_text(weights.folder, "".join(pieces), "", drawing)
    except (PrepareError, OSError) as error:
        message = f"the champion wrote no text: {getattr(error, 'message', error)}"
        study.on_event("warning", {"message": message})


def put_text(folder: Path, text: str, prompt: str, drawing: Drawing) -> None:
    """Keep a text beside the weights in `folder`. Raises PrepareError."""
    document = {"prompt": prompt[:MOST], "text": text[:MOST], **asdict(drawing)}
    write_json(folder / TEXT_NAME, document)


def read_text(folder: Path) -> dict[str, Any]:
    """What is kept there; {} where there is nothing that can be read."""
    try:
        found = json.loads((folder / TEXT_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
