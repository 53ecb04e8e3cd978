"""Traces of the reference implementation, read into solves.

A row of such a file is one step: both models' texts, tokens, seconds, the score and, for some runs, the
log-probabilities of the digits. Missing values are not invented: prompts count as zero tokens, a digit that was not
reported has probability 0, a score without log-probabilities counts as certain, and the threshold is unknown if the
decisions do not determine it.
"""

from __future__ import annotations

import ast
import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.choice import LETTERS
from specreason_sgl.evaluation.datasets import Grading, as_listed
from specreason_sgl.events import (
    AnswerWritten,
    CallKind,
    CallMade,
    EndOfThinking,
    Event,
    Noticed,
    Role,
    SolveEnded,
    SolveFailed,
    SolveStarted,
    StepDrafted,
    StepScored,
    StepTaken,
    ThinkingEnded,
)
from specreason_sgl.files import decode, read_bytes
from specreason_sgl.runs.pickles import load
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.text.answers import boxed, is_same
from specreason_sgl.text.prompts import THINK_CLOSE
from specreason_sgl.text.scoring import DIGITS, LEAST, Score, ScoreRule, certain

PROGRAM = "specreason-reference"
BUDGET = 8192
"""The reference's default thinking budget, in tokens."""
REASONS: dict[str, EndOfThinking] = {
    "finished": "closed",
    "budget": "budget",
    "repeated": "repeat",
    "context_overflow": "context",
}
"""The reference's reasons for stopping, and our words for them."""

LARGEST = 64 << 20
"""The most bytes of a file, and the most characters of its steps; the longest published run has 200 000 characters."""
MOST_STEPS = 100_000
MOST = 10**9
"""The largest value of any number in a row."""

SOME = 3
"""How many files a message names at most."""

_PICKLES, _TEXTS = (".pickle", ".pkl"), (".jsonl", ".json", ".txt")
_WANTED = (
    "import a pickle, the printed list beside it, a JSON array or JSON lines of steps with `step_id` and `step_str`"
)


class Row(BaseModel):
    """One step as the reference stores it, under its names or ours."""

    model_config = ConfigDict(extra="ignore")

    problem_id: Annotated[int, Field(ge=-MOST, le=MOST)] | str
    run: int = Field(0, ge=0, le=MOST)
    step: int = Field(ge=-MOST, le=MOST, validation_alias=AliasChoices("step", "step_id"))
    text: str = Field(validation_alias=AliasChoices("text", "step_str"))
    draft: str | None = Field(None, validation_alias=AliasChoices("draft", "small_model_step"))
    base: str | None = Field(None, validation_alias=AliasChoices("base", "base_model_step"))
    score: float | None = Field(None, ge=0, le=9)
    """A whole number where the judge's most probable digit is used, else the mean digit."""
    draft_tokens: int | None = Field(
        None, ge=0, le=MOST, validation_alias=AliasChoices("draft_tokens", "num_output_tokens_small")
    )
    base_tokens: int | None = Field(
        None, ge=0, le=MOST, validation_alias=AliasChoices("base_tokens", "num_output_tokens_base")
    )
    draft_s: float | None = Field(None, ge=0, le=MOST, validation_alias=AliasChoices("draft_s", "small_model_time"))
    base_s: float | None = Field(None, ge=0, le=MOST, validation_alias=AliasChoices("base_s", "base_model_time"))
    judge_s: float | None = Field(None, ge=0, le=MOST, validation_alias=AliasChoices("judge_s", "eval_time"))
    stop_reason: str | None = None
    digit_logprobs: dict[str, float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _finite(cls, row: Any) -> Any:
        """Replace NaN and infinite numbers by None: they are not known."""
        if not isinstance(row, dict):
            return row
        return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}

    @field_validator("base")
    @classmethod
    def _written(cls, base: str | None, row: ValidationInfo) -> str | None:
        """Replace the base model's empty text by None if there is a draft: the draft was accepted."""
        return None if base == "" and row.data.get("text") else base

    @field_validator("digit_logprobs")
    @classmethod
    def _possible(cls, reported: dict[str, float] | None) -> dict[str, float] | None:
        """The digits with a probability above 0; None if there are none."""
        known = {digit: reported[digit] for digit in DIGITS if digit in (reported or {})} if reported else {}
        return {digit: min(value, 0.0) for digit, value in known.items() if value > LEAST} or None

    @property
    def closes(self) -> bool:
        """Whether the step closed the thinking."""
        return THINK_CLOSE in ((self.draft if self.base is None else self.base) or "")

    @property
    def tokens(self) -> int:
        """Tokens of the text that was kept."""
        return (self.draft_tokens if self.base is None else self.base_tokens) or 0

    @property
    def judged(self) -> Score | None:
        """The score of the draft."""
        if self.score is None:
            return None
        if self.digit_logprobs:
            return Score(tuple(self.digit_logprobs.get(digit, LEAST) for digit in DIGITS))
        return certain(f"{self.score:g}") if self.score.is_integer() else _between(self.score)


