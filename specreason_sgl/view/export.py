"""A trace as one file that opens anywhere and fetches nothing: SVG, HTML with foldable steps, or Markdown."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from specreason_sgl.errors import UsageError
from specreason_sgl.runs.redecide import Redecision
from specreason_sgl.view import figures
from specreason_sgl.view.solve_view import Look, chain_words, flip_words, solve_report, spent, totals
from specreason_sgl.view.state import ChainState, Item, SolveState, StepState, TextState, utility
from specreason_sgl.view.text import one_line, shorten, visible
from specreason_sgl.view.theme import FINAL_LEGEND, SIGNS, Sign, SignName

WIDTH = 110
"""Columns of a picture."""
REASON = 200
"""The most cells of a program's reason."""

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


_CSS = """
:root { color-scheme: light dark; --ink: #1d2026; --dim: #6a7180; --ground: #fff; --line: #dfe3ea; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe3ea; --dim: #8f97a8; --ground: #16181d; --line: #2c313a; } }
body { color: var(--ink); background: var(--ground); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 52rem; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.25rem; } pre { white-space: pre-wrap; margin: .25rem 0; font: inherit; }
.step { border-left: 3px solid var(--role); padding: .1rem 0 .1rem .75rem; margin: .6rem 0; }
.step.base { border-left-width: 6px; } .step.unreal { border-left-style: dashed; opacity: .65; }
summary { cursor: pointer; } .role { color: var(--role); font-weight: 600; white-space: nowrap; }
.step.cut pre, .added.cut pre { text-decoration: line-through; opacity: .6; }
.added { border-left: 2px dotted var(--role); padding-left: .75rem; margin: .4rem 0; color: var(--dim); }
h2 { font-size: 1rem; border-top: 1px solid var(--line); padding-top: .6rem; margin-top: 1.2rem; }
.figures, .legend, footer { color: var(--dim); font-size: .85rem; }
.rejected { border-left: 3px dotted var(--role); padding-left: .75rem; margin: .3rem 0; color: var(--dim); }
.note { border-top: 1px dashed var(--dim); color: var(--dim); padding-top: .3rem; font-size: .9rem; }
.legend span { margin-right: 1rem; } .totals { font-variant-numeric: tabular-nums; }
"""


def as_html(state: SolveState, title: str, redecision: Redecision | None = None) -> str:
    """The trace as a page of its own; every step folds."""
    question = state.started.question if state.started else ""
    steps = "\n".join(each for chain in state.chains.values() for each in _html_chain(chain, state, redecision))
    legend = " ".join(_html_sign(name) for name in FINAL_LEGEND)
    sums = "<br>".join(_escape(words.plain.strip()) for words in totals(state, WIDTH))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{_escape(one_line(title))}</title>
