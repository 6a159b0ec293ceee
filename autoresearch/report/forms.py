"""How figures of a study are written: six decimals of val_bpb, six digits of any other score."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Story = Mapping[str, Any]


def score_form(story: Story) -> str:
    """Python's format of a score."""
    return ".6f" if story["kind"] == "pretraining" else ".6g"


def effect_form(story: Story) -> str:
    """Python's format of an effect among others, with its sign."""
    return "+" + score_form(story)


def gain_form(story: Story) -> str:
    """Python's format of an effect in a sentence, with its sign."""
    if story["kind"] == "pretraining":
        return "+.4f"
    sd = (story["noise"] or {}).get("sd", 0.0)
    # Two digits of what one run scatters by.
    return f"+.{min(8, max(0, 1 - math.floor(math.log10(sd))))}f" if sd > 0 else "+.4g"


def score(story: Story, value: float) -> str:
    """A score."""
    return format(value, score_form(story))


def sure(confidence: float | None) -> str:
    """A confidence in percent; what isn't certain doesn't look so."""
    if confidence is None:
        return ""
    return "over 99.9%" if 0.999 < confidence < 1 else f"{confidence:.1%}"


def gain(story: Story, value: float) -> str:
    """An effect in a sentence."""
    return format(value, gain_form(story))
