"""Solves of several chains, with authors, kinds and reasons of a program's own: every view shows them as they are."""

from __future__ import annotations

import io
import json
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hostile import FINDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from specreason_sgl.evaluation import plots, report
from specreason_sgl.evaluation.audit import behind, collect
from specreason_sgl.evaluation.statistics import analyse
from specreason_sgl.events import (
    AnswerWritten,
    CallMade,
    ChainOpened,
    Dropped,
    Event,
    Noticed,
    SolveEnded,
    SolveFailed,
    SolveStarted,
    StepDrafted,
    StepScored,
    StepsCut,
    StepTaken,
    TextAdded,
    TextStreamed,
    ThinkingEnded,
)
from specreason_sgl.runs.diff import diff_runs
from specreason_sgl.runs.redecide import redecide
from specreason_sgl.runs.store import Problem, Run, RunConfig, SolveRecord
from specreason_sgl.tally import Tally, tally
from specreason_sgl.text.scoring import Score
from specreason_sgl.view.batch_sinks import JsonBatch, PlainBatch
from specreason_sgl.view.batch_view import BatchLook, BatchState, SolveKey, batch_frame
from specreason_sgl.view.browse import Browser
from specreason_sgl.view.compare import Side, compare_frame, compare_report, first_different_step
from specreason_sgl.view.export import as_markdown, as_svg
from specreason_sgl.view.html import STYLE, as_html
from specreason_sgl.view.items import Look
from specreason_sgl.view.json_lines import JsonSink
from specreason_sgl.view.listing import EndedSolve, ended_line, solves_page
from specreason_sgl.view.plain import PlainSink, redecided_lines
from specreason_sgl.view.replay import Player, ReplayScene, stretched
from specreason_sgl.view.scenes import SolveScene
from specreason_sgl.view.solve_view import solve_frame
from specreason_sgl.view.solve_view import solve_report as whole_page
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.theme import OTHERS, SIGNS

WIDTHS = (60, 80, 110, 200)
LONG = "long " * 2000

words = st.one_of(
    st.sampled_from(
        [
            "base",
            "small",
            "verifier",
            "hint",
            "vote",
            "draft",
            "judge",
            "regenerate",
            "think",
            "answer",
            "closed",
            "pruned",
            "",
        ]
    ),
    st.sampled_from([*FINDS, LONG, "$\\frac{", "_hidden", "[bold]x[/]", "<script>", "| a | b |", "```"]),
    st.text(max_size=12),
)
numbers = st.integers(0, 4)
tokens = st.integers(0, 60)
attempts = st.sampled_from([0, 0, 1, 2])


def scored(step: int, digit: int, *, accepted: bool, chain: int = 0, at: float = 0.0, **more: Any) -> StepScored:
    score = Score(tuple(-0.05 if place == digit else -6.0 for place in range(10)))
    return StepScored(
        at=at,
        chain=chain,
        step=step,
        logprobs=score.logprobs,
        greedy=score.greedy,
        expected=score.expected,
        reaching=score.reaching(7),
        entropy=score.entropy,
        missing_mass=score.missing_mass,
        accepted=accepted,
        **more,
    )


def called(model: str, kind: str, generated: int, step: int | None = None, chain: int = 0, **more: Any) -> CallMade:
    row = {"prompt_tokens": 50, "cached_tokens": 40, "wall_s": 0.5, "finish": "stop", **more}
    return CallMade(chain=chain, step=step, model=model, kind=kind, generated_tokens=generated, **row)


