"""The simulator of many devices: the real loop on virtual time, in seconds."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

scale = pytest.importorskip("scale_simulator")


def test_more_devices_make_more_trials_an_hour_and_the_ledger_is_whole(tmp_path: Path) -> None:
    rows = [
        scale.simulate(
            tmp_path / str(devices), scale.Setting(devices, trials, lines=20, charged=False)
        )
        for devices, trials in ((1, 4), (8, 24))
    ]
    one, eight = rows
    assert (one["trials"], eight["trials"]) == (4, 24)
    assert eight["trials_per_hour"] > 3 * one["trials_per_hour"] > 0
    again = scale.simulate(tmp_path / "again", scale.Setting(8, 24, lines=20, charged=False))
    assert again["reached"] == eight["reached"] and again["statuses"] == eight["statuses"]
