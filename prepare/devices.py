"""One model on several devices, as the harness sees it: what that takes, and what it opens.

The processes themselves are in `prepare.ranks`, the exchange of gradients in
`backends.data_parallel`.
"""

from __future__ import annotations

from backends.hardware import Hardware, why_not_together
from prepare.errors import EnvironmentProblem
from prepare.isolation import NEVER_STOPPED, Sandbox
from prepare.messages import Hello

# Where several devices train one model, by whether the tier is strict.
OPENED_FOR_DEVICES = {
    True: "while it trains on several devices: talking among its own processes over a network of "
    "their own that has no way out (that much more of the kernel can be reached)",
    False: "while it trains on several devices: processes on this machine that connect to the "
    "ports by which its own exchange gradients",
}


def not_stopped(sandbox: Sandbox, devices: int) -> tuple[str, ...]:
    """What a candidate that trains on so many devices can still do, in words."""
    opened = (OPENED_FOR_DEVICES[sandbox.strict],) if devices > 1 else ()
    return (*sandbox.does_not_stop(), *opened, *NEVER_STOPPED)


def require_loopback(sandbox: Sandbox | None, devices: int) -> None:
    """Raises EnvironmentProblem where processes of several devices couldn't speak."""
    why = sandbox.loopback_problem() if sandbox is not None else ""
    if sandbox is not None and why:
        raise EnvironmentProblem(
            f"devices = {devices} can't be had in the sandbox {sandbox.name}: {why}",
            "name another tier with --sandbox (`autoresearch doctor` lists them), or train on one",
        )


def check_devices(hello: Hello, devices: int) -> None:
    """Raises EnvironmentProblem where this machine can't train one model on so many devices."""
    why = why_not_together(Hardware.from_dict(hello.hardware), devices) if devices > 1 else ""
    if why:
        raise EnvironmentProblem(
            f"devices = {devices} can't be had: {why}",
            "set `devices` in autoresearch.toml to what this machine has",
        )


def accelerators(hello: Hello, devices: int) -> int:
    """How many times one device's peak there is: processes on a CPU share its cores."""
    return 1 if hello.backend == "cpu" else devices
