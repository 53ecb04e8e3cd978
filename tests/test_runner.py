"""Runs that are killed, resumed, refused, and that fail, on a pair that solves stories without a model."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest
from batches import stored_lines, wait_for

from specreason_sgl.embedded.stories import story
from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.datasets import DatasetSpec, load, told_story
from specreason_sgl.evaluation.evaluating import job_config
from specreason_sgl.evaluation.fleet import Fleet
from specreason_sgl.evaluation.grading import Grader, outcome
from specreason_sgl.evaluation.job import Job, resolved
from specreason_sgl.evaluation.modes import Server, acceptance, load_programs
from specreason_sgl.evaluation.report import report_run
from specreason_sgl.evaluation.runner import Runner, TooManyFailures, done, known, stretches
from specreason_sgl.events import AnswerWritten, SolveFailed, StepTaken
from specreason_sgl.lang.loading import comes_with_us
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.scope import Scope
from specreason_sgl.runs.store import Done, Problem, RunConfig, RunWriter, SolveRecord, closing, read_run
from specreason_sgl.testing import StoryBackend
from specreason_sgl.view.batch_sinks import SilentBatch

ROOT = Path(__file__).parents[1]
SAME = ("job", "models")
ALL = [{"kind": "base"}, {"kind": "small"}, {"kind": "specreason"}, {"kind": "random"}, {"kind": "oracle"}]


def make_job(*modes: dict[str, Any], **fields: Any) -> Job:
    row = {"name": "j", "dataset": {"name": "stories", "limit": 4}, "concurrency": 1, "modes": list(modes or ALL)}
    return Job.model_validate({**row, **fields})


def make_pair(skill: float = 0.7, **options: Any) -> Pair[StoryBackend]:
    told = [story(seed) for seed in range(50)]
    return Pair(StoryBackend("base", told, **options), StoryBackend("small", told, skill=skill, **options))


def config(job: Job, **more: Any) -> RunConfig:
    job = resolved(job, load_programs(job.modes))
    row = {"created": datetime.now(UTC), "program": job.name, "pair": "none", "job": job.model_dump(mode="json")}
    return RunConfig.model_validate({**row, **more})


def execute(
    folder: Path,
    job: Job,
    pair: Pair[Server] | None = None,
    *,
    resume: bool = False,
    problems: list[Problem] | None = None,
    fail_on_error: float | None = None,
) -> list[SolveRecord]:
    earlier: list[Done] = []
    if resume:
        writer, earlier = RunWriter.resume(folder, config(job), SAME, done, known(job))
    else:
        writer = RunWriter(folder, config(job))
    with closing(writer), Grader("exact") as grader:
        problems = load(job.dataset) if problems is None else problems
        runner = Runner(
            job, problems, Fleet({"": pair or make_pair()}), writer, grader, SilentBatch(), fail_on_error=fail_on_error
        )
        ended = runner.run(earlier)
    records = read_run(folder).records
    assert ended == [Done.of(record) for record in records]
    return records


def told(records: list[SolveRecord]) -> set[tuple[Any, ...]]:
    """What a run says, clocks aside."""
    return {
        (r.problem.id, r.mode, r.repeat, r.seed, outcome(r), *(e.text for e in r.events if isinstance(e, StepTaken)))
        for r in records
    }


def test_every_mode_on_every_problem(tmp_path: Path) -> None:
    job = make_job(repeats=2, seed=1)
    records = execute(tmp_path / "run", job)
    by_mode = {mode.name: [r for r in records if r.mode == mode.name] for mode in job.modes}

    assert {name: len(some) for name, some in by_mode.items()} == dict.fromkeys(by_mode, 8)
    assert len({record.key for record in records}) == 40
    assert all(outcome(record) == "right" for record in by_mode["base"] + by_mode["oracle"])
    assert any(outcome(record) == "wrong" for record in by_mode["small"])


@pytest.mark.server
def test_every_mode_on_the_real_pair(tmp_path: Path, pair: Pair[Endpoint]) -> None:
    job = make_job(
        repeats=2, settings={"budget": 320, "temperature": 0.0}, dataset={"name": "tales", "limit": 2, "seed": 300}
    )
    records = execute(tmp_path / "run", job, pair)
    first, again = ([r.tally for r in records if r.mode == "base" and r.repeat == repeat] for repeat in (0, 1))

    assert len(records) == 20
    assert {outcome(record) for record in records} <= {"right", "wrong", "no-answer", "truncated"}
    assert sum(t.cached_tokens["base"] for t in again) > sum(t.cached_tokens["base"] for t in first), "repeats share"
    assert {record.tally.judged > 0 for record in records if record.mode in {"specreason", "random", "oracle"}} == {
        True
    }


def test_modes_share_the_random_stream_of_a_problem_and_repeats_do_not(tmp_path: Path) -> None:
    records = execute(tmp_path / "run", make_job({"kind": "small"}, {"kind": "base"}, repeats=2))
    seeds = {(record.problem.id, record.repeat): record.seed for record in records}

    assert len(set(seeds.values())) == 8
    assert all(record.seed == seeds[record.problem.id, record.repeat] for record in records)


def test_the_control_accepts_as_often_as_the_judge_and_another_lot(tmp_path: Path) -> None:
    job = make_job({"kind": "specreason"}, {"kind": "random"}, dataset={"name": "stories", "limit": 40})
    records = execute(tmp_path / "run", job)
    judge, control = ([r for r in records if r.mode == mode.name] for mode in job.modes)
    aimed, reached = (acceptance(record.tally for record in some) for some in (judge, control))

    assert aimed is not None
    assert reached == pytest.approx(aimed, abs=0.12)
    assert not any(event.kind == "judge" for r in control for event in r.events if event.type == "call_made")  # type: ignore[attr-defined]
    assert sum(outcome(r) == "right" for r in control) < sum(outcome(r) == "right" for r in judge)


def test_the_oracle_accepts_exactly_the_right_drafts(tmp_path: Path) -> None:
    records = execute(tmp_path / "run", make_job({"kind": "oracle"}))

    for record in records:
        known = told_story(record.problem)
        assert known is not None
        assert tuple(e.text for e in record.events if isinstance(e, StepTaken)) == known.steps
    assert all(record.tally.accepted == record.tally.steps["small"] for record in records)
    assert any(record.tally.accepted < record.tally.judged for record in records)


def test_repeats_of_a_problem_come_together_and_modes_take_turns() -> None:
    problems = [Problem(id=name, question=name, answer="1") for name in "pq"]
    job = make_job({"kind": "base"}, {"kind": "small"}, repeats=2)
    alone = [[(w.problem.id, w.mode.name, w.repeat) for w in s] for s in stretches(job, problems, job.modes)]
    many = list(stretches(job.model_copy(update={"concurrency": 3}), problems, job.modes))

    assert alone == [
        [("p", "base", 0), ("p", "base", 1)],
        [("p", "small", 0), ("p", "small", 1)],
        [("q", "small", 0), ("q", "small", 1)],
        [("q", "base", 0), ("q", "base", 1)],
    ]
    assert [{w.mode.name for w in stretch} for stretch in many] == [{"base"}, {"small"}]
    assert [(w.problem.id, w.repeat) for w in many[0]] == [("p", 0), ("p", 1), ("q", 0), ("q", 1)]


def test_concurrency_changes_nothing_but_time(tmp_path: Path) -> None:
    alone = execute(tmp_path / "alone", make_job(repeats=2))
    many = execute(tmp_path / "many", make_job(repeats=2, concurrency=4))

    assert told(alone) == told(many)


class Flushed(StoryBackend):
    """Counts how often its cache is emptied, and may refuse."""

    flushes = 0
    refuses = False

    def flush_cache(self) -> None:
        type(self).flushes += 1
        if self.refuses:
            raise RuntimeError("busy")


@pytest.mark.parametrize(("wanted", "flushes"), [(True, 8), (False, 0)])
def test_no_mode_profits_from_what_another_has_read(tmp_path: Path, *, wanted: bool, flushes: int) -> None:
    Flushed.flushes = 0
    pair = Pair(Flushed("base", [story(seed) for seed in range(4)]), make_pair().small)
    execute(tmp_path / "run", make_job({"kind": "base"}, {"kind": "small"}, repeats=2, flush_cache=wanted), pair)

    assert Flushed.flushes == flushes


def test_a_cache_that_somebody_else_uses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Flushed, "refuses", True)
    monkeypatch.setattr("specreason_sgl.evaluation.runner._FLUSH_S", 0.2)
    pair = Pair(Flushed("base", []), make_pair().small)

    with pytest.raises(UsageError, match="somebody else is using it"):
        execute(tmp_path / "run", make_job({"kind": "base"}), pair)


class Broken(StoryBackend):
    """Knows none of the stories whose question holds its word."""

    word = "marbles"

    def generate(self, s: Any, sampling_params: Any) -> tuple[str, dict[str, Any]]:
        if self.word in s.text_:
            raise RuntimeError(f"no {self.word} here")
        return super().generate(s, sampling_params)


def broken_pair() -> Pair[StoryBackend]:
    return Pair(Broken("base", [story(seed) for seed in range(50)]), make_pair().small)


def test_a_failing_problem_is_a_row_with_its_error(tmp_path: Path) -> None:
    job = make_job({"kind": "base"}, dataset={"name": "stories", "limit": 30})
    records = execute(tmp_path / "run", job, broken_pair())
    failed = [record for record in records if outcome(record) == "failed"]

    assert len(records) == 30
    assert 0 < len(failed) < 30
    assert {("marbles" in r.problem.question) for r in failed} == {True}
    assert {r.tally.error for r in failed} == {"a call to a model failed: no marbles here"}
    status = read_run(tmp_path / "run").status
    assert status is not None
    assert status.status == "success"


def test_a_program_that_raises_is_a_row_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("import sglang as sgl\n@sgl.function\ndef mine(s, trace, word='x'):\n    raise ValueError(word)\n")
    records = execute(tmp_path / "run", make_job({"program": str(path), "parameters": {"word": "oh"}}))

    assert {record.tally.error for record in records} == {"mine.py:4: ValueError: oh"}


@pytest.mark.parametrize("allowed", [0.05, 1, 0])
def test_too_many_failures_end_the_run(tmp_path: Path, allowed: float) -> None:
    job = make_job({"kind": "base"}, dataset={"name": "stories", "limit": 30})
    with pytest.raises(TooManyFailures, match="no marbles here"):
        execute(tmp_path / "run", job, broken_pair(), fail_on_error=allowed)
    stored = read_run(tmp_path / "run")

    assert stored.status is not None
    assert stored.status.status == "error"
    assert sum(outcome(r) == "failed" for r in stored.records) == int(max(allowed, allowed * 30 * (allowed < 1))) + 1


def test_a_few_failures_may_be_allowed(tmp_path: Path) -> None:
    job = make_job({"kind": "base"}, dataset={"name": "stories", "limit": 30})

    assert len(execute(tmp_path / "run", job, broken_pair(), fail_on_error=0.9)) == 30


def test_a_solve_that_takes_too_long_is_told_when_to_stop(tmp_path: Path) -> None:
    class Late(StoryBackend):
        left: list[float | None] = []  # noqa: RUF012 - one list for all copies

        def within(self, scope: Scope, **more: Any) -> Self:
            self.left.append(scope.left())
            return super().within(scope, **more)

    pair = Pair(Late("base", [story(seed) for seed in range(4)]), make_pair().small)
    execute(tmp_path / "run", make_job({"kind": "base"}, problem_limit_s=12), pair)

    assert Late.left == [pytest.approx(12, abs=1)] * 4


@pytest.mark.parametrize(("mode", "missing"), [("base", "base"), ("specreason", "small"), ("small", "small")])
def test_a_missing_server_is_told_before_anything_runs(tmp_path: Path, mode: str, missing: str) -> None:
    pair = make_pair()
    pair = Pair(None, pair.small) if missing == "base" else Pair(pair.base, None)

    with pytest.raises(UsageError, match=f"needs a {missing} model"):
        execute(tmp_path / "run", make_job({"kind": mode}), pair)


def test_a_resumed_run_does_only_what_is_owed(tmp_path: Path) -> None:
    job = make_job(repeats=2)
    whole = execute(tmp_path / "whole", job)
    first = make_job(*ALL[:2], repeats=2)
    execute(tmp_path / "run", first)
    path = tmp_path / "run" / "config.json"
    path.write_text(config(job).model_dump_json())
    before = (tmp_path / "run" / "solves.jsonl").read_bytes()
    resumed = execute(tmp_path / "run", job, resume=True)

    assert told(resumed) == told(whole)
    assert (tmp_path / "run" / "solves.jsonl").read_bytes().startswith(before)
    assert told(execute(tmp_path / "run", job, resume=True)) == told(whole)


@pytest.mark.parametrize("torn", [b'{"problem": {"id": "st', b"garbage", b"\n"])
def test_a_torn_line_is_taken_out_and_its_solve_owed_again(tmp_path: Path, torn: bytes) -> None:
    job = make_job({"kind": "small"})
    whole = execute(tmp_path / "run", job)
    path = tmp_path / "run" / "solves.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + torn)
    resumed = execute(tmp_path / "run", job, resume=True)

    assert told(resumed) == told(whole)
    assert path.read_bytes().startswith(b"".join(lines[:-1]))
    assert len(path.read_bytes().splitlines()) == len(lines)


def of_a_later_version(line: bytes) -> bytes:
    """A solve whose line this version cannot read, though it says which solve it is."""
    return json.dumps(json.loads(line) | {"started": ["of", "another", "form"], "later": {"x": True}}).encode()


@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_whole_line_that_cannot_be_read_stays_byte_for_byte_and_is_not_solved_again(
    tmp_path: Path, place: int
) -> None:
    job = make_job({"kind": "small"})
    whole = execute(tmp_path / "run", job)
    path = tmp_path / "run" / "solves.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[place] = of_a_later_version(lines[place]) + b"\n"
    path.write_bytes(b"".join(lines) + b'{"problem": {"id": "st')
    writer, earlier = RunWriter.resume(tmp_path / "run", config(job), SAME, done)
    writer.close("success")

    assert path.read_bytes() == b"".join(lines)
    assert {one.key for one in earlier} == {record.key for record in whole}
    (remark,) = writer.remarks
    assert remark.startswith(f"lines of `solves.jsonl` that this version cannot read stay as they are: {place + 1};")
    assert remark.endswith("1 of 1 tell which solve they are of and count as done")
    assert read_run(tmp_path / "run").remarks == [
        f"line {place + 1} of `solves.jsonl` is unknown to this version and left out"
    ]


@pytest.mark.parametrize(
    "line", [b"garbage", b"\0\0\0", b'{"kind": "note"}', b"[" * 10_000, b'{"problem": 1}', b'{"events": null}']
)
def test_a_whole_line_that_does_not_say_what_it_is_of_stays_and_counts_as_no_solve(tmp_path: Path, line: bytes) -> None:
    job = make_job({"kind": "small"})
    whole = execute(tmp_path / "run", job)
    path = tmp_path / "run" / "solves.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + line + b"\n" + lines[2])
    writer, earlier = RunWriter.resume(tmp_path / "run", config(job), SAME, done)
    writer.close("success")

    assert path.read_bytes() == lines[0] + line + b"\n" + lines[2]
    assert [one.key for one in earlier] == [whole[0].key, whole[2].key]
    assert "stay as they are: 2; 0 of 1 tell" in writer.remarks[0]


@pytest.mark.parametrize("later", [False, True])
def test_a_last_line_that_lacks_only_its_end_is_whole(tmp_path: Path, *, later: bool) -> None:
    job = make_job({"kind": "small"})
    execute(tmp_path / "run", job)
    path = tmp_path / "run" / "solves.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    last = of_a_later_version(lines[-1]) if later else lines[-1].rstrip(b"\n")
    path.write_bytes(b"".join(lines[:-1]) + last)
    writer, earlier = RunWriter.resume(tmp_path / "run", config(job), SAME, done)
    writer.close("success")

    assert path.read_bytes() == b"".join(lines[:-1]) + last + b"\n"
    assert len(earlier) == 4


def test_an_ending_of_a_later_version_is_done_and_loses_nothing(tmp_path: Path) -> None:
    job = make_job({"kind": "small"})
    execute(tmp_path / "run", job)
    path = tmp_path / "run" / "solves.jsonl"
    text = path.read_bytes().replace(b'"reason":"closed"', b'"reason":"voted","votes":[3,2]')
    path.write_bytes(text)
    resumed = execute(tmp_path / "run", job, resume=True)

    assert b"voted" in text
    assert path.read_bytes() == text
    assert {outcome(record) for record in resumed} <= {"right", "wrong"}


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b'{"schema_version": 2, "created": {}}', "is a run of a later version"),
        (b'{"created": ', "cannot be read"),
        (b"[]", "cannot be read"),
        (b'{"created": "2026-01-01T00:00:00Z"}', "cannot be read"),
    ],
)
def test_a_configuration_that_this_version_cannot_read_is_not_gone_on_with(
    tmp_path: Path, stored: bytes, message: str
) -> None:
    job = make_job({"kind": "small"})
    execute(tmp_path / "run", job)
    (tmp_path / "run" / "config.json").write_bytes(stored)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    with pytest.raises(UsageError, match=message):
        execute(tmp_path / "run", job, resume=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_solves_without_a_configuration_are_not_added_to(tmp_path: Path) -> None:
    job = make_job({"kind": "small"})
    execute(tmp_path / "run", job)
    (tmp_path / "run" / "config.json").unlink()

    for resume in (True, False):
        with pytest.raises(UsageError, match="holds solves"):
            execute(tmp_path / "run", job, resume=resume)


def test_going_on_keeps_what_it_does_not_know_of_configuration_and_status(tmp_path: Path) -> None:
    job = make_job({"kind": "small"})
    execute(tmp_path / "run", job)
    for name in ("config.json", "status.json"):
        path = tmp_path / "run" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"of_tomorrow": {"x": [1]}}))
    before = (tmp_path / "run" / "config.json").read_bytes()
    execute(tmp_path / "run", job, resume=True)

    assert (tmp_path / "run" / "config.json").read_bytes() == before
    told = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (told["status"], told["of_tomorrow"]) == ("success", {"x": [1]})


def test_what_the_first_version_could_not_ask_for_is_no_change_unless_it_is_asked_for(tmp_path: Path) -> None:
    execute(tmp_path / "run", make_job({"kind": "small"}))
    path = tmp_path / "run" / "config.json"
    stored = json.loads(path.read_text())
    for place in (stored["job"], stored["job"]["modes"][0]):
        del place["settings"]["max_step_tokens"]
    del stored["job"]["flush_cache"]
    path.write_text(json.dumps(stored))

    assert len(execute(tmp_path / "run", make_job({"kind": "small"}), resume=True)) == 4
    with pytest.raises(UsageError, match=r"`job.modes\[0\].settings.max_step_tokens` was 512 and is 9"):
        execute(tmp_path / "run", make_job({"kind": "small", "max_step_tokens": 9}), resume=True)
    with pytest.raises(UsageError, match=r"`job.flush_cache` was true and is false"):
        execute(tmp_path / "run", make_job({"kind": "small"}, flush_cache=False), resume=True)


def test_a_form_of_the_answer_counts_only_where_one_is_asked_for(tmp_path: Path) -> None:
    execute(tmp_path / "run", make_job({"kind": "small"}))
    stored = json.loads((tmp_path / "run" / "config.json").read_text())

    assert not {"stop", "json_schema", "regex"} & stored["job"]["settings"].keys(), "earlier versions read it too"
    with pytest.raises(UsageError, match=r'`job.modes\[0\].settings.stop` was null and is \["##", "\$\$"\]'):
        execute(tmp_path / "run", make_job({"kind": "small", "settings": {"stop": ["##", "$$"]}}), resume=True)
    asked = make_job({"kind": "small", "regex": "[0-9]+"}, settings={"stop": "##"})
    execute(tmp_path / "other", asked)
    assert len(execute(tmp_path / "other", asked, resume=True)) == 4


def go_on(folder: Path, asked: int | None, fitted: int) -> tuple[list[int], list[str]]:
    """What the configuration says of concurrency when a run has gone on, and what was told."""
    job = make_job({"kind": "small"}, concurrency=asked)
    writer, _ = RunWriter.resume(folder, config(job, concurrency=[fitted]), SAME, done)
    writer.close("success")
    stored = json.loads((folder / "config.json").read_text())
    return stored["concurrency"], writer.remarks


def test_servers_that_take_another_number_of_solves_do_not_keep_a_run_from_going_on(tmp_path: Path) -> None:
    told = ["the run goes on with 12 solves at a time, where it was 16 before"]

    assert go_on(tmp_path / "run", None, 16) == ([16], [])
    assert go_on(tmp_path / "run", None, 16) == ([16], [])
    assert go_on(tmp_path / "run", None, 12) == ([16, 12], told)
    assert go_on(tmp_path / "run", None, 12) == ([16, 12], [])
    with pytest.raises(UsageError, match=r"`job.concurrency` was null and is 12"):
        go_on(tmp_path / "run", 12, 12)


def go_on_with(folder: Path, **digests: str) -> tuple[list[str], dict[str, Any]]:
    """What is told of a run that goes on with programs of these digests, and its configuration after that."""
    now = config(make_job({"kind": "small"}), programs=digests)
    writer, _ = RunWriter.resume(folder, now, (*SAME, "programs"), done, ours=lambda name: name.startswith("stock"))
    writer.close("success")
    return writer.remarks, json.loads((folder / "config.json").read_text())


def test_a_run_goes_on_with_a_later_versions_programs_and_says_so_once(tmp_path: Path) -> None:
    told = "programs that come with the package have changed since the run was begun: "
    go_on_with(tmp_path / "run", stock_a="1", stock_b="1", mine="1")

    assert go_on_with(tmp_path / "run", stock_a="1", stock_b="1", mine="1")[0] == []
    remarks, stored = go_on_with(tmp_path / "run", stock_a="2", stock_b="2", mine="1")
    assert remarks == [f"{told}`stock_a`, `stock_b`"]
    assert stored["programs"] == {"stock_a": "1", "stock_b": "1", "mine": "1"}
    assert [row["programs"] for row in stored["renewed_programs"]] == [{"stock_a": "2", "stock_b": "2"}]
    assert go_on_with(tmp_path / "run", stock_a="2", stock_b="2", mine="1") == ([], stored)
    remarks, stored = go_on_with(tmp_path / "run", stock_a="2", stock_b="3", mine="1")
    assert remarks == [f"{told}`stock_b`"]
    assert [row["programs"] for row in stored["renewed_programs"]][1:] == [{"stock_b": "3"}]
    run = read_run(tmp_path / "run")
    assert "went on with a later version's programs: stock_a, stock_b" in report_run(run).remarks


def test_a_program_of_ones_own_that_has_changed_is_refused_with_what_to_do(tmp_path: Path) -> None:
    go_on_with(tmp_path / "run", **{"stock_a": "1", "mine.py": "1"})
    before = (tmp_path / "run" / "config.json").read_bytes()

    with pytest.raises(UsageError, match=r'`programs.mine.py` was "1" and is "2"') as refused:
        go_on_with(tmp_path / "run", **{"stock_a": "2", "mine.py": "2"})
    assert refused.value.hint is not None
    assert refused.value.hint.startswith("give `mine.py` the text back that it had when the run was begun")
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_programs_that_come_with_the_package_are_known_by_where_they_lie(tmp_path: Path) -> None:
    mine = tmp_path / "specreason.py"
    mine.write_text("")

    assert comes_with_us("specreason")
    assert comes_with_us("random-accept")
    assert not comes_with_us(str(mine))


@pytest.mark.parametrize("command", [[], ["eval", "j.toml", "--out", "runs/concurrency"]])
def test_a_concurrency_that_the_first_version_fitted_does_not_count(tmp_path: Path, command: list[str]) -> None:
    first_version(tmp_path / "run", 16, command)

    assert go_on(tmp_path / "run", None, 12)[0] == [16, 12]
    assert go_on(tmp_path / "run", None, 14)[0] == [16, 12, 14]


@pytest.mark.parametrize("option", [["--concurrency", "1"], ["--concurrency=1"], ["--set", "concurrency=1"]])
def test_a_concurrency_that_was_asked_of_the_first_version_counts(tmp_path: Path, option: list[str]) -> None:
    first_version(tmp_path / "run", 1, ["eval", "j.toml", *option])

    with pytest.raises(UsageError, match=r"`job.concurrency` was 1 and is null"):
        go_on(tmp_path / "run", None, 16)
    writer, _ = RunWriter.resume(tmp_path / "run", config(make_job({"kind": "small"}), concurrency=[1]), SAME, done)
    writer.close("success")
    assert writer.remarks == []


def test_problems_of_the_first_version_are_the_same_problems() -> None:
    problems = [Problem(id="a", question="1+1?", answer="2"), Problem(id="b", question="?")]
    row = '{"id":"a","question":"1+1?","answer":"2"}\n{"id":"b","question":"?","answer":null}'

    def digest(*some: Problem) -> object:
        job = make_job({"kind": "small"})
        return (job_config(job, some, "none", {}, 1).model_extra or {})["problems"]

    assert digest(*problems) == hashlib.sha256(row.encode()).hexdigest()[:16]
    assert digest(problems[0].model_copy(update={"choice": True})) != digest(problems[0])


def first_version(folder: Path, concurrency: int, command: list[str]) -> None:
    """A run as the first version began it: what was fitted stands where what was asked does."""
    row = config(make_job({"kind": "small"}, concurrency=concurrency), command=command).model_dump(mode="json")
    del row["concurrency"]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(row))
    (folder / "solves.jsonl").touch()


def test_solves_lost_with_their_server_are_owed_again_and_other_failures_are_not(tmp_path: Path) -> None:
    job = make_job({"kind": "base"}, dataset={"name": "stories", "limit": 30})
    execute(tmp_path / "run", job, broken_pair())
    path = tmp_path / "run" / "solves.jsonl"
    records = read_run(tmp_path / "run").records
    failed = [record for record in records if outcome(record) == "failed"]
    lost = failed[0].model_copy(
        update={
            "events": [
                e.model_copy(update={"exit_code": 3}) if isinstance(e, SolveFailed) else e for e in failed[0].events
            ]
        }
    )
    path.write_text("".join(r.model_dump_json() + "\n" for r in (*(r for r in records if r is not failed[0]), lost)))
    resumed = execute(tmp_path / "run", job, resume=True)

    assert len(resumed) == 30
    assert sum(outcome(record) == "failed" for record in resumed) == len(failed) - 1


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"repeats": 3}, ["`job.repeats` was 1 and is 3"]),
        ({"settings": {"budget": 3}}, ["`job.settings.budget`", "`job.modes[0].settings.budget`"]),
        ({"parameters": {"threshold": 3}}, ["`job.modes[0].parameters.threshold` was 7.0 and is 3.0"]),
        ({"dataset": {"name": "stories", "limit": 5}}, ["`job.dataset.limit` was 4 and is 5"]),
        ({"seed": 1, "concurrency": 2}, ["`job.seed`", "`job.concurrency`"]),
    ],
)
def test_a_changed_job_is_refused_by_the_names_of_what_differs(
    tmp_path: Path, change: dict[str, Any], names: list[str]
) -> None:
    execute(tmp_path / "run", make_job({"kind": "specreason"}))
    before = (tmp_path / "run" / "solves.jsonl").read_bytes()

    with pytest.raises(UsageError) as error:
        execute(tmp_path / "run", make_job({"kind": "specreason"}, **change), resume=True)
    assert all(name in str(error.value) for name in names)
    assert (tmp_path / "run" / "solves.jsonl").read_bytes() == before


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    execute(tmp_path / "run", make_job({"kind": "base"}))

    with pytest.raises(UsageError, match="already holds a run"):
        execute(tmp_path / "run", make_job({"kind": "base"}))


def test_resuming_what_is_not_there_begins_it(tmp_path: Path) -> None:
    assert len(execute(tmp_path / "run", make_job({"kind": "base"}), resume=True)) == 4


@pytest.mark.parametrize("resume", [True, False])
def test_two_at_one_run_are_refused(tmp_path: Path, *, resume: bool) -> None:
    job = make_job({"kind": "base"})
    writer = RunWriter(tmp_path / "run", config(job))

    with pytest.raises(UsageError, match="another process is writing"):
        execute(tmp_path / "run", job, resume=resume)
    writer.close("success")
    assert len(execute(tmp_path / "run", job, resume=True)) == 4


SCRIPT = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
from pathlib import Path
import test_runner as t

try:
    t.execute(Path(sys.argv[1]), t.make_job(repeats=2), t.make_pair(seconds_per_call=0.01), resume=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    code = SCRIPT.format(tests=str(Path(__file__).parent), root=str(ROOT))
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], env={**os.environ, "PYTHONHASHSEED": "0"})


@pytest.mark.slow
def test_a_killed_run_goes_on_and_equals_one_that_was_not(tmp_path: Path) -> None:
    whole = execute(tmp_path / "whole", make_job(repeats=2))
    for enough in (3, 17):
        process = start(tmp_path / "run")
        wait_for(lambda enough=enough: stored_lines(tmp_path / "run") >= enough)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 17 <= stored_lines(tmp_path / "run") < 40
    resumed = execute(tmp_path / "run", make_job(repeats=2), resume=True)

    assert told(resumed) == told(whole)


@pytest.mark.slow
def test_an_interrupted_run_is_tidy_and_goes_on(tmp_path: Path) -> None:
    process = start(tmp_path / "run")
    wait_for(lambda: stored_lines(tmp_path / "run") >= 3)
    process.send_signal(signal.SIGINT)

    assert process.wait(timeout=30) == 130
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "cancelled"
    assert len(execute(tmp_path / "run", make_job(repeats=2), resume=True)) == 40


def test_grading_is_not_on_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(_self: Grader, _answer: str, _gold: str) -> bool:
        time.sleep(1)
        return True

    monkeypatch.setattr(Grader, "same", slowly)
    (record,) = execute(tmp_path / "run", make_job({"kind": "base"}, dataset={"name": "stories", "limit": 1}))

    assert record.tally.elapsed < 1
    assert any(isinstance(event, AnswerWritten) for event in record.events)
    assert DatasetSpec(name="stories").graded == "exact"
