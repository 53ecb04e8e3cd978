"""Drafting ahead: SpecReason in which no model waits for the other. The same decisions, in less time."""

import sglang as sgl

from specreason_sgl.lang.ahead import Ahead
from specreason_sgl.lang.loading import DIGITS

OVERLAPS = True


@sgl.function
def draft(s, trace, step, steps):
    """The small model drafts a step behind others, some of which nobody has judged yet."""
    s += trace.prefix("small", steps)
    for part, most in trace.parts(s, step):
        s += sgl.gen(part, stop=step.ends, max_tokens=most)


@sgl.function
def judge(s, trace, step, steps):
    """The base model scores the last of the steps, 0 to 9."""
    s += trace.prefix("base", steps) + trace.base.chat.judge_turn
    s += sgl.select(step.score, choices=DIGITS)


@sgl.function
def write(s, trace, step):
    """The base model writes the step itself."""
    s += trace.prefix("base")
    s += sgl.gen(step.text, stop=step.ends, max_tokens=step.most)


@sgl.function
def lookahead(s, trace, depth=2, race=False):
    """Draft ``depth`` steps ahead of the judge; with ``race`` the base model writes each step at the same time."""
    s += trace.prefix("base")
    with Ahead(trace, draft, judge, write, depth) as ahead:
        for step in trace.next_steps():
            s += step.delimiter
            kept = None
            if trace.wants_draft(step):
                if race:
                    ahead.begin_own(step)
                drafted, verdict = ahead.next(step)
                if drafted.text and trace.accepted(verdict, step):
                    kept = drafted
                    ahead.drop_own()
            s += trace.take(step, kept or ahead.own(step))
    s += trace.base.chat.close_thinking
    s += sgl.gen("answer", max_tokens=trace.settings.answer_tokens)
    return trace.answered(s, "answer")
