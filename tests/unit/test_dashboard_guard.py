"""Who may ask the dashboard: the token, the cookie, Host, Origin; and what every answer carries."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from autoresearch.dashboard.guard import COOKIE, Guard, Keys, host_name, same_origin
from autoresearch.dashboard.serve import way_in

HERE = "http://127.0.0.1:8642"
Ask = Callable[..., httpx.Response]


async def secret(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("secret")(scope, receive, send)


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def ask(keys: Keys) -> Ask:
    """A request as the right browser makes it, but for what a test changes."""

    def ask(path: str = "", method: str = "GET", **headers: str) -> httpx.Response:
        usual = {
            "Cookie": f"{COOKIE}={keys.cookie}",
            "Origin": HERE,
            "Sec-Fetch-Site": "same-origin",
        }
        given = {**usual, **{name.replace("_", "-"): value for name, value in headers.items()}}

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(Guard(secret, keys))
            async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
                shown = {name: value for name, value in given.items() if value}
                return await client.request(method, path or f"/{keys.room}/", headers=shown)

        return asyncio.run(send())

    return ask


def test_the_right_browser_reads_and_writes(ask: Ask) -> None:
    assert ask().text == ask(method="POST").text == "secret"
    assert ask(Origin="").text == "secret"  # a plain navigation says none
    assert ask(Sec_Fetch_Site="").text == "secret"  # nor do old browsers say this


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": ""},
        {"Cookie": f"{COOKIE}=guessed"},
        {"Cookie": f"{COOKIE}="},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # another port of this machine
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "https://127.0.0.1:8642"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_everything_else_is_refused(ask: Ask, method: str, headers: dict[str, str]) -> None:
    answer = ask(method=method, **headers)
    assert answer.status_code == 403 and "secret" not in answer.text


def test_a_write_needs_an_origin(ask: Ask) -> None:
    assert ask(method="POST", Origin="").status_code == 403
    assert ask(method="DELETE", Origin="").status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", ""]
)
def test_a_foreign_host_gets_nothing_at_all(ask: Ask, keys: Keys, host: str) -> None:
    for path in ("", "/static/style.css", f"/?token={keys.token}"):
        answer = ask(path, Host=host or "[::2]:8642", Origin=f"http://{host}")
        assert answer.status_code == 421 and "secret" not in answer.text


def test_other_rooms_are_locked(ask: Ask, keys: Keys) -> None:
    for path in (
        "/guess/",
        f"/{keys.room}x/",
        "/",
        f"//{keys.room}x/",
        "/?token=guess",
        "/?token=",
    ):
        assert ask(path).status_code == 403


def test_a_tunnel_may_use_another_port(ask: Ask) -> None:
    there = "localhost:9000"
    assert ask(Host=there, Origin=f"http://{there}").text == "secret"
    assert ask(Host=there).status_code == 403  # the origin of another port


def test_the_token_opens_the_door(ask: Ask, keys: Keys) -> None:
    for _ in range(2):
        assert ask(f"/?token={keys.token}", Cookie="", Sec_Fetch_Site="cross-site").text == "secret"
    assert ask(f"/?token={keys.token[:-1]}", Cookie="").status_code == 403
    assert ask("/?token=", Cookie="").status_code == 403


def test_static_files_are_for_reading_without_a_key(ask: Ask) -> None:
    assert ask("/static/style.css", Cookie="").text == "secret"
    assert ask("/static/style.css", method="POST").status_code == 405


def test_a_cookie_of_another_server_beside_ours_does_no_harm(ask: Ask, keys: Keys) -> None:
    both = f"{COOKIE}={keys.cookie}; other=1; {COOKIE}=tossed"
    assert ask(Cookie=both).text == "secret"


@pytest.mark.parametrize("path", ["", "/static/style.css", "/nowhere"])
def test_no_answer_may_be_framed_read_or_kept(ask: Ask, path: str) -> None:
    headers = ask(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in headers if name.startswith("access-control")]
    assert headers["cache-control"] == "no-store"


def test_web_sockets_are_closed(keys: Keys) -> None:
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    asyncio.run(Guard(secret, keys)({"type": "websocket", "path": "/"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_hosts_and_origins() -> None:
    assert host_name("LOCALHOST:1") == "localhost" and host_name("[::1]") == "[::1]"
    assert host_name("127.0.0.1") == "127.0.0.1"
    assert same_origin("http://localhost:1", "LOCALHOST:1")
    assert not same_origin("http://localhost:1@evil", "localhost:1")
    assert not same_origin("http://[", "localhost:1"), "no address at all"


def test_secrets_are_new_each_time() -> None:
    one, other = Keys(), Keys()
    assert {one.token, one.room, one.cookie}.isdisjoint({other.token, other.room, other.cookie})
    assert min(map(len, (one.token, one.cookie))) >= 40


@pytest.mark.skipif(os.name == "nt", reason="folders have other rights there")
def test_only_this_user_can_read_the_way_in() -> None:
    address = "http://127.0.0.1:8642/?token=secret"
    with way_in(address) as page:
        path = Path(urlsplit(page).path)
        assert path.parent.stat().st_mode & 0o077 == 0
        assert f"url={address}" in path.read_text(encoding="utf-8")
        assert "secret" not in page  # a command line holds it
    assert not path.parent.exists()
