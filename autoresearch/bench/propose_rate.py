"""A proposer for `run --agent command`: a worse learning rate, so that one run decides.

Another program for the loop, the same kernels for the compiler. Run as a script, in the folder that
holds the train.py to edit; the request comes as JSON on standard input.
"""

import json
import re
import sys
from pathlib import Path

if __name__ == "__main__":
    seed = json.load(sys.stdin)["seed"]
    script, rate = Path("train.py"), 1e-5 * (1 + seed % 1000)
    text = script.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^MATRIX_LR = .*$", f"MATRIX_LR = {rate:.5f}", text)
    script.write_text(text, encoding="utf-8")
    print(json.dumps({"description": f"MATRIX_LR: {rate:.5f}"}))
