"""benchmarks/presets.py without its trainings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoresearch.constants import apply_constants
from tests.unit.benchmark_scripts import benchmark


def test_every_setting_fits_its_train_module() -> None:
    with benchmark("presets") as presets:
        settings = presets.settings_for("cpu-tinystories")
        assert list(settings) == ["fork", "well set", "cpu-tinystories"]
        for setting in settings.values():
            changed = apply_constants(setting.source.read_text("utf-8"), setting.constants)
            for name, value in setting.constants.items():
                assert f"\n{name} = {value!r}" in changed.replace('"', "'")
            step, rows = (setting.constants[f"{n}_BATCH_SIZE"] for n in ("TOTAL", "DEVICE"))
            assert step % (rows * setting.max_seq_len) == 0


def test_the_summary_says_by_what_part_the_preset_is_lower() -> None:
    with benchmark("presets") as presets:
        rows = [
            {"setting": name, "val_bpb": value}
            for name, values in {"fork": (1.0, 0.8, 0.9), "ours": (0.45, 0.4, 0.5)}.items()
            for value in values
        ]
        assert presets.summary(rows, "ours") == {"fork": 0.9, "ours": 0.45, "below fork": 0.5}
        assert presets.summary(rows[:3], "ours") == {"fork": 0.9}


@pytest.mark.parametrize("ends", [0, 5])
def test_a_run_gives_its_result_or_says_what_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: int
) -> None:
    with benchmark("presets") as presets:
        program = tmp_path / "program.py"
        program.write_text(
            "import json, os, pathlib, sys\n"
            "source = pathlib.Path('train.py').read_text()\n"
            "deep = 'DEPTH = 4' in source\n"
            "said = {'event': 'result', 'deep': deep, 'seed': os.environ['SEED']}\n"
            "print(json.dumps(said)) if not int(os.environ['ENDS']) else print('it broke')\n"
            "sys.exit(int(os.environ['ENDS']))\n"
        )
        monkeypatch.setattr(presets, "PROGRAM", [presets.PROGRAM[0], str(program)])
        setting = presets.settings_for("cpu-tinystories")["fork"]
        setting.environment.update(SEED="1", ENDS=str(ends))
        if ends:
            with pytest.raises(RuntimeError, match="it broke"):
                presets.train(setting, tmp_path / "run", "embedded", 1.0, 1)
        else:
            result = presets.train(setting, tmp_path / "run", "embedded", 1.0, 1)
            assert json.dumps(result) == '{"event": "result", "deep": true, "seed": "1"}'
