"""What the methods of the field do, in every view: candidates, chains and votes, hints, tools and verifiers."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from test_view_chains import called

from specreason_sgl.events import (
    AnswerWritten,
    ChainOpened,
    Event,
    Noticed,
    SolveEnded,
    SolveStarted,
    StepDrafted,
    StepScored,
    StepsCut,
    StepTaken,
    TextAdded,
    TextStreamed,
    ThinkingEnded,
)
from specreason_sgl.text.scoring import Score, certain
from specreason_sgl.view.browse import Browser
from specreason_sgl.view.chains import BESIDE
from specreason_sgl.view.compare import Side, compare_frame, compare_report, first_different_step
from specreason_sgl.view.export import as_markdown, as_svg
from specreason_sgl.view.html import as_html
from specreason_sgl.view.items import CHOICE, Look
from specreason_sgl.view.page import LivePage
from specreason_sgl.view.plain import PlainSink
from specreason_sgl.view.replay import Player, stretched
from specreason_sgl.view.solve_view import solve_frame, solve_report
from specreason_sgl.view.state import SolveState

HOSTILE = "\x1b[2J[red]</pre><script>alert(1)</script>\u202e"


def begun(program: str = "method") -> list[Event]:
    return [SolveStarted(question="How many?", program=program, budget=100)]


def ended(*, correct: bool = True) -> Event:
    return SolveEnded(outcome="answered", correct=correct)


def answered(answer: str, chain: int = 0, author: str = "base") -> AnswerWritten:
    text = f"So \\boxed{{{answer}}}, says {author} of {chain}." if author != "vote" else ""
    return AnswerWritten(chain=chain, author=author, text=text, answer=answer, truncated=False)


def taken(text: str, step: int, chain: int = 0, author: str = "base") -> StepTaken:
    return StepTaken(chain=chain, step=step, author=author, text=text, tokens=len(text.split()))


def drafted(texts: Sequence[str], step: int, chain: int = 0, author: str = "small", first: int = 0) -> list[Event]:
    return [
        event
        for number, text in enumerate(texts, start=first)
        for event in (
            called(author, "draft" if author == "small" else "regenerate", len(text.split()), step, chain),
            StepDrafted(
                chain=chain, step=step, author=author, attempt=number, text=text, tokens=len(text.split()), closes=False
            ),
        )
    ]


def scored(
    values: Sequence[float | None], kept: set[int], step: int, chain: int = 0, first: int = 0, **more: Any
) -> list[Event]:
    """The decisions on candidates; without a value it was the judge's score of 7."""
    events: list[Event] = []
    for number, value in enumerate(values, start=first):
        score = certain("9" if number in kept else "0") if value is not None else Score((*[-9.0] * 7, -0.1, -9.0, -9.0))
        figures: dict[str, Any] = {name: getattr(score, name) for name in ("greedy", "expected", "entropy", "logprobs")}
        figures |= {"accepted": number in kept, "missing_mass": 0.0, "reaching": 1.0, **more}
        events.append(StepScored(chain=chain, step=step, attempt=number, value=value, **figures))
    return events


def choosing() -> list[Event]:
    """Two steps with drafts to choose from: one is taken, and then none."""
    return [
        *begun(),
        *drafted(["first draft", "second draft", "third draft"], 0),
        *scored([0.08, 0.83, 0.05], {1}, 0, measure="probability"),
        taken("second draft", 0, author="small"),
        *drafted(["poor one", "poor two"], 1),
        *scored([0.2, 0.3], set(), 1, measure="probability"),
        taken("the base model's own", 1),
        ThinkingEnded(reason="closed", steps=2, tokens=6),
        answered("4"),
        ended(),
    ]


def taking_over() -> list[Event]:
    """Drafts of the small model of which none will do, and the base model's own candidates."""
    return [
        *begun(),
        *drafted(["small a", "small b"], 0),
        *scored([0.2, 0.1], set(), 0, measure="reward"),
        *drafted(["base c", "base d"], 0, author="base", first=2),
        *scored([0.6, 0.97], {3}, 0, first=2, measure="reward"),
        taken("base d", 0),
        ThinkingEnded(reason="closed", steps=1, tokens=2),
        answered("4"),
        ended(),
    ]


