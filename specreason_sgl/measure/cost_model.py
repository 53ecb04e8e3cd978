"""What a step costs on the hardware at hand, and which mode is the fastest by these costs.

Time per token by context and by how many requests run together, the time of a judgement, and the fixed cost of a call
are measured on running servers; what they serve does not matter, so models with made-up weights will do. Of a base
model that drafts tokens, the time of a round is measured, in which several tokens are verified at once. How many tokens
a round brings depends on the text, so it is taken from stored solves, or from questions that are asked meanwhile.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from specreason_sgl.embedded import tales
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.job import Kind
from specreason_sgl.evaluation.report import Table
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.settings import Settings

if TYPE_CHECKING:
    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.events import CallKind
    from specreason_sgl.tally import Tally

PREDICTED: tuple[Kind, ...] = (
    "base",
    "specreason",
    "lookahead",
    "base+decode",
    "specreason+decode",
    "lookahead+decode",
)
"""The kinds of modes whose time is predicted; those that draft tokens come last."""
UNDER_DECODING = "+decode"

CONTEXTS = (256, 1024)
BATCHES = (1, 8, 32)
ROUNDS = 5
SHORT, LONG = 4, 36
"""The tokens of two generations; the difference of their times is the time of generating alone."""
LONGER = 132
"""The same where several tokens come at a time."""
QUESTIONS, READ = 8, 160
"""Questions whose answers say how many tokens a round brings, and the most tokens of each."""
STEP_TOKENS = 25.0
"""The assumed tokens of a step, if no run is given."""
ACCEPTANCES = (0.4, 0.6, 0.8)
_FILLER = " and then one more"
_NUMBERS = itertools.count(random.SystemRandom().randrange(10**6, 9 * 10**6))
"""What makes every draft new to servers, also to those that were measured before."""
_Probe = Callable[[], float]
"""Measures something once, in seconds."""


class Cost(BaseModel):
    """The time of something for each of several requests that run together."""

    model_config = ConfigDict(frozen=True)

    context: int
    """Tokens before it, roughly."""
    batch: int = Field(ge=1)
    """Requests that run together."""
    seconds: float


class Work(BaseModel):
    """What a solve consists of, on average."""

    model_config = ConfigDict(frozen=True)

    acceptance: float = Field(ge=0, le=1)
    """The share of drafts that are accepted."""
    step_tokens: float = Field(STEP_TOKENS, gt=0)
    """The tokens of a step that the chain has kept."""
    draft_tokens: float | None = Field(None, gt=0)
    """The tokens of a draft; as `step_tokens` if None."""
    rejected_tokens: float | None = Field(None, gt=0)
    """The tokens of a step that the base model writes in place of a rejected draft; as `step_tokens` if None."""
    steps: float = Field(1.0, gt=0)
    answer_tokens: float = Field(0.0, ge=0)
    agreement: float | None = Field(None, ge=1)
    """Tokens that a round brings where the base model writes everything; as it was calibrated if None."""
    agreement_rejected: float | None = Field(None, ge=1)
    """The same where it writes a step whose draft was rejected; as `agreement` if None."""

    @property
    def tokens(self) -> float:
        """The tokens of the thinking."""
        return self.steps * self.step_tokens


class Decoding(BaseModel):
    """What was measured on a base model that drafts tokens."""

    model_config = ConfigDict(frozen=True)

    rounds: list[Cost] = Field(min_length=1)
    """The time of a round."""
    judge: list[Cost] = Field(min_length=1)
    agreement: float
    """Tokens that a round brings where the base model answers story questions."""
    crowding: float
    """As in `Costs`."""
    crowding_many: float | None = None
    """As in `Costs`."""


class Costs(BaseModel):
    """What was measured on a pair."""

    model_config = ConfigDict(frozen=True)

    base: list[Cost] = Field(min_length=1)
    """The time of a token."""
    small: list[Cost] = Field(min_length=1)
    judge: list[Cost] = Field(min_length=1)
    """The time of judging a new short step."""
    call_s: float
    """Seconds that a call takes in addition to its tokens."""
    crowding: float
    """The time of a draft and a judgement at once, as a multiple of the longer one alone: above 1 on a shared card."""
    crowding_many: float | None = None
    """Where many run at once, the share of the shorter work that adds to the time of the longer: 0 where the servers do
    not disturb each other, 1 where they take turns. From `crowding` if it was not measured."""
    decoding: Decoding | None = None

    @property
    def predicted(self) -> tuple[Kind, ...]:
        """The kinds of modes whose time can be predicted from these costs."""
        return PREDICTED if self.decoding else tuple(k for k in PREDICTED if not k.endswith(UNDER_DECODING))

    def token_s(self, model: str, context: int, batch: int = 1) -> float:
        """Seconds per token of a request, at the nearest batch and context that were measured."""
        return _nearest(self.base if model == "base" else self.small, context, batch)

    def seconds(self, kind: Kind, work: Work, context: float | None = None, at_once: int = 1) -> float:
        """The seconds in which a solve is done, on average: one alone, or of many at a time.

        Alone, calls wait for each other, or overlap where the program drafts ahead. With many at a time both servers
        are always at work, so the one with more to do decides, and whatever the other takes away from it.

        Args:
            kind: the kind of mode.
            work: what a solve consists of.
            context: the tokens before a step; half the thinking if not given.
            at_once: solves at the same time.

        Raises:
            ValueError: the kind is not predicted from these costs.
        """
        if kind not in self.predicted:
            msg = f"the time of `{kind}` cannot be predicted"
            raise ValueError(msg)
        behind = round(work.tokens / 2 if context is None else context)
        is_decoding = kind.endswith(UNDER_DECODING)
        method = kind.removesuffix(UNDER_DECODING)
        decoding = self.decoding if is_decoding else None
        judge = _nearest(decoding.judge if decoding else self.judge, behind, at_once)
        drafted = work.draft_tokens or work.step_tokens
        draft = self._call_s(at_once) + drafted * self.token_s("small", behind, at_once)
        crowding, added = (decoding or self).crowding, (decoding or self).crowding_many
        agreement = work.agreement or (decoding.agreement if decoding else 1.0)
        rejected = work.agreement_rejected or agreement

        def written(tokens: float, agreed: float) -> float:
            """The seconds in which the base model writes so many tokens."""
            if not tokens:
                return 0.0
            if decoding:
                return self._call_s(at_once) + rounds(tokens, agreed) * _nearest(decoding.rounds, behind, at_once)
            return self._call_s(at_once) + tokens * self.token_s("base", behind, at_once)

        answer = written(work.answer_tokens, agreement)
        if method == "base":
            return (written(work.tokens, agreement) + answer) / at_once
        again = (1 - work.acceptance) * written(work.rejected_tokens or work.step_tokens, rejected)
        if at_once > 1:
            thrown_away = (1 - work.acceptance) * draft if method == "lookahead" else 0.0
            base, small = work.steps * (judge + again) + answer, work.steps * (draft + thrown_away)
            added = crowding - 1 if added is None else added
            return (max(base, small) + added * min(base, small)) / at_once
        if method == "specreason":
            return work.steps * (draft + judge + again) + answer
        late = (1 - work.acceptance) * min(draft, judge)
        return work.steps * (crowding * max(draft, judge) + again + late) + answer

    def speed_ups(self, work: Work, context: float | None = None, at_once: int = 1) -> dict[Kind, float]:
        """The expected speed-ups over the base model alone, by the kind of mode."""
        alone = self.seconds("base", work, context, at_once)
        return {kind: alone / self.seconds(kind, work, context, at_once) for kind in self.predicted}

    def break_even(self, kind: Kind, work: Work, context: float | None = None) -> float:
        """The acceptance below which a kind of mode takes longer than the base model alone under the same server.

        Above 1 it never pays, and below 0 always.
        """
        rival: Kind = "base+decode" if kind.endswith(UNDER_DECODING) else "base"
        none, all_ = (
            self.seconds(kind, work.model_copy(update={"acceptance": share}), context) for share in (0.0, 1.0)
        )
        target = self.seconds(rival, work, context)
        return (none - target) / (none - all_) if none > all_ else math.inf

    def _call_s(self, at_once: int) -> float:
        """The seconds that a call takes of a solve alone; with many at a time other solves' calls fill them."""
        return self.call_s if at_once == 1 else 0.0


