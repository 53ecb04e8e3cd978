"""The forms of problems: one function each, over tables of sentences.

A sentence that begins with a tilde is held out for testing. In the sentences ``{v[have]}`` is a verb in the tale's
tense, ``{p[have]}`` one in the past, ``{w[have]}`` one in the present, ``{v3[have]}`` and ``{vp[have]}`` one in
the tale's tense for a single subject and for several; ``{n_thing}`` is a number with what it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from specreason_sgl.embedded.tales import words
from specreason_sgl.embedded.tales.facts import Kind, Tale, compute
from specreason_sgl.embedded.tales.plot import LARGEST, Line, Plot
from specreason_sgl.embedded.tales.words import Person, Verb

START = (
    "{who} {v[have]} {n_thing}.",
    "{who} {v[start]} with {n_thing}.",
    "At first {who} {v[have]} {n_thing}.",
    "{who} {v[have]} {n_thing} in a box.",
    "There {b} {n_thing} in {whose} room.",
    "{who} {v[own]} {n_thing}.",
    "~In the beginning, {who} {v[have]} {n_thing}.",
    "~{who} {v[hold]} {n_thing}.",
    "{n_thing} belong to {whom}.",
    "{who} {v[have]} {n_thing} at home.",
    "{who} {v[have]} a collection of {n_thing}.",
    "Once {who} {p[have]} {n_thing}.",
    "{who} {v[hold]} {n_thing} in a bag.",
    "In the morning {who} {v[have]} {n_thing}.",
    "There {b} {n_thing} in {whose} bag.",
    "{who} {v[keep]} {n_thing} in a drawer.",
    "~{who} {v[keep]} {n_thing} at home.",
    "{who} {v[begin]} with {n_thing}.",
    "In the beginning there {b} {n_thing} at {whose} house.",
    "~{who} {v[begin]} the day with {n_thing}.",
)
LATE_START = (
    "Before all this, {who} {p[have]} {n_thing}.",
    "{who} {p[have]} {n_thing} at the beginning.",
    "{who} {p[start]} with {n_thing}.",
    "~Earlier, {who} {p[have]} {n_thing}.",
    "At first {who} {p[have]} {n_thing}.",
    "In the beginning {who} {p[have]} {n_thing}.",
    "Earlier there were {n_thing} in {whose} box.",
    "Before that, {who} {p[own]} {n_thing}.",
)
FIRST_GAIN = (
    "{who} {verb} {n_thing}{verb_tail}.",
    "{who} {verb} {n_thing}{verb_tail} {place}.",
    "On {day} {who} {verb} {n_thing}{verb_tail}.",
    "In the morning {who} {verb} {n_thing}{verb_tail}.",
    "First {who} {verb} {n_thing}{verb_tail}.",
    "~At first {who} {verb} {n_thing}{verb_tail} {place}.",
)
OUTSIDE = (
    "in the forest", "in a shop", "at the market", "on the beach", "by the river", "at school", "at home",
    "in the yard", "on a walk", "in town", "in the attic", "from the garden",
)  # fmt: skip
CHANGE = (
    "{who} {verb} {n_thing}{verb_tail}.",
    "{who} {verb}{verb_tail} {n_thing}.",
    "Then {who} {verb}{verb_tail} {n} of the {thing}.",
    "Later {who} {verb}{verb_tail} {n}{more} {thing}.",
    "Before noon {who} {verb} {n}{more} {thing}{verb_tail}.",
    "{who} {verb} {n} of them{verb_tail}.",
    "{who} {verb} {n}{more} {thing}{verb_tail}.",
    "Then {who} {verb} {n}{verb_tail}.",
    "Then {who} {verb} {n_thing}{verb_tail}.",
    "Later {who} {verb} {n} of them{verb_tail}.",
    "After that, {who} {verb} {n}{more} {thing}{verb_tail}.",
    "On {day}, {who} {verb} {n_thing}{verb_tail}.",
    "~The next day {who} {verb} {n_thing}{verb_tail}.",
    "~Soon {who} also {verb} {n_thing}{verb_tail}.",
    "The next day {who} {verb} {n}{more} {thing}{verb_tail}.",
    "Soon {who} {verb} {n_thing}{verb_tail}.",
    "{who} also {verb} {n_thing}{verb_tail}.",
    "Then {who} {verb} another {n_thing}{verb_tail}.",
    "In the evening {who} {verb} {n_thing}{verb_tail}.",
    "Next, {who} {verb} {n_thing}{verb_tail}.",
    "Yesterday {who} {verb} {n_thing}{verb_tail}.",
    "{who} {verb} {n} of the {thing}{verb_tail}.",
    "{who} {verb} {n} new ones{verb_tail}.",
    "A week later {who} {verb} {n_thing}{verb_tail}.",
    "At school {who} {verb} {n_thing}{verb_tail}.",
    "~In the end {who} {verb} {n_thing}{verb_tail}.",
    "~At home {who} {verb} {n}{more} {thing}{verb_tail}.",
)
CHANGES = (
    "{who} {verb} {n_thing}{verb_tail} and then {second} {n2}{second_tail}.",
    "{who} {verb} {n_thing}{verb_tail} and {second} {n2}{second_tail}.",
    "{who} first {verb} {n}{verb_tail}, then {second} {n2}{second_tail}.",
    "~After {who} {verb} {n_thing}{verb_tail}, {them} {second} {n2}{second_tail}.",
    "{who} {verb} {n_thing}{verb_tail}, then {second} {n2}{second_tail}.",
    "{who} {verb} {n_thing}{verb_tail} but {second} {n2}{second_tail}.",
    "On {day} {who} {verb} {n_thing}{verb_tail} and {second} {n2}{second_tail}.",
    "Later {who} {verb} {n_thing}{verb_tail} and {second} {n2} of them{second_tail}.",
    "{who} {verb} {n_thing}{verb_tail}, and {them} {second} {n2}{second_tail}.",
    "Before lunch {who} {verb} {n} of the {thing}{verb_tail}, then {them} {second} {n2}{second_tail}.",
    "{who} {verb} {n} of them{verb_tail} and {second} {n2}{second_tail}.",
    "{who} {verb} {n} new ones{verb_tail} and {second} {n2}{second_tail}.",
    "{who} {verb} {n} of the {thing}{verb_tail} and {second} {n2} of them{second_tail}.",
)
FROM_OTHER = (
    "{other} {third} {whom} {n_thing}.",
    "{who} {v[get]} {n_thing} from {other}.",
    "~{who} {v[receive]} {n_thing} from {other}.",
    "{other} {third} {n_thing} to {whom}.",
    "{who} {v[receive]} {n_thing} from {other}.",
    "From {other}, {who} {v[get]} {n_thing}.",
    "{other} {v3[bring]} {whom} {n} more {thing}.",
    "{other} {v3[buy]} {n_thing} for {whom}.",
    "{who} {v[get]} {n} more {thing} from {other}.",
    "{other} {v3[put]} {n_thing} into {whose} bag.",
)
TO_OTHER = (
    "{who} {v[give]} {n_thing} to {other}.",
    "{who} {v[give]} {other} {n_thing}.",
    "~{who} {v[hand]} {n_thing} to {other}.",
    "{who} {v[hand]} {n_thing} over to {other}.",
    "{who} {v[sell]} {n_thing} to {other}.",
    "{other} gets {n_thing} from {whom}.",
    "{who} {v[give]} {n} of the {thing} to {other}.",
    "{who} {v[give]} {n} of them to {other}.",
    "{other} {v3[take]} {n} of {whose} {thing}.",
    "{other} {v3[take]} {n_thing} away from {whom}.",
    "{other} {v3[eat]} {n} of {whose} {thing}.",
)
TAKEN_FROM = (
    "A thief {v3[steal]} {n_thing} from {whom}.",
    "A dog {v3[eat]} {n} of the {thing}.",
    "A fox {v3[take]} {n} of the {thing}.",
    "Then a friend {v3[take]} {n} of them.",
    "The wind {v3[blow]} {n} of them away.",
    "A child {v3[break]} {n_thing}.",
    "~A child {v3[take]} {n} of {whose} {thing}.",
)
HOW_MANY = (
    "How many {thing} {w[do]} {who} have now?",
    "How many {thing} {w[do]} {who} have in the end?",
    "How many {thing} {w[do]} {who} have?",
    "How many {w[do]} {who} have now?",
    "How many {thing} {w[have]} {who} got now?",
    "~How many {thing} {w[be]} {who} left with now?",
    "~Find the number of {thing} that {who} {w[have]} now.",
    "How many {thing} are there now?",
    "How many {thing} are there in the end?",
    "How many {thing} {w[do]} {who} own now?",
    "What is the number of {thing} that {who} {w[have]} now?",
    "How many {thing} {w[do]} {who} have after that?",
    "Find out how many {thing} {who} {w[have]} now.",
    "How many {thing} {w[do]} {who} have at the end?",
    "How many {thing} {w[do]} {who} have altogether now?",
    "How many {thing} is {who} left with?",
    "How many {w[do]} {who} have in total?",
)
HOW_MANY_LEFT = (
    "How many {thing} are left?",
    "How many {thing} {w[do]} {who} have left?",
    "How many are left?",
    "~How many {thing} remain?",
    "How many {thing} remain?",
    "How many {thing} {w[do]} {who} still have?",
    "How many of the {thing} are left?",
    "How many {thing} are still there?",
    "How many {w[do]} {who} have left?",
    "~How many {thing} are still left?",
    "How many {thing} remain in the end?",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

GIVE, GET = Verb("give", "gives", "gave", "away"), Verb("get", "gets", "got")
LOSE = Verb("lose", "loses", "lost")


PARTICLES = ("away", "out", "up", "off", "down", "back", "aside", "on", "over", "home", "behind")
"""What may stand before the number as well as behind it."""


def fitting(templates: Sequence[str], verb: Verb, n: int) -> list[str]:
    """The templates that a verb can be told with, when so many are gained or lost."""
    movable = not verb.tail or verb.tail in PARTICLES
    gains_some = n > 1 and verb in words.GAINS
    return [
        one
        for one in templates
        if (movable or "{verb}{verb_tail} {n" not in one) and (gains_some or " new ones" not in one)
    ]


def few(plot: Plot, most: int, least: int = 0) -> int:
    """How many changes follow: few most often."""
    return min(plot.rng.randint(least, most), plot.rng.randint(least, most))


def one_change(plot: Plot) -> None:
    """A plain gain or loss, or something given to or by somebody else."""
    up = plot.direction()
    if up is None:
        return
    n = plot.upto(LARGEST if up else plot.count, 1)
    verb = plot.rng.choice(words.GAINS if up else words.LOSSES)
    clear = plot.lines and not {"holder", "unit"} & set(plot.lines[-1].fields)
    if not up and plot.rng.random() < 0.05:
        verb = LOSE
        templates = [one for one in TAKEN_FROM if clear or "thing}" in one]
        plot.say(templates, plot.main, others=True, n=n, thing=plot.thing)
    elif plot.rng.random() < 0.2:
        verb = GET if up else GIVE
        third = GIVE.form(plot.tense, plural=False)
        relative = plot.rng.random() < 0.5
        other = f"{plot.main.owning} {plot.rng.choice(words.RELATIVES)}" if relative else plot.meet().name
        templates = [one for one in (FROM_OTHER if up else TO_OTHER) if clear or "thing}" in one]
        plot.say(templates, plot.main, others=True, n=n, thing=plot.thing, other=other, third=third)
    else:
        more = plot.rng.choice((" more", " other", "")) if up else ""
        templates = [one for one in fitting(CHANGE, verb, n) if clear or "thing}" in one]
        plot.say(templates, plot.main, n=n, thing=plot.thing, verb=verb, more=more, day=plot.rng.choice(DAYS))
    plot.change(up, n, verb)


def two_changes(plot: Plot) -> None:
    """Two changes in one sentence."""
    done = []
    for _ in range(2):
        up = plot.direction()
        if up is None:
            return
        n = plot.upto(LARGEST if up else plot.count, 1)
        verb = plot.rng.choice(words.GAINS if up else words.LOSSES)
        plot.change(up, n, verb)
        done.append((n, verb))
    (n, verb), (n2, second) = done
    plot.say(fitting(CHANGES, verb, n), plot.main, n=n, thing=plot.thing, verb=verb, n2=n2, second=second,
             day=plot.rng.choice(DAYS))  # fmt: skip


def plain_changes(plot: Plot, count: int) -> None:
    """So many changes, some of them two in a sentence."""
    while count > 0:
        two = count > 1 and plot.rng.random() < 0.25 and 4 <= plot.count <= LARGEST - 4
        (two_changes if two else one_change)(plot)
        count -= 2 if two else 1


def begin(plot: Plot, count: int) -> Line | None:
    """What the main person has to begin with; the sentence itself where it is told later."""
    plot.start(count)
    if count > 1 and plot.rng.random() < 0.15:
        plot.say(FIRST_GAIN, plot.main, n=count, thing=plot.thing, verb=plot.rng.choice(words.GAINS),
                 day=plot.rng.choice(DAYS), place=plot.rng.choice(OUTSIDE))  # fmt: skip
        return None
    late = plot.rng.random() < 0.15
    fields: dict[str, Any] = {"n": count, "thing": plot.thing, "b": "is" if count == 1 else "are"}
    line = Line(plot.pick(LATE_START if late else START), fields, plot.main)
    if late:
        return line
    plot.lines.append(line)
    return None


def start_now(plot: Plot, count: int) -> None:
    """What the main person has to begin with, told at once."""
    plot.start(count)
    plot.say(START, plot.main, n=count, thing=plot.thing, b="is" if count == 1 else "are")


def ask(plot: Plot, form: str, late: Line | None = None) -> Tale:
    """How many there are now."""
    if late:
        plot.lines.insert(plot.rng.randint(1, len(plot.lines)) if plot.lines else 0, late)
    distract(plot)
    changed = any(step.kind in {"gain", "lose"} for step in plot.steps)
    lost = plot.steps[-1].kind == "lose" and plot.rng.random() < 0.6
    plot.say(HOW_MANY_LEFT if lost else HOW_MANY if changed else ALL_TOGETHER, plot.main, thing=plot.thing)
    return plot.close(form, plot.count, who=plot.main.name, thing=plot.thing)


DISTRACTORS = (
    "{who} {w[be]} {n} years old.",
    "The table has {n} {idle} on it.",
    "A bag of {idle} costs {n} {money}.",
    "It is {n} degrees outside.",
    "{other} has {n} {idle}.",
    "There are {n} children at {whose} school.",
    "{whose} favourite number is {n}.",
    "{who} {w[have]} {n} {idle} too.",
    "{who} {w[live]} at number {n} of a long road.",
    "~A friend named {other} has {n} {idle}.",
    "~The shop is {n} metres away.",
    "{who} {w[have]} a friend who is {n} years old.",
    "The shop is {n} kilometres away.",
    "A friend has {n} {idle}.",
    "There are {n} {idle} on the table.",
    "{other} has {n} {idle} at home.",
    "{idle} cost {n} {money} each.",
    "It is {n} minutes past ten.",
    "{who} {w[read]} a book of {n} pages.",
    "The house of {other} is {n} years old.",
    "{who} {w[live]} {n} metres from the shop.",
    "{other} is {n} years old.",
    "A friend named {other} is {n} years old.",
)


def distract(plot: Plot, share: float = 0.3, *, about_main: bool = True) -> None:
    """Sometimes a sentence with a number that does not matter, anywhere before the question."""
    if plot.rng.random() >= share:
        return
    template = plot.pick([one for one in DISTRACTORS if about_main or "{who" not in one])
    fields: dict[str, Any] = {
        "n": plot.rng.randint(2, 60),
        "idle": plot.count_thing(),
        "money": plot.rng.choice(words.CURRENCIES)[0],
    }
    if "{other}" in template:
        fields["other"] = plot.meet().name
    who = plot.main if "{who" in template else None
    line = Line(template, fields, who, others="other" in fields)
    places = [at for at, after in enumerate(plot.lines) if "thing}" in after.template]
    plot.lines.insert(plot.rng.choice([*places, len(plot.lines)]), line)


IN_ONE = (
    "{who} {v[have]} {n_thing}, {verb} {n2}{verb_tail} and {second} {n3}{second_tail}.",
    "{who} {v[start]} with {n_thing}, {verb} {n2}{verb_tail}, and {second} {n3}{second_tail}.",
    "~From {n_thing}, {who} {verb} {n2}{verb_tail} and {second} {n3}{second_tail}.",
    "{who} {v[have]} {n_thing}, then {verb} {n2}{verb_tail} and {second} {n3}{second_tail}.",
)
IF_THEN = (
    "If {who} {w[have]} {n_thing} and {verb} {n2}{more}{verb_tail}, how many {thing} {w[do]} {who} have then?",
    "{who} {w[have]} {n_thing} and {verb} {n2}{more}{verb_tail}. How many {thing} {w[do]} {who} have now?",
    "How many {thing} {w[do]} {who} have after {who} {verb} {n2} of {n_thing}{verb_tail}?",
    "~Suppose {who} {w[have]} {n_thing} and {verb} {n2}{more}{verb_tail}. How many {thing} are there then?",
    "{who} {w[have]} {n_thing}. If {who} {verb} {n2}{more}{verb_tail}, how many are there?",
    "If {who} {verb} {n2}{more} {thing}{verb_tail} and {p[have]} {n_thing} before, how many {w[do]} {who} have then?",
    "Suppose {who} {w[have]} {n_thing} and then {verb} {n2}{more}{verb_tail}. How many {thing} are that?",
)


def change_at_once(plot: Plot) -> Tale:
    """The start and all changes in one sentence."""
    n = plot.upto(LARGEST, 4)
    plot.start(n)
    fields: dict[str, Any] = {"n": n, "thing": plot.thing}
    if plot.rng.random() < 0.5:
        plot.tense = "present"
        up = plot.rng.random() < 0.5
        n2, verb = plot.upto(LARGEST if up else n, 1), plot.rng.choice(words.GAINS if up else words.LOSSES)
        plot.change(up, n2, verb)
        templates = [one for one in IF_THEN if not up or "{n2} of" not in one]
        plot.say(templates, plot.main, n2=n2, verb=verb, more=" more" if up else "", **fields)
        return plot.close("changes", plot.count, who=plot.main.name, thing=plot.thing)
    done = []
    for _ in range(2):
        up = bool(plot.direction())
        by, verb = plot.upto(LARGEST if up else plot.count, 1), plot.rng.choice(words.GAINS if up else words.LOSSES)
        plot.change(up, by, verb)
        done.append((by, verb))
    (n2, verb), (n3, second) = done
    plot.say(IN_ONE, plot.main, n2=n2, verb=verb, n3=n3, second=second, **fields)
    return ask(plot, "changes")


PLACED = (
    "There {be} {n_thing} {spot}.",
    "{n_thing} {be} {spot}.",
    "At first there {be} {n_thing} {spot}.",
    "In the morning there {be} {n_thing} {spot}.",
    "~In the beginning there {be} {n_thing} {spot}.",
    "{owner} {noun} {v3[have]} {n_thing}.",
)
PUT_THERE = (
    "{other} {v3[put]} {n} more {thing} there.",
    "{other} {v3[bring]} {n} more {thing}.",
    "{other} {v3[add]} {n_thing}.",
    "Then {n_thing} {were} added.",
    "~Later {other} {v3[put]} {n_thing} there.",
    "{other} {v3[buy]} {n_thing} and {v3[put]} them there.",
)
TAKEN_AWAY = (
    "{other} {v3[take]} {n_thing} away.",
    "{other} {v3[take]} {n} of the {thing}.",
    "{other} {v3[remove]} {n_thing}.",
    "Then {n_thing} {were} taken away.",
    "~Later {n} of the {thing} {were} removed.",
    "{n} of the {thing} {were} removed.",
    "{n} of the {thing} {were} sold.",
)
COME = (
    "{n} more {thing} {vp[come]}.",
    "Then {n} more {thing} {vp[arrive]}.",
    "Another {n} {thing} {vp[come]}.",
    "~Later another {n} {thing} {vp[arrive]}.",
    "Later {n} more {thing} {vp[join]} them.",
    "{n} {thing} {vp[come]} in.",
)
LEAVE = (
    "{n} of the {thing} {vp[leave]}.",
    "{n} {thing} {vp[go]} away.",
    "Then {n} {thing} {vp[run]} away.",
    "~Later {n} of the {thing} {vp[go]} away.",
    "{n} of them {vp[leave]}.",
    "A while later {n} of the {thing} {vp[go]} home.",
)
LEAVE_AND_COME = (
    "{n} {vp[leave]} and {n2} {vp[come]}.",
    "{n} {thing} {vp[leave]}, and {n2} {vp[arrive]}.",
    "At the next stop {n} {vp[get]} off and {n2} {vp[get]} on.",
    "After an hour {n} of them {vp[leave]} and {n2} more {vp[come]}.",
    "~Later {n} of the {thing} {vp[leave]} and {n2} {vp[come]}.",
)
HOW_MANY_THERE = (
    "How many {thing} are {spot} now?",
    "How many {thing} are there {spot} now?",
    "How many {thing} are {spot} in the end?",
    "How many {thing} are {spot}?",
    "How many {thing} are there now?",
    "How many are {spot} after that?",
    "~What is the number of {thing} {spot} now?",
    "What is the number of {thing} {spot}?",
)
HOW_MANY_STILL_THERE = (
    "How many {thing} are left {spot}?",
    "How many {thing} remain {spot}?",
    "How many {thing} are still {spot}?",
    "~How many {thing} are still left {spot}?",
    "How many are left?",
)
GAIN = Verb("gain", "gains", "gained")


def change_somewhere(plot: Plot) -> Tale:
    """Things are put somewhere and taken away, or animals and people come and go."""
    before, noun = words.spot(plot.rng, plot.split)
    plot.people = [words.Person(f"the {noun}", "it")]
    alive = plot.rng.random() < 0.5
    if alive:
        plot.things = [words.creatures(plot.rng, plot.split)]
    named = "the" if plot.rng.random() < 0.7 else words.article(noun).split(" ")[0]
    where: dict[str, Any] = {"thing": plot.thing, "spot": f"{before} {named} {noun}"}
    n = plot.upto(LARGEST, 2)
    plot.start(n)
    owned = plot.rng.random() < 0.2
    owner = f"{plot.meet().name}'s" if owned else ""
    be = plot.forms("be", plural=True)
    templates = [one for one in PLACED if ("{owner}" in one) == owned]
    plot.say(templates, n=n, be=be, owner=owner, noun=noun, **where)
    where["spot"] = f"{before} the {noun}"
    for _ in range(1 + few(plot, 2)):
        up = plot.direction()
        n = plot.upto(LARGEST if up else plot.count, 2)
        if up is None or (not up and n > plot.count):
            break
        if alive and not up and plot.rng.random() < 0.3:
            n2 = plot.upto(LARGEST, 2)
            plot.say(LEAVE_AND_COME, n=n, n2=n2, **where)
            plot.change(False, n, LOSE)
            plot.change(True, n2, GAIN)
            continue
        relative = plot.rng.random() < 0.5
        other = words.article(plot.rng.choice(words.ROLES)) if relative else plot.meet().name
        moved = (COME if up else LEAVE) if alive else (PUT_THERE if up else TAKEN_AWAY)
        plot.say(moved, n=n, other=other, were=be, **where)
        plot.change(up, n, GAIN if up else LOSE)
    distract(plot, about_main=False)
    lost = plot.steps[-1].kind == "lose" and plot.rng.random() < 0.6
    plot.say(HOW_MANY_STILL_THERE if lost else HOW_MANY_THERE, **where)
    return plot.close("changes", plot.count, who=plot.main.name, thing=plot.thing)


def changes(plot: Plot) -> Tale:
    """Gains and losses, one after the other."""
    kind = plot.rng.random()
    if kind < 0.2:
        return change_at_once(plot)
    if kind < 0.35:
        return change_somewhere(plot)
    late = begin(plot, plot.upto(LARGEST, 0))
    plain_changes(plot, 1 + few(plot, 7))
    return ask(plot, "changes", late)


GROUPS = (
    "{who} {v[have]} {n_holder} with {n2_thing} each.",
    "{who} {v[have]} {n_holder} of {n2_thing} each.",
    "{who} {v[have]} {n_holder} of {n2_thing}.",
    "{who} {v[have]} {n_holder}. Each {one} holds {n2_thing}.",
    "{who} {v[have]} {n_holder} and each {one} has {n2_thing} in it.",
    "There are {n_holder} with {n2_thing} in each at {whose} place.",
    "{who} {v[put]} {n2_thing} into each of {n_holder}.",
    "~{who} {v[own]} {n_holder}, and every {one} contains {n2_thing}.",
    "~Each of {whose} {n_holder} holds {n2_thing}.",
    "{who} {v[own]} {n_holder}. Every {one} contains {n2_thing}.",
    "{who} {v[have]} {n_holder}. There are {n2_thing} in each {one}.",
    "{who} {v[fill]} {n_holder} with {n2_thing} each.",
    "{who} {v[have]} {n_holder}, each with {n2_thing}.",
    "In each of {whose} {n_holder} there are {n2_thing}.",
    "{whose} {n_holder} hold {n2_thing} each.",
    "{who} {v[buy]} {n_holder} with {n2_thing} in each {one}.",
)
MORE_GROUPS = (
    "{who} {verb} {n_holder} with {n2_thing} each{verb_tail}.",
    "Then {who} {verb} {n_holder} of {n2_thing} each{verb_tail}.",
    "{who} {verb} {n_holder}{verb_tail}. Each {one} holds {n2_thing}.",
    "~After that {who} {verb} {n_holder}{verb_tail}, each {one} with {n2_thing}.",
    "After that {who} {verb} {n_holder} with {n2_thing} in each{verb_tail}.",
    "Then {who} {verb} {n_holder} that hold {n2_thing} each{verb_tail}.",
    "{who} also {verb} {n_holder} of {n2_thing} each{verb_tail}.",
)
ALL_TOGETHER = (
    "How many {thing} {w[do]} {who} have?",
    "How many {thing} {w[do]} {who} have in all?",
    "How many {thing} are there altogether?",
    "How many {thing} are there in total?",
    "How many {w[do]} {who} have in all?",
    "~What is the total number of {thing}?",
    "What is the number of all {thing}?",
    "How many {thing} {w[do]} {who} have in total?",
    "How many {thing} {w[do]} {who} have altogether?",
    "How many {thing} is that in total?",
    "What is the total of {whose} {thing}?",
    "How many {thing} are there?",
)


def sized(plot: Plot, most: int) -> tuple[int, int]:
    """A number of groups and the size of each, with a product of at most this."""
    if plot.rng.random() < 0.12 and most >= 400:
        return plot.rng.randint(10, 25), plot.rng.randint(2, min(99, most // 25))
    k = plot.rng.randint(2, max(2, min(10, most // 2)))
    return k, plot.upto(max(1, most // k), 1)


def grouped(plot: Plot, up: bool) -> None:
    """Some holders with the same number in each come or go."""
    k, each = sized(plot, 2000 if up else plot.count)
    if not up and k * each > plot.count:
        return
    holder, verb = plot.holder(), plot.rng.choice(words.GAINS if up else words.LOSSES)
    plot.say(
        MORE_GROUPS, plot.main, n=k, holder=holder, n2=each, thing=plot.thing, verb=verb, one=words.singular(holder)
    )
    made = plot.step("groups", k, "x", each, holder=holder, who="")
    plot.change(up, made, verb, [len(plot.steps) - 1])


GROUPS_ALONE = (
    "There are {n_holder} with {n2_thing} each. How many {thing} are there?",
    "There are {n_holder}. Each {one} holds {n2_thing}. How many {thing} are there in all?",
    "Each {one} holds {n2_thing}. How many {thing} are in {n_holder}?",
    "{a_one} holds {n2_thing}. How many {thing} do {n_holder} hold?",
    "One {one} has {n2_thing} in it. How many {thing} are in {n_holder}?",
    "How many {thing} are there in {n_holder} of {n2_thing} each?",
    "~If every {one} contains {n2_thing}, how many {thing} are in {n_holder}?",
    "~{n_holder} contain {n2_thing} each. How many {thing} is that?",
    "{n_holder} hold {n2_thing} each. How many {thing} is that?",
    "There are {n2_thing} in every {one}. How many {thing} are there in {n_holder}?",
    "If {a_one} holds {n2_thing}, how many {thing} do {n_holder} hold?",
    "{n_holder} contain {n2_thing} each. How many {thing} are there in total?",
    "Each of {n_holder} contains {n2_thing}. How many {thing} are there?",
    "How many {thing} are in {n_holder} if there are {n2_thing} in each?",
    "How many {thing} fit into {n_holder} if each {one} holds {n2}?",
)


PARTS = (
    "{a_one} has {n2_thing}. How many {thing} do {n_holder} have?",
    "One {one} has {n2_thing}. How many {thing} do {n_holder} have together?",
    "Every {one} has {n2_thing}. How many {thing} have {n_holder}?",
    "{a_one} needs {n2_thing}. How many {thing} do {n_holder} need?",
    "For one {one} {n2_thing} are needed. How many {thing} are needed for {n_holder}?",
    "How many {thing} do {n_holder} have if each {one} has {n2}?",
    "~If {a_one} has {n2_thing}, how many {thing} do {n_holder} have in all?",
    "If one {one} has {n2_thing}, how many {thing} have {n_holder}?",
)


def groups_alone(plot: Plot) -> Tale:
    """Holders that are nobody's, or what has so many parts."""
    plot.people = []
    k, each = sized(plot, 5000)
    parts = each > 1 and plot.rng.random() < 0.35
    holder = plot.whole() if parts else plot.holder()
    one = words.singular(holder)
    plot.say(PARTS if parts else GROUPS_ALONE, n=k, n2=each, thing=plot.thing, holder=holder, one=one)
    made = plot.step("groups", k, "x", each, holder=holder, who="")
    return plot.close("groups", made, thing=plot.thing)


