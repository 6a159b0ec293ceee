"""Proposes one edit of skill.md after another: good ones, and some that are not.

Deterministic: what was tried stands in the history that it is given.
"""

import json
import sys
from pathlib import Path

WHEN = (
    "description: Change a database schema without losing data or locking tables for long. "
    "Use when a task adds, renames or drops a table, column or index."
)
STEPS = """
## Steps

1. Read the newest migration, and write yours in the same form, with a way back.
2. Run it on a copy of the data, and measure how long it holds locks.
3. Add new columns as nullable first; fill them in batches of a few thousand rows.
4. Ask before you drop anything: a column goes only after no release reads it.
"""
COMMANDS = """
Migrate a copy, then the way back and forth again:

```sh
migrate --database copy up
migrate --database copy down 1 && migrate --database copy up
```

See which statements wait for a lock:

```sql
SELECT pid, query FROM pg_stat_activity WHERE wait_event_type = 'Lock';
```
"""
CHECK = """
## Check

The program's tests pass on the migrated copy, and row counts are those of before. `migrate status`
names no migration as pending.
"""
FAILS = """
## When it fails

Stop; never edit a migration that has run anywhere else. Run its way back, mend it, and begin at
step 2. If the way back fails too, restore the copy and say so.
"""
VAGUE = """This skill is about database migrations. Migrations should be done properly, etc.

You can write the migration and then run it and check carefully if everything is fine. Old columns
can be removed when they are not needed. Large tables are slow, so think about that as well. TODO:
say more about locks.
"""
PLAIN = """A migration changes the schema in steps that old and new code both live with.
"""
ADVICE = "\nAlways be careful, work properly, and test as appropriate, and so on.\n" * 6
EDITS = [
    ("say when to load it", "description: Database migrations.", WHEN),
    ("advise care", None, ADVICE),
    ("give the steps in order", None, STEPS),
    ("show commands to copy", None, COMMANDS),
    ("drop the front matter", "---\nname: migrations\n", ""),
    ("say how to see that it worked", None, CHECK),
    ("say what to do when it fails", None, FAILS),
    ("say the vague part in one sentence", VAGUE, PLAIN),
    ("repeat the steps", None, STEPS),
]

request = json.load(sys.stdin)
tried = [entry["description"] for entry in request["history"]["tried"]]
left = [edit for edit in EDITS if edit[0] not in tried]
# What crashed is not mended. What conflicts with an edit that was kept meanwhile is made anew.
anew = request["attempt"] == 0 or request["failure"]["kind"] == "conflict"
if left and anew:
    description, old, new = left[0]
    skill = Path("skill.md")
    text = skill.read_text(encoding="utf-8")
    skill.write_text(text + new if old is None else text.replace(old, new), encoding="utf-8")
    print(json.dumps({"description": description}))
else:
    print(json.dumps({"description": "every edit was tried", "exhausted": True}))
