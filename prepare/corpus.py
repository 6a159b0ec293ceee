"""Where the text comes from: a stream of documents, the same in the same order every time.

    corpus = open_corpus(settings)
    corpus.fetch(on_event)                               # downloads what isn't here yet
    for document in corpus.documents("train"): ...

A corpus is `embedded` (generated), `climbmix` or `tinystories` (downloaded), or the path of a
file or folder of parquet, jsonl or txt, whose rules files.py tells. On a machine that was given
another one's tokens it is `prepared:FINGERPRINT`, and has no text.
"""

from __future__ import annotations

import difflib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

from prepare.cache import Event, cache_root, digest, ignore_event, lock
from prepare.download import RemoteFile, checksum, download, present
from prepare.errors import NoData, UsageError
from prepare.files import (
    clean,
    cut_text,
    file_hashes,
    find_files,
    is_validation,
    parquet_text_bytes,
    read_file,
    read_parquet,
)
from prepare.hub import hub_url
from prepare.settings import Settings

# One document in ten is validation, and of large corpora about 4 MB: evaluations read less.
VAL_SHARE, VAL_BYTES = 0.1, 4_000_000

# The text is one and the same for everyone: the settings' seed is that of weights and rows.
EMBEDDED_SEED = 0
EMBEDDED_SAMPLE = 4_000_000
PREPARED = "prepared:"  # and the fingerprint of the corpus that the tokens were made from


class Corpus(ABC):
    """Documents in two disjoint splits."""

    name: str

    def fetch(self, on_event: Event = ignore_event) -> None:
        """Bring here what the corpus consists of. Raises DownloadError and its kin."""
        return None

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """16 hex digits that change when the text of either split changes."""

    @abstractmethod
    def documents(self, split: str) -> Iterator[str]:
        """Stream the documents of "train" or "val", none of them empty, in a fixed order."""

    @property
    @abstractmethod
    def train_bytes(self) -> int:
        """About how many bytes of UTF-8 the training documents have."""

    def sample(self, n_characters: int) -> Iterator[str]:
        """Training documents, about `n_characters` in all, for the tokenizer to learn from."""
        return up_to(self.documents("train"), n_characters)

    def floor_bits(self, split: str, n_documents: int) -> float | None:
        """Exact information in the first `n_documents` of `split`, if the corpus knows it."""
        return None