@st.composite
def event_lists(draw: st.DrawFn) -> list[Event]:  # noqa: C901, PLR0912 - one case for each event
    """A solve in any order that a program could come up with, streamed text included."""
    made: list[Event] = [
        SolveStarted(
            question=draw(words),
            program=draw(words),
            budget=draw(st.integers(0, 200)),
            threshold=draw(st.none() | st.floats(0, 10)),
            score_rule=draw(st.none() | words),
            parameters={draw(words): draw(words)},
        )
    ]
    clock = 0.0
    told: dict[str, Any]
    for kind in draw(st.lists(st.sampled_from("tdsTaxfcnkeg"), max_size=40)):
        clock += draw(st.sampled_from([0.0, 0.25]))
        chain, step = draw(st.integers(0, 3)), draw(numbers)
        match kind:
            case "t":
                of = draw(st.none() | numbers)
                told = {"model": draw(words), "kind": draw(words), "attempt": draw(attempts), "text": draw(words)}
                made.append(TextStreamed(at=clock, chain=chain, step=of, **told))
            case "d":
                told = {"author": draw(words), "attempt": draw(attempts), "text": draw(words), "tokens": draw(tokens)}
                made.append(StepDrafted(at=clock, chain=chain, step=step, closes=False, **told))
            case "s":
                told = {"attempt": draw(attempts), "value": draw(st.none() | st.floats(-9, 9)), "measure": draw(words)}
                digit, accepted = draw(st.integers(0, 9)), draw(st.booleans())
                made.append(scored(step, digit, accepted=accepted, chain=chain, at=clock, **told))
            case "T":
                made.append(
                    StepTaken(
                        at=clock, chain=chain, step=step, author=draw(words), text=draw(words), tokens=draw(tokens)
                    )
                )
            case "a":
                made.append(
                    TextAdded(
                        at=clock, chain=chain, step=step, author=draw(words), text=draw(words), tokens=draw(tokens)
                    )
                )
            case "x":
                made.append(StepsCut(at=clock, chain=chain, keep=step, reason=draw(words)))
            case "f":
                made.append(ChainOpened(at=clock, chain=chain, parent=draw(st.none() | st.integers(0, 3)), steps=step))
            case "c":
                of = draw(st.none() | numbers)
                made.append(
                    called(draw(words), draw(words), draw(tokens), of, chain, at=clock, dropped=draw(st.booleans()))
                )
            case "n":
                made.append(Noticed(at=clock, chain=chain, message=draw(words), author=draw(words)))
            case "k":
                made.append(Dropped(at=clock, chain=chain, step=step, model=draw(words), tokens=draw(tokens)))
            case "e":
                made.append(ThinkingEnded(at=clock, chain=chain, reason=draw(words), steps=step, tokens=draw(tokens)))
            case _:
                text = draw(words)
                made.append(
                    AnswerWritten(at=clock, chain=chain, author=draw(words), text=text, answer=text, truncated=False)
                )
    if draw(st.booleans()):
        made.append(SolveFailed(at=clock, error=draw(words), hint=draw(words)))
    outcome = draw(st.sampled_from(["answered", "unanswered", "failed"]))
    return [*made, SolveEnded(at=clock, outcome=outcome, correct=draw(st.none() | st.booleans()))]


def record(events: list[Event], mode: str = "forked") -> SolveRecord:
    kept = [event for event in events if not isinstance(event, TextStreamed)]
    problem = Problem(id="one", question="How many?", answer="14")
    return SolveRecord(problem=problem, mode=mode, started=datetime(2026, 1, 1, tzinfo=UTC), events=kept)


def plain(events: list[Event]) -> str:
    stream = io.StringIO()
    sink = PlainSink(stream)
    for event in events:
        sink(event)
    return stream.getvalue()


