"""Chains: steps, text that is none, cutting back, forking, ending, and what of it is told."""

from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import sglang as sgl
from hypothesis import given, settings
from hypothesis import strategies as st

from specreason_sgl.errors import UsageError
from specreason_sgl.events import ChainOpened, Event, StepsCut, StepTaken, TextAdded, ThinkingEnded
from specreason_sgl.lang.chain import Chain
from specreason_sgl.lang.loading import Program
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solve import Solve, Written
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.settings import Settings
from specreason_sgl.tally import tally
from specreason_sgl.testing import CHAT, Reply, ScriptedBackend

OPENING = CHAT.opening("q")
PROBLEM = Problem(id="p", question="q")


def solving(**settings: Any) -> Solve:
    return Solve(PROBLEM, Settings(**settings), {"base": ScriptedBackend("base", [])}, program="test")


def step(text: str, tokens: int = 1, author: str = "base", *, closes: bool = False) -> Written:
    return Written(author, text, tokens, closes)


def grown(*texts: str, **settings: Any) -> Chain:
    chain = solving(**settings).chain()
    for text in texts:
        place = chain.place()
        assert place is not None
        chain.take(place, step(text))
    return chain


def told(chain: Chain, *kinds: type[Event]) -> list[Any]:
    return [event for event in chain.solve.events if isinstance(event, kinds)]


def ran(program: Callable[..., Any], base: list[Any]) -> SolveRecord:
    loaded = Program("test", sgl.function(program), "base", Path(__file__))
    return solve(PROBLEM, loaded, Pair(ScriptedBackend("base", base), None), Settings())


def test_a_prompt_is_the_opening_and_every_step_with_its_delimiter() -> None:
    chain = grown("one", "two")

    assert chain.prompt("base") == OPENING + "one\n\ntwo\n\n"
    assert chain.prompt("base", "three") == OPENING + "one\n\ntwo\n\nthree\n\n"
    assert chain.closed("base") == OPENING + "one\n\ntwo" + CHAT.close_thinking


def test_text_that_is_no_step_stands_where_it_was_put_and_the_next_step_follows_right_behind() -> None:
    chain = grown("one")
    chain.add("So ", "leader", tokens=1)
    place = chain.place()
    assert place is not None
    chain.take(place, step("two is next"))

    assert chain.prompt("base") == OPENING + "one\n\nSo two is next\n\n"
    assert chain.steps == ["one", "So two is next"], "a step is all that was written of it"
    assert chain.tokens == 3
    assert [(e.step, e.author, e.text, e.tokens) for e in told(chain, TextAdded)] == [(1, "leader", "So ", 1)]


def test_added_text_cannot_end_the_turn_unless_the_program_vouches_for_it() -> None:
    chain = grown()

    assert "</think>" not in chain.add("x</think>", "tool")
    assert chain.add("x</think>", "tool", vouched=True) == "x</think>"


def test_a_chain_that_is_cut_goes_on_with_what_is_left() -> None:
    chain = grown("one", "two", "three")
    chain.add("hint", "hint")
    chain.end("enough")

    chain.cut(1, "off course")

    assert chain.prompt("base") == OPENING + "one\n\n"
    assert (chain.steps, chain.tokens, chain.ended) == (["one"], 1, None)
    place = chain.place()
    assert place is not None
    assert place.number == 1
    assert [(e.keep, e.reason) for e in told(chain, StepsCut)] == [(1, "off course")]


@pytest.mark.parametrize("keep", [-1, 3])
def test_no_steps_can_be_kept_that_are_not_there(keep: int) -> None:
    with pytest.raises(ValueError, match="cannot be cut"):
        grown("one", "two").cut(keep, "why")


