"""The events of a solve: a program emits them, and everything else reads them.

They are emitted in order; the run file stores them; the live view, the replay and the statistics only read them.
``at`` is seconds since the solve began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from specreason_sgl.text.scoring import RULES, Fitted, Score, ScoreRule

SCHEMA_VERSION = 1

Role: TypeAlias = str
"""A model's part in a program: ``base``, ``small``, or a word of the program's own such as ``verifier``."""
Author: TypeAlias = str
"""Who wrote a piece of text: a role, or a word of the program's own such as ``hint`` or ``tool``."""
CallKind: TypeAlias = str
"""What a call was made for: ``draft``, ``judge``, ``regenerate``, ``think``, ``answer``, or the program's own word."""
EndOfThinking: TypeAlias = str
"""Why a chain ended: ``closed``, ``budget``, ``context``, ``repeat``, ``no-progress``, or the program's own word."""


class Event(BaseModel):
    """The fields of all events."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: float = 0.0
    """Seconds since the solve began."""
    chain: int = Field(0, exclude_if=lambda chain: chain == 0)
    """Which of the solve's chains, from 0."""


class SolveStarted(Event):
    """A program begins with a question."""

    type: Literal["solve_started"] = "solve_started"
    question: str
    program: str
    budget: int
    """The thinking budget, in tokens."""
    threshold: float | None = None
    """None for programs that judge nothing."""
    score_rule: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda parameters: not parameters)
    """The program's knobs, as they were for this solve."""

    @property
    def rule(self) -> ScoreRule:
        """Which number of a score was compared with the threshold."""
        with suppress(ValidationError):
            if isinstance(told := self.parameters.get("score"), dict):
                return Fitted.model_validate(told)
        return next((rule for rule in RULES if rule == self.score_rule), RULES[0])


class ChainOpened(Event):
    """A further chain begins; the first one is there from the start."""

    type: Literal["chain_opened"] = "chain_opened"
    parent: int | None = None
    """The chain that it was forked from."""
    steps: int = 0
    """How many steps it took over from its parent."""


class TextStreamed(Event):
    """A piece of text as it is generated; for display only and never stored."""

    type: Literal["text_streamed"] = "text_streamed"
    step: int | None
    model: Role
    kind: CallKind
    attempt: int = Field(0, exclude_if=lambda attempt: attempt == 0)
    """The number of its call among several of that kind for the step or the chain, from 0."""
    text: str


class CallMade(Event):
    """One request to a model server has come back; the event it was made for follows."""

    type: Literal["call_made"] = "call_made"
    step: int | None = None
    """The step it was made for; None for whole chains and the answer."""
    model: Role
    kind: CallKind
    prompt_tokens: int
    cached_tokens: int
    """The prompt tokens that came from the radix cache."""
    recomputed_tokens: int = 0
    """The prompt tokens that the server is known to have computed before, and that did not come from the cache."""
    transport: str = ""
    """How the prompt travelled: ``sessions``, ``ids`` or ``text``; empty where that is not known."""
    generated_tokens: int
    wall_s: float
    """Seconds of the attempt that succeeded, from the request to the end of the response, by the client's clock."""
    engine_s: float | None = None
    """The server's own end-to-end seconds; None if it does not report them."""
    finish: str
    """``stop``, ``length`` or ``abort``; ``repeat`` if the model repeated one phrase without end."""
    rounds: int = Field(0, exclude_if=lambda rounds: rounds == 0)
    """How often drafted tokens were verified at once; 0 where the server drafts none."""
    requests: int = 1
    """How many HTTP requests the call took; a stock selection takes two."""
    retries: int = 0
    """How often it was sent again because the server failed; all other numbers are of the attempt that succeeded."""
    lost_s: float = 0.0
    """Seconds lost before that to failed attempts and to waiting for the server."""
    dropped: bool = False
    """Whether the call was cancelled, so that the event it was made for does not follow."""


class StepDrafted(Event):
    """A model, most often the small one, proposes a step."""

    type: Literal["step_drafted"] = "step_drafted"
    step: int
    author: Author = Field("small", exclude_if=lambda author: author == "small")
    attempt: int = Field(0, exclude_if=lambda attempt: attempt == 0)
    """Which of several candidates for the step it is, from 0."""
    text: str
    tokens: int
    closes: bool
    """Whether the draft ends the thinking."""


class StepScored(Event):
    """The judge has scored the draft, and the acceptance rule has decided."""

    type: Literal["step_scored"] = "step_scored"
    step: int
    attempt: int = Field(0, exclude_if=lambda attempt: attempt == 0)
    """The number of the candidate, where there are several."""
    value: float | None = Field(None, exclude_if=lambda value: value is None)
    """The number by which the program chose, where that is not the score."""
    measure: str = Field("", exclude_if=lambda measure: not measure)
    """What that number is, in the program's own word: ``reward``, ``probability``."""
    logprobs: tuple[float, ...]
    """The log-probabilities of the digits 0 to 9, over the model's whole vocabulary."""
    greedy: int
    expected: float
    reaching: float
    """The probability of a digit at or above the threshold."""
    entropy: float
    """The entropy of the digits, in bits."""
    missing_mass: float
    accepted: bool

    @property
    def score(self) -> Score:
        """The score as a `Score`; `scores` knows the lengths of the drafts as well."""
        return Score(self.logprobs)


