"""Proposes one edit of prompt.md after another: good ones, and some that are not.

Deterministic: what was tried stands in the history that it is given.
"""

import json
import sys
from pathlib import Path

EDITS = [
    (
        "billing: name what is paid with and for",
        "About money.",
        "Money: payments, invoices, receipts, refunds, prices, plans, discounts, cards, charges.",
    ),
    ("bug: say it politely", "Something is broken.", "Something may not be entirely as it should."),
    (
        "bug: name what goes wrong",
        "Something is broken.",
        "Something is broken: it crashes, freezes, fails, stops, shows an error, is wrong.",
    ),
    (
        "account: name what belongs to a person",
        "About the account.",
        "Who may come in: login, sign in, password, email, user name, profile, team, rights.",
    ),
    ("drop the place of the message", "Message: {message}\n", ""),
    (
        "feature: give the words of a wish",
        "A wish.",
        "A wish: please add, could you support, I wish, it would be great, an option, plans for.",
    ),
    ("feature: an example that misleads", "A wish", "The file crashes on save. A wish"),
    (
        "billing: an example",
        "charges.",
        "charges. Example: we pay yearly, the bank was charged twice.",
    ),
    (
        "account: an example",
        "team, rights.",
        "team, rights. Example: I am locked out, please delete or change my login.",
    ),
    (
        "feature: an example",
        "plans for.",
        "plans for. Example: let us choose a view, allow more, a way to share would help.",
    ),
]

request = json.load(sys.stdin)
tried = [entry["description"] for entry in request["history"]["tried"]]
prompt = Path("prompt.md")
text = prompt.read_text(encoding="utf-8")
left = [edit for edit in EDITS if edit[0] not in tried and edit[1] in text]
# What crashed is not mended. What conflicts with an edit that was kept meanwhile is made anew.
anew = request["attempt"] == 0 or request["failure"]["kind"] == "conflict"
if left and anew:
    description, old, new = left[0]
    prompt.write_text(text.replace(old, new, 1), encoding="utf-8")
    print(json.dumps({"description": description}))
else:
    print(json.dumps({"description": "every edit was tried", "exhausted": True}))
