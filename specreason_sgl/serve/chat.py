"""``/v1/chat/completions``: what a request asks for, and what of it has no meaning over two models.

`FIELDS` is the whole table of a request's fields; docs/serve.md shows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator

from specreason_sgl.errors import UsageError
from specreason_sgl.runs.store import Problem
from specreason_sgl.serve.menu import Offer
from specreason_sgl.serve.orders import Order
from specreason_sgl.serve.reply import ANSWER, STAYS
from specreason_sgl.settings import Settings

MOST_CHOICES, MOST_MESSAGES, MOST_STOPS = 16, 1024, 16
MOST_FORM = 16_384
"""The most characters of a schema or an expression: a server reads it before it goes on with anything."""
MOST_NESTED = 32
"""The most brackets inside one another in it."""
ANSWER_TOKENS = 4096
"""The most tokens of an answer if a request says nothing, where a quarter of the context is not less."""
ANSWER_SHARE = 4
"""An answer may take one in so many of the tokens that a request allows, and of the context."""

EFFORTS: Mapping[str, int | None] = {
    "none": 0,
    "minimal": 512,
    "low": 1024,
    "medium": 4096,
    "high": 8192,
    "xhigh": 16384,
    "ultra": None,
    "max": None,
}
"""Reasoning efforts as thinking budgets, in tokens; None is all that the context has room for."""

EXTENSION = "specreason"
"""The field of requests and responses that holds what the protocol has no word for."""


class Refused(UsageError):
    """A request asks for something that has no meaning here."""

    def __init__(self, param: str, message: str, *, hint: str | None = None) -> None:
        """Keep the name of the field."""
        super().__init__(message, hint=hint)
        self.param = param


class NoSuchModel(UsageError):
    """A request names a model that is not offered."""


class Message(BaseModel):
    """A turn of the conversation; unknown fields are ignored, as SGLang ignores them."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class StreamOptions(BaseModel):
    """What a stream has besides text."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class Reasoning(BaseModel):
    """The effort as routers write it."""

    effort: str | float | None = None
    enabled: bool | None = None
    max_tokens: int | None = Field(None, ge=0)


class Extras(BaseModel):
    """The extension object of a request; every other field is a parameter of the program."""

    model_config = ConfigDict(extra="allow")

    instruction: str | None = None
    judge: str | None = None
    max_step_tokens: int | None = None
    answer_tokens: int | None = None
    earlier_thinking: bool = False
    """Whether the thinking of earlier turns is handed to the models' templates."""
    duplicate_reasoning: bool | None = None
    """Whether `reasoning_content` is also sent as `reasoning`."""


Stop: TypeAlias = str | list[str] | None
Unit = Annotated[float, Field(gt=0, le=1)]


