"""Wrong steps for the judge to learn from: slips of the pen, and misreadings that agree with themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from random import Random
from typing import Any

from specreason_sgl.embedded.tales import words
from specreason_sgl.embedded.tales.facts import Kind, Step, Tale, compute
from specreason_sgl.embedded.tales.meaning import RIGHT, grade
from specreason_sgl.embedded.tales.plot import MOST
from specreason_sgl.embedded.tales.styles import Style, word

TRIES = 40
"""So often it is tried to find a wrong step of some kind, before a digit is changed."""


def corrupt(rng: Random, tale: Tale, done: Collection[int], place: int, style: Style) -> str:
    """A text for the step at ``place`` that is not right: a slip, a misreading, a repetition, an idle remark."""
    step = tale.steps[place]
    for _ in range(TRIES):
        kind = rng.random()
        if kind < 0.25:
            text = flip_digit(rng, word(step, style, rng))
        elif kind < 0.3:
            text = word(tale.steps[rng.choice(sorted(done))] if done else step, style, rng)
        elif kind < 0.35:
            text = word(rng.choice(tale.steps), style, rng)
        elif kind < 0.4:
            text = "The story says: " + rng.choice(re.findall(r"[^.?]+[.?]", tale.question) or [tale.question]).strip()
        else:
            (misread,) = rng.choices(MISREADINGS, HOW_OFTEN)
            other = misread(rng, tale, step)
            text = word(other, style, rng) if other else ""
        if text and grade(tale, done, text) != RIGHT:
            return text
    return flip_result(step, style, rng)


def flip_digit(rng: Random, text: str) -> str:
    """The text with one of its digits changed."""
    places = [match.start() for match in re.finditer(r"\d", text)]
    place = rng.choice(places)
    digit = rng.choice([digit for digit in "0123456789" if digit != text[place]])
    return text[:place] + digit + text[place + 1 :]


def flip_result(step: Step, style: Style, rng: Random) -> str:
    """The step with a result that is one too large."""
    return word(replace(step, value=step.value + 1), style, rng)


def _recomputed(step: Step, **changed: Any) -> Step | None:
    """The step with other operands, if they give a legal one."""
    other = replace(step, **changed)
    try:
        value = compute(other.left, other.operation, other.right)
    except ValueError:
        return None
    return replace(other, value=value) if 0 <= value <= MOST else None


def _numbers(tale: Tale, step: Step) -> list[int]:
    """Numbers of the question and results that are about, other than the step's own."""
    told = {int(n) for n in re.findall(r"\d+", tale.question)} | {each.value for each in tale.steps}
    return sorted(told - {step.left, step.right, step.value}) or [step.right + 1]


def _other_number(rng: Random, tale: Tale, step: Step) -> Step | None:
    """Another number used throughout, or one that is copied wrongly."""
    if not step.operation:
        return replace(step, value=rng.choice(_numbers(tale, step)))
    side = rng.choice(("left", "right"))
    now: int = getattr(step, side)
    miscopied = int(flip_digit(rng, str(now)))
    return _recomputed(step, **{side: rng.choice(_numbers(tale, step)) if rng.random() < 0.7 else miscopied})


def _other_way(rng: Random, _: Tale, step: Step) -> Step | None:
    """A gain taken for a loss, more for fewer, or the other way round."""
    kinds: dict[Kind, Kind] = {"gain": "lose", "lose": "gain", "more": "fewer", "fewer": "more"}
    turned = kinds.get(step.kind)
    if not turned:
        return None
    verb = rng.choice(words.GAINS if turned == "gain" else words.LOSSES)
    changed: dict[str, Any] = {"kind": turned, "operation": "+" if step.operation == "-" else "-"}
    said = {"verb": verb.third, "tail": verb.tail} if step.verb else {}
    return _recomputed(step, **changed, **said)


def _other_operation(rng: Random, _: Tale, step: Step) -> Step | None:
    """The right numbers, computed otherwise."""
    if not step.operation:
        return None
    return _recomputed(step, operation=rng.choice([each for each in "+-x/" if each != step.operation]))


def _left_out(rng: Random, tale: Tale, step: Step) -> Step | None:
    """A change that comes later, made to what there is now."""
    later = [each for each in tale.steps if each.kind == step.kind and each.right != step.right and each.operation]
    if not step.operation or not later:
        return None
    other = rng.choice(later)
    return _recomputed(step, right=other.right, verb=other.verb, tail=other.tail, operation=other.operation)


def _other_person(rng: Random, tale: Tale, step: Step) -> Step | None:
    """Somebody else named."""
    others = [name for name in tale.people if name not in {step.who, step.other}]
    if not step.who:
        return None
    if step.other in tale.people and rng.random() < 0.3:
        return replace(step, who=step.other, other=step.who)
    return replace(step, who=rng.choice(others or [words.person(rng, tale.split, tale.people).name]))


def _other_thing(rng: Random, tale: Tale, step: Step) -> Step | None:
    """Something else counted."""
    if not step.thing:
        return None
    others = [thing for thing in tale.things if thing not in {step.thing, step.other}]
    return replace(step, thing=rng.choice(others or [words.thing(rng, tale.split, tale.things)]))


def _other_result(rng: Random, _: Tale, step: Step) -> Step | None:
    """A wrong result under a calculation that is right."""
    near = [step.value + by for by in (-100, -10, -2, -1, 1, 2, 10, 100) if step.value + by >= 0]
    return replace(step, value=rng.choice(near))


def _ends_early(rng: Random, tale: Tale, step: Step) -> Step | None:
    """The answer before everything is done."""
    if step.kind == "answer":
        return None
    last = tale.steps[-1]
    return replace(last, value=rng.choice((step.left, step.right, step.value)))


def _misspelt(rng: Random, _: Tale, step: Step) -> Step | None:
    """A word that is copied wrongly from some letter on."""
    fields = [name for name in ("who", "thing", "other", "holder") if getattr(step, name)]
    if not fields:
        return None
    field = rng.choice(fields)
    now: str = getattr(step, field)
    copied = now[: rng.randint(1, len(now) - 1)] + words.invented_word(rng)[-rng.randint(1, 4) :]
    changed: dict[str, Any] = {field: copied}
    return (
        None
        if copied.lower() in {now.lower(), words.singular(now).lower(), "she", "he", "they"}
        else replace(step, **changed)
    )


def _other_order(rng: Random, tale: Tale, step: Step) -> Step | None:
    """Two neighbours in an expression that are not next."""
    if tale.form != "expressions" or not step.operation:
        return None
    found = _NEIGHBOURS.findall(tale.question)
    neighbours = {(int(left), _SIGNS.get(sign, sign), int(right)) for left, sign, right in found}
    own = {(each.left, each.operation, each.right) for each in tale.steps}
    others = neighbours - own - {(right, sign, left) for left, sign, right in own if sign in "+x"}
    if not others:
        return None
    left, operation, right = rng.choice(sorted(others))
    return _recomputed(step, left=left, operation=operation, right=right)


_NEIGHBOURS = re.compile(r"(?=(?<!\d)(\d+) ?([-+*x×/:÷]) ?(\d+))")
_SIGNS = {"*": "x", "×": "x", ":": "/", "÷": "/"}
MISREADINGS: tuple[Callable[[Random, Tale, Step], Step | None], ...] = (
    _other_number, _other_way, _other_operation, _left_out, _other_person, _other_thing, _other_result, _ends_early,
    _misspelt, _other_order,
)  # fmt: skip
"""Steps that agree with themselves but not with the tale, as a small model writes them."""
HOW_OFTEN = (5, 2, 1, 2, 2, 1, 2, 1, 3, 2)
