"""`autoresearch doctor`: what this machine has, what will be used, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.options import backend_option, json_option, workspace_option

if TYPE_CHECKING:
    from autoresearch.console import Output


@click.command("doctor")
@backend_option
@click.option("--measure", is_flag=True, help="Forget the remembered speed figures, measure anew.")
@click.option(
    "--report",
    "report_asked",
    is_flag=True,
    help="A bug report in Markdown, on standard output, with nothing private in it.",
)
@workspace_option
@json_option
def command(
    backend: str | None, measure: bool, report_asked: bool, folder: Path, json_mode: bool
) -> None:
    """See what this machine has, what will be used, and why.

    The first run executes short speed probes (forward and backward) and remembers their figures.
    Use --measure if they were taken while the machine was busy.

    --report writes versions, hardware, policy and probes with their reasons, what a workspace here
    changes, and the last error. User and host name, folders, addresses, remotes and tokens are
    taken out; read it all the same before you send it.
    """
    from autoresearch.console import Output, looking
    from autoresearch.diagnosis import diagnose
    from backends import speed

    if measure:
        speed.forget()
    out = Output(json_mode)
    if report_asked:
        write_report(out, folder, backend)
        return
    if json_mode:
        report = diagnose(backend)
    else:
        with out.progress() as on_event, looking(on_event):
            report = diagnose(backend)
        show(out, report)
    out.result(report, then=report_next(report))


def write_report(out: Output, folder: Path, backend: str | None) -> None:
    """The bug report, as it is: no line is broken to a terminal's width."""
    from autoresearch.bug_report import bug_report
    from autoresearch.console import looking

    if out.json_mode:
        out.result({"markdown": bug_report(folder, backend)})
        return
    with out.progress() as on_event, looking(on_event):
        text = bug_report(folder, backend)
    click.echo(text, nl=False)


def show(out: Output, report: dict[str, Any]) -> None:
    """The whole report as text."""
    hardware = report["hardware"]
    out.heading("Hardware")
    out.facts([(key, str(value)) for key, value in _hardware_rows(hardware)])
    out.heading("Passed over")
    out.facts(
        [(miss["backend"], miss["reason"]) for miss in report["passed_over"]] or [("none", "")]
    )
    out.heading("Policy")
    reasons = report["policy"].get("reasons", {})
    rows = [
        (k, v)
        for k, v in report["policy"].items()
        if k not in ("reasons", "environment", "probe_shape")
    ]
    out.facts([(key, _with_reason(value, reasons.get(key))) for key, value in rows])
    if report["probes"]:
        out.heading("Speed probes, executed here")
        out.facts([(name, _figure(value)) for name, value in report["probes"].items()])
    out.heading("Peak, dense bf16")
    out.facts([("datasheet", _peak(report["peak_flops"]))])
    out.heading("Tools and places")
    out.facts([(check["name"], check["says"]) for check in report["checks"]])
    if report["faster"]:
        out.heading("To go faster")
        for line in report["faster"]:
            out.say(f"  {line}")


def report_next(report: dict[str, Any]) -> list[str]:
    """What to do after reading the report."""
    missing = [check for check in report["checks"] if not check["ok"]]
    if missing:
        return [f"mend: {check['name']}: {check['says']}" for check in missing]
    return [
        "autoresearch demo                           see a model train here",
        "autoresearch init my-research --preset auto make a workspace",
    ]


def _hardware_rows(hardware: dict[str, Any]) -> list[tuple[str, Any]]:
    rows = []
    for key, value in hardware.items():
        if key == "memory_bytes":
            rows.append(("memory", f"{value / 2**30:.1f} GiB"))
        elif value not in (None, "", [], ()):
            rows.append(
                (key, ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value)
            )
    return rows


def _with_reason(value: Any, reason: str | None) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return f"{text}  ({reason})" if reason else text


def _figure(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key} {_figure(item)}" for key, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _peak(peak: dict[str, Any] | None) -> str:
    if peak is None:
        return "unknown for this device: MFU is given against the measured matrix product alone"
    return f"{peak['value'] / 1e12:.1f} TFLOPS  ({peak['source']})"
