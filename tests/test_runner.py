"""Runs that are killed, resumed, refused, and that fail, on a pair that solves stories without a model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from batches import stored_lines, wait_for

from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.datasets import DatasetSpec, load, told_story
from specreason_sgl.evaluation.grading import Grader, outcome
from specreason_sgl.evaluation.job import Job
from specreason_sgl.evaluation.modes import acceptance
from specreason_sgl.evaluation.runner import Runner, TooManyFailures, done, stretches
from specreason_sgl.events import AnswerWritten, SolveFailed, StepTaken
from specreason_sgl.pair.stories import story
from specreason_sgl.solve import Pair
from specreason_sgl.store import Done, Problem, RunConfig, RunWriter, SolveRecord, closing, read_run
from specreason_sgl.testing import StoryBackend
from specreason_sgl.view.batch_sinks import SilentBatch

ROOT = Path(__file__).parents[1]
SAME = ("job", "models")
ALL = [{"kind": "base"}, {"kind": "small"}, {"kind": "specreason"}, {"kind": "random"}, {"kind": "oracle"}]


def make_job(*modes: dict[str, Any], **fields: Any) -> Job:
    row = {"name": "j", "dataset": {"name": "stories", "limit": 4}, "concurrency": 1, "modes": list(modes or ALL)}
    return Job.model_validate({**row, **fields})


def make_pair(skill: float = 0.7, **options: Any) -> Pair:
    told = [story(seed) for seed in range(50)]
    return Pair(StoryBackend("base", told, **options), StoryBackend("small", told, skill=skill, **options))


def config(job: Job, **more: Any) -> RunConfig:
    row = {"created": datetime.now(UTC), "program": job.name, "pair": "none", "job": job.model_dump(mode="json")}
    return RunConfig.model_validate({**row, **more})


def execute(
    folder: Path,
    job: Job,
    pair: Pair | None = None,
    *,
    resume: bool = False,
    problems: list[Problem] | None = None,
    fail_on_error: float | None = None,
) -> list[SolveRecord]:
    earlier: list[Done] = []
    if resume:
        writer, earlier = RunWriter.resume(folder, config(job), SAME, done)
    else:
        writer = RunWriter(folder, config(job))
    with closing(writer), Grader("exact") as grader:
        problems = load(job.dataset) if problems is None else problems
        runner = Runner(job, problems, pair or make_pair(), writer, grader, SilentBatch(), fail_on_error=fail_on_error)
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
    job = make_job(repeats=2)
    records = execute(tmp_path / "run", job)
    by_mode = {mode.name: [r for r in records if r.mode == mode.name] for mode in job.modes}

    assert {name: len(some) for name, some in by_mode.items()} == dict.fromkeys(by_mode, 8)
    assert len({record.key for record in records}) == 40
    assert all(outcome(record) == "right" for record in by_mode["base"] + by_mode["oracle"])
    assert any(outcome(record) == "wrong" for record in by_mode["small"])


@pytest.mark.server
def test_every_mode_on_the_real_pair(tmp_path: Path, pair: Pair) -> None:
    job = make_job(
        repeats=2, settings={"budget": 320, "temperature": 0.0}, dataset={"name": "stories", "limit": 2, "seed": 300}
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


def broken_pair() -> Pair:
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
        deadlines: list[float] = []  # noqa: RUF012 - one list for all copies

        def until(self, deadline: float) -> Late:
            self.deadlines.append(deadline - time.monotonic())
            return self

    pair = Pair(Late("base", [story(seed) for seed in range(4)]), make_pair().small)
    execute(tmp_path / "run", make_job({"kind": "base"}, problem_limit_s=12), pair)

    assert Late.deadlines == [pytest.approx(12, abs=1)] * 4


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


@pytest.mark.parametrize("torn", [b'{"problem": {"id": "st', b"garbage\n", b"\n"])
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
        ({"settings": {"threshold": 3}}, ["`job.settings.threshold`", "`job.modes[0].settings.threshold`"]),
        ({"dataset": {"name": "stories", "limit": 5}}, ["`job.dataset.limit` was 4 and is 5"]),
        ({"seed": 1, "concurrency": 2}, ["`job.seed`", "`job.concurrency`"]),
    ],
)
def test_a_changed_job_is_refused_by_the_names_of_what_differs(
    tmp_path: Path, change: dict[str, Any], names: list[str]
) -> None:
    execute(tmp_path / "run", make_job({"kind": "base"}))
    before = (tmp_path / "run" / "solves.jsonl").read_bytes()

    with pytest.raises(UsageError) as error:
        execute(tmp_path / "run", make_job({"kind": "base"}, **change), resume=True)
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


def test_an_interrupted_run_is_tidy_and_goes_on(tmp_path: Path) -> None:
    process = start(tmp_path / "run")
    wait_for(lambda: stored_lines(tmp_path / "run") >= 3)
    process.send_signal(signal.SIGINT)

    assert process.wait(timeout=30) == 130
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "cancelled"
    assert len(execute(tmp_path / "run", make_job(repeats=2), resume=True)) == 40


def test_grading_is_not_on_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(_self: Grader, _answer: str, _gold: str) -> bool:
        time.sleep(0.3)
        return True

    monkeypatch.setattr(Grader, "same", slowly)
    (record,) = execute(tmp_path / "run", make_job({"kind": "base"}, dataset={"name": "stories", "limit": 1}))

    assert record.tally.elapsed < 0.3
    assert any(isinstance(event, AnswerWritten) for event in record.events)
    assert DatasetSpec(name="stories").graded == "exact"
