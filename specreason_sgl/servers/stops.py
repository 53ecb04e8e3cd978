"""Where a text ends under speculative decoding, when several tokens come at a time.

SGLang 0.5.23 looks for stop strings in the order in which they were asked for, over all the tokens of a round, and for
end tokens after that. Of two that come in one round it may take the later one, and a text that the model has ended may
go on to a stop string. Here it looks behind each token in turn, as it does when tokens come one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PLACE = "sglang.srt.managers.schedule_batch.Req.update_finish_state"
"""SGLang's method that finds whether and where a request's text ends."""

NOT_A_TOKEN = "NaN happened"  # noqa: S105 - not that kind of token
"""What SGLang calls the end of a text whose model wrote something that is no token."""


def end_in_turn(look: Callable[..., None], request: Any, new_accepted_len: int = 1) -> None:
    """Look for the end of a request's text behind each of its new tokens, if there is one.

    Args:
        look: SGLang's method, which looks behind all the tokens given to it.
        request: SGLang's request.
        new_accepted_len: how many tokens are new.
    """
    ended, aborted = request.finished(), request.to_finish
    look(request, new_accepted_len)
    reason, length = request.finished_reason, request.finished_len
    if new_accepted_len < 2 or ended or aborted or reason is None:  # noqa: PLR2004
        return
    if getattr(reason, "matched", None) == NOT_A_TOKEN:
        return
    whole, grammar = request.output_ids, request.grammar
    for end in range(len(whole) - new_accepted_len + 1, len(whole) + 1):
        request.finished_reason = request.finished_len = None
        request.output_ids = whole[:end]
        # A grammar ends with the last token, if it does: SGLang has cut behind that.
        request.grammar = grammar if end == len(whole) else None
        look(request, 1)
        if request.finished():
            break
    else:
        request.finished_reason, request.finished_len = reason, length
    request.output_ids, request.grammar = whole, grammar
