"""One model trained by two processes over gloo: the numbers are those of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from backends import data_parallel
from tests.backends.train_child import ROOT

CHILD = Path(__file__).with_name("rank_child.py")


def start(rank: int, size: int, folder: Path) -> subprocess.Popen:
    settings = {"BACKEND": "cpu", "DTYPE": "float32", "COMPILE": "0", "ATTENTION": "sdpa"}
    environment = {f"AUTORESEARCH_{name}": value for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(rank), str(size), str(folder)],
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What one process found (1-0.json) and what two did (2-0.json, 2-1.json)."""
    folder = tmp_path_factory.mktemp("ranks")
    started = [start(rank, size, folder) for rank, size in ((0, 1), (0, 2), (1, 2))]
    try:
        said = [process.communicate(timeout=300)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0, 0], "\n".join(said)
    return folder


@pytest.fixture(scope="module")
def found(folder) -> list[dict]:
    return [json.loads((folder / f"{n}.json").read_text()) for n in ("1-0", "2-0", "2-1")]


@pytest.mark.parametrize("job", ["seed", "descent"])
def test_the_losses_are_those_of_one_process(found, job):
    alone, first, second = (each[job]["losses"] for each in found)
    assert len(alone) >= 6
    assert alone[-1] < alone[0] - 0.1  # it learns: equal losses of no training would say nothing
    assert first == second
    assert first == pytest.approx(alone, abs=1e-5)


# Muon and AdamW make full steps of gradients that are nearly nothing but rounding.
@pytest.mark.parametrize(("job", "apart"), [("descent", 1e-6), ("seed", 1e-3)])
def test_the_weights_are_those_of_one_process(folder, job, apart):
    alone, first, second = (
        load_file(folder / f"{job}-{n}.safetensors") for n in ("1-0", "2-0", "2-1")
    )
    for name, weight in alone.items():
        assert torch.equal(first[name], second[name]), name
        assert (first[name] - weight).norm() <= apart * weight.norm(), name


def test_a_loop_of_ones_own_is_averaged_too_and_what_one_rank_leaves_out_is_not_lost(found):
    _, first, second = (each["by_hand"] for each in found)
    assert first == second
    used = {name for name, there in first["found"].items() if there}
    assert {"table.weight", "sometimes.weight"} <= used and "never.weight" not in used


def test_a_pass_that_breaks_off_leaves_the_next_as_it_should_be(found):
    _, first, second = (each["after_an_error"]["gradient"] for each in found)
    assert first == second > 0


def test_an_overflow_on_one_counts_on_all(found):
    alone, first, second = (each["overflow"] for each in found)
    assert alone["factor"] == 2.0**16 and alone["gradient"] > 0
    assert first == second == {"factor": 2.0**15, "gradient": 0.0}


def test_weights_of_another_training_are_noticed_and_rounding_is_not(found):
    alone, first, second = (each["apart"]["apart"] for each in found)
    assert alone == 0.0
    assert first == second > data_parallel.APART


def test_a_process_alone_leaves_everything_as_it_is():
    model = torch.nn.Linear(2, 2)
    data_parallel.watch(model)
    data_parallel.check_equal(model)
    value = torch.ones(())
    assert data_parallel.mean(value) is value and data_parallel.everywhere(value) is value
    assert data_parallel.rank() == 0
    assert not hasattr(model.weight, "_averaged")