def test_a_fork_begins_with_what_the_other_has_and_goes_its_own_way() -> None:
    chain = grown("one")
    other = chain.fork()
    mine, its = chain.place(), other.place()
    assert mine is not None
    assert its is not None

    other.take(its, step("other two"))
    chain.take(mine, step("two"))

    assert (chain.text, other.text) == ("one\n\ntwo\n\n", "one\n\nother two\n\n")
    assert (mine.named("draft"), its.named("draft")) == ("draft_1", "chain_1_draft_1")
    assert [(e.chain, e.parent, e.steps) for e in told(chain, ChainOpened)] == [(1, 0, 1)]
    assert [(e.chain, e.text) for e in told(chain, StepTaken)] == [(0, "one"), (1, "other two"), (0, "two")]


def test_nobody_is_told_of_what_is_supposed() -> None:
    chain = grown("one")
    before = list(chain.solve.events)
    supposed = chain.supposed()
    place = supposed.place()
    assert place is not None

    supposed.take(place, step("two", closes=True))

    assert supposed.ended == "closed"
    assert (chain.steps, chain.ended, chain.solve.events) == (["one"], None, before)


def test_a_program_ends_a_chain_for_a_reason_of_its_own() -> None:
    chain = grown("one")
    places = chain.places()
    next(places)
    chain.end("sure enough")

    assert list(places) == []
    assert [(e.reason, e.steps, e.tokens) for e in told(chain, ThinkingEnded)] == [("sure enough", 1, 1)]


def test_the_first_reason_to_end_stands() -> None:
    chain = grown("one")
    chain.end("closed")
    chain.end("sure enough")

    assert chain.ended == "closed"
    assert len(told(chain, ThinkingEnded)) == 1


def test_without_a_budget_a_chain_and_its_forks_have_ended_before_they_begin() -> None:
    chain = solving(budget=0).chain()
    other = chain.fork()

    assert list(chain.places()) == list(other.places()) == []
    assert [(e.chain, e.reason, e.steps, e.tokens) for e in told(chain, ThinkingEnded)] == [(0, "budget", 0, 0)]


def test_a_chain_that_is_cut_has_the_room_of_what_is_left() -> None:
    chain = grown("one", "two", answer_tokens=100)
    chain.solve.models["base"].context = 1000
    chain.held(900)
    assert chain.place() is None

    chain.cut(1, "too long")

    assert chain.place() is not None


def test_calls_of_one_place_are_told_apart_by_their_attempt() -> None:
    place = grown("one").place()
    assert place is not None

    assert [place.named("draft", attempt) for attempt in (0, 1)] == ["draft_1", "draft_1_try_1"]


def part(text: str, stop: str = "", tokens: int = 1, author: str = "base", *, closes: bool = False) -> Written:
    """What a model wrote of a step, and the stop string that ended it."""
    meta = {"finish_reason": {"type": "stop" if stop else "length", "matched": stop or None}}
    return Written(author, text.strip(), tokens, closes, meta=meta, raw=text)


def test_a_step_of_several_authors_is_one_step_and_stands_as_they_wrote_it() -> None:
    chain = grown("one")
    for place, written in zip(
        chain.places(),
        [part(" Two", author="base"), part(" and", author="small"), part(" three. ", "\n\n", author="base"), part("x")],
        strict=False,
    ):
        chain.go_on(place, written)

    assert chain.prompt("base") == OPENING + "one\n\n Two and three.\n\nx"
    assert chain.steps == ["one", " Two and three."]
    assert [(e.author, e.text) for e in told(chain, StepTaken, TextAdded)] == [
        ("base", "one"),
        ("base", " Two"),
        ("small", " and"),
        ("base", " three."),
        ("base", "x"),
    ]


def test_a_step_that_was_whole_before_its_end_came_is_complete_and_not_empty() -> None:
    chain = grown()
    ends = [part("One.", "", author="base"), part("", "\n\n", author="small")]
    assert [chain.go_on(place, each) for place, each in zip(chain.places(), ends, strict=False)] == [False, True]

    assert (chain.text, chain.steps) == ("One.\n\n", ["One."])


