"""A trace as HTML: the same parts make the exported page and the live one.

Each part has an element with an id of its own, so that a page can replace it when it changes. Where more can follow,
there is an empty element that is replaced by what comes and itself.
"""

from __future__ import annotations

import html
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from specreason_sgl.events import StepScored
from specreason_sgl.runs.redecide import Redecision
from specreason_sgl.view import figures
from specreason_sgl.view.chains import chain_figures, fate, given_words, vote_words
from specreason_sgl.view.items import candidate_sign, candidate_words, step_words
from specreason_sgl.view.mathml import mathml, with_formulas
from specreason_sgl.view.solve_view import redecided_words
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.steps import ChainState, Item, StepState, TextState, told
from specreason_sgl.view.text import one_line, shorten, visible
from specreason_sgl.view.theme import FINAL_LEGEND, OTHERS, SIGNS, WORD, Sign, SignName

ASSETS = Path(__file__).parent / "assets"
TRACE, OUTCOME, CHAINS, END = "solve", "outcome", "chains", "end"
"""The ids of the whole, of what came out, of the place where a further chain comes, and of what stands below."""
REASON = 200
"""The most cells of a program's reason."""
TAIL = 2000
"""How many characters at the end of a chain are shown while it streams in as a whole."""

_IS_FORMULA = re.compile(r"[\\^_]")


def _role(colour: str) -> str:
    """The class of what has a colour."""
    return f"role-{colour.removeprefix('#')}"


COLOURS = sorted({sign.hex for sign in SIGNS.values()} | {on_paper for _, _, on_paper in OTHERS})
STYLE = (ASSETS / "page.css").read_text(encoding="utf-8") + "".join(
    f".{_role(colour)} {{ --role: {colour}; }}\n" for colour in COLOURS
)
_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
"""What an exported page may do: nothing but look as its own style sheet says."""


def as_html(state: SolveState, title: str, redecision: Redecision | None = None) -> str:
    """The trace as a page of its own; every step folds, and every chain, of which only the answering one is open."""
    legend = " ".join(_sign(name) for name in FINAL_LEGEND)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{_escape(one_line(title))}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{_escape(one_line(title))}</h1>
{trace(state, redecision, opened=state.answering_chain)}
<footer class="legend">{legend}</footer>
</body>
</html>
"""


def trace(state: SolveState, redecision: Redecision | None = None, opened: ChainState | None = None) -> str:
    """All parts: what came out, the question, the steps of each chain, and the answer.

    Args:
        state: the solve.
        redecision: decisions taken again.
        opened: the only chain that is not folded; if not given, none is.
    """
    question = state.started.question if state.started else ""
    note = f'<p class="note">{_escape(redecided_words(redecision))}</p>' if redecision else ""
    chains = "\n".join(
        chain_part(chain, state, redecision, is_open=opened is None or opened is chain)
        for chain in state.chains.values()
    )
    parts = (outcome(state), note, _text(question), chains, place(CHAINS), end(state))
    return f'<article id="{TRACE}">' + "\n".join(filter(None, parts)) + "</article>"


def place(name: str) -> str:
    """Where something more can come."""
    return f'<div id="{name}" hidden=""></div>'


def outcome(state: SolveState) -> str:
    """What came out: the answer, and what it took."""
    tally = state.tally
    answer = f" <strong>{_answer(state.answer.answer)}</strong>" if state.answer else ""
    most = [f"<strong>{figures.seconds(tally.elapsed)}</strong> in all"]
    more = []
    if tally.judged:
        most = [
            f"acceptance <strong>{figures.share(tally.acceptance)}</strong> of {tally.judged}",
            f"speed-up <strong>{figures.times(tally.speed_up)}</strong> (estimate)",
            *most,
        ]
        more += [f"{figures.count(tally.wasted_tokens)} tok wasted", f"judge {figures.seconds(tally.seconds['judge'])}"]
    if state.is_branched:
        more.append(f"{figures.count(len(state.chains))} chains")
    if state.cut:
        more.append(f"{figures.steps(state.cut)} cut")
    if tally.outages:
        more.append(f"{figures.seconds(tally.lost_s)} lost")
    if tally.ended:
        more.append(f"thinking ended: {_escape(shorten(tally.ended, REASON))}")
    return (
        f'<section id="{OUTCOME}" class="outcome"><p class="answer">{_sign(state.phase)}{answer}</p>'
        f"<p>{' · '.join(most)}</p>{_writers(state)}"
        f'<p class="figures">{" · ".join(more)}</p></section>'
    )


def _writers(state: SolveState) -> str:
    """Tokens and seconds by who wrote."""
    tally = state.tally
    rows = "".join(
        f'<tr><th scope="row"><span class="{_classes("sign", sign)}">{sign.glyph} {_escape(shorten(each, WORD))}</span>'
        f"</th><td>{figures.count(tally.steps[each])}</td>"
        f"<td>{figures.count(tally.kept[each])}</td><td>{figures.count(tally.generated[each])}</td>"
        f"<td>{figures.seconds(tally.model_seconds[each])}</td></tr>"
        for each, sign in state.writers.items()
    )
    heads = "".join(f'<th scope="col">{word}</th>' for word in ("steps", "tok kept", "tok written", "time"))
    return f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""


def chain_part(
    chain: ChainState, state: SolveState, redecision: Redecision | None = None, *, is_open: bool = True
) -> str:
    """A chain with all that is in it."""
    items = "\n".join(item_part(item, state, redecision) for item in chain.items)
    parts = (heading(chain, state), items, place(next_of(chain)), thinking(chain), answers(chain, state))
    opened = ' open=""' if is_open else ""
    return f'<details{opened} id="chain-{chain.number}" class="chain">' + "\n".join(filter(None, parts)) + "</details>"


def next_of(chain: ChainState) -> str:
    """The id of the place where a chain's next item comes."""
    return f"next-{chain.number}"


