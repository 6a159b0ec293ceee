"""One model trained by several processes, its ranks: each has a device and a share of the rows.

    data_parallel.join("cuda", rank, size, rendezvous)    # once in each process
    data_parallel.watch(model)       # each backward pass now ends with averaged gradients
    loss = data_parallel.mean(loss)

Gradients are averaged where autograd makes them, at the end of every backward pass that reaches a
watched model's parameters, whoever called it: a training loop can't forget it. They travel as fp32
in buckets, and what is averaged twice stays as it is, so accumulating over several passes is right
too; it costs one exchange per pass.

With torch.compile all gradients appear together at the end of a pass, so there is no arithmetic
left to hide the exchange behind; buckets are packed while the one before is under way.

In a process that joined nothing every function leaves things as they are.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from backends.errors import RankLost, RanksApart
from backends.hardware import COLLECTIVES

BUCKET_VALUES = 2**24  # 64 MiB in fp32: as fast per byte as the links get
# Weights that differ by more than this share of their norm were not trained on the same gradients;
# rounding of kernels that each rank tuned for itself stays far below.
APART = 0.05
# The harness has deadlines of its own; ranks may wait for one that compiles for longer.
PATIENCE = timedelta(hours=24)


def join(backend: str, rank: int, size: int, rendezvous: str) -> None:
    """Meet the other ranks in the file `rendezvous`, and speak to them through this machine alone.

    Before the runtime's device is asked for. Each rank takes device `rank` and its share of the
    cores. Raises KeyError for a backend without collectives, RankLost when nobody answers.
    """
    loopback = "lo" if sys.platform == "linux" else "lo0"
    if sys.platform != "win32":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", loopback)
    os.environ.setdefault("NCCL_IB_DISABLE", "1")
    threads = max(1, torch.get_num_threads() // size)
    torch.set_num_threads(threads)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(threads))
    device = None
    if backend != "cpu":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    with _spoken_to():
        dist.init_process_group(
            COLLECTIVES[backend],
            store=dist.FileStore(rendezvous, size),
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
            device_id=device,
        )
    # gloo's threads, met by the end of the process while they wait, would make it end in SIGABRT.
    atexit.register(_leave)
    # Nothing is left to start while the clock runs.
    mean(torch.zeros((), device=device))


def _leave() -> None:
    with contextlib.suppress(RuntimeError):
        dist.destroy_process_group()


def rank() -> int:
    """Which of the ranks this process is; 0 where it is alone."""
    return dist.get_rank() if _joined() else 0


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextlib.contextmanager
def _spoken_to() -> Iterator[None]:
    """What a collective raises when another rank is gone, by one name."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(str(error)) from error


# Gradients.


def watch(model: nn.Module) -> None:
    """Average this model's gradients from now on; parameters watched already are left as they are.

    All ranks must call it for the same parameters in the same order.
    """
    if not _joined():
        return
    new = [p for p in model.parameters() if p.requires_grad and not hasattr(p, "_averaged")]
    pass_begun = -1

    def arrived(_: Tensor) -> None:
        """A gradient was added: ask autograd, once per pass, to average at its end."""
        nonlocal pass_begun
        this_pass = torch._C._current_graph_task_id()
        if this_pass != pass_begun:
            pass_begun = this_pass
            engine = torch.autograd.Variable._execution_engine
            engine.queue_callback(lambda: average(new))

    for parameter in new:
        parameter._averaged = True  # type: ignore[attr-defined]
        parameter.register_post_accumulate_grad_hook(arrived)


@torch.no_grad()
def average(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the ranks, in which a missing one counts as 0.

    One that is missing on all ranks stays None. All ranks must name the same parameters.
    """
    if not _joined():
        return
    under_way: _Bucket | None = None
    for run in _in_buckets(parameters):
        bucket = _Bucket(run)
        if under_way is not None:
            under_way.unpack()
        under_way = bucket
    if under_way is not None:
        under_way.unpack()


class _Bucket:
    """Gradients on their way: one flat tensor of them, and for each a 1 if there was one."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self._parameters = parameters
        device = parameters[0].device
        there, missing = torch.ones(1, device=device), torch.zeros(1, device=device)
        parts = [_flat_gradient(p) for p in parameters]
        parts += [missing if p.grad is None else there for p in parameters]
        self._values = torch.cat(parts).div_(dist.get_world_size())
        with _spoken_to():
            self._work = dist.all_reduce(self._values, async_op=True)

    def unpack(self) -> None:
        """Wait for the sums and write them to the gradients."""
        with _spoken_to():
            self._work.wait()
        sizes = [p.numel() for p in self._parameters]
        *means, found = self._values.split([*sizes, len(sizes)])
        gradients, arrived = [], []
        for number, (p, mean) in enumerate(zip(self._parameters, means, strict=True)):
            if p.grad is not None:
                gradients.append(p.grad)
                arrived.append(mean.view_as(p))
            elif found[number] > 0:  # waits for the device, where a rank left a parameter out
                p.grad = mean.view_as(p).to(p.dtype)
        if gradients:
            torch._foreach_copy_(gradients, arrived)


def _flat_gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        return torch.zeros(parameter.numel(), device=parameter.device)
    return parameter.grad.reshape(-1).float()


def _in_buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The parameters in order, in runs of at most BUCKET_VALUES (or of one, if it has more)."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and sum(p.numel() for p in bucket) + parameter.numel() > BUCKET_VALUES:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


# Numbers, weights, randomness.


@torch.no_grad()
def mean(value: Tensor) -> Tensor:
    """The mean over the ranks of a tensor of one shape, in its dtype."""
    if not _joined():
        return value
    total = value.detach().float() / dist.get_world_size()
    with _spoken_to():
        dist.all_reduce(total)
    return total.to(value.dtype)


def everywhere(flag: Tensor) -> Tensor:
    """Whether a 0-d truth value holds on all ranks."""
    return mean(flag.float()) > 1 - 0.5 / dist.get_world_size() if _joined() else flag


@torch.no_grad()
def equalise(model: nn.Module) -> None:
    """Copy rank 0's parameters and buffers to all ranks."""
    if not _joined():
        return
    for tensor in model.state_dict().values():
        tensor.copy_(_from_first(tensor))


def _from_first(tensor: Tensor) -> Tensor:
    copy = tensor.detach().contiguous().clone()
    with _spoken_to():
        dist.broadcast(copy, 0)
    return copy


@torch.no_grad()
def check_equal(model: nn.Module) -> None:
    """Raises RanksApart, on all ranks, if the ranks' weights are not those of one training."""
    if not _joined():
        return
    device = next(model.parameters()).device
    squares = torch.zeros(2, dtype=torch.float32, device=device)
    for parameter in model.parameters():
        first = _from_first(parameter).float()
        squares += torch.stack([(parameter.float() - first).square().sum(), first.square().sum()])
    apart = (squares[0] / squares[1].clamp(min=1e-30)).sqrt()
    with _spoken_to():
        dist.all_reduce(apart, op=dist.ReduceOp.MAX)
    if apart.item() > APART:
        raise RanksApart(apart.item())


def own_noise(seed: int) -> None:
    """Let what is drawn on an accelerator (dropout) differ between ranks.

    What is drawn on the host stays the same on all, so that a choice made by it is made by all.
    """
    if _joined() and torch.cuda.is_available():
        torch.cuda.manual_seed(seed + rank())