def fastest(values: Mapping[Kind, float]) -> Kind:
    """The kind of mode with the highest speed-up."""
    return max(values, key=lambda kind: values[kind])


def rounds(tokens: float, agreement: float) -> float:
    """The rounds in which so many tokens are verified, one at least, if each brings so many on average.

    The first token comes from reading the prompt. The last round brings tokens behind the end as well: it is wasted by
    half on average, but for the one token that it has to bring.
    """
    return max(1.0, (tokens - 1) / agreement + (agreement - 1) / (2 * agreement))


def check_drafts(endpoint: Endpoint) -> None:
    """Refuse a server that drafts no tokens.

    Raises:
        UsageError: it drafts none.
    """
    if not _generation(endpoint, endpoint.chat.opening("Count."), LONG, 1)[1]:
        raise UsageError(
            f"the server at {endpoint.url} drafts no tokens", hint="`--decode` wants one with speculative decoding on"
        )


def calibrate(
    base: Endpoint,
    small: Endpoint,
    say: Callable[[str], None] = lambda _: None,
    decode: Endpoint | None = None,
    times: int = ROUNDS,
) -> Costs:
    """Measure a pair that has nothing else to do.

    Args:
        base: the base model's server.
        small: the small model's server.
        say: called with a line on what is being measured.
        decode: a server of the base model that drafts tokens.
        times: how often everything is measured, in turns; medians count.

    Raises:
        UsageError: the server that is said to draft tokens drafts none.
    """
    agreement = None
    if decode is not None:
        check_drafts(decode)
        say("how many tokens a round brings")
        agreement = _agreement(decode)
    found = _in_turns(_probes(base, small, decode, say), say, times)
    one = statistics.median(_generation(small, _text(small, CONTEXTS[0]), 1, 1)[0] for _ in range(4 * times))
    decoding = None
    if decode is not None and agreement is not None:
        say("a draft and a judgement at the same time, where tokens are drafted")
        decoding = Decoding(
            rounds=found["rounds of drafted tokens"],
            judge=found["judgements where tokens are drafted"],
            agreement=agreement,
            crowding=_crowding(decode, small, times),
            crowding_many=_crowding_many(decode, small, times),
        )
    say("a draft and a judgement at the same time")
    crowding, many = _crowding(base, small, times), _crowding_many(base, small, times)
    return Costs(
        base=found["tokens of base"],
        small=found["tokens of small"],
        judge=found["judgements"],
        call_s=max(0.0, one - _nearest(found["tokens of small"], CONTEXTS[0], 1)),
        crowding=crowding,
        crowding_many=many,
        decoding=decoding,
    )


