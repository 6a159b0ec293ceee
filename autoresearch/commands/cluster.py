"""`autoresearch cluster`: files that start a study on Slurm, Kubernetes, SkyPilot; wait for Ray."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from autoresearch.options import SECONDS, json_option

F = TypeVar("F", bound=Callable[..., Any])

NAME = r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?"  # what Kubernetes takes, and leaves it room for more
CPUS_PER_GPU = 8
CPUS_WITHOUT = 16
GIB_PER_CPU = 4


@click.group("cluster")
def command() -> None:
    """Make the file that starts a Ray cluster with a study on it.

    \b
      autoresearch cluster slurm --nodes 4 --gpus-per-node 8 --hours 8
      autoresearch cluster kubernetes --image registry.example/autoresearch:1
      autoresearch cluster skypilot --accelerator H100 -- --agent claude --dollars 20

    It is one text file whose first lines say how to use it; read it, and change what is different
    where you are. Words after `--` are options of `autoresearch run`. A study that was started so
    goes on where it stopped when it is started again.
    """


def _name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not re.fullmatch(NAME, value):
        raise click.BadParameter("small letters, digits and -, a letter first, 40 at most")
    return value


def _run_options(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """Have `autoresearch run` read them now: a cluster shouldn't start for a typing error."""
    from autoresearch.commands.run import command as run

    try:
        run.make_context("run", list(value))
    except click.UsageError as error:
        raise click.UsageError(f"`autoresearch run`: {error.format_message()}", ctx) from error
    return value


def file_options(function: F) -> F:
    """What every file is made from: passes `size`, `job`, `output` and `json_mode`."""
    for option in (
        click.argument(
            "run_options",
            nargs=-1,
            type=click.UNPROCESSED,
            callback=_run_options,
            metavar="[-- RUN_OPTIONS]",
        ),
        json_option,
        click.option(
            "--output",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Write it there.  [default: print it]",
        ),
        click.option(
            "--name",
            default="autoresearch",
            show_default=True,
            callback=_name,
            help="Of the job, and of what is made for it.",
        ),
        click.option(
            "--hours",
            type=click.FloatRange(0, min_open=True),
            default=8.0,
            show_default=True,
            help="Of the study.",
        ),
        click.option(
            "--cpus-per-node",
            "cpus",
            type=click.IntRange(1),
            help=f"[default: {CPUS_PER_GPU} a GPU, {CPUS_WITHOUT} without]",
        ),
        click.option(
            "--gpus-per-node", "gpus", type=click.IntRange(0), default=8, show_default=True
        ),
        click.option("--nodes", type=click.IntRange(1), default=2, show_default=True),
    ):
        function = option(function)

    @functools.wraps(function)
    def sized(
        nodes: int,
        gpus: int,
        cpus: int | None,
        hours: float,
        name: str,
        run_options: tuple[str, ...],
        **rest: Any,
    ) -> None:
        from autoresearch.cluster.files import Job, Size

        size = Size(nodes, gpus, cpus or gpus * CPUS_PER_GPU or CPUS_WITHOUT)
        function(size=size, job=Job(name, hours, run_options), **rest)

    return sized  # type: ignore[return-value]


@command.command("slurm")
@file_options
def slurm(size: Any, job: Any, output: Path | None, json_mode: bool) -> None:
    """A submission script for sbatch: Ray's head on the first node, workers on the others.

    Partition and account are given to sbatch (or by SBATCH_PARTITION and SBATCH_ACCOUNT), as is
    memory (--mem). The workspace and the virtual environment lie where every node sees them.
    """
    from autoresearch.cluster import files

    text = files.slurm(size, job)
    deliver("slurm", text, output, json_mode, [f"sbatch {output or 'FILE'}    in the workspace"])


