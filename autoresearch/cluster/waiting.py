"""Wait until a Ray cluster is there.

await_head("10.0.0.1:6379", seconds=300)      # from any machine
found = await_nodes("10.0.0.1:6379", 4, 300)  # on a machine of the cluster
"""

from __future__ import annotations

import logging
import socket
import time
from dataclasses import dataclass

from prepare.errors import EnvironmentProblem, MissingTool, UsageError

PAUSE_S = 1.0


@dataclass(frozen=True)
class Joined:
    """The nodes that have joined, and what they have together."""

    nodes: int
    gpus: int
    cpus: int


def await_head(address: str, seconds: float) -> None:
    """Return when something listens at HOST:PORT.

    Raises UsageError for another form, EnvironmentProblem when nothing does after `seconds`.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"{address!r} is not HOST:PORT", "such as 10.0.0.1:6379")
    ends, problem = time.monotonic() + seconds, ""
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
            return
        except OSError as error:
            problem = str(error)
        if time.monotonic() >= ends:
            raise EnvironmentProblem(
                f"no Ray at {address} after {seconds:g} s: {problem}",
                "see what `ray start --head` said there",
            )
        time.sleep(PAUSE_S)


def await_nodes(address: str, nodes: int, seconds: float) -> Joined:
    """Return what has joined the cluster as soon as it has so many nodes, or after `seconds`.

    Fewer are no error: a study works with those that came. Raises MissingTool without Ray.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        hint = "pip install 'autoresearch[cluster]'"
        raise MissingTool("Ray is not installed", hint) from error
    ends = time.monotonic() + seconds
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError) as error:
        raise EnvironmentProblem(
            f"can't join the Ray cluster at {address}: {error}",
            "call this on a machine of the cluster, with its RAY_AUTH_TOKEN",
        ) from error
    try:
        while True:
            alive = [node for node in ray.nodes() if node["Alive"]]
            if len(alive) >= nodes or time.monotonic() >= ends:
                return Joined(len(alive), _sum(alive, "GPU"), _sum(alive, "CPU"))
            time.sleep(PAUSE_S)
    finally:
        ray.shutdown()


def _sum(nodes: list[dict[str, dict[str, float]]], resource: str) -> int:
    return round(sum(node["Resources"].get(resource, 0.0) for node in nodes))
