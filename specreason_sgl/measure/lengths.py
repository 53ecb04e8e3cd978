"""What a call costs behind long reasoning, by each way in which prompts travel.

The calls are those of ``programs/specreason.py``, over chains of forced text, so that it does not matter what the
models write: the same prompts for every transport, one token each, everything in the cache before it is timed. Lengths
and transports are measured in turn.
"""

from __future__ import annotations

import math
import re
import statistics
import sys
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from specreason_sgl.embedded import stories
from specreason_sgl.engine.transport import AUTO, TRANSPORTS, Transport
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.report import NOTHING, Table
from specreason_sgl.evaluation.statistics import Estimate, mean
from specreason_sgl.events import CallMade
from specreason_sgl.lang.chain import Place
from specreason_sgl.lang.loading import load
from specreason_sgl.lang.scope import Scope
from specreason_sgl.lang.solve import Solve
from specreason_sgl.measure import rig
from specreason_sgl.measure.forced import forced_steps
from specreason_sgl.runs.provenance import command_line, describe, prompts, versions
from specreason_sgl.runs.store import Problem, RunConfig
from specreason_sgl.servers.hardware import hardware
from specreason_sgl.servers.opening import OWNED_WAIT_S, PairOptions, connect
from specreason_sgl.servers.pairs import Address, key_of
from specreason_sgl.settings import Settings
from specreason_sgl.view.text import shorten

if TYPE_CHECKING:
    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.lang.pair import Pair

CALLERS = (1, 16, 64)
ROUNDS, LOADED_ROUNDS = 15, 5
MOST_CALLERS, MOST_TOKENS = 256, 10**7
SHOWN = 40
"""Characters of a wrong value that a message repeats."""
COUNT = re.compile(r"[1-9][0-9]{0,7}")
CALLS = 16
"""Calls of one caller alone in a round; several share them, with at least `FEWEST` for each."""
FEWEST = 2
ROOM = 1024
"""Tokens by which reasoning may grow while it is measured."""
KINDS = ("draft", "judge", "regenerate")
SETTINGS = Settings(temperature=0, top_p=1)
NAMED = "name them with `--base URL --small URL`"
ALL = [name for name in reversed(TRANSPORTS) if name != AUTO]
PLAIN: Transport = "text"
"""The transport that the others are compared with."""


class Cost(BaseModel):
    """A kind of call behind a length, by one transport."""

    model_config = ConfigDict(frozen=True)

    length: int
    """Tokens of the prompt before the first call."""
    kind: str
    transport: str
    calls: int
    prompt_tokens: float
    """Of the median call; what came before made the reasoning longer."""
    recomputed: int
    """The most prompt tokens of a call that were computed again although nothing but the text before them was new."""
    seconds: float
    """Of the median call, from before its prompt is put together until its result is read."""
    engine_s: float | None
    """The same by the server's own clock, which runs while it tokenises; None if it does not tell."""
    against_text: Estimate | None
    """How many times as fast as by text, paired by round; None for text itself, or without it."""
    against_shortest: Estimate | None
    """How many times as long as behind the shortest length, paired by round; None for that one."""


class Rate(BaseModel):
    """How many judgements a server gives when several callers ask at once, each about a conversation of its own."""

    model_config = ConfigDict(frozen=True)

    length: int
    callers: int
    transport: str
    calls_per_second: float
    """Of the median round."""
    against_text: Estimate | None


class Lengths(BaseModel):
    """Everything that was measured."""

    model_config = ConfigDict(frozen=True)

    about: RunConfig
    """What is needed to repeat it."""
    costs: list[Cost]
    rates: list[Rate]
    left_out: list[str]
    """What could not be measured, and why."""


