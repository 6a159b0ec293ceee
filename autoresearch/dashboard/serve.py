"""Serving the dashboard: a port on 127.0.0.1, the browser, and an end by Ctrl-C.

serve(folder, port=None, announce=print)      # returns after Ctrl-C
"""

from __future__ import annotations

import contextlib
import html
import os
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import uvicorn

from autoresearch.dashboard.bundle import vega_bundle
from autoresearch.dashboard.follower import Follower
from autoresearch.dashboard.guard import Keys
from autoresearch.dashboard.pages import make_app
from prepare.errors import EnvironmentProblem, PrepareError

HOST = "127.0.0.1"
FIRST_PORT, PORTS = 8642, 50
LAST_SECONDS = 2  # that a request may take once it ends


class Server(uvicorn.Server):
    """Ends listening first: a stream of events would keep it waiting."""

    def __init__(self, config: uvicorn.Config, follower: Follower) -> None:
        super().__init__(config)
        self._follower = follower

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Ctrl-C, or a request to end."""
        self._follower.close()
        super().handle_exit(sig, frame)


def serve(
    folder: Path, port: int | None, browse: bool, announce: Callable[[dict[str, Any]], None]
) -> None:
    """Serve the study of a folder until Ctrl-C. Raises what opening it can raise, UsedPort."""
    follower, keys = Follower(folder), Keys()
    with contextlib.closing(listening(port)) as listener:
        place = f"http://{HOST}:{listener.getsockname()[1]}/"
        app = make_app(follower, keys)
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
            proxy_headers=False,
            timeout_graceful_shutdown=LAST_SECONDS,
        )
        be_modest()
        threading.Thread(target=make_bundle, daemon=True).start()
        address = f"{place}?token={keys.token}"
        announce({"url": address, "folder": str(folder), "pid": os.getpid()})
        with contextlib.ExitStack() as stack:
            if browse:
                page = stack.enter_context(way_in(address))
                # A browser of the terminal would come back when it is left only.
                threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()
            stack.enter_context(contextlib.suppress(KeyboardInterrupt))  # uvicorn hands it on
            Server(config, follower).run(sockets=[listener])


@contextlib.contextmanager
def way_in(address: str) -> Iterator[str]:
    """The address, as a file: URL, of a page that leads there; only this user can read it.

    A browser's command line can be seen by every user of a machine, and whoever has the token may
    write notes that an agent will follow.
    """
    page = f'<!doctype html><meta http-equiv="refresh" content="0;url={html.escape(address)}">'
    with tempfile.TemporaryDirectory(prefix="autoresearch-dashboard-") as folder:  # mode 0700
        path = Path(folder) / "open.html"
        path.write_text(page, encoding="utf-8")
        yield path.as_uri()


def listening(port: int | None) -> socket.socket:
    """A socket on this port, or on the first free one of ours. Raises EnvironmentProblem."""
    ports = range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else (port,)
    problem = ""
    for number in ports:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if os.name != "nt":  # there it would let two programs have one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, number))
            listener.listen(128)
        except OSError as error:
            listener.close()
            problem = f"port {number}: {error.strerror or error}"
            continue
        return listener
    raise EnvironmentProblem(f"can't listen on {HOST}, {problem}", "name another with --port")


def be_modest() -> None:
    """A trial that is measured comes first: whoever only watches takes what it leaves."""
    with contextlib.suppress(psutil.Error, OSError):
        if os.name == "nt":
            psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            os.nice(5)


def make_bundle() -> None:
    """Make the library of the charts ready, where this machine hasn't it yet."""
    with contextlib.suppress(PrepareError):  # told to whoever asks for it
        vega_bundle()
