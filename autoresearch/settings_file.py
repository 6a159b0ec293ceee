"""One table of a workspace's autoresearch.toml, checked.

part = read_part(folder / FILE_NAME, "weights", Keeping)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from autoresearch.engine.task import Part
from prepare.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

P = TypeVar("P", bound=Part)


def read_part(path: Path, name: str, model: type[P]) -> P:
    """The table `[name]` of the file at `path`, the defaults where it has none. Raises UsageError.

    What the file holds is never repeated in an error: it may be a secret.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        document = {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}", "mend the line it names") from error
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise UsageError(f"{path.name}: {name} must be a table", f"begin it with a line [{name}]")
    try:
        return model.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join((name, *map(str, first["loc"])))
        text = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{path.name}: {where}: {text}", f"mend it in {path.name}") from error
