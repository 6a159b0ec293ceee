"""Trains a reranker and ranks dev and test with it.

    python -m reranker.train --config configs/train.json --data data --out out --seed 0

In the folder `out`: model.safetensors, and dev.run and test.run (query id, document id, score).
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from reranker.data import Ranking, batch, read, vocabulary
from reranker.model import Reranker


def loss_of(scores: torch.Tensor, labels: torch.Tensor, kind: str) -> torch.Tensor:
    """pointwise: is each document relevant at all? listwise: which one is it?"""
    if kind == "pointwise":
        return F.binary_cross_entropy_with_logits(scores, (labels > 0).float())
    target = (2.0**labels - 1) / (2.0**labels - 1).sum(-1, keepdim=True).clamp(min=1)
    return -(target * F.log_softmax(scores, -1)).sum(-1).mean()


def train(rankings: list[Ranking], known: dict[str, int], config: dict, seed: int) -> Reranker:
    """A model trained on labelled rankings."""
    torch.manual_seed(seed)
    order = random.Random(seed)
    model = Reranker(len(known) + 2, config["dim"], config["dropout"])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config["lr"], weight_decay=config["weight_decay"]
    )
    for epoch in range(config["epochs"]):
        rankings = order.sample(rankings, len(rankings))
        total, steps = 0.0, 0
        for at in range(0, len(rankings), config["batch_size"]):
            some = rankings[at : at + config["batch_size"]]
            scores = model(*batch(some, known))
            labels = torch.tensor([r.labels for r in some])
            loss = loss_of(scores, labels, config["loss"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, steps = total + loss.item(), steps + 1
        print(f"epoch {epoch + 1}: loss {total / steps:.4f}")
    return model.eval()


@torch.no_grad()
def rank(model: Reranker, rankings: list[Ranking], known: dict[str, int], file: Path) -> None:
    """Write a score for each document."""
    scores = model(*batch(rankings, known))
    rows = [
        f"{r.query_id}\t{document}\t{score:.6f}\n"
        for r, its in zip(rankings, scores.tolist(), strict=True)
        for document, score in zip(r.document_ids, its, strict=True)
    ]
    file.write_text("".join(rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, default=Path("configs/train.json"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    config = json.loads(given.config.read_text(encoding="utf-8"))
    rankings = read(given.data / "train.tsv")
    known = vocabulary(rankings)
    began = time.monotonic()
    model = train(rankings, known, config, given.seed)
    print(f"trained for {time.monotonic() - began:.1f} s")
    given.out.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), given.out / "model.safetensors")
    for split in ("dev", "test"):
        rank(model, read(given.data / f"{split}.tsv"), known, given.out / f"{split}.run")


if __name__ == "__main__":
    main()
