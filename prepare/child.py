"""The candidate process: `python -m prepare.child ROLE`, spoken to in messages.

Roles: train, answer, sample; follow is train on a second and further device (`prepare.ranks`).

It imports the candidate's train.py and does what the harness asks. It is given tokens to train
on and rows to answer, never the files, the targets of what is scored, or the result.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import importlib.util
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from backends.errors import RankLost
from prepare.audit import install
from prepare.channel import DTYPE_BYTES, Channel, ChannelClosed, shared_array
from prepare.ranks import GRACE_SECONDS, FollowerRun, gather, join
from prepare.run import Run, Spec, TimedRun, WarmupRun

MODULE_NAME = "train"
# Objects made, younger collections done; Python's own are 700, 10, 10.
TRACING_THRESHOLDS = (50_000, 20, 100)


class InvalidLogits(ValueError):
    """The model's answer is no logits for the tokens it was given."""


class _FromSource(SourceFileLoader):
    """Compiles what train.py says now; bytecode beside it is neither trusted nor written."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def main() -> None:
    """Take the channel off standard input and output, then serve the role in argv[1]."""
    if sys.argv[1:] not in [[role] for role in ROLES]:
        sys.exit("usage: python -m prepare.child " + "|".join(ROLES) + " (the harness starts this)")
    role = sys.argv[1]
    channel = _take_channel()
    state = {"phase": "startup"}
    try:
        _load_framework()
        configuration = channel.receive()
        ROLES[role](channel, configuration, state)
    except ChannelClosed:
        sys.exit(1)
    except RankLost as error:
        traceback.print_exc()
        time.sleep(3 * GRACE_SECONDS)  # the one that is gone has the better reason, and tells it
        channel.send("failed", phase=state["phase"], failure="exception", message=_describe(error))
        sys.exit(1)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - reported with its type, then exit
        traceback.print_exc()
        channel.send(
            "failed",
            phase=state["phase"],
            failure=_kind_of(error),
            message=_describe(error),
        )
        sys.exit(1)


def _take_channel() -> Channel:
    """Keep stdin and stdout for messages; whatever the candidate prints goes to the log."""
    reader = os.fdopen(os.dup(0), "rb")
    writer = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return Channel(reader, writer)


def _kind_of(error: BaseException) -> str:
    from backends import runtime

    if isinstance(error, SyntaxError):
        return "syntax_error"
    if isinstance(error, ImportError):
        return "import_error"
    if isinstance(error, FloatingPointError):
        return "nan"
    if isinstance(error, InvalidLogits):
        return "invalid_output"
    if isinstance(error, SystemExit):
        return "exit"
    if isinstance(error, MemoryError) or runtime.is_out_of_memory(error):
        return "out_of_memory"
    return "exception"


def _describe(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= 2000 else text[:2000] + " ..."


def _load_candidate(channel: Channel, configuration: dict[str, Any]) -> ModuleType:
    """Import train.py; what it touches is watched from here on."""
    path = Path(configuration["script"])

    def touched(act: str, target: str, forbidden: bool) -> None:
        channel.send_soon("touched", act=act, target=target, forbidden=forbidden)

    install(configuration["audit"], touched)
    sys.path.insert(0, str(path.parent))
    loader = _FromSource(MODULE_NAME, str(path))
    found = importlib.util.spec_from_file_location(MODULE_NAME, path, loader=loader)
    if found is None or found.loader is None:
        raise ImportError(f"{path} is no Python module")
    module = importlib.util.module_from_spec(found)
    sys.modules[MODULE_NAME] = module
    found.loader.exec_module(module)
    for name in ("build_model", "train"):
        if not callable(getattr(module, name, None)):
            raise ImportError(f"{path.name} defines no function {name}()")
    return module


def _load_framework() -> None:
    """Takes over a second, in which the harness makes ready what it has to say."""
    from backends import runtime
    from backends.process_memory import keep_freed_memory

    keep_freed_memory()
    with _fewer_collections():
        runtime.name  # noqa: B018 - asked for to be loaded


def _hello(channel: Channel, measure_peak: bool) -> None:
    """Say what this machine is, measured before any of the candidate's code is loaded."""
    import backends
    from backends import runtime
    from backends.peak_flops import peak_flops

    selection = backends.select()
    peak = peak_flops(selection.hardware)
    channel.send(
        "hello",
        backend=selection.hardware.backend,
        runtime=runtime.name,
        compute_dtype=selection.policy.compute_dtype,
        hardware=selection.hardware.to_dict(),
        hardware_id=selection.hardware.id,
        policy=selection.policy.to_dict(),
        passed_over=[[miss.backend, miss.reason] for miss in selection.passed_over],
        versions=runtime.versions(),
        peak_flops=peak.value if peak else None,
        peak_flops_source=peak.source if peak else None,
        measured_peak_flops=runtime.matmul_peak() if measure_peak else None,
    )


