"""Speculative decoding on the real CPU server: the base model, and the same for which the small one drafts tokens."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from scipy.stats import chi2

from specreason_sgl.embedded.stories import story
from specreason_sgl.text.prompts import DELIMITER

if TYPE_CHECKING:
    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.lang.pair import Pair
    from specreason_sgl.servers.pairs import Address, RunningPair

pytestmark = pytest.mark.server

GREEDY = {"temperature": 0, "max_new_tokens": 200}
DIGITS = [str(digit) for digit in range(10)]
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
    return [pair.base.chat.opening(story(seed).question) for seed in range(700_000, 700_016)]


def said(answer: dict[str, Any]) -> tuple[str, list[int], Any]:
    return answer["text"], answer["output_ids"], answer["meta_info"]["finish_reason"]


def test_the_same_tokens_come_in_fewer_rounds(plain: Model, drafted: Model, prompts: list[str]) -> None:
    rounds = tokens = 0
    for prompt in prompts[:8]:
        expected, found = plain.write(prompt), drafted.write(prompt)

        assert said(found) == said(expected)
        assert found["meta_info"]["completion_tokens"] == expected["meta_info"]["completion_tokens"]
        rounds += found["meta_info"]["spec_verify_ct"]
        tokens += found["meta_info"]["completion_tokens"]
    assert tokens > 3 * rounds


def test_texts_of_one_batch_are_those_written_one_at_a_time(plain: Model, drafted: Model, prompts: list[str]) -> None:
    expected = [said(plain.write(prompt)) for prompt in prompts]
    limits = [{**GREEDY, "max_new_tokens": 200 - 7 * place} for place in range(len(prompts))]
    found = drafted.write(prompts, limits)

    for answer, (text, ids, _), limit in zip(found, expected, limits, strict=True):
        assert answer["output_ids"] == ids[: limit["max_new_tokens"]]
        assert text.startswith(answer["text"])


@pytest.mark.parametrize("stops", [[DELIMITER, "</think>"], ["</think>", DELIMITER], ["5", ".", DELIMITER, " 3"]])
def test_a_text_ends_at_the_first_stop_whatever_comes_in_one_round(
    stops: list[str], plain: Model, drafted: Model, prompts: list[str]
) -> None:
    sampling, ended = {**GREEDY, "stop": stops}, Counter[str]()
    for prompt in prompts[:2]:
        text = prompt
        for _ in range(6):
            expected, found = plain.write(text, sampling), drafted.write(text, sampling)

            assert said(found) == said(expected)
            matched = str(expected["meta_info"]["finish_reason"]["matched"])
            ended[matched] += 1
            if matched not in stops:
                break
            text += expected["text"] + matched
    assert len(ended) > 1


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


def test_a_text_that_streams_grows_into_the_same(plain: Model, drafted: Model, prompts: list[str]) -> None:
    chunks = list(streamed(drafted, prompts[4]))

    assert said(chunks[-1]) == said(plain.write(prompts[4]))
    assert all(later["text"].startswith(earlier["text"]) for earlier, later in pairwise(chunks))
    assert len(chunks) > 2


def test_an_abort_ends_a_text_and_leaves_the_others_alone(plain: Model, drafted: Model, prompts: list[str]) -> None:
    aborted: list[Any] = []
    endless = {**GREEDY, "max_new_tokens": 3000, "ignore_eos": True}
    thread = threading.Thread(target=lambda: aborted.append(drafted.write(prompts[5], endless, rid="to-be-aborted")))
    thread.start()
    time.sleep(0.3)
    beside = drafted.write(prompts[6])
    drafted.post("/abort_request", {"rid": "to-be-aborted"})
    thread.join(30)

    assert aborted[0]["meta_info"]["finish_reason"]["type"] == "abort"
    assert 0 < aborted[0]["meta_info"]["completion_tokens"] < 3000
    assert said(beside) == said(plain.write(prompts[6]))


def test_behind_a_long_prompt_the_likeliest_tokens_come_up_to_the_last_place(
    plain: Model, drafted: Model, pair: Pair[Endpoint], prompts: list[str]
) -> None:
    assert pair.base
    ids = pair.base.tokens("\n".join(prompts) * 9)[:3500] + pair.base.tokens(prompts[7])
    most = 4095 - len(ids)
    written = drafted.write(ids, {**GREEDY, "ignore_eos": True, "max_new_tokens": most})["output_ids"]
    asked = {"return_logprob": True, "logprob_start_len": len(ids) - 1, "top_logprobs_num": 1}
    read = plain.write([*ids, *written[:-1]], {**GREEDY, "max_new_tokens": 1}, **asked)["meta_info"]

    assert len(written) == most
    rows = zip(read["input_token_logprobs"][1:], read["input_top_logprobs"][1:], written, strict=False)
    found = [(logprob, best[0][0], token, expected) for (logprob, token, _), best, expected in rows]
    assert len(found) == most - 1
    for logprob, best, token, expected in found:
        assert token == expected
        assert logprob > best - 0.2  # of two as likely as each other either may come, by rounding


def test_above_temperature_zero_tokens_come_as_often_as_the_base_model_says(
    plain: Model, drafted: Model, prompts: list[str]
) -> None:
    hot, texts = {"temperature": 3.0, "max_new_tokens": 3}, 512
    asked = {"return_logprob": True, "top_logprobs_num": 640}
    ids = [row["output_ids"] for row in drafted.write([prompts[0]] * texts, {**hot, "top_k": 30, "ignore_eos": True})]
    first = Counter(row[0] for row in ids).most_common(4)
    read = plain.write(prompts[0], {**GREEDY, "max_new_tokens": 1}, return_logprob=True, logprob_start_len=0)
    before = [token for _, token, _ in read["meta_info"]["input_token_logprobs"]]
    surprise = freedom = 0.0
    for token, count in first:
        told = plain.write([*before, token], {**hot, "max_new_tokens": 1}, **asked)["meta_info"]
        kept = sorted(told["output_top_logprobs"][0], reverse=True)[:30]
        weights = {each: math.exp(logprob) for logprob, each, _ in kept}
        seconds, total = Counter(row[1] for row in ids if row[0] == token), sum(weights.values())
        assert set(seconds) <= set(weights)
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
