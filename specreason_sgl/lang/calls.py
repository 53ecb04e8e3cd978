"""Calls that many programs make: a step, a whole chain, the answer, and a question with choices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sglang as sgl

from specreason_sgl.events import CallKind, Role
from specreason_sgl.lang.likelihood import by_likelihood
from specreason_sgl.text.scoring import DIGITS

if TYPE_CHECKING:
    from sglang.lang.interpreter import ProgramState

    from specreason_sgl.lang.chain import Chain, Place
    from specreason_sgl.lang.solve import Written


def step(place: Place, role: Role, kind: CallKind, attempt: int = 0, **sampling: Any) -> ProgramState:
    """A model writes a step, or what is missing of it; read it with `Solve.read`."""
    return _run(_step, place.chain, role, place, place.named(kind, attempt), **sampling)


def piece(
    place: Place,
    role: Role,
    kind: CallKind,
    attempt: int,
    *,
    stops: Sequence[str] = (),
    most: int | None = None,
    heads: int = 0,
) -> ProgramState:
    """A model writes a piece of a step; read it with `Solve.read`, and let it in with `Chain.go_on`.

    Args:
        place: the place of the step.
        role: the model.
        kind: what the call is made for.
        attempt: the number of the piece among all of that kind, from 0.
        stops: further texts that end the piece.
        most: the most tokens of it.
        heads: for so many of the likeliest tokens at each place the log-probability is reported.
    """
    limit = min(most or place.most, place.most)
    return _run(_piece, place.chain, role, place, place.named(kind, attempt), list(stops), limit, heads)


def candidates(place: Place, role: Role, numbers: Iterable[int], kind: CallKind = "draft") -> list[Written]:
    """A model writes several candidates for a step at the same time, each of them told and sampled on its own.

    Args:
        place: the place of the step.
        role: the model.
        numbers: the candidates' numbers at that place.
        kind: what the calls are made for.
    """
    states = [(step(place, role, kind, number), number) for number in numbers]
    read = place.chain.solve.read
    return [read(state, kind, place, number, is_candidate=True) for state, number in states]


def think(chain: Chain, role: Role) -> ProgramState:
    """A model writes a whole chain of thought, or what is missing of it, as ``think``."""
    return _run(_think, chain, role)


def answer(chain: Chain, role: Role, attempt: int = 0, most: int | None = None) -> ProgramState:
    """A model closes the thinking and answers; read it with `Solve.answer`.

    Args:
        chain: the thinking.
        role: the model.
        attempt: the number of the answer among several behind this chain, from 0.
        most: the most tokens, at most those of the settings.
    """
    return _run(_answer, chain, role, chain.named("answer", attempt), most)


def ask(
    chain: Chain, role: Role, name: str, question: str, begun: str, choices: Sequence[str], *ahead: str
) -> ProgramState:
    """A model is asked a question behind the reasoning, in a turn that is then forgotten; read it with `Solve.choice`.

    Args:
        chain: the reasoning.
        role: the model.
        name: the variable, from `Chain.named` or `Place.named`.
        question: the user's turn.
        begun: the beginning of the reply.
        choices: how it may go on.
        ahead: further steps behind the reasoning, such as a draft.
    """
    return _run(_ask, chain, role, name, question, begun, list(choices), *ahead)


def judge(place: Place, draft: str, role: Role = "base", attempt: int = 0) -> ProgramState:
    """A model scores a draft, as the judge of SpecReason does; read it with `Solve.score`."""
    return _run(_judge, place.chain, role, draft, place.named("judge", attempt))


def likelihood(place: Place, role: Role, texts: Sequence[str], kind: CallKind) -> ProgramState:
    """A model reads texts behind the reasoning: how likely each of them is; read it with `Solve.choice`."""
    return _run(_likelihood, place.chain, role, place.named(kind), list(texts))


def _run(program: Any, chain: Chain, role: Role, *more: Any, **sampling: Any) -> ProgramState:
    solve = chain.solve
    return program.run(chain, role, *more, backend=solve.model(role), **{**solve.sampling, **sampling})


@sgl.function
def _step(s: Any, chain: Chain, role: Role, place: Place, name: str) -> None:
    s += chain.prompt(role)
    s += sgl.gen(name, stop=place.stops, max_tokens=place.most)


@sgl.function
def _piece(s: Any, chain: Chain, role: Role, place: Place, name: str, stops: list[str], most: int, heads: int) -> None:
    reported = {"return_logprob": True, "top_logprobs_num": heads, "return_text_in_logprobs": True} if heads else {}
    s += chain.prompt(role)
    s += sgl.gen(name, stop=[*place.stops, *stops], max_tokens=most, **reported)


@sgl.function
def _think(s: Any, chain: Chain, role: Role) -> None:
    s += chain.prompt(role)
    s += sgl.gen(chain.named("think"), stop=[chain.solve.chat(role).thinking.close], max_tokens=chain.most(role))


@sgl.function
def _answer(s: Any, chain: Chain, role: Role, name: str, most: int | None) -> None:
    limits = chain.solve.answering
    s += chain.closed(role)
    s += sgl.gen(name, **{**limits, "max_tokens": min(most or limits["max_tokens"], limits["max_tokens"])})


@sgl.function
def _ask(
    s: Any, chain: Chain, role: Role, name: str, question: str, begun: str, choices: list[str], *ahead: str
) -> None:
    s += chain.prompt(role, *ahead)
    s += chain.solve.chat(role).asking_about(question, begun)
    s += sgl.select(name, choices=choices)


@sgl.function
def _judge(s: Any, chain: Chain, role: Role, draft: str, name: str) -> None:
    s += chain.prompt(role, draft)
    s += chain.solve.chat(role).judge_turn
    s += sgl.select(name, choices=DIGITS)


@sgl.function
def _likelihood(s: Any, chain: Chain, role: Role, name: str, texts: list[str]) -> None:
    s += chain.prompt(role)
    s += sgl.select(name, choices=texts, choices_method=by_likelihood)
