"""What a step costs on the hardware at hand, and the speed-up of SpecReason that follows from these costs.

Time per token by context and by how many requests run together, the time of a judgement, and the fixed cost of a call
are measured on running servers; what they serve does not matter, so models with made-up weights will do.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from specreason_sgl.evaluation.report import Table
from specreason_sgl.lang.judging import Judge
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.settings import Settings

if TYPE_CHECKING:
    from specreason_sgl.engine.backend import Endpoint

CONTEXTS = (256, 1024)
BATCHES = (1, 8)
ROUNDS = 5
SHORT, LONG = 4, 36
"""The tokens of two generations; the difference of their times is the time of generating alone."""
STEP_TOKENS = 25.0
"""The assumed tokens of a step, if no run is given."""
ACCEPTANCES = (0.4, 0.6, 0.8)
_FILLER = " and then one more"


class TokenCost(BaseModel):
    """Seconds for each token of each request."""

    model_config = ConfigDict(frozen=True)

    context: int
    """Tokens before it, roughly."""
    batch: int
    """Requests that run together."""
    seconds: float


class Costs(BaseModel):
    """What was measured on a pair."""

    model_config = ConfigDict(frozen=True)

    base: list[TokenCost]
    small: list[TokenCost]
    judge_s: dict[int, float]
    """Seconds for judging a new short step, by the tokens of context before it."""
    call_s: float
    """Seconds that a call takes in addition to its tokens."""
    crowding: float
    """The time of a draft and a judgement at once, as a multiple of the longer one alone: above 1 on a shared card."""

    def token_s(self, model: str, context: int) -> float:
        """Seconds per token of one request alone, at the nearest context that was measured."""
        rows = [row for row in (self.base if model == "base" else self.small) if row.batch == 1]
        return min(rows, key=lambda row: abs(row.context - context)).seconds

    def predict(self, acceptance: float, step_tokens: float, context: int) -> Prediction:
        """The expected speed-up over the base model writing every step.

        Args:
            acceptance: the share of drafts that are accepted.
            step_tokens: the mean tokens of a step.
            context: the tokens before it.
        """
        base = self.call_s + step_tokens * self.token_s("base", context)
        draft = self.call_s + step_tokens * self.token_s("small", context)
        judge = self.judge_s[min(self.judge_s, key=lambda known: abs(known - context))]
        alone = step_tokens * self.token_s("base", context)  # alone it writes all steps in one call
        return Prediction(
            acceptance=acceptance,
            speed_up=alone / (draft + judge + (1 - acceptance) * base),
            ahead=alone / (self.crowding * max(draft, judge) + (1 - acceptance) * (base + min(draft, judge))),
            break_even=1 - (alone - draft - judge) / base,
        )


class Prediction(BaseModel):
    """What is expected of SpecReason."""

    model_config = ConfigDict(frozen=True)

    acceptance: float
    speed_up: float
    """The speed-up of the sequential program."""
    ahead: float
    """The speed-up of drafting ahead, where drafting and judging overlap until a draft is rejected."""
    break_even: float
    """The acceptance below which drafting costs time; above 1 it never pays."""


def calibrate(base: Endpoint, small: Endpoint, say: Callable[[str], None] = lambda _: None) -> Costs:
    """Measure a pair that has nothing else to do.

    Args:
        base: the base model's server.
        small: the small model's server.
        say: called with a line on what is being measured.
    """
    tokens: dict[str, list[TokenCost]] = {}
    for endpoint in (base, small):
        tokens[endpoint.role] = []
        for context in CONTEXTS:
            for batch in BATCHES:
                say(f"{endpoint.role} model, {batch} at once behind {context} tokens")
                seconds = _token_seconds(endpoint, _text(endpoint, context), batch)
                tokens[endpoint.role].append(TokenCost(context=context, batch=batch, seconds=seconds))
    say("judgements")
    judge = {context: _judge_seconds(base, _text(base, context)) for context in CONTEXTS}
    one = statistics.median(_generation(small, _text(small, CONTEXTS[0]), 1, 1) for _ in range(4 * ROUNDS))
    token = next(row.seconds for row in tokens["small"] if row.batch == 1)
    say("a draft and a judgement at the same time")
    crowding = _crowding(base, small)
    call_s = max(0.0, one - token)
    return Costs(base=tokens["base"], small=tokens["small"], judge_s=judge, call_s=call_s, crowding=crowding)


def observed(records: Iterable[SolveRecord]) -> tuple[float, float]:
    """The acceptance and the mean tokens of a step that stored solves had.

    Raises:
        ValueError: no draft was judged in them.
    """
    totals = [record.tally for record in records]
    judged, accepted = sum(t.judged for t in totals), sum(t.accepted for t in totals)
    if not judged:
        msg = "no draft was judged in this run"
        raise ValueError(msg)
    steps = sum(sum(t.steps.values()) for t in totals if t.judged)
    return accepted / judged, sum(t.thinking_tokens for t in totals if t.judged) / steps


def tables(costs: Costs, acceptances: Sequence[float], step_tokens: float, context: int) -> list[Table]:
    """The costs as ratios to a token of the base model, and what follows from them."""
    token = costs.token_s("base", CONTEXTS[0])
    rows = [
        (f"{model} token, {row.batch} at once behind {row.context}", f"{row.seconds / token:.2f}")
        for model, some in (("base", costs.base), ("small", costs.small))
        for row in some
    ]
    rows += [(f"judgement behind {context}", f"{seconds / token:.2f}") for context, seconds in costs.judge_s.items()]
    rows.append(("a call, beyond its tokens", f"{costs.call_s / token:.2f}"))
    rows.append(("draft and judgement at once, against the longer alone", f"{costs.crowding:.2f}x"))
    predicted = [costs.predict(acceptance, step_tokens, context) for acceptance in acceptances]
    return [
        Table(
            "Costs, in times of one base token",
            ("what", "base tokens"),
            tuple(rows),
            f"One base token alone behind {CONTEXTS[0]} tokens took {token * 1000:.1f} ms here.",
        ),
        Table(
            "Predicted speed-up against the base model alone",
            ("acceptance", "sequential", "drafting ahead", "gain of drafting ahead"),
            tuple(
                (f"{p.acceptance:.0%}", f"{p.speed_up:.2f}x", f"{p.ahead:.2f}x", f"{p.ahead / p.speed_up:.2f}x")
                for p in predicted
            ),
            f"Steps of {step_tokens:.0f} tokens behind {context}; drafting pays from an acceptance of "
            f"{predicted[0].break_even:.0%} on.",
        ),
    ]


def _text(endpoint: Endpoint, tokens: int) -> str:
    each = len(endpoint.tokens(_FILLER * 64)) / 64
    return endpoint.chat.opening("Count.") + _FILLER * round(tokens / each)


def _generation(endpoint: Endpoint, text: str, tokens: int, batch: int) -> float:
    """Seconds until so many requests at once have so many tokens each."""
    sampling = {"max_new_tokens": tokens, "temperature": 0, "ignore_eos": True}
    began = time.perf_counter()
    with ThreadPoolExecutor(batch) as pool:
        list(pool.map(lambda number: endpoint.complete(f"{text} {number}", sampling), range(batch)))
    return time.perf_counter() - began


def _token_seconds(endpoint: Endpoint, text: str, batch: int) -> float:
    _generation(endpoint, text, 1, batch)  # from here on the context is cached
    rounds = [
        _generation(endpoint, text, LONG, batch) - _generation(endpoint, text, SHORT, batch) for _ in range(ROUNDS)
    ]
    return statistics.median(rounds) / (LONG - SHORT)


def _judge_seconds(base: Endpoint, text: str) -> float:
    judge = _judge(base, text)
    return statistics.median(_seconds(judge, number) for number in range(ROUNDS))


def _judge(base: Endpoint, text: str) -> Callable[[int], object]:
    """What judges the draft with a number behind a text that is cached from here on."""
    judge = Judge(base, Problem(id="cost", question="?"), Settings.model_validate({}))
    judge.score([text], _FILLER)
    return lambda number: judge.score([text], f"{_FILLER * 6} {number}")


def _crowding(base: Endpoint, small: Endpoint) -> float:
    judge, drafted_behind = _judge(base, _text(base, CONTEXTS[0])), _text(small, CONTEXTS[0])

    def draft() -> None:
        _generation(small, drafted_behind, round(STEP_TOKENS), 1)

    def both(number: int) -> None:
        with ThreadPoolExecutor(2) as pool:
            for one in (pool.submit(draft), pool.submit(judge, number)):
                one.result()

    draft()
    return statistics.median(
        _seconds(both, number) / max(_seconds(draft), _seconds(judge, number + ROUNDS)) for number in range(ROUNDS)
    )


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began
