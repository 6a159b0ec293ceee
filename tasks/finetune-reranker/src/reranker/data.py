"""Reading queries with their documents into tensors."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Ranking:
    """One query and its documents. labels is empty where nobody gave any."""

    query_id: str
    query: list[str]
    document_ids: list[str]
    documents: list[list[str]]
    labels: list[int]


def read(file: Path) -> list[Ranking]:
    """The rankings of a .tsv file, with labels (five columns) or without (four)."""
    found: dict[str, Ranking] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        query_id, document_id, *label, query, document = line.split("\t")
        ranking = found.setdefault(query_id, Ranking(query_id, query.split(), [], [], []))
        ranking.document_ids.append(document_id)
        ranking.documents.append(document.split())
        ranking.labels += map(int, label)
    return list(found.values())


def vocabulary(rankings: Iterable[Ranking]) -> dict[str, int]:
    """A number per word, from 2: 0 is padding, 1 a word that wasn't seen."""
    words = {word for r in rankings for text in (r.query, *r.documents) for word in text}
    return {word: number for number, word in enumerate(sorted(words), start=2)}


def numbers(texts: list[list[str]], known: dict[str, int]) -> torch.Tensor:
    """(text, word) word numbers, padded with 0."""
    longest = max(map(len, texts))
    rows = [[known.get(w, 1) for w in text] + [0] * (longest - len(text)) for text in texts]
    return torch.tensor(rows)


def batch(rankings: list[Ranking], known: dict[str, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(query, word) and (query, document, word); every query has as many documents."""
    queries = numbers([r.query for r in rankings], known)
    documents = numbers([text for r in rankings for text in r.documents], known)
    return queries, documents.view(len(rankings), -1, documents.shape[-1])
