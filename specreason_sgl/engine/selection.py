"""Choosing between texts by their log-probabilities: in one request of one token, token by token, or as stock SGLang.

Where every choice is a single token, ``token_ids_logprob`` has all their log-probabilities from one request, instead of
two requests and a prefill for each choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from sglang.lang.choices import ChoicesDecision

from specreason_sgl.engine import responses
from specreason_sgl.engine.link import Link
from specreason_sgl.engine.seams import tokens_of
from specreason_sgl.errors import UsageError
from specreason_sgl.lang.likelihood import ByLikelihood

if TYPE_CHECKING:
    from sglang.lang.choices import ChoicesSamplingMethod
    from sglang.lang.interpreter import StreamExecutor

Call = Callable[[dict[str, Any], Callable[[Any], tuple[Any, dict[str, Any]]]], tuple[Any, dict[str, Any]]]
"""Makes a request behind a state's text, and reads the response: as a value and meta information."""

NO_SINGLE_TOKENS = "the model has no single token for some of {}, so each was read behind the prompt"
_SHOWN = 80
"""The most characters of the choices in that notice."""

_COUNTS = (
    "id", "prompt_tokens", "completion_tokens", "cached_tokens", "recomputed_tokens", "transport", "e2e_latency",
    "finish_reason", "wall_s", "retries", "lost_s", "notices",
)  # fmt: skip


def by_single_tokens(call: Call, choices: list[str], ids: list[int]) -> ChoicesDecision:
    """The most probable of the choices, each of which is a single token."""
    request = {
        "sampling_params": {"max_new_tokens": 1, "temperature": 0},
        "return_logprob": True,
        "token_ids_logprob": ids,
    }
    logprobs, meta = call(request, lambda answer: responses.chosen(answer, ids))
    best = max(range(len(choices)), key=lambda i: logprobs[i])
    kept = {name: meta[name] for name in _COUNTS if name in meta}
    return ChoicesDecision(decision=choices[best], meta_info={**kept, "digit_logprobs": logprobs})


def by_reading(link: Link, s: StreamExecutor, choices: list[str], method: ChoicesSamplingMethod) -> ChoicesDecision:
    """Choose by the log-probabilities of each choice's tokens after the prompt.

    A notice says that this was done, unless the method wants it; it is the same for the same choices.

    Raises:
        UsageError: the state has an image, or no text.
    """
    if s.images_:
        raise UsageError("choices of several tokens cannot be selected behind an image")
    decision, made = link.persist(lambda: _read_choices(link, s.text_, choices, method))
    shown = shorten(", ".join(f"`{choice}`" for choice in choices), _SHOWN, placeholder=" …")
    told = [] if isinstance(method, ByLikelihood) else [NO_SINGLE_TOKENS.format(shown)]
    decision.meta_info |= made | {"notices_once": told}
    return decision


def as_stock(link: Link, s: StreamExecutor, decision: ChoicesDecision, choices: list[str]) -> ChoicesDecision:
    """The decision of SGLang's own selection, with the same meta information as ours."""
    prompt = len(tokens_of(link.post, s.text_))
    rows = decision.meta_info["input_token_logprobs"]
    # SGLang scores a token or two of the prompt along with each choice.
    own = [len(tokens_of(link.post, s.text_ + choice)) - prompt for choice in choices]
    decision.meta_info |= {
        "digit_logprobs": [responses.total(row[-count:]) for row, count in zip(rows, own, strict=True)],
        "requests": 2,
        "prompt_tokens": prompt,
        "cached_tokens": 0,
        "completion_tokens": 0,
    }
    return decision


def _read_choices(link: Link, text: str, choices: list[str], method: ChoicesSamplingMethod) -> ChoicesDecision:
    texts = (text, *(text + choice for choice in choices))
    prompt, *behind = (tokens_of(link.once, each, in_front=True) for each in texts)
    # A choice can merge with the end of the prompt: it is scored from where not all have the prompt's tokens.
    start = min(_in_common(prompt, ids) for ids in behind)
    if not start:
        raise UsageError("`select` needs a prompt before its choices")
    read = _read(link, prompt, len(prompt) - 1)  # else each of them would read the prompt
    rows = [responses.scored(each)[1:] for each in responses.responses_in(_read(link, behind, start - 1))]
    alone = None
    if method.requires_unconditional_logprobs:
        bare = _read(link, [ids[start:] for ids in behind], 0)
        alone = [responses.scored(each) for each in responses.responses_in(bare)]
    logprobs = list(map(responses.total, rows))
    decision = method(
        choices=choices,
        normalized_prompt_logprobs=[total / len(row) for total, row in zip(logprobs, rows, strict=True)],
        input_token_logprobs=rows,
        output_token_logprobs=[[] for _ in rows],
        unconditional_token_logprobs=alone,
    )
    decision.meta_info |= {
        "digit_logprobs": logprobs,
        "requests": 2 if alone is None else 3,
        "prompt_tokens": len(prompt),
        "cached_tokens": int(read["meta_info"].get("cached_tokens", 0)),
        "completion_tokens": 0,
    }
    return decision


def _read(link: Link, ids: Sequence[int] | Sequence[Sequence[int]], logprob_start_len: int) -> Any:
    """The server's response to token ids, or to lists of them, with log-probabilities from the given position on."""
    return link.ask(
        {
            "input_ids": ids,
            "sampling_params": {"max_new_tokens": 0, "temperature": 0},
            "return_logprob": True,
            "logprob_start_len": logprob_start_len,
        }
    )


def _in_common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens at the beginning are the same in both lists."""
    same = (place for place, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
    return next(same, min(len(left), len(right)))
