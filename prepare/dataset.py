"""From settings to rows: everything an experiment reads, prepared once and found again.

    data = prepare_dataset(settings)
    Feed(data.train, settings.seed).fill(batch)

What is prepared lies in the cache under names made of fingerprints, so a change of corpus,
vocabulary or version never meets old tokens. A second call only maps files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prepare.cache import (
    Event,
    cache_root,
    digest,
    ignore_event,
    lock,
    read_json,
    writable_folder,
    write_json,
)
from prepare.corpus import open_corpus
from prepare.errors import CorruptFile, IncompleteShard, VocabularyMismatch
from prepare.packing import RowPlan, Rows, plan_rows
from prepare.settings import Settings
from prepare.tokenizer import Tokenizer, check_vocab_size
from prepare.tokens import TokenStore

VERSION = 1
# Text a tokenizer learns from: more than this moves few merges and costs minutes on a small
# machine.
TOKENIZER_CHARACTERS = 64_000_000


@dataclass(frozen=True)
class Dataset:
    """What an experiment reads, and what its score is a function of."""

    tokenizer: Tokenizer
    train: Rows
    val: Rows
    val_bytes: int  # UTF-8 bytes of the validation text, each the target of exactly one token
    val_tokens: int  # tokens that are scored: all but BOS
    fingerprint: str  # of validation text, tokenizer and context length, on any machine
    floor_bpb: float | None  # exact entropy of the validation text in bits per byte, if known


def prepare_dataset(settings: Settings, on_event: Event | None = None) -> Dataset:
    """Download, train the tokenizer, tokenize and plan, as far as that isn't done.

    Two processes that ask at the same time don't work twice: the second waits. Raises PrepareError.
    """
    return _Preparation(settings, on_event or ignore_event).run()


def prepared_files(settings: Settings) -> tuple[str, Path, list[Path]]:
    """What `prepare_dataset` has prepared: the corpus' fingerprint, and the files in their folder.

    With these in its cache another machine needs no text, see `prepare.corpus.PreparedCorpus`.
    """
    made = _Preparation(settings, ignore_event)
    made._open()
    stores = [made._store(split) for split in ("train", "val")]
    names = ("store.json", "tokens.bin", "offsets.npy", "floor.json")
    paths = [made.folder / "tokenizer.json"]
    for store in stores:
        paths += [store / name for name in names]
        paths += sorted((store / f"rows-{settings.max_seq_len}").iterdir())
    return made.corpus.fingerprint, made.folder, [path for path in paths if path.is_file()]


class _Preparation:
    def __init__(self, settings: Settings, on_event: Event) -> None:
        self.settings, self.on_event = settings, on_event
        check_vocab_size(settings.vocab_size)
        self.corpus = open_corpus(settings)
        self.corpus.fetch(on_event)
        self.key = f"{self.corpus.fingerprint}-{settings.vocab_size}-{VERSION}"
        self.folder = cache_root() / "prepared" / self.key

    def run(self) -> Dataset:
        try:
            return self._open()
        except (FileNotFoundError, NotADirectoryError, IncompleteShard, CorruptFile):
            pass  # not prepared yet, or damaged: said below, by the step that mends it
        writable_folder(cache_root())
        name = f"{self.corpus.name}-{self.settings.vocab_size}"
        waiting = {"message": f"another process prepares {name}: waiting for it"}
        with lock(
            cache_root() / "locks" / f"{self.key}.lock", lambda: self.on_event("warning", waiting)
        ):
            self._prepare()
            return self._open()

    def _open(self) -> Dataset:
        tokenizer = self._tokenizer()
        train, val = (
            self._rows(TokenStore.open(self._store(split), tokenizer), split)
            for split in ("train", "val")
        )
        val_tokens = len(val.store.tokens) - val.store.n_documents
        bits = read_json(self._store("val") / "floor.json").get("bits")
        return Dataset(
            tokenizer=tokenizer,
            train=train,
            val=val,
            val_bytes=val.store.text_bytes,
            val_tokens=val_tokens,
            fingerprint=digest(
                VERSION,
                hashlib.sha256(val.store.tokens.tobytes()).hexdigest(),
                tokenizer.fingerprint,
                self.settings.max_seq_len,
            ),
            floor_bpb=None if bits is None else bits / val.store.text_bytes,
        )

    def _tokenizer(self) -> Tokenizer:
        path = self.folder / "tokenizer.json"
        tokenizer = Tokenizer.load(path)
        if tokenizer.vocab_size != self.settings.vocab_size:
            raise VocabularyMismatch(
                f"{path} has {tokenizer.vocab_size} tokens, the settings ask for "
                f"{self.settings.vocab_size}",
                "delete it and run `autoresearch prepare` again",
            )
        return tokenizer

    def _store(self, split: str) -> Path:
        return self.folder / (split if split == "train" else f"val-{self.settings.eval_bytes}")

    def _rows(self, store: TokenStore, split: str) -> Rows:
        folder = self._store(split) / f"rows-{self.settings.max_seq_len}"
        return Rows(store, RowPlan.load(folder))

    def _prepare(self) -> None:
        writable_folder(self.folder)
        path = self.folder / "tokenizer.json"
        if not path.exists():
            self.on_event("phase", {"phase": "tokenizer"})
            texts = self.corpus.sample(TOKENIZER_CHARACTERS)
            Tokenizer.train(texts, self.settings.vocab_size).save(path)
        tokenizer = self._tokenizer()
        if tokenizer.unused:
            message = (
                f"the text is too small for this vocabulary: {tokenizer.unused} ids stay unused"
            )
            self.on_event("warning", {"message": message})
        for split in ("train", "val"):
            self.on_event("phase", {"phase": f"tokens of {split}"})
            store = self._tokens(split, tokenizer)
            self._plan(split, store)
        # Kept, because knowing it means generating the text again.
        bits = self.corpus.floor_bits("val", store.n_documents)
        write_json(self._store("val") / "floor.json", {"bits": bits})

    def _tokens(self, split: str, tokenizer: Tokenizer) -> TokenStore:
        folder = self._store(split)
        try:
            return TokenStore.open(folder, tokenizer)
        except FileNotFoundError:
            pass
        except (IncompleteShard, CorruptFile) as error:
            self.on_event("warning", {"message": f"{error.message}: building it again"})
        texts = self.corpus.documents(split)
        if split == "val":
            texts = until(texts, self.settings.eval_bytes)
        size = self.corpus.train_bytes if split == "train" else self.settings.eval_bytes
        store = TokenStore.build(
            folder, texts, tokenizer, self.on_event, size, task=f"tokens of {split}"
        )
        if split == "val" and store.text_bytes < self.settings.eval_bytes:
            message = (
                f"the validation text has only {store.text_bytes} bytes, not the "
                f"{self.settings.eval_bytes} that eval_bytes asks for: scores are noisier"
            )
            self.on_event("warning", {"message": message})
        return store

    def _plan(self, split: str, store: TokenStore) -> None:
        folder = self._store(split) / f"rows-{self.settings.max_seq_len}"
        try:
            Rows(store, RowPlan.load(folder))
            return
        except FileNotFoundError:
            pass
        except CorruptFile as error:
            self.on_event("warning", {"message": f"{error.message}: planning again"})
        plan_rows(store.offsets, self.settings.max_seq_len).save(folder)


def until(texts: Iterator[str], n_bytes: int) -> Iterator[str]:
    """Whole documents until they hold at least `n_bytes` of UTF-8."""
    for text in texts:
        yield text
        n_bytes -= len(text.encode("utf-8"))
        if n_bytes <= 0:
            return
