import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specreason_sgl.errors import UsageError
from specreason_sgl.events import AnswerWritten, Event, Noticed, SolveEnded, SolveStarted, StepTaken
from specreason_sgl.runs.redecide import redecide
from specreason_sgl.runs.store import SolveRecord
from specreason_sgl.view.export import as_html, as_markdown, as_svg, export
from specreason_sgl.view.state import SolveState

DATA = Path(__file__).parent / "data"
HOSTILE = '</pre><script>alert(1)</script>\n```\n# not a heading\n\x1b[2J\u202e<img src="https://example.org/x.png">'


def story() -> SolveState:
    return SolveState.of(SolveRecord.model_validate_json((DATA / "story.jsonl").read_text().splitlines()[0]).events)


def hostile(text: str) -> SolveState:
    events: list[Event] = [
        SolveStarted(question=text, program=text, budget=9),
        StepTaken(step=0, author="base", text=text, tokens=9),
        Noticed(message=text),
        AnswerWritten(author="base", text=text, answer=text, truncated=False),
        SolveEnded(outcome="answered"),
    ]
    return SolveState.of(events)


class Elements(HTMLParser):
    """Which elements a page has, and what they are told."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_has_foldable_steps_and_fetches_nothing() -> None:
    page = as_html(story(), "story-7")
    elements = Elements(page).found
    tags = [tag for tag, _ in elements]

    assert tags.count("details") == 6  # five steps, and the draft that was rejected
    assert not {"script", "link", "img", "iframe"} & set(tags)
    assert "http://" not in page
    assert "https://" not in page
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in elements
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page
    for words in ("✓ accepted", "■ base wrote", "✗ rejected", "= right"):
        assert words in page


def test_model_text_is_never_markup_in_a_page() -> None:
    tags = {tag for tag, _ in Elements(as_html(hostile(HOSTILE), HOSTILE)).found}

    assert not {"script", "img"} & tags


def test_model_text_stays_inside_its_fence() -> None:
    lines = as_markdown(hostile(HOSTILE), HOSTILE).splitlines()

    assert lines[0].startswith("# \\</pre\\>\\<script\\>")
    assert lines.count("````text") == 3
    assert "````" in lines


@given(text=st.text(max_size=100))
@settings(max_examples=30, deadline=None)
def test_exports_of_any_text_are_well_formed(text: str) -> None:
    state = hostile(text)

    ET.fromstring(as_svg(state, text))  # noqa: S314 - we have just made it
    for made in (as_html(state, text), as_markdown(state, text)):
        made.encode()
        assert not any(char < " " and char != "\n" for char in made)


def test_the_picture_needs_nothing_but_itself() -> None:
    drawn = as_svg(story(), "story-7")

    assert "url(http" not in drawn
    assert "@font-face" not in drawn
    assert "@import" not in drawn
    assert "&#160;accepted" in drawn or "accepted" in drawn


@pytest.mark.parametrize("suffix", ["svg", "html", "md"])
def test_decisions_taken_again_are_marked_in_every_format(suffix: str, tmp_path: Path) -> None:
    record = SolveRecord.model_validate_json((DATA / "story.jsonl").read_text().splitlines()[0])
    file = tmp_path / f"trace.{suffix}"
    export(file, SolveState.of(record.events), "story-7", redecide(record.events, 8, "greedy"))
    made = file.read_text(encoding="utf-8").replace("&#160;", " ")

    assert "⇄ flips" in made
    assert "counterfactual" in made


def test_unknown_formats_and_folders_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot export to `trace.pdf`"):
        export(Path("trace.pdf"), story(), "title")
    with pytest.raises(UsageError, match="cannot write"):
        export(tmp_path / "none" / "trace.md", story(), "title")
