"""Runs that the first version has stored: read, shown, decided again, reported and gone on with as by that version.

They lie in ``data/runs``, with the job of the one that is to be gone on with; ``told`` holds what the first version
printed of them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from specreason_sgl.cli import app as command_line
from specreason_sgl.embedded import BASE
from specreason_sgl.evaluation import report as reports
from specreason_sgl.events import UnknownEvent
from specreason_sgl.runs.index import summarise_run
from specreason_sgl.runs.redecide import redecide
from specreason_sgl.runs.store import SolveRecord, read_run
from specreason_sgl.tally import tally
from specreason_sgl.view.batch_sinks import solve_row
from specreason_sgl.view.compare import Side, compare_report
from specreason_sgl.view.export import as_markdown, as_svg
from specreason_sgl.view.html import as_html
from specreason_sgl.view.items import Look
from specreason_sgl.view.replay import Player, stretched
from specreason_sgl.view.state import SolveState

if TYPE_CHECKING:
    from specreason_sgl.servers.pairs import RunningPair

RUNS = Path(__file__).parent / "data" / "runs"
TOLD = RUNS / "told"
NAMES = ("first", "interrupted", "single", "imported")
WIDTH = 140
"""Of what the first version printed."""


def records() -> dict[str, SolveRecord]:
    """The first solve of each mode of each run, by run and mode."""
    found: dict[str, SolveRecord] = {}
    for name in NAMES:
        for record in read_run(RUNS / name).records:
            found.setdefault(f"{name}.{record.mode}", record)
    return found


RECORDS = records()


def told(name: str) -> Any:
    return json.loads((TOLD / name).read_text(encoding="utf-8"))


def title(record: SolveRecord) -> str:
    return f"{record.problem.id} · {record.mode}"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["specreason", *arguments])
    return command_line.main()


def fingerprints(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the runs in the current folder, with the job beside them."""
    shutil.copytree(RUNS, tmp_path / "shelf")
    monkeypatch.chdir(tmp_path / "shelf")
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    return tmp_path / "shelf"


@pytest.mark.parametrize("name", NAMES)
def test_every_line_and_event_is_read(name: str) -> None:
    run = read_run(RUNS / name)

    assert not run.remarks
    assert run.config is not None
    assert len(run.records) == len((RUNS / name / "solves.jsonl").read_bytes().splitlines())
    assert not [event for record in run.records for event in record.events if isinstance(event, UnknownEvent)]


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_an_event_said_it_still_says(name: str) -> None:
    for line in (RUNS / name / "solves.jsonl").read_text(encoding="utf-8").splitlines():
        then = json.loads(line)["events"]
        now = [json.loads(event.model_dump_json()) for event in SolveRecord.model_validate_json(line).events]

        assert [{field: event[field] for field in stored} for stored, event in zip(then, now, strict=True)] == then


@pytest.mark.parametrize("name", NAMES)
def test_a_list_counts_what_it_counted(name: str) -> None:
    then, summary = told("list.json")[name], summarise_run(RUNS / name)

    assert (summary.status, summary.solves, summary.remarks) == (then["status"], then["solves"], then["remarks"])
    assert {mode: (c.solves, c.right, c.graded, c.failed, c.accuracy) for mode, c in summary.modes.items()} == {
        mode: tuple(row[field] for field in ("solves", "right", "graded", "failed", "accuracy"))
        for mode, row in then["modes"].items()
    }


@pytest.mark.parametrize("key", RECORDS)
def test_a_solve_comes_to_what_it_came_to(key: str) -> None:
    row, then = solve_row(RECORDS[key]), told("solves.json")[key]

    assert {field: row[field] for field in then} == then


