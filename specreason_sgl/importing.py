"""Traces of the reference implementation, read into run folders.

A row of such a file is one step: both models' texts, tokens, seconds, the greedy score and, for some runs, the
log-probabilities of the digits. What a row does not hold is not made up: prompts count as zero tokens, a digit that
was not reported has no mass, and a score without log-probabilities is taken as certain.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from specreason_sgl.answers import boxed, is_same
from specreason_sgl.errors import UsageError
from specreason_sgl.events import (
    AnswerWritten,
    CallKind,
    CallMade,
    EndOfThinking,
    Event,
    Model,
    Noticed,
    SolveEnded,
    SolveFailed,
    SolveStarted,
    StepDrafted,
    StepScored,
    StepTaken,
    ThinkingEnded,
)
from specreason_sgl.prompts import THINK_CLOSE
from specreason_sgl.scoring import DIGITS, LEAST, Score, certain
from specreason_sgl.store import Problem, SolveRecord

PROGRAM = "specreason-reference"
THRESHOLD = 7.0
BUDGET = 8192
REASONS: dict[str, EndOfThinking] = {"finished": "closed", "budget": "budget", "repeated": "repeat"}
"""Why the reference stopped, in the words used here."""


class Row(BaseModel):
    """One step as the reference stores it."""

    model_config = ConfigDict(extra="ignore")

    problem_id: int | str
    run: int = 0
    step: int
    text: str
    draft: str | None = None
    base: str | None = None
    score: int | None = Field(None, ge=0, le=9)
    draft_tokens: int | None = None
    base_tokens: int | None = None
    draft_s: float | None = None
    base_s: float | None = None
    judge_s: float | None = None
    stop_reason: str | None = None
    digit_logprobs: dict[str, float] | None = None

    @property
    def closes(self) -> bool:
        """Whether the step closed the thinking."""
        return THINK_CLOSE in ((self.draft if self.base is None else self.base) or "")

    @property
    def judged(self) -> Score | None:
        """The score of the draft."""
        if self.score is None:
            return None
        if not self.digit_logprobs:
            return certain(str(self.score))
        return Score(tuple(self.digit_logprobs.get(digit, LEAST) for digit in DIGITS))


def read_rows(path: Path) -> list[Row]:
    """The steps of a file of JSON lines.

    Raises:
        UsageError: the file cannot be read or a line is no step.
    """
    lines = enumerate(_text(path).split("\n"), start=1)
    rows = [_row(text, f"line {number} of `{path}`") for number, text in lines if text.strip()]
    if not rows:
        raise UsageError(f"`{path}` holds no steps")
    return rows


def _row(text: str, where: str) -> Row:
    try:
        return Row.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "line"
        raise UsageError(f"{where} is no step: `{place}`: {first['msg'].lower()}") from error
    except ValueError as error:
        raise UsageError(f"{where} is not JSON", hint="the file needs one JSON object a line") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read `{path}`: {getattr(error, 'strerror', None) or error}") from error


def read_problems(path: Path) -> dict[str, Problem]:
    """Questions and right answers by id, from JSON lines with `id`, `problem` or `question`, and `answer`.

    Raises:
        UsageError: the file cannot be read or a line is no problem.
    """
    problems = {}
    try:
        for text in _text(path).split("\n"):
            if text.strip():
                row = json.loads(text)
                problem = Problem(
                    id=str(row["id"]),
                    question=row["question"] if "question" in row else row["problem"],
                    answer=None if row.get("answer") is None else str(row["answer"]),
                )
                problems[problem.id] = problem
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"`{path}` is no file of problems", hint="each line needs `id`, `problem` and `answer`"
        ) from error
    return problems


def convert(
    rows: Iterable[Row], problems: dict[str, Problem], *, started: datetime | None = None
) -> Iterator[SolveRecord]:
    """The solves that a file of steps holds, one for each problem and run."""
    begun = started or datetime.now(UTC)
    ordered = sorted(rows, key=lambda row: (str(row.problem_id), row.run, row.step))
    for (problem_id, run), steps in groupby(ordered, key=lambda row: (str(row.problem_id), row.run)):
        problem = problems.get(problem_id, Problem(id=problem_id, question=f"Problem {problem_id}"))
        yield SolveRecord(
            problem=problem,
            mode=PROGRAM,
            repeat=run,
            started=begun,
            events=_events(problem, list(steps)),
        )


def _events(problem: Problem, rows: list[Row]) -> list[Event]:
    clock = _Clock()
    clock.tell(
        SolveStarted(
            question=problem.question, program=PROGRAM, budget=BUDGET, threshold=THRESHOLD, score_rule="greedy"
        )
    )
    if any(row.score is not None and not row.digit_logprobs for row in rows):
        clock.tell(Noticed(message="scores without log-probabilities are taken as certain"))
    for row in rows:
        _add_step(clock, row)
    reason = REASONS.get(rows[-1].stop_reason or "")
    if reason is None:
        clock.tell(SolveFailed(error="the trace ends without a known reason"))
        clock.tell(SolveEnded(outcome="failed"))
        return clock.events
    tokens = sum(row.base_tokens or row.draft_tokens or 0 for row in rows)
    clock.tell(ThinkingEnded(reason=reason, steps=len(rows), tokens=tokens))
    holder = next((row for row in reversed(rows) if boxed(row.text) is not None), None)
    if holder is None:
        clock.tell(SolveEnded(outcome="unanswered", correct=None if problem.answer is None else False))
        return clock.events
    answer = boxed(holder.text)
    author: Model = "small" if holder.base is None else "base"
    clock.tell(AnswerWritten(author=author, text=holder.text.strip(), answer=answer, truncated=False))
    correct = None if problem.answer is None else is_same(answer, problem.answer)
    clock.tell(SolveEnded(outcome="answered", correct=correct))
    return clock.events


class _Clock:
    """Events of calls that were made one after the other."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events: list[Event] = []

    def tell(self, event: Event) -> None:
        self.events.append(event.model_copy(update={"at": round(self.now, 6)}))

    def call(self, step: int, model: Model, kind: CallKind, tokens: int, seconds: float | None) -> None:
        self.now += seconds or 0.0
        self.tell(
            CallMade(
                step=step,
                model=model,
                kind=kind,
                prompt_tokens=0,
                cached_tokens=0,
                generated_tokens=tokens,
                wall_s=seconds or 0.0,
                finish="stop",
            )
        )


def _add_step(clock: _Clock, row: Row) -> None:
    if row.draft is not None:
        tokens = row.draft_tokens or 0
        clock.call(row.step, "small", "draft", tokens, row.draft_s)
        closes = THINK_CLOSE in row.draft
        clock.tell(StepDrafted(step=row.step, text=_inside(row.draft), tokens=tokens, closes=closes))
    if (score := row.judged) is not None:
        clock.call(row.step, "base", "judge", 1, row.judge_s)
        clock.tell(
            StepScored(
                step=row.step,
                logprobs=score.logprobs,
                greedy=score.greedy,
                expected=score.expected,
                reaching=score.reaching(THRESHOLD),
                entropy=score.entropy,
                missing_mass=score.missing_mass,
                accepted=row.base is None,
            )
        )
    if row.base is not None:
        clock.call(row.step, "base", "regenerate", row.base_tokens or 0, row.base_s)
    clock.tell(
        StepTaken(
            step=row.step,
            author="small" if row.base is None else "base",
            text=_inside(row.text),
            tokens=(row.draft_tokens if row.base is None else row.base_tokens) or 0,
            closes=row.closes,
        )
    )


def _inside(text: str) -> str:
    return text.split(THINK_CLOSE, 1)[0].strip()
