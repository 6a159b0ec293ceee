"""Options that several commands share, and the near matches of a mistyped name."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import click

F = TypeVar("F", bound=Callable[..., Any])

# The requests that `backends.select` takes, spelled here too: help then loads nothing. A test
# compares the two.
ATTENTION = ("fa3", "flash", "flex", "triton", "block_local", "dense", "sdpa")
SANDBOXES = ("auto", "bubblewrap", "landlock", "sandbox-exec", "process")
BACKENDS = ("auto", "torch", "cuda", "rocm", "xpu", "mps", "mlx", "cpu")


def near(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` when something known is close, else the list of what is known."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=2, cutoff=0.5)
    if close:
        return " Did you mean " + " or ".join(repr(name) for name in close) + "?"
    return f" Known: {', '.join(names)}."


class NearChoice(click.ParamType):
    """One of a few names; a mistyped one is answered with what comes close."""

    name = "name"

    def __init__(self, kind: str, names: Iterable[str]) -> None:
        self._kind = kind
        self.names = tuple(names)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in self.names:
            return str(value)
        self.fail(f"no {self._kind} {value!r}.{near(str(value), self.names)}", param, ctx)


class Seconds(click.ParamType):
    """A duration: 90, 90s, 1.5m, 1h; converted to seconds."""

    name = "duration"
    UNITS: ClassVar[dict[str, float]] = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(value))
        if match is None or float(match[1]) <= 0:
            self.fail(f"{value!r} is not a duration: write 90, 90s, 5m or 1h", param, ctx)
        return float(match[1]) * self.UNITS[match[2]]


SECONDS = Seconds()


def json_option(function: F) -> F:
    """--json: passes `json_mode` to the command."""
    return click.option("--json", "json_mode", is_flag=True, help="JSON on stdout, for programs.")(
        function
    )


def backend_option(function: F) -> F:
    """--backend NAME: passes `backend`, None when not given."""
    return click.option(
        "--backend",
        type=NearChoice("backend", BACKENDS),
        metavar="NAME",
        help=f"One of {', '.join(BACKENDS)}.  [default: auto]",
    )(function)


def sandbox_option(function: F) -> F:
    """--sandbox NAME: passes `sandbox`, "auto" when not given."""
    return click.option(
        "--sandbox",
        type=NearChoice("sandbox", SANDBOXES),
        metavar="NAME",
        default="auto",
        help=f"One of {', '.join(SANDBOXES)}.  [default: auto, the strictest that works]",
    )(function)


def attention_option(function: F) -> F:
    """--attention NAME: passes `attention`, None when not given."""
    return click.option(
        "--attention",
        type=NearChoice("attention", ATTENTION),
        metavar="NAME",
        help=f"One of {', '.join(ATTENTION)}.  [default: the policy's]",
    )(function)


def workspace_option(function: F) -> F:
    """--dir DIR: passes `folder`, the current folder when not given."""
    return click.option(
        "--dir",
        "folder",
        type=click.Path(path_type=Path),
        default=Path("."),
        help="The workspace, or a task's folder or file.  [default: this folder]",
    )(function)


def study_options(function: F) -> F:
    """--tag, --prune/--no-prune, --sandbox: how a study is driven."""
    for option in (
        click.option("--tag", metavar="TAG", help="Name of the study.  [default: the date]"),
        click.option(
            "--prune/--no-prune",
            default=True,
            show_default=True,
            help="Stop runs that can't catch up with the champion.",
        ),
        click.option(
            "--sandbox",
            type=NearChoice("sandbox", SANDBOXES),
            default="auto",
            metavar="NAME",
            help=f"One of {', '.join(SANDBOXES)}.  [default: auto, the strictest that works]",
        ),
    ):
        function = option(function)
    return function


def search_options(function: F) -> F:
    """--frontier K, --combine/--no-combine: which program the next proposal edits."""
    for option in (
        click.option(
            "--combine/--no-combine",
            default=True,
            show_default=True,
            help="Try near-misses together as soon as there are three: see `autoresearch combine "
            "--help`.",
        ),
        click.option(
            "--frontier",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="K",
            help="Every other proposal edits one of the best K programs that were champion, in "
            "turn, in place of the champion's. What comes of it is kept only if it beats the "
            "champion. Off by default: simulated studies found less with it.",
        ),
    ):
        function = option(function)
    return function


def tracker_option(function: F) -> F:
    """--tracker NAME: passes `tracker`, None when not given."""
    return click.option(
        "--tracker",
        metavar="NAME",
        help="Where trials are tracked, too: mlflow, tensorboard, trackio, wandb, or a plug-in.  "
        "[default: the one in the settings, if any]",
    )(function)


def worker_options(function: F) -> F:
    """--workers N, --share-device: how many runs are made at the same time."""
    for option in (
        click.option(
            "--share-device",
            is_flag=True,
            help="Let more workers than accelerators share them equally. Each run has less of its "
            "device then, and scores are compared among themselves alone.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            metavar="N",
            help="Runs made at the same time, each on an accelerator of its own.  [default: one "
            "per accelerator that is equal to the first; on a cluster this study's share]",
        ),
    ):
        function = option(function)
    return function


def cluster_options(function: F) -> F:
    """--engine NAME, --address, --confirm, --screen, --memory: on whose devices runs are made.

    Refuses what goes with Ray alone where runs are made on this machine, and the reverse.
    """

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        there = given["engine"] == "ray"
        for name in ("address", "confirm", "screen", "memory"):
            if given[name] not in ("", None) and not there:
                raise click.UsageError(f"--{name} goes with --engine ray")
        if there and given["share_device"]:
            raise click.UsageError("--share-device is for this machine's; leave out --engine ray")
        return function(**given)

    decorated: Any = command
    for option in (
        click.option(
            "--memory",
            type=click.FloatRange(min=0),
            metavar="GIB",
            help="Leave out devices with less memory; of a node without accelerators so much is "
            "reserved.  [default: what the workspace's preset asks for]",
        ),
        click.option(
            "--screen",
            metavar="KIND",
            default="",
            help="Make each trial's first run on this kind of device, where the champion is "
            "measured, too, and go on with those that aren't worse there.  [default: none]",
        ),
        click.option(
            "--confirm",
            metavar="KIND",
            default="",
            help="The kind of device that decides; `autoresearch cluster devices` lists them.  "
            "[default: accelerators before processors, then what there is most of]",
        ),
        click.option(
            "--address",
            metavar="HOST:PORT",
            default="",
            help="Of the Ray cluster's head; auto for the one that this machine is in.  [default: "
            "RAY_ADDRESS, else a Ray of this machine alone]",
        ),
        click.option(
            "--engine",
            type=NearChoice("engine", ("local", "ray")),
            metavar="NAME",
            default="local",
            show_default=True,
            help="Where runs are made: local, or ray for the nodes of a Ray cluster.",
        ),
    ):
        decorated = option(decorated)
    return cast(F, decorated)


def budget_options(function: F) -> F:
    """--hours, --trials, --dollars, --tokens: passes `limits`, those that were given."""

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        found = {name: given.pop(name) for name in ("hours", "trials", "dollars", "tokens")}
        limits = {name: item for name, item in found.items() if item is not None}
        return function(**given, limits=limits)

    decorated: Any = command
    for option in (
        click.option(
            "--tokens", type=click.IntRange(min=1), help="The same by tokens, in and out."
        ),
        click.option(
            "--dollars",
            type=click.FloatRange(min=0),
            help="Stop when the study's proposals cost so much, those of earlier runs included.",
        ),
        click.option("--trials", type=click.IntRange(min=1), help="Stop after this many trials."),
        click.option(
            "--hours", type=click.FloatRange(min=0, min_open=True), help="Stop after this time."
        ),
    ):
        decorated = option(decorated)
    return cast(F, decorated)
