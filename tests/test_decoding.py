"""Speculative decoding on the real CPU server: the base model, and the same for which the small one drafts tokens."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from scipy.stats import chi2
from vocabularies import put_cut

from specreason_sgl.embedded import BASE
from specreason_sgl.embedded.tales import tale
from specreason_sgl.errors import UsageError
from specreason_sgl.servers.cpu.decode import arguments
from specreason_sgl.servers.gpu.drafter import planned, write_copy
from specreason_sgl.servers.gpu.shapes import find
from specreason_sgl.servers.pairs import Address
from specreason_sgl.servers.processes import Servers, free_ports, model_server
from specreason_sgl.text.prompts import DELIMITER

if TYPE_CHECKING:
    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.lang.pair import Pair
    from specreason_sgl.servers.pairs import RunningPair

pytestmark = pytest.mark.server

GREEDY = {"temperature": 0, "max_new_tokens": 120}
DIGITS = [str(digit) for digit in range(10)]
PIECE = 24
"""Tokens of a prompt that are read at a time where prompts are read in pieces."""
NEVER = 1e-6
"""A correct draw is taken for a wrong one as seldom as this."""


@dataclass(frozen=True)
class Model:
    """A server, asked without the project's own client."""

    address: Address

    def post(self, path: str, body: dict[str, Any], **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.address.api_key}"}
        return urllib3.request(
            "POST", self.address.url + path, json=body, headers=headers, timeout=60, retries=False, **more
        )

    def write(self, prompt: str | Sequence[str] | Sequence[int], sampling: Any = None, **more: Any) -> Any:
        field = "text" if isinstance(prompt, str) or isinstance(prompt[0], str) else "input_ids"
        answered = self.post("/generate", {field: prompt, "sampling_params": sampling or GREEDY, **more})
        assert answered.status == 200, answered.data
        return answered.json()


@pytest.fixture(scope="module")
def plain(servers: RunningPair) -> Model:
    return Model(servers.base)


@pytest.fixture(scope="module")
def drafted(servers: RunningPair) -> Model:
    assert servers.decode
    return Model(servers.decode)


@pytest.fixture(scope="module")
def prompts(pair: Pair[Endpoint]) -> list[str]:
    assert pair.base
    return [pair.base.chat.opening(tale(seed).question) for seed in range(700_000, 700_016)]


def said(answer: dict[str, Any]) -> tuple[str, list[int], Any]:
    return answer["text"], answer["output_ids"], answer["meta_info"]["finish_reason"]


@pytest.fixture(scope="module")
def expected(plain: Model, prompts: list[str]) -> list[dict[str, Any]]:
    """What the base model writes behind the first prompts, one at a time."""
    return [plain.write(prompt) for prompt in prompts[:6]]


def test_the_same_tokens_come_in_fewer_rounds(
    drafted: Model, prompts: list[str], expected: list[dict[str, Any]]
) -> None:
    found = [drafted.write(prompt) for prompt in prompts[: len(expected)]]

    assert [said(each) for each in found] == [said(each) for each in expected]
    tokens, rounds = (
        sum(each["meta_info"][name] for each in found) for name in ("completion_tokens", "spec_verify_ct")
    )
    assert tokens == sum(each["meta_info"]["completion_tokens"] for each in expected)
    assert tokens > 2 * rounds


def test_texts_of_one_batch_are_those_written_one_at_a_time(
    drafted: Model, prompts: list[str], expected: list[dict[str, Any]]
) -> None:
    most = [120 - 13 * place for place in range(len(expected))]
    found = drafted.write(prompts[: len(expected)], [{**GREEDY, "max_new_tokens": count} for count in most])

    for answer, alone, count in zip(found, expected, most, strict=True):
        assert answer["output_ids"] == alone["output_ids"][:count]
        assert alone["text"].startswith(answer["text"])


@pytest.mark.parametrize("stops", [[DELIMITER, "</think>"], ["</think>", DELIMITER], ["9", ".", DELIMITER, " 3"]])
def test_a_text_ends_at_the_first_stop_whatever_comes_in_one_round(
    stops: list[str], plain: Model, drafted: Model, prompts: list[str]
) -> None:
    sampling, ended, text = {**GREEDY, "stop": stops}, set[str](), prompts[0]
    while stops[0] not in ended or len(ended) < 2:
        alone, found = plain.write(text, sampling), drafted.write(text, sampling)

        assert said(found) == said(alone)
        matched = alone["meta_info"]["finish_reason"]["matched"]
        assert matched in stops
        ended.add(matched)
        text += alone["text"] + matched


