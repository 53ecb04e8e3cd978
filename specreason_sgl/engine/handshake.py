"""What is asked of a server before its first call: its model, how the model writes turns, and the options that matter.

Everything comes from the server itself, so that the client needs no tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from specreason_sgl.engine.link import LAUNCH_HINT, Ids, Link, NoSuchCall
from specreason_sgl.engine.seams import Seams, are_apart, tokens_of
from specreason_sgl.engine.sessions import close_session, open_session
from specreason_sgl.engine.transport import AUTO, Transport
from specreason_sgl.errors import CallFailed, ServerUnreachable, UsageError
from specreason_sgl.text.chat import ChatFormat, Message
from specreason_sgl.text.prompts import prompts_for
from specreason_sgl.text.thinking import SWITCHES, parsed_by, thinking_named

_PIECES = ("One, two,\n\n", "three.\n\n", "Four, five,\n\n", "six.\n\n")
"""A text in pieces, by which the ways of a prompt are tried."""


@dataclass(frozen=True)
class Served:
    """What a server serves."""

    model_info: dict[str, Any]
    """What the server reports about its model."""
    context: int | None
    """The most tokens that a prompt and the text generated after it may have together; None if unknown."""
    streams_pieces: bool
    """Whether each piece of a stream holds only the new text, and not all text so far."""
    options: Mapping[str, Any]
    """What the server reports that it was started with; empty if unknown."""
    chat: ChatFormat
    has_special_marks: bool
    """Whether the end of the thinking is a special token, which is missing in text without special tokens."""
    transport: Transport
    """How prompts travel: never ``auto``."""
    seams: Seams


def greet(link: Link, role: str, thinking: str | None = None, transport: Transport = AUTO) -> tuple[Link, Served]:
    """Find out what a server serves; returns that, and the link, which then knows the servers behind a router.

    Args:
        link: sends the requests.
        role: the model's role, for messages.
        thinking: the name of the model's thinking format; recognised from the server and its template if not given.
        transport: how prompts are to travel.

    Raises:
        ServerUnreachable: nothing answers at the address, or not an SGLang server.
        UsageError: the server refuses the key, its chat template cannot be used, the model's thinking format is not
            supported, or the server cannot take prompts as they are to travel.
    """
    try:
        info: dict[str, Any] = link.get("/model_info")
    except NoSuchCall as error:
        link = replace(link, replicas=_routed_to(link, role, error))
        info = link.get("/model_info")
    if "model_path" not in info:
        raise ServerUnreachable(f"{link.name} at {link.url} is not an SGLang server", hint=LAUNCH_HINT)
    context, options = _context(link), _options(link)
    try:
        chat = _learn(link, info, thinking)
    except UsageError as error:
        raise UsageError(f"{role} model at {link.url}: {error}", hint=error.hint) from error
    special = bool(control_tokens(link, chat.thinking.close))
    travels = _transport(link, transport)
    streams_pieces = bool(options.get("incremental_streaming_output"))
    return link, Served(info, context, streams_pieces, options, chat, special, travels, Seams(chat.in_front))


def single_token(link: Link, text: str) -> int | None:
    """The id of the one token that a text is after a colon and a space, where the judge's digit stands; else None."""
    before, both = tokens_of(link.post, ": "), tokens_of(link.post, f": {text}")
    return both[-1] if len(both) == len(before) + 1 and both[: len(before)] == before else None


def control_tokens(link: Link, text: str) -> list[str]:
    """The special tokens in a text: those that disappear when special tokens are skipped."""
    ids = [[token] for token in sorted(set(tokens_of(link.post, text)))]
    spelt, read = (
        link.post("/detokenize", {"tokens": ids, "skip_special_tokens": skip})["text"] for skip in (False, True)
    )
    return [token for token, rest in zip(spelt, read, strict=True) if token and not rest]


def _context(link: Link) -> int | None:
    try:
        length = link.get("/v1/models")["data"][0]["max_model_len"]
    except (NoSuchCall, LookupError, TypeError):
        return None
    return length if isinstance(length, int) else None


def _options(link: Link) -> Mapping[str, Any]:
    """What the server reports that it was started with."""
    try:
        told = link.get("/server_info")
    except NoSuchCall:
        return {}
    return told if isinstance(told, Mapping) else {}


def _routed_to(link: Link, role: str, error: NoSuchCall) -> tuple[str, ...]:
    """The addresses of the servers behind SGLang's router; raises the given error if this is no router."""
    try:
        workers = link.get("/workers")["workers"]
        found = tuple(worker["url"].rstrip("/") for worker in workers)
    except (ServerUnreachable, CallFailed, LookupError, TypeError):
        raise error from None
    if not found:
        raise ServerUnreachable(f"the router at {link.url} has no {role} server yet", hint="try again")
    return found


