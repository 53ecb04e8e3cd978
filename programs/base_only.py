"""The anchor at one end: the base model thinks and answers alone, in one call each."""

import sglang as sgl

from specreason_sgl.programs import CLOSE_THINKING, THINK_CLOSE


@sgl.function
def base_only(s, trace):
    """Think until the thinking is closed or there is no more room for it, then answer."""
    s += trace.prefix("base")
    with s.copy() as thinking:
        thinking += sgl.gen("thinking", stop=[THINK_CLOSE], max_tokens=trace.most("base"))
        s += trace.thought(thinking, "thinking")
    s += CLOSE_THINKING
    s += sgl.gen("answer", max_tokens=trace.settings.answer_tokens)
    return trace.answered(s, "answer")
