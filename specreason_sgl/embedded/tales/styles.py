"""How each of the two models words a step: the same meaning in other words.

The base model names the columns of its arithmetic; the small one has other verbs and another order, writes out less,
and makes remarks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from specreason_sgl.embedded.tales import arithmetic
from specreason_sgl.embedded.tales.facts import Kind, Step, Tale
from specreason_sgl.embedded.tales.words import singular

Style = Literal["base", "small"]
STYLES: tuple[Style, ...] = ("base", "small")

# The first wording is the most common one. A wording whose fields are not all there is not used.
_BASE: Mapping[Kind, Sequence[str]] = {
    "start": ("{who} starts with {value} {thing}.", "At first {who} has {value} {thing}."),
    "gain": ("{who} {verb} {b} more{tail}, {sum} {thing}.", "{who} {verb} {b}{tail}, {sum} {thing}."),
    "lose": ("{who} {verb} {b}{tail}, {sum} {thing}.", "{who} {verb} {b_thing}{tail}, {sum} {thing}."),
    "groups": ("{a_holder} with {b} each, {sum} {thing}.", "{a_holder} hold {b_thing} each, {sum} {thing}."),
    "share": ("{a} shared among {b_holder}, {sum} {thing} each.", "{a_thing} go to {b_holder}, {sum} each."),
    "portions": ("{a_other} in {holder} of {b}, {sum} {thing}.", "{a_other}, {b} to each, {sum} {thing}."),
    "more": ("{who} has {b} more than {other}, {sum} {thing}.", "{who} has {b} more {thing}, {sum} {thing}."),
    "fewer": ("{who} has {b} fewer than {other}, {sum} {thing}.", "{who} has {b} fewer {thing}, {sum} {thing}."),
    "times": ("{who} has {a} times as many, {sum} {thing}.", "{who} has {a} times as many as {other}, {sum} {thing}."),
    "half": ("{who} has half as many as {other}, {sum} {thing}.", "{who} has half as many, {sum} {thing}."),
    "unit": ("{a_holder} are {a} times {b}, {sum} {thing}.", "{a_holder} have {b} each, {sum} {thing}."),
    "rate": ("{a} each {holder} for {b_other}, {sum} {thing}.", "{b_other} with {a} each, {sum} {thing}."),
    "cost": ("{a_other} at {b_thing} each, {sum} {thing}.", "{a_other} cost {b} each, {sum} {thing}."),
    "total": (
        "Together {who} and {other} have {sum} {thing}.",
        "Together that is {sum} {thing}.",
        "Together they are {sum} {thing}.",
    ),
    "apart": ("{who} has more than {other}, {sum} {thing}.", "The difference is {sum} {thing}."),
    "bracket": ("First the bracket, {sum}.", "The bracket is {sum}."),
    "value": ("Now {sum}.", "Next, {sum}."),
    "answer": (
        "So {who} has {value} {thing}, and the answer is {value}.",
        "So it is {value} {thing}, and the answer is {value}.",
        "So the answer is {value}.",
    ),
}
_SMALL: Mapping[Kind, Sequence[str]] = {
    "start": (
        "We begin with {value} {thing}.",
        "{value} {thing} are there for {who} in the beginning.",
        "In the beginning there are {value} {thing}.",
    ),
    "gain": (
        "Add {b}: {sum} {thing}.",
        "Now {b_thing} come in, and {sum}.",
        "With {b} more we are at {sum} {thing}.",
        "That is {b} up for {who}, {sum}.",
    ),
    "lose": (
        "Take away {b}: {sum} {thing}.",
        "Now {b_thing} are gone, and {sum}.",
        "Without these {b} we are at {sum} {thing}.",
        "That is {b} down for {who}, {sum}.",
    ),
    "groups": (
        "Each of the {holder} has {b} in it: {sum} {thing}.",
        "{b_thing} for each of {a_holder}: {sum}.",
        "In all the {holder} there are {sum} {thing}.",
    ),
    "share": (
        "Split {a} into {b} parts: {sum} {thing}.",
        "Every one of the {b_holder} gets {sum} {thing}.",
        "One part is {sum} {thing}.",
    ),
    "portions": (
        "Count how often {b} fits into {a}: {sum} {thing}.",
        "With {b} in each we fill {sum} {thing}.",
        "The {other} need {sum} {thing}.",
    ),
    "more": (
        "{other} has {a}, and {who} beats that by {b}: {sum} {thing}.",
        "For {who} we add {b} to {a}: {sum} {thing}.",
        "On top of {a} put {b}: {sum} {thing}.",
    ),
    "fewer": (
        "{other} has {a}, and {who} is {b} below: {sum} {thing}.",
        "For {who} we take {b} from {a}: {sum} {thing}.",
        "From {a} take off {b}: {sum} {thing}.",
    ),
    "times": (
        "{other} has {b}, and {who} has that {a} times: {sum} {thing}.",
        "For {who} we need {a} times {b}: {sum} {thing}.",
        "Multiply {b} by {a}: {sum} {thing}.",
    ),
    "half": (
        "{other} has {a}, and {who} has a half of that: {sum} {thing}.",
        "For {who} we halve {a}: {sum} {thing}.",
        "Half of {a} is wanted: {sum} {thing}.",
    ),
    "unit": (
        "One {one} makes {b}, so we have {sum} {thing}.",
        "There are {b} in every {one}: {sum} {thing}.",
        "In {thing}, {a_holder} come to {sum}.",
    ),
    "rate": (
        "Every {holder} brings {a}, so after {b} of them: {sum} {thing}.",
        "For {b_other} take {a} each time: {sum} {thing}.",
        "All {other} make {sum} {thing}.",
    ),
    "cost": (
        "One costs {b}, so for {a} pay {sum} {thing}.",
        "The price of {a_other}: {sum} {thing}.",
        "For the {other} that makes {sum} {thing}.",
    ),
    "total": (
        "Add them up: {sum} {thing}.",
        "All in all we count {sum} {thing}.",
        "Put {a} and {b} together: {sum} {thing}.",
    ),
    "apart": (
        "Compare {a} with {b}: {sum} {thing}.",
        "{who} leads by {sum} {thing}.",
        "From {b} up to {a} it is {sum} {thing}.",
    ),
    "bracket": ("Inside the bracket we get {sum}.", "Brackets go first: {sum}."),
    "value": ("We get {sum}.", "Let us work out {sum}.", "That leaves {sum}."),
    "answer": (
        "That makes {value} {thing}; the answer is {value}.",
        "We are done with {value} {thing} for {who}; the answer is {value}.",
        "Nothing is left to do; the answer is {value}.",
    ),
}
WORDINGS: Mapping[Style, Mapping[Kind, Sequence[str]]] = {"base": _BASE, "small": _SMALL}
WRITTEN = {"base": arithmetic.named, "small": arithmetic.bare}
_INVERSE = {"+": "-", "-": "+", "x": "/", "/": "x"}
REMARKS = ("Okay. ", "Hmm. ", "Let me see. ", "Good. ")
REMARKED, CHECKED = 0.1, 0.08
"""How often the small model begins with a remark, and how often it checks a result."""


def wordings(step: Step, style: Style) -> list[str]:
    """Every wording of a step in a style, without remarks, the most common first."""
    written = WRITTEN[style](step.left, step.operation, step.right, step.value) if step.operation else ""
    fields = {
        "who": step.who,
        "other": step.other,
        "thing": singular(step.thing) if step.value == 1 else step.thing,
        "holder": step.holder,
        "one": singular(step.holder).removesuffix(" of"),
        "verb": step.verb,
        "a": str(step.left),
        "b": str(step.right),
        "value": str(step.value),
        "sum": written,
        **{
            f"{side}_{noun}": named and f"{number} {singular(named) if number == 1 else named}"
            for side, number in (("a", step.left), ("b", step.right))
            for noun, named in (("thing", step.thing), ("holder", step.holder), ("other", step.other))
        },
    }
    there = {name for name, value in fields.items() if value} | {"tail"}
    fields["tail"] = f" {step.tail}" if step.tail else ""
    return [
        _capital(wording.format_map(fields))
        for wording in WORDINGS[style][step.kind]
        if all(f"{{{name}}}" not in wording or name in there for name in fields)
    ]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def word(step: Step, style: Style, rng: Random) -> str:
    """One wording of a step; the first is as likely as all others together."""
    every = wordings(step, style)
    text = every[0] if rng.random() < 0.5 else rng.choice(every)
    if style == "small":
        if rng.random() < REMARKED:
            text = rng.choice(REMARKS) + text
        if step.operation and (step.right or step.operation in "+-") and rng.random() < CHECKED:
            text += " " + check(step)
    return text


def check(step: Step) -> str:
    """A remark that checks a result by the inverse operation."""
    return f"Let me check: {step.value}{_INVERSE[step.operation]}{step.right}={step.left}."


@dataclass(frozen=True)
class Spoken:
    """A tale with its solution in words."""

    question: str
    steps: tuple[str, ...]
    answer_text: str
    own: tuple[bool, ...]
    """For each step, whether it is worded in the style that is to be learned."""


def spoken(tale: Tale, style: Style, rng: Random, foreign: float = 0.0, *, plain: bool = False) -> Spoken:
    """A tale in a style to be learned, with a share of the steps in the other style, as in a chain of both models.

    Args:
        tale: The tale.
        style: The style to be learned.
        rng: Decides the wordings.
        foreign: The share of steps in the other style.
        plain: Whether the steps to be learned are all in their most common wording: which of several is chosen cannot
            be predicted, and is most of what a model that can nearly solve tales is still told to learn.
    """
    own = tuple(rng.random() >= foreign for _ in tale.steps)
    (other,) = (each for each in STYLES if each != style)
    steps = tuple(
        wordings(step, style)[0] if plain and mine else word(step, style if mine else other, rng)
        for step, mine in zip(tale.steps, own, strict=True)
    )
    return Spoken(tale.question, steps, tale.answer_text, own)


def said(tale: Tale, style: Style, rng: Random) -> tuple[str, ...]:
    """A tale's whole solution in one style."""
    return tuple(word(step, style, rng) for step in tale.steps)