def beams() -> list[Event]:
    """Two candidates of one step are taken, one of them by a fork, of which nothing is kept then."""
    return [
        *begun(),
        *drafted(["left", "right", "neither"], 0),
        *scored([0.9, 0.7, 0.1], {0, 1}, 0),
        ChainOpened(chain=1, parent=0, steps=0),
        taken("left", 0, author="small"),
        taken("right", 0, chain=1, author="small"),
        *drafted(["left on"], 1),
        *drafted(["right on", "right away"], 1, chain=1),
        *scored([0.8], {0}, 1),
        *scored([0.3, 0.2], set(), 1, chain=1),
        taken("left on", 1, author="small"),
        ThinkingEnded(chain=1, reason="pruned", steps=1, tokens=1),
        ThinkingEnded(reason="closed", steps=2, tokens=3),
        answered("14"),
        answered("14", author="vote"),
        ended(),
    ]


def voting() -> list[Event]:
    """Three chains, of which one is cut; answers behind each, and a vote."""
    steps = (["a one", "a two", "a three"], ["b one", "b two"], ["c one"])
    events: list[Event] = [*begun(), ChainOpened(chain=1), ChainOpened(chain=2)]
    for chain, texts in enumerate(steps):
        events += [taken(text, number, chain) for number, text in enumerate(texts)]
        events.append(ThinkingEnded(chain=chain, reason="closed", steps=len(texts), tokens=2 * len(texts)))
    events.append(ChainOpened(chain=3, parent=0, steps=2))
    given = (("5", 3), ("5", 3), ("7", 0), ("7.0", 0), ("7", 1), ("5", 1), ("7", 2))
    return [*events, *(answered(*each) for each in given), answered("7", author="vote"), ended()]


def told_by_others() -> list[Event]:
    """A verifier's remark, a tool's output and a hint."""
    return [
        *begun(),
        taken("calc(3 + 4)", 0),
        TextAdded(step=1, author="tool", text="= 7\n\n"),
        Noticed(message="thought 1 states: 0.91", author="verifier"),
        TextAdded(step=1, author="hint", text="(Keep the rest short.)\n\n"),
        taken("So 7.", 1),
        taken("Or 8.", 2),
        StepsCut(keep=2, reason="converged"),
        ThinkingEnded(reason="converged", steps=2, tokens=4),
        answered("7"),
        ended(),
    ]


def of(events: Sequence[Event]) -> SolveState:
    return SolveState.of(events)


def page(events: Sequence[Event], width: int = 100, **look: Any) -> str:
    return solve_report(of(events), Look(width=width, **look)).plain


def frame(events: Sequence[Event], width: int = 100, height: int = 40, **look: Any) -> str:
    return solve_frame(of(events), Look(width=width, height=height, **look)).plain


def lines(events: Sequence[Event]) -> list[str]:
    stream = io.StringIO()
    sink = PlainSink(stream)
    for event in events:
        sink(event)
    return stream.getvalue().splitlines()