def _between(mean: float) -> Score:
    """The narrowest score with this mean: all probability is on the two digits around the mean."""
    below = math.floor(mean)
    shares = {below: 1 - (mean - below), below + 1: mean - below}
    return Score(tuple(math.log(shares[digit]) if digit in shares else LEAST for digit in range(len(DIGITS))))


@dataclass(frozen=True)
class Limits:
    """The range of a trace's threshold: above every rejected score, at or below every accepted one."""

    rejected: float | None
    """The highest score that was rejected."""
    accepted: float | None
    """The lowest score that was accepted."""

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Limits:
        """What the decisions tell."""
        judged = [(row.score, row.base is None) for row in rows if row.score is not None and row.draft is not None]
        return cls(
            max((score for score, accepted in judged if not accepted), default=None),
            min((score for score, accepted in judged if accepted), default=None),
        )

    def allow(self, threshold: float) -> bool:
        """Whether every decision could have been made at this threshold."""
        above = self.rejected is None or self.rejected < threshold
        return above and (self.accepted is None or threshold <= self.accepted)

    @property
    def settled(self) -> float | None:
        """The threshold, if the whole scores on both sides leave only one whole number; else None."""
        if self.accepted is None or self.rejected is None or not self.accepted.is_integer():
            return None
        return self.accepted if self.accepted == self.rejected + 1 else None

    @property
    def highest(self) -> float | None:
        """The highest threshold that agrees with all decisions; None if there is none, or nothing was accepted."""
        return self.accepted if self.accepted is not None and self.allow(self.accepted) else None

    @property
    def told(self) -> str:
        """What is known about a threshold that the decisions do not determine, as a sentence."""
        low, high = self.rejected, self.accepted
        if high is not None and self.highest is None:
            return f"no one threshold explains the decisions: a score of {low:g} was rejected and one of {high:g} taken"
        bounds = [f"above {low:g}"] if low is not None else []
        bounds += [f"at most {high:g}"] if high is not None else []
        return "the threshold is not known" + (f"; by the decisions it is {' and '.join(bounds)}" if bounds else "")


def threshold_of(rows: Sequence[Row], given: float | None = None) -> float | None:
    """The threshold of a trace's decisions: the given one, else the one that the decisions determine.

    Raises:
        UsageError: the given threshold cannot have led to the decisions.
    """
    limits = Limits.of(rows)
    if given is not None and not (math.isfinite(given) and limits.allow(given)):
        raise UsageError(
            f"the steps were not decided at the threshold {given:g}: {limits.told}",
            hint="leave `--threshold` out if it is not known",
        )
    return limits.settled if given is None else given


def _silent(_: str) -> None:
    pass


