"""Runs that belong together: the same job in parts, reported as one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.cli import app
from specreason_sgl.embedded.stories import story
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.report import as_json, markdown, report_run, report_together
from specreason_sgl.evaluation.together import paired
from specreason_sgl.runs.store import Problem, Run, RunConfig, SolveRecord, read_run

JOB = """
repeats = 2
concurrency = 1
dataset = { name = "stories", limit = 5 }
settings = { budget = 500 }
modes = [
  { kind = "base" },
  { kind = "specreason" },
  { kind = "lookahead" },
  { kind = "base+decode" },
  { kind = "specreason+decode" },
  { kind = "lookahead+decode" },
]
"""
ALONE, DECODING = "base,specreason,lookahead", "base+decode,specreason+decode,lookahead+decode"


@pytest.fixture
def solve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs some modes of the job, on a pair that solves stories without a model; returns the stored run."""

    @contextmanager
    def opened(*_: Any) -> Iterator[Any]:
        from specreason_sgl.lang.pair import Pair
        from specreason_sgl.testing import StoryBackend

        known = [story(seed) for seed in range(10)]
        made = {role: StoryBackend(role, known) for role in ("base", "decode")}
        yield Pair(made["base"], StoryBackend("small", known, skill=0.7), {"decode": made["decode"]})

    monkeypatch.setattr("specreason_sgl.servers.opening.open_pair", opened)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(JOB)

    def solved(name: str, modes: str, *more: str) -> Run:
        options = ("--modes", modes, "--out", f"runs/{name}", "--display", "none", "--decode", "http://d", *more)
        assert call(monkeypatch, "eval", "mine.toml", *options) == 0
        return read_run(tmp_path / "runs" / name)

    return solved


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["specreason", *arguments])
    return app.main()


