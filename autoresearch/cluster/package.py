"""This program as one archive, for nodes that lack it or have another version of it.

    archive = program_archive()         # .../cluster/autoresearch-0.1.0-3f9c....zip

It has what a wheel has and is made from the files that this process runs, an installed package's
as well as a checkout's: no build tool is needed, and what runs on the nodes is what runs here. Ray
unpacks it once on each node. What it doesn't hold are the packages that this one needs: torch and
the others must be on the nodes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from importlib import metadata
from pathlib import Path

from prepare.cache import atomic_path, cache_root, writable_folder
from prepare.errors import EnvironmentProblem

PACKAGES = ("autoresearch", "backends", "prepare")
_LEFT_OUT = {"__pycache__", ".git"}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same files make the same archive, whenever they were written


def program_archive() -> Path:
    """The archive, made where the cache hasn't one of the same content.

    Raises EnvironmentProblem where this program doesn't lie on the disk as plain files.
    """
    files = {**_sources(), **_about()}
    content = hashlib.sha256()
    for path, data in files.items():
        content.update(f"{path}\0{len(data)}\0".encode() + data)
    folder = writable_folder(cache_root() / "cluster")
    archive = folder / f"autoresearch-{_version()}-{content.hexdigest()[:16]}.zip"
    if not archive.is_file():
        with (
            atomic_path(archive) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as package,
        ):
            for path, data in files.items():
                package.writestr(zipfile.ZipInfo(path, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return archive


def _sources() -> dict[str, bytes]:
    """Content by path of the three packages."""
    files: dict[str, bytes] = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        folder = Path(spec.origin).parent if spec is not None and spec.origin else None
        if folder is None or not folder.is_dir():
            raise EnvironmentProblem(
                f"the package {name} doesn't lie on this machine's disk as plain files, so it "
                "can't be sent to the cluster's nodes",
                "install autoresearch with pip, here or on every node",
            )
        for path in sorted(folder.rglob("*")):
            inner = path.relative_to(folder)
            if path.is_file() and not _LEFT_OUT.intersection(inner.parts):
                files[f"{name}/{inner.as_posix()}"] = path.read_bytes()
    return files


def _about() -> dict[str, bytes]:
    """What says which version it is, and which plug-ins it has."""
    try:
        found = metadata.distribution("autoresearch")
    except metadata.PackageNotFoundError:
        return {}  # run from a checkout that isn't installed: it knows no version here either
    folder = f"autoresearch-{found.version}.dist-info"
    text = f"Metadata-Version: 2.1\nName: autoresearch\nVersion: {found.version}\n"
    points = found.read_text("entry_points.txt") or ""
    return {f"{folder}/METADATA": text.encode(), f"{folder}/entry_points.txt": points.encode()}


def _version() -> str:
    try:
        return metadata.version("autoresearch")
    except metadata.PackageNotFoundError:
        return "0"
