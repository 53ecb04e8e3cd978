"""Arithmetic written out: a calculation as the small equations that make it, a column each."""

from __future__ import annotations

from random import Random

COLUMNS = ("ones", "tens", "hundreds", "thousands")


LONGEST = 4
"""Digits of the largest number that is calculated with."""


def calculation(rng: Random) -> tuple[int, str, int]:
    """A calculation like those in tales: numbers of few digits as often as of many, and none above 9,999."""
    most = 10**LONGEST - 1
    one, other = (rng.randrange(10 ** rng.randint(1, LONGEST)) for _ in range(2))
    few, many = rng.randint(2, 20), rng.randint(1, 10 ** rng.randint(1, LONGEST - 1) - 1)
    match rng.choice("+-x/"):
        case "+":
            return one, "+", min(other, most - one)
        case "-":
            return max(one, other), "-", min(one, other)
        case "x":
            few, many = rng.sample((few, min(many, most // few)), 2)
            return few, "x", many
        case _:
            few = min(few, 12)
            return few * min(many, most // few), "/", few


def equations(left: int, operation: str, right: int) -> list[str]:
    """The equations that ``left operation right`` is made of, in order; none if it is one by itself."""
    small, large = sorted((left, right))
    match operation:
        case "+":
            return _sum(left, right) if large > 9 else []
        case "-":
            return _difference(left, right) if left > 9 else []
        case "x":
            return [] if large <= 9 else _product(small, large)
        case _:
            return _quotient(left, right)


def _digits(n: int) -> list[int]:
    return [int(digit) for digit in reversed(str(n))]


def _sum(left: int, right: int) -> list[str]:
    """From the ones up, as far as there is something to add."""
    first, second, carry = _digits(left), _digits(right), 0
    made: list[str] = []
    for place in range(max(len(first), len(second))):
        added = [digits[place] for digits in (first, second) if place < len(digits)] + [1] * carry
        if len(added) == 1:
            break
        carry = sum(added) // 10
        made.append(f"{'+'.join(map(str, added))}={sum(added)}")
    return made


def _difference(left: int, right: int) -> list[str]:
    """From the ones up; a digit that is too small is written with the ten that it borrows."""
    first, second, borrow = _digits(left), _digits(right), 0
    made: list[str] = []
    for place, digit in enumerate(first):
        taken = ([second[place]] if place < len(second) else []) + [1] * borrow
        if not taken:
            break
        borrow = int(digit < sum(taken))
        made.append(f"{'-'.join(map(str, (digit + 10 * borrow, *taken)))}={digit + 10 * borrow - sum(taken)}")
    return made


def _product(small: int, large: int) -> list[str]:
    if small > 9:
        tens, ones = small // 10, small % 10
        parts = [(tens * 10, large), (ones, large)] if ones else [(tens, large)]
        return [f"{a}x{b}={a * b}" for a, b in parts]
    carry = 0
    made: list[str] = []
    for digit in _digits(large):
        total = small * digit + carry
        made.append(f"{small}x{digit}{f'+{carry}' if carry else ''}={total}")
        carry = total // 10
    return made


def _quotient(left: int, right: int) -> list[str]:
    """Small quotients by what they are multiplied with, others from the first digit down."""
    if left // right <= 9:
        return [f"{right}x{left // right}={left}"]
    rest = 0
    made: list[str] = []
    for digit in str(left):
        part = rest * 10 + int(digit)
        rest = part % right
        if made or part >= right:
            made.append(f"{part}/{right}={part // right}" + (f" rest {rest}" if rest else ""))
    return made


def named(left: int, operation: str, right: int, value: int) -> str:
    """Written out with the name of every column, as the base model does."""
    made = equations(left, operation, right)
    if not made:
        return f"{left}{operation}{right}={value}"
    columns = operation in "+-" or (operation == "x" and min(left, right) <= 9)
    inner = [f"{column} {made}" for column, made in zip(COLUMNS, made, strict=False)] if columns else made
    return f"{left}{operation}{right}: {', '.join(inner)}, so {value}"


def bare(left: int, operation: str, right: int, value: int) -> str:
    """Written out where something is carried or borrowed or large, as the small model does."""
    made = equations(left, operation, right)
    easy = operation in "+-" and max(left, right) <= 99 and len(made) == len(str(left)) and not _carries(made)
    if not made or easy or len(made) == 1:
        return f"{left}{operation}{right}={value}"
    return f"{left}{operation}{right}, {', '.join(made)}, gives {value}"


def _carries(made: list[str]) -> bool:
    return any(equation.count("+") + equation.count("-") > 1 for equation in made)
