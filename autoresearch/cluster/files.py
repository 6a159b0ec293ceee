"""Files that start a Ray cluster with a study on it: for Slurm, Kubernetes and SkyPilot.

    text = slurm(Size(nodes=4, gpus=8, cpus=64), Job("autoresearch", 8.0, ("--agent", "claude")))

Each is one text that says in its first lines how it is used. What differs between sites and isn't
asked for here (a partition, a storage class, a cloud) is for who uses it to add.
"""

from __future__ import annotations

import importlib.metadata
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).parent / "templates"
RAY_VERSION = "2.60.0"  # what the files were tried with; token authentication came with 2.52
MARGIN_HOURS = 0.5  # a job's time beyond its study's: the trials under way end


@dataclass(frozen=True)
class Size:
    """How much of a cluster: so many nodes, each with `gpus` and `cpus` of them."""

    nodes: int
    gpus: int
    cpus: int


@dataclass(frozen=True)
class Job:
    """A study as a job. name: also that of what is made for it. options: those of `run`."""

    name: str
    hours: float
    options: tuple[str, ...] = ()

    @property
    def words(self) -> dict[str, str]:
        """What templates are told of it."""
        options = "".join(f" {shlex.quote(each)}" for each in self.options)
        return {"name": self.name, "hours": f"{self.hours:g}", "options": options}


def slurm(size: Size, job: Job) -> str:
    """A submission script: `sbatch FILE` in the workspace."""
    time = slurm_time(job.hours + MARGIN_HOURS)
    return _render("slurm.sbatch", size, job, time=time)


def kubernetes(
    size: Size, job: Job, image: str, memory: str, gpu_resource: str = "nvidia.com/gpu"
) -> str:
    """A volume and a RayJob of KubeRay.

    image: holds autoresearch and Ray. memory: of a worker's pod, as Kubernetes writes it.
    """
    return _render(
        "kubernetes.yaml",
        size,
        job,
        image=image,
        memory=memory,
        gpu_resource=gpu_resource,
        ray_version=ray_version(),
    )


def skypilot(size: Size, job: Job, accelerator: str, package: str) -> str:
    """A SkyPilot task. accelerator: its name there, such as H100; "" with no GPU.

    package: what pip installs on the nodes; of a path here a copy is sent along.
    """
    path = Path(package)
    sent = path.exists()
    target = "~/package" + (f"/{path.name}" if path.is_file() else "")
    return _render(
        "skypilot.yaml",
        size,
        job,
        accelerator=accelerator,
        package=f"{target.replace('~', '$HOME', 1)}[cluster]" if sent else package,
        package_path=str(path.resolve()) if sent else "",
        package_target=target,
    )


def ray_version() -> str:
    """Ray's version here, else the one that the files were tried with."""
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return RAY_VERSION


def slurm_time(hours: float) -> str:
    """D-HH:MM:00, rounded up to a minute."""
    minutes = -int(-hours * 60 // 1)
    return f"{minutes // 1440}-{minutes // 60 % 24:02}:{minutes % 60:02}:00"


def _render(template: str, size: Size, job: Job, **values: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.globals["quoted"] = json.dumps  # a JSON string is a YAML string
    counts = {"nodes": size.nodes, "gpus": size.gpus, "cpus": size.cpus}
    return environment.get_template(template).render(**counts, **job.words, **values)
