"""What the link does when a server misbehaves in ways that the real one cannot be made to."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import pytest
import sglang as sgl
from faults import is_trial
from sglang.lang.choices import greedy_token_selection, unconditional_likelihood_normalized
from sglang.lang.interpreter import StreamExecutor

from specreason_sgl.engine import selection
from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.engine.connections import REST_S, Call, _Used
from specreason_sgl.errors import CallFailed, CallRefused, ServerUnreachable, SpecReasonError, UsageError
from specreason_sgl.evaluation.modes import Server
from specreason_sgl.events import Event, Noticed, TextStreamed
from specreason_sgl.lang import calls
from specreason_sgl.lang.backend import Backend
from specreason_sgl.lang.likelihood import by_likelihood
from specreason_sgl.lang.scope import CANCELLED, Scope
from specreason_sgl.lang.solve import Solve
from specreason_sgl.runs.store import Problem
from specreason_sgl.settings import Settings
from specreason_sgl.testing import ScriptedBackend, StoryBackend
from specreason_sgl.text.scoring import DIGITS

Handler = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


class Fake:
    """An HTTP server that greets like SGLang and does with `/generate` what a test wants."""

    def __init__(self) -> None:
        self.generate: Handler = lambda h, _: reply(h, {"text": "hi", "meta_info": META})
        self.told: dict[str, Any] = {"version": "0.5.23"}
        self.connections: set[Any] = set()
        self.requests: list[tuple[str, dict[str, Any]]] = []
        fake = self

        class Served(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or every reply waits 40 ms between its head and its body

            def do_GET(self) -> None:
                reply(self, {"model_path": "m"} if self.path == "/model_info" else fake.told)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.connections.add(self.client_address)
                if is_trial(self.path, body):
                    return reply(self, {"error": {"message": "text alone"}}, 400)
                fake.requests.append((self.path, body))
                return fake.answer(self, body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
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


# What mypy checks: the real server and the scripted ones are what a solve needs, and what a run does.
BACKENDS: tuple[type[Backend], ...] = (Endpoint, ScriptedBackend, StoryBackend)
SERVERS: tuple[type[Server], ...] = (Endpoint, StoryBackend)

META = {
    "prompt_tokens": 3,
    "cached_tokens": 2,
    "completion_tokens": 1,
    "finish_reason": {"type": "stop", "matched": None},
}

RUNNING = {**META, "finish_reason": None}


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


def aborted(status: int, message: str) -> dict[str, Any]:
    finish = {"type": "abort", "status_code": status, "message": message}
    return {"text": "x", "meta_info": {**META, "finish_reason": finish}}


def generate(endpoint: Endpoint, prompt: str = "text", name: str = "out", **options: Any) -> tuple[Any, dict[str, Any]]:
    @sgl.function
    def program(s: Any) -> None:
        s += prompt
        s += sgl.gen(name, max_tokens=4, temperature=0, **options)

    state = program.run(backend=endpoint)
    if error := state.error():
        raise error
    return state[name], state.get_meta_info(name)


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
        (lambda h, _: reply(h, {"error": {"message": "too long"}}, 400), CallRefused, "too long"),
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


@pytest.mark.parametrize(
    ("chunk", "error", "words"),
    [
        ({"error": {"message": "too long", "code": 400}}, CallRefused, "base server refused a call: too long"),
        ({"error": {"message": "later", "code": 503}}, CallFailed, "in vain.* failed with status 503: later"),
        ({"error": "broken"}, CallFailed, "in vain.* broken"),
        ([1], CallFailed, "in vain.* not JSON"),
        (aborted(400, "no such grammar"), CallRefused, "base server refused a call: no such grammar"),
        (aborted(503, "later"), CallFailed, "in vain.* failed with status 503: later"),
    ],
)
def test_a_failure_that_streams_is_as_one_that_does_not(
    fake: Fake, chunk: object, error: type[SpecReasonError], words: str
) -> None:
    fake.generate = lambda h, _: reply(h, f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())
    heard: list[str] = []
    base = Endpoint(fake.url, "base").within(Scope(), listen=lambda *_: heard.append)

    with pytest.raises(error, match=words):
        generate(base)
    assert not heard, "what comes with it is not the model's"


def test_a_silent_server_is_given_up(fake: Fake) -> None:
    endpoint = Endpoint(fake.url, "base", read_s=0.2)
    gone = threading.Event()
    fake.generate = lambda *_: wait(gone)

    with pytest.raises(CallFailed, match="fell silent"):
        generate(endpoint)
    gone.set()


def test_a_call_ends_with_the_time_of_its_solve(fake: Fake) -> None:
    late = Endpoint(fake.url, "base").within(Scope(0.3))
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

    assert sorted(chat.control) == ["<", "</think>", "<think>", ">"]
    assert chat.opening("a<user>b").count("<") == chat.opening("ab").count("<") + 1
    assert "<\u2060user>\u2060b" in chat.opening("a<user>b")


def test_only_connecting_has_to_be_quick(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specreason_sgl.engine.link.CONNECT_S", 0.2)

    def slow(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        time.sleep(0.5)
        reply(handler, {"text": "hi", "meta_info": META})

    fake.generate = slow
    assert generate(Endpoint(fake.url, "base").within(Scope(10)))[0] == "hi"


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
    heard: list[tuple[str, str, str]] = []
    small = Endpoint(fake.url, "small").within(Scope(), listen=lambda *call: lambda piece: heard.append((*call, piece)))
    text, _ = generate(small, name="step")

    assert text == "abc"
    assert [("small", "step", "a"), ("small", "step", "b"), ("small", "step", "c")] == heard


class Chunks:
    """Streams a text in HTTP chunks, as SGLang does."""

    def __init__(self) -> None:
        self.left = threading.Event()
        """Set when somebody closed a stream."""
        self.end = threading.Event()
        """No stream ends before it is set."""
        self.end.set()

    def __call__(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if not body.get("stream"):
            reply(handler, {"text": "hi", "meta_info": META})
            return
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            self.send(handler, sse([{"text": "a", "meta_info": RUNNING}]).removesuffix(DONE))
            while body["rid"] == "endless":
                self.send(handler, b": still here\n\n")
                time.sleep(0.005)
            self.send(handler, sse([{"text": "abc", "meta_info": META}]).removesuffix(DONE))
            self.send(handler, DONE)
            wait(self.end)
            self.send(handler, b"")
        except OSError:
            self.left.set()
            handler.close_connection = True

    def send(self, handler: BaseHTTPRequestHandler, told: bytes) -> None:
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(told), told))


def streaming(fake: Fake) -> Endpoint:
    return Endpoint(fake.url, "small").within(Scope(), listen=lambda *_: lambda _: None)


def test_streams_and_other_calls_go_over_one_connection(fake: Fake) -> None:
    fake.generate = Chunks()
    small = streaming(fake)
    fake.connections.clear()
    for _ in range(4):
        assert generate(small)[0] == "abc"
        assert generate(small.within(Scope()))[0] == "hi"

    assert len(fake.connections) == 1


def test_a_call_behind_a_stream_may_take_its_time(fake: Fake) -> None:
    chunks = Chunks()

    def slowly(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if not body.get("stream"):
            time.sleep(3 * REST_S)
        chunks(handler, body)

    fake.generate = slowly
    small = streaming(fake)
    fake.connections.clear()
    generate(small)
    _, meta = generate(small.within(Scope()))

    assert len(fake.connections) == 1
    assert "retries" not in meta


def test_a_stream_that_is_left_is_aborted_and_leaves_the_others_alone(fake: Fake) -> None:
    chunks = Chunks()
    fake.generate = lambda h, body: reply(h, {}) if h.path == "/abort_request" else chunks(h, body)
    small = streaming(fake)
    fake.connections.clear()
    fake.requests.clear()
    other, left = (small._link.stream({"text": "text", "rid": rid}) for rid in ("other", "endless"))
    assert next(other)["text"] == next(left)["text"] == "a"
    left.close()
    assert [chunk["text"] for chunk in other] == ["abc"]
    for _ in range(3):
        assert generate(small)[0] == "abc"

    assert chunks.left.wait(5), "its connection was closed"
    assert [body for path, body in fake.requests if path == "/abort_request"] == [{"rid": "endless"}]
    assert len(fake.connections) == 3, "those of the two streams and of the abort"


def test_a_stream_whose_end_is_late_is_not_waited_for(fake: Fake) -> None:
    chunks = fake.generate = Chunks()
    chunks.end.clear()
    small = streaming(fake)
    fake.connections.clear()
    text, meta = generate(small)
    assert not chunks.end.is_set()
    chunks.end.set()
    generate(small)

    assert text == "abc"
    assert "retries" not in meta
    assert len(fake.connections) == 2


def test_half_a_character_at_the_end_is_neither_heard_nor_kept(fake: Fake) -> None:
    last = {"text": "so \u6f22\ufffd", "meta_info": {**META, "finish_reason": LENGTH}}
    texts = [{"text": "so \ufffd", "meta_info": RUNNING}, last]
    fake.generate = lambda h, body: reply(h, sse(texts) if body.get("stream") else last)
    heard: list[str] = []
    small = Endpoint(fake.url, "small").within(Scope(), listen=lambda *_: heard.append)
    came, at_once = generate(small)[0], generate(small.within(Scope()))[0]

    assert came == at_once == "so \u6f22"
    assert heard == ["so ", "\u6f22"]


def test_nothing_is_streamed_where_nobody_listens(fake: Fake) -> None:
    fake.generate = Chunks()
    endpoint, problem = Endpoint(fake.url, "base"), Problem(id="p", question="q")
    heard: list[Event] = []
    deaf = Solve(problem, Settings(), {"base": endpoint}, program="test", stream=True)
    deaf.listen(heard.append)  # such as an account of what calls cost
    hears = Solve(problem, Settings(), {"base": endpoint}, program="test", stream=True, sink=heard.append)
    for solve in (deaf, hears):
        generate(cast("Endpoint", solve.base))

    streamed = [body.get("stream", False) for path, body in fake.requests if path == "/generate"]
    assert streamed == [False, True]
    assert "".join(event.text for event in heard if isinstance(event, TextStreamed)) == "abc"


def test_a_stream_that_ends_before_it_begins_is_an_error(fake: Fake) -> None:
    fake.generate = lambda h, _: reply(h, b"data: [DONE]\n\n")

    with pytest.raises(CallFailed, match="before it began"):
        generate(Endpoint(fake.url, "small").within(Scope(), listen=lambda *_: lambda _: None))


def test_every_call_of_a_seeded_solve_draws_numbers_of_its_own(fake: Fake) -> None:
    endpoint = Endpoint(fake.url, "base")
    for _ in range(2):
        mine = endpoint.within(Scope(), seed=7)
        generate(mine)
        generate(mine)
    seeds = [body["sampling_params"]["sampling_seed"] for path, body in fake.requests if path == "/generate"]

    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]


def select(endpoint: Endpoint, choices: list[str], **options: Any) -> tuple[str, dict[str, Any]]:
    @sgl.function
    def program(s: Any) -> None:
        s += "score: "
        s += sgl.select("score", choices=choices, **options)

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


def reads(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """A server of characters: an `a` has a log-probability of -60, any other one of -1; the first has none."""
    several = isinstance(body["input_ids"][0], list)
    start = body["logprob_start_len"]
    read = [
        {"text": "", "meta_info": {**META, "completion_tokens": 0, "input_token_logprobs": [
            [None if place == start else -60.0 if token == ord("a") else -1.0, token, None]
            for place, token in enumerate(ids) if place >= start
        ]}} for ids in (body["input_ids"] if several else [body["input_ids"]])
    ]  # fmt: skip
    reply(handler, read if several else read[0])


def test_choices_of_several_tokens_are_read_behind_the_prompt_and_that_is_told(fake: Fake) -> None:
    fake.generate = reads
    choice, meta = select(Endpoint(fake.url, "base"), ["yes!", "no"])

    assert choice == "yes!"  # by its mean, SGLang's default; their sums say the same of equal means
    assert "some of `yes!`, `no`, so each was read behind the prompt" in meta["notices_once"][0]
    assert meta["digit_logprobs"] == [-4.0, -2.0]
    assert meta["prompt_tokens"] == len("score: ")


def test_that_choices_have_no_single_tokens_is_told_once_a_solve_for_each_model_and_choices(fake: Fake) -> None:
    def either(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        reads(handler, body) if "input_ids" in body else reply(handler, {"text": "", "meta_info": META})

    fake.generate = either
    models = {role: Endpoint(fake.url, role) for role in ("base", "verifier")}
    questions = [("base", ("yes", "no"))] * 3 + [("verifier", ("yes", "no"))] * 2 + [("base", ("right", "wrong"))] * 2
    for _ in range(2):
        solve = Solve(Problem(id="p", question="q"), Settings(), models, program="test")
        chain = solve.chain()
        for number, (role, choices) in enumerate(questions):
            asked = calls.ask(chain, role, chain.named("check", number), "Is it?", "", choices)
            solve.choice(asked, "check", chain, number)
        told = [(each.author, each.message) for each in solve.events if isinstance(each, Noticed)]

        assert [author for author, _ in told] == ["base", "verifier", "base"]
        assert ["`yes`, `no`" in message for _, message in told] == [True, True, False]


def test_long_choices_do_not_tie(fake: Fake) -> None:
    fake.generate = reads
    choice, meta = select(Endpoint(fake.url, "base"), ["aaa", "ab", "aab"])

    assert choice == "ab"
    assert meta["digit_logprobs"] == [-180.0, -61.0, -121.0]


def test_choices_that_begin_alike_keep_what_they_share(fake: Fake) -> None:
    fake.generate = reads
    _, meta = select(Endpoint(fake.url, "base"), ["aax", "aay"])

    assert meta["digit_logprobs"] == [-121.0, -121.0]


def test_texts_are_compared_as_a_whole_where_that_is_asked_for_and_nobody_is_told(fake: Fake) -> None:
    fake.generate = reads
    choice, meta = select(Endpoint(fake.url, "base"), ["yes!", "no", "a", "5"], choices_method=by_likelihood)

    assert choice == "5", "a short text is likelier than a long one"
    assert meta["digit_logprobs"] == [-4.0, -2.0, -60.0, -1.0]
    assert meta["notices_once"] == []
    assert [path for path, _ in fake.requests].count("/generate") == 2, "no text was asked for as a single token"


@pytest.mark.parametrize("method", [greedy_token_selection, unconditional_likelihood_normalized])
def test_every_way_to_choose_works(fake: Fake, method: Any) -> None:
    fake.generate = reads
    assert select(Endpoint(fake.url, "base"), ["ab", "bb"], choices_method=method)[0] == "bb"


def test_a_choice_that_merges_with_the_prompt_is_scored_from_where_it_does(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = Endpoint(fake.url, "base")
    asked: list[dict[str, Any]] = []

    def keep(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        asked.append(body)
        reads(handler, body)

    fake.generate = keep
    monkeypatch.setattr(selection, "tokens_of", lambda _, text, **__: list(map(ord, text.replace(": 5", "\u2085"))))
    _, meta = select(endpoint, ["5a", "7a"])

    assert asked[-1]["logprob_start_len"] == len("score") - 1
    assert meta["digit_logprobs"] == [-61.0, -63.0]


@pytest.mark.parametrize(
    ("choices", "options", "words"),
    [
        ([], {}, "needs choices"),
        (["a", ""], {}, "needs choices"),
        (["1", "2"], {"temperature": 0.5}, "no `temperature`"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused_in_a_line(
    fake: Fake, choices: list[str], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        select(Endpoint(fake.url, "base"), choices, **options)


def test_several_texts_at_once_are_a_list_and_are_counted_together(fake: Fake) -> None:
    def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if isinstance(body["text"], str):
            reply(handler, {"text": "", "meta_info": META})
        else:
            reply(handler, [{"text": f"{n}", "meta_info": META} for n, _ in enumerate(body["text"])])

    fake.generate = answer
    texts, meta = generate(Endpoint(fake.url, "base").within(Scope(), seed=7), n=3)
    first, last = [body for path, body in fake.requests if path == "/generate"]

    assert texts == ["0", "1", "2"]
    assert meta["completion_tokens"] == 3
    assert [each["completion_tokens"] for each in meta["each"]] == [1, 1, 1]
    assert first["sampling_params"]["max_new_tokens"] == 0, "the prompt is read once for all"
    assert len({each["sampling_seed"] for each in last["sampling_params"]}) == 3
    assert all(each["n"] == 1 for each in last["sampling_params"])


def test_several_texts_at_once_are_aborted_each_by_its_name(fake: Fake) -> None:
    asked, aborted = threading.Event(), threading.Event()

    def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if handler.path == "/abort_request" or isinstance(body["text"], str):
            reply(handler, {"text": "", "meta_info": META})
            return
        asked.set()
        aborted.wait(30)
        reply(handler, [{"text": "", "meta_info": META}] * 3)

    fake.generate = answer
    scope = Scope()
    endpoint = Endpoint(fake.url, "base").within(scope)

    def work() -> None:
        with suppress(SpecReasonError):
            generate(endpoint, n=3)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    assert asked.wait(30)
    scope.cancel()
    aborted.set()
    worker.join(30)

    (names,) = [body["rid"] for _, body in fake.requests if isinstance(body.get("rid"), list)]
    assert len(set(names)) == 3
    assert sorted(names) == sorted(body["rid"] for path, body in fake.requests if path == "/abort_request")


def test_several_texts_at_once_cannot_be_streamed(fake: Fake) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "text"
        s += sgl.gen("out", max_tokens=4, n=2)

    fake.generate = lambda h, b: reply(h, [{"text": "a", "meta_info": META}] * 2 if isinstance(b["text"], list) else {})
    assert isinstance(program.run(backend=Endpoint(fake.url, "base"), stream=True).error(), UsageError)


STOPPED = [
    # A round of speculative decoding brings several stops; SGLang reports the first of its list.
    ("four.\n</think>", "\n\n", "four.\n", "</think>"),
    ("four.\n\n", "</think>", "four.", "\n\n"),
    ("four.", "\n\n", "four.", "\n\n"),
    ("four.\n\nSo</think> it", 2, "four.", "\n\n"),
    ("four.", 2, "four.", 2),
    ("", "</think>", "", "</think>"),
]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(("text", "reported", "cut", "matched"), STOPPED)
def test_a_text_ends_at_its_first_stop_whichever_is_reported(
    fake: Fake, text: str, reported: object, cut: str, matched: object, streams: bool
) -> None:
    told = {"text": text, "meta_info": {**META, "finish_reason": {"type": "stop", "matched": reported}}}
    fake.generate = lambda h, _: reply(h, sse([told]) if streams else told)
    heard: list[str] = []
    listen = (lambda *_: heard.append) if streams else None
    came, meta = generate(Endpoint(fake.url, "base").within(Scope(), listen=listen), stop=["\n\n", "</think>"])

    assert (came, meta["finish_reason"]) == (cut, {"type": "stop", "matched": matched})
    assert "".join(heard) == (cut if streams else "")


def test_a_text_that_was_cut_for_its_length_can_hold_a_stop(fake: Fake) -> None:
    fake.generate = lambda h, _: reply(h, {"text": "a</think>b", "meta_info": {**META, "finish_reason": LENGTH}})

    came, meta = generate(Endpoint(fake.url, "base"), stop="</think>")
    assert (came, meta["finish_reason"]) == ("a", {"type": "stop", "matched": "</think>"})
    assert generate(Endpoint(fake.url, "base"))[0] == "a</think>b"


LENGTH = {"type": "length", "length": 4}


def test_a_server_that_streams_pieces_is_understood(fake: Fake) -> None:
    pieces = [
        {"text": text, "meta_info": {**META, "completion_tokens": n, "output_token_logprobs": [[-1.0, n, None]]}}
        for n, text in enumerate(("a", "a", "b"), start=1)
    ]
    fake.told = {"incremental_streaming_output": True}
    fake.generate = lambda h, _: reply(h, sse(pieces))
    heard: list[str] = []
    text, meta = generate(Endpoint(fake.url, "small").within(Scope(), listen=lambda *_: heard.append))

    assert text == "aab"
    assert heard == ["a", "a", "b"]
    assert meta["completion_tokens"] == 3
    assert [row[1] for row in meta["output_token_logprobs"]] == [1, 2, 3]


def test_a_phrase_over_and_over_is_ended_while_it_streams(fake: Fake) -> None:
    went_on = threading.Event()

    def stream(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        if handler.path == "/abort_request":
            reply(handler, {})
            return
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        with suppress(OSError):
            for n in range(1, 3000):
                piece = sse([{"text": "Hm, wait. " * n, "meta_info": RUNNING}]).removesuffix(DONE)
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            went_on.set()
        handler.close_connection = True

    fake.generate = stream
    text, meta = generate(Endpoint(fake.url, "small").within(Scope(), listen=lambda *_: lambda _: None))

    assert 1000 <= len(text) < 2000
    assert meta["finish_reason"] == {"type": "repeat"}
    assert fake.requests[-1][0] == "/abort_request"
    assert not went_on.is_set()


DONE = b"data: [DONE]\n\n"


def sse(chunks: list[dict[str, Any]]) -> bytes:
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + DONE


def seeds(fake: Fake) -> list[int]:
    """Of the generations since this was asked."""
    drawn = [body["sampling_params"]["sampling_seed"] for path, body in fake.requests if path == "/generate"]
    fake.requests.clear()
    return drawn


def test_what_is_asked_on_a_chance_draws_what_it_would_draw_otherwise(fake: Fake) -> None:
    endpoint, scope = Endpoint(fake.url, "small"), Scope()
    plain = endpoint.within(scope, seed=7)
    for name in ("one", "two", "three"):
        generate(plain, name=name)
    expected = seeds(fake)
    ahead = endpoint.within(Scope(), seed=7)
    first = ahead.within(Scope().child())
    generate(first, "as was to be expected", name="one")
    generate(first, "or otherwise", name="two")
    generate(ahead.within(Scope().child()), name="three")

    assert seeds(fake) == expected
    assert len(set(expected)) == 3


def test_a_chance_that_came_to_nothing_has_drawn_nothing(fake: Fake) -> None:
    mine = Endpoint(fake.url, "small").within(Scope(), seed=7)
    for _ in range(2):
        generate(mine.within(Scope().child()))
    generate(mine)

    assert len(set(seeds(fake))) == 1


def test_cancelling_breaks_what_is_being_opened() -> None:
    for _ in range(20):
        scope, over = Scope(), threading.Event()
        ours, theirs = zip(*(socket.socketpair() for _ in range(60)), strict=True)
        started = threading.Barrier(61)

        def work(
            one: socket.socket, scope: Scope = scope, started: threading.Barrier = started, over: threading.Event = over
        ) -> None:
            call = Call()
            with scope.waiting(call.break_off):
                started.wait(10)
                with call.making():
                    _Opened(one).connect()
                over.wait(10)

        workers = [threading.Thread(target=work, args=(one,)) for one in ours]
        for worker in workers:
            worker.start()
        started.wait(10)
        scope.cancel()
        for one in theirs:
            one.settimeout(10)
            assert one.recv(1) == b"", "its connection was left open"
        over.set()
        for worker in workers:
            worker.join(10)
        for one in (*ours, *theirs):
            one.close()


class _Base:
    def connect(self) -> None:
        pass


class _Opened(_Used, _Base):
    """A connection that is there once it has been opened."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.sock = sock


