"""One solve as text: the same for a live one, a stored one and the one that stays on the terminal.

Pure: what is shown depends on the state of the solve and on the `Look`, nothing else. A frame lays out only the
steps that are visible in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from specreason_sgl.events import Noticed
from specreason_sgl.runs.redecide import Redecision
from specreason_sgl.view import figures
from specreason_sgl.view.chains import (
    Section,
    aside,
    chain_heading,
    column,
    columns_of,
    gave_answer,
    laid_out,
    side_by_side,
    thinking,
)
from specreason_sgl.view.items import LOW, REASON, Look, item_lines, of_chain
from specreason_sgl.view.lines import flow, keys_help, label, legend, line, page, rule, spread
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.steps import ChainState, StepState, TextState
from specreason_sgl.view.text import fit, head, one_line, shorten
from specreason_sgl.view.theme import FINAL_LEGEND, LEGEND, SIGNS, WORD

SHARE = 5
"""The fewest lines for each of several chains that are being written; chains without room are only counted."""
NAME = 6
"""The fewest cells of a name in the totals."""


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
    each = min(columns_of(look), len(going))
    if not each:
        return []
    shown = going[-each * max(1, (room - 1) // SHARE) :]
    hidden = len(going) - len(shown)
    bands = [shown[start : start + each] for start in range(0, len(shown), each)]
    share, more = divmod(room - bool(hidden), len(bands))
    lines = [line((f" … {hidden} more {'chain' if hidden == 1 else 'chains'} going on", "dim"))] if hidden else []
    inner = column(look, each)
    for number, band in enumerate(bands):
        height = share + (number < more)
        ends = [_end(state, chain, inner, height) for chain in band]
        lines += side_by_side([[*end, *[line()] * (height - len(end))] for end in ends], inner.width)
    return lines


def _end(state: SolveState, chain: ChainState, look: Look, most: int) -> list[Text]:
    """The heading of a chain and its last lines, as many as fit."""
    rows = [
        item_lines(row, state, look)
        if isinstance(row, StepState | TextState)
        else aside(row if isinstance(row, Noticed) else [row], state, look)
        for row in chain.rows[-most:]
    ]
    content = [each for lines in (*rows, thinking(chain, look)) for each in lines]
    return [*chain_heading(chain, state, look), *content[-(most - 1) :]][:most]


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
        weight = "bold" if gave_answer(state, chain) else "dim"
        cell = line("  ", (f"{sign.glyph} ", sign.style), (f"{chain.number}", weight))
        if answers := chain.answers:
            cell.append(f": {shorten(answers[-1].answer or '–', WORD)}", weight)
        if words.cell_len + cell.cell_len + 2 > width:
            return words.append(" …", "dim")
        words.append_text(cell)
    return words


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
