"""Which nodes a study's workers stay on, and where lost runs go. The cluster is played."""

import itertools
from types import SimpleNamespace

import pytest

from autoresearch.cluster import devices, executor, wire
from autoresearch.cluster.executor import RayExecutor
from autoresearch.cluster.nodes import Node
from autoresearch.cluster.opening import asked_by, usual_devices
from autoresearch.cluster.workers import Patience, Workers
from autoresearch.engine.state import State
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Replicate, Trial, TrialStatus
from prepare.errors import EnvironmentProblem, UsageError

GIB = 2**30


class Played:
    """A cluster whose workers answer at once, each with its node's device.

    makes: what comes of each run, by node: a replicate (after two answers without news), a problem
    that it tells of, or the death of its worker. kinds: of nodes that are no "rtx". full: nodes
    that have no room for a worker.
    """

    job, errors = "01", ConnectionError

    def __init__(self, devices, makes=None, kinds=None, full=()):
        self.devices, self.makes, self.kinds = devices, makes or {}, kinds or {}
        self.full = full
        self.begun, self.ended, self.count = [], [], itertools.count()

    def nodes(self):
        kinds = {name: self.kinds.get(name, "rtx") for name in sorted(self.devices)}
        return [Node(name, name, kind, 1, 1.0, 1.0) for name, kind in kinds.items()]

    def names(self):
        return [], []

    def announce(self, driver): ...

    def end(self, actor):
        self.ended.append(actor.node)

    def close(self): ...

    def start(self, seat, node, kinds, environment):
        def begin(order):
            header, _ = wire.unpack(order)
            self.begun.append((node.id, header["job"]["seed"]))
            last = self.makes[node.id]
            if isinstance(last, Replicate):
                last = {"replicate": last.to_dict(), "large": [], "run": "/there"}
                says.extend([{}, {}])
            says.append(last)
            return look()

        def look():
            said = says.pop(0)
            return next(self.count), wire.pack(said, {}) if isinstance(said, dict) else said

        says = []
        about = wire.pack({"hardware": self.devices[node.id]}, {})
        hello = next(self.count), None if node.id in self.full else about
        calls = {"hello": lambda tokens, backend: hello, "begin": begin, "look": look}
        remotes = {name: SimpleNamespace(remote=call) for name, call in calls.items()}
        return SimpleNamespace(node=node.id, **remotes)

    def answered(self, references, timeout):
        return {reference for reference in references if reference[1] is not None}

    def get(self, reference):
        if isinstance(reference[1], Exception):
            raise reference[1]
        return reference[1]


def device(gib, name="RTX 4090"):
    return {"id": name, "name": name, "memory_bytes": int(gib * GIB)}


def tended(nodes, memory, told, usual=None, runs=None, full=(), wait=1e9):
    cluster = Played(nodes, full=full)
    given = "t", ("rtx",), None, "", "{}", None, "", memory, told.append, Patience(device=wait)
    workers = Workers(cluster, *given, {} if usual is None else {"rtx": usual})
    for _ in range(6):
        workers.tend({"rtx": runs or len(nodes)})
        assert workers.answers(0.0) == []
    return {worker.node.id for worker in workers.idle("rtx")}


def test_a_device_with_too_little_memory_is_left_out_and_told():
    told = []
    devices = {"large": device(23.6), "small": device(11.9)}
    assert tended(devices, 20 * GIB, told) == {"large"}
    assert told == [
        "the node small (rtx) is left out: its device (RTX 4090) has 11.9 GiB of memory and runs "
        "need 20, see --memory"
    ]


def test_where_all_are_too_small_the_study_ends_with_the_reason_and_another_kind_as_way_out():
    with pytest.raises(EnvironmentProblem) as refused:
        tended({"small": device(11.9)}, 20 * GIB, [])
    assert "11.9 GiB of memory and runs need 20" in refused.value.message
    assert "--confirm" in refused.value.hint


def test_of_two_devices_under_one_name_the_second_is_left_out():
    told = []
    devices = {"a": device(24), "b": device(24, "RTX 3090")}
    assert tended(devices, 0, told) == {"a"}
    assert "another device (RTX 3090)" in told[0]


MIXED = {"a": device(24), "b": device(24, "RTX 3090"), "c": device(24, "RTX 3090")}


