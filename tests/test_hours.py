"""How many hours a job will take: arithmetic on costs and on stored solves, and the command that says it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from batches import carry_out
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.evaluation.job import Job
from specreason_sgl.events import StepScored, StepTaken
from specreason_sgl.measure import cost_model
from specreason_sgl.measure.cost_model import Cost, Costs, Work
from specreason_sgl.measure.hours import ACCEPTANCE, reckon, table
from specreason_sgl.runs.store import Problem, RunConfig, RunWriter, SolveRecord, closing
from specreason_sgl.servers.pairs import RunningPair

ROOT = Path(__file__).parents[1]


def cost(seconds: float, batch: int = 1) -> Cost:
    return Cost(context=256, batch=batch, seconds=seconds)


COSTS = Costs(
    base=[cost(0.01), cost(0.04, 8)], small=[cost(0.002), cost(0.005, 8)], judge=[cost(0.02), cost(0.1, 8)],
    call_s=0.0, crowding=1.0,
)  # fmt: skip


def job(*modes: dict[str, Any], **fields: Any) -> Job:
    row = {"name": "j", "dataset": {"name": "stories"}, "repeats": 2, "modes": list(modes)}
    return Job.model_validate({**row, "settings": {"budget": 1000, "answer_tokens": 100}, **fields})


def solve(mode: str, steps: int, tokens: int, accepted: int = 0) -> SolveRecord:
    scores = [
        StepScored(step=n, logprobs=(0.0,) * 10, greedy=9, expected=9, reaching=1, entropy=0, missing_mass=0,
                   accepted=n < accepted)
        for n in range(steps if accepted else 0)
    ]  # fmt: skip
    taken = [StepTaken(step=n, author="base", text="x", tokens=tokens) for n in range(steps)]
    return SolveRecord.model_validate(
        {"problem": Problem(id="p", question="?"), "mode": mode, "repeat": 0, "started": "2026-01-01T00:00:00Z",
         "events": [*scores, *taken]}
    )  # fmt: skip


def test_without_a_run_solves_are_taken_to_use_their_whole_budget() -> None:
    made = reckon(job({"kind": "base"}, {"kind": "small"}, {"kind": "specreason"}), 30, COSTS, 1)
    base, small, method = made.modes

    assert base.seconds == pytest.approx(1000 * 0.01 + 100 * 0.01)
    assert small.seconds == pytest.approx(1000 * 0.002 + 100 * 0.002)
    assert method.seconds == COSTS.seconds("specreason", Work(acceptance=ACCEPTANCE, steps=40, answer_tokens=100))
    assert base.hours == pytest.approx(60 * 11 / 3600)
    assert made.total == pytest.approx(sum(mode.hours or 0 for mode in made.modes))
    assert "most take less; `--like RUN`" in table(made).note


def test_many_at_a_time_are_reckoned_as_many_as_were_measured_at_most() -> None:
    asked = job({"kind": "base"})
    eight, more = (reckon(asked, 30, COSTS, many).modes[0].seconds for many in (8, 64))

    assert eight == more == pytest.approx(1100 * 0.04 / 8)


def test_a_stored_run_says_how_large_solves_are_and_how_many_drafts_are_accepted() -> None:
    asked = job({"kind": "base"}, {"kind": "specreason", "threshold": 5}, {"kind": "lookahead"})
    earlier = job({"kind": "base", "name": "b"}, {"kind": "specreason"})
    records = [solve("b", 4, 50), solve("specreason", 4, 25, accepted=3), solve("other", 9, 900)]
    base, method, ahead = reckon(asked, 1, COSTS, 1, earlier, records).modes

    assert (base.tokens, base.by) == (200, "`b`")
    assert (method.tokens, method.by) == (100, "`specreason`")
    assert method.seconds == pytest.approx(4 * (25 * 0.002 + 0.02 + 0.25 * 25 * 0.01))
    assert (ahead.tokens, ahead.by) == (1000, "its whole budget")


def test_a_solve_never_takes_more_than_its_budget() -> None:
    asked = job({"kind": "base", "budget": 150}, {"kind": "base", "name": "none", "budget": 0})
    made = reckon(asked, 1, COSTS, 1, job({"kind": "base"}), [solve("base", 4, 50)])

    assert [mode.tokens for mode in made.modes] == pytest.approx([150, 1])


def test_the_run_of_the_same_mode_counts_more_than_that_of_the_same_budget() -> None:
    earlier = job({"kind": "base", "budget": [500, 1000]}, {"kind": "base", "name": "mine", "budget": 500})
    records = [solve("base-b500", 1, 5), solve("base-b1000", 1, 10), solve("mine", 1, 15)]
    asked = job({"kind": "base"}, {"kind": "base", "name": "mine"})

    assert [mode.tokens for mode in reckon(asked, 1, COSTS, 1, earlier, records).modes] == [10, 15]


def test_lots_and_right_steps_are_reckoned_as_the_method_without_its_judge() -> None:
    asked = job({"kind": "specreason"}, {"kind": "random"}, {"kind": "oracle"})
    method, lots, oracle = (mode.seconds for mode in reckon(asked, 1, COSTS, 1).modes)

    assert lots == oracle
    assert method is not None
    assert lots == pytest.approx(method - 40 * 0.02)


def test_of_what_the_costs_do_not_cover_nothing_is_said() -> None:
    made = reckon(job({"kind": "base"}, {"kind": "base+decode"}, {"program": "fractured"}), 1, COSTS, 1)
    shown = table(made)

    assert [mode.seconds is None for mode in made.modes] == [False, True, True]
    assert shown.rows[2] == ("fractured", "2", "–", "–", "–", "–")
    assert "In all at least 0.0 hours." in shown.note
    assert "nothing of `base+decode`, `fractured`" in shown.note


def test_solves_that_would_fail_by_the_jobs_limit_are_named() -> None:
    asked = job({"kind": "base"}, {"kind": "small"}, problem_limit_s=20)

    assert reckon(asked, 1, COSTS, 1).too_long == []
    made = reckon(asked, 1, COSTS, 8)
    assert made.too_long == ["base"]
    assert "Solves of `base` would fail after the 20 seconds that the job allows" in table(made).note


def test_a_long_job_is_told_in_days_too() -> None:
    assert "In all about 30.6 hours, 1.3 days." in table(reckon(job({"kind": "base"}), 5000, COSTS, 1)).note


@given(st.integers(1, 500), st.integers(1, 64), st.integers(0, 40_000))
def test_hours_grow_with_the_problems_alone(problems: int, at_once: int, budget: int) -> None:
    asked = job({"kind": "base"}, {"kind": "lookahead"}, settings={"budget": budget})
    one, many = (reckon(asked, count, COSTS, at_once) for count in (1, problems))

    assert many.total == pytest.approx(one.total * problems)
    assert all(mode.hours is not None and mode.hours > 0 for mode in many.modes)


JOB = """
dataset = { name = "stories", limit = 50 }
settings = { budget = 1000, answer_tokens = 100 }
modes = [{ kind = "base" }, { kind = "specreason" }]
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job, costs, and a stored run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(JOB)
    (tmp_path / "costs.json").write_text(COSTS.model_dump_json())
    earlier = job({"kind": "base"})
    row = {"created": "2026-01-01T00:00:00Z", "program": "j", "pair": "p", "job": earlier.model_dump(mode="json")}
    with closing(RunWriter(tmp_path / "runs" / "earlier", RunConfig.model_validate(row))) as writer:
        writer.append(solve("base", 4, 50))
    return tmp_path


