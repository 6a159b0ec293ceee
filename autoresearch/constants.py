"""train.py's upper-case constants, for commands: an unknown name is an error of the user's.

constants_of(source)                               # {"DEPTH": 8, "WINDOW_PATTERN": "SSSL", ...}
source = apply_constants(source, {"DEPTH": 4})     # comments and layout stay as they are
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoresearch.engine import constants as _constants
from autoresearch.engine.constants import constants_of, literal
from prepare.errors import UsageError

__all__ = ["apply_constants", "constants_of", "literal"]


def apply_constants(source: str, constants: Mapping[str, Any]) -> str:
    """The source with new literals in the assignments of these constants, all else unchanged.

    Raises UsageError for a name that the source assigns no literal.
    """
    try:
        return _constants.apply_constants(source, constants)
    except _constants.UnknownConstant as error:
        raise UsageError(f"train.py assigns no constant {error.name}", error.hint) from error
