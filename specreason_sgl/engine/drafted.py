"""What a request may ask of a server that drafts tokens: some ways of choosing tokens SGLang 0.5.23 forgets there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OURS = "torch_incremental"
"""The attention backend with which this package decodes speculatively."""

FORGOTTEN: Mapping[str, Any] = {"custom_logit_processor": None, "min_p": 0}
"""What holds for the first token of a text alone, with the value that asks for nothing."""
BLOCKWISE = frozenset({"DFLASH", "DSPARK"})
"""The algorithms whose own way of checking drafted tokens heeds custom logit processors."""
LATE: Mapping[str, Any] = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "min_new_tokens": 0,
}
"""What sees one token of each round: penalties miss most of a text, and a least length is one of rounds."""


def unfit(asked: Mapping[str, Any], options: Mapping[str, Any], *, nearly: bool = False) -> str | None:
    """A line on what a request asks for and does not get; None if it gets all.

    Args:
        asked: the request's sampling parameters.
        options: what the server was started with.
        nearly: whether it is enough that penalties hold in part, as SGLang means it to be.
    """
    if not options.get("speculative_algorithm"):
        return None
    is_ours = options.get("attention_backend") == OURS
    held = {"min_p"} if is_ours else set()
    held |= {"custom_logit_processor"} if options["speculative_algorithm"] in BLOCKWISE else set()
    names = FORGOTTEN if nearly and not is_ours else {**FORGOTTEN, **LATE}
    for name, nothing in names.items():
        if name not in held and asked.get(name) not in (None, nothing):
            return f"`{name}` does not hold while tokens are drafted: leave it out, or ask a server that drafts none"
    return None
