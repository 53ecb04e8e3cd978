"""SGLang's router in place of a server: what it passes on, and what its servers are asked for directly."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sglang as sgl

from specreason_sgl.embedded import BASE, SMALL
from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.engine.transport import Transport
from specreason_sgl.errors import ServerUnreachable
from specreason_sgl.evaluation.job import Job
from specreason_sgl.evaluation.modes import concurrency_that_fits
from specreason_sgl.events import CallMade
from specreason_sgl.lang.loading import load
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.scope import Scope
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem
from specreason_sgl.servers import pairs
from specreason_sgl.settings import Settings

META = {"prompt_tokens": 3, "cached_tokens": 2, "completion_tokens": 1, "finish_reason": {"type": "stop"}}


class Fake:
    """Answers GETs and POSTs from a table, and says 404 to the rest."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.asked: list[str] = []
        self.answers = answers
        asked = self.asked

        class Served(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or every reply waits 40 ms between its head and its body

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                asked.append(self.path)
                answer = answers.get(self.path)
                raw = json.dumps(answer(body) if callable(answer) else answer or {}).encode()
                self.send_response(404 if answer is None else 200)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def turns(body: dict[str, Any]) -> dict[str, Any]:
    text = body.get("prompt") or "".join(f"<{m['role']}>{m['content']}" for m in body["messages"]) + "<assistant>"
    return {"tokens": [ord(c) for c in text]}


def spelt(tokens: list[Any]) -> Any:
    return [spelt(each) for each in tokens] if isinstance(tokens[0], list) else "".join(map(chr, tokens))


SERVER = {
    "/model_info": {"model_path": "m"},
    "/server_info": {"max_total_tokens": 5000, "max_running_requests": 4},
    "/tokenize": turns,
    "/detokenize": lambda body: {"text": spelt(body["tokens"])},
    "/abort_request": {},
}


@pytest.fixture
def replicas() -> Iterator[tuple[Fake, Fake, Fake]]:
    first, second = Fake(SERVER), Fake(SERVER)
    workers = {"workers": [{"url": first.url}, {"url": second.url}], "total": 2}
    router = Fake({"/workers": workers, "/generate": {"text": "hi", "meta_info": META}, "/flush_cache": {}})
    yield router, first, second
    for one in (router, first, second):
        one.stop()


@sgl.function
def program(s: Any) -> None:
    s += sgl.gen("text", max_tokens=3)


def test_what_the_router_does_not_pass_on_is_asked_of_a_server(replicas: tuple[Fake, Fake, Fake]) -> None:
    router, first, second = replicas
    endpoint = Endpoint(router.url, "base")

    assert program.run(backend=endpoint)["text"] == "hi"
    assert endpoint.model_info == {"model_path": "m"}
    assert endpoint.chat.before == "<user>"
    assert router.asked == ["/model_info", "/workers", "/generate", "/generate"]
    assert set(first.asked) == {"/model_info", "/server_info", "/v1/models", "/tokenize", "/detokenize"}
    assert second.asked == []


def test_a_call_is_given_up_on_all_servers_since_one_of_them_has_it(replicas: tuple[Fake, Fake, Fake]) -> None:
    router, first, second = replicas
    chance = Scope().child()
    speculating = Endpoint(router.url, "base").within(chance)

    def give_up(_: object) -> dict[str, Any]:
        chance.cancel()
        return {"text": "hi", "meta_info": META}

    router.answers["/generate"] = give_up
    assert program.run(backend=speculating)["text"] == "hi"

    assert first.asked[-1] == second.asked[-1] == "/abort_request"
    assert "/abort_request" not in router.asked


def test_caches_are_emptied_through_the_router_which_tells_all_servers(replicas: tuple[Fake, Fake, Fake]) -> None:
    router, *_ = replicas
    Endpoint(router.url, "base").flush_cache()

    assert router.asked[-1] == "/flush_cache"


def test_replicas_hold_as_many_solves_more(replicas: tuple[Fake, Fake, Fake]) -> None:
    router, first, _ = replicas
    job = Job.model_validate(
        {"name": "j", "dataset": {"name": "stories"}, "settings": {"budget": 512}, "modes": [{"kind": "base"}]}
    )
    alone = concurrency_that_fits([Endpoint(first.url, "base").server_info()], job)
    told = Endpoint(router.url, "base").server_info()

    assert told["replicas"] == 2
    assert concurrency_that_fits([told], job) == 2 * alone


def test_a_router_without_servers_is_told() -> None:
    router = Fake({"/workers": {"workers": [], "total": 0}})
    try:
        with pytest.raises(ServerUnreachable, match="has no base server yet"):
            Endpoint(router.url, "base")
    finally:
        router.stop()


def test_who_is_neither_server_nor_router_is_told() -> None:
    stranger = Fake({"/workers": ["not SGLang's"]})
    try:
        with pytest.raises(ServerUnreachable, match="it is no SGLang server"):
            Endpoint(stranger.url, "base")
    finally:
        stranger.stop()


# The real one


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pairs.RunningPair]:
    """The embedded pair with two servers of each model behind SGLang's router."""
    pytest.importorskip("sglang_router", reason="SGLang's router is not installed: the extra `router`")
    with pairs.launch(BASE, SMALL, tmp_path_factory.mktemp("routed"), replicas=2) as running:
        yield running


