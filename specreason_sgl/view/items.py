"""A step or other text as lines, with the candidates that there were for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.text import Text

from specreason_sgl.events import CallKind, StepScored
from specreason_sgl.runs.redecide import Redecision
from specreason_sgl.view import figures
from specreason_sgl.view.lines import Part, label, line
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.steps import Candidate, Item, StepState, TextState, told, utility
from specreason_sgl.view.text import fit, head, one_line, shorten, wrap
from specreason_sgl.view.theme import GUTTERS, SIGNS, WORD, Sign, SignName

TINY, NARROW, WIDE = 40, 60, 90
"""Below each of these widths a step's heading leaves out more of its figures."""
LOW = 16
"""Below this height the frame leaves out all but the essentials."""
FOLDED = 6
"""How many lines of a long step are shown until it is opened."""
INDENT = 7
LABEL = 15
CHOICE = 5
"""How many candidates of a step are listed until it is opened."""
SURE = 0.01
"""Up to so many bits of entropy a score stands beside another figure only because one had to be recorded."""
FIGURE = 5
"""The cells of a candidate's figure."""
CRAMPED = 48
"""Below this width no more is shown of candidates than which was taken."""
REASON = 40
"""The most cells of a program's reason."""
TIMED: tuple[tuple[CallKind, str], ...] = (("draft", "draft"), ("judge", "judge"), ("regenerate", "base"))


@dataclass(frozen=True)
class Look:
    """How to look at a solve."""

    width: int = 100
    height: int = 40
    now: float | None = None
    """The clock, in seconds since the solve began; None stands still at the last event."""
    colour: bool = True
    cursor: int | None = None
    """The selected step or other text, counted from the first; None follows the end."""
    offset: int = 0
    """How many lines the view is scrolled down from there."""
    opened: frozenset[int] = frozenset()
    """The places of items that are shown in full; of a step, with its drafts."""
    folded: frozenset[int] = frozenset()
    """The chains whose items are folded into a line."""
    found: str = ""
    """Text that is highlighted wherever it stands."""
    title: str = ""
    keys: str = ""
    redecision: Redecision | None = None

    @property
    def inside(self) -> int:
        """The width of a step's text."""
        return max(1, self.width - INDENT - 1)


def of_chain(number: int) -> str:
    """Which chain something is of, where it is not the first."""
    return f" of chain {number}" if number else ""


def is_unreal(item: Item, look: Look) -> bool:
    """Whether an item follows a decision that would differ."""
    return look.redecision is not None and look.redecision.is_counterfactual(item.decided)


def item_lines(item: Item, state: SolveState, look: Look, *, chosen: bool = False) -> list[Text]:
    """A step, or text that is no step."""
    if isinstance(item, TextState):
        return _text_lines(item, state, look, chosen=chosen)
    return (
        _cut_lines(item, state, look, chosen=chosen)
        if item.cut is not None
        else _step_lines(item, state, look, chosen=chosen)
    )


def _step_lines(step: StepState, state: SolveState, look: Look, *, chosen: bool) -> list[Text]:
    """One step: its heading, its text, and the draft that was rejected folded beneath."""
    unreal = is_unreal(step, look)
    lines = [_heading(step, state, look, chosen=chosen), *([] if step.is_choice else _flip(step.score, look))]
    gutter = "╎" if unreal else GUTTERS.get(step.sign, "│")
    style = state.sign_of(step).style
    opened = step.place in look.opened
    writing = step.author is None and step.sign != "judging"
    for row in text_rows(step.shown, look, opened=opened, writing=writing):
        row.style = "dim" if unreal else ""
        lines.append(under(gutter, style, row))
    if step.is_choice:
        lines += _choice(step, state, look, opened=opened)
    elif step.rejected is not None:
        lines += _rejected(step, look, opened=opened)
    return lines


def _cut_lines(step: StepState, state: SolveState, look: Look, *, chosen: bool) -> list[Text]:
    """A step that was taken back: struck out, and no more than a line of it until it is opened."""
    heading = _heading(step, state, look, chosen=chosen)
    return [heading, *_flip(step.score, look), _inside("cut", _cut_words(step), look), *_struck(step, look)]