def observed(records: Iterable[SolveRecord]) -> Work:
    """What stored solves consisted of.

    Raises:
        ValueError: there was no thinking in them.
    """
    totals = [record.tally for record in records]
    judged, accepted = sum(t.judged for t in totals), sum(t.accepted for t in totals)
    steps = sum(sum(t.steps.values()) for t in totals)
    tokens = sum(t.thinking_tokens for t in totals)
    if not steps or not tokens:
        msg = "no solve has a step"
        raise ValueError(msg)
    return Work(
        acceptance=accepted / judged if judged else 0.0,
        step_tokens=tokens / steps,
        draft_tokens=_written(totals, "draft"),
        rejected_tokens=_written(totals, "regenerate"),
        steps=steps / len(totals),
        answer_tokens=sum(t.tokens["answer"] for t in totals) / len(totals),
        agreement=_agreed(totals, "think", "answer"),
        agreement_rejected=_agreed(totals, "regenerate"),
    )


def judged(records: Iterable[SolveRecord]) -> Work:
    """What stored solves consisted of in which drafts were judged.

    Raises:
        ValueError: no draft was judged.
    """
    some = [record for record in records if record.tally.judged]
    if not some:
        msg = "no draft was judged in this run"
        raise ValueError(msg)
    return observed(some)


def tables(
    costs: Costs, works: Sequence[Work], context: float | None = None, batches: Sequence[int] = (1,)
) -> list[Table]:
    """The costs as ratios to a token of the base model, and what follows from them.

    Args:
        costs: what was measured.
        works: what solves consist of: a row for each.
        context: the tokens before a step; half the thinking if not given.
        batches: solves at the same time: a table for each.
    """
    token = costs.token_s("base", CONTEXTS[0])
    some = [("base token", costs.base), ("small token", costs.small), ("judgement", costs.judge)]
    if costs.decoding:
        some += [("round of drafted tokens", costs.decoding.rounds), ("judgement beside them", costs.decoding.judge)]
    rows = [
        (f"{what}, {row.batch} at once behind {row.context}", f"{row.seconds / token:.2f}")
        for what, each in some
        for row in each
    ]
    rows.append(("a call, beyond its tokens", f"{costs.call_s / token:.2f}"))
    for where, each in (("", costs), (" where tokens are drafted", costs.decoding)):
        if each:
            rows.append((f"draft and judgement at once{where}, against the longer alone", f"{each.crowding:.2f}x"))
        if each and each.crowding_many is not None:
            rows.append((f"of many at once{where}, what the shorter adds to the longer", f"{each.crowding_many:.0%}"))
    if costs.decoding:
        rows.append(("tokens that a round brings", f"{costs.decoding.agreement:.2f}"))
    return [
        Table(
            "Costs, in times of one base token",
            ("what", "base tokens"),
            tuple(rows),
            f"One base token alone behind {CONTEXTS[0]} tokens took {token * 1000:.1f} ms here.",
        ),
        *(_predicted(costs, works, context, batch) for batch in batches),
    ]


