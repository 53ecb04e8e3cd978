"""A server that answers every request with the bytes that it was given, for what a real one cannot be made to send."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

Piece = bytes | threading.Event
"""What is sent; or what is waited for before more is sent."""

EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


class ScriptedServer:
    """Answers each connection in turn with one of the scripts, the last one again and again."""

    def __init__(self, *scripts: Iterable[Piece]) -> None:
        self.requests: list[bytes] = []
        self.left = threading.Event()
        """Set when a client has closed its connection before the script was over."""
        self._scripts = [list(script) for script in scripts]
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._socket.close()

    @property
    def lines(self) -> list[str]:
        """The first lines of the requests."""
        return [request.split(b"\r\n", 1)[0].decode() for request in self.requests]

    def body(self, number: int) -> Any:
        """What a request had for its body."""
        return json.loads(self.requests[number].split(b"\r\n\r\n", 1)[1])

    def _accept(self) -> None:
        number = 0
        with suppress(OSError):
            while True:
                line, _ = self._socket.accept()
                script = self._scripts[min(number, len(self._scripts) - 1)]
                threading.Thread(target=self._answer, args=(line, script), daemon=True).start()
                number += 1

    def _answer(self, line: socket.socket, script: list[Piece]) -> None:
        with line, suppress(OSError):
            self.requests.append(_request(line))
            for piece in script:
                if isinstance(piece, bytes):
                    line.sendall(piece)
                else:
                    self._wait(line, piece)

    def _wait(self, line: socket.socket, wanted: threading.Event) -> None:
        line.settimeout(0.02)
        while not wanted.is_set() and not self._over.is_set():
            with suppress(TimeoutError):
                if not line.recv(1):
                    self.left.set()
                    return
        line.settimeout(None)


def _request(line: socket.socket) -> bytes:
    told = b""
    while b"\r\n\r\n" not in told:
        if not (more := line.recv(1 << 16)):
            return told
        told += more
    head, _, body = told.partition(b"\r\n\r\n")
    sizes = [row.split(b":")[1] for row in head.split(b"\r\n") if row.lower().startswith(b"content-length:")]
    while sizes and len(body) < int(sizes[0]):
        body += line.recv(1 << 16)
    return head + b"\r\n\r\n" + body


def answer(status: int, row: object, **headers: str) -> bytes:
    """A whole response of JSON."""
    body = json.dumps(row).encode()
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} Word\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def told(row: object, event: str = "") -> bytes:
    """A message of a stream."""
    return (f"event: {event}\n" if event else "").encode() + f"data: {json.dumps(row)}\n\n".encode()
