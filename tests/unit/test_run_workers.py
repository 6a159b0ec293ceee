"""`run` with several workers and several proposers: what is refused, who is told which option."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

import backends
from autoresearch import cli, local_pool
from autoresearch.commands.run import deal_options, read_options
from autoresearch.console import Output
from autoresearch.engine.executor import Done, Inline
from autoresearch.engine.trial import Replicate
from autoresearch.narration import narrated
from autoresearch.now import read_now
from autoresearch.study import Options, Study
from backends.hardware import GIB
from tests.unit.command_line import CPU, git, make_fake_workspace


def measure(study: Any, request: Any) -> Replicate:
    """A run that takes no time."""
    request.run_dir.mkdir(parents=True)
    return Replicate(request.seed, 1.0 + request.seed / 100, score_id="id")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace on a machine with one processor of eight cores."""
    monkeypatch.setattr(Telling, "shown", [], raising=False)
    folder = make_fake_workspace(tmp_path / "w", monkeypatch, measure, "RATE = 0.5\n")
    monkeypatch.setattr("backends.facts.usable_cores", lambda: 8)
    return folder


class Telling(Inline):
    """Makes runs here, and tells of a trouble first; `shown` is what a watcher sees of it."""

    shown: list[str]

    def collect(self, timeout: float | None = None) -> list[Done]:
        """Make the next run."""
        if not self.shown:
            self.tell("one device is left out")
            self.shown.append(read_now(Path(".autoresearch/now.json"))["trial"]["warning"])
        return super().collect(timeout)


class Pool(Telling):
    """Stands for worker processes: says how it was made."""

    made: list[dict[str, Any]]

    def __init__(
        self, spec: Any, slots: Any, logs: Path, earlier: Any, silence: float, tell: Any
    ) -> None:
        super().__init__(lambda request: measure(None, request))
        self.tell = tell
        self.made.append({"spec": spec, "slots": slots, "earlier": len(list(earlier))})
        assert silence >= 1800

    @property
    def slots(self) -> dict[str, int]:
        """As many as were found."""
        return {"": len(self.made[-1]["slots"])}


def test_more_workers_than_accelerators_are_refused_with_what_to_do(workspace, capsys):
    assert cli.run(["run", "--workers", "2", "--trials", "1"]) == 2
    said = capsys.readouterr().err
    assert "2 workers, and one accelerator (Some CPU)" in said and "--share-device" in said
    assert not (workspace / "results.jsonl").exists(), "nothing has begun"
    assert cli.run(["run", "--workers", "0"]) == 2


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(("words", "expected"), [([], "0123"), (["--workers", "2"], "01")])
def test_there_is_a_worker_for_each_accelerator_unless_fewer_are_asked_for(
    words, expected, monkeypatch, capsys
):
    monkeypatch.setattr(Pool, "made", [], raising=False)
    monkeypatch.setattr(local_pool, "LocalPool", Pool)
    four = replace(CPU, backend="cuda", count=4)
    monkeypatch.setattr(backends, "detected", lambda requested=None: four)
    monkeypatch.setattr("autoresearch.slots._equal_to_first", lambda *_: range(4))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cli.run(["run", "--trials", "1", *words]) == 0
    made = Pool.made[-1]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in made["slots"]] == [*expected]
    assert made["spec"]["shared_by"] == 1, "each has its own"
    assert len(Study.read(Path()).state.trials[0].replicates) == 3
    assert Pool.shown == ["one device is left out"] and Pool.shown[0] in capsys.readouterr().err


@pytest.mark.usefixtures("workspace")
def test_who_shares_a_device_says_so_in_spec_and_ledger_and_fills_it_for_the_baseline(
    monkeypatch, capsys
):
    monkeypatch.setattr(Pool, "made", [], raising=False)
    monkeypatch.setattr(local_pool, "LocalPool", Pool)
    assert cli.run(["run", "--workers", "2", "--share-device", "--trials", "1", "--json"]) == 0
    made = Pool.made[-1]
    assert made["spec"]["kind"] == "pretraining" and made["spec"]["shared_by"] == 2
    assert json.dumps(made["spec"]), "it goes to another process"
    assert made["earlier"] == 0 and len(made["slots"]) == 2
    study = Study.read(Path())
    assert len(study.state.trials[0].replicates) == 4, "three seeds leave one of two slots idle"
    assert [record["shared_by"] for record in study.ledger.records("sharing")] == [2]
    capsys.readouterr()
    assert cli.run(["run", "--trials", "1"]) == 0, "one worker makes runs in this process"
    assert "1 at once on a device, not 2 as before" in capsys.readouterr().err
    assert len(Pool.made) == 1
    assert [record["shared_by"] for record in study.ledger.records("sharing")] == [2, 1]
    with Study.write(Path(), Options()):  # whatever measures nothing doesn't count
        pass
    assert len(study.ledger.records("sharing")) == 2


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("backend", ["cpu", "mps"])
def test_who_shares_an_accelerator_by_time_is_told_what_that_does_to_scores(
    backend, monkeypatch, capsys
):
    monkeypatch.setattr(Pool, "made", [], raising=False)
    monkeypatch.setattr(local_pool, "LocalPool", Pool)
    monkeypatch.setattr(backends, "detected", lambda requested=None: replace(CPU, backend=backend))
    argv = ["run", "--workers", "2", "--share-device", "--trials", "1"]
    assert cli.run(argv) == 0
    warned = "runs share this device by time" in capsys.readouterr().err
    assert warned == (backend != "cpu"), "of a processor each has its own cores"
    if warned:
        settings = Path("autoresearch.toml")
        settings.write_text(settings.read_text() + "token_budget = 1000\n")
        git("commit", "-qam", "count tokens")
        assert cli.run(argv) == 0
        assert "by time" not in capsys.readouterr().err


