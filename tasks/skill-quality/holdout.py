"""Other checks of PROGRAM/skill.md, which nothing is optimised for. 100 in all.

python holdout.py PROGRAM
"""

import json
import re
import sys
from pathlib import Path

text = (Path(sys.argv[1]) / "skill.md").read_text(encoding="utf-8")
prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
sentences = [s for s in re.split(r"[.!?:]\s", prose) if s.strip()]
lengths = [len(s.split()) for s in sentences]
bodies = re.split(r"^## .+$", prose, flags=re.MULTILINE)[1:]
held = {
    "short sentences": (25, sum(n <= 25 for n in lengths) / max(len(lengths), 1)),
    "no empty section": (15, bool(bodies) and all(body.strip() for body in bodies)),
    "no line said twice": (20, len(set(prose.split("\n\n"))) == len(prose.split("\n\n"))),
    "names a command in its words": (15, "`" in prose.replace("```", "")),
    "warns of what can't be undone": (15, bool(re.search("never|before you|only after", prose))),
    "no first person": (10, not re.search(r"\b(I|we|our)\b", prose)),
}
print(json.dumps({"score": round(sum(w * float(e) for w, e in held.values()), 3)}))