@pytest.mark.parametrize(
    ("usual", "runs", "used"),
    [
        (None, 3, "a"),
        ("RTX 4090", 3, "a"),
        ("RTX 3090", 1, "b"),
        ("RTX 3090", 3, "bc"),
    ],
)
def test_of_two_devices_under_one_name_the_champions_counts_else_the_first(usual, runs, used):
    told = []
    assert tended(MIXED, 0, told, usual, runs) == set(used)
    assert not any("anew" in line for line in told)
    assert all("is left out: it has another device" in line for line in told)


def test_where_no_node_has_the_champions_device_the_one_of_most_nodes_counts_and_is_told():
    told = []
    assert tended(MIXED, 0, told, "RTX 5090") == {"b", "c"}
    assert "measured anew on RTX 3090" in told[0] and "the node a (rtx) is left out" in told[1]
    assert tended(MIXED, 0, [], "RTX 5090", runs=1) <= {"b", "c"}, "all are asked, one by one"


def test_a_node_that_may_have_the_champions_device_is_waited_for_but_not_for_ever(monkeypatch):
    told, clock = [], SimpleNamespace(monotonic=itertools.count(0, 5).__next__)
    assert tended(MIXED, 0, told, "RTX 5090", full={"c"}) == set() and told == []
    monkeypatch.setattr(devices, "time", clock)
    assert tended(MIXED, 0, told, "RTX 5090", full={"c"}, wait=30.0) == {"a"}
    assert "measured anew on RTX 4090" in told[0]


def test_the_champions_device_is_that_of_its_last_runs_by_kind():
    def run(seed, kind, hardware):
        made = {"device_kind": kind, "hardware_id": hardware} if kind else {}
        return Replicate(seed, 1.0, score_id=hardware, details=made)

    def trial(number, status, parent=0, **runs):
        return Trial(number, None if number == 0 else parent, status, "", **runs)

    state = State()
    assert usual_devices(state) == {}
    state.add(trial(0, TrialStatus.KEEP, replicates=(run(0, "a100", "40"),)))
    assert usual_devices(state) == {"a100": "40"}
    ours = {"replicates": (run(0, "a100", "80"),), "screening": (run(0, "t4", "16"),)}
    state.add(trial(1, TrialStatus.KEEP, **ours))
    state.add(trial(2, TrialStatus.DISCARD, 1, replicates=(run(0, "a100", "other"),)))
    assert usual_devices(state) == {"a100": "80", "t4": "16"}
    state.add(trial(3, TrialStatus.DISCARD, 1, champion_replicates=(run(1, "a100", "40"),)))
    assert usual_devices(state) == {"a100": "40", "t4": "16"}
    state.add(trial(4, TrialStatus.KEEP, 1, replicates=(run(0, "", "here"),)))
    assert usual_devices(state) == {}, "on no cluster"


# -- runs ----------------------------------------------------------------------------------------

MADE = Replicate(0, 1.0)
FULL = {"problem": {"message": "no space left", "hint": "free some", "exit_code": 4}}
DEAD = ConnectionError("The actor's worker process has died")


@pytest.fixture
def opened(monkeypatch):
    """An executor on a played cluster."""

    def open_executor(cluster, **options):
        monkeypatch.setattr(executor, "Connection", lambda *args, **more: cluster)
        patience = Patience(look=0.0, pause=0.0, slow=1e9)
        return RayExecutor({"kind": "asked", "settings": {}}, patience=patience, **options)

    return open_executor


def made(executor, folder, count, kind=""):
    """What comes of so many runs."""
    for seed in range(count):
        executor.submit(MeasureRequest(folder, seed, folder / f"run-{seed}"), kind)
    found = []
    while len(found) < count:
        found += executor.collect()
    return [done.replicate for done in found]


@pytest.mark.parametrize("fault", [FULL, DEAD], ids=["full", "dead"])
def test_a_node_that_fails_every_run_costs_no_run_while_another_makes_them(opened, tmp_path, fault):
    told = []
    cluster = Played({"bad": {}, "good": {}}, {"bad": fault, "good": MADE})
    with opened(cluster, tell=told.append) as ray:
        assert [run.score for run in made(ray, tmp_path, 8)] == [1.0] * 8
    on_bad = [seed for node, seed in cluster.begun if node == "bad"]
    assert on_bad and len(on_bad) == len(set(on_bad)), "no run goes back to it"
    if fault is FULL:
        assert len(on_bad) == 2
        assert "the node bad (rtx) is left out: no space left" in told


