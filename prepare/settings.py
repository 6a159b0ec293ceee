"""Settings of one experiment: which text, which vocabulary, how long, how it is scored.

They live in a workspace's `autoresearch.toml` under `[experiment]`:

    settings = Settings.load(Path("."))
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prepare.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_NAME = "autoresearch.toml"
# Corpora that have a name; anything else in `corpus` is a path.
NAMED_CORPORA = ("embedded", "climbmix", "tinystories")


class Settings(BaseModel):
    """Everything that decides what a val_bpb means, apart from train.py and the machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str = Field("demo", description="the preset these values came from")
    corpus: str = Field("embedded", description="embedded, climbmix, tinystories, or a path")
    corpus_bytes: int = Field(
        16_000_000, ge=10_000, description="training text to generate, embedded only"
    )
    shards: int = Field(10, ge=1, description="training shards to download, hub corpora only")
    vocab_size: int = Field(8192, ge=256, le=65536, description="256 means bytes")
    max_seq_len: int = Field(512, ge=16, description="context length in tokens")
    time_budget: float = Field(300.0, gt=0, description="seconds of training")
    token_budget: int | None = Field(None, gt=0, description="train on this many tokens instead")
    devices: int = Field(1, ge=1, le=64, description="devices of this machine that train one model")
    eval_bytes: int = Field(400_000, ge=1_000, description="validation text, in whole documents")
    seed: int = Field(42, ge=0, description="seed of weights and row order")
    startup_timeout: float = Field(120.0, gt=0, description="seconds to load the framework")
    warmup_timeout: float = Field(
        300.0, gt=0, description="seconds to import and build, and again to warm up and compile"
    )
    score_timeout: float = Field(600.0, gt=0, description="seconds to answer all questions")

    @classmethod
    def load(cls, folder: Path) -> Settings:
        """Read `folder/autoresearch.toml`. Raises UsageError if it is missing or invalid."""
        path = folder / FILE_NAME
        if not path.is_file():
            raise UsageError(
                f"no {FILE_NAME} in {folder.resolve()}",
                "run `autoresearch init` to make a workspace, or change into one",
            )
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
            settings = cls.model_validate(table.get("experiment", {}))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{path}: not valid TOML: {error}", "mend the line it names"
            ) from error
        except ValidationError as error:
            raise UsageError(
                f"{path}: {_what_is_wrong(error)}",
                f"mend it in {FILE_NAME}; `autoresearch presets show NAME` has good values and why",
            ) from error
        if settings.corpus in NAMED_CORPORA:
            return settings
        # A path in the file is meant from where the file is, not from where a command is run.
        place = (folder / Path(settings.corpus).expanduser()).resolve()
        if len(Path(settings.corpus).parts) == 1 and not place.exists():
            return settings  # more likely a mistyped name: whoever opens it suggests the near one
        return settings.model_copy(update={"corpus": str(place)})

    def dumps(self) -> str:
        """The `[experiment]` table as TOML text."""
        return tomli_w.dumps({"experiment": self.model_dump(exclude_none=True)})


def _what_is_wrong(error: ValidationError) -> str:
    """The first mistake, by the name it has in the file; an unknown name with the nearest one."""
    first = error.errors()[0]
    where = ".".join(("experiment", *map(str, first["loc"])))
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg']}"
    near = difflib.get_close_matches(str(first["loc"][-1]), Settings.model_fields, 1)
    return f"{where}: there is no such setting" + (f"; did you mean {near[0]}?" if near else "")
