"""The chains of a solve as lines: one after another, or side by side; what became of each, and the vote."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from rich.text import Text

from specreason_sgl.events import AnswerWritten, Noticed
from specreason_sgl.view import figures
from specreason_sgl.view.items import (
    INDENT,
    LABEL,
    REASON,
    Look,
    is_unreal,
    item_lines,
    streaming,
    text_rows,
    under,
    wrapped,
)
from specreason_sgl.view.lines import columns, label, line, rule
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.steps import ChainState, Item, StepState, TextState
from specreason_sgl.view.text import one_line, shorten, wrap
from specreason_sgl.view.theme import SIGNS, WORD, Sign

BESIDE, COLUMN = 120, 58
"""The width from which on chains stand side by side, and the least width of each."""
SEAM = " ┆ "
ANSWERS = 8
"""How many answers are shown that are being written at the same time."""
ANSWER = -1
"""Stands for the answer among the opened items."""
HINT = "hint: "
Section = Callable[[], list[Text]]
"""Lays out one step, or another item between header and footer, when it is needed."""


def columns_of(look: Look) -> int:
    """How many chains stand side by side."""
    return max(1, (look.width + len(SEAM)) // (COLUMN + len(SEAM))) if look.width >= BESIDE else 1


def column(look: Look, many: int) -> Look:
    """The look of one of so many columns."""
    return replace(look, width=max(1, (look.width - (many - 1) * len(SEAM)) // many)) if many > 1 else look


def side_by_side(blocks: Sequence[Sequence[Text]], width: int) -> list[Text]:
    """Blocks of lines beside each other, each of the same width."""
    if len(blocks) == 1:
        return list(blocks[0])
    seam = (line((SEAM, "dim")), len(SEAM))
    rows = []
    for number in range(max(map(len, blocks))):
        cells = [(block[number] if number < len(block) else line(), width) for block in blocks]
        rows.append(columns([each for cell in cells for each in (seam, cell)][1:], gap=0))
    return rows


def gave_answer(state: SolveState, chain: ChainState) -> bool:
    """Whether the answer is that of this chain, of several."""
    return state.is_branched and state.is_settled and chain is state.answering_chain


def chain_words(chain: ChainState, state: SolveState) -> str:
    """A chain in a line: what became of it, where it comes from, how long it is, and why it ended."""
    return " · ".join((f"chain {chain.number}", fate(chain, state).label, *chain_figures(chain)))


def fate(chain: ChainState, state: SolveState) -> Sign:
    """The sign of a chain, which says of one of them that it gave the answer."""
    sign = SIGNS[state.sign_of_chain(chain)]
    return replace(sign, word="gave the answer") if gave_answer(state, chain) else sign


def chain_figures(chain: ChainState) -> Iterator[str]:
    """Where a chain comes from, how long it is, and why it ended."""
    if chain.parent is not None:
        yield f"from chain {chain.parent} after {figures.steps(chain.inherited)}"
    yield f"{figures.steps(chain.steps)}, {figures.count(chain.tokens)} tok"
    if chain.ended:
        yield f"ended: {shorten(chain.ended.reason, REASON)}"


def laid_out(state: SolveState, look: Look) -> tuple[list[Section], int | None]:
    """Everything between header and footer, and which section of it the selected item is in."""
    many = min(columns_of(look), len(state.branches)) if state.is_branched else 1
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
            lead, rows = [*lead, *rows, _lazy(chain_heading, chain, state, look)], []
        for row in _passages(chain, state):
            if not isinstance(row, StepState | TextState):
                rows.append(_lazy(aside, row, state, look))
                continue
            if _turns_unreal(before, row, look):
                lead.append(_lazy(_unreal_rule, look))
            is_first = before is None or before.chain != row.chain
            section = _lazy(_unless_folded, row, chain, state, look, is_first=is_first, chosen=len(made) == look.cursor)
            made.append(_lazy(_together, (*lead, *rows, section)))
            lead, rows, before = [], [], row
        rows += [_lazy(thinking, chain, look), *(_lazy(_cut, cut, state) for cut in cuts)]
    made.append(_lazy(_together, (*lead, *rows, _lazy(answer_lines, state, look))))
    return made


def _beside(state: SolveState, look: Look, many: int) -> tuple[list[Section], int | None]:
    """Chains in so many columns: what stands behind as many steps stands side by side."""
    inner, items = column(look, many), state.items
    chosen = items[look.cursor].place if look.cursor is not None and look.cursor < len(items) else None
    made: list[Section] = []
    cursor: int | None = None
    branches = state.branches
    for start in range(0, len(branches), many):
        band = branches[start : start + many]
        made.append(_lazy(_cells, [[_lazy(chain_heading, chain, state, inner)] for chain, _ in band], inner))
        levels: dict[int, list[list[Section]]] = {}
        """The sections by the number of steps before them, and by column."""
        ends: list[list[Section]] = []
        chosen_level: int | None = None
        for place, (chain, cuts) in enumerate(band):
            level = 0
            before: Item | None = None
            asides: list[Section] = []
            for row in _passages(chain, state):
                if not isinstance(row, StepState | TextState):
                    asides.append(_lazy(aside, row, state, inner))
                    continue
                level = max(level, row.number)
                cell = levels.setdefault(level, [[] for _ in band])[place]
                cell += asides
                asides = []
                if _turns_unreal(before, row, look):
                    cell.append(_lazy(_unreal_rule, inner))
                is_first, is_chosen = before is None, row.place == chosen
                cell.append(_lazy(_unless_folded, row, chain, state, inner, is_first=is_first, chosen=is_chosen))
                if row.place == chosen:
                    chosen_level = level
                before = row
            ends.append([_lazy(thinking, chain, inner), *asides, *(_lazy(_cut, cut, state) for cut in cuts)])
        if chosen_level is not None:
            cursor = len(made) + sorted(levels).index(chosen_level)
        made += [_lazy(_cells, levels[level], inner) for level in sorted(levels)]
        made.append(_lazy(_cells, ends, inner))
    return [*made, _lazy(answer_lines, state, look)], cursor


def _cells(cells: Sequence[Sequence[Section]], look: Look) -> list[Text]:
    return side_by_side([_together(cell) for cell in cells], look.width)


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


def thinking(chain: ChainState, look: Look) -> list[Text]:
    """What streams into a chain as a whole."""
    return streaming("thinking", "".join(chain.thinking), look) if chain.thinking else []


def chain_heading(chain: ChainState, state: SolveState, look: Look) -> list[Text]:
    """What stands above a chain."""
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
    if gave_answer(state, cut):
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


def aside(row: Noticed | Sequence[AnswerWritten], state: SolveState, look: Look) -> list[Text]:
    """What stands between the items of a chain and is none of them: a remark, or answers."""
    if isinstance(row, Noticed):
        return wrapped(state.name_of(row.author) if row.author else SIGNS["notice"], row.message, look)
    return [line(" " * INDENT, label("answered", LABEL), (given_words(row), "bold"))]


def _turns_unreal(before: Item | None, item: Item, look: Look) -> bool:
    """Whether what follows a decision that would differ begins here; the first thing of all follows none."""
    if before is None or not is_unreal(item, look):
        return False
    return before.chain != item.chain or not is_unreal(before, look)


def _unreal_rule(look: Look) -> list[Text]:
    return [rule(look.width, "counterfactual from here on: it follows a decision that would differ")]


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
        lines += streaming("answering", answering[0][1], look)
    elif state.answer:
        lines += _answer(state.answer, state, look)
    if state.failure:
        lines += wrapped("failed", state.failure.error, look)
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
    rows = text_rows(worded.text, look, opened=ANSWER in look.opened, writing=False)
    for row in rows:
        row.style = "dim" if unreal else ""
    if votes := vote_words(state):
        rows = [line((shorten(votes, look.inside), "bold")), *rows]
    return [heading, *(under(gutter, style, row) for row in rows)]