GROUPS_AND = (
    "{who} also {v[have]} {n} {single} {thing}.",
    "There {b} also {n} {single} {thing}.",
    "Besides, {who} {v[have]} {n} {single} {thing}.",
    "~There {b} {n} {single} {thing}, too.",
    "{who} {v[have]} {n} {single} {thing}, too.",
)
SINGLE = ("single", "loose", "other", "more", "extra", "further")


def groups_and(plot: Plot) -> Tale:
    """Beside the holders there are single ones; in one sentence, or in another."""
    n = plot.upto(LARGEST, 2)
    single = plot.rng.choice(SINGLE)
    last = plot.lines[-1]
    if last.template.endswith(("each.", "of {n2_thing}.")) and plot.rng.random() < 0.7:
        joined = last.template.removesuffix(".") + " and {n3} {single} {thing}."
        plot.lines[-1] = replace(last, template=joined, fields={**last.fields, "n3": n, "single": single})
    else:
        plot.say(GROUPS_AND, plot.main, n=n, single=single, thing=plot.thing, b=plot.forms("be", plural=True))
    total = plot.step("total", plot.count, "+", n, [plot.at], who="")
    distract(plot)
    plot.say(ALL_TOGETHER, plot.main, thing=plot.thing)
    return plot.close("groups", total, who=plot.main.name, thing=plot.thing)


