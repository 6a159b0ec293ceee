"""The built-in Task: train.py, scored by val_bpb.

    study = Pretraining(settings)
    loop = Loop(study.task(), workspace, ledger, study.measure, proposer, ...)

The bridge between the engine, which knows nothing of language models, and the harness, which
knows nothing of trials.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoresearch.engine.judging import PRUNED
from autoresearch.engine.pruning import Pruner
from autoresearch.engine.task import Curve, MeasureRequest, Task
from autoresearch.engine.trial import Failure, Replicate
from autoresearch.neighbours import Neighbours
from prepare.cache import sha256_file
from prepare.devices import not_stopped
from prepare.experiment import run_experiment
from prepare.outcome import Failure as HarnessFailure
from prepare.outcome import Result
from prepare.settings import Settings

ARTIFACT = "train.py"
METRIC = "val_bpb"
# What a run reports, for constraints; MFU only where the device's peak is known.
METRICS = (
    METRIC,
    "tokens",
    "tokens_per_second",
    "peak_memory_mb",
    "num_steps",
    "num_params",
    "others_cpu_share",
    "mfu_percent",
    "mfu_measured_percent",
)
# A matrix product this much slower than this study's usual one: heat, battery, a neighbour.
SLOW_CANARY = 0.75
USUAL_RUNS = 20  # that tell what is usual: what stays slower is, after half as many
USUAL_LEAST = 3  # fewer tell nothing
# A run is looked at this often, in shares of the budget, to see whether it is hopeless.
LOOK_SHARE = 0.01
UNVERIFIED = "unverified"

# Failures of the harness that mean a broken rule, not a broken program.
RULES = frozenset(
    {
        "causality",
        "batch_dependence",
        "implausible",
        "invalid_output",
        "no_training",
        "overrun",
        "forbidden",
        "tampered",
        "resource_limit",
        "not_finite",
        UNVERIFIED,
    }
)


def pretraining_task(**changes: Any) -> Task:
    """The task as `run` uses it; keyword arguments replace parts of it (`policy="greedy"`).

    Of `mutation` those keys that are given: to set one must not loosen the others.
    """
    mutation = changes.get("mutation", {})
    if isinstance(mutation, Mapping):
        mutation = {"max_files": 1, "max_changed_lines": 1_500, "max_bytes": 200_000, **mutation}
    return Task.parse(
        {
            "id": "pretraining",
            "description": "lowest val_bpb of a model trained for a fixed time",
            "artifacts": {"include": [ARTIFACT]},
            "objective": {"metric": METRIC, "direction": "minimize"},
            **changes,
            "mutation": mutation,
        }
    )


class Hopeless(Exception):
    """Raised inside a run to end it: it can't catch up with the champion. Never leaves here."""


@dataclass
class Prospects:
    """Looks at a run's curve now and then, and raises Hopeless when it should be stopped.

    budget: in the unit of the curves' first column. calm: a machine that is disturbed makes any
    run look bad, so nothing is stopped then.
    """

    champions: tuple[Curve, ...]
    budget: float
    calm: Callable[[], bool]
    pruner: Pruner = field(default_factory=Pruner)
    _looked: float = 0.0

    def __post_init__(self) -> None:
        # Curves of another budget, from before the settings changed, are no measure.
        fit = [c for c in self.champions if c and 0.9 < c[-1][0] / self.budget < 1.1]
        self.champions = tuple(fit)

    def look(self, curve: Curve) -> None:
        """Raises Hopeless when the curve so far is."""
        share = curve[-1][0] / self.budget
        if not self.champions or share < self._looked + LOOK_SHARE:
            return
        self._looked = share
        verdict = self.pruner.judge(curve, self.champions, self.budget)
        if verdict.stop and self.calm():
            raise Hopeless(verdict.reason)