class Devices(Telling):
    """Stands for a Ray cluster: says how it was opened."""

    opened: list[dict[str, Any]]
    kinds: list[str]

    def __init__(self, spec: Any, **options: Any) -> None:
        super().__init__(lambda request: self._measure_on(request))
        self.opened.append({"spec": spec, **options})
        self.tell = options["tell"]

    @property
    def slots(self) -> dict[str, int]:
        """Two of each kind."""
        return {self.opened[-1]["confirm"]: 2, self.opened[-1]["screen"]: 2}

    def submit(self, request: Any, kind: str = "") -> int:
        """Queue a run, and note what it is for."""
        self.kinds.append(kind)
        request.run_dir.mkdir(parents=True)
        (request.run_dir / "kind").write_text(kind)
        return super().submit(request, kind)

    def _measure_on(self, request: Any) -> Replicate:
        kind = (request.run_dir / "kind").read_text()
        details = {"device_kind": kind, "hardware_id": f"its {kind}"}
        return Replicate(request.seed, 1.0, score_id=kind, details=details)


@pytest.mark.usefixtures("workspace")
def test_a_cluster_is_opened_with_what_was_asked_for(monkeypatch):
    monkeypatch.setattr(Devices, "opened", [], raising=False)
    monkeypatch.setattr(Devices, "kinds", [], raising=False)
    monkeypatch.setattr("autoresearch.cluster.opening.RayExecutor", Devices)
    argv = ["run", "--engine", "ray", "--address", "h:1", "--trials", "1", "--tag", "night"]
    argv += ["--confirm", "h100", "--screen", "t4", "--workers", "3", "--memory", "20", "--json"]
    assert cli.run(argv) == 0
    (opened,) = Devices.opened
    given = [opened[name] for name in ("address", "tag", "confirm", "screen", "most")]
    assert given == ["h:1", "night", "h100", "t4", 3]
    assert opened["memory"] == 20 * GIB and opened["devices"] == 1
    assert opened["spec"]["sandbox"] == "auto", "each node's own"
    assert json.dumps(opened["spec"]), "it goes to other machines"
    first = Study.read(Path()).state.trials[0]
    assert {run.score_id for run in first.screening} == {"t4"}
    assert {run.score_id for run in first.replicates} == {"h100"}
    assert Devices.kinds[-1] == "t4", "a trial begins on the cheap kind"
    assert Devices.shown == ["one device is left out"]
    assert opened["usual"] == {}, "nothing was measured yet"
    assert cli.run(argv) == 0
    assert Devices.opened[-1]["usual"] == {"h100": "its h100", "t4": "its t4"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--address", "h:1"], "--address goes with --engine ray"),
        (["--memory", "0"], "--memory goes with --engine ray"),
        (["--engine", "ray", "--share-device"], "--share-device is for this machine's"),
    ],
)
@pytest.mark.usefixtures("workspace")
def test_what_is_for_clusters_alone_is_refused_elsewhere_and_the_reverse(words, said, capsys):
    assert cli.run(["run", "--trials", "1", *words]) == 2
    assert said in capsys.readouterr().err


def test_options_go_to_whom_they_name():
    given = read_options(
        ("model=a", "claude.model=b", "2.effort=high", "api.base_url=http://x/y=z")
    )
    agents = ("claude", "claude", "api")
    assert deal_options(agents, given) == [
        {"model": "b"},
        {"model": "b", "effort": "high"},
        {"model": "a", "base_url": "http://x/y=z"},
    ]
    assert deal_options(("search",), read_options(("trials=3",))) == [{"trials": 3}]
    # A place is more than a name, whatever was typed first.
    both = read_options(("1.model=b", "claude.model=a"))
    assert deal_options(("claude", "claude"), both) == [{"model": "b"}, {"model": "a"}]
    with pytest.raises(click.UsageError, match=r"no --agent 'claud'.*Did you mean 'claude'"):
        deal_options(agents, {"claud.model": "b"})
    with pytest.raises(click.UsageError, match="no --agent '4'"):
        deal_options(agents, {"4.model": "b"})
    with pytest.raises(click.UsageError, match="write KEY=VALUE"):
        read_options(("claude.=b",))


@pytest.mark.usefixtures("workspace")
def test_several_proposers_are_asked_in_turn(capsys):
    argv = ["--agent", "command", "--agent", "search", "--trials", "2", "--json"]
    edit = "python -c \"open('train.py', 'w').write('RATE = 0.25\\\\n')\""
    assert cli.run(["run", *argv, "--agent-option", f"command.command={edit}"]) == 0
    capsys.readouterr()
    trials = Study.read(Path()).state.trials
    assert [trials[number].proposer for number in (1, 2)] == ["command", "search"]


def test_json_tells_of_progress_now_and_then_for_each_run(capsys):
    with narrated(Output(json_mode=True)) as on_event:
        for step in range(3):
            for number in (4, 5):
                about = {"id": number, "run": "candidate-0"}
                on_event("progress", {**about, "step": step})
                on_event("ran", about) if step == 2 else None
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["event"], line["id"]) for line in told] == [
        ("progress", 4),
        ("progress", 5),
        ("ran", 4),
        ("ran", 5),
    ]