def test_limits_hold_in_the_middle_of_a_round(plain: Model, drafted: Model, prompts: list[str]) -> None:
    for most in (1, 2, 7, 8, 9, 17):
        sampling = {**GREEDY, "max_new_tokens": most}

        assert said(drafted.write(prompts[1], sampling)) == said(plain.write(prompts[1], sampling))


def test_a_judgement_has_the_same_log_probabilities_and_is_cached_as_much(
    plain: Model, drafted: Model, pair: Pair[Endpoint], prompts: list[str]
) -> None:
    assert pair.base
    ids = [pair.base.tokens(digit)[0] for digit in DIGITS]
    sampling = {**GREEDY, "max_new_tokens": 1}
    asked = {"return_logprob": True, "logprob_start_len": -1, "token_ids_logprob": ids}
    for prompt in prompts[8:12]:
        step = f"{prompt}There are 4 more, so it is 9.{DELIMITER}"
        for model in (plain, drafted):
            model.write(step, sampling)
        for text in (step, f"{step}Is that so? "):
            expected, found = (model.write(text, sampling, **asked) for model in (plain, drafted))
            for name in ("output_token_ids_logprobs", "cached_tokens", "prompt_tokens"):
                assert found["meta_info"][name] == expected["meta_info"][name]


def test_every_token_of_a_round_has_its_log_probability(plain: Model, drafted: Model, prompts: list[str]) -> None:
    expected, found = (
        model.write(prompts[2], return_logprob=True, top_logprobs_num=2)["meta_info"] for model in (plain, drafted)
    )

    for name in ("output_token_logprobs", "output_top_logprobs"):
        assert len(found[name]) == len(expected[name]) == expected["completion_tokens"]
    for (logprob, token, _), (expected_logprob, expected_token, _) in zip(
        found["output_token_logprobs"], expected["output_token_logprobs"], strict=True
    ):
        assert token == expected_token
        assert logprob == pytest.approx(expected_logprob, abs=0.05)  # rounding differs between one query and several


def test_a_chain_goes_on_in_a_session_behind_any_request(plain: Model, drafted: Model, prompts: list[str]) -> None:
    sampling = {**GREEDY, "stop": [DELIMITER]}
    written = []
    for model in (plain, drafted):
        session = model.post("/open_session", {"capacity_of_str_len": 10_000}).json()
        first = model.write(prompts[3], sampling, session_params={"id": session})
        place = {"id": session, "rid": first["meta_info"]["id"], "offset": first["meta_info"]["prompt_tokens"]}
        behind = [
            model.write(text, sampling, session_params=place) for text in (first["text"] + DELIMITER, "Let me see. ")
        ]
        model.post("/close_session", {"session_id": session})
        written.append([(said(each), each["meta_info"]["prompt_tokens"]) for each in (first, *behind)])

    assert written[0] == written[1]


def streamed(model: Model, prompt: str) -> Iterator[dict[str, Any]]:
    body = {"text": prompt, "sampling_params": GREEDY, "stream": True}
    buffered = b""
    for part in model.post("/generate", body, preload_content=False).stream():
        *lines, buffered = (buffered + part).split(b"\n\n")
        yield from (json.loads(line[6:]) for line in lines if line not in (b"", b"data: [DONE]"))


def test_a_text_that_streams_grows_into_the_same(
    drafted: Model, prompts: list[str], expected: list[dict[str, Any]]
) -> None:
    chunks = list(streamed(drafted, prompts[4]))

    assert said(chunks[-1]) == said(expected[4])
    assert all(later["text"].startswith(earlier["text"]) for earlier, later in pairwise(chunks))
    assert len(chunks) > 2


def test_an_abort_ends_a_text_and_leaves_the_others_alone(
    drafted: Model, prompts: list[str], expected: list[dict[str, Any]]
) -> None:
    aborted: list[Any] = []
    endless = {**GREEDY, "max_new_tokens": 3000, "ignore_eos": True}
    thread = threading.Thread(target=lambda: aborted.append(drafted.write(prompts[6], endless, rid="to-be-aborted")))
    thread.start()
    time.sleep(0.3)
    beside = drafted.write(prompts[5])
    drafted.post("/abort_request", {"rid": "to-be-aborted"})
    thread.join(30)

    assert aborted[0]["meta_info"]["finish_reason"]["type"] == "abort"
    assert 0 < aborted[0]["meta_info"]["completion_tokens"] < 3000
    assert said(beside) == said(expected[5])