def _predicted(costs: Costs, works: Sequence[Work], context: float | None, batch: int) -> Table:
    kinds = costs.predicted[1:]
    made = [costs.speed_ups(work, context, batch) for work in works]
    rows = tuple(
        (f"{work.acceptance:.0%}", *(f"{row[kind]:.2f}x" for kind in kinds), fastest(row))
        for work, row in zip(works, made, strict=True)
    )
    note = f"Steps of {works[0].step_tokens:.0f} tokens. {_paying(costs, 'specreason', works[0], context)}"
    if costs.decoding:
        note += f" {_paying(costs, 'specreason+decode', works[0], context)}"
    many = f", {batch} at once" if batch > 1 else ""
    columns = ("acceptance", *kinds, "the fastest")
    return Table(f"Predicted speed-up against the base model alone{many}", columns, rows, "" if batch > 1 else note)


def _paying(costs: Costs, kind: Kind, work: Work, context: float | None) -> str:
    least = costs.break_even(kind, work, context)
    rival = " over drafting tokens alone" if kind.endswith(UNDER_DECODING) else ""
    if least > 1:
        return f"`{kind}` gains nothing{rival} at any acceptance."
    return f"`{kind}` gains something{rival} from an acceptance of {max(0.0, least):.0%} on."


def _nearest(costs: Sequence[Cost], context: float, batch: int) -> float:
    """The seconds at the nearest batch that was measured, and then at the nearest context."""
    return min(costs, key=lambda row: (abs(math.log(row.batch / batch)), abs(row.context - context))).seconds


def _written(totals: Sequence[Tally], kind: CallKind) -> float | None:
    """The mean tokens of a call of some kind; None if none wrote anything."""
    tokens = sum(t.tokens[kind] for t in totals)
    return tokens / sum(t.calls[kind] for t in totals) if tokens else None


def _agreed(totals: Iterable[Tally], *kinds: str) -> float | None:
    """Tokens that a round brought in calls of some kinds; None if there was no round."""
    some = list(totals)
    made = sum(t.rounds[kind] for t in some for kind in kinds)
    return max(1.0, sum(t.verified[kind] for t in some for kind in kinds) / made) if made else None


def _probes(
    base: Endpoint, small: Endpoint, decode: Endpoint | None, say: Callable[[str], None]
) -> dict[str, dict[tuple[int, int], _Probe]]:
    """What is measured, by its name, its context and how many run at once; the contexts are cached from here on."""
    kinds: dict[str, tuple[Endpoint, Callable[[Endpoint, str, int], _Probe]]] = {
        "tokens of base": (base, _token_seconds),
        "tokens of small": (small, _token_seconds),
        "judgements": (base, _judge_seconds),
    }
    if decode is not None:
        kinds["rounds of drafted tokens"] = (decode, _round_seconds)
        kinds["judgements where tokens are drafted"] = (decode, _judge_seconds)
    made: dict[str, dict[tuple[int, int], _Probe]] = {}
    for what, (endpoint, probe) in kinds.items():
        say(f"{what}: reading contexts")
        made[what] = {
            (context, batch): probe(endpoint, _text(endpoint, context), batch)
            for place, context in enumerate(CONTEXTS)
            for batch in (BATCHES if place == 0 else BATCHES[:-1])
        }
    return made


def _in_turns(
    probes: Mapping[str, Mapping[tuple[int, int], _Probe]], say: Callable[[str], None], times: int
) -> dict[str, list[Cost]]:
    """The median of each probe; they take turns, so that a machine that slows down slows all of them alike."""
    took: dict[tuple[str, tuple[int, int]], list[float]] = {}
    for turn in range(times):
        for what, some in probes.items():
            say(f"{what}, {turn + 1} of {times}")
            for place, probe in some.items():
                took.setdefault((what, place), []).append(probe())
    return {
        what: [
            Cost(context=context, batch=batch, seconds=statistics.median(took[what, (context, batch)]))
            for context, batch in some
        ]
        for what, some in probes.items()
    }


def _text(endpoint: Endpoint, tokens: int) -> str:
    each = len(endpoint.tokens(_FILLER * 64)) / 64
    return endpoint.chat.opening("Count.") + _FILLER * round(tokens / each)


