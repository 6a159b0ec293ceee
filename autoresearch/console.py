"""Where a command's words go.

People read text on stdout and progress on stderr; programs pass `--json` and read stdout alone:

    out = Output(json_mode)
    out.say("cache  /home/me/.cache/autoresearch")    # silent under --json
    with out.progress() as on_event:                  # a bar, plain lines or JSON lines
        run(on_event=on_event)
    out.result({"val_bpb": 1.2}, then=["autoresearch train"])    # JSON, or what to do next

Progress on a terminal is a live bar; anywhere else it is an occasional plain line. NO_COLOR is
honoured by rich.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

OnEvent = Callable[[str, dict[str, Any]], None]

PLAIN_LINE_EVERY_S = 10.0
LEFT_WIDTH = 10  # columns of `300 s left`
LOOKING = "looking at the hardware"
PROBING = "speed probes run for a minute, this first time"


def to_json(document: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON text that every parser accepts: NaN and infinities are null, other objects str()."""
    return json.dumps(
        _finite(document), indent=indent, ensure_ascii=False, default=str, allow_nan=False
    )


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


class Output:
    """One command's voice: human text, or JSON when `json_mode`."""

    def __init__(self, json_mode: bool) -> None:
        self.json_mode = json_mode
        self._streaming = False
        self._bar: Console | None = None  # what draws a live bar at the moment

    def _console(self, stderr: bool = False) -> Console:
        from rich.console import Console

        stream = sys.stderr if stderr else sys.stdout
        if self._bar is not None and stream.isatty():
            return self._bar  # only it knows to take its bar away first
        width = None if stream.isatty() else 120
        return Console(file=stream, highlight=False, soft_wrap=not stream.isatty(), width=width)

    def say(self, text: str = "", style: str | None = None) -> None:
        """A line for people. `text` is taken literally, square brackets included."""
        if not self.json_mode:
            self._console().print(text, style=style, markup=False)

    def heading(self, text: str) -> None:
        """A line that opens a section."""
        self.say(text, style="bold")

    def facts(self, rows: Sequence[tuple[str, str]], indent: int = 2) -> None:
        """Aligned `name  value` lines."""
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            self.say(f"{' ' * indent}{name:<{width}}  {value}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; columns whose name starts with `>` are right-aligned. Cells are literal text."""
        if self.json_mode:
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(
                Text(column.removeprefix(">")),
                justify="right" if column.startswith(">") else "left",
            )
        for row in rows:
            table.add_row(*map(Text, row))
        self._console().print(table, soft_wrap=False)

    def warn(self, text: str) -> None:
        """A line on stderr that does not stop the command."""
        if self.json_mode:
            self.event("warning", {"message": text})
        else:
            self._console(stderr=True).print(f"Warning: {text}", style="yellow", markup=False)

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """One JSON line under --json; nothing for people."""
        if self.json_mode:
            self._streaming = True
            print(to_json({"event": name, **data}), flush=True)

    def result(self, document: Mapping[str, Any], then: Sequence[str] = ()) -> None:
        """The last word: the document (with `next`) as JSON, or what to do next for people."""
        if self.json_mode:
            document = {**document, "next": list(then)}
            if self._streaming:
                self.event("result", document)
            else:
                print(to_json(document, indent=2))
        elif then:
            self.say()
            self.heading("Next")
            for step in then:
                self.say(f"  {step}")

    @contextlib.contextmanager
    def progress(self, prefix: str = "") -> Iterator[OnEvent]:
        """A callback for `on_event`, drawn as a live bar, plain lines or JSON lines."""
        if self.json_mode:
            extra = {"run": prefix} if prefix else {}
            yield lambda name, data: self.event(name, {**extra, **data})
        elif sys.stderr.isatty():
            with self.drawing() as console, LiveProgress(console, prefix) as live:
                yield live
        else:
            yield PlainProgress(prefix)

    @contextlib.contextmanager
    def drawing(self) -> Iterator[Console]:
        """A console for something live on stderr; what is said meanwhile goes above it."""
        self._bar = console = self._console(stderr=True)
        try:
            yield console
        finally:
            self._bar = None


@contextlib.contextmanager
def looking(on_event: OnEvent) -> Iterator[None]:
    """Say what takes the time while `backends.select` or `make_ready` runs inside."""
    from backends.speed import announced

    on_event("phase", {"phase": LOOKING})
    with announced(lambda: on_event("phase", {"phase": PROBING})):
        yield


def describe(data: Mapping[str, Any]) -> str:
    """The figures of one progress event in a few words."""
    words = []
    if data.get("step") is not None:
        words.append(f"step {data['step']}")
    if data.get("loss") is not None:
        words.append(f"loss {data['loss']:.4f}")
    if data.get("tokens_per_second"):
        words.append(f"{data['tokens_per_second']:,.0f} tok/s")
    if data.get("mfu") is not None:
        words.append(f"MFU {100 * data['mfu']:.1f}%")
    if data.get("unit") == "bytes" and data.get("total"):
        words.append(f"{data['done'] / 1e6:,.1f} of {data['total'] / 1e6:,.1f} MB")
    return "  ".join(words)


def extent(data: Mapping[str, Any]) -> tuple[float, float | None]:
    """(done, total) of one progress event: tokens or seconds of a budget, or items of any unit."""
    if data.get("token_budget") is not None:
        return float(data.get("tokens") or 0), float(data["token_budget"])
    if data.get("budget") is not None:
        return float(data.get("elapsed") or 0.0), float(data["budget"])
    total = data.get("total", data.get("of"))
    return float(data.get("done") or 0.0), None if total is None else float(total)


def left_words(data: Mapping[str, Any]) -> str:
    """`42 s left`, where the event has a budget in seconds."""
    by_tokens = data.get("token_budget") is not None
    if by_tokens or data.get("budget") is None or data.get("elapsed") is None:
        return ""
    return f"{max(0.0, float(data['budget']) - float(data['elapsed'])):.0f} s left"


class PlainProgress:
    """Occasional plain lines on stderr, for logs and pipes."""

    def __init__(self, prefix: str = "", every: float = PLAIN_LINE_EVERY_S) -> None:
        self._prefix = f"{prefix}: " if prefix else ""
        self._every = every
        self._last_line = -math.inf
        self._phase = ""

    def __call__(self, name: str, data: dict[str, Any]) -> None:
        now = time.monotonic()
        if name == "phase":
            if data.get("phase") != self._phase:
                self._phase = str(data.get("phase", ""))
                self._print(self._phase)
            self._last_line = now
        elif name == "warning":
            self._print(f"warning: {data.get('message', '')}")
        elif now - self._last_line >= self._every:
            done, total = extent(data)
            words = [
                str(data.get("task", self._phase)),
                f"{min(100 * done / total, 100):3.0f}%" if total else "",
                describe(data),
                left_words(data),
            ]
            self._print("  ".join(word for word in words if word))
            self._last_line = now

    def _print(self, text: str) -> None:
        # One write: downloads report from several threads.
        print(f"{self._prefix}{text}\n", end="", file=sys.stderr, flush=True)


class LiveProgress:
    """One bar that follows the phases, on a terminal."""

    def __init__(self, console: Console, prefix: str = "") -> None:
        from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn
        from rich.table import Column
        from rich.text import Text

        class Time(TimeElapsedColumn):
            """What is left, where that is known."""

            def render(self, task: Task) -> Text:
                left = task.fields["left"]
                return Text(left) if left else super().render(task)

        self._prefix = f"{prefix} " if prefix else ""
        self._label = ""
        self._task: TaskID | None = None
        self._progress: Progress = Progress(
            TextColumn("{task.description}", markup=False),
            # A narrow terminal cuts the figures, not the bar and the time.
            BarColumn(bar_width=16, table_column=Column(min_width=8)),
            Time(table_column=Column(min_width=LEFT_WIDTH, no_wrap=True)),
            TextColumn(
                "{task.fields[figures]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            expand=True,
            console=console,
            transient=True,
        )

    def __enter__(self) -> LiveProgress:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def __call__(self, name: str, data: dict[str, Any]) -> None:
        if name == "warning":
            text = f"warning: {data.get('message', '')}"
            self._progress.console.print(text, style="yellow", markup=False)
            return
        label = str(data.get("phase") or data.get("task") or self._label or name)
        task = self._task
        if task is None or label != self._label:
            task = self._begin(label)
        if name != "phase":
            done, total = extent(data)
            self._progress.update(
                task, completed=done, total=total, figures=describe(data), left=left_words(data)
            )

    def _begin(self, label: str) -> TaskID:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._label = label
        self._task = self._progress.add_task(
            f"{self._prefix}{label}", total=None, figures="", left=""
        )
        return self._task