class Folds(HTMLParser):
    """The elements that fold, by id: whether they are open, and all the words that are in them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.is_open: dict[str, bool] = {}
        self.words: dict[str, str] = {}
        self._inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag == "details":
            name = told.get("id") or ""
            self._inside.append(name)
            self.is_open[name], self.words[name] = "open" in told, ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "details":
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        for name in self._inside:
            self.words[name] += data


def text_of(path: Callable[[SolveState, str], str], events: Sequence[Event]) -> str:
    return path(of(events), "title")


# Candidates


def test_each_candidate_has_a_line_with_its_figure_and_whether_it_was_taken() -> None:
    rows = [row.strip() for row in page(choosing()).split("\n")]

    assert rows.count("┊ 3 candidates by probability") == 1
    at = rows.index("┊ 3 candidates by probability")
    assert rows[at + 1 : at + 4] == ["┊ ✗  0.08 ● first draft", "┊ ✓  0.83 ● second draft", "┊ ✗  0.05 ● third draft"]
    assert "┊ ✗  0.30 ● poor two" in rows
    first, second = (next(row for row in rows if row.startswith(head)) for head in ("0 │ ✓", "1 ┃ ■"))
    assert "0.83 probability" in first
    assert "probability" not in second, "the base model's step is none of the candidates"


def test_candidates_fold_to_what_was_taken_where_there_is_little_room() -> None:
    for look in ({"width": 40}, {"width": 100, "height": 14}):
        rows = page(choosing(), **look).split("\n")
        folded = [row.strip() for row in rows if "candidates" in row]
        assert folded[0].startswith("┊ ✓ accepted 1 of 3 candidates")
        assert folded[1].startswith("┊ ✗ rejected 0 of 2 candidates")
        assert not any("third draft" in row for row in rows)


def test_of_many_candidates_the_best_are_listed_and_all_when_they_are_opened() -> None:
    texts, values = [f"draft {number}" for number in range(12)], [number / 100 for number in range(12)]
    events = [*begun(), *drafted(texts, 0), *scored(values, {2}, 0), taken("draft 2", 0, author="small"), ended()]

    folded, opened = page(events), page(events, opened=frozenset({0}))
    assert [number for number in range(12) if f"● draft {number}\n" in re.sub(" +\n", "\n", folded)] == [
        2,
        8,
        9,
        10,
        11,
    ]
    assert f"▸ {12 - CHOICE} more" in folded
    assert all(f"draft {number}" in opened for number in range(12))
    assert "▸" not in opened


def test_candidates_of_both_models_stay_when_the_base_model_takes_over() -> None:
    step = of(taking_over()).steps[0]
    shown = page(taking_over())

    assert [(each.author, each.is_accepted) for each in step.candidates.values()] == [
        ("small", False), ("small", False), ("base", False), ("base", True),
    ]  # fmt: skip
    assert "4 candidates by reward" in shown
    assert "┊ ✗  0.20 ● small a" in shown
    assert "┊ ✓  0.97 ■ base d" in shown
    browser = Browser(cursor=None)
    browser.press("r", of(taking_over()))
    assert (browser.cursor, browser.missed) == (0, False), "what was refused is found"


def test_an_empty_place_that_is_filled_again_begins_with_new_candidates() -> None:
    state = of([*begun(), *drafted(["", ""], 0), *scored([0.1, 0.1], set(), 0), *drafted(["again"], 0)])

    assert [each.text for each in state.steps[0].candidates.values()] == ["again"]


def test_candidates_that_are_written_at_the_same_time_are_told_apart() -> None:
    pieces = (("one ", 0), ("two ", 1), ("and one", 0), ("and two", 1))
    events = [
        *begun(),
        *(TextStreamed(step=0, model="small", kind="draft", attempt=number, text=text) for text, number in pieces),
    ]
    live = LivePage()
    sent = [part["html"] for event in events for part in live.add(event)]

    assert "one and one▌" in frame(events)
    assert "two and two▌" in frame(events)
    assert "one two" not in frame(events) + "".join(sent)
    read = [*events, *drafted(["one and one."], 0)]
    assert "? " + " " * 4 + "– ● one and one." in frame(read)
    assert "two and two▌" in frame(read)


def test_a_candidate_that_was_never_scored_says_so() -> None:
    events = [*begun(), *drafted(["", "b"], 0), *scored([0.9], {1}, 0, first=1), taken("b", 0, author="small"), ended()]

    assert "· not scored" in text_of(as_html, events)
    assert "┊ ·     – ●" in page(events)
    assert "┊ ? " in page(events[:-3])


def test_a_player_jumps_to_where_nothing_was_taken_of_the_drafts() -> None:
    player = Player(choosing(), paused=True)
    player.rejection()

    assert [step.text for step in player.state.steps] == ["second draft", "the base model's own"]


def test_a_fork_has_the_figure_of_the_candidate_that_it_goes_on_with() -> None:
    state = of(beams())
    shown = page(beams(), opened=frozenset(item.place for item in state.items))

    forked = state.chains[1].standing[0]
    assert (forked.text, forked.score and forked.score.value) == ("right", 0.7)
    assert "taken by a fork" in shown
    assert shown.count("taken by a fork") == 1


def test_candidates_of_a_chain_of_which_nothing_was_kept_stay_to_be_seen() -> None:
    for shown in (page(beams()), "\n".join(lines(beams())), text_of(as_markdown, beams()), text_of(as_html, beams())):
        assert "right away" in shown
        assert "✗ rejected" in shown
    assert of(beams()).chains[1].steps == 1


def test_a_draft_that_is_the_only_one_is_shown_as_ever() -> None:
    only = [*begun(), *drafted(["alone"], 0), *scored([None], {0}, 0), taken("alone", 0, author="small"), ended()]

    assert "candidates" not in page(only) + text_of(as_html, only) + text_of(as_markdown, only)


def test_candidates_are_in_every_file_with_figure_author_and_text() -> None:
    folds = Folds(text_of(as_html, taking_over()))
    choice = folds.words["choice-0"]
    markdown = text_of(as_markdown, taking_over())

    assert not folds.is_open["choice-0"]
    assert "4 candidates · ✓ accepted reward 0.97" in choice
    assert re.findall("reward ([0-9.]+)", choice) == ["0.97", "0.20", "0.10", "0.60", "0.97"]
    assert "✗ rejected · reward 0.20 · ● small · 2 tok" in markdown
    assert "✓ accepted · reward 0.97 · ■ base · 2 tok" in markdown
    assert "```text\nsmall a\n```" in markdown
    assert "  candidate 3  ✓ reward 0.97  ■ base  2 tok  base d" in lines(taking_over())


def test_candidates_can_be_searched() -> None:
    browser = Browser()
    for key in ("/", *"poor two", "enter"):
        browser.press(key, of(choosing()))

    assert (browser.cursor, browser.missed) == (1, False)


def test_words_of_candidates_and_remarks_are_obeyed_nowhere() -> None:
    events = [
        *begun(),
        *drafted([HOSTILE, HOSTILE], 0, author=HOSTILE),
        *scored([1.0, 2.0], {0}, 0, measure=HOSTILE),
        taken("a", 0),
        Noticed(message=HOSTILE, author=HOSTILE),
        answered(HOSTILE, author=HOSTILE),
        answered(HOSTILE, author="vote"),
        ended(),
    ]
    opened = frozenset({0})
    pages = [page(events, opened=opened), *lines(events), *(text_of(path, events) for path in (as_html, as_svg))]

    assert not any(char in shown for shown in pages for char in "\x1b\u202e")
    assert "<script>" not in text_of(as_html, events)
    assert "[red]" in page(events, opened=opened)


# Chains


def test_chains_stand_side_by_side_where_there_is_room_and_one_after_another_elsewhere() -> None:
    wide, narrow = page(voting(), BESIDE).split("\n"), page(voting(), BESIDE - 1).split("\n")

    assert any("a one" in row and "b one" in row for row in wide)
    assert any("a two" in row and "b two" in row for row in wide), "the same step stands on the same line"
    assert not any("a one" in row and "b one" in row for row in narrow)
    assert any("a one" in row and "b one" in row and "c one" in row for row in page(voting(), 200).split("\n"))
    assert max(map(cell_len, wide)) <= BESIDE
    order = [next(n for n, row in enumerate(narrow) if text in row) for text in ("a three", "b one", "c one")]
    assert order == sorted(order)


def test_each_chain_says_what_became_of_it_and_has_its_own_answers() -> None:
    shown = page(voting(), 80)

    assert "chain 0 · ◆ gave the answer · 3 steps, 6 tok · ended: closed" in shown
    assert "chain 1 · ◆ answered · 2 steps, 4 tok · ended: closed" in shown
    assert "◆ answered     7 · 7.0" in shown
    assert "⊘ cut after 2 steps · chain 3  ◆ answered 5 ×2" in shown
    assert shown.index("a three") < shown.index("cut after 2 steps") < shown.index("chain 1 ·")
    assert "chain 1 · ⊖ dropped · from chain 0 after 0 steps" in page(beams(), 80)
    assert "chains  ◆ 0: 7.0  ◆ 1: 5  ◆ 2: 7" in shown


def test_a_chain_is_thinking_then_waits_for_its_answer_and_is_cut() -> None:
    events = voting()
    opened = next(place for place, event in enumerate(events) if isinstance(event, ChainOpened) and event.parent == 0)
    signs = [
        [state.sign_of_chain(chain) for chain in state.chains.values()]
        for state in (of(events[:4]), of(events[:opened]), of(events[: opened + 1]), of(events))
    ]

    assert signs == [["thinking"] * 3, ["waiting"] * 3, [*["waiting"] * 3, "cut"], ["answered"] * 4]
    assert of(events[: opened + 1]).phase == "answering"


def test_the_vote_is_one_line_with_every_answer_and_the_chosen_one_first() -> None:
    for shown in (
        page(voting()),
        "\n".join(lines(voting())),
        text_of(as_markdown, voting()),
        text_of(as_html, voting()),
    ):
        assert len(re.findall(r"vote +✓ 7 ×4 · 5 ×3", shown)) == 1
    assert "says base of 0" in page(voting()), "the answer is there in words"
    assert "vote" not in page(choosing())


def test_on_a_page_of_html_chains_fold_and_the_one_that_gave_the_answer_is_open() -> None:
    folds = Folds(text_of(as_html, voting()))

    assert {name: folds.is_open[name] for name in folds.is_open if name.startswith("chain-")} == {
        "chain-0": True, "chain-1": False, "chain-2": False, "chain-3": False,
    }  # fmt: skip
    assert "◆ answered 5 ×2 · from chain 0 after 2 steps" in folds.words["chain-3"]
    assert "says base of 1" in folds.words["given-1-0"]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("make", [voting, beams, choosing, told_by_others])
def test_what_is_selected_is_on_the_page(make: Callable[[], list[Event]], width: int) -> None:
    state = of(make())
    for cursor in range(len(state.items)):
        for folded in (frozenset[int](), frozenset({0})):
            shown = solve_frame(state, Look(width=width, height=18, cursor=cursor, folded=folded)).plain
            is_first = cursor == 0 or state.items[cursor].chain != state.items[cursor - 1].chain
            is_hidden = state.is_branched and state.items[cursor].chain in folded and not is_first
            assert shown.count("›") == (not is_hidden)


def test_a_key_folds_the_chain_of_the_selected_item_and_the_way_leads_past_it() -> None:
    state, browser = of(voting()), Browser(cursor=1)
    browser.press("c", state)
    folded = solve_frame(state, browser.look(Look(width=80, height=40))).plain

    assert (browser.cursor, browser.folded) == (0, frozenset({0}))
    assert "▸ 3 steps folded" in folded
    assert "a two" not in folded
    assert "b two" in folded
    browser.press("n", state)
    assert state.items[browser.cursor or 0].shown == "b one"
    browser.press("b", state)
    assert browser.cursor == 0
    browser.press("c", state)
    assert "a two" in solve_frame(state, browser.look(Look(width=80, height=40))).plain
    for key in ("c", "/", *"a three", "enter"):
        browser.press(key, state)
    assert browser.folded == frozenset(), "what is found is unfolded"


def test_where_there_is_but_one_chain_nothing_folds_it() -> None:
    browser = Browser()
    browser.press("c", of(choosing()))

    assert (browser.cursor, browser.folded) == (None, frozenset())


def test_chains_that_are_being_written_share_a_wide_page_in_columns() -> None:
    events = [*voting()[:4], TextStreamed(chain=1, step=None, model="base", kind="think", text="b is going")]
    rows = frame(events, 130, 20).split("\n")

    assert any("chain 0 · ◇ thinking" in row and "chain 1 · ◇ thinking" in row for row in rows)
    assert any("b is going▌" in row for row in rows)
    assert "chains  ◇ 0  ◇ 1  ◇ 2" in "\n".join(rows)


def test_a_chain_that_goes_on_alone_is_what_is_shown_of_several() -> None:
    events = [*beams()[:-3], *drafted(["on alone"], 2)][:-1]
    going = [event for event in events if not (isinstance(event, ThinkingEnded) and event.chain == 0)]
    going.append(TextStreamed(step=2, model="base", kind="regenerate", text="on alone"))

    assert "on alone▌" in frame(going, 80, 20)
    assert "chain 1 ·" not in frame(going, 80, 20)


def test_answers_that_are_written_at_the_same_time_are_told_apart() -> None:
    pieces = [("So ", 0, 0), ("Then ", 0, 1), ("it is 4", 0, 0), ("it is 5", 3, 0)]
    streamed = [
        TextStreamed(chain=chain, step=None, model="base", kind="answer", attempt=attempt, text=text)
        for text, chain, attempt in pieces
    ]
    events = [event for event in voting() if not isinstance(event, AnswerWritten | SolveEnded)]
    rows = [re.sub(" +", " ", row).strip() for row in frame([*events, *streamed], 80).split("\n")]

    assert "◆ answering chain 0 So it is 4▌" in rows
    assert "◆ answering chain 0 Then▌" in rows
    assert "◆ answering chain 3 it is 5▌" in rows
    first = of([*events, *streamed, answered("4")]).answering
    assert [text for _, text in first] == ["Then ", "it is 5"]


# Authors


def test_hints_tools_and_verifiers_speak_in_their_own_name_and_colour() -> None:
    state = of(told_by_others())
    shown = solve_report(state, Look(width=80))
    signs = {name: state.name_of(name) for name in ("tool", "verifier", "hint")}

    assert len({sign.style for sign in signs.values()}) == len(signs)
    for name, words in (("tool", "= 7"), ("verifier", "thought 1"), ("hint", "(Keep the rest")):
        place = shown.plain.index(signs[name].label)
        styles = [str(span.style) for span in shown.spans if span.start <= place < span.end]
        assert signs[name].style in styles
        assert place < shown.plain.index(words)
    assert "= 7\n\n" not in re.sub("[ ·]+\n", "\n", shown.plain), "what joins it to the next step is not shown"


def test_every_view_names_who_said_something() -> None:
    beside = compare_report(Side("a", of(told_by_others())), Side("b", of(choosing())), Look(width=130)).plain
    pages = [
        page(told_by_others(), 60), *(text_of(path, told_by_others()) for path in (as_html, as_markdown)), beside,
    ]  # fmt: skip

    for shown in (*pages, "\n".join(lines(told_by_others()))):
        for name in ("tool", "verifier", "hint"):
            assert of(told_by_others()).name_of(name).label in shown
    assert "! notice" not in "".join(pages)


def test_pieces_of_a_step_stand_above_what_completes_it() -> None:
    events: list[Event] = [
        *begun(),
        called("small", "span", 3, 0),
        TextAdded(step=0, author="small", text="We add", tokens=3),
        TextStreamed(step=0, model="base", kind="span", attempt=1, text=" two and"),
        called("base", "span", 2, 0),
        TextAdded(step=0, author="base", text=" two and", tokens=2),
        TextStreamed(step=0, model="small", kind="span", attempt=2, text=" tw"),
    ]
    rows = frame(events, 80)

    assert rows.index("● small wrote  3 tok") < rows.index("■ base wrote  2 tok") < rows.index("tw▌")
    assert "added" not in rows
    done = of([*events, called("small", "span", 1, 0), taken("two.", 0, author="small")])
    assert [item.shown for item in done.items] == ["We add", "two and", "two."]
    assert done.steps[0].seconds["span"] == pytest.approx(1.5)


# Beside each other


def test_a_comparison_shows_the_chain_that_gave_the_answer_and_says_so() -> None:
    sides = Side("voting", of(voting())), Side("choosing", of(choosing()))
    shown = compare_report(*sides, Look(width=130)).plain

    assert "4 chains; shown is chain 0, which gave the answer" in shown
    assert "a three" in shown
    assert "b one" not in shown
    assert "vote ✓ 7 ×4 · 5 ×3" in shown
    assert any("a one" in row and "second draft" in row for row in shown.split("\n"))


def test_a_fork_that_gave_the_answer_is_compared_from_its_beginning() -> None:
    events = [
        *begun(),
        *(taken(text, number) for number, text in enumerate(("one", "two", "three"))),
        ChainOpened(chain=1, parent=0, steps=2),
        StepsCut(keep=1, reason="because"),
        taken("more", 2, chain=1),
        ThinkingEnded(chain=1, reason="closed", steps=3, tokens=3),
        answered("4", chain=1),
        ended(),
    ]
    alone = [*begun(), *(taken(text, number) for number, text in enumerate(("one", "two", "more"))), answered("4")]
    shown = of(events).alone

    assert [item.shown for item in shown.items] == ["one", "two", "more"]
    assert all(item.cut is None for item in shown.items)
    assert first_different_step(of(events), of(alone)) is None
    assert first_different_step(of(events), of(voting())) == (0, 0)


def test_chains_without_an_answer_are_compared_one_after_another() -> None:
    unanswered = [event for event in voting() if not isinstance(event, AnswerWritten)]
    shown = compare_frame(
        Side("a", of(unanswered)), Side("b", of(voting())), Look(width=130, height=60, cursor=0)
    ).plain

    assert "all 4 chains" in shown
    assert "b one" in shown


# Replayed


def test_a_replay_streams_each_candidate_and_each_answer_by_itself() -> None:
    events = [event.model_copy(update={"at": 0.3 * place}) for place, event in enumerate(taking_over())]
    pieces = [event for event in stretched(events) if isinstance(event, TextStreamed)]
    texts: dict[tuple[str, str, int], str] = {}
    for piece in pieces:
        key = piece.model, piece.kind, piece.attempt
        texts[key] = texts.get(key, "") + piece.text

    assert texts == {
        ("small", "draft", 0): "small a", ("small", "draft", 1): "small b",
        ("base", "regenerate", 2): "base c", ("base", "regenerate", 3): "base d",
    }  # fmt: skip
    assert not of(stretched(events)).steps[0].streamed


def test_a_replay_begins_no_chain_before_it_was_opened() -> None:
    events: list[Event] = []
    for place, event in enumerate(voting()):
        if isinstance(event, AnswerWritten) and event.author != "vote":
            events.append(called("base", "answer", 5, None, event.chain, at=0.3 * place, wall_s=60.0))
        events.append(event.model_copy(update={"at": 0.3 * place}))
    first: dict[int, type[Event]] = {}
    for event in stretched(events):
        first.setdefault(event.chain, type(event))

    assert first[3] is ChainOpened


@given(
    make=st.sampled_from([choosing, taking_over, beams, voting, told_by_others]),
    until=st.integers(1, 40),
    width=st.integers(1, 140),
    height=st.integers(1, 40),
    cursor=st.none() | st.integers(0, 9),
    folded=st.frozensets(st.integers(0, 3)),
)
@settings(max_examples=100, deadline=None)
def test_a_frame_of_any_moment_fits_any_terminal(
    make: Callable[[], list[Event]], until: int, width: int, height: int, cursor: int | None, folded: frozenset[int]
) -> None:
    state = of(stretched(make())[:until])
    look = Look(width=width, height=height, cursor=cursor, opened=frozenset({0, 2}), folded=folded, found="a")
    shown = solve_frame(state, look).plain.split("\n")

    assert len(shown) == height
    for rows in (shown, compare_report(Side("a", state), Side("b", state), look).plain.split("\n")):
        assert max(map(cell_len, rows)) <= width
