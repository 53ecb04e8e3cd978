"""One solve as text: the same for a live one, a stored one and the one that stays on the terminal.

Pure: what is shown depends on the state of the solve and on the `Look`, nothing else. A frame lays out only the
steps that are visible in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from specreason_sgl.events import AnswerWritten, CallKind, Role
from specreason_sgl.runs.redecide import Redecision
from specreason_sgl.view import figures
from specreason_sgl.view.lines import Part, flow, keys_help, label, legend, line, page, rule, spread
from specreason_sgl.view.state import SolveState, StepState, utility
from specreason_sgl.view.text import head, one_line, shorten, wrap
from specreason_sgl.view.theme import FINAL_LEGEND, GUTTERS, LEGEND, ROLES, RoleName

TINY, NARROW, WIDE = 40, 60, 90
"""Below each width a step's heading has to do without some of its figures."""
LOW = 16
"""Below this height the frame keeps to the essentials."""
FOLDED = 6
"""So many lines of a long step are shown until it is opened."""
INDENT = 7
LABEL = 15
ANSWER = -1
"""Stands for the answer among the numbers of opened steps."""
HINT = "hint: "
TIMED: tuple[tuple[CallKind, str], ...] = (("draft", "draft"), ("judge", "judge"), ("regenerate", "base"))

Block = Callable[[], list[Text]]
"""Lays out one step, or whatever else stands between header and footer, when it is needed."""


@dataclass(frozen=True)
class Look:
    """How to look at a solve."""

    width: int = 100
    height: int = 40
    now: float | None = None
    """The clock, in seconds since the solve began; None stands still at the last event."""
    colour: bool = True
    cursor: int | None = None
    """Which step is looked at, counted from the first; None follows the end."""
    offset: int = 0
    """So many lines further down."""
    opened: frozenset[int] = frozenset()
    """Numbers of the steps that are shown whole, with the draft that was rejected."""
    found: str = ""
    """Shown reversed wherever it stands."""
    title: str = ""
    keys: str = ""
    redecision: Redecision | None = None

    @property
    def inside(self) -> int:
        """The width of a step's text."""
        return max(1, self.width - INDENT - 1)


def frame(state: SolveState, look: Look) -> Text:
    """The solve on a page of exactly the height that is asked for."""
    top, bottom = _header(state, look), _footer(state, look)
    room = max(1, look.height - len(top) - len(bottom))
    body = _window(_blocks(state, look), look, room)
    body += [line()] * (room - len(body))
    return page([*top, *body, *bottom][: look.height], look.width, colour=look.colour)


def report(state: SolveState, look: Look) -> Text:
    """The whole solve from the question to the totals, for a terminal that scrolls or a file."""
    body = [each for block in _blocks(state, look) for each in block()]
    lines = [
        *_header(state, look),
        *body,
        rule(look.width),
        *totals(state, look.width),
        *legend(FINAL_LEGEND, look.width),
    ]
    return page(lines, look.width, colour=look.colour)


def _window(blocks: Sequence[Block], look: Look, room: int) -> list[Text]:
    """The lines that are visible, laying out no more blocks than it takes."""
    if look.cursor is None or look.cursor >= len(blocks):
        above: list[Text] = []
        for block in reversed(blocks):
            above = block() + above
            if len(above) >= room + look.offset:
                break
        end = max(min(room, len(above)), len(above) - look.offset)
        return above[max(0, end - room) : end]
    lead = room // 4
    above, below = [], []
    for block in blocks[look.cursor :]:
        below += block()
        if len(below) >= room + look.offset:
            break
    below = below[min(look.offset, max(0, len(below) - 1)) :]
    wanted = max(lead, room - len(below))
    for block in reversed(blocks[: look.cursor] if not look.offset else ()):
        above = block() + above
        if len(above) >= wanted:
            break
    return (above[max(0, len(above) - wanted) :] + below)[:room]


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
    if redecision.divergence is not None:
        items.append(line(f"first divergence at step {redecision.divergence}"))
    sweep = [line((f"{threshold}:{figures.share(share)}", "dim")) for threshold, share in redecision.sweep]
    heading = line(("acceptance by threshold ", "dim"))
    return [*flow(items, width), *(flow([heading, *sweep], width, gap=" ") if sweep else [])]


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
        done, left = figures.progress(tally.thinking_tokens / tally.budget, 10)
        items.append(
            line(
                "thinking ",
                (done, "cyan"),
                (left, "dim"),
                f" {figures.count(tally.thinking_tokens)}",
                (f" of {figures.count(tally.budget)} tok", "dim"),
            )
        )
    lines = [rule(look.width), *flow(items, look.width), *legend(LEGEND, look.width)]
    if look.height < LOW:
        lines = lines[:2]
    return lines + (keys_help(look.keys, look.width) if look.keys else [])