def read_rows(path: Path, tell: Callable[[str], None] = _silent) -> list[Row]:
    """The steps of a file, or of all runs in a folder.

    Rows that do not name their problem and run take them from the path ``PROBLEM/RUN.*``, as the reference lays files
    out. Files whose names differ only in the ending are one run.

    Args:
        path: pickles, printed lists, JSON arrays or JSON lines; gzipped or not.
        tell: called with a line about files that are left out.

    Raises:
        UsageError: a file cannot be read, or a row is no step or is there twice.
    """
    rows: list[Row] = []
    owners: dict[tuple[str, int], Path] = {}
    for found in _runs(path, tell) if path.is_dir() else [(path, _read_file(path))]:
        for run in {(str(row.problem_id), row.run) for row in found[1]}:
            if run in owners:
                raise UsageError(
                    f"`{owners[run]}` and `{found[0]}` both hold run {run[1]} of problem `{run[0]}`",
                    hint="import their folders one by one",
                )
            owners[run] = found[0]
        rows.extend(found[1])
    if not rows:
        raise UsageError(f"`{path}` holds no steps", hint=_WANTED)
    return rows


def _runs(folder: Path, tell: Callable[[str], None]) -> Iterator[tuple[Path, list[Row]]]:
    """Each run of a folder, from the best of its files."""
    endings = (*_PICKLES, *_TEXTS)
    files = [path for path in folder.rglob("*") if _ending(path) in endings and path.is_file()]
    files.sort(key=lambda path: (path.parent, _stem(path), endings.index(_ending(path))))
    others = []
    for (_, stem), same in groupby(files, key=lambda path: (path.parent, _stem(path))):
        failures = []
        for path in same:
            try:
                yield path, _read_file(path)
                break
            except UsageError as error:
                failures.append(error)
        else:
            if stem.isdecimal():
                raise failures[0]
            others.append(f"`{path}`")
            continue
        for failure in failures:
            tell(f"its twin is read instead: {failure}")
    if others:
        more = f" and {len(others) - SOME} more" if len(others) > SOME else ""
        tell(f"left out, because they hold no steps: {', '.join(others[:SOME])}{more}")


