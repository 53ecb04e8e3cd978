"""Stored solves and what was written in them as plain rows, for data frames, CSV and Parquet.

Parquet holds every text as it is. In CSV, a text that a spreadsheet could take for a formula has an apostrophe in front
of it, and so has one that begins with an apostrophe: taking one away from each that begins with it gives the text.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.grading import outcome
from specreason_sgl.events import AnswerWritten, Event, StepDrafted, StepScored, StepsCut, StepTaken, TextAdded
from specreason_sgl.files import there_already
from specreason_sgl.runs.store import SolveRecord
from specreason_sgl.text.prompts import whole

Kind = Literal["draft", "step", "added", "answer"]

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")  # noqa: RUF001 - read as the narrow ones
"""What a text begins with that a spreadsheet could take for a formula."""


class SolveRow(NamedTuple):
    """A solve."""

    problem: str
    mode: str
    repeat: int
    answer: str | None
    correct: bool | None
    outcome: str | None
    """``answered``, ``unanswered`` or ``failed``."""
    seconds: float
    """The latency, without what was lost to failing servers."""
    acceptance: float | None
    thinking_tokens: int
    base_tokens: int
    small_tokens: int
    wasted_tokens: int
    steps: int
    ended: str | None
    """Why the thinking ended."""
    error: str | None
    run: str
    """The name of the run's folder."""
    question: str
    right_answer: str | None
    graded: str | None
    """``right``, ``wrong``, or why an answer is neither; none where the right answer is not known."""
    seed: int | None
    started: datetime
    lost_s: float
    judged: int
    accepted: int
    drafted_tokens: int
    other_tokens: int
    """Tokens of all models but base and small."""
    pair: str | None
    """The name of the pair that solved it, where the run had several."""


class TextRow(NamedTuple):
    """Something that was written in a solve: a draft, a step, text added between steps, or an answer."""

    run: str
    problem: str
    mode: str
    repeat: int
    chain: int
    step: int | None
    """The number of the step; of added text, how many steps are before it; none for an answer."""
    kind: str
    attempt: int | None
    """Which of several drafts of a step it is, from 0."""
    author: str
    text: str
    tokens: int | None
    closes: bool | None
    """Whether it ends the thinking."""
    at: float
    """Seconds since the solve began."""
    accepted: bool | None
    """Whether a draft was accepted."""
    greedy: int | None
    """The judge's most probable digit."""
    expected: float | None
    reaching: float | None
    entropy: float | None
    missing_mass: float | None
    value: float | None
    """The number by which the program chose among drafts, where that is not the score."""
    cut: str | None
    """Why it was taken back; none where it stands."""


def solve_row(record: SolveRecord, run: str = "") -> SolveRow:
    """A solve as a row."""
    totals = record.tally
    generated = totals.generated
    return SolveRow(
        problem=record.problem.id,
        mode=record.mode,
        repeat=record.repeat,
        answer=totals.answer,
        correct=totals.correct,
        outcome=totals.outcome,
        seconds=totals.latency,
        acceptance=totals.acceptance,
        thinking_tokens=totals.thinking_tokens,
        base_tokens=generated["base"],
        small_tokens=generated["small"],
        wasted_tokens=totals.wasted_tokens,
        steps=sum(totals.steps.values()),
        ended=totals.ended,
        error=totals.error,
        run=run,
        question=record.problem.question,
        right_answer=record.problem.answer,
        graded=outcome(record),
        seed=record.seed,
        started=record.started,
        lost_s=totals.lost_s,
        judged=totals.judged,
        accepted=totals.accepted,
        drafted_tokens=totals.drafted_tokens,
        other_tokens=sum(many for role, many in generated.items() if role not in {"base", "small"}),
        pair=record.pair,
    )