ESTIMATE = ("eval", "mine.toml", "--dry-run", "--estimate")


@pytest.mark.usefixtures("files")
def test_the_command_says_the_hours_by_stored_costs_and_a_stored_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert carry_out(monkeypatch, *ESTIMATE, "--costs", "costs.json", "--like", "earlier", "--json") == 0
    out, err = capsys.readouterr()
    base, method = json.loads(out)["estimate"]["modes"]

    assert (base["tokens"], base["by"], base["solves"]) == (200, "`base`", 50)
    assert method["by"] == "its whole budget"
    assert "note: one solve at a time is reckoned with" in err
    assert carry_out(monkeypatch, *ESTIMATE, "--costs", "costs.json", "--concurrency", "8") == 0
    out, err = capsys.readouterr()
    assert "Hours, 8 at a time" in out
    assert "100 solves" in out
    assert err == ""


@pytest.mark.parametrize(
    ("command", "complaint", "hint"),
    [
        (ESTIMATE, "nobody knows what tokens cost", "`specreason up`, or name a file with `--costs`"),
        ((*ESTIMATE, "--costs", "none.json"), "cannot read `none.json`", ""),
        ((*ESTIMATE, "--costs", "mine.toml"), "`mine.toml` has no costs in it", "bench --calibrate --out FILE"),
        ((*ESTIMATE, "--costs", "empty.json"), "`empty.json` has no costs in it", "bench --calibrate --out FILE"),
        ((*ESTIMATE, "--costs", "costs.json", "--like", "nope"), "there is no run `nope`", "specreason list"),
        (("eval", "mine.toml", "--estimate"), "hours are reckoned by `--dry-run --estimate`", "`--like RUN`"),
        (
            ("eval", "mine.toml", "--dry-run", "--like", "x"),
            "hours are reckoned by `--dry-run --estimate`",
            "`--costs FILE`",
        ),
    ],
)
def test_mistakes_are_told_in_a_line(
    command: tuple[str, ...], complaint: str, hint: str, files: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (files / "empty.json").write_text(COSTS.model_copy(update={"base": []}).model_dump_json())

    assert carry_out(monkeypatch, *command) == 2
    told = capsys.readouterr().err.splitlines()
    assert complaint in told[-2 if hint else -1]
    assert hint in told[-1]


def test_a_dry_run_and_its_hours_do_without_sglang(files: Path) -> None:
    code = (
        "import sys\n"
        "from specreason_sgl.cli import app\n"
        "options = ['--dry-run', '--estimate', '--costs', 'costs.json', '--json']\n"
        "sys.argv = ['specreason', 'eval', 'methods', *options]\n"
        "code = app.main()\n"
        "print([name for name in ('sglang', 'torch') if name in sys.modules], code, file=sys.stderr)\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=files,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    told = json.loads(made.stdout)
    assert told["job"]["modes"][2]["parameters"]["threshold"] == 7
    assert told["estimate"]["modes"][2]["seconds"] > 0
    assert made.stderr.splitlines()[-1] == "[] 0"


@pytest.mark.server
def test_the_command_measures_on_servers_that_are_up(
    servers: RunningPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, few in (("ROUNDS", 1), ("BATCHES", (1,)), ("CONTEXTS", (128,))):
        monkeypatch.setattr(cost_model, name, few)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(JOB)
    where = ("--base", servers.base.url, "--small", servers.small.url, "--api-key", str(servers.base.api_key))

    assert carry_out(monkeypatch, *ESTIMATE, *where, "--set", "settings.budget=9000", "--json") == 0
    out, err = capsys.readouterr()
    made = json.loads(out)["estimate"]
    assert all(mode["seconds"] > 0 for mode in made["modes"])
    assert made["at_once"] > 1
    assert "note: the base server's context of 4096 tokens has room for" in err
