"""Requests to a model server, which are sent again as long as that can help."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProtocolError, ReadTimeoutError

from specreason_sgl.engine.connections import Call, connections, read_out
from specreason_sgl.engine.watch import Watch
from specreason_sgl.errors import CallFailed, CallRefused, ServerUnreachable, SpecReasonError, UsageError
from specreason_sgl.lang.scope import Scope
from specreason_sgl.text.prompts import whole

T = TypeVar("T")

ATTEMPTS = 5
"""How often a call is sent before its solve fails."""
CONNECT_S, READ_S = 5.0, 600.0
HEALTH_S = 2.0
PASSING = frozenset({429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed."""
LAUNCH_HINT = (
    "start one with `python -m sglang.launch_server --model-path MODEL --port PORT`, "
    "or both of the embedded pair with `specreason up`"
)

_GENERATE = "/generate"
_ROUTED = {_GENERATE, "/workers", "/flush_cache"}
"""The paths that SGLang's router (sglang-router 0.3.2) passes on or answers; its servers are asked for the others."""
_FIRST_PAUSE_S = 0.1


class Hiccup(CallFailed):
    """A call failed, but may succeed if it is sent again; it has changed nothing on the server."""


class Away(ServerUnreachable):
    """A server does not answer, or broke the connection; it may come back."""


class NoSuchCall(ServerUnreachable):
    """The server at the address does not know the call."""


class Ids(bytes):
    """Token ids as they stand in JSON, so that no call writes those of a long prompt anew."""

    @classmethod
    def of(cls, ids: Sequence[int]) -> Ids:
        """These ids."""
        return cls(",".join(map(str, ids)).encode())

    def and_then(self, ids: Sequence[int]) -> Ids:
        """These ids and more behind them."""
        return Ids(b",".join(part for part in (self, Ids.of(ids)) if part))

    def but(self, last: int) -> Ids:
        """These ids without so many at the end."""
        return Ids(self.rsplit(b",", last)[0]) if last else self


