"""SpecReason: speculative reasoning, step by step (Pan et al., arXiv 2504.07891, figure 2)."""

import sglang as sgl

from specreason_sgl.lang.loading import DIGITS


@sgl.function
def draft(s, trace, step):
    """The small model drafts the next step."""
    s += trace.prefix("small")
    for part, most in trace.parts(s, step):
        s += sgl.gen(part, stop=step.ends, max_tokens=most)


def judge(s, trace, step, drafted):
    """The base model scores the draft, 0 to 9, in a copy of the conversation that is then forgotten."""
    with s.copy() as asked:
        asked += drafted.text + trace.delimiter + trace.base.chat.judge_turn
        asked += sgl.select(step.score, choices=DIGITS)
        return trace.accepted(asked, step)


def regenerate(s, trace, step):
    """The base model writes the step itself."""
    with s.copy() as own:
        own += sgl.gen(step.text, stop=step.ends, max_tokens=step.most)
        return trace.written(own, step)


@sgl.function
def specreason(s, trace, judge=judge):
    """Draft, judge, accept or regenerate, until the thinking ends; then the base model answers."""
    s += trace.prefix("base")
    for step in trace.next_steps():
        s += step.delimiter
        kept = None
        if trace.wants_draft(step):
            drafted = trace.drafted(draft.run(trace, step, backend=trace.small, **trace.sampling), step)
            if drafted.text and judge(s, trace, step, drafted):
                kept = drafted
        s += trace.take(step, kept or regenerate(s, trace, step))
    s += trace.base.chat.close_thinking
    s += sgl.gen("answer", max_tokens=trace.settings.answer_tokens)
    return trace.answered(s, "answer")
