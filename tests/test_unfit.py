"""What a request may not ask of a server that drafts tokens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from specreason_sgl.engine.drafted import OURS, unfit
from specreason_sgl.servers.unfit import refuse

GPU = {"speculative_algorithm": "EAGLE3", "attention_backend": "flashinfer"}
CPU = {"speculative_algorithm": "STANDALONE", "attention_backend": OURS}
NOTHING = {
    "min_p": 0.0, "frequency_penalty": 0, "presence_penalty": 0.0, "repetition_penalty": 1.0, "min_new_tokens": 0,
    "custom_logit_processor": None, "temperature": 0.6, "top_p": 0.95, "top_k": 20,
}  # fmt: skip
ASKED = {
    "min_p": 0.1, "frequency_penalty": -0.1, "presence_penalty": 1, "repetition_penalty": 1.05, "min_new_tokens": 1,
    "custom_logit_processor": "{}",
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_a_program_is_refused_what_does_not_hold(name: str) -> None:
    asked = NOTHING | {name: ASKED[name]}
    told = f"`{name}` does not hold while tokens are drafted"

    assert (unfit(asked, GPU) or "").startswith(told)
    assert (unfit(asked, CPU) or told).startswith(told)
    assert (unfit(asked, CPU) is None) == (name == "min_p")
    for plain in ({}, {**GPU, "speculative_algorithm": None}):
        assert unfit(asked, plain) is None


@pytest.mark.parametrize("options", [GPU, CPU, {"speculative_algorithm": "NGRAM"}])
def test_what_asks_for_nothing_is_let_through(options: dict[str, Any]) -> None:
    assert unfit(NOTHING, options) is None
    assert unfit({}, options) is None


def answer(options: dict[str, Any], sampling: dict[str, Any] | None, **more: Any) -> str:
    """What a server says to a request."""
    manager, asked = SimpleNamespace(server_args=SimpleNamespace(**options)), SimpleNamespace(sampling_params=sampling)
    vars(asked).update(more)
    seen: list[Any] = []
    try:
        refuse(lambda *given: seen.append(given), manager, asked, [1, 2])
    except ValueError as error:
        assert not seen
        return str(error)
    assert seen == [(manager, asked, [1, 2])]
    return ""


@pytest.mark.parametrize("options", [GPU, CPU])
def test_a_server_refuses_what_it_would_forget_and_leaves_the_rest_to_sglang(options: dict[str, Any]) -> None:
    refused = {name: bool(answer(options, {name: value})) for name, value in ASKED.items()}
    refused["custom_logit_processor"] = bool(answer(options, None, custom_logit_processor="{}"))
    is_ours = options is CPU

    assert refused == dict.fromkeys(ASKED, is_ours) | {"min_p": not is_ours, "custom_logit_processor": True}
    assert answer(options, None) == answer(options, NOTHING) == ""
    assert not answer(options | {"speculative_algorithm": "DFLASH"}, {}, custom_logit_processor="{}")


def test_requests_without_sampling_are_none_of_its_business() -> None:
    manager = SimpleNamespace(server_args=SimpleNamespace(**GPU))
    seen: list[Any] = []
    refuse(lambda *given: seen.append(given), manager, SimpleNamespace(text="embedded"))

    assert len(seen) == 1
