"""One solve as text: the same for a live one, a stored one and the one that stays on the terminal.

Pure: what is shown depends on the state of the solve and on the `Look`, nothing else. A frame lays out only the
steps that are visible in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from specreason_sgl.events import AnswerWritten, CallKind
from specreason_sgl.runs.redecide import Redecision
from specreason_sgl.view import figures
from specreason_sgl.view.lines import Part, flow, keys_help, label, legend, line, page, rule, spread
from specreason_sgl.view.state import ChainState, Item, SolveState, StepState, TextState, utility
from specreason_sgl.view.text import fit, head, one_line, shorten, wrap
from specreason_sgl.view.theme import FINAL_LEGEND, GUTTERS, LEGEND, SIGNS, WORD, SignName

TINY, NARROW, WIDE = 40, 60, 90
"""Below each of these widths a step's heading leaves out more of its figures."""
LOW = 16
"""Below this height the frame leaves out all but the essentials."""
FOLDED = 6
"""How many lines of a long step are shown until it is opened."""
INDENT = 7
LABEL = 15
SHARE = 5
"""The fewest lines for each of several chains that are being written; chains without room are only counted."""
NAME = 6
"""The fewest cells of a name in the totals."""
REASON = 40
"""The most cells of a program's reason."""
ANSWER = -1
"""Stands for the answer among the opened items."""
HINT = "hint: "
TIMED: tuple[tuple[CallKind, str], ...] = (("draft", "draft"), ("judge", "judge"), ("regenerate", "base"))

Section = Callable[[], list[Text]]
"""Lays out one step, or another item between header and footer, when it is needed."""


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
    """The places of items that are shown in full; of a step, with its rejected draft."""
    found: str = ""
    """Text that is highlighted wherever it stands."""
    title: str = ""
    keys: str = ""
    redecision: Redecision | None = None

    @property
    def inside(self) -> int:
        """The width of a step's text."""
        return max(1, self.width - INDENT - 1)


def solve_frame(state: SolveState, look: Look) -> Text:
    """The solve on a page of exactly the given height."""
    top, bottom = _header(state, look), _footer(state, look)
    room = max(1, look.height - len(top) - len(bottom))
    beside = _beside(state, look, room) if look.cursor is None and not look.offset else []
    body = beside or _window(sections(state, look), look, room)
    body += [line()] * (room - len(body))
    return page([*top, *body, *bottom][: look.height], look.width, colour=look.colour)


def solve_report(state: SolveState, look: Look) -> Text:
    """The whole solve from the question to the totals, for a terminal that scrolls or a file."""
    body = [each for section in sections(state, look) for each in section()]
    lines = [
        *_header(state, look),
        *body,
        rule(look.width),
        *totals(state, look.width),
        *legend(FINAL_LEGEND, look.width),
    ]
    return page(lines, look.width, colour=look.colour)


def _window(sections: Sequence[Section], look: Look, room: int) -> list[Text]:
    """The lines that are visible, laying out no more sections than necessary."""
    if look.cursor is None or look.cursor >= len(sections):
        above: list[Text] = []
        for section in reversed(sections):
            above = section() + above
            if len(above) >= room + look.offset:
                break
        end = max(min(room, len(above)), len(above) - look.offset)
        return above[max(0, end - room) : end]
    lead = room // 4
    above, below = [], []
    for section in sections[look.cursor :]:
        below += section()
        if len(below) >= room + look.offset:
            break
    below = below[min(look.offset, max(0, len(below) - 1)) :]
    wanted = max(lead, room - len(below))
    for section in reversed(sections[: look.cursor] if not look.offset else ()):
        above = section() + above
        if len(above) >= wanted:
            break
    return (above[max(0, len(above) - wanted) :] + below)[:room]


