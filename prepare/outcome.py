"""How an experiment ended: a Result with a number, or a Failure with a reason. Never both."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """A finished, scored experiment. Seconds are the harness's own monotonic clock.

    val_bpb: bits per byte of the validation text, lower is better. score_id: only numbers with
    equal ids may be compared. verified: whether the harness computed the number itself.
    mfu_percent: against the datasheet's dense peak, None where none is known;
    mfu_measured_percent: against measured_peak_flops, the matrix product's speed (FLOP/s) found in
    the candidate process before any of its code was loaded. FLOPs per token,
    parameters and depth are the candidate's own word. probes: largest deviations found.
    devices: how many trained one model together; scoring takes one. Speed and MFU are of all, peak
    memory of the one that took most.
    tier: the isolation that held; not_protected_against: what it can't stop. touched: what the
    audit hook saw the candidate reach for beyond what it was given. weights: path of the
    safetensors file, or None.
    """

    val_bpb: float
    score_id: str
    verified: bool
    training_seconds: float
    total_seconds: float
    startup_seconds: float
    warmup_seconds: float
    scoring_seconds: float
    peak_memory_mb: float
    mfu_percent: float | None
    mfu_measured_percent: float | None
    measured_peak_flops: float | None
    tokens: int
    tokens_per_second: float
    num_steps: int
    num_params: int
    depth: int | None
    backend: str
    hardware: dict[str, Any]
    policy: dict[str, Any]
    versions: dict[str, str]
    tier: str
    probes: dict[str, Any]
    floor_bpb: float | None
    scored_tokens: int
    scored_bytes: int
    seed: int
    weights: str | None
    run_dir: str
    devices: int = 1
    not_protected_against: tuple[str, ...] = ()
    touched: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return True

    def to_dict(self) -> dict[str, Any]:
        return {"status": "ok", **asdict(self)}


@dataclass(frozen=True)
class Failure:
    """An experiment that has no number, and why.

    phase: prepare, startup, import, build, warmup, training or scoring. kind: syntax_error,
    import_error, exception, exit, nan, out_of_memory, killed, timeout, no_training,
    invalid_output, not_finite, causality, batch_dependence, implausible, tampered,
    overrun (no first answer in the time that loading can take), forbidden (reached for what it
    was not given), resource_limit (processes, disk, output). log_tail: the candidate's last 50
    lines, without control characters. seconds: by phase.
    """

    phase: str
    kind: str
    message: str
    log_tail: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    run_dir: str = ""
    tier: str = ""
    touched: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return False

    def to_dict(self) -> dict[str, Any]:
        return {"status": "failed", **asdict(self)}


Outcome = Result | Failure


def format_summary(result: Result) -> str:
    """Upstream's nine lines, for whoever greps `^val_bpb:`; an unknown figure is given as 0."""
    lines = {
        "val_bpb": f"{result.val_bpb:.6f}",
        "training_seconds": f"{result.training_seconds:.1f}",
        "total_seconds": f"{result.total_seconds:.1f}",
        "peak_vram_mb": f"{result.peak_memory_mb:.1f}",
        "mfu_percent": f"{result.mfu_percent or result.mfu_measured_percent or 0.0:.2f}",
        "total_tokens_M": f"{result.tokens / 1e6:.1f}",
        "num_steps": f"{result.num_steps}",
        "num_params_M": f"{result.num_params / 1e6:.1f}",
        "depth": f"{result.depth or 0}",
    }
    return "---\n" + "\n".join(f"{name + ':':<18}{value}" for name, value in lines.items())