def groups(plot: Plot) -> Tale:
    """Holders with the same number in each."""
    if plot.rng.random() < 0.2:
        return groups_alone(plot)
    late = None
    if plot.rng.random() < 0.5:
        k, each = sized(plot, 5000)
        holder = plot.holder()
        plot.say(GROUPS, plot.main, n=k, holder=holder, n2=each, thing=plot.thing, one=words.singular(holder))
        plot.now(plot.step("groups", k, "x", each, holder=holder, who=""))
        if plot.rng.random() < 0.2:
            return groups_and(plot)
        if plot.rng.random() < 0.4:
            distract(plot)
            plot.say(ALL_TOGETHER, plot.main, thing=plot.thing)
            return plot.close("groups", plot.count, who=plot.main.name, thing=plot.thing)
    else:
        late = begin(plot, plot.upto(LARGEST))
    for _ in range(1 + few(plot, 2)):
        grouped(plot, plot.rng.random() < 0.6 or plot.count < 10)
    plain_changes(plot, few(plot, 3))
    return ask(plot, "groups", late)


HAS = (
    "{who} {v[have]} {n_thing}.",
    "{who} {v[own]} {n_thing}.",
    "{who} {w[have]} got {n_thing}.",
    "~In {whose} box there are {n_thing}.",
    "In {whose} bag there are {n_thing}.",
    "{who} {v[keep]} {n_thing} at home.",
    "There are {n_thing} in {whose} box.",
    "{who} {v[collect]} {n_thing}.",
    "{n_thing} belong to {whom}.",
    "{who} {v[find]} {n_thing}.",
)
HAS_MORE = (
    "{who} {v[have]} {n} more {thing} than {other}.",
    "{who} {v[have]} {n} more than {other}.",
    "{who} {v[own]} {n} more {thing} than {other} {v[do]}.",
    "~Compared with {other}, {who} {v[have]} {n} more {thing}.",
    "{who} {v[be]} ahead of {other} by {n_thing}.",
    "{who} {v[have]} {n_thing} more than {other}.",
    "{who} {v[collect]} {n} more {thing} than {other}.",
    "Compared to {other}, {who} {v[have]} {n} {thing} more.",
)
HAS_FEWER = (
    "{who} {v[have]} {n} fewer {thing} than {other}.",
    "{who} {v[have]} {n} fewer than {other}.",
    "{who} {v[have]} {n} less than {other}.",
    "~Compared with {other}, {who} {v[have]} {n} fewer {thing}.",
    "{who} {v[own]} {n} fewer {thing} than {other} {v[do]}.",
    "{who} {v[collect]} {n} fewer {thing} than {other}.",
    "{who} {v[have]} {n_thing} less than {other}.",
    "Compared to {other}, {who} {v[have]} {n} {thing} less.",
)
HAS_TIMES = (
    "{who} {v[have]} {times} as many {thing} as {other}.",
    "{who} {v[have]} {times} as many as {other}.",
    "{who} {v[own]} {times} as many {thing} as {other} {v[do]}.",
    "~The {thing} of {who} are {times} as many as those of {other}.",
    "{who} {v[collect]} {times} as many {thing} as {other}.",
    "{whose} {thing} are {times} as many as those of {other}.",
    "{who} {v[have]} {times} the number of {thing} that {other} {v[have]}.",
)
HAS_HALF = (
    "{who} {v[have]} half as many {thing} as {other}.",
    "{who} {v[have]} half as many as {other}.",
    "~{who} {v[own]} only half as many {thing} as {other}.",
    "{who} {v[have]} only half as many {thing} as {other}.",
    "{who} {v[have]} half the number of {thing} that {other} {v[have]}.",
    "{who} {v[have]} half of what {other} {v[have]}.",
)
HOW_MANY_HAS = (
    "How many {thing} {w[do]} {who} have?",
    "How many {w[do]} {who} have?",
    "How many {thing} {w[have]} {who} got?",
    "~What is the number of {thing} that {who} {w[have]}?",
    "What is the number of {whose} {thing}?",
    "How many {thing} belong to {whom}?",
    "How many {thing} are in {whose} bag?",
    "How many {thing} {w[do]} {who} own?",
)
HOW_MANY_TOGETHER = (
    "How many {thing} do they have together?",
    "How many {thing} do {who} and {other} have together?",
    "How many {thing} do {who} and {other} have in all?",
    "How many {thing} do the two have in total?",
    "~What do {who} and {other} have together?",
    "How many {thing} do {who} and {other} have altogether?",
    "How many {thing} is that together for {who} and {other}?",
    "What is the total for {who} and {other}?",
    "How many do {who} and {other} have together?",
    "How many {thing} do both have together?",
)
HOW_MANY_MORE = (
    "How many more {thing} does {who} have than {other}?",
    "How many more does {who} have than {other}?",
    "How many {thing} more than {other} does {who} have?",
    "~By how many {thing} is {who} ahead of {other}?",
    "By how many {thing} does {who} have more than {other}?",
    "What is the difference between {who} and {other}?",
    "How many fewer {thing} does {other} have than {who}?",
    "By how many is {who} ahead of {other}?",
    "How many more {thing} than {other} does {who} have?",
    "How many more {thing} {v[do]} {who} have than {other}?",
)


