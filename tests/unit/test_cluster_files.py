"""Files that start a cluster: the Slurm script really runs, the YAML fits its readers' schemas.

The schemas here hold the fields that we use and no other, as KubeRay 1.7's CRD and SkyPilot's
schemas have them. AUTORESEARCH_TEST_CRD=ray.io_rayjobs.yaml checks against KubeRay's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from autoresearch import cli
from autoresearch.cluster import files, waiting
from autoresearch.cluster.files import Job, Size, slurm_time
from prepare.errors import EnvironmentProblem, MissingTool, UsageError
from tests.unit import fake_slurm

JOB = Job("night", 8.0, ("--agent", "claude", "--agent-option", "model=a b"))
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 and bash 4 are Linux's")


# -- Slurm -----------------------------------------------------------------------------------------


class Cluster:
    """A fake Slurm in a folder: submit a script, see what was called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log.jsonl"
        (folder / "bin").mkdir()
        fake_slurm.install(folder / "bin")
        self.job = f"{os.getpid()}{time.monotonic_ns() % 10**6}"

    def submit(
        self, nodes: int, study: str, *more: str, **environment: str
    ) -> subprocess.Popen[str]:
        script = self.folder / "night.sbatch"
        script.write_text(files.slurm(Size(nodes, 4, 32), JOB))
        return subprocess.Popen(
            ["sbatch", "--partition=gpu", script.name, *more],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "FAKE_LOG": str(self.log),
                "FAKE_JOB": self.job,
                "FAKE_STUDY": study,
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def calls(self, who: str, *first: str) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        found = [json.loads(line) for line in lines]
        return [c for c in found if c["who"] == who and c["args"][: len(first)] == list(first)]

    def until(self, found: Callable[[], Any]) -> None:
        for _ in range(400):
            if found():
                return
            time.sleep(0.05)
        pytest.fail(f"not seen in 20 s: {self.log.read_text()}")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


@LINUX
def test_a_script_starts_a_cluster_runs_the_study_and_ends_both(cluster: Cluster) -> None:
    job = cluster.submit(3, "7", "--dollars", "20")
    printed, _ = job.communicate(timeout=60)
    assert job.returncode == 7, printed  # the study's own
    given = cluster.calls("sbatch")[0]["given"]
    assert (given["nodes"], given["gpus-per-node"], given["time"]) == ("3", "4", "0-08:30:00")
    assert given["partition"] == "gpu" and "requeue" in given

    (head,) = cluster.calls("ray", "start", "--head")
    workers = cluster.calls("ray", "start", "--block")
    assert head["environment"]["FAKE_NODE"] == "127.0.0.1"
    assert sorted(each["environment"]["FAKE_NODE"] for each in workers) == [
        "127.0.0.2",
        "127.0.0.3",
    ]
    words = dict(word.partition("=")[::2] for word in head["args"])
    address = f"{words['--node-ip-address']}:{words['--port']}"
    assert all(f"--address={address}" in each["args"] for each in workers)
    assert {each["environment"]["SLURM_GPUS_PER_NODE"] for each in [head, *workers]} == {"4"}

    (study,) = cluster.calls("autoresearch", "run")
    assert study["args"][1:] == [
        "--engine", "ray", "--address", address, "--hours", "8",
        "--agent", "claude", "--agent-option", "model=a b", "--dollars", "20",
    ]  # fmt: skip
    waited = [each["args"][2:] for each in cluster.calls("autoresearch", "cluster", "wait")]
    assert waited == [[address], [address, "--nodes", "3"]]
    assert len(cluster.calls("ray ended")) == 3
    cleaned = cluster.calls("srun", "--overlap")[-1]["args"]
    assert cleaned[-3:] == ["rm", "-rf", words["--temp-dir"]] and "--nodes=3" in cleaned


@LINUX
def test_the_secret_is_in_no_command_line_and_no_log(cluster: Cluster) -> None:
    printed, _ = cluster.submit(2, "0").communicate(timeout=60)
    everyone = [*cluster.calls("ray", "start"), *cluster.calls("autoresearch")]
    (secret,) = {each["environment"]["RAY_AUTH_TOKEN"] for each in everyone}
    assert {each["environment"]["RAY_AUTH_MODE"] for each in everyone} == {"token"}
    assert len(secret) == 64 and secret not in printed
    called = [json.loads(line)["args"] for line in cluster.log.read_text().splitlines()]
    assert not any(secret in word for args in called for word in args)
    cluster.submit(2, "0").communicate(timeout=60)
    assert len({each["environment"]["RAY_AUTH_TOKEN"] for each in cluster.calls("ray")}) == 2


@LINUX
def test_a_preempted_job_ends_everything_and_the_same_script_goes_on(cluster: Cluster) -> None:
    job = cluster.submit(2, "stay")
    cluster.until(lambda: cluster.calls("autoresearch", "run"))
    job.send_signal(signal.SIGTERM)
    printed, _ = job.communicate(timeout=60)
    assert job.returncode == 143, printed
    assert cluster.calls("study ended") and len(cluster.calls("ray ended")) == 2
    again = cluster.submit(2, "0", SLURM_RESTART_COUNT="1")
    again.communicate(timeout=60)
    first, second = cluster.calls("autoresearch", "run")
    assert again.returncode == 0
    assert [w for w in second["args"] if ":" not in w] == [w for w in first["args"] if ":" not in w]


@LINUX
def test_no_study_begins_where_ray_does_not_start(cluster: Cluster) -> None:
    job = cluster.submit(2, "0", FAKE_RAY="fails")
    printed, _ = job.communicate(timeout=60)
    assert job.returncode == 4, printed
    assert not cluster.calls("autoresearch", "run") and not cluster.calls("ray", "start", "--block")


@LINUX
def test_one_node_has_no_workers_step(cluster: Cluster) -> None:
    job = cluster.submit(1, "0")
    job.communicate(timeout=60)
    assert job.returncode == 0
    assert len(cluster.calls("ray", "start")) == 1 and len(cluster.calls("srun")) == 2


def test_times_of_slurm() -> None:
    assert [slurm_time(hours) for hours in (8.5, 0.001, 30.25)] == [
        "0-08:30:00", "0-00:01:00", "1-06:15:00"
    ]  # fmt: skip
    assert "gpus" not in files.slurm(Size(1, 0, 4), JOB)


# -- Kubernetes and SkyPilot -----------------------------------------------------------------------


def shape(**properties: Any) -> dict[str, Any]:
    """An object with these fields, all of them, and no other; `name_` may be absent."""
    known = {name.rstrip("_"): kind for name, kind in properties.items()}
    required = [name for name in properties if not name.endswith("_")]
    return {
        "type": "object",
        "properties": known,
        "required": required,
        "additionalProperties": False,
    }


def many(kind: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": kind, "minItems": 1}


TEXT, WHOLE, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
NAME = {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,46}[a-z0-9])?$"}  # a RayJob's: 47 at most
QUANTITY = {"type": ["string", "integer"], "pattern": r"^\d+([KMGT]i)?$"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
QUANTITIES = {"type": "object", "additionalProperties": QUANTITY}
POD = shape(
    spec=shape(
        containers=many(
            shape(
                name=NAME,
                image=TEXT,
                env_=many(shape(name=TEXT, value=TEXT)),
                envFrom_=many(shape(secretRef=shape(name=NAME, optional=FLAG))),
                ports_=many(shape(name=NAME, containerPort=WHOLE)),
                resources=shape(requests=QUANTITIES, limits=QUANTITIES),
                volumeMounts=many(shape(name=NAME, mountPath=TEXT)),
            )
        ),
        initContainers_=many(
            shape(
                name=NAME,
                image=TEXT,
                command=many(TEXT),
                volumeMounts=many(shape(name=NAME, mountPath=TEXT)),
            )
        ),
        securityContext_=shape(fsGroup=WHOLE),
        volumes=many(
            shape(
                name=NAME,
                persistentVolumeClaim_=shape(claimName=NAME),
                configMap_=shape(name=NAME),
                emptyDir_=shape(medium={"enum": ["Memory"]}),
            )
        ),
    )
)
VOLUME = shape(
    apiVersion={"const": "v1"},
    kind={"const": "PersistentVolumeClaim"},
    metadata=shape(name=NAME),
    spec=shape(
        accessModes=many({"enum": ["ReadWriteOnce", "ReadWriteMany"]}),
        resources=shape(requests=shape(storage=QUANTITY)),
    ),
)
RAYJOB = shape(
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=shape(name=NAME),
    spec=shape(
        entrypoint=TEXT,
        backoffLimit=WHOLE,
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=WHOLE,
        rayClusterSpec=shape(
            rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
            authOptions=shape(mode={"enum": ["token", "disabled"]}),
            headGroupSpec=shape(rayStartParams=TEXTS, template=POD),
            workerGroupSpecs=many(
                shape(
                    groupName=NAME,
                    replicas=WHOLE,
                    minReplicas=WHOLE,
                    maxReplicas=WHOLE,
                    rayStartParams=TEXTS,
                    template=POD,
                )
            ),
        ),
    ),
)
SKYPILOT = shape(
    name=TEXT,
    num_nodes={"type": "integer", "minimum": 1},
    resources=shape(
        accelerators_={"type": "string", "pattern": r"^[A-Za-z0-9-]+:\d+$"},
        cpus={"type": ["string", "number"]},
        disk_size=WHOLE,
        autostop=shape(idle_minutes=WHOLE),
    ),
    secrets={"type": "object", "additionalProperties": {"type": ["string", "null"]}},
    file_mounts=TEXTS,
    setup=TEXT,
    run=TEXT,
)


def manifest(gpus: int = 8) -> tuple[dict[str, Any], dict[str, Any]]:
    text = files.kubernetes(Size(4, gpus, 64), JOB, "registry.example/a:1", "256Gi")
    volume, job = yaml.safe_load_all(text)
    return volume, job


@pytest.mark.parametrize("gpus", [8, 0])
def test_the_manifest_fits_the_schemas_of_kubernetes_and_kuberay(gpus: int) -> None:
    volume, job = manifest(gpus)
    jsonschema.validate(volume, VOLUME)
    jsonschema.validate(job, RAYJOB)
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        there = {each["name"] for each in pod["volumes"]}
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            assert {each["name"] for each in container["volumeMounts"]} <= there
    (workers,) = cluster["workerGroupSpecs"]
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits.get("nvidia.com/gpu", 0) == gpus and workers["replicas"] == 4


def test_the_entry_point_is_one_command_without_a_shells_signs() -> None:
    entry = manifest()[1]["spec"]["entrypoint"]
    assert entry.endswith("--hours 8 --agent claude --agent-option 'model=a b'")
    assert not set(";&|<>$`\n") & set(entry)


def test_the_skypilot_task_fits_its_schema(tmp_path: Path) -> None:
    size = Size(2, 8, 64)
    task = yaml.safe_load(files.skypilot(size, JOB, "H100", "autoresearch[cluster]"))
    jsonschema.validate(task, SKYPILOT)
    assert task["resources"]["accelerators"] == "H100:8"
    assert '"autoresearch[cluster]"' in task["setup"]
    wheel = tmp_path / "autoresearch-1-py3-none-any.whl"
    wheel.touch()
    sent = yaml.safe_load(files.skypilot(size, JOB, "", str(wheel)))
    jsonschema.validate(sent, SKYPILOT)
    assert sent["file_mounts"][f"~/package/{wheel.name}"] == str(wheel)
    assert f'"$HOME/package/{wheel.name}[cluster]"' in sent["setup"]
    for script in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n", "-c", script], check=True)


@pytest.mark.skipif("AUTORESEARCH_TEST_CRD" not in os.environ, reason="KubeRay's CRD isn't here")
def test_the_manifest_fits_kuberays_own_schema() -> None:
    document = yaml.safe_load(Path(os.environ["AUTORESEARCH_TEST_CRD"]).read_text())
    (version,) = [each for each in document["spec"]["versions"] if each["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    jsonschema.validate(manifest()[1], strict(schema))


def strict(schema: Any) -> Any:
    """An OpenAPI schema of Kubernetes as JSON schema that refuses fields which it doesn't know."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(part) for name, part in schema.items()}
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    if made.pop("x-kubernetes-int-or-string", False):
        made = {"type": ["integer", "string"]}
    return made


# -- The command -----------------------------------------------------------------------------------


def test_the_command_prints_or_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["cluster", "slurm", "--nodes", "3", "--hours", "2"]) == 0
    text = capsys.readouterr().out
    assert text == files.slurm(Size(3, 8, 64), Job("autoresearch", 2.0))
    place = tmp_path / "a.yaml"
    words = ["--image", "x:1", "--gpus-per-node", "0", "--output", str(place), "--json"]
    assert cli.run(["cluster", "kubernetes", *words, "--", "--agent", "codex"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == str(place)
    assert "--agent codex" in place.read_text() and "nvidia" not in place.read_text()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["slurm", "--", "--agnt", "claude"], "--agent"),
        (["slurm", "--name", "Night"], "small letters"),
        (["slurm", "--nodes", "0"], "--nodes"),
        (["kubernetes"], "--image"),
        (["wait", "here"], "HOST:PORT"),
    ],
)
def test_wrong_calls_say_what_is_wrong(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["cluster", *words]) == 2
    assert named in capsys.readouterr().err


# -- Waiting ---------------------------------------------------------------------------------------


class FakeRay:
    """As much of Ray as is asked: a node more joins at each look."""

    def __init__(self) -> None:
        self.looks = 0

    def init(self, **_: object) -> None: ...

    def shutdown(self) -> None: ...

    def nodes(self) -> list[dict[str, Any]]:
        self.looks += 1
        alive = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}
        return [alive] * self.looks + [{"Alive": False, "Resources": {"CPU": 8.0}}]


def test_waiting_for_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PAUSE_S", 0.01)
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    assert waiting.await_nodes("h:1", 3, 60) == waiting.Joined(3, 6, 24)
    assert waiting.await_nodes("h:1", 99, 0.05).nodes < 99
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingTool):
        waiting.await_nodes("h:1", 1, 1)


def test_waiting_for_a_head_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PAUSE_S", 0.01)
    with pytest.raises(EnvironmentProblem, match=r"127\.0\.0\.1:9"):
        waiting.await_head("127.0.0.1:9", 0.05)
    with pytest.raises(UsageError):
        waiting.await_head("10.0.0.1", 1)