def _build(module: ModuleType, spec: Spec, seed: int) -> Any:
    from backends import runtime

    runtime.seed(seed)
    return module.build_model(spec)


@contextlib.contextmanager
def _fewer_collections() -> Iterator[None]:
    """Let Python's garbage collector look less often, and not at what is loaded by now.

    Loading torch and torch.compile's tracing make many small objects, at which it went through all
    modules again and again: 0.3 of 1.3 s, and 1.2 of 8.4 s of a warm start.
    """
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*TRACING_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _flops_per_token(model: Any) -> int:
    """The model's own count, or 6 FLOPs per parameter (Kaplan et al. 2020) where it has none."""
    count = getattr(model, "flops_per_token", None)
    return int(count() if callable(count) else 6 * _parameters(model))


def _parameters(model: Any) -> int:
    return sum(int(p.numel()) for p in model.parameters())


def _serve_train(channel: Channel, configuration: dict[str, Any], state: dict[str, str]) -> None:
    from backends import runtime

    _hello(channel, measure_peak=True)
    crew = gather(channel, configuration, state)
    spec, seed = Spec(**configuration["spec"]), int(configuration["seed"])
    module, model = _load_model(channel, configuration, state)
    channel.send(
        "built",
        num_params=_parameters(model),
        flops_per_token=_flops_per_token(model),
        depth=getattr(module, "DEPTH", None),
    )
    state["phase"] = "warmup"
    warmup = WarmupRun(spec, seed, configuration["warmup_seconds"], crew)
    _warm_up(module, model, warmup, configuration)

    state["phase"] = "training"
    channel.send("warm")
    run = TimedRun(spec, seed, channel, configuration["budget"], crew)
    _train(module, model, run, configuration)
    weights = configuration["weights"]
    runtime.save_weights(model, weights)
    channel.send(
        "weights",
        path=weights,
        peak_memory_mb=max(runtime.peak_memory_mb(), crew.peak_memory_mb()),
        steps=run.steps,
        loss=run.last_loss,
    )


def _serve_follow(channel: Channel, configuration: dict[str, Any], state: dict[str, str]) -> None:
    """Train as the leader does, on another device and other rows; the weights are the leader's."""
    from backends import runtime

    rank, size = int(configuration["rank"]), int(configuration["devices"])
    join(configuration, rank)
    module, model = _load_model(channel, configuration, state)
    spec, seed = Spec(**configuration["spec"]), int(configuration["seed"])
    run = FollowerRun(spec, seed, channel, rank, size)
    state["phase"] = "warmup"
    _warm_up(module, model, run, configuration)
    state["phase"] = "training"
    _train(module, model, run, configuration)
    channel.send("done", peak_memory_mb=runtime.peak_memory_mb())
    channel.receive()  # until all are ended


def _load_model(
    channel: Channel, configuration: dict[str, Any], state: dict[str, str]
) -> tuple[ModuleType, Any]:
    state["phase"] = "import"
    module = _load_candidate(channel, configuration)
    state["phase"] = "build"
    return module, _build(module, Spec(**configuration["spec"]), int(configuration["seed"]))


def _warm_up(module: ModuleType, model: Any, run: Run, configuration: dict[str, Any]) -> None:
    """Train a little, for what is compiled; then let the model be as it was built."""
    from backends import runtime

    model.train()
    with _fewer_collections():
        _train(module, model, run, configuration)
    fresh = _build(module, run.spec, run.seed)
    model.load_state_dict(fresh.state_dict())
    del fresh
    model.zero_grad(set_to_none=True)
    runtime.seed(run.seed)
    if int(configuration.get("devices", 1)) > 1:
        from backends import data_parallel

        data_parallel.equalise(model)
        data_parallel.own_noise(run.seed)
    runtime.reset_peak_memory()