def test_behind_a_long_prompt_the_likeliest_tokens_come_up_to_the_last_place(
    plain: Model, drafted: Model, pair: Pair[Endpoint], prompts: list[str]
) -> None:
    assert pair.base
    ids = pair.base.tokens("\n".join(prompts) * 9)[:3900] + pair.base.tokens(prompts[7])
    most = 4094 - len(ids)
    written = drafted.write(ids, {**GREEDY, "ignore_eos": True, "max_new_tokens": most})["output_ids"]
    asked = {"return_logprob": True, "logprob_start_len": len(ids) - 1, "top_logprobs_num": 1}
    assert len(written) == most

    checked = written[:-10]  # no server reads a prompt that leaves less room than that
    read = plain.write([*ids, *checked], {**GREEDY, "max_new_tokens": 1}, **asked)["meta_info"]
    told, likeliest = read["input_token_logprobs"][1:], read["input_top_logprobs"][1:]
    assert [token for _, token, _ in told] == checked
    for (logprob, _, _), best in zip(told, likeliest, strict=True):
        assert logprob > best[0][0] - 0.2  # of two as likely as each other either may come, by rounding


KEPT: dict[str, Callable[[list[float], float], int]] = {
    "top_k": lambda _, most: int(most),
    "top_p": lambda weights, part: 1 + sum(sum(weights[:n]) <= part * sum(weights) for n in range(1, len(weights))),
    "min_p": lambda weights, part: sum(weight >= part * weights[0] for weight in weights),
}
"""How many of the likeliest tokens each parameter leaves, of weights in falling order."""
ROUNDED = 0.25
"""How far a logit of one pass may lie from that of another, for which bfloat16 was summed up in another order."""


@pytest.mark.parametrize(
    ("name", "value", "temperature"), [("top_k", 30, 3.0), ("top_p", 0.5, 2.5), ("min_p", 0.2, 4.0)]
)
def test_above_temperature_zero_tokens_come_as_often_as_the_base_model_says(
    name: str, value: float, temperature: float, plain: Model, drafted: Model, prompts: list[str]
) -> None:
    hot, texts = {"temperature": temperature, "max_new_tokens": 3}, 512
    asked = {"return_logprob": True, "top_logprobs_num": 1536}
    ids = [row["output_ids"] for row in drafted.write([prompts[10]] * texts, {**hot, name: value, "ignore_eos": True})]
    first = Counter(row[0] for row in ids).most_common(4)
    read = plain.write(prompts[10], {**GREEDY, "max_new_tokens": 1}, return_logprob=True, logprob_start_len=0)
    before = [token for _, token, _ in read["meta_info"]["input_token_logprobs"]]
    surprise = freedom = 0.0
    for token, count in first:
        told = plain.write([*before, token], {**hot, "max_new_tokens": 1}, **asked)["meta_info"]
        ordered = sorted(told["output_top_logprobs"][0], reverse=True)
        kept = KEPT[name]([math.exp(logprob) for logprob, *_ in ordered], value)
        limit = ordered[kept - 1][0] - ROUNDED / temperature
        weights = {each: math.exp(logprob) for logprob, each, _ in ordered[:kept]}
        seconds, total = Counter(row[1] for row in ids if row[0] == token), sum(weights.values())
        assert set(seconds) <= {each for logprob, each, _ in ordered if logprob >= limit}
        assert limit > ordered[-1][0]
        often = [each for each, weight in weights.items() if count * weight / total >= 5]
        bins = [(seconds[each], count * weights[each] / total) for each in often]
        rest = (count - sum(found for found, _ in bins), count - sum(expected for _, expected in bins))
        bins += [rest] if rest[1] >= 5 else []
        surprise += sum((found - expected) ** 2 / expected for found, expected in bins)
        freedom += len(bins) - 1
    assert freedom >= 3
    assert chi2.sf(surprise, freedom) > NEVER


def test_beside_drawn_texts_a_greedy_one_stays_as_it_is(plain: Model, drafted: Model, prompts: list[str]) -> None:
    hot = {"temperature": 3.0, "max_new_tokens": 60}
    found = drafted.write([prompts[9]] * 4, [hot, {**GREEDY, "max_new_tokens": 60}, hot, {**hot, "top_k": 1}])
    expected = plain.write(prompts[9], {**GREEDY, "max_new_tokens": 60})["output_ids"]

    assert [row["output_ids"] == expected for row in found] == [False, True, False, True]