def _generation(endpoint: Endpoint, text: str, tokens: int, batch: int) -> tuple[float, int]:
    """Seconds until so many requests at once have so many tokens each, and the most rounds of any of them."""
    sampling = {"max_new_tokens": tokens, "temperature": 0, "ignore_eos": True}
    began = time.perf_counter()
    with ThreadPoolExecutor(batch) as pool:
        made = list(pool.map(lambda number: endpoint.complete(f"{text} {number}", sampling), range(batch)))
    return time.perf_counter() - began, max(_verified(answer["meta_info"]) for answer in made)


def _verified(meta: Mapping[str, object]) -> int:
    """The rounds of a request; 0 where the server drafts no tokens."""
    told = meta.get("spec_verify_ct")
    return told if isinstance(told, int) else 0


def _token_seconds(endpoint: Endpoint, text: str, batch: int) -> _Probe:
    _generation(endpoint, text, 1, batch)  # from here on the context is cached

    def probe() -> float:
        (long, _), (short, _) = (_generation(endpoint, text, tokens, batch) for tokens in (LONG, SHORT))
        return (long - short) / (LONG - SHORT)

    return probe


def _round_seconds(endpoint: Endpoint, text: str, batch: int) -> _Probe:
    _generation(endpoint, text, 1, batch)

    def probe() -> float:
        (long, many), (short, few) = (_generation(endpoint, text, tokens, batch) for tokens in (LONGER, SHORT))
        return (long - short) / max(1, many - few)

    return probe


def _agreement(endpoint: Endpoint) -> float:
    """Tokens that a round brings in answers to fresh questions."""
    brought = made = 0
    for number in range(QUESTIONS):
        text = endpoint.chat.opening(tales.tale(number, "dev").question)
        meta = endpoint.complete(text, {"max_new_tokens": READ, "temperature": 0})["meta_info"]
        if count := _verified(meta):
            brought, made = brought + meta["completion_tokens"] - 1, made + count
    return max(1.0, brought / made) if made else 1.0


def _judge_seconds(base: Endpoint, text: str, batch: int) -> _Probe:
    judge = _judge(base, text)
    return lambda: _seconds(_together, judge, batch)


def _together(judge: Callable[[], object], batch: int) -> None:
    """Judge so many drafts at once."""
    with ThreadPoolExecutor(batch) as pool:
        for one in [pool.submit(judge) for _ in range(batch)]:
            one.result()


def _judge(base: Endpoint, text: str) -> Callable[[], object]:
    """What judges a draft that no server has read before, behind a text that is cached from here on."""
    from specreason_sgl.lang.judging import Judge  # brings SGLang with it, which what is reckoned does without

    judge = Judge(base, Problem(id="cost", question="?"), Settings.model_validate({}))
    judge.score([text], _FILLER)
    return lambda: judge.score([text], f" {next(_NUMBERS)}{_FILLER * 6}")


def _crowding(base: Endpoint, small: Endpoint, times: int) -> float:
    judge, drafted_behind = _judge(base, _text(base, CONTEXTS[0])), _text(small, CONTEXTS[0])

    def draft() -> None:
        _generation(small, drafted_behind, round(STEP_TOKENS), 1)

    def both() -> None:
        with ThreadPoolExecutor(2) as pool:
            for one in (pool.submit(draft), pool.submit(judge)):
                one.result()

    draft()
    return statistics.median(_seconds(both) / max(_seconds(draft), _seconds(judge)) for _ in range(times))


def _crowding_many(base: Endpoint, small: Endpoint, times: int) -> float:
    """What drafts add to the time of judgements that take as long, as a share of it, with many of both at once."""
    batch = BATCHES[-1]
    judge, behind = _judge(base, _text(base, CONTEXTS[0])), _text(small, CONTEXTS[0])

    def draft(rounds: int) -> None:
        for _ in range(rounds):
            _generation(small, behind, round(STEP_TOKENS), batch)

    def both(rounds: int) -> None:
        with ThreadPoolExecutor(2) as pool:
            for one in (pool.submit(draft, rounds), pool.submit(_together, judge, batch)):
                one.result()

    draft(1)
    as_long = max(1, round(_seconds(_together, judge, batch) / _seconds(draft, 1)))
    added = []
    for _ in range(times):
        drafts, judgements = _seconds(draft, as_long), _seconds(_together, judge, batch)
        added.append((_seconds(both, as_long) - max(drafts, judgements)) / min(drafts, judgements))
    return max(0.0, statistics.median(added))


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began
