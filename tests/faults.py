"""Servers that fail as they are told: a proxy that injects faults, and a quick server of stories to stand behind it.

The proxy stands between the client and any server, the real ones included. What it does to a request is drawn from a
seeded plan; going away and coming back is for whoever holds it to decide.
"""

from __future__ import annotations

import json
import random
import re
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any, Literal, Self

import urllib3

from specreason_sgl.embedded.stories import Story
from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.engine.link import ATTEMPTS
from specreason_sgl.engine.transport import AUTO, Transport
from specreason_sgl.events import Role
from specreason_sgl.lang.pair import Pair
from specreason_sgl.testing import StoryBackend
from specreason_sgl.text.scoring import DIGITS

Fault = Literal["refuse", "delay", "cut", "500", "503", "broken JSON", "stall", "blink"]
FAULTS: tuple[Fault, ...] = ("refuse", "delay", "cut", "500", "503", "broken JSON", "stall", "blink")

SURVIVED = 2
"""So many failures in a row a call gets over, with what the blinks of a plan may cost it besides."""
BLINKS = (ATTEMPTS - 1 - SURVIVED) // 2
"""So many blinks at most: each may cost any call two attempts, a connection that breaks and one that is refused."""
BLINK_S = 0.2
STALL_S = 60.0
NEVER = ("/health", "/abort_request")
"""Paths that are never made to fail: failing them would only hide what is to be seen."""


class Listener:
    """Listens on one port of 127.0.0.1, as often as it is told to; every connection has a thread."""

    def __init__(self) -> None:
        """Begin to listen on a free port."""
        self.port = 0
        self.requests: Counter[str] = Counter()
        self.aborted: list[str] = []
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._listening: socket.socket | None = None
        self.open()

    @property
    def url(self) -> str:
        """Where it is, whether or not it listens."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def open(self) -> None:
        """Listen, on the same port as before."""
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(256)
        self.port = listening.getsockname()[1]
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def stop_listening(self) -> None:
        """Refuse new connections; those that are there go on."""
        with self._lock:
            listening, self._listening = self._listening, None
        if listening:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for connections
            listening.close()

    def close(self) -> None:
        """Go away as a process that is killed does: every connection breaks, new ones are refused."""
        self.stop_listening()
        with self._lock:
            open_ones = list(self._connections)
        for connection in open_ones:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        """Answer a request."""
        raise NotImplementedError

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or every reply waits 40 ms between its head and its body

            def do_GET(self) -> None:
                owner.handle(self, b"")

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"] or 0)
                body = self.rfile.read(length)
                if len(body) < length:  # who asked was killed while asking
                    self.close_connection = True
                else:
                    owner.handle(self, body)

            def log_message(self, *_: object) -> None:
                pass

        with self._lock:
            self._connections.add(connection)
        try:
            with suppress(OSError, ValueError):
                Handler(connection, ("127.0.0.1", 0), None)  # type: ignore[arg-type]  # it asks its server for nothing
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()


def reply(handler: BaseHTTPRequestHandler, body: object, status: int = 200, *, sent: float = 1.0) -> None:
    """Answer with JSON, or with bytes; with only a part of it if told so."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(raw)))
    handler.end_headers()
    handler.wfile.write(raw[: int(len(raw) * sent)])


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Break the connection."""
    with suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def _known_by(path: str, body: bytes) -> str:
    """What a request has in common with the same one sent again, which has another id."""
    asked = json.loads(body or b"{}")
    return json.dumps([path, {name: value for name, value in asked.items() if name != "rid"}])


@dataclass
class Plan:
    """Which requests fail, and how: drawn in order from one seeded stream."""

    seed: int
    share: float
    """Of the requests that fail."""
    faults: tuple[Fault, ...] = FAULTS
    injected: Counter[str] = field(default_factory=Counter)
    """What has been done so far."""
    in_a_row: int = sys.maxsize
    """So often at most one request fails, however often it is sent again."""
    blinks: int = sys.maxsize
    """After so many the server stops listening no more, but refuses."""

    def __post_init__(self) -> None:
        """Begin the stream."""
        self._lots = random.Random(self.seed)
        self._failed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def next(self, request: str) -> Fault | None:
        """What becomes of the next request, which is known again when it is sent again."""
        with self._lock:
            fault = self._lots.choice(self.faults) if self._lots.random() < self.share else None
            if fault == "blink" and self.injected["blink"] >= self.blinks:
                fault = "refuse"
            if fault is None or self._failed[request] >= self.in_a_row:
                del self._failed[request]
                return None
            self._failed[request] += 1
            self.injected[fault] += 1
            return fault

    def amount(self) -> float:
        """How much of it, from 0 to 1."""
        with self._lock:
            return self._lots.random()


class EveryOther(Plan):
    """Fails the first request of two, and never one that is sent again."""

    def next(self, _request: str) -> Fault | None:
        """What becomes of the next request."""
        self._turn = not getattr(self, "_turn", False)
        return self.faults[0] if self._turn else None


class Proxy(Listener):
    """Passes requests on to a server, unless the plan has something else for them."""

    def __init__(self, upstream: str, plan: Plan, api_key: str | None = None) -> None:
        """Stand before a server."""
        self.upstream, self.api_key = upstream, api_key
        self.plan = plan
        self._released = threading.Event()
        self._pool = urllib3.PoolManager(maxsize=128, retries=False, timeout=120)
        super().__init__()

    def point_at(self, upstream: str, api_key: str | None = None) -> None:
        """Stand before another server from now on."""
        self.upstream, self.api_key = upstream, api_key

    def close(self) -> None:
        """Go away."""
        self._released.set()
        super().close()
        self._pool.clear()

    def handle(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        """Let it pass, or fail it."""
        self.requests[_counted(handler.path, json.loads(body or b"{}"))] += 1
        fault = None if handler.path in NEVER else self.plan.next(_known_by(handler.path, body))
        if fault in {"refuse", "stall", "blink"}:
            if fault == "stall":
                self._released.wait(STALL_S)
            elif fault == "blink":
                self.stop_listening()
                threading.Timer(BLINK_S, self._open_again).start()
            hang_up(handler)
        elif fault in {"500", "503"}:
            reply(handler, {"error": {"message": "injected"}}, int(fault))
        else:
            self._pass_on(handler, body, fault)

    def _pass_on(self, handler: BaseHTTPRequestHandler, body: bytes, fault: Fault | None) -> None:
        if fault == "delay":
            time.sleep(0.2 * self.plan.amount())
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        try:
            answer = self._pool.request(handler.command, self.upstream + handler.path, body=body, headers=headers)
        except urllib3.exceptions.HTTPError:
            hang_up(handler)
        else:
            broken = answer.data[: len(answer.data) // 2] + b"{"
            sent = self.plan.amount() if fault == "cut" else 1.0
            reply(handler, broken if fault == "broken JSON" else answer.data, answer.status, sent=sent)
            if fault == "cut":
                hang_up(handler)

    def _open_again(self) -> None:
        if not self._released.is_set() and self._listening is None:
            self.open()


class Words:
    """A tokenizer that knows every word, each with the white space behind it; thread-safe."""

    def __init__(self) -> None:
        """Begin without words."""
        self._ids: dict[str, int] = {}
        self._words: list[str] = []
        self._lock = threading.Lock()

    def ids(self, text: str) -> list[int]:
        """The ids of a text's words."""
        return [self._id(word) for word in re.findall(r"\S+\s*|\s+", text)]

    def text(self, ids: Iterable[int]) -> str:
        """The text with these ids."""
        return "".join(self._words[each] for each in ids)

    def _id(self, word: str) -> int:
        with self._lock:
            if word not in self._ids:
                self._words.append(word)
                self._ids[word] = len(self._ids)
            return self._ids[word]


