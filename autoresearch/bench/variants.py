"""The programs that are measured: train.py and the plain one, with a size's constants.

    size = Size(depth=4, width=256)
    variants = variants_for(selection, size, folder)     # "train.py", "plain eager fp32", ...
    Worker("training", {"module": str(variant.module), ...}, variant.environment)

train.py is the seed that `init` writes. The plain one is benchmarks/reference/plain.py, which the
wheel carries inside this package, as it carries the seed.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from autoresearch.constants import apply_constants
from autoresearch.workspace_files import seed_path
from prepare.errors import UsageError

if TYPE_CHECKING:
    from backends import Selection

OURS, PLAIN = "train.py", "plain eager fp32"
SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Size:
    """A model and its step; `rows` are those of one forward pass of train.py.

    The plain program has all rows of a step in one pass.
    """

    depth: int = 4
    width: int = 256
    seq_len: int = 256
    vocab: int = 2048
    step_tokens: int = 4096
    pattern: str = "SSSL"
    rows: int = 8
    head_dim: int = 64

    def check(self) -> None:
        """Raises UsageError for sizes that train.py can't have."""
        if self.width % self.head_dim:
            hint = f"use a multiple of {self.head_dim}, the width of a head"
            raise UsageError(f"width {self.width} is not possible", hint)
        for name, tokens in (("--rows", self.rows * self.seq_len), ("--seq-len", self.seq_len)):
            if self.step_tokens % tokens:
                raise UsageError(
                    f"a step of {self.step_tokens} tokens is no multiple of {tokens}",
                    f"change --step-tokens or {name}",
                )

    def constants(self, rows: int) -> dict[str, Any]:
        """train.py's constants for this size."""
        return {
            "DEPTH": self.depth,
            "ASPECT_RATIO": self.width // self.depth,  # rounded up to whole heads there
            "HEAD_DIM": self.head_dim,
            "WINDOW_PATTERN": self.pattern,
            "TOTAL_BATCH_SIZE": self.step_tokens,
            "DEVICE_BATCH_SIZE": rows,
        }

    def job(self, module: Path) -> dict[str, Any]:
        """What a measuring process must know."""
        return {"module": str(module), "size": asdict(self)}


@dataclass(frozen=True)
class Variant:
    """A train module on disk, and the variables that say how it computes."""

    module: Path
    environment: dict[str, str]


def reference_path(name: str) -> Path:
    """A file of benchmarks/reference: in the wheel, or in the checkout of an editable install."""
    package = Path(__file__).resolve().parent
    places = (package / "reference", package.parents[1] / "benchmarks" / "reference")
    for place in places:
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(f"{name} is in neither {places[0]} nor {places[1]}")


def variants_for(selection: Selection, size: Size, folder: Path) -> dict[str, Variant]:
    """train.py as it is used on this machine, then the plain ones; written into `folder`.

    Raises UsageError for impossible sizes.
    """
    size.check()
    ours, plain = folder / "train.py", folder / "plain.py"
    source = seed_path("train.py").read_text(encoding="utf-8")
    ours.write_text(apply_constants(source, size.constants(size.rows)), encoding="utf-8")
    source = reference_path("plain.py").read_text(encoding="utf-8")
    all_rows = size.step_tokens // size.seq_len
    plain.write_text(apply_constants(source, size.constants(all_rows)), encoding="utf-8")
    variants = {OURS: Variant(ours, selection.environment())}
    for name, environment in plain_environments(selection).items():
        variants[name] = Variant(plain, environment)
    return variants


def plain_compiled(selection: Selection) -> str:
    """Name of the plain program in train.py's compute type, compiled: "plain bf16 + compile"."""
    return f"plain {SHORT[selection.policy.compute_dtype]} + compile"


def plain_environments(selection: Selection) -> dict[str, dict[str, str]]:
    """Variables that make the plain program compute one way or the other, on the same backend."""

    def computing(dtype: str, compiled: str) -> dict[str, str]:
        how = {"AUTORESEARCH_DTYPE": dtype, "AUTORESEARCH_COMPILE": compiled}
        return {**selection.environment(), **how, "AUTORESEARCH_ATTENTION": "sdpa"}

    return {
        PLAIN: computing("float32", "0"),
        plain_compiled(selection): computing(selection.policy.compute_dtype, "1"),
    }


def load_module(path: Path) -> ModuleType:
    """A train module from its file; importing it does nothing."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where dataclasses and compilers look it up
    spec.loader.exec_module(module)
    return module
