"""What the transport does when a server misbehaves in ways that the real one cannot be made to."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import sglang as sgl
from sglang.lang.interpreter import StreamExecutor

from specreason_sgl.endpoint import Endpoint
from specreason_sgl.errors import CallFailed, ServerUnreachable, SpecReasonError, UsageError
from specreason_sgl.scoring import DIGITS

Handler = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


class Fake:
    """An HTTP server that greets like SGLang and does with `/generate` what a test wants."""

    def __init__(self) -> None:
        self.generate: Handler = lambda h, _: reply(h, {"text": "hi", "meta_info": META})
        self.texts: dict[int, str] = {}
        self.connections: set[Any] = set()
        self.requests: list[tuple[str, dict[str, Any]]] = []
        fake = self

        class Served(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                reply(self, {"model_path": "m"} if self.path == "/model_info" else {"version": "0.5.23"})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.connections.add(self.client_address)
                fake.requests.append((self.path, body))
                fake.answer(self, body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if handler.path == "/tokenize":
            turns = "".join(f"<{m['role']}>{m['content']}" for m in body.get("messages", ()))
            text = body.get("prompt") or f"{turns}<assistant>"
            reply(handler, {"tokens": [ord(c) for c in text]})
        elif handler.path == "/detokenize":
            texts = ["".join(map(chr, each if isinstance(each, list) else [each])) for each in body["tokens"]]
            if body["tokens"] and isinstance(body["tokens"][0], list):
                texts = [t if not (t in "<>" and body["skip_special_tokens"]) else "" for t in texts]
                reply(handler, {"text": texts})
            else:
                reply(handler, {"text": "".join(texts)})
        else:
            self.generate(handler, body)


META = {
    "prompt_tokens": 3,
    "cached_tokens": 2,
    "completion_tokens": 1,
    "finish_reason": {"type": "stop", "matched": None},
}


def reply(handler: BaseHTTPRequestHandler, body: object, status: int = 200) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(raw)))
    handler.end_headers()
    handler.wfile.write(raw)


@pytest.fixture
def fake() -> Iterator[Fake]:
    served = Fake()
    yield served
    served.server.shutdown()
    served.server.server_close()
    served.thread.join()


def generate(endpoint: Endpoint) -> tuple[str, dict[str, Any]]:
    @sgl.function
    def program(s: Any) -> None:
        s += "text"
        s += sgl.gen("out", max_tokens=4, temperature=0)

    state = program.run(backend=endpoint)
    if error := state.error():
        raise error
    return state["out"], state.get_meta_info("out")


def test_a_call_is_timed_and_connections_are_kept(fake: Fake) -> None:
    endpoint = Endpoint(fake.url, "base")
    fake.connections.clear()
    for _ in range(5):
        text, meta = generate(endpoint)

    assert text == "hi"
    assert meta["role"] == "base"
    assert meta["wall_s"] > 0
    assert len(fake.connections) == 1


@pytest.mark.parametrize(
    ("misbehave", "error", "words"),
    [
        (lambda h, _: reply(h, {"error": {"message": "too long"}}, 400), CallFailed, "too long"),
        (lambda h, _: reply(h, b"oops", 500), CallFailed, "status 500"),
        (lambda h, _: reply(h, b"{not json"), CallFailed, "not JSON"),
        (lambda h, _: reply(h, {}, 401), UsageError, "API key"),
        (lambda h, _: h.connection.shutdown(socket.SHUT_RDWR), CallFailed, "in vain.* broke the connection"),
    ],
    ids=["refusal", "error", "broken JSON", "wrong key", "cut"],
)
def test_misbehaviour_becomes_an_error_with_a_line(
    fake: Fake, misbehave: Handler, error: type[SpecReasonError], words: str
) -> None:
    endpoint = Endpoint(fake.url, "base")
    fake.generate = misbehave

    with pytest.raises(error, match=words):
        generate(endpoint)


def test_a_silent_server_is_given_up(fake: Fake) -> None:
    endpoint = Endpoint(fake.url, "base", read_s=0.2)
    gone = threading.Event()
    fake.generate = lambda *_: wait(gone)

    with pytest.raises(CallFailed, match="fell silent"):
        generate(endpoint)
    gone.set()


def test_a_call_ends_with_the_time_of_its_solve(fake: Fake) -> None:
    late = Endpoint(fake.url, "base").until(time.monotonic() + 0.3)
    gone = threading.Event()

    def silent(*_: object) -> None:
        gone.wait(5)

    fake.generate = silent
    for _ in ("while it waits", "before it is sent"):
        with pytest.raises(CallFailed, match="time limit"):
            generate(late)
    gone.set()


def test_the_control_tokens_of_a_template_are_learned_and_broken_up_in_a_question(fake: Fake) -> None:
    chat = Endpoint(fake.url, "base").chat

    assert sorted(chat.control) == ["<", ">"]
    assert chat.opening("a<user>b").count("<") == chat.opening("ab").count("<") + 1
    assert "<\u2060user>\u2060b" in chat.opening("a<user>b")


def test_only_connecting_has_to_be_quick(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specreason_sgl.endpoint.CONNECT_S", 0.2)

    def slow(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        time.sleep(0.5)
        reply(handler, {"text": "hi", "meta_info": META})

    fake.generate = slow
    assert generate(Endpoint(fake.url, "base").until(time.monotonic() + 10))[0] == "hi"


def wait(event: threading.Event) -> None:
    event.wait(5)


@pytest.mark.parametrize("key", ["secret\n", "secret\r\nX-Other: header", "sécret"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(fake: Fake, key: str) -> None:
    with pytest.raises(UsageError, match="no key can have") as error:
        Endpoint(fake.url, "base", api_key=key)

    assert "cret" not in str(error.value) + str(error.value.hint)
    assert fake.requests == []


def test_whoever_collects_a_state_waits_for_no_lock(fake: Fake) -> None:
    asking: list[threading.Thread] = []

    class Worker(threading.Thread):
        def is_alive(self) -> bool:
            asking.append(threading.current_thread())
            return super().is_alive()

    @sgl.function
    def leaves_a_fork(s: Any) -> None:
        s += "1+1="
        left = s.fork(1)[0]
        left += sgl.gen("answer")
        left.sync()
        executors.append(left.stream_executor)
        left.stream_executor.worker.__class__ = Worker

    executors: list[StreamExecutor] = []
    leaves_a_fork.run(backend=Endpoint(fake.url, "base"))
    executor = executors.pop()
    executor.worker.join(10)

    assert executor.is_finished, "nobody ended it"
    assert threading.current_thread() not in asking
    executor.__del__()
    assert threading.current_thread() not in asking


def test_what_is_no_sglang_server_is_told(fake: Fake) -> None:
    with pytest.raises(ServerUnreachable, match="not an SGLang server"):
        Endpoint(fake.url + "/v1", "base")


def test_streamed_text_is_heard_piece_by_piece_and_whole_at_the_end(fake: Fake) -> None:
    def stream(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        assert body["stream"]
        chunks = [{"text": t, "meta_info": META} for t in ("a", "ab", "abc")]
        raw = "".join(f"data: {json.dumps(c)}\n\n" for c in chunks) + "data: [DONE]\n\n"
        reply(handler, raw.encode())

    fake.generate = stream
    heard: list[tuple[str, str]] = []
    text, _ = generate(Endpoint(fake.url, "small").for_solve(lambda *piece: heard.append(piece), None))

    assert text == "abc"
    assert [("small", "a"), ("small", "b"), ("small", "c")] == heard


def test_a_stream_that_ends_before_it_begins_is_an_error(fake: Fake) -> None:
    fake.generate = lambda h, _: reply(h, b"data: [DONE]\n\n")

    with pytest.raises(CallFailed, match="before it began"):
        generate(Endpoint(fake.url, "small").for_solve(lambda *_: None, None))


def test_every_call_of_a_seeded_solve_draws_numbers_of_its_own(fake: Fake) -> None:
    endpoint = Endpoint(fake.url, "base")
    for _ in range(2):
        mine = endpoint.for_solve(None, 7)
        generate(mine)
        generate(mine)
    seeds = [body["sampling_params"]["sampling_seed"] for path, body in fake.requests if path == "/generate"]

    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]


def select(endpoint: Endpoint, choices: list[str]) -> tuple[str, dict[str, Any]]:
    @sgl.function
    def program(s: Any) -> None:
        s += "score: "
        s += sgl.select("score", choices=choices)

    state = program.run(backend=endpoint)
    if error := state.error():
        raise error
    return state["score"], state.get_meta_info("score")


def test_ten_digits_are_scored_in_one_request_of_one_token(fake: Fake) -> None:
    def one_token(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        logprobs = [[-float(abs(token - ord("7"))) - 0.1, token, None] for token in body["token_ids_logprob"]]
        reply(handler, {"text": "7", "meta_info": {**META, "output_token_ids_logprobs": [logprobs]}})

    fake.generate = one_token
    digit, meta = select(Endpoint(fake.url, "base"), list(DIGITS))
    asked = [body for path, body in fake.requests if path == "/generate"]

    assert digit == "7"
    assert meta["digit_logprobs"] == pytest.approx([-7.1, -6.1, -5.1, -4.1, -3.1, -2.1, -1.1, -0.1, -1.1, -2.1])
    assert len(asked) == 1
    assert asked[0]["sampling_params"]["max_new_tokens"] == 1


def test_choices_of_several_tokens_take_sglangs_way_and_say_so(fake: Fake) -> None:
    def stock(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        texts = body["text"] if isinstance(body["text"], list) else [body["text"]]
        rows = [
            {"text": "", "meta_info": {**META, "output_token_logprobs": [],
             "input_token_logprobs": [[None, 58, ":"], [-len(text) / 10, 32, "x"]]}} for text in texts
        ]  # fmt: skip
        reply(handler, rows if isinstance(body["text"], list) else rows[0])

    fake.generate = stock
    choice, meta = select(Endpoint(fake.url, "base"), ["yes", "no"])

    assert choice == "no"
    assert "stock selection" in meta["notices"][0]
    assert meta["digit_logprobs"] == pytest.approx([-1.0, -0.9])
