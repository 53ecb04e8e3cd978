"""Serving until somebody says stop: the socket, signals, and letting what is in flight finish."""

from __future__ import annotations

import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

import uvicorn

from specreason_sgl.errors import UsageError
from specreason_sgl.serve.app import app
from specreason_sgl.serve.service import Service

if TYPE_CHECKING:
    from types import FrameType

GRACE_S = 30.0
"""Seconds that solves in flight get to finish once the server is to stop."""
BACKLOG = 2048
KEEP_S = 60
"""Seconds that a connection without a request stays open."""


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: the address of an interface; only this machine can reach the loopback's.
        port: the port; 0 takes any free one.

    Raises:
        UsageError: the port is taken, or there is no such address here.
    """
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise UsageError(
            f"cannot listen at {host}, port {port}: {error.strerror or error}", hint="name another one with `--port`"
        ) from error
    made.set_inheritable(True)
    return made


def new_key() -> str:
    """A random key for clients."""
    return secrets.token_urlsafe(24)


class Server(uvicorn.Server):
    """A server that ends its endless streams when it is to stop, and takes a second signal for impatience."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        """Serve this service."""
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take no more orders, and let those in flight finish; at the second signal do not wait for them."""
        super().handle_exit(sig, frame)
        if self._service.solves:
            self._service.solves.refuse()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End those streams that would never end, and wait for the others."""
        for feed in list(self._service.feeds):
            feed.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals as uvicorn does; a stop that was asked for is no failure."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def config(
    service: Service, key: str | None, *, origins: Sequence[str] = (), grace_s: float = GRACE_S
) -> uvicorn.Config:
    """How uvicorn serves: quietly, and over HTTP alone; for the arguments see `serve`."""
    return uvicorn.Config(
        app(service, key, origins=origins),
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=round(grace_s),
        timeout_keep_alive=KEEP_S,
    )


def serve(
    service: Service,
    bound: socket.socket,
    key: str | None,
    *,
    origins: Sequence[str] = (),
    grace_s: float = GRACE_S,
    begin: Callable[[], None] | None = None,
) -> None:
    """Serve until a signal to stop; then what is in flight may finish, for a limited time.

    Args:
        service: what is served.
        bound: the socket.
        key: what clients have to know.
        origins: the web pages that browsers may call from.
        grace_s: seconds that solves in flight get to finish.
        begin: called in a thread of its own while the server runs, to bring the models.
    """
    if begin:
        threading.Thread(target=begin, daemon=True).start()
    try:
        Server(config(service, key, origins=origins, grace_s=grace_s), service).run(sockets=[bound])
    finally:
        if service.solves:
            service.solves.close()
        sys.stderr.flush()


def is_own(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
