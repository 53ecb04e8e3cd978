"""Token-level speculative decoding in the base model's server on this machine's processor, by flags alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal, get_args

from specreason_sgl.errors import UsageError

Decode = Literal["off", "small", "ngram"]
"""Who drafts the base server's tokens: nobody, the small model, or the text so far by its n-grams."""

DRAFT_TOKENS = 8
"""Tokens drafted at a time: many, because the embedded pair's models mostly agree."""

COMPILERS = ("c++", "g++", "clang++")
_SAME = {"standalone": "small", "auto": "small"}
"""Names of the same on GPUs."""


def named(decode: str) -> Decode:
    """The way of drafting that has this name.

    Raises:
        UsageError: none has.
    """
    for known in get_args(Decode):
        if _SAME.get(decode, decode) == known:
            return known  # type: ignore[no-any-return]
    raise UsageError(
        f"on this machine's processor the base server cannot draft tokens by `{decode}`",
        hint=f"`--decode` takes {', '.join(f'`{known}`' for known in get_args(Decode))}",
    )


def arguments(decode: Decode, small: Path) -> tuple[str, ...]:
    """SGLang's arguments for a base server that drafts tokens.

    Args:
        decode: who drafts.
        small: the small model's folder.

    Raises:
        UsageError: n-grams are asked for, and there is no compiler for what SGLang compiles for them at the start.
    """
    if decode == "off":
        return ()
    if decode == "small":
        return (
            *("--speculative-algorithm", "STANDALONE", "--speculative-draft-model-path", str(small)),
            *("--speculative-num-steps", str(DRAFT_TOKENS - 1), "--speculative-eagle-topk", "1"),
            *("--speculative-num-draft-tokens", str(DRAFT_TOKENS)),
        )
    if not any(map(shutil.which, COMPILERS)):
        raise UsageError(
            "SGLang compiles its search for n-grams when it starts, and there is no C++ compiler here",
            hint="install one, such as `g++`, or draft by the small model: `--decode small`",
        )
    return ("--speculative-algorithm", "NGRAM", "--speculative-num-draft-tokens", str(DRAFT_TOKENS))
