"""``POST /v1/chat/completions``: a request's solves, and the response that grows with their events."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from specreason_sgl.errors import SpecReasonError
from specreason_sgl.events import Event, TextStreamed
from specreason_sgl.runs.provenance import are_deterministic, describe
from specreason_sgl.serve import chat, onward, refusals
from specreason_sgl.serve.reply import Choice, Completion, Part
from specreason_sgl.serve.service import Service, body, into, read
from specreason_sgl.serve.solves import LEFT, Served, Solves
from specreason_sgl.serve.streams import Left, Stream, comment, data, together

if TYPE_CHECKING:
    from fastapi import Request

    from specreason_sgl.events import SolveFailed
    from specreason_sgl.serve.orders import Order

SIGN_S = 0.5
"""How long a stream waits for its first text before it begins: a failure until then has an HTTP status of its own."""
NO_SEEDS = "the servers do not honour seeds: they would have to run with deterministic inference"
AS_IT_IS = "{problem}"
"""The user's turn of models that were not trained on words of their own: the message and nothing else."""


async def complete(service: Service, request: Request) -> Response:
    """The response to a request."""
    told, solves = await body(request), service.ready()
    if chat.wants_tools(told) and (server := onward.server_for(told, service.offers, solves.pair)):
        return await onward.passed_on(request, told, server)
    unknown = chat.refuse(told)
    asked = read(chat.ChatRequest, told)
    order = _order(service, solves, asked)
    solves.make_room(asked.n)
    await run_in_threadpool(solves.check_length, order)
    notices = [f"not used: {', '.join(unknown)}"] if unknown else []
    if asked.seed is not None and not are_deterministic(await run_in_threadpool(describe, solves.pair.models)):
        notices.append(NO_SEEDS)
    duplicate = asked.specreason.duplicate_reasoning
    completion = Completion(
        order.id,
        asked.model,
        duplicate=service.duplicate_reasoning if duplicate is None else duplicate,
        separate=asked.separate_reasoning,
    )
    orders = [order.again(number) for number in range(asked.n)]
    work = Work(solves, asked, orders, completion, notices)
    return await (work.streamed(service.heartbeat_s) if asked.stream else work.whole(request))


def _order(service: Service, solves: Solves, asked: chat.ChatRequest) -> Order:
    offer = chat.chosen(service.offers, asked.model)
    own = solves.pair.defaults
    defaults = {**own, **({} if own else {"instruction": AS_IT_IS}), **service.defaults}
    return chat.order(asked, f"chatcmpl-{secrets.token_hex(12)}", offer, defaults, service.context)


