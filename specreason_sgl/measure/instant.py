"""A server that answers at once, for measuring what a client costs: ``python -m specreason_sgl.measure.instant SEED``.

It speaks of SGLang's API what a client of this package says, with a tokenizer of words and a script in place of a
model. A request costs it as little as possible: it counts tokens and does not look at them. It prints its address, and
ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

ACCEPTED = 5
"""The judge rejects one draft in so many."""
STEP_TOKENS = 24
STEPS = 4096
"""How many different steps there are before the first one comes again: no chain may seem to go in circles."""
CONTEXT = 1 << 20
HOST = "127.0.0.1"

DELIMITER = "\n\n"
ANSWER = "The answer is \\boxed{4}."
OPENED = "<|im_start|>assistant\n<think>\n"

_MODEL = {"model_path": "instant", "tokenizer_path": "instant", "is_generation": True}
STILL: dict[str, Any] = {
    "/model_info": _MODEL,
    "/get_model_info": _MODEL,
    "/v1/models": {"object": "list", "data": [{"id": "instant", "object": "model", "max_model_len": CONTEXT}]},
    "/server_info": {"model_path": "instant", "max_total_num_tokens": CONTEXT},
    "/health": None,
    "/flush_cache": None,
    "/abort_request": None,
}
"""The responses that never change."""

_SPECIAL = re.compile(r"(<\|im_(?:start|end)\|>)")
_WORD = re.compile(r"[^ \n]*[ \n]|[^ \n]+")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SYLLABLES = ("ba", "do", "fe", "gu", "ka", "lo", "mi", "nu", "pe", "ra", "si", "to")


def counted(text: str) -> int:
    """How many tokens a text has, without making them."""
    parts = _SPECIAL.split(text)
    words = sum(part.count(" ") + part.count("\n") + (part[-1:] not in {"", " ", "\n"}) for part in parts[::2])
    return words + len(parts) // 2


def words(text: str) -> list[str]:
    """The tokens of a text: a word with the white space behind it, a further white space, or a control token."""
    parts = _SPECIAL.split(text)
    found = (_WORD.findall(part) if number % 2 == 0 else [part] for number, part in enumerate(parts))
    return [word for some in found for word in some]


def steps(seed: int = 0, amount: int = STEPS, tokens: int = STEP_TOKENS) -> list[str]:
    """Different steps of so many tokens each, with the delimiter counted; each seed has its own."""
    rng = Random(seed)
    sentences = (
        "So " + " ".join("".join(rng.choices(_SYLLABLES, k=3)) for _ in range(tokens - 2)) + "." for _ in count()
    )
    return [next(sentences) for _ in range(amount)]


def rendered(messages: Sequence[Mapping[str, str]], *, opens: bool) -> str:
    """The conversation in the server's chat template."""
    turns = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in messages)
    return turns + OPENED * opens


class Refused(Exception):
    """The server does not take a request."""

    def __init__(self, message: str, status: int = 400) -> None:
        """Say why, and with which status."""
        super().__init__(message)
        self.status = status