@dataclass
class Pretraining:
    """Measures train modules with the harness, and tells when the machine disturbed a run.

    hardware: what runs are made on (`backends.Hardware`), asked when one fails before it says so.
    shared_by: runs that share one device at the same time, which is part of what scores mean.
    company: ids of processes of the same loop; what they take of the machine disturbs nothing.
    """

    settings: Settings
    backend: str | None = None
    attention: str | None = None
    sandbox: Any = None
    warm_from: Path | None = None  # the champion's train module, if its kernels may be used
    run: Callable[..., Result | HarnessFailure] = run_experiment
    hardware: Callable[[], Any] | None = None
    shared_by: int = 1
    company: Callable[[], Iterable[int]] = tuple
    # FLOP/s of the latest runs, by hardware and precision.
    _canaries: dict[tuple[str, str], list[float]] = field(default_factory=dict, repr=False)

    def measure(self, request: MeasureRequest) -> Replicate:
        """One experiment with the program in `request.folder`; never raises for what it does."""
        settings = self.settings.model_copy(update={"seed": request.seed})
        spent = "elapsed" if settings.token_budget is None else "tokens"
        budget = float(settings.token_budget or settings.time_budget)
        curve: list[tuple[float, float]] = []
        began = time.monotonic()
        with Neighbours(company=self.company) as watch:
            prospects = Prospects(request.champion_curves, budget, lambda: self._calm(watch))

            def on_event(name: str, data: Mapping[str, Any]) -> None:
                request.on_event(name, data)
                if name == "progress" and data.get("loss") is not None:
                    curve.append((float(data[spent]), float(data["loss"])))
                    prospects.look(curve)

            try:
                outcome = self.run(
                    request.folder / ARTIFACT,
                    settings,
                    backend=self.backend,
                    attention=self.attention,
                    run_dir=request.run_dir,
                    on_event=on_event,
                    **self._harness_options(),
                )
            except Hopeless as hopeless:
                tier = "" if self.sandbox is None else self.sandbox.name
                outcome = HarnessFailure("training", PRUNED, str(hopeless), tier=tier)
        if not isinstance(outcome, HarnessFailure) and not outcome.verified:
            message = "train.py scores itself: the loop needs build_model() and train(), see README"
            outcome = HarnessFailure("scoring", UNVERIFIED, message, tier=outcome.tier)
        if isinstance(outcome, HarnessFailure):
            return self._failed(request, outcome, curve, time.monotonic() - began)
        return self._scored(request.seed, outcome, curve, watch)

    def remember(self, runs: Iterable[Replicate]) -> Pretraining:
        """Take from earlier runs, in their order, how fast this machine usually is; itself."""
        for run in runs:
            speed = run.details.get("canary")
            if isinstance(speed, float):
                computed = run.details.get("conditions", {}).get("compute_dtype", "")
                self._canary(str(run.details.get("hardware_id")), computed, speed)
        return self

    def _canary(self, hardware_id: str, dtype: str, speed: float) -> float:
        """One more, as a share of the usual; 1 while that isn't known."""
        earlier = self._canaries.setdefault((hardware_id, dtype), [])
        usual = statistics.median(earlier) if len(earlier) >= USUAL_LEAST else speed
        earlier[:] = [*earlier, speed][-USUAL_RUNS:]
        return speed / usual

    def spec(self) -> dict[str, Any]:
        """What makes another process measure as this does: see `autoresearch.worker`."""
        return {
            "kind": "pretraining",
            "settings": self.settings.model_dump(mode="json"),
            "backend": self.backend,
            "attention": self.attention,
            "sandbox": None if self.sandbox is None else self.sandbox.name,
            "warm_from": None if self.warm_from is None else str(self.warm_from),
            "shared_by": self.shared_by,
        }

    def _harness_options(self) -> dict[str, Any]:
        warm = self.warm_from if self.warm_from and self.warm_from.is_file() else None
        shared = self.shared_by if self.shared_by > 1 else None
        options = {"sandbox": self.sandbox, "warm_from": warm, "shared_by": shared}
        return {name: value for name, value in options.items() if value is not None}

    def _calm(self, watch: Neighbours) -> bool:
        """Whether nothing disturbs the run so far; a fixed number of tokens isn't disturbed."""
        return self.settings.token_budget is not None or not watch.disturbance

    def _scored(
        self,
        seed: int,
        result: Result,
        curve: list[tuple[float, float]],
        watch: Neighbours,
    ) -> Replicate:
        metrics = {
            "val_bpb": result.val_bpb,
            "tokens": float(result.tokens),
            "tokens_per_second": result.tokens_per_second,
            "peak_memory_mb": result.peak_memory_mb,
            "num_steps": float(result.num_steps),
            "num_params": float(result.num_params),
            "others_cpu_share": watch.share,
        }
        for name in ("mfu_percent", "mfu_measured_percent"):
            value = getattr(result, name)
            if value is not None:
                metrics[name] = value
        return Replicate(
            seed=seed,
            score=result.val_bpb,
            metrics=metrics,
            seconds={
                "startup": result.startup_seconds,
                "warmup": result.warmup_seconds,
                "training": result.training_seconds,
                "scoring": result.scoring_seconds,
                "total": result.total_seconds,
            },
            disturbed=self._disturbance(result, watch),
            score_id=result.score_id,
            details={
                "tier": result.tier,
                "backend": result.backend,
                "hardware_id": str(result.hardware.get("id", "")),
                "canary": result.measured_peak_flops,
                "conditions": {**conditions(result), "power": watch.power},
                "probes": result.probes,
                "not_protected_against": list(result.not_protected_against),
                "touched": list(result.touched),
                "curve": [list(point) for point in thin(curve)],
                "run_dir": result.run_dir,
                # Which weights were scored, for whoever keeps them.
                "weights": None if result.weights is None else sha256_file(Path(result.weights)),
            },
        )

    def _failed(
        self,
        request: MeasureRequest,
        outcome: HarnessFailure,
        curve: list[tuple[float, float]],
        total: float,
    ) -> Replicate:
        details: dict[str, Any] = {
            "run_dir": str(request.run_dir),
            "curve": [list(point) for point in thin(curve)],
            "tier": outcome.tier,  # "" where none of its code ran
            "touched": list(outcome.touched),
        }
        if self.sandbox is not None and self.sandbox.name == outcome.tier:
            holes = not_stopped(self.sandbox, self.settings.devices)
            details["not_protected_against"] = list(holes)
        if self.hardware is not None:
            here = self.hardware()
            details |= {"backend": here.backend, "hardware_id": here.id}
        return Replicate(
            seed=request.seed,
            score=None,
            seconds={**outcome.seconds, "total": total},
            failure=Failure(outcome.phase, outcome.kind, outcome.message, outcome.log_tail),
            details=details,
        )

    def _disturbance(self, result: Result, watch: Neighbours) -> str:
        """Why this run can't be compared, or "". A fixed number of tokens forgives a slow one."""
        dtype, speed = str(result.policy.get("compute_dtype", "")), result.measured_peak_flops
        share = 1.0
        if speed is not None and not watch.disturbance:
            share = self._canary(str(result.hardware.get("id", "")), dtype, speed)
        if self.settings.token_budget is not None:
            return ""
        if watch.disturbance:
            return watch.disturbance
        if share < SLOW_CANARY:
            return f"a matrix product ran at {share:.0%} of its usual speed beforehand"
        return ""


def conditions(result: Result) -> dict[str, Any]:
    """What a score may depend on that its score id leaves out: how it was computed, and by what."""
    names = ("compute_dtype", "attention", "compile", "compile_mode", "linear")
    return {**{name: result.policy.get(name) for name in names}, **result.versions}


def thin(curve: list[tuple[float, float]], most: int = 200) -> list[tuple[float, float]]:
    """At most `most` points of a curve, evenly taken, the last one among them."""
    if len(curve) <= most:
        return curve
    step = (len(curve) - 1) / (most - 1)
    return [curve[round(i * step)] for i in range(most)]
