"""Vega, which draws the charts, as one JavaScript file that browsers may keep.

path = vega_bundle()     # in the cache; the first call per version takes seconds
"""

from __future__ import annotations

import threading
from importlib import metadata
from pathlib import Path

from prepare.cache import atomic_path, cache_root, writable_folder

_ONE = threading.Lock()


def version() -> str:
    """Which one this is: another asks for another file."""
    return metadata.version("vl-convert-python")


def vega_bundle() -> Path:
    """The file, made if this version has none yet. Raises UnwritableCache, DiskFull."""
    from autoresearch.report.page import bundle

    folder = writable_folder(cache_root() / "dashboard")
    path = folder / f"vega-{version()}.js"
    with _ONE:
        if not path.is_file():
            with atomic_path(path) as fresh:
                fresh.write_text(bundle(), encoding="utf-8")
    return path