def test_two_runs_are_reported_as_one_and_it_is_said_that_they_are_two(
    solve: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, decoding = solve("alone", ALONE), solve("decoding", DECODING)
    capsys.readouterr()
    made = report_together([alone, decoding])
    whole = report_run(solve("whole", f"{ALONE},{DECODING}"))

    assert [(c.mode, c.against, c.problems) for c in made.statistics.comparisons] == [
        (c.mode, c.against, c.problems) for c in whole.statistics.comparisons
    ]
    assert {(c.mode, c.against) for c in made.statistics.comparisons} >= {
        ("base+decode", "base"),
        ("specreason+decode", "base"),
        ("specreason+decode", "base+decode"),
        ("lookahead+decode", "base+decode"),
    }
    assert all(c.speed_up and c.difference for c in made.statistics.comparisons)
    said = made.remarks[0]
    assert "latencies come from different runs" in said
    assert "`base`, `specreason`, `lookahead` from `alone`; `base+decode`" in said

    capsys.readouterr()
    assert call(monkeypatch, "report", "alone", "decoding", "--together", "--markdown") == 0
    shown = capsys.readouterr().out
    assert shown == markdown(made)
    assert said in shown
    assert "run: alone, success" in shown
    assert "run: decoding, success" in shown
    assert call(monkeypatch, "report", "alone", "decoding", "--together", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["comparisons"] == json.loads(json.dumps(as_json(made)))["comparisons"]
    assert [Path(told["run"]).name, *(Path(each["run"]).name for each in told["together"])] == ["alone", "decoding"]


def test_only_problems_and_repeats_that_all_modes_have_are_counted(solve: Any) -> None:
    alone, decoding = (
        solve("alone", "base,lookahead"),
        solve("decoding", "base+decode", "--limit", "3", "--repeats", "1"),
    )
    made = report_together([alone, decoding])

    assert {(s.problems, s.solves) for s in made.statistics.summaries} == {(3, 3)}
    assert "14 solves are left out: not every mode has their problem and repeat" in made.remarks


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--set", "dataset.seed=2"), "have not the same dataset: `seed` is `0` and `2`"),
        (("--set", "settings.budget=100"), "have not the same settings: `budget` is `500` and `100`"),
        (("--seed", "3"), "have not the same seed: `0` and `3`"),
        (("--concurrency", "2"), "have not the same number of solves at a time: 1 and 2"),
    ],
)
def test_runs_that_do_not_belong_together_are_told_in_a_line(
    solve: Any, more: Sequence[str], complaint: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    solve("alone", "base")
    solve("decoding", "base+decode", *more)
    capsys.readouterr()

    assert call(monkeypatch, "report", "alone", "decoding", "--together") == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert complaint in first
    assert [line.partition(":")[0] for line in rest] == ["hint"]


def test_models_and_machines_have_to_be_the_same(solve: Any) -> None:
    def changed(run: Run, **fields: Any) -> Run:
        assert run.config
        config = RunConfig.model_validate({**run.config.model_dump(), **fields})
        return Run(run.folder, config, run.status, run.records, [])

    alone, decoding = solve("alone", "base"), solve("decoding", "base+decode")
    models = {"base": "B", "small": "S"}
    with pytest.raises(UsageError, match="not the same models: `base` is `B` and `other`"):
        report_together([changed(alone, models=models), changed(decoding, models={"decode": "other", "small": "S"})])
    with pytest.raises(UsageError, match="not the same hardware: `gpus` is nothing and `H100`"):
        report_together([alone, changed(decoding, hardware={**alone.config.model_extra["hardware"], "gpus": "H100"})])
    made = report_together([changed(alone, models=models), changed(decoding, models={"decode": "B"})])
    assert [summary.mode for summary in made.statistics.summaries] == ["base", "base+decode"]


def test_a_model_that_another_takes_the_place_of_in_every_mode_may_be_any(solve: Any) -> None:
    def with_models(run: Run, modes: Sequence[dict[str, Any]], **models: str) -> Run:
        assert run.config
        config = RunConfig.model_validate({**run.config.model_dump(), "models": models})
        job = {**(config.model_extra or {})["job"], "modes": modes}
        records = [record.model_copy(update={"mode": modes[0]["name"]}) for record in run.records]
        return Run(run.folder, config.model_copy(update={"job": job}), run.status, records, [])

    alone, other = solve("alone", "base"), solve("other", "base+decode")
    assert alone.config
    (base,) = (alone.config.model_extra or {})["job"]["modes"]
    compressed = {**base, "name": "base-compressed", "roles": {"base": "compressed"}}
    whole = with_models(alone, [base], base="B", small="S")
    made = report_together([whole, with_models(other, [compressed], base="B-4bit", compressed="B-4bit", small="S")])

    assert [summary.mode for summary in made.statistics.summaries] == ["base", "base-compressed"]
    with pytest.raises(UsageError, match="not the same models: `base` is `B` and `B-4bit`"):
        report_together([whole, with_models(other, [{**base, "name": "again"}], base="B-4bit", small="S")])
    with pytest.raises(UsageError, match="not the same models: `small` is `S` and `T`"):
        report_together([whole, with_models(other, [compressed], base="B-4bit", compressed="B-4bit", small="T")])


def test_what_cannot_be_paired_at_all_is_told_in_a_line(solve: Any) -> None:
    alone = solve("alone", "base")
    assert alone.config
    bare = RunConfig.model_validate({**alone.config.model_dump(), "job": None})

    with pytest.raises(UsageError, match="`--together` needs two runs"):
        report_together([alone])
    with pytest.raises(UsageError, match="both runs have `base`"):
        report_together([alone, alone])
    with pytest.raises(UsageError, match="is no run of a job"):
        report_together([alone, Run(alone.folder, bare, None, alone.records, [])])


CELLS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("pq"), st.integers(0, 2)), unique=True)


@given(st.lists(CELLS, min_size=2, max_size=3))
def test_every_mode_has_the_same_problems_and_repeats(runs: list[list[tuple[str, str, int]]]) -> None:
    solves = [[record(f"{mode}{n}", problem, repeat) for mode, problem, repeat in run] for n, run in enumerate(runs)]
    try:
        kept, left_out = paired(solves)
    except UsageError:
        kept, left_out = [], sum(map(len, solves))
    by_mode = {
        mode: {(r.problem.question, r.repeat) for r in kept if r.mode == mode} for mode in {r.mode for r in kept}
    }

    assert len(kept) + left_out == sum(map(len, solves))
    assert len({frozenset(cells) for cells in by_mode.values()}) <= 1
    assert not kept or set(by_mode) == {r.mode for run in solves for r in run}


def record(mode: str, question: str, repeat: int) -> SolveRecord:
    return SolveRecord.model_validate(
        {
            "problem": Problem(id=question, question=question),
            "mode": mode,
            "repeat": repeat,
            "started": "2026-01-01T00:00:00Z",
            "events": [],
        }
    )