def _ending(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _stem(path: Path) -> str:
    name = path.name
    return Path(name[: -len(".gz")] if name.lower().endswith(".gz") else name).stem


def _read_file(path: Path) -> list[Row]:
    stem = _stem(path)
    own = {"problem_id": path.resolve().parent.name, "run": int(stem)} if stem.isdecimal() else {"problem_id": stem}
    values = _values(path)
    if len(values) > MOST_STEPS:
        raise UsageError(f"`{path}` holds more than {MOST_STEPS:,} steps")
    rows = [_row(own, value, f"{place} of `{path}`") for place, value in values]
    if not rows:
        raise UsageError(f"`{path}` holds no steps", hint=_WANTED)
    if sum(len(text) for row in rows for text in (row.text, row.draft, row.base) if text) > LARGEST:
        raise UsageError(f"the steps of `{path}` are longer than {LARGEST >> 20} million characters")
    seen = set()
    for row in rows:
        place = (str(row.problem_id), row.run, row.step)
        if place in seen:
            raise UsageError(f"step {row.step} of run {row.run} of problem `{row.problem_id}` is in `{path}` twice")
        seen.add(place)
    return rows


def _row(own: Mapping[str, object], value: object, where: str) -> Row:
    try:
        return Row.model_validate({**own, **value} if isinstance(value, dict) else value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "line"
        raise UsageError(f"{where} is no step: `{place}`: {first['msg'].lower()}", hint=_WANTED) from error


def _values(path: Path) -> list[tuple[str, object]]:
    """The values that a file lists, each with its position for messages."""
    data = read_bytes(path, LARGEST)
    if data.startswith(b"\x80") or _ending(path) in _PICKLES:
        try:
            return _listed(load(data), path)
        except ValueError as error:
            raise UsageError(f"cannot read `{path}`: {error}") from error
    text = decode(data, f"`{path}`", hint=_WANTED)
    if text.lstrip().startswith("["):
        return _listed(_json_or_printed(text, path), path)
    lines = enumerate(text.split("\n"), start=1)
    return [(f"line {number}", _json(line, f"line {number} of `{path}`")) for number, line in lines if line.strip()]


def _listed(value: object, path: Path) -> list[tuple[str, object]]:
    if not isinstance(value, list):
        raise UsageError(f"`{path}` is no list of steps", hint=_WANTED)
    return [(f"entry {number}", each) for number, each in enumerate(value, start=1)]


def _json(line: str, where: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON", hint=_WANTED) from error


def _json_or_printed(text: str, path: Path) -> object:
    """Read a list as JSON, or as Python prints it, with NumPy's numbers and NaN."""
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    try:
        with warnings.catch_warnings(action="ignore"):
            return _plain(ast.parse(text.strip(), mode="eval").body)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise UsageError(f"`{path}` is neither JSON nor a printed list", hint=_WANTED) from error


def _plain(node: ast.expr) -> object:
    match node:
        case ast.Constant(value):
            return value
        case ast.List(items) | ast.Tuple(items):
            return [_plain(item) for item in items]
        case ast.Dict(keys, values) if all(keys):
            return {_plain(key): _plain(value) for key, value in zip(keys, values, strict=True) if key}
        case ast.Name("nan" | "inf" as name):
            return float(name)
        case ast.UnaryOp(ast.USub(), operand) if isinstance(number := _plain(operand), int | float):
            return -number
        case ast.Call(ast.Attribute(ast.Name("np" | "numpy")), [argument], []):
            return _plain(argument)
    raise ValueError("more than plain data")


def read_problems(path: Path) -> dict[str, Problem]:
    """Questions and right answers by the ids that traces use.

    If no id is a number, problems are numbered from 0 on, as the reference numbers those of MATH and GPQA.

    Raises:
        UsageError: the file cannot be read or holds no problems.
    """
    try:
        problems = as_listed(path)
    except UsageError as error:
        hint = error.hint or "each problem needs `id`, `problem` and `answer`"
        raise UsageError(f"`{path}` is no file of problems: {error}", hint=hint) from error
    if not any(problem.id.isdecimal() for problem in problems):
        return {str(place): problem for place, problem in enumerate(problems)}
    known: dict[str, Problem] = {}
    for problem in problems:
        if known.setdefault(problem.id, problem) != problem:
            raise UsageError(f"`{path}` holds two problems `{problem.id}`", hint="give each an `id` of its own")
    return known


def grading_of(problems: Mapping[str, Problem]) -> Grading:
    """How the answers are compared: as letters if all are letters."""
    answers = [problem.answer for problem in problems.values() if problem.answer is not None]
    return "choice" if answers and all(answer in tuple(LETTERS) for answer in answers) else "math"


def convert(
    rows: Iterable[Row],
    problems: Mapping[str, Problem],
    *,
    threshold: float | None = None,
    started: datetime | None = None,
) -> Iterator[SolveRecord]:
    """The solves that a file of steps holds, one for each problem and run.

    An answer is graded here only if its text is the right one, or if there is none; a grader has to do the rest.

    Args:
        rows: the steps.
        problems: the problems by id; a missing problem is known by its id only.
        threshold: the run's threshold; what the decisions determine if not given.
        started: when the run began; now if not given.
    """
    begun = started or datetime.now(UTC)
    ordered = sorted(rows, key=lambda row: (str(row.problem_id), row.run, row.step))
    limits = Limits.of(ordered)
    decided = limits.settled if threshold is None else threshold
    for (problem_id, run), steps in groupby(ordered, key=lambda row: (str(row.problem_id), row.run)):
        problem = problems.get(problem_id, Problem(id=problem_id, question=f"Problem {problem_id}"))
        yield SolveRecord(
            problem=problem,
            mode=PROGRAM,
            repeat=run,
            started=begun,
            events=_events(problem, list(steps), decided, limits),
        )


def rule_of(rows: Iterable[Row]) -> ScoreRule:
    """The score that was compared with the threshold: the mean digit if a score is no whole number."""
    return "greedy" if all(row.score is None or row.score.is_integer() for row in rows) else "expected"


def _notices(rows: list[Row], threshold: float | None, limits: Limits, budget: int) -> Iterator[str]:
    bare = {rule_of([row]) for row in rows if row.score is not None and not row.digit_logprobs}
    if "greedy" in bare:
        yield "scores without log-probabilities are taken as certain"
    if "expected" in bare:
        yield "mean scores without log-probabilities are taken as lying between two neighbouring digits"
    if threshold is None and any(row.score is not None for row in rows):
        yield limits.told
    if budget != BUDGET:
        yield f"the budget is not known; what was used, {budget} tokens, stands for it"


def _budget(rows: list[Row]) -> int:
    """The thinking budget: the reference's default, unless the run shows another; then the tokens that were used."""
    used = sum(row.tokens for row in rows)
    over, short = used - rows[-1].tokens >= BUDGET, rows[-1].stop_reason == "budget" and used < BUDGET
    return used if over or short else BUDGET


def _events(problem: Problem, rows: list[Row], threshold: float | None, limits: Limits) -> list[Event]:
    clock = _Clock()
    budget = _budget(rows)
    clock.tell(
        SolveStarted(
            question=problem.question,
            program=PROGRAM,
            budget=budget,
            threshold=threshold,
            score_rule=rule_of(rows),
        )
    )
    for message in _notices(rows, threshold, limits, budget):
        clock.tell(Noticed(message=message))
    bar = limits.highest if threshold is None else threshold
    for row in rows:
        _add_step(clock, row, bar)
    reason = REASONS.get(rows[-1].stop_reason or "")
    if reason is None:
        clock.tell(SolveFailed(error="the trace ends without a known reason"))
        clock.tell(SolveEnded(outcome="failed"))
        return clock.events
    clock.tell(ThinkingEnded(reason=reason, steps=len(rows), tokens=sum(row.tokens for row in rows)))
    holder = next((row for row in reversed(rows) if boxed(row.text) is not None), None)
    if holder is None:
        clock.tell(SolveEnded(outcome="unanswered", correct=None if problem.answer is None else False))
        return clock.events
    answer = boxed(holder.text)
    author: Role = "small" if holder.base is None else "base"
    clock.tell(AnswerWritten(author=author, text=holder.text.strip(), answer=answer, truncated=False))
    correct = True if problem.answer is not None and is_same(answer, problem.answer) else None
    clock.tell(SolveEnded(outcome="answered", correct=correct))
    return clock.events


class _Clock:
    """Makes the events of calls that followed each other, with their times."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events: list[Event] = []

    def tell(self, event: Event) -> None:
        self.events.append(event.model_copy(update={"at": round(self.now, 6)}))

    def call(self, step: int, model: Role, kind: CallKind, tokens: int, seconds: float | None) -> None:
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


def _add_step(clock: _Clock, row: Row, bar: float | None) -> None:
    if row.draft is not None:
        tokens = row.draft_tokens or 0
        clock.call(row.step, "small", "draft", tokens, row.draft_s)
        closes = THINK_CLOSE in row.draft
        clock.tell(StepDrafted(step=row.step, text=_inside(row.draft), tokens=tokens, closes=closes))
    if (score := row.judged) is not None:
        clock.call(row.step, "base", "judge", 1, row.judge_s)
        accepted = row.base is None
        reaching = float(accepted) if bar is None else score.reaching(bar)
        clock.tell(
            StepScored(
                step=row.step,
                logprobs=score.logprobs,
                greedy=score.greedy,
                expected=score.expected,
                reaching=reaching,
                entropy=score.entropy,
                missing_mass=score.missing_mass,
                accepted=accepted,
            )
        )
    if row.base is not None:
        clock.call(row.step, "base", "regenerate", row.base_tokens or 0, row.base_s)
    clock.tell(
        StepTaken(
            step=row.step,
            author="small" if row.base is None else "base",
            text=_inside(row.text),
            tokens=row.tokens,
            closes=row.closes,
        )
    )


def _inside(text: str) -> str:
    return text.split(THINK_CLOSE, 1)[0].strip()
