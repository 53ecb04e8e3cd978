"""The other end of an endpoint: solves are opened there, followed and cancelled."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from http import HTTPStatus
from typing import Any, TypeVar

import urllib3
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, field_validator
from urllib3.exceptions import ConnectTimeoutError, HTTPError, LocationValueError, ReadTimeoutError

from specreason_sgl.errors import CallFailed, ServerUnreachable, SpecReasonError, UsageError
from specreason_sgl.events import Event, Noticed, SolveEnded, read_event
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.serve import HEARTBEAT_S
from specreason_sgl.serve.sse import Message, messages
from specreason_sgl.servers import SERVE_KEY, SERVE_PORT
from specreason_sgl.settings import Settings

T = TypeVar("T", bound=BaseModel)

V1 = "/v1"
CONNECT_S, HEALTH_S = 5.0, 2.0
SILENCE_S = 4 * HEARTBEAT_S
"""Seconds without a byte after which a stream counts as broken."""
AT_ONCE = 1 << 16
"""The most bytes of a stream that are read at once, and of an error that are read at all."""
MOST_WORDS = 2000
"""The most characters of an error that are shown."""

ADDRESS_HINT = f"it looks like `http://127.0.0.1:{SERVE_PORT}`"
UP_HINT = "`specreason up` keeps one; `specreason status` says where"
KEY_HINT = f"give it with `--key`, or in `{SERVE_KEY}`; `specreason status` shows that of the pair that is up"
GONE_HINT = "the servers' logs say why; `specreason status` says where they are"
BUSY_HINT = "try it again in a moment"


class _Told(BaseModel):
    """Something that an endpoint tells; what this version does not know of it is left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Opened(_Told):
    """The facts about a solve that has been opened."""

    id: str
    problem_id: str
    program: str
    mode: str
    pair: str
    started: datetime
    seed: int | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    parameters: dict[str, Any] = Field(default_factory=dict)
    servers: dict[str, Any] = Field(default_factory=dict)
    judge_version: str | None = None
    prompts: dict[str, str] = Field(default_factory=dict)
    repeatability: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)


class Hello(_Told):
    """The beginning of a feed."""

    pair: str
    since: datetime
    """When the server began."""
    ended: int = 0
    """How many solves have ended since."""


class Begun(_Told):
    """A solve begins."""

    id: str
    problem_id: str
    mode: str
    repeat: int = 0


class Happened(_Told):
    """Something happens in a solve."""

    id: str
    event: SerializeAsAny[Event]

    @field_validator("event", mode="before")
    @classmethod
    def _read_event(cls, row: Any) -> Any:
        return read_event(row) if isinstance(row, dict) else row


class Finished(_Told):
    """A solve has ended."""

    id: str
    record: SolveRecord


class Notice(_Told):
    """Words about the whole server."""

    message: str


News = Begun | Happened | Finished | Notice
_NEWS: Mapping[str, type[News]] = {"started": Begun, "event": Happened, "finished": Finished, "notice": Notice}


def order(
    problem: Problem, program: str, parameters: Mapping[str, Any], settings: Settings, *, stream: bool
) -> dict[str, Any]:
    """What an endpoint is asked for to solve a problem.

    Args:
        problem: the question, and its answer where one is known.
        program: the name of a stock program.
        parameters: values of its knobs.
        settings: limits and sampling.
        stream: whether text is told of while it is generated.
    """
    return {
        **problem.model_dump(mode="json", exclude={"id"}),
        "id": problem.id,
        "program": program,
        "parameters": dict(parameters),
        "settings": settings.model_dump(mode="json", exclude_none=True),
        "stream": stream,
    }


