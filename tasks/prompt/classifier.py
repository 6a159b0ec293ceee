"""A classifier that reads its prompt: sections headed `## label`, nearest by words and their parts.

labels, weights = read_prompt(text)
label = classify("I was charged twice", labels, weights)
"""

import math
import re
from collections import Counter

Vector = dict[str, float]
PLAIN = set(
    re.findall(r"\w+", "a an and are as at be by for i in is it me my of on or our that the")
)
PLAIN |= {"to", "us", "we"}


def features(text: str) -> Counter:
    """Words, and runs of four letters within them: `charge` is like `charged`."""
    found: Counter = Counter()
    for word in re.findall(r"[a-z']+", text.lower()):
        if word in PLAIN:
            continue
        found[word] += 1
        padded = f"^{word}$"
        found.update({padded[at : at + 4]: 0.5 for at in range(len(padded) - 3)})
    return found


def read_prompt(text: str) -> tuple[dict[str, Counter], Vector]:
    """What each section says, and how telling each feature is among them."""
    parts = re.split(r"^## (\w+)$", text.partition("\nMessage:")[0], flags=re.MULTILINE)
    labels = {name: features(body) for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    spread = Counter(feature for found in labels.values() for feature in found)
    weights = {f: math.log(1 + len(labels) / count) for f, count in spread.items()}
    return labels, weights


def classify(message: str, labels: dict[str, Counter], weights: Vector) -> str:
    """The label whose section is most like the message; the first of equals."""
    asked = features(message)

    def like(found: Counter) -> float:
        dot = sum(asked[f] * math.sqrt(found[f]) * weights[f] ** 2 for f in asked if f in found)
        norm = math.sqrt(sum(count * weights[f] ** 2 for f, count in found.items()))
        return dot / norm if norm else 0.0

    return max(labels, key=lambda name: like(labels[name]))
