"""A bound: SpecReason with the truth in place of the judge, which accepts exactly the right drafts."""

import sglang as sgl

from specreason_sgl.programs import CLOSE_THINKING, STEP_ENDS


@sgl.function
def draft(s, trace, step):
    """The small model drafts the next step."""
    s += trace.prefix("small")
    s += sgl.gen(step.draft, stop=STEP_ENDS, max_tokens=step.most)


def regenerate(s, trace, step):
    """The base model writes the step itself."""
    with s.copy() as own:
        own += sgl.gen(step.text, stop=STEP_ENDS, max_tokens=step.most)
        return trace.written(own, step)


@sgl.function
def oracle(s, trace, is_right):
    """Draft, ask ``is_right(steps, draft, closes)``, accept or regenerate."""
    s += trace.prefix("base")
    for step in trace.next_steps():
        s += step.delimiter
        author = "base"
        if step.number >= trace.settings.first_n:
            text = trace.drafted(draft.run(trace, step, backend=trace.small, **trace.sampling), step)
            right = not text.is_empty and trace.decided(step, is_right(trace.steps, text.text, text.closes))
            author = "small" if right else "base"
        if author == "base":
            text = regenerate(s, trace, step)
        s += text.text
        trace.take(step, text, author)
    s += CLOSE_THINKING
    s += sgl.gen("answer", max_tokens=trace.settings.answer_tokens)
    return trace.answered(s, "answer", author="base")