@dataclass
class Model:
    """What the server knows: its words, its script, and how long the requests of its sessions were."""

    ids: dict[str, int] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    sessions: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    """For each request of a session the tokens of its prompt, and those of its prompt and its text together."""
    calls: int = 0
    judged: int = 0
    script: list[str] = field(default_factory=steps)
    """The steps that it writes, one after the other."""

    def tokens(self, text: str) -> list[int]:
        """The ids of a text's tokens."""
        return [self._id(word) for word in words(text)]

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        """The response to a request: JSON, or None for an empty one.

        Raises:
            Refused: the server does not take the request.
            LookupError: the request lacks something.
        """
        known: dict[str, Callable[[dict[str, Any]], Any]] = {
            "/generate": self._generated,
            "/v1/chat/completions": self._chatted,
            "/tokenize": self._tokenized,
            "/detokenize": self._detokenized,
            "/open_session": self._opened,
            "/close_session": lambda body: self.sessions.pop(body["session_id"], None) and None,
        }
        if path in known:
            return known[path](body)
        if path in STILL:
            return STILL[path]
        raise Refused(f"there is no {path}", 404)

    def _opened(self, body: dict[str, Any]) -> str:
        name: str = body.get("session_id") or uuid.uuid4().hex
        if name in self.sessions:
            raise Refused("Failed to open the session. Check if a session with the same id is still open.")
        self.sessions[name] = {}
        return name

    def _tokenized(self, body: dict[str, Any]) -> dict[str, Any]:
        if "messages" in body:
            text: Any = rendered(body["messages"], opens=body.get("add_generation_prompt", True))
        else:
            text = body["prompt"]
        tokens = self.tokens(text) if isinstance(text, str) else [self.tokens(each) for each in text]
        return {"tokens": tokens, "count": len(tokens), "max_model_len": CONTEXT}

    def _detokenized(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"text": self._read(body["tokens"], skip=body.get("skip_special_tokens", True))}

    def _read(self, tokens: Any, *, skip: bool) -> Any:
        if tokens and isinstance(tokens[0], list):
            return [self._read(each, skip=skip) for each in tokens]
        spelt = (self.words[token] for token in tokens)
        return "".join(word for word in spelt if not (skip and _SPECIAL.fullmatch(word)))

    def _generated(self, body: dict[str, Any]) -> dict[str, Any]:
        new = counted(body["text"]) if "text" in body else len(body["input_ids"])
        at = body.get("session_params")
        prompt = self._behind(at, new) if at else new
        sampling = body["sampling_params"]
        most, forced = sampling.get("max_new_tokens", 128), sampling.get("ignore_eos", False)
        text, made, finish = self._written(most, sampling.get("stop") or (), forced=forced)
        rid = str(body.get("rid"))
        if at:
            self.sessions[at["id"]][rid] = prompt, prompt + made
        meta: dict[str, Any] = {
            "id": rid,
            "finish_reason": finish,
            "prompt_tokens": prompt,
            "completion_tokens": made,
            "cached_tokens": prompt - 1,
            "e2e_latency": 0.0,
        }
        if digits := body.get("token_ids_logprob"):
            likeliest = self._verdict()
            rows = [[-0.1 if self.words[token] == likeliest else -4.5, token, None] for token in digits]
            meta["output_token_ids_logprobs"] = [rows]
            text = likeliest
        return {"text": text, "output_ids": self.tokens(text), "meta_info": meta}

    def _behind(self, at: dict[str, Any], new: int) -> int:
        """The tokens of a prompt that goes on behind an earlier request of a session."""
        name, rid = at.get("id"), at.get("rid")
        if at.keys() - {"id", "rid", "offset", "drop_previous_output"}:
            raise Refused("this server knows of `session_params` only `id`, `rid`, `offset` and `drop_previous_output`")
        if name not in self.sessions:
            raise Refused(f"Invalid request: session id {name} does not exist")
        if rid is None:
            return new
        if rid not in self.sessions[name]:
            raise Refused("Invalid request session id")
        prompt, whole = self.sessions[name][rid]
        history = prompt if at.get("drop_previous_output") else whole
        return min(history, at.get("offset") or history) + new

    def _written(self, most: int, stops: Sequence[str], *, forced: bool) -> tuple[str, int, dict[str, Any]]:
        """A text, its tokens and why it ends: a step where a delimiter is a stop string, else an answer."""
        self.calls += 1
        step = self.script[self.calls % len(self.script)]
        is_step = DELIMITER in stops
        whole = step + DELIMITER if is_step or forced else ANSWER
        length = counted(whole)
        if not forced and length <= most:
            matched = DELIMITER if is_step else self._id("<|im_end|>")
            return whole.removesuffix(DELIMITER), length, {"type": "stop", "matched": matched}
        cut = "".join(words(whole * (most // length + 1))[:most])
        return cut, most, {"type": "length", "length": most}

    def _verdict(self) -> str:
        self.judged += 1
        return "9" if self.judged % ACCEPTED else "3"

    def _chatted(self, body: dict[str, Any]) -> dict[str, Any]:
        goes_on = body.get("continue_final_message", False)
        *turns, last = body["messages"]
        asked = rendered(turns if goes_on else body["messages"], opens=True)
        prompt = counted(asked) + (counted(last["content"]) if goes_on else 0)
        text, made, finish = self._written(
            body["max_tokens"], body.get("stop") or (), forced=body.get("ignore_eos", False)
        )
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": finish["type"],
            "matched_stop": finish.get("matched"),
        }
        if body.get("logprobs"):
            likeliest = self._verdict()
            top = [{"token": digit, "logprob": -0.1 if digit == likeliest else -4.5} for digit in "0123456789"]
            choice["message"]["content"] = likeliest
            choice["logprobs"] = {"content": [{"token": likeliest, "logprob": -0.1, "top_logprobs": top}]}
        usage = {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
        return {"id": "chat", "object": "chat.completion", "choices": [choice], "usage": usage}

    def _id(self, word: str) -> int:
        token = self.ids.setdefault(word, len(self.ids))
        if token == len(self.words):
            self.words.append(word)
        return token


class Connection(asyncio.Protocol):
    """One connection: requests one after the other, each answered when its last byte is there."""

    def __init__(self, model: Model) -> None:
        """Begin with nothing received."""
        self._model = model
        self._told = bytearray()
        self._needed = 0
        """How many bytes there have to be before it is worth looking again."""
        self._line: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        if isinstance(transport, asyncio.Transport):
            self._line = transport

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self._told += data
        while self._line and len(self._told) >= self._needed and (end := self._told.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._told[:end])
            length = _LENGTH.search(head)
            self._needed = end + 4 + (int(length[1]) if length else 0)
            if len(self._told) < self._needed:
                return
            body = bytes(self._told[end + 4 : self._needed])
            del self._told[: self._needed]
            self._needed = 0
            self._line.write(self._response(head.split(b" ", 2)[1].decode(), body))

    def _response(self, path: str, body: bytes) -> bytes:
        status, streams = 200, False
        try:
            asked = json.loads(body) if body else {}
            streams = bool(asked.get("stream"))
            row = self._model.answer(path, asked)
        except Refused as error:
            status, row, streams = error.status, {"error": {"message": str(error)}}, False
        except (LookupError, TypeError, ValueError) as error:
            status, row, streams = 400, {"error": {"message": f"{type(error).__name__}: {error}"}}, False
        told = b"" if row is None else json.dumps(row).encode()
        if streams:
            told = b"data: " + told + b"\n\ndata: [DONE]\n\n"
        kind = "text/event-stream" if streams else "application/json"
        head = f"HTTP/1.1 {status} Word\r\nContent-Type: {kind}\r\nContent-Length: {len(told)}\r\n\r\n"
        return head.encode() + told


@contextmanager
def instant(seed: int = 0) -> Iterator[str]:
    """Such a server in a process of its own, by its address; the seed is that of its steps."""
    command = [sys.executable, "-m", __name__, str(seed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
        if server.stdin is None or server.stdout is None or not (url := server.stdout.readline().strip()):
            raise RuntimeError("the server that answers at once did not start")
        try:
            yield url
        finally:
            server.stdin.close()


async def serve(seed: int) -> None:
    """Serve until standard input ends."""
    loop, model = asyncio.get_running_loop(), Model(script=steps(seed))
    server = await loop.create_server(lambda: Connection(model), HOST, 0)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"http://{HOST}:{port}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
