"""Started as a process of its own (`python -I -S exchange.py`): puts files in place, all of them.

Its orders are a JSON list on standard input, of [NEW, PLACE]: NEW is moved to PLACE; without a NEW
what is at PLACE is removed. Orders that were cut short are none, and nothing moves. Once they are
read this goes on to the end, whatever becomes of whoever gave them. It needs the standard library
alone, and is quick to start.
"""

import json
import os
import sys


def exchange(orders: list) -> None:
    """Carry out all orders, in turn. Raises OSError."""
    for fresh, place in orders:
        if fresh is None:
            if os.path.lexists(place):
                os.unlink(place)
            continue
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.replace(fresh, place)


def main() -> None:
    """Read the orders whole, then carry them out."""
    try:
        orders = json.loads(sys.stdin.buffer.read())
    except ValueError:  # whoever gave them was killed meanwhile
        sys.exit("the orders end too early")
    try:
        exchange(orders)
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
