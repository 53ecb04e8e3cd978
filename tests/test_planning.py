"""How many problems a job needs: against simulation, from stored runs, and by assumption."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from specreason_sgl.evaluation.job import Job
from specreason_sgl.evaluation.planning import ASSUMED, plan, problems_needed, share_that_differs, table
from specreason_sgl.evaluation.statistics import rows
from specreason_sgl.events import AnswerWritten, SolveEnded
from specreason_sgl.runs.store import Problem, RunConfig, RunWriter, SolveRecord

JOB: dict[str, Any] = {
    "name": "j",
    "dataset": {"name": "stories", "limit": 3},
    "modes": [{"kind": "base"}, {"kind": "small"}, {"kind": "specreason"}],
}


def solve(problem: int, mode: str, *, right: bool, repeat: int = 0) -> SolveRecord:
    return SolveRecord(
        problem=Problem(id=str(problem), question=str(problem), answer="1"),
        mode=mode,
        repeat=repeat,
        started=datetime.now(UTC),
        events=[
            AnswerWritten(author="base", text="1", answer="1", truncated=False),
            SolveEnded(outcome="answered", correct=right),
        ],
    )


def stored(folder: Path, records: list[SolveRecord], **job: Any) -> Path:
    told = Job.model_validate({**JOB, **job}).model_dump(mode="json", exclude={"pair"})
    config = RunConfig.model_validate({"created": datetime.now(UTC), "program": "j", "pair": "p", "job": told})
    run = RunWriter(folder, config)
    for record in records:
        run.append(record)
    run.close("success")
    return folder


def p_values(problems: int, better: float, worse: float, tries: int) -> NDArray[np.float64]:
    """The p-values of exact sign tests on problems that one mode wins or loses with these chances."""
    won, lost, _ = np.random.default_rng(1).multinomial(problems, [better, worse, 1 - better - worse], tries).T
    return np.asarray(np.minimum(1, 2 * stats.binom.sf(np.maximum(won, lost) - 1, won + lost, 0.5)), np.float64)


@pytest.mark.parametrize("differ", [0.03, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("level", [0.05, 0.05 / 30])
def test_so_many_problems_show_the_difference_in_four_of_five_tries(differ: float, level: float) -> None:
    problems = problems_needed(differ, 0.02, level=level)
    seen = p_values(problems, differ / 2 + 0.01, differ / 2 - 0.01, 20_000) < level

    assert 0.78 < seen.mean() < 0.85


def test_where_one_mode_wins_all_that_differ_they_show_it_no_less_often() -> None:
    assert (p_values(problems_needed(0.02), 0.02, 0, 20_000) < 0.05).mean() > 0.8


@pytest.mark.parametrize("level", [0.05, 0.05 / 30])
def test_where_nothing_differs_there_are_no_more_alarms_than_the_level_says(level: float) -> None:
    alarms = p_values(problems_needed(0.1, level=level), 0.05, 0.05, 100_000) < level

    assert level / 2 < alarms.mean() < 1.1 * level


def test_the_number_by_hand() -> None:
    # ((1.95996 * 0.223607 + 0.84162 * 0.222711) / 0.02) ** 2 is 978.7, and 1 / 0.02 is 50
    assert problems_needed(0.05) == 1029
    assert problems_needed(0.25, 0.5) == problems_needed(0.5, 0.5), "who differs in half of all differs at least there"


@given(st.floats(0, 1), st.floats(0, 1))
def test_modes_that_differ_more_need_more_problems(one: float, other: float) -> None:
    less, more = sorted((one, other))

    assert problems_needed(less) <= problems_needed(more)
    assert problems_needed(more) <= problems_needed(more, level=0.01)
    assert problems_needed(more, 0.04) <= problems_needed(more)


def test_how_often_modes_differ_is_by_problem_and_repeats_are_averaged() -> None:
    mode = [solve(problem, "m", right=problem < 3, repeat=repeat) for problem in range(4) for repeat in range(2)]
    base = [solve(problem, "b", right=problem > 0 and repeat > 0, repeat=repeat)
            for problem in range(4) for repeat in range(2)]  # fmt: skip

    assert share_that_differs(rows(mode), rows(base)) == pytest.approx((1 + 0.25 + 0.25 + 0.25) / 4)
    assert share_that_differs(rows(mode), []) is None


def test_without_a_stored_run_shares_are_assumed(tmp_path: Path) -> None:
    made = plan(Job.model_validate(JOB), tmp_path / "nothing here")

    assert [need.differ for need in made.needs] == list(ASSUMED)
    assert [need.problems for need in made.needs] == [problems_needed(share) for share in ASSUMED]
    assert [need.as_one_of_many for need in made.needs] == [problems_needed(share, level=0.025) for share in ASSUMED]
    assert (made.run, made.comparisons) == (None, 2)
    assert "assumed" in table(made).note


def test_the_newest_run_of_the_same_dataset_and_modes_tells_how_often_they_differ(tmp_path: Path) -> None:
    some = [
        solve(problem, mode, right=mode == "base" or problem < 4) for problem in range(8) for mode in ("base", "small")
    ]
    stored(tmp_path / "wanted", some)
    stored(tmp_path / "other-dataset", some, dataset={"name": "tales"})
    stored(tmp_path / "other-modes", some, modes=[{"kind": "base"}, {"name": "x", "program": "specreason"}])
    stored(tmp_path / "empty", [])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    made = plan(Job.model_validate(JOB), tmp_path)

    assert (made.run, made.seen) == ("wanted", 8)
    assert [(need.mode, need.against, need.differ) for need in made.needs] == [("small", "base", 0.5)]
    assert made.needs[0].problems == problems_needed(0.5)
    assert "as in the stored run wanted, on 8 problems" in table(made).note


def test_modes_that_never_differed_need_the_problems_that_the_difference_itself_needs(tmp_path: Path) -> None:
    stored(tmp_path / "a", [solve(problem, mode, right=True) for problem in range(5) for mode in ("base", "small")])
    made = plan(Job.model_validate(JOB), tmp_path)

    assert [(need.differ, need.problems) for need in made.needs] == [(0, problems_needed(0.02))]
    assert "less than 2 % counts as 2 %" in table(made).note


def test_a_job_that_compares_nothing_needs_nothing(tmp_path: Path) -> None:
    assert plan(Job.model_validate({**JOB, "modes": [{"kind": "base"}]}), tmp_path).needs == ()
