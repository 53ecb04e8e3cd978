"""The forms of problems: one function each, over tables of sentences.

A sentence that begins with a tilde is held out for testing. In the sentences ``{v[have]}`` is a verb in the tale's
tense, ``{p[have]}`` one in the past, ``{w[have]}`` one in the present; ``{n_thing}`` is a number with what it counts.
"""

from __future__ import annotations

from collections.abc import Callable

from specreason_sgl.embedded.tales import words
from specreason_sgl.embedded.tales.facts import Tale
from specreason_sgl.embedded.tales.plot import LARGEST, Line, Plot
from specreason_sgl.embedded.tales.words import Person, Verb

START = (
    "{who} {v[have]} {n_thing}.",
    "{who} {v[start]} with {n_thing}.",
    "At first {who} {v[have]} {n_thing}.",
    "{who} {v[have]} {n_thing} in a box.",
    "There {b} {n_thing} in {who}'s room.",
    "{who} {v[own]} {n_thing}.",
    "~In the beginning, {who} {v[have]} {n_thing}.",
    "~{who} {v[hold]} {n_thing}.",
)
LATE_START = (
    "Before all this, {who} {p[have]} {n_thing}.",
    "{who} {p[have]} {n_thing} at the beginning.",
    "{who} {p[start]} with {n_thing}.",
    "~Earlier, {who} {p[have]} {n_thing}.",
)
CHANGE = (
    "{who} {verb} {n_thing}{verb_tail}.",
    "{who} {verb} {n}{more} {thing}{verb_tail}.",
    "Then {who} {verb} {n}{verb_tail}.",
    "Then {who} {verb} {n_thing}{verb_tail}.",
    "Later {who} {verb} {n} of them{verb_tail}.",
    "After that, {who} {verb} {n}{more} {thing}{verb_tail}.",
    "On {day}, {who} {verb} {n_thing}{verb_tail}.",
    "~The next day {who} {verb} {n_thing}{verb_tail}.",
    "~Soon {who} also {verb} {n_thing}{verb_tail}.",
)
CHANGES = (
    "{who} {verb} {n_thing}{verb_tail} and then {second} {n2}{second_tail}.",
    "{who} {verb} {n_thing}{verb_tail} and {second} {n2}{second_tail}.",
    "{who} first {verb} {n}{verb_tail}, then {second} {n2}{second_tail}.",
    "~After {who} {verb} {n_thing}{verb_tail}, {them} {second} {n2}{second_tail}.",
)
FROM_OTHER = (
    "{other} {third} {who} {n_thing}.",
    "{who} {v[get]} {n_thing} from {other}.",
    "~{who} {v[receive]} {n_thing} from {other}.",
)
TO_OTHER = (
    "{who} {v[give]} {n_thing} to {other}.",
    "{who} {v[give]} {other} {n_thing}.",
    "~{who} {v[hand]} {n_thing} to {other}.",
)
HOW_MANY = (
    "How many {thing} {w[do]} {who} have now?",
    "How many {thing} {w[do]} {who} have in the end?",
    "How many {thing} {w[do]} {who} have?",
    "How many {w[do]} {who} have now?",
    "How many {thing} {w[have]} {who} got now?",
    "~How many {thing} {w[be]} {who} left with?",
    "~Find the number of {thing} that {who} {w[have]} now.",
)
HOW_MANY_LEFT = (
    "How many {thing} are left?",
    "How many {thing} {w[do]} {who} have left?",
    "How many are left?",
    "~How many {thing} remain?",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

GIVE, GET = Verb("give", "gives", "gave", "away"), Verb("get", "gets", "got")


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
    if plot.rng.random() < 0.15:
        verb = GET if up else GIVE
        third = GIVE.form(plot.tense, plural=False)
        other = plot.meet().name
        plot.lines.append(
            Line(
                plot.pick(FROM_OTHER if up else TO_OTHER),
                {"n": n, "thing": plot.thing, "other": other, "third": third},
                plot.main,
                others=True,
            )
        )
    else:
        more = plot.rng.choice((" more", " other", "")) if up else ""
        clear = plot.lines and "holder" not in plot.lines[-1].fields
        templates = CHANGE if clear else [one for one in CHANGE if "thing}" in one]
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
    plot.say(CHANGES, plot.main, n=n, thing=plot.thing, verb=verb, n2=n2, second=second)


def plain_changes(plot: Plot, count: int) -> None:
    """So many changes, some of them two in a sentence."""
    while count > 0:
        two = count > 1 and plot.rng.random() < 0.25 and 4 <= plot.count <= LARGEST - 4
        (two_changes if two else one_change)(plot)
        count -= 2 if two else 1


def begin(plot: Plot, count: int) -> Line | None:
    """What the main person has to begin with; the sentence itself where it is told later."""
    plot.start(count)
    late = plot.rng.random() < 0.15
    fields = {"n": count, "thing": plot.thing, "b": "is" if count == 1 else "are"}
    line = Line(plot.pick(LATE_START if late else START), fields, plot.main)
    if late:
        return line
    plot.lines.append(line)
    return None


def ask(plot: Plot, form: str, late: Line | None = None) -> Tale:
    """How many there are now."""
    if late:
        plot.lines.insert(plot.rng.randint(1, len(plot.lines)) if plot.lines else 0, late)
    distract(plot)
    lost = plot.steps[-1].kind == "lose" and plot.rng.random() < 0.6
    plot.say(HOW_MANY_LEFT if lost else HOW_MANY, plot.main, thing=plot.thing)
    return plot.close(form, plot.count, who=plot.main.name, thing=plot.thing)


DISTRACTORS = (
    "{who} {w[be]} {n} years old.",
    "The table has {n} {idle} on it.",
    "A bag of {idle} costs {n} {money}.",
    "It is {n} degrees outside.",
    "{other} has {n} {idle}.",
    "There are {n} children at {who}'s school.",
    "{who}'s favourite number is {n}.",
    "{who} {w[have]} {n} {idle} too.",
    "{who} {w[live]} at number {n} of a long road.",
    "~A friend named {other} has {n} {idle}.",
    "~The shop is {n} metres away.",
)


def distract(plot: Plot, share: float = 0.3) -> None:
    """Sometimes a sentence with a number that does not matter, anywhere before the question."""
    if plot.rng.random() >= share:
        return
    template = plot.pick(DISTRACTORS)
    fields = {"n": plot.rng.randint(2, 60), "idle": plot.count_thing(), "money": plot.rng.choice(words.CURRENCIES)[0]}
    if "{other}" in template:
        fields["other"] = plot.meet().name
    who = plot.main if "{who}" in template else None
    line = Line(template, fields, who, others="other" in fields)
    places = [at for at, after in enumerate(plot.lines) if "thing}" in after.template]
    plot.lines.insert(plot.rng.choice([*places, len(plot.lines)]), line)


def changes(plot: Plot) -> Tale:
    """Gains and losses, one after the other."""
    late = begin(plot, plot.upto(LARGEST, 0))
    plain_changes(plot, 1 + few(plot, 7))
    return ask(plot, "changes", late)


GROUPS = (
    "{who} {v[have]} {n_holder} with {n2_thing} each.",
    "{who} {v[have]} {n_holder}. Each {one} holds {n2_thing}.",
    "{who} {v[have]} {n_holder} and each {one} has {n2_thing} in it.",
    "{who} {v[have]} {n_holder} of {n2_thing} each.",
    "There are {n_holder} with {n2_thing} in each at {who}'s place.",
    "{who} {v[put]} {n2_thing} into each of {n_holder}.",
    "~{who} {v[own]} {n_holder}, and every {one} contains {n2_thing}.",
    "~Each of {who}'s {n_holder} holds {n2_thing}.",
)
MORE_GROUPS = (
    "{who} {verb} {n_holder} with {n2_thing} each{verb_tail}.",
    "Then {who} {verb} {n_holder} of {n2_thing} each{verb_tail}.",
    "{who} {verb} {n_holder}{verb_tail}. Each {one} holds {n2_thing}.",
    "~After that {who} {verb} {n_holder}{verb_tail}, each {one} with {n2_thing}.",
)
ALL_TOGETHER = (
    "How many {thing} {w[do]} {who} have?",
    "How many {thing} {w[do]} {who} have in all?",
    "How many {thing} are there altogether?",
    "How many {thing} are there in total?",
    "How many {w[do]} {who} have in all?",
    "~What is the total number of {thing}?",
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
    holder, verb = plot.rng.choice(words.HOLDERS), plot.rng.choice(words.GAINS if up else words.LOSSES)
    plot.say(
        MORE_GROUPS, plot.main, n=k, holder=holder, n2=each, thing=plot.thing, verb=verb, one=words.singular(holder)
    )
    made = plot.step("groups", k, "x", each, holder=holder, who="")
    plot.change(up, made, verb, [len(plot.steps) - 1])


def groups(plot: Plot) -> Tale:
    """Holders with the same number in each."""
    late = None
    if plot.rng.random() < 0.5:
        k, each = sized(plot, 5000)
        holder = plot.rng.choice(words.HOLDERS)
        plot.say(GROUPS, plot.main, n=k, holder=holder, n2=each, thing=plot.thing, one=words.singular(holder))
        plot.now(plot.step("groups", k, "x", each, holder=holder, who=""))
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
    "{who} {v[have]} got {n_thing}.",
    "~In {who}'s box there are {n_thing}.",
)
HAS_MORE = (
    "{who} {v[have]} {n} more {thing} than {other}.",
    "{who} {v[have]} {n} more than {other}.",
    "{who} {v[own]} {n} more {thing} than {other} {v[do]}.",
    "~Compared with {other}, {who} {v[have]} {n} more {thing}.",
)
HAS_FEWER = (
    "{who} {v[have]} {n} fewer {thing} than {other}.",
    "{who} {v[have]} {n} fewer than {other}.",
    "{who} {v[have]} {n} less than {other}.",
    "~Compared with {other}, {who} {v[have]} {n} fewer {thing}.",
)
HAS_TIMES = (
    "{who} {v[have]} {times} as many {thing} as {other}.",
    "{who} {v[have]} {times} as many as {other}.",
    "{who} {v[own]} {times} as many {thing} as {other} {v[do]}.",
    "~The {thing} of {who} are {times} as many as those of {other}.",
)
HAS_HALF = (
    "{who} {v[have]} half as many {thing} as {other}.",
    "{who} {v[have]} half as many as {other}.",
    "~{who} {v[own]} only half as many {thing} as {other}.",
)
HOW_MANY_HAS = (
    "How many {thing} {w[do]} {who} have?",
    "How many {w[do]} {who} have?",
    "How many {thing} {w[have]} {who} got?",
    "~What is the number of {thing} that {who} {w[have]}?",
)
HOW_MANY_TOGETHER = (
    "How many {thing} do they have together?",
    "How many {thing} do {who} and {other} have together?",
    "How many {thing} do {who} and {other} have in all?",
    "How many {thing} do the two have in total?",
    "~What do {who} and {other} have together?",
)
HOW_MANY_MORE = (
    "How many more {thing} does {who} have than {other}?",
    "How many more does {who} have than {other}?",
    "How many {thing} more than {other} does {who} have?",
    "~By how many {thing} is {who} ahead of {other}?",
)


def compared(plot: Plot, who: Person, other: Person, theirs: int, at: int) -> int:
    """Somebody has more, fewer, or a multiple of what another has; returns how many."""
    said = {"who": who.name, "other": other.name}
    fields = {"thing": plot.thing, "other": other.name}
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
    first = plot.main
    has = plot.upto(LARGEST)
    own = [(first, has, -1)]
    plot.say(HAS, first, n=has, thing=plot.thing)
    for _ in range(plot.rng.choice((1, 1, 1, 2, 2, 3))):
        other, theirs, at = own[-1] if plot.rng.random() < 0.7 else plot.rng.choice(own)
        who = plot.meet()
        value = compared(plot, who, other, theirs, at)
        own.append((who, value, len(plot.steps) - 1))
    if plot.rng.random() < 0.3:
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
        said = {"who": who.name, "other": other.name}
        total = plot.step("total", value, "+", theirs, [at, before], **said)
        return plot.close("comparisons", total, thing=plot.thing)
    if value < theirs:
        (who, value, at), (other, theirs, before) = own[-2], own[-1]
    plot.say(HOW_MANY_MORE, who, thing=plot.thing, other=other.name)
    apart = plot.step("apart", value, "-", theirs, [at, before], who=who.name, other=other.name)
    return plot.close("comparisons", apart, thing=plot.thing)


FORMS: dict[str, Callable[[Plot], Tale]] = {"changes": changes, "groups": groups, "comparisons": comparisons}
"""By name, in the order of the model card."""