class StepTaken(Event):
    """A step has entered the reasoning."""

    type: Literal["step_taken"] = "step_taken"
    step: int
    author: Author
    """``small``: an accepted draft (or the small model alone). ``base``: written by the base model."""
    text: str
    tokens: int
    closes: bool = False


class TextAdded(Event):
    """Text that is no step has entered the reasoning unchanged: a hint, a tool's output, part of a sentence."""

    type: Literal["text_added"] = "text_added"
    step: int
    """The number of steps before it."""
    author: Author
    text: str
    tokens: int = 0
    """How many thinking tokens it counts as; 0 for text that no model of the solve wrote."""


class StepsCut(Event):
    """The last steps of a chain were taken back."""

    type: Literal["steps_cut"] = "steps_cut"
    keep: int
    """How many steps stay, with the text added between them."""
    reason: str


class Dropped(Event):
    """Text that was generated ahead of a decision was useless: its tokens are wasted."""

    type: Literal["dropped"] = "dropped"
    step: int
    model: Role
    """``small``: a draft on top of a rejected one. ``base``: its own version of a step whose draft was accepted."""
    tokens: int


class DraftingChanged(Event):
    """The cost account says that drafts do not pay any more, or that drafting shall be tried again."""

    type: Literal["drafting_changed"] = "drafting_changed"
    step: int
    drafting: bool
    """Whether the small model drafts from this step on."""
    acceptance: float
    """The estimated probability that the next draft is accepted."""
    predicted: float
    """The speed-up that drafting is expected to give, against the base model writing every step."""


class ThinkingEnded(Event):
    """The thinking of a chain has ended."""

    type: Literal["thinking_ended"] = "thinking_ended"
    reason: EndOfThinking
    steps: int
    tokens: int
    """Thinking tokens kept."""


class AnswerWritten(Event):
    """The answer phase is over."""

    type: Literal["answer_written"] = "answer_written"
    author: Author
    text: str
    answer: str | None
    r"""The content of the last ``\boxed{}``, or of several side by side."""
    truncated: bool
    r"""Whether the answer phase ran into its limit before it ended."""


class Noticed(Event):
    """A remark for readers of the trace, such as a fall-back."""

    type: Literal["noticed"] = "noticed"
    message: str
    author: Author = Field("", exclude_if=lambda author: not author)
    """Whose remark it is, such as ``verifier``; empty if it is the program's."""


class SolveFailed(Event):
    """The solve failed."""

    type: Literal["solve_failed"] = "solve_failed"
    error: str
    hint: str | None = None
    exit_code: int = 1
    traceback: str | None = None
    """The traceback of an exception in a program, beginning at the program's file."""


class SolveEnded(Event):
    """The last event of every solve."""

    type: Literal["solve_ended"] = "solve_ended"
    outcome: Literal["answered", "unanswered", "failed"]
    correct: bool | None = None
    """None where the right answer is not known."""


class UnknownEvent(Event):
    """An event of a newer version, kept with all its fields so that nothing is lost."""

    model_config = ConfigDict(extra="allow")

    type: str


KnownEvent = (
    SolveStarted
    | ChainOpened
    | TextStreamed
    | CallMade
    | StepDrafted
    | StepScored
    | StepTaken
    | TextAdded
    | StepsCut
    | Dropped
    | DraftingChanged
    | ThinkingEnded
    | AnswerWritten
    | Noticed
    | SolveFailed
    | SolveEnded
)

Sink = Callable[[Event], None]
"""A function that is called with every event."""

_KNOWN: TypeAdapter[KnownEvent] = TypeAdapter(Annotated[KnownEvent, Field(discriminator="type")])
_TYPES = tuple(kind.model_fields["type"].default for kind in get_args(KnownEvent))


def read_event(row: dict[str, Any]) -> Event:
    """Read an event from its stored form; an unknown type or form becomes an `UnknownEvent`.

    Raises:
        pydantic.ValidationError: the row has no type, or no time.
    """
    if row.get("type") in _TYPES:
        with suppress(ValidationError):
            return _KNOWN.validate_python(row)
    return UnknownEvent.model_validate(row)


def scores(events: Iterable[Event]) -> Iterator[tuple[StepScored, Score]]:
    """Every decision on a draft, with the judge's score of it."""
    tokens: dict[tuple[int, int, int], int] = {}
    for event in events:
        if isinstance(event, StepDrafted):
            tokens[event.chain, event.step, event.attempt] = event.tokens
        elif isinstance(event, StepScored):
            yield event, replace(event.score, tokens=tokens.get((event.chain, event.step, event.attempt), 0))
