"""Segmentation and scoring on published runs of QwQ-32B with R1-Distill-1.5B, where they are at hand."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from specreason_sgl.events import Noticed, StepTaken, ThinkingEnded
from specreason_sgl.lang import loading
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem
from specreason_sgl.settings import Settings
from specreason_sgl.testing import Reply, ScriptedBackend
from specreason_sgl.text.prompts import DELIMITER
from specreason_sgl.text.scoring import DIGITS, LEAST, Score
from specreason_sgl.text.steps import merged, split_steps, stuck_at

PATH = Path(__file__).parents[2] / "shared" / "data" / "qwq32b_r1-1.5b_aime60_steps.jsonl"

pytestmark = pytest.mark.skipif(not PATH.exists(), reason=f"the published runs are not at {PATH.name}")


@cache
def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()]


def scores() -> list[tuple[int, Score]]:
    return [
        (row["score"], Score(tuple(row["digit_logprobs"].get(digit, LEAST) for digit in DIGITS)))
        for row in rows()
        if row.get("digit_logprobs")
    ]


def test_joined_steps_of_real_reasoning_split_into_themselves() -> None:
    chains: dict[int, list[str]] = defaultdict(list)
    for row in rows():
        chains[row["run"]] += [text] if (text := row["text"].strip()) else []

    assert len(chains) == 16
    for steps in chains.values():
        assert split_steps(DELIMITER.join(steps)) == [part for step in steps for part in split_steps(step)]


def test_real_digit_distributions_read_as_their_judge_read_them() -> None:
    read = scores()
    same = sum(greedy == score.greedy for greedy, score in read)

    assert len(read) > 1300
    assert same / len(read) > 0.8, "ties between digits were broken at random there"
    assert all(max(s.logprobs) - s.logprobs[greedy] < 0.2 for greedy, s in read)


def test_expected_and_greedy_need_thresholds_of_their_own() -> None:
    read = [score for _, score in scores()]
    greedy = sum(score.accepts("greedy", 7) for score in read) / len(read)
    expected = sum(score.accepts("expected", 7) for score in read) / len(read)

    assert greedy > 0.8 > 0.65 > expected
    assert sum(score.missing_mass for score in read) / len(read) < 0.02


def test_merging_short_steps_saves_judge_calls() -> None:
    runs: dict[int, list[int]] = defaultdict(list)
    for row in rows():
        runs[row["run"]] += [row["draft_tokens"]] if row["draft_tokens"] else []
    calls = {least: sum(len(merged(tokens, least)) for tokens in runs.values()) for least in (0, 20, 40)}

    assert calls[0] == sum(map(len, runs.values()))
    assert 0.3 < calls[40] / calls[0] < calls[20] / calls[0] < 0.8


def runs() -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows():
        found[row["run"]].append(row)
    return found


def replayed(run: list[dict[str, Any]]) -> tuple[list[StepTaken], ThinkingEnded, list[str]]:
    """A published run through the program: its drafts, its decisions, its regenerated steps, and then the end."""
    small: list[Any] = []
    base: list[Any] = []
    for row in run:
        if not row["text"].strip():  # the end of thinking, which the reference takes out of a step
            continue
        small.append(Reply(row["draft"]))
        base += [0, Reply(row["base"])] if row["base"] else [9]
    small.append(Reply("That is all.", closes=True))
    base += [9, Reply("\\boxed{204}")]
    servers = Pair(ScriptedBackend("base", base), ScriptedBackend("small", small))
    settings = Settings(budget=10**6)
    record = solve(Problem(id="60", question="?"), loading.load("specreason"), servers, settings)
    (ended,) = [event for event in record.events if isinstance(event, ThinkingEnded)]
    said = [event.message for event in record.events if isinstance(event, Noticed)]
    return [event for event in record.events if isinstance(event, StepTaken)], ended, said


@pytest.mark.parametrize("run", range(16))
def test_a_published_run_is_taken_step_by_step_to_its_end(run: int) -> None:
    stored = [text for row in [*runs().values()][run] if (text := row["text"].strip())]
    taken, ended, said = replayed([*runs().values()][run])

    assert [step.text for step in taken] == [*stored, "That is all."]
    assert ended.reason == "closed"
    assert said == []


def test_no_published_step_looks_stuck() -> None:
    texts = [row[name] for row in rows() for name in ("text", "draft", "base") if row[name]]

    assert len(texts) > 3000
    assert not [text for text in texts if stuck_at(text) is not None or stuck_at(text, growing=True) is not None]


@pytest.mark.parametrize("name", ["aime24", "math500"])
def test_no_published_solution_goes_in_circles(name: str) -> None:
    solutions = [json.loads(line)["solution"] for line in (PATH.parent / f"{name}.jsonl").read_text().splitlines()]

    for solution in solutions:
        base = ScriptedBackend("base", [Reply(solution.replace("\n", "\n\n"), closes=True), Reply("\\boxed{1}")])
        settings = Settings(budget=10**6)
        record = solve(Problem(id="x", question="?"), loading.load("base_only"), Pair(base, None), settings)
        assert record.tally.ended == "closed"
