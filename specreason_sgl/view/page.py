"""The live page: its files, and the parts of a trace that change as the events of a solve come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

from specreason_sgl.events import (
    AnswerWritten,
    CallMade,
    Event,
    Noticed,
    SolveEnded,
    SolveFailed,
    SolveStarted,
    StepDrafted,
    StepScored,
    StepsCut,
    StepTaken,
    TextStreamed,
    ThinkingEnded,
)
from specreason_sgl.view import html
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.steps import ChainState, Item, StepState
from specreason_sgl.view.theme import Sign

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The content security policy that the document is sent with."""
DOCUMENT = (html.ASSETS / "page.html").read_text(encoding="utf-8")
SCRIPT = (html.ASSETS / "page.js").read_text(encoding="utf-8")
STYLE = html.STYLE

OUTCOME_S = 0.25
"""The fewest seconds between two versions of what came out."""
STREAM_S = 0.1
"""The fewest seconds between two versions of a text that streams in."""
PER_SECOND = 40_000
"""About how many characters of such versions are sent in a second; those of a long text come less often."""


class Part(TypedDict):
    """A part of the page: it replaces the element with its id, and comes at the end of the trace if there is none."""

    id: str
    html: str


class LivePage:
    """A trace as it grows; what `add` returns brings a page up to date.

    ``at`` of the events is the clock. A text that streams in can be some tenths of a second behind, and is whole with
    the event that ends it.
    """

    def __init__(self) -> None:
        """Begin with an empty page."""
        self.state = SolveState()
        self._items: dict[int, dict[int, Sign]] = {}
        """The items on the page by chain and place, each with its sign."""
        self._sent: dict[str, str] = {}
        """The small parts as they are on the page, by id."""
        self._due: dict[str, float] = {}
        """When the next version of a part may be sent, by id."""

    def add(self, event: Event) -> list[Part]:
        """Take an event in.

        Returns:
            The parts of the page that it changes, in the order in which they are to be put in.
        """
        self.state.add(event)
        if isinstance(event, SolveStarted) or not self._items:
            return self._whole()
        if isinstance(event, TextStreamed):
            return [*self._streamed(event), *self._outcome(event)]
        return [*self._chains(event), *self._end(event), *self._outcome(event)]

    def _whole(self) -> list[Part]:
        for chain in self.state.chains.values():
            self._know(chain)
        return [Part(id=html.TRACE, html=html.trace(self.state))]

    def _know(self, chain: ChainState) -> None:
        """A chain is on the page as it is."""
        self._items[chain.number] = {item.place: self._sign(item) for item in chain.items}
        self._sent |= html.around(chain, self.state)

    def _sign(self, item: Item) -> Sign:
        return self.state.sign_of(item) if isinstance(item, StepState) else self.state.sign_of_author(item.author)

    def _streamed(self, event: TextStreamed) -> list[Part]:
        new = [] if event.chain in self._items else self._chains(event)
        if event.kind == "answer":
            return [*new, *self._now_and_then(html.END, event.at, lambda: html.end(self.state))]
        if new:
            return new
        chain = self.state.chain(event.chain)
        if event.step is None:
            return self._now_and_then(html.thinking_of(chain), event.at, lambda: html.thinking(chain))
        step = chain.standing[event.step]
        if self._items[chain.number].get(step.place) != self._sign(step):
            return self._changed(chain, [step])
        return self._now_and_then(html.text_of(step), event.at, lambda: html.step_text(step))

    def _now_and_then(self, name: str, at: float, render: Callable[[], str]) -> list[Part]:
        if at < self._due.get(name, 0.0):
            return []
        part = Part(id=name, html=render())
        self._sent.pop(name, None)
        self._due[name] = at + max(STREAM_S, len(part["html"]) / PER_SECOND)
        return [part]

    def _chains(self, event: Event) -> list[Part]:
        """What an event changes in its chain, and around others."""
        chains, parts = self.state.chains, []
        chain = chains.get(event.chain)
        is_new = chain is not None and chain.number not in self._items
        if chain is not None and is_new:
            self._know(chain)
            parts.append(Part(id=html.CHAINS, html=html.chain_part(chain, self.state) + html.place(html.CHAINS)))
        elif chain is not None:
            parts += self._changed(chain, touched(event, chain))
        is_last = isinstance(event, (SolveFailed, SolveEnded))
        if is_last:
            for each in chains.values():
                parts += self._changed(each, [step for step in each.standing.values() if step.author is None])
        becomes_branched = is_new and len(chains) == 2  # noqa: PLR2004
        for each in (each for each in chains.values() if each.number in self._items):
            if each is chain or becomes_branched or is_last:
                parts += self._different(html.around(each, self.state))
            elif is_new or isinstance(event, AnswerWritten):
                parts += self._different({html.head_of(each): html.heading(each, self.state)})
        return parts

    def _changed(self, chain: ChainState, touched: Sequence[Item]) -> list[Part]:
        """The items of a chain that are new, gone or touched."""
        before = self._items[chain.number]
        now = {item.place: item for item in chain.items}
        parts = [Part(id=html.id_of(place), html="") for place in before if place not in now]
        new = "".join(html.item_part(item, self.state) for place, item in now.items() if place not in before)
        if new:
            parts.append(Part(id=html.next_of(chain), html=new + html.place(html.next_of(chain))))
        parts += [
            Part(id=html.id_of(item.place), html=html.item_part(item, self.state))
            for item in touched
            if item.place in before and item.place in now
        ]
        self._items[chain.number] = {place: self._sign(item) for place, item in now.items()}
        return parts

    def _different(self, parts: Mapping[str, str]) -> list[Part]:
        changed = {name: made for name, made in parts.items() if self._sent.get(name) != made}
        self._sent |= changed
        return [Part(id=name, html=made) for name, made in changed.items()]

    def _end(self, event: Event) -> list[Part]:
        if not isinstance(event, (Noticed, AnswerWritten, SolveFailed, SolveEnded)):
            return []
        return [Part(id=html.END, html=html.end(self.state))]

    def _outcome(self, event: Event) -> list[Part]:
        is_decisive = isinstance(event, (AnswerWritten, SolveFailed, SolveEnded))
        if not is_decisive and event.at < self._due.get(html.OUTCOME, 0.0):
            return []
        self._due[html.OUTCOME] = event.at + OUTCOME_S
        return self._different({html.OUTCOME: html.outcome(self.state)})


def touched(event: Event, chain: ChainState) -> Sequence[Item]:
    """The items of a chain that an event may have changed."""
    if isinstance(event, StepsCut):
        return [item for item in chain.items if item.cut is not None and item.number >= event.keep]
    if isinstance(event, ThinkingEnded):
        return [item for item in chain.items if isinstance(item, StepState) and item.is_over]
    if isinstance(event, (CallMade, StepDrafted, StepScored, StepTaken)) and event.step is not None:
        return [step] if (step := chain.standing.get(event.step)) else []
    return []
