"""Training samples of the turns that other methods ask of a model, beside drafting, judging and answering.

A turn is a branch behind the reasoning so far, like the judge's; a hint or a tool's line is part of the reasoning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from specreason_sgl.embedded.samples import JUDGE_TURN, Encoder, Sample, tale_candidates
from specreason_sgl.embedded.tales import Spoken, Style, Tale, corrupt, spoken
from specreason_sgl.embedded.tales.meaning import RIGHT
from specreason_sgl.embedded.tales.styles import check, word
from specreason_sgl.embedded.tokenizer import TURN_END
from specreason_sgl.text import turns
from specreason_sgl.text.prompts import EMBEDDED, THINK_CLOSE, VERDICT

_BEFORE, _BEHIND = JUDGE_TURN.removesuffix(VERDICT).split(EMBEDDED.judge)


def turn(question: str, begun: str) -> str:
    """A user's turn behind the reasoning, where the judge's stands, and how the reply begins."""
    return f"{_BEFORE}{question}{_BEHIND}{begun}"


def turned(encoder: Encoder, rng: Random, told: Tale, style: Style) -> Sample:
    """A tale with one of the turns or hints."""
    return rng.choice(TURNS)(encoder, rng, told, style)


def _asked(encoder: Encoder, told: Spoken, asked: Sequence[tuple[int, str, str, str]]) -> Sample:
    """A solution that is read, with questions behind it.

    Args:
        encoder: Makes tokens.
        told: The solution.
        asked: After how many steps, what reasoning follows there, the turn, and the reply.
    """
    sample, ends = Sample(), []
    sample.append(encoder.encode(encoder.prefix(told.question)), learn=False)
    for step in told.steps:
        ends.append(len(sample.ids))
        sample.append([*encoder.encode(step), *encoder.delimiter], learn=False)
    ends.append(len(sample.ids))
    for branch, (done, more, question, reply) in enumerate(asked, start=1):
        sample.roots.append(ends[done])
        text = encoder.encode(more) + encoder.delimiter if more else []
        sample.append([*text, *encoder.encode(question)], learn=False, branch=branch)
        sample.append(encoder.encode(reply), learn=True, branch=branch)
    return sample


def _stated(rng: Random, answer: int) -> str:
    return rng.choice((f"The answer is {answer}.", f"So it is {answer}, and the answer is {answer}."))


def verify(encoder: Encoder, rng: Random, told: Tale, style: Style) -> Sample:
    """Do two answers agree, and does a part state one?"""
    said = spoken(told, style, rng, 0.5)
    asked = []
    for _ in range(3):
        first = told.answer if rng.random() < 0.7 else rng.choice(told.steps).value
        second = (
            first if rng.random() < 0.5 else rng.choice([each.value for each in told.steps] + [first + 1, first + 10])
        )
        question = turns.agreement(_stated(rng, first), _stated(rng, second))
        asked.append((len(said.steps), "", turn(question, turns.ANSWER), "yes" if first == second else "no"))
    last = len(said.steps) - 1
    stated = [
        (done + 1, "", turn(turns.STATES, turns.ANSWER), "yes" if done == last else "no")
        for done in (last, rng.randint(0, last))
    ]
    return _asked(encoder, said, asked + stated)


def evaluate_itself(encoder: Encoder, rng: Random, told: Tale, style: Style) -> Sample:
    """Is the last step correct?"""
    said = spoken(told, style, rng, 0.5)
    every = tale_candidates(rng, told, 4, style)
    return _asked(
        encoder,
        said,
        [
            (each.done, each.text, turn(turns.CORRECT, turns.BRACKET), "A" if each.score == RIGHT else "B")
            for each in every
        ],
    )


def select(encoder: Encoder, rng: Random, told: Tale, style: Style) -> Sample:
    """Which of several drafts is the best?"""
    said = spoken(told, style, rng, 0.5)
    asked = []
    for done in rng.sample(range(len(told.steps)), min(2, len(told.steps))):
        count = rng.randint(2, 4)
        best = rng.randint(0, count)
        drafts = [
            word(told.steps[done], "small", rng)
            if number == best
            else corrupt(rng, told, frozenset(range(done)), done, "small")
            for number in range(1, count + 1)
        ]
        asked.append((done, "", turn(turns.selection(drafts), ""), str(best)))
    return _asked(encoder, said, asked)


def _chain(encoder: Encoder, told: Tale, pieces: Sequence[tuple[str, bool]]) -> Sample:
    """Reasoning in pieces, each learned or only read, and the answer."""
    sample = Sample()
    sample.append(encoder.encode(encoder.prefix(told.question)), learn=False)
    for text, learn in pieces:
        sample.append(encoder.encode(text), learn=learn)
    sample.append(encoder.encode(told.answer_text + TURN_END), learn=True)
    return sample


def brief(encoder: Encoder, rng: Random, told: Tale, style: Style) -> Sample:
    """After the hint every calculation is one line without words."""
    said = spoken(told, style, rng, 0.5)
    hinted = rng.randint(0, len(said.steps) - 1)
    pieces = [(f"{step}\n\n", own) for step, own in zip(said.steps[:hinted], said.own, strict=False)]
    pieces.append((f"{turns.BE_BRIEF}\n\n", False))
    rest = [step for step in told.steps[hinted:] if step.operation]
    pieces += [(f"{step.left}{step.operation}{step.right}={step.value}.\n\n", True) for step in rest]
    return _chain(encoder, told, [*pieces, (f"The answer is {told.answer}.\n{THINK_CLOSE}\n\n", True)])


def planned(encoder: Encoder, told: Tale) -> Sample:
    """As after the hint to be brief, from the beginning; the results are only read.

    What has to be calculated next is all there is to learn from it, in half the tokens.
    """
    pieces = [(f"{turns.BE_BRIEF}\n\n", False)]
    for step in told.steps:
        if step.operation:
            pieces += [(f"{step.left}{step.operation}{step.right}", True), (f"={step.value}.\n\n", False)]
    return _chain(encoder, told, [*pieces, (f"The answer is {told.answer}.\n{THINK_CLOSE}\n\n", True)])


def with_calculator(encoder: Encoder, rng: Random, told: Tale, style: Style) -> Sample:
    """After the hint a step ends in a call of the calculator, whose line is read."""
    said = spoken(told, style, rng, 0.3)
    hinted = rng.random() < 0.8
    pieces: list[tuple[str, bool]] = []
    for step, text, own in zip(told.steps, said.steps, said.own, strict=True):
        end = f"\n{THINK_CLOSE}\n\n" if step.kind == "answer" else "\n\n"
        if hinted and step.operation and rng.random() < 0.7:
            pieces += [
                (f"{turns.USE_CALC}\n\n", False),
                (f"calc({step.left}{step.operation}{step.right})\n\n", True),
                (f"= {step.value}\n\n", False),
            ]
        else:
            pieces.append((text + end, own))
    return _chain(encoder, told, pieces)


def rechecked(encoder: Encoder, rng: Random, told: Tale, style: Style) -> Sample:
    """After the hint the result before it is checked the other way round, and the chain goes on."""
    said = spoken(told, style, rng, 0.3)
    pieces: list[tuple[str, bool]] = []
    for step, text, own in zip(told.steps, said.steps, said.own, strict=True):
        end = f"\n{THINK_CLOSE}\n\n" if step.kind == "answer" else "\n\n"
        pieces.append((text + end, own))
        if step.operation and (step.right or step.operation in "+-") and rng.random() < 0.5:
            pieces += [(f"{turns.CHECK}\n\n", False), (f"{check(step)}\n\n", True)]
    return _chain(encoder, told, pieces)


def cut(encoder: Encoder, rng: Random, told: Tale, style: Style) -> Sample:
    """The thinking is closed anywhere, and the answer is given all the same."""
    said = spoken(told, style, rng, 0.5)
    at = rng.randint(max(0, len(said.steps) - 3), len(said.steps) - 1)
    pieces = [(f"{step}\n\n", own) for step, own in zip(said.steps[:at], said.own, strict=False)]
    return _chain(encoder, told, [*pieces, (f"{THINK_CLOSE}\n\n", False)])


TURNS: tuple[Callable[[Encoder, Random, Tale, Style], Sample], ...] = (
    verify, evaluate_itself, select, brief, with_calculator, rechecked, cut,
)  # fmt: skip
