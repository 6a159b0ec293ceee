"""Who may ask: a browser on this machine that was given the token, from a page of ours.

    keys = Keys()
    app = Guard(app, keys)            # around the whole application
    keys.token, keys.room

Other pages in the same browser can send requests here, and other users of this machine can, too.
What stops them, each by itself where it can:

- Host must name this machine, so a domain that was pointed at 127.0.0.1 (DNS rebinding) gets
  nothing, not even a static file.
- The token opens the door, `/?token=...`; from then on a cookie is the key. It is
  HttpOnly, SameSite=Strict and bound to a path with a secret part (the room): browsers send cookies
  to every port of a host, and another server on 127.0.0.1 shouldn't be handed it.
- What a browser says comes from another page (Sec-Fetch-Site, Origin) is refused, key or no key.
- Writing needs an Origin that is our own, beside the cookie.
- No page of ours can be framed, and no other origin may read one: there are no CORS headers.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "autoresearch-dashboard"
STATIC = "/static/"
SAFE = ("GET", "HEAD")
HOSTS = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer at all, browsers would send `Origin: null` along with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Files of a wheel all have one date: a browser would keep them for months beyond an update.
    "Cache-Control": "no-store",
}


class Keys:
    """The secrets of one dashboard, made anew for each.

    token: what the printed address carries. room: the first part of every page's path.
    """

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self.room = secrets.token_urlsafe(9)
        self.cookie = secrets.token_urlsafe(32)


class Guard:
    """An ASGI application that lets through what may pass, and adds headers to every answer."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # none is served here
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        problem = refusal(scope, self._keys)
        if problem:
            status, words = problem
            await PlainTextResponse(f"{words}\n", status)(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)


def refusal(scope: Scope, keys: Keys) -> tuple[int, str] | None:
    """Why a request is refused: status and words; None for one that may pass."""
    headers = Headers(scope=scope)
    if host_name(headers.get("host", "")) not in HOSTS:
        return 421, "This dashboard answers to 127.0.0.1 and localhost alone."
    if scope["path"].startswith(STATIC):
        return None if scope["method"] in SAFE else (405, "There is nothing to write here.")
    if scope["path"] == "/" and scope["method"] == "GET":
        # The one address that may be followed from elsewhere: a terminal in a browser, say.
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return None if _same(given, [keys.token]) else (403, LOCKED)
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return 403, "This request comes from another page."
    origin = headers.get("origin")
    if origin is not None and not same_origin(origin, headers["host"]):
        return 403, "This request comes from another origin."
    in_room = _same(scope["path"].lstrip("/").partition("/")[0], [keys.room])
    if not in_room or not any(_same(value, [keys.cookie]) for value in _cookies(headers)):
        return 403, LOCKED
    if scope["method"] not in SAFE and origin is None:
        return 403, "A change needs an Origin: make it on the page."
    return None


LOCKED = "Locked: open the address that `autoresearch dashboard` printed, the token included."


def host_name(host: str) -> str:
    """The name in a Host header, whatever the port: a tunnel (ssh -L) may use another."""
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).lower()


def same_origin(origin: str, host: str) -> bool:
    """Whether an Origin is that of a page which this Host serves."""
    return origin.lower() == f"http://{host.lower()}"


def _cookies(headers: Headers) -> list[str]:
    """Every value under our name: another server on this host may have set one, too."""
    pairs = [pair.strip().partition("=") for pair in headers.get("cookie", "").split(";")]
    return [value for name, _, value in pairs if name == COOKIE]


def _same(given: str, known: Iterable[str]) -> bool:
    """Compared in constant time."""
    data = given.encode()
    return any(secrets.compare_digest(data, key.encode()) for key in known)
