"""The few things that we ask of Ray, in our words.

with Connection("10.0.0.1:6379") as ray_cluster:       # "": RAY_ADDRESS, else a Ray of our own
    ray_cluster.nodes()
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from autoresearch.cluster.nodes import NAMESPACE, Driver, Node, Seat, nodes_of, read_names
from autoresearch.cluster.package import program_archive
from autoresearch.cluster.waiting import await_head
from prepare.errors import EnvironmentProblem, MissingTool

LOCAL = "local"
HEAD_SECONDS = 10.0  # in which the head of a cluster that is there answers
# Nothing is told to anybody about a Ray that we start. Ray's own way to carry `uv run` to the nodes
# would install packages there, which the nodes of an offline cluster can't.
# The last one: what we send stands in for what `ray job submit` may have sent, not beside it.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
}


class Connection:
    """A cluster, for as long as this is open. A Ray that was connected before is left so."""

    def __init__(
        self, address: str = "", bring: bool = True, devices: int = 1, memory: int = 0
    ) -> None:
        """Connect, and bring this program along where the cluster isn't of this machine alone.

        bring: False for who starts nothing there. devices: accelerators that one run takes.
        memory: bytes that it needs of a node without any.

        Raises MissingTool without Ray, EnvironmentProblem where none answers.
        """
        self.address = address or os.environ.get("RAY_ADDRESS", "") or LOCAL
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError as error:
            raise MissingTool(
                "--engine ray needs Ray, which isn't installed",
                "pip install 'autoresearch[cluster]'",
            ) from error
        self._ray, self._devices, self._memory = ray, devices, memory
        self._ours = not ray.is_initialized()
        if self._ours:
            self._connect(bring)
        self.job = str(ray.get_runtime_context().get_job_id())
        self._presence: Any = None

    def _connect(self, bring: bool) -> None:
        _silence()
        if re.fullmatch(r"[^/]+:\d+", self.address):
            await_head(self.address, HEAD_SECONDS)  # Ray tries for minutes, and tells all of them
        own: dict[str, Any] = {}
        if self.address == LOCAL:
            own = {"include_dashboard": False}  # ours is `autoresearch dashboard`
        elif bring:
            own = {"runtime_env": {"working_dir": str(program_archive())}}
        try:
            self._ray.init(
                address=self.address,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **own,
            )
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise EnvironmentProblem(
                f"no Ray cluster answers at {self.address}: {_first_line(error)}",
                "see `ray status --address ADDRESS`; without --address a Ray of this machine's own "
                "is started",
            ) from error

    # -- what there is ---------------------------------------------------------------------------

    @property
    def errors(self) -> type[Exception]:
        """What Ray raises for anything that happens to a worker or its node."""
        return self._ray.exceptions.RayError

    def nodes(self) -> list[Node]:
        """The living nodes that can make runs."""
        return nodes_of(self._ray.nodes(), self._devices, self._memory)

    def names(self) -> tuple[list[Driver], list[Seat]]:
        """The studies at work on the cluster, this one's too if announced, and their workers."""
        found = self._ray.util.list_named_actors(all_namespaces=True)
        return read_names(each["name"] for each in found if each["namespace"] == NAMESPACE)

    # -- actors ----------------------------------------------------------------------------------

    def announce(self, driver: Driver) -> None:
        """Be seen by other studies until this process ends, however it does."""
        from autoresearch.cluster.actor import AutoresearchDriver

        actor = self._ray.remote(AutoresearchDriver)
        self._presence = actor.options(name=driver.name, namespace=NAMESPACE, num_cpus=0).remote()

    def start(self, seat: Seat, node: Node, kinds: str, environment: str) -> Any:
        """An actor on that node, as soon as the node has room; ended when this process is.

        It sees the accelerator that Ray gave it, and no other.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from autoresearch.cluster.actor import AutoresearchWorker

        actor = self._ray.remote(AutoresearchWorker)
        return actor.options(
            name=seat.name,
            namespace=NAMESPACE,
            num_cpus=node.cpus,
            num_gpus=node.gpus,
            memory=node.memory or None,
            max_restarts=0,  # it is started anew where there is room, which may be elsewhere
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        ).remote(kinds, environment)

    def end(self, actor: Any) -> None:
        """Kill an actor and what it runs, now."""
        self._ray.kill(actor, no_restart=True)

    # -- objects ---------------------------------------------------------------------------------

    def put(self, data: bytes) -> Any:
        """Lay bytes into Ray's store, for any node to fetch."""
        return self._ray.put(data)

    def get(self, reference: Any) -> Any:
        """What a call answered. Raises `errors`."""
        return self._ray.get(reference)

    def answered(self, references: Sequence[Any], timeout: float) -> set[Any]:
        """Those that have an answer; waits for the first of them."""
        if not references:
            return set()
        ready, _ = self._ray.wait(
            list(references), num_returns=1, timeout=timeout, fetch_local=False
        )
        if ready and len(references) > 1:  # whatever else is there by now
            ready, _ = self._ray.wait(
                list(references), num_returns=len(references), timeout=0, fetch_local=False
            )
        return set(ready)

    def close(self) -> None:
        """Leave the cluster, if we came to it."""
        if self._presence is not None:
            self.end(self._presence)
            self._presence = None
        if self._ours:
            self._ray.shutdown()
            self._ours = False

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _silence() -> None:
    """Ray prints what happens to nodes on our standard output, which may be read by a program, and
    knows no public way not to. What matters of it we tell ourselves."""
    from ray._private import worker

    if hasattr(worker, "_worker_logs_enabled"):
        worker._worker_logs_enabled = False


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]
