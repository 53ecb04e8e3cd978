"""A model server as an SGLang backend: SGLang's `RuntimeEndpoint` with a transport and a judge of our own.

It adds to the stock one: connections that stay open, time limits, calls that are sent again when the server fails them
(`patience.py`), a record of every call (tokens, seconds, role, retries) in SGLang's meta information, text as it
streams, and a ``select`` that asks for single-token choices in one request
of one token (``token_ids_logprob``) instead of two requests and a prefill for each choice.
"""

from __future__ import annotations

import copy
import hashlib
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import urllib3
from sglang.lang.backend.base_backend import BaseBackend
from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint
from sglang.lang.choices import ChoicesDecision
from sglang.lang.interpreter import StreamExecutor
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProtocolError, ReadTimeoutError

from specreason_sgl.engine.patience import ABANDONED, ATTEMPTS, Patience, abort_all
from specreason_sgl.errors import CallFailed, ServerUnreachable, SpecReasonError, UsageError
from specreason_sgl.events import Role
from specreason_sgl.lang import states  # noqa: F401 - puts its states in place of SGLang's
from specreason_sgl.text.chat import ChatFormat, Message
from specreason_sgl.text.prompts import prompts_for, whole
from specreason_sgl.text.scoring import LEAST
from specreason_sgl.text.steps import first_stop, stuck_at
from specreason_sgl.text.thinking import SWITCHES, named, parsed_by

if TYPE_CHECKING:
    from sglang.lang.choices import ChoicesSamplingMethod
    from sglang.lang.ir import SglSamplingParams

T = TypeVar("T")

CONNECT_S, READ_S = 5.0, 600.0
HEALTH_S = 2.0
CONNECTIONS = 128
OUT_OF_TIME = "the solve ran into its time limit"
GIVEN_UP = "the call was given up"
NO_SINGLE_TOKENS = "the model has no single token for some choice, so each was read behind the prompt"
GREEDY = 1e-5
"""Temperatures up to here are none, for SGLang."""

Listen = Callable[[Role, str], None]
"""Told of text as it is generated: by which model, and the new piece."""


PASSING = frozenset({429, 500, 502, 503, 504})
"""Statuses of a server that may do better next time."""


class Hiccup(CallFailed):
    """A call failed in a way that sending it again may mend; it has changed nothing on the server."""


class Away(ServerUnreachable):
    """A server does not answer, or broke off; it may be back."""


class _NoSuchCall(ServerUnreachable):
    """Somebody answers there who does not know the call."""


