"""One of several processes that train together, or one that does it all: `RANK SIZE FOLDER`.

Writes what it found to FOLDER/SIZE-RANK.json and the weights of each model beside it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import train_jobs
from train_child import SEED_MODULE, TINY

from backends import F, data_parallel, nn, runtime, torch
from backends.errors import RanksApart
from backends.loss_scaling import LossScaler

RANK, SIZE, FOLDER = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])


class Share(train_jobs.FakeRun):
    """The batches of one process, cut to this rank's rows."""

    def batches(self, rows: int) -> Any:
        own = slice(RANK * rows // SIZE, (RANK + 1) * rows // SIZE)
        for x, y in super().batches(rows):
            yield x[own], y[own]


class Guess(nn.Module):
    """Each token from the one before it. `never` is used by no rank, `sometimes` by the second."""

    def __init__(self, sometimes_used: bool = False) -> None:
        super().__init__()
        runtime.seed(RANK)  # weights differ between ranks until they are made equal
        self.table = nn.Embedding(256, 8)
        self.head = nn.Linear(8, 256)
        self.never, self.sometimes = nn.Linear(8, 8), nn.Linear(8, 8)
        self.sometimes_used = sometimes_used
        data_parallel.equalise(self)
        data_parallel.watch(self)

    def forward(self, x, y):
        h = self.table(x)
        h = h + self.sometimes(h) if self.sometimes_used else h
        return F.cross_entropy(self.head(h).flatten(0, 1), y.flatten())


def seed_module() -> dict[str, Any]:
    """train.py itself: six steps of two passes each."""
    module = train_jobs.load({"module": str(SEED_MODULE), "constants": TINY})
    runtime.seed(0)
    model = module.build_model(train_jobs.SPEC)
    run = Share(12)
    module.train(model, run)
    data_parallel.check_equal(model)
    runtime.save_weights(model, FOLDER / f"seed-{SIZE}-{RANK}.safetensors")
    return {"losses": run.losses}


def descent() -> dict[str, Any]:
    """train.py's model by plain descent, whose weights don't magnify rounding as Muon's may."""
    module = train_jobs.load({"module": str(SEED_MODULE), "constants": TINY})
    model = train_jobs.build(module, str(FOLDER / f"begun-{SIZE}-{RANK}.safetensors"))
    backward = runtime.backward(model)
    run = Share(8)
    for micro, (x, y) in enumerate(run.batches(4), 1):
        run.log(step=micro, loss=backward(x, y, scale=0.5))
        if micro % 2 == 0:
            with torch.no_grad():
                for p in model.parameters():
                    p.sub_(p.grad)
            model.zero_grad(set_to_none=True)
    runtime.save_weights(model, FOLDER / f"descent-{SIZE}-{RANK}.safetensors")
    return {"losses": run.losses}


def by_hand() -> dict[str, Any]:
    """A loop that knows nothing of runtime.backward, and a parameter that one rank alone uses."""
    model = Guess(sometimes_used=RANK == 1)
    run = Share(8)
    for x, y in run.batches(4):
        loss = model(x, y)
        loss.backward()
        found = {name: p.grad is not None for name, p in model.named_parameters()}
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p.sub_(p.grad)
        model.zero_grad(set_to_none=True)
    data_parallel.check_equal(model)
    return {"found": found, "sum": sum(p.double().sum().item() for p in model.parameters())}


def after_an_error() -> dict[str, Any]:
    """A pass that breaks off must not keep the next from being averaged."""
    model = Guess()
    x, y = next(iter(Share(1).batches(4)))
    h = model.head(model.table(x))
    h.register_hook(lambda gradient: (_ for _ in ()).throw(MemoryError("no more")))
    try:
        (F.cross_entropy(h.flatten(0, 1), y.flatten()) + model.never.weight.sum()).backward()
    except MemoryError:
        model.zero_grad(set_to_none=True)
    model(x, y).backward()
    return {"gradient": model.table.weight.grad.double().square().sum().item()}


def overflow() -> dict[str, Any]:
    """A gradient that overflows on the second rank alone counts on all."""
    model = Guess()
    scaler = LossScaler(model.parameters())
    x, y = next(iter(Share(1).batches(4)))
    loss = model(x, y) * (float("inf") if RANK == 1 else 1.0)
    scaler.backward(loss, 1.0)
    data_parallel.average(model.parameters())
    return {"factor": scaler.factor.item(), "gradient": model.table.weight.grad.abs().max().item()}


def apart() -> dict[str, Any]:
    """Weights of one training are told from others."""
    model = Guess()
    with torch.no_grad():
        model.table.weight.mul_(1 + 1e-4 * RANK)
    data_parallel.check_equal(model)
    with torch.no_grad():
        model.table.weight.mul_(1 + RANK)
    try:
        data_parallel.check_equal(model)
    except RanksApart as error:
        return {"apart": error.apart}
    return {"apart": 0.0}


def main() -> None:
    if SIZE > 1:
        data_parallel.join("cpu", RANK, SIZE, str(FOLDER / "rendezvous"))
    data_parallel.BUCKET_VALUES = 5_000  # several buckets, of a small model
    jobs = {"seed": seed_module, "descent": descent, "by_hand": by_hand}
    jobs |= {"after_an_error": after_an_error, "overflow": overflow, "apart": apart}
    found = {name: job() for name, job in jobs.items()}
    (FOLDER / f"{SIZE}-{RANK}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
