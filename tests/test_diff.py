"""Comparing two runs: what counts as the same, where they part, and what a header promises."""

from __future__ import annotations

import json
import os
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from faults import story_pair

from specreason_sgl.cli import app
from specreason_sgl.embedded.stories import story
from specreason_sgl.events import (
    AnswerWritten,
    CallMade,
    Event,
    Noticed,
    SolveEnded,
    StepDrafted,
    StepScored,
    StepTaken,
    ThinkingEnded,
)
from specreason_sgl.lang import loading
from specreason_sgl.runs.diff import diff_runs, first_divergence, repeatability
from specreason_sgl.runs.store import Problem, RunConfig, SolveRecord, read_run, writing

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def scored(step: int = 0, top: float = -0.1) -> StepScored:
    return StepScored(
        step=step, logprobs=(*[-5.0] * 9, top), greedy=9, expected=8.5, reaching=1, entropy=0, missing_mass=0,
        accepted=True,
    )  # fmt: skip


EVENTS: list[Event] = [
    StepDrafted(step=0, text="2 + 2", tokens=3, closes=False),
    scored(),
    StepTaken(step=0, author="small", text="2 + 2", tokens=3),
    ThinkingEnded(reason="closed", steps=1, tokens=3),
    AnswerWritten(author="base", text="4", answer="4", truncated=False),
    SolveEnded(outcome="answered", correct=True),
]


def record(events: list[Event] | None = None, **fields: object) -> SolveRecord:
    row = {"problem": Problem(id="p", question="q"), "mode": "m", "started": NOW, "events": events or EVENTS}
    return SolveRecord.model_validate(row | fields)


def test_times_retries_and_notices_make_no_difference() -> None:
    call = CallMade(model="small", kind="draft", prompt_tokens=1, cached_tokens=0, generated_tokens=3, wall_s=1,
                    finish="stop", retries=2, lost_s=3)  # fmt: skip
    late = [event.model_copy(update={"at": 9.0}) for event in EVENTS]
    other = record([Noticed(message="sent again"), call, *late], started=NOW + timedelta(1), seed=1)

    assert first_divergence(record(), other) is None


@pytest.mark.parametrize(
    ("place", "event", "what"),
    [
        (0, StepDrafted(step=0, text="2 + 3", tokens=3, closes=False), "draft of step 0"),
        (1, scored(top=-0.2), "score of step 0"),
        (2, StepTaken(step=0, author="base", text="2 + 2", tokens=3), "step 0"),
        (3, ThinkingEnded(reason="budget", steps=1, tokens=3), "the end of thinking"),
        (4, AnswerWritten(author="base", text="5", answer="5", truncated=False), "answer"),
        (5, SolveEnded(outcome="unanswered"), "outcome"),
    ],
)
def test_the_first_difference_is_named(place: int, event: Event, what: str) -> None:
    changed = record([*EVENTS[:place], event, SolveEnded(outcome="failed")])
    found = first_divergence(record(), changed)

    assert found is not None
    assert found.what == what
    assert found.left != found.right


def test_a_trace_that_ends_early_parts_there() -> None:
    found = first_divergence(record(EVENTS[:2]), record(EVENTS))

    assert found is not None
    assert (found.what, found.left) == ("step 0", "nothing")


def test_solves_are_compared_by_what_they_solve_and_missing_ones_told() -> None:
    one, other = Problem(id="1", question="one"), Problem(id="2", question="two")
    left = [record(problem=one), record(problem=other), record(problem=one, repeat=1)]
    right = [record(problem=one.model_copy(update={"id": "renamed"})), record(problem=other, mode="n")]
    found = diff_runs(left, right)

    assert found.same == 1
    assert (found.only_left, found.only_right) == (["2 m #0", "1 m #1"], ["2 n #0"])
    assert not found.is_same


def expected(**more: Any) -> str:
    """What a header says of one solve at a time, at temperature 0, with a stock program, unless told otherwise."""
    plain = {"temperature": 0.0, "concurrency": 1, "deterministic": False}
    return repeatability(**{**plain, "overlapping": False, "timed": False, "stock": True, **more})


@pytest.mark.parametrize(
    ("temperature", "concurrency", "deterministic", "words"),
    [
        (0.0, 1, False, "repeatable at temperature 0"),
        (0.6, 1, False, "not repeatable: at temperature 0.6"),
        (0.0, 4, False, "not surely repeatable: calls share batches"),
        (0.0, None, False, "not surely repeatable: calls share batches"),
        (0.6, 64, True, "repeatable: the servers run with deterministic inference"),
    ],
)
def test_the_header_says_what_can_be_expected(
    temperature: float, concurrency: int | None, deterministic: bool, words: str
) -> None:
    said = expected(temperature=temperature, concurrency=concurrency, deterministic=deterministic)

    assert said.startswith(words)


def test_the_header_knows_what_programs_and_settings_do_to_it() -> None:
    assert "last digits of scores" in expected(overlapping=loading.load("lookahead").overlaps)
    assert expected(overlapping=loading.load("specreason").overlaps) == expected()
    assert expected(deterministic=True, timed=True).startswith("not repeatable: with back-off")


@pytest.mark.parametrize(
    ("own", "words"), [(False, "repeatable at temperature 0"), (True, "as repeatable as the program")]
)
def test_the_header_does_not_vouch_for_programs_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool, words: str
) -> None:
    told = story(1)
    program = loading.find("specreason")
    if own:
        program = Path(shutil.copy(program, tmp_path))
    job = tmp_path / "job.toml"
    job.write_text(
        'dataset = { name = "stories", limit = 1, seed = 1 }\nconcurrency = 1\nflush_cache = false\n'
        f"settings = {{ temperature = 0.0, top_p = 1.0 }}\nmodes = [{{ program = {json.dumps(str(program))} }}]\n"
    )
    commands = (["run", told.question, "--program", os.path.relpath(program), "--temperature", "0"], ["eval", str(job)])

    with story_pair([told]) as (_, (base, small), _):
        for command in commands:
            run = tmp_path / command[0]
            addresses = ["--base", base.url, "--small", small.url]
            monkeypatch.setattr(
                sys, "argv", ["specreason", *command, *addresses, "--display", "none", "--out", str(run)]
            )
            assert app.main() == 0

            config = read_run(run).config
            assert config
            assert config.repeatability
            assert config.repeatability.startswith(words)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    config = RunConfig(created=NOW, program="m", pair="q", repeatability="repeatable, perhaps")
    other = record([*EVENTS[:4], AnswerWritten(author="base", text="5", answer="5", truncated=False)])
    for name, stored in (("a", record()), ("b", record()), ("c", other)):
        with writing(tmp_path / name, config) as run:
            run.append(stored)

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["specreason", "diff", "--runs", str(tmp_path), *arguments])
        return app.main(), capsys.readouterr().out

    code, same = call("a", "b")
    assert (code, same.splitlines()[-1]) == (0, "1 of 1 solves are the same")
    assert "repeatable, perhaps" in same
    code, told = call("a", "c")
    assert code == 1
    last = "0 of 1 solves are the same, 0 have the same answer"
    assert told.splitlines()[2:] == ["p m #0: answer", "  left   4", "  right  5", last]
    code, told = call("a", "c", "--json")
    row = json.loads(told)
    assert (code, row["is_same"], row["different"][0]["what"]) == (1, False, "answer")
    assert row["left"]["repeatability"] == "repeatable, perhaps"
    assert call("a", "nowhere")[0] == 2