IN_ONE_SENTENCE = {
    "more": (
        "{first} {v3[have]} {n_thing} and {second} {v3[have]} {n2} more.",
        "{first} {v3[have]} {n_thing}, and {second} {v3[have]} {n2} more than {first}.",
        "~{first} {v3[own]} {n_thing}, {second} {v3[own]} {n2} more.",
        "{first} {v3[own]} {n_thing}. {second} {v3[own]} {n2} {thing} more.",
    ),
    "fewer": (
        "{first} {v3[have]} {n_thing} and {second} {v3[have]} {n2} fewer.",
        "{first} {v3[have]} {n_thing}, and {second} {v3[have]} {n2} fewer than {first}.",
        "~{first} {v3[own]} {n_thing}, {second} {v3[own]} {n2} less.",
        "{first} {v3[own]} {n_thing}. {second} {v3[own]} {n2} {thing} less.",
    ),
    "times": (
        "{first} {v3[have]} {n_thing} and {second} {v3[have]} {times} as many.",
        "{first} {v3[have]} {n_thing}. {second} {v3[have]} {times} as many.",
        "~{first} {v3[own]} {n_thing}, {second} {v3[own]} {times} as many.",
        "{first}'s box holds {n_thing}. {second}'s box holds {times} as many {thing}.",
        "{first} {v3[own]} {n_thing}, and {second} {v3[own]} {times} as many {thing}.",
    ),
}
AGES = {
    "more": (
        "{first} is {n} years old. {second} is {n2} years older.",
        "{first} is {n} years old, and {second} is {n2} years older than {first}.",
        "~{first} is {n}. {second} is {n2} years older than {first}.",
        "{second} is {n2} years older than {first}. {first} is {n}.",
    ),
    "fewer": (
        "{first} is {n} years old. {second} is {n2} years younger.",
        "{first} is {n} years old, and {second} is {n2} years younger than {first}.",
        "~{first} is {n}. {second} is {n2} years younger than {first}.",
        "{second} is {n2} years younger than {first}. {first} is {n}.",
    ),
    "times": (
        "{first} is {n} years old. {second} is {times} as old.",
        "{first} is {n} years old, and {second} is {times} as old as {first}.",
        "~{first} is {n}. {second} is {times} as old as {first}.",
        "{second} is {times} as old as {first}. {first} is {n}.",
    ),
}
HOW_OLD = ("How old is {who}?", "What is the age of {who}?", "How many years old is {who}?", "~What is {whose} age?",
           "How old is {who} now?", "What is {whose} age in years?")  # fmt: skip
PRICED = {
    "more": (
        "{first} costs {n_thing}. {second} costs {n2_thing} more.",
        "{first} costs {n_thing}, and {second} costs {n2_thing} more than {first}.",
        "~{first} is {n_thing}. {second} costs {n2_thing} more.",
        "The price of {first} is {n_thing}. {second} is {n2_thing} more.",
    ),
    "fewer": (
        "{first} costs {n_thing}. {second} costs {n2_thing} less.",
        "{first} costs {n_thing}, and {second} costs {n2_thing} less than {first}.",
        "~{first} is {n_thing}. {second} costs {n2_thing} less.",
        "The price of {first} is {n_thing}. {second} is {n2_thing} less.",
    ),
    "times": (
        "{first} costs {n_thing}. {second} costs {times} as much.",
        "{first} costs {n_thing}, and {second} costs {times} as much as {first}.",
        "~{first} is {n_thing}. {second} costs {times} as much.",
        "The price of {first} is {n_thing}. {second} is {times} as much.",
    ),
}
HOW_DEAR = ("How much does {who} cost?", "How many {thing} does {who} cost?", "What does {who} cost?",
            "~What is the price of {who} in {thing}?", "What is the price of {who}?", "How much is {who}?",
            "What is the price in {thing}?")  # fmt: skip


COMPARED: Mapping[str, Mapping[str, Sequence[str]]] = {"things": IN_ONE_SENTENCE, "ages": AGES, "prices": PRICED}


def compared_at_once(plot: Plot) -> Tale:
    """One is told and the other by it in the next words: things, ages or prices."""
    told = plot.rng.choice(("things", "things", "ages", "prices"))
    if told == "prices":
        plot.people = []
        nouns = [words.singular(thing.split(" ")[-1]) for thing in (plot.thing, plot.count_thing())]
        first, second = (Person(f"the {noun}", "it") for noun in nouns)
        shown = [words.article(noun) for noun in nouns]
        plot.things[0] = plot.rng.choice(words.CURRENCIES)[0]
    else:
        first, second = plot.main, plot.meet()
        shown = [first.name, second.name]
    templates = COMPARED[told]
    thing = "years" if told == "ages" else plot.thing
    n = plot.rng.randint(4, 90) if told == "ages" else plot.upto(LARGEST, 4)
    kind = plot.rng.choice(("more", "fewer", "times"))
    k = plot.rng.choice((2, 2, 3, 4, 5))
    n2 = plot.upto(n - 1 if kind == "fewer" else 60 if told == "ages" else LARGEST, 2)
    fields: dict[str, Any] = {"n": n, "thing": thing, "first": shown[0], "second": shown[1]}
    plot.say(templates[kind], **fields, **({"times": words.MULTIPLES[k]} if kind == "times" else {"n2": n2}))
    said: dict[str, Any] = {"who": second.name, "other": first.name, "thing": thing}
    if kind == "times":
        value = plot.step("times", k, "x", n, **said)
    else:
        value = plot.step("more" if kind == "more" else "fewer", n, "+" if kind == "more" else "-", n2, **said)
    if told == "things" and plot.rng.random() < 0.4:
        plot.say(HOW_MANY_TOGETHER, second, thing=thing, other=first.name)
        total = plot.step("total", value, "+", n, [0], **said)
        return plot.close("comparisons", total, thing=thing)
    asked = {"things": HOW_MANY_HAS, "ages": HOW_OLD, "prices": HOW_DEAR}[told]
    plot.say(asked, second, thing=thing)
    return plot.close("comparisons", value, who=second.name if told == "things" else "", thing=thing)


def compared(plot: Plot, who: Person, other: Person, theirs: int, at: int) -> int:
    """Somebody has more, fewer, or a multiple of what another has; returns how many."""
    said: dict[str, Any] = {"who": who.name, "other": other.name}
    fields: dict[str, Any] = {"thing": plot.thing, "other": other.name}
    kinds = ["more"] * (theirs < 5000) + ["fewer"] * (theirs > 2) + ["times"] * (theirs <= 1200)
    kind = plot.rng.choice(kinds + ["half"] * (theirs % 2 == 0 and theirs > 1))
    if kind == "more":
        n = plot.upto(LARGEST, 1)
        plot.say(HAS_MORE, who, others=True, n=n, **fields)
        return plot.step("more", theirs, "+", n, [at], **said)
    if kind == "fewer":
        n = plot.upto(min(theirs - 1, LARGEST), 1)
        plot.say(HAS_FEWER, who, others=True, n=n, **fields)
        return plot.step("fewer", theirs, "-", n, [at], **said)
    if kind == "half":
        plot.say(HAS_HALF, who, others=True, **fields)
        return plot.step("half", theirs, "/", 2, [at], **said)
    k = plot.rng.choice((2, 2, 3, 3, 4, 5, 6))
    times = words.MULTIPLES[k] if plot.rng.random() < 0.7 else f"{k} times"
    plot.say(HAS_TIMES, who, others=True, times=times if k > 2 or plot.rng.random() < 0.8 else "2 times", **fields)
    return plot.step("times", k, "x", theirs, [at], **said)


def comparisons(plot: Plot) -> Tale:
    """What one person has is told by what another has."""
    if plot.rng.random() < 0.3:
        return compared_at_once(plot)
    first = plot.main
    has = plot.upto(LARGEST)
    own = [(first, has, -1)]
    plot.say(HAS, first, n=has, thing=plot.thing)
    for _ in range(plot.rng.choice((1, 1, 1, 2, 2, 3))):
        other, theirs, at = own[-1] if plot.rng.random() < 0.85 else plot.rng.choice(own)
        who = plot.meet()
        value = compared(plot, who, other, theirs, at)
        own.append((who, value, len(plot.steps) - 1))
    if plot.rng.random() < 0.2:
        plot.rng.shuffle(plot.lines)
    distract(plot, 0.2)
    asked = plot.rng.random()
    (who, value, at), (other, theirs, before) = own[-1], own[-2]
    if asked < 0.45 or value == theirs or value + theirs > 9999:
        plot.say(HOW_MANY_HAS, who, thing=plot.thing)
        return plot.close("comparisons", value, who=who.name, thing=plot.thing, at=at)
    if asked < 0.8:
        templates = [one for one in HOW_MANY_TOGETHER if len(own) == 2 or "{other}" in one]
        plot.say(templates, who, thing=plot.thing, other=other.name)
        said: dict[str, Any] = {"who": who.name, "other": other.name}
        total = plot.step("total", value, "+", theirs, [at, before], **said)
        return plot.close("comparisons", total, thing=plot.thing)
    if value < theirs:
        (who, value, at), (other, theirs, before) = own[-2], own[-1]
    plot.say(HOW_MANY_MORE, who, thing=plot.thing, other=other.name)
    apart = plot.step("apart", value, "-", theirs, [at, before], who=who.name, other=other.name)
    return plot.close("comparisons", apart, thing=plot.thing)


SHARE = (
    "{who} {v[have]} {n_thing} and {v[give]} the same number to each of {n2_holder}.",
    "{who} {v[have]} {n_thing} and {v[give]} the same number to each of {their} {n2_holder}.",
    "{who} {v[have]} {n_thing} for {n2_holder}. Each of them gets the same number.",
    "There are {n_thing} for {n2_holder}. Each {one} gets the same number.",
    "{n2_holder} {vp[find]} {n_thing} and {vp[share]} them equally.",
    "{who} {v[share]} {n_thing} equally among {n2_holder}.",
    "{who} {v[divide]} {n_thing} equally among {n2_holder}.",
    "{n2_holder} share {n_thing} equally.",
    "{who} {v[have]} {n_thing} and {v[give]} them to {n2_holder}, the same number to each.",
    "{n_thing} are shared equally among {n2_holder}.",
    "~{who} {v[split]} {n_thing} evenly between {n2_holder}.",
    "~{n2_holder} get equal parts of {n_thing}.",
    "{who} {v[give]} {n_thing} to {n2_holder}. Everyone gets the same number.",
    "{n2_holder} divide {n_thing} equally.",
    "{who} {v[split]} {n_thing} equally among {n2_holder}.",
    "{who} {v[share]} {n_thing} evenly between {n2_holder}.",
    "{n_thing} are divided equally among {n2_holder}.",
    "{n2_holder} get {n_thing} in equal parts.",
    "{who} {v[hand]} out {n_thing} equally to {n2_holder}.",
)
SHARE_THEM = (
    "{who} {v[share]} the {thing} equally among {n2_holder}.",
    "Then {who} {v[divide]} all {thing} equally among {n2_holder}.",
    "{who} {v[give]} all the {thing} to {n2_holder}, the same number to each.",
    "~In the end {who} {v[split]} the {thing} evenly between {n2_holder}.",
    "In the end {who} {v[share]} the {thing} equally among {n2_holder}.",
    "Then {who} {v[split]} the {thing} evenly between {n2_holder}.",
    "Now {n2_holder} share the {thing} equally.",
)
HOW_MANY_EACH = (
    "How many {thing} does each {one} get?",
    "How many {thing} does each get?",
    "How many does each {one} get?",
    "How many {thing} are there for each {one}?",
    "~What is the share of one {one}?",
    "How many {thing} does every {one} get?",
    "How many {thing} are for each {one}?",
    "What is the share of each {one}?",
    "How many does everyone get?",
    "How many {thing} does one {one} get?",
)
PORTIONS = (
    "{who} {v[put]} {n_thing} into {holder} of {n2}.",
    "{who} {v[have]} {n_thing} and {v[put]} {n2} into each {one}.",
    "{who} {v[pack]} {n_thing} into {holder} with {n2} each.",
    "Each {one} holds {n2_thing}, and {who} {v[have]} {n_thing}.",
    "~{n_thing} go into {holder} that hold {n2} each.",
    "{who} {v[have]} {n_thing}. {n2} fit into each {one}.",
    "{n_thing} are packed into {holder} of {n2}.",
    "{who} {v[sort]} {n_thing} into {holder} of {n2} each.",
    "Each {one} can hold {n2_thing}. There are {n_thing}.",
    "{n_thing} go into {holder} with {n2} in each.",
    "{who} {v[make]} {holder} of {n2_thing} from {n_thing}.",
)
HOW_MANY_HOLDERS = (
    "How many {holder} are there?",
    "How many {holder} {w[do]} {who} need?",
    "How many {holder} {w[do]} {who} fill?",
    "~What is the number of {holder}?",
    "How many {holder} are needed?",
    "How many {holder} is that?",
    "What is the number of {holder} that are filled?",
    "How many {holder} {w[do]} {who} get?",
)
ONE_SHARE = (
    "{other} {third} {n_thing} equally among {n2_holder}, and {who} {v[be]} one of them.",
    "{who} and {n3} other {holder} {plural} {n_thing} equally.",
    "~{who} {v[get]} one of {n2} equal parts of {n_thing}.",
    "{who} {v[get]} an equal part when {n2_holder} share {n_thing}.",
    "{who} {v[get]} one of {n2} equal shares of {n_thing}.",
)