def _flip(score: StepScored | None, look: Look) -> list[Text]:
    decision = look.redecision.on(score) if look.redecision else None
    if decision is None or not decision.flips:
        return []
    now = label("accepted" if decision.now else "rejected")
    return [_inside("flip", line(label("flip"), " to ", now), look)]


def _cut_words(item: Item) -> Text:
    return line(label("cut"), (f": {shorten(item.cut or '', REASON)}", "dim"))


def _struck(item: Item, look: Look) -> list[Text]:
    opened = item.place in look.opened
    rows = wrap(item.shown, look.inside) if opened else (shorten(item.shown, look.inside),)
    marked = [_marked(row, look) for row in rows]
    for row in marked:
        row.style = "dim strike"
    return [_inside("cut", row, look) for row in marked]


def _text_lines(text: TextState, state: SolveState, look: Look, *, chosen: bool) -> list[Text]:
    """Text that is no step, as a quiet passage with the name of who wrote it."""
    sign = state.sign_of_author(text.author)
    wrote = text.author in {"base", "small"}
    gutter = "╎" if is_unreal(text, look) else GUTTERS["cut" if text.cut is not None else "added"]
    heading = line(("›" if chosen else " ", "bold"), " " * (INDENT - 3), (gutter, sign.style), " ")
    if not wrote:
        heading.append(*label("added")).append(" by ", "dim")
    heading.append(*label(sign))
    if text.tokens:
        heading.append(f"  {figures.count(text.tokens)} tok", "dim")
    if text.cut is not None:
        heading.append("  ").append_text(_cut_words(text))
        return [heading, *_struck(text, look)]
    rows = text_rows(text.shown, look, opened=text.place in look.opened, writing=False)
    for row in rows:
        row.style = "" if wrote else sign.style
    return [heading, *(under(gutter, sign.style, row) for row in rows)]


def text_rows(text: str, look: Look, *, opened: bool, writing: bool) -> list[Text]:
    """A text as lines: folded where it is long, and by its end while it is being written."""
    if not text:
        return []
    if writing:
        # The newest lines matter while a step is being written; a long one is not laid out from its beginning.
        rows = wrap(text[-FOLDED * look.inside :], look.inside)[-FOLDED:]
        return [_marked(row + ("▌" if place + 1 == len(rows) else ""), look) for place, row in enumerate(rows)]
    if opened:
        return [_marked(row, look) for row in wrap(text, look.inside)]
    rows, more = head(text, look.inside, FOLDED + 1)
    if not more:
        return [_marked(row, look) for row in rows]
    more += len(rows[-1])
    return [*(_marked(row, look) for row in rows[:-1]), line((f"▸ {figures.count(more)} more characters", "dim"))]


def _marked(row: str, look: Look) -> Text:
    text = line(row)
    if look.found:
        text.highlight_words([look.found], "reverse", case_sensitive=False)
    return text


def _rejected(step: StepState, look: Look, *, opened: bool) -> list[Text]:
    draft = step.rejected or ""
    sign = SIGNS["rejected"]
    lead: list[Part] = [
        (sign.label, sign.style),
        (f"  {figures.count(step.draft_tokens)} tok", "dim"),
        (" ▾" if opened else " ▸ ", "dim"),
    ]
    heading = line(*lead)
    if not opened:
        heading.append(shorten(draft, max(1, look.inside - heading.cell_len)), "dim")
        return [_inside("rejected", heading, look)]
    rows = [_marked(row, look) for row in wrap(draft, look.inside)]
    for row in rows:
        row.style = "dim"
    return [_inside("rejected", each, look) for each in (heading, *rows)]