@pytest.mark.server
@pytest.mark.parametrize("transport", ["text", "ids"])
def test_a_tale_is_solved_through_routers(routed: pairs.RunningPair, transport: Transport) -> None:
    from specreason_sgl.embedded.tales import tale

    told = tale(17)
    pair = Pair(
        Endpoint(routed.base.url, "base", api_key=routed.base.api_key, transport=transport),
        Endpoint(routed.small.url, "small", api_key=routed.small.api_key, transport=transport),
    )
    record = solve(
        Problem(id="tale", question=told.question, answer=str(told.answer)),
        load("specreason"),
        pair,
        Settings(budget=512, temperature=0, top_p=1),
    )

    assert record.tally.outcome != "failed"
    assert record.tally.judged > 0
    assert {event.transport for event in record.events if isinstance(event, CallMade)} == {transport}
    assert {log.name for log in routed.logs.glob("*-router.log")} == {"base-router.log", "small-router.log"}


@pytest.mark.server
def test_behind_a_router_long_prompts_travel_as_ids(routed: pairs.RunningPair) -> None:
    assert Endpoint(routed.base.url, "base", api_key=routed.base.api_key).transport == "ids"


@pytest.mark.server
def test_what_begins_alike_stays_on_one_replica_and_what_does_not_spreads(routed: pairs.RunningPair) -> None:
    endpoint = Endpoint(routed.base.url, "base", api_key=routed.base.api_key)
    endpoint.flush_cache()
    # Long enough that a cache is worth something, and different from the first character on.
    starts = [f"{who} has {who} apples. " * 12 for who in ("Anna", "Bert", "Cora", "Dave", "Emma", "Fred")]

    def ask(text: str) -> int:
        answer = endpoint.complete(text, {"max_new_tokens": 24, "temperature": 0})
        return int(answer["meta_info"]["cached_tokens"])

    def load_of_each() -> list[int]:
        return [worker["load"] for worker in endpoint._link.get("/workers")["workers"]]

    with ThreadPoolExecutor(len(starts)) as pool:
        first = [pool.submit(ask, start) for start in starts]
        loads = [load_of_each() for _ in range(50)]
        cached = [call.result() for call in first]
        again = list(pool.map(ask, [start + "Then " for start in starts]))

    assert max(min(load) for load in loads) > 0
    assert all(later > earlier for earlier, later in zip(cached, again, strict=True))


@pytest.mark.server
def test_replicas_need_their_key(routed: pairs.RunningPair) -> None:
    from specreason_sgl.errors import UsageError

    with pytest.raises(UsageError, match="refuses the API key"):
        Endpoint(routed.base.url, "base", api_key="another")


def test_without_the_router_replicas_are_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from specreason_sgl.cli import servers
    from specreason_sgl.errors import UsageError

    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="replicas need SGLang's router"):
        servers.up(replicas=2)


def test_every_role_gets_a_router_of_its_own() -> None:
    planned = pairs.embedded(BASE, SMALL, replicas=3).lay_out(Path("logs"))
    routers = {server.name: server.arguments[-3:] for server in planned if server.is_router}
    by_name = {server.name: server for server in planned}

    assert routers == {
        f"{role}-router": [by_name[name].url for name in (role, f"{role}-2", f"{role}-3")] for role in ("base", "small")
    }
    assert len({server.port for server in planned}) == len(planned) == 8