@pytest.mark.parametrize("nodes", ["a", "ab", "abcd"])
def test_what_nodes_say_one_after_the_other_ends_the_study(opened, tmp_path, nodes):
    cluster = Played({name: {} for name in nodes}, dict.fromkeys(nodes, FULL))
    with opened(cluster) as ray, pytest.raises(EnvironmentProblem, match="no space left"):
        made(ray, tmp_path, 1)
    assert len(cluster.begun) == (2 if nodes == "a" else 3)


def test_a_failure_that_passed_is_forgotten_with_the_next_run_that_is_made(opened, tmp_path):
    told, cluster = [], Played({"a": {}, "b": {}}, {"a": MADE, "b": MADE})
    with opened(cluster, tell=told.append) as ray:
        for _ in range(3):
            cluster.makes["a"] = FULL
            ray.submit(MeasureRequest(tmp_path, 1, tmp_path / "run"))
            while ("a", 1) not in cluster.begun:
                ray.collect(0.0)
            cluster.makes["a"] = MADE
            cluster.begun.clear()
            made(ray, tmp_path, 4)
    assert not any("left out" in line for line in told)


def test_it_is_told_once_when_all_nodes_of_a_kind_have_gone_and_when_one_is_back(opened, tmp_path):
    told, cluster = [], Played({"a": {}}, {"a": MADE})

    def tell(line):
        if "torch" not in line:  # what is installed on nodes that are played
            told.append(line)

    with opened(cluster, tell=tell) as ray:
        made(ray, tmp_path, 1)
        cluster.makes["a"] = DEAD
        ticket = ray.submit(MeasureRequest(tmp_path, 7, tmp_path / "run"))
        del cluster.devices["a"]
        for _ in range(4):
            assert ray.collect(0.0) == []
        assert "was lost and is made again" in told[0]
        assert told[1:] == ["the cluster has no node of the kind 'rtx' any more: runs wait for one"]
        cluster.devices["b"], cluster.makes["b"] = {}, MADE
        (done,) = ray.collect()
        assert done.ticket == ticket and done.replicate.details["device_kind"] == "rtx"
        assert told[2:] == ["the cluster has a node of the kind 'rtx' again, after 0 s"]
        del cluster.devices["b"]
        ray.submit(MeasureRequest(tmp_path, 8, tmp_path / "run"))
        assert ray.collect(0.0) == [] and "any more" in told[3], "the next time, too"


def test_nodes_of_another_device_are_no_reason_to_end_while_those_of_the_kind_are_away():
    told, cluster = [], Played(dict(MIXED))
    given = "t", ("rtx",), None, "", "{}", None, "", 0, told.append
    workers = Workers(cluster, *given, Patience(look=0.0))
    for step in range(8):
        if step == 4:
            del cluster.devices["a"]
        workers.tend({"rtx": 3})
        workers.answers(0.0)
    assert [line for line in told if "left out" not in line] == [
        "the cluster has no node of the kind 'rtx' any more: runs wait for one"
    ]


def test_runs_are_made_on_the_kind_of_device_that_they_are_for(opened, tmp_path):
    cluster = Played({"a": {}, "b": {}, "c": {}}, dict.fromkeys("abc", MADE), {"a": "t4"})
    with opened(cluster, screen="t4", usual={"rtx": "3f2b"}) as ray:
        assert ray.workers.usual == {"rtx": "3f2b"}
        assert ray.slots == {"rtx": 2, "t4": 1}
        made(ray, tmp_path, 5)
        assert {node for node, _ in cluster.begun} == {"b", "c"}
        cluster.begun.clear()
        made(ray, tmp_path, 3, "t4")
        assert {node for node, _ in cluster.begun} == {"a"}
        with pytest.raises(ValueError, match="'h100'"):
            made(ray, tmp_path, 1, "h100")
    with pytest.raises(UsageError, match="can't both screen and decide"):
        opened(cluster, screen="t4", confirm="t4")


def test_a_preset_tells_the_memory_that_runs_need_and_an_unknown_one_nothing():
    assert asked_by("rtx-4090") == 20
    assert asked_by("somebody's own") == 0
