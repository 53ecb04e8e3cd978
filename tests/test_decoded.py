"""`bench --decode`: all modes with and without drafted tokens, observed and predicted."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from specreason_sgl.cli import app
from specreason_sgl.embedded.stories import story
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.job import Job, read_job, resolved
from specreason_sgl.evaluation.modes import load_programs
from specreason_sgl.events import AnswerWritten, CallMade, Event, SolveEnded, StepScored, StepTaken
from specreason_sgl.lang.pair import Pair
from specreason_sgl.measure import cost_model, decoding
from specreason_sgl.measure.cost_model import PREDICTED, Cost, Costs, Decoding
from specreason_sgl.measure.decoding import Loaded
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.testing import StoryBackend

if TYPE_CHECKING:
    from specreason_sgl.servers.pairs import RunningPair


def cost(seconds: float) -> list[Cost]:
    return [Cost(context=256, batch=1, seconds=seconds), Cost(context=256, batch=32, seconds=16 * seconds)]


COSTS = Costs(
    base=cost(0.01), small=cost(0.002), judge=cost(0.02), call_s=0, crowding=1,
    decoding=Decoding(rounds=cost(0.016), judge=cost(0.024), agreement=4, crowding=1),
)  # fmt: skip
STEPS, TOKENS = 4, 20


def solved(seconds: dict[str, float], wrong: Sequence[str] = ()) -> list[SolveRecord]:
    """Solves that take so long by mode, a little longer on each problem than on the last."""

    def events(mode: str, took: float) -> list[Event]:
        call = CallMade(model="base", kind="answer", prompt_tokens=9, cached_tokens=0, generated_tokens=11, wall_s=0,
                        finish="stop", rounds=4 if mode.endswith("+decode") else 0)  # fmt: skip
        score = StepScored(step=0, logprobs=(0.0,) * 10, greedy=9, expected=9, reaching=1, entropy=0, missing_mass=0,
                           accepted=True)  # fmt: skip
        author = "small" if "specreason" in mode or "lookahead" in mode else "base"
        taken = [StepTaken(step=n, author=author, text=f"{n}", tokens=TOKENS) for n in range(STEPS)]
        right = mode not in wrong
        answer = AnswerWritten(author="base", text="x", answer="1" if right else "2", truncated=False)
        ended = SolveEnded(at=took, outcome="answered", correct=right)
        return [*([score] if author == "small" else []), *taken, call, answer, ended]

    return [
        SolveRecord.model_validate(
            {"problem": Problem(id=str(n), question=f"{n}?", answer="1"), "mode": mode, "repeat": 0,
             "started": "2026-01-01T00:00:00Z", "events": events(mode, took * (1 + n / 100))}
        )
        for mode, took in seconds.items()
        for n in range(8)
    ]  # fmt: skip


@pytest.fixture
def job() -> Job:
    made = read_job(Path("decode"))
    return resolved(made, load_programs(made.modes))


SECONDS = {"base": 1.0, "small": 0.1, "specreason": 0.5, "lookahead": 0.4, "base+decode": 0.3,
           "specreason+decode": 0.25, "lookahead+decode": 0.2}  # fmt: skip


def test_every_mode_stands_beside_the_base_model_with_and_without_drafted_tokens(job: Job) -> None:
    made = decoding.work_out(job, solved(SECONDS, wrong=["small"]), COSTS)
    table = decoding.tables(made)[0]
    cells = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}

    assert list(cells) == list(SECONDS) == [mode.name for mode in job.modes]
    assert {name: row["against base"].split("x")[0] for name, row in cells.items()} == {
        "base": "–", "small": "10.00", "specreason": "2.00", "lookahead": "2.50", "base+decode": "3.33",
        "specreason+decode": "4.00", "lookahead+decode": "5.00",
    }  # fmt: skip
    assert cells["lookahead+decode"]["against base+decode"].startswith("1.50x [1.50, 1.50]")
    assert cells["small"]["difference"].startswith("-100.0")
    assert cells["specreason"]["difference"].startswith("+0.0 [")
    assert (cells["specreason"]["pass@1"], cells["specreason"]["acceptance"]) == ("100%", "100%")
    assert (cells["base"]["tokens a round"], cells["base+decode"]["tokens a round"]) == ("–", "2.50")


def test_what_was_predicted_stands_beside_what_was_observed(job: Job) -> None:
    load = [Loaded(mode=mode.name, problems_per_second=[2.0, 2.0, 2.0], failed=0) for mode in job.modes]
    faster = Loaded(mode="base+decode", problems_per_second=[3.0, 4.0, 6.0], failed=1)
    load = [faster if each.mode == faster.mode else each for each in load]
    made = decoding.work_out(job, solved(SECONDS, wrong=["small"]), COSTS, load)
    table = decoding.held(made)
    rows = {row[0]: row[1:] for row in table.rows}

    assert set(rows) == {mode.name for mode in job.modes} - {"base"}
    work = made.works["specreason"]
    assert (work.steps, work.step_tokens, work.acceptance) == (STEPS, TOKENS, 1)
    assert rows["specreason"][0] == f"{COSTS.speed_ups(work)['specreason']:.2f}x"
    assert rows["specreason"][1] == "2.00x [2.00, 2.00]"
    assert rows["base+decode"][3] == "2.08x [1.50, 3.00]"
    assert rows["small"][0] == "–", "the small model alone is no matter of prediction"
    assert "one at a time: `lookahead+decode` as predicted, `lookahead+decode` as observed" in table.note
    assert "32 at once: `specreason+decode` as predicted, `base+decode` as observed" in table.note
    assert "do not count: 1 of base+decode." in table.note


def test_what_loses_accuracy_is_never_named_the_fastest(job: Job) -> None:
    quick = {**SECONDS, "lookahead+decode": 0.01}
    made = decoding.work_out(job, solved(quick, wrong=["lookahead+decode", "small"]), COSTS)

    assert "`specreason+decode` as observed" in decoding.held(made).note
    slow = decoding.work_out(job, solved({mode: 1.0 + (mode != "base") for mode in SECONDS}), COSTS)
    assert "the base model alone as observed" in decoding.held(slow).note


def test_modes_take_turns_with_many_at_once(job: Job) -> None:
    known = [story(seed) for seed in range(3)]
    problems = [Problem(id=str(n), question=one.question, answer=str(one.answer)) for n, one in enumerate(known)]
    pair = Pair(StoryBackend("base", known), StoryBackend("small", known), {"decode": StoryBackend("decode", known)})
    said: list[str] = []
    load = decoding.under_load(pair, job, load_programs(job.modes), problems, said.append, at_once=2)

    assert [each.mode for each in load] == [mode.name for mode in job.modes]
    assert all(len(each.problems_per_second) == decoding.TURNS and min(each.problems_per_second) > 0 for each in load)
    assert not any(each.failed for each in load)
    assert [line.split(",")[0] for line in said] == [mode.name for mode in job.modes] * decoding.TURNS


def test_the_stock_job_has_every_mode_that_is_predicted(job: Job) -> None:
    assert {mode.kind for mode in job.modes} == {*PREDICTED, "small"}
    assert job.concurrency == 1


@pytest.mark.parametrize("other", ["--client", "--lengths=2048"])
def test_what_does_not_go_with_it_is_told_in_a_line(
    other: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["specreason", "bench", "--decode", "http://127.0.0.1:1", other])

    assert app.main() == 2
    assert capsys.readouterr().err.startswith("error: `--decode` and `--")


def test_a_further_server_is_named_by_its_url_or_by_who_drafts() -> None:
    assert PairOptions().drafting(None) == PairOptions()
    assert PairOptions().drafting("small").decode == "small"
    assert PairOptions(base="http://b").drafting("http://d").models == {"decode": "http://d"}
    with pytest.raises(UsageError, match="starts a server for the embedded pair only"):
        PairOptions(base="http://b", small="http://s").drafting("small")
    with pytest.raises(UsageError, match="nobody"):
        PairOptions().drafting("nobody")


@pytest.mark.parametrize(("who", "modes", "budget"), [("small", 7, 1024), (None, 4, 1024)])
def test_a_job_has_the_modes_and_the_budget_of_the_embedded_pair(
    who: str | None, modes: int, budget: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    options = [*(["--decode", who] if who else []), "--set", "settings.budget=8192", "--dry-run", "--json"]
    monkeypatch.setattr(sys, "argv", ["specreason", "eval", "decode", *options])

    assert app.main() == 0
    job = json.loads(capsys.readouterr().out)["job"]
    assert len(job["modes"]) == modes
    assert {mode["settings"]["budget"] for mode in job["modes"]} == {budget}


@pytest.mark.server
def test_the_command_holds_every_mode_against_its_prediction(
    servers: RunningPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, few in (("ROUNDS", 1), ("BATCHES", (1,)), ("CONTEXTS", (128,)), ("QUESTIONS", 1), ("LONGER", 36)):
        monkeypatch.setattr(cost_model, name, few)
    monkeypatch.setattr(decoding, "TURNS", 1)
    monkeypatch.chdir(tmp_path)
    where = [part for role, at in servers.addresses.items() for part in (f"--{role}", at.url)]
    options = ("--limit", "2", "--load", "2", "--api-key", str(servers.base.api_key), "--json", "--out", "run")
    monkeypatch.setattr(sys, "argv", ["specreason", "bench", *where, *options])

    assert app.main() == 0
    told = json.loads(capsys.readouterr().out)
    made = decoding.Decoded.model_validate(told)
    assert {each.mode for each in made.predicted} == {mode.mode for mode in made.modes}
    assert all(each.alone and each.at_once for each in made.predicted if each.mode != "small")
    assert {mode.mode for mode in made.modes if mode.agreement} == {
        "base+decode", "specreason+decode", "lookahead+decode"
    }  # fmt: skip
    assert made.costs.decoding
    assert made.costs.decoding.agreement > 1
    assert len(made.load) == len(made.modes)
    assert json.loads((tmp_path / "run" / "bench.json").read_text()) == told


@pytest.mark.server
@pytest.mark.parametrize("more", [(), ("--calibrate",)])
def test_a_server_that_drafts_no_tokens_is_refused_before_anything_is_measured(
    more: Sequence[str], servers: RunningPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    url = servers.base.url
    where = ("--base", url, "--small", servers.small.url, "--decode", url, "--api-key", str(servers.base.api_key))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["specreason", "bench", *where, *more])

    assert app.main() == 2
    assert f"error: the server at {url} drafts no tokens" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