class Work:
    """The solves of one request."""

    def __init__(
        self,
        solves: Solves,
        asked: chat.ChatRequest,
        orders: Sequence[Order],
        completion: Completion,
        notices: Sequence[str],
    ) -> None:
        """Begin them.

        Args:
            solves: where.
            asked: the request.
            orders: one for each choice.
            completion: the response in the making.
            notices: what the client should know besides.

        Raises:
            Full: others were faster.
        """
        self._solves, self._asked, self._orders, self._completion = solves, asked, orders, completion
        self._notices = notices
        self._events: asyncio.Queue[tuple[int, Event | None]] = asyncio.Queue()
        self._waiting: deque[tuple[int, Event | None]] = deque()
        """What was taken from the queue too early."""
        control = solves.control
        self._choices = [
            Choice(order.settings.delimiter, control, reasoning_at_once=not asked.stream_reasoning) for order in orders
        ]
        self._served: list[Served] = []
        try:
            for number, order in enumerate(orders):
                hear = into(self._events, number)
                listener = hear if asked.stream else partial(self._add, number, hear)
                self._served.append(solves.begin(order, listener))
        except SpecReasonError:
            for served in self._served:
                solves.cancel(served)
            raise
        self._prompt_tokens = 0
        self._counting: asyncio.Future[int] | None = None
        if not asked.stream or asked.wants_usage or self._counts_on:
            # It is wanted at the end, so nobody waits for it before.
            self._counting = asyncio.ensure_future(run_in_threadpool(solves.prompt_tokens, orders[0]))
            self._counting.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _add(self, number: int, hear: Callable[[Event | None], None], event: Event | None) -> None:
        """Add an event to a choice that nobody watches; only its end, or its failure, is worth waking the loop for."""
        choice = self._choices[number]
        if event is None:
            hear(None)
            return
        for _ in choice.add(event):
            pass
        if choice.failure:
            hear(None)

    async def _count(self) -> None:
        """Wait for the tokens of the conversation."""
        if self._counting is None:
            return
        try:
            self._prompt_tokens = await self._counting
        except SpecReasonError as error:
            self._notices = [*self._notices, f"the tokens of the prompt were not counted: {error}"]

    async def whole(self, request: Request) -> Response:
        """The response in one piece."""
        if not await together(self._all(), Left(request.receive)):
            await self.left()
            return refusals.refused(refusals.GONE, LEFT)
        if failure := self._failure:
            await self.left()
            return refusals.failed(failure)
        await self._count()
        known = [self._facts(number) for number in range(len(self._choices))]
        return JSONResponse(self._completion.whole(self._prompt_tokens, self._choices, known))

    async def streamed(self, heartbeat_s: float) -> Response:
        """The response as it comes; it begins when there is something to say, or soon."""
        lines = self._lines()
        first = asyncio.ensure_future(anext(lines))
        await asyncio.wait({first}, timeout=SIGN_S)
        if first.done() and first.result() is None and self._failure:
            await lines.aclose()
            return refusals.failed(self._failure)

        async def all_lines() -> AsyncIterator[bytes]:
            for number in range(len(self._choices)):
                yield _json(self._completion.first(number))
            line = first
            while True:
                await asyncio.wait({line}, timeout=heartbeat_s)
                if not line.done():
                    yield comment()
                    continue
                try:
                    yield line.result() or b""
                except StopAsyncIteration:
                    return
                line = asyncio.ensure_future(anext(lines))

        return Stream(all_lines(), self.left)

    async def left(self) -> None:
        """The client has gone, or one choice has failed: end all of its solves."""
        await asyncio.gather(*(run_in_threadpool(self._solves.cancel, served, LEFT) for served in self._served))

    async def _lines(self) -> AsyncGenerator[bytes | None, None]:
        """The messages; None stands in front of a failure that comes before there was any text."""
        said = False
        if self._counts_on:
            await self._count()
        for _ in self._choices:
            ended = False
            while not ended:
                number, event = await self._next()
                choice = self._choices[number]
                for part, text in self._pieces(number, event):
                    said = True
                    yield _json(self._counted(self._completion.piece(number, part, text)))
                if failure := choice.failure:
                    if not said:
                        yield None
                    await self.left()
                    told = refusals.error(refusals.status_of(failure), failure.error, failure.hint)
                    yield data(json.dumps({"error": told}))
                    yield data("[DONE]")
                    return
                if ended := event is None:
                    yield _json(self._counted(self._completion.last(number, choice, self._facts(number))))
        if self._asked.wants_usage:
            await self._count()
            yield _json(self._completion.usage(self._prompt_tokens, self._choices))
        yield data("[DONE]")

    async def _next(self) -> tuple[int, Event | None]:
        """The next event, of whichever choice."""
        return self._waiting.popleft() if self._waiting else await self._events.get()

    def _pieces(self, number: int, event: Event | None) -> Iterator[tuple[Part, str]]:
        """What an event brings, with what is here already behind it: one chunk where it is one part."""
        if event is None:
            return
        found = list(self._choices[number].add(event))
        while not self._waiting and not self._events.empty():
            other, behind = self._events.get_nowait()
            if other != number or not isinstance(behind, TextStreamed):
                self._waiting.append((other, behind))
                break
            found += self._choices[number].add(behind)
        for part, pieces in groupby(found, key=itemgetter(0)):
            yield part, "".join(text for _, text in pieces)

    async def _all(self) -> None:
        """Wait until all choices have ended, or one has failed."""
        ended = set[int]()
        while len(ended) < len(self._choices) and not self._failure:
            ended.add((await self._events.get())[0])

    @property
    def _failure(self) -> SolveFailed | None:
        return next((choice.failure for choice in self._choices if choice.failure), None)

    def _facts(self, number: int) -> dict[str, Any]:
        """What the account of a choice says besides its costs."""
        order = self._orders[number]
        return {
            "id": order.id,
            "program": order.program.name,
            "parameters": order.given,
            "budget": order.settings.budget,
            "answer_tokens": order.settings.answer_tokens,
            "notices": [*self._notices, *self._choices[number].notices],
        }

    @property
    def _counts_on(self) -> bool:
        options = self._asked.stream_options
        return options is not None and options.continuous_usage_stats

    def _counted(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """The chunk with the usage so far, where the client asked for it."""
        if not self._counts_on:
            return chunk
        return {**chunk, "usage": self._completion.usage(self._prompt_tokens, self._choices)["usage"]}


def _json(chunk: Mapping[str, Any]) -> bytes:
    return data(json.dumps(chunk, ensure_ascii=False, separators=(",", ":")))
