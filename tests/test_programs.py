"""Every branch of the stock programs, on scripted models."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import sglang as sgl
from batches import carry_out
from faults import story_pair

from specreason_sgl.embedded.stories import story
from specreason_sgl.errors import CallFailed, ServerUnreachable, UsageError
from specreason_sgl.events import (
    AnswerWritten,
    CallMade,
    Event,
    Noticed,
    SolveEnded,
    SolveFailed,
    SolveStarted,
    StepDrafted,
    StepScored,
    StepTaken,
    TextStreamed,
    ThinkingEnded,
)
from specreason_sgl.lang import loading
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.settings import Settings
from specreason_sgl.testing import CHAT, Reply, ScriptedBackend
from specreason_sgl.text.prompts import EMBEDDED
from specreason_sgl.text.scoring import LEAST

ROOT = Path(__file__).parents[1]
PROBLEM = Problem(id="sum", question="What is 2 + 2?", answer="4")
ANSWER = Reply("So \\boxed{4}.")


def run(
    small: list[object], base: list[object], program: str = "specreason", **settings: object
) -> tuple[SolveRecord, ScriptedBackend, ScriptedBackend]:
    servers = ScriptedBackend("small", small), ScriptedBackend("base", base)  # type: ignore[arg-type]
    limits = {name: value for name, value in settings.items() if name in Settings.model_fields}
    knobs = {name: value for name, value in settings.items() if name not in limits}
    pair = Pair(servers[1], servers[0])
    record = solve(PROBLEM, loading.load(program), pair, Settings(**limits), parameters=knobs)
    return record, *servers


def steps(record: SolveRecord) -> list[tuple[str, str]]:
    return [(e.author, e.text) for e in record.events if isinstance(e, StepTaken)]


def reason(record: SolveRecord) -> str:
    (ended,) = [e for e in record.events if isinstance(e, ThinkingEnded)]
    return ended.reason


def last(record: SolveRecord) -> Event:
    return record.events[-1]


def test_a_good_draft_is_accepted_and_a_bad_one_regenerated() -> None:
    record, small, base = run(
        [Reply("2 and 2."), Reply("5."), Reply("Done.", closes=True)], [8, 2, Reply("4."), 9, ANSWER]
    )

    assert [("small", "2 and 2."), ("base", "4."), ("small", "Done.")] == steps(record)
    assert [True, False, True] == [e.accepted for e in record.events if isinstance(e, StepScored)]
    assert reason(record) == "closed"
    assert last(record) == SolveEnded(at=last(record).at, outcome="answered", correct=True)
    assert small.left == base.left == 0


def test_both_models_see_the_same_reasoning_and_the_judge_leaves_no_trace() -> None:
    record, small, base = run(
        [Reply("One."), Reply("bad"), Reply("Three.", closes=True)], [9, 0, Reply("Two."), 9, ANSWER]
    )

    assert small.prompts[-1].endswith("<think>\nOne.\n\nTwo.\n\n")
    assert base.prompts[-1].endswith("<think>\nOne.\n\nTwo.\n\nThree.\n</think>\n\n")
    assert sum(EMBEDDED.judge in prompt for prompt in base.prompts) == 3
    assert base.prompts[2] == small.prompts[1], "the base model writes from the very text that was drafted from"
    assert len(steps(record)) == 3


def test_every_call_is_told() -> None:
    record, *_ = run([Reply("a b c", closes=True)], [9, ANSWER])

    kinds = [(e.kind, e.model, e.step) for e in record.events if isinstance(e, CallMade)]
    assert [("draft", "small", 0), ("judge", "base", 0), ("answer", "base", None)] == kinds


@pytest.mark.parametrize(("threshold", "author"), [(0, "small"), (5, "small"), (5.5, "base"), (9.5, "base")])
def test_the_threshold_decides(threshold: float, author: str) -> None:
    own = [Reply("own", closes=True)] if author == "base" else []
    record, *_ = run([Reply("draft", closes=True)], [5, *own, ANSWER], threshold=threshold)

    assert [author] == [a for a, _ in steps(record)]


def test_greedy_and_expected_can_disagree() -> None:
    split = [-1.0] + [LEAST] * 7 + [-1.1, -1.1]  # greedy 0, expected above 5
    accepted = {}
    for rule in ("greedy", "expected"):
        own = [Reply("o", closes=True)] if rule == "greedy" else []
        record, *_ = run([Reply("d", closes=True)], [split, *own, ANSWER], threshold=5, score=rule)
        accepted[rule] = steps(record)[0][0]

    assert accepted == {"greedy": "base", "expected": "small"}


def test_first_steps_on_the_base_model_are_not_drafted() -> None:
    record, small, _ = run([Reply("Three.", closes=True)], [Reply("One."), Reply("Two."), 9, ANSWER], first_n=2)

    assert ["base", "base", "small"] == [author for author, _ in steps(record)]
    assert len(small.prompts) == 1


def test_the_budget_closes_the_thinking_and_asks_for_the_answer() -> None:
    record, _, base = run([Reply("a", tokens=6), Reply("b", tokens=4)], [9, 9, ANSWER], budget=10)

    assert reason(record) == "budget"
    assert base.prompts[-1].endswith("a\n\nb\n</think>\n\n")
    assert record.tally.thinking_tokens == 10


@pytest.mark.parametrize("program", ["specreason", "lookahead"])
def test_a_step_that_comes_three_times_in_a_row_ends_the_thinking(program: str) -> None:
    record, *_ = run([*[Reply("again")] * 3], [9, 9, 9, ANSWER], program=program)

    assert reason(record) == "repeat"
    assert len(steps(record)) == 3


def test_a_whole_chain_ends_where_it_goes_in_circles_for_the_third_time() -> None:
    chain = "One.\n\n" + "Two.\n\nThree.\n\n" * 5
    record, _, base = run([], [Reply(chain, length=True, tokens=110), ANSWER], program="base_only")

    assert reason(record) == "repeat"
    assert [text for _, text in steps(record)] == ["One.", *["Two.", "Three."] * 3]
    assert base.prompts[-1].endswith("One.\n\n" + "Two.\n\nThree.\n\n" * 2 + "Two.\n\nThree.\n</think>\n\n")
    assert (record.tally.kept["base"], record.tally.wasted_tokens) == (69, 41), "48 of 76 characters are kept"


@pytest.mark.parametrize("program", ["specreason", "lookahead"])
def test_a_step_that_says_one_phrase_until_its_limit_ends_the_thinking(program: str) -> None:
    record, *_ = run([Reply("One. " + "Hm, wait. " * 60, length=True)], [9, ANSWER], program=program)

    assert reason(record) == "repeat"
    assert [("small", "One. Hm, wait. Hm, wait. Hm, wait.")] == steps(record)


def test_a_draft_that_says_one_phrase_until_its_limit_can_be_rejected() -> None:
    record, *_ = run(
        [Reply("Hm, wait. " * 60, length=True), Reply("Done.", closes=True)], [0, Reply("One."), 9, ANSWER]
    )

    assert [("base", "One."), ("small", "Done.")] == steps(record)
    assert reason(record) == "closed"


@pytest.mark.parametrize("program", ["base_only", "small_only"])
def test_a_whole_chain_that_says_one_phrase_until_its_limit_is_cut_there(program: str) -> None:
    script: list[object] = [Reply("One.\n\nTwo. " + "Hm, wait. " * 60, length=True), ANSWER]
    record, *_ = run(*((script, []) if program == "small_only" else ([], script)), program=program)

    assert reason(record) == "repeat"
    assert ["One.", "Two. Hm, wait. Hm, wait. Hm, wait."] == [text for _, text in steps(record)]


def test_counting_on_and_on_is_left_to_the_budget_and_remarked_once() -> None:
    drafts: list[object] = [Reply(f"Case {n} fails.", tokens=1) for n in range(30)]
    record, *_ = run(drafts, [*[9] * 30, ANSWER], budget=30)

    assert reason(record) == "budget"
    assert [e.message for e in record.events if isinstance(e, Noticed)] == [
        "since step 9 the thinking says the same with other numbers"
    ]


def test_an_empty_draft_is_not_judged_but_written_by_the_base_model() -> None:
    record, *_ = run([Reply("  \n")], [Reply("own", closes=True), ANSWER])

    assert [("base", "own")] == steps(record)
    assert not [e for e in record.events if isinstance(e, StepScored)]


def test_a_place_that_is_left_empty_has_one_delimiter_before_it() -> None:
    small: list[object] = [Reply("one"), Reply(""), Reply("two", closes=True)]
    _, _, base = run(small, [9, Reply(""), 9, ANSWER])

    assert "one\n\ntwo\n</think>" in base.prompts[-1]


def test_no_progress_ends_the_thinking() -> None:
    record, *_ = run([Reply(""), Reply("")], [Reply(""), Reply(" "), ANSWER])

    assert reason(record) == "no-progress"
    assert steps(record) == []


def test_a_step_cut_at_its_limit_goes_on_as_the_next() -> None:
    record, *_ = run([Reply("long", length=True), Reply("er", closes=True)], [9, 9, ANSWER], max_step_tokens=1)

    assert [("small", "long"), ("small", "er")] == steps(record)


def test_a_box_inside_the_thinking_does_not_end_it() -> None:
    record, *_ = run([Reply("Perhaps \\boxed{5}"), Reply("No, 4.", closes=True)], [9, 9, ANSWER])

    assert len(steps(record)) == 2
    assert record.tally.answer == "4"


def test_no_box_is_no_answer() -> None:
    record, *_ = run([Reply("a", closes=True)], [9, Reply("I do not know")])

    assert last(record) == SolveEnded(at=last(record).at, outcome="unanswered", correct=False)


def test_an_answer_cut_short_is_told() -> None:
    record, *_ = run([Reply("a", closes=True)], [9, Reply("so \\boxed{4", length=True)])

    assert [e.truncated for e in record.events if isinstance(e, AnswerWritten)] == [True]


@pytest.mark.parametrize(
    ("small", "base"),
    [
        ([CallFailed("down")], []),
        ([Reply("a")], [CallFailed("down")]),
        ([Reply("a")], [0, CallFailed("down")]),
        ([Reply("a", closes=True)], [9, CallFailed("down")]),
        ([Reply("a"), CallFailed("down")], [9]),
    ],
    ids=["draft", "judge", "regenerate", "answer", "later draft"],
)
def test_a_failing_call_ends_the_solve_with_its_message(small: list[object], base: list[object]) -> None:
    record, *_ = run(small, base)

    failed = [e for e in record.events if isinstance(e, SolveFailed)]
    assert [e.error for e in failed] == ["down"]
    assert last(record) == SolveEnded(at=last(record).at, outcome="failed")


def test_a_lost_server_keeps_its_exit_code() -> None:
    record, *_ = run([ServerUnreachable("gone", hint="start it")], [])

    failed = [e for e in record.events if isinstance(e, SolveFailed)]
    assert [(3, "start it")] == [(e.exit_code, e.hint) for e in failed]


def test_any_other_error_of_a_call_is_told_too() -> None:
    record, *_ = run([RuntimeError("strange")], [])

    assert record.tally.error == "a call to a model failed: strange"


def test_a_judge_without_mass_on_the_digits_fails_the_solve() -> None:
    record, *_ = run([Reply("a")], [[LEAST] * 10])

    assert "no usable score" in (record.tally.error or "")


def streamed(
    program: loading.Program, small: list[object], base: list[object], **parameters: object
) -> list[tuple[int, int | None, str, str, str]]:
    """Chain, step, kind, model and text of every piece; none of them is in the record."""
    heard: list[Event] = []
    servers = Pair(ScriptedBackend("base", base), ScriptedBackend("small", small))  # type: ignore[arg-type]
    record = solve(PROBLEM, program, servers, Settings(), sink=heard.append, stream=True, parameters=parameters)
    assert record.tally.error is None
    assert not [event for event in record.events if isinstance(event, TextStreamed)]
    return [(e.chain, e.step, e.kind, e.model, e.text) for e in heard if isinstance(e, TextStreamed)]


def own(function: Any) -> loading.Program:
    return loading.Program("own", sgl.function(function), "base", Path(__file__))


def test_streamed_text_says_whose_it_is_and_what_for() -> None:
    small, base = [Reply("One."), Reply("bad", closes=True)], [9, 0, Reply("Two.", closes=True), ANSWER]

    assert streamed(loading.load("specreason"), [*small], [*base]) == [
        (0, 0, "draft", "small", "One."),
        (0, 1, "draft", "small", "bad"),
        (0, 1, "regenerate", "base", "Two."),
        (0, None, "answer", "base", "So \\boxed{4}."),
    ]


@pytest.mark.parametrize("model", ["small", "base"])
def test_a_model_that_thinks_alone_streams_a_whole_chain(model: str) -> None:
    script: list[object] = [Reply("One.\n\nTwo.", closes=True), ANSWER]

    assert streamed(loading.load(f"{model}_only"), *(([], script) if model == "base" else (script, []))) == [
        (0, None, "think", model, "One.\n\nTwo."),
        (0, None, "answer", model, "So \\boxed{4}."),
    ]


def test_pieces_of_calls_at_the_same_time_say_which_call_they_are_of() -> None:
    heard: list[Event] = []
    small = {"draft_0": [Reply("a", closes=True)], "draft_0_try_1": [Reply("b", closes=True)]}
    servers = Pair(ScriptedBackend("base", {"select_0": [2], "answer": [ANSWER]}), ScriptedBackend("small", small))
    solve(
        PROBLEM, loading.load("select_drafts"), servers, Settings(), sink=heard.append, stream=True, parameters={"n": 2}
    )
    pieces = {(e.kind, e.attempt, e.text) for e in heard if isinstance(e, TextStreamed)}

    assert pieces == {("draft", 0, "a"), ("draft", 1, "b"), ("answer", 0, "So \\boxed{4}.")}


def test_the_parts_of_a_step_stream_as_one_step() -> None:
    small, base = [Reply("a"), Reply("b c", closes=True)], [9, ANSWER]

    assert streamed(loading.load("specreason"), [*small], [*base], min_step_tokens=3)[:2] == [
        (0, 0, "draft", "small", "a"),
        (0, 0, "draft", "small", "b c"),
    ]


def test_several_chains_stream_under_their_own_numbers_and_kinds() -> None:
    def program(s: Any, solve: Any) -> str:
        first = solve.chain()
        answers = []
        for chain in (first, first.fork()):
            place = chain.place()
            for attempt in range(2):
                tried = s.fork(1)[0]
                tried += chain.prompt("base") + sgl.gen(place.named("try_3", attempt), stop=place.stops, max_tokens=4)
                written = solve.read(tried, "try_3", place, attempt)
            chain.take(place, written)
            asked = s.fork(1)[0]
            asked += chain.closed("base") + sgl.gen(chain.named("answer"), **solve.answering)
            answers.append(solve.answer(asked, chain))
        s += sgl.gen("checked_2", max_tokens=4)
        return str(solve.vote(answers))

    replies = ["a", "b", "4", "c", "d", "4", "well"]

    assert streamed(own(program), [], [*map(Reply, replies)]) == [
        (0, 0, "try_3", "base", "a"),
        (0, 0, "try_3", "base", "b"),
        (0, None, "answer", "base", "4"),
        (1, 0, "try_3", "base", "c"),
        (1, 0, "try_3", "base", "d"),
        (1, None, "answer", "base", "4"),
        (0, None, "checked_2", "base", "well"),
    ]


@pytest.mark.parametrize("program", ["specreason", "lookahead", "base_only", "small_only", "random_accept", "oracle"])
def test_without_a_budget_the_answer_is_written_at_once(program: str) -> None:
    given = {"oracle": {"is_right": lambda *_: True}}.get(program, {})
    small = [ANSWER] if program == "small_only" else []
    record, *servers = run([*small], [] if small else [ANSWER], program, budget=0, **given)

    assert [e for e in record.events if isinstance(e, ThinkingEnded)] == [
        ThinkingEnded(at=record.events[1].at, reason="budget", steps=0, tokens=0)
    ]
    assert [e.kind for e in record.events if isinstance(e, CallMade)] == ["answer"]
    assert [prompt for each in servers for prompt in each.prompts] == [
        CHAT.opening(PROBLEM.question) + CHAT.close_thinking
    ]
    assert last(record) == SolveEnded(at=last(record).at, outcome="answered", correct=True)


class Recording(ScriptedBackend):
    """Keeps what the answer phase was asked with."""

    def generate(self, s: Any, sampling_params: Any) -> tuple[str, dict[str, Any]]:
        if s.filling == "answer":
            self.asked.append({name: getattr(sampling_params, name) for name in ANSWERING})
        elif any(getattr(sampling_params, name) for name in ("json_schema", "regex")) or "##" in sampling_params.stop:
            self.asked.append({"filling": s.filling})
        return super().generate(s, sampling_params)

    asked: list[dict[str, Any]]


ANSWERING = ("max_new_tokens", "stop", "json_schema", "regex")


@pytest.mark.parametrize("form", [{"json_schema": '{"type": "object"}'}, {"regex": "[0-9]+"}, {}])
@pytest.mark.parametrize("program", ["specreason", "lookahead", "base_only", "small_only", "random_accept", "oracle"])
def test_only_the_answer_phase_is_held_to_the_form_and_the_stops_of_the_answer(
    program: str, form: dict[str, str]
) -> None:
    alone = program.removesuffix("_only") if program.endswith("_only") else None
    judged = [] if alone or program in {"random_accept", "oracle"} else [9]
    small = Recording("small", [Reply("One.", closes=True), *([ANSWER] if alone == "small" else [])])
    base = Recording("base", [*judged, *([Reply("One.", closes=True)] if alone == "base" else []), ANSWER])
    small.asked = base.asked = []
    given: dict[str, dict[str, Any]] = {"random_accept": {"rate": 1.0}, "oracle": {"is_right": lambda *_: True}}
    limits = Settings(answer_tokens=7, stop=("##",), **form)
    record = solve(PROBLEM, loading.load(program), Pair(base, small), limits, parameters=given.get(program))

    assert record.tally.error is None
    wanted = {"json_schema": None, "regex": None, **form, "max_new_tokens": 7, "stop": ["##"]}
    assert small.asked == [wanted]
    (written,) = [event for event in record.events if isinstance(event, AnswerWritten)]
    assert not written.truncated, "a stop is no limit"


@pytest.mark.parametrize(("program", "model"), [("base_only", "base"), ("small_only", "small")])
def test_an_anchor_asks_one_model_twice(program: str, model: str) -> None:
    script: list[object] = [Reply("One.\n\nTwo.\n", closes=True, tokens=7), ANSWER]
    record, small, base = run(*((script, []) if model == "small" else ([], script)), program=program)

    assert [(model, "One."), (model, "Two.")] == steps(record)
    assert record.tally.thinking_tokens == 7
    assert (base if model == "base" else small).prompts[-1].endswith("<think>\nOne.\n\nTwo.\n</think>\n\n")
    assert last(record) == SolveEnded(at=last(record).at, outcome="answered", correct=True)


def test_an_anchor_that_never_stops_thinking_runs_into_the_budget() -> None:
    record, *_ = run([], [Reply("On and on", length=True, tokens=8), ANSWER], program="base_only", budget=8)

    assert reason(record) == "budget"
    assert [False] == [e.closes for e in record.events if isinstance(e, StepTaken)]


def test_only_the_last_step_of_a_chain_that_closed_the_thinking_closes() -> None:
    record, *_ = run([], [Reply("One.\n\nTwo.", closes=True), ANSWER], program="base_only")

    assert [False, True] == [e.closes for e in record.events if isinstance(e, StepTaken)]


def test_an_anchor_needs_only_its_own_model() -> None:
    base = ScriptedBackend("base", [Reply("a", closes=True), ANSWER])
    record = solve(PROBLEM, loading.load("base-only"), Pair(base, None), Settings())

    assert record.tally.correct


def test_a_missing_model_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="needs a small model"):
        solve(PROBLEM, loading.load("specreason"), Pair(ScriptedBackend("base", []), None), Settings())


@pytest.mark.parametrize("question", ["", " \n"])
def test_an_empty_question_is_a_usage_error(question: str) -> None:
    with pytest.raises(UsageError, match="empty"):
        solve(Problem(id="x", question=question), loading.load("specreason"), Pair(None, None), Settings())


def test_a_program_of_ones_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import sglang as sgl\n"
        "@sgl.function\n"
        "def mine(s, solve):\n"
        "    s += solve.opening('base') + 'It is easy.'\n"
        "    s += sgl.gen('answer', **solve.answering)\n"
        "    return solve.answer(s, solve.chain())\n"
    )
    record, *_ = run([], [ANSWER], program=str(mine))

    assert record.tally.correct


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("x = ", "cannot be loaded"), ("import nowhere", "cannot be loaded"), ("x = 1", "has no program")],
)
def test_a_file_that_is_no_program_is_a_usage_error(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)

    with pytest.raises(UsageError, match=complaint):
        loading.load(str(path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import os\n\nx = nowhere\n", "mine.py:3: NameError: name 'nowhere' is not defined"),
        ("x = 1\ny = (\n", "mine.py:2: SyntaxError: '(' was never closed"),
        ("if True:\nx = 1\n", "mine.py:2: IndentationError: expected an indented block after 'if' statement on line 1"),
        ("import json\njson.loads('[')\n", "mine.py:2: JSONDecodeError: Expecting value: line 1 column 2 (char 1)"),
        ("def f():\n    return 1 / 0\nf()\n", "mine.py:2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit('no')\n", "mine.py:2: SystemExit: no"),
    ],
)
def test_a_program_that_cannot_be_loaded_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    modules = {*sys.modules}

    with pytest.raises(UsageError) as error:
        loading.load(str(path))

    assert str(error.value) == f"`{path}` cannot be loaded: {told}"
    assert not [name for name in {*sys.modules} - modules if "mine" in name]


def test_a_fault_in_what_a_program_imports_is_told_with_the_line_that_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "beside_mine.py").write_text("x = (\n")
    (tmp_path / "mine.py").write_text("\nimport beside_mine\n")

    with pytest.raises(UsageError, match=r"mine\.py:2: SyntaxError: .*\(beside_mine\.py, line 1\)"):
        loading.load(str(tmp_path / "mine.py"))


RAISING = """\
import sglang as sgl

