"""``/v1/solves``: the typed events of solves as they are stored, for commands and the page."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from specreason_sgl.errors import UsageError
from specreason_sgl.events import Event, TextStreamed
from specreason_sgl.runs.provenance import versions
from specreason_sgl.runs.store import Problem, as_stored
from specreason_sgl.serve import chat, refusals
from specreason_sgl.serve.orders import Order, SolveRequest
from specreason_sgl.serve.service import Service, body, into, read
from specreason_sgl.serve.solves import NoSuchSolve, Served, Solves
from specreason_sgl.serve.streams import Feed, Stream, comment, data, named
from specreason_sgl.view.page import LivePage

CANCELLED = "somebody cancelled it"
QUESTION = 200
"""The most characters of a question in the list."""


def routes(made: FastAPI, service: Service) -> None:
    """Add the surface to an app."""

    @made.post("/v1/solves")
    async def begin(request: Request) -> Response:
        solves = service.ready()
        asked = read(SolveRequest, await body(request))
        order = _order(service, solves, asked)
        solves.make_room()
        renders = _renders(request)
        # A page shows what grows.
        served = solves.begin(order.streaming() if renders else order)
        return await Trace(service, served, renders=renders, streams=asked.stream, is_owned=True).response()

    @made.get("/v1/solves")
    async def solves(request: Request) -> Response:
        if request.query_params.get("follow") in {"true", "1"}:
            return _follow(service)
        found = service.ready()
        counts = {state: found.count(state) for state in ("waiting", "running")}
        return JSONResponse({"object": "list", "data": [_row(served) for served in found.all()], **counts})

    @made.get("/v1/solves/{name}")
    async def look(name: str, request: Request) -> Response:
        served = _found(service.ready(), name)
        if "application/json" not in request.headers.get("accept", ""):
            return await Trace(service, served, renders=_renders(request)).response()
        if served.record is None:
            return refusals.refused(409, f"the solve `{served.id}` has not ended", "open it as a stream")
        return Response(as_stored(served.record), media_type="application/json")

    @made.delete("/v1/solves/{name}")
    async def cancel(name: str) -> Response:
        found = service.ready()
        served = _found(found, name)
        await run_in_threadpool(found.cancel, served, CANCELLED)
        return JSONResponse({"id": served.id, "object": "solve", "deleted": True})


def _renders(request: Request) -> bool:
    return request.query_params.get("render") == "html"


def _order(service: Service, solves: Solves, asked: SolveRequest) -> Order:
    offer = chat.chosen(service.offers, asked.program)
    name = f"solve-{secrets.token_hex(8)}"
    if not asked.question.strip():
        raise UsageError("the question is empty")
    problem = Problem(
        id=asked.id or name,
        question=asked.question,
        answer=asked.answer,
        choice=asked.choice,
        earlier=tuple(asked.earlier),
    )
    settings = solves.pair.settings({**service.defaults, **asked.settings})
    return Order.of(name, offer, problem, settings, asked.parameters, stream=asked.stream)


@dataclass
class Trace:
    """A solve as a stream."""

    service: Service
    served: Served
    renders: bool = False
    """Whether the stream is parts of a page and not events."""
    streams: bool = True
    """Whether text is sent while it is generated."""
    is_owned: bool = False
    """Whether the solve ends when its reader leaves."""

    async def response(self) -> Response:
        """The stream, from the first event on."""
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        self.served.listen(into(events))
        if self.renders:  # a page repeats nothing, so the servers need not be asked what they are
            return Stream(self._pages(events), self.left)
        try:
            facts = await run_in_threadpool(self.service.ready().facts, self.served.order)
        except BaseException:
            await self.left()
            raise
        return Stream(self._events(events, facts), self.left)

    async def left(self) -> None:
        """The reader has gone."""
        if self.is_owned:
            await run_in_threadpool(self.service.ready().cancel, self.served)

    async def _events(self, events: asyncio.Queue[Event | None], facts: Mapping[str, Any]) -> AsyncIterator[bytes]:
        yield named("opened", json.dumps(_told(self.service, self.served, facts)))
        async for event in _until_none(events, self.service.heartbeat_s):
            if event is None:
                yield comment()
            elif self.streams or not isinstance(event, TextStreamed):
                yield data(as_stored(event))

    async def _pages(self, events: asyncio.Queue[Event | None]) -> AsyncIterator[bytes]:
        shown = LivePage()
        async for event in _until_none(events, self.service.heartbeat_s):
            if event is None:
                yield comment()
                continue
            for part in shown.add(event):
                yield named("part", json.dumps(part))
        yield named("closed", "{}")


async def _until_none(queue: asyncio.Queue[Any], silence_s: float) -> AsyncIterator[Any]:
    """What a queue brings until it brings None; a None in between says that nothing came for so long."""
    while True:
        try:
            async with asyncio.timeout(silence_s):  # `wait_for` drops a cancellation that comes together with an item
                came = await queue.get()
        except TimeoutError:
            yield None
            continue
        if came is None:
            return
        yield came


def _told(service: Service, served: Served, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a solve before it has begun."""
    order = served.order
    return {
        "id": served.id,
        "problem_id": order.problem.id,
        "program": order.program.name,
        "mode": order.mode,
        "seed": order.settings.seed,
        "started": served.created.isoformat(),
        "pair": service.label,
        "settings": order.settings.model_dump(mode="json"),
        "versions": versions(),
        **facts,
    }


def _follow(service: Service) -> Response:
    """Everything that happens on the server."""
    solves, feed = service.ready(), Feed()
    leave = solves.follow(feed)
    service.feeds.add(feed)

    async def lines() -> AsyncIterator[bytes]:
        hello = {"pair": service.label, "since": solves.since.isoformat(), "ended": solves.ended}
        yield named("hello", json.dumps(hello))
        line: Callable[[], bytes] | None
        async for line in _until_none(feed.lines, service.heartbeat_s):
            yield line() if line else comment()

    async def left() -> None:
        leave()
        service.feeds.discard(feed)

    return Stream(lines(), left, always=True)


def _found(solves: Solves, name: str) -> Served:
    if (served := solves.find(name)) is None:
        raise NoSuchSolve(f"there is no solve `{name[:100]}`, or it was too long ago")
    return served


def _row(served: Served) -> dict[str, Any]:
    tally = served.tally
    return {
        "id": served.id,
        "problem_id": served.order.problem.id,
        "question": served.order.problem.question[:QUESTION],
        "program": served.order.offer.name,
        "mode": served.order.mode,
        "state": served.state,
        "created": served.created.isoformat(),
        "seconds": round(served.age, 3),
        "steps": sum(tally.steps.values()),
        "tokens": tally.thinking_tokens,
        "acceptance": tally.acceptance,
        "outcome": tally.outcome,
        "answer": tally.answer,
    }
