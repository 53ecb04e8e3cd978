"""Reading SGLang's responses, and recognising those that are not complete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from specreason_sgl.engine.transport import Hiccup
from specreason_sgl.text.prompts import whole
from specreason_sgl.text.scoring import LEAST
from specreason_sgl.text.steps import first_stop

Generated = tuple[str, dict[str, Any]]
"""A text and its meta information."""

_PIECES = ("output_token_logprobs", "output_top_logprobs", "output_token_ids_logprobs")
"""Meta information that comes in pieces like the text, from a server with ``--incremental-streaming-output``."""


def generated(answer: Any, stops: Sequence[str] = (), *, is_half: bool = False) -> Generated:
    """Text and meta information of a response; the text ends before the first stop string in it.

    Args:
        answer: the response.
        stops: the stop strings.
        is_half: whether an aborted generation is accepted as well.

    Raises:
        Hiccup: the response is not complete.
    """
    try:
        text, meta = answer["text"], answer["meta_info"]
        finish = (meta["finish_reason"] or {}).get("type")
        counted = isinstance(text, str) and int(meta["completion_tokens"]) >= 0 and int(meta["prompt_tokens"]) >= 0
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise Hiccup("a response lacks what every response has") from error
    if (finish == "abort" and not is_half) or not counted:
        raise Hiccup("the server aborted the call")
    text, stop = up_to_stop(whole(text), stops)
    return text, {**meta, "finish_reason": {"type": "stop", "matched": stop}} if stop else meta


def up_to_stop(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """The text before the first stop string in it, and that stop string; None if there is none."""
    place, stop = first_stop(text, stops) or (None, None)
    return text[:place], stop


def together(several: Sequence[Generated]) -> tuple[list[str], dict[str, Any]]:
    """The texts of one request, with the meta information of the first text and the tokens of all."""
    texts, metas = zip(*several, strict=True)
    tokens = sum(int(meta["completion_tokens"]) for meta in metas)
    return list(texts), {**metas[0], "completion_tokens": tokens, "each": list(metas)}


def joined(before: dict[str, Any], chunk: dict[str, Any]) -> dict[str, Any]:
    """Join a stream so far and its next piece; other fields of a piece are about the whole stream already."""
    if not before:
        return chunk
    old, new = before["meta_info"], chunk["meta_info"]
    lists = {name: [*(old.get(name) or ()), *(new.get(name) or ())] for name in _PIECES if name in new or name in old}
    return {**chunk, "text": before["text"] + chunk["text"], "meta_info": {**new, **lists}}


def responses_in(answers: Any) -> list[Any]:
    """The responses to a list of texts.

    Raises:
        Hiccup: the response is no list.
    """
    if not isinstance(answers, list) or not answers:
        raise Hiccup("a response lacks what every response has")
    return answers


def scored(answer: Any) -> list[Any]:
    """A row for each token of a response's prompt: log-probability, id and text.

    Raises:
        Hiccup: the response has no such rows.
    """
    try:
        return list(answer["meta_info"]["input_token_logprobs"])
    except (LookupError, TypeError) as error:
        raise Hiccup("a response lacks the log-probabilities of the choices") from error


def total(row: Sequence[Sequence[Any]]) -> float:
    """The summed log-probability of some tokens."""
    return float(sum(LEAST if token[0] is None else token[0] for token in row))


def chosen(answer: Any, ids: Sequence[int]) -> tuple[list[float], dict[str, Any]]:
    """The log-probabilities of these token ids, in their order, and the meta information.

    Raises:
        Hiccup: the response has no log-probabilities.
    """
    _, meta = generated(answer)
    try:
        by_id = {token: max(logprob, LEAST) for logprob, token, *_ in meta["output_token_ids_logprobs"][0]}
        return [by_id[token] for token in ids], meta
    except (LookupError, TypeError, ValueError) as error:
        raise Hiccup("a response lacks the log-probabilities of the choices") from error
