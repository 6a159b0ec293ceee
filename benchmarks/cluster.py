"""A study on a real Ray cluster of this machine: what it survives, and what a run costs to send.

    python benchmarks/cluster.py            # writes benchmarks/results/cluster.json

Two nodes of one slot and a cache of their own each. A study of 24 trials by `search`, seconds of
training each, and the same again while a worker, a node and the study's own process are killed.
Studies of drawn scores and times, on the cluster and on local worker processes: do they decide the
same? The study once more in one process here and on one slot of the cluster: the same again? One on
two kinds of device, by name. Runs that do nothing, sent to both in turn.
Needs `pip install 'autoresearch[cluster]'`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from autoresearch.engine.constants import apply_constants
from autoresearch.engine.ledger import Ledger
from autoresearch.engine.task import MeasureRequest
from autoresearch.engine.trial import Replicate
from autoresearch.init import make_workspace
from autoresearch.workspace_files import seed_text
from prepare.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "cluster.json"
TINY = {"DEPTH": 1, "ASPECT_RATIO": 32, "HEAD_DIM": 16}
TINY |= {"TOTAL_BATCH_SIZE": 128, "DEVICE_BATCH_SIZE": 4}
SETTINGS = Settings(
    corpus_bytes=100_000, vocab_size=256, max_seq_len=32, token_budget=4_096, eval_bytes=2_000
)
FAST = {
    "AUTORESEARCH_BACKEND": "cpu",
    "AUTORESEARCH_ATTENTION": "sdpa",
    "AUTORESEARCH_DTYPE": "float32",
    "AUTORESEARCH_COMPILE": "0",
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# Of the same size all of them: runs of a fixed number of tokens that take seconds each.
SEARCHED = "MATRIX_LR,EMBEDDING_LR,UNEMBEDDING_LR,WEIGHT_DECAY,WARMUP_RATIO,WARMDOWN_RATIO,SOFTCAP"
WORKER_TITLE = "ray::Autoresearch"
STORE_BYTES = 100 << 20


class Nothing:
    """A measuring that takes no time: what is left is the sending."""

    def __init__(self, spec: Mapping[str, Any], company: Any) -> None: ...

    def remember(self, runs: Any) -> None:
        """Nothing."""

    def measure(self, request: MeasureRequest) -> Replicate:
        """Nothing."""
        return Replicate(request.seed, 1.0)


class Drawn(Nothing):
    """A score by the program's constants, noise by its seed, and a time that is drawn."""

    def __init__(self, spec: Mapping[str, Any], company: Any) -> None:
        self._slow = bool(spec.get("slow"))

    def measure(self, request: MeasureRequest) -> Replicate:
        """Some tenths of a second."""
        text = (request.folder / "train.py").read_text()
        values = [float(line.partition("=")[2]) for line in text.splitlines() if line]
        noise = random.Random(f"{request.seed} {text}").gauss(0, 0.02)
        took = random.Random(f"{text} {request.seed} {self._slow}").uniform(0.02, 0.4)
        time.sleep(took)
        loss = sum((value - 0.8) ** 2 for value in values) / len(values)
        return Replicate(request.seed, loss + noise, score_id="drawn")


KINDS = {"nothing": Nothing, "drawn": Drawn}


