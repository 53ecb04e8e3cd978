"""Choosing among candidates by numbers, and what log-probabilities say about the next token; pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from specreason_sgl.errors import CallFailed
from specreason_sgl.text.scoring import softmax

GREEDY = 1e-5
"""SGLang decodes greedily at temperatures up to this one, and reports the model's own log-probabilities."""


def softly(values: Sequence[float], sharpness: float, lots: Random) -> int:
    """The place of a value, drawn with a probability in proportion to ``exp(sharpness * value)``."""
    return lots.choices(range(len(values)), softmax(values, sharpness))[0]


def several(values: Sequence[float], most: int, temperature: float, lots: Random) -> list[int]:
    """The places of so many different values, drawn as by ``exp(value / temperature)``; at 0 the greatest ones."""
    noise = [-math.log(-math.log(lots.uniform(1e-12, 1 - 1e-12))) if temperature else 0.0 for _ in values]
    keys = [value / (temperature or 1.0) + more for value, more in zip(values, noise, strict=True)]
    return sorted(range(len(keys)), key=lambda place: (-keys[place], place))[:most]


def entropies(meta: Mapping[str, Any], temperature: float) -> list[float]:
    """The entropy before each token of a call that asked for ``top_logprobs_num``, in nats, at temperature 1.

    It is that of the tokens reported alone, so it is too low where many others are likely. A server reports the
    log-probabilities that it samples from; the temperature is taken out of them again.

    Raises:
        CallFailed: the server did not report them.
    """
    scale, heads = temperature if temperature > GREEDY else 1.0, meta.get("output_top_logprobs")
    if heads is None:
        raise CallFailed("a response lacks the log-probabilities of its tokens")
    shares = (softmax([token[0] for token in head], scale) for head in heads if head)
    return [max(0.0, -sum(p * math.log(p) for p in share if p)) for share in shares]


def pieces(meta: Mapping[str, Any]) -> list[str]:
    """The text of each token of a call that asked for ``return_text_in_logprobs``."""
    return [str(token[2] or "") for token in meta.get("output_token_logprobs") or ()]


def beginning(text: str, tokens: Sequence[str], count: int) -> str | None:
    """The part of a text that its first tokens make up; None where they do not, as with halves of characters."""
    begins = "".join(tokens[:count])
    return begins if text.startswith(begins) else None
