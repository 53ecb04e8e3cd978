import gzip
import json
import os
import pickle
import pprint
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.cli import app
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.reference import Limits, convert, read_problems, read_rows, threshold_of
from specreason_sgl.events import CallMade, Noticed, SolveStarted, StepDrafted, StepScored, StepTaken
from specreason_sgl.runs import pickles
from specreason_sgl.runs.store import Problem, RunConfig, SolveRecord, read_run, writing
from specreason_sgl.text.scoring import LEAST

SHARED = Path(__file__).parents[2] / "shared" / "data"
REAL, AIME = SHARED / "qwq32b_r1-1.5b_aime60_steps.jsonl", SHARED / "aime24.jsonl"
RUNS, MATH500 = SHARED / "reference_runs", SHARED / "math500.jsonl"
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


def test_an_empty_text_of_the_base_model_beside_an_accepted_draft_is_none(tmp_path: Path) -> None:
    (record,) = imported([row(0, base="", stop_reason="finished")], tmp_path)

    assert [event.accepted for event in record.events if isinstance(event, StepScored)] == [True]
    assert [event.author for event in record.events if isinstance(event, StepTaken)] == ["small"]


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
    assert {next(e.threshold for e in r.events if isinstance(e, SolveStarted)) for r in records} == {None}, "6 or 7"
    for record, steps in zip(records, [[each for each in rows if each.run == run] for run in range(16)], strict=True):
        assert record.tally.judged == len(steps)
        assert record.tally.accepted == sum(step.base is None for step in steps)
        greedy = [event.greedy for event in record.events if isinstance(event, StepScored)]
        assert greedy == [step.score for step in steps]
        reaching = [event.reaching for event in record.events if isinstance(event, StepScored)]
        assert reaching == [step.judged.reaching(7) for step in steps if step.judged]


def reference_row(step: int, score: float | None = 8, **more: Any) -> dict[str, Any]:
    """A step under the reference's own names."""
    return {
        "step_id": step,
        "step_str": f"Step {step}.",
        "small_model_step": f"Step {step}.",
        "num_output_tokens_small": 6,
        "score": score,
        "base_model_step": None,
        "num_output_tokens_base": None,
        "final_num_output_tokens": 6,
        "justification": "8",
        **more,
    }


def rejected(step: int, score: float) -> dict[str, Any]:
    return reference_row(step, score, base_model_step=f"Step {step}.", num_output_tokens_base=5)


LAST = reference_row(1, step_str="So \\boxed{\\dfrac{14}{3}}.", stop_reason="finished")
WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "0.pickle": pickle.dumps,
    "0.pkl": lambda rows: pickle.dumps(rows, protocol=0),
    "0.txt": lambda rows: pprint.pformat(rows).encode(),
    "0.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "0.jsonl": lambda rows: "\r\n".join(map(json.dumps, rows)).encode("utf-8-sig"),
    "0.jsonl.gz": lambda rows: gzip.compress("\n".join(map(json.dumps, rows)).encode()),
    "0.PICKLE.gz": lambda rows: gzip.compress(pickle.dumps(rows)),
}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as the name of the file asks for, in `PROBLEM/RUN.*`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(next(write for name, write in WRITERS.items() if path.name.endswith(name[1:]))(rows))
    return path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["specreason", *map(str, arguments)])
        code = app.main()
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_of_a_run_holds_the_same_steps(name: str, tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path / "2" / name, [rejected(0, 5), LAST]))

    assert [(r.problem_id, r.run, r.step, r.base, r.score) for r in rows] == [
        ("2", 0, 0, "Step 0.", 5.0),
        ("2", 0, 1, None, 8.0),
    ]
    assert [row.tokens for row in rows] == [5, 6]


@needs_real
def test_the_references_own_pickle_and_printed_list_are_the_same_run() -> None:
    folder = RUNS / "aime" / "60"
    rows = read_rows(folder / "0.pickle")
    (record,) = convert(rows, read_problems(AIME))

    assert read_rows(folder / "0.txt") == rows
    assert read_rows(RUNS / "aime") == rows
    assert (record.problem.id, record.repeat, record.tally.judged, record.tally.accepted) == ("60", 0, 98, 80)
    assert (record.tally.answer, record.tally.correct, record.tally.ended) == ("204", True, "closed")
    assert record.tally.elapsed == pytest.approx(10.599 + 20.808 + 15.854, abs=0.002), "as the fork added them up"
    assert (record.tally.kept["small"] + record.tally.kept["base"], record.tally.wasted_tokens) == (1969, 568)