def helper(word):
    raise ValueError(word)

@sgl.function
def mine(s, solve):
    s += solve.opening("base")
    helper("{word}")
"""


def test_a_program_that_raises_fails_its_solve_with_the_place_and_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(RAISING.format(word="oh \x1b[31m"))
    record, *_ = run([], [], program="mine.py")
    failed = [e for e in record.events if isinstance(e, SolveFailed)]

    assert [e.error for e in failed] == ["mine.py:4: ValueError: oh \x1b[31m"]
    assert last(record) == SolveEnded(at=last(record).at, outcome="failed")
    told = (failed[0].traceback or "").splitlines()
    assert told[0] == "Traceback (most recent call last):"
    assert told[1] == f'  File "{tmp_path / "mine.py"}", line 9, in mine', "what stands above is not the program's"
    assert told[-1] == "ValueError: oh \x1b[31m"
    assert SolveRecord.model_validate_json(record.model_dump_json()) == record


def test_an_endless_traceback_is_kept_in_part(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(RAISING.format(word="{'long' * 100_000}").replace('"{', 'f"{'))
    record, *_ = run([], [], program=str(path))

    assert len(next(e for e in record.events if isinstance(e, SolveFailed)).traceback or "") == loading.MOST_TRACEBACK


def test_a_run_whose_program_raises_ends_with_a_line_and_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(RAISING.format(word="oh \\x1b[31m"))
    with story_pair([story(0)]) as (_, proxies, _):
        over = ("--base", proxies[0].url, "--small", proxies[1].url, "--out", str(tmp_path / "run"))
        code = carry_out(monkeypatch, "run", "How many?", "--program", str(path), *over, "--display", "plain")
    out, err = capsys.readouterr()
    (stored,) = (tmp_path / "run" / "solves.jsonl").read_text().splitlines()

    assert code == 1, err
    assert "mine.py:4: ValueError: oh ␛[31m" in out
    assert "Traceback" not in out + err
    assert "\x1b" not in out + err
    assert "line 9, in mine" in json.loads(stored)["events"][-2]["traceback"]


def test_programs_of_the_same_name_are_different_modules(tmp_path: Path) -> None:
    loaded = []
    for word in ("one", "two"):
        (tmp_path / word).mkdir()
        (tmp_path / word / "mine.py").write_text(RAISING.format(word=word))
        loaded.append(loading.load(str(tmp_path / word / "mine.py")))

    for word, program in zip(("one", "two"), loaded, strict=True):
        module = inspect.getmodule(program.function.func)
        assert module is not None
        assert module.__file__ == str(tmp_path / word / "mine.py")


def test_a_program_loaded_again_after_a_change_is_the_changed_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    names = set()
    for word in ("one", "three"):
        path.write_text(RAISING.format(word=word))
        names.add(loading.load(str(path)).function.func.__module__)
        record, *_ = run([], [], program=str(path))
        assert record.tally.error == f"mine.py:4: ValueError: {word}"

    assert len(names) == 1


def test_an_unknown_program_is_a_usage_error_that_names_the_stock() -> None:
    with pytest.raises(UsageError) as error:
        loading.find("nope")

    assert "`specreason`" in str(error.value.hint)


def test_drafts_are_told_before_they_are_judged() -> None:
    record, *_ = run([Reply("a", closes=True)], [9, ANSWER])

    kinds = [type(e) for e in record.events]
    assert kinds.index(StepDrafted) < kinds.index(StepScored) < kinds.index(StepTaken)


def test_models_are_asked_in_somebodys_own_words() -> None:
    words = {"instruction": "Work out: {problem}", "judge": "Rate the last step, 0 to 9."}
    record, small, base = run([Reply("a", closes=True)], [9, ANSWER], **words)

    assert record.tally.answer == "4"
    assert small.prompts[0].startswith(f"[user]Work out: {PROBLEM.question}[assistant]")
    assert base.prompts[0].endswith("[user]Rate the last step, 0 to 9.[assistant]<think>I think the quality score is: ")


def test_turns_before_the_question_stand_in_every_prompt() -> None:
    earlier = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"})
    base, small = ScriptedBackend("base", [9, ANSWER]), ScriptedBackend("small", [Reply("a", closes=True)])
    problem = PROBLEM.model_copy(update={"earlier": earlier})
    record = solve(problem, loading.load("specreason"), Pair(base, small), Settings())

    assert record.tally.answer == "4"
    for prompt in (*base.prompts, *small.prompts):
        assert prompt.startswith(f"[system]Be brief.[user]1 + 1?[user]{EMBEDDED.user_content(PROBLEM.question)}")


def test_the_knobs_of_a_solve_are_in_its_first_event() -> None:
    record, *_ = run([Reply("a", closes=True)], [9, ANSWER], threshold="5")
    started = record.events[0]

    assert isinstance(started, SolveStarted)
    assert (started.threshold, started.score_rule, started.parameters["first_n"]) == (5.0, "greedy", 0)


def test_a_model_of_another_role_writes_where_a_program_asks_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("""
import sglang as sgl