def _choice(step: StepState, state: SolveState, look: Look, *, opened: bool) -> list[Text]:
    """The candidates of a step, a line for each."""
    candidates, unfinished = list(step.candidates.values()), step.unfinished
    many = len(step.candidates | unfinished)
    taken = sum(each.is_accepted for each in candidates)
    scored = step.score
    words = line((f"{many} candidates", "dim"))
    if scored:
        words.append(f" by {told(scored, 0, state.rule)[0]}", "dim")
    if not opened and (look.width < CRAMPED or look.height < LOW):
        if scored:
            words = line(label("accepted" if taken else "rejected"), (f" {taken} of ", "dim")).append_text(words)
        return [_inside("rejected", words.append(" ▸", "dim"), look)]
    shown = candidates if opened else _foremost(candidates, state)
    rows = [_inside("rejected", words.append(" ▾" if opened else "", "dim"), look)]
    for each in shown:
        rows += _candidate(each, step, state, look, opened=opened)
    tails = list(unfinished.values())[: None if opened else CHOICE]
    for text in tails:
        sign = SIGNS["drafting" if step.newest == "draft" else "regenerating"]
        room = look.inside - FIGURE - 5
        tail = one_line(text[-2 * room :] if room > 0 else "")
        tail = tail if cell_len(tail) < room else "…" + tail[2 - room :]
        rows.append(_inside("rejected", line((sign.glyph, sign.style), " " * (FIGURE + 4), f"{tail}▌"), look))
    more = len(candidates) - len(shown) + len(unfinished) - len(tails)
    return rows + ([_inside("rejected", line((f"▸ {more} more", "dim")), look)] if more else [])


def _foremost(candidates: Sequence[Candidate], state: SolveState) -> list[Candidate]:
    """The candidates that are listed where there is not room for all: those with the greatest figures, in order."""

    def rank(each: Candidate) -> tuple[bool, float]:
        score = each.score
        if score is None:
            return each.is_accepted, -1.0
        return each.is_accepted, utility(score, each.tokens, state.rule)[0] if score.value is None else score.value

    best = sorted(candidates, key=rank, reverse=True)[:CHOICE]
    return [each for each in candidates if any(each is one for one in best)]


def _candidate(each: Candidate, step: StepState, state: SolveState, look: Look, *, opened: bool) -> list[Text]:
    """One of the candidates: whether it was taken, what it was worth, who wrote it, and its text."""
    sign = candidate_sign(each, step)
    writer = state.sign_of_author(each.author)
    figure = told(each.score, each.tokens, state.rule)[1] if each.score else "–"
    words = line((sign.glyph, sign.style), f" {figure:>{FIGURE}} ", (writer.glyph, writer.style), " ")
    if _flip(each.score, look):
        words.append(SIGNS["flip"].glyph + " ", SIGNS["flip"].style)
    is_steps = each.is_accepted and each.text == step.text
    if not opened:
        text = _marked(shorten(each.text or "", max(1, look.inside - words.cell_len)), look)
        text.style = "" if is_steps else "dim"
        return [_inside("rejected", words.append_text(text), look)]
    words.append(" · ".join((state.name_of(each.author).word, *candidate_words(each, step, state))), "dim")
    rows = [] if is_steps else [_marked(row, look) for row in wrap(each.text or "", look.inside)]
    for row in rows:
        row.style = "dim"
    return [_inside("rejected", row, look) for row in (words, *rows)]


def candidate_sign(each: Candidate, step: StepState) -> Sign:
    """Whether a candidate was taken, as far as that is decided."""
    if each.score is not None:
        return SIGNS["accepted" if each.is_accepted else "rejected"]
    is_open = step.author is None and not step.is_over
    return SIGNS["judging"] if is_open else replace(SIGNS["waiting"], word="not scored")


def candidate_words(each: Candidate, step: StepState, state: SolveState) -> Iterator[str]:
    """How long a candidate is, what a judge said of it beside the figure, and what became of it."""
    yield f"{figures.count(each.tokens)} tok"
    if each.score and each.score.value is not None and each.score.entropy > SURE:
        yield f"score {utility(each.score, each.tokens, state.rule)[1]}"
    if each.is_accepted and each.text != step.text:
        yield "taken by a fork"


def _inside(sign: SignName, content: Text, look: Look) -> Text:
    content.truncate(look.inside, overflow="ellipsis")
    return under(GUTTERS.get(sign, "│"), SIGNS[sign].style, content)


