"""A request with tools goes on to the server of one model: no program over two models can call tools."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx
from starlette.responses import Response

from specreason_sgl.serve.chat import EXTENSION
from specreason_sgl.serve.menu import SHORT, Offer
from specreason_sgl.serve.refusals import GONE, error, refused
from specreason_sgl.serve.solves import LEFT
from specreason_sgl.serve.streams import Left, Stream, data, together

if TYPE_CHECKING:
    from fastapi import Request

    from specreason_sgl.api import OpenPair
    from specreason_sgl.engine.backend import Endpoint

CONNECT_S = 10.0
DROPPED = frozenset({"content-length", "transfer-encoding", "connection", "server", "date", "content-encoding"})
"""Headers that belong to one connection."""


def server_for(body: Mapping[str, Any], offers: Mapping[str, Offer], pair: OpenPair) -> Endpoint | None:
    """The server of the model that a request names by itself; None if it names a program over both models."""
    offer = offers.get(str(body.get("model")))
    roles = {program: role for role, program in SHORT.items()}
    return pair.models.get(roles.get(offer.program.name, "")) if offer else None


async def passed_on(request: Request, body: Mapping[str, Any], server: Endpoint) -> Response:
    """The response of the model's own endpoint, unchanged."""
    client = httpx.AsyncClient(timeout=httpx.Timeout(None, connect=CONNECT_S), trust_env=False)
    rid = uuid.uuid4().hex
    told = {**{name: value for name, value in body.items() if name != EXTENSION}, "rid": rid}
    headers = {"Authorization": f"Bearer {server.api_key}"} if server.api_key else {}
    sent = client.build_request("POST", f"{server.url}/v1/chat/completions", json=told, headers=headers)
    answers: list[httpx.Response] = []

    async def left() -> None:
        with suppress(httpx.HTTPError):
            await client.post(f"{server.url}/abort_request", json={"rid": rid}, headers=headers, timeout=CONNECT_S)
        await client.aclose()

    async def ask() -> None:
        answers.append(await client.send(sent, stream=bool(body.get("stream"))))

    try:
        if not await together(ask(), Left(request.receive)):
            await left()
            return refused(GONE, LEFT)
    except httpx.HTTPError as error:
        await client.aclose()
        return refused(503, f"the {server.role} server does not answer: {type(error).__name__}")
    answer = answers[0]
    if body.get("stream") and answer.status_code == HTTPStatus.OK:
        return Stream(_pieces(answer), left, always=True)
    content = await answer.aread()
    await client.aclose()
    return _same(answer, content)


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    except httpx.HTTPError as failed:
        told = error(502, f"the model server broke off: {type(failed).__name__}")
        yield data(json.dumps({"error": told}))
        yield data("[DONE]")


def _same(answer: httpx.Response, content: bytes) -> Response:
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in DROPPED}
    return Response(content, answer.status_code, headers)