def shares(plot: Plot) -> Tale:
    """Something is divided equally: into so many parts, or into parts of such a size."""
    kind = plot.rng.choice(("share", "share", "portions", "then share", "one share"))
    k = plot.rng.randint(2, 12)
    each = max(1, plot.upto(LARGEST // k, 1))
    holder = plot.spelled(plot.rng.choice(words.RECEIVERS))
    fields: dict[str, Any] = {"n": k * each, "thing": plot.thing, "n2": k, "holder": holder}
    if kind == "portions":
        fields |= {"holder": plot.holder()}
        one = words.singular(fields["holder"])
        plot.say(PORTIONS, plot.main, one=one, **fields)
        distract(plot)
        plot.say(HOW_MANY_HOLDERS, plot.main, **fields)
        made = plot.step("portions", k * each, "/", k, who="", other=plot.thing, thing=fields["holder"], holder=one)
        return plot.close("shares", made, thing=fields["holder"])
    if kind == "one share":
        late = begin(plot, plot.upto(LARGEST))
        third = plot.forms("share")
        plot.say(ONE_SHARE, plot.main, others=True, n3=k - 1, third=third, plural=plot.forms("share", plural=True),
                 other=plot.meet().name, **fields)  # fmt: skip
        made = plot.step("share", k * each, "/", k, who="", holder=holder)
        plot.change(True, made, GET, [len(plot.steps) - 1])
        plain_changes(plot, few(plot, 3))
        return ask(plot, "shares", late)
    if kind == "then share":
        start_now(plot, plot.upto(LARGEST - 20))
        plain_changes(plot, few(plot, 3, 1))
        ks = [k for k in range(2, 13) if plot.count % k == 0 and plot.count]
        if not ks:
            n, verb = k - plot.count % k, plot.rng.choice(words.GAINS)
            templates = [one for one in fitting(CHANGE, verb, n) if "{n}" not in one or "{thing}" in one]
            plot.say(templates, plot.main, n=n, thing=plot.thing, verb=verb, more="", day=plot.rng.choice(DAYS))
            plot.change(True, n, verb)
            ks = [k]
        fields["n2"] = k = plot.rng.choice(ks)
        distract(plot)
        plot.say(SHARE_THEM, plot.main, **fields)
        made = plot.step("share", plot.count, "/", k, [plot.at], who="", holder=holder)
    else:
        plot.say(SHARE, plot.main, one=words.singular(holder), **fields)
        distract(plot)
        made = plot.step("share", k * each, "/", k, who="", holder=holder)
    plot.say(HOW_MANY_EACH, one=words.singular(holder), **fields)
    return plot.close("shares", made, thing=plot.thing)


HAS_UNITS = (
    "{who} {v[have]} {n_unit} {thing}.",
    "{who} {v[own]} {n_unit} {thing}.",
    "There are {n_unit} {thing} in {whose} bag.",
    "~{who} {v[hold]} {n_unit} {thing}.",
    "{who} {v[buy]} {n_unit} {thing}.",
    "{who} {v[start]} with {n_unit} {thing}.",
    "There are {n_unit} {thing} in {whose} box.",
    "{who} {v[keep]} {n_unit} {thing} at home.",
)
MORE_UNITS = (
    "{who} {verb} {n_unit} {thing}{verb_tail}.",
    "Then {who} {verb} {n_unit} {thing}{verb_tail}.",
    "~Later on {who} {verb} {n_unit} {thing}{verb_tail}.",
    "Later {who} {verb} {n_unit} {thing}{verb_tail}.",
    "{who} also {verb} {n_unit} {thing}{verb_tail}.",
    "After that {who} {verb} another {n_unit} {thing}{verb_tail}.",
)
CONVERT = (
    "How many {thing} are there in {n_unit}?",
    "How many {thing} are {n_unit}?",
    "{who} {w[wait]} for {n_unit}. How many {thing} is that?",
    "A journey takes {n_unit}. How many {thing} does it take?",
    "{who} {v[work]} for {n_unit}. How many {thing} is that?",
    "~What are {n_unit} in {thing}?",
    "How many {thing} are in {n_unit}?",
    "{n_unit} are how many {thing}?",
    "What is {n_unit} in {thing}?",
    "How many {thing} do {n_unit} have?",
    "A trip takes {n_unit}. How many {thing} is that?",
    "{who} {v[sleep]} for {n_unit}. How many {thing} is that?",
    "Write {n_unit} in {thing}.",
)
CONVERT_DOZEN = (
    "How many {thing} are {n_unit} {thing}?",
    "How many {thing} are there in {n_unit} {thing}?",
    "A shop sells {n_unit} {thing}. How many {thing} is that?",
    "~What is the number of {thing} in {n_unit} {thing}?",
    "How many {thing} are in {n_unit} {thing}?",
    "{n_unit} {thing} are how many?",
    "What is the number of {thing} in a box with {n_unit} {thing}?",
    "There are {n_unit} {thing} in a box. How many {thing} are in the box?",
    "Somebody has {n_unit} {thing}. How many {thing} is that?",
)
CONVERT_MORE = (
    "A film takes {n_unit} and {n2} {thing}. How many {thing} is that?",
    "{who} {v[work]} for {n_unit} and {n2} {thing}. How many {thing} is that in all?",
    "How many {thing} are {n_unit} and {n2} {thing}?",
    "~What are {n_unit} and {n2} {thing} in {thing}?",
    "How many {thing} are in {n_unit} and {n2} {thing}?",
    "A walk takes {n_unit} and {n2} {thing}. How many {thing} does it take?",
    "{who} {v[wait]} for {n_unit} and {n2} {thing}. How many {thing} is that?",
    "What is {n_unit} and {n2} {thing} in {thing}?",
)
A_DAY = (
    "{who} {verb} {n2_thing} a {part}{verb_tail} for {n_unit}.",
    "Every {part} {who} {verb} {n2_thing}{verb_tail}, for {n_unit}.",
    "{who} {verb} {n2_thing} each {part}{verb_tail}, for {n_unit}.",
    "~For {n_unit} {who} {verb} {n2_thing} per {part}{verb_tail}.",
    "{who} {verb} {n2_thing} per {part}{verb_tail} for {n_unit}.",
    "For {n_unit}, {who} {verb} {n2_thing} every {part}{verb_tail}.",
    "{who} {verb} {n2_thing} every {part}{verb_tail}. This goes on for {n_unit}.",
)
IN_A = (
    "{who} {verb} {n_thing} every {part}. How many {thing} is that in a {unit}?",
    "{who} {verb} {n_thing} a {part}. How many {thing} is that in one {unit}?",
    "{who} {verb} {n_thing} each {part}. How many {thing} {v[do]} {who} {base} in a {unit}?",
    "Every {part} {who} {verb} {n_thing}. How many {thing} {v[do]} {who} {base} in a {unit}?",
    "~{who} {verb} {n_thing} per {part}. How many {thing} is that in a {unit}?",
)
IN_SOME = (
    "{who} {verb} {n2_thing} a {part}. How many {thing} {v[do]} {who} {base} in {n_unit}?",
    "{who} {verb} {n2_thing} every {part}. How many {thing} is that in {n_unit}?",
    "Every {part} {who} {verb} {n2_thing}. How many {thing} {v[do]} {who} {base} in {n_unit}?",
    "~{who} {verb} {n2_thing} each {part}. How many {thing} is that in {n_unit}?",
)
HOW_MANY_DONE = (
    "How many {thing} is that?",
    "How many {thing} is that in all?",
    "How many {thing} is that in total?",
    "~What is the total number of {thing}?",
    "How many {thing} are that together?",
    "What is the number of {thing} in total?",
    "How many {thing} are there in the end?",
)


def dozen_alone(plot: Plot) -> Tale:
    """Dozens or pairs that are nobody's."""
    plot.people = []
    unit, size = plot.rng.choice(words.UNITS)
    k = plot.rng.randint(1, 12)
    plot.say(CONVERT_DOZEN, n=k, unit=unit, thing=plot.thing)
    made = plot.step("unit", k, "x", size, who="", holder=unit.removesuffix(" of"))
    return plot.close("units", made, thing=plot.thing)


def converted(plot: Plot) -> Tale:
    """Hours in minutes, and the like."""
    unit, part, size = plot.rng.choice(words.SPANS)
    k = plot.rng.randint(1, 9)
    plot.things[0] = part
    more = plot.rng.randint(1, size - 1) if plot.rng.random() < 0.4 else 0
    plot.say(CONVERT_MORE if more else CONVERT, plot.main, n=k, unit=unit, thing=part, n2=more)
    made = plot.step("unit", k, "x", size, who="", holder=unit)
    if more:
        made = plot.step("total", made, "+", more, [0], who="")
    return plot.close("units", made, thing=part)


def day_after_day(plot: Plot) -> Tale:
    """So many a day for weeks, on top of what there was or not."""
    unit, part, size = plot.rng.choice(words.SPANS[:2])
    k, each = plot.rng.randint(2, 9), plot.rng.randint(2, 20)
    verb, one = plot.rng.choice(words.GAINS), words.singular(part)
    if plot.rng.random() < 0.3:
        return in_a(plot, unit, part, size)
    late = begin(plot, plot.upto(LARGEST)) if plot.rng.random() < 0.4 else None
    begun = plot.at >= 0
    plot.say(A_DAY, plot.main, n=k, unit=unit, n2=each, thing=plot.thing, part=one, verb=verb)
    days = plot.step("unit", k, "x", size, who="", holder=unit, thing=part)
    made = plot.step("rate", each, "x", days, [len(plot.steps) - 1], who="", holder=one, other=part)
    if begun:
        plot.change(True, made, verb, [len(plot.steps) - 1])
        return ask(plot, "units", late)
    distract(plot)
    plot.say(HOW_MANY_DONE, thing=plot.thing)
    return plot.close("units", made, thing=plot.thing)


def units(plot: Plot) -> Tale:
    """Dozens, pairs, weeks, hours."""
    kind = plot.rng.choice(("dozen", "dozen", "dozen", "convert", "a day", "dozen alone"))
    if kind == "dozen alone":
        return dozen_alone(plot)
    if kind == "convert":
        return converted(plot)
    if kind == "a day":
        return day_after_day(plot)
    late = None
    if plot.rng.random() < 0.4:
        unit, size = plot.rng.choice(words.UNITS)
        k = plot.rng.randint(2, 9)
        plot.say(HAS_UNITS, plot.main, n=k, unit=unit, thing=plot.thing)
        plot.now(plot.step("unit", k, "x", size, who="", holder=unit.removesuffix(" of")))
        if plot.rng.random() < 0.3:
            distract(plot)
            plot.say(ALL_TOGETHER, plot.main, thing=plot.thing)
            return plot.close("units", plot.count, who=plot.main.name, thing=plot.thing)
    else:
        late = begin(plot, plot.upto(LARGEST))
        united(plot)
    for _ in range(few(plot, 1)):
        united(plot)
    plain_changes(plot, few(plot, 3))
    return ask(plot, "units", late)


def in_a(plot: Plot, unit: str, part: str, size: int) -> Tale:
    """So many a day, in one week or some."""
    k, each = plot.rng.choice((1, 1, 1, 2, 3, 4, 5)), plot.upto(40)
    verb, one = plot.rng.choice([one for one in (*words.GAINS, *words.DEEDS) if not one.tail]), words.singular(part)
    fields: dict[str, Any] = {"thing": plot.thing, "part": one, "verb": verb, "base": verb.base}
    if k == 1:
        plot.say(IN_A, plot.main, n=each, unit=words.singular(unit), **fields)
        made = plot.step("rate", each, "x", size, who="", holder=one, other=part)
    else:
        plot.say(IN_SOME, plot.main, n=k, n2=each, unit=unit, **fields)
        days = plot.step("unit", k, "x", size, who="", holder=unit, thing=part)
        made = plot.step("rate", each, "x", days, [0], who="", holder=one, other=part)
    return plot.close("units", made, thing=plot.thing)


def united(plot: Plot) -> None:
    """Some dozens or pairs come or go."""
    unit, size = plot.rng.choice(words.UNITS)
    k = plot.rng.randint(1, 9)
    up = k * size > plot.count or plot.rng.random() < 0.6
    verb = plot.rng.choice(words.GAINS if up else words.LOSSES)
    plot.say(MORE_UNITS, plot.main, n=k, unit=unit, thing=plot.thing, verb=verb)
    made = plot.step("unit", k, "x", size, who="", holder=unit.removesuffix(" of"))
    plot.change(up, made, verb, [len(plot.steps) - 1])


PURSE = (
    "{who} {v[have]} {n_thing}.",
    "{who} {v[have]} {n_thing} to spend.",
    "There are {n_thing} in {whose} purse.",
    "{who} {v[start]} with {n_thing}.",
    "{who} {v[go]} shopping with {n_thing}.",
    "~{who} {v[carry]} {n_thing}.",
    "{who} {v[take]} {n_thing} to the shop.",
    "{who} {v[have]} {n_thing} in a pocket.",
    "{who} {v[save]} {n_thing}.",
    "{who} {v[get]} {n_thing} for a birthday.",
    "{who} {v[carry]} {n_thing} in a bag.",
    "In {whose} pocket there are {n_thing}.",
)
SPENDS = (
    "{who} {v[spend]} {n_thing} on {idle}.",
    "{who} {v[buy]} {idle} for {n_thing}.",
    "{who} {v[pay]} {n_thing} for {idle}.",
    "Then {who} {v[spend]} {n_thing} on {idle}.",
    "~{idle} {v3[cost]} {whom} {n_thing}.",
    "{idle} {v3[cost]} {n_thing}, and {who} {v[buy]} it.",
    "{who} {v[use]} {n_thing} for {idle}.",
    "{who} also {v[buy]} {idle} for {n_thing}.",
    "For {idle}, {who} {v[pay]} {n_thing}.",
    "In a shop {who} {v[spend]} {n_thing} on {idle}.",
    "{who} {v[give]} {n_thing} for {idle}.",
)
PURSE_AND_SPENT = (
    "{who} {v[have]} {n_thing} and {v[spend]} {n2_thing}.",
    "{who} {v[earn]} {n_thing} and {v[spend]} {n2_thing}.",
    "{who} {v[have]} {n_thing} and {v[spend]} {n2_thing} on {idle}.",
    "{who} {v[get]} {n_thing} and {v[pay]} {n2_thing} for {idle}.",
    "~{who} {v[save]} {n_thing} and then {v[spend]} {n2_thing} on {idle}.",
)
SPENDS_TWICE = (
    "{who} {v[spend]} {n_thing} on {idle} and {n2_thing} on {idle2}.",
    "{who} {v[pay]} {n_thing} for {idle} and {n2} for {idle2}.",
    "~{who} {v[buy]} {idle} for {n_thing} and {idle2} for {n2_thing}.",
    "{who} {v[spend]} {n} {thing} on {idle} and {n2} {thing} on {idle2}.",
    "{who} {v[buy]} {idle} for {n_thing} and then {idle2} for {n2_thing}.",
    "First {who} {v[spend]} {n_thing} on {idle}, then {n2_thing} on {idle2}.",
    "For {idle} {who} {v[pay]} {n_thing}, and for {idle2} {n2_thing}.",
)
EARNS = (
    "{who} {v[get]} {n_thing} for a birthday.",
    "{whose} aunt {v3[give]} {whom} {n_thing}.",
    "{who} {v[earn]} {n_thing}.",
    "{who} {v[get]} {n_thing} from an aunt.",
    "Then {who} {v[earn]} {n}{more} {thing}.",
    "~{who} {v[find]} {n_thing} in a pocket.",
    "{who} {v[find]} {n_thing} on the street.",
    "A friend {v3[give]} {whom} {n_thing}.",
    "{who} {v[win]} {n_thing}.",
    "Grandma {v3[give]} {whom} {n_thing}.",
)
BUYS = (
    "{who} {v[buy]} {n_idle} for {n2_thing} each.",
    "{who} {v[buy]} {n_idle}. Each costs {n2_thing}.",
    "{who} {v[buy]} {n_idle} at {n2_thing} each.",
    "{who} {v[buy]} {n_idle} that cost {n2_thing} each.",
    "~{who} {v[pay]} {n2_thing} for each of {n_idle}.",
    "{who} {v[buy]} {n_idle}. One costs {n2_thing}.",
    "{who} {v[pay]} {n2_thing} each for {n_idle}.",
    "{n_idle} at {n2_thing} each are bought by {who}.",
    "{who} {v[get]} {n_idle} for {n2_thing} apiece.",
    "{who} {v[take]} {n_idle} at a price of {n2_thing} each.",
)
BUYS_AND_ONE = (
    "{who} {v[buy]} {n_idle} for {n2_thing} each and {a_one} for {n3_thing}.",
    "{who} {v[buy]} {n_idle} at {n2_thing} each and {a_one} for {n3_thing}.",
    "{who} {v[buy]} {a_one} for {n3_thing} and {n_idle} for {n2_thing} each.",
    "~{who} {v[take]} {n_idle} that cost {n2_thing} each and {a_one} for {n3_thing}.",
)
ONE_COSTS = (
    "{a_one} costs {n_thing}.",
    "{who} {v[buy]} {a_one} for {n_thing}.",
    "The price of {a_one} is {n_thing}.",
    "~{a_one} is {n_thing}.",
)
AND_ONE = (
    "{who} also {v[buy]} {a_one} for {n_thing}.",
    "Then {who} {v[buy]} {a_one} for {n_thing}.",
    "For {n_thing} {who} also {v[buy]} {a_one}.",
    "~Besides, {who} {v[buy]} {a_one} for {n_thing}.",
)
PER_SPAN = (
    "{who} {v[get]} {n_thing} a {span}. How much {v[do]} {who} get in {n2_unit}?",
    "{who} {v[earn]} {n_thing} a {span}. How many {thing} {v[do]} {who} earn in {n2_unit}?",
    "{who} {v[save]} {n_thing} every {span}. How much {v[do]} {who} save in {n2_unit}?",
    "Every {span} {who} {v[get]} {n_thing}. How many {thing} is that in {n2_unit}?",
    "~{who} {v[spend]} {n_thing} each {span}. How much is that in {n2_unit}?",
    "{who} {v[pay]} {n_thing} per {span}. How much {v[do]} {who} pay in {n2_unit}?",
    "{who} {v[spend]} {n_thing} a {span}. How much {v[do]} {who} spend in {n2_unit}?",
)
SPAN = ("day", "week", "month", "hour", "year")
WORKS = (
    "{who} {v[earn]} {n2_thing} an hour and {v[work]} {n} hours.",
    "{who} {v[work]} for {n} hours and {v[earn]} {n2_thing} an hour.",
    "~Each hour of work brings {who} {n2_thing}, and {who} {v[work]} {n} hours.",
    "{who} {v[get]} {n2_thing} per hour. {who} {v[work]} {n} hours.",
    "An hour of work brings {whom} {n2_thing}, and {who} {v[work]} for {n} hours.",
    "{who} {v[work]} {n} hours for {n2_thing} each hour.",
)
HOW_MUCH = (
    "How many {thing} are left?",
    "How many {thing} {w[do]} {who} have left?",
    "How many {thing} {w[do]} {who} have now?",
    "How much money {w[do]} {who} have left?",
    "How much money is left?",
    "~How much can {who} still spend?",
    "How much {w[do]} {who} have left?",
    "How much {w[do]} {who} have now?",
    "How many {thing} can {who} still spend?",
    "How much money {w[have]} {who} got now?",
    "How much is left?",
)
HOW_MUCH_PAID = (
    "How many {thing} {v[do]} {who} pay?",
    "How many {thing} {v[do]} {who} pay in all?",
    "How much {v[do]} {who} pay in total?",
    "How much does it cost?",
    "~What is the price of all that?",
    "How much {v[do]} {who} spend?",
    "How much is that in total?",
    "How many {thing} {v[do]} {who} spend in all?",
    "How many {thing} does all of that cost?",
    "What is the total price?",
    "What {v[do]} {who} pay for all that?",
)
PRICES = (
    "One {one} costs {n2_thing}. How many {thing} do {n_idle} cost?",
    "{a_one} costs {n2_thing}. How much do {n_idle} cost?",
    "{idle} cost {n2_thing} each. How much do {n_idle} cost?",
    "How much do {n_idle} cost at {n2_thing} each?",
    "~If each {one} costs {n2_thing}, what is the price of {n_idle}?",
    "What is the price of {n_idle} if one costs {n2_thing}?",
    "If one {one} costs {n2_thing}, how much do {n_idle} cost?",
    "Each {one} costs {n2_thing}. What do {n_idle} cost?",
    "How many {thing} are {n_idle} at {n2_thing} each?",
    "The price of {a_one} is {n2_thing}. What is the price of {n_idle}?",
)
CHANGE_BACK = (
    "{who} {v[pay]} with a {n3} {coin} note. How much change {v[do]} {who} get?",
    "{who} {v[pay]} with a {n3} {coin} note. How much comes back?",
    "{who} {v[give]} the seller a {n3} {coin} note. How many {thing} {v[do]} {who} get back?",
    "{who} {v[pay]} with {n3_thing}. How much change {v[do]} {who} get?",
    "{who} {v[give]} {n3_thing} to the seller. How many {thing} {v[do]} {who} get back?",
    "~{who} {v[hand]} over {n3_thing}. How many {thing} come back?",
    "{who} {v[hand]} over {n3_thing}. How much comes back?",
    "{who} {v[pay]} with {n3_thing}. How many {thing} come back?",
    "{who} {v[have]} {n3_thing}. How much is left after that?",
)
NOTES = (5, 10, 20, 50, 100, 200, 500)
HOW_MUCH_EARNED = (
    "How many {thing} {v[do]} {who} earn?",
    "How much {v[do]} {who} earn in all?",
    "How much money is that?",
    "~What does {who} earn in total?",
    "What does {who} earn?",
    "How many {thing} {w[do]} {who} get?",
    "How much {w[do]} {who} earn in total?",
)
BOUGHT = ("a book", "lunch", "a hat", "a ticket", "food", "bread", "a game", "shoes", "a present", "fruit", "a bag",
          "dinner", "a toy", "a lamp", "a shirt", "milk", "the bus", "a drink", "flowers", "a cake")  # fmt: skip
SPEND, EARN = Verb("spend", "spends", "spent"), Verb("earn", "earns", "earned")


def money(plot: Plot) -> Tale:
    """Prices, wages, and what is left of them."""
    currency, sign = plot.rng.choice(words.CURRENCIES)
    bought = plot.things[0]
    plot.things = [currency, bought]
    plot.sign = sign if plot.rng.random() < 0.35 else ""
    kind = plot.rng.choice(
        ("spend", "spend", "buy", "buy", "change", "work", "two prices", "price", "per span", "change of one")
    )
    if kind == "per span":
        return per_span(plot)
    if kind == "change of one":
        return change_of_one(plot)
    if kind in {"buy", "two prices"}:
        return paid(plot, 1 if kind == "buy" else 2)
    if kind == "price":
        plot.people = []
        k, price = sized(plot, 900)
        plot.say(PRICES, n=k, n2=price, thing=currency, idle=bought, one=words.singular(bought))
        return plot.close("money", plot.step("cost", k, "x", price, who="", other=bought), thing=currency)
    if kind == "work":
        hours, wage = plot.rng.randint(2, 9), plot.upto(60)
        plot.say(WORKS, plot.main, n=hours, n2=wage, thing=currency)
        plot.now(plot.step("rate", wage, "x", hours, who="", holder="hour", other="hours"))
        if plot.rng.random() < 0.4:
            distract(plot)
            plot.say(HOW_MUCH_EARNED, plot.main, thing=currency)
            return plot.close("money", plot.count, who=plot.main.name, thing=currency)
    else:
        count = plot.upto(LARGEST, 12)
        purse(plot, count, spent=kind == "spend" and plot.rng.random() < 0.2)
    if kind == "change":
        k = plot.rng.randint(2, 9)
        price = plot.upto(plot.count // k, 1)
        if k * price <= plot.count:
            plot.say(BUYS, plot.main, n=k, idle=bought, n2=price, thing=currency)
            cost = plot.step("cost", k, "x", price, who="", other=bought)
            plot.change(False, cost, SPEND, [len(plot.steps) - 1])
    for _ in range(few(plot, 3, int(plot.steps[-1].kind == "start"))):
        spend(plot)
    distract(plot)
    plot.say(HOW_MUCH, plot.main, thing=currency)
    return plot.close("money", plot.count, who=plot.main.name, thing=currency)


def purse(plot: Plot, count: int, *, spent: bool) -> None:
    """What somebody has to spend, and perhaps in the same sentence what of it is spent."""
    plot.start(count)
    if not spent:
        plot.say(PURSE, plot.main, n=count, thing=plot.thing)
        return
    n = plot.upto(count - 2, 1)
    plot.say(PURSE_AND_SPENT, plot.main, n=count, n2=n, thing=plot.thing, idle=plot.rng.choice(BOUGHT))
    plot.change(False, n, SPEND)


def per_span(plot: Plot) -> Tale:
    """So much a week, for so many weeks."""
    span = plot.rng.choice(SPAN)
    k, each = plot.rng.randint(2, 12), plot.upto(200)
    plot.say(PER_SPAN, plot.main, n=each, n2=k, thing=plot.thing, span=span, unit=f"{span}s")
    made = plot.step("rate", each, "x", k, who="", holder=span, other=f"{span}s")
    return plot.close("money", made, who=plot.main.name, thing=plot.thing)


def change_of_one(plot: Plot) -> Tale:
    """What comes back when one thing is paid."""
    price = plot.upto(NOTES[-1] - 1)
    given = plot.rng.choice([note for note in NOTES if note > price])
    coin = words.singular(plot.thing)
    plot.say(ONE_COSTS, plot.main, n=price, one=words.singular(plot.things[1]), thing=plot.thing)
    distract(plot, 0.2)
    plot.say(CHANGE_BACK, plot.main, n3=given, thing=plot.thing, coin=coin)
    back = plot.step("lose", given, "-", price, verb="pays")
    return plot.close("money", back, who=plot.main.name, thing=plot.thing)


def paid(plot: Plot, sorts: int) -> Tale:
    """What one or two sorts of things cost, or one and a single thing."""
    costs = []
    if sorts == 1 and plot.rng.random() < 0.2:
        return paid_at_once(plot)
    for sort in range(sorts):
        thing = plot.things[1] if sort == 0 else plot.count_thing()
        k, price = sized(plot, 900)
        plot.say(BUYS, plot.main, n=k, idle=thing, n2=price, thing=plot.thing)
        costs.append(plot.step("cost", k, "x", price, who="", other=thing))
    total = costs[0]
    if sorts == 2:
        total = plot.step("total", *_plus(costs), [0, 1], who="")
    elif plot.rng.random() < 0.3:
        n = plot.upto(200)
        plot.say(AND_ONE, plot.main, n=n, one=words.singular(plot.count_thing()), thing=plot.thing)
        total = plot.step("total", total, "+", n, [0], who="")
    distract(plot)
    if total < LARGEST and plot.rng.random() < 0.3:
        given = plot.rng.randint(total, min(LARGEST, total + 100))
        templates = [one for one in CHANGE_BACK if given in NOTES or "note" not in one]
        plot.say(templates, plot.main, n3=given, thing=plot.thing, coin=words.singular(plot.thing))
        back = plot.step("lose", given, "-", total, [len(plot.steps) - 1], verb="pays")
        return plot.close("money", back, who=plot.main.name, thing=plot.thing)
    plot.say(HOW_MUCH_PAID, plot.main, thing=plot.thing)
    return plot.close("money", total, who="", thing=plot.thing)


def paid_at_once(plot: Plot) -> Tale:
    """What several of a sort and one of another cost, told in one sentence."""
    (k, price), n = sized(plot, 900), plot.upto(200)
    plot.say(BUYS_AND_ONE, plot.main, n=k, idle=plot.things[1], n2=price, n3=n,
             one=words.singular(plot.count_thing()), thing=plot.thing)  # fmt: skip
    cost = plot.step("cost", k, "x", price, who="", other=plot.things[1])
    total = plot.step("total", cost, "+", n, [0], who="")
    distract(plot)
    plot.say(HOW_MUCH_PAID, plot.main, thing=plot.thing)
    return plot.close("money", total, who="", thing=plot.thing)


def _plus(both: list[int]) -> tuple[int, str, int]:
    return both[0], "+", both[1]


def spend(plot: Plot) -> None:
    """Money goes, once or twice in a sentence, or comes."""
    if plot.rng.random() < 0.3 or plot.count < 4:
        n = plot.upto(LARGEST)
        plot.say(EARNS, plot.main, n=n, thing=plot.thing, more=plot.rng.choice((" more", "")))
        plot.change(True, n, EARN)
        return
    n = plot.upto(plot.count - 2, 1)
    idle, idle2 = plot.rng.sample(BOUGHT, 2)
    plot.change(False, n, SPEND)
    if plot.rng.random() < 0.35:
        n2 = plot.upto(plot.count, 1)
        plot.say(SPENDS_TWICE, plot.main, n=n, n2=n2, thing=plot.thing, idle=idle, idle2=idle2)
        plot.change(False, n2, SPEND)
    else:
        plot.say(SPENDS, plot.main, n=n, thing=plot.thing, idle=idle)


ALL_HAVE = (
    "How many {thing} do they have in all?",
    "How many {thing} do they have together?",
    "How many {thing} are there altogether?",
    "How many {thing} do all of them have in total?",
    "~What is the sum of their {thing}?",
    "How many {thing} are there in all?",
    "What is the total number of {thing}?",
    "How many {thing} do they have altogether?",
    "How many {thing} do they own in total?",
    "What is the sum of all {thing}?",
    "How many {thing} is that in all?",
    "How many are their {thing} in total?",
)
HAVE_LIST = (
    "{first} {v[have]} {n_thing}, {second} {v[have]} {n2}, and {third} {v[have]} {n3}.",
    "{first} {v[have]} {n_thing}, {second} has {n2} and {third} has {n3}.",
    "~{first}, {second} and {third} {pl} {n}, {n2} and {n3} {thing}.",
    "{first} {v[have]} {n} {thing}, {second} {v[have]} {n2} {thing} and {third} {v[have]} {n3} {thing}.",
    "{first}, {second} and {third} {pl} {n}, {n2}, and {n3} {thing}.",
    "The {thing} of {first}, {second} and {third} are {n}, {n2} and {n3}.",
)
HAVE_BOTH = (
    "{first} {v[have]} {n_thing} and {second} {v[have]} {n2}.",
    "{first} {v[have]} {n_thing}, and {second} {v[have]} {n2_thing}.",
    "~{first} and {second} {pl} {n} and {n2} {thing}.",
    "{first} {v[have]} {n} {thing}, {second} {v[have]} {n2} {thing}.",
    "{first} {v[have]} {n_thing} while {second} {v[have]} {n2}.",
    "{first} and {second} {pl} {n_thing} and {n2}.",
)


TWO_SORTS = (
    "{who} {v[have]} {n} {sort} and {n2} {sort2} {thing}.",
    "{who} {v[have]} {n} {sort} {thing} and {n2} {sort2} ones.",
    "There are {n} {sort} and {n2} {sort2} {thing} in {whose} box.",
    "~{n} of {whose} {thing} are {sort}, and {n2} are {sort2}.",
    "There are {n} {sort} {thing} and {n2} {sort2} {thing} in {whose} bag.",
    "Of {whose} {thing}, {n} are {sort} and {n2} are {sort2}.",
    "{who} {v[own]} {n} {sort} and {n2} {sort2} {thing}.",
)


def two_sorts(plot: Plot) -> Tale:
    """Two sorts of one thing, counted together or compared."""
    plot.things[0] = plot.thing.split(" ")[-1]
    sort, sort2 = plot.rng.sample(words.KINDS, 2)
    n, n2 = plot.upto(LARGEST, 2), plot.upto(LARGEST, 2)
    plot.say(TWO_SORTS, plot.main, n=n, n2=n2, sort=sort, sort2=sort2, thing=plot.thing)
    distract(plot)
    plot.say(ALL_TOGETHER, plot.main, thing=plot.thing)
    return plot.close("totals", plot.step("total", n, "+", n2), who=plot.main.name, thing=plot.thing)


TWO_THINGS = (
    "There {be} {n_thing} and {n2_idle} {spot}. How many {sort} are {spot}?",
    "There {be} {n_thing} and {n2_idle} {spot}. How many {sort} are there in all?",
    "{n_thing} and {n2_idle} {be} {spot}. How many {sort} is that?",
    "There {be} {n_thing} {spot}, and also {n2_idle}. How many {sort} are there altogether?",
    "{who} {v[have]} {n_thing} and {n2_idle}. How many {sort} {w[do]} {who} have in all?",
    "{who} {v[have]} {n_thing} and {n2_idle}. How many {sort} {w[do]} {who} have?",
    "{who} {v[buy]} {n_thing} and {n2_idle}. How many {sort} is that in total?",
    "~{who} {v[own]} {n_thing} and also {n2_idle}. How many {sort} is that altogether?",
    "~{n_thing} and {n2_idle} {be} {spot}. How many {sort} are there altogether?",
)


def two_things(plot: Plot) -> Tale:
    """Two things that are counted together as what both are."""
    before, noun = words.spot(plot.rng, plot.split)
    idle = plot.whole()
    sort = plot.rng.choice([one for one in words.SORTS if one not in plot.things])
    n, n2 = plot.upto(LARGEST, 2), plot.upto(LARGEST, 2)
    template = plot.pick(TWO_THINGS)
    somebody = plot.main if "{who}" in template else None
    plot.people = plot.people if somebody else []
    fields: dict[str, Any] = {"thing": plot.thing, "idle": idle, "sort": sort, "be": plot.forms("be", plural=True)}
    spot = f"{before} {plot.rng.choice(('the', words.article(noun).split(' ')[0]))} {noun}"
    plot.lines.append(Line(template, {**fields, "n": n, "n2": n2, "spot": spot}, somebody))
    total = plot.step("total", n, "+", n2, who="", thing=sort)
    return plot.close("totals", total, who=somebody.name if somebody else "", thing=sort)


BOTH_DID = (
    "{first} {verb} {n_thing} and {second} {verb} {n2}.",
    "{first} {verb} {n_thing}. {second} {verb} {n2}.",
    "{first} {verb} {n_thing}, and {second} {verb} {n2_thing}.",
    "~{first} {verb} {n_thing} while {second} {verb} {n2}.",
)
DID_MORE = (
    "How many more {thing} did {who} {base} than {other}?",
    "How many more did {who} {base} than {other}?",
    "How many more {thing} did {who} {base}?",
    "How many {thing} more than {other} did {who} {base}?",
    "How many fewer {thing} did {other} {base} than {who}?",
    "~By how many {thing} is {who} ahead of {other}?",
)
DID_TOGETHER = (
    "How many {thing} did they {base} together?",
    "How many {thing} did they {base} in all?",
    "How many did {who} and {other} {base} together?",
    "How many {thing} did {who} and {other} {base} in total?",
    "~How many {thing} did both {base} altogether?",
)


def both_did(plot: Plot) -> Tale:
    """What two people did, counted together or compared."""
    plot.tense = "past"
    verb = plot.rng.choice([one for one in (*words.GAINS, *words.LOSSES, *words.DEEDS) if not one.tail])
    first, second = plot.main, plot.meet()
    n, n2 = plot.upto(LARGEST), plot.upto(LARGEST)
    plot.say(BOTH_DID, first=first.name, second=second.name, n=n, n2=n2, thing=plot.thing, verb=verb)
    distract(plot)
    asked: dict[str, Any] = {"thing": plot.thing, "base": verb.base}
    if n != n2 and plot.rng.random() < 0.6:
        if n < n2:
            first, second, n, n2 = second, first, n2, n
        plot.say(DID_MORE, first, other=second.name, **asked)
        apart = plot.step("apart", n, "-", n2, who=first.name, other=second.name)
        return plot.close("totals", apart, thing=plot.thing)
    plot.say(DID_TOGETHER, first, other=second.name, **asked)
    total = plot.step("total", n, "+", n2, who=first.name, other=second.name)
    return plot.close("totals", total, thing=plot.thing)


TIMES = (
    tuple(f"on {day}" for day in DAYS),
    ("in the morning", "at noon", "in the afternoon", "in the evening", "at night"),
    ("in the first week", "in the second week", "in the third week", "in the last week"),
    ("on the first day", "on the second day", "on the third day", "on the last day"),
    ("in May", "in June", "in July", "in August", "in September"),
    ("in the first hour", "in the second hour", "in the third hour", "in the last hour"),
)
"""One after the other."""
TWICE = (
    "{t1} {who} {verb} {n_thing}, and {t2} {n2}.",
    "{who} {verb} {n_thing} {t1} and {n2} {t2}.",
    "{who} {verb} {n_thing} {t1} and {n2} more {t2}.",
    "~{t1} {who} {verb} {n_thing}, {t2} another {n2}.",
    "{t1} {n_thing} {vp[come]}, and {t2} {n2}.",
    "{t1} {n_thing} {vp[come]} and {t2} another {n2}.",
)
THRICE = (
    "{t1} {who} {verb} {n_thing}, {t2} {n2} and {t3} {n3}.",
    "{t1} {who} {verb} {n_thing}, {t2} {n2}, and {t3} {n3}.",
    "{who} {verb} {n_thing} {t1}, {n2} {t2} and {n3} {t3}.",
    "~{who} {verb} {n_thing} {t1}, {n2} more {t2}, and another {n3} {t3}.",
    "{t1} {n_thing} {vp[come]}, {t2} {n2} and {t3} {n3}.",
    "{n_thing} {vp[come]} {t1}, {n2} {t2} and {n3} {t3}.",
)
DID_IN_ALL = (
    "How many {thing} did {who} {base} in all?",
    "How many {thing} did {who} {base} altogether?",
    "How many {thing} is that in total?",
    "How many did {who} {base} in that time?",
    "~How many {thing} is that altogether?",
)
CAME_IN_ALL = (
    "How many {thing} came in all?",
    "How many {thing} came in that time?",
    "How many {thing} is that in total?",
    "How many {thing} came altogether?",
    "~How many came in total?",
)


def day_by_day(plot: Plot) -> Tale:
    """The same done, or coming, on two or three days."""
    plot.tense = "past"
    times = plot.rng.choice(TIMES)
    begin = plot.rng.randrange(len(times) - 2)
    numbers = [plot.upto(LARGEST, 2) for _ in range(plot.rng.choice((2, 3, 3)))]
    template = plot.pick(TWICE if len(numbers) == 2 else THRICE)
    somebody = plot.main if "{who}" in template else None
    if not somebody:
        plot.people, plot.things = [], [words.creatures(plot.rng, plot.split)]
    verb = plot.rng.choice([one for one in (*words.GAINS, *words.LOSSES, *words.DEEDS) if not one.tail])
    told = {"n" if at == 0 else f"n{at + 1}": n for at, n in enumerate(numbers)}
    when = {f"t{at + 1}": times[begin + at] for at in range(len(numbers))}
    plot.lines.append(Line(template, {**told, **when, "thing": plot.thing, "verb": verb}, somebody))
    distract(plot, about_main=bool(somebody))
    plot.say(DID_IN_ALL if somebody else CAME_IN_ALL, somebody, thing=plot.thing, base=verb.base)
    total, before = numbers[0], -1
    for n in numbers[1:]:
        total = plot.step("total", total, "+", n, [before], who="")
        before = len(plot.steps) - 1
    return plot.close("totals", total, who=somebody.name if somebody else "", thing=plot.thing)


def totals(plot: Plot) -> Tale:
    """Several people, counted together or compared."""
    kind = plot.rng.random()
    for share, form in ((0.14, two_sorts), (0.28, two_things), (0.42, both_did), (0.56, day_by_day)):
        if kind < share:
            return form(plot)
    count = plot.rng.choice((2, 2, 3, 3, 4))
    everybody = [plot.main, *(plot.meet() for _ in range(count - 1))]
    own = [plot.upto(LARGEST) for _ in everybody]
    at = [-1] * count
    have: dict[str, Any] = {"pl": plot.forms("have", plural=True)}
    if count == 2 and plot.rng.random() < 0.4:
        plot.say(HAVE_BOTH, first=everybody[0].name, second=everybody[1].name, n=own[0], n2=own[1],
                 thing=plot.thing, **have)  # fmt: skip
    elif count == 3 and plot.rng.random() < 0.5:
        first, second, third = (one.name for one in everybody)
        plot.say(HAVE_LIST, first=first, second=second, third=third, n=own[0], n2=own[1], n3=own[2],
                 thing=plot.thing, **have)  # fmt: skip
    else:
        for place, (who, has) in enumerate(zip(everybody, own, strict=True)):
            plot.say(HAS, who, n=has, thing=plot.thing)
            if plot.rng.random() < 0.25:
                up = plot.rng.random() < 0.5
                n, verb = plot.upto(LARGEST if up else has, 1), plot.rng.choice(words.GAINS if up else words.LOSSES)
                plot.say(fitting(CHANGE, verb, n), who, n=n, thing=plot.thing, verb=verb, more="",
                         day=plot.rng.choice(DAYS))  # fmt: skip
                said: dict[str, Any] = {"who": who.name, "verb": verb.third, "tail": verb.tail}
                own[place] = plot.step("gain" if up else "lose", has, "+" if up else "-", n, **said)
                at[place] = len(plot.steps) - 1
    distract(plot)
    if plot.rng.random() < 0.25 and own[0] != own[1]:
        a, b = (0, 1) if own[0] > own[1] else (1, 0)
        who, other = everybody[a], everybody[b]
        plot.say(HOW_MANY_MORE, who, thing=plot.thing, other=other.name)
        apart = plot.step("apart", own[a], "-", own[b], [at[a], at[b]], who=who.name, other=other.name)
        return plot.close("totals", apart, thing=plot.thing)
    plot.say(ALL_HAVE, thing=plot.thing)
    total, before = own[0], at[0]
    for place in range(1, count):
        names: dict[str, Any] = {"who": everybody[0].name, "other": everybody[1].name} if place == 1 else {"who": ""}
        total = plot.step("total", total, "+", own[place], [before, at[place]], **names)
        before = len(plot.steps) - 1
    return plot.close("totals", total, thing=plot.thing)


ASK_VALUE = (
    "What is {sum}?",
    "Calculate {sum}.",
    "Work out {sum}.",
    "How much is {sum}?",
    "{sum} = ?",
    "Compute {sum}",
    "~What do you get for {sum}?",
    "~Find the value of {sum}.",
    "Find {sum}.",
    "What is the value of {sum}?",
    "What does {sum} make?",
    "{sum}",
    "Please compute {sum}.",
    "Evaluate {sum}.",
    "What is the result of {sum}?",
    "What do you get when you compute {sum}?",
)
SIGNS: tuple[dict[str, str], ...] = (
    {}, {"x": "*"}, {"x": "*"}, {"x": "×"}, {"x": "×", "/": ":"}, {"x": "*", "/": "÷"}, {"x": "times"},
    {"+": "plus", "-": "minus", "x": "times", "/": "divided by"},
)  # fmt: skip
"""How the operations are written."""


def expressions(plot: Plot) -> Tale:
    """An expression with + - x / and brackets, worked out in the usual order."""
    plot.people, plot.things = [], []
    tree = _grow(plot, plot.rng.choice((1, 1, 2, 2, 2, 3, 3, 4)))
    signs = plot.rng.choice(SIGNS)
    spaced = plot.rng.random() < 0.85 or "+" in signs or signs.get("x") == "times"
    plot.say(ASK_VALUE, sum=_shown(tree, signs, " " if spaced else ""))
    value = _evaluate(plot, tree)
    return plot.close("expressions", value)


Expression = int | tuple["Expression", str, "Expression"]


def _grow(plot: Plot, operations: int) -> Expression:
    """An expression of so many operations whose every part is a whole number from 0 to 9,999."""
    while True:
        tree = _random(plot, operations)
        if _value(tree) is not None:
            return tree


def _random(plot: Plot, operations: int) -> Expression:
    if operations == 0:
        return plot.upto(LARGEST, 1) if plot.rng.random() < 0.4 else plot.rng.randint(1, 12)
    below = plot.rng.randrange(operations)
    operation = plot.rng.choice("++--xx/")
    return _random(plot, below), operation, _random(plot, operations - 1 - below)


def _value(tree: Expression) -> int | None:
    """The value; None where a part of it is out of range or is too much for one step."""
    if isinstance(tree, int):
        return tree
    left, right = _value(tree[0]), _value(tree[2])
    if left is None or right is None:
        return None
    if tree[1] == "/" and (right == 0 or right > 12 or left % right):
        return None
    if tree[1] == "x" and min(left, right) > 25:
        return None
    value = compute(left, tree[1], right)
    return value if 0 <= value <= 9999 else None


def _shown(tree: Expression, signs: dict[str, str], space: str, above: str = "", *, right: bool = False) -> str:
    if isinstance(tree, int):
        return str(tree)
    operation = tree[1]
    text = space.join(
        (
            _shown(tree[0], signs, space, operation),
            signs.get(operation, operation),
            _shown(tree[2], signs, space, operation, right=True),
        )
    )
    return f"({text})" if bracketed(operation, above, right=right) else text


def bracketed(operation: str, above: str, *, right: bool) -> bool:
    """Whether an operation needs a bracket below another."""
    low, low_above = operation in "+-", above in {"+", "-"}
    if not above or (not low and low_above):
        return False
    return low != low_above or right


def _evaluate(plot: Plot, tree: Expression) -> int:
    """Add the steps in the usual order: brackets, then x and /, then + and -, each from left to right."""

    def visit(part: Expression, above: str = "", *, right: bool = False) -> tuple[int, int]:
        if isinstance(part, int):
            return part, -1
        (left, at), (other, before) = visit(part[0], part[1]), visit(part[2], part[1], right=True)
        kind: Kind = "bracket" if bracketed(part[1], above, right=right) else "value"
        plot.step(kind, left, part[1], other, [at, before], who="", thing="")
        return plot.steps[-1].value, len(plot.steps) - 1

    return visit(tree)[0]


FORMS: dict[str, Callable[[Plot], Tale]] = {
    "changes": changes,
    "groups": groups,
    "shares": shares,
    "comparisons": comparisons,
    "units": units,
    "money": money,
    "totals": totals,
    "expressions": expressions,
}
"""By name, in the order of the model card."""
