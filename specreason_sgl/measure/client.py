"""What the client itself costs: solves over a server that answers at once, from chains that are long already."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from specreason_sgl.engine.transport import Transport
from specreason_sgl.evaluation.report import Table
from specreason_sgl.events import CallMade, StepTaken
from specreason_sgl.lang.chain import Chain
from specreason_sgl.lang.loading import load
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.scope import Scope
from specreason_sgl.lang.solve import Solve
from specreason_sgl.lang.states import check
from specreason_sgl.measure.instant import STEP_TOKENS, instant, steps
from specreason_sgl.runs.store import Problem
from specreason_sgl.settings import Settings

if TYPE_CHECKING:
    from specreason_sgl.lang.backend import Backend

LENGTHS = (1000, 8000, 32000)
"""Tokens that the chains begin with."""
LEVELS = (1, 8, 32)
"""Solves in flight."""
TRANSPORTS: tuple[Transport, ...] = ("sessions", "text")
SOLVES, STEPS = 32, 20
"""Solves of a measurement, and steps of each of them."""
ROUNDS = 3
PROBLEM = Problem(id="instant", question="What is 2 + 2?")


class ClientCost(BaseModel):
    """What the client costs at one length, with one number of solves in flight: the medians of the rounds."""

    model_config = ConfigDict(frozen=True)

    in_flight: int
    tokens: int
    """Tokens that the chains began with."""
    cpu_ms: float
    """Milliseconds of the client's processor time a step."""
    calls_per_second: float


class Begun(Solve):
    """A solve whose chain begins with steps that are there already."""

    def begin(self, given: Iterable[str]) -> None:
        """Give the chain its steps; they count as no tokens of the budget."""
        self._begun = super().chain()
        for text in given:
            self._begun.suppose(text)

    def chain(self, parent: Chain | None = None, *, budget: int | None = None, keep: int | None = None) -> Chain:
        """The chain that was begun; `Chain.fork` makes further ones."""
        return super().chain(parent, budget=budget, keep=keep) if parent else self._begun


class Client(BaseModel):
    """What the client costs, by each transport."""

    model_config = ConfigDict(frozen=True)

    costs: dict[str, list[ClientCost]]


def measure(
    say: Callable[[str], None],
    *,
    transports: Sequence[Transport] = TRANSPORTS,
    lengths: Sequence[int] = LENGTHS,
    levels: Sequence[int] = LEVELS,
    solves: int = SOLVES,
    rounds: int = ROUNDS,
    scope: Scope | None = None,
) -> Client:
    """Measure every transport and length with every number of solves in flight, in turn.

    Args:
        say: called with a line on what is being measured.
        transports: how prompts travel.
        lengths: the tokens that the chains begin with.
        levels: the solves in flight.
        solves: the solves of a measurement, if no more are in flight.
        rounds: how often everything is measured.
        scope: the scope that all calls belong to.
    """
    from specreason_sgl.engine.backend import Endpoint

    made: dict[tuple[Transport, int, int], list[ClientCost]] = {
        (transport, level, length): [] for level in levels for length in lengths for transport in transports
    }
    scope = scope or Scope()
    with instant(1) as base, instant(2) as small:
        pairs = {
            transport: Pair(
                Endpoint(base, "base", transport=transport, scope=scope),
                Endpoint(small, "small", transport=transport, scope=scope),
            )
            for transport in transports
        }
        for pair in pairs.values():
            _once(pair, levels[-1], lengths[0], levels[-1])  # warms up
        for number in range(rounds):
            say(f"the client, round {number + 1} of {rounds}")
            for (transport, level, length), some in made.items():
                some.append(_once(pairs[transport], level, length, max(level, solves)))
    costs: dict[str, list[ClientCost]] = {transport: [] for transport in transports}
    for (transport, level, length), some in made.items():
        costs[transport].append(
            ClientCost(
                in_flight=level,
                tokens=length,
                cpu_ms=statistics.median(each.cpu_ms for each in some),
                calls_per_second=statistics.median(each.calls_per_second for each in some),
            )
        )
    return Client(costs=costs)


def tables(client: Client) -> list[Table]:
    """The costs as tables, one for each transport."""
    return [_table(transport, costs) for transport, costs in client.costs.items()]


def _table(transport: str, costs: Sequence[ClientCost]) -> Table:
    """The last column compares with the shortest chains of the same number in flight."""
    shortest = {each.in_flight: each for each in sorted(costs, key=lambda cost: -cost.tokens)}
    return Table(
        f"The client alone, over a server that answers at once: {transport}",
        ("in flight", "chain", "client ms a step", "calls a second", "against the shortest chain"),
        tuple(
            (
                str(each.in_flight),
                f"{each.tokens:,} tok",
                f"{each.cpu_ms:.2f}",
                f"{each.calls_per_second:,.0f}",
                f"{each.cpu_ms / shortest[each.in_flight].cpu_ms:.2f}x",
            )
            for each in costs
        ),
        f"Processor time of the client's process; a step is a draft and a judgement of {STEP_TOKENS} tokens, "
        "and every fifth is written again.",
    )


def _once(pair: Pair[Backend], level: int, tokens: int, amount: int) -> ClientCost:
    given = steps()[-(tokens // STEP_TOKENS) :]
    settings = Settings.model_validate({"temperature": 0.0, "budget": STEPS * STEP_TOKENS})
    paper = load("specreason")
    solves = [Begun(PROBLEM, settings, pair.models, program=paper.name) for _ in range(amount)]
    for begun in solves:
        begun.begin(given)

    def run(begun: Begun) -> None:
        check(paper.function.run(begun, backend=begun.base, **begun.sampling))
        begun.forget()

    with ThreadPoolExecutor(level) as pool:
        began, cpu = time.perf_counter(), time.process_time()
        list(pool.map(run, solves))
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    events = [event for begun in solves for event in begun.events]
    taken = sum(isinstance(event, StepTaken) for event in events) - amount * len(given)
    calls = sum(isinstance(event, CallMade) for event in events)
    return ClientCost(in_flight=level, tokens=tokens, cpu_ms=1000 * cpu_s / taken, calls_per_second=calls / wall_s)
