"""The methods of the field, end to end on the embedded pair."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import pytest

from specreason_sgl.embedded import tales
from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.events import AnswerWritten, Dropped, Noticed, StepDrafted, StepScored, StepTaken, TextAdded
from specreason_sgl.lang.loading import load
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.settings import Settings

pytestmark = pytest.mark.server

GREEDY = Settings(temperature=0, top_p=1, budget=512)
SEED = 3
NEAR_TIE = 0.3
"""In nats: what a server computes of a text that it wrote and of the same text sent to it differs by rounding."""


def run(pair: Pair[Endpoint], seed: int, program: str, settings: Settings = GREEDY, **knobs: Any) -> SolveRecord:
    told = tales.tale(seed)
    problem = Problem(id=str(seed), question=told.question, answer=str(told.answer))
    record = solve(problem, load(program), pair, settings, parameters=knobs)
    assert record.tally.error is None, (program, record.tally.error)
    assert record.tally.outcome in {"answered", "unanswered"}
    return record


@pytest.fixture(scope="module")
def anchors(pair: Pair[Endpoint]) -> dict[str, SolveRecord]:
    """What each model writes alone."""
    return {name: run(pair, SEED, name) for name in ("base_only", "small_only")}


def told(record: SolveRecord, *kinds: Any) -> list[Any]:
    return [event for event in record.events if isinstance(event, kinds)]


def thinking(record: SolveRecord) -> str:
    pieces = told(record, StepTaken, TextAdded)
    return "".join(each.text + "\n\n" * isinstance(each, StepTaken) for each in pieces).strip()


def gap(endpoint: Endpoint, seed: int, begun: str) -> float:
    """How much more likely the likeliest next token is than the second."""
    prompt = endpoint.chat.opening(tales.tale(seed).question) + begun
    asked = endpoint.complete(prompt, {"max_new_tokens": 1, "temperature": 0}, return_logprob=True, top_logprobs_num=2)
    first, second = asked["meta_info"]["output_top_logprobs"][0]
    return float(first[0] - second[0])


@pytest.mark.parametrize(
    ("program", "knobs", "alone"),
    [
        ("fractured", {"n": 1, "cuts": 1, "keep": 1, "m": 1}, "base_only"),
        ("elastic", {"thinking_tokens": 512, "solution_tokens": 512}, "base_only"),
        ("stepwise", {}, "base_only"),
        ("foreal", {"n": 0, "answerer": "small"}, "small_only"),
        ("stitch", {"bound": 100.0, "answerer": "small"}, "small_only"),
        ("stitch", {"bound": 0.0, "least": 0}, "base_only"),
    ],
)
def test_with_nothing_of_its_own_a_method_writes_what_a_model_writes_alone(
    pair: Pair[Endpoint], anchors: dict[str, SolveRecord], program: str, knobs: dict[str, Any], alone: str
) -> None:
    model = pair.models[alone.removesuffix("_only")]
    one, other = run(pair, SEED, program, **knobs), anchors[alone]
    if thinking(one) != thinking(other):
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(thinking(one), thinking(other), strict=False))
        common = "".join(letter for letter, _ in alike)
        assert gap(model, SEED, common) < NEAR_TIE, (thinking(one), thinking(other))
    else:
        assert one.tally.answer == other.tally.answer


SAMPLED = Settings(temperature=0.6, top_p=0.95, budget=256, seed=1)


def test_a_budget_and_a_relay(pair: Pair[Endpoint]) -> None:
    record = run(pair, 1, "elastic", SAMPLED, thinking_tokens=20, thinker="small", answerer="base")

    assert record.tally.ended == "budget"
    assert record.tally.kept["small"] == 20
    assert told(record, AnswerWritten)[0].author == "base"


def test_a_verifier_hints_and_a_tool(pair: Pair[Endpoint]) -> None:
    trimmed = run(pair, 1, "trimr", SAMPLED, words="", thoughts=2)
    hinted = run(pair, 1, "concise_hint", SAMPLED, alpha=20, beta=0.0, over="specreason")
    checked = run(pair, 1, "start_hints", SAMPLED, over="specreason")
    early = run(pair, 1, "fractured", SAMPLED, early=True, first=10, every=10, over="specreason")

    assert trimmed.tally.ended in {"converged", "diverged"}
    assert [e for e in told(trimmed, Noticed) if e.message.startswith("thought 1 states: ")]
    assert [e for e in told(hinted, TextAdded) if e.author == "hint"]
    assert [e for e in told(checked, TextAdded) if e.author == "hint"] or checked.tally.ended != "closed"
    assert len(told(early, AnswerWritten)) > 1


def test_several_chains_with_cuts_and_a_vote(pair: Pair[Endpoint]) -> None:
    record = run(pair, 1, "fractured", SAMPLED, n=2, cuts=2, keep=2, m=1, thinker="small")

    assert told(record, AnswerWritten)[-1].author == "vote"
    assert len(told(record, AnswerWritten)) >= 3


def test_several_drafts_are_scored_and_read_exactly(pair: Pair[Endpoint]) -> None:
    record = run(pair, 1, "specs", SAMPLED, n=2)
    selected = run(pair, 1, "select_drafts", SAMPLED, n=2)

    for each in (record, selected):
        assert {e.attempt for e in told(each, StepDrafted)} >= {0, 1}
        assert all(e.value is not None for e in told(each, StepScored))
    assert not [e for e in told(record, Noticed) if "no single token" in e.message]


def test_beams_of_steps(pair: Pair[Endpoint]) -> None:
    record = run(pair, 1, "self_eval_beam", SAMPLED, k=2, n=2, depth=3)

    assert told(record, AnswerWritten)[-1].author == "vote"
    assert {e.chain for e in told(record, StepTaken)} >= {0, 1}


def test_two_models_write_one_sentence(pair: Pair[Endpoint]) -> None:
    led = run(pair, 1, "foreal", SAMPLED, n=5)
    anywhere = run(pair, 1, "foreal", SAMPLED, n=5, control="anywhere")
    stitched = run(pair, 1, "stitch", SAMPLED, least=4)
    by_step = run(pair, 1, "stitch", SAMPLED, per_step=True)

    for each in (led, anywhere):
        assert {e.author for e in told(each, StepTaken, TextAdded)} == {"base", "small"}
    assert told(anywhere, Dropped)
    assert stitched.tally.thinking_tokens > 0
    assert by_step.tally.thinking_tokens > 0
