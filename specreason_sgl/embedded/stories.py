"""Quantity stories: the problems the embedded pair knows, with the truth of every step.

A story is a short text about who has how many of something. Each one is solved by a chain of thought
of 3 to 10 steps with the arithmetic written out, and there is exactly one canonical text for every
step, so that any candidate step can be graded without a model. The same seed gives the same story on
every machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

Split = Literal["train", "dev", "test"]

MOST = 99
"""The largest quantity in a story: results stay at two digits."""

NAMES = (
    "Mia", "Ben", "Ana", "Tom", "Lea", "Sam", "Eva", "Max",
    "Ida", "Leo", "Zoe", "Jon", "Amy", "Dan", "Kim", "Raj",
)  # fmt: skip
THINGS = (
    "marbles", "apples", "stamps", "coins", "shells", "books", "cards", "pencils",
    "beads", "stones", "cookies", "stickers", "buttons", "plums", "tickets", "seeds",
)  # fmt: skip
GAINS = ("finds", "buys", "gets", "wins", "collects", "receives")
LOSSES = ("loses", "sells", "gives away", "drops", "uses", "donates")
HOLDERS = ("bags", "boxes", "jars", "trays", "packs")
UNITS = (("dozen", 12), ("pairs of", 2), ("weeks", 7))


@dataclass(frozen=True)
class Story:
    """One problem with its full solution."""

    family: str
    question: str
    steps: tuple[str, ...]
    """The canonical chain of thought, without delimiters."""
    answer: int

    @property
    def answer_text(self) -> str:
        r"""The canonical answer phase, with the result in ``\boxed{}``."""
        return f"The answer is \\boxed{{{self.answer}}}."


def add(a: int, b: int) -> str:
    """Write out ``a + b`` digit by digit."""
    ones = a % 10 + b % 10
    carry = ones // 10
    tens = a // 10 + b // 10 + carry
    return f"{a}+{b}: ones {a % 10}+{b % 10}={ones}, carry {carry}, tens {a // 10}+{b // 10}+{carry}={tens}, so {a + b}"


def subtract(a: int, b: int) -> str:
    """Write out ``a - b`` digit by digit, for ``a >= b``."""
    borrow = int(a % 10 < b % 10)
    ones = a % 10 + 10 * borrow
    tens = a // 10 - b // 10 - borrow
    return (
        f"{a}-{b}: borrow {borrow}, ones {ones}-{b % 10}={ones - b % 10}, "
        f"tens {a // 10}-{b // 10}-{borrow}={tens}, so {a - b}"
    )


def multiply(k: int, n: int) -> str:
    """Write out ``k * n`` for a single digit ``k``."""
    ones = k * (n % 10)
    carry = ones // 10
    return (
        f"{k}x{n}: ones {k}x{n % 10}={ones}, carry {carry}, "
        f"tens {k}x{n // 10}+{carry}={k * (n // 10) + carry}, so {k * n}"
    )


def divide(total: int, k: int) -> str:
    """Write out ``total / k`` for a total that ``k`` divides."""
    return f"{total}/{k}: {k}x{total // k}={total}, so {total // k}"


@dataclass
class _Draft:
    """A story while it is being invented."""

    rng: Random
    name: str
    thing: str
    count: int = 0
    sentences: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def start(self, count: int) -> None:
        self.count = count
        self.sentences.append(f"{self.name} has {count} {self.thing}.")
        self.steps.append(f"{self.name} starts with {count} {self.thing}.")

    def gain(self, n: int, why: str) -> None:
        self.steps.append(f"{why}, {add(self.count, n)} {self.thing}.")
        self.count += n

    def lose(self, n: int, why: str) -> None:
        self.steps.append(f"{why}, {subtract(self.count, n)} {self.thing}.")
        self.count -= n

    def change(self) -> None:
        """One plain gain or loss."""
        room_up, room_down = MOST - self.count, self.count - 1
        up = self.rng.random() < 0.5 if min(room_up, room_down) >= 2 else room_up > room_down
        n = self.rng.randint(2, min(49, room_up if up else room_down))
        verb = self.rng.choice(GAINS if up else LOSSES)
        self.sentences.append(f"{self.name} {verb} {n} {self.thing}.")
        if up:
            self.gain(n, f"{self.name} {verb} {n} more")
        else:
            self.lose(n, f"{self.name} {verb} {n}")

    def finish(self, family: str) -> Story:
        self.sentences.append(f"How many {self.thing} does {self.name} have now?")
        return self.close(family, f"So {self.name} has {self.count} {self.thing}, and the answer is {self.count}.")

    def close(self, family: str, last_step: str) -> Story:
        if self.rng.random() < 0.4:
            self.sentences.insert(self.rng.randint(1, len(self.sentences) - 1), self.distractor())
        return Story(family, " ".join(self.sentences), (*self.steps, last_step), self.count)

    def distractor(self) -> str:
        """A sentence with a number that does not matter."""
        n = self.rng.randint(2, 49)
        other = self.rng.choice([t for t in THINGS if t != self.thing])
        return self.rng.choice(
            (
                f"{self.name} is {n} years old.",
                f"The table has {n} {other} on it.",
                f"A bag of {other} costs {n} dollars.",
                f"It is {n} degrees outside.",
            )
        )


def _extra(rng: Random, most: int) -> int:
    """How many plain changes follow: short stories are the most common."""
    return min(rng.randint(0, most), rng.randint(0, most))


def gains_and_losses(d: _Draft) -> Story:
    """Plain gains and losses, one after the other."""
    d.start(d.rng.randint(5, 80))
    for _ in range(1 + _extra(d.rng, 7)):
        d.change()
    return d.finish("gains-and-losses")


def repeated_groups(d: _Draft) -> Story:
    """Some bags with the same number in each are added or taken away."""
    d.start(d.rng.randint(5, 60))
    for _ in range(1 + _extra(d.rng, 2)):
        k = d.rng.randint(2, 9)
        up = d.count < 50
        room = MOST - d.count if up else d.count - 1
        n = d.rng.randint(1, max(1, min(30, room // k)))
        if k * n > room:
            break
        holder = d.rng.choice(HOLDERS)
        verb = d.rng.choice(GAINS if up else LOSSES)
        d.sentences.append(f"{d.name} {verb} {k} {holder} with {n} {d.thing} each.")
        d.steps.append(f"{k} {holder} with {n} each, {multiply(k, n)} {d.thing}.")
        if up:
            d.gain(k * n, f"{d.name} {verb} {k * n} more")
        else:
            d.lose(k * n, f"{d.name} {verb} {k * n}")
    for _ in range(1 + _extra(d.rng, 3)):
        d.change()
    return d.finish("repeated-groups")


def equal_shares(d: _Draft) -> Story:
    """A heap is shared equally; one share goes on."""
    k, share = d.rng.randint(2, 9), d.rng.randint(2, 9)
    giver = d.rng.choice([n for n in NAMES if n != d.name])
    if d.rng.random() < 0.5:
        d.start(d.rng.randint(5, 60))
        d.sentences.append(
            f"{giver} shares {k * share} {d.thing} equally among {k} friends, and {d.name} is one of them."
        )
        d.steps.append(f"{giver} shares {k * share} among {k} friends, {divide(k * share, k)} {d.thing} each.")
        d.gain(share, f"{d.name} gets {share} more")
    else:
        d.start(k * share)
        d.sentences.append(f"{d.name} puts them equally into {k} boxes and keeps only one box.")
        d.steps.append(f"{d.name} keeps one of {k} boxes, {divide(k * share, k)} {d.thing}.")
        d.count = share
    for _ in range(1 + _extra(d.rng, 5)):
        d.change()
    return d.finish("equal-shares")


def unit_conversion(d: _Draft) -> Story:
    """A quantity comes in dozens, pairs, or per day for some weeks."""
    unit, size = d.rng.choice(UNITS)
    d.start(d.rng.randint(3, 30))
    if unit == "weeks":
        weeks, a_day = d.rng.choice([(w, n) for w in (1, 2, 3) for n in range(1, 9) if 7 * w * n <= MOST - d.count])
        d.sentences.append(f"{d.name} gets {a_day} {d.thing} a day for {weeks} weeks.")
        d.steps.append(f"{weeks} weeks have 7 days each, {multiply(weeks, 7)} days.")
        d.steps.append(f"{a_day} a day for {7 * weeks} days, {multiply(a_day, 7 * weeks)} {d.thing}.")
        gained = 7 * weeks * a_day
    else:
        k = d.rng.randint(2, min(9, (MOST - d.count) // size))
        verb = d.rng.choice(GAINS)
        d.sentences.append(f"{d.name} {verb} {k} {unit} {d.thing}.")
        d.steps.append(f"{k} {unit} {d.thing} are {k} times {size}, {multiply(k, size)} {d.thing}.")
        gained = k * size
    d.gain(gained, f"{d.name} gets {gained} more")
    for _ in range(_extra(d.rng, 5)):
        d.change()
    return d.finish("unit-conversion")


def comparison(d: _Draft) -> Story:
    """A second person has more, fewer, or a multiple; the question joins or compares the two."""
    d.start(d.rng.randint(5, 45))
    for _ in range(_extra(d.rng, 4)):
        d.change()
    other = d.rng.choice([n for n in NAMES if n != d.name])
    mine = d.count
    times = [k for k in (2, 3, 4) if k * mine <= MOST]
    kind = d.rng.choice(["more", "fewer", "times"] if times else ["more", "fewer"])
    if kind == "times":
        k = d.rng.choice(times)
        theirs = k * mine
        d.sentences.append(f"{other} has {k} times as many {d.thing} as {d.name} has now.")
        d.steps.append(f"{other} has {k} times as many, {multiply(k, mine)} {d.thing}.")
    elif kind == "more" and mine < MOST - 2:
        n = d.rng.randint(2, min(49, MOST - mine))
        theirs = mine + n
        d.sentences.append(f"{other} has {n} more {d.thing} than {d.name} has now.")
        d.steps.append(f"{other} has {n} more, {add(mine, n)} {d.thing}.")
    else:
        n = d.rng.randint(1, max(1, mine - 1))
        theirs = mine - n
        d.sentences.append(f"{other} has {n} fewer {d.thing} than {d.name} has now.")
        d.steps.append(f"{other} has {n} fewer, {subtract(mine, n)} {d.thing}.")
    if mine + theirs <= MOST:
        d.sentences.append(f"How many {d.thing} do {d.name} and {other} have together?")
        d.steps.append(f"Together {d.name} and {other} have, {add(mine, theirs)} {d.thing}.")
        d.count = mine + theirs
        return d.close("comparison", f"So together they have {d.count} {d.thing}, and the answer is {d.count}.")
    d.sentences.append(f"How many {d.thing} does {other} have?")
    d.count = theirs
    return d.close("comparison", f"So {other} has {theirs} {d.thing}, and the answer is {theirs}.")


FAMILIES: tuple[Callable[[_Draft], Story], ...] = (
    gains_and_losses,
    repeated_groups,
    equal_shares,
    unit_conversion,
    comparison,
)
HARD = (repeated_groups, equal_shares)
"""The families with the most mistakes: numbers that belong to several things at once."""


def story(seed: int, split: Split = "test") -> Story:
    """The story with this seed; the splits never share a random stream."""
    rng = Random(f"{split}:{seed}")
    return invent(rng)


SHORTEST, LONG, LONGEST = 3, 7, 10
"""How many steps a solution has at least, from where on it is called long, and at most."""


def invent(
    rng: Random,
    longest: int = LONGEST,
    families: Sequence[Callable[[_Draft], Story]] = FAMILIES,
    shortest: int = SHORTEST,
) -> Story:
    """A story of a random family with a solution of ``shortest`` to ``longest`` steps."""
    while True:
        told = rng.choice(families)(_Draft(rng, rng.choice(NAMES), rng.choice(THINGS)))
        if shortest <= len(told.steps) <= longest:
            return told


RIGHT, IDLE = 9, 5
"""The utility scores of a right and useful step, and of one that is true but leads nowhere."""

_EXPRESSION = re.compile(r"\d+[-+x/]\d+(?=:)")
_RESULT = re.compile(r"(\d+)(?!.*\d)", re.DOTALL)


def idle_steps(told: Story, done: int) -> list[str]:
    """True statements that add nothing after ``done`` steps: what was already said, said again."""
    facts = [sentence.strip() for sentence in re.findall(r"[^.?]+\.", told.question)]
    return [*told.steps[:done], *(f"The story says: {fact}" for fact in facts)]


def grade_step(told: Story, done: int, candidate: str) -> int:
    """The utility score, 0 to 9, that a candidate for the step after ``done`` right steps deserves.

    Right and useful is 9, true but idle 5. A wrong step gets 3 if its result is right all the same, 2 if
    it computes the right expression wrongly, 1 if it computes something else, 0 if it computes nothing.
    """
    wanted = told.steps[done] if done < len(told.steps) else ""
    text = candidate.strip()
    if text == wanted:
        return RIGHT
    if text in idle_steps(told, done):
        return IDLE
    if not re.search(r"\d", text):
        return 0
    wanted_result, result = _RESULT.search(wanted), _RESULT.search(text)
    if _EXPRESSION.findall(wanted) == _EXPRESSION.findall(text):
        same = wanted_result is not None and result is not None and wanted_result[1] == result[1]
        return 3 if same else 2
    return 1


def corrupt(rng: Random, told: Story, done: int) -> str:
    """A candidate for the next step that is not the right one: a slip, a misreading, a repetition, an idle remark."""
    wanted = told.steps[done]
    while True:
        kind = rng.random()
        if kind < 0.25:
            text = flip_digit(rng, wanted)
        elif kind < 0.35:
            text = _slip(rng, wanted)
        elif kind < 0.4:
            text = rng.choice(told.steps)
        elif kind < 0.5:
            text = rng.choice(idle_steps(told, done))
        elif kind < 0.55:
            text = _other_operand(rng, told, wanted)
        else:
            (misread,) = rng.choices(MISREADINGS, HOW_OFTEN)
            text = misread(rng, told, done)
        if text != wanted:
            return text


def flip_digit(rng: Random, text: str) -> str:
    """The text with one of its digits changed."""
    places = [m.start() for m in re.finditer(r"\d", text)]
    place = rng.choice(places)
    digit = rng.choice([d for d in "0123456789" if d != text[place]])
    return text[:place] + digit + text[place + 1 :]


_WRITTEN_OUT = re.compile(r"(\d+)([-+x/])(\d+): .* so \d+")
_OPERATIONS: dict[str, Callable[[int, int], str]] = {"+": add, "-": subtract, "x": multiply, "/": divide}


def _recompute(text: str, change: Callable[[int, str, int], tuple[int, str, int]]) -> str:
    """The step with its operands changed and the arithmetic written out again, if that gives a legal one."""
    match = _WRITTEN_OUT.search(text)
    if not match:
        return text
    a, operation, b = change(int(match[1]), match[2], int(match[3]))
    legal = {"+": a + b <= MOST, "-": a >= b, "x": 0 < a <= 9 and a * b <= MOST, "/": b > 0 and a % b == 0}[operation]
    return text[: match.start()] + _OPERATIONS[operation](a, b) + text[match.end() :] if legal else text


def _slip(rng: Random, text: str) -> str:
    """Consistent arithmetic on the wrong operation or a misread operand."""

    def change(a: int, operation: str, b: int) -> tuple[int, str, int]:
        if operation in "+-" and rng.random() < 0.5:
            return a, "-" if operation == "+" else "+", b
        if rng.random() < 0.5:
            return int(flip_digit(rng, str(a))), operation, b
        return a, operation, int(flip_digit(rng, str(b)))

    return _recompute(text, change)


def _other_operand(rng: Random, told: Story, text: str) -> str:
    """Consistent arithmetic with another number of the story, a distractor perhaps."""
    numbers: Sequence[str] = re.findall(r"\d+", told.question)
    return _recompute(text, lambda a, operation, _: (a, operation, int(rng.choice(numbers))))


def _other_word(rng: Random, told: Story, done: int) -> str:
    """The step about somebody else, or with another verb or holder of the same sense."""
    text = told.steps[done]
    found = [(group, word) for group in (NAMES, GAINS, LOSSES, HOLDERS) for word in group if f"{word} " in text]
    if not found:
        return text
    group, word = rng.choice(found)
    others = [other for other in group if other != word]
    named = [other for other in others if f"{other} " in told.question]
    return text.replace(f"{word} ", f"{rng.choice(named if named and rng.random() < 0.5 else others)} ", 1)


def _other_number(rng: Random, told: Story, done: int) -> str:
    """The step with another number of the story, or with a digit too many or too few, from its first word on."""
    text = told.steps[done]
    match = _WRITTEN_OUT.search(text) or re.search(r"(starts) (with) (\d+)", text)
    if not match:
        return text
    cut = match[3][: rng.randint(1, len(match[3]))] if rng.random() < 0.3 else f"{match[3]}{rng.randint(0, 9)}"
    number = rng.choice(re.findall(r"\d+", told.question)) if rng.random() < 0.7 else cut
    if match[2] == "with":
        return text.replace(match[3], number)
    changed = _recompute(text, lambda a, operation, _: (a, operation, int(number)))
    head, comma, rest = changed.partition(", ")
    return text if changed == text else re.sub(rf"\b{match[3]}\b", number, head) + comma + rest


def _other_way(rng: Random, told: Story, done: int) -> str:
    """A gain taken for a loss, or the other way round."""
    text = told.steps[done]
    match = re.match(rf"(\w+) ({'|'.join((*GAINS, *LOSSES))}) (\d+)(?: more)?, (\d+)[-+].*?( \w+\.)$", text)
    if not match:
        return text
    name, verb, n, count, thing = match[1], match[2], int(match[3]), int(match[4]), match[5]
    if verb in LOSSES and count + n <= MOST:
        return f"{name} {rng.choice(GAINS)} {n} more, {add(count, n)}{thing}"
    if verb in GAINS and count >= n:
        return f"{name} {rng.choice(LOSSES)} {n}, {subtract(count, n)}{thing}"
    return text


def _left_out(rng: Random, told: Story, done: int) -> str:
    """The change that comes later, made to what there is now."""
    counts = re.findall(r"starts with (\d+)|\d+[-+]\d+: .* so (\d+)", "\n".join(told.steps[:done]))
    later = [step for step in told.steps[done + 1 :] if (match := _WRITTEN_OUT.search(step)) and match[2] in "+-"]
    if not counts or not later:
        return told.steps[done]
    step = later[0] if rng.random() < 0.7 else rng.choice(later)
    now = int("".join(counts[-1]))
    return _recompute(step, lambda _, operation, b: (now, operation, b))


def _other_quotient(rng: Random, told: Story, done: int) -> str:
    """A division with another result, checked by a multiplication that is made to fit or left as it is."""
    text = told.steps[done]
    match = re.search(r"(\d+)/(\d+): .* so (\d+)", text)
    if not match:
        return text
    total, k, quotient = match[1], int(match[2]), rng.randint(2, 9)
    product = total if rng.random() < 0.7 else k * quotient
    return f"{text[: match.start()]}{total}/{k}: {k}x{quotient}={product}, so {quotient}{text[match.end() :]}"


MISREADINGS = (_other_word, _other_number, _other_way, _left_out, _other_quotient)
"""Steps that agree with themselves but not with the story, as a small model writes them."""
HOW_OFTEN = (1, 2, 2, 2, 5)
"""Each is tried; most find nothing to misread in most steps."""
