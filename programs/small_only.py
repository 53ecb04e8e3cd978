"""The anchor at the other end: the small model thinks and answers alone, in one call each."""

import sglang as sgl

from specreason_sgl.programs import CLOSE_THINKING, THINK_CLOSE

MODEL = "small"


@sgl.function
def small_only(s, trace):
    """Think until the thinking is closed or there is no more room for it, then answer."""
    s += trace.prefix("small")
    with s.copy() as thinking:
        thinking += sgl.gen("thinking", stop=[THINK_CLOSE], max_tokens=trace.most("small"))
        s += trace.thought(thinking, "thinking")
    s += CLOSE_THINKING
    s += sgl.gen("answer", max_tokens=trace.settings.answer_tokens)
    return trace.answered(s, "answer")
