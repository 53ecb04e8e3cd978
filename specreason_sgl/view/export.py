"""A trace as one file that opens anywhere and fetches nothing: SVG, HTML with foldable steps, or Markdown."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from specreason_sgl.errors import UsageError
from specreason_sgl.files import write_new
from specreason_sgl.runs.redecide import Redecision
from specreason_sgl.view import figures
from specreason_sgl.view.chains import chain_words, given_words, vote_words
from specreason_sgl.view.html import REASON, as_html
from specreason_sgl.view.items import Look, candidate_sign, candidate_words, step_words
from specreason_sgl.view.solve_view import redecided_words, solve_report, totals
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.steps import ChainState, StepState, TextState, told
from specreason_sgl.view.text import one_line, shorten, visible
from specreason_sgl.view.theme import SIGNS

WIDTH = 110
"""Columns of a picture."""

PAPER = TerminalTheme(
    (22, 24, 29),
    (214, 218, 226),
    [
        (40, 44, 52),
        (232, 106, 98),
        (94, 196, 130),
        (222, 178, 84),
        (98, 152, 240),
        (198, 126, 214),
        (84, 190, 208),
        (214, 218, 226),
    ],
    [
        (98, 105, 118),
        (244, 128, 120),
        (124, 216, 156),
        (236, 198, 110),
        (132, 176, 250),
        (214, 150, 228),
        (116, 208, 224),
        (246, 248, 250),
    ],
)
"""The colours of pictures, chosen to be told apart on their dark ground."""

# Rich's own frame, without the fonts that it fetches.
_SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def picture(page: Text, title: str, width: int = WIDTH) -> str:
    """A page of a view as an SVG picture that needs nothing but itself."""
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    console.print(page, soft_wrap=True)
    return console.export_svg(title=one_line(title), theme=PAPER, code_format=_SVG, unique_id="trace")


def as_svg(state: SolveState, title: str, redecision: Redecision | None = None) -> str:
    """The whole trace as it stands on a terminal."""
    return picture(solve_report(state, Look(width=WIDTH, title=title, redecision=redecision)), title)


def as_markdown(state: SolveState, title: str, redecision: Redecision | None = None) -> str:
    """The trace as Markdown; what models wrote is fenced and never markup."""
    parts = [f"# {_plain(title)}"]
    if state.started:
        parts.append(_fenced(state.started.question))
    if redecision:
        parts.append(f"> {redecided_words(redecision)}")
    for chain in state.chains.values():
        parts += _markdown_chain(chain, state, redecision)
    for notice in state.notices:
        sign = state.name_of(notice.author) if notice.author else SIGNS["notice"]
        parts.append(f"{_plain(sign.label)}: {_plain(notice.message)}")
    if state.answer:
        grade = f" · {SIGNS[state.phase].label}" if state.phase in {"right", "wrong"} else ""
        vote = _plain(vote_words(state))
        parts += [f"## {SIGNS['answered'].label}{grade}", *filter(None, [vote]), _fenced(_worded(state))]
    if state.failure:
        parts.append(f"{SIGNS['failed'].label}: {_plain(state.failure.error)}")
    parts += [f"- {_listed(words.plain)}" for words in totals(state, WIDTH)]
    return "\n\n".join(parts) + "\n"


def _markdown_chain(chain: ChainState, state: SolveState, redecision: Redecision | None) -> Iterator[str]:
    if state.is_branched:
        yield f"# {_plain(chain_words(chain, state))}"
    for item in chain.items:
        marks = []
        if isinstance(item, TextState):
            yield f"{SIGNS['added'].word} by {_plain(state.name_of(item.author).label)}"
            marks += [f"{figures.count(item.tokens)} tok"] if item.tokens else []
        else:
            yield f"## {item.number} {_plain(state.sign_of(item).label)}"
            decision = redecision.on(item.score) if redecision else None
            marks += [SIGNS["flip"].label] if decision and decision.flips else []
        if item.cut is not None:
            marks.append(f"{SIGNS['cut'].label}: {_plain(shorten(item.cut, REASON))}")
        if redecision and redecision.is_counterfactual(item.decided):
            marks.append("counterfactual")
        marks += [step_words(item, state)] if isinstance(item, StepState) else []
        yield from filter(None, (" · ".join(marks), _fenced(item.shown)))
        if isinstance(item, StepState) and len(item.candidates) > 1:
            yield from _markdown_candidates(item, state, redecision)
        elif isinstance(item, StepState) and item.rejected is not None:
            yield f"{SIGNS['rejected'].label} draft, {figures.count(item.draft_tokens)} tok"
            yield _fenced(item.rejected)
    if answers := [each for each in chain.answers if state.is_branched or each is not state.answer]:
        yield f"{SIGNS['answered'].label}: {_plain(given_words(answers))}"


def _markdown_candidates(step: StepState, state: SolveState, redecision: Redecision | None) -> Iterator[str]:
    yield f"{len(step.candidates)} candidates"
    for each in step.candidates.values():
        sign = candidate_sign(each, step)
        decision = redecision.on(each.score) if redecision else None
        flip = f" {SIGNS['flip'].label}" if decision and decision.flips else ""
        figure = [" ".join(told(each.score, each.tokens, state.rule))] if each.score else []
        words = *figure, state.name_of(each.author).label, *candidate_words(each, step, state)
        yield f"{sign.label}{flip} · {_plain(' · '.join(words))}"
        if each.text and each.text != step.text:
            yield _fenced(each.text)


def _worded(state: SolveState) -> str:
    return state.worded.text if state.worded else ""


def _plain(text: str) -> str:
    """Words on one line that Markdown takes as they are."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", one_line(text))


def _listed(text: str) -> str:
    """A line of totals, in which nothing but a program's own words could be taken for Markdown."""
    return re.sub(r"([\\`*_\[\]<>#|!])", r"\\\1", text.strip())


def _fenced(text: str) -> str:
    shown = visible(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{fence}text\n{shown}\n{fence}"


FORMATS: dict[str, Callable[[SolveState, str, Redecision | None], str]] = {
    ".svg": as_svg,
    ".html": as_html,
    ".md": as_markdown,
}


def export(path: Path, state: SolveState, title: str, redecision: Redecision | None = None) -> None:
    """Write a trace in the format that the file's name asks for.

    Raises:
        UsageError: there is no such format, or the file is there already or cannot be written.
    """
    write = FORMATS.get(path.suffix.lower())
    if write is None:
        raise UsageError(f"cannot export to `{path}`", hint=f"its name can end with {', '.join(FORMATS)}")
    write_new(path, write(state, title, redecision))
