"""One chain of thought done again in several ways, for a fair comparison: by our programs and by the reference's loop.

A schedule says what was drafted, decided and written at each step. In a replay every call is really made, with the
length that the schedule says; but text and decision then come from the schedule, so that all ways have the same
prompts. A replay can begin anywhere in the chain.
"""

from __future__ import annotations

import copy
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, Any, Literal, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field
from sglang.lang.choices import ChoicesDecision

from specreason_sgl.embedded import stories
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.report import Table
from specreason_sgl.evaluation.statistics import Estimate, mean
from specreason_sgl.events import CallMade, Event, StepDrafted, StepScored, StepTaken
from specreason_sgl.lang.backend import Listen, SglBackend
from specreason_sgl.lang.loading import load
from specreason_sgl.lang.states import check
from specreason_sgl.measure.client import Begun
from specreason_sgl.measure.forced import forced_steps
from specreason_sgl.measure.reference import Chatting
from specreason_sgl.runs.store import Problem, RunConfig, SolveRecord
from specreason_sgl.settings import Settings
from specreason_sgl.text.scoring import certain

if TYPE_CHECKING:
    from sglang.lang.choices import ChoicesSamplingMethod
    from sglang.lang.interpreter import StreamExecutor
    from sglang.lang.ir import SglSamplingParams

    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.lang.pair import Pair
    from specreason_sgl.lang.scope import Scope

Way = Literal["reference", "sequential", "ahead"]
WAYS: tuple[Way, ...] = ("reference", "sequential", "ahead")
OURS: tuple[Way, ...] = WAYS[1:]
PROGRAMS: Mapping[Way, tuple[str, Mapping[str, Any]]] = {
    "reference": ("specreason", {}),
    "sequential": ("specreason", {}),
    "ahead": ("lookahead", {"depth": 2}),
}
POSITIONS = (2_000, 16_000, 32_000)
STEPS, ROUNDS = 20, 6
ACCEPTANCE = 0.8
_FILLED = re.compile(r"(draft|judge|regenerate)_(\d+)")


class Turn(BaseModel):
    """What happened at one step."""

    model_config = ConfigDict(frozen=True)

    draft: str | None
    """The small model's text; None if it was not asked."""
    draft_tokens: int = Field(1, ge=1)
    accepted: bool
    base: str = ""
    """The base model's text; empty if the draft was accepted."""
    base_tokens: int = Field(1, ge=1)

    @property
    def kept(self) -> str:
        """The text that entered the reasoning."""
        return (self.draft or "") if self.accepted else self.base

    @property
    def tokens(self) -> int:
        """The tokens of the text that entered the reasoning."""
        return self.draft_tokens if self.accepted else self.base_tokens


class Schedule(BaseModel):
    """A question, and what happened at each step of the first chain of thought over it."""

    model_config = ConfigDict(frozen=True)

    question: str
    turns: tuple[Turn, ...]


class Replayed(BaseModel):
    """How long the same steps take in each way, from one position on."""

    model_config = ConfigDict(frozen=True)

    position: int
    """Tokens of reasoning before the first step."""
    prompt_tokens: int
    """The tokens of the first prompt, as the server counts them."""
    step_s: dict[str, float]
    """The median seconds of a step, by way."""
    against_reference: dict[str, Estimate]
    """The reference's seconds as a multiple of those of our ways."""


class Replay(BaseModel):
    """Replays of one schedule from several positions on."""

    model_config = ConfigDict(frozen=True)

    about: RunConfig
    """What is needed to repeat it."""
    replayed: list[Replayed]


def longest(records: Iterable[SolveRecord]) -> Schedule:
    """The schedule of the longest chain among stored solves.

    Raises:
        UsageError: none of them judged a draft.
    """
    judged = [record for record in records if any(isinstance(event, StepScored) for event in record.events)]
    if not judged:
        raise UsageError("no draft was judged in the run, so there is nothing to replay")
    return max(map(stored, judged), key=lambda schedule: sum(turn.tokens for turn in schedule.turns))


def stored(record: SolveRecord) -> Schedule:
    """The schedule of a stored solve, such as one that `import-trace` made of a published run.

    Raises:
        UsageError: the solve judged no draft.
    """
    drafts: dict[int, StepDrafted] = {}
    accepted: dict[int, bool] = {}
    turns = []
    for event in record.events:
        if event.chain:
            continue
        match event:
            case StepDrafted():
                drafts[event.step] = event
            case StepScored():
                accepted[event.step] = event.accepted
            case StepTaken(text=text) if text:
                turns.append(_turn(drafts.get(event.step), event, accepted=accepted.get(event.step, False)))
            case _:
                pass
    if not accepted:
        raise UsageError(f"no draft was judged in the solve of `{record.problem.id}`, so it has no schedule")
    return Schedule(question=record.problem.question, turns=tuple(turns))


