"""A model server as an SGLang backend, in place of SGLang's `RuntimeEndpoint`.

It adds to the stock one: connections that stay open, time limits, calls that are sent again when the server fails them,
a record of every call (tokens, seconds, role, retries) in SGLang's meta information, text as it streams, and a
``select`` that asks for single-token choices in one request.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint

from specreason_sgl.engine import selection
from specreason_sgl.engine.conversation import Conversation
from specreason_sgl.engine.drafted import unfit
from specreason_sgl.engine.handshake import greet, single_token
from specreason_sgl.engine.link import READ_S, Hiccup, Link, both
from specreason_sgl.engine.responses import Streamed, generated, responses_in, together
from specreason_sgl.engine.seams import tokens_of
from specreason_sgl.engine.transport import AUTO, Transport
from specreason_sgl.engine.watch import WAIT_S, Watch
from specreason_sgl.errors import CallFailed, UsageError
from specreason_sgl.lang.backend import Hear, Listen, SglBackend
from specreason_sgl.lang.choosing import GREEDY
from specreason_sgl.lang.likelihood import ByLikelihood
from specreason_sgl.lang.scope import Scope
from specreason_sgl.lang.seeds import Draws
from specreason_sgl.text.prompts import whole

if TYPE_CHECKING:
    from sglang.lang.choices import ChoicesDecision, ChoicesSamplingMethod
    from sglang.lang.interpreter import StreamExecutor
    from sglang.lang.ir import SglSamplingParams

LEAST = 4000
"""Texts with fewer characters cost no more as they are than in any other way."""


class Endpoint(SglBackend):
    """One model server in its role."""

    def __init__(
        self,
        url: str,
        role: str,
        *,
        api_key: str | None = None,
        read_s: float = READ_S,
        wait_s: float = WAIT_S,
        thinking: str | None = None,
        transport: Transport = AUTO,
        scope: Scope | None = None,
    ) -> None:
        """Connect to the server, and find out what it serves.

        Args:
            url: the server's address, such as ``http://127.0.0.1:30000``.
            role: the model's role, such as ``base``.
            api_key: the server's key, if it wants one.
            read_s: seconds without any answer after which a call is sent again.
            wait_s: seconds to wait for a server that was there and stops answering.
            thinking: the name of the model's thinking format; if not given it is recognised from the server and its
                template.
            transport: how prompts travel; by itself the endpoint sends short ones as they are.
            scope: the scope of calls that are made in no other scope.

        Raises:
            ServerUnreachable: nothing answers at the address, or not an SGLang server.
            UsageError: the address or the key has the wrong form, the server refuses the key, its chat template cannot
                be used, the model's thinking format is not supported, or prompts cannot travel as they are to.
        """
        super().__init__()
        self.role = role
        self.scope = scope or Scope()
        there = Link.to(url, f"the {role} server", api_key=api_key, read_s=read_s, scope=self.scope)
        self._link, self._served = greet(there, role, thinking, transport)
        self.watch.limit_s = wait_s
        self.model_info = self._served.model_info
        self.chat = self._served.chat
        self.context = self._served.context
        self._conversation = Conversation(self._served.transport, self._served.seams, LEAST if transport == AUTO else 0)
        self._listen: Listen | None = None
        self._draws: Draws | None = None
        self._is_plain = False
        self._choice_ids: dict[str, int | None] = {}

    @property
    def url(self) -> str:
        """The server's address."""
        return self._link.url

    @property
    def api_key(self) -> str | None:
        """The key that the server wants."""
        return self._link.headers.get("Authorization", "").removeprefix("Bearer ") or None

    @property
    def transport(self) -> Transport:
        """How long prompts travel: ``sessions``, ``ids`` or ``text``."""
        return self._served.transport

    @property
    def watch(self) -> Watch:
        """The watch over the server: whether it answers."""
        return self._link.watch

    def within(
        self, scope: Scope, *, role: str | None = None, listen: Listen | None = None, seed: int | None = None
    ) -> Self:
        """The same server for the calls of one scope, with a role, a listener and seeds; the connections are shared.

        A scope's child goes on from what its parent has sent.
        """
        mine = copy.copy(self)
        mine.scope, mine.role, mine._listen = scope, role or self.role, listen
        mine._link = replace(self._link, scope=scope)
        mine._draws = self._draws and self._draws.anew() if seed is None else Draws(seed)
        if not scope.is_chance:
            mine._conversation = self._conversation.anew()
        return mine

    def forget(self) -> None:
        """Forget what was sent in this scope, and have the server forget it."""
        self._conversation.close(self._link)

    def plain(self) -> Self:
        """The same server, called as SGLang's own frontend does: a connection for each call, and stock selection.

        It serves only as the baseline of measurements.
        """
        mine = copy.copy(self)
        mine._is_plain = True
        mine._link = replace(self._link, headers={**self._link.headers, "Connection": "close"})
        mine._conversation = self._conversation.anew("text")
        return mine

    def generate(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> tuple[str | list[str], dict[str, Any]]:
        """Generate as SGLang's endpoint does; the meta information also has the role and the client's clock.

        A text ends before the first stop string in it, even if the server reports another one. With ``n`` above 1 the
        result is a list of texts; the meta information is that of the first text, with the tokens of all.

        Raises:
            UsageError: the call asks for a way of choosing tokens that does not hold on a server that drafts tokens.
        """
        RuntimeEndpoint._handle_dtype_to_regex(self, sampling_params)
        wanted, ask = sampling_params.n, self._link.ask
        request: dict[str, Any] = {}
        for option in ("return_logprob", "logprob_start_len", "top_logprobs_num", "return_text_in_logprobs"):
            if (value := getattr(sampling_params, option, None)) is not None:
                request[option] = value
        stop = sampling_params.stop
        stops = [stop] if isinstance(stop, str) else list(stop or ())
        sampling = [self._sampling(s, sampling_params) | {"n": 1} for _ in range(wanted)]
        if wanted > 1:
            self.commit_lazy_operations(s)  # else each of them would read the prompt
            request["sampling_params"] = sampling
            return self._call(
                s,
                request,
                lambda answers: together([self._generated(one, stops) for one in responses_in(answers)]),
                count=wanted,
            )
        request["sampling_params"] = sampling[0]
        hear = self._listen and self._listen(self.role, str(s.filling))
        send = self._streamer(stops, hear) if hear else ask
        return self._call(s, request, lambda answer: self._generated(answer, stops), send)

    def generate_stream(
        self, s: StreamExecutor, sampling_params: SglSamplingParams
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the whole text as one piece: SGLang's own streaming could cut a text inside a stop string.

        Raises:
            UsageError: the call asks for several texts.
        """
        if sampling_params.n > 1:
            raise UsageError("`gen` with `n` cannot be streamed", hint="fork the state, or run it without `stream`")
        text, meta = self.generate(s, sampling_params)
        yield str(text), meta

    def select(
        self,
        s: StreamExecutor,
        choices: list[str],
        temperature: float,
        choices_method: ChoicesSamplingMethod,
    ) -> ChoicesDecision:
        """Choose by log-probability, in one request of one token if every choice is a single token.

        Then the decision's meta information has ``digit_logprobs``: the log-probability of each choice, in their order,
        over the whole vocabulary. Otherwise the server reads every choice after the prompt, and a notice says so unless
        that is what the method wants.

        Raises:
            UsageError: there are no choices, or a temperature is given, which a choice does not have.
        """
        if not choices or not all(choices):
            raise UsageError("`select` needs choices, and none of them empty")
        if temperature > GREEDY:
            raise UsageError("`select` takes the likeliest choice; it has no `temperature`")
        if self._is_plain:
            began = time.perf_counter()
            decision = RuntimeEndpoint.select(self, s, choices, temperature, choices_method)
            wall_s = time.perf_counter() - began
            decision = selection.as_stock(self._link, s, decision, choices)
            decision.meta_info["wall_s"] = wall_s
        elif ids := None if isinstance(choices_method, ByLikelihood) else self._single_tokens(choices):
            decision = selection.by_single_tokens(partial(self._call, s), choices, ids)
        else:
            decision = selection.by_reading(self._link, s, choices, choices_method)
        decision.meta_info["role"] = self.role
        return decision

    def commit_lazy_operations(self, s: StreamExecutor) -> None:
        """Have the server read a state's text and images, so that calls that continue it find them in the cache."""
        self._call(s, {"sampling_params": {"max_new_tokens": 0}}, generated)

    def fill_image(self, s: StreamExecutor) -> None:
        """Have the server read a state's text and image."""
        self.commit_lazy_operations(s)

    def cache_prefix(self, prefix_str: str) -> None:
        """Have the server read a text, so that it is in the cache."""
        self.complete(prefix_str, {"max_new_tokens": 0})

    def flush_cache(self) -> None:
        """Empty the server's radix cache; a router passes this on to all its servers.

        Raises:
            RuntimeError: the cache is in use.
        """
        try:
            self._link.send("POST", "/flush_cache")
        except CallFailed as error:
            self.scope.check()
            raise RuntimeError(str(error)) from error

    def complete(self, text: str, sampling: dict[str, Any], **more: Any) -> dict[str, Any]:
        """SGLang's raw response to a text, without a program: for measurements."""
        answer: dict[str, Any] = self._link.post("/generate", {"text": text, "sampling_params": sampling, **more})
        return answer

    def server_info(self) -> dict[str, Any]:
        """What the server reports about itself; of a router, one server's report, and ``replicas``, their number."""
        info: dict[str, Any] = self._link.get("/server_info")
        servers = len(self._link.servers)
        return info if servers == 1 else {**info, "replicas": servers}

    def get_server_info(self) -> dict[str, Any]:
        """The same as `server_info`, under SGLang's name."""
        return self.server_info()

    def get_model_name(self) -> str:
        """The path or name from which the server loaded its model."""
        return str(self.model_info["model_path"])

    def tokens(self, text: str) -> list[int]:
        """The ids of a text's tokens by the server's tokenizer; control tokens are recognised, and nothing is added."""
        return tokens_of(self._link.post, text)

    def _sampling(self, s: StreamExecutor, params: SglSamplingParams) -> dict[str, Any]:
        sampling: dict[str, Any] = {
            "skip_special_tokens": not self._served.has_special_marks,
            "spaces_between_special_tokens": True,
            **params.to_srt_kwargs(),
        }
        if told := unfit(sampling, self._served.options):
            raise UsageError(f"{self._link.name}: {told}")
        return sampling | {"sampling_seed": self._draws.next(s)} if self._draws else sampling

    def _generated(self, answer: Any, stops: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """The text of a whole response, or of an aborted one whose tokens still have to be counted."""
        return generated(answer, stops, is_half=self.scope.is_dropped)

    def _call(
        self,
        s: StreamExecutor,
        request: dict[str, Any],
        read: Callable[[Any], tuple[Any, dict[str, Any]]],
        send: Callable[[dict[str, Any]], Any] | None = None,
        count: int = 1,
    ) -> tuple[Any, dict[str, Any]]:
        """Make a request behind a state's text; returns what was read, and the meta information with the client's own.

        Args:
            s: the state.
            request: the request without its prompt.
            read: reads the response.
            send: sends the request.
            count: how often the prompt stands in the request.
        """
        images: dict[str, Any] = {}
        self._add_images(s, images)
        talk = self._conversation.anew("text") if images else self._conversation
        link, ask = self._link, send or self._link.ask
        prompt, preparing = link.persist(lambda: talk.prompt(link, s.text_))

        def attempt() -> tuple[Any, dict[str, Any]]:
            answer, sent = talk.send(link, prompt, lambda fields: ask({**request, **images, **fields}), count)
            value, meta = read(answer)
            is_whole = isinstance(answer, dict) and answer["text"] == value
            talk.arrived(sent, meta, s.mark, written=value if is_whole else "")
            return value, {**meta, **sent.account(meta), "role": self.role}

        (value, meta), sending = link.persist(attempt)
        return value, {**meta, **both(preparing, sending, {"notices": meta.pop("notices")})}

    def _streamer(self, stops: Sequence[str], hear: Hear) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """A streaming request that can be repeated; the listener gets every piece of text only once."""
        heard = 0

        def stream(request: dict[str, Any]) -> dict[str, Any]:
            nonlocal heard
            answer = Streamed(stops, in_pieces=self._served.streams_pieces, heard=heard)
            with closing(self._link.stream(request)) as chunks:
                for chunk in chunks:
                    new, heard = answer.add(chunk), answer.heard
                    if new:
                        hear(whole(new))
                    if answer.is_stuck():
                        return answer.whole("repeat")
            if not (made := answer.whole()):
                raise Hiccup(f"{self._link.name} ended a response before it began")
            return made

        return stream

    def _single_tokens(self, choices: Sequence[str]) -> list[int] | None:
        for choice in choices:
            if choice not in self._choice_ids:
                self._choice_ids[choice] = single_token(self._link, choice)
        ids = [self._choice_ids[choice] for choice in choices]
        known = [token for token in ids if token is not None]
        return known if len(set(known)) == len(choices) else None

    def _add_images(self, s: StreamExecutor, data: dict[str, Any]) -> None:
        RuntimeEndpoint._add_images(self, s, data)

    def _generate_http_request(self, s: StreamExecutor, data: dict[str, Any]) -> Any:
        """A request as SGLang's own selection makes it."""
        self._add_images(s, data)
        return self._link.post("/generate", data)