@needs_real
def test_a_results_folder_is_imported_and_graded_as_eval_grades(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, _, told = call("import-trace", RUNS / "math", "--out", tmp_path / "run", "--problems", MATH500)
    (record,) = read_run(tmp_path / "run").records

    assert code == 0, told
    assert record.problem.question.startswith("If $f(x) = \\frac{3x-2}{x-2}$")
    assert (record.problem.answer, record.tally.answer) == ("\\frac{14}{3}", "\\dfrac{14}{3}")
    assert record.tally.correct is True
    assert record.tally.judged == 30, "the base model wrote the first three steps unasked"


def test_an_answer_in_other_words_is_right_and_another_one_wrong(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    written(tmp_path / "runs" / "2" / "0.pickle", [LAST | {"step_id": 0}])
    written(tmp_path / "runs" / "3" / "0.pickle", [LAST | {"step_id": 0}])
    problems = tmp_path / "problems.jsonl"
    problems.write_text(
        json.dumps({"ID": 2, "Problem": "How much?", "Answer": "\\frac{14}{3}"})
        + "\n"
        + json.dumps({"ID": 3, "Problem": "And here?", "Answer": "\\frac{14}{5}"})
    )
    code, _, _ = call("import-trace", tmp_path / "runs", "--out", tmp_path / "run", "--problems", problems)
    records = read_run(tmp_path / "run").records

    assert code == 0
    assert [(r.problem.question, r.tally.correct) for r in records] == [("How much?", True), ("And here?", False)]


def test_choices_are_graded_in_the_references_order_by_place(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    for repeat, answer in enumerate((r"\boxed{\text{(A)}}", r"\boxed{B}")):
        written(tmp_path / "runs" / "1" / f"{repeat}.pickle", [LAST | {"step_id": 0, "step_str": answer}])
    names = (
        "Record ID",
        "Question",
        "Correct Answer",
        "Incorrect Answer 1",
        "Incorrect Answer 2",
        "Incorrect Answer 3",
    )
    lines = [",".join(names), "recX,First?,r,a,b,c", "recY,Second?,right,x,y,z"]
    (tmp_path / "gpqa.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    call("import-trace", tmp_path / "runs", "--out", tmp_path / "run", "--problems", tmp_path / "gpqa.csv")
    records = read_run(tmp_path / "run").records

    assert records[0].problem.question.splitlines()[:3] == ["Second?", "Choices:", "(A) right"]
    assert [(r.problem.id, r.problem.answer, r.tally.correct) for r in records] == [
        ("recY", "A", True),
        ("recY", "A", False),
    ]


def test_problem_and_run_come_from_the_path_and_every_run_is_read_once(tmp_path: Path) -> None:
    for place in ("60/0", "60/1", "7/0"):
        for ending in ("pickle", "txt"):
            written(tmp_path / f"{place}.{ending}", [reference_row(0), LAST])
    (tmp_path / "60" / "summary.json").write_text(json.dumps({"problem_id": 60, "k": 2}))
    (tmp_path / "60" / "0.log").write_text("nothing to read")
    told: list[str] = []
    records = list(convert(read_rows(tmp_path, told.append), {}))

    assert [(record.problem.id, record.repeat) for record in records] == [("60", 0), ("60", 1), ("7", 0)]
    assert len(told) == 1
    assert "summary.json" in told[0]


def test_a_printed_list_stands_in_for_a_broken_pickle_and_the_reader_is_told(tmp_path: Path) -> None:
    written(tmp_path / "60" / "0.txt", [LAST])
    (tmp_path / "60" / "0.pickle").write_bytes(pickle.dumps([LAST])[:40])
    told: list[str] = []

    assert len(read_rows(tmp_path, told.append)) == 1
    assert "0.pickle" in told[0]


def test_a_run_of_a_folder_that_nothing_can_read_is_not_passed_over(tmp_path: Path) -> None:
    written(tmp_path / "60" / "0.pickle", [LAST])
    (tmp_path / "60" / "1.pickle").write_bytes(b"\x80\x04oh no")

    with pytest.raises(UsageError, match=r"1\.pickle"):
        read_rows(tmp_path)


def test_two_files_with_one_run_are_told_apart_by_hand(tmp_path: Path) -> None:
    for name in ("results", "results_fixed"):
        written(tmp_path / name / "60" / "0.pickle", [LAST])

    with pytest.raises(UsageError, match="both hold run 0 of problem `60`"):
        read_rows(tmp_path)


def test_a_step_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"step 0 of run 0 of problem `2` is in .* twice"):
        read_rows(written(tmp_path / "2" / "0.jsonl", [reference_row(0), reference_row(0)]))


class Hostile:
    """What a pickle may do to whoever reads it with `pickle.load`."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: [LAST, bad], lambda bad: [LAST | {"score": bad}]])
def test_a_hostile_pickle_is_one_line_and_nothing_of_it_runs(
    protocol: int,
    wrap: Callable[[object], object],
    call: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    file, trap = tmp_path / "0.pickle", tmp_path / "sprung"
    file.write_bytes(pickle.dumps(wrap(Hostile(os.mkdir, str(trap))), protocol=protocol))
    code, _, told = call("import-trace", file, "--out", tmp_path / "run")

    assert code == 2
    assert not trap.exists()
    assert not (tmp_path / "run").exists()
    assert told.startswith(f"error: cannot read `{file}`: it wants to use 'posix.mkdir'")
    assert "Traceback" not in told


@pytest.mark.parametrize(
    "bad",
    [
        pickle.dumps(np.zeros(3)),
        pickle.dumps(Hostile(eval, "1 + 1")),
        pickle.dumps(Hostile(getattr, "text", "upper")),
        b"cnumpy\ndtype\n(Vf8\ntRcnumpy\ndtype\nb.",  # a kind set up with a kind
        b"cnumpy.core.multiarray\nscalar\n}(V__defaults__\nI1\nub.",  # a change of what reads it
        b"\x80\x04]r\xff\xff\xff\x7f.",  # memory for two thousand million places
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fx.",  # a text that goes on behind the end
        b"\x80\x04Q.",
        b"\x80\xff.",
        b"",
    ],
)
def test_pickles_of_more_than_plain_data_are_refused(bad: bytes) -> None:
    with pytest.raises(pickles.Unreadable):
        pickles.load(bad)


@given(st.binary(max_size=60).map(lambda tail: b"\x80\x04" + tail))
def test_arbitrary_bytes_are_plain_data_or_refused(data: bytes) -> None:
    try:
        found = pickles.load(data)
    except pickles.Unreadable:
        return
    assert found is None or isinstance(
        found, bool | int | float | str | bytes | bytearray | list | tuple | dict | set | frozenset
    )


def test_a_pickle_that_is_cut_off_anywhere_is_refused() -> None:
    whole = pickle.dumps([reference_row(0), LAST])

    for length in range(len(whole)):
        with pytest.raises(pickles.Unreadable):
            pickles.load(whole[:length])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numpys_numbers_are_read_as_numbers(protocol: int) -> None:
    numbers = [np.float64(7.25), np.float32(0.5), np.int64(-3), np.uint8(9), np.bool_(True), np.array(2.5, ">f8")[()]]

    assert pickles.load(pickle.dumps(numbers, protocol=protocol)) == [7.25, 0.5, -3, 9, True, 2.5]


def test_mean_scores_keep_their_mean(tmp_path: Path) -> None:
    rows = [reference_row(0, np.float64(7.25)), LAST | {"score": np.float64(6.5), "base_model_step": "So."}]
    by_pickle = read_rows(written(tmp_path / "1" / "0.pickle", rows))
    by_print = read_rows(written(tmp_path / "1" / "0.txt", rows))
    (record,) = convert(by_pickle, {})
    scores = [event for event in record.events if isinstance(event, StepScored)]
    started = next(event for event in record.events if isinstance(event, SolveStarted))

    assert by_print == by_pickle
    assert [event.score.expected for event in scores] == pytest.approx([7.25, 6.5])
    assert (started.score_rule, started.threshold) == ("expected", None), "7 and 6.9 would have decided alike"


def test_figures_that_are_no_numbers_are_not_known(tmp_path: Path) -> None:
    rows = [
        reference_row(0, float("nan"), small_model_time=float("inf")),
        LAST | {"digit_logprobs": {"8": float("-inf"), "x": 1.0}, "eval_time": -0.0},
    ]
    for name in ("0.pickle", "0.txt", "0.jsonl"):
        (record,) = convert(read_rows(written(tmp_path / "1" / name, rows)), {})
        scores = [event for event in record.events if isinstance(event, StepScored)]

        assert [event.greedy for event in scores] == [8]
        assert record.tally.elapsed == 0


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("0.txt", b"[{'step_id': 0, 'step_str': open('/etc/passwd')}]", "neither JSON nor a printed list"),
        ("0.txt", b"[{'step_id': 0, 'step_str': 'x'", "neither JSON nor a printed list"),
        ("0.txt", b"[" * 100_000, "neither JSON nor a printed list"),
        ("0.json", b'[{"a":' * 100_000, "neither JSON nor a printed list"),
        ("0.jsonl", b'{"a":' * 100_000, "line 1 of .* is not JSON"),
        ("0.log", b"2026-03-15 02:59:12 - INFO - [Step 0] score 8, accepted!", "line 1 of .* is not JSON"),
        ("0.pickle", pickle.dumps({"a": 1}), "no list of steps"),
        ("0.pickle", pickle.dumps([1]), "entry 1 of .* is no step"),
        ("0.pickle", pickle.dumps([]), "holds no steps"),
        ("0.pickle", pickle.dumps([LAST | {"problem_id": 10**5000}]), "entry 1 of .* is no step"),
        ("0.bin", b"\xff\xfe\xff", "cannot read"),
        ("0.jsonl.gz", gzip.compress(b"{}", mtime=0)[:-6], "cannot read"),
    ],
)
def test_what_holds_no_steps_is_refused_in_one_line(name: str, content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(UsageError, match=complaint) as told:
        read_rows(tmp_path / name)
    assert "\n" not in str(told.value)


def test_a_list_that_grows_when_it_is_read_is_refused(tmp_path: Path) -> None:
    long = LAST | {"step_str": "x" * 1_000_000}
    (tmp_path / "0.pickle").write_bytes(pickle.dumps([{**long, "step_id": step} for step in range(100)]))
    with pytest.raises(UsageError, match="longer than 64 million characters"):
        read_rows(tmp_path / "0.pickle")
    (tmp_path / "1.pickle").write_bytes(pickle.dumps([LAST] * 200_000))
    with pytest.raises(UsageError, match="more than 100,000 steps"):
        read_rows(tmp_path / "1.pickle")


def test_half_a_character_in_a_text_is_stored(call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = written(tmp_path / "2" / "0.pickle", [LAST | {"step_id": 0, "small_model_step": "\ud83d \x1b[2J"}])

    assert call("import-trace", file, "--out", tmp_path / "run")[0] == 0
    assert len(read_run(tmp_path / "run").records) == 1


def test_the_threshold_is_what_the_decisions_settle(tmp_path: Path) -> None:
    rows = [rejected(0, 8), LAST | {"score": 9}]
    (record,) = convert(read_rows(written(tmp_path / "2" / "0.pickle", rows)), {})

    assert next(event.threshold for event in record.events if isinstance(event, SolveStarted)) == 9
    assert [event.reaching for event in record.events if isinstance(event, StepScored)] == pytest.approx([0, 1])


def test_an_imported_threshold_is_shown_and_decides_again_without_a_flip(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    file = written(tmp_path / "2" / "0.pickle", [rejected(0, 8), LAST | {"score": 9}])
    call("import-trace", file, "--out", tmp_path / "run")
    _, shown, _ = call("replay", tmp_path / "run", "--score", "greedy")

    assert "threshold 9 (greedy)" in shown
    assert "0 of 2 decisions flip" in shown


def test_a_threshold_that_is_left_open_is_said_to_be_unknown(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    file = written(tmp_path / "2" / "0.pickle", [rejected(0, 5), LAST | {"score": 7}])
    code, _, told = call("import-trace", file, "--out", tmp_path / "run")
    _, shown, _ = call("replay", tmp_path / "run")

    assert code == 0
    assert "the threshold is not known" in told
    assert "above 5 and at most 7" in shown
    assert "threshold 7" not in shown
    code, _, told = call("replay", tmp_path / "run", "--score", "greedy")
    assert code == 2
    assert "name one with `--threshold`" in told
    assert call("replay", tmp_path / "run", "--threshold", 7)[0] == 0
    assert call("audit", tmp_path / "run")[0] == 2, "there is nothing to be calibrated at"


@pytest.mark.parametrize("threshold", ["nan", "inf"])
def test_a_threshold_is_a_number(threshold: str, call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = written(tmp_path / "2" / "0.pickle", [LAST | {"score": None}])

    assert call("import-trace", file, "--out", tmp_path / "run", "--threshold", threshold)[0] == 2


def test_problems_that_are_not_there_are_told_and_two_of_one_name_refused(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    file = written(tmp_path / "2" / "0.pickle", [LAST])
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"id": 1, "problem": "a?", "answer": 1}\n')
    code, _, told = call("import-trace", file, "--out", tmp_path / "run", "--problems", problems)
    assert code == 0
    assert "does not hold 1 of the problems, such as `2`" in told

    problems.write_text('{"id": 2, "problem": "a?", "answer": 1}\n{"id": 2, "problem": "b?", "answer": 1}\n')
    with pytest.raises(UsageError, match="holds two problems `2`"):
        read_problems(problems)


CELLS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text("a8\n\x1b\ud800")
    | st.sampled_from(["8", 8, 10**400, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["8", "3", "x"]), inner, max_size=3),
    max_leaves=4,
)


@given(
    odd=st.dictionaries(st.sampled_from([*reference_row(0), "digit_logprobs", "eval_time", "run"]), CELLS, max_size=3)
)
def test_whatever_a_step_holds_it_is_stored_or_refused_in_a_line(
    odd: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    file = written(folder / "2" / "0.pickle", [reference_row(0) | odd, reference_row(5, stop_reason="finished")])
    complaint = ""
    try:
        rows = read_rows(file)
    except UsageError as error:
        complaint = str(error)
    assert "\n" not in complaint
    if complaint:
        return
    with writing(folder / "run", RunConfig(created=datetime.now(UTC), program="p", pair="imported")) as run:
        for record in convert(rows, {}):
            run.append(record)
    assert sum(len(record.tally.steps) > 0 for record in read_run(folder / "run").records) >= 1
    assert not read_run(folder / "run").remarks


def test_a_threshold_may_be_given_and_must_fit(call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = written(tmp_path / "2" / "0.pickle", [rejected(0, 5), LAST | {"score": 7}])
    code, _, told = call("import-trace", file, "--out", tmp_path / "bad", "--threshold", 5)
    assert code == 2
    assert "above 5 and at most 7" in told
    assert not (tmp_path / "bad").exists()

    assert call("import-trace", file, "--out", tmp_path / "run", "--threshold", 6.5)[0] == 0
    run = read_run(tmp_path / "run")
    assert run.config is not None
    assert run.config.settings["threshold"] == 6.5
    assert next(e.threshold for e in run.records[0].events if isinstance(e, SolveStarted)) == 6.5


def test_decisions_that_contradict_each_other_have_no_threshold(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path / "2" / "0.pickle", [rejected(0, 8), LAST | {"score": 6}]))

    assert threshold_of(rows) is None
    assert "no one threshold explains" in Limits.of(rows).told
    with pytest.raises(UsageError, match="no one threshold explains"):
        threshold_of(rows, 7)


@given(threshold=st.integers(1, 9), scores=st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_a_settled_threshold_is_the_true_one(threshold: int, scores: list[int]) -> None:
    limits = Limits(
        max((float(s) for s in scores if s < threshold), default=None),
        min((float(s) for s in scores if s >= threshold), default=None),
    )

    assert limits.allow(threshold)
    assert limits.settled in (None, threshold)
    assert (limits.settled is not None) == ({threshold - 1, threshold} <= set(scores))


def test_a_budget_that_was_another_one_is_not_claimed(tmp_path: Path) -> None:
    def budgets(*rows: dict[str, Any]) -> tuple[int, bool]:
        (record,) = convert(read_rows(written(tmp_path / "2" / "0.pickle", list(rows))), {})
        said = any(isinstance(e, Noticed) and "budget is not known" in e.message for e in record.events)
        return next(e.budget for e in record.events if isinstance(e, SolveStarted)), said

    long = reference_row(0, num_output_tokens_small=9000)
    assert budgets(reference_row(0), LAST) == (8192, False)
    assert budgets(long | {"stop_reason": "budget"}) == (8192, False)
    assert budgets(long, LAST) == (9006, True)
    assert budgets(reference_row(0, stop_reason="budget")) == (6, True)


def test_a_context_that_was_full_ends_the_thinking(tmp_path: Path) -> None:
    (record,) = convert(
        read_rows(written(tmp_path / "2" / "0.pickle", [reference_row(0, stop_reason="context_overflow")])), {}
    )

    assert record.tally.ended == "context"
