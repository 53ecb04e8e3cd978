"""What a solve has sent to a server, and how its next prompt travels: only what is new, where the server can do that.

Every prompt has exactly the tokens that the server would make of its whole text. So a prompt is cut only where one that
was sent before has ended, or a piece of it, and only if the seam is exact.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from specreason_sgl.engine.link import Ids, NoSuchCall
from specreason_sgl.engine.seams import Seams, tokens_of
from specreason_sgl.engine.sessions import Session
from specreason_sgl.engine.transport import Transport
from specreason_sgl.errors import CallRefused

if TYPE_CHECKING:
    from specreason_sgl.engine.link import Link

FEW, MANY, CHARACTERS = 8, 64, 1 << 20
"""How many sent prompts are remembered: the last few in any case, and more if they are short."""
TURN = 4000
"""The most characters of a piece at a prompt's end, such as the judge's turn, for the prompt to be cut before it."""
_TAIL = 64
NOT_EXACT = "the whole text was sent, because its tokens are not those of its parts"
LOST = "the whole text was sent, because the server no longer knew what was sent before"
NO_SESSIONS = "whole texts are sent from here on, because the server no longer opens sessions"


@dataclass(frozen=True)
class Sent:
    """A text that the server has read, so that another prompt can go on from it."""

    text: str
    tokens: int
    """How many tokens the server's prompt had, with those of ``turn``."""
    turn: str = ""
    """What stood behind the text in that prompt."""
    rid: str = ""
    """The request, by its name in the session."""
    ids: Ids = Ids()  # noqa: RUF009 - bytes cannot change
    """The ids of the server's prompt, where ids are sent."""
    written: str = ""
    """What the model wrote behind the text."""
    computed: int = 0
    """How many tokens the server has computed of the text and what was written."""

    def begins(self, text: str) -> bool:
        """Whether a text begins with this one; texts that differ nearly always do so at the end."""
        end = len(self.text)
        return text.startswith(self.text[-_TAIL:], max(0, end - _TAIL)) and text.startswith(self.text)


