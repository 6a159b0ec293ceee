"""Makes the data set: queries, ten documents to rank for each, and how relevant these are.

    python scripts/make_data.py [--queries 600] [--folder data]

A topic has aspects, and each of these has words that people ask with and others that documents are
written in. Relevant is a document on the aspect that was asked for (2) or on its topic alone (1).
Documents that repeat a word of the query and are on something else are among the rest (0). A tenth
of the training labels is wrong.

    train.tsv                   query id, document id, label, query, document
    dev.tsv, test.tsv           the same without labels
    dev.qrels, test.qrels       query id, document id, label
"""

import argparse
import random
from pathlib import Path

TOPICS, ASPECTS, ASKED, WRITTEN, COMMON = 24, 4, 6, 8, 150
DOCUMENTS = 10
WRONG = 0.1  # of the training labels
SYLLABLES = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]


def words(rng: random.Random, taken: set[str], count: int) -> list[str]:
    """New words."""
    made: list[str] = []
    while len(made) < count:
        word = "".join(rng.choices(SYLLABLES, k=3))
        if word not in taken:
            taken.add(word)
            made.append(word)
    return made


class World:
    """Which words belong to what."""

    def __init__(self, rng: random.Random) -> None:
        taken: set[str] = set()
        self.common = words(rng, taken, COMMON)
        # One more than the aspects: what is said of the topic as a whole.
        parts = range(ASPECTS + 1)
        self.asked = [[words(rng, taken, ASKED) for _ in parts] for _ in range(TOPICS)]
        self.written = [[words(rng, taken, WRITTEN) for _ in parts] for _ in range(TOPICS)]

    def query(self, rng: random.Random, topic: int, aspect: int) -> list[str]:
        """Two words of the aspect, one of the topic, one that means nothing."""
        asked = self.asked[topic]
        found = [*rng.sample(asked[aspect], 2), rng.choice(asked[-1]), rng.choice(self.common)]
        rng.shuffle(found)
        return found

    def document(self, rng: random.Random, topic: int, aspect: int) -> list[str]:
        """Three words of the aspect, two of the topic, seven that mean nothing."""
        written = self.written[topic]
        found = [*rng.sample(written[aspect], 3), *rng.sample(written[-1], 2)]
        found += rng.choices(self.common, k=7)
        rng.shuffle(found)
        return found


def ranking(world: World, rng: random.Random) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """A query, and its documents with their labels."""
    topic, aspect = rng.randrange(TOPICS), rng.randrange(ASPECTS)
    query = world.query(rng, topic, aspect)
    documents = []
    for at in range(DOCUMENTS):
        label = 2 if at < rng.choice((1, 2)) else 1 if at < 4 else 0
        its_topic, its_aspect = topic, aspect
        if label == 1:
            its_aspect = rng.choice([a for a in range(ASPECTS) if a != aspect])
        if label == 0:
            its_topic = rng.choice([t for t in range(TOPICS) if t != topic])
            its_aspect = rng.randrange(ASPECTS)
        text = world.document(rng, its_topic, its_aspect)
        if label == 0 and rng.random() < 0.5:
            text[rng.randrange(len(text))] = rng.choice(query)
        documents.append((label, text))
    rng.shuffle(documents)
    return query, documents


def write(folder: Path, split: str, world: World, rng: random.Random, count: int) -> None:
    """One split: of train all in one file, of the others the labels in a file of their own."""
    rows, qrels = [], []
    for number in range(count):
        query, documents = ranking(world, rng)
        for at, (label, text) in enumerate(documents):
            ids = f"{split}{number}\t{split}{number}-{at}"
            texts = f"{' '.join(query)}\t{' '.join(text)}"
            if split == "train":
                noisy = rng.randrange(3) if rng.random() < WRONG else label
                rows.append(f"{ids}\t{noisy}\t{texts}\n")
            else:
                rows.append(f"{ids}\t{texts}\n")
                qrels.append(f"{ids}\t{label}\n")
    (folder / f"{split}.tsv").write_text("".join(rows), encoding="utf-8")
    if qrels:
        (folder / f"{split}.qrels").write_text("".join(qrels), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--queries", type=int, default=600, help="to train on; dev, test: a third")
    parser.add_argument("--folder", type=Path, default=Path("data"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(20)
    world = World(rng)
    for split, count in (("train", given.queries), ("dev", given.queries // 3)):
        write(given.folder, split, world, rng, count)
    write(given.folder, "test", world, rng, given.queries // 3)


if __name__ == "__main__":
    main()
