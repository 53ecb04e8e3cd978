"""A server of the endpoint in this process, for tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from specreason_sgl.api import OpenPair
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.scope import Scope
from specreason_sgl.serve.menu import menu
from specreason_sgl.serve.running import Server, config, listening
from specreason_sgl.serve.service import Service
from specreason_sgl.serve.solves import Solves
from specreason_sgl.servers.opening import PairOptions

KEY = "open-sesame"


@dataclass
class Served:
    """A server that runs, and a client of it."""

    url: str
    service: Service
    http: httpx.Client
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {KEY}"})

    @property
    def solves(self) -> Solves:
        return self.service.ready()

    def ask(self, question: str | list[dict[str, Any]], **fields: Any) -> httpx.Response:
        """A chat completion."""
        messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
        return self.http.post("/v1/chat/completions", json={"messages": messages, "model": "specreason", **fields})

    def streamed(self, question: str, **fields: Any) -> list[dict[str, Any]]:
        """The chunks of a chat completion that streams."""
        return chunks(self.ask(question, stream=True, **fields).text)


def chunks(text: str) -> list[dict[str, Any]]:
    """The messages of a stream of a chat completion, which has to end as it should."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def text_of(found: list[dict[str, Any]], part: str, index: int = 0) -> str:
    """What a part of the deltas of a choice comes to."""
    choices = [choice for chunk in found for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get(part) or "" for choice in choices)


def messages(text: str) -> list[tuple[str, Any]]:
    """The messages of a stream of the harness's own surface, each with its kind."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        told = dict(line.split(": ", 1) for line in lines)
        if "data" in told:
            found.append((told.get("event", "message"), json.loads(told["data"])))
    return found


@contextmanager
def serving(
    pair: Pair[Any],
    *,
    aliases: tuple[str, ...] = (),
    label: str = "embedded",
    origins: tuple[str, ...] = (),
    defaults: dict[str, Any] | None = None,
    heartbeat_s: float = 15.0,
    **options: Any,
) -> Iterator[Served]:
    """Serve a pair at a free port, with `Solves`' options."""
    scope = Scope()
    named = PairOptions() if label == "embedded" else PairOptions(base="http://127.0.0.1:1", name=label)
    models = {role: model.within(scope) for role, model in pair.models.items()}
    opened = OpenPair(models.get("base"), models.get("small"), {}, named, scope)
    service = Service(label, menu(aliases), defaults or {}, heartbeat_s=heartbeat_s)
    service.serve(Solves(opened, **options))
    bound = listening("127.0.0.1", 0)
    server = Server(config(service, KEY, origins=origins, grace_s=5), service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    try:
        with httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=120, trust_env=False
        ) as http:
            yield Served(url, service, http)
    finally:
        server.handle_exit(15, None)
        thread.join()
        service.ready().close()