@sgl.function
def ask(s, chain):
    s += chain.prompt("verifier") + sgl.gen(chain.named("verify"), max_tokens=3)

@sgl.function
def mine(s, solve):
    chain = solve.chain()
    place = next(chain.places())
    chain.add("Hm. ", "hint")
    chain.take(place, solve.read(ask.run(chain, backend=solve.model("verifier")), "verify", chain))
    s += chain.closed("base") + sgl.gen("answer", **solve.answering)
    return solve.answer(s, chain)
""")
    base, other = ScriptedBackend("base", [ANSWER]), ScriptedBackend("x", [Reply("It is 4.", closes=True)])
    record = solve(PROBLEM, loading.load(str(path)), Pair(base, None, {"verifier": other}), Settings())

    assert steps(record) == [("verifier", "It is 4.")]
    assert "Hm. It is 4.\n</think>" in base.prompts[0]
    assert [(e.model, e.kind) for e in record.events if isinstance(e, CallMade)] == [
        ("verifier", "verify"),
        ("base", "answer"),
    ]


def test_knobs_of_any_type_are_told_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("""
from datetime import date
from pathlib import Path
import sglang as sgl

@sgl.function
def mine(s, solve, threshold: str = "high", score: int = 3, since: date = date(2026, 1, 1), where: Path = Path("a/b")):
    s += solve.opening("base") + sgl.gen("answer", **solve.answering)
    return solve.answer(s, solve.chain())
