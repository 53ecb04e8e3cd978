# ruff: noqa: SIM905 - words are easier to read in a line than in quotation marks
"""Grades a step by what it says: read with the wordings that are known, or else word by word.

A reading compares who, what, the arithmetic and its result with the steps that a tale needs. No model is asked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache

from specreason_sgl.embedded.tales import arithmetic, words
from specreason_sgl.embedded.tales.facts import Step, Tale, compute
from specreason_sgl.embedded.tales.styles import REMARKS, WORDINGS

RIGHT, IDLE = 9, 5
"""The scores of a right and useful step, and of one that is true but leads nowhere."""

_UP = {form for verb in words.GAINS for form in (verb.base, verb.third, verb.past)} | {"adds", "added", "plus"}
_DOWN = {form for verb in words.LOSSES for form in (verb.base, verb.third, verb.past)} | {
    "minus",
    "pays",
    "paid",
    "pay",
}
_VAGUE = (_UP & _DOWN) | set(
    "get gets got make makes made find found take takes took leave leaves left put puts add give gives gave use used "
    "bring brings share shares shared".split()
)
"""Verbs that say other things too; what they do to the count is told only where a number follows at once."""
_MAKES = {"make", "makes", "made", "leave", "leaves", "left", "give", "gives", "gave"}
"""Those of them that a result may follow."""
_NO_NAMES = set(
    "he she they it that this there each every everyone we i one so then now who what which both nobody all together "
    "nothing everything result total answer someone somebody".split()
)
_AFTER_NUMBER = set(
    "and each in of for more fewer less now left are is to because since as at altogether together away after by "
    "from than or so with on per parts times were go come all which then when but into among below above up down still "
    "already out remain equal a the back again gives makes plus minus over would will if do have has cost costs "
    "ones other others things items rest we be was new extra different whole additional".split()
)
_SIGNS = (("×", "x"), ("*", "x"), ("÷", "/"), ("−", "-"))  # noqa: RUF001
_SPOKEN = ((r"plus|and then", "+"), (r"minus", "-"), (r"times|multiplied by", "x"), (r"divided by|over", "/"))
_EQUALS = r"(?:=|is|are|makes?|gives?|equals?|leaves?|comes to|come to)"
_NUMBER_WORD = re.compile(rf"\b({'|'.join(words.NUMBER_WORDS[2:])})\b", re.IGNORECASE)
_EQUATION = re.compile(r"(?<![\d+x/=-])(\d+(?:[-+x/]\d+)+)=(\d+)(?: rest (\d+))?")
_EXPRESSION = re.compile(r"(?<![\d+x/=-])(\d+)([-+x/])(\d+)(?![\d+x/=-])")
_SUM = re.compile(r"(\d+)([-+x/])(\d+)(?:=(\d+)|[:,] (.+), (?:so|gives) (\d+))")
_COLUMN = re.compile(rf"\b(?:{'|'.join(arithmetic.COLUMNS)}) (?=\d)")

_NAME = rf"(?:[Mm]y |[Tt]he (?:(?:{'|'.join(words.KINDS)}) )?)?[^\W\d_]+"
_WORDS = r"[^\W\d_]+(?:[ -][^\W\d_]+)*?"
_TAILS = sorted({verb.tail for verb in (*words.GAINS, *words.LOSSES) if verb.tail} | {"to the neighbors"})
_PIECES = {
    "who": _NAME, "other": rf"{_NAME}|{_WORDS}", "thing": _WORDS, "holder": _WORDS, "one": _WORDS, "verb": r"[a-z]+",
    "a": r"\d+", "b": r"\d+", "value": r"\d+", "sum": r"\d+[-+x/]\d+[=:,].*?", "tail": rf"(?: (?:{'|'.join(_TAILS)}))?",
}  # fmt: skip


@cache
def _pattern(wording: str) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """What a wording looks like, and the names of its fields in order."""
    found: list[str] = []

    def piece(match: re.Match[str]) -> str:
        parts = match[1].split("_")
        found.extend(parts)
        return " ".join(f"({_PIECES[part]})" for part in parts)

    literal = re.sub(r"[.()?]", lambda match: "\\" + match[0], wording)
    return re.compile(re.sub(r"\{(\w+)\}", piece, literal)), tuple(found)


def grade(tale: Tale, done: Collection[int], text: str) -> int:
    """The utility score, 0 to 9, that a text deserves as the next step.

    Args:
        tale: the problem.
        done: the places of the steps that were made so far.
        text: the step.

    Returns:
        9 if it makes a step that is open and whose parts are known, 5 if it repeats what is known, 3 if its result is
        right all the same, 2 if it computes the right expression wrongly, 1 if it computes something else, 0 if
        it computes nothing.
    """
    if made(tale, done, text) is not None:
        return RIGHT
    if any(agrees(tale, tale.steps[place], text) for place in done) or _told(tale, text):
        return IDLE
    said = _plain(" ".join(_sentences(text, checks=False)))
    if not re.search(r"\d", said):
        return 0
    last = int(re.findall(r"\d+", said)[-1])
    computed = [
        *_EXPRESSION.findall(said),
        *(tuple(re.split(r"([-+x/])", left)) for left, _, _ in _EQUATION.findall(said)),
    ]
    for place in _open(tale, done):
        step = tale.steps[place]
        if step.operation and any(_same(step, each) for each in computed):
            return 3 if last == step.value else 2
        if not step.operation and last == step.value and ("answer" in said) == (step.kind == "answer"):
            return 3
    return 1


def made(tale: Tale, done: Collection[int], text: str) -> int | None:
    """The place of the open step that a text makes; None if it makes none."""
    return next((place for place in _open(tale, done) if agrees(tale, tale.steps[place], text)), None)


def progress(tale: Tale, texts: Sequence[str]) -> frozenset[int] | None:
    """The places of the steps that a chain has made; None once one of them was wrong."""
    done: frozenset[int] = frozenset()
    for text in texts:
        place = made(tale, done, text)
        if place is not None:
            begun = {use for use in tale.steps[place].uses if tale.steps[use].kind == "start"}
            done |= {place, *begun}
        elif grade(tale, done, text) != IDLE:
            return None
    return done


def _open(tale: Tale, done: Collection[int]) -> Iterator[int]:
    """The steps that can be made next: what one begins with need not be said."""
    for place, step in enumerate(tale.steps):
        needed = [use for use in step.uses if tale.steps[use].kind != "start"]
        last = step.kind == "answer"
        if last and any(other not in done and tale.steps[other].kind != "start" for other in range(place)):
            continue
        if place not in done and all(use in done for use in needed):
            yield place


def _told(tale: Tale, text: str) -> bool:
    """Whether it is a sentence of the question."""
    said = re.sub(r"^the (?:story|question|problem) says:? ", "", text.strip().lower())
    return said.rstrip(".") in {each.strip().lower() for each in re.split(r"[.?]", tale.question)} - {""}


def agrees(tale: Tale, step: Step, text: str) -> bool:
    """Whether a text says this step."""
    body = _without_remarks(step, text.strip())
    if body is None:
        return False
    read = False
    for wording in (each for style in WORDINGS.values() for each in style[step.kind]):
        pattern, fields = _pattern(wording)
        if match := pattern.fullmatch(body):
            read = True
            if all(_fits(tale, step, field, value) for field, value in zip(fields, match.groups(), strict=True)):
                return True
    return not read and _agrees_word_by_word(tale, step, body)


def _without_remarks(step: Step, text: str) -> str | None:
    """The text without remarks; None if a result is checked wrongly."""
    for remark in REMARKS:
        text = text.removeprefix(remark)
    for sentence in _sentences(text, checks=True):
        for left, value, rest in _EQUATION.findall(_plain(sentence)):
            numbers = {*re.findall(r"\d+", left), value}
            if rest or _evaluate(left) != int(value) or numbers != {str(step.left), str(step.right), str(step.value)}:
                return None
    return " ".join(_sentences(text, checks=False))


def _sentences(text: str, *, checks: bool) -> list[str]:
    """The sentences that check a result, or the others."""
    every = re.split(r"(?<=[.!])\s+", text)
    return [each for each in every if checks == bool(re.search(r"\bcheck", each, re.IGNORECASE))]


def _fits(tale: Tale, step: Step, field: str, value: str) -> bool:
    """Whether one field of a wording is what the step says."""
    match field:
        case "a" | "b" | "value":
            fits = int(value) == {"a": step.left, "b": step.right, "value": step.value}[field]
        case "sum":
            fits = _right_sum(step, value)
        case "verb":
            fits = value == step.verb or value in (_UP if step.kind == "gain" else _DOWN)
        case "tail":
            fits = True
        case "one":
            fits = value == words.singular(step.holder)
        case "who":
            fits = _lower(value) == step.who or (value.lower() in {"she", "he", "they"} and len(tale.people) == 1)
        case _:
            meant = {"thing": step.thing, "holder": step.holder, "other": step.other}[field]
            fits = meant != "" and _lower(value) in {meant, words.singular(meant)}
    return fits


def _lower(name: str) -> str:
    """Names as they stand inside a sentence."""
    return re.sub(r"\b(?:The|My) ", lambda first: first[0].lower(), name)


def _right_sum(step: Step, text: str) -> bool:
    """Whether a sum is the step's, and all that is written out of it is right."""
    match = _SUM.fullmatch(text)
    if not match or not _same(step, (match[1], match[2], match[3])) or int(match[4] or match[6]) != step.value:
        return False
    inner = match[5].split(", ") if match[5] else []
    bare = [_COLUMN.sub("", each) for each in inner]
    names = [each.split(" ")[0] for each in inner if _COLUMN.match(each)]
    whole = arithmetic.equations(int(match[1]), match[2], int(match[3]))
    return bare in ([], whole) and names in ([], list(arithmetic.COLUMNS[: len(inner)]))