def forked() -> list[Event]:
    """Two chains of which one was cut back, with a hint, a tool's output, and a verifier that writes a step."""
    return [
        SolveStarted(question="12 less 3 and 5 more?", program="forked", budget=100, threshold=7, score_rule="greedy"),
        called("small", "draft", 6, 0),
        StepDrafted(step=0, text="Mia starts with 12.", tokens=6, closes=False),
        scored(0, 8, accepted=True),
        StepTaken(step=0, author="small", text="Mia starts with 12.", tokens=6),
        TextAdded(step=1, author="hint", text="Eating takes apples away."),
        StepDrafted(step=1, text="She has 15.", tokens=5, closes=False),
        scored(1, 7, accepted=True),
        StepTaken(step=1, author="small", text="She has 15.", tokens=5),
        ChainOpened(chain=1, parent=0, steps=1),
        called("verifier", "verify", 4, 1),
        StepsCut(keep=1, reason="the verifier objects"),
        called("verifier", "regenerate", 9, 1),
        StepTaken(step=1, author="verifier", text="She eats 3, so 9.", tokens=9),
        TextAdded(chain=1, step=1, author="tool", text=">>> 12-3\n9"),
        StepDrafted(chain=1, step=1, text="So 9 are left.", tokens=7, closes=False),
        scored(1, 3, accepted=False, chain=1),
        called("base", "regenerate", 8, 1, 1),
        StepTaken(chain=1, step=1, author="base", text="Then 9 are left.", tokens=8),
        ThinkingEnded(reason="closed", steps=2, tokens=15),
        ThinkingEnded(chain=1, reason="agreed", steps=2, tokens=14),
        AnswerWritten(author="base", text="\\boxed{13}", answer="13", truncated=False),
        AnswerWritten(chain=1, author="base", text="\\boxed{14}", answer="14", truncated=False),
        SolveEnded(outcome="answered", correct=True),
    ]


def obeyed(text: str) -> set[str]:
    return {char for char in text if char != "\n" and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}


thorough = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@thorough
@given(events=event_lists(), place=st.integers(0, 40), width=st.sampled_from(WIDTHS))
def test_a_solve_of_any_words_and_chains_is_drawn_at_any_moment(events: list[Event], place: int, width: int) -> None:
    state = SolveState.of(events[: place + 1])
    opened = frozenset(item.place for item in state.items)
    again = redecide(events, 5, "expected")

    for look in (
        Look(width=width, height=24),
        Look(width=width, height=24, cursor=place % (len(state.items) + 1), opened=opened, redecision=again),
        Look(width=width, height=60, offset=3),
        Look(width=width, height=24, cursor=0, folded=frozenset(state.chains)),
    ):
        page = solve_frame(state, look).plain
        rows = page.split("\n")
        assert len(rows) == look.height
        assert max(map(cell_len, rows)) <= width
        assert not obeyed(page)
    assert max(map(cell_len, whole_page(state, Look(width=width, redecision=again)).plain.split("\n"))) <= width


@thorough
@given(events=event_lists())
def test_a_solve_of_any_words_and_chains_is_told_in_lines_and_files(events: list[Event]) -> None:
    lines = plain(events)
    again = redecide(events, 5, "greedy")
    stream = io.StringIO()
    sink = JsonSink(stream)
    for event in events:
        sink(event)

    assert not obeyed(lines)
    assert not obeyed("\n".join(redecided_lines("title", again)))
    assert [json.loads(line)["type"] for line in stream.getvalue().splitlines()] == [
        event.model_dump()["type"] for event in events if not isinstance(event, TextStreamed)
    ]
    state = SolveState.of(events)
    for write in (as_html, as_markdown, as_svg):
        assert not obeyed(write(state, "title", again))
    assert "<script>" not in as_html(state, "title", again)


@thorough
@given(
    events=event_lists(), keys=st.lists(st.sampled_from(["n", "b", "r", "f", "c", "F", "g", "G", "u", "d"]), max_size=8)
)
def test_a_solve_of_any_words_and_chains_is_played_and_walked_through(events: list[Event], keys: list[str]) -> None:
    stored = record(events)
    player = Player(stretched(stored.events), paused=True)
    browser = Browser()
    while not player.done:
        player.step()
        solve_frame(player.state, Look(width=80, height=20))
    assert player.state.tally.kept == tally(list(stored.events)).kept

    scene = ReplayScene(
        stored.events, "title", colour=True, speed=None, redecision=redecide(stored.events, 5, "greedy")
    )
    live = SolveScene("title", colour=False)
    for event in events:
        live.hear(event)
    live.fresh(0.0)
    for key in keys:
        scene.press(key)
        scene.draw(80, 20, 0.0)
        browser.press(key, live.state)
        live.draw(80, 20, 1.0)


