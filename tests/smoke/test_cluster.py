"""Runs on a real Ray cluster of two nodes on this machine; nodes, workers and drivers die."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ray = pytest.importorskip("ray", reason="Ray isn't installed: pip install 'autoresearch[cluster]'")
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray without its test cluster")

from autoresearch.cluster import connection  # noqa: E402
from autoresearch.cluster.executor import RayExecutor  # noqa: E402
from autoresearch.cluster.tokens import Tokens  # noqa: E402
from autoresearch.cluster.workers import Patience  # noqa: E402
from autoresearch.engine.executor import BEGUN, LOST  # noqa: E402
from autoresearch.engine.task import MeasureRequest  # noqa: E402
from prepare.errors import EnvironmentProblem, UsageError  # noqa: E402
from prepare.settings import Settings  # noqa: E402

HERE = Path(__file__).parent
SETTINGS = Settings(corpus_bytes=60_000, vocab_size=256, max_seq_len=32, eval_bytes=2_000)
PATIENCE = Patience(look=0.3, pause=0.3, slow=1.0, turn=1e9)
STORE = 80 << 20


class Cluster:
    """Two nodes of one slot, each with a cache of its own; one with an accelerator."""

    def __init__(self, folder):
        self.folder = folder
        self._ray = cluster_utils.Cluster()
        self.nodes = []
        self.add("head", include_dashboard=False)
        self.add("second", num_gpus=1)  # which Ray believes, and gives out
        self.address = self._ray.address

    def add(self, name, **options):
        cache = {"AUTORESEARCH_CACHE": str(self.folder / f"cache-{name}")}
        node = self._ray.add_node(
            num_cpus=1,
            object_store_memory=STORE,
            env_vars=cache,
            labels={"autoresearch.kind": "box"},
            **options,
        )
        self.nodes.append(node)

    def kill(self, number):
        self._ray.remove_node(self.nodes[number], allow_graceful=False)

    def close(self):
        self._ray.shutdown()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cluster")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(HERE))  # where the workers find what they measure
        patch.setenv("AUTORESEARCH_CACHE", str(folder / "cache-driver"))
        found = Cluster(folder)
        try:
            yield found
        finally:
            found.close()


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def executor(cluster, told):
    with open_executor(cluster, tokens=lambda: Tokens.of(SETTINGS), tell=told.append) as found:
        yield found


def open_executor(cluster, **options):
    spec = {"kind": "asked", "settings": SETTINGS.model_dump(mode="json")}
    options = {"tag": "mar5", "patience": PATIENCE, "measures": "cluster_kinds:KINDS", **options}
    return RayExecutor(
        spec, address=cluster.address, environment={"AUTORESEARCH_DTYPE": "float32"}, **options
    )


@pytest.fixture
def request_of(tmp_path):
    def make(seed=0, on_event=lambda name, data: None, **ask):
        program = tmp_path / f"program-{seed}"
        program.mkdir(exist_ok=True)
        (program / "do.json").write_text(json.dumps(ask))
        return MeasureRequest(program, seed, tmp_path / f"run-{seed}", on_event)

    return make


def collect(executor, count, seconds=30.0):
    found, until = [], time.monotonic() + seconds
    while len(found) < count and time.monotonic() < until:
        found += executor.collect(timeout=1.0)
    return found


def until(true, seconds=15.0):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    return true()


def test_a_cluster_that_is_not_there_is_told_at_once(monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.1)
    with pytest.raises(EnvironmentProblem, match=r"no Ray at 127\.0\.0\.1:9"):
        connection.Connection("127.0.0.1:9")


def test_a_kind_that_the_cluster_lacks_is_refused_with_those_that_it_has(cluster):
    with pytest.raises(UsageError, match="'h100'") as refused:
        open_executor(cluster, confirm="h100")
    assert "box (2)" in refused.value.hint


def test_runs_are_made_on_both_nodes_and_all_they_leave_comes_back(executor, request_of, cluster):
    assert executor.slots == {"box": 2}
    events = []
    for seed in range(4):
        asked = {"events": 3, "sleep": 0.5, "large": 40 << 20 if seed == 0 else 0}
        request = request_of(seed, lambda name, data: events.append(name), **asked)
        executor.submit(request)
    done = {each.ticket: each.replicate for each in collect(executor, 4)}
    assert [done[ticket].score for ticket in sorted(done)] == [0.0, 1.0, 2.0, 3.0]
    run = request_of(0).run_dir
    assert (run / "log.txt").read_text() == "done"
    assert (run / "weights.bin").read_bytes() == bytes(range(256)) * ((40 << 20) // 256)
    assert json.loads((run / "result.json").read_text()) == {"run_dir": str(run)}
    details = [replicate.details for replicate in done.values()]
    assert {d["run_dir"] for d in details} == {str(request_of(n).run_dir) for n in range(4)}
    assert len({d["pid"] for d in details}) == 2
    assert events.count(BEGUN) == 4 and events[0] == BEGUN and events.count("progress") == 4
    # Our settings and not our folders, our program and not the node's, threads as without Ray.
    assert {d["dtype"] for d in details} == {"float32"}
    assert {Path(d["cache"]).name for d in details} == {"cache-head", "cache-second"}
    assert all("working_dir_files" in d["program"] for d in details)
    assert {d["threads"] for d in details} == {os.environ.get("OMP_NUM_THREADS")}
    assert all(d["pid"] in d["company"] for d in details)
    assert {d["visible"] for d in details if d["cache"].endswith("second")} == {"0"}
    assert max(d["earlier"] for d in details) > 0  # the last was begun when others had ended


def test_the_command_tells_what_there_is_and_who_uses_it(executor, cluster):
    command = [sys.executable, "-m", "autoresearch.cli", "cluster", "devices", "--json"]
    done = subprocess.run(
        [*command, "--address", cluster.address], capture_output=True, text=True, check=True
    )
    expected = {"devices": 2, "nodes": 2, "studies": {"mar5": 2}}
    assert json.loads(done.stdout)["kinds"] == {"box": expected}


def test_text_reaches_each_node_once(executor, cluster):
    fetched = [(node, path) for node, paths in executor.workers.received for path in paths]
    assert len(fetched) == len(set(fetched)) == 2 * len(executor.workers.tokens.files)
    for name in ("cache-head", "cache-second"):
        assert any((cluster.folder / name / "prepared").iterdir())


def test_a_run_whose_worker_dies_is_made_again_and_given_up_in_the_end(
    executor, request_of, tmp_path, told
):
    once, always = tmp_path / "once", tmp_path / "always"
    first = executor.submit(request_of(1, note=str(once), dies=1))
    second = executor.submit(request_of(2, note=str(always), dies=99))
    done = {each.ticket: each.replicate for each in collect(executor, 2, 60)}
    assert done[first].score == 1.0
    assert len(once.read_text().split()) == 2
    assert done[second].score is None and done[second].failure.kind == LOST
    assert len(always.read_text().split()) == 3
    assert any("made again" in line and "process died" in line for line in told)


def test_a_slow_run_is_begun_elsewhere_and_counts_once(executor, request_of, tmp_path):
    note = tmp_path / "note"
    begun = time.monotonic()
    ticket = executor.submit(request_of(3, note=str(note), hangs=1))
    done = collect(executor, 1)
    assert [each.ticket for each in done] == [ticket] and time.monotonic() - begun < 25
    first, second = note.read_text().split()
    assert done[0].replicate.details["pid"] == int(second)
    assert executor.collect(timeout=0.5) == []
    assert until(lambda: not psutil.pid_exists(int(first)))


def test_a_cancelled_run_ends_and_is_not_collected(executor, request_of, tmp_path):
    note = tmp_path / "note"
    ticket = executor.submit(request_of(4, note=str(note), sleep=60))
    assert until(lambda: executor.collect(timeout=0.2) == [] and note.exists())
    executor.cancel(ticket)
    assert executor.collect(timeout=1.0) == []
    assert until(lambda: not psutil.pid_exists(int(note.read_text())))


def test_what_no_node_can_do_ends_the_study_with_the_reason(executor, request_of):
    executor.submit(request_of(5, problem=1))
    with pytest.raises(EnvironmentProblem, match="no space left"):
        collect(executor, 1, 60)


def test_two_studies_share_and_one_whose_process_is_killed_leaves_nothing(
    executor, request_of, cluster, tmp_path
):
    pids = tmp_path / "other" / "pids"
    command = [sys.executable, str(HERE / "cluster_driver.py"), cluster.address, str(pids.parent)]
    other = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(HERE)})
    try:
        tickets = [executor.submit(request_of(seed, sleep=0.4)) for seed in range(30)]
        done = []
        while not (pids.exists() and len(done) > 2) and len(done) < len(tickets):
            done += executor.collect(timeout=1.0)
        assert executor.slots == {"box": 1}  # it has two runs at work and this one thirty to make
        assert len(pids.read_text().split()) == 1
    finally:
        other.kill()
        other.wait()
    done += collect(executor, len(tickets) - len(done), 60)
    assert sorted(each.ticket for each in done) == tickets
    assert executor.slots == {"box": 2}
    assert until(lambda: not psutil.pid_exists(int(pids.read_text().split()[0])))


def test_runs_of_a_node_that_dies_are_made_on_another(executor, request_of, cluster):
    tickets = [executor.submit(request_of(seed, sleep=2.0)) for seed in range(3)]
    assert until(lambda: executor.collect(0.2) == [] and len(busy(executor)) == 2)
    cluster.kill(1)
    done = collect(executor, 3, 60)
    assert sorted(each.ticket for each in done) == tickets
    assert until(lambda: executor.slots == {"box": 1})


def busy(executor):
    return [worker for worker in executor.workers if worker.state == "busy"]