def open_corpus(settings: Settings) -> Corpus:
    """The corpus that the settings name. Raises NoData, UsageError."""
    name = settings.corpus
    if name == EmbeddedCorpus.name:
        return EmbeddedCorpus(settings.corpus_bytes)
    if name in HUB_CORPORA:
        return HubCorpus(HUB_CORPORA[name], settings.shards)
    if name.startswith(PREPARED):
        return PreparedCorpus(name.removeprefix(PREPARED))
    path = Path(name).expanduser()
    known = [EmbeddedCorpus.name, *HUB_CORPORA]
    if not path.exists() and len(path.parts) == 1:
        near = difflib.get_close_matches(name, known, 1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise NoData(
            f"there is no corpus {name!r}",
            f"{guess}Name one of {', '.join(known)}, or a file or folder that exists",
        )
    return LocalCorpus(path)


class EmbeddedCorpus(Corpus):
    """Stories from our own grammar, whose entropy is known exactly."""

    name = "embedded"

    def __init__(self, n_bytes: int) -> None:
        """`n_bytes` of training text; validation text has no end."""
        self.n_bytes = n_bytes

    @property
    def fingerprint(self) -> str:
        """Version of the grammar, seed and size."""
        from prepare import embedded

        return digest("embedded", embedded.VERSION, EMBEDDED_SEED, self.n_bytes)

    @property
    def train_bytes(self) -> int:
        """See Corpus."""
        return self.n_bytes

    def documents(self, split: str) -> Iterator[str]:
        """See Corpus."""
        from prepare import embedded

        if split == "train":
            for story in embedded.stories(EMBEDDED_SEED, self.n_bytes, "train"):
                yield story.text
        else:
            for index in count():
                yield embedded.generate(EMBEDDED_SEED, index, "validation").text

    def sample(self, n_characters: int) -> Iterator[str]:
        """See Corpus; the grammar's words are few, and more text would not teach other merges."""
        return up_to(self.documents("train"), min(n_characters, EMBEDDED_SAMPLE))

    def floor_bits(self, split: str, n_documents: int) -> float:
        """See Corpus."""
        from prepare import embedded

        name = "train" if split == "train" else "validation"
        return sum(embedded.generate(EMBEDDED_SEED, i, name).bits for i in range(n_documents))


@dataclass(frozen=True)
class Slice:
    """Rows `first` to `last` of one parquet file; None is the end."""

    file: str
    first: int = 0
    last: int | None = None


@dataclass(frozen=True)
class HubDataset:
    """A dataset of parquet files with a column `text`, and which rows are which split."""

    name: str
    repository: str
    val: Slice
    train: Sequence[Slice]
    by_shard: bool  # whether the setting `shards` limits the training files


# karpathy/autoresearch trains on the first shards and validates on the last one.
CLIMBMIX = HubDataset(
    name="climbmix",
    repository="karpathy/climbmix-400b-shuffle",
    val=Slice("shard_06542.parquet"),
    train=tuple(Slice(f"shard_{number:05d}.parquet") for number in range(6542)),
    by_shard=True,
)
# The split that its dataset card suggests: rows 0 to 9,999 are for tests, which we don't touch.
TINYSTORIES = HubDataset(
    name="tinystories",
    repository="karpathy/tinystories-gpt4-clean",
    val=Slice("tinystories_gpt4_clean.parquet", 10_000, 20_000),
    train=(Slice("tinystories_gpt4_clean.parquet", 20_000),),
    by_shard=False,
)
HUB_CORPORA = {dataset.name: dataset for dataset in (CLIMBMIX, TINYSTORIES)}


class HubCorpus(Corpus):
    """Parquet files of a dataset hub, downloaded once into the cache."""

    def __init__(self, dataset: HubDataset, shards: int) -> None:
        """`shards` training files. Raises UsageError if there aren't that many."""
        if dataset.by_shard and shards > len(dataset.train):
            raise UsageError(
                f"{dataset.name} has {len(dataset.train)} training shards, not {shards}",
                f"set shards to {len(dataset.train)} or less",
            )
        self.name, self.dataset = dataset.name, dataset
        self.train = dataset.train[:shards] if dataset.by_shard else dataset.train
        self.folder = cache_root() / "corpora" / dataset.name

    @property
    def files(self) -> list[RemoteFile]:
        """What must be here: the validation file first, each file once."""
        names = dict.fromkeys(part.file for part in (self.dataset.val, *self.train))
        return [
            RemoteFile(hub_url(self.dataset.repository, name), self.folder / name) for name in names
        ]

    def fetch(self, on_event: Event = ignore_event) -> None:
        """See Corpus. Of two processes, one downloads and the other waits."""
        files = self.files
        if all(present(file) for file in files):
            return
        waiting = {"message": f"another process downloads {self.name}: waiting for it"}
        path = cache_root() / "locks" / f"{self.name}.lock"
        with lock(path, lambda: on_event("warning", waiting)):
            download(files, on_event)

    @property
    def fingerprint(self) -> str:
        """Content of every file as verified on arrival, and which rows of it are read."""
        parts = (self.dataset.val, *self.train)
        return digest(
            "hub-1", *((checksum(self.folder / part.file), part.first, part.last) for part in parts)
        )

    @property
    def train_bytes(self) -> int:
        """See Corpus."""
        return sum(parquet_text_bytes(self.folder / part.file) for part in self.train)

    def documents(self, split: str) -> Iterator[str]:
        """See Corpus."""
        for part in self.train if split == "train" else (self.dataset.val,):
            for text in read_parquet(self.folder / part.file, part.first, part.last):
                if text := clean(text):
                    yield text


class PreparedCorpus(Corpus):
    """A corpus whose tokens were brought here from another machine, without the text."""

    def __init__(self, fingerprint: str) -> None:
        """`fingerprint` as it is where the text is."""
        self.name = f"{PREPARED}{fingerprint}"

    @property
    def fingerprint(self) -> str:
        """See Corpus."""
        return self.name.removeprefix(PREPARED)

    @property
    def train_bytes(self) -> int:
        """See Corpus. Raises NoData."""
        raise self._absent()

    def documents(self, split: str) -> Iterator[str]:
        """See Corpus. Raises NoData."""
        raise self._absent()

    def _absent(self) -> NoData:
        return NoData(
            f"the tokens of the corpus {self.fingerprint} are not on this machine, nor is its text",
            "bring them from where they were prepared",
        )


class LocalCorpus(Corpus):
    """Files of the user's own: parquet, jsonl, txt."""

    def __init__(self, path: Path) -> None:
        """Find the files. Raises NoData if there are none, or all are empty."""
        self.root, self.name = path, path.name
        self.files = find_files(path)
        marked = [] if path.is_file() else [f for f in self.files if is_validation(f, path)]
        self.val_files = marked if len(marked) < len(self.files) else []
        if not any(file.stat().st_size for file in self.files):
            raise NoData(f"every file at {path} is empty", "point `corpus` at files that hold text")

    @cached_property
    def fingerprint(self) -> str:
        """Name and content of every file; SHA-256 is remembered by size and time of change."""
        base = self.root if self.root.is_dir() else self.root.parent
        names = [file.relative_to(base).as_posix() for file in self.files]
        return digest("local-1", *zip(names, file_hashes(self.files), strict=True))

    @property
    def train_bytes(self) -> int:
        """See Corpus."""
        return sum(self._sizes[file] for file in self.files if file not in self.val_files)

    @cached_property
    def _sizes(self) -> dict[Path, int]:
        return {
            file: parquet_text_bytes(file)
            if file.suffix.lower() == ".parquet"
            else file.stat().st_size
            for file in self.files
        }

    def documents(self, split: str) -> Iterator[str]:
        """See Corpus. Raises NoData if the corpus is too small to have both splits."""
        for file in self.files:
            yield from self._of_file(file, split)

    def sample(self, n_characters: int) -> Iterator[str]:
        """See Corpus; every file has its share, or one language might never be seen."""
        whole = max(self.train_bytes, 1)
        for file in self.files:
            share = -(-n_characters * self._sizes[file] // whole)
            yield from up_to(self._of_file(file, "train"), share)

    def _of_file(self, file: Path, split: str) -> Iterator[str]:
        if self.val_files:
            if (file in self.val_files) == (split == "val"):
                yield from read_file(file)
            return
        threshold, cut = self._rule
        for document in _cut(read_file(file), cut):
            if (text_hash(document) < threshold) == (split == "val"):
                yield document

    @cached_property
    def _rule(self) -> tuple[float, bool]:
        """(hash below which a document is validation, whether the only document is cut up).

        Reads until both splits have a document; too few for the share are divided between the
        lowest hash and the others.
        """
        share = min(VAL_SHARE, VAL_BYTES / sum(self._sizes.values()))
        for cut in (False, True):
            lowest, highest = 1.0, 0.0
            for file in self.files:
                for document in _cut(read_file(file), cut):
                    position = text_hash(document)
                    lowest, highest = min(lowest, position), max(highest, position)
                    if lowest < share <= highest:
                        return share, cut
            if lowest < highest:
                return (highest if highest < share else (lowest + highest) / 2), cut
        raise NoData(
            f"{self.root} holds too little text to set some aside for validation",
            "add text, or a file named val.txt",
        )


def _cut(documents: Iterator[str], cut: bool) -> Iterator[str]:
    for document in documents:
        if cut:
            pieces = cut_text(document, max(1, len(document) // 16))
            yield from filter(None, map(clean, pieces))
        else:
            yield document


def text_hash(text: str) -> float:
    """Uniform in [0, 1), from the text alone: equal documents are in the same split."""
    state = hashlib.blake2b(text.encode("utf-8"), digest_size=8)
    return int.from_bytes(state.digest(), "big") / 2**64


def up_to(texts: Iterator[str], n_characters: int) -> Iterator[str]:
    """Whole documents until they hold at least `n_characters`."""
    for text in texts:
        if n_characters <= 0:
            return
        yield text
        n_characters -= len(text)
