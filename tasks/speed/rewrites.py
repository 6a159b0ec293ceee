"""Proposes one rewrite of a part of fast.py after another: good ones, and some that are not.

Deterministic: what was tried stands in the history that it is given.
"""

import json
import sys
from pathlib import Path

HEAD = '''"""The most frequent words of a text. This is what gets faster."""

'''
DOC = '''    """The n most frequent words and their counts; equal counts in alphabetical order."""
'''
DEF = "\n\ndef top_words(text: str, n: int) -> list[tuple[str, int]]:\n" + DOC
ORDER = "    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:n]\n"
LOOP = """    words = []
    word = ""
    for character in text:
        if character.isalpha():
            word = word + character.lower()
        elif word:
            words.append(word)
            word = ""
    if word:
        words.append(word)
"""
SPLIT = '    words = "".join(c if c.isalpha() else " " for c in text).split()\n'
TABLE = """

class Letters(dict):
    def __missing__(self, code: int) -> int:
        self[code] = code if chr(code).isalpha() else 32
        return self[code]


LETTERS = Letters()
"""
TRANSLATED = "    words = text.translate(LETTERS).split()\n"
DICT = """    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
"""
COUNTER = "    counts = Counter(words)\n"
LOWER = "    words = [word.lower() for word in words]\n"
FOLDED = """    counts: dict[str, int] = {}
    for form, count in Counter(text.translate(LETTERS).split()).items():
        word = "".join(map(str.lower, form))
        counts[word] = counts.get(word, 0) + count
"""
IMPORT = "from collections import Counter\n"

REWRITES = [
    ("count in a dictionary", HEAD.rstrip() + DEF + LOOP + DICT + ORDER),
    ("split at spaces", HEAD.rstrip() + DEF + "    words = text.lower().split()\n" + DICT + ORDER),
    ("find the words by split()", HEAD.rstrip() + DEF + SPLIT + LOWER + DICT + ORDER),
    ("count twice, to be sure", HEAD.rstrip() + DEF + SPLIT + LOWER + DICT + DICT + ORDER),
    ("count with Counter", HEAD + IMPORT + DEF + SPLIT + LOWER + COUNTER + ORDER),
    (
        "turn what is no letter into spaces with a table",
        HEAD + IMPORT + TABLE + DEF + TRANSLATED + LOWER + COUNTER + ORDER,
    ),
    ("lower-case each form once", HEAD + IMPORT + TABLE + DEF + FOLDED + ORDER),
]

request = json.load(sys.stdin)
# Of a noisy trial nothing was concluded: it is worth another one.
past = [entry for entry in request["history"]["tried"] if entry["status"] != "noisy"]
tried = [entry["description"] for entry in past]
left = [rewrite for rewrite in REWRITES if rewrite[0] not in tried]
if left and request["attempt"] == 0:
    description, source = left[0]
    Path("fast.py").write_text(source, encoding="utf-8")
    print(json.dumps({"description": description}))
else:
    print(json.dumps({"description": "every rewrite was tried", "exhausted": True}))