@pytest.mark.parametrize("key", RECORDS)
def test_a_solve_reads_line_by_line_as_it_did(
    key: str, shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = RECORDS[key]
    run = key.split(".", maxsplit=1)[0]

    assert (
        call(monkeypatch, "replay", run, "--runs", str(shelf), "--mode", record.mode, "--problem", record.problem.id)
        == 0
    )
    assert capsys.readouterr().out == (TOLD / f"{key}.plain.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("key", RECORDS)
def test_a_solve_is_played_to_the_end(key: str) -> None:
    player = Player(stretched(RECORDS[key].events), paused=True)
    while not player.done:
        player.step()

    assert player.state.tally == tally(list(RECORDS[key].events))
    assert [step.text for step in player.state.steps] == [
        step.text for step in SolveState.of(RECORDS[key].events).steps
    ]


@pytest.mark.parametrize("key", RECORDS)
def test_a_solve_is_exported_as_it_was(key: str) -> None:
    record = RECORDS[key]
    state = SolveState.of(record.events)

    assert as_markdown(state, title(record)) == (TOLD / f"{key}.md").read_text(encoding="utf-8")
    for write in (as_html, as_svg):
        assert record.problem.question.split(".")[0].replace(" ", "") in write(state, title(record)).replace(
            "&#160;", ""
        ).replace(" ", "")


@pytest.mark.parametrize("key", [key for key in RECORDS if told("redecided.json")[key] is not None])
def test_other_thresholds_decide_as_they_did(key: str) -> None:
    record = RECORDS[key]
    again = redecide(record.events, 9, "expected")

    assert json.loads(json.dumps(again.as_row())) == told("redecided.json")[key]
    assert as_markdown(SolveState.of(record.events), title(record), again) == (TOLD / f"{key}.redecided.md").read_text(
        encoding="utf-8"
    )


def test_two_solves_stand_side_by_side_as_they_did() -> None:
    left, right = (
        Side(f"{title(RECORDS[f'first.{mode}'])} · first", SolveState.of(RECORDS[f"first.{mode}"].events))
        for mode in ("base", "small")
    )
    page = compare_report(left, right, Look(width=WIDTH, colour=False)).plain

    assert [row.rstrip() for row in page.split("\n")] == (TOLD / "compare.txt").read_text(encoding="utf-8").splitlines()


def test_runs_differ_where_they_did(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "diff", "first", "interrupted", "--runs", str(shelf), "--json") == 1
    assert json.loads(capsys.readouterr().out) == told("diff.json")
    assert call(monkeypatch, "diff", "first", "first", "--runs", str(shelf)) == 0


@pytest.mark.parametrize("name", ["first", "interrupted"])
def test_a_report_gives_the_figures_that_it_gave(name: str) -> None:
    def holds(then: Any, now: Any, place: str) -> None:
        if isinstance(then, dict):
            for field, value in then.items():
                holds(value, now[field], f"{place}.{field}")
        elif isinstance(then, list):
            assert len(then) == len(now), place
            for number, (one, other) in enumerate(zip(then, now, strict=True)):
                holds(one, other, f"{place}[{number}]")
        else:
            assert now == (pytest.approx(then) if isinstance(then, float) else then), place

    holds(told(f"{name}.report.json"), reports.as_json(reports.report_run(read_run(RUNS / name))), name)


def test_reading_rewrites_nothing(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fingerprints(shelf)
    runs = ("--runs", str(shelf))
    one = ("--problem", "story-4100", "--mode", "specreason-t7")

    assert call(monkeypatch, "list", *runs) == 0
    assert call(monkeypatch, "report", "first", *runs) == 0
    assert call(monkeypatch, "replay", "first", *runs, *one, "--threshold", "5") == 0
    assert call(monkeypatch, "replay", "first", *runs, *one, "--json") == 0
    assert call(monkeypatch, "replay", "first", *runs, *one, "--compare", "first") == 0
    assert call(monkeypatch, "replay", "single", *runs, "--export", str(shelf.parent / "single.svg")) == 0
    assert call(monkeypatch, "diff", "first", "interrupted", *runs) == 1
    capsys.readouterr()
    assert fingerprints(shelf) == before


@pytest.mark.server
def test_a_run_that_was_interrupted_is_gone_on_with_and_finished(
    shelf: Path, servers: RunningPair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = shelf / "interrupted" / "config.json"
    begun = config.read_text(encoding="utf-8")
    before = (shelf / "interrupted" / "solves.jsonl").read_bytes()
    options = ("--base", servers.base.url, "--small", servers.small.url, "--api-key", str(servers.base.api_key))
    command = ("eval", "interrupted.toml", "--out", "interrupted", "--resume", "--display", "none", *options)

    assert call(monkeypatch, *command) == 2
    assert '`models.base` was "embedded/base" and is "tales/base"' in capsys.readouterr().err
    # As if it had been begun with the models that the package has today.
    config.write_text(
        begun.replace("/home/somebody/specreason_sgl/specreason_sgl/pair", str(BASE.parent)), encoding="utf-8"
    )
    assert call(monkeypatch, *command) == 0
    err = capsys.readouterr().err
    run = read_run(shelf / "interrupted")
    assert "note: programs that come with the package have changed since the run was begun: " in err
    assert (shelf / "interrupted" / "solves.jsonl").read_bytes().startswith(before)
    assert run.status is not None
    assert run.status.status == "success"
    assert len({record.key for record in run.records}) == len(run.records) == 12
    assert all(record.tally.outcome == "answered" for record in run.records)
    assert call(monkeypatch, *command) == 0
    assert "have changed since" not in capsys.readouterr().err
