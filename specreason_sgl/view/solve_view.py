"""One solve as text: the same for a live one, a stored one and the one that stays on the terminal.

Pure: what is shown depends on the state of the solve and on the `Look`, nothing else. A frame lays out only the
steps that are visible in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from rich.cells import cell_len
from rich.text import Text

from specreason_sgl.events import AnswerWritten, CallKind, Noticed, StepScored
from specreason_sgl.runs.redecide import Redecision
from specreason_sgl.view import figures
from specreason_sgl.view.lines import Part, columns, flow, keys_help, label, legend, line, page, rule, spread
from specreason_sgl.view.state import Candidate, ChainState, Item, SolveState, StepState, TextState, told, utility
from specreason_sgl.view.text import fit, head, one_line, shorten, wrap
from specreason_sgl.view.theme import FINAL_LEGEND, GUTTERS, LEGEND, SIGNS, WORD, Sign, SignName

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
BESIDE, COLUMN = 120, 58
"""The width from which on chains stand side by side, and the least width of each."""
SEAM = " ┆ "
CHOICE = 5
"""How many candidates of a step are listed until it is opened."""
SURE = 0.01
"""Up to so many bits of entropy a score stands beside another figure only because one had to be recorded."""
FIGURE = 5
"""The cells of a candidate's figure."""
CRAMPED = 48
"""Below this width no more is shown of candidates than which was taken."""
ANSWERS = 8
"""How many answers are shown that are being written at the same time."""
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


def solve_frame(state: SolveState, look: Look) -> Text:
    """The solve on a page of exactly the given height."""
    top, bottom = _header(state, look), _footer(state, look)
    room = max(1, look.height - len(top) - len(bottom))
    body = _growing(state, look, room) if look.cursor is None and not look.offset else []
    body = body or _window(*laid_out(state, look), look.offset, room)
    body += [line()] * (room - len(body))
    return page([*top, *body, *bottom][: look.height], look.width, colour=look.colour)


def solve_report(state: SolveState, look: Look) -> Text:
    """The whole solve from the question to the totals, for a terminal that scrolls or a file."""
    body = [each for section in laid_out(state, look)[0] for each in section()]
    lines = [
        *_header(state, look),
        *body,
        rule(look.width),
        *totals(state, look.width),
        *legend(FINAL_LEGEND, look.width),
    ]
    return page(lines, look.width, colour=look.colour)


def _window(sections: Sequence[Section], cursor: int | None, offset: int, room: int) -> list[Text]:
    """The lines that are visible, laying out no more sections than necessary."""
    if cursor is None or cursor >= len(sections):
        above: list[Text] = []
        for section in reversed(sections):
            above = section() + above
            if len(above) >= room + offset:
                break
        end = max(min(room, len(above)), len(above) - offset)
        return above[max(0, end - room) : end]
    lead = room // 4
    above, below = [], []
    for section in sections[cursor:]:
        below += section()
        if len(below) >= room + offset:
            break
    below = below[min(offset, max(0, len(below) - 1)) :]
    wanted = max(lead, room - len(below))
    for section in reversed(sections[:cursor] if not offset else ()):
        above = section() + above
        if len(above) >= wanted:
            break
    return (above[max(0, len(above) - wanted) :] + below)[:room]


