"""A baseline for measurements: SpecReason with its calls made as by the reference implementation's loop.

Through the client library of the chat API that it uses, it asks for the list of models before each call. Then it sends
the whole conversation as messages, with the last one, the assistant's, to be gone on with. The judge answers in a chat
too, of which the likeliest twenty tokens come back. Words, stop strings, limits and decisions are those of
`programs/specreason.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import sglang as sgl
from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAI
from pydantic import NonNegativeFloat, NonNegativeInt
from sglang.lang.choices import ChoicesDecision

from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.engine.link import PASSING, READ_S, Away, Hiccup, Link
from specreason_sgl.engine.responses import generated
from specreason_sgl.errors import CallRefused, UsageError
from specreason_sgl.lang.backend import Listen, SglBackend
from specreason_sgl.lang.loading import load
from specreason_sgl.lang.scope import Scope
from specreason_sgl.lang.solve import Solve
from specreason_sgl.lang.states import check
from specreason_sgl.text.chat import ChatFormat, Message
from specreason_sgl.text.prompts import VERDICT
from specreason_sgl.text.scoring import LEAST, ScoreRule
from specreason_sgl.text.thinking import SWITCHES

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion
    from sglang.lang.choices import ChoicesSamplingMethod
    from sglang.lang.interpreter import StreamExecutor
    from sglang.lang.ir import SglSamplingParams

    from specreason_sgl.lang.backend import Backend

TOP = 20
"""How many of the judge's tokens come back with their log-probabilities."""
_QUESTION, _REPLY, _VERDICT = "QUESTIONMARK", "REPLYMARK", "VERDICTMARK"
_COUNTS = ("id", "prompt_tokens", "completion_tokens", "cached_tokens", "e2e_latency", "finish_reason")


@dataclass(frozen=True)
class Turns:
    """How a prompt of ours is told in messages, so that the server's template renders the same again."""

    before: str
    after: str
    """The text between the question and the thoughts."""
    led: str
    """How thoughts begin in a message of the assistant's that is over."""
    owed: str
    """How they begin in a message that goes on; nothing where the template itself opens the thinking."""
    asking: str
    """The text between the thoughts and the judge's question."""
    asked: str
    """The text behind the judge's question."""
    verdict: str
    """How the judge's reply begins."""

    @classmethod
    def learn(cls, chat: ChatFormat) -> Turns:
        """Compare what a template renders with the texts of our prompts.

        Raises:
            UsageError: the template does not render what our prompts are made of.
        """
        user = {"role": "user", "content": _QUESTION}
        judge = [user, {"role": "assistant", "content": _REPLY}, {"role": "user", "content": _VERDICT}]
        shown, judged = (chat.render(turns) if chat.render else "" for turns in ([user], judge))
        opened, over = shown.partition(_QUESTION)[2], judged.partition(_QUESTION)[2].partition(_REPLY)[0]
        if not (opened and over and chat.after.startswith(opened) and chat.after.startswith(over)):
            raise UsageError(
                "the model's chat template cannot go on with a message of the assistant's (`continue_final_message`)",
                hint="leave out the mode that asks as the reference implementation does",
            )
        owed = chat.after.removeprefix(opened)
        asking, _, asked = chat.judge_turn.partition(chat.prompts.judge)
        verdict = chat.thinking.begun(VERDICT) if owed else VERDICT
        return cls(chat.before, chat.after, chat.after.removeprefix(over), owed, asking, asked, verdict)

    def messages(self, prompt: str) -> list[Message]:
        """The messages of a prompt; the last one is the assistant's if there is something to go on with.

        Raises:
            UsageError: the prompt is not that of a single question.
        """
        question, opened, rest = prompt.removeprefix(self.before).partition(self.after)
        if not (opened and prompt.startswith(self.before)):
            raise UsageError("the reference implementation's loop asks single questions only")
        thoughts, judged, more = rest.partition(self.asking)
        asked = {"role": "user", "content": question}
        if judged:
            return [
                asked,
                {"role": "assistant", "content": self.led + thoughts},
                {"role": "user", "content": more.removesuffix(self.asked)},
                {"role": "assistant", "content": self.verdict},
            ]
        begun = self.owed + thoughts
        return [asked, {"role": "assistant", "content": begun}] if begun else [asked]