""")
    record, *_ = run([], [ANSWER], program=str(path), since="2026-02-03")
    started = record.events[0]

    assert isinstance(started, SolveStarted)
    assert (started.threshold, started.score_rule) == (None, None)
    assert started.parameters == {"threshold": "high", "score": 3, "since": "2026-02-03", "where": "a/b"}
    assert SolveRecord.model_validate_json(record.model_dump_json()) == record


def page(name: str, begins: str) -> str:
    """The example of a page that begins with a comment."""
    blocks = (ROOT / name).read_text(encoding="utf-8").split("```python\n")[1:]
    return next(block.split("```")[0] for block in blocks if block.startswith(begins))


def test_the_program_of_the_readme_is_short_and_takes_the_longer_draft(tmp_path: Path) -> None:
    text = page("README.md", "# longer.py")
    path = tmp_path / "longer.py"
    path.write_text(text)
    drafts: list[object] = [
        Reply("Two."),
        Reply("Two and two."),
        Reply(""),
        Reply(""),
        Reply("No."),
        Reply("Five.", closes=True),
    ]
    own: list[object] = [Reply("Add."), 8, Reply("So four."), 2, Reply("Four.", closes=True), ANSWER]
    record, *_ = run(drafts, own, program=str(path), first_n=1)

    assert sum(bool(line.strip()) and not line.startswith("#") for line in text.splitlines()) <= 25
    assert record.tally.error is None
    assert steps(record) == [("base", "Add."), ("small", "Two and two."), ("base", "So four."), ("base", "Four.")]
    assert record.tally.answer == "4"


def test_the_program_of_the_page_and_its_test_do_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("brief.py").write_text(page("docs/programs.md", "# brief.py"))
    room: dict[str, Any] = {}
    exec(compile(page("docs/programs.md", "from specreason_sgl.lang.loading"), "page", "exec"), room)  # noqa: S102

    room["test_a_rejected_draft_is_written_by_the_base_model"]()