@dataclass(frozen=True)
class Prompt:
    """A prompt on its way."""

    text: str
    transport: Transport
    """How it travels; one that goes on from nothing in a session is a ``text``."""
    fields: Mapping[str, Any]
    """The fields of the request that hold it."""
    session: str = ""
    """The session that it is sent in."""
    before: int = 0
    """How many of its characters were sent before."""
    known: int = 0
    """How many of its tokens the server is known to have computed."""
    notices: tuple[str, ...] = ()

    def times(self, count: int) -> dict[str, Any]:
        """The fields of a request for so many texts behind the prompt."""
        several = {name: [value] * count for name, value in self.fields.items() if name != "session_params"}
        return {**self.fields, **(several if count > 1 else {})}

    def account(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        """What is to be known of how it travelled, given what the server says of it."""
        most = int(meta["prompt_tokens"]) - 1  # SGLang computes at least one token
        again = max(0, min(self.known, most) - int(meta.get("cached_tokens", 0)))
        return {"transport": self.transport, "recomputed_tokens": again, "notices": self.notices}


class Conversation:
    """What one solve has sent to one server; thread-safe."""

    def __init__(self, transport: Transport, seams: Seams, least: int = 0) -> None:
        """Begin with nothing sent.

        Args:
            transport: how prompts travel: ``sessions``, ``ids`` or ``text``.
            seams: what the server's tokenizer does.
            least: texts with fewer characters travel as they are.
        """
        self._transport, self._seams, self._least = transport, seams, least
        self._sent: list[Sent] = []
        self._session = Session()
        self._lock = threading.Lock()

    def anew(self, transport: Transport | None = None) -> Conversation:
        """A conversation with the same server in which nothing is sent yet."""
        return Conversation(transport or self._transport, self._seams, self._least)

    def prompt(self, link: Link, text: str) -> Prompt:
        """How a text travels.

        Raises:
            SpecReasonError: the server was asked about its tokenizer, or for a session, and did not answer.
        """
        if self._session.is_full:
            self.close(link)
        with self._lock:
            sent = sorted(self._sent, key=lambda each: len(each.text), reverse=True)
        begun = (each for each in sent if each.begins(text))
        longest = next(begun, None)
        known = self._computed(longest, text) if longest else 0
        if self._transport == "text" or len(text) < self._least:
            return Prompt(text, "text", {"text": text}, known=known)
        notices: tuple[str, ...] = ()
        for each in chain([longest] if longest else [], begun):
            if each.rid or each.ids:
                if self._is_exact(link, each, text):
                    return replace(self._behind(link, each, text), known=known)
                notices = (NOT_EXACT,)
        whole = self._whole(link, text)
        return replace(whole, known=known, notices=(*notices, *whole.notices))

    def send(
        self, link: Link, prompt: Prompt, ask: Callable[[dict[str, Any]], Any], count: int = 1
    ) -> tuple[Any, Prompt]:
        """Send a prompt, as a whole if the server does not know what it goes on from; returns response and prompt.

        Args:
            link: asks the server where that is needed.
            prompt: from `prompt`.
            ask: makes the request with the fields that hold the prompt.
            count: how often the prompt stands in the request.

        Raises:
            SpecReasonError: the call failed.
        """
        try:
            return ask(prompt.times(count)), prompt
        except CallRefused:
            if not prompt.session:
                raise
        if prompt.session == self._session.id:
            self.close(link)
        again = self.prompt(link, prompt.text)
        return ask(again.times(count)), replace(again, notices=(LOST, *prompt.notices, *again.notices))

    def arrived(self, prompt: Prompt, meta: Mapping[str, Any], mark: int, *, written: str = "") -> None:
        """Note that the server has read a prompt.

        Args:
            prompt: the prompt.
            meta: the meta information of the response.
            mark: where the last piece begins that was appended to the prompt; 0 if it has no pieces.
            written: what the model wrote behind it; nothing if that was cut.
        """
        if (meta.get("finish_reason") or {}).get("type") in {"abort", "repeat"}:
            return  # the server may not have read all of it, or may still be writing
        tokens, rid = int(meta["prompt_tokens"]), str(meta.get("id", "")) if prompt.session else ""
        ids = prompt.fields.get("input_ids", Ids())
        turn = prompt.text[mark:] if prompt.before < mark < len(prompt.text) <= mark + TURN else ""
        if turn:
            sent = Sent(prompt.text[:mark], tokens, turn, rid, ids)
        else:
            # The last token that a model writes is not computed.
            computed = tokens + max(0, int(meta["completion_tokens"]) - 1) if written else tokens
            sent = Sent(prompt.text, tokens, "", rid, ids, written, computed)
        if rid:
            self._session.holds(tokens)
        with self._lock:
            if prompt.session == (self._session.id or ""):
                self._sent = _latest([*self._sent, sent])

    def close(self, link: Link) -> None:
        """Forget what was sent, and have the server forget it."""
        with self._lock:
            self._sent = []
        self._session.close(link)

    def _whole(self, link: Link, text: str) -> Prompt:
        if self._transport == "sessions":
            try:
                session = self._session.opened(link)
            except (NoSuchCall, CallRefused):  # the server is another one than at first
                self._transport = "text"
                return Prompt(text, "text", {"text": text}, notices=(NO_SESSIONS,))
            return Prompt(text, "text", {"text": text, "session_params": {"id": session}}, session)
        return Prompt(text, "ids", {"input_ids": Ids.of(tokens_of(link.once, text, in_front=True))})

    def _behind(self, link: Link, sent: Sent, text: str) -> Prompt:
        """The part of a text behind what was sent."""
        before, piece = len(sent.text), text[len(sent.text) :]
        turn = self._seams.count(link.once, sent.turn) if sent.turn else 0
        if self._transport == "sessions":
            session = self._session.opened(link)
            place = {"id": session, "rid": sent.rid, "offset": sent.tokens - turn}
            return Prompt(text, "sessions", {"text": piece, "session_params": place}, session, before)
        ids = sent.ids.but(turn).and_then(tokens_of(link.once, piece)) if piece else sent.ids.but(turn)
        return Prompt(text, "ids", {"input_ids": ids}, "", before)

    def _is_exact(self, link: Link, sent: Sent, text: str) -> bool:
        seams = self._seams
        return seams.is_exact(link.once, sent.text, sent.turn) and seams.is_exact(
            link.once, sent.text, text[len(sent.text) :]
        )

    def _computed(self, sent: Sent, text: str) -> int:
        """How many of a text's tokens the server has computed, as far as that is known without asking."""
        if sent.turn:
            turn = self._seams.counted(sent.turn)
            return 0 if turn is None else sent.tokens - turn
        return sent.computed if text.startswith(sent.written, len(sent.text)) else sent.tokens


def _latest(sent: list[Sent]) -> list[Sent]:
    """Those of the sent prompts that are remembered."""
    kept = min(len(sent), MANY)
    while kept > FEW and sum(len(each.text) for each in sent[-kept:]) > CHARACTERS:
        kept -= 1
    return sent[-kept:]
