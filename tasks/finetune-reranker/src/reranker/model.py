"""The model: query and document are means of word vectors, their product is the score."""

import torch
from torch import nn


class Reranker(nn.Module):
    def __init__(self, words: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, dim, padding_idx=0)
        self.dropout = nn.Dropout(dropout)

    def pool(self, numbers: torch.Tensor) -> torch.Tensor:
        """(..., word) word numbers to (..., dim)."""
        vectors = self.dropout(self.embedding(numbers))
        count = (numbers != 0).sum(-1, keepdim=True).clamp(min=1)
        return vectors.sum(-2) / count

    def forward(self, queries: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        """(query, word) and (query, document, word) to scores (query, document)."""
        query, document = self.pool(queries), self.pool(documents)
        return torch.einsum("qe,qde->qd", query, document)
