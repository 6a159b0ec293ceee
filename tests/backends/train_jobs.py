"""What train_child.py can do with a train module: each function takes a job and returns JSON."""

import contextlib
import importlib.util
import io
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

SPEC = types.SimpleNamespace(vocab_size=256, max_seq_len=64)


class FakeRun:
    """What the harness hands to `train`: rows in which a token says much about the next one."""

    def __init__(self, batches: int, seed: int = 0) -> None:
        self.spec, self.seed, self.total = SPEC, seed, batches
        self.progress = 0.0
        self.logged: list[dict[str, Any]] = []

    def batches(self, rows: int) -> Any:
        from backends import runtime

        generator = np.random.default_rng(self.seed)
        for i in range(self.total):
            self.progress = i / self.total
            walk = generator.integers(0, 4, (rows, SPEC.max_seq_len + 1)).cumsum(1)
            tokens = walk % SPEC.vocab_size
            yield runtime.from_numpy(tokens[:, :-1]), runtime.from_numpy(tokens[:, 1:])

    def log(self, step: int, loss: float, **more: Any) -> None:
        self.logged.append({"step": step, "loss": float(loss), **more})

    @property
    def losses(self) -> list[float]:
        return [entry["loss"] for entry in self.logged]


def load(job: dict[str, Any]) -> Any:
    """The train module, under the name of its file, with the job's constants."""
    path = Path(job["module"])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    for constant, value in job["constants"].items():
        assert hasattr(module, constant), constant
        setattr(module, constant, value)
    return module


def build(module: Any, path: str, disturb: bool = True) -> Any:
    """The model with the weights of that file, which the first process to come writes.

    They are the model's own, with some noise added if `disturb`, since the zeros of a fresh model
    hide what is wrong behind them.
    """
    from backends import runtime, torch

    runtime.seed(0)
    model = module.build_model(SPEC)
    if not Path(path).exists():
        generator = np.random.default_rng(1)
        with torch.no_grad():
            for _, p in sorted(model.named_parameters()) if disturb else ():
                noise = 0.02 * generator.standard_normal(tuple(p.shape))
                p.add_(runtime.from_numpy(noise.astype(np.float32)).to(p.dtype))
        runtime.save_weights(model, path)
    runtime.load_weights(model, path)
    return model