def id_of(place: int) -> str:
    """The id of a step or another text."""
    return f"item-{place}"


def text_of(step: StepState) -> str:
    """The id of a step's text."""
    return f"text-{step.place}"


def thinking_of(chain: ChainState) -> str:
    """The id of what streams into a chain as a whole."""
    return f"thinking-{chain.number}"


def around(chain: ChainState, state: SolveState) -> dict[str, str]:
    """The small parts of a chain, by id: its heading, and what stands below its items."""
    return {
        head_of(chain): heading(chain, state),
        thinking_of(chain): thinking(chain),
        f"answer-{chain.number}": answers(chain, state),
    }


def head_of(chain: ChainState) -> str:
    """The id of a chain's heading."""
    return f"head-{chain.number}"


def heading(chain: ChainState, state: SolveState) -> str:
    """Which of several chains it is."""
    if not state.is_branched:
        return f'<summary id="{head_of(chain)}" hidden=""></summary>'
    given = f" {_escape(given_words(chain.answers))}" if chain.answers else ""
    words = f"chain {chain.number} · {_sign(fate(chain, state))}{given}"
    return f'<summary id="{head_of(chain)}">{words} · {_escape(" · ".join(chain_figures(chain)))}</summary>'


def thinking(chain: ChainState) -> str:
    """The end of a chain that streams in as a whole."""
    name = thinking_of(chain)
    text = "".join(chain.thinking)
    if not text:
        return place(name)
    shown = text if len(text) <= TAIL else "…" + text[-TAIL:]
    return (
        f'<div id="{name}" class="{_classes("step base", SIGNS["thinking"])}">{_sign("thinking")}{_text(shown)}</div>'
    )


def answers(chain: ChainState, state: SolveState) -> str:
    """The answers that were given behind a chain, without the one that stands below all."""
    name = f"answer-{chain.number}"
    given = [each for each in chain.answers if state.is_branched or each is not state.answer]
    parts = "".join(
        f'<details id="given-{chain.number}-{number}" class="given"><summary>{_sign("answered")} '
        f"<strong>{_answer(each.answer)}</strong></summary>{_text(each.text)}</details>"
        for number, each in enumerate(given)
    )
    return f'<div id="{name}">{parts}</div>' if parts else place(name)


def item_part(item: Item, state: SolveState, redecision: Redecision | None = None) -> str:
    """A step, or text that is no step."""
    return _step(item, state, redecision) if isinstance(item, StepState) else _added(item, state, redecision)


def _kind(kind: str, item: Item, redecision: Redecision | None) -> str:
    unreal = redecision is not None and redecision.is_counterfactual(item.decided)
    return kind + (" unreal" if unreal else "") + (" cut" if item.cut is not None else "")


def _cut(item: Item) -> str:
    if item.cut is None:
        return ""
    return f'{_sign("cut")} <span class="figures">{_escape(shorten(item.cut, REASON))}</span> '


def _added(text: TextState, state: SolveState, redecision: Redecision | None) -> str:
    sign = state.sign_of_author(text.author)
    tokens = f" {figures.count(text.tokens)} tok" if text.tokens else ""
    wrote = "" if text.author in {"base", "small"} else f"{_sign('added')} by "
    return (
        f'<div id="{id_of(text.place)}" class="{_classes(_kind("added", text, redecision), sign)}">{wrote}'
        f"{_sign(sign)}{tokens} {_cut(text)}{_text(text.shown)}</div>"
    )


