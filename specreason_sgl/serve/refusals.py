"""What a client is told when something cannot be done, in the shapes of SGLang's own endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from specreason_sgl.errors import CallRefused, ServerUnreachable, SpecReasonError, UsageError
from specreason_sgl.lang.scope import OUT_OF_TIME
from specreason_sgl.serve.chat import NoSuchModel, Refused
from specreason_sgl.serve.solves import LEFT, Full, NoSuchSolve
from specreason_sgl.tables import complaint

if TYPE_CHECKING:
    from fastapi import Request

    from specreason_sgl.events import SolveFailed

RETRY_S = 2
"""When a client that was sent away shall come again."""
GONE = 499
"""The status of a request whose client has left, for the record: nobody reads it."""
STATUS = (
    (NoSuchSolve, 404),
    (Full, 429),
    (ServerUnreachable, 503),
    (UsageError, 400),
    (CallRefused, 400),
)
"""The status of each kind of error; the first that fits."""
BAD_GATEWAY = 502
"""The status of all others: a model has failed a solve."""
_KINDS = {401: "AuthenticationError", 404: "NotFoundError", 429: "RateLimitError", 503: "ServiceUnavailableError"}
_INTERNAL = 500


def error(status: int, message: str, hint: str | None = None, param: str | None = None) -> dict[str, Any]:
    """An error as SGLang writes it; ours may have a hint."""
    kind = _KINDS.get(status, "BadRequestError" if status < _INTERNAL else "InternalServerError")
    told = {"object": "error", "message": message, "type": kind, "param": param, "code": status}
    return {**told, "hint": hint} if hint else told


def refused(status: int, message: str, hint: str | None = None, param: str | None = None) -> Response:
    """A response that is an error."""
    more = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": str(RETRY_S)}, 503: {"Retry-After": str(RETRY_S)}}
    return JSONResponse(error(status, message, hint, param), status, more.get(status))


def status_of(failure: SolveFailed) -> int:
    """The status of a solve that failed before anything was sent."""
    if failure.error == OUT_OF_TIME:
        return 504
    kinds = {ServerUnreachable.exit_code: 503, UsageError.exit_code: 400}
    return kinds.get(failure.exit_code, BAD_GATEWAY)


def failed(failure: SolveFailed) -> Response:
    """The response to a request whose solve has failed."""
    return refused(status_of(failure), failure.error, failure.hint)


async def answer(_request: Request, raised: Exception) -> Response:
    """The response to a request that raised an exception."""
    if isinstance(raised, NoSuchModel):
        told = {"message": str(raised), "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
        return JSONResponse({"error": told}, 404)
    if isinstance(raised, HTTPException):
        return refused(raised.status_code, str(raised.detail))
    if isinstance(raised, ClientDisconnect):
        return refused(GONE, LEFT)
    if isinstance(raised, ValidationError):
        raised = as_refused(raised)
    if not isinstance(raised, SpecReasonError):
        return refused(_INTERNAL, f"{type(raised).__name__}: this should not have happened")
    status = next((status for kind, status in STATUS if isinstance(raised, kind)), BAD_GATEWAY)
    return refused(status, str(raised), raised.hint, raised.param if isinstance(raised, Refused) else None)


def as_refused(found: ValidationError) -> Refused:
    """The first complaint about a body, with the name of its field; no path of this machine is in it."""
    first = found.errors()[0]
    return Refused(str(first["loc"][0]) if first["loc"] else "body", complaint(first))
