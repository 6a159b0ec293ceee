"""How figures of a study are written: six decimals of val_bpb, six digits of any other score."""

from __future__ import annotations

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
    return "+.4f" if story["kind"] == "pretraining" else "+.4g"


def score(story: Story, value: float) -> str:
    """A score."""
    return format(value, score_form(story))


def gain(story: Story, value: float) -> str:
    """An effect in a sentence."""
    return format(value, gain_form(story))
