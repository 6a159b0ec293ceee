"""NDCG@10 and MRR@10 of a run, as a JSON report.

    python evaluate.py out/dev.run data/dev.qrels

A query that the run leaves out, or a document of it, counts as ranked last.
"""

import json
import math
import sys
from collections import defaultdict
from pathlib import Path

DEPTH = 10
Table = dict[str, dict[str, float]]


def read(file: str) -> Table:
    """A number by query and document. Raises ValueError for one that isn't finite."""
    table: Table = defaultdict(dict)
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        query, document, value = line.split("\t")
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"{file}: {query}, {document}: {value}")
        table[query][document] = number
    return table


def gain(labels: list[float]) -> float:
    """Discounted cumulative gain of labels in their order."""
    return sum((2**label - 1) / math.log2(at + 2) for at, label in enumerate(labels[:DEPTH]))


def report(run: Table, qrels: Table) -> dict[str, float]:
    """Means over the queries. Of equal scores the less relevant document comes first."""
    ndcg = mrr = 0.0
    for query, labels in qrels.items():
        scores = run.get(query, {})
        order = sorted(labels, key=lambda d: (-scores.get(d, -math.inf), labels[d]))
        ranked = [labels[document] for document in order]
        best = gain(sorted(labels.values(), reverse=True))
        ndcg += gain(ranked) / best if best else 0.0
        mrr += next((1 / (at + 1) for at, x in enumerate(ranked[:DEPTH]) if x == 2), 0.0)
    return {"queries": len(qrels), "NDCG@10": ndcg / len(qrels), "MRR@10": mrr / len(qrels)}


if __name__ == "__main__":
    print(json.dumps(report(read(sys.argv[1]), read(sys.argv[2]))))