class Endpoint(RuntimeEndpoint):  # type: ignore[misc]  # SGLang is untyped
    """One model server in its role."""

    def __init__(
        self,
        url: str,
        role: Role,
        *,
        api_key: str | None = None,
        read_s: float = READ_S,
        patience: Patience | None = None,
        thinking: str | None = None,
    ) -> None:
        """Connect, and learn what the server serves.

        Args:
            url: the server's address, such as ``http://127.0.0.1:30000``.
            role: which of the two models it is.
            api_key: the server's key, if it wants one.
            read_s: how long a call may stay silent before it is sent again, in seconds.
            patience: with a server that goes away once it has been there; the same one for both servers of a pair.
            thinking: how the model thinks, by the name of a format; by what the server and its template say if not
                given.

        Raises:
            ServerUnreachable: nobody answers there, or not an SGLang server.
            UsageError: this is no address, this is no key or the server refuses it, its template is of no use, or how
                the model thinks is not supported.
        """
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"`{url}` is not the address of a server", hint="it looks like `http://127.0.0.1:30000`")
        if api_key and not (api_key.isascii() and api_key.isprintable()):  # the HTTP client's own complaint shows it
            raise UsageError("the API key has a character that no key can have", hint="is there a line break in it?")
        BaseBackend.__init__(self)
        self.role = role
        self.base_url = url.rstrip("/")
        self._servers = [self.base_url]
        self.api_key = api_key
        self.verify = None
        self._listen: Listen | None = None
        self._draws: Draws | None = None
        self._read_s = read_s
        self._deadline: float | None = None
        self._paused_s = 0.0
        self._chance: _Chance | None = None
        self._plain = False
        lasting = patience or Patience()
        self._pool = _pool(lasting.watch)
        # A server that has never been there is rather a mistyped address than one that will be back.
        self.patience = Patience(0)
        self.model_info: dict[str, Any] = self._greet()
        self.patience = lasting
        self.context = self._context()
        self._streams_pieces = self._has("incremental_streaming_output")
        self.chat = self._learn(thinking)
        # Where they are, text without special tokens would not show where the thinking ends.
        self._marks_are_special = bool(self._control_tokens(self.chat.thinking.close))
        self._choice_ids: dict[str, int | None] = {}

    def for_solve(self, listen: Listen | None, seed: int | None) -> Endpoint:
        """The same server for one solve: its own listener and random stream, the same connections."""
        mine = copy.copy(self)
        mine._listen, mine._draws = listen, None if seed is None else Draws(seed)
        return mine

    def until(self, deadline: float) -> Endpoint:
        """The same server, whose calls fail once `time.monotonic` is past the deadline; pauses do not count."""
        mine = copy.copy(self)
        mine._deadline, mine._paused_s = deadline, self.patience.paused_s
        return mine

    def plain(self) -> Endpoint:
        """The same server, called as SGLang's own frontend does: a connection for each call, and stock selection.

        It is what everything else is compared with, and nothing one would want otherwise.
        """
        mine = copy.copy(self)
        mine._plain = True
        return mine

    def on_a_chance(self) -> Endpoint:
        """The same server for calls that may turn out to be of no use: silent, and ended early by `give_up`."""
        mine = copy.copy(self)
        mine._listen, mine._chance = None, _Chance()
        mine._draws = self._draws and self._draws.branch()
        return mine

    def count(self, prompt: str) -> None:
        """Count a call that was made on a chance and came to use: another one with this prompt draws other numbers."""
        if self._draws:
            self._draws.next(prompt)

    def give_up(self) -> None:
        """End the calls of an endpoint that is `on_a_chance`: the server aborts those in flight, later ones fail.

        An aborted generation still returns what it has, so that its tokens can be counted.
        """
        if self._chance:
            abort_all((rid, self.abort) for rid in self._chance.give_up())

    def generate(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> tuple[str | list[str], dict[str, Any]]:
        """Generate as SGLang's endpoint does; the meta information also has the role and the client's clock.

        A text ends before the first stop string in it, whichever the server found. With ``n`` above 1 there is a list
        of texts; the meta information is the first one's, with the tokens of all.
        """
        self._handle_dtype_to_regex(sampling_params)
        wanted = sampling_params.n
        request: dict[str, Any] = {"text": s.text_}
        for option in ("return_logprob", "logprob_start_len", "top_logprobs_num", "return_text_in_logprobs"):
            if (value := getattr(sampling_params, option, None)) is not None:
                request[option] = value
        self._add_images(s, request)
        stops = _listed(sampling_params.stop)
        sampling = [self._sampling(sampling_params, s.text_) | {"n": 1} for _ in range(wanted)]
        if wanted > 1:
            self._prefill(s)  # else each of them would read the prompt
            request |= {"text": [s.text_] * wanted, "sampling_params": sampling}
            (texts, meta), made = self._persist(lambda: self._all_generated(self._ask(request), stops))
            return texts, {**meta, **made}
        request["sampling_params"] = sampling[0]
        send = self._streamer(stops) if self._listen else self._ask
        (text, meta), made = self._persist(lambda: self._generated(send(request), stops))
        return text, {**meta, **made}

    def generate_stream(
        self, s: StreamExecutor, sampling_params: SglSamplingParams
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """The whole text as one piece: programs run as SGLang streams would be cut at a stop string's half.

        Raises:
            UsageError: several texts are wanted.
        """
        text, meta = self.generate(s, sampling_params)
        if isinstance(text, list):
            raise UsageError("`gen` with `n` cannot be streamed", hint="fork the state, or run it without `stream`")
        yield text, meta

    def commit_lazy_operations(self, s: StreamExecutor) -> None:
        """Have a state's text read, so that all that goes on from it finds it in the cache."""
        self._prefill(s)

    def fill_image(self, s: StreamExecutor) -> None:
        """Have a state's text and image read."""
        self._prefill(s)

    def cache_prefix(self, prefix_str: str) -> None:
        """Have a text read, so that it is in the cache."""
        self._post("/generate", {"text": prefix_str, "sampling_params": {"max_new_tokens": 0}})

    def get_server_info(self) -> dict[str, Any]:
        """The server's own account of itself, by SGLang's name."""
        return self.server_info()

    def select(
        self,
        s: StreamExecutor,
        choices: list[str],
        temperature: float,
        choices_method: ChoicesSamplingMethod,
    ) -> ChoicesDecision:
        """Choose by log-probability; in one request of one token where every choice is a single token.

        The decision's meta information has ``digit_logprobs``: one log-probability a choice, in their order, over
        the whole vocabulary. Elsewhere every choice is read behind the prompt, and a notice says so.

        Raises:
            UsageError: there is nothing to choose from, or a temperature, which choosing has none of.
        """
        if not choices or not all(choices):
            raise UsageError("`select` needs choices, and none of them empty")
        if temperature > GREEDY:
            raise UsageError("`select` takes the likeliest choice; it has no `temperature`")
        if self._plain:
            return self._stock_select(s, choices, temperature, choices_method, time.perf_counter())
        ids = self._single_tokens(choices)
        if ids is None:
            decision, made = self._persist(lambda: self._read_choices(s, choices, choices_method))
            notices = [*decision.meta_info["notices"], *made.get("notices", ())]
            decision.meta_info |= made | {"notices": notices}
            return decision
        request = {
            "text": s.text_,
            "sampling_params": {"max_new_tokens": 1, "temperature": 0},
            "return_logprob": True,
            "token_ids_logprob": ids,
        }
        (logprobs, meta), made = self._persist(lambda: _chosen(self._ask(request), ids))
        best = max(range(len(choices)), key=lambda i: logprobs[i])
        kept = {name: meta[name] for name in _COUNTS if name in meta}
        return ChoicesDecision(decision=choices[best], meta_info={**kept, "digit_logprobs": logprobs, **made})

    def abort(self, rid: str) -> None:
        """Tell the server to stop working on a request, if it listens."""
        for server in self._servers:  # one of a router's has it
            with suppress(HTTPError):
                self._pool.request(
                    "POST", f"{server}/abort_request", json={"rid": rid}, headers=self._headers, timeout=HEALTH_S
                )

    def flush_cache(self) -> None:
        """Empty the server's radix cache; a router tells all its servers.

        Raises:
            RuntimeError: it is in use.
        """
        try:
            self._persist(lambda: self._send("POST", "/flush_cache", None, preload_content=True, at=self.base_url))
        except CallFailed as error:
            raise RuntimeError(str(error)) from error

    def complete(self, text: str, sampling: dict[str, Any], **more: Any) -> dict[str, Any]:
        """SGLang's raw response to a text: for measurements, with no program around it."""
        answer: dict[str, Any] = self._post("/generate", {"text": text, "sampling_params": sampling, **more})
        return answer

    def server_info(self) -> dict[str, Any]:
        """The server's own account of itself; of one server behind a router, with ``replicas``, how many there are."""
        info: dict[str, Any] = self._request("GET", "/server_info")
        return info if len(self._servers) == 1 else {**info, "replicas": len(self._servers)}

    def tokens(self, text: str) -> list[int]:
        """The server's tokens of a text, control tokens recognised and nothing added."""
        ids: list[int] = self._post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]
        return ids

    def _stock_select(
        self, s: StreamExecutor, choices: list[str], temperature: float, method: ChoicesSamplingMethod, began: float
    ) -> ChoicesDecision:
        decision = super().select(s, choices, temperature, method)
        wall_s = time.perf_counter() - began
        prompt = len(self.tokens(s.text_))
        rows = decision.meta_info["input_token_logprobs"]
        # SGLang scores a token or two of the prompt along with each choice.
        own = [len(self.tokens(s.text_ + choice)) - prompt for choice in choices]
        decision.meta_info |= {
            "digit_logprobs": [_sum(row[-count:]) for row, count in zip(rows, own, strict=True)],
            "role": self.role,
            "wall_s": wall_s,
            "requests": 2,
            "prompt_tokens": prompt,
            "cached_tokens": 0,
            "completion_tokens": 0,
        }
        return decision

    def _read_choices(self, s: StreamExecutor, choices: list[str], method: ChoicesSamplingMethod) -> ChoicesDecision:
        """Choose by what the model gives for the tokens of each choice behind the prompt."""
        if s.images_:
            raise UsageError("choices of several tokens cannot be selected behind an image")
        prompt, *whole = (self._ids(text) for text in (s.text_, *(s.text_ + choice for choice in choices)))
        # A choice can merge with the end of the prompt: it is scored from where not all have the prompt's tokens.
        start = min(_in_common(prompt, ids) for ids in whole)
        if not start:
            raise UsageError("`select` needs a prompt before its choices")
        read = self._read(prompt, len(prompt) - 1)  # else each of them would read the prompt
        rows = [_scored(each)[1:] for each in _all(self._read(whole, start - 1))]
        alone = None
        if method.requires_unconditional_logprobs:
            alone = [_scored(each) for each in _all(self._read([ids[start:] for ids in whole], 0))]
        logprobs = list(map(_sum, rows))
        decision = method(
            choices=choices,
            normalized_prompt_logprobs=[total / len(row) for total, row in zip(logprobs, rows, strict=True)],
            input_token_logprobs=rows,
            output_token_logprobs=[[] for _ in rows],
            unconditional_token_logprobs=alone,
        )
        decision.meta_info |= {
            "digit_logprobs": logprobs,
            "requests": 2 if alone is None else 3,
            "prompt_tokens": len(prompt),
            "cached_tokens": int(read["meta_info"].get("cached_tokens", 0)),
            "completion_tokens": 0,
            "notices": [NO_SINGLE_TOKENS],
        }
        return decision

    def _single_tokens(self, choices: Sequence[str]) -> list[int] | None:
        for choice in choices:
            if choice not in self._choice_ids:
                # Behind a colon and a space, where the judge's digit stands.
                before, whole = self.tokens(": "), self.tokens(f": {choice}")
                alone = len(whole) == len(before) + 1 and whole[: len(before)] == before
                self._choice_ids[choice] = whole[-1] if alone else None
        ids = [self._choice_ids[choice] for choice in choices]
        known = [token for token in ids if token is not None]
        return known if len(set(known)) == len(choices) else None

    def _sampling(self, params: SglSamplingParams, prompt: str) -> dict[str, Any]:
        sampling: dict[str, Any] = {
            "skip_special_tokens": not self._marks_are_special,
            "spaces_between_special_tokens": True,
            **params.to_srt_kwargs(),
        }
        return sampling | {"sampling_seed": self._draws.next(prompt)} if self._draws else sampling

    def _greet(self) -> dict[str, Any]:
        try:
            info: dict[str, Any] = self._request("GET", "/model_info")
        except _NoSuchCall as error:
            self._servers = self._routed_to(error)
            info = self._request("GET", "/model_info")
        if "model_path" not in info:
            msg = f"the {self.role} server at {self.base_url} is not an SGLang server"
            raise ServerUnreachable(msg, hint=self._launch_hint)
        return info

    def _generated(self, answer: Any, stops: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """A whole response; or the half of one that was given up, whose tokens are still to be counted."""
        text, meta = _generated(answer, given_up=self._chance is not None and self._chance.given_up)
        return _ended(text, meta, stops)

    def _all_generated(self, answers: Any, stops: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
        texts, metas = zip(*(self._generated(each, stops) for each in _all(answers)), strict=True)
        tokens = sum(int(meta["completion_tokens"]) for meta in metas)
        return list(texts), {**metas[0], "completion_tokens": tokens, "each": list(metas)}

    def _prefill(self, s: StreamExecutor) -> None:
        request = {"text": s.text_, "sampling_params": {"max_new_tokens": 0}}
        self._add_images(s, request)
        self._post("/generate", request)

    def _read(self, ids: Sequence[int] | Sequence[Sequence[int]], logprob_start_len: int) -> Any:
        """What the server says of tokens, or of each row of them, with their log-probabilities from a place on."""
        return self._ask(
            {
                "input_ids": ids,
                "sampling_params": {"max_new_tokens": 0, "temperature": 0},
                "return_logprob": True,
                "logprob_start_len": logprob_start_len,
            }
        )

    def _context(self) -> int | None:
        """How many tokens a prompt and what is generated behind it may have together, if the server tells."""
        try:
            told = self._request("GET", "/v1/models")["data"][0]["max_model_len"]
        except (_NoSuchCall, LookupError, TypeError):
            return None
        return told if isinstance(told, int) else None

    def _has(self, switch: str) -> bool:
        """Whether the server was started with a switch, if it tells."""
        try:
            return bool(self._request("GET", "/server_info").get(switch))
        except (_NoSuchCall, AttributeError):
            return False

    def _routed_to(self, error: _NoSuchCall) -> list[str]:
        """The servers behind SGLang's router, which are alike; raises the error if this is none."""
        try:
            workers = self._request("GET", "/workers")["workers"]
            found = [worker["url"].rstrip("/") for worker in workers]
        except (ServerUnreachable, CallFailed, LookupError, TypeError):
            raise error from None
        if not found:
            raise ServerUnreachable(f"the router at {self.base_url} has no {self.role} server yet", hint="try again")
        return found

    def _learn(self, wanted: str | None) -> ChatFormat:
        """The turns and the thinking of the model: as somebody says, as the server says, as its template looks."""
        parser = self.model_info.get("reasoning_parser")
        try:
            return ChatFormat.learn(
                self._render,
                self._in_front(),
                self._control_tokens,
                prompts_for(self.model_info["model_path"]),
                history=self._history,
                thinking=named(wanted) if wanted else parsed_by(parser) if parser else None,
            )
        except UsageError as error:
            raise UsageError(f"{self.role} model at {self.base_url}: {error}", hint=error.hint) from error

    def _render(self, messages: Sequence[Message]) -> str:
        opened, switched = {"add_generation_prompt": True}, {"chat_template_kwargs": SWITCHES}
        # A server with a named template or an encoder of its own opens the turn unasked, and refuses to be asked.
        return self._rendered(messages, (opened | switched, switched, opened, {}))

    def _history(self, messages: Sequence[Message]) -> str:
        """A conversation that is not to go on; nothing where the server does not render one."""
        closed: dict[str, Any] = {"add_generation_prompt": False}
        try:
            return self._rendered(messages, (closed | {"chat_template_kwargs": SWITCHES}, closed))
        except CallFailed:
            return ""

    def _rendered(self, messages: Sequence[Message], options: Sequence[dict[str, Any]]) -> str:
        for option in options[:-1]:
            with suppress(CallFailed):
                return self._text(self._post("/tokenize", {"messages": list(messages), **option})["tokens"])
        return self._text(self._post("/tokenize", {"messages": list(messages), **options[-1]})["tokens"])

    def _ids(self, text: str) -> list[int]:
        """The tokens that the server makes of a text it is sent, with what it puts in front by itself."""
        ids: list[int] = self._post("/tokenize", {"prompt": text, "add_special_tokens": True})["tokens"]
        return ids

    def _in_front(self) -> str:
        """What the server puts in front of a text by itself: with Llama and DeepSeek the token of its beginning."""
        plain, whole = self.tokens("x"), self._ids("x")
        extra = whole[: len(whole) - len(plain)]
        return self._text(extra) if extra and whole == [*extra, *plain] else ""

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self._post("/detokenize", {"tokens": list(tokens), "skip_special_tokens": False})["text"]
        return text

    def _control_tokens(self, text: str) -> list[str]:
        """The special tokens among a text's tokens: those that leave nothing when special tokens are skipped."""
        ids = [[token] for token in sorted(set(self.tokens(text)))]
        spelt, read = (
            self._post("/detokenize", {"tokens": ids, "skip_special_tokens": skip})["text"] for skip in (False, True)
        )
        return [token for token, rest in zip(spelt, read, strict=True) if token and not rest]

    def _generate_http_request(self, s: StreamExecutor, data: dict[str, Any]) -> Any:
        self._add_images(s, data)
        return self._post("/generate", data)

    @property
    def _launch_hint(self) -> str:
        return (
            "start one with `python -m sglang.launch_server --model-path MODEL --port PORT`, "
            "or both of the embedded pair with `specreason up`"
        )

    @property
    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return headers | {"Connection": "close"} if self._plain else headers

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._request("POST", path, body)

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._persist(lambda: self._once(method, path, body))[0]

    def _persist(self, attempt: Callable[[], T]) -> tuple[T, dict[str, Any]]:
        """What an attempt comes to, made again while that can help, and what the trace is to know of it.

        Tokens and seconds are those of the attempt that counts; what was lost before it stands beside them.
        """
        began = time.perf_counter()
        notices: list[str] = []
        while True:
            if self.patience.is_over:
                raise ServerUnreachable(ABANDONED)
            sent = time.perf_counter()
            try:
                result = attempt()
            except (Hiccup, Away) as error:
                notices.append(f"sent again: {error}")
                self._go_on_after(error, len(notices))
            else:
                made = {"role": self.role, "wall_s": time.perf_counter() - sent}
                lost = {"retries": len(notices), "lost_s": sent - began, "notices": notices}
                return result, made | lost if notices else made

    def _go_on_after(self, error: Hiccup | Away, failures: int) -> None:
        """Return when the failed call is to be sent again.

        Raises:
            ServerUnreachable: the server stays away.
            CallFailed: it is there, but this call has failed too often.
        """
        away = isinstance(error, Away)
        if away and not self.patience.await_server(f"the {self.role} server at {self.base_url}", self._is_there):
            raise error
        if failures >= ATTEMPTS:
            raise CallFailed(f"sent {failures} times in vain; the last time {error}") from error
        self.patience.pause(failures)

    def _is_there(self) -> bool:
        try:
            response = self._pool.request("GET", f"{self.base_url}/health", headers=self._headers, timeout=HEALTH_S)
        except HTTPError:
            return False
        return bool(response.status == HTTPStatus.OK)

    def _ask(self, request: dict[str, Any]) -> Any:
        return self._once("POST", "/generate", request)

    def _once(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        with ExitStack() as flying:
            if path == "/generate" and body:
                rids = [uuid.uuid4().hex for _ in range(_size(body))]
                for rid in rids:
                    flying.enter_context(self.patience.flying(rid, self.abort))
                    if self._chance:
                        flying.enter_context(self._chance.running(rid))
                # A server takes one name for several prompts too, but aborts none of them by it.
                body = {"rid": rids if _is_several(body) else rids[0], **body}
            response = self._send(method, path, body, preload_content=True)
        try:
            return response.json()
        except ValueError as error:
            msg = f"the {self.role} server at {self.base_url} answered `{path}` with something that is not JSON"
            raise Hiccup(msg) from error

    def _streamer(self, stops: Sequence[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """A streaming request that can be made several times; what was heard once is not told again."""
        heard = 0

        def stream(request: dict[str, Any]) -> dict[str, Any]:
            nonlocal heard
            last: dict[str, Any] = {}
            with closing(self._chunks({**request, "stream": True})) as chunks:
                for chunk in chunks:
                    last = _joined(last, chunk) if self._streams_pieces else chunk
                    text = _ended(last["text"], {}, stops)[0]
                    if self._listen and (new := text[heard:]):
                        self._listen(self.role, whole(new))
                    heard = max(heard, len(text))
                    if stuck_at(text, growing=True) is not None:
                        return {**last, "meta_info": {**last["meta_info"], "finish_reason": {"type": "repeat"}}}
            if not last:
                raise Hiccup(f"the {self.role} server ended a response before it began")
            return last

        return stream

    def _chunks(self, request: dict[str, Any]) -> Generator[dict[str, Any]]:
        rid = uuid.uuid4().hex
        with self.patience.flying(rid, self.abort):
            response = self._send("POST", "/generate", {"rid": rid, **request}, preload_content=False)
            done = False
            try:
                for line in response:
                    if done := line.strip() == b"data: [DONE]":
                        break
                    self._silence_limit()
                    if line.startswith(b"data:"):
                        chunk = json.loads(line[5:])
                        if "error" in chunk:
                            raise Hiccup(f"the {self.role} server failed: {_detail(chunk)}")
                        yield chunk
            except GeneratorExit:
                self.abort(rid)
                raise
            except HTTPError as error:
                raise self._failure(error) from error
            except (ValueError, TypeError) as error:
                raise Hiccup(f"the {self.role} server streamed something that is not JSON") from error
            finally:
                # What has not been read to its end must not be taken for the answer to the next request.
                response.release_conn() if done else response.close()
            if not done:
                raise Hiccup(f"the {self.role} server ended a response in the middle")

    def _silence_limit(self) -> float:
        """How long the server may stay silent now, in seconds."""
        if self._deadline is None:
            return self._read_s
        left = self._deadline + (self.patience.paused_s - self._paused_s) - time.monotonic()
        if left <= 0:
            raise CallFailed(OUT_OF_TIME)
        return min(left, self._read_s)

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None, *, preload_content: bool, at: str | None = None
    ) -> urllib3.BaseHTTPResponse:
        try:
            response = self._pool.request(
                method,
                (at or (self.base_url if path in _ROUTED else self._servers[0])) + path,
                body=None if body is None else json.dumps(body).encode(),
                headers=self._headers,
                preload_content=preload_content,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=self._silence_limit()),
            )
        except HTTPError as error:
            raise self._failure(error) from error
        if response.status == HTTPStatus.OK:
            return response
        raise self._refusal(path, response)

    def _failure(self, error: Exception) -> SpecReasonError:
        if isinstance(error, ReadTimeoutError):
            self._silence_limit()
            return Hiccup(f"the {self.role} server at {self.base_url} fell silent")
        if isinstance(error, NewConnectionError | ConnectTimeoutError):
            return Away(f"the {self.role} server at {self.base_url} does not answer", hint=self._launch_hint)
        if isinstance(error, ProtocolError):
            return Away(f"the {self.role} server at {self.base_url} broke the connection", hint=self._launch_hint)
        return CallFailed(f"the {self.role} server at {self.base_url} cannot be used: {error}")

    def _refusal(self, path: str, response: urllib3.BaseHTTPResponse) -> Exception:
        try:
            detail = _detail(response.json())
        except (ValueError, HTTPError):
            detail = f"status {response.status}"
        if response.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return UsageError(
                f"the {self.role} server at {self.base_url} refuses the API key", hint="give it with `--api-key`"
            )
        if response.status == HTTPStatus.NOT_FOUND:
            return _NoSuchCall(
                f"the {self.role} server at {self.base_url} has no `{path}`: it is no SGLang server, or an old one",
                hint=self._launch_hint,
            )
        if response.status in PASSING:
            return Hiccup(f"the {self.role} server failed with status {response.status}: {detail}")
        return CallFailed(f"the {self.role} server refused a call: {detail}")


def _pool(watch: Callable[[Any], None]) -> urllib3.PoolManager:
    """Connections that are kept, each shown to somebody as it is made."""
    pool = urllib3.PoolManager(maxsize=CONNECTIONS, retries=False)

    def watched(kind: Any) -> Any:
        def connect(self: Any) -> None:
            kind.ConnectionCls.connect(self)
            watch(self.sock)

        connection = type(kind.ConnectionCls.__name__, (kind.ConnectionCls,), {"connect": connect})
        return type(kind.__name__, (kind,), {"ConnectionCls": connection})

    pool.pool_classes_by_scheme = {scheme: watched(kind) for scheme, kind in pool.pool_classes_by_scheme.items()}
    return pool


def _generated(answer: Any, *, given_up: bool = False) -> tuple[str, dict[str, Any]]:
    """Text and meta information of a whole response, or of one that was given up.

    Raises:
        Hiccup: it is not whole.
    """
    try:
        text, meta = answer["text"], answer["meta_info"]
        finish = (meta["finish_reason"] or {}).get("type")
        counted = isinstance(text, str) and int(meta["completion_tokens"]) >= 0 and int(meta["prompt_tokens"]) >= 0
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise Hiccup("a response lacks what every response has") from error
    if (finish == "abort" and not given_up) or not counted:
        raise Hiccup("the server aborted the call")
    return whole(text), meta


def _ended(text: str, meta: dict[str, Any], stops: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The text up to the first stop string in it, and the meta information with that as the reason."""
    if (first := first_stop(text, stops)) is None:
        return text, meta
    place, stop = first
    return text[:place], {**meta, "finish_reason": {"type": "stop", "matched": stop}}


def _joined(before: dict[str, Any], chunk: dict[str, Any]) -> dict[str, Any]:
    """A stream so far from what came before and a piece; the rest of a piece is of the whole stream anyway."""
    if not before:
        return chunk
    old, new = before["meta_info"], chunk["meta_info"]
    lists = {name: [*(old.get(name) or ()), *(new.get(name) or ())] for name in _PIECES if name in new or name in old}
    return {**chunk, "text": before["text"] + chunk["text"], "meta_info": {**new, **lists}}


def _is_several(request: Mapping[str, Any]) -> bool:
    """Whether a request has several prompts."""
    ids = request.get("input_ids") or [0]
    return isinstance(request.get("text"), list) or isinstance(ids[0], list)


def _size(request: Mapping[str, Any]) -> int:
    """How many prompts a request has."""
    return len(request.get("text") or request["input_ids"]) if _is_several(request) else 1


def _listed(stop: str | Sequence[str] | None) -> list[str]:
    return [stop] if isinstance(stop, str) else list(stop or ())


def _all(answers: Any) -> list[Any]:
    """The responses to a list of texts.

    Raises:
        Hiccup: there is no list.
    """
    if not isinstance(answers, list) or not answers:
        raise Hiccup("a response lacks what every response has")
    return answers


def _scored(answer: Any) -> list[Any]:
    """The rows of a response's prompt: a token's log-probability, its number and its text.

    Raises:
        Hiccup: it has none.
    """
    try:
        return list(answer["meta_info"]["input_token_logprobs"])
    except (LookupError, TypeError) as error:
        raise Hiccup("a response lacks the log-probabilities of the choices") from error


def _sum(row: Sequence[Sequence[Any]]) -> float:
    return float(sum(LEAST if token[0] is None else token[0] for token in row))


def _in_common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two rows begin with together."""
    same = (place for place, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
    return next(same, min(len(left), len(right)))


def _chosen(answer: Any, ids: Sequence[int]) -> tuple[list[float], dict[str, Any]]:
    """The log-probabilities of the choices, and the meta information."""
    _, meta = _generated(answer)
    try:
        by_id = {token: max(logprob, LEAST) for logprob, token, *_ in meta["output_token_ids_logprobs"][0]}
        return [by_id[token] for token in ids], meta
    except (LookupError, TypeError, ValueError) as error:
        raise Hiccup("a response lacks the log-probabilities of the choices") from error


def _detail(told: Any) -> str:
    """What a server says of an error, in a line that is not too long."""
    told = told.get("error", told) if isinstance(told, dict) else told
    detail = told.get("message") or told.get("detail") or told if isinstance(told, dict) else told
    return " ".join(whole(str(detail)).split())[:300]


class Draws:
    """The random numbers of a solve on one server: a seed for every call.

    A seed depends on what is asked and how often it was asked before, not on the order of calls, so that a program that
    asks ahead of its decisions draws what one draws that does not.
    """

    def __init__(self, seed: int, asked: Mapping[bytes, int] | None = None) -> None:
        """Begin, or go on behind what was asked before."""
        self._seed = seed
        self._asked = Counter(asked)
        self._lock = threading.Lock()

    def next(self, prompt: str) -> int:
        """The seed of the next call with a prompt."""
        asked = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()
        with self._lock:
            before = self._asked[asked]
            self._asked[asked] += 1
        drawn = hashlib.sha256(b"%d:%d:%s" % (self._seed, before, asked)).digest()
        return int.from_bytes(drawn[:4]) >> 1

    def branch(self) -> Draws:
        """The same stream for calls that may come to nothing: they count here only by `Endpoint.count`."""
        with self._lock:
            return Draws(self._seed, self._asked)


class _Chance:
    """The calls in flight that may be given up all at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rids: set[str] = set()
        self._given_up = False

    @contextmanager
    def running(self, rid: str) -> Iterator[None]:
        with self._lock:
            if self._given_up:
                raise CallFailed(GIVEN_UP)
            self._rids.add(rid)
        try:
            yield
        finally:
            with self._lock:
                self._rids.discard(rid)

    def give_up(self) -> list[str]:
        with self._lock:
            self._given_up = True
            return list(self._rids)

    @property
    def given_up(self) -> bool:
        return self._given_up


_ROUTED = {"/generate", "/workers"}
"""What SGLang's router passes on or answers; the rest is asked of its servers themselves (sglang-router 0.3.2)."""

_PIECES = ("output_token_logprobs", "output_top_logprobs", "output_token_ids_logprobs")
"""What comes in pieces along with the text, from a server with ``--incremental-streaming-output``."""

_COUNTS = ("id", "prompt_tokens", "completion_tokens", "cached_tokens", "e2e_latency", "finish_reason")