def _growing(state: SolveState, look: Look, room: int) -> list[Text]:
    """The ends of the chains that are being written at the same time, each on its share of the page."""
    if not state.is_branched or state.answering:
        return []
    going = [chain for chain in state.chains.values() if state.is_going(chain)]
    each = min(_columns(look), len(going))
    if not each:
        return []
    shown = going[-each * max(1, (room - 1) // SHARE) :]
    hidden = len(going) - len(shown)
    bands = [shown[start : start + each] for start in range(0, len(shown), each)]
    share, more = divmod(room - bool(hidden), len(bands))
    lines = [line((f" … {hidden} more {'chain' if hidden == 1 else 'chains'} going on", "dim"))] if hidden else []
    inner = _column(look, each)
    for number, band in enumerate(bands):
        height = share + (number < more)
        ends = [_end(state, chain, inner, height) for chain in band]
        lines += _side_by_side([[*end, *[line()] * (height - len(end))] for end in ends], inner.width)
    return lines


def _end(state: SolveState, chain: ChainState, look: Look, most: int) -> list[Text]:
    """The heading of a chain and its last lines, as many as fit."""
    rows = [
        item_lines(row, state, look)
        if isinstance(row, StepState | TextState)
        else _aside(row if isinstance(row, Noticed) else [row], state, look)
        for row in chain.rows[-most:]
    ]
    content = [each for lines in (*rows, _thinking(chain, look)) for each in lines]
    return [*_chain_heading(chain, state, look), *content[-(most - 1) :]][:most]


def _columns(look: Look) -> int:
    """How many chains stand side by side."""
    return max(1, (look.width + len(SEAM)) // (COLUMN + len(SEAM))) if look.width >= BESIDE else 1


def _column(look: Look, many: int) -> Look:
    """The look of one of so many columns."""
    return replace(look, width=max(1, (look.width - (many - 1) * len(SEAM)) // many)) if many > 1 else look


def _side_by_side(blocks: Sequence[Sequence[Text]], width: int) -> list[Text]:
    """Blocks of lines beside each other, each of the same width."""
    if len(blocks) == 1:
        return list(blocks[0])
    seam = (line((SEAM, "dim")), len(SEAM))
    rows = []
    for number in range(max(map(len, blocks))):
        cells = [(block[number] if number < len(block) else line(), width) for block in blocks]
        rows.append(columns([each for cell in cells for each in (seam, cell)][1:], gap=0))
    return rows


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
    if state.is_branched and look.height >= LOW:
        lines.append(_standing(state, look.width))
    return [*lines, rule(look.width)]


def _standing(state: SolveState, width: int) -> Text:
    """What the chains are doing, or came to, in a line."""
    words = line(" chains")
    for chain, _ in state.branches:
        sign = SIGNS[state.sign_of_chain(chain)]
        cell = line("  ", (f"{sign.glyph} ", sign.style), (f"{chain.number}", "bold" if _gave(state, chain) else ""))
        if answers := chain.answers:
            cell.append(f": {shorten(answers[-1].answer or '–', WORD)}", "bold" if _gave(state, chain) else "dim")
        if words.cell_len + cell.cell_len + 2 > width:
            return words.append(" …", "dim")
        words.append_text(cell)
    return words


def _gave(state: SolveState, chain: ChainState) -> bool:
    return state.is_branched and state.is_settled and chain is state.answering_chain


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


def chain_words(chain: ChainState, state: SolveState) -> str:
    """A chain in a line: what became of it, where it comes from, how long it is, and why it ended."""
    return " · ".join((f"chain {chain.number}", fate(chain, state).label, *chain_figures(chain)))


def fate(chain: ChainState, state: SolveState) -> Sign:
    """The sign of a chain, which says of one of them that it gave the answer."""
    sign = SIGNS[state.sign_of_chain(chain)]
    return replace(sign, word="gave the answer") if _gave(state, chain) else sign


def chain_figures(chain: ChainState) -> Iterator[str]:
    """Where a chain comes from, how long it is, and why it ended."""
    if chain.parent is not None:
        yield f"from chain {chain.parent} after {figures.steps(chain.inherited)}"
    yield f"{figures.steps(chain.steps)}, {figures.count(chain.tokens)} tok"
    if chain.ended:
        yield f"ended: {shorten(chain.ended.reason, REASON)}"


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


def laid_out(state: SolveState, look: Look) -> tuple[list[Section], int | None]:
    """Everything between header and footer, and which section of it the selected item is in."""
    many = min(_columns(look), len(state.branches)) if state.is_branched else 1
    return _beside(state, look, many) if many > 1 else (sections(state, look), look.cursor)


def sections(state: SolveState, look: Look) -> list[Section]:
    """A section for each step or text, chain by chain, and one for the answer."""
    made: list[Section] = []
    lead: list[Section] = []
    """Lines above the next section that cannot be selected by themselves; all but the rules come last."""
    rows: list[Section] = []
    before: Item | None = None
    for chain, cuts in state.branches:
        if state.is_branched:
            lead, rows = [*lead, *rows, _lazy(_chain_heading, chain, state, look)], []
        for row in _passages(chain, state):
            if not isinstance(row, StepState | TextState):
                rows.append(_lazy(_aside, row, state, look))
                continue
            if _turns_unreal(before, row, look):
                lead.append(_lazy(_unreal_rule, look))
            is_first = before is None or before.chain != row.chain
            section = _lazy(_unless_folded, row, chain, state, look, is_first=is_first, chosen=len(made) == look.cursor)
            made.append(_lazy(_together, (*lead, *rows, section)))
            lead, rows, before = [], [], row
        rows += [_lazy(_thinking, chain, look), *(_lazy(_cut, cut, state) for cut in cuts)]
    made.append(_lazy(_together, (*lead, *rows, _lazy(answer_lines, state, look))))
    return made


def _beside(state: SolveState, look: Look, many: int) -> tuple[list[Section], int | None]:
    """Chains in so many columns: what stands behind as many steps stands side by side."""
    inner, items = _column(look, many), state.items
    chosen = items[look.cursor].place if look.cursor is not None and look.cursor < len(items) else None
    made: list[Section] = []
    cursor: int | None = None
    branches = state.branches
    for start in range(0, len(branches), many):
        band = branches[start : start + many]
        made.append(_lazy(_cells, [[_lazy(_chain_heading, chain, state, inner)] for chain, _ in band], inner))
        levels: dict[int, list[list[Section]]] = {}
        """The sections by the number of steps before them, and by column."""
        ends: list[list[Section]] = []
        chosen_level: int | None = None
        for column, (chain, cuts) in enumerate(band):
            level = 0
            before: Item | None = None
            asides: list[Section] = []
            for row in _passages(chain, state):
                if not isinstance(row, StepState | TextState):
                    asides.append(_lazy(_aside, row, state, inner))
                    continue
                level = max(level, row.number)
                cell = levels.setdefault(level, [[] for _ in band])[column]
                cell += asides
                asides = []
                if _turns_unreal(before, row, look):
                    cell.append(_lazy(_unreal_rule, inner))
                is_first, is_chosen = before is None, row.place == chosen
                cell.append(_lazy(_unless_folded, row, chain, state, inner, is_first=is_first, chosen=is_chosen))
                if row.place == chosen:
                    chosen_level = level
                before = row
            ends.append([_lazy(_thinking, chain, inner), *asides, *(_lazy(_cut, cut, state) for cut in cuts)])
        if chosen_level is not None:
            cursor = len(made) + sorted(levels).index(chosen_level)
        made += [_lazy(_cells, levels[level], inner) for level in sorted(levels)]
        made.append(_lazy(_cells, ends, inner))
    return [*made, _lazy(answer_lines, state, look)], cursor


def _cells(cells: Sequence[Sequence[Section]], look: Look) -> list[Text]:
    return _side_by_side([_together(cell) for cell in cells], look.width)


def _passages(chain: ChainState, state: SolveState) -> Iterator[Item | Noticed | list[AnswerWritten]]:
    """What stands in a chain, in order; answers in a row together, and without the one that stands below all."""
    for is_answer, rows in groupby(chain.rows, lambda row: isinstance(row, AnswerWritten)):
        if not is_answer:
            yield from rows  # type: ignore[misc]  # they are no answers
        elif answers := [row for row in rows if state.is_branched or row is not state.answer]:
            yield answers  # type: ignore[misc]  # they are nothing else


def _lazy(lay_out: Callable[..., list[Text]], *args: object, **more: object) -> Section:
    return lambda: lay_out(*args, **more)


def _together(some: Iterable[Section]) -> list[Text]:
    return [each for section in some for each in section()]


def _thinking(chain: ChainState, look: Look) -> list[Text]:
    return _streaming("thinking", "".join(chain.thinking), look) if chain.thinking else []


def _chain_heading(chain: ChainState, state: SolveState, look: Look) -> list[Text]:
    sign = fate(chain, state)
    heading = line(("── ", "dim"), (f"chain {chain.number}", "bold"), (" · ", "dim"), label(sign), (" · ", "dim"))
    heading.append(" · ".join(chain_figures(chain)), "dim")
    return [heading.append(" " + "─" * (look.width - heading.cell_len - 1), "dim")]


def _unless_folded(
    item: Item, chain: ChainState, state: SolveState, look: Look, *, is_first: bool, chosen: bool
) -> list[Text]:
    """An item of a chain; the first one of a folded chain stands for all of them."""
    if chain.number not in look.folded or not state.is_branched:
        return item_lines(item, state, look, chosen=chosen)
    words = f"▸ {figures.steps(len(chain.standing))} folded"
    return [line(("›" if chosen else " ", "bold"), " " * (INDENT - 3), (words, "dim"))] if is_first else []


def _cut(cut: ChainState, state: SolveState) -> list[Text]:
    """The beginning of a chain, cut off to be answered by itself."""
    where = f" after {figures.steps(cut.steps)}", (f" · chain {cut.number}", "dim")
    words = line(" " * (INDENT - 2), label("cut"), *where)
    if cut.answers:
        words.append("  ").append(*label("answered")).append(f" {given_words(cut.answers)}", "bold")
    if _gave(state, cut):
        words.append(f"  {fate(cut, state).word}", SIGNS["answered"].style)
    return [words]


def given_words(answers: Sequence[AnswerWritten]) -> str:
    """Several answers in a line, each with how often it was given in a row."""
    runs = groupby(shorten(each.answer or "–", WORD * 2) for each in answers)
    counted = ((answer, sum(1 for _ in run)) for answer, run in runs)
    return " · ".join(answer if times == 1 else f"{answer} ×{times}" for answer, times in counted)


def vote_words(state: SolveState) -> str:
    """What a vote was held about: every answer with its votes, the chosen one first; empty without a vote."""
    votes = [f"{shorten(each.answer or 'no answer', WORD * 2)} ×{len(each.written)}" for each in state.votes]
    return f"vote  {SIGNS['accepted'].glyph} {' · '.join(votes)}" if votes else ""


def _aside(row: Noticed | Sequence[AnswerWritten], state: SolveState, look: Look) -> list[Text]:
    """What stands between the items of a chain and is none of them: a remark, or answers."""
    if isinstance(row, Noticed):
        return _wrapped(state.name_of(row.author) if row.author else SIGNS["notice"], row.message, look)
    return [line(" " * INDENT, label("answered", LABEL), (given_words(row), "bold"))]


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
    lines = [_heading(step, state, look, chosen=chosen), *([] if step.is_choice else _flip(step.score, look))]
    gutter = "╎" if unreal else GUTTERS.get(step.sign, "│")
    style = state.sign_of(step).style
    opened = step.place in look.opened
    writing = step.author is None and step.sign != "judging"
    for row in _rows(step.shown, look, opened=opened, writing=writing):
        row.style = "dim" if unreal else ""
        lines.append(_under(gutter, style, row))
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
    gutter = "╎" if _is_unreal(text, look) else GUTTERS["cut" if text.cut is not None else "added"]
    heading = line(("›" if chosen else " ", "bold"), " " * (INDENT - 3), (gutter, sign.style), " ")
    if not wrote:
        heading.append(*label("added")).append(" by ", "dim")
    heading.append(*label(sign))
    if text.tokens:
        heading.append(f"  {figures.count(text.tokens)} tok", "dim")
    if text.cut is not None:
        heading.append("  ").append_text(_cut_words(text))
        return [heading, *_struck(text, look)]
    rows = _rows(text.shown, look, opened=text.place in look.opened, writing=False)
    for row in rows:
        row.style = "" if wrote else sign.style
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


def _choice(step: StepState, state: SolveState, look: Look, *, opened: bool) -> list[Text]:
    """The candidates of a step, a line for each."""
    candidates, unfinished = list(step.candidates.values()), step.unfinished
    many = len(step.candidates | unfinished)
    taken = sum(each.is_accepted for each in candidates)
    scored = step.score
    words = line((f"{many} candidates", "dim"))
    if scored:
        words.append(f" by {told(scored, state.rule)[0]}", "dim")
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
        value = -1.0 if score is None else utility(score, state.rule)[0] if score.value is None else score.value
        return each.is_accepted, value

    best = sorted(candidates, key=rank, reverse=True)[:CHOICE]
    return [each for each in candidates if any(each is one for one in best)]


def _candidate(each: Candidate, step: StepState, state: SolveState, look: Look, *, opened: bool) -> list[Text]:
    """One of the candidates: whether it was taken, what it was worth, who wrote it, and its text."""
    sign = candidate_sign(each, step)
    writer = state.sign_of_author(each.author)
    figure = told(each.score, state.rule)[1] if each.score else "–"
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
        yield f"score {utility(each.score, state.rule)[1]}"
    if each.is_accepted and each.text != step.text:
        yield "taken by a fork"


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
    if step.score is not None and not step.is_refused:
        parts.append(" ".join((*told(step.score, state.rule), *_bars(step.score, state))))
    parts.append(f"{figures.count(step.tokens or step.pieces or step.draft_tokens)} tok")
    return " · ".join([*parts, *spent(step)])


def _bars(scored: StepScored, state: SolveState) -> Iterator[str]:
    """A judge's score as pictures."""
    if scored.value is None:
        yield "".join(figures.gauge(utility(scored, state.rule)[0], state.threshold))
        yield figures.sparkline(scored.score.distribution)


def _score(step: StepState, state: SolveState, look: Look) -> Text:
    narrow, wide = look.width < NARROW, look.width >= WIDE
    room = 5 if narrow else 27 if wide else 16
    if step.score is None or step.is_refused:
        return line(" " * room)
    score = step.score.score
    again = look.redecision
    if not again and step.score.value is not None:
        word, figure = told(step.score, state.rule)
        style = SIGNS["accepted" if step.score.accepted else "rejected"].style
        return line((fit(f"{figure:>4} {'' if narrow else word}", room), style))
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
    answering = state.answering
    if len(answering) > 1 or (answering and state.is_branched):
        for chain, text in answering[:ANSWERS]:
            tail = one_line(text[-look.inside :])[-max(1, look.inside - 2 * LABEL) :]
            lines.append(line(" " * (INDENT - 2), label("answering", LABEL), (f"chain {chain:<3} ", "dim"), f"{tail}▌"))
        if len(answering) > ANSWERS:
            lines.append(line(" " * INDENT, (f"… {len(answering) - ANSWERS} more answers", "dim")))
    elif answering:
        lines += _streaming("answering", answering[0][1], look)
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
    worded = state.worded or answer
    rows = _rows(worded.text, look, opened=ANSWER in look.opened, writing=False)
    for row in rows:
        row.style = "dim" if unreal else ""
    if votes := vote_words(state):
        rows = [line((shorten(votes, look.inside), "bold")), *rows]
    return [heading, *(_under(gutter, style, row) for row in rows)]


def _wrapped(sign: SignName | Sign, words: str, look: Look) -> list[Text]:
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
