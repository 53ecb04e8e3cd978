"""A tale while it is being invented: who has how much of what, the lines of the question, and the steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, ClassVar

from specreason_sgl.embedded.tales import words
from specreason_sgl.embedded.tales.facts import Kind, Step, Tale, compute
from specreason_sgl.embedded.tales.words import Person, Split, Verb

MOST = 9999
"""The largest result."""
LARGEST = 999
"""The largest number in a question."""
HELD = "~"
"""Marks a template that is held out for testing."""
HELD_SHARE = 0.5
"""How often one of them is taken where it may be."""


@dataclass(frozen=True)
class Line:
    """One sentence of the question, before its subject is a name or a pronoun."""

    template: str
    fields: Mapping[str, Any]
    who: Person | None = None
    others: bool = False
    """Whether somebody else is named in it, so that no pronoun is clear behind it."""


class _Forms:
    """Small verbs in the form that fits the subject: ``{v[start]}``."""

    _PAST: ClassVar = {
        "have": "had", "do": "did", "hold": "held", "own": "owned", "keep": "kept", "be": "was", "put": "put",
        "give": "gave", "get": "got", "pay": "paid", "cost": "cost", "buy": "bought", "sell": "sold",
        "split": "split", "spend": "spent", "go": "went", "find": "found", "carry": "carried",
        "begin": "began", "take": "took", "sleep": "slept", "make": "made", "win": "won", "read": "read",
        "come": "came", "leave": "left", "bring": "brought", "run": "ran", "see": "saw", "need": "needed",
        "eat": "ate", "steal": "stole", "blow": "blew", "break": "broke",
    }  # fmt: skip
    _THIRD: ClassVar = {"have": "has", "do": "does", "be": "is", "go": "goes", "carry": "carries"}

    def __init__(self, tense: str, plural: bool) -> None:
        self._tense, self._plural = tense, plural

    def __getitem__(self, base: str) -> str:
        if self._tense == "past":
            plural_be = base == "be" and self._plural
            return "were" if plural_be else self._PAST.get(base) or base + ("d" if base.endswith("e") else "ed")
        if self._plural:
            return "are" if base == "be" else base
        return self._THIRD.get(base) or base + ("es" if base.endswith(("s", "sh", "ch")) else "s")


@dataclass
class Plot:
    """What is known so far."""

    rng: Random
    split: Split
    tense: str = "present"
    scale: int = 99
    """The largest number to begin with."""
    american: bool = False
    people: list[Person] = field(default_factory=list)
    things: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    count: int = 0
    """What the main person has now."""
    at: int = -1
    """The step that says so; -1 before there is one."""

    def __post_init__(self) -> None:
        """Choose what holds for the whole tale."""
        self.tense = self.rng.choice(("present", "past"))
        self.scale = self.rng.choice((20, 60, 99, 99, 300, 999))
        self.american = self.rng.random() < 0.5
        self.sign = ""
        self.written = words.plain(self.rng)
        self.meet()
        self.count_thing()

    @property
    def main(self) -> Person:
        """The person whom it is about."""
        return self.people[0]

    @property
    def thing(self) -> str:
        """The thing that it is about."""
        return self.things[0]

    def meet(self) -> Person:
        """Somebody new."""
        self.people.append(words.person(self.rng, self.split, [one.name for one in self.people]))
        return self.people[-1]

    def count_thing(self) -> str:
        """Something new that is counted."""
        self.things.append(words.thing(self.rng, self.split, self.things))
        return self.things[-1]

    def whole(self) -> str:
        """Something else that is counted, or those who come and go."""
        if self.rng.random() < 0.5:
            return self.count_thing()
        while (one := words.creatures(self.rng, self.split)) in self.thing.split(" "):
            pass
        self.things.append(one)
        return one

    def holder(self) -> str:
        """What holds things, and is none of them."""
        return self.rng.choice([one for one in words.HOLDERS if not any(one in thing for thing in self.things)])

    def forms(self, base: str, *, plural: bool = False) -> str:
        """A small verb in this tale's tense."""
        return _Forms(self.tense, plural)[base]

    def pick(self, templates: Sequence[str]) -> str:
        """A template; one that is held out only outside training."""
        held = [one for one in templates if one.startswith(HELD)]
        usual = [one for one in templates if not one.startswith(HELD)]
        if self.split == "train" or not held or (usual and self.rng.random() >= HELD_SHARE):
            return self.rng.choice(usual)
        return self.rng.choice(held).removeprefix(HELD)

    def say(self, templates: Sequence[str], who: Person | None = None, *, others: bool = False, **fields: Any) -> None:
        """Add a sentence; numbers among the fields are written as this tale writes them."""
        self.lines.append(Line(self.pick(templates), fields, who, others))

    def step(self, kind: Kind, left: int, operation: str, right: int, uses: Sequence[int] = (), **said: str) -> int:
        """Add a step and return its result; who and what are the main ones unless it is said."""
        said = {"who": self.people[0].name if self.people else "", "thing": self.thing if self.things else "", **said}
        value = compute(left, operation, right)
        known = tuple(sorted({at for at in uses if at >= 0}))
        self.steps.append(Step(kind, value, left, operation, right, uses=known, **said))
        return value

    def start(self, count: int) -> None:
        """What the main person has to begin with."""
        self.steps.append(Step("start", count, who=self.main.name, thing=self.thing))
        self.now(count)

    def now(self, count: int) -> None:
        """The last step says what the main person has."""
        self.count, self.at = count, len(self.steps) - 1

    def change(self, up: bool, by: int, verb: Verb, made_by: Sequence[int] = ()) -> None:
        """The main person gains or loses."""
        said = {"verb": verb.third, "tail": self.spelled(verb.tail)}
        self.now(self.step("gain" if up else "lose", self.count, "+" if up else "-", by, (self.at, *made_by), **said))

    def upto(self, most: int, least: int = 2) -> int:
        """A number of this tale's scale, small ones more often."""
        most = max(least, min(most, self.scale))
        return (
            min(self.rng.randint(least, most), self.rng.randint(least, most))
            if self.rng.random() < 0.5
            else (self.rng.randint(least, most))
        )

    def direction(self, most: int = LARGEST) -> bool | None:
        """Whether a change goes up; None if there is room for none."""
        up, down = self.count < most - 2, self.count >= 2
        if not (up or down):
            return None
        return self.rng.random() < 0.5 if up and down else up

    def close(self, form: str, answer: int, *, who: str = "", thing: str = "", at: int | None = None) -> Tale:
        """The last step, and the question put together."""
        self.steps.append(
            Step("answer", answer, who=who, thing=thing, uses=(len(self.steps) - 1 if at is None else at,))
        )
        named = tuple(one.name for one in self.people)
        return Tale(form, self.text(), _needed(self.steps), answer, named, tuple(self.things), self.split)

    def text(self) -> str:
        """The question: subjects become names or pronouns where those are clear."""
        told: list[str] = []
        before: Line | None = None
        for line in self.lines:
            named = before.who if before and "{who" in before.template and not before.others else None
            clear = named is not None and named is line.who
            first = before is None and line.template.count("{who") == 1 and self.rng.random() < 0.5
            shown = replace(line, who=line.who.unfamiliar) if first and line.who and line.who.has_role else line
            told.append(self._sentence(shown, pronoun=clear and self.rng.random() < 0.5))
            before = line
        return " ".join(told)

    def spelled(self, text: str) -> str:
        """British or American, as this tale is written."""
        if self.american:
            for british, american in words.AMERICAN.items():
                text = text.replace(british, american)
        return text

    def _sentence(self, line: Line, *, pronoun: bool) -> str:
        fields: dict[str, Any] = {}
        for name, value in line.fields.items():
            fields[name] = self.written(value) if isinstance(value, int) else value
        if "one" in fields:
            fields["a_one"] = words.article(fields["one"])
        plural = False
        if line.who:
            plural = pronoun and line.who.pronoun == "they"
            fields["who"] = line.who.pronoun if pronoun else line.who.name
            fields["their"] = line.who.owning
            fields["them"] = line.who.pronoun
            fields["whose"] = line.who.owning if pronoun else f"{line.who.name}'s"
            fields["whom"] = line.who.object if pronoun else line.who.name
        for name, value in line.fields.items():
            if isinstance(value, Verb):
                fields[name] = value.form(self.tense, plural)
                fields[f"{name}_tail"] = f" {self.spelled(value.tail)}" if value.tail else ""
            if isinstance(value, int) and name.startswith("n"):
                for noun in [key for key in line.fields if key in {"thing", "holder", "unit", "idle"}]:
                    of = str(line.fields[noun])
                    counted = f"{fields[name]} {words.singular(of) if value == 1 else of}"
                    fields[f"{name}_{noun}"] = f"{self.sign}{value}" if self.sign and noun == "thing" else counted
        forms = {
            "v": _Forms(self.tense, plural),
            "v3": _Forms(self.tense, plural=False),
            "p": _Forms("past", plural),
            "w": _Forms("present", plural),
            "vp": _Forms(self.tense, plural=True),
        }
        text = self.spelled(line.template).format_map({**fields, **forms})
        return re.sub(r"(?:^|(?<=[.?] ))\w", lambda first: first[0].upper(), text)


def _needed(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps that the last one needs, in order, and their uses renumbered."""
    wanted = {len(steps) - 1}
    for place in reversed(range(len(steps))):
        if place in wanted:
            wanted.update(steps[place].uses)
    order = {old: new for new, old in enumerate(sorted(wanted))}
    return tuple(replace(steps[old], uses=tuple(order[use] for use in steps[old].uses)) for old in order)
