"""What is asked of a server before its first call: its model, how the model writes turns, and the options that matter.

Everything comes from the server itself, so that the client needs no tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from specreason_sgl.engine.transport import LAUNCH_HINT, NoSuchCall, Transport
from specreason_sgl.errors import CallFailed, ServerUnreachable, UsageError
from specreason_sgl.text.chat import ChatFormat, Message
from specreason_sgl.text.prompts import prompts_for
from specreason_sgl.text.thinking import SWITCHES, parsed_by, thinking_named


@dataclass(frozen=True)
class Served:
    """What a server serves."""

    model_info: dict[str, Any]
    """What the server reports about its model."""
    context: int | None
    """The most tokens that a prompt and the text generated after it may have together; None if unknown."""
    streams_pieces: bool
    """Whether each piece of a stream holds only the new text, and not all text so far."""
    chat: ChatFormat
    has_special_marks: bool
    """Whether the end of the thinking is a special token, which is missing in text without special tokens."""


def greet(transport: Transport, role: str, thinking: str | None = None) -> tuple[Transport, Served]:
    """Find out what a server serves; returns that, and the transport, which then knows the servers behind a router.

    Args:
        transport: sends the requests.
        role: the model's role, for messages.
        thinking: the name of the model's thinking format; recognised from the server and its template if not given.

    Raises:
        ServerUnreachable: nothing answers at the address, or not an SGLang server.
        UsageError: the server refuses the key, its chat template cannot be used, or the model's thinking format is not
            supported.
    """
    try:
        info: dict[str, Any] = transport.get("/model_info")
    except NoSuchCall as error:
        transport = replace(transport, replicas=_routed_to(transport, role, error))
        info = transport.get("/model_info")
    if "model_path" not in info:
        raise ServerUnreachable(f"{transport.name} at {transport.url} is not an SGLang server", hint=LAUNCH_HINT)
    context, streams_pieces = _context(transport), _has(transport, "incremental_streaming_output")
    try:
        chat = _learn(transport, info, thinking)
    except UsageError as error:
        raise UsageError(f"{role} model at {transport.url}: {error}", hint=error.hint) from error
    special = bool(control_tokens(transport, chat.thinking.close))
    return transport, Served(info, context, streams_pieces, chat, special)


def tokens_of(transport: Transport, text: str, *, in_front: bool = False) -> list[int]:
    """The ids of a text's tokens by the server's tokenizer; control tokens are recognised.

    Args:
        transport: sends the request.
        text: any text.
        in_front: whether to keep the tokens that the server puts in front of every text by itself.
    """
    ids: list[int] = transport.post("/tokenize", {"prompt": text, "add_special_tokens": in_front})["tokens"]
    return ids


def single_token(transport: Transport, text: str) -> int | None:
    """The id of the one token that a text is after a colon and a space, where the judge's digit stands; else None."""
    before, both = tokens_of(transport, ": "), tokens_of(transport, f": {text}")
    return both[-1] if len(both) == len(before) + 1 and both[: len(before)] == before else None


def control_tokens(transport: Transport, text: str) -> list[str]:
    """The special tokens in a text: those that disappear when special tokens are skipped."""
    ids = [[token] for token in sorted(set(tokens_of(transport, text)))]
    spelt, read = (
        transport.post("/detokenize", {"tokens": ids, "skip_special_tokens": skip})["text"] for skip in (False, True)
    )
    return [token for token, rest in zip(spelt, read, strict=True) if token and not rest]


def _context(transport: Transport) -> int | None:
    try:
        length = transport.get("/v1/models")["data"][0]["max_model_len"]
    except (NoSuchCall, LookupError, TypeError):
        return None
    return length if isinstance(length, int) else None


def _has(transport: Transport, switch: str) -> bool:
    """Whether the server reports that it was started with a switch."""
    try:
        return bool(transport.get("/server_info").get(switch))
    except (NoSuchCall, AttributeError):
        return False


def _routed_to(transport: Transport, role: str, error: NoSuchCall) -> tuple[str, ...]:
    """The addresses of the servers behind SGLang's router; raises the given error if this is no router."""
    try:
        workers = transport.get("/workers")["workers"]
        found = tuple(worker["url"].rstrip("/") for worker in workers)
    except (ServerUnreachable, CallFailed, LookupError, TypeError):
        raise error from None
    if not found:
        raise ServerUnreachable(f"the router at {transport.url} has no {role} server yet", hint="try again")
    return found


def _learn(transport: Transport, info: dict[str, Any], thinking: str | None) -> ChatFormat:
    """How the model writes turns and thinking: as the caller says, else the server, else the chat template."""
    parser = info.get("reasoning_parser")

    def render(messages: Sequence[Message]) -> str:
        opened, switched = {"add_generation_prompt": True}, {"chat_template_kwargs": SWITCHES}
        # A server with a named template or an encoder of its own opens the turn unasked, and refuses to be asked.
        return _rendered(transport, messages, (opened | switched, switched, opened, {}))

    def history(messages: Sequence[Message]) -> str:
        """Render a conversation that ends with the assistant's turn; empty where the server cannot render it."""
        closed: dict[str, Any] = {"add_generation_prompt": False}
        try:
            return _rendered(transport, messages, (closed | {"chat_template_kwargs": SWITCHES}, closed))
        except CallFailed:
            return ""

    return ChatFormat.learn(
        render,
        _in_front(transport),
        lambda text: control_tokens(transport, text),
        prompts_for(info["model_path"]),
        history=history,
        thinking=thinking_named(thinking) if thinking else parsed_by(parser) if parser else None,
    )


def _rendered(transport: Transport, messages: Sequence[Message], options: Sequence[dict[str, Any]]) -> str:
    def rendered(option: dict[str, Any]) -> str:
        return _text(transport, transport.post("/tokenize", {"messages": list(messages), **option})["tokens"])

    for option in options[:-1]:
        with suppress(CallFailed):
            return rendered(option)
    return rendered(options[-1])


def _in_front(transport: Transport) -> str:
    """What the server puts in front of every text by itself: for Llama and DeepSeek the token that begins a text."""
    plain, both = tokens_of(transport, "x"), tokens_of(transport, "x", in_front=True)
    extra = both[: len(both) - len(plain)]
    return _text(transport, extra) if extra and both == [*extra, *plain] else ""


def _text(transport: Transport, tokens: Sequence[int]) -> str:
    text: str = transport.post("/detokenize", {"tokens": list(tokens), "skip_special_tokens": False})["text"]
    return text
