"""Of what kind a try was: which part of the program its edit touched, read from the diff.

kind_of(diff, "DEPTH: 8 -> 6")     # "model size"

It is a rough sorting by names, for the eye: nothing is decided by it.
"""

from __future__ import annotations

import re
from collections import Counter

from autoresearch.engine.trial import DiffStat

BASELINE, COMBINATION, SEVERAL, OTHER = "baseline", "combination", "several constants", "other"
# The first that fits counts. Upper-case constants, then names of functions and classes.
_CONSTANTS = (
    ("batch", r"BATCH"),
    ("schedule", r"WARM|FINAL_LR|COOLDOWN|SCHEDULE"),
    ("learning rate", r"(^|_)LR($|_)|LEARNING_RATE"),
    ("optimizer", r"WEIGHT_DECAY|BETA|MOMENTUM|ADAM|MUON|POLAR|NS_STEPS|GRAD|EPS|OPTIM"),
    ("attention", r"WINDOW|ROPE|HEAD|SOFTCAP|ATTN|ATTENTION|GATE"),
    ("model size", r"DEPTH|ASPECT|DIM|LAYER|WIDTH|EMBD|EMBED|CHANNEL|MLP|HIDDEN|EXPAN"),
    ("regularisation", r"DROP|NOISE|SMOOTH|Z_LOSS|INIT"),
)
_CODE = (
    ("schedule", r"lr_mult|schedule|warm|momentum$|multiplier|anneal"),
    ("optimizer", r"muon|adam|optim|orthogonal|newton|scalars|step$|sgd|lion|clip|grad|update"),
    ("attention", r"attn|attention|rot|rope|window|head|qkv"),
    ("training loop", r"^train|loop|batches|loss|ema"),
    ("architecture", r"mlp|block|gpt|model|norm|embed|linear|config|layer|gate|act|build|init|moe"),
)
_ASSIGNED = re.compile(r"^[+-]([A-Z][A-Z0-9_]+)\s*(?::[^=]+)?=(?!=)")
_DEFINED = re.compile(r"^(?:async )?(?:def|class)\s+(\w+)")
_HUNK = re.compile(r"^@@ [^@]*@@ ?(.*)$")
_NAMED = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|\b(?:DEPTH|SOFTCAP|LR)\b")


def kind_of(diff: str, description: str = "") -> str:
    """The kind of an edit of train.py; by what its description names, where no diff is left."""
    constants, code = touched(diff)
    if not diff:
        constants = Counter(_NAMED.findall(description))
    if code:
        kinds: Counter[str] = Counter()
        for name, lines in code.items():
            kinds[_family(name, _CODE, re.I) or "other code"] += lines
        return kinds.most_common(1)[0][0]
    families = {_family(name, _CONSTANTS) or "other constants" for name in constants}
    if len(families) > 1:
        return SEVERAL
    return families.pop() if families else OTHER


def kind_by_size(stat: DiffStat) -> str:
    """The kind of an edit of any other artifact: by how many lines it changed."""
    lines = stat.added + stat.removed
    for most in (2, 10, 50):
        if lines <= most:
            return f"up to {most} lines"
    return "over 50 lines"


def touched(diff: str) -> tuple[Counter[str], Counter[str]]:
    """Changed lines of a unified diff: by upper-case constant, and by function or class.

    Blank lines and comments count for nothing. A line outside of any function that assigns no
    constant counts for `module`.
    """
    constants: Counter[str] = Counter()
    code: Counter[str] = Counter()
    inside = ""
    for line in diff.splitlines():
        hunk = _HUNK.match(line)
        if hunk:
            inside = _name(hunk[1])
            continue
        if line.startswith(("+++", "---", "diff ", "index ")):
            continue
        body = line[1:]
        if body and not body[0].isspace() and body[0] not in "#)]}@":
            inside = _name(body)
        if line[:1] not in "+-" or not body.strip() or body.lstrip().startswith("#"):
            continue
        assigned = _ASSIGNED.match(line)
        if assigned:
            constants[assigned[1]] += 1
        elif inside or not body.startswith(("import ", "from ", " ", ")")):
            code[inside or "module"] += 1
    return constants, code


def _name(line: str) -> str:
    """What a line at the margin defines; "" for anything that is neither function nor class."""
    found = _DEFINED.match(line)
    return found[1] if found else ""


def _family(name: str, table: tuple[tuple[str, str], ...], flags: int = 0) -> str:
    return next((kind for kind, pattern in table if re.search(pattern, name, flags)), "")