def test_a_stop_string_that_belongs_to_the_text_is_put_back() -> None:
    chain = grown()
    place = chain.place()
    assert place is not None
    chain.go_on(place, part("One", ". "), ".")

    assert chain.begun == "One."


@pytest.mark.parametrize("ended", [part("x", "</think>", closes=True), Written("base", "x", 1, False, repeats=True)])
def test_what_ends_the_thinking_ends_a_step_of_several_authors_too(ended: Written) -> None:
    chain = grown()
    place = chain.place()
    assert place is not None

    assert chain.go_on(place, ended)
    assert chain.ended == ("closed" if ended.closes else "repeat")


def test_circles_are_found_in_steps_of_several_authors() -> None:
    chain = grown()
    pieces = cycle([part("Hm", author="base"), part(", so.", "\n\n", author="small")])
    for place, written in zip(chain.places(), pieces, strict=False):
        chain.go_on(place, written)

    assert (chain.ended, chain.steps) == ("repeat", ["Hm, so."] * 3)


def test_a_fork_can_begin_with_fewer_steps() -> None:
    chain = grown("one", "two", "three")
    other = chain.fork(keep=1)

    assert (other.text, other.tokens, chain.text) == ("one\n\n", 1, "one\n\ntwo\n\nthree\n\n")
    assert [(e.chain, e.parent, e.steps) for e in told(chain, ChainOpened)] == [(1, 0, 1)]
    assert tally(chain.solve.events).thinking_tokens == 3


@pytest.mark.parametrize(("given", "budget"), [(2, 2), (10, 5)])
def test_a_chain_may_have_a_smaller_budget_of_its_own(given: int, budget: int) -> None:
    solve = solving(budget=5)
    chain = solve.chain(budget=given)
    for place in chain.places():
        chain.take(place, step(f"step {place.number}"))

    assert (chain.tokens, chain.ended, chain.fork().budget) == (budget, "budget", budget)


def test_guards_have_their_say_before_each_place_and_at_the_end() -> None:
    chain, seen = grown(), list[tuple[int, str | None]]()

    def guard(watched: Chain) -> None:
        seen.append((len(watched.steps), watched.ended))
        if watched.ended == "closed" and len(seen) == 3:
            watched.reopen("(Look again.)\n\n", "hint", why="a hint")
        elif len(watched.steps) == 3:
            watched.end("enough")

    chain.solve.guards.append(guard)
    for place in chain.places():
        chain.take(place, step(f"step {place.number}", closes=place.number == 1))

    assert seen == [(0, None), (1, None), (2, "closed"), (3, None)]
    assert chain.text == "step 0\n\nstep 1\n\n(Look again.)\n\nstep 2\n\n"
    assert [e.reason for e in told(chain, ThinkingEnded)] == ["closed", "enough"]
    assert [(e.keep, e.reason) for e in told(chain, StepsCut)] == [(2, "a hint")]


moves = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 9)),
        st.tuples(st.just("add"), st.integers(0, 9)),
        st.tuples(st.just("cut"), st.integers(0, 9)),
        st.tuples(st.just("fork"), st.integers(0, 1)),
    ),
    max_size=30,
)


@given(moves)
def test_a_tally_of_the_events_knows_what_all_chains_hold(made: list[tuple[str, int]]) -> None:
    chains = [solving(budget=10_000).chain()]
    for number, (move, value) in enumerate(made):
        chain = chains[number % len(chains)]
        if move == "take":
            place = chain.place()
            assert place is not None
            chain.take(place, step(f"step {number}", value))
        elif move == "add":
            chain.add(f"text {number}", "hint", tokens=value)
        elif move == "cut":
            chain.cut(min(value, len(chain.steps)), "why")
        else:
            chains.append(chain.fork())
    held = {id(piece): piece.tokens for chain in chains for piece in chain._pieces}
    totals = tally(chains[0].solve.events)

    assert totals.thinking_tokens == sum(held.values()), "what several chains hold counts once"
    assert all(count >= 0 for count in (*totals.kept.values(), *totals.steps.values(), *totals.dropped.values()))