def _learn(link: Link, info: dict[str, Any], thinking: str | None) -> ChatFormat:
    """How the model writes turns and thinking: as the caller says, else the server, else the chat template."""
    parser = info.get("reasoning_parser")

    def render(messages: Sequence[Message]) -> str:
        opened, switched = {"add_generation_prompt": True}, {"chat_template_kwargs": SWITCHES}
        # A server with a named template or an encoder of its own opens the turn unasked, and refuses to be asked.
        return _rendered(link, messages, (opened | switched, switched, opened, {}))

    def history(messages: Sequence[Message]) -> str:
        """Render a conversation that ends with the assistant's turn; empty where the server cannot render it."""
        closed: dict[str, Any] = {"add_generation_prompt": False}
        try:
            return _rendered(link, messages, (closed | {"chat_template_kwargs": SWITCHES}, closed))
        except CallFailed:
            return ""

    return ChatFormat.learn(
        render,
        _in_front(link),
        lambda text: control_tokens(link, text),
        prompts_for(info["model_path"]),
        history=history,
        thinking=thinking_named(thinking) if thinking else parsed_by(parser) if parser else None,
    )


def _rendered(link: Link, messages: Sequence[Message], options: Sequence[dict[str, Any]]) -> str:
    def rendered(option: dict[str, Any]) -> str:
        return _text(link, link.post("/tokenize", {"messages": list(messages), **option})["tokens"])

    for option in options[:-1]:
        with suppress(CallFailed):
            return rendered(option)
    return rendered(options[-1])


def _in_front(link: Link) -> str:
    """What the server puts in front of every text by itself: for Llama and DeepSeek the token that begins a text."""
    plain, both = tokens_of(link.post, "x"), tokens_of(link.post, "x", in_front=True)
    extra = both[: len(both) - len(plain)]
    return _text(link, extra) if extra and both == [*extra, *plain] else ""


def _text(link: Link, tokens: Sequence[int]) -> str:
    text: str = link.post("/detokenize", {"tokens": list(tokens), "skip_special_tokens": False})["text"]
    return text


def _transport(link: Link, wanted: Transport) -> Transport:
    """How prompts travel: as wanted, or else in the best way that the server can; what it can is tried.

    Raises:
        UsageError: the server cannot do what is wanted.
    """
    if wanted == "text":
        return wanted
    tries: tuple[tuple[Transport, Callable[[Link], bool]], ...] = (("sessions", _goes_on), ("ids", _takes_ids))
    for transport, can in tries:
        if wanted in {AUTO, transport} and can(link):
            return transport
    if wanted != AUTO:
        raise UsageError(f"{link.name} does not take prompts as `{wanted}`", hint="use `--transport auto`")
    return "text"


def _goes_on(link: Link) -> bool:
    """Whether a server goes on from earlier requests of a session, with text alone, cut where it is told.

    It is tried more than once: behind one address there may be several servers, and only one of them has the session.
    """
    if link.replicas:
        return False
    try:
        session = open_session(link.post)
    except (CallFailed, ServerUnreachable):
        return False
    try:
        place: dict[str, Any] = {"id": session}
        before = 0
        for text in _PIECES:
            meta = _read(link, {"text": text, "session_params": place})
            if meta["prompt_tokens"] != before + len(tokens_of(link.post, text, in_front=not before)):
                return False
            before = meta["prompt_tokens"]
            place = {"id": session, "rid": meta["id"], "offset": before}
        return are_apart(link.post, *_PIECES[:2])
    except (CallFailed, ServerUnreachable, LookupError, TypeError, ValueError):
        return False
    finally:
        close_session(link, session)


def _takes_ids(link: Link) -> bool:
    """Whether a server takes token ids in place of text."""
    try:
        ids = tokens_of(link.post, _PIECES[0], in_front=True)
        return bool(_read(link, {"input_ids": Ids.of(ids)})["prompt_tokens"] == len(ids))
    except (CallFailed, ServerUnreachable, LookupError, TypeError):
        return False


def _read(link: Link, prompt: dict[str, Any]) -> dict[str, Any]:
    """Have a server read a prompt; returns the meta information."""
    request = {**prompt, "sampling_params": {"max_new_tokens": 1, "temperature": 0}}
    meta: dict[str, Any] = link.persist(lambda: link.ask(request))[0]["meta_info"]
    return meta
