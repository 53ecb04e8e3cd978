import io
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from scipy.stats import binomtest

from specreason_sgl.errors import UsageError
from specreason_sgl.events import (
    AnswerWritten,
    CallKind,
    CallMade,
    Event,
    Noticed,
    Role,
    SolveEnded,
    SolveFailed,
    SolveStarted,
    StepDrafted,
    StepScored,
    StepTaken,
    TextStreamed,
    ThinkingEnded,
    UnknownEvent,
)
from specreason_sgl.runs.index import Count
from specreason_sgl.runs.redecide import redecide
from specreason_sgl.runs.store import Done, SolveRecord
from specreason_sgl.text.scoring import Score
from specreason_sgl.view import figures
from specreason_sgl.view.batch_sinks import JsonBatch, PlainBatch
from specreason_sgl.view.batch_view import BatchLook, BatchState, SolveKey, TimeLeft, batch_frame
from specreason_sgl.view.browse import Browser
from specreason_sgl.view.compare import Side, compare_frame, first_different_step
from specreason_sgl.view.display import choose, open_batch_display, open_display
from specreason_sgl.view.items import FOLDED, Look
from specreason_sgl.view.json_lines import JsonSink
from specreason_sgl.view.listing import EndedSolve, accuracies, solves_page
from specreason_sgl.view.live import decode_keys
from specreason_sgl.view.output import Output
from specreason_sgl.view.plain import PlainSink
from specreason_sgl.view.scenes import BatchScene, SolveScene
from specreason_sgl.view.solve_view import solve_frame, solve_report
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.text import fit, head, one_line, shorten, visible, wrap
from specreason_sgl.view.theme import BATCH_LEGEND, LEGEND, SIGNS

DATA = Path(__file__).parent / "data"
GOLDEN = DATA / "golden"
WIDTHS = (60, 100, 160)

anything = st.text(max_size=200) | st.text(alphabet="ab \n\t\x1b\x07\x9b\u202e\u200d\ufe0f你é\u0301", max_size=200)


def stored() -> list[SolveRecord]:
    return [SolveRecord.model_validate_json(line) for line in (DATA / "story.jsonl").read_text().splitlines()]


def story() -> list[Event]:
    return list(stored()[0].events)


def is_obeyed(char: str) -> bool:
    """Whether a terminal would do something on this character instead of showing it."""
    return char != "\n" and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def phase(state: SolveState) -> str:
    return state.phase


def score(step: int, logprobs: tuple[float, ...], *, accepted: bool) -> StepScored:
    judged = Score(logprobs)
    return StepScored(
        step=step,
        logprobs=logprobs,
        greedy=judged.greedy,
        expected=judged.expected,
        reaching=judged.reaching(7),
        entropy=judged.entropy,
        missing_mass=judged.missing_mass,
        accepted=accepted,
    )


def call(model: Role, kind: CallKind, tokens: int, step: int | None = None) -> CallMade:
    return CallMade(
        step=step,
        model=model,
        kind=kind,
        prompt_tokens=10,
        cached_tokens=0,
        generated_tokens=tokens,
        wall_s=1.0,
        finish="stop",
    )


def solve_page(width: int) -> Text:
    return solve_frame(
        SolveState.of(story()), Look(width=width, height=36, title="specreason · story-7", keys="q quit")
    )


def live_page(width: int) -> Text:
    events = story()
    place = next(place for place, event in enumerate(events) if isinstance(event, StepScored) and not event.accepted)
    writing = TextStreamed(step=2, model="base", kind="regenerate", text="She keeps 1 for herself, so 31")
    state = SolveState.of([*events[: place + 1], writing])
    return solve_frame(state, Look(width=width, height=24, now=1.5, title="specreason · story-7"))


def report_page(width: int) -> Text:
    return solve_report(SolveState.of(story()), Look(width=width, title="specreason · story-7"))


def redecided_page(width: int) -> Text:
    events = story()
    again = redecide(events, 8, "greedy")
    return solve_frame(SolveState.of(events), Look(width=width, height=40, cursor=3, redecision=again))


def compare_page(width: int) -> Text:
    one, other = (Side(record.mode, SolveState.of(record.events)) for record in stored())
    return compare_frame(one, other, Look(width=width, height=36, cursor=0))


