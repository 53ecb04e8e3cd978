"""Stored solves as plain rows: what a row tells, and that every text comes back from CSV and Parquet."""

from __future__ import annotations

import csv
import io
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from specreason_sgl.cli import app as command_line
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.rows import SolveRow, TextRow, as_csv, as_parquet, export, solve_row, text_rows
from specreason_sgl.events import (
    AnswerWritten,
    ChainOpened,
    Event,
    SolveEnded,
    StepDrafted,
    StepScored,
    StepsCut,
    StepTaken,
    TextAdded,
    UnknownEvent,
)
from specreason_sgl.runs.store import Problem, SolveRecord, read_run
from specreason_sgl.text.prompts import whole

RUNS = Path(__file__).parent / "data" / "runs"
FILES = ["solves.csv", "solves.parquet", "steps.csv", "steps.parquet"]
HOSTILE = '=HYPERLINK("https://example.org"),\r\n"quoted"\x00\x1b[2J\u202e\ud800 ends'


def record(*events: Event, question: str = "?", **fields: Any) -> SolveRecord:
    problem = Problem(id="p", question=question, answer="1")
    return SolveRecord(
        problem=problem, mode="m", started=datetime(2026, 1, 2, tzinfo=UTC), events=list(events), **fields
    )


def written(text: str) -> SolveRecord:
    return record(
        StepTaken(at=1, step=0, author="base", text=text, tokens=3),
        AnswerWritten(at=2, author="base", text=text, answer=text, truncated=False),
        SolveEnded(at=2, outcome="answered", correct=True),
        question=text,
    )


def scored(step: int, attempt: int, *, accepted: bool, value: float | None = None) -> StepScored:
    return StepScored(
        step=step, attempt=attempt, value=value, logprobs=(0.0,) * 10, greedy=7, expected=6.5, reaching=0.5, entropy=1,
        missing_mass=0, accepted=accepted,
    )  # fmt: skip


