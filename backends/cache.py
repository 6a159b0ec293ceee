"""Small JSON files under the cache root, written whole or not at all.

write_json(cache_root() / "probes" / "1f3a.json", {...})
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import platformdirs


def cache_root() -> Path:
    """AUTORESEARCH_CACHE, else the user's cache folder; not created here."""
    override = os.environ.get("AUTORESEARCH_CACHE")
    return Path(override) if override else Path(platformdirs.user_cache_dir("autoresearch"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is there in full or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