def counts_in(option: str, text: str, most: int) -> list[int]:
    """The numbers in an option's value, sorted, each once.

    Raises:
        UsageError: something else stands there, or a number above the most.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(COUNT.fullmatch(part) and int(part) <= most for part in parts):
        raise UsageError(
            f"`{option} {shorten(text, SHOWN)}` is no list of numbers from 1 to {most}",
            hint=f"with commas between them, such as `{option} 1,16`",
        )
    return sorted({int(part) for part in parts})


def refuse_longer(lengths: Sequence[int], context: int | None, where: str) -> None:
    """Make sure that a context has room for all lengths, and for what they grow by while they are measured.

    Raises:
        UsageError: it has not.
    """
    if context is not None and max(lengths) + ROOM > context:
        raise UsageError(
            f"{max(lengths)} tokens do not fit: {where} has {context} tokens of context",
            hint=f"{ROOM} of them are kept free, so that `--lengths` goes up to {context - ROOM}",
        )


@contextmanager
def opened(
    options: PairOptions,
    lengths: Sequence[int],
    callers: int,
    say: Callable[[str], None] = lambda _: None,
    scope: Scope | None = None,
) -> Iterator[dict[Transport, Pair[Endpoint]]]:
    """The servers that are named, or a rig for this scope alone, connected once by each transport.

    Args:
        options: which servers.
        lengths: the lengths that shall be measured.
        callers: the most callers at once.
        say: called with a line on what is being waited for.
        scope: the scope that all calls belong to.

    Raises:
        SpecReasonError: the servers are not named as a pair, cannot be started or reached, or are too small.
    """
    if options.pair:
        raise UsageError("a bench over lengths makes models of its own", hint="leave `--pair` out, or " + NAMED)
    with ExitStack() as stack:
        if options.is_embedded:
            refuse_longer(lengths, rig.CONTEXT_TOKENS, "the rig")
            running = stack.enter_context(rig.opened(say, callers=callers))
            base, small = running.base, running.small
            options = replace(options, wait_for_server_s=OWNED_WAIT_S)
        elif options.base and options.small:
            base, small = (Address(url, options.api_key or key_of(url)) for url in (options.base, options.small))
        else:
            raise UsageError("a bench needs both models", hint=NAMED)
        scope = scope or Scope()
        tried = {name: _connected(base, small, replace(options, transport=name), scope) for name in ALL}
        yield {name: pair for name, pair in tried.items() if pair}


def best(pairs: Mapping[Transport, Pair[Endpoint]]) -> Pair[Endpoint]:
    """The servers by the best transport that they can do."""
    done = [name for name in ALL if name in pairs and all(each.transport == name for each in pairs[name])]
    return pairs[done[-1]]


def measure(
    pairs: Mapping[Transport, Pair[Endpoint]],
    lengths: Sequence[int],
    callers: Sequence[int] = CALLERS,
    *,
    rounds: int = ROUNDS,
    say: Callable[[str], None] = lambda _: None,
) -> Lengths:
    """Time calls behind reasoning of several lengths, by several transports.

    Args:
        pairs: the same two servers by each transport that is asked for, with nothing else to do.
        lengths: tokens of the prompts, in ascending order.
        callers: how many call at once, in ascending order.
        rounds: how often each call is timed; callers at once get a third of that.
        say: called with a line on what is being measured.

    Raises:
        UsageError: a server has no room for the longest.
    """
    pairs = {name: pair for name, pair in pairs.items() if all(endpoint.transport == name for endpoint in pair)}
    left_out = [f"{name}: the servers cannot do it" for name in ALL if name not in pairs]
    if not pairs:
        raise UsageError("the servers can do none of the transports")
    bench = _Bench(pairs, say)
    for endpoint in (bench.base, bench.small):
        refuse_longer(lengths, endpoint.context, f"the {endpoint.role} server")
    room = _room(bench.base, max(lengths))
    left_out += [f"{each} callers: the base server has room for {room}" for each in callers if each > room]
    callers = [each for each in callers if each <= room]
    steps = {length: bench.steps_up_to(length) for length in lengths}
    bench.read(max([1, *callers]), steps[max(lengths)])
    costs = bench.costs(steps, rounds)
    rates = bench.rates(steps, callers, max(1, rounds // 3))
    return Lengths(about=about(bench.base, bench.small, "lengths"), costs=costs, rates=rates, left_out=left_out)


def tables(made: Lengths) -> list[Table]:
    """The figures as tables."""
    note = f"Not measured: {'; '.join(made.left_out)}." if made.left_out else ""
    costs = Table(
        "A call behind long reasoning, all of it in the cache",
        ("behind", "call", "transport", "ms", "of them engine", "recomputed", "against text", "against the shortest"),
        tuple(
            (
                f"{c.length} tok",
                c.kind,
                c.transport,
                f"{1000 * c.seconds:.1f}",
                NOTHING if c.engine_s is None else f"{1000 * c.engine_s:.1f}",
                f"{c.recomputed} tok",
                _times(c.against_text),
                _times(c.against_shortest),
            )
            for c in made.costs
        ),
        "One token is generated; a judgement reads a new step. `against text`: how many times as fast; `against the "
        f"shortest`: how many times as long; with 95 % bootstrap intervals, paired by round. {note}".rstrip(),
    )
    rates = Table(
        "Judgements a second by one server, with a conversation for each caller",
        ("behind", "callers", "transport", "a second", "against text"),
        tuple(
            (f"{r.length} tok", str(r.callers), r.transport, f"{r.calls_per_second:.1f}", _times(r.against_text))
            for r in made.rates
        ),
    )
    return [costs, rates] if made.rates else [costs]


@dataclass
class _Talk:
    """A conversation about one problem by one transport, with forced steps."""

    solve: Solve
    steps: Iterator[str]
    """What the chain grows by."""
    program: Any
    """The module of the program whose calls are made."""

    def __post_init__(self) -> None:
        self.chain = self.solve.chain().supposed()

    def place(self) -> Place:
        """The next place of the chain; whatever fills it has one token."""
        return Place(self.chain, len(self.chain.steps), 1)

    def call(self, kind: str, step: str) -> CallMade:
        """Make a call as the program makes it; returns what the solve says about it."""
        place, solve = self.place(), self.solve
        if kind == "judge":
            solve.score(self.program.judge.run(self.chain, place, step, backend=solve.base), place)
        elif kind == "draft":
            state = self.program.draft.run(self.chain, place, backend=solve.small, **solve.sampling)
            solve.read(state, "draft", place)
        else:
            state = self.program.regenerate.run(self.chain, place, backend=solve.base, **solve.sampling)
            solve.read(state, "regenerate", place)
        return next(event for event in reversed(solve.events) if isinstance(event, CallMade))

    def take(self, step: str) -> None:
        """Let the chain grow."""
        self.chain.suppose(step)

    def end(self) -> None:
        """Make no more calls."""
        self.solve.forget()

    def judged(self, times: int) -> None:
        """Judge so many steps, one behind the other."""
        for step in islice(self.steps, times):
            self.call("judge", step)
            self.take(step)


@dataclass(frozen=True)
class _Timed:
    """A call that was measured."""

    seconds: float
    made: CallMade
    recomputed: int


class _Bench:
    """The servers and what is asked of them."""

    def __init__(self, pairs: Mapping[Transport, Pair[Endpoint]], say: Callable[[str], None]) -> None:
        self.pairs, self.say = pairs, say
        plain = pairs.get(PLAIN) or next(iter(pairs.values()))
        if plain.base is None or plain.small is None:
            raise UsageError("a bench needs both models", hint=NAMED)
        self.base, self.small = plain.base, plain.small
        self._program = load("specreason").module
        self._begun = 0

    def steps_up_to(self, length: int) -> int:
        """How many steps a prompt of the base model has that comes to so many tokens.

        Raises:
            UsageError: the question alone has more.
        """

        def tokens(steps: int) -> int:
            return len(self.base.tokens(self._talk(PLAIN, 0, steps).chain.prompt("base")))

        if (least := tokens(0)) > length:
            raise UsageError(f"{length} tokens are too few: the question alone has {least}")
        return bisect_left(range(length), length, key=tokens)

    def read(self, conversations: int, steps: int) -> None:
        """Have the servers read the longest prompts, of which the shorter ones are the beginnings."""
        self.say(f"{conversations} conversations, which the servers read")
        for number in range(conversations):
            chain = self._talk(PLAIN, number, steps).chain
            self.base.cache_prefix(chain.prompt("base"))
            if not number:
                self.small.cache_prefix(chain.prompt("small"))

    def costs(self, steps: Mapping[int, int], rounds: int) -> list[Cost]:
        """Time single calls, in turn; the first round warms up."""
        talks = {(length, name): self._begin(name, 0, count) for length, count in steps.items() for name in self.pairs}
        timed: dict[tuple[int, str, str], list[_Timed]] = defaultdict(list)
        for number in range(rounds + 1):
            self.say(f"calls, round {number} of {rounds}" if number else "calls, once to warm up")
            for length, name in _turned(list(talks), number):
                for one in self._step(talks[length, name]):
                    timed[length, one.made.kind, name] += [one] if number else []
        for talk in talks.values():
            talk.end()
        seconds = {case: [one.seconds for one in own] for case, own in timed.items()}
        shortest = min(steps)
        return [
            Cost(
                length=length,
                kind=kind,
                transport=name,
                calls=len(own),
                prompt_tokens=statistics.median(one.made.prompt_tokens for one in own),
                recomputed=max(one.recomputed for one in own),
                seconds=statistics.median(seconds[length, kind, name]),
                engine_s=_median([one.made.engine_s for one in own]),
                against_text=_ratio(seconds.get((length, kind, PLAIN)), seconds[length, kind, name], name != PLAIN),
                against_shortest=_ratio(seconds[length, kind, name], seconds[shortest, kind, name], length != shortest),
            )
            for length in steps
            for kind in KINDS
            for name in self.pairs
            for own in [timed[length, kind, name]]
        ]

    def rates(self, steps: Mapping[int, int], callers: Sequence[int], rounds: int) -> list[Rate]:
        """Count judgements with several callers at once, in turn."""
        cases = [(length, level, name) for length in steps for level in callers for name in self.pairs]
        found: dict[tuple[int, int, str], list[float]] = {case: [] for case in cases}
        for number in range(rounds):
            self.say(f"callers at once, round {number + 1} of {rounds}")
            for length, level, name in _turned(cases, number):
                found[length, level, name].append(self._rate(name, steps[length], level))
        return [
            Rate(
                length=length,
                callers=level,
                transport=name,
                calls_per_second=statistics.median(own),
                against_text=_ratio(own, found.get((length, level, PLAIN)), name != PLAIN),
            )
            for (length, level, name), own in found.items()
        ]

    def _rate(self, name: Transport, steps: int, level: int) -> float:
        each = max(FEWEST, CALLS // level)
        with ThreadPoolExecutor(level) as pool:
            talks = [self._begin(name, number, steps) for number in range(level)]
            list(pool.map(lambda talk: talk.judged(1), talks))
            began = time.perf_counter()
            list(pool.map(lambda talk: talk.judged(each), talks))
            seconds = time.perf_counter() - began
        for talk in talks:
            talk.end()
        return level * each / seconds

    def _step(self, talk: _Talk) -> list[_Timed]:
        """Draft, judge and write a step; then take it, as if its draft had been accepted."""
        step, found = next(talk.steps), []
        for kind in KINDS:
            began = time.perf_counter()
            made = talk.call(kind, step)
            found.append((time.perf_counter() - began - made.lost_s, made))
        # A judge's prompt goes on where that of the base model's own step ends.
        before = {made.model: made.prompt_tokens for _, made in found}
        talk.take(step)
        self.small.cache_prefix(talk.chain.prompt("small"))  # which it had written, had the draft been its own
        return [_Timed(seconds, made, before[made.model] - made.cached_tokens) for seconds, made in found]

    def _begin(self, name: Transport, number: int, steps: int) -> _Talk:
        """A conversation that goes on from a beginning that the servers have read as no other one does."""
        talk = self._talk(name, number, steps)
        self._begun += 1
        talk.take(f"This is attempt {self._begun:05}.")
        return talk

    def _talk(self, name: Transport, number: int, steps: int) -> _Talk:
        """A conversation with so many steps; those with different numbers differ from the question on."""
        pair = self.pairs.get(name) or next(iter(self.pairs.values()))
        problem = Problem(id=str(number), question=f"{number:05}. {stories.story(0).question}")
        talk = _Talk(Solve(problem, SETTINGS, pair.models, program="bench"), forced_steps(), self._program)
        for step in islice(talk.steps, steps):
            talk.take(step)
        return talk


def about(base: Endpoint, small: Endpoint, what: str) -> RunConfig:
    """What is needed to repeat a measurement.

    Args:
        base: the base model's server.
        small: the small model's server.
        what: the measurement's name.
    """
    models = {"base": base, "small": small}
    return RunConfig.model_validate(
        {
            "created": datetime.now(UTC),
            "program": what,
            "pair": " + ".join(dict.fromkeys(model.url for model in models.values())),
            "versions": versions(),
            "servers": describe(models),
            **prompts(models, SETTINGS),
            "command": command_line(sys.argv[1:]),
            "hardware": hardware(),
        }
    )


def _connected(base: Address, small: Address, options: PairOptions, scope: Scope) -> Pair[Endpoint] | None:
    """The servers by one transport; None if they refuse what they do not refuse as text."""
    try:
        return connect(base, small, options, scope)
    except UsageError:
        if options.transport == PLAIN:
            raise
        return None


def _room(base: Endpoint, length: int) -> int:
    """How many conversations of a length the cache of a server holds."""
    info = base.server_info()
    cache = info.get("max_total_num_tokens")
    return int(cache) * int(info.get("replicas", 1)) // (length + ROOM) if cache else MOST_CALLERS


def _turned(cases: Sequence[Any], number: int) -> list[Any]:
    """The cases in an order that begins elsewhere each time, so that none is always the first."""
    place = number % max(1, len(cases))
    return [*cases[place:], *cases[:place]]


def _ratio(some: Sequence[float] | None, others: Sequence[float] | None, is_wanted: bool) -> Estimate | None:
    """The geometric mean of the ratios, pair by pair; None where one side was not measured or it is not wanted."""
    if some is None or others is None or not is_wanted:
        return None
    logs = mean({str(n): math.log(one / other) for n, (one, other) in enumerate(zip(some, others, strict=True))})
    low, high = (None if edge is None else math.exp(edge) for edge in (logs.low, logs.high))
    return Estimate(value=math.exp(logs.value), low=low, high=high, n=logs.n)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _times(estimate: Estimate | None) -> str:
    if estimate is None:
        return NOTHING
    interval = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{estimate.value:.2f}x{interval}"
