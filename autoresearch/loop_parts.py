"""What the loop of a workspace's study is made of: slots, sandbox, harness, executor, policy.

slots, sandbox = slots_of(options, devices), sandbox_of(options.sandbox)
harness = make_harness(study, options, sandbox, slots)
with make_executor(study, options, harness, slots, on_event) as executor:  # None: here
    loop = make_loop(study, options, harness, executor, slots, on_event)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from autoresearch.engine.executor import Executor
from autoresearch.engine.loop import Loop
from autoresearch.engine.policy import Confirm, Greedy, Policy
from autoresearch.engine.program import Program
from autoresearch.engine.sandbox import SandboxUnavailable, Tier, choose
from autoresearch.engine.task import Deciding, Event
from autoresearch.engine.trial import Replicate
from autoresearch.engine.workspace import OWN_FOLDER
from autoresearch.pretraining import RULES, Pretraining
from autoresearch.slots import Slot, find_slots
from prepare.errors import EnvironmentProblem

if TYPE_CHECKING:
    from autoresearch.study import Options, Study

# What a run leaves that is worth its disk for a champion only.
LARGE_FILES = ("weights.safetensors", "row_nats.npy")


def slots_of(options: Options, devices: int) -> list[Slot]:
    """Where runs, each on so many devices, are made on this machine.

    Raises UsageError for more than there is room for.
    """
    if options.workers == 1 or options.engine != "local":
        return [Slot("")]
    import backends

    hardware = backends.detected(options.backend)
    return find_slots(hardware, options.workers, options.share_device, devices=devices)


def sandbox_of(name: str) -> Tier:
    """The sandbox of that name. Raises EnvironmentProblem where it doesn't work."""
    try:
        return choose(name)
    except SandboxUnavailable as error:
        raise EnvironmentProblem(str(error), "take `--sandbox auto`: the best there is") from error


def policy_of(deciding: Deciding) -> Policy:
    """The policy that a task names."""
    if deciding.name == "greedy":
        return Greedy()
    return Confirm(confidence=deciding.confidence, min_effect=deciding.min_effect)


def make_harness(
    study: Study, options: Options, sandbox: Tier, slots: Sequence[Slot]
) -> Pretraining:
    """What measures, knowing how fast this machine usually is."""
    import backends

    return Pretraining(
        study.settings,
        backend=options.backend,
        attention=options.attention,
        sandbox=sandbox,
        warm_from=study.champion_file,
        hardware=lambda: backends.select(options.backend).hardware,
        shared_by=slots[0].shared_by,
    ).remember(_earlier_runs(study))


def _earlier_runs(study: Study) -> Iterator[Replicate]:
    return (run for trial in study.state.trials.values() for run in trial.replicates)


def make_executor(
    study: Study,
    options: Options,
    harness: Pretraining,
    slots: Sequence[Slot],
    on_event: Event,
) -> Executor | None:
    """Who makes runs; None for this process, one after the other."""
    from autoresearch.local_pool import SILENCE, LocalPool

    def tell(message: str) -> None:
        on_event("warning", {"message": message})

    if options.engine == "ray":
        from autoresearch.cluster.opening import ray_executor

        return ray_executor(study, options, harness.spec(), _earlier_runs(study), tell)
    if len(slots) == 1:
        return None
    logs = study.root / OWN_FOLDER / "workers"
    limits = study.settings
    phases = limits.startup_timeout + 2 * limits.warmup_timeout + limits.score_timeout
    silence = max(SILENCE, 2 * (phases + limits.time_budget))  # no run is so long without a word
    return LocalPool(harness.spec(), slots, logs, _earlier_runs(study), silence=silence, tell=tell)


def make_loop(
    study: Study,
    options: Options,
    harness: Pretraining,
    executor: Executor | None,
    slots: Sequence[Slot],
    on_event: Event,
) -> Loop:
    """The loop. Where slots share a device, the baseline is measured with all of them busy."""
    rounds = math.ceil(study.task.policy.noise_seeds / len(slots))
    return Loop(
        study.task,
        study.workspace,
        study.ledger,
        harness.measure,
        policy_of(study.task.policy),
        runs=study.runs,
        rules=RULES,
        program=lambda: Program.read(study.program_file),
        first_seed=study.settings.seed,
        on_event=on_event,
        large_files=LARGE_FILES,
        prune=options.prune,
        frontier=options.frontier,
        combine=options.combine,
        control=study.control,
        executor=executor,
        confirm=options.confirm,
        screen=options.screen,
        baseline_runs=rounds * len(slots) if slots[0].shared_by > 1 else 0,
    )