def some_batch() -> BatchState:
    state = BatchState(total=40)
    for number, record in enumerate(stored() * 2):
        copy = record.model_copy(update={"repeat": number // 2})
        state.finished(SolveKey("story-7", number // 2, record.mode), EndedSolve.of(copy))
    for number, length in enumerate((2, 4, 7, 12)):
        key = SolveKey(f"story-{number}", 0, "specreason")
        state.started(key)
        for event in story()[:length]:
            state.heard(key, event)
    state.tick(60.0)
    return state


def batch_page(width: int) -> Text:
    look = BatchLook(
        width=width, height=24, clock=61.0, chosen=SolveKey("story-2", 0, "specreason"), title="eval stories"
    )
    return batch_frame(some_batch(), look)


def solves_list_page(width: int) -> Text:
    return solves_page("20260301-stories", [EndedSolve.of(record) for record in stored()], 1, width, 12, colour=True)


PAGES: dict[str, Callable[[int], Text]] = {
    "solve": solve_page,
    "live": live_page,
    "report": report_page,
    "redecided": redecided_page,
    "compare": compare_page,
    "batch": batch_page,
    "solves": solves_list_page,
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_looks_as_it_did(name: str, width: int) -> None:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(PAGES[name](width), soft_wrap=True)
    drawn = "".join(f"{row.rstrip()}\n" for row in stream.getvalue().splitlines())
    file = GOLDEN / f"{name}-{width}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(drawn, encoding="utf-8")

    assert drawn == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
@given(width=st.integers(20, 200))
@settings(max_examples=15, deadline=None)
def test_no_line_of_a_page_is_wider_than_the_page(name: str, width: int) -> None:
    assert max(map(cell_len, PAGES[name](width).plain.split("\n"))) <= width


@given(
    width=st.integers(1, 120),
    height=st.integers(1, 60),
    cursor=st.none() | st.integers(0, 9),
    offset=st.integers(0, 50),
)
@settings(max_examples=60, deadline=None)
def test_a_frame_fits_any_terminal(width: int, height: int, cursor: int | None, offset: int) -> None:
    one, other = (SolveState.of(record.events) for record in stored())
    look = Look(width=width, height=height, cursor=cursor, offset=offset, keys="q quit")
    pages = [
        solve_frame(one, look),
        compare_frame(Side("one", one), Side("other", other), look),
        batch_frame(some_batch(), BatchLook(width=width, height=height, clock=61.0)),
    ]
    for page in pages:
        rows = page.plain.split("\n")
        assert len(rows) <= height
        assert max(map(cell_len, rows)) <= width


def test_everything_is_told_in_words_as_well_as_in_colour() -> None:
    plain = solve_frame(SolveState.of(story()), Look(colour=False))

    assert not plain.spans
    for name in LEGEND:
        assert SIGNS[name].label in plain.plain
    legend = [SIGNS[name] for name in {*LEGEND, *BATCH_LEGEND}]
    assert len({role.glyph for role in legend}) == len({role.word for role in legend}) == len(legend)


def test_model_text_is_never_markup() -> None:
    page = solve_report(SolveState.of(story()), Look())

    assert "[red]Not a colour[/red]" in page.plain
    assert "[bruised ones go to \\(x\\)]" in page.plain


def test_a_long_step_is_folded_until_it_is_opened() -> None:
    text = "word " * 2000
    state = SolveState.of(
        [
            SolveStarted(question="q", program="p", budget=9),
            StepTaken(step=0, author="small", text=text, tokens=2000),
        ]
    )

    folded = solve_report(state, Look(width=80)).plain
    opened = solve_report(state, Look(width=80, opened=frozenset({0}))).plain

    assert folded.count("word word") <= FOLDED * 20
    assert "more characters" in folded
    assert opened.count("word") == 2000


def test_a_rejected_draft_is_folded_beneath_until_it_is_opened() -> None:
    state = SolveState.of(story())

    assert "✗ rejected  14 tok ▸ She keeps 1 for herself, so 31 + 1" in solve_report(state, Look()).plain
    assert "✗ rejected  14 tok ▾" in solve_report(state, Look(opened=frozenset({2}))).plain


def test_text_streams_into_the_step_that_is_being_written() -> None:
    state = SolveState.of([SolveStarted(question="q", program="p", budget=9, threshold=7, score_rule="greedy")])
    state.add(TextStreamed(step=0, model="small", kind="draft", text="Two and "))
    state.add(TextStreamed(step=0, model="small", kind="draft", text="two"))

    assert phase(state) == "drafting"
    assert "Two and two▌" in solve_frame(state, Look()).plain

    state.add(StepDrafted(step=0, text="Two and two is four.", tokens=5, closes=False))
    assert phase(state) == "judging"
    state.add(score(0, tuple(-0.1 if digit == 1 else -5.0 for digit in range(10)), accepted=False))
    assert phase(state) == "regenerating"
    state.add(TextStreamed(step=0, model="base", kind="regenerate", text="It is "))
    assert "It is▌" in solve_frame(state, Look()).plain
    state.add(StepTaken(step=0, author="base", text="It is four.", tokens=3))
    assert phase(state) == "drafting"
    state.add(ThinkingEnded(reason="closed", steps=1, tokens=3))
    assert phase(state) == "answering"
    state.add(TextStreamed(step=None, model="base", kind="answer", text="So \\boxed{4}"))
    assert "So \\boxed{4}▌" in solve_frame(state, Look()).plain


def test_a_whole_chain_streams_before_it_is_cut_into_steps() -> None:
    state = SolveState.of([SolveStarted(question="q", program="p", budget=9)])
    state.add(TextStreamed(step=None, model="base", kind="think", text="First this."))

    assert phase(state) == "thinking"
    assert "First this.▌" in solve_frame(state, Look()).plain

    state.add(StepTaken(step=0, author="base", text="First this.", tokens=3))
    assert "▌" not in solve_frame(state, Look()).plain


def test_what_streams_for_a_whole_chain_is_shown_until_its_call_is_back() -> None:
    state = SolveState.of([SolveStarted(question="q", program="p", budget=9)])
    state.add(TextStreamed(step=None, model="verifier", kind="verify", text="It is right."))
    assert "It is right.▌" in solve_frame(state, Look()).plain

    call = {"prompt_tokens": 9, "cached_tokens": 0, "generated_tokens": 3, "wall_s": 0.1, "finish": "stop"}
    state.add(CallMade.model_validate({"model": "verifier", "kind": "verify", **call}))
    assert "It is right." not in solve_frame(state, Look()).plain


def test_an_empty_step_leaves_its_place_to_the_next_draft() -> None:
    state = SolveState.of([SolveStarted(question="q", program="p", budget=9, threshold=7)])
    state.add(StepDrafted(step=0, text="", tokens=1, closes=False))
    state.add(score(0, (0.0, *[-9.0] * 9), accepted=False))
    state.add(StepDrafted(step=0, text="again", tokens=1, closes=False))

    assert state.steps[0].score is None
    assert phase(state) == "judging"


def test_failures_notices_and_unknown_events_are_shown_or_passed_over() -> None:
    state = SolveState.of(
        [
            SolveStarted(question="q", program="p", budget=9),
            UnknownEvent(type="of_tomorrow"),
            Noticed(message="look here"),
            SolveFailed(error="the server\x1b[2J is gone", hint="start it"),
            SolveEnded(outcome="failed"),
        ]
    )
    page = solve_frame(state, Look()).plain

    assert "! notice       look here" in page
    assert "‼ failed       the server␛[2J is gone" in page
    assert "hint: start it" in page


@given(texts=st.lists(anything, min_size=9, max_size=9), width=st.integers(10, 120))
@settings(max_examples=60, deadline=None)
def test_no_control_byte_of_anybody_reaches_a_terminal(texts: list[str], width: int) -> None:
    events: list[Event] = [
        SolveStarted(question=texts[0], program=texts[1], budget=9, threshold=7, score_rule=texts[2]),
        TextStreamed(step=0, model="small", kind="draft", text=texts[2]),
        StepDrafted(step=0, text=texts[2], tokens=3, closes=False),
        score(0, (0.0, *[-9.0] * 9), accepted=False),
        StepTaken(step=0, author="base", text=texts[3], tokens=3),
        Noticed(message=texts[4]),
        AnswerWritten(author="base", text=texts[5], answer=texts[6], truncated=False),
        SolveFailed(error=texts[7], hint=texts[8]),
        SolveEnded(outcome="failed"),
    ]
    plain = io.StringIO()
    sink = PlainSink(plain)
    for event in events:
        sink(event)
    state = SolveState.of(events)
    opened = Look(width=width, opened=frozenset({-1, 0}), found=texts[2], title=texts[1])
    side = Side(texts[1], state)
    pages = [solve_frame(state, opened), solve_report(state, opened), compare_frame(side, side, opened)]
    pages += [solve_frame(SolveState.of(events[:length]), Look(width=width)) for length in range(len(events))]

    for shown in [plain.getvalue(), *(page.plain for page in pages)]:
        assert not any(map(is_obeyed, shown))
    for page in pages:
        assert max(map(cell_len, page.plain.split("\n"))) <= width


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\r\nb", "a\nb"),
        ("a\rb", "a␍b"),
        ("\x1b[31m", "␛[31m"),
        ("\x7f\x9b", "␡⟨U+009B⟩"),
        ("a\tb", "a    b"),
        ("x\u202ey", "x⟨U+202E⟩y"),
        ("\u2060<", "⟨U+2060⟩<"),
        ("✔\ufe0f", "✔"),
        ("\ud800", "⟨U+D800⟩"),
        ("שלום 你好", "שלום 你好"),
    ],
)
def test_what_a_terminal_would_obey_is_made_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(text=anything, width=st.integers(1, 40))
def test_wrapped_lines_fit_and_lose_no_words(text: str, width: int) -> None:
    lines = wrap(text, width)

    assert all(cell_len(row) <= width for row in lines)
    if width > 1:
        assert "".join("".join(lines).split()) == "".join(visible(text).split())


@given(text=anything, width=st.integers(1, 40))
def test_a_shortened_text_is_one_line_that_fits(text: str, width: int) -> None:
    assert cell_len(shorten(text, width)) <= width
    assert cell_len(fit(text, width)) == width
    assert "\n" not in shorten(text, width)
    if cell_len(one_line(text)) <= width:
        assert shorten(text, width) in {one_line(text), one_line(text)[:width]}


@given(text=anything, width=st.integers(2, 40), most=st.integers(1, 5))
def test_the_head_of_a_text_is_its_beginning(text: str, width: int, most: int) -> None:
    lines, more = head(text, width, most)

    assert len(lines) <= most
    assert lines == wrap(text, width)[: len(lines)]
    assert (more > 0) == (len(wrap(text, width)) > most)


def test_words_are_kept_together_where_they_can_be() -> None:
    assert wrap("one two three", 8) == ("one two", "three")
    assert wrap("  indented text", 10) == ("  indented", "text")
    assert wrap("abcdefgh", 3) == ("abc", "def", "gh")
    assert wrap("你好世界", 5) == ("你好", "世界")


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0 ms"), (0.178, "178 ms"), (0.9996, "1.0 s"), (12.34, "12.3 s"), (65, "1 min 05 s"), (4210, "1 h 10 min")],
)
def test_times_are_in_the_unit_they_are_read_in(value: float, words: str) -> None:
    assert figures.seconds(value) == words


@pytest.mark.parametrize(("value", "words"), [(1, "~5 s"), (42, "~45 s"), (61, "~2 min"), (3700, "~1 h 05 min")])
def test_estimates_are_rounded(value: float, words: str) -> None:
    assert figures.about(value) == words


@pytest.mark.parametrize(
    ("value", "threshold", "bar"),
    [
        (7.8, 7, ("━━━━━━━╋━", "─")),
        (3.1, 7, ("━━━━", "───┼──")),
        (0, None, ("━", "─────────")),
        (9, 10, ("━━━━━━━━━━", "")),
    ],
)
def test_a_gauge_shows_the_score_and_the_threshold(value: float, threshold: float | None, bar: tuple[str, str]) -> None:
    assert figures.gauge(value, threshold) == bar


@pytest.mark.parametrize(("right", "total"), [(0, 5), (3, 7), (9, 9), (180, 200)])
def test_the_interval_is_wilsons(right: int, total: int) -> None:
    expected = binomtest(right, total).proportion_ci(method="wilson")

    assert figures.wilson(right, total) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize(
    ("mode", "tty", "env", "chosen"),
    [
        ("auto", True, {}, "rich"),
        ("auto", False, {}, "plain"),
        ("auto", True, {"TERM": "dumb"}, "plain"),
        ("rich", False, {}, "plain"),
        ("auto", True, {"SPECREASON_DISPLAY": "json"}, "json"),
        ("plain", True, {"SPECREASON_DISPLAY": "json"}, "plain"),
        ("auto", True, {"NO_COLOR": "1"}, "rich"),
        ("none", True, {}, "none"),
    ],
)
def test_the_display_suits_the_output(mode: str, tty: bool, env: dict[str, str], chosen: str) -> None:
    assert choose(mode, stdout_isatty=tty, env=env) == chosen


def test_a_display_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="no display `tv`"):
        choose("auto", stdout_isatty=True, env={"SPECREASON_DISPLAY": "tv"})


def test_plain_lines_tell_a_solve_without_control_codes() -> None:
    stream = io.StringIO()
    with open_display("plain", stream=stream) as sink:
        for event in story():
            sink(event)
    lines = stream.getvalue().splitlines()

    assert "\x1b" not in stream.getvalue()
    assert lines[0] == "specreason · threshold 7 (expected) · budget 1,024 tok"
    assert sum(row.startswith("step ") for row in lines) == 5
    assert "= right" in lines


def test_json_lines_are_the_events_but_for_the_streaming() -> None:
    stream = io.StringIO()
    sink = JsonSink(stream, problem="story-7")
    sink(TextStreamed(step=0, model="small", kind="draft", text="no"))
    sink(Noticed(message="\u2028yes"))

    assert stream.getvalue() == ('{"problem": "story-7", "at": 0.0, "type": "noticed", "message": "\\u2028yes"}\n')


def test_no_display_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with open_display("none") as sink, open_batch_display("none", 1) as batch:
        sink(story()[0])
        batch.finished(batch.started("a", 0, "b"), stored()[0])

    assert capsys.readouterr() == ("", "")


def test_a_reader_that_goes_away_is_not_noticed_by_the_run() -> None:
    read, write = os.pipe()
    stream = os.fdopen(write, "w")
    output = Output(stream)
    output.line("one")
    os.close(read)
    output.line("two")
    output.line("three")

    assert output.closed
    stream.close()


def test_a_stream_that_cannot_carry_a_glyph_gets_it_spelt_out() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Output(stream).line("✓ ok")

    assert raw.getvalue() == b"\\u2713 ok\n"


def test_keys_are_named() -> None:
    assert decode_keys("j\x1b[A\x1b[6~\x1b\rq\x7f\x1bOB\x1b[200~é") == [
        "j", "up", "pagedown", "esc", "enter", "q", "backspace", "down", "é",
    ]  # fmt: skip


def test_keys_move_through_the_steps() -> None:
    state, browser = SolveState.of(story()), Browser()

    browser.press("r", state)
    assert browser.cursor == 2
    browser.press("f", state)
    assert browser.opened == {2}
    browser.press("n", state)
    assert browser.cursor == 3
    browser.press("b", state)
    browser.press("b", state)
    assert browser.cursor == 1
    browser.press("G", state)
    assert browser.cursor is None
    browser.press("g", state)
    assert browser.cursor == 0
    browser.press("d", state)
    assert browser.offset > 0
    assert not browser.press("q", state)


def test_a_search_goes_to_what_it_finds_in_texts_and_rejected_drafts() -> None:
    state, browser = SolveState.of(story()), Browser()
    for key in ["/", "3", "1", " ", "+", "enter"]:
        browser.press(key, state)

    assert browser.cursor == 2
    assert browser.look(Look()).found == "31 +"

    for key in ["/", "x", "x", "x", "enter"]:
        browser.press(key, state)
    assert browser.look(Look(keys="q quit")).keys == "nothing found  q quit"


def test_comparison_finds_where_two_solves_part() -> None:
    one, other = (SolveState.of(record.events) for record in stored())

    assert first_different_step(one, other) == (1, 0)
    assert first_different_step(one, one) is None


def test_a_batch_counts_what_has_ended() -> None:
    state = some_batch()

    assert state.done == 4
    assert (state.modes["specreason"].right, state.modes["base"].right) == (2, 0)
    assert state.modes["specreason"].graded == 2
    assert [key.problem_id for key in state.flying] == ["story-0", "story-1", "story-2", "story-3"]
    page = batch_page(100).plain
    assert "= right 100% (34–100%) of 2" in page
    assert "4 of 40" in page
    assert "› ◌ drafting     story-2" in page


def test_a_batch_scrolls_to_the_chosen_row_when_there_is_no_room() -> None:
    state = BatchState(total=100)
    for number in range(50):
        state.started(SolveKey(f"p{number}", 0, "specreason"))
    page = batch_frame(state, BatchLook(height=20, chosen=SolveKey("p30", 0, "specreason"))).plain

    assert "› · waiting      p30" in page
    assert "p0 " not in page
    assert "more in flight" in page


def test_the_time_left_is_smoothed() -> None:
    left = TimeLeft()
    left.update(10.0, 10.0, 1, 9)
    assert left.value == 90.0
    left.update(10.2, 10.2, 5, 5)
    assert left.value == 90.0
    left.update(12.0, 12.0, 6, 4)
    assert left.value == pytest.approx(88 + 0.2 * (8 - 88))


def test_a_plain_batch_writes_a_line_for_each_solve_and_the_totals() -> None:
    stream = io.StringIO()
    batch = PlainBatch(3, [Done.of(stored()[0])], stream)
    batch.finished(batch.started("story-7", 0, "base"), stored()[1])
    batch.close()
    lines = stream.getvalue().splitlines()

    assert lines[0].startswith("2/3  ≠ wrong  story-7 #0  base  9  3 steps")
    assert lines[1] == "specreason = right 100% (21–100%) of 1 · acceptance 80%"


def test_what_was_not_heard_of_a_solve_is_counted_when_it_ends() -> None:
    states = BatchState(total=1), BatchState(total=1), BatchState(total=1)
    for state, heard in zip(states, (0, 9, len(story())), strict=True):
        state.started(SolveKey("story-7", 0, "specreason"))
        for event in story()[:heard]:
            state.heard(SolveKey("story-7", 0, "specreason"), event)
        state.finished(SolveKey("story-7", 0, "specreason"), EndedSolve.of(stored()[0]))

    assert {state.tokens for state in states} == {sum(stored()[0].tally.generated.values())}


@pytest.mark.parametrize("width", [12, 16, 20, 28, 60, 200])
def test_accuracies_that_there_is_no_room_for_are_left_out(width: int) -> None:
    modes = {f"mode-{number}": Count(solves=8, right=number, graded=8) for number in range(1, 6)}
    shown = accuracies(modes, width)

    assert len(shown) <= width
    assert all(f"{name} {figures.share(modes[name].accuracy)}" in shown for name in re.findall(r"mode-\d", shown))
    assert ("…" in shown or shown == "5 modes") == (width < 60)


@pytest.mark.parametrize("width", range(30, 120, 3))
def test_a_threshold_is_shown_whole_or_not_at_all(width: int) -> None:
    heading = solve_frame(SolveState.of(story()), Look(width=width, title="story-7")).plain.split("\n")[0]

    assert "threshold 7 " in heading or "threshold" not in heading
    assert "expected) " in heading or "(" not in heading


def test_a_json_batch_writes_an_object_for_each_solve() -> None:
    stream = io.StringIO()
    batch = JsonBatch(1, stream)
    batch.finished(batch.started("story-7", 0, "base"), stored()[1])

    assert '"problem_id": "story-7"' in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_a_solve_scene_takes_events_from_anywhere_and_leaves_on_q() -> None:
    scene = SolveScene("title", colour=False)
    for event in story()[:5]:
        scene.hear(event)

    assert scene.fresh(100.0)
    assert not scene.fresh(100.1)
    assert "✓ accepted" in scene.draw(100, 30, 101.0).plain
    scene.press("esc")
    assert not scene.over
    scene.press("q")
    assert scene.over


def test_a_batch_scene_opens_a_trace_and_goes_back() -> None:
    scene = BatchScene("eval", 2, colour=False, began=0.0)
    one, other = SolveKey("a", 0, "specreason"), SolveKey("b", 0, "specreason")
    for key in (one, other):
        scene.tell(key, None)
        for event in story()[:4]:
            scene.tell(key, event)
    scene.fresh(1.0)
    scene.press("down")
    scene.press("down")
    assert (
        "› ◌ drafting     b" in scene.draw(100, 30, 1.0).plain or "› ? judging      b" in scene.draw(100, 30, 1.0).plain
    )
    scene.press("enter")
    assert "b · specreason" in scene.draw(100, 30, 1.0).plain
    scene.press("/")
    scene.press("b")
    scene.press("esc")
    assert "b · specreason" in scene.draw(100, 30, 1.0).plain
    scene.press("esc")
    assert "in flight" in scene.draw(100, 30, 1.0).plain
    scene.tell(other, stored()[0].model_copy(update={"problem": stored()[0].problem.model_copy(update={"id": "b"})}))
    scene.fresh(2.0)
    assert list(scene.state.flying) == [one]
    scene.press("q")
    assert scene.over