@command.command("kubernetes")
@click.option("--image", required=True, help="A container image with autoresearch and Ray in it.")
@click.option(
    "--memory", help=f"Of a worker's pod, such as 256Gi.  [default: {GIB_PER_CPU}Gi a CPU]"
)
@click.option(
    "--gpu-resource",
    default="nvidia.com/gpu",
    show_default=True,
    help="What a GPU is called; amd.com/gpu for AMD's.",
)
@file_options
def kubernetes(
    size: Any,
    job: Any,
    image: str,
    memory: str | None,
    gpu_resource: str,
    output: Path | None,
    json_mode: bool,
) -> None:
    """A volume and a RayJob for KubeRay: the driver on the head's pod, trials on the workers'."""
    from autoresearch.cluster import files

    text = files.kubernetes(
        size, job, image, memory or f"{size.cpus * GIB_PER_CPU}Gi", gpu_resource
    )
    deliver("kubernetes", text, output, json_mode, [f"kubectl apply -f {output or 'FILE'}"])


@command.command("skypilot")
@click.option(
    "--accelerator", default="H100", show_default=True, help="Its name in `sky show-gpus`."
)
@click.option(
    "--package",
    default="autoresearch[cluster]",
    show_default=True,
    help="What pip installs on the nodes; a checkout or a wheel here is sent along.",
)
@file_options
def skypilot(
    size: Any, job: Any, accelerator: str, package: str, output: Path | None, json_mode: bool
) -> None:
    """A task for SkyPilot, which rents the nodes of a cloud for it."""
    from autoresearch.cluster import files

    text = files.skypilot(size, job, accelerator if size.gpus else "", package)
    then = [f"sky launch -c {job.name} --secret RAY_AUTH_TOKEN {output or 'FILE'}"]
    deliver("skypilot", text, output, json_mode, then)


def deliver(kind: str, text: str, output: Path | None, json_mode: bool, then: list[str]) -> None:
    """Print a file's text, or write it and say what to do with it."""
    from autoresearch.console import Output

    if output is not None:
        output.write_text(text, encoding="utf-8", newline="\n")
    if json_mode or output is not None:
        out = Output(json_mode)
        out.say(f"{output}: read its first lines")
        document = {"kind": kind, "file": str(output)} if output else {"kind": kind, "text": text}
        out.result(document, then=then)
    else:
        click.echo(text, nl=False)


@command.command("wait")
@click.argument("address", metavar="HOST:PORT")
@click.option(
    "--nodes",
    type=click.IntRange(1),
    help="Wait for so many nodes, too; on a machine of the cluster.",
)
@click.option("--timeout", "seconds", type=SECONDS, default="5m", show_default=True, metavar="TIME")
@json_option
def wait(address: str, nodes: int | None, seconds: float, json_mode: bool) -> None:
    """Return when Ray's head answers, and so many nodes have joined: for scripts.

    No head in that time is an error (exit code 4). Fewer nodes are a warning: the study begins
    with those that came.
    """
    from autoresearch.cluster.waiting import await_head, await_nodes
    from autoresearch.console import Output

    out = Output(json_mode)
    await_head(address, seconds)
    if nodes is None:
        out.result({"address": address})
        return
    found = await_nodes(address, nodes, seconds)
    if found.nodes < nodes:
        out.warn(f"{found.nodes} of {nodes} nodes have joined; going on with those")
    out.say(f"Ray at {address}: {found.nodes} nodes, {found.gpus} GPUs, {found.cpus} CPUs")
    out.result({"address": address, "nodes": found.nodes, "gpus": found.gpus, "cpus": found.cpus})


@command.command("devices")
@click.option(
    "--address",
    metavar="HOST:PORT",
    default="auto",
    help="Of the Ray cluster's head.  [default: the cluster that this machine is in]",
)
@json_option
def devices(address: str, json_mode: bool) -> None:
    """What kinds of device a Ray cluster has, how many, and which studies use them now.

    The kinds are what `autoresearch run --screen` and `--confirm` take. A node's kind is its
    accelerator's name in Ray, cpu where it has none, or what its label autoresearch.kind says.
    """
    from autoresearch.cluster.connection import Connection
    from autoresearch.cluster.nodes import usage
    from autoresearch.console import Output

    out = Output(json_mode)
    with Connection(address, bring=False) as cluster:
        kinds = usage(cluster.nodes(), *cluster.names())
    rows = [
        (
            kind,
            str(found["devices"]),
            str(found["nodes"]),
            ", ".join(f"{tag} {count}" for tag, count in found["studies"].items()),
        )
        for kind, found in kinds.items()
    ]
    out.table(("kind", ">devices", ">nodes", "used by"), rows)
    out.result({"address": address, "kinds": kinds})