@thorough
@given(events=event_lists(), others=event_lists(), width=st.sampled_from(WIDTHS))
def test_solves_of_any_words_and_chains_stand_beside_each_other(
    events: list[Event], others: list[Event], width: int
) -> None:
    one, other = record(events), record(others)
    sides = Side("one", SolveState.of(one.events)), Side("other", SolveState.of(other.events))
    page = compare_frame(*sides, Look(width=width, height=20, cursor=0)).plain
    batch = BatchState(2)
    for number, event in enumerate(events):
        batch.heard(SolveKey("one", number % 2, "forked"), event)
    key = SolveKey("one", 0, "forked")
    batch.finished(key, EndedSolve.of(one))
    for sink in (PlainBatch(2, (), io.StringIO()), JsonBatch(2, io.StringIO())):
        sink.finished(key, one)

    assert max(map(cell_len, page.split("\n"))) <= width
    assert not obeyed(page + compare_report(*sides, Look(width=width)).plain)
    assert first_different_step(sides[0].state, sides[0].state) is None
    assert diff_runs([one], [one]).is_same
    diff_runs([one], [other])
    assert cell_len(ended_line(EndedSolve.of(one), width).plain) <= width
    assert not obeyed(solves_page("run", [EndedSolve.of(one)], 0, width, 12, colour=False).plain)
    assert not obeyed(batch_frame(batch, BatchLook(width=width, height=24)).plain)


@thorough
@given(lists=st.lists(event_lists(), min_size=1, max_size=3))
def test_solves_of_any_words_and_chains_are_reported(
    lists: list[list[Event]],
) -> None:
    stored = [record(events, f"mode-{number}") for number, events in enumerate(lists)]
    config = RunConfig(created=datetime(2026, 1, 1, tzinfo=UTC), program="p", pair="none")
    made = report.report_run(Run(Path("run"), config, None, stored, []))

    assert not obeyed(report.markdown(made))
    assert all(len(cell) < 400 for table in report.tables(made) for cell in table.columns)
    for summary in analyse(stored).summaries:
        assert summary.wasted_tokens >= 0
        assert sum(summary.shares.values()) == pytest.approx(1) or not summary.shares
    collect(stored, "answers")


@thorough
@given(events=event_lists())
def test_no_count_is_ever_negative(events: list[Event]) -> None:
    totals = Tally()
    for event in events:
        totals.add(event)
        counters = (totals.steps, totals.kept, totals.dropped, totals.generated, totals.calls)
        assert all(value >= 0 for counter in counters for value in counter.values())
        assert totals.wasted_tokens >= 0
        assert totals.thinking_tokens >= 0
        assert totals.acceptance is None or 0 <= totals.acceptance <= 1


