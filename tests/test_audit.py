"""The judge's audit: its figures against scipy's and hand-made ones, and whose truth they are about."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from specreason_sgl.cli import app as command_line
from specreason_sgl.embedded.stories import story
from specreason_sgl.evaluation.audit import (
    FLATTERY,
    Judged,
    audit,
    auroc,
    calibration,
    collect,
    flatter,
    judge_own_steps,
    judging_modes,
    own_rejected,
    stability,
)
from specreason_sgl.evaluation.datasets import DatasetSpec, load
from specreason_sgl.events import Event, SolveEnded, StepTaken
from specreason_sgl.lang import loading
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem, RunConfig, RunWriter, SolveRecord, closing
from specreason_sgl.settings import Settings
from specreason_sgl.testing import Reply, ScriptedBackend, StoryBackend
from specreason_sgl.text.score_file import ScoreFile
from specreason_sgl.text.scoring import LEAST, Fitted, Score, certain


def judged(score: Score | int, *, right: bool, problem: str = "p", threshold: float = 7) -> Judged:
    return Judged(problem, certain(str(score)) if isinstance(score, int) else score, threshold, "greedy", right)


def spread(**digits: float) -> Score:
    given = {name.removeprefix("d"): value for name, value in digits.items()}
    return Score(tuple(given.get(str(digit), LEAST) for digit in range(10)))


def pair(skill: float = 0.7, base_skill: float = 1.0) -> Pair:
    known = [story(seed) for seed in range(20)]
    base, small = StoryBackend("base", known, skill=base_skill), StoryBackend("small", known, skill=skill)
    return Pair(base, small)


def judge() -> StoryBackend:
    return StoryBackend("base", [story(seed) for seed in range(20)])


def solved(count: int = 8, program: str = "specreason", over: Pair | None = None, **knobs: Any) -> list[SolveRecord]:
    loaded, problems = loading.load(program), load(DatasetSpec(name="stories", limit=count))
    return [solve(problem, loaded, over or pair(), Settings(), parameters=knobs) for problem in problems]


def test_auroc_is_the_mann_whitney_statistic() -> None:
    lots = np.random.default_rng(0)
    some = [judged(int(lots.integers(10)), right=bool(lots.random() < 0.5), problem=str(i % 20)) for i in range(200)]
    right, wrong = ([d.score.value("greedy") for d in some if d.right is right] for right in (True, False))
    found = auroc(some, "greedy")

    assert found is not None
    assert found.value == pytest.approx(stats.mannwhitneyu(right, wrong).statistic / (len(right) * len(wrong)))
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.5 < found.high
    assert found.n == 20


@pytest.mark.parametrize(
    ("right", "wrong", "area"), [([9, 8], [1, 2], 1.0), ([1], [9], 0.0), ([5], [5], 0.5), ([5, 9], [5], 0.75)]
)
def test_auroc_by_hand(right: list[int], wrong: list[int], area: float) -> None:
    some = [*(judged(s, right=True) for s in right), *(judged(s, right=False) for s in wrong)]
    found = auroc(some, "greedy")

    assert found is not None
    assert (found.value, found.low) == (area, None)


def test_without_both_sorts_there_is_no_auroc() -> None:
    assert auroc([judged(9, right=True)], "expected") is None


def test_calibration_by_hand() -> None:
    half = spread(d9=np.log(0.5), d0=np.log(0.5))
    some = [judged(half, right=True), judged(half, right=False), judged(9, right=True), judged(0, right=True)]
    bins = calibration(some)

    assert [(round(b.predicted, 6), b.observed, b.drafts) for b in bins] == [(0, 1, 1), (0.5, 0.5, 2), (1, 1, 1)]
    assert audit(some, "steps").calibration_error == pytest.approx(0.25)


def test_stability_by_hand() -> None:
    some = [
        judged(9, right=True),
        judged(spread(d9=-1.0, d8=-1.0), right=True),  # a tie that decides nothing
        judged(spread(d7=-1.0, d5=-1.0), right=True),  # a tie that decides
        judged(spread(d7=-1.0, d5=-1.1), right=True),  # within one quantum
        judged(spread(d7=-1.0, d5=-1.2), right=True),
    ]
    found = stability(some)

    assert (found.ties, found.tied_decisions, found.within_quantum) == (0.4, 0.2, 0.4)


def test_own_steps_rejected_by_hand() -> None:
    some = [judged(9, right=True, problem="a"), judged(3, right=True, problem="a"), judged(9, right=True, problem="b")]
    found = own_rejected(some)

    assert (found.value, found.n) == (0.25, 2)


def test_figures_by_hand() -> None:
    some = [judged(9, right=True), judged(5, right=True), judged(8, right=False), judged(0, right=False)]
    found = audit(some, "steps", left_out=3)

    assert (found.drafts, found.right, found.problems, found.left_out) == (4, 2, 1, 3)
    assert (found.accepted_right, found.accepted_wrong) == (0.5, 0.5)
    assert found.histogram_right == [0, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert found.histogram_wrong == [1, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert (found.own_rejected, found.missing_mass) == (None, 0)


def test_drafts_of_stories_are_known_exactly() -> None:
    found, truth, left_out = collect(solved())
    values = {d.right: {d.score.greedy for d in found if d.right is d.right} for d in found}

    assert truth == "steps"
    assert left_out == 0
    assert {d.score.greedy for d in found if d.right} == {9}
    assert all(d.score.greedy < 9 for d in found if not d.right)
    assert set(values) == {True, False}
    assert {(d.threshold, d.rule) for d in found} == {(7, "greedy")}


def test_drafts_behind_a_wrong_step_are_left_out() -> None:
    records = solved(20, threshold=0)
    found, _, left_out = collect(records)

    assert left_out > 0
    assert len(found) + left_out == sum(record.tally.judged for record in records)
    assert all(sum(not d.right for d in found if d.problem == p) <= 1 for p in {d.problem for d in found})


def test_on_other_data_a_draft_is_as_right_as_its_solution() -> None:
    problem = Problem(id="sum", question="What is 2 + 2?", answer="4")
    answers = ("4", "5", None)
    records = []
    for answer in answers:
        said = Reply(f"\\boxed{{{answer}}}" if answer else "no idea")
        servers = ScriptedBackend("base", [8, said]), ScriptedBackend("small", [Reply("2 and 2", closes=True)])
        records.append(solve(problem, loading.load("specreason"), Pair(*servers), Settings()))
    found, truth, left_out = collect(records)

    assert (truth, left_out) == ("answers", 1)
    assert [d.right for d in found] == [True, False]


def test_only_verdicts_of_a_judge_count() -> None:
    records = [*solved(2, "base_only"), *solved(2)]

    assert judging_modes(records) == ["specreason"]
    assert len(collect(records)[0]) == sum(record.tally.judged for record in records[2:])


def test_the_base_models_own_steps_are_judged_behind_those_before_them() -> None:
    (record,) = solved(1, "base_only")
    known = story(0)
    verdicts = judge_own_steps(record, judge(), Settings(), 7, "greedy")

    assert len(verdicts) == len(known.steps)
    assert {v.score.greedy for v in verdicts} == {9}
    careless = solved(10, "base_only", over=pair(base_skill=0.5))
    rejected = own_rejected([v for r in careless for v in judge_own_steps(r, judge(), Settings(), 7, "greedy")])
    assert 0.2 < rejected.value < 0.8


def test_a_judge_that_falls_for_praise_is_found_out() -> None:
    class Vain(StoryBackend):
        def select(self, s: Any, *given: Any, **named: Any) -> Any:
            decision = super().select(s, *given, **named)
            if FLATTERY[1] in s.text_:
                decision.meta_info["digit_logprobs"] = [*[-9.0] * 9, -0.1]
            return decision

    judges = [kind("base", [story(seed) for seed in range(20)]) for kind in (StoryBackend, Vain)]
    sober, vain = (flatter(solved(), 6, judge, Settings(), 7, "greedy") for judge in judges)

    assert sober is not None
    assert vain is not None
    assert sober.drafts == vain.drafts == 6
    assert (sober.accepted_plain, vain.accepted_plain) == (0, 0)
    assert vain.accepted == {praise: float(praise == FLATTERY[1]) for praise in FLATTERY}
    assert vain.shift[FLATTERY[1]] > 3
    assert flatter(solved(over=pair(skill=1.0)), 6, judges[0], Settings(), 7, "greedy") is None


def test_steps_of_the_small_model_are_not_the_base_models_own() -> None:
    (record,) = solved(1)
    own = sum(isinstance(event, StepTaken) and event.author == "base" for event in record.events)

    assert len(judge_own_steps(record, judge(), Settings(), 7, "greedy")) == own


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    @contextmanager
    def opened(*_: Any) -> Iterator[Pair]:
        yield pair()

    monkeypatch.setattr("specreason_sgl.servers.opening.open_pair", opened)
    config = RunConfig(created=datetime.now(UTC), program="j", pair="none")
    with closing(RunWriter(tmp_path / "run", config)) as writer:
        for record in (*solved(8, "base_only"), *solved(8)):
            events: list[Event] = [e for e in record.events if not isinstance(e, SolveEnded)]
            writer.append(record.model_copy(update={"events": [*events, SolveEnded(outcome="answered", correct=True)]}))
    return tmp_path / "run"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["specreason", *arguments])
    return command_line.main()


def test_the_command(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "audit", str(run)) == 0
    shown = capsys.readouterr().out
    assert "AUROC of the expected score" in shown
    assert "known exactly" in shown

    assert call(monkeypatch, "audit", str(run), "--json", "--own", "3", "--score", "greedy") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["auroc"]["greedy"]["value"] == 1
    assert found["own_rejected"]["n"] == 3
    assert found["own_steps"] > 3

    assert call(monkeypatch, "audit", str(run), "--flatter", "5", "--score", "greedy") == 0
    assert "5 wrong drafts, each judged in every way" in capsys.readouterr().out

    assert call(monkeypatch, "audit", str(run), "--json", "--truth", "answers") == 0
    assert json.loads(capsys.readouterr().out)["truth"] == "answers"


def test_a_fitted_score_in_a_file_judges_with_its_threshold_and_with_the_lengths_of_steps(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # 9 for a text of at least twelve tokens, 0 for a shorter one.
    longs = Fitted(digits=(0.0,) * 10, length=1000, entropy=0, bias=-1000 * math.log(12.5))
    file = tmp_path / "longs.json"
    file.write_text(ScoreFile(score=longs, threshold=4).model_dump_json())
    steps = [
        [event.tokens for event in record.events if isinstance(event, StepTaken)] for record in solved(8, "base_only")
    ]
    short = [sum(tokens < 12 for tokens in some) / len(some) for some in steps]
    assert 0 < sum(short) < len(short), "some steps are short, and some are long"

    assert call(monkeypatch, "audit", str(run), "--json", "--own", "8", "--flatter", "99", "--score", str(file)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["own_rejected"]["value"] == pytest.approx(sum(short) / len(short))
    assert found["flattery"]["accepted"][FLATTERY[3]] == 1, "with praise every draft is long"
    assert found["flattery"]["accepted_plain"] < 1

    more = ("--json", "--own", "8", "--score", str(file), "--threshold", "0")
    assert call(monkeypatch, "audit", str(run), *more) == 0
    assert json.loads(capsys.readouterr().out)["own_rejected"]["value"] == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--truth", "hearsay"), "no truth `hearsay`"),
        (("--score", "best"), "no score `best`"),
        (("--score", "none.json"), "cannot read `none.json`"),
        (("--mode", "base_only"), "no drafts that a judge has scored"),
    ],
)
def test_mistakes_are_told_in_a_line(
    run: Path,
    arguments: tuple[str, ...],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "audit", str(run), *arguments) == 2
    assert complaint in capsys.readouterr().err