@settings(deadline=None)
@given(moves, st.integers(0, 3))
def test_a_chain_reads_and_goes_on_as_one_that_was_written_as_it_stands(made: list[tuple[str, int]], last: int) -> None:
    chains: list[tuple[Chain, list[tuple[str, str]]]] = [(solving(budget=10_000).chain(), [])]
    for number, (move, value) in enumerate(made):
        chain, written = chains[number % len(chains)]
        if move == "take":
            chain.suppose(f"step {value % 4}")
            written.append((move, f"step {value % 4}"))
        elif move == "add":
            written.append((move, chain.add(f"text {value}", "hint")))
        elif move == "cut":
            keep = value % (len(chain.steps) + 1)
            chain.cut(keep, "why")
            steps = [place for place, (kind, _) in enumerate(written) if kind == "take"]
            del written[steps[keep - 1] + 1 if keep else 0 :]
        else:
            chains.append((chain.fork() if value % 2 else chain.supposed(), list(written)))

    for chain, written in chains:
        fresh = solving(budget=10_000).chain()
        for kind, text in written:
            fresh.suppose(text) if kind == "take" else fresh.add(text, "hint")
        assert chain.text == fresh.text == "".join(t + "\n\n" if k == "take" else t for k, t in written)
        assert (chain.steps, chain.tokens) == (fresh.steps, fresh.tokens)
        for each in (chain, fresh):
            place = each.place()
            assert place is not None
            each.take(place, step(f"step {last}"))
        assert chain.ended == fresh.ended


class Looked(list[str]):
    """Counts how often somebody reads all or some of it."""

    times = 0

    def __iter__(self) -> Iterator[str]:
        self.times += 1
        return super().__iter__()

    def __getitem__(self, place: Any) -> Any:
        self.times += 1
        return super().__getitem__(place)


def test_no_step_looks_at_those_before_it() -> None:
    chain = solving(budget=10_000).chain()
    chain.steps = steps = Looked()
    for number in range(50):
        place = chain.place()
        assert place is not None
        chain.take(place, step("So," if number % 2 else f"x = {number}"))
        chain.prompt("base", "a draft")
    chain.solve.chain().think(step("\n\n".join(steps[:20])))

    assert len(steps) == 50
    assert steps.times == 1


def test_steps_of_one_call_share_its_tokens_by_the_length_of_their_texts() -> None:
    chain = solving().chain()
    chain.think(step(f"{'short' * 2}\n\n{'a longer one' * 4}\n\n{'short' * 2}", tokens=37))

    assert [event.tokens for event in told(chain, StepTaken)] == [6, 25, 6]
    assert chain.tokens == 37


def test_a_vote_gives_the_answer_that_most_agree_on() -> None:
    def program(s: Any, solve: Solve) -> str:
        answers = []
        for chain in (first := solve.chain(), first.fork(), first.fork()):
            asked = s.fork(1)[0]
            asked += chain.closed("base") + sgl.gen(chain.named("answer"), **solve.answering)
            answers.append(solve.answer(asked, chain))
        return solve.vote(answers)

    record = ran(program, [Reply("\\boxed{4}"), Reply("\\boxed{5}"), Reply("\\boxed{ 5 }")])

    assert record.tally.answer == "5"
    assert record.tally.outcome == "answered"


def test_a_model_in_a_role_of_the_programs_own_is_asked_for_by_its_option() -> None:
    def program(s: Any, solve: Solve) -> str:
        del s
        return str(solve.model("verifier"))

    with pytest.raises(UsageError, match="this needs a verifier model") as refused:
        ran(program, [])

    assert refused.value.hint == "name its server with `--model verifier=URL`"