def _train(module: ModuleType, model: Any, run: Run, configuration: dict[str, Any]) -> None:
    """Train; several devices must then have the same weights. Raises RanksApart."""
    from backends import runtime

    several = int(configuration.get("devices", 1)) > 1
    if several:
        from backends import data_parallel

        data_parallel.watch(model)
    module.train(model, run)
    runtime.synchronize()
    if several:
        data_parallel.check_equal(model)


def _restore(
    channel: Channel, configuration: dict[str, Any], state: dict[str, str]
) -> tuple[Any, Spec]:
    """Build the model in this fresh process and load the weights that training left."""
    from backends import runtime

    spec = Spec(**configuration["spec"])
    state["phase"] = "import"
    module = _load_candidate(channel, configuration)
    state["phase"] = "build"
    model = _build(module, spec, int(configuration["seed"]))
    runtime.load_weights(model, configuration["weights"])
    model.eval()
    return model, spec


def _answer(model: Any, tokens: np.ndarray) -> tuple[np.ndarray, str]:
    """Logits for rows of tokens, as an array that shared memory can hold, and their dtype."""
    from backends import runtime, torch

    with torch.no_grad():
        logits = model(runtime.from_numpy(tokens))
    name = str(logits.dtype).rsplit(".", 1)[-1]
    return runtime.to_transport(logits), name


def _serve_answers(channel: Channel, configuration: dict[str, Any], state: dict[str, str]) -> None:
    """Answer questions. The framework is loaded at once, the candidate's code when told to."""
    _hello(channel, measure_peak=False)
    channel.receive()
    model, spec = _restore(channel, configuration, state)
    state["phase"] = "scoring"
    questions = shared_array(configuration["questions"], tuple(configuration["shape"]), "int32")
    answers = shared_array(configuration["answers"], (2, configuration["answer_bytes"]), "uint8")
    channel.send("ready")
    while True:
        message = channel.receive()
        if message["kind"] == "end":
            return
        slot, rows, length = message["slot"], message["rows"], message["length"]
        tokens = np.array(questions[slot, : rows * length]).reshape(rows, length)
        logits, name = _answer(model, tokens)
        expected = (rows, length, spec.vocab_size)
        if logits.shape != expected or name not in DTYPE_BYTES:
            raise _not_logits(expected, logits, name)
        flat = np.ascontiguousarray(logits).view(np.uint8).reshape(-1)
        answers[slot, : flat.size] = flat
        channel.send("answered", slot=slot, dtype=name, bytes=int(flat.size))


def _serve_sample(channel: Channel, configuration: dict[str, Any], state: dict[str, str]) -> None:
    """Answer contexts with the logits of what comes after their position `at`, as float32."""
    model, spec = _restore(channel, configuration, state)
    state["phase"] = "sampling"
    channel.send("ready")
    while True:
        message = channel.receive()
        context = np.array([message["tokens"]], dtype=np.int64)
        logits, name = _answer(model, context)
        expected = (*context.shape, spec.vocab_size)
        if logits.shape != expected or name not in DTYPE_BYTES:
            raise _not_logits(expected, logits, name)
        last = _as_float32(logits[0, message["at"]], name)
        channel.send("logits", data=base64.b64encode(last.tobytes()).decode("ascii"))


def _not_logits(expected: tuple[int, ...], logits: np.ndarray, dtype: str) -> InvalidLogits:
    return InvalidLogits(
        f"forward(tokens) must return logits of shape {expected} in "
        f"{', '.join(DTYPE_BYTES)}, not {logits.shape} in {dtype}"
    )


def _as_float32(array: np.ndarray, dtype: str) -> np.ndarray:
    """Transported logits as float32; bfloat16 comes as its bit pattern in uint16."""
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


ROLES: dict[str, Callable[[Channel, dict[str, Any], dict[str, str]], None]] = {
    "train": _serve_train,
    "follow": _serve_follow,
    "answer": _serve_answers,
    "sample": _serve_sample,
}


if __name__ == "__main__":
    main()
