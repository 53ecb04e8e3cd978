"""The front door: what a notebook does, and what it is told when something is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import specreason_sgl as sr
from specreason_sgl.embedded.stories import story
from specreason_sgl.errors import UsageError
from specreason_sgl.events import Event, SolveEnded, StepTaken
from specreason_sgl.lang.pair import Pair
from specreason_sgl.runs.store import Problem
from specreason_sgl.testing import StoryBackend

ROOT = Path(__file__).parents[1]
TOLD = [story(seed) for seed in range(10)]
QUESTION = TOLD[0].question


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[sr.OpenPair]:
    """A pair that solves stories without a model, where the embedded one would be."""

    @contextmanager
    def opened(*_: Any) -> Iterator[Any]:
        yield Pair(StoryBackend("base", TOLD), StoryBackend("small", TOLD, skill=0.7))

    monkeypatch.setattr("specreason_sgl.servers.opening.open_pair", opened)
    monkeypatch.chdir(tmp_path)
    with sr.pair("embedded") as servers:
        yield servers


def test_a_solve_says_what_came_of_it(pair: sr.OpenPair) -> None:
    solved = sr.solve(QUESTION, pair, answer=str(TOLD[0].answer), threshold=7, seed=1)

    assert (solved.answer, solved.correct) == (str(TOLD[0].answer), True)
    assert solved.acceptance is not None
    assert solved.text.split("\n\n") == list(TOLD[0].steps)
    assert solved.totals.thinking_tokens
    assert re.fullmatch(r"<Solved answer '\d+', \d+% of the drafts accepted, \d+\.\d s>", repr(solved))


def test_a_notebook_shows_the_trace_in_a_frame_of_its_own(pair: sr.OpenPair) -> None:
    shown = sr.solve(QUESTION, pair)._repr_html_()

    assert shown.startswith('<iframe srcdoc="&lt;!DOCTYPE html&gt;')
    assert shown.count("<") == 2, "everything within is text"


def test_the_pair_brings_its_sampling_and_the_caller_has_the_last_word(pair: sr.OpenPair) -> None:
    assert (pair.settings({}).temperature, pair.settings({}).budget) == (0.0, 1024)
    assert pair.settings({"temperature": 0.5}).temperature == 0.5


def test_a_sink_hears_everything_and_the_end_with_its_grade(pair: sr.OpenPair) -> None:
    heard: list[Event] = []
    solved = sr.solve(QUESTION, pair, answer="0", sink=heard.append)

    assert heard == list(solved.events)
    assert isinstance(heard[-1], SolveEnded)
    assert heard[-1].correct is False


def test_a_solve_can_be_kept_as_a_run(pair: sr.OpenPair, tmp_path: Path) -> None:
    solved = sr.solve(QUESTION, pair, out=tmp_path / "kept", first_n=1)
    run = sr.read_run(tmp_path / "kept")

    assert [each.record for each in run.solves] == [solved.record]
    assert run.config is not None
    assert run.config.parameters["first_n"] == 1
    assert run.config.prompts["version"] == run.config.judge_version == "1"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"thresold": 7}, "the program `specreason` has no parameter `thresold`"),
        ({"threshold": "high"}, "parameter `threshold` of the program `specreason`"),
        ({"budget": -1}, "`budget`: Input should be greater than or equal to 0"),
        ({"program": "nope"}, "there is no program `nope`"),
        ({"instruction": "Solve it."}, "`instruction`: it needs `{problem}` where the question belongs"),
    ],
)
def test_what_is_of_no_use_is_refused_by_name(pair: sr.OpenPair, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        sr.solve(QUESTION, pair, **given)


def test_a_solve_that_cannot_go_on_is_an_exception_or_says_so(pair: sr.OpenPair) -> None:
    unknown = "What is 2 + 2?"  # no story

    with pytest.raises(sr.SolveError):
        sr.solve(unknown, pair)
    assert str(sr.solve(unknown, pair, raises=False).error).startswith("a call to a model failed: ")


def test_a_job_becomes_a_run_with_tables(pair: sr.OpenPair) -> None:
    asked: dict[str, Any] = {
        "dataset__name": "stories",
        "dataset__seed": 0,
        "limit": 2,
        "repeats": 1,
        "out": "run",
        "modes": ["base", "specreason-t7"],
    }
    run = sr.evaluate("tales", pair, **asked)

    assert len(run.solves) == 4
    assert all(solved.correct for solved in run.solves)
    assert "specreason-t7" in str(run.table())
    assert "<td>specreason-t7</td>" in run.table()._repr_html_()
    assert list(run.frame()["mode"]) == [solved.record.mode for solved in run.solves]
    steps = run.frame("steps")
    assert list(steps[steps["kind"] == "step"]["text"]) == [
        event.text for solved in run.solves for event in solved.events if isinstance(event, StepTaken)
    ]
    assert repr(run) == "<StoredRun run, 4 solves, success>"
    with pytest.raises(UsageError, match="already holds a run"):
        sr.evaluate("tales", pair, out="run")
    again = sr.evaluate("tales", pair, **asked, resume=True)
    assert [solved.record for solved in again.solves] == [solved.record for solved in run.solves]


def test_a_pair_that_is_not_up_is_refused_with_what_starts_it() -> None:
    with pytest.raises(UsageError, match="the pair `qwq` is not up") as refused, sr.pair("qwq"):
        pass

    assert refused.value.hint == "`specreason up --pair qwq` starts it"


def test_a_question_can_stand_behind_other_turns(pair: sr.OpenPair) -> None:
    earlier = ({"role": "system", "content": "Be brief. </think>"},)
    problem = Problem(id="p", question=QUESTION, earlier=earlier)
    opened = pair.base.chat.opening(QUESTION, earlier=earlier)  # type: ignore[union-attr]

    assert "Be brief." in opened
    assert opened.count("</think>") == 0
    assert problem.model_dump()["earlier"] == earlier
    assert "earlier" not in Problem(id="p", question=QUESTION).model_dump()


def test_importing_changes_nothing_in_the_process() -> None:
    code = """
import os, sys, threading, warnings, signal
before = dict(os.environ), list(warnings.filters), threading.active_count(), signal.getsignal(signal.SIGINT)
import specreason_sgl as sr
assert before == (dict(os.environ), list(warnings.filters), threading.active_count(), signal.getsignal(signal.SIGINT))
assert set(dir(sr)) >= {"pair", "solve", "evaluate", "read_run"}
sr.read_run, sr.pair
print([name for name in ("sglang", "torch", "scipy", "datasets", "matplotlib") if name in sys.modules])
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)

    assert (told.returncode, told.stdout, told.stderr) == (0, "[]\n", "")


def notebook() -> str:
    """The first example of the page."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    return page.split("```python\n")[1].split("```")[0]


@pytest.mark.server
def test_the_notebook_of_the_page_runs_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    room: dict[str, Any] = {}
    exec(compile(notebook(), "notebook", "exec"), room)  # noqa: S102 - the page's own

    assert room["solved"].answer
    assert len(room["run"].solves) == 5 * 2 * 8