def _beside(state: SolveState, look: Look, room: int) -> list[Text]:
    """The ends of the chains that are being written at the same time, each on its share of the lines."""
    going = [chain for chain in state.chains.values() if not chain.ended]
    if len(going) < 2 or state.answer or state.answering or state.ended or state.failure:  # noqa: PLR2004
        return []
    shown = going[-max(1, (room - 1) // SHARE) :]
    hidden = len(going) - len(shown)
    share, more = divmod(room - bool(hidden), len(shown))
    lines = [line((f" … {hidden} more {'chain' if hidden == 1 else 'chains'} going on", "dim"))] if hidden else []
    for number, chain in enumerate(shown):
        height = share + (number < more)
        content = [each for section in _end(state, chain, look, height) for each in section()]
        lines += [rule(look.width, chain_words(chain)), *content[-(height - 1) :]]
        lines += [line()] * (height - 1 - len(content))
    return lines


def _end(state: SolveState, chain: ChainState, look: Look, most: int) -> list[Section]:
    """The last sections of a chain, as many as fit on ``most`` lines."""
    made = [_lazy(item_lines, item, state, look) for item in chain.items[-most:]]
    return [*made, *_thinking(chain, look)]


def _header(state: SolveState, look: Look) -> list[Text]:
    started = state.started
    title = line((f" {shorten(look.title or (started.program if started else 'waiting'), look.width)}", "bold"))
    elapsed = state.tally.elapsed if look.now is None else max(look.now, state.tally.elapsed)
    right = line(label(state.phase), (f" · {figures.seconds(elapsed)} ", "dim"))
    if started and started.threshold is not None:
        threshold = f" · threshold {started.threshold:g}"
        room = look.width - right.cell_len - title.cell_len - 1
        known = (f"{threshold} ({one_line(started.score_rule or 'greedy')})", threshold)
        title.append(next((words for words in known if cell_len(words) <= room), ""), "dim")
    lines = [spread(title, right, look.width)]
    if started:
        rows, more = head(started.question.strip(), max(1, look.width - 4), 1 if look.height < LOW else 4)
        lines += [line(" ", row) for row in rows[:-1]]
        lines.append(line(" ", rows[-1], " …" if more else ""))
    if look.redecision:
        lines += _redecided(look.redecision, look.width)
    return [*lines, rule(look.width)]


def _redecided(redecision: Redecision, width: int) -> list[Text]:
    flips, judged = len(redecision.flips), len(redecision.decisions)
    words = f"threshold {redecision.threshold:g} ({redecision.rule})"
    items = [
        line(label("flip"), f" {flips} of {judged} decisions at {words}"),
        line(
            f"acceptance {figures.share(redecision.acceptance)}",
            (f" instead of {figures.share(redecision.stored_acceptance)}", "dim"),
        ),
    ]
    if redecision.first_flip:
        items.append(line(f"first divergence at {flip_words(redecision)}"))
    sweep = [line((f"{threshold}:{figures.share(share)}", "dim")) for threshold, share in redecision.sweep]
    heading = line(("acceptance by threshold ", "dim"))
    return [*flow(items, width), *(flow([heading, *sweep], width, gap=" ") if sweep else [])]


def flip_words(redecision: Redecision) -> str:
    """The step whose decision is the first that would differ, as text."""
    flip = redecision.first_flip
    return "no step" if flip is None else f"step {flip.step}{of_chain(flip.scored.chain)}"


def redecided_words(redecision: Redecision) -> str:
    """Decisions taken again, as a sentence."""
    words = (
        f"threshold {redecision.threshold:g} ({redecision.rule}): {len(redecision.flips)} of "
        f"{len(redecision.decisions)} decisions flip, acceptance {figures.share(redecision.acceptance)} "
        f"instead of {figures.share(redecision.stored_acceptance)}"
    )
    if redecision.first_flip is None:
        return words
    return f"{words}; everything after {flip_words(redecision)} is counterfactual"


def of_chain(number: int) -> str:
    """Which chain something is of, where it is not the first."""
    return f" of chain {number}" if number else ""


def chain_words(chain: ChainState) -> str:
    """A chain in a line: where it comes from, how long it is, and why it ended."""
    words = [f"chain {chain.number}"]
    if chain.parent is not None:
        words.append(f"from chain {chain.parent} after {figures.steps(chain.inherited)}")
    words.append(f"{figures.steps(chain.steps)}, {figures.count(chain.tokens)} tok")
    if chain.ended:
        words.append(f"ended: {shorten(chain.ended.reason, REASON)}")
    return " · ".join(words)


def _footer(state: SolveState, look: Look) -> list[Text]:
    tally = state.tally
    items = [
        line("acceptance ", (figures.share(tally.acceptance), "bold"), (f" of {tally.judged}", "dim")),
        line(
            (f"{tally.tokens_per_second:.0f}" if tally.tokens_per_second else "–", "bold"),
            " tok/s",
        ),
        line("speed-up ", (figures.times(tally.speed_up), "bold")),
    ]
    if tally.budget:
        done, left = figures.progress(state.fullest / tally.budget, 10)
        items.append(
            line(
                "longest chain " if state.is_branched else "thinking ",
                (done, "cyan"),
                (left, "dim"),
                f" {figures.count(state.fullest)}",
                (f" of {figures.count(tally.budget)} tok", "dim"),
            )
        )
    lines = [rule(look.width), *flow(items, look.width), *legend(LEGEND, look.width)]
    if look.height < LOW:
        lines = lines[:2]
    return lines + (keys_help(look.keys, look.width) if look.keys else [])


def sections(state: SolveState, look: Look) -> list[Section]:
    """Everything between header and footer: a section for each step or text, chain by chain, and one for the answer."""
    made: list[Section] = []
    lead: list[Section] = []
    """Lines above the next section that cannot be selected by themselves; the notices come last."""
    notices: list[Section] = []
    before: Item | None = None
    for chain in state.chains.values():
        if state.is_branched:
            lead, notices = [*lead, *notices, _lazy(_chain_heading, chain, look)], []
        for row in chain.rows:
            if isinstance(row, str):
                notices.append(_lazy(_wrapped, "notice", row, look))
                continue
            if _turns_unreal(before, row, look):
                lead.append(_lazy(_unreal_rule, look))
            section = _lazy(item_lines, row, state, look, chosen=len(made) == look.cursor)
            made.append(_lazy(_together, (*lead, *notices, section)))
            lead, notices, before = [], [], row
        made += _thinking(chain, look)
        if chain.answer and chain.answer is not state.answer:
            notices.append(_lazy(_earlier_answer, chain.answer, look))
    made.append(_lazy(_together, (*lead, *notices, _lazy(answer_lines, state, look))))
    return made


def _lazy(lay_out: Callable[..., list[Text]], *args: object, **more: object) -> Section:
    return lambda: lay_out(*args, **more)


def _together(some: Sequence[Section]) -> list[Text]:
    return [each for section in some for each in section()]


def _thinking(chain: ChainState, look: Look) -> list[Section]:
    return [_lazy(_streaming, "thinking", "".join(chain.thinking), look)] if chain.thinking else []


def _chain_heading(chain: ChainState, look: Look) -> list[Text]:
    return [rule(look.width, chain_words(chain))]


def _earlier_answer(answer: AnswerWritten, look: Look) -> list[Text]:
    words = shorten(answer.answer, look.inside // 2) if answer.answer is not None else "–"
    return [line(" " * INDENT, label("answered", LABEL), (words, "bold"))]


def _turns_unreal(before: Item | None, item: Item, look: Look) -> bool:
    """Whether what follows a decision that would differ begins here; the first thing of all follows none."""
    if before is None or not _is_unreal(item, look):
        return False
    return before.chain != item.chain or not _is_unreal(before, look)


def _is_unreal(item: Item, look: Look) -> bool:
    return look.redecision is not None and look.redecision.is_counterfactual(item.decided)


def _unreal_rule(look: Look) -> list[Text]:
    return [rule(look.width, "counterfactual from here on: it follows a decision that would differ")]


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
    unreal = _is_unreal(step, look)
    lines = [_heading(step, state, look, chosen=chosen), *_flip(step, look)]
    gutter = "╎" if unreal else GUTTERS.get(step.sign, "│")
    style = state.sign_of(step).style
    opened = step.place in look.opened
    writing = step.author is None and step.sign != "judging"
    for row in _rows(step.shown, look, opened=opened, writing=writing):
        row.style = "dim" if unreal else ""
        lines.append(_under(gutter, style, row))
    if step.rejected is not None:
        lines += _rejected(step, look, opened=opened)
    return lines


def _cut_lines(step: StepState, state: SolveState, look: Look, *, chosen: bool) -> list[Text]:
    """A step that was taken back: struck out, and no more than a line of it until it is opened."""
    heading = _heading(step, state, look, chosen=chosen)
    return [heading, *_flip(step, look), _inside("cut", _cut_words(step), look), *_struck(step, look)]


def _flip(step: StepState, look: Look) -> list[Text]:
    decision = look.redecision.on(step.score) if look.redecision else None
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
    gutter = "╎" if _is_unreal(text, look) else GUTTERS["cut" if text.cut is not None else "added"]
    heading = line(("›" if chosen else " ", "bold"), " " * (INDENT - 3), (gutter, sign.style), " ")
    heading.append(*label("added")).append(" by ", "dim").append(*label(sign))
    if text.tokens:
        heading.append(f"  {figures.count(text.tokens)} tok", "dim")
    if text.cut is not None:
        heading.append("  ").append_text(_cut_words(text))
        return [heading, *_struck(text, look)]
    rows = _rows(text.text, look, opened=text.place in look.opened, writing=False)
    for row in rows:
        row.style = "dim"
    return [heading, *(_under(gutter, sign.style, row) for row in rows)]


def _rows(text: str, look: Look, *, opened: bool, writing: bool) -> list[Text]:
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


def _inside(sign: SignName, content: Text, look: Look) -> Text:
    content.truncate(look.inside, overflow="ellipsis")
    return _under(GUTTERS.get(sign, "│"), SIGNS[sign].style, content)


def _under(gutter: str, style: str, content: Text) -> Text:
    return line(" " * (INDENT - 2), (gutter, style), " ").append_text(content)


def _heading(step: StepState, state: SolveState, look: Look, *, chosen: bool) -> Text:
    sign = state.sign_of(step)
    gutter = GUTTERS["cut"] if step.cut is not None else GUTTERS.get(step.sign, "│")
    heading = line(
        ("›" if chosen else " ", "bold"),
        (f"{step.number:>3} ", "bold" if chosen else "dim"),
        ("╎" if _is_unreal(step, look) else gutter, sign.style),
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
    if step.score is not None:
        value, figure = utility(step.score, state.rule)
        bar = "".join(figures.gauge(value, state.threshold))
        parts.append(f"score {figure} {bar} {figures.sparkline(step.score.score.distribution)}")
    parts.append(f"{figures.count(step.tokens or step.pieces or step.draft_tokens)} tok")
    return " · ".join([*parts, *spent(step)])


def _score(step: StepState, state: SolveState, look: Look) -> Text:
    narrow, wide = look.width < NARROW, look.width >= WIDE
    if step.score is None:
        return line(" " * (5 if narrow else 27 if wide else 16))
    score = step.score.score
    again = look.redecision
    value, figure = utility(step.score, again.rule if again else state.rule)
    threshold = again.threshold if again else state.threshold
    accepted = score.accepts(again.rule, again.threshold) if again else step.score.accepted
    style = SIGNS["accepted" if accepted else "rejected"].style
    words = line((f"{figure:>4} ", style))
    if not narrow:
        reached, rest = figures.gauge(value, threshold)
        words.append(reached, style).append(rest, "dim").append(" ")
    if wide:
        words.append(figures.sparkline(score.distribution), "dim").append(" ")
    return words


def _streaming(sign: SignName, text: str, look: Look) -> list[Text]:
    style = SIGNS[sign].style
    heading = line(" " * (INDENT - 2), ("┃", style), " ", label(sign))
    return [heading, *(_under("┃", style, row) for row in _rows(text, look, opened=False, writing=True))]


def answer_lines(state: SolveState, look: Look) -> list[Text]:
    """What stands below the steps: the answer, a failure."""
    lines: list[Text] = []
    if state.answering:
        lines += _streaming("answering", "".join(state.answering), look)
    elif state.answer:
        lines += _answer(state.answer, state, look)
    if state.failure:
        lines += _wrapped("failed", state.failure.error, look)
        hints = wrap(state.failure.hint, look.inside - len(HINT)) if state.failure.hint else ()
        lines += [line(" " * INDENT, (HINT, "cyan"), hint) for hint in hints]
    return lines


def _answer(answer: AnswerWritten, state: SolveState, look: Look) -> list[Text]:
    style = SIGNS["answered"].style
    unreal = look.redecision is not None and look.redecision.divergence is not None
    gutter = "╎" if unreal else "┃"
    heading = line(" " * (INDENT - 2), (gutter, style), " ", label("answered", LABEL))
    heading.append(shorten(answer.answer, look.inside // 2) if answer.answer is not None else "–", "bold")
    if state.ended and state.ended.correct is not None:
        heading.append("  ").append(*label("right" if state.ended.correct else "wrong"))
    if answer.truncated:
        heading.append("  ").append(SIGNS["notice"].glyph + " cut at its limit", SIGNS["notice"].style)
    rows = _rows(answer.text, look, opened=ANSWER in look.opened, writing=False)
    for row in rows:
        row.style = "dim" if unreal else ""
    return [heading, *(_under(gutter, style, row) for row in rows)]


def _wrapped(sign: SignName, words: str, look: Look) -> list[Text]:
    rows = wrap(words, max(1, look.inside - LABEL))
    first = line(" " * INDENT, label(sign, LABEL), rows[0])
    return [first, *(line(" " * (INDENT + LABEL), row) for row in rows[1:])]


def totals(state: SolveState, width: int) -> list[Text]:
    """What the solve came to, in a few lines."""
    tally = state.tally
    shown = state.writers
    names = {each: shorten(each, WORD) for each in shown}
    column = max(NAME, *map(cell_len, names.values())) if names else NAME
    lines = [
        row
        for model, sign in shown.items()
        for row in flow(
            [
                line(
                    (f"{sign.glyph} {fit(names[model], column)}", sign.style),
                    f"{figures.steps(tally.steps[model]):>11} {figures.count(tally.kept[model]):>7} tok kept",
                    (f" of {figures.count(tally.generated[model])}", "dim"),
                ),
                line(figures.seconds(tally.model_seconds[model])),
            ],
            width,
        )
    ]
    items = [line(f"{figures.seconds(tally.elapsed)} in all")]
    if state.is_branched:
        items.append(line(f"{figures.count(len(state.chains))} chains"))
    if state.cut:
        items.append(line(f"{figures.steps(state.cut)} cut"))
    if tally.outages:
        items.append(line(f"{figures.seconds(tally.lost_s)} of it lost"))
    if tally.judged:
        items.append(line("acceptance ", (figures.share(tally.acceptance), "bold"), f" of {tally.judged}"))
        items.append(line(f"{figures.count(tally.wasted_tokens)} tok wasted"))
        items.append(line(f"judge {figures.seconds(tally.seconds['judge'])}"))
        items.append(line("speed-up ", (figures.times(tally.speed_up), "bold"), (" (estimate)", "dim")))
    if tally.ended:
        items.append(line((f"thinking ended: {shorten(tally.ended, REASON)}", "dim")))
    return [*lines, *flow(items, width)]
