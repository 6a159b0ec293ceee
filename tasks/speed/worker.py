"""Answers questions with one module's top_words(): a line of JSON in, a line of JSON out.

Started by stopwatch.py with the module's path. What the module prints goes nowhere.
"""

import importlib.util
import json
import os
import sys

answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

spec = importlib.util.spec_from_file_location("candidate", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

for line in sys.stdin:
    question = json.loads(line)
    answer = [list(pair) for pair in module.top_words(question["text"], question["n"])]
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