def _same(step: Step, written: Sequence[str]) -> bool:
    """Whether an expression is the step's; sums and products may be turned round."""
    if len(written) != 3:
        return False
    left, operation, right = int(written[0]), written[1], int(written[2])
    turned = operation in "+x" and (right, left) == (step.left, step.right)
    return operation == step.operation and ((left, right) == (step.left, step.right) or turned)


def _evaluate(expression: str) -> int | None:
    """The value of an expression as it stands in a column: from the left, times before plus."""
    value: int | None = None
    parts = re.split(r"([-+])", expression)
    for sign, part in zip(["+", *parts[1::2]], parts[::2], strict=True):
        factors = re.split(r"([x/])", part)
        product = int(factors[0])
        for operation, factor in zip(factors[1::2], factors[2::2], strict=True):
            try:
                product = compute(product, operation, int(factor))
            except ValueError:
                return None
        value = (value or 0) + (product if sign == "+" else -product)
    return value


def _plain(text: str) -> str:
    """A text with its arithmetic in one notation."""
    for other, sign in _SIGNS:
        text = text.replace(other, sign)
    text = _NUMBER_WORD.sub(lambda match: str(words.NUMBER_WORDS.index(match[1].lower())), text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"[€$£](?=\d)", "", text)
    for spoken, sign in _SPOKEN:
        text = re.sub(rf"(?<=\d) (?:{spoken}) (?=\d)", sign, text)
    text = re.sub(r"(?<=\d) ?([-+x/]) ?(?=\d)", r"\1", text)
    return re.sub(rf"(?<=\d)([-+x/])(\d+)(?: ?= ?| {_EQUALS} )(?=\d)", r"\1\2=", text)


