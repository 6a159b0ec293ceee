"""Virtual environments among a task's inputs: what else they need, and what would mislead them.

base_python(project / ".venv")        # the installation behind it, which a jail must show too
editable(project / ".venv", project)  # "src": it imports the project from its own place
"""

from __future__ import annotations

import os
from pathlib import Path

from autoresearch.engine.sandbox.paths import is_too_wide, outermost

_MARK = "pyvenv.cfg"
_PROGRAMS = ("bin/python", "Scripts/python.exe")
_MOST_LINKS = 40


def base_python(folder: Path) -> list[Path]:
    """The links from an environment's `python` to the real one, and the folder of that one.

    [] for a folder that is no environment, or whose Python's folder is the home folder or wider.
    """
    found: list[Path] = []
    if not (folder / _MARK).is_file():
        return found
    for name in _PROGRAMS:
        place = folder / name
        for _ in range(_MOST_LINKS):
            if not place.is_symlink():
                break
            place = Path(os.path.normpath(place.parent.resolve() / os.readlink(place)))
            found.append(place)
        prefix = place.parent.parent
        libraries = [*prefix.glob("lib/python3*/os.py"), *prefix.glob("Lib/os.py")]
        if found and libraries:
            found += [place for place in (prefix, prefix.resolve()) if not is_too_wide(place)]
    return [place for place in outermost(found) if folder not in place.parents]


def editable(folder: Path, project: Path) -> str:
    """Where below `project` an environment imports from, "." for itself; "" if nowhere.

    A package installed as editable leaves a .pth file with a path, or a module that holds it.
    """
    if not (folder / _MARK).is_file():
        return ""
    for site in [*folder.glob("lib/python3*/site-packages"), *folder.glob("Lib/site-packages")]:
        for file in sorted(site.glob("*.pth")):
            for line in _lines(file):
                place = Path(os.path.normpath(site / line.strip()))
                if project in (place, *place.parents) and folder not in (place, *place.parents):
                    return place.relative_to(project).as_posix()
        for file in sorted(site.glob("__editable__*_finder.py")):
            if any(str(project) in line for line in _lines(file)):
                return "."
    return ""


def _lines(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("import ")]
