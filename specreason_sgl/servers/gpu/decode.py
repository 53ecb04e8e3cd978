"""Token-level speculative decoding in the base model's server, under the steps: SpecReason+Decode, by flags alone.

The program does not change: a server that drafts tokens for itself answers the same requests, faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from specreason_sgl.errors import UsageError
from specreason_sgl.servers.gpu.drafter import Drafter, planned
from specreason_sgl.servers.gpu.shapes import Shape

Method = Literal["auto", "small", "standalone", "eagle3", "ngram", "off"]
"""Who drafts; ``standalone`` is SGLang's word for ``small``."""

DRAFT_TOKENS = 5
"""Tokens drafted at a time by the small model (SpecReason, section 5)."""
MOST_DRAFTED = 12
"""The most tokens drafted at a time where SGLang chooses the number: so many for n-grams, fewer with a draft head."""

_ALGORITHM = ("--speculative-algorithm",)


@dataclass(frozen=True)
class Decode:
    """How the base server is to draft tokens."""

    arguments: tuple[str, ...]
    """SGLang's server arguments."""
    why: str
    """A line that says what was chosen and why."""
    draft: str | None = None
    """The model that the base server loads in addition."""
    drafter: Drafter | None = None
    """What has to be written first where that is a copy of the small model."""


def choose(method: Method, base: Shape, small: Shape, head: str | None = None) -> Decode:
    """Choose the server arguments for a way of drafting tokens.

    ``auto`` takes EAGLE-3 (arXiv 2503.01840) where a trained draft head is given, the small model where both models
    have the same ordinary tokens under the same ids, and otherwise n-grams of the text so far, which need no model.
    SGLang 0.5.23 wants all tokens to be the same, and as many rows (``StandaloneWorkerV2``): where they are not, a copy
    of the small model that has the base model's tokens drafts.

    Args:
        method: the way, or ``auto`` or ``off``.
        base: the base model.
        small: the small model.
        head: a draft head for the base model: a folder or a name on the hub.

    Raises:
        UsageError: the way asked for is not possible with these models.
    """
    if method == "off":
        return Decode((), "none")
    if method == "eagle3" and head is None:
        raise UsageError(
            "EAGLE-3 needs a draft head that was trained for the base model", hint="name it with `--draft-head MODEL`"
        )
    if head is not None and method in {"auto", "eagle3"}:
        return Decode((*_ALGORITHM, "EAGLE3", *_drafting(head)), f"by EAGLE-3 with the head `{head}`", head)
    reason = _difference(base, small)
    if reason is None and method != "ngram":
        return _by_small(small.name, f"by `{small.name}`, whose vocabulary is the base model's")
    if method != "ngram":
        try:
            copy = planned(base, small)
        except UsageError as error:
            remedy = f" ({error.hint})" if error.hint else ""
            reason = f"{reason}, and a copy with the base model's tokens cannot be made: {error}{remedy}"
            if method != "auto":
                raise UsageError(
                    f"the small model cannot draft tokens for the base model: {reason}",
                    hint="`--decode ngram` needs no draft model, `--decode eagle3` a head trained for the base model",
                ) from error
        else:
            why = f"by a copy of `{small.name}` with the base model's tokens: {copy.match}"
            return _by_small(str(copy.folder), why, copy)
    why = "from n-grams of the text so far" + ("" if method == "ngram" else f", since {reason}")
    return Decode((*_ALGORITHM, "NGRAM"), why)


def _by_small(model: str, why: str, copy: Drafter | None = None) -> Decode:
    counts = (
        *("--speculative-num-steps", str(DRAFT_TOKENS), "--speculative-eagle-topk", "1"),
        *("--speculative-num-draft-tokens", str(DRAFT_TOKENS + 1)),
    )
    return Decode((*_ALGORITHM, "STANDALONE", *_drafting(model), *counts), why, model, copy)


def _drafting(model: str) -> tuple[str, str]:
    return "--speculative-draft-model-path", model


def _difference(base: Shape, small: Shape) -> str | None:
    """The difference between the token ids of two models, as text; None if they are the same."""
    if base.vocab != small.vocab:
        return f"`{base.name}` has {base.vocab} tokens and `{small.name}` {small.vocab}"
    if base.tokenizer is None or small.tokenizer is None:
        unknown = base if base.tokenizer is None else small
        return f"the tokens of `{unknown.name}` are not known here"
    if base.tokenizer != small.tokenizer:
        return f"`{base.name}` and `{small.name}` have as many tokens under other ids"
    return None