def _turn(draft: StepDrafted | None, taken: StepTaken, *, accepted: bool) -> Turn:
    text, tokens = (draft.text, max(1, draft.tokens)) if draft else (None, 1)
    if accepted:
        return Turn(draft=text, draft_tokens=tokens, accepted=True)
    return Turn(draft=text, draft_tokens=tokens, accepted=False, base=taken.text, base_tokens=max(1, taken.tokens))


def built(
    tokens: int, counted: Callable[[str], int], *, steps: int = STEPS, acceptance: float = ACCEPTANCE, seed: int = 0
) -> Schedule:
    """A schedule of steps of the embedded stories: a chain of so many tokens, and so many steps behind it.

    Args:
        tokens: how long the chain gets before the last steps.
        counted: how many tokens a text has.
        steps: how many steps come behind that.
        acceptance: the share of drafts that is accepted; lots are drawn.
        seed: the seed of the lots.
    """
    lots, told = Random(seed), forced_steps(seed)
    turns: list[Turn] = []
    held = 0
    while held < tokens or steps > 0:
        steps -= held >= tokens
        text, other = next(told), next(told)
        if lots.random() < acceptance:
            turn = Turn(draft=text, draft_tokens=counted(text), accepted=True)
        else:
            own, drafted = counted(text), counted(other)
            turn = Turn(draft=other, draft_tokens=drafted, accepted=False, base=text, base_tokens=own)
        turns.append(turn)
        held += turn.tokens
    return Schedule(question=stories.story(seed).question, turns=tuple(turns))