class Cluster:
    """Two nodes on this machine."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        self._folder, self._cluster = folder, RayCluster()
        self.nodes: list[Any] = []
        self.add(include_dashboard=False)
        self.add()
        self.address: str = self._cluster.address

    def add(self, **options: Any) -> None:
        """One more node."""
        cache = {"AUTORESEARCH_CACHE": str(self._folder / f"cache-node-{len(self.nodes)}")}
        # Ray's own folder of each: of two nodes that share one, the first that needs our program
        # puts it there anew, under the feet of the other's runs.
        place = self._folder / f"node-{len(self.nodes)}"
        node = self._cluster.add_node(
            num_cpus=1,
            object_store_memory=STORE_BYTES,
            env_vars=cache,
            temp_dir=str(place),
            **options,
        )
        self.nodes.append(node)

    def kill(self, number: int) -> None:
        """A node, as when it loses its power."""
        self._cluster.remove_node(self.nodes[number], allow_graceful=False)

    def close(self) -> None:
        """The end of it."""
        self._cluster.shutdown()


@contextlib.contextmanager
def cluster_of(folder: Path) -> Iterator[Cluster]:
    """A cluster while it is needed."""
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        cluster.close()


# -- studies ---------------------------------------------------------------------------------------


class Study:
    """One study in a workspace of its own, driven by the command."""

    def __init__(self, folder: Path, *engine: str) -> None:
        self.folder, self._engine = folder, engine
        files = {
            "train.py": apply_constants(seed_text("train.py"), TINY),
            "autoresearch.toml": SETTINGS.dumps(),
            "program.md": seed_text("program.md"),
        }
        if not folder.is_dir():
            make_workspace(folder, files, "begin")

    def start(self, trials: int) -> subprocess.Popen[bytes]:
        """`autoresearch run` for so many more trials."""
        command = ["run", "--agent", "search", "--trials", str(trials), "--tag", "t"]
        command += ["--agent-option", f"only={SEARCHED}"]
        with open(self.folder.with_suffix(".log"), "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "autoresearch.cli", *command, *self._engine],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, trials: int) -> float:
        """To its end; seconds."""
        began = time.monotonic()
        code = self.start(trials).wait()
        if code:
            raise SystemExit(f"it ended with {code}: see {self.folder.with_suffix('.log')}")
        return time.monotonic() - began

    @property
    def records(self) -> list[dict[str, Any]]:
        """Its ledger so far."""
        path = self.folder / "results.jsonl"
        return Ledger(path).records() if path.exists() else []

    def decided(self) -> list[dict[str, Any]]:
        """Its trials but for the baseline, in the order of the decisions."""
        return [r for r in self.records if r["kind"] == "trial" and r["id"] > 0]

    def begun(self) -> set[int]:
        """Ids of all trials that were begun."""
        return {int(r["id"]) for r in self.records if r["kind"] in ("begun", "trial")} - {0}

    def wait(self, decided: int, process: subprocess.Popen[bytes]) -> None:
        """Until so many trials are decided."""
        while len(self.decided()) < decided:
            if process.poll() is not None:
                raise SystemExit(f"it ended early: see {self.folder.with_suffix('.log')}")
            time.sleep(0.2)

    def verify(self) -> bool:
        """Does `autoresearch verify` find ledger and git whole?"""
        command = [sys.executable, "-m", "autoresearch.cli", "verify"]
        return subprocess.run(command, cwd=self.folder, capture_output=True).returncode == 0

    def decisions(self) -> list[tuple[Any, ...]]:
        """What was decided of each trial, by id."""
        found = [(r["id"], r["status"], r["score"], r["description"]) for r in self.decided()]
        return sorted(found, key=lambda each: each[0])


def workers() -> list[psutil.Process]:
    """The processes of the cluster's workers on this machine."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(WORKER_TITLE in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


