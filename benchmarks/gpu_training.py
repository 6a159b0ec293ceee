"""The sections of gpu.py about whole training: a preset's train.py, its profile, and upstream's.

Both scripts get random tokens that already lie on the device: their own speed is measured, not a
feed's. Their text is run as it is, with a preset's constants written into ours.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import re
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from gpu_timing import Section, spread

import backends
from autoresearch.engine.constants import apply_constants
from backends.hardware import Hardware
from backends.peak_flops import peak_flops

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PRESETS = ROOT / "autoresearch" / "presets"
STEPS = 12  # optimizer steps that are timed
WARM_STEPS = 3  # the first compiles; the allocator settles after it
PROFILED_STEPS = 3  # after those that are timed
POOL = 8  # batches of random tokens, over and over: what they say costs nothing
TINY = {
    "DEPTH": 2,
    "ASPECT_RATIO": 16,
    "HEAD_DIM": 16,
    "TOTAL_BATCH_SIZE": 128,
    "DEVICE_BATCH_SIZE": 2,
}
# Whose kernel it is, by its name on the device: the first that fits.
KINDS = {
    "loss": r"softcap",
    "gram": r"gram_tile",
    "attention": r"flash|fmha|attention|flex|attn|query_gradients|key_gradients|^forward$",
    "matrix products": r"gemm|nvjet|cutlass|xmma|Cijk|_mm_|matmul",
    "copies": r"memcpy|memset|copy|CatArray",
    "compiled elementwise": r"^triton_",
}


def choose_preset(hardware: Hardware) -> str:
    """The preset whose demands this device meets and that demands most."""
    fitting = []
    for path in PRESETS.glob("*.toml"):
        needs = read_preset(path.stem)["requires"]
        enough = needs.get("min_memory_gb", 0) <= hardware.memory_bytes / 1e9
        known = hardware.architecture in needs.get("architectures", [hardware.architecture])
        if hardware.backend in needs["backends"] and enough and known:
            fitting.append((needs.get("min_memory_gb", 0), path.stem))
    return max(fitting)[1]


def read_preset(name: str) -> dict[str, Any]:
    """A built-in preset's tables."""
    return tomllib.loads((PRESETS / f"{name}.toml").read_text(encoding="utf-8"))


def load_script(constants: Mapping[str, Any]) -> ModuleType:
    """train.py as a module, with these constants."""
    source = apply_constants((ROOT / "train.py").read_text(encoding="utf-8"), constants)
    path = Path(tempfile.mkdtemp(prefix="gpu-bench-")) / "train.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("train", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train"] = module
    spec.loader.exec_module(module)
    return module


class RandomRun:
    """What train.py's `train` sees of a harness: batches for so many steps, and a log.

    A profiler watches the PROFILED_STEPS that come after them.
    """

    def __init__(
        self, spec: Any, step_tokens: int, steps: int, profiler: torch.profiler.profile | None
    ) -> None:
        self.spec, self.progress = spec, 0.1
        self._steps, self._profiler = steps, profiler
        self._tokens = step_tokens * (steps + (PROFILED_STEPS if profiler else 0))
        self.times: list[float] = []
        self.losses: list[float] = []

    def batches(self, rows: int) -> Iterator[tuple[Any, Any]]:
        """(tokens, targets), each (rows, T) int64 on the device."""
        shape = (rows, self.spec.max_seq_len + 1)
        device = backends.runtime.device
        pool = [torch.randint(self.spec.vocab_size, shape, device=device) for _ in range(POOL)]
        pairs = [(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()) for tokens in pool]
        for i in range(self._tokens // (rows * self.spec.max_seq_len)):
            yield pairs[i % POOL]

    def log(self, loss: float, **_: Any) -> None:
        """The end of a step: train.py has just read its loss, so the device is done with it."""
        self.times.append(time.perf_counter())
        self.losses.append(loss)
        if self._profiler is not None:
            if len(self.times) == self._steps:
                backends.runtime.synchronize()
                self._profiler.start()
            elif len(self.times) == self._steps + PROFILED_STEPS:
                backends.runtime.synchronize()
                self._profiler.stop()


def policy(section: Section) -> None:
    """What this machine is, and how the harness would train on it: figures are made if missing."""
    began = time.perf_counter()
    chosen = backends.select()
    section.row(case="chosen after", median=time.perf_counter() - began, unit="s")
    section.row(
        case="policy",
        hardware=chosen.hardware.to_dict(),
        policy=chosen.policy.to_dict(),
        versions=backends.runtime.versions(),
        load_average=os.getloadavg(),
    )


def training(section: Section, preset: str, profile: bool) -> None:
    """Tokens/s, MFU, memory, the seconds before the first step; then, if asked, a profile."""
    runtime, chosen = backends.runtime, backends.select()
    preset = preset or ("demo" if section.tiny else choose_preset(chosen.hardware))
    tables = read_preset(preset)
    module = load_script({**tables["train"], **TINY} if section.tiny else tables["train"])
    spec = SimpleNamespace(
        vocab_size=64 if section.tiny else tables["experiment"]["vocab_size"],
        max_seq_len=32 if section.tiny else tables["experiment"]["max_seq_len"],
    )
    steps = 2 if section.tiny else WARM_STEPS + STEPS
    runtime.seed(0)
    runtime.reset_peak_memory()
    began = time.perf_counter()
    model = module.build_model(spec)
    kind = torch.profiler.ProfilerActivity
    activities = [kind.CPU if section.device.type == "cpu" else kind.CUDA]
    profiler = torch.profiler.profile(activities=activities) if profile else None
    run = RandomRun(spec, module.TOTAL_BATCH_SIZE, steps, profiler)
    module.train(model, run)
    times = run.times[:steps]
    seconds = [b - a for a, b in itertools.pairwise(times)][-STEPS:]
    rates = [module.TOTAL_BATCH_SIZE / s for s in seconds]
    rate = spread(rates, "tokens/s")
    flops = model.flops_per_token()
    published, measured = peak_flops(chosen.hardware), runtime.matmul_peak()
    section.row(case=preset, variant="train.py", **rate)
    facts = {
        "first step after": (run.times[0] - began, "s"),
        "peak memory": (runtime.peak_memory_mb(), "MB"),
        "MFU of the measured peak": (100 * flops * rate["median"] / measured, "%"),
        "last loss": (run.losses[-1], "nats"),
    }
    if published:
        facts["MFU of the datasheet's"] = (100 * flops * rate["median"] / published.value, "%")
    for name, (value, unit) in facts.items():
        section.row(case=name, variant="train.py", median=value, unit=unit)
    how = {"linear": chosen.policy.linear, "compile_mode": chosen.policy.compile_mode}
    section.row(case="model", flops_per_token=flops, losses=run.losses, **how)
    if profiler is not None:
        wall_ms = 1e3 * PROFILED_STEPS * statistics.median(seconds)
        section.attempt("profile", lambda: _report_profile(section, profiler, wall_ms))


def _report_profile(section: Section, profiler: torch.profiler.profile, wall_ms: float) -> None:
    """Where some steps spent the device's time, of what as many took without a profiler."""
    field = "self_cpu_time_total" if section.device.type == "cpu" else "self_device_time_total"
    took = {event.key: getattr(event, field) / 1e3 for event in profiler.key_averages()}
    total = sum(took.values())
    shares = dict.fromkeys([*KINDS, "rest"], 0.0)
    for name, ms in took.items():
        shares[next((k for k, p in KINDS.items() if re.search(p, name)), "rest")] += ms
    section.row(case="profile: device busy", median=100 * total / wall_ms, unit="% of the time")
    for kind, ms in shares.items():
        section.row(case=f"profile: {kind}", median=100 * ms / total, unit="% of device time")
    longest = sorted(took.items(), key=lambda item: -item[1])[:25]
    section.row(case="profile: kernels", kernels=[[name[:120], ms] for name, ms in longest])


# Upstream's script


def upstream(section: Section, script: Path, seconds: float) -> None:
    """Upstream's train.py for so many seconds of its own clock, beside which ours is set."""
    command = [sys.executable, str(Path(__file__).resolve()), str(script), str(seconds)]
    limit = max(1.0, section.until - time.monotonic())
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"upstream's script ended with {done.returncode}: {done.stderr[-300:]}")
    section.row(case="attention given to it", attention=done.stderr.strip().splitlines()[-1:])
    report_upstream(section, done.stdout)