def text_rows(record: SolveRecord, run: str = "") -> list[TextRow]:  # noqa: C901 - one case for each event
    """Everything that was written in a solve, in the order in which it was."""
    made: list[TextRow] = []
    drafts: dict[tuple[int, int, int], int] = {}
    """The places of the newest drafts, by chain, step and attempt."""
    standing: dict[int, list[int]] = defaultdict(list)
    """The places of what stands in each chain, the last one last."""

    def add(event: Event, kind: Kind, author: str, text: str, **more: Any) -> None:
        if kind in {"step", "added"}:
            standing[event.chain].append(len(made))
        told: dict[str, Any] = {"step": None, "attempt": None, "tokens": None, "closes": None, **_UNSCORED, **more}
        made.append(
            TextRow(
                run=run,
                problem=record.problem.id,
                mode=record.mode,
                repeat=record.repeat,
                chain=event.chain,
                kind=kind,
                author=author,
                text=text,
                at=event.at,
                cut=None,
                **told,
            )
        )

    for event in record.events:
        match event:
            case StepDrafted(step=step, attempt=attempt, author=author, text=text, tokens=tokens, closes=closes):
                drafts[event.chain, step, attempt] = len(made)
                add(event, "draft", author, text, step=step, attempt=attempt, tokens=tokens, closes=closes)
            case StepScored():
                key = event.chain, event.step, event.attempt
                if key not in drafts:  # of an imported run that tells scores alone
                    drafts[key] = len(made)
                    add(event, "draft", "small", "", step=event.step, attempt=event.attempt)
                scored = {name: getattr(event, name) for name in _UNSCORED}
                made[drafts[key]] = made[drafts[key]]._replace(**scored)
            case StepTaken(step=step, author=author, text=text, tokens=tokens, closes=closes):
                add(event, "step", author, text, step=step, tokens=tokens, closes=closes)
            case TextAdded(step=step, author=author, text=text, tokens=tokens):
                add(event, "added", author, text, step=step, tokens=tokens)
            case StepsCut(keep=keep, reason=reason):
                stands = standing[event.chain]
                while stands and (made[stands[-1]].step or 0) >= keep:
                    place = stands.pop()
                    made[place] = made[place]._replace(cut=reason)
            case AnswerWritten(author=author, text=text):
                add(event, "answer", author, text)
            case _:
                pass
    return made


_UNSCORED: Mapping[str, None] = dict.fromkeys(
    ("accepted", "greedy", "expected", "reaching", "entropy", "missing_mass", "value")
)
"""The fields of a draft that its score fills in."""


def as_csv(kind: type[NamedTuple], some: Iterable[tuple[Any, ...]]) -> bytes:
    """Rows as CSV with a header, in UTF-8."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(kind._fields)
    writer.writerows(map(_safe, some))
    return text.getvalue().encode()


def _safe(row: Iterable[Any]) -> Iterator[Any]:
    for value in row:
        if isinstance(value, str):
            shown = whole(value)
            yield f"'{shown}" if shown.startswith(_FORMULAS) else shown
        else:
            yield value.isoformat() if isinstance(value, datetime) else value


def as_parquet(kind: type[NamedTuple], some: Iterable[tuple[Any, ...]]) -> bytes:
    """Rows as Parquet; a column's type does not depend on what is in it.

    Raises:
        UsageError: a number is too large for Parquet.
    """
    import pyarrow as pa
    from pyarrow import parquet

    types: dict[type, Any] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    types[datetime] = pa.timestamp("us", tz="UTC")
    schema = pa.schema([(name, types[_plain(hint)]) for name, hint in get_type_hints(kind).items()])
    columns = list(zip(*some, strict=True)) or [()] * len(schema)
    arrays = []
    for values, column in zip(columns, schema, strict=True):
        held = [whole(value) if isinstance(value, str) else value for value in values]
        try:
            arrays.append(pa.array(held, column.type))
        except (pa.ArrowException, OverflowError) as error:
            raise UsageError(f"Parquet cannot hold what is stored as `{column.name}`: {error}") from error
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), sink)
    return bytes(sink.getvalue())


def _plain(hint: Any) -> Any:
    """A type without ``None``."""
    return next((each for each in get_args(hint) if each is not type(None)), hint)


FORMATS: Mapping[str, Callable[[type[NamedTuple], Iterable[tuple[Any, ...]]], bytes]] = {
    "csv": as_csv,
    "parquet": as_parquet,
}


def export(folder: Path, runs: Sequence[tuple[str, Sequence[SolveRecord]]]) -> list[Path]:
    """Write solves, and all that was written in them, as CSV and as Parquet; returns the files.

    Args:
        folder: where to; it is made if it is not there. No file is written over.
        runs: the records of each run, with the run's name.

    Raises:
        UsageError: pyarrow is not installed, one of the files is there already, or they cannot be written.
    """
    if find_spec("pyarrow") is None:
        raise UsageError("exports need pyarrow", hint="`pip install 'specreason_sgl[frames]'`")
    solves = [solve_row(record, name) for name, records in runs for record in records]
    texts = [row for name, records in runs for record in records for row in text_rows(record, name)]
    tables: dict[str, tuple[type[NamedTuple], Sequence[tuple[Any, ...]]]] = {
        "solves": (SolveRow, solves),
        "steps": (TextRow, texts),
    }
    files = {
        folder / f"{name}.{ending}": write(*table)
        for name, table in tables.items()
        for ending, write in FORMATS.items()
    }
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            with path.open("xb") as file:
                made.append(path)
                file.write(content)
    except OSError as error:
        for path in made:
            with suppress(OSError):
                path.unlink()
        if isinstance(error, FileExistsError):
            raise there_already(error.filename, "folder") from error
        raise UsageError(f"cannot write into `{folder}`: {error.strerror or error}") from error
    return made
