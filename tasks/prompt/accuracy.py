"""Share of labelled messages that the classifier sorts rightly with PROGRAM/prompt.md.

python accuracy.py PROGRAM messages.tsv
"""

import json
import sys
from pathlib import Path

from classifier import classify, read_prompt

LABELS = ("billing", "account", "bug", "feature")

text = (Path(sys.argv[1]) / "prompt.md").read_text(encoding="utf-8")
rows = [line.split("\t") for line in Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()]
labels, weights = read_prompt(text)
broken = tuple(labels) != LABELS or text.count("{message}") != 1
right = 0 if broken else sum(classify(said, labels, weights) == label for label, said in rows)
metrics = {"words": len(text.split()), "broken": int(broken)}
print(json.dumps({"result": {"accuracy": right / len(rows), "metrics": metrics}}))
