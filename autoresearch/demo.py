"""A model trains on every framework of this machine, on text whose true entropy is known.

    report = run_demo(folder, seconds=30, names=["cpu", "mlx"], progress=out.progress)

The same unmodified train.py runs on each; each is scored by the harness and writes a story.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.console import OnEvent, looking

if TYPE_CHECKING:
    from prepare.settings import Settings

Progress = Callable[[str], AbstractContextManager[OnEvent]]

# This part should take little more than two minutes on two cores, the speed probes of a first run
# and a slow backend's scoring included.
SHARED_SECONDS = 30.0
EVAL_BYTES = 50_000
PROMPT = "One day"
STORY_TOKENS = 120
TEMPERATURE = 0.8


@dataclass(frozen=True)
class Entry:
    """What one backend did: a score and a story, or why there is none."""

    backend: str
    device: str
    val_bpb: float | None = None
    floor_bpb: float | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    mfu_percent: float | None = None
    mfu_measured_percent: float | None = None
    training_seconds: float | None = None
    total_seconds: float | None = None
    story: str = ""
    failure: str = ""


@dataclass(frozen=True)
class DemoReport:
    """All entries, the folder that holds train.py and the runs, and how long everything took."""

    entries: tuple[Entry, ...]
    folder: str
    corpus_bytes: int
    vocab_size: int
    floor_bpb: float | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def frameworks_here() -> tuple[str, ...]:
    """The best backend of each framework installed here: torch's, then MLX."""
    from backends.errors import BackendError
    from backends.hardware import detect

    names = []
    for request in ("torch", "mlx"):
        try:
            names.append(detect(request)[0].backend)
        except BackendError:
            continue
    return tuple(names)


def run_demo(
    folder: Path, seconds: float | None, names: Sequence[str], progress: Progress
) -> DemoReport:
    """Prepare the demo preset's text in the cache, then train it on each of `names` in `folder`.

    Raises PrepareError for trouble with data or the machine; a backend that fails is an Entry.
    """
    from autoresearch.preset import load_preset, write_experiment
    from backends.hardware import detect
    from prepare.cache import writable_folder
    from prepare.dataset import prepare_dataset

    started = time.monotonic()
    preset = load_preset("demo")
    budget = SHARED_SECONDS / len(names) if seconds is None else seconds
    with progress("") as on_event:
        writable_folder(folder, "name another folder: autoresearch demo FOLDER")
        hardware = detect(names[0])[0]
        script, before = folder / "train.py", _text(folder / "train.py")
        settings = write_experiment(
            preset, folder, hardware, time_budget=budget, eval_bytes=EVAL_BYTES
        )
        if before not in ("", _text(script)):
            aside = script.with_name("train.py.before")
            aside.write_text(before, encoding="utf-8")
            on_event("warning", {"message": f"train.py was another: that one is {aside} now"})
        dataset = prepare_dataset(settings, on_event=on_event)
    entries = [_run(folder, settings, name, progress) for name in names]
    return DemoReport(
        entries=tuple(entries),
        folder=str(folder),
        corpus_bytes=settings.corpus_bytes,
        vocab_size=settings.vocab_size,
        floor_bpb=dataset.floor_bpb,
        seconds=time.monotonic() - started,
    )


@contextmanager
def eager(backend: str) -> Iterator[None]:
    """Every process started meanwhile trains without torch.compile, and has nothing to probe.

    A new shape costs a cold compile, a minute on two cores: more than it can save in runs of
    seconds. `backends` takes such wishes from the environment, so it is set here, and put back.
    """
    import backends
    from backends.hardware import detect

    before = dict(os.environ)
    try:
        if detect(backend)[0].framework == "torch":
            os.environ["AUTORESEARCH_COMPILE"] = "0"
        os.environ.update(backends.select(backend).environment())
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _run(folder: Path, settings: Settings, name: str, progress: Progress) -> Entry:
    import backends
    from prepare.experiment import run_experiment
    from prepare.outcome import Failure

    script = folder / "train.py"
    with progress(name) as on_event, looking(on_event), eager(name):
        device = backends.select(name).hardware.name
        outcome = run_experiment(
            script, settings, backend=name, run_dir=folder / "runs" / name, on_event=on_event
        )
        if isinstance(outcome, Failure):
            reason = f"{outcome.phase}: {outcome.kind}: {outcome.message}"
            return Entry(name, device, failure=reason)
        on_event("phase", {"phase": "writing a story"})
        story = _story(script, settings, name, outcome.weights)
    return Entry(
        backend=name,
        device=device,
        val_bpb=outcome.val_bpb,
        floor_bpb=outcome.floor_bpb,
        tokens=outcome.tokens,
        tokens_per_second=outcome.tokens_per_second,
        mfu_percent=outcome.mfu_percent,
        mfu_measured_percent=outcome.mfu_measured_percent,
        training_seconds=outcome.training_seconds,
        total_seconds=outcome.total_seconds,
        story=story,
    )


def _story(script: Path, settings: Settings, name: str, weights: str | None) -> str:
    """A sampled text; the score stands without one, so its failure is told in its place."""
    from prepare.dataset import prepare_dataset
    from prepare.errors import PrepareError
    from prepare.sample import Drawing, write_text

    if weights is None:
        return ""
    try:
        pieces = write_text(
            script,
            prepare_dataset(settings).tokenizer,
            settings.max_seq_len,
            Path(weights),
            prompt=PROMPT,
            tokens=STORY_TOKENS,
            drawing=Drawing(TEMPERATURE),
            backend=name,
        )
        return PROMPT + "".join(pieces)
    except PrepareError as error:
        return f"(no story: {error.message})"
