"""The processes that train one model on several devices: a leader and its followers.

The harness speaks to the leader alone. Before any of the candidate's code is loaded the leader
starts the followers, inside the same sandbox, so they end when it ends. Every rank runs the same
`train(model, run)`; the leader tells the others of each batch, of what is spent and of the end, so
that all do the same, and each takes its share of the batch's rows. What a follower's audit hook
sees and what goes wrong in it is passed on to the harness.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from backends.errors import RankLost
from prepare.channel import Channel, ChannelClosed, ProtocolError, shared_array
from prepare.run import Crew, Run, Spec, check_batch_size, random_rows, to_device

# When one rank fails the others do too, of its absence or for the same reason: the leader's own
# failure is the one to tell of, if it comes in this time.
GRACE_SECONDS = 1.0


class Followers(Crew):
    """The leader's hold on the other ranks. Rank 0 is the leader itself."""

    def __init__(
        self,
        up: Channel,
        configuration: Mapping[str, Any],
        environment: Mapping[str, str],
        state: Mapping[str, str],
    ) -> None:
        """Start them.

        up: the channel to the harness. configuration: the leader's own. environment: variables by
        which they choose the same backend and policy. state: the "phase" the leader is in.
        """
        self._state = state
        self.size = int(configuration["devices"])
        self._up = up
        self._taken: queue.Queue[None] = queue.Queue()
        self._done: queue.Queue[float] = queue.Queue()
        self._channels = []
        for rank in range(1, self.size):
            process = subprocess.Popen(
                [sys.executable, "-m", "prepare.child", "follow"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env={**os.environ, **environment},
                pass_fds=configuration["handles"],
            )
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("a rank was started without pipes")
            channel = Channel(process.stdout, process.stdin)  # type: ignore[arg-type]
            channel.send(**{**configuration, "rank": rank})
            self._channels.append(channel)
            threading.Thread(
                target=self._listen, args=(rank, channel, process), daemon=True
            ).start()

    def batch(self, **fields: Any) -> None:
        self._tell("batch", fields)

    def stop(self, progress: float) -> None:
        self._tell("stop", {"progress": progress})

    def _tell(self, kind: str, fields: dict[str, Any]) -> None:
        try:
            for channel in self._channels:
                channel.send(kind, **fields)
        except ChannelClosed as error:
            raise RankLost(str(error)) from error

    def wait_taken(self) -> None:
        for _ in self._channels:
            self._taken.get()

    def peak_memory_mb(self) -> float:
        return max(self._done.get() for _ in self._channels)

    def _listen(self, rank: int, channel: Channel, process: subprocess.Popen[bytes]) -> None:
        failed: dict[str, Any] = {"failure": "exit"}
        try:
            while (message := channel.receive())["kind"] != "failed":
                if message["kind"] == "taken":
                    self._taken.put(None)
                elif message["kind"] == "done":
                    self._done.put(float(message["peak_memory_mb"]))
                elif message["kind"] == "touched":
                    self._up.send(**message)
            failed |= message
            why = str(message.get("message"))
        except (ChannelClosed, ProtocolError, KeyError, TypeError, ValueError):
            why = _how_it_ended(process)
        failed.setdefault("phase", self._state["phase"])
        time.sleep(GRACE_SECONDS)
        try:
            self._up.send(**{**failed, "kind": "failed", "message": self._said(rank, why)})
        finally:
            os._exit(1)  # the leader may wait in a collective for the one that is gone

    def _said(self, rank: int, why: str) -> str:
        return f"device {rank} (of {self.size}, from 0): {why}"


def gather(channel: Channel, configuration: dict[str, Any], state: Mapping[str, str]) -> Crew:
    """The other devices' processes, if there are any: started, and met."""
    if int(configuration.get("devices", 1)) == 1:
        return Crew()
    import backends

    selection = backends.select()
    configuration["backend"] = selection.hardware.backend
    crew = Followers(channel, configuration, selection.environment(), state)
    join(configuration, 0)
    return crew


def join(configuration: Mapping[str, Any], rank: int) -> None:
    """Meet the other ranks. Raises RankLost."""
    from backends import data_parallel

    size, place = int(configuration["devices"]), configuration["rendezvous"]
    data_parallel.join(configuration["backend"], rank, size, place)


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    from prepare.process import describe_exit

    try:
        return describe_exit(process.wait(timeout=GRACE_SECONDS))
    except subprocess.TimeoutExpired:
        return "it closed its channel to the others"


class FollowerRun(Run):
    """What `train` is given on the other ranks: the leader's batches, each cut to this rank's rows.

    It serves warm-up and training alike.
    """

    def __init__(self, spec: Spec, seed: int, channel: Channel, rank: int, size: int) -> None:
        super().__init__(spec, seed)
        self._channel, self._rank, self._size = channel, rank, size
        self._random = np.random.default_rng([seed, rank])
        self._progress = 0.0

    @property
    def progress(self) -> float:
        return self._progress

    def batches(self, device_batch_size: int) -> Iterator[tuple[Any, Any]]:
        rows = check_batch_size(device_batch_size, self._size)
        share = slice(self._rank * rows // self._size, (self._rank + 1) * rows // self._size)
        while (message := self._channel.receive())["kind"] == "batch":
            self._progress = float(message["progress"])
            if message["rows"] != rows:
                raise ValueError(
                    f"run.batches({rows}) on device {self._rank} and run.batches({message['rows']})"
                    " on device 0: all must do the same"
                )
            if "slot" not in message:
                yield to_device(random_rows(self._random, self.spec, rows // self._size))
                continue
            shape = tuple(message["shape"])
            ring = shared_array(message["ring"], shape, message["dtype"])
            batch = to_device(ring[message["slot"], share])
            self._channel.send("taken")
            yield batch
        self._progress = float(message["progress"])

    def log(self, step: int, loss: Any, **more: Any) -> None:
        float(loss)  # waits for the device, as the leader does