class ChatRequest(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    model: str = "specreason"
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    temperature: float | None = Field(None, ge=0)
    top_p: Unit | None = None
    seed: int | None = None
    stop: Stop = None
    max_tokens: int | None = Field(None, ge=0)
    max_completion_tokens: int | None = Field(None, ge=0)
    thinking_token_budget: int | None = Field(None, ge=0)
    reasoning_effort: str | float | None = None
    reasoning: Reasoning | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    regex: str | None = None
    separate_reasoning: bool = True
    stream_reasoning: bool = True
    specreason: Extras = Field(default_factory=Extras)

    @field_validator("stream", "n", "separate_reasoning", "stream_reasoning", "specreason", mode="before")
    @classmethod
    def _null_is_nothing(cls, value: Any, info: Any) -> Any:
        field = cls.model_fields[info.field_name]
        return field.get_default(call_default_factory=True) if value is None else value

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def stops(self) -> tuple[str, ...]:
        """What ends the answer."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(given) > MOST_STOPS:
            raise Refused("stop", f"there can be {MOST_STOPS} texts in `stop`")
        return tuple(each for each in given if each)


def _is_empty(value: Any) -> bool:
    return value is None or value in ([], {}, "", False) or (isinstance(value, int | float) and value == 0)


def _one_of(*neutral: Any) -> Callable[[Any], bool]:
    return lambda value: value is None or value in neutral


REFUSED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "logprobs": (_is_empty, "two models write a solve: there is no one distribution to report"),
    "top_logprobs": (_is_empty, "two models write a solve: there is no one distribution to report"),
    "logit_bias": (_is_empty, "token ids differ between the two models"),
    "tools": (_is_empty, "no model is told of tools; the models `base` and `small` take them"),
    "tool_choice": (_one_of("none", "auto"), "no model is told of tools; the models `base` and `small` take them"),
    "functions": (_is_empty, "no model is told of functions; the models `base` and `small` take `tools`"),
    "function_call": (_one_of("none", "auto"), "no model is told of functions"),
    "frequency_penalty": (_is_empty, "a step is one call: a penalty would begin anew with each"),
    "presence_penalty": (_is_empty, "a step is one call: a penalty would begin anew with each"),
    "repetition_penalty": (_one_of(1, 0), "a step is one call: a penalty would begin anew with each"),
    "top_k": (_one_of(-1, 0), "models sample with `temperature` and `top_p`"),
    "min_p": (_is_empty, "models sample with `temperature` and `top_p`"),
    "min_tokens": (_is_empty, "steps end where they end"),
    "ignore_eos": (_is_empty, "steps end where they end"),
    "stop_token_ids": (_is_empty, "token ids differ between the two models; `stop` takes texts"),
    "stop_regex": (_is_empty, "`stop` takes texts"),
    "ebnf": (_is_empty, "`response_format` takes a JSON schema, `regex` a regular expression"),
    "continue_final_message": (_is_empty, "the answer begins behind the thinking"),
    "modalities": (_one_of(["text"], []), "the answer is text"),
    "audio": (_is_empty, "the answer is text"),
    "prediction": (_is_empty, "the small model predicts"),
    "web_search_options": (_is_empty, "nothing is searched"),
    "lora_path": (_is_empty, "the models are those of the pair"),
    "session_params": (_is_empty, "a solve makes calls of its own"),
    "custom_logit_processor": (_is_empty, "no code of a client's is run"),
    "return_hidden_states": (_is_empty, "a solve is many calls"),
    "logprob_start_len": (_is_empty, "two models write a solve: there is no one distribution to report"),
}
"""Fields that are refused unless their value changes nothing, with the reason."""
IDLE = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "parallel_tool_calls",
        "rid",
        "priority",
        "skip_special_tokens",
        "spaces_between_special_tokens",
    }
)
"""Fields that clients send for their own purposes, and that change no answer."""
TOOLS = ("tools", "tool_choice", "functions", "function_call")


def wants_tools(body: Mapping[str, Any]) -> bool:
    """Whether a request asks for tools, which only a model by itself can be told of."""
    return any(name in body and not REFUSED[name][0](body[name]) for name in TOOLS)


def refuse(body: Mapping[str, Any]) -> list[str]:
    """The names of fields that are not known, and change nothing.

    Raises:
        Refused: the request asks for something that has no meaning over two models.
    """
    for name, (is_neutral, why) in REFUSED.items():
        if name in body and not is_neutral(body[name]):
            hint = "switch the client's tools off for this model" if name in TOOLS else None
            raise Refused(name, f"`{name}` is not supported: {why}", hint=hint)
    known = {*ChatRequest.model_fields, *REFUSED, *IDLE}
    return sorted(name for name in body if name not in known)


def chosen(offers: Mapping[str, Offer], name: str) -> Offer:
    """What a model's name stands for.

    Raises:
        NoSuchModel: it is not offered.
    """
    if name not in offers:
        raise NoSuchModel(f"The model `{name[:100]}` does not exist. There are: {', '.join(offers)}.")
    return offers[name]


def order(request: ChatRequest, name: str, offer: Offer, defaults: Mapping[str, Any], context: int | None) -> Order:
    """What a request orders.

    Args:
        request: the request.
        name: the solve's name.
        offer: what its model's name stands for.
        defaults: the server's settings.
        context: the smaller of the models' contexts, in tokens, if it is known.

    Raises:
        UsageError: something in it cannot be; `Refused` names the field.
    """
    extras = request.specreason
    problem = conversation(request.messages, name, thinking=extras.earlier_thinking)
    given = {
        **defaults,
        **limits(request, int(defaults.get("budget", Settings().budget)), context),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "instruction": extras.instruction,
        "judge": extras.judge,
        "max_step_tokens": extras.max_step_tokens,
        "stop": request.stops or None,
        **constraint(request),
    }
    settings = {key: value if value is not None else defaults.get(key) for key, value in given.items()}
    made = Settings.model_validate({key: value for key, value in settings.items() if value is not None})
    sent = (*STAYS, ANSWER) if request.stream_reasoning else (ANSWER,)
    return Order.of(name, offer, problem, made, extras.model_extra or {}, stream=sent if request.stream else False)


def conversation(messages: list[Message], name: str, *, thinking: bool = False) -> Problem:
    """The messages as a problem: the last one is the question, the others come before it.

    Raises:
        Refused: a message is not text, or has a role that the models are not told of.
    """
    turns = [_turn(number, message, thinking=thinking) for number, message in enumerate(messages)]
    *earlier, last = turns
    if last["role"] != "user":
        raise Refused("messages", "the last message has to be the user's")
    if not last["content"].strip():
        raise Refused("messages", "the last message is empty")
    return Problem(id=name, question=last["content"], earlier=tuple(earlier))


def _turn(number: int, message: Message, *, thinking: bool) -> dict[str, str]:
    role = {"developer": "system"}.get(message.role, message.role)
    if role not in {"system", "user", "assistant"}:
        raise Refused("messages", f"message {number}: the role `{message.role[:40]}` is not supported")
    turn = {"role": role, "content": _text(number, message.content)}
    thought = message.reasoning_content or message.reasoning
    return {**turn, "reasoning_content": thought} if thinking and thought and role == "assistant" else turn


def _text(number: int, content: str | list[dict[str, Any]] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    parts = []
    for part in content:
        if part.get("type") not in {"text", "input_text"} or not isinstance(part.get("text"), str):
            kind = str(part.get("type"))[:40]
            raise Refused("messages", f"message {number}: a part of type `{kind}` is not supported, only `text`")
        parts.append(part["text"])
    return "\n".join(parts)


def effort(request: ChatRequest) -> str | float | None:
    """How much thinking is asked for, by whichever field says so."""
    if request.reasoning_effort is not None:
        return request.reasoning_effort
    if request.reasoning is not None:
        if request.reasoning.enabled is False:
            return "none"
        if request.reasoning.effort is not None:
            return request.reasoning.effort
    switches = request.chat_template_kwargs or {}
    off = any(switches.get(name) is False for name in ("enable_thinking", "thinking"))
    return "none" if off else None


def limits(request: ChatRequest, usual: int, context: int | None) -> dict[str, int]:
    """The thinking budget and the most tokens of the answer.

    `max_completion_tokens` covers both; the answer's part of it is kept in reserve, so that thinking can never use it
    up.

    Args:
        request: the request.
        usual: the budget if the request says nothing.
        context: the models' context.

    Raises:
        Refused: an effort is not known.
    """
    everything = context or max(usual, 1 << 17)
    asked = effort(request)
    budget = usual if asked is None else _budget(asked, everything)
    if request.reasoning is not None and request.reasoning.max_tokens is not None:
        budget = request.reasoning.max_tokens
    if request.thinking_token_budget is not None:
        budget = request.thinking_token_budget
    answer = request.specreason.answer_tokens or min(ANSWER_TOKENS, max(1, everything // ANSWER_SHARE))
    if most := request.max_completion_tokens or request.max_tokens:
        answer = min(answer, max(1, most // ANSWER_SHARE) if budget else most)
        budget = min(budget, most - answer)
    return {"budget": budget, "answer_tokens": answer}


def _budget(asked: str | float, everything: int) -> int:
    if isinstance(asked, str):
        if asked not in EFFORTS:
            raise Refused(
                "reasoning_effort", f"there is no effort `{asked[:40]}`: {', '.join(EFFORTS)}, or a share of 1"
            )
        budget = EFFORTS[asked]
        return everything if budget is None else budget
    if not 0 <= asked <= 1:
        raise Refused("reasoning_effort", "an effort as a number is a share of the context, from 0 to 1")
    return round(asked * everything)


def constraint(request: ChatRequest) -> dict[str, Any]:
    """What the answer has to look like, as fields of `Settings`.

    Raises:
        Refused: it is not a form that SGLang can constrain to.
    """
    form = request.response_format or {}
    kind = form.get("type", "text")
    if request.regex:
        if kind != "text":
            raise Refused("regex", "`regex` and `response_format` exclude each other")
        return {"regex": _bounded("regex", request.regex)}
    match kind:
        case "text":
            return {}
        case "json_object":
            return {"json_schema": json.dumps({"type": "object"})}
        case "json_schema":
            told = form.get("json_schema")
            schema = told.get("schema") if isinstance(told, dict) else None
            if not isinstance(schema, dict):
                raise Refused("response_format", "`response_format.json_schema.schema` has to be a JSON schema")
            return {"json_schema": _bounded("response_format", json.dumps(schema))}
        case "regex" if isinstance(form.get("pattern"), str):
            return {"regex": _bounded("response_format", form["pattern"])}
        case _:
            raise Refused(
                "response_format",
                f"`response_format` of type `{str(kind)[:40]}` is not supported: `text`, "
                "`json_object`, `json_schema`, or `regex` with a `pattern`",
            )


def _bounded(param: str, form: str) -> str:
    """A form that a server can read in no time."""
    depth = deepest = 0
    for each in form:
        depth += (each in "([{") - (each in ")]}")
        deepest = max(deepest, depth)
    if len(form) > MOST_FORM or deepest > MOST_NESTED:
        raise Refused(param, f"a form of an answer has at most {MOST_FORM} characters, nested {MOST_NESTED} deep")
    return form