WORDS = Words()
TRIAL = {"max_new_tokens": 1, "temperature": 0}


def is_trial(path: str, body: dict[str, Any]) -> bool:
    """Whether a request only tries how prompts may travel, as the handshake does."""
    tries = body.get("sampling_params") == TRIAL and "token_ids_logprob" not in body
    return path == "/open_session" or (path == "/generate" and tries)


def _counted(path: str, body: dict[str, Any]) -> str:
    return "trial" if is_trial(path, body) else path


class StoryServer(Listener):
    """Talks like an SGLang server and solves stories; the same question always gets the same text.

    A word is a token. A session's requests can be gone on from, as SGLang's can.
    """

    def __init__(self, role: Role, told: Iterable[Story], *, skill: float = 1.0, seconds: float = 0.0) -> None:
        """Know these stories; answer after so many seconds."""
        self._stories = StoryBackend(role, told, skill=skill)
        self.seconds = seconds
        self.in_flight: dict[str, threading.Event] = {}
        self.sessions: dict[str, dict[str, list[int]]] = {}
        """The open sessions: of each request the tokens of its prompt and of what was written."""
        self.opens_sessions = True
        super().__init__()

    def handle(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        """Answer as SGLang would."""
        asked = json.loads(body or b"{}")
        self.requests[_counted(handler.path, asked)] += 1
        match handler.path:
            case "/model_info" | "/server_info":
                reply(handler, {"model_path": f"specreason_sgl/embedded/{self._stories.role}", "version": "0"})
            case "/tokenize":
                text = asked["prompt"] if "prompt" in asked else _rendered(asked["messages"])
                reply(handler, {"tokens": WORDS.ids(text) if isinstance(text, str) else list(map(WORDS.ids, text))})
            case "/detokenize":
                tokens = asked["tokens"]
                one = not tokens or isinstance(tokens[0], int)
                reply(handler, {"text": WORDS.text(tokens) if one else list(map(WORDS.text, tokens))})
            case "/generate":
                self._generate(handler, asked)
            case "/open_session" if not self.opens_sessions:
                reply(handler, {"error": {"message": "Not Found"}}, 404)
            case "/open_session":
                name = uuid.uuid4().hex
                self.sessions[name] = {}
                reply(handler, name)
            case "/close_session":
                self.sessions.pop(asked["session_id"], None)
                reply(handler, b"")
            case "/abort_request":
                self.aborted.append(asked["rid"])
                if waiting := self.in_flight.get(asked["rid"]):
                    waiting.set()
                reply(handler, {})
            case _:
                reply(handler, {})

    def _generate(self, handler: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
        prompt = self._prompt(asked)
        if prompt is None:
            return reply(handler, {"error": {"message": "the session does not have this request"}}, 400)
        stopped = self.in_flight.setdefault(asked["rid"], threading.Event())
        if is_trial(handler.path, asked):
            text, meta = "", {"finish_reason": {"type": "length"}, "cached_tokens": 0, "completion_tokens": 1}
        elif stopped.wait(self.seconds) if self.seconds else False:
            text, meta = "", {"prompt_tokens": 1, "completion_tokens": 0, "finish_reason": {"type": "abort"}}
        else:
            text, meta = self._solved(WORDS.text(prompt), asked)
        meta = {**meta, "id": asked["rid"], "prompt_tokens": len(prompt)}
        if (place := asked.get("session_params")) and place["id"] in self.sessions:
            self.sessions[place["id"]][asked["rid"]] = [*prompt, *WORDS.ids(text)]
        del self.in_flight[asked["rid"]]
        if not asked.get("stream"):
            return reply(handler, {"text": text, "meta_info": meta})
        parts = [text[: len(text) * part // 3] for part in (1, 2, 3)]
        lines = [f"data: {json.dumps({'text': part, 'meta_info': meta})}\n\n" for part in parts]
        return reply(handler, ("".join(lines) + "data: [DONE]\n\n").encode())

    def _prompt(self, asked: dict[str, Any]) -> list[int] | None:
        """The tokens of a request's whole prompt; None if it goes on from one that is not there."""
        ids = WORDS.ids(asked["text"]) if "text" in asked else asked["input_ids"]
        place = asked.get("session_params")
        if place is None or "rid" not in place:
            return ids if place is None or place["id"] in self.sessions else None
        before = self.sessions.get(place["id"], {}).get(place["rid"])
        return None if before is None else [*before[: place["offset"]], *ids]

    def _solved(self, prompt: str, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        state = SimpleNamespace(text_=prompt)
        if "token_ids_logprob" in asked:
            decision = self._stories.select(state, list(DIGITS), 0.0)
            meta = decision.meta_info
            rows = zip(meta["digit_logprobs"], asked["token_ids_logprob"], strict=True)
            return decision.decision, meta | {"output_token_ids_logprobs": [[[p, token, None] for p, token in rows]]}
        stops = asked["sampling_params"].get("stop") or []
        return self._stories.generate(state, SimpleNamespace(stop=stops))


def _rendered(messages: Iterable[dict[str, str]]) -> str:
    """As `specreason_sgl.testing.CHAT` has it."""
    marks = {"user": "[user]", "assistant": "[assistant]"}
    turns = [marks.get(each["role"], f"[{each['role']}]") + each["content"] for each in messages]
    return "".join(turns) + "[assistant]"


@contextmanager
def story_servers(
    told: Iterable[Story], count: int = 1, *, skill: float = 0.7, seconds: float = 0.0
) -> Iterator[list[list[StoryServer]]]:
    """Pairs of story servers, base first."""
    known = list(told)
    with ExitStack() as stack:
        yield [
            [
                stack.enter_context(StoryServer("base", known, seconds=seconds)),
                stack.enter_context(StoryServer("small", known, skill=skill, seconds=seconds)),
            ]
            for _ in range(count)
        ]


@contextmanager
def story_pair(
    told: Iterable[Story],
    *,
    seed: int = 0,
    share: float = 0.0,
    skill: float = 0.7,
    seconds: float = 0.0,
    read_s: float = 1.0,
    wait_s: float = 20.0,
    faults: tuple[Fault, ...] = FAULTS,
    transport: Transport = AUTO,
) -> Iterator[tuple[Pair[Endpoint], list[Proxy], list[StoryServer]]]:
    """Two story servers behind proxies, and a pair of endpoints that only sees the proxies; base first."""
    known = list(told)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(StoryServer("base", known, seconds=seconds)),
            stack.enter_context(StoryServer("small", known, skill=skill, seconds=seconds)),
        ]
        proxies = [
            stack.enter_context(Proxy(server.url, Plan(seed + place, 0.0, faults, in_a_row=SURVIVED, blinks=BLINKS)))
            for place, server in enumerate(servers)
        ]
        base = Endpoint(proxies[0].url, "base", read_s=read_s, wait_s=wait_s, transport=transport)
        small = Endpoint(proxies[1].url, "small", read_s=read_s, wait_s=wait_s, transport=transport)
        for proxy in proxies:
            proxy.plan.share = share
        yield Pair(base, small), proxies, servers