class Replaying(SglBackend):
    """A model server whose calls get the lengths of a schedule, and whose answers are replaced by those in it."""

    def __init__(self, server: Endpoint | Chatting, turns: Sequence[Turn], begun: int) -> None:
        """Keep the arguments.

        Args:
            server: makes the calls.
            turns: what happens at the steps that are replayed.
            begun: how many steps the chain has before them.
        """
        super().__init__()
        self.role, self.chat, self.context, self.scope = server.role, server.chat, server.context, server.scope
        self._server, self._turns, self._begun = server, turns, begun

    def within(
        self, scope: Scope, *, role: str | None = None, listen: Listen | None = None, seed: int | None = None
    ) -> Self:
        """The same for the calls of one scope."""
        server = self._server.within(scope, role=role, listen=listen, seed=seed)
        return type(self)(server, self._turns, self._begun)

    def forget(self) -> None:
        """Have the server forget what was sent in this scope."""
        self._server.forget()

    def tokens(self, text: str) -> list[int]:
        """The ids of a text's tokens."""
        return self._server.tokens(text)

    def generate(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> tuple[Any, dict[str, Any]]:
        """Generate as many tokens as the schedule says, and return its text in their place."""
        kind, turn = self._turn(s)
        if turn is None:
            return self._server.generate(s, sampling_params)
        text, tokens = (turn.draft or "", turn.draft_tokens) if kind == "draft" else (turn.base, turn.base_tokens)
        forced = copy.copy(sampling_params)
        forced.max_new_tokens, forced.stop, forced.ignore_eos = tokens, [], True
        _, meta = self._server.generate(s, forced)
        return text, meta

    def select(
        self,
        s: StreamExecutor,
        choices: list[str],
        temperature: float,
        choices_method: ChoicesSamplingMethod,
    ) -> ChoicesDecision:
        """Ask the judge, and return the schedule's decision in place of the judge's."""
        made = self._server.select(s, choices, temperature, choices_method)
        _, turn = self._turn(s)
        if turn is None:
            return made
        digit = "9" if turn.accepted else "0"
        return replace(made, decision=digit, meta_info={**made.meta_info, "digit_logprobs": certain(digit).logprobs})

    def _turn(self, s: StreamExecutor) -> tuple[str, Turn | None]:
        """What a call is made for, and what happens at its step; what is drafted beyond the end is as the last step."""
        found = _FILLED.fullmatch(str(s.filling))
        if found is None:
            return "", None
        return found[1], self._turns[min(int(found[2]) - self._begun, len(self._turns) - 1)]


def replay(
    pair: Pair[Endpoint],
    schedule: Schedule,
    say: Callable[[str], None],
    *,
    positions: Sequence[int] = POSITIONS,
    steps: int = STEPS,
    rounds: int = ROUNDS,
) -> list[Replayed]:
    """Replay some steps from each position on, in every way in turn.

    Args:
        pair: the servers, with nothing else to do.
        schedule: what happens at each step.
        say: called with a line on what is being measured.
        positions: tokens of reasoning before the first step that is replayed.
        steps: how many steps are timed; one before them is not, with which the servers read the prompt.
        rounds: how often every way is timed.

    Raises:
        UsageError: the schedule has too few steps behind a position, or a context is too short for it.
    """
    windows = {position: _window(schedule, position, steps + 1) for position in positions}
    made = []
    for position, start in windows.items():
        say(f"a replay behind {position:,} tokens")
        run(pair, schedule, start, steps + 1, "sequential")  # the servers read what stands before
        seconds: dict[Way, list[float]] = {way: [] for way in WAYS}
        prompt = 0
        for number in range(rounds):
            for way in _turned(WAYS, number):
                events = run(pair, schedule, start, steps + 1, way)
                prompt = next(event.prompt_tokens for event in events if isinstance(event, CallMade))
                seconds[way].append(_spent(events) / steps)
        made.append(
            Replayed(
                position=position,
                prompt_tokens=prompt,
                step_s={way: statistics.median(some) for way, some in seconds.items()},
                against_reference={
                    way: _compared(seconds["reference"], some) for way, some in seconds.items() if way != "reference"
                },
            )
        )
    return made


def table(replayed: Sequence[Replayed], steps: int = STEPS) -> Table:
    """The replays as a table."""
    rounds = max((each.against_reference[way].n for each in replayed for way in OURS), default=0)
    return Table(
        "The same steps by the reference's loop and by ours",
        ("behind", *(f"{way}, ms a step" for way in WAYS), *(f"reference / {way}" for way in OURS)),
        tuple(
            (
                f"{each.position:,} tok",
                *(f"{1000 * each.step_s[way]:.0f}" for way in WAYS),
                *(_ratio(each.against_reference[way]) for way in OURS),
            )
            for each in replayed
        ),
        f"{steps} steps of one schedule with forced lengths, {rounds} times in turn; 95 % bootstrap intervals.",
    )


def _compared(theirs: Sequence[float], ours: Sequence[float]) -> Estimate:
    """The geometric mean of the rounds' ratios, with its interval."""
    ratios = (math.log(their / our) for their, our in zip(theirs, ours, strict=True))
    logs = mean({str(number): ratio for number, ratio in enumerate(ratios)})
    low, high = (None if bound is None else math.exp(bound) for bound in (logs.low, logs.high))
    return Estimate(value=math.exp(logs.value), low=low, high=high, n=logs.n)


def _ratio(estimate: Estimate) -> str:
    interval = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{estimate.value:.2f}x{interval}"


def _turned(ways: Sequence[Way], by: int) -> list[Way]:
    """The ways in another order each time, so that none always comes first."""
    return [*ways[by % len(ways) :], *ways[: by % len(ways)]]


def _window(schedule: Schedule, position: int, steps: int) -> int:
    """The number of the first step behind so many tokens."""
    held = accumulate((turn.tokens for turn in schedule.turns), initial=0)
    start = next((number for number, tokens in enumerate(held) if tokens >= position), len(schedule.turns))
    window = schedule.turns[start : start + steps]
    if len(window) < steps:
        raise UsageError(
            f"the schedule has {len(window)} steps behind {position:,} tokens, and {steps} are replayed",
            hint="choose another position, or fewer steps",
        )
    undrafted = next((place for place, turn in enumerate(window, start) if turn.draft is None), None)
    if undrafted is not None:
        raise UsageError(
            f"nothing was drafted for step {undrafted} of the schedule", hint="choose a position behind it"
        )
    return start


def run(pair: Pair[Endpoint], schedule: Schedule, start: int, steps: int, way: Way) -> list[Event]:
    """Replay some steps in one way, after all steps before them; returns the events from there on.

    Raises:
        SpecReasonError: a call failed, or a context is too short.
    """
    turns = schedule.turns[start : start + steps]
    # Else the caches would hold the steps from the time before, and no model would have to read them.
    given = [*(turn.kept for turn in schedule.turns[:start]), f"Note {uuid4().int % 10**6:06}."]
    budget = sum(turn.tokens for turn in turns)
    settings = Settings(temperature=0, top_p=1, budget=budget, max_step_tokens=budget, answer_tokens=1)
    servers = {role: Chatting(server) if way == "reference" else server for role, server in pair.models.items()}
    models = {role: Replaying(server, turns, len(given)) for role, server in servers.items()}
    name, knobs = PROGRAMS[way]
    solve = Begun(Problem(id="replay", question=schedule.question), settings, models, program=name)
    solve.begin(given)
    before = len(solve.events)
    try:
        if solve.chain().place() is not None:
            check(load(name).function.run(solve, backend=solve.base, **solve.sampling, **knobs))
    finally:
        solve.forget()
    events = solve.events[before:]
    if sum(isinstance(event, StepTaken) for event in events) < steps:
        raise UsageError(
            f"the models' contexts are too short for {steps} steps from step {start} of the schedule on",
            hint="choose an earlier position",
        )
    return events


def _spent(events: Sequence[Event]) -> float:
    """The seconds from the end of the first step to that of the last, without those in which calls were lost."""
    first, *_, last = (event.at for event in events if isinstance(event, StepTaken))
    lost = (event.lost_s for event in events if isinstance(event, CallMade) and first < event.at <= last)
    return last - first - sum(lost)