def read_csv(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def read_parquet(content: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(io.BytesIO(content)).to_pylist()
    return rows


@given(st.text())
def test_every_text_comes_back_from_parquet_as_it_was_and_from_csv_without_an_apostrophe(text: str) -> None:
    rows = text_rows(written(text))

    assert [row["text"] for row in read_parquet(as_parquet(TextRow, rows))] == [text, text]
    assert [row["text"].removeprefix("'") for row in read_csv(as_csv(TextRow, rows))] == [text, text]


@given(st.text(st.sampled_from("=+-@\t\r\n'＝ 1"), max_size=4))  # noqa: RUF001
def test_no_text_in_csv_begins_as_a_formula_does(text: str) -> None:
    cells = [row["question"] for row in read_csv(as_csv(SolveRow, [solve_row(written(text))]))]

    assert not cells[0].startswith(tuple("=+-@\t\r\n＝＋－＠"))  # noqa: RUF001


def test_halves_of_characters_become_marks_and_numbers_stay_numbers() -> None:
    row = solve_row(written(HOSTILE))._replace(seconds=-1.5)
    (from_csv,), (from_parquet,) = read_csv(as_csv(SolveRow, [row])), read_parquet(as_parquet(SolveRow, [row]))

    assert from_parquet["question"] == whole(HOSTILE)
    assert from_csv["question"] == f"'{whole(HOSTILE)}"
    assert (from_csv["seconds"], from_parquet["seconds"]) == ("-1.5", -1.5)
    assert (from_csv["correct"], from_csv["acceptance"]) == ("True", "")
    assert (from_parquet["correct"], from_parquet["acceptance"]) == (True, None)
    assert from_parquet["started"] == datetime(2026, 1, 2, tzinfo=UTC)
    assert from_csv["started"] == "2026-01-02T00:00:00+00:00"


def test_columns_have_their_types_even_where_nothing_is_in_them() -> None:
    full, empty = (
        parquet.read_table(io.BytesIO(as_parquet(SolveRow, rows))).schema for rows in ([solve_row(written("x"))], [])
    )

    assert full.equals(empty)
    assert full.names == list(SolveRow._fields)
    assert read_csv(as_csv(TextRow, [])) == []


def test_a_number_that_parquet_cannot_hold_is_told_in_a_line() -> None:
    with pytest.raises(UsageError, match="Parquet cannot hold what is stored as `seed`: ") as refused:
        as_parquet(SolveRow, [solve_row(written("x"))._replace(seed=1 << 70)])
    assert "\n" not in str(refused.value)


def test_all_that_was_written_is_a_row_with_what_became_of_it() -> None:
    rows = text_rows(
        record(
            StepDrafted(at=1, step=0, attempt=0, text="a", tokens=1, closes=False),
            StepDrafted(at=1, step=0, attempt=1, author="base", text="b", tokens=2, closes=False),
            scored(0, 0, accepted=False, value=0.25),
            scored(0, 1, accepted=True),
            StepTaken(at=2, step=0, author="base", text="b", tokens=2),
            TextAdded(at=3, step=1, author="hint", text="(short)"),
            StepTaken(at=4, step=1, author="small", text="c", tokens=3),
            ChainOpened(chain=1, parent=0, steps=2),
            StepsCut(at=5, keep=1, reason="pruned"),
            StepTaken(at=6, step=1, chain=1, author="small", text="d", tokens=3, closes=True),
            StepTaken(at=6, step=1, author="base", text="e", tokens=3),
            UnknownEvent(type="of_tomorrow"),
            AnswerWritten(at=7, author="vote", text="4", answer="4", truncated=False),
        )
    )
    told = [(row.kind, row.chain, row.step, row.attempt, row.author, row.text, row.accepted, row.cut) for row in rows]

    assert told == [
        ("draft", 0, 0, 0, "small", "a", False, None),
        ("draft", 0, 0, 1, "base", "b", True, None),
        ("step", 0, 0, None, "base", "b", None, None),
        ("added", 0, 1, None, "hint", "(short)", None, "pruned"),
        ("step", 0, 1, None, "small", "c", None, "pruned"),
        ("step", 1, 1, None, "small", "d", None, None),
        ("step", 0, 1, None, "base", "e", None, None),
        ("answer", 0, None, None, "vote", "4", None, None),
    ]
    assert [(row.value, row.expected) for row in rows[:3]] == [(0.25, 6.5), (None, 6.5), (None, None)]


def test_a_score_without_a_draft_is_kept() -> None:
    assert [(row.kind, row.text, row.greedy) for row in text_rows(record(scored(0, 0, accepted=True)))] == [
        ("draft", "", 7)
    ]


@pytest.mark.parametrize("name", ["first", "interrupted", "single", "imported"])
def test_runs_of_the_first_version_are_exported_whole(name: str, tmp_path: Path) -> None:
    records = read_run(RUNS / name).records
    assert [path.name for path in export(tmp_path / "out", [(name, records)])] == FILES
    solves, steps = (read_parquet((tmp_path / "out" / f"{each}.parquet").read_bytes()) for each in ("solves", "steps"))

    assert [(row["run"], row["mode"], row["problem"]) for row in solves] == [
        (name, each.mode, each.problem.id) for each in records
    ]
    kept = [(event.author, event.text) for each in records for event in each.events if isinstance(event, StepTaken)]
    assert [(row["author"], row["text"]) for row in steps if row["kind"] == "step"] == kept
    for table, rows in (("solves", solves), ("steps", steps)):
        assert len(read_csv((tmp_path / "out" / f"{table}.csv").read_bytes())) == len(rows)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["specreason", "report", "--runs", str(RUNS), *arguments])
    return command_line.main()


def test_several_runs_are_exported_as_one_table_that_tells_them_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    assert call(monkeypatch, "single", "imported", "--json", "--export", str(out)) == 0
    assert capsys.readouterr().err == "".join(f"wrote `{out / name}`\n" for name in FILES)
    assert {row["run"] for row in read_csv((out / "solves.csv").read_bytes())} == {"single", "imported"}


@pytest.mark.parametrize("there", FILES)
def test_nothing_is_written_over_and_nothing_is_left_half(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / there).write_text("mine")

    assert call(monkeypatch, "single", "--json", "--export", str(tmp_path)) == 2
    assert capsys.readouterr().err == (
        f"error: `{tmp_path / there}` is there already\n"
        "hint: nothing is written over: choose another folder, or take this away\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_an_export_that_cannot_be_written_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")

    assert call(monkeypatch, "single", "--json", "--export", str(tmp_path / "file" / "below")) == 2
    assert capsys.readouterr().err == f"error: cannot write into `{tmp_path / 'file' / 'below'}`: Not a directory\n"


def test_without_pyarrow_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specreason_sgl.evaluation.rows.find_spec", lambda _: None)

    with pytest.raises(UsageError, match="exports need pyarrow") as refused:
        export(tmp_path, [])
    assert refused.value.hint == "`pip install 'specreason_sgl[frames]'`"
