"""A control: SpecReason with lots in place of the judge, so that what the judge is worth can be seen."""

import random

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
def random_accept(s, trace, rate=0.5):
    """Draft, draw lots, accept or regenerate; ``rate`` is the acceptance that is aimed at."""
    lots = random.Random(f"{trace.settings.seed}:{trace.question}")
    s += trace.prefix("base")
    for step in trace.next_steps():
        s += step.delimiter
        author = "base"
        if step.number >= trace.settings.first_n:
            text = trace.drafted(draft.run(trace, step, backend=trace.small, **trace.sampling), step)
            author = "small" if not text.is_empty and trace.decided(step, lots.random() < rate) else "base"
        if author == "base":
            text = regenerate(s, trace, step)
        s += text.text
        trace.take(step, text, author)
    s += CLOSE_THINKING
    s += sgl.gen("answer", max_tokens=trace.settings.answer_tokens)
    return trace.answered(s, "answer", author="base")