@dataclass(frozen=True)
class Link:
    """The requests of one scope to a server, or to a router and the servers behind it."""

    url: str
    name: str
    """What the server is called in messages, such as ``the base server``."""
    pool: urllib3.PoolManager
    headers: Mapping[str, str]
    watch: Watch
    scope: Scope
    read_s: float = READ_S
    """Seconds without any answer after which a call is sent again."""
    replicas: tuple[str, ...] = ()
    """The addresses of the servers behind a router; empty without a router."""

    @classmethod
    def to(cls, url: str, name: str, *, api_key: str | None, read_s: float, scope: Scope) -> Link:
        """A server at an address; nothing is requested yet.

        Raises:
            UsageError: the address or the key has the wrong form.
        """
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"`{url}` is not the address of a server", hint="it looks like `http://127.0.0.1:30000`")
        if api_key and not (api_key.isascii() and api_key.isprintable()):  # the HTTP client's own complaint shows it
            raise UsageError("the API key has a character that no key can have", hint="is there a line break in it?")
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {api_key}"} if api_key else {}
        url, pool = url.rstrip("/"), connections()

        def is_there() -> bool:
            try:
                response = pool.request("GET", f"{url}/health", headers=headers, timeout=HEALTH_S)
            except HTTPError:
                return False
            return bool(response.status == HTTPStatus.OK)

        # A server that has never been there is rather a mistyped address than one that will be back.
        watch = Watch(f"{name} at {url}", is_there, limit_s=0)
        return cls(url, name, pool, headers, watch, scope, read_s)

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses of the servers that generate: those behind the router, or the server itself."""
        return self.replicas or (self.url,)

    def get(self, path: str) -> Any:
        """The JSON response to a GET request."""
        return self.persist(lambda: self._once("GET", path))[0]

    def post(self, path: str, body: dict[str, Any] | None) -> Any:
        """The JSON response to a POST request."""
        return self.persist(lambda: self._once("POST", path, body))[0]

    def once(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON response to a POST request, in one attempt, as part of one that `persist` repeats."""
        return self._once("POST", path, body)

    def ask(self, request: dict[str, Any]) -> Any:
        """One attempt at a generation, for `persist`."""
        return self._once("POST", _GENERATE, request)

    def persist(self, attempt: Callable[[], T]) -> tuple[T, dict[str, Any]]:
        """Repeat an attempt as long as that can help; returns its result, and facts about it for the trace.

        The seconds are those of the attempt that succeeded; retries and lost seconds are listed apart.
        """
        began = time.perf_counter()
        notices: list[str] = []
        while True:
            self.scope.check()
            sent = time.perf_counter()
            try:
                result = attempt()
            except (Hiccup, Away) as error:
                notices.append(f"sent again: {error}")
                self._go_on_after(error, len(notices))
            else:
                made = {"wall_s": time.perf_counter() - sent}
                lost = {"retries": len(notices), "lost_s": sent - began, "notices": notices}
                return result, made | lost if notices else made

    def stream(self, request: dict[str, Any]) -> Generator[dict[str, Any]]:
        """One attempt at a generation, as a stream of responses; closing the stream aborts the generation.

        Raises:
            Hiccup: the stream breaks off.
            CallRefused: the server does not take the request.
        """
        body = {"rid": uuid.uuid4().hex, **request, "stream": True}
        rid = body["rid"]
        with self.scope.flying(rid, self.abort), self._sent("POST", _GENERATE, body, preload=False) as response:
            lines, done, is_read = iter(response), False, False
            try:
                for line in lines:
                    if done := line.strip() == b"data: [DONE]":
                        is_read = read_out(response, lines)
                        break
                    self._silence_limit()
                    if line.startswith(b"data:"):
                        chunk = json.loads(line[5:])
                        if failed := _failed(chunk):
                            raise self._refused(*failed)
                        yield chunk
            except GeneratorExit:
                self.abort(rid)
                raise
            except HTTPError as error:
                raise self._failure(error) from error
            except (ValueError, TypeError) as error:
                raise Hiccup(f"{self.name} streamed something that is not JSON") from error
            finally:
                # What has not been read to its end must not be taken for the answer to the next request.
                response.release_conn() if is_read else response.close()
            if not done:
                raise Hiccup(f"{self.name} ended a response in the middle")

    def abort(self, rid: str) -> None:
        """Ask the server to stop working on a request; no answer is no error."""
        self.tell("/abort_request", {"rid": rid})  # one of a router's servers has it

    def tell(self, path: str, body: dict[str, Any]) -> None:
        """Tell all servers something, whether they hear it or not, even in a scope that is over."""
        for server in self.servers:
            with suppress(HTTPError):
                self.pool.request("POST", server + path, json=body, headers=self.headers, timeout=HEALTH_S)

    def send(self, method: str, path: str) -> None:
        """Send a request whose response does not matter."""

        def attempt() -> None:
            with self._sent(method, path, None):
                pass

        self.persist(attempt)

    def _go_on_after(self, error: Hiccup | Away, failures: int) -> None:
        """Wait until the failed call may be sent again.

        Raises:
            ServerUnreachable: the server stays away.
            CallFailed: the server answers, but this call has failed too often or was cancelled.
        """
        self.scope.check()
        there = not isinstance(error, Away) or self.watch.wait(self.scope)
        self.scope.check()
        if not there:
            raise error
        if failures >= ATTEMPTS:
            raise CallFailed(f"sent {failures} times in vain; the last time {error}") from error
        # Let the server breathe: twice as long each time, and no two callers alike.
        self.scope.wait(_FIRST_PAUSE_S * 2 ** (failures - 1) * random.uniform(0.5, 1.0))

    def _once(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        with ExitStack() as flying:
            if path == _GENERATE and body:
                rids = [uuid.uuid4().hex for _ in range(_size(body))]
                for rid in rids:
                    flying.enter_context(self.scope.flying(rid, self.abort))
                # A server takes one name for several prompts too, but aborts none of them by it.
                body = {"rid": rids if _is_several(body) else rids[0], **body}
            response = flying.enter_context(self._sent(method, path, body))
            try:
                return response.json()
            except ValueError as error:
                msg = f"{self.name} at {self.url} answered `{path}` with something that is not JSON"
                raise Hiccup(msg) from error

    @contextmanager
    def _sent(
        self, method: str, path: str, body: dict[str, Any] | None, *, preload: bool = True
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send a request; while the block runs, its scope can break off the response."""
        call, sent = Call(), time.monotonic()
        with self.scope.waiting(call.break_off):
            try:
                with call.making():
                    response = self.pool.request(
                        method,
                        (self.url if path in _ROUTED else self.servers[0]) + path,
                        body=None if body is None else _encoded(body),
                        headers=self.headers,
                        preload_content=preload,
                        timeout=urllib3.Timeout(connect=CONNECT_S, read=self._silence_limit()),
                    )
            except HTTPError as error:
                raise self._failure(error) from error
            if response.status not in PASSING:
                self.watch.heard(sent)
            if response.status != HTTPStatus.OK:
                raise self._refusal(path, response)
            yield response

    def _silence_limit(self) -> float:
        """Seconds for which the server may send nothing, from now on."""
        left = self.scope.left()
        return self.read_s if left is None else min(left, self.read_s)

    def _failure(self, error: Exception) -> SpecReasonError:
        if isinstance(error, ReadTimeoutError):
            self._silence_limit()
            return Hiccup(f"{self.name} at {self.url} fell silent")
        if isinstance(error, NewConnectionError | ConnectTimeoutError):
            return Away(f"{self.name} at {self.url} does not answer", hint=LAUNCH_HINT)
        if isinstance(error, ProtocolError):
            return Away(f"{self.name} at {self.url} broke the connection", hint=LAUNCH_HINT)
        return CallFailed(f"{self.name} at {self.url} cannot be used: {error}")

    def _refusal(self, path: str, response: urllib3.BaseHTTPResponse) -> SpecReasonError:
        try:
            detail = _detail(response.json())
        except (ValueError, HTTPError):
            detail = f"status {response.status}"
        if response.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return UsageError(f"{self.name} at {self.url} refuses the API key", hint="give it with `--api-key`")
        if response.status == HTTPStatus.NOT_FOUND:
            return NoSuchCall(
                f"{self.name} at {self.url} has no `{path}`: it is no SGLang server, or an old one", hint=LAUNCH_HINT
            )
        return self._refused(response.status, detail)

    def _refused(self, status: int, detail: str) -> CallFailed:
        if status in PASSING:
            return Hiccup(f"{self.name} failed with status {status}: {detail}")
        return CallRefused(f"{self.name} refused a call: {detail}")


def both(*made: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that `Link.persist` tells, of several attempts that make up one call."""
    told: dict[str, Any] = {name: sum(each.get(name, 0) for each in made) for name in ("wall_s", "retries", "lost_s")}
    told["notices"] = [notice for each in made for notice in each.get("notices", ())]
    return {name: value for name, value in told.items() if value or name == "wall_s"}


def _failed(chunk: Any) -> tuple[int, str] | None:
    """The status and the reason of a failure that a server reports within a stream; None if the chunk is none.

    Raises:
        TypeError: the chunk is no object.
    """
    match chunk:
        case {"error": {"code": int(status)}}:
            return status, _detail(chunk)
        case {"error": _}:
            return HTTPStatus.INTERNAL_SERVER_ERROR, _detail(chunk)
        case {"meta_info": {"finish_reason": {"type": "abort", "status_code": int(status), "message": reason}}}:
            return status, _detail(reason)
        case dict():
            return None
    raise TypeError("a chunk of a stream is no object")


def _encoded(body: Mapping[str, Any]) -> bytes:
    """A request's body."""
    ids = body.get("input_ids")
    if isinstance(ids, Ids):
        written = b"[" + ids + b"]"
    elif isinstance(ids, list) and ids and isinstance(ids[0], Ids):
        written = b"[[" + b"],[".join(ids) + b"]]"
    else:
        return json.dumps(body).encode()
    rest = json.dumps({name: value for name, value in body.items() if name != "input_ids"}).encode()
    return rest.removesuffix(b"}") + b', "input_ids": ' + written + b"}"


def _is_several(request: Mapping[str, Any]) -> bool:
    """Whether a request has several prompts."""
    ids = request.get("input_ids") or [0]
    return isinstance(request.get("text"), list) or isinstance(ids[0], list | Ids)


def _size(request: Mapping[str, Any]) -> int:
    """How many prompts a request has."""
    return len(request.get("text") or request["input_ids"]) if _is_several(request) else 1


def _detail(error: Any) -> str:
    """The error message in a server's response, on one line of limited length."""
    error = error.get("error", error) if isinstance(error, dict) else error
    detail = error.get("message") or error.get("detail") or error if isinstance(error, dict) else error
    return " ".join(whole(str(detail)).split())[:300]
