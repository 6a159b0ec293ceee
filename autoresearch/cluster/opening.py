"""A study's runs on a Ray cluster: what `run --engine ray` gives to the loop.

with ray_executor(study, options, harness.spec(), earlier, tell) as executor:
    Loop(..., executor=executor, confirm=options.confirm, screen=options.screen)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from autoresearch.cluster.executor import DEVICE_KIND, RayExecutor
from autoresearch.cluster.tokens import Tokens
from autoresearch.engine.state import State
from autoresearch.engine.trial import Replicate
from backends.hardware import GIB
from prepare.errors import UsageError

if TYPE_CHECKING:
    from autoresearch.study import Options, Study


def ray_executor(
    study: Study,
    options: Options,
    spec: Mapping[str, Any],
    earlier: Iterable[Replicate],
    tell: Callable[[str], None],
) -> RayExecutor:
    """Connect to the cluster that the options name, and see to what runs will read.

    Raises UsageError for a kind of device that isn't there, and what `RayExecutor` and
    `prepare_dataset` raise.
    """
    asked = options.memory
    return RayExecutor(
        {**spec, "sandbox": options.sandbox},  # "auto" is each node's own strictest
        address=options.address,
        tag=study.tag,
        confirm=options.confirm,
        screen=options.screen,
        most=options.workers,
        devices=study.settings.devices,
        memory=int(GIB * (asked_by(study.settings.preset) if asked is None else asked)),
        tokens=lambda: Tokens.of(study.settings, study.on_event),
        tell=tell,
        earlier=earlier,
        usual=usual_devices(study.state),
    )


def usual_devices(state: State) -> dict[str, str]:
    """By kind of device, the id of the hardware that the champion was last measured on."""
    if state.champion is None:
        return {}
    return {
        str(run.details[DEVICE_KIND]): str(run.details["hardware_id"])
        for run in state.runs_of(state.champion)
        if run.details.get(DEVICE_KIND) and run.details.get("hardware_id")
    }


def asked_by(preset: str) -> float:
    """GiB of memory that a preset asks of a device; 0 for one that isn't known here."""
    from autoresearch.preset import load_preset

    try:
        return load_preset(preset).requires.min_memory_gb
    except UsageError:
        return 0  # a workspace from elsewhere: its own preset file stayed there
