"""The endpoint as a FastAPI app: the OpenAI-compatible surface, and the harness's own beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from specreason_sgl import __version__
from specreason_sgl.errors import SpecReasonError
from specreason_sgl.serve import chat, own, page, refusals
from specreason_sgl.serve.completions import complete
from specreason_sgl.serve.guards import Guards

if TYPE_CHECKING:
    from specreason_sgl.serve.menu import Offer
    from specreason_sgl.serve.service import Service

NOT_HERE = ("completions", "responses", "embeddings", "messages")
"""Surfaces of other protocols, which are refused with a pointer."""


def app(service: Service, key: str | None, *, origins: Sequence[str] = ()) -> FastAPI:
    """The app.

    Args:
        service: what it serves.
        key: what clients have to know; None lets everybody in.
        origins: the web pages that browsers may call from.
    """
    made = FastAPI(title="specreason", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    made.add_middleware(Guards, key=key, told=service.count)
    if origins:
        made.add_middleware(
            CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"], max_age=600
        )
    for kind in (SpecReasonError, ValidationError, ClientDisconnect, HTTPException, Exception):
        made.add_exception_handler(kind, refusals.answer)

    @made.post("/v1/chat/completions")
    async def completions(request: Request) -> Response:
        return await complete(service, request)

    for name in NOT_HERE:
        made.add_api_route(f"/v1/{name}", _elsewhere, methods=["POST"])
    _about(made, service)
    own.routes(made, service)
    page.routes(made)
    return made


async def _elsewhere() -> Response:
    return refusals.refused(400, "this surface is not served", "use `/v1/chat/completions`")


def _about(made: FastAPI, service: Service) -> None:
    """What the server says of itself."""

    @made.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_card(service, offer) for offer in service.offers.values()]}

    @made.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return _card(service, chat.chosen(service.offers, name))

    @made.get("/health")
    async def health() -> Response:
        told = {"pair": service.label, "version": __version__, "identity": list(service.identity)}
        try:
            await run_in_threadpool(service.ready().ask_models)
        except SpecReasonError as error:
            return JSONResponse({**told, "status": "away", "hint": str(error)}, 503)
        return JSONResponse({**told, "status": "ok"})

    @made.get("/metrics")
    async def metrics() -> Response:
        service.ready()
        text = service.metrics.text() if service.metrics else b""
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _card(service: Service, offer: Offer) -> dict[str, Any]:
    return {
        "id": offer.name,
        "object": "model",
        "created": int(service.solves.since.timestamp()) if service.solves else 0,
        "owned_by": "specreason_sgl",
        "root": offer.program.name,
        "parent": None,
        "max_model_len": service.context,
        "description": offer.program.meaning,
    }