class Client:
    """The other end of one endpoint."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        """Keep the address, with or without the ``/v1`` at its end; nothing is asked yet.

        Raises:
            UsageError: the address or the key has the wrong form.
        """
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"`{url}` is not the address of an endpoint", hint=ADDRESS_HINT)
        if api_key and not (api_key.isascii() and api_key.isprintable()):  # the HTTP client's own complaint shows it
            raise UsageError("the key has a character that no key can have", hint="is there a line break in it?")
        self.url = url.rstrip("/").removesuffix(V1)
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._pool = urllib3.PoolManager(retries=False)

    def health(self) -> dict[str, Any] | None:
        """What the endpoint says of itself; None if it is not there, or its model servers are away."""
        try:
            response = self._pool.request("GET", f"{self.url}/health", timeout=HEALTH_S, redirect=False)
            told = response.json() if response.status == HTTPStatus.OK else None
        except (HTTPError, ValueError, RecursionError):
            return None
        return told if isinstance(told, dict) else None

    @contextmanager
    def solve(self, asked: Mapping[str, Any]) -> Iterator[tuple[Opened, Iterator[Event]]]:
        """Open a solve; leaving the block before it has ended cancels it.

        Args:
            asked: from `order`.

        Yields:
            The facts about the solve, and its events as they happen. Words that are not part of it, such as that a
            model server is waited for, are among them as `Noticed` events without a time.

        Raises:
            UsageError: the endpoint refuses what is asked, or the key.
            CallFailed: the endpoint has no room for it.
            ServerUnreachable: there is no endpoint, or the stream breaks off.
        """
        with self._stream("POST", "/solves", asked) as told:
            yield self._opened(told), self._events(told)

    @contextmanager
    def watch(self, solve_id: str) -> Iterator[tuple[Opened, Iterator[Event]]]:
        """Look at a solve that another client has opened, from its beginning; leaving the block disturbs nothing.

        Raises:
            SpecReasonError: as for `solve`.
        """
        with self._stream("GET", f"/solves/{_quoted(solve_id)}") as told:
            yield self._opened(told), self._events(told)

    @contextmanager
    def follow(self) -> Iterator[tuple[Hello, Iterator[News]]]:
        """Everything that the endpoint does: first what is running and what has ended lately, then as it happens.

        Raises:
            SpecReasonError: as for `solve`.
        """
        with self._stream("GET", "/solves?follow=true") as told:
            first = next(told, None)
            if first is None or first.event != "hello":
                raise self._stranger()
            yield self._read(first, Hello), self._news(told)

    def cancel(self, solve_id: str) -> None:
        """Cancel a solve.

        Raises:
            SpecReasonError: as for `solve`.
        """
        response = self._send("DELETE", f"/solves/{_quoted(solve_id)}")
        response.close()

    def _opened(self, told: Iterator[Message]) -> Opened:
        first = next(told, None)
        if first is None or first.event != "opened":
            raise self._stranger()
        return self._read(first, Opened)

    def _events(self, told: Iterator[Message]) -> Iterator[Event]:
        for message in told:
            if message.event == "notice":
                yield Noticed(message=self._read(message, Notice).message)
            elif message.event == "message":
                event = self._read(message, Event, read_event)
                yield event
                if isinstance(event, SolveEnded):
                    return
        raise self._broken("ended the solve in the middle")

    def _news(self, told: Iterator[Message]) -> Iterator[News]:
        for message in told:
            if kind := _NEWS.get(message.event):
                yield self._read(message, kind)
        raise self._broken("has ended")

    def _read(self, message: Message, kind: type[T], read: Any = None) -> T:
        try:
            row = json.loads(message.data)
            made: T = (read or kind.model_validate)(row)
        except (ValueError, ValidationError, TypeError, AttributeError, RecursionError) as error:
            raise self._broken("sent something that cannot be read") from error
        return made

    @contextmanager
    def _stream(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Iterator[Iterator[Message]]:
        response = self._send(method, path, body)
        reading = threading.Lock()

        def read() -> bytes:
            with reading:
                return b"" if response.closed else response.read1(AT_ONCE, decode_content=False)

        try:
            if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                raise self._stranger()
            yield self._messages(read)
        finally:
            # Another thread may be reading; it has to let go before the connection can be closed.
            with suppress(OSError, ValueError, RuntimeError):
                response.shutdown()
            with reading:
                response.close()

    def _messages(self, read: Callable[[], bytes]) -> Iterator[Message]:
        try:
            yield from messages(iter(read, b""))
        except HTTPError as error:
            raise self._failure(error) from error
        except ValueError as error:
            raise self._broken(f"cannot be read: {error}") from error

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> urllib3.BaseHTTPResponse:
        headers = self._headers | ({"Content-Type": "application/json"} if body is not None else {})
        try:
            response = self._pool.request(
                method,
                f"{self.url}{V1}{path}",
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                preload_content=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=SILENCE_S),
            )
        except HTTPError as error:
            raise self._failure(error) from error
        if response.status not in {HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT}:
            try:
                raise self._refusal(response)
            finally:
                response.close()
        return response

    def _refusal(self, response: urllib3.BaseHTTPResponse) -> SpecReasonError:
        """The error that an endpoint has answered with."""
        if response.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return UsageError(f"the endpoint at {self.url} refuses the key", hint=KEY_HINT)
        try:
            row = json.loads(response.read(AT_ONCE))
            row = row.get("error", row)
            message, hint = str(row["message"])[:MOST_WORDS], row.get("hint")
        except (HTTPError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return self._stranger(response.status)
        hint = str(hint)[:MOST_WORDS] if hint else None
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return ServerUnreachable(message, hint=hint)
        if response.status == HTTPStatus.TOO_MANY_REQUESTS:
            return CallFailed(message, hint=hint or BUSY_HINT)
        if HTTPStatus.BAD_REQUEST <= response.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return UsageError(message, hint=hint)
        return CallFailed(message, hint=hint)

    def _failure(self, error: HTTPError) -> SpecReasonError:
        if isinstance(error, ReadTimeoutError):
            return self._broken("fell silent")
        if isinstance(error, LocationValueError):
            return UsageError(f"`{self.url}` is not the address of an endpoint", hint=ADDRESS_HINT)
        if isinstance(error, ConnectTimeoutError):
            return ServerUnreachable(f"no endpoint answers at {self.url}", hint=UP_HINT)
        return self._broken("broke the connection")

    def _broken(self, how: str) -> ServerUnreachable:
        return ServerUnreachable(f"the endpoint at {self.url} {how}", hint=GONE_HINT)

    def _stranger(self, status: int = HTTPStatus.OK) -> ServerUnreachable:
        answer = f": it answers with status {status}" if status != HTTPStatus.OK else ""
        return ServerUnreachable(f"what answers at {self.url} is no endpoint of SpecReason{answer}", hint=UP_HINT)


def _quoted(solve_id: str) -> str:
    from urllib.parse import quote

    return quote(solve_id, safe="")