<style>{_CSS}</style>
</head>
<body>
<h1>{_escape(one_line(title))}</h1>
<p class="legend">{legend}</p>
{_html_redecision(redecision)}
{_html_text(question)}
{steps}
{_html_end(state)}
<footer class="totals">{sums}</footer>
</body>
</html>
"""


def _html_chain(chain: ChainState, state: SolveState, redecision: Redecision | None) -> Iterator[str]:
    if state.is_branched:
        yield f"<h2>{_escape(chain_words(chain))}</h2>"
    for item in chain.items:
        if isinstance(item, TextState):
            yield _html_added(item, state, redecision)
        else:
            yield _html_step(item, state, redecision)
    if chain.answer and chain.answer is not state.answer:
        yield f"<p>{_html_sign('answered')} <strong>{_escape(visible(chain.answer.answer or '–'))}</strong></p>"


def _html_kind(kind: str, item: Item, redecision: Redecision | None) -> str:
    unreal = redecision is not None and redecision.is_counterfactual(item.decided)
    return kind + (" unreal" if unreal else "") + (" cut" if item.cut is not None else "")


def _html_cut(item: Item) -> str:
    if item.cut is None:
        return ""
    return f'{_html_sign("cut")} <span class="figures">{_escape(shorten(item.cut, REASON))}</span> '


def _html_added(text: TextState, state: SolveState, redecision: Redecision | None) -> str:
    sign = state.sign_of_author(text.author)
    tokens = f" {figures.count(text.tokens)} tok" if text.tokens else ""
    return (
        f'<div class="{_html_kind("added", text, redecision)}" style="--role:{sign.hex}">{_html_sign("added")} by '
        f"{_html_sign(sign)}{tokens} {_html_cut(text)}{_html_text(text.text)}</div>"
    )


def _html_step(step: StepState, state: SolveState, redecision: Redecision | None) -> str:
    kind = _html_kind("base" if step.author == "base" else "small", step, redecision)
    sign = state.sign_of(step)
    decision = redecision.on(step.score) if redecision else None
    flip = f"{_html_sign('flip')} " if decision and decision.flips else ""
    rejected = ""
    if step.rejected is not None:
        words = f"{_html_sign('rejected')} draft, {figures.count(step.draft_tokens)} tok"
        rejected = (
            f'<details class="rejected" style="--role:{SIGNS["rejected"].hex}"><summary>{words}</summary>'
            f"{_html_text(step.rejected)}</details>"
        )
    return (
        f'<details open class="step {kind}" style="--role:{sign.hex}"><summary>{step.number} '
        f"{_html_sign(sign)} {flip}{_html_cut(step)}"
        f'<span class="figures">{_escape(_figures(step, state))}</span></summary>'
        f"{_html_text(step.shown)}{rejected}</details>"
    )


def _html_end(state: SolveState) -> str:
    parts = [f'<p class="note">{_html_sign("notice")} {_escape(visible(notice))}</p>' for notice in state.notices]
    if state.answer:
        grade = _html_sign(state.phase) if state.phase in {"right", "wrong"} else ""
        answer = f"<strong>{_escape(visible(state.answer.answer or '–'))}</strong>"
        parts.append(
            f'<div class="step base" style="--role:{SIGNS["answered"].hex}">{_html_sign("answered")} '
            f"{answer} {grade}{_html_text(state.answer.text)}</div>"
        )
    if state.failure:
        parts.append(f"<p>{_html_sign('failed')} {_escape(visible(state.failure.error))}</p>")
    return "\n".join(parts)


def _html_redecision(redecision: Redecision | None) -> str:
    return f'<p class="note">{_escape(_redecided(redecision))}</p>' if redecision else ""


def _html_sign(name: SignName | Sign) -> str:
    sign = name if isinstance(name, Sign) else SIGNS[name]
    return f'<span class="role" style="--role:{sign.hex}">{_escape(sign.label)}</span>'


def _html_text(text: str) -> str:
    return f'<pre dir="auto">{_escape(visible(text))}</pre>'


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def as_markdown(state: SolveState, title: str, redecision: Redecision | None = None) -> str:
    """The trace as Markdown; what models wrote is fenced and never markup."""
    parts = [f"# {_plain(title)}"]
    if state.started:
        parts.append(_fenced(state.started.question))
    if redecision:
        parts.append(f"> {_redecided(redecision)}")
    for chain in state.chains.values():
        parts += _markdown_chain(chain, state, redecision)
    parts += [f"{SIGNS['notice'].label}: {_plain(notice)}" for notice in state.notices]
    if state.answer:
        grade = f" · {SIGNS[state.phase].label}" if state.phase in {"right", "wrong"} else ""
        parts += [f"## {SIGNS['answered'].label}{grade}", _fenced(state.answer.text)]
    if state.failure:
        parts.append(f"{SIGNS['failed'].label}: {_plain(state.failure.error)}")
    parts += [f"- {_listed(words.plain)}" for words in totals(state, WIDTH)]
    return "\n\n".join(parts) + "\n"


def _markdown_chain(chain: ChainState, state: SolveState, redecision: Redecision | None) -> Iterator[str]:
    if state.is_branched:
        yield f"# {_plain(chain_words(chain))}"
    for item in chain.items:
        marks = []
        if isinstance(item, TextState):
            yield f"{SIGNS['added'].word} by {_plain(state.sign_of_author(item.author).label)}"
            marks += [f"{figures.count(item.tokens)} tok"] if item.tokens else []
        else:
            yield f"## {item.number} {_plain(state.sign_of(item).label)}"
            decision = redecision.on(item.score) if redecision else None
            marks += [SIGNS["flip"].label] if decision and decision.flips else []
        if item.cut is not None:
            marks.append(f"{SIGNS['cut'].label}: {_plain(shorten(item.cut, REASON))}")
        if redecision and redecision.is_counterfactual(item.decided):
            marks.append("counterfactual")
        marks += [_figures(item, state)] if isinstance(item, StepState) else []
        yield from filter(None, (" · ".join(marks), _fenced(item.shown)))
        if isinstance(item, StepState) and item.rejected is not None:
            yield f"{SIGNS['rejected'].label} draft, {figures.count(item.draft_tokens)} tok"
            yield _fenced(item.rejected)
    if chain.answer and chain.answer is not state.answer:
        yield f"{SIGNS['answered'].label}: {_plain(chain.answer.answer or '–')}"


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


def _figures(step: StepState, state: SolveState) -> str:
    """Score, tokens and times of a step."""
    parts = []
    if step.score is not None:
        value, figure = utility(step.score, state.rule)
        bar = "".join(figures.gauge(value, state.threshold))
        parts.append(f"score {figure} {bar} {figures.sparkline(step.score.score.distribution)}")
    parts.append(f"{figures.count(step.tokens)} tok")
    return " · ".join([*parts, *spent(step)])


def _redecided(redecision: Redecision) -> str:
    words = (
        f"threshold {redecision.threshold:g} ({redecision.rule}): {len(redecision.flips)} of "
        f"{len(redecision.decisions)} decisions flip, acceptance {figures.share(redecision.acceptance)} "
        f"instead of {figures.share(redecision.stored_acceptance)}"
    )
    if redecision.first_flip is None:
        return words
    return f"{words}; everything after {flip_words(redecision)} is counterfactual"


FORMATS: dict[str, Callable[[SolveState, str, Redecision | None], str]] = {
    ".svg": as_svg,
    ".html": as_html,
    ".md": as_markdown,
}


def export(path: Path, state: SolveState, title: str, redecision: Redecision | None = None) -> None:
    """Write a trace in the format that the file's name asks for.

    Raises:
        UsageError: there is no such format, or the file cannot be written.
    """
    write = FORMATS.get(path.suffix.lower())
    if write is None:
        raise UsageError(f"cannot export to `{path}`", hint=f"its name can end with {', '.join(FORMATS)}")
    try:
        path.write_text(write(state, title, redecision), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write `{path}`: {error.strerror or error}") from error