@st.composite
def honest_solves(draw: st.DrawFn) -> list[Event]:
    """Programs that draft, judge, regenerate, cut and fork, and tell of all that they generate for the reasoning."""
    made: list[Event] = []
    lengths = {0: 0}
    drafter, writer = draw(st.sampled_from([("small", "base"), ("tiny", "base"), ("small", "verifier")]))
    for _ in range(draw(st.integers(0, 30))):
        chain = draw(st.sampled_from(sorted(lengths)))
        match draw(st.sampled_from("sssbcf")):
            case "c":
                keep = draw(st.integers(0, lengths[chain]))
                made.append(StepsCut(chain=chain, keep=keep, reason="because"))
                lengths[chain] = keep
            case "f":
                steps = draw(st.integers(0, lengths[chain]))
                made.append(ChainOpened(chain=len(lengths), parent=chain, steps=steps))
                lengths[len(lengths)] = steps
            case "b":
                count = draw(tokens)
                made += [
                    called(writer, "regenerate", count, lengths[chain], chain),
                    StepTaken(chain=chain, step=lengths[chain], author=writer, text="b", tokens=count),
                ]
                lengths[chain] += 1
            case _:
                step, count, again, accepted = lengths[chain], draw(tokens), draw(tokens), draw(st.booleans())
                made += [
                    called(drafter, "draft", count, step, chain),
                    StepDrafted(chain=chain, step=step, text="d", tokens=count, closes=False),
                    scored(step, 8 if accepted else 2, accepted=accepted, chain=chain),
                ]
                if accepted:
                    made.append(StepTaken(chain=chain, step=step, author=drafter, text="d", tokens=count))
                else:
                    made.append(called(writer, "regenerate", again, step, chain))
                    made.append(StepTaken(chain=chain, step=step, author=writer, text="r", tokens=again))
                lengths[chain] += 1
    return made


@thorough
@given(events=honest_solves())
def test_what_is_generated_for_the_reasoning_is_kept_or_wasted(events: list[Event]) -> None:
    totals = tally(events)

    assert totals.thinking_tokens + totals.wasted_tokens == sum(totals.generated.values())


@thorough
@given(events=honest_solves())
def test_views_and_totals_count_the_same_steps(events: list[Event]) -> None:
    state = SolveState.of(events)
    before: dict[int, list[str]] = {number: [] for number in state.chains}
    for event, steps in behind([*events, *(Noticed(chain=number, message="") for number in state.chains)]):
        if isinstance(event, Noticed):
            before[event.chain] = steps

    assert {number: chain.steps for number, chain in state.chains.items()} == {n: len(s) for n, s in before.items()}
    assert sum(sum(step.cut is None for step in chain.items) for chain in state.chains.values()) <= sum(
        state.tally.steps.values()
    )


def test_a_step_that_a_fork_still_has_is_kept_when_its_first_chain_cuts_it() -> None:
    events: list[Event] = [
        StepTaken(step=0, author="base", text="a", tokens=10),
        ChainOpened(chain=1, parent=0, steps=1),
        StepsCut(keep=0, reason="for the other chain to go on alone"),
    ]

    assert (tally(events).thinking_tokens, tally(events).wasted_tokens) == (10, 0)
    cut_twice = tally([*events, StepsCut(chain=1, keep=0, reason="this one too")])
    assert (cut_twice.thinking_tokens, cut_twice.wasted_tokens) == (0, 10)
    assert not +cut_twice.steps


def test_a_fork_has_the_text_that_stood_behind_the_last_step_and_loses_it_with_a_cut() -> None:
    events: list[Event] = [
        StepTaken(step=0, author="base", text="a", tokens=10),
        TextAdded(step=1, author="small", text="and so", tokens=3),
        ChainOpened(chain=1, parent=0, steps=1),
    ]
    cut = [*events, StepsCut(chain=1, keep=1, reason="begin again"), StepsCut(chain=0, keep=1, reason="here too")]

    assert [chain.tokens for chain in SolveState.of(events).chains.values()] == [13, 13]
    assert tally(events).thinking_tokens == 13
    assert [chain.tokens for chain in SolveState.of(cut).chains.values()] == [10, 10]
    assert (tally(cut).thinking_tokens, tally(cut).wasted_tokens) == (10, 3)


def test_a_solve_ended_for_the_reason_of_the_chain_that_gave_its_answer() -> None:
    ends = [
        ThinkingEnded(chain=chain, reason=reason, steps=1, tokens=1) for chain, reason in ((0, "closed"), (1, "budget"))
    ]
    answer = AnswerWritten(author="base", text="14", answer="14", truncated=False)

    assert tally([*ends]).ended == "budget"
    assert tally([*ends, answer]).ended == "closed"


