"""Finished weights and what they are, in a folder that needs nothing else to be used.

    weights = Weights.open(folder)                   # raises NoData, CorruptFile
    weights.file, weights.script, weights.tokenizer, weights.facts["val_bpb"]
    describe(folder, program, settings, result)      # what a run left becomes such a folder

It holds

    weights.safetensors   as training left them
    train.py              the program that they belong to
    vocabulary.json       the tokenizer that they were trained with
    README.md             a model card
    model.json            what they are, the SHA-256 of the weights among it; written last

A study keeps some in `.autoresearch/weights/TAG/NNNN` (`autoresearch.weights`), those of one
`autoresearch train` stay in its run folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.model_card import card
from prepare.cache import read_json, sha256_file, write_json
from prepare.errors import CorruptFile, NoData
from prepare.settings import NAMED_CORPORA, Settings

if TYPE_CHECKING:
    from prepare.tokenizer import Tokenizer

WEIGHTS_NAME = "weights.safetensors"
SCRIPT_NAME = "train.py"
VOCABULARY_NAME = "vocabulary.json"
EXPORTED_NAME = "model.safetensors"  # what model hubs call them
CARD_NAME = "README.md"
FACTS_NAME = "model.json"
FORMAT = 1
# Of a run's record; the rest is of no use with the weights, or names this machine's folders.
_OF_RUN = (
    "val_bpb",
    "score_id",
    "verified",
    "seed",
    "tokens",
    "tokens_per_second",
    "num_steps",
    "num_params",
    "depth",
    "training_seconds",
    "mfu_percent",
    "mfu_measured_percent",
    "peak_memory_mb",
    "floor_bpb",
    "backend",
    "hardware",
    "versions",
    "tier",
)


@dataclass(frozen=True)
class Weights:
    """Weights that were checked against what is said of them."""

    folder: Path
    facts: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Weights:
        """Those in `folder`. Raises NoData where it has none, CorruptFile where they are others."""
        try:
            facts = read_json(folder / FACTS_NAME)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NoData(f"no weights are kept in {folder}", "name another folder") from error
        found = cls(folder, facts)
        gone = [p.name for p in (found.file, found.script, found._tokens) if not p.is_file()]
        if gone:
            raise CorruptFile(f"{folder} lacks {', '.join(gone)}", "train the program again")
        if sha256_file(found.file) != facts.get("sha256"):
            raise CorruptFile(
                f"{found.file} isn't what {FACTS_NAME} says: its hash differs",
                "somebody changed it; train the program again",
            )
        return found

    @property
    def file(self) -> Path:
        """The safetensors file, which an export calls by another name."""
        exported = self.folder / EXPORTED_NAME
        return exported if exported.is_file() else self.folder / WEIGHTS_NAME

    @property
    def script(self) -> Path:
        """The train module."""
        return self.folder / SCRIPT_NAME

    @property
    def _tokens(self) -> Path:
        return self.folder / VOCABULARY_NAME

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises CorruptFile."""
        from prepare.tokenizer import Tokenizer

        return Tokenizer.load(self._tokens)

    @property
    def max_seq_len(self) -> int:
        """The context in tokens that the model was built for. Raises CorruptFile."""
        try:
            return int(self.facts["settings"]["max_seq_len"])
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFile(
                f"{self.folder / FACTS_NAME} doesn't say for which context the model was built",
                "train the program again",
            ) from error


def describe(
    folder: Path,
    program: bytes,
    settings: Settings,
    result: Mapping[str, Any],
    decision: Mapping[str, Any] = {},
    digest: str = "",
) -> None:
    """Write beside the weights in `folder` all that is needed to use them.

    program: the train module. result: the record of the run. decision: of the trial, if one was
    made of it. Raises PrepareError, OSError.
    """
    from prepare.dataset import prepare_dataset

    tokenizer = prepare_dataset(settings).tokenizer
    corpus = settings.corpus if settings.corpus in NAMED_CORPORA else Path(settings.corpus).name
    facts = {
        "format": FORMAT,
        "sha256": digest or sha256_file(folder / WEIGHTS_NAME),
        **decision,
        **{name: result.get(name) for name in _OF_RUN},
        # Why a kernel was passed over is an error's own text, with folders of this machine in it.
        "policy": {k: v for k, v in (result.get("policy") or {}).items() if k != "reasons"},
        "settings": {**settings.model_dump(mode="json"), "corpus": corpus},
        "tokenizer": tokenizer.fingerprint,
    }
    (folder / SCRIPT_NAME).write_bytes(program)
    tokenizer.save(folder / VOCABULARY_NAME)
    (folder / CARD_NAME).write_text(card(facts), encoding="utf-8", newline="\n")
    write_json(folder / FACTS_NAME, facts)