def report_upstream(section: Section, printed: str) -> None:
    """Rows from what it prints: a line per step, and a summary after `---`."""
    rates = [float(r.replace(",", "")) for r in re.findall(r"tok/sec: ([\d,]+)", printed)]
    if len(rates) <= WARM_STEPS:
        raise RuntimeError(f"upstream's script printed {len(rates)} rates: too few")
    section.row(case="upstream", variant="train.py", **spread(rates[WARM_STEPS:], "tokens/s"))
    summary = dict(re.findall(r"^(\w+): +([\d.]+)$", printed.partition("---")[2], re.MULTILINE))
    for name, unit in (("mfu_percent", "%"), ("peak_vram_mb", "MB"), ("num_params_M", "M")):
        if name in summary:
            section.row(case=f"upstream {name}", median=float(summary[name]), unit=unit)


def run_upstream(script: Path, seconds: float) -> None:
    """In a process of its own: upstream's imports are answered from here.

    Its data become random tokens, its hub of kernels our best attention.
    """
    from backends import attention

    chosen, device = backends.select(), backends.runtime.device
    order = [chosen.policy.attention, *chosen.policy.attention_order]
    name, function, _ = attention.first_available(dict.fromkeys(order), chosen.hardware)
    vocabulary, length = 8192, 2048

    def flash_attn_func(q: Any, k: Any, v: Any, causal: bool, window_size: tuple[int, int]) -> Any:
        behind = window_size[0]
        return function(q, k, v, None if behind < 0 or behind >= q.shape[1] - 1 else behind)

    def make_dataloader(tokenizer: Any, rows: int, T: int, split: str) -> Iterator[Any]:
        pool = [torch.randint(vocabulary, (rows, T + 1), device=device) for _ in range(POOL)]
        while True:
            for tokens in pool:
                yield tokens[:, :-1], tokens[:, 1:], 1

    tokenizer = SimpleNamespace(get_vocab_size=lambda: vocabulary)
    answers = {
        "MAX_SEQ_LEN": length,
        "TIME_BUDGET": seconds,
        "Tokenizer": SimpleNamespace(from_directory=lambda: tokenizer),
        "make_dataloader": make_dataloader,
        "evaluate_bpb": lambda *_: math.nan,
    }
    prepare = ModuleType("prepare")
    vars(prepare).update(answers)
    hub = ModuleType("kernels")
    interface = SimpleNamespace(flash_attn_func=flash_attn_func)
    vars(hub)["get_kernel"] = lambda *_, **__: SimpleNamespace(flash_attn_interface=interface)
    sys.modules.update({"prepare": prepare, "kernels": hub})
    os.chdir(tempfile.mkdtemp(prefix="gpu-bench-"))
    sys.argv = [str(script)]
    runpy.run_path(str(script), run_name="__main__")
    print(f"{name} (its own comes from a hub that is not asked here)", file=sys.stderr)


if __name__ == "__main__":
    run_upstream(Path(sys.argv[1]).resolve(), float(sys.argv[2]))