def families(processes: list[psutil.Process]) -> list[psutil.Process]:
    """These processes and all that they started."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [process, *process.children(recursive=True)]
    return found


def killed_study(folder: Path, cluster: Cluster, trials: int) -> tuple[Study, dict[str, Any]]:
    """A study in the middle of which a worker, a node and its own process are killed."""
    study = Study(folder, "--engine", "ray", "--address", cluster.address)
    began, process = time.monotonic(), study.start(trials)
    study.wait(trials // 4, process)
    victim = next(p for p in workers() if "AutoresearchWorker" in " ".join(p.cmdline()))
    victim.kill()
    study.wait(trials // 2, process)
    cluster.kill(1)
    cluster.add()
    study.wait(3 * trials // 4, process)
    theirs = families([*workers(), psutil.Process(process.pid)])
    process.kill()
    process.wait()
    killed = time.monotonic()
    under_way = study.begun() - {int(r["id"]) for r in study.decided()}
    _, left = psutil.wait_procs(theirs, timeout=60)
    gone = time.monotonic() - killed
    study.run(trials - len(study.begun()))
    ids = [int(record["id"]) for record in study.decided()]
    log = study.folder.with_suffix(".log").read_text()
    return study, {
        "seconds": time.monotonic() - began,
        "made_again": log.count("is made again"),
        "under_way_when_its_process_was_killed": sorted(under_way),
        "processes_that_it_had": len(theirs),
        "of_these_left_after_a_minute": len(left),
        "seconds_until_they_were_gone": gone,
        "decided": len(ids),
        "lost": sorted(set(range(1, trials + 1)) - set(ids)),
        "doubled": sorted({number for number in ids if ids.count(number) > 1}),
        "verify": study.verify(),
    }


# -- decisions ------------------------------------------------------------------------------------


def decisions(folder: Path, cluster: Cluster, trials: int) -> dict[str, Any]:
    """The loop on runs that take a drawn time and score by their constants and their seed."""
    from autoresearch.cluster.executor import RayExecutor
    from autoresearch.local_pool import LocalPool
    from autoresearch.slots import Slot

    spec = {"kind": "drawn", "settings": {}}
    two = [Slot(""), Slot("")]
    makers: dict[str, Callable[[], Any]] = {
        "pool": lambda: LocalPool(spec, two, folder, command=serving()),
        "ray": lambda: RayExecutor(spec, address=cluster.address, measures="cluster:KINDS"),
        "ray, slower runs first": lambda: RayExecutor(
            {**spec, "slow": 1}, address=cluster.address, measures="cluster:KINDS"
        ),
    }
    told = {
        name: drawn_study(folder / f"drawn-{n}", make, trials)
        for n, (name, make) in enumerate(makers.items())
    }
    statuses = [status for _, status, _, _ in told["pool"]]
    return {
        "trials": trials,
        "statuses": {name: statuses.count(name) for name in sorted(set(statuses))},
        "same_as_pool": {name: told[name] == told["pool"] for name in told},
    }


def drawn_study(folder: Path, make: Callable[[], Any], trials: int) -> list[tuple[Any, ...]]:
    """Its decisions, in their order."""
    from autoresearch.engine.git import open_repository
    from autoresearch.engine.loop import Loop
    from autoresearch.engine.policy import Confirm
    from autoresearch.engine.proposers import find_proposer
    from autoresearch.engine.task import Budget, Task
    from autoresearch.engine.workspace import Workspace

    program = "".join(f"C{n} = {1.0 + n / 10!r}\n\n" for n in range(12))
    make_workspace(folder, {"train.py": program}, "begin")
    open_repository(folder)
    task = Task.parse(
        {"id": "drawn", "artifacts": {"include": ["train.py"]}, "objective": {"metric": "loss"}}
    )
    workspace = Workspace.open(folder, "drawn", create=True)
    ledger = Ledger(folder / "results.jsonl")
    with (
        make() as executor,
        Loop(
            task,
            workspace,
            ledger,
            lambda request: (_ for _ in ()).throw(RuntimeError("not here")),
            Confirm(),
            runs=folder / "runs",
            combine=True,
            executor=executor,
        ) as loop,
    ):
        loop.run(find_proposer("search", {"seed": 1}), Budget(trials=trials))
    return [
        (trial.id, trial.status.value, trial.score, trial.description) for trial in ledger.trials()
    ]


# -- sending ---------------------------------------------------------------------------------------


def sending(folder: Path, cluster: Cluster, runs: int, rounds: int) -> dict[str, Any]:
    """Runs a second that do nothing, on both executors in turn."""
    from autoresearch.cluster.executor import RayExecutor
    from autoresearch.local_pool import LocalPool
    from autoresearch.slots import Slot

    program = folder / "program"
    program.mkdir()
    shutil.copy(ROOT / "train.py", program)
    spec = {"kind": "nothing", "settings": {}}
    rates: dict[str, list[float]] = {"pool": [], "ray": []}
    with (
        LocalPool(spec, [Slot(""), Slot("")], folder, command=serving()) as pool,
        RayExecutor(spec, address=cluster.address, measures="cluster:KINDS") as ray,
    ):
        for executor in (pool, ray):
            rate(executor, program, folder, 8)  # starts the workers
        for _ in range(rounds):
            for name, executor in (("pool", pool), ("ray", ray)):
                rates[name].append(rate(executor, program, folder, runs))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "runs": runs,
        "rounds": rounds,
        "runs_per_second": rates,
        "median": medians,
        "ray_over_pool": medians["ray"] / medians["pool"],
    }


def serving() -> tuple[str, ...]:
    """The command of a local worker that measures what this file says."""
    serve = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); "
    serve += "from cluster import KINDS; from autoresearch.worker import serve; serve(KINDS)"
    return sys.executable, "-c", serve


def rate(executor: Any, program: Path, folder: Path, runs: int) -> float:
    """Runs a second, all of them in line from the beginning."""
    began = time.perf_counter()
    for number in range(runs):
        executor.submit(MeasureRequest(program, number, folder / "runs" / str(number)))
    ended = 0
    while ended < runs:
        ended += len(executor.collect())
    return runs / (time.perf_counter() - began)


# -- all of it -------------------------------------------------------------------------------------


def main() -> None:
    """Make the studies, send the runs, write what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=list(PARTS), action="append")
    parser.add_argument("--folder", type=Path, help="for the studies; a temporary one otherwise")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="cluster-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(FAST, AUTORESEARCH_CACHE=str(folder / "cache"))
    os.environ["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "benchmarks")))
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found["conditions"] = {**conditions(), "load": found.get("conditions", {}).get("load", {})}
    with cluster_of(folder) as cluster:
        for name in given.only or PARTS:
            print(f"{name} ...", flush=True)
            found["conditions"]["load"][name] = os.getloadavg()  # before it, in 1, 5, 15 minutes
            found[name] = PARTS[name](folder, cluster, given)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def whole(folder: Path, cluster: Cluster, trials: int) -> dict[str, Any]:
    """A study that nothing happens to."""
    study = Study(folder / "whole", "--engine", "ray", "--address", cluster.address)
    seconds = study.run(trials)
    statuses = [status for _, status, _, _ in study.decisions()]
    return {
        "trials": trials,
        "settings": SETTINGS.model_dump(exclude_defaults=True),
        "seconds": seconds,
        "statuses": {name: statuses.count(name) for name in sorted(set(statuses))},
        "verify": study.verify(),
    }


def killed(folder: Path, cluster: Cluster, trials: int) -> dict[str, Any]:
    """The same study, and what is the same of it: up to the kill of its own process, and after."""
    study, seen = killed_study(folder / "killed", cluster, trials)
    if (folder / "whole").is_dir():
        undisturbed = Study(folder / "whole").decisions()
        pairs = list(zip(study.decisions(), undisturbed, strict=True))
        same = next((n for n, (one, other) in enumerate(pairs) if one != other), len(pairs))
        seen["first_trials_decided_as_undisturbed"] = same
    return seen


def alike(folder: Path, cluster: Cluster, trials: int) -> dict[str, Any]:
    """The study in one process here, and on one slot of the cluster: the same, to the last bit?"""
    there = ("--engine", "ray", "--address", cluster.address, "--workers", "1")
    studies = Study(folder / "here", "--workers", "1"), Study(folder / "there", *there)
    for study in studies:
        study.run(trials)
    one, other = (study.decisions() for study in studies)
    statuses = [status for _, status, _, _ in one]
    return {
        "trials": trials,
        "statuses": {name: statuses.count(name) for name in sorted(set(statuses))},
        "same_decisions_and_scores": one == other,
    }


def screened(folder: Path, cluster: Cluster, trials: int) -> dict[str, Any]:
    """A study on two kinds of device, by name: one sorts out, the other decides."""
    cluster.add(labels={"autoresearch.kind": "cheap"})
    kinds = ("--screen", "cheap", "--confirm", "cpu")
    study = Study(folder / "screened", "--engine", "ray", "--address", cluster.address, *kinds)
    study.run(trials)
    decided = study.decided()
    first = next(r for r in study.records if r["kind"] == "trial" and r["id"] == 0)
    return {
        "trials": len(decided),
        "baseline_runs": len(first["replicates"]),
        "baseline_runs_on_the_screening_kind": len(first["screening"]),
        "ended_by_the_screen": sum(not r["replicates"] for r in decided),
        "judged_on_the_other_kind": sum(bool(r["replicates"]) for r in decided),
        "verify": study.verify(),
    }


def conditions() -> dict[str, Any]:
    """What it was made on."""
    from importlib import metadata

    return {
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": {name: metadata.version(name) for name in ("ray", "torch", "autoresearch")},
    }


PARTS: dict[str, Callable[[Path, Cluster, Any], dict[str, Any]]] = {
    "whole": lambda folder, cluster, given: whole(folder, cluster, given.trials),
    "killed": lambda folder, cluster, given: killed(folder, cluster, given.trials),
    "decisions": lambda folder, cluster, given: decisions(folder, cluster, given.trials),
    "alike": lambda folder, cluster, given: alike(folder, cluster, given.trials),
    "screened": lambda folder, cluster, given: screened(folder, cluster, given.trials),
    "sending": lambda folder, cluster, given: sending(folder, cluster, given.runs, given.rounds),
}

if __name__ == "__main__":
    main()
