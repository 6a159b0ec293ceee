"""What a server's answer says: how large a file is, which checksum, and whether to ask again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prepare.errors import DownloadError
from prepare.hub import host_of

if TYPE_CHECKING:
    import httpx

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Expected:
    """What the finished file must be, from the manifest, the hub's headers or the response."""

    size: int | None
    sha256: str | None
    tag: str | None

    @classmethod
    def of(
        cls,
        stated: tuple[int | None, str | None],
        response: httpx.Response,
        facts: dict[str, str],
        noted: dict[str, Any],
    ) -> Expected:
        """First what a manifest stated (size, SHA-256), then the hub, then the part so far."""
        known = noted if response.status_code in (206, 416) else {}
        linked = facts.get("x-linked-etag", "").removeprefix("W/").strip('"')
        tag = response.headers.get("etag", "")
        sizes = (stated[0], _number(facts.get("x-linked-size")), known.get("size"))
        return cls(
            size=next((size for size in sizes if size is not None), _total(response)),
            sha256=stated[1] or (linked if SHA256.fullmatch(linked) else known.get("sha256")),
            tag=tag if tag.startswith('"') else known.get("etag"),  # If-Range wants a strong one
        )


def _total(response: httpx.Response) -> int | None:
    """Length of the whole file: after the slash of Content-Range, or Content-Length."""
    if response.status_code in (206, 416):
        return _number(response.headers.get("content-range", "").rpartition("/")[2])
    return _number(response.headers.get("content-length"))


def range_start(response: httpx.Response) -> int | None:
    """Where a 206 begins."""
    match = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
    return int(match[1]) if match else None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def check_status(name: str, url: str, response: httpx.Response) -> None:
    """Pass what carries data (and 416); raise Transient or DownloadError on anything else."""
    status = response.status_code
    if status in (200, 206, 416):
        return
    if status in TRANSIENT:
        raise Transient(f"the server says {status}", _number(response.headers.get("retry-after")))
    host = host_of(url)
    if status in (401, 403):
        raise DownloadError(
            f"{host} refuses {name} ({status})", "set HF_TOKEN to one that may read it"
        )
    raise DownloadError(
        f"{host} answers {status} for {name}",
        "check the name, and AUTORESEARCH_MIRROR if it is set",
    )


class Transient(Exception):
    """An attempt failed in a way that may pass; the server may have asked for so many seconds."""

    def __init__(self, reason: str, asked: float | None = None) -> None:
        super().__init__(reason)
        self.asked = asked