def test_each_chain_stands_under_its_heading_with_what_it_came_to() -> None:
    state = SolveState.of(forked())
    page = whole_page(state, Look(width=100)).plain
    rows = page.split("\n")

    headings = [row for row in rows if row.startswith("── chain")]
    assert [heading.strip("─ ") for heading in headings] == [
        "chain 0 · ◆ answered · 2 steps, 15 tok · ended: closed",
        "chain 1 · ◆ gave the answer · from chain 0 after 1 step · 2 steps, 14 tok · ended: agreed",
    ]
    first, second = (page.index(heading) for heading in headings)
    assert (
        first
        < page.index("Eating takes apples away.")
        < page.index("She eats 3, so 9.")
        < page.index("◆ answered     13")
    )
    assert second < page.index(">>> 12-3") < page.index("Then 9 are left.") < page.index("◆ answered     14")
    assert "2 chains · 1 step cut" in page
    assert "▲ hint" in page
    assert "★ tool" in page


def test_what_was_taken_back_is_struck_out_and_says_why() -> None:
    page = whole_page(SolveState.of(forked()), Look(width=100))
    place = page.plain.index("She has 15.")
    styles = [str(span.style) for span in page.spans if span.start <= place < span.end]

    assert "⊘ cut: the verifier objects" in page.plain
    assert any("strike" in style for style in styles)


def test_the_budget_is_that_of_the_longest_chain_and_goes_down_after_a_cut() -> None:
    events = forked()
    cut = next(place for place, event in enumerate(events) if isinstance(event, StepsCut))

    assert [SolveState.of(events[:until]).fullest for until in (cut, cut + 1, len(events))] == [11, 6, 15]
    assert "longest chain" in solve_frame(SolveState.of(events), Look(width=160, height=50)).plain


def test_words_of_a_programs_own_have_colours_in_the_order_in_which_they_appear() -> None:
    state = SolveState.of(forked())

    assert state.others == ["hint", "verifier", "tool"]
    shown = [state.sign_of_author(word) for word in state.others]
    assert [(role.glyph, role.style) for role in shown] == [(glyph, style) for glyph, style, _ in OTHERS[:3]]
    assert [role.word for role in shown] == state.others
    assert len({role.glyph for role in SIGNS.values()} | {glyph for glyph, _, _ in OTHERS}) >= len(OTHERS) + 15


def test_chains_that_grow_at_the_same_time_share_the_page() -> None:
    events = [event for event in forked() if not isinstance(event, ThinkingEnded | AnswerWritten | SolveEnded)]
    for chain, text in ((0, "first goes on"), (1, "second goes on")):
        events.append(TextStreamed(chain=chain, step=2, model="small", kind="draft", text=text))
    page = solve_frame(SolveState.of(events), Look(width=100, height=22)).plain

    assert (
        page.index("── chain 0") < page.index("first goes on") < page.index("── chain 1") < page.index("second goes on")
    )


def test_a_decision_is_taken_again_where_it_was_taken() -> None:
    again = redecide(forked(), 8, "greedy")
    page = whole_page(SolveState.of(forked()), Look(width=100, redecision=again)).plain
    row = again.as_row()

    assert [(decision.scored.chain, decision.step, decision.flips) for decision in again.decisions] == [
        (0, 0, False),
        (0, 1, True),
        (1, 1, False),
    ]
    assert page.count("⇄ flips to ✗ rejected") == 1
    assert page.index("counterfactual") < page.index("She eats 3, so 9.")
    assert "chain" not in row["decisions"][0]  # type: ignore[index]
    assert row["decisions"][2]["chain"] == 1  # type: ignore[index]


