"""The wheel alone, in an empty environment, makes a workspace and trains in it for two seconds."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from prepare.settings import FILE_NAME, Settings
from tests.smoke.tiny import shrink

ROOT = Path(__file__).resolve().parents[2]


def call(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout with the build backend that is installed: no network."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    call(*command, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts folder of a new environment that holds the wheel.

    The libraries it depends on are lent from this environment by a path file, so that nothing is
    downloaded; path files inside a lent folder are not followed, so an editable install of this
    checkout stays invisible.
    """
    folder = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    paths = {"base": str(folder), "platbase": str(folder)}
    scheme = "nt" if os.name == "nt" else "posix_prefix"
    library = Path(sysconfig.get_path("purelib", scheme, vars=paths))
    lent = dict.fromkeys([sysconfig.get_path("purelib"), *site.getsitepackages()])
    (library / "lent.pth").write_text("\n".join(lent) + "\n", encoding="utf-8")
    place = Path(sysconfig.get_path("scripts", scheme, vars=paths))
    python = place / ("python.exe" if os.name == "nt" else "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    call(*pip, "--no-deps", "--no-index", "--force-reinstall", wheel, cwd=folder)
    return place


def test_wheel_carries_presets_seeds_and_templates(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"autoresearch/seed/train.py", "autoresearch/seed/program.md"} <= names
    assert "autoresearch/presets/demo.toml" in names
    assert "autoresearch/bench/reference/plain.py" in names
    assert "autoresearch/templates/AGENTS.md" in names
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)


def test_init_and_two_seconds_of_training_from_the_wheel(scripts: Path, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {
        "AUTORESEARCH_CACHE": str(tmp_path / "cache"),
        "AUTORESEARCH_BACKEND": "cpu",
        "AUTORESEARCH_COMPILE": "0",
        "AUTORESEARCH_DTYPE": "float32",
        "AUTORESEARCH_ATTENTION": "sdpa",
    }
    code = "import autoresearch, backends, prepare; print(autoresearch.__file__, prepare.__file__)"
    places = call(scripts / "python", "-c", code, cwd=tmp_path, env=env)
    assert str(ROOT) not in places

    autoresearch = scripts / "autoresearch"
    made = call(autoresearch, "init", "w", "--preset", "demo", "--json", cwd=tmp_path, env=env)
    assert json.loads(made)["preset"] == "demo"
    workspace = tmp_path / "w"
    assert (workspace / "train.py").is_file()
    assert (workspace / "program.md").is_file()
    shrink(workspace)
    settings = Settings.load(workspace)
    less = settings.model_copy(update={"corpus_bytes": 200_000, "eval_bytes": 4_000})
    (workspace / FILE_NAME).write_text(less.dumps(), encoding="utf-8")

    text = call(autoresearch, "train", "--time-budget", "2s", cwd=workspace, env=env)
    summary = dict(line.split(":") for line in text.split("---\n")[1].splitlines()[:9])
    assert 0.5 < float(summary["val_bpb"]) < 8.0
    assert float(summary["training_seconds"]) > 1.0
    assert int(summary["num_steps"]) > 0