def _agrees_word_by_word(tale: Tale, step: Step, body: str) -> bool:
    """Whether a text in words of its own says the step: its numbers, names, nouns, direction and result."""
    said = _plain(body)
    closes = re.search(r"\banswer\b", said, re.IGNORECASE) is not None
    return (
        closes == (step.kind == "answer")
        and _right_arithmetic(step, said)
        and _right_names(tale, step, said)
        and _right_nouns(tale, step, said)
        and _right_amounts(step, said)
    )


def _right_arithmetic(step: Step, said: str) -> bool:
    said = _COLUMN.sub("", said)
    equations = [(left, value) for left, value, _ in _EQUATION.findall(said)]
    written = [f"{left}={value}" for left, value in equations]
    whole = {f"{a}{step.operation}{b}={step.value}" for a, b in ((step.left, step.right), (step.right, step.left))}
    heads = _EXPRESSION.findall(said)
    if not step.operation:
        return not heads and not written and _states(step, said)
    main = [each for each in written if each in whole and _same(step, _parts(each))]
    inner = [each for each in written if each not in main]
    canonical = arithmetic.equations(step.left, step.operation, step.right)
    turned = arithmetic.equations(step.right, step.operation, step.left) if step.operation in "+x" else canonical
    bare = [re.sub(r" rest \d+", "", each) for each in canonical]
    bare_turned = [re.sub(r" rest \d+", "", each) for each in turned]
    if not all(_same(step, head) for head in heads) or inner not in ([], bare, bare_turned):
        return False
    numbers = re.findall(r"\d+", said)
    if heads or main:
        return int(numbers[-1]) == step.value
    return not inner and _states(step, said)


def _parts(equation: str) -> Sequence[str]:
    return re.split(r"([-+x/])", equation.partition("=")[0])


_BEFORE_RESULT = (
    r"(?:\b(?:has|have|had|are|is|makes?|gives?|leaves?|gets?|with|costs?|so|total|of|at|to|pays?|holds?|needs?|"
    r"starts?)|:)"
)
_BEGINS = re.compile(r"\b(?:starts?|started|begins?|began|beginning|first)\b", re.IGNORECASE)


def _states(step: Step, said: str) -> bool:
    """Whether the result is stated as what there is, without any arithmetic."""
    if step.kind != "start" and _BEGINS.search(said):
        return False
    stated = rf"{_BEFORE_RESULT}(?: (?:now|then|only|just|a total of|in all))?:? {step.value}\b"
    return re.search(stated, said) is not None


