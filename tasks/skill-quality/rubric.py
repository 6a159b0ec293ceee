"""Scores PROGRAM/skill.md by checks with weights, 100 in all.

python rubric.py PROGRAM
"""

import json
import re
import sys
from pathlib import Path

VAGUE = ("properly", "carefully", "etc", "as needed", "should be fine", "appropriate", "and so on")
IMPERATIVES = ("run", "write", "read", "add", "check", "stop", "ask", "copy", "measure", "revert")


def parts(text: str) -> tuple[dict[str, str], str]:
    """The front matter's `key: value` lines, and the body."""
    found = re.match(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL)
    if found is None:
        return {}, text
    pairs = (line.partition(":") for line in found[1].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}, found[2]


def share(part: float, whole: float) -> float:
    """Of `whole`, at most all."""
    return min(part / whole, 1.0) if whole else 0.0


def checks(text: str) -> dict[str, tuple[float, float]]:
    """(weight, share of it earned) by check."""
    front, body = parts(text)
    said = front.get("description", "")
    code = re.findall(r"^```\w*\n(.*?)^```$", body, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```$", "", body, flags=re.DOTALL | re.MULTILINE)
    steps = re.findall(r"^\d+\. (\w+)", prose, re.MULTILINE)
    orders = [step for step in steps if step.lower() in IMPERATIVES]
    headings = re.findall(r"^## (.+)$", prose, re.MULTILINE)
    vague = sum(len(re.findall(rf"\b{word}\b", prose.lower())) for word in VAGUE)
    words = len(text.split())
    return {
        "named": (5, bool(re.fullmatch(r"[a-z][a-z0-9-]{2,40}", front.get("name", "")))),
        "says what for": (10, share(len(said.split()), 12)),
        "says when": (15, bool(re.search(r"\b(use|load) (this )?when\b", said.lower()))),
        "steps": (15, share(len(steps), 4)),
        "steps are orders": (5, share(len(orders), 4)),
        "commands to copy": (15, share(len(code), 2)),
        "how to see it worked": (10, any(re.search("check|verify", h.lower()) for h in headings)),
        "what if not": (10, any(re.search("fail|wrong|back", h.lower()) for h in headings)),
        "nothing vague": (5, share(1, 1 + vague)),
        "finished": (5, not re.search(r"\b(TODO|TBD|FIXME)\b", text)),
        "short": (5, 1.0 if words <= 250 else share(250, words)),
    }


text = (Path(sys.argv[1]) / "skill.md").read_text(encoding="utf-8")
found = checks(text)
score = round(sum(weight * float(earned) for weight, earned in found.values()), 3)
metrics = {"words": len(text.split()), "passed": sum(float(e) == 1 for _, e in found.values())}
print(json.dumps({"score": score, "metrics": metrics}))
