"""What an app serves: a pair's programs under names, the solves, and those who watch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from specreason_sgl.errors import ServerUnreachable, UsageError
from specreason_sgl.packages import identity
from specreason_sgl.serve import HEARTBEAT_S
from specreason_sgl.serve.metrics import Metrics
from specreason_sgl.serve.refusals import as_refused

if TYPE_CHECKING:
    from fastapi import Request

    from specreason_sgl.events import Event
    from specreason_sgl.serve.menu import Offer
    from specreason_sgl.serve.solves import Solves
    from specreason_sgl.serve.streams import Feed

M = TypeVar("M", bound=BaseModel)


@dataclass
class Service:
    """What the app serves; the solves may come later, when the models answer."""

    label: str
    """The pair's name."""
    offers: Mapping[str, Offer]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """The settings for requests that say nothing else."""
    heartbeat_s: float = HEARTBEAT_S
    duplicate_reasoning: bool = False
    """Whether `reasoning_content` is also sent as `reasoning`, unless a request says otherwise."""
    solves: Solves | None = None
    metrics: Metrics | None = None
    why_not: str = "the model servers do not answer yet"
    identity: Sequence[str] = field(default_factory=identity)
    """Which code serves."""
    feeds: set[Feed] = field(default_factory=set)
    """The streams of those who watch, which end when the server stops."""

    def serve(self, solves: Solves) -> None:
        """Take orders from here on."""
        self.metrics = Metrics(solves)
        solves.follow(self.metrics)
        self.solves = solves

    def ready(self) -> Solves:
        """The solves.

        Raises:
            ServerUnreachable: the models do not answer yet.
        """
        if self.solves is None:
            raise ServerUnreachable(self.why_not, hint="send the request again in a little while")
        return self.solves

    def count(self, path: str, status: int) -> None:
        """Count a request."""
        if self.metrics:
            self.metrics.request(path, status)

    @property
    def context(self) -> int | None:
        """The smaller of the models' contexts, in tokens."""
        models = self.solves.pair.models.values() if self.solves else ()
        return min((model.context for model in models if model.context), default=None)


async def body(request: Request) -> dict[str, Any]:
    """The body of a request, which is a JSON object.

    Raises:
        UsageError: it is something else.
    """
    try:
        told = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise UsageError("the body is not JSON") from error
    if not isinstance(told, dict):
        raise UsageError("the body is not a JSON object")
    return told


def read(model: type[M], told: Mapping[str, Any]) -> M:
    """A body in its form.

    Raises:
        UsageError: it has another form; `Refused` names the field.
    """
    try:
        return model.model_validate(told)
    except ValidationError as error:
        raise as_refused(error) from error
    except RecursionError as error:
        raise UsageError("the body is nested too deeply") from error


def into(queue: asyncio.Queue[Any], number: int | None = None) -> Callable[[Event | None], None]:
    """A listener that hands events from any thread to a queue of this loop, with a number if one is given."""
    loop = asyncio.get_running_loop()

    def listen(event: Event | None) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it whoever would read
            loop.call_soon_threadsafe(queue.put_nowait, event if number is None else (number, event))

    return listen