@pytest.mark.parametrize(
    "more",
    [
        {"logit_bias": {str(token): -100 for token in range(320, 340)}},
        {"regex": r"(\d, ){20,40}", "stop": ["7", "3, ", "5", "2"]},
        {"json_schema": json.dumps({"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 5})},
        {"stop_regex": r"[0-9]+\."},
        {"stop_token_ids": [*range(20, 40)]},
        {"temperature": 2.0, "top_k": 1},
        {"temperature": 2.0, "min_p": 1.0},
    ],
    ids=" ".join,
)
def test_what_a_request_asks_for_holds_for_every_token_of_a_round(
    more: dict[str, Any], plain: Model, drafted: Model, prompts: list[str]
) -> None:
    sampling = {**GREEDY, "max_new_tokens": 40, **more}
    alone, found = (model.write(prompts[10], sampling) for model in (plain, drafted))

    assert said(found) == said(alone)


@pytest.mark.parametrize(
    "asked",
    [
        {"sampling_params": {"frequency_penalty": 0.5}},
        {"sampling_params": {"presence_penalty": -1}},
        {"sampling_params": {"repetition_penalty": 1.1}},
        {"sampling_params": {"min_new_tokens": 5}},
        {"custom_logit_processor": "{}"},
    ],
    ids=str,
)
def test_what_would_not_hold_is_refused_in_a_line(asked: dict[str, Any], drafted: Model, prompts: list[str]) -> None:
    name = next(iter(asked.get("sampling_params", asked)))
    for text in (prompts[0], prompts[:2]):
        answered = drafted.post("/generate", {"text": text, **asked})

        assert answered.status == 400
        assert f"`{name}` does not hold while tokens are drafted" in answered.json()["error"]["message"]


def test_a_program_is_told_so_before_it_asks(servers: RunningPair) -> None:
    import sglang as sgl

    from specreason_sgl.engine.backend import Endpoint

    assert servers.decode

    @sgl.function
    def program(s: Any) -> None:
        s += "There are"
        s += sgl.gen("text", max_tokens=4)

    for address, is_plain in ((servers.base, True), (servers.decode, False)):
        backend = Endpoint(address.url, "base", api_key=address.api_key)
        for more, holds in (({"min_p": 0.1}, True), ({"frequency_penalty": 0.1}, is_plain)):
            error = program.run(backend=backend, temperature=0, **more).error()
            assert holds == (error is None)
            if error:
                assert isinstance(error, UsageError)
                assert "`frequency_penalty` does not hold while tokens are drafted" in str(error)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Model, Path]]:
    """The base model where all is narrow, and its log.

    A copy drafts of a model that has other rows and marks, there is little room for all texts together, and prompts are
    read in pieces.
    """
    folder = tmp_path_factory.mktemp("narrow")
    base, small = BASE, put_cut(folder / "cut")
    write_copy(small, base, planned(find(str(base)), find(str(small))).match, folder / "copy")
    tight = ("--max-total-tokens", "1000", "--schedule-conservativeness", "0.1", "--chunked-prefill-size", str(PIECE))
    spec = model_server(
        "base",
        base,
        port=free_ports(1)[0],
        core=min(os.sched_getaffinity(0)),
        logs=folder,
        extra=(*arguments("small", folder / "copy"), *tight),
    )
    started = Servers.start([spec], "a key", folder, owned=True)
    try:
        started.wait_until_ready(lambda _: None)
        yield Model(Address(spec.url, "a key")), Path(spec.log)
    finally:
        started.stop()


def test_a_model_with_other_rows_and_marks_drafts_as_well_by_its_copy_behind_prompts_that_are_read_in_pieces(
    narrow: tuple[Model, Path], drafted: Model, prompts: list[str], expected: list[dict[str, Any]]
) -> None:
    found, usual = ([model.write(prompt) for prompt in prompts[:2]] for model in (narrow[0], drafted))
    rounds = [sum(each["meta_info"]["spec_verify_ct"] for each in those) for those in (found, usual)]

    assert [said(each) for each in found] == [said(each) for each in expected[:2]]
    assert all(each["meta_info"]["prompt_tokens"] > 2 * PIECE for each in found)
    assert rounds[0] <= 1.1 * rounds[1]


def test_texts_that_have_no_room_together_are_taken_back_and_written_all_the_same(
    narrow: tuple[Model, Path], plain: Model, prompts: list[str]
) -> None:
    many = prompts[:12]
    found, alone = (model.write(many, {**GREEDY, "max_new_tokens": 70}) for model in (narrow[0], plain))

    assert [said(each) for each in found] == [said(each) for each in alone]
    assert "Retract requests" in narrow[1].read_text(encoding="utf-8", errors="replace")
