"""A model server on 127.0.0.1 that answers from a script, for clients that speak HTTP.

with ModelServer(reply) as server:      # reply(path, headers, body) -> Reply
    use(server.url)
server.requests                         # [(path, body), ...]
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What to answer. A list of (event, data) is streamed as server-sent events."""

    body: Any = None
    status: int = 200
    events: list[tuple[str | None, Any]] | None = None
    raw: bytes | None = None
    delay: float = 0.0  # seconds before the answer
    trickle: float = 0.0  # seconds between single bytes


class ModelServer:
    """Answers every POST by `reply`; other requests get an empty list of models."""

    def __init__(self, reply: Callable[[str, dict[str, str], Any], Reply]) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._reply = reply
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                return

            def do_GET(self) -> None:
                owner.requests.append((self.path, None))
                self._send(Reply({"object": "list", "data": [], "models": []}))

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                try:
                    body = json.loads(raw)
                except ValueError:
                    body = raw
                owner.requests.append((self.path, body))
                owner.headers.append({k.lower(): v for k, v in self.headers.items()})
                self._send(owner._reply(self.path, owner.headers[-1], body))

            def _send(self, reply: Reply) -> None:
                time.sleep(reply.delay)
                data = reply.raw if reply.raw is not None else json.dumps(reply.body).encode()
                kind = "application/json"
                if reply.events is not None:
                    kind = "text/event-stream"
                    data = b"".join(_event(name, item) for name, item in reply.events)
                try:
                    self.send_response(reply.status)
                    self.send_header("content-type", kind)
                    self.send_header("content-length", str(len(data)))
                    self.end_headers()
                    if reply.trickle:
                        for at in range(len(data)):
                            self.wfile.write(data[at : at + 1])
                            self.wfile.flush()
                            time.sleep(reply.trickle)
                    else:
                        self.wfile.write(data)
                except OSError:
                    self.close_connection = True  # the client is gone

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "ModelServer":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def _event(name: str | None, data: Any) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def completion(text: str, tokens_in: int = 900, tokens_out: int = 40, **usage: Any) -> Reply:
    """An answer of /v1/chat/completions."""
    message = {"role": "assistant", "content": text}
    return Reply(
        {
            "id": "0",
            "object": "chat.completion",
            "created": 0,
            "model": "fake",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {
                "prompt_tokens": tokens_in,
                "completion_tokens": tokens_out,
                "total_tokens": tokens_in + tokens_out,
                **usage,
            },
        }
    )