def under(gutter: str, style: str, content: Text) -> Text:
    """A line of a text, with the line along it."""
    return line(" " * (INDENT - 2), (gutter, style), " ").append_text(content)


def _heading(step: StepState, state: SolveState, look: Look, *, chosen: bool) -> Text:
    sign = state.sign_of(step)
    gutter = GUTTERS["cut"] if step.cut is not None else GUTTERS.get(step.sign, "│")
    heading = line(
        ("›" if chosen else " ", "bold"),
        (f"{step.number:>3} ", "bold" if chosen else "dim"),
        ("╎" if is_unreal(step, look) else gutter, sign.style),
        " ",
        label(sign, LABEL),
    )
    heading.append_text(_score(step, state, look))
    tokens = step.tokens or step.pieces or step.draft_tokens
    if look.width >= TINY:
        heading.append(f"{figures.count(tokens):>5} tok" if tokens else " " * 9)
    if look.width >= WIDE:
        heading.append("  " + "  ".join(spent(step)), "dim")
    return heading


def spent(step: StepState) -> Iterator[str]:
    """What the calls for a step took, by what they were for."""
    words = dict(TIMED)
    if step.author not in {None, "base", "small"}:
        words["regenerate"] = shorten(step.author or "", WORD)
    for kind in (*words, *(kind for kind in step.seconds if kind not in words)):
        if step.seconds[kind]:
            yield f"{words.get(kind) or shorten(kind, WORD)} {figures.seconds(step.seconds[kind])}"


def step_words(step: StepState, state: SolveState) -> str:
    """Score, tokens and times of a step."""
    parts = []
    if step.judged and step.judged.score and not step.is_refused:
        scored, tokens = step.judged.score, step.judged.tokens
        parts.append(" ".join((*told(scored, tokens, state.rule), *_bars(scored, tokens, state))))
    parts.append(f"{figures.count(step.tokens or step.pieces or step.draft_tokens)} tok")
    return " · ".join([*parts, *spent(step)])


def _bars(scored: StepScored, tokens: int, state: SolveState) -> Iterator[str]:
    """A judge's score as pictures."""
    if scored.value is None:
        yield "".join(figures.gauge(utility(scored, tokens, state.rule)[0], state.threshold))
        yield figures.sparkline(scored.score.distribution)


def _score(step: StepState, state: SolveState, look: Look) -> Text:
    narrow, wide = look.width < NARROW, look.width >= WIDE
    room = 5 if narrow else 27 if wide else 16
    if not step.judged or not step.judged.score or step.is_refused:
        return line(" " * room)
    scored, tokens = step.judged.score, step.judged.tokens
    again = look.redecision
    if not again and scored.value is not None:
        word, figure = told(scored, tokens, state.rule)
        style = SIGNS["accepted" if scored.accepted else "rejected"].style
        return line((fit(f"{figure:>4} {'' if narrow else word}", room), style))
    value, figure = utility(scored, tokens, again.rule if again else state.rule)
    threshold = again.threshold if again else state.threshold
    decision = again.on(scored) if again else None
    accepted = decision.now if decision else scored.accepted
    style = SIGNS["accepted" if accepted else "rejected"].style
    words = line((f"{figure:>4} ", style))
    if not narrow:
        reached, rest = figures.gauge(value, threshold)
        words.append(reached, style).append(rest, "dim").append(" ")
    if wide:
        words.append(figures.sparkline(scored.score.distribution), "dim").append(" ")
    return words


def streaming(sign: SignName, text: str, look: Look) -> list[Text]:
    """A text that streams in and is no step."""
    style = SIGNS[sign].style
    heading = line(" " * (INDENT - 2), ("┃", style), " ", label(sign))
    return [heading, *(under("┃", style, row) for row in text_rows(text, look, opened=False, writing=True))]


def wrapped(sign: SignName | Sign, words: str, look: Look) -> list[Text]:
    """Words in full, behind the sign of what they are or whose."""
    rows = wrap(words, max(1, look.inside - LABEL))
    first = line(" " * INDENT, label(sign, LABEL), rows[0])
    return [first, *(line(" " * (INDENT + LABEL), row) for row in rows[1:])]
