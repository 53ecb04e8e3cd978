"""The anchor at one end: the base model thinks and answers alone, in one call each."""

import sglang as sgl


@sgl.function
def base_only(s, trace):
    """Think until the thinking is closed or there is no more room for it, then answer."""
    s += trace.prefix("base")
    with s.copy() as thinking:
        thinking += sgl.gen("thinking", stop=[trace.base.chat.thinking.close], max_tokens=trace.most("base"))
        s += trace.thought(thinking, "thinking")
    s += trace.base.chat.close_thinking
    s += sgl.gen("answer", max_tokens=trace.settings.answer_tokens)
    return trace.answered(s, "answer")