def test_a_connection_that_went_to_another_call_is_left_to_it() -> None:
    ours, theirs = socket.socketpair()
    first, second, connection = Call(), Call(), _Opened(ours)
    for call in (first, second):
        with call.making():
            connection.connect()
    first.break_off()
    ours.send(b"x")

    assert theirs.recv(1) == b"x"
    second.break_off()
    assert theirs.recv(1) == b""
    for one in (ours, theirs):
        one.close()


def test_aborts_do_not_wait_for_each_other() -> None:
    scope, together = Scope(), threading.Barrier(8)
    aborted: list[str] = []

    def abort(rid: str) -> None:
        together.wait(10)  # broken unless all are under way at the same time
        aborted.append(rid)

    with ExitStack() as stack:
        for number in range(8):
            part = (scope, Scope(parent=scope), scope.child(), Scope(parent=scope).child())[number % 4]
            stack.enter_context(part.flying(f"{number}", abort))
        scope.cancel()
        scope.cancel()

    assert sorted(aborted) == [f"{number}" for number in range(8)]


def test_nothing_takes_off_once_everything_is_cancelled(fake: Fake) -> None:
    scope = Scope()
    endpoint = Endpoint(fake.url, "base").within(scope)
    scope.cancel()

    with pytest.raises(CallFailed, match=CANCELLED), scope.flying("late", print):
        pytest.fail("it took off")
    for late in (endpoint, endpoint.within(Scope(parent=scope)), endpoint.within(scope.child())):
        with pytest.raises(CallFailed, match=CANCELLED):
            generate(late)
    assert generate(endpoint.within(Scope()))[0] == "hi"


def test_an_abort_reaches_the_other_servers_where_one_is_dead(fake: Fake) -> None:
    endpoint = Endpoint(fake.url, "base")
    replace(endpoint._link, replicas=("http://127.0.0.1:1", fake.url)).abort("x")

    assert fake.requests[-1] == ("/abort_request", {"rid": "x"})


def test_the_cache_is_filled_with_the_same_patience_as_everything_else(fake: Fake) -> None:
    failures = iter([True, False])
    fake.generate = lambda h, _: reply(h, b"oops", 500) if next(failures) else reply(h, {"text": "", "meta_info": META})
    Endpoint(fake.url, "base").cache_prefix("text")

    assert [body["text"] for path, body in fake.requests if path == "/generate"] == ["text", "text"]