def _blocks(state: SolveState, look: Look) -> list[Block]:
    steps = list(state.steps.values())
    blocks: list[Block] = [_lazy(step_lines, step, state, look, place) for place, step in enumerate(steps)]
    if state.thinking:
        blocks.append(lambda: _streaming("thinking", "".join(state.thinking), look))
    blocks.append(lambda: answer_lines(state, look))
    return blocks


def _lazy(lay_out: Callable[[StepState, SolveState, Look, int], list[Text]], *args: object) -> Block:
    return lambda: lay_out(*args)  # type: ignore[arg-type]


def step_lines(step: StepState, state: SolveState, look: Look, place: int) -> list[Text]:
    """One step: its heading, its text, and the draft that was rejected folded beneath."""
    redecision = look.redecision
    unreal = redecision is not None and redecision.is_counterfactual(step.number)
    lines: list[Text] = []
    if redecision and unreal and place and not redecision.is_counterfactual(step.number - 1):
        lines.append(rule(look.width, "counterfactual from here on: it follows a decision that would differ"))
    lines += [row for before, notice in state.notices if before == place for row in _wrapped("notice", notice, look)]
    lines.append(_heading(step, state, look, chosen=place == look.cursor))
    decision = redecision.on(step.number) if redecision else None
    if decision and decision.flips:
        now = label("accepted" if decision.now else "rejected")
        lines.append(_inside("flip", line(label("flip"), " to ", now), look))
    gutter = "╎" if unreal else GUTTERS.get(step.role, "│")
    style = ROLES[step.role].style
    opened = step.number in look.opened
    writing = step.author is None and step.role != "judging"
    for row in _rows(step.shown, look, opened=opened, writing=writing):
        row.style = "dim" if unreal else ""
        lines.append(_under(gutter, style, row))
    if step.rejected is not None:
        lines += _rejected(step, look, opened=opened)
    return lines


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
    role = ROLES["rejected"]
    lead: list[Part] = [
        (role.label, role.style),
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


def _inside(role: RoleName, content: Text, look: Look) -> Text:
    content.truncate(look.inside, overflow="ellipsis")
    return _under(GUTTERS.get(role, "│"), ROLES[role].style, content)


def _under(gutter: str, style: str, content: Text) -> Text:
    return line(" " * (INDENT - 2), (gutter, style), " ").append_text(content)


def _heading(step: StepState, state: SolveState, look: Look, *, chosen: bool) -> Text:
    role = ROLES[step.role]
    unreal = look.redecision is not None and look.redecision.is_counterfactual(step.number)
    heading = line(
        ("›" if chosen else " ", "bold"),
        (f"{step.number:>3} ", "bold" if chosen else "dim"),
        ("╎" if unreal else GUTTERS.get(step.role, "│"), role.style),
        " ",
        label(step.role, LABEL),
    )
    heading.append_text(_score(step, state, look))
    tokens = step.tokens or step.pieces or step.draft_tokens
    if look.width >= TINY:
        heading.append(f"{figures.count(tokens):>5} tok" if tokens else " " * 9)
    if look.width >= WIDE:
        spent = [f"{word} {figures.seconds(step.seconds[kind])}" for kind, word in TIMED if step.seconds[kind]]
        heading.append("  " + "  ".join(spent), "dim")
    return heading


def _score(step: StepState, state: SolveState, look: Look) -> Text:
    narrow, wide = look.width < NARROW, look.width >= WIDE
    if step.score is None:
        return line(" " * (5 if narrow else 27 if wide else 16))
    score = step.score.score
    again = look.redecision
    value, figure = utility(step.score, again.rule if again else state.rule)
    threshold = again.threshold if again else state.threshold
    accepted = score.accepts(again.rule, again.threshold) if again else step.score.accepted
    style = ROLES["accepted" if accepted else "rejected"].style
    words = line((f"{figure:>4} ", style))
    if not narrow:
        reached, rest = figures.gauge(value, threshold)
        words.append(reached, style).append(rest, "dim").append(" ")
    if wide:
        words.append(figures.sparkline(score.distribution), "dim").append(" ")
    return words


def _streaming(role: RoleName, text: str, look: Look) -> list[Text]:
    style = ROLES[role].style
    heading = line(" " * (INDENT - 2), ("┃", style), " ", label(role))
    return [heading, *(_under("┃", style, row) for row in _rows(text, look, opened=False, writing=True))]


def answer_lines(state: SolveState, look: Look) -> list[Text]:
    """What stands below the steps: notices, the answer, a failure."""
    late = [notice for before, notice in state.notices if before >= len(state.steps)]
    lines = [row for notice in late for row in _wrapped("notice", notice, look)]
    if state.answer:
        lines += _answer(state.answer, state, look)
    elif state.answering:
        lines += _streaming("answering", "".join(state.answering), look)
    if state.failure:
        lines += _wrapped("failed", state.failure.error, look)
        hints = wrap(state.failure.hint, look.inside - len(HINT)) if state.failure.hint else ()
        lines += [line(" " * INDENT, (HINT, "cyan"), hint) for hint in hints]
    return lines


def _answer(answer: AnswerWritten, state: SolveState, look: Look) -> list[Text]:
    style = ROLES["answered"].style
    unreal = look.redecision is not None and look.redecision.divergence is not None
    gutter = "╎" if unreal else "┃"
    heading = line(" " * (INDENT - 2), (gutter, style), " ", label("answered", LABEL))
    heading.append(shorten(answer.answer, look.inside // 2) if answer.answer is not None else "–", "bold")
    if state.ended and state.ended.correct is not None:
        heading.append("  ").append(*label("right" if state.ended.correct else "wrong"))
    if answer.truncated:
        heading.append("  ").append(ROLES["notice"].glyph + " cut at its limit", ROLES["notice"].style)
    rows = _rows(answer.text, look, opened=ANSWER in look.opened, writing=False)
    for row in rows:
        row.style = "dim" if unreal else ""
    return [heading, *(_under(gutter, style, row) for row in rows)]


def _wrapped(role: RoleName, words: str, look: Look) -> list[Text]:
    rows = wrap(words, max(1, look.inside - LABEL))
    first = line(" " * INDENT, label(role, LABEL), rows[0])
    return [first, *(line(" " * (INDENT + LABEL), row) for row in rows[1:])]


def totals(state: SolveState, width: int) -> list[Text]:
    """What the solve came to, in a few lines."""
    tally = state.tally
    models: tuple[tuple[Role, RoleName], ...] = (("small", "small"), ("base", "base"))
    lines = [
        row
        for model, role in models
        if tally.generated[model] or tally.steps[model]
        for row in flow(
            [
                line(
                    (f"{ROLES[role].glyph} {model:<6}", ROLES[role].style),
                    f"{figures.steps(tally.steps[model]):>11} {figures.count(tally.kept[model]):>7} tok kept",
                    (f" of {figures.count(tally.generated[model])}", "dim"),
                ),
                line(figures.seconds(tally.model_seconds[model])),
            ],
            width,
        )
    ]
    items = [line(f"{figures.seconds(tally.elapsed)} in all")]
    if tally.outages:
        items.append(line(f"{figures.seconds(tally.lost_s)} of it lost"))
    if tally.judged:
        items.append(line("acceptance ", (figures.share(tally.acceptance), "bold"), f" of {tally.judged}"))
        items.append(line(f"{figures.count(tally.wasted_tokens)} tok wasted"))
        items.append(line(f"judge {figures.seconds(tally.seconds['judge'])}"))
        items.append(line("speed-up ", (figures.times(tally.speed_up), "bold"), (" (estimate)", "dim")))
    if tally.ended:
        items.append(line((f"thinking ended: {tally.ended}", "dim")))
    return [*lines, *flow(items, width)]