class Chatting(SglBackend):
    """A model server that is asked over its chat API."""

    def __init__(self, server: Endpoint) -> None:
        """Ask the same server as another backend does, for the same scope.

        Raises:
            UsageError: the server's chat template does not serve for it.
        """
        super().__init__()
        self.role, self.chat, self.context, self.scope = server.role, server.chat, server.context, server.scope
        self._server = server
        link, self._client, self._turns = _known(server.url, server.api_key, server.role, server.chat)
        self._link = replace(link, scope=server.scope)

    def within(
        self, scope: Scope, *, role: str | None = None, listen: Listen | None = None, seed: int | None = None
    ) -> Self:
        """The same server for the calls of one scope; it streams nothing."""
        return type(self)(self._server.within(scope, role=role, listen=listen, seed=seed))

    def forget(self) -> None:
        """Have the server forget what was sent in this scope."""
        self._server.forget()

    def tokens(self, text: str) -> list[int]:
        """The ids of a text's tokens."""
        return self._server.tokens(text)

    def generate(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> tuple[str, dict[str, Any]]:
        """Have the server go on with the assistant's message."""
        sampling = sampling_params
        stops = [sampling.stop] if isinstance(sampling.stop, str) else list(sampling.stop or ())
        wanted = {
            "max_tokens": sampling.max_new_tokens,
            "stop": stops,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        more = {"ignore_eos": sampling.ignore_eos}
        (text, meta), made = self._link.persist(
            lambda: generated(_as_generated(self._asked(s.text_, wanted, more)), stops)
        )
        return text, {**_kept(meta), **made, "requests": 2, "role": self.role}

    def select(
        self,
        s: StreamExecutor,
        choices: list[str],
        temperature: float,  # noqa: ARG002 - as in the reference, the likeliest
        choices_method: ChoicesSamplingMethod | None = None,  # noqa: ARG002
    ) -> ChoicesDecision:
        """The likeliest of the choices among the likeliest tokens; the first choice where none is among them."""
        wanted = {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": TOP}
        (meta, likely), made = self._link.persist(lambda: _judged(self._asked(s.text_, wanted, {})))
        logprobs = [max(likely.get(choice, LEAST), LEAST) for choice in choices]
        best = max(range(len(choices)), key=lambda place: logprobs[place])
        told = {"digit_logprobs": logprobs} if logprobs[best] > LEAST else {}
        return ChoicesDecision(choices[best], {**_kept(meta), **told, **made, "requests": 2, "role": self.role})

    def _asked(self, prompt: str, wanted: dict[str, Any], more: dict[str, Any]) -> ChatCompletion:
        """The response of the chat API to a prompt of ours.

        Args:
            prompt: the prompt.
            wanted: fields of the request that the API has.
            more: fields that SGLang has besides.

        Raises:
            CallRefused: the server refuses the request.
            SpecReasonError: the call failed, and may succeed if it is made again.
        """
        messages = self._turns.messages(prompt)
        goes_on = messages[-1]["role"] == "assistant"
        more = {
            "continue_final_message": goes_on,
            "add_generation_prompt": not goes_on,
            "chat_template_kwargs": SWITCHES,
            "skip_special_tokens": False,
            "separate_reasoning": False,
            "return_meta_info": True,
            **more,
        }
        try:
            model = self._client.models.list().data[0].id
            made: ChatCompletion = self._client.chat.completions.create(
                model=model, messages=messages, extra_body=more, **wanted
            )
        except APITimeoutError as error:
            raise Hiccup(f"{self._link.name} fell silent") from error
        except APIConnectionError as error:
            raise Away(f"{self._link.name} at {self._link.url} does not answer") from error
        except APIStatusError as error:
            told = f"the chat API cannot be asked as by the reference implementation: {error}"
            raise (Hiccup if error.status_code in PASSING else CallRefused)(told) from error
        return made


@lru_cache(maxsize=16)
def _known(url: str, api_key: str | None, role: str, chat: ChatFormat) -> tuple[Link, OpenAI, Turns]:
    """The connections to a server and what its template does, which all solves share."""
    link = Link.to(url, f"the {role} server", api_key=api_key, read_s=READ_S, scope=Scope())
    client = OpenAI(base_url=f"{link.url}/v1", api_key=api_key or "none", max_retries=0, timeout=READ_S)
    return link, client, Turns.learn(chat)


def _as_generated(answer: ChatCompletion) -> dict[str, Any]:
    """A response of the chat API in the form of one to `/generate`.

    Raises:
        Hiccup: the response is not complete.
    """
    try:
        choice, usage = answer.choices[0], answer.usage
        more = choice.model_extra or {}
        ended = {"type": choice.finish_reason, "matched": more.get("matched_stop")}
        counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens} if usage else {}
        return {
            "text": choice.message.content or "",
            "meta_info": {**counts, "finish_reason": ended, **(more.get("meta_info") or {})},
        }
    except (LookupError, TypeError, AttributeError) as error:  # the library checks nothing
        raise Hiccup("a response of the chat API lacks what every response has") from error


def _judged(answer: ChatCompletion) -> tuple[dict[str, Any], dict[str, float]]:
    """The meta information of a judgement, and the log-probabilities of its likeliest tokens.

    Raises:
        Hiccup: the response is not complete.
    """
    _, meta = generated(_as_generated(answer))
    logprobs = answer.choices[0].logprobs
    if not (logprobs and logprobs.content):
        raise Hiccup("a response of the chat API lacks the log-probabilities")
    return meta, {row.token: row.logprob for row in reversed(logprobs.content[0].top_logprobs)}


def _kept(meta: dict[str, Any]) -> dict[str, Any]:
    return {name: meta[name] for name in _COUNTS if name in meta}


def chatting(server: Backend) -> Chatting:
    """A model server, asked over its chat API.

    Raises:
        UsageError: it is no real server.
    """
    if not isinstance(server, Endpoint):
        raise UsageError("the reference implementation's loop needs servers with a chat API")
    return Chatting(server)


@sgl.function
def reference(
    s: Any,  # noqa: ARG001 - the calls are made by a state of their own, over other backends
    solve: Solve,
    threshold: NonNegativeFloat = 7.0,
    score: ScoreRule = "greedy",
    first_n: NonNegativeInt = 0,
) -> Any:
    """SpecReason with its calls made as by the reference implementation's loop: a baseline for measurements.

    Args:
        s: not used.
        solve: the question.
        threshold: the utility score at which a draft is accepted; 0 accepts all, anything above 9 none.
        score: what is compared with it: the most probable digit (`greedy`) or the mean digit (`expected`).
        first_n: so many first steps are written by the base model without a draft.
    """
    solve.models |= {role: chatting(server) for role, server in solve.models.items()}
    knobs = {"threshold": threshold, "score": score, "first_n": first_n}
    made = load("specreason").function.run(solve, backend=solve.base, **solve.sampling, **knobs)
    check(made)
    return made.ret_value
