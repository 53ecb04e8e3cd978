"""The anchor at the other end: the small model thinks and answers alone, in one call each."""

import sglang as sgl

MODEL = "small"


@sgl.function
def small_only(s, trace):
    """Think until the thinking is closed or there is no more room for it, then answer."""
    s += trace.prefix("small")
    with s.copy() as thinking:
        thinking += sgl.gen("thinking", stop=[trace.small.chat.thinking.close], max_tokens=trace.most("small"))
        s += trace.thought(thinking, "thinking")
    s += trace.small.chat.close_thinking
    s += sgl.gen("answer", max_tokens=trace.settings.answer_tokens)
    return trace.answered(s, "answer")
