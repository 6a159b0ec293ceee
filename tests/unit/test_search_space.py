"""The search space of the seed train.py under every preset: what is proposed can be built."""

import pytest

from autoresearch.engine.constants import apply_constants, constants_of
from autoresearch.engine.proposers.search import SearchProposer
from autoresearch.preset import list_presets, load_preset
from autoresearch.search_space import HINTS, validity
from autoresearch.workspace_files import seed_text


def test_every_constant_of_the_seed_has_a_hint():
    assert set(constants_of(seed_text("train.py"))) == set(HINTS)


@pytest.mark.parametrize("name", list_presets())
def test_proposals_are_valid_under_every_preset(name, tmp_path):
    preset = load_preset(name)
    constants, length = preset.constants, preset.settings.max_seq_len
    assert validity(length)(constants) is None, "the preset itself"
    proposer = SearchProposer(HINTS, validity(length), seed=1)
    moved = set()
    for seed in range(15):
        changes = proposer.suggest(constants, seed)
        assert 1 <= len(changes) <= 3
        new = {**constants, **{name: value for name, _, value in changes}}
        assert new["TOTAL_BATCH_SIZE"] % (new["DEVICE_BATCH_SIZE"] * length) == 0
        assert new["DIVERGED_LOSS"] == constants["DIVERGED_LOSS"]
        source = apply_constants(seed_text("train.py"), new)
        assert constants_of(source) == new
        moved |= {name for name, _, _ in changes}
    assert len(moved) >= 6, "no constant is favoured before anything is known"


def test_what_can_not_work_is_said():
    good = load_preset("demo").constants
    check = validity(256)
    assert check(good) is None and check({}) is None
    for wrong, words in (
        ({"DEVICE_BATCH_SIZE": 3}, "multiple"),
        ({"HEADS_PER_KV_HEAD": 8}, "groups of 8"),
        ({"GATE_CHANNELS": 512}, "GATE_CHANNELS"),
        ({"WARMUP_RATIO": 0.3, "WARMDOWN_RATIO": 0.8}, "whole budget"),
    ):
        assert words in check({**good, **wrong})
    shared = validity(256, devices=4)
    assert shared(good) is None
    assert "evenly over 4 devices" in shared({**good, "DEVICE_BATCH_SIZE": 2})
