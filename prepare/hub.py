"""The dataset hub's addresses, and what the environment says about reaching it.

HF_ENDPOINT or AUTORESEARCH_MIRROR (which wins) name another host with the hub's layout;
HF_HUB_OFFLINE=1 or AUTORESEARCH_OFFLINE=1 forbid the network; HF_TOKEN goes to the hub (or
HF_ENDPOINT) only: never to a mirror, never to where the hub redirects, never into a message.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

HUB = "https://huggingface.co"


def hub_url(dataset: str, file: str, revision: str = "main") -> str:
    """Address of a dataset's file on the hub or its mirror."""
    host = os.environ.get("AUTORESEARCH_MIRROR") or os.environ.get("HF_ENDPOINT") or HUB
    return f"{host.rstrip('/')}/datasets/{dataset}/resolve/{revision}/{file}"


def offline() -> bool:
    """Whether the environment forbids the network."""
    names = ("AUTORESEARCH_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)


def authorization(url: str) -> dict[str, str]:
    """The header that carries HF_TOKEN, where it may go."""
    token = os.environ.get("HF_TOKEN")
    trusted = {origin(HUB), origin(os.environ.get("HF_ENDPOINT") or HUB)}
    return {"Authorization": f"Bearer {token}"} if token and origin(url) in trusted else {}


def host_of(url: str) -> str:
    """Host and port, without a password that a mirror's address may hold."""
    return urlsplit(url).netloc.rpartition("@")[2]


def origin(url: str) -> tuple[str, str]:
    """Scheme and host with port: what a token is given to."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def without_address(error: Exception) -> str:
    """An error's text; a signed address in it would be a secret."""
    return re.sub(r"https?://\S+", "(address)", str(error))