def test_plain_lines_name_the_chain_the_author_and_the_reason() -> None:
    lines = plain(forked()).splitlines()

    assert "chain 1 opened from chain 0 after 1 step" in lines
    assert "⊘ cut: the verifier objects · 1 step left" in lines
    assert "+ added by ▲ hint  Eating takes apples away." in lines
    assert "+ added by ★ tool of chain 1  >>> 12-3 9" in lines
    assert any(line.startswith("step   1  ▼ verifier") for line in lines)
    assert any(line.startswith("step   1 of chain 1  ■ base wrote") for line in lines)
    assert "thinking of chain 1 ended: agreed · 2 steps · 14 tok" in lines


def test_runs_part_by_what_chains_say_and_not_by_which_was_quicker() -> None:
    events = forked()
    by_chain = sorted(events[9:-5], key=lambda event: event.chain)
    opened = next(event for event in by_chain if isinstance(event, ChainOpened))
    quicker = [
        *events[:9],
        opened,
        *(event for event in reversed_chains(by_chain) if event is not opened),
        *events[-5:],
    ]

    assert diff_runs([record(events)], [record(quicker)]).is_same
    changed = [
        event.model_copy(update={"text": "something else"}) if isinstance(event, TextAdded) and event.chain else event
        for event in events
    ]
    assert diff_runs([record(events)], [record(changed)]).different[0].what == "text before step 1 of chain 1"


def reversed_chains(events: list[Event]) -> list[Event]:
    return [event for chain in (1, 0) for event in events if event.chain == chain]


def test_tokens_of_further_models_and_times_of_other_calls_are_reported(tmp_path: Path) -> None:
    config = RunConfig(created=datetime(2026, 1, 1, tzinfo=UTC), program="p", pair="none")
    stored = [record(forked())]
    made = report.report_run(Run(tmp_path, config, None, stored, []))
    (summary,) = made.statistics.summaries
    results = report.tables(made)[0]

    assert summary.other_tokens == {"verifier": 13}
    assert dict(zip(results.columns, results.rows[0], strict=True))["verifier tokens"] == "13"
    assert summary.shares["verify"] == pytest.approx(1 / 4)
    assert summary.cut_short == 0


def test_pictures_take_any_word(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    kinds = ["$\\frac{", "_hidden", LONG, *FINDS]
    events = [forked()[0], *(called("verifier", kind, 1, 0) for kind in kinds), *forked()[1:]]
    stored = [record(events, mode) for mode in ("$\\mode{", "_mode")]
    made = report.report_run(Run(tmp_path, None, None, stored, []))

    assert {path.name for path in plots.draw(made, stored, tmp_path)} >= {"time.svg", "frontier.svg"}


def test_a_word_of_ten_thousand_characters_is_clipped_wherever_it_stands() -> None:
    events: list[Event] = [
        SolveStarted(question="How many?", program=LONG, budget=10, threshold=7, score_rule=LONG),
        called(LONG, LONG, 3, 0),
        StepTaken(step=0, author=LONG, text="a step", tokens=3),
        TextAdded(step=1, author=LONG, text="a hint"),
        ChainOpened(chain=1, parent=0, steps=1),
        StepsCut(keep=0, reason=LONG),
        ThinkingEnded(reason=LONG, steps=0, tokens=0),
        AnswerWritten(author=LONG, text="14", answer="14", truncated=False),
        SolveEnded(outcome="answered"),
    ]
    state = SolveState.of(events)

    assert max(map(len, plain(events).splitlines())) < 400
    assert len(as_markdown(state, "title")) < 3000
    assert len(as_html(state, "title")) < 8000 + len(STYLE)
    assert max(map(cell_len, whole_page(state, Look(width=60)).plain.split("\n"))) == 60


def test_a_judged_draft_is_behind_the_steps_of_its_own_chain() -> None:
    found = {(event.chain, event.step): steps for event, steps in behind(forked()) if isinstance(event, StepTaken)}

    assert found[0, 1] == ["Mia starts with 12."]
    assert found[1, 1] == ["Mia starts with 12."]