_VERB = rf"(?:has|had|have|is|was|starts|{'|'.join(sorted(_UP | _DOWN))})"
_INNER_NAME = re.compile(rf"(?<![.:!] )(?<!^)\b([A-Z][a-z]+)\b|^([A-Z][a-z]+)(?='s| {_VERB}\b)")
_LEADER = re.compile(r"(\w+) (?:has|had|owns?|gets?|is|leads)\b[^.;,:]*\b(?:more|fewer|less|times|half|ahead|leads)\b")
_LED = re.compile(r"\b(?:more|fewer|less|many|much|ahead)(?: \w+){0,3} (?:than|as|of) (\w+)")


def _right_names(tale: Tale, step: Step, said: str) -> bool:
    """Whether only those are named whom the step speaks of, in their own parts."""
    allowed = {step.who, step.other} if step.who else {*tale.people[:1], step.other}
    found = {name for name in tale.people if re.search(rf"\b{re.escape(name)}\b", _lower(said))}
    if found - allowed or (step.who and step.other in tale.people and found == {step.other} and step.kind != "total"):
        return False
    if step.who and step.other in tale.people and step.kind != "total":
        parts = [(name, step.who) for name in _LEADER.findall(said)] + [
            (name, step.other) for name in _LED.findall(said)
        ]
        if any(name in tale.people and name != wanted for name, wanted in parts):
            return False
    unknown = {first or second for first, second in _INNER_NAME.findall(said)} - set(tale.people)
    return all(word.lower() in _NO_NAMES for word in unknown)


def _right_nouns(tale: Tale, step: Step, said: str) -> bool:
    """Whether only those things are counted that the step speaks of, and the result is of the right ones."""
    full = {noun for noun in (step.thing, step.other, step.holder) if noun}
    full |= {words.singular(noun) for noun in full} | {noun.split(" ")[-1] for noun in full}
    if any(thing not in full and re.search(rf"\b{re.escape(thing)}\b", said) for thing in tale.things):
        return False
    for phrase in re.findall(r"(?:=|(?<![-+x/=\d]))\d+ (?=([^\W\d_][^.,;:]*))", said):
        first = phrase.split(" ")[0]
        named = any(phrase == noun or phrase.startswith(f"{noun} ") for noun in full)
        if not (named or first.lower() in _AFTER_NUMBER or first in tale.people):
            return False
    last = re.search(r"(\d+) ([^\W\d_][\w -]*)\W*$", said)
    things = {step.thing, words.singular(step.thing), step.thing.split(" ")[-1]} - {""}
    holders = full - things - {step.other}
    return not (last and int(last[1]) == step.value and last[2].split(" ")[0] in holders)


def _right_amounts(step: Step, said: str) -> bool:
    """Whether every number outside the arithmetic is one of the step's, and has its own part in what is said."""
    loose = _EQUATION.sub(lambda match: f" {match[2]} " if int(match[2]) == step.value else " ", said)
    loose = _EXPRESSION.sub(" ", loose)
    if not {int(n) for n in re.findall(r"\d+", loose)} <= {step.left, step.right, step.value}:
        return False
    return (_right_changes(step, loose) if step.kind in {"gain", "lose"} else True) and _right_measures(step, loose)


def _right_changes(step: Step, loose: str) -> bool:
    """Whether what is gained or lost is the right number, and goes the right way."""
    against = _DOWN if step.kind == "gain" else _UP
    if any(word in against - _VAGUE and word not in _UP & _DOWN for word in re.findall(r"[a-z]+", loose)):
        return False
    for word, number in re.findall(r"([a-z]+) (?:another |only |a further )?(\d+)\b", loose):
        moved = word in _UP | _DOWN
        if moved and int(number) not in ({step.right, step.value} if word in _MAKES else {step.right}):
            return False
        if moved and int(number) == step.right and word in against and word not in _UP & _DOWN:
            return False
    return True


def _right_measures(step: Step, loose: str) -> bool:
    """Whether so many more, fewer, each, and times are the step's."""
    for number, word in re.findall(r"(\d+) (more|fewer|less|below|above|each|times)\b", loose):
        if word == "each":
            wanted = {"share": {step.left, step.value}, "portions": {step.right}, "rate": {step.left, step.right}}
            right = int(number) in wanted.get(step.kind, {step.right})
        elif word == "times":
            right = int(number) == step.left
        else:
            fewer = word in {"fewer", "less", "below"}
            right = step.kind == "apart" or (int(number) == step.right and fewer == (step.operation == "-"))
        if not right:
            return False
    return True