def _step(step: StepState, state: SolveState, redecision: Redecision | None) -> str:
    sign = state.sign_of(step)
    kind = _kind("base" if step.author == "base" else "small", step, redecision)
    flip = "" if len(step.candidates) > 1 else _flip(step.score, redecision)
    rejected = ""
    if len(step.candidates) > 1:
        rejected = _choice(step, state, redecision)
    elif step.rejected is not None:
        words = f"{_sign('rejected')} draft, {figures.count(step.draft_tokens)} tok"
        rejected = (
            f'<details id="draft-{step.place}" class="{_classes("rejected", SIGNS["rejected"])}">'
            f"<summary>{words}</summary>{_text(step.rejected)}</details>"
        )
    return (
        f'<details open="" id="{id_of(step.place)}" class="{_classes(f"step {kind}", sign)}"><summary>{step.number} '
        f'{_sign(sign)} {flip}{_cut(step)}<span class="figures">{_escape(step_words(step, state))}</span></summary>'
        f"{step_text(step)}{rejected}</details>"
    )


def _flip(score: StepScored | None, redecision: Redecision | None) -> str:
    decision = redecision.on(score) if redecision else None
    return f"{_sign('flip')} " if decision and decision.flips else ""


def _choice(step: StepState, state: SolveState, redecision: Redecision | None) -> str:
    """The candidates of a step, folded to which of them was taken."""
    figures_of = {
        number: " ".join(told(each.score, each.tokens, state.rule))
        for number, each in step.candidates.items()
        if each.score
    }
    taken = [figures_of[number] for number, each in step.candidates.items() if each.is_accepted]
    words = f"{len(step.candidates)} candidates"
    if figures_of:
        words += "".join(f" · {_sign('accepted')} {_escape(figure)}" for figure in taken) or f" · {_sign('rejected')}"
    rows = ""
    for number, each in step.candidates.items():
        sign = candidate_sign(each, step)
        more = " · ".join(candidate_words(each, step, state))
        text = "" if each.text is None or each.text == step.text else _text(each.text)
        rows += (
            f'<div class="{_classes("candidate", sign)}">{_sign(sign)} {_flip(each.score, redecision)}'
            f"{_escape(figures_of.get(number, ''))} {_sign(state.name_of(each.author))} "
            f'<span class="figures">{_escape(more)}</span>{text}</div>'
        )
    return f'<details id="choice-{step.place}" class="choice"><summary>{words}</summary>{rows}</details>'


def step_text(step: StepState) -> str:
    """The text of a step, as far as it is written; of several candidates that are being written, each."""
    texts = [text[-TAIL:] for text in step.unfinished.values()] or [step.shown]
    return f'<div id="{text_of(step)}">{"".join(map(_text, texts))}</div>'


def end(state: SolveState) -> str:
    """What stands below the steps: notices, the answer as it was written, a failure."""
    parts = []
    for notice in state.notices:
        sign = state.name_of(notice.author) if notice.author else SIGNS["notice"]
        parts.append(f'<p class="note">{_sign(sign)} {_escape(visible(notice.message))}</p>')
    if answering := state.answering:
        texts = [text[-TAIL:] for _, text in answering] if len(answering) > 1 else [answering[0][1]]
        parts += [_written("answering", "", text) for text in texts]
    elif state.answer:
        grade = _sign(state.phase) if state.phase in {"right", "wrong"} else ""
        cut = f"{SIGNS['notice'].glyph} cut at its limit" if state.answer.truncated else ""
        words = f" <strong>{_answer(state.answer.answer)}</strong> {grade} {cut}"
        vote = vote_words(state)
        words += f'<p class="figures">{_escape(vote)}</p>' if vote else ""
        parts.append(_written("answered", words, (state.worded or state.answer).text))
    if state.failure:
        parts.append(f"<p>{_sign('failed')} {_escape(visible(state.failure.error))}</p>")
        parts += [f'<p class="note">hint: {_escape(visible(state.failure.hint))}</p>'] if state.failure.hint else []
    return f'<section id="{END}">' + "\n".join(parts) + "</section>"


def _written(name: SignName, words: str, text: str) -> str:
    return f'<div class="{_classes("step base", SIGNS[name])}">{_sign(name)}{words}{_text(text)}</div>'


def _sign(name: SignName | Sign) -> str:
    sign = name if isinstance(name, Sign) else SIGNS[name]
    return f'<span class="{_classes("sign", sign)}">{_escape(sign.label)}</span>'


def _classes(kind: str, sign: Sign) -> str:
    return f"{kind} {_role(sign.hex)}"


def _text(text: str) -> str:
    """A text with its formulas; where it has any, it can also be copied as it was written."""
    shown = visible(text)
    made, has_formulas = with_formulas(shown)
    text = f'<pre dir="auto">{made}</pre>'
    if has_formulas:
        text += f'<details class="source"><summary>source</summary><pre dir="auto">{_escape(shown)}</pre></details>'
    return text


def _answer(answer: str | None) -> str:
    """An answer on its line: a formula, even without signs around it."""
    shown = one_line(answer if answer is not None else "–")
    made, has_formulas = with_formulas(shown)
    if has_formulas or not _IS_FORMULA.search(shown):
        return made
    return mathml(shown) or made


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
