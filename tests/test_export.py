import re
import xml.etree.ElementTree as ET
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specreason_sgl.errors import UsageError
from specreason_sgl.events import AnswerWritten, Event, Noticed, SolveEnded, SolveStarted, StepTaken
from specreason_sgl.runs.redecide import redecide
from specreason_sgl.runs.store import SolveRecord
from specreason_sgl.view.export import as_markdown, as_svg, export
from specreason_sgl.view.html import POLICY, STYLE, as_html
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.theme import OTHERS, SIGNS, other

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

    folds = [told for tag, told in elements if tag == "details"]
    assert [told["class"] for told in folds if told.get("class") != "source"] == [
        "chain",
        "step small role-2e9e5b",
        "step small role-2e9e5b",
        "step base role-1f93a8",
        "rejected role-d0524c",
        "step small role-2e9e5b",
        "step small role-2e9e5b",
    ]
    assert not {"script", "link", "img", "iframe"} & set(tags)
    assert "http://" not in page
    assert "https://" not in page
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in elements
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page
    for words in ("✓ accepted", "■ base wrote", "✗ rejected", "= right"):
        assert words in page


def test_the_page_begins_with_what_came_out() -> None:
    page = as_html(story(), "story-7")
    question, first_step = page.index("Ana packs"), page.index("<details open")
    above = page[page.index("<body>") : question]

    assert question < first_step
    for words in ("= right", "<strong>10</strong>", "acceptance", "speed-up", "● small", "■ base", "in all"):
        assert words in above


def test_the_page_has_nothing_that_its_policy_forbids() -> None:
    elements = Elements(as_html(hostile(HOSTILE), HOSTILE)).found
    style = re.findall("<style>(.*?)</style>", as_html(story(), "story-7"), re.DOTALL)

    assert not any(name == "style" or name.startswith("on") for _, attributes in elements for name in attributes)
    assert f"'sha256-{b64encode(sha256(style[0].encode()).digest()).decode()}'" in POLICY
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}) in elements


def test_every_colour_of_a_sign_has_its_class() -> None:
    for sign in (*SIGNS.values(), *(other("word", place) for place in range(len(OTHERS)))):
        assert f".role-{sign.hex[1:]} {{ --role: {sign.hex}; }}" in STYLE


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


@pytest.mark.parametrize("suffix", ["svg", "html", "md"])
def test_a_file_that_is_there_is_not_written_over(suffix: str, tmp_path: Path) -> None:
    there, link = tmp_path / f"trace.{suffix}", tmp_path / f"link.{suffix}"
    there.write_text("mine")
    link.symlink_to(tmp_path / "elsewhere")
    for file in (there, link):
        with pytest.raises(UsageError, match=f"`{file}` is there already") as refused:
            export(file, story(), "title")
        assert refused.value.hint == "nothing is written over: choose another file, or take this away"

    assert there.read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()


def test_unknown_formats_and_folders_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot export to `trace.pdf`"):
        export(Path("trace.pdf"), story(), "title")
    with pytest.raises(UsageError, match="cannot write"):
        export(tmp_path / "none" / "trace.md", story(), "title")
