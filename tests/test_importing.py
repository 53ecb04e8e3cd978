import json
from pathlib import Path
from typing import Any

import pytest

from specreason_sgl.errors import UsageError
from specreason_sgl.events import CallMade, Noticed, SolveStarted, StepDrafted, StepScored, StepTaken
from specreason_sgl.importing import convert, read_problems, read_rows
from specreason_sgl.scoring import LEAST
from specreason_sgl.store import Problem, SolveRecord

SHARED = Path(__file__).parents[2] / "shared" / "data"
REAL, AIME = SHARED / "qwq32b_r1-1.5b_aime60_steps.jsonl", SHARED / "aime24.jsonl"
needs_real = pytest.mark.skipif(not REAL.exists(), reason="the real traces are not beside this checkout")


def row(step: int, **more: Any) -> dict[str, Any]:
    return {
        "problem_id": 1,
        "run": 0,
        "step": step,
        "text": "Two and two is four.",
        "draft": "Two and two is four.",
        "base": None,
        "score": 8,
        "draft_tokens": 6,
        "base_tokens": None,
        "draft_s": 0.5,
        "base_s": None,
        "judge_s": 0.1,
        "stop_reason": None,
        **more,
    }


ROWS = [
    row(0, digit_logprobs={"8": -0.2, "3": -2.0}),
    row(
        1,
        text="So 4.",
        draft="So 5.",
        base="So 4.",
        score=3,
        base_tokens=4,
        base_s=1.0,
        digit_logprobs={"3": -0.1, "8": -3.0},
    ),
    row(2, text="\\boxed{4}\n", draft="\\boxed{4}\n</think>", stop_reason="finished"),
]


def imported(
    rows: list[dict[str, Any]], tmp_path: Path, problems: dict[str, Problem] | None = None
) -> list[SolveRecord]:
    file = tmp_path / "steps.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    return list(convert(read_rows(file), problems or {}))


def test_each_step_becomes_its_events_with_its_times(tmp_path: Path) -> None:
    (record,) = imported(ROWS, tmp_path, {"1": Problem(id="1", question="2 + 2?", answer="4")})
    tally = record.tally

    assert record.problem.question == "2 + 2?"
    assert (tally.judged, tally.accepted, dict(tally.steps)) == (3, 2, {"small": 2, "base": 1})
    assert (tally.answer, tally.correct, tally.ended) == ("4", True, "closed")
    assert tally.elapsed == pytest.approx(0.5 * 3 + 0.1 * 3 + 1.0)
    assert (tally.kept["small"], tally.kept["base"], tally.wasted_tokens) == (12, 4, 6)
    closing = [event for event in record.events if isinstance(event, StepTaken) and event.closes]
    assert [event.text for event in closing] == ["\\boxed{4}"]


def test_a_digit_that_was_not_reported_has_no_mass_and_a_bare_score_is_certain(tmp_path: Path) -> None:
    (record,) = imported(ROWS, tmp_path)
    scores = [event for event in record.events if isinstance(event, StepScored)]

    assert scores[0].logprobs[0] == LEAST
    assert scores[0].greedy == 8
    assert scores[2].expected == 8.0
    assert any(isinstance(event, Noticed) for event in record.events)


def test_without_the_problems_nothing_is_known_to_be_right(tmp_path: Path) -> None:
    (record,) = imported(ROWS, tmp_path)

    assert record.tally.correct is None
    assert next(event.question for event in record.events if isinstance(event, SolveStarted)) == "Problem 1"


def test_a_step_that_only_the_base_model_wrote_has_no_draft(tmp_path: Path) -> None:
    rows = [row(0, draft=None, score=None, base="Go.", base_tokens=2, base_s=0.3, text="Go.", stop_reason="budget")]
    (record,) = imported(rows, tmp_path)

    assert not [event for event in record.events if isinstance(event, StepDrafted | StepScored)]
    assert [event.kind for event in record.events if isinstance(event, CallMade)] == ["regenerate"]
    assert (record.tally.ended, record.tally.outcome) == ("budget", "unanswered")


def test_a_trace_that_just_stops_is_a_failed_solve(tmp_path: Path) -> None:
    (record,) = imported([row(0)], tmp_path)

    assert record.tally.outcome == "failed"
    assert record.tally.error == "the trace ends without a known reason"


def test_runs_and_problems_are_kept_apart_whatever_their_order(tmp_path: Path) -> None:
    rows = [
        row(1, run=1, stop_reason="finished"),
        row(0, run=1),
        row(0, problem_id="b", stop_reason="finished"),
        row(0),
    ]
    records = imported(rows, tmp_path)

    assert [(record.problem.id, record.repeat, sum(record.tally.steps.values())) for record in records] == [
        ("1", 0, 1),
        ("1", 1, 2),
        ("b", 0, 1),
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"problem_id": 1}\n', "line 1 of .* is no step: `step`"),
        ("\n\nnonsense\n", "line 3 of .* is not JSON"),
        ('{"problem_id": 1, "step": 0, "text": "x", "score": 12}\n', "`score`"),
        ("", "holds no steps"),
        ("[1]\n", "entry 1 of .* is no step"),
    ],
)
def test_a_file_of_something_else_is_refused_with_the_line(content: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "steps.jsonl"
    file.write_text(content, encoding="utf-8")

    with pytest.raises(UsageError, match=complaint):
        read_rows(file)


def test_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_rows(tmp_path / "none")
    with pytest.raises(UsageError, match="cannot read"):
        read_problems(tmp_path / "none")
    (tmp_path / "odd").write_text('{"id": 1}\n')
    with pytest.raises(UsageError, match="no file of problems"):
        read_problems(tmp_path / "odd")


@needs_real
def test_the_sixteen_real_runs_are_imported_whole() -> None:
    rows = read_rows(REAL)
    records = list(convert(rows, read_problems(AIME)))

    assert len(records) == 16
    assert sum(sum(record.tally.steps.values()) for record in records) == len(rows)
    assert sum(record.tally.correct is True for record in records) == 14
    for record, steps in zip(records, [[each for each in rows if each.run == run] for run in range(16)], strict=True):
        assert record.tally.judged == len(steps)
        assert record.tally.accepted == sum(step.base is None for step in steps)
        greedy = [event.greedy for event in record.events if isinstance(event, StepScored)]
        assert greedy == [step.score for step in steps]
