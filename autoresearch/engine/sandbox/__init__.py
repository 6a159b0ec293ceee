"""Isolation tiers: how much of this machine code that nobody vouches for can reach.

    tier, passed_over = best_tier()
    wrapped = tier.wrap(argv, env, readable=[...], writable=[...])

bubblewrap    Linux namespaces: an own view of files, processes and network
landlock      Linux without namespaces: Landlock and seccomp
sandbox-exec  macOS' Seatbelt
process       everywhere: limits, and Python's audit hook

Every tier says what it `stops()` and what it `does_not_stop()`.
"""

from __future__ import annotations

import functools

from autoresearch.engine.sandbox.base import Limits, Miss, SandboxUnavailable, Tier, Wrapped
from autoresearch.engine.sandbox.bubblewrap import BubblewrapTier
from autoresearch.engine.sandbox.landlock import LandlockTier
from autoresearch.engine.sandbox.process import ProcessTier
from autoresearch.engine.sandbox.seatbelt import SeatbeltTier

__all__ = [
    "TIER_NAMES",
    "Limits",
    "Miss",
    "SandboxUnavailable",
    "Tier",
    "Wrapped",
    "all_tiers",
    "best_tier",
    "choose",
]

TIER_NAMES = ("bubblewrap", "landlock", "sandbox-exec", "process")


@functools.lru_cache(maxsize=1)
def all_tiers() -> tuple[Tier, ...]:
    """One of each tier, the strictest first."""
    return (BubblewrapTier(), LandlockTier(), SeatbeltTier(), ProcessTier())


def best_tier() -> tuple[Tier, tuple[Miss, ...]]:
    """The strictest tier that works here, found by jailing a tiny program; and what was not."""
    missed: list[Miss] = []
    for tier in all_tiers():
        reason = tier.problem()
        if not reason:
            return tier, tuple(missed)
        missed.append(Miss(tier.name, reason))
    raise AssertionError("the tier `process` works everywhere")


def choose(name: str = "auto") -> Tier:
    """The tier of this name, or the best for "auto".

    Raises SandboxUnavailable when it doesn't work here, ValueError for an unknown name.
    """
    if name == "auto":
        return best_tier()[0]
    for tier in all_tiers():
        if tier.name == name:
            reason = tier.problem()
            if reason:
                raise SandboxUnavailable(name, reason)
            return tier
    raise ValueError(f"no sandbox {name!r}; there are {', '.join(TIER_NAMES)} and auto")