def fit(module: Any, model: Any, steps: int) -> dict[str, Any]:
    """Trains for that many optimizer steps; `losses`, and what torch's compiler counted."""
    from backends import runtime

    device_tokens = module.DEVICE_BATCH_SIZE * SPEC.max_seq_len
    run = FakeRun(steps * module.TOTAL_BATCH_SIZE // device_tokens)
    module.train(model, run)
    result: dict[str, Any] = {"losses": run.losses, "runtime": runtime.name}
    if runtime.name == "torch":
        from torch._dynamo.utils import counters

        result["graph_breaks"] = dict(counters["graph_break"])
        result["graphs"] = counters["stats"]["unique_graphs"]
    return result


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Trains for `steps` optimizer steps, from the model's own weights if `job["fresh"]`.

    If `job["plain_adamw"]` AdamW isn't compiled: one kernel for each shape, and the same in all.
    """
    module = load(job)
    if job.get("plain_adamw"):
        module.adamw_step = module.adamw_step.__wrapped__
    model = build(module, job["weights"], disturb=not job.get("fresh"))
    return fit(module, model, job["steps"])


def parity(job: dict[str, Any]) -> dict[str, Any]:
    """All that two backends are compared by, from one compiled module.

    `losses` of `steps` training steps from the weights of a fresh model (`job["fresh"]`). From
    disturbed ones (`job["weights"]`): `loss` and gradients (npz `job["gradients"]`) of a batch, and
    the weights after as many optimizer steps on given gradients, without weight decay (npz
    `job["updated"]`) and with it (`job["decayed"]`).
    """
    from backends import runtime

    module = load(job)
    model = build(module, job["weights"])
    x, y = next(iter(FakeRun(1).batches(module.DEVICE_BATCH_SIZE)))
    loss = float(runtime.backward(model)(x, y))
    found = {name: runtime.to_numpy(p.grad) for name, p in model.named_parameters()}
    np.savez(job["gradients"], **found)
    model.zero_grad(set_to_none=True)

    fresh = build(module, job["fresh"], disturb=False)
    result = {**fit(module, fresh, job["steps"]), "loss": loss}
    for decay, out in ((0.0, job["updated"]), (module.WEIGHT_DECAY, job["decayed"])):
        runtime.load_weights(model, job["weights"])
        step_on_noise(module, model, job["steps"], decay)
        found = {name: runtime.to_numpy(p) for name, p in model.named_parameters()}
        np.savez(out, **found)
    return result


def step_on_noise(module: Any, model: Any, steps: int, decay: float) -> None:
    """Optimizer steps on gradients that NumPy draws, the same on every backend."""
    from backends import runtime

    optimizer = module.make_optimizer(model)
    for group in optimizer.param_groups:
        group["weight_decay"] = decay
    generator = np.random.default_rng(2)
    for _ in range(steps):
        for _, p in sorted(model.named_parameters()):
            drawn = generator.standard_normal(tuple(p.shape)).astype(np.float32)
            p.grad = runtime.from_numpy(drawn)
        optimizer.step()


def learns(job: dict[str, Any]) -> dict[str, Any]:
    """Trains once, and again as the harness does: warm-up, weights loaded again, then the run."""
    from backends import runtime

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        module = load(job)
    once, twice = build(module, job["weights"]), build(module, job["weights"])
    steps = job["steps"] * module.TOTAL_BATCH_SIZE // module.DEVICE_BATCH_SIZE // SPEC.max_seq_len
    first, warm_up, second = FakeRun(steps), FakeRun(4, seed=9), FakeRun(steps)
    module.train(once, first)
    module.train(twice, warm_up)
    runtime.load_weights(twice, job["weights"])
    module.train(twice, second)
    pairs = zip(once.named_parameters(), twice.named_parameters(), strict=True)
    return {
        "printed": printed.getvalue(),
        "losses": first.losses,
        "losses_after_warm_up": second.losses,
        "same_weights": all(
            np.array_equal(runtime.to_numpy(p), runtime.to_numpy(q)) for (_, p), (_, q) in pairs
        ),
        "dtypes": {name: str(p.dtype).split(".")[-1] for name, p in once.named_parameters()},
        "logged": first.logged[0],
    }


def answers(job: dict[str, Any]) -> dict[str, Any]:
    """Logits and loss of one batch; how far logits move when the future of a row changes."""
    from backends import F, runtime, torch

    module = load(job)
    model = build(module, job["weights"])
    x, y = next(iter(FakeRun(1).batches(module.DEVICE_BATCH_SIZE)))
    other = runtime.to_numpy(x).copy()
    other[:, 40:] = (other[:, 40:] + 7) % SPEC.vocab_size
    with torch.no_grad():
        logits, loss = model(x), model(x, y)
        plain = F.cross_entropy(logits.view(-1, SPEC.vocab_size), y.view(-1))
        moved = (model(runtime.from_numpy(other)) - logits).abs()
    return {
        "shape": list(logits.shape),
        "dtype": str(logits.dtype).split(".")[-1],
        "loss": float(loss),
        "plain_loss": float(plain),
        "moved_before": float(moved[:, :40].max()),
        "moved_after": float(moved[:, 40:].max()),
        "flops_per_token": model.flops_per_token(),
        "parameters": {name: list(p.shape) for name, p in model.named_parameters()},
    }


def refuses(job: dict[str, Any]) -> dict[str, Any]:
    """The exception that `train` or `build_model` raises, as `type: message`, or "nothing"."""
    from backends import torch

    module = load(job)
    try:
        model = module.build_model(SPEC)
        if job.get("poison"):
            with torch.no_grad():
                model.lm_head.weight.fill_(float("nan"))
        module.train(model, FakeRun(8))
    except (ValueError, FloatingPointError) as error:
        return {"raised": f"{type(error).__name__}: {error}"}
    return {"raised": "nothing"}
