"""A bound: SpecReason with the truth in place of the judge, which accepts exactly the right drafts."""

import sglang as sgl

from specreason_sgl.lang.loading import load

paper = load("specreason").function.func


@sgl.function
def oracle(s, trace, is_right):
    """Draft, ask ``is_right(steps, draft, closes)``, accept or regenerate."""

    def judge(s, trace, step, drafted):
        return trace.decided(step, is_right(trace.steps, drafted.text, drafted.closes))

    return paper(s, trace, judge=judge)
