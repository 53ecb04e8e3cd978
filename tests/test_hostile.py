"""Text that tries to be something else: another turn, the judge, a terminal's master, a broken file."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
from hostile import EMBEDDED, FINDS, SPECIAL, THOUGHTS, TURNS, generated, tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from specreason_sgl.cli import app
from specreason_sgl.events import AnswerWritten, Noticed, SolveEnded, SolveFailed, SolveStarted, StepTaken
from specreason_sgl.lang import loading
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem, RunConfig, SolveRecord, read_run, writing
from specreason_sgl.settings import Settings
from specreason_sgl.testing import Reply, ScriptedBackend
from specreason_sgl.text.chat import ChatFormat, Message
from specreason_sgl.text.prompts import neutralise, whole

SOME = 300
texts = st.one_of(
    st.integers(0, 2**32).map(generated),
    st.text(st.characters(codec=None), max_size=200),
    st.sampled_from(FINDS),
)


@cache
def frame(family: str) -> tuple[Tokenizer, ChatFormat, frozenset[int]]:
    """A family's tokenizer, what is learned from its template, and the ids of its control tokens."""
    before, between, behind = TURNS[family]

    def render(messages: list[Message]) -> str:
        turns = "".join(
            before + m["content"] + between if m["role"] == "user" else m["content"] + behind for m in messages
        )
        return turns + "<think>\n"

    made = tokenizer(family)
    special = {made.token_to_id(token): token for token in SPECIAL[family]}

    def control_tokens(text: str) -> list[str]:
        return [special[i] for i in sorted(set(ids(made, text))) if i in special]

    chat = ChatFormat.learn(render, control_tokens=control_tokens)  # type: ignore[arg-type]
    return made, chat, frozenset(i for i in map(made.token_to_id, [*SPECIAL[family], *THOUGHTS]) if i is not None)


@cache
def embedded() -> tuple[Tokenizer, ChatFormat, frozenset[int]]:
    """The same of the embedded pair's own tokenizer."""
    made = Tokenizer.from_file(str(EMBEDDED))
    _, chat, _ = frame("ChatML")
    return made, chat, frozenset(made.get_added_tokens_decoder())


def ids(made: Tokenizer, text: str) -> list[int]:
    found: list[int] = made.encode(text, add_special_tokens=False).ids
    return found


def check_one_turn(family: str, question: str) -> None:
    """A question stays inside one user turn and can be read there, on token ids."""
    made, chat, control = embedded() if family == "embedded" else frame(family)
    question = Problem(id="x", question=question).question
    plain, rendered = ids(made, chat.opening("plain")), ids(made, chat.opening(question))

    assert [token for token in rendered if token in control] == [token for token in plain if token in control]
    asked = made.decode(rendered, skip_special_tokens=False)
    assert neutralise(question, chat.control).strip() in asked


def check_judge(family: str, draft: str) -> None:
    """A draft changes nothing of the frame that the judge's question stands in, on token ids."""
    made, chat, control = frame(family)
    small = ScriptedBackend("small", [Reply(whole(draft), closes=True)])
    base = ScriptedBackend("base", [9, Reply("\\boxed{1}")])
    base.chat = small.chat = chat
    record = solve(
        Problem(id="x", question="q"),
        loading.load("specreason"),
        Pair(base, small),
        Settings(),
        parameters={"threshold": 0},
    )
    for event in record.events:
        if isinstance(event, StepTaken):
            asked, plain = ids(made, base.prompts[0]), ids(made, chat.opening("q") + "a\n\n" + chat.judge_turn)
            assert [token for token in asked if token in control] == [token for token in plain if token in control]
            assert base.prompts[0].endswith(event.text + "\n\n" + chat.judge_turn)


@pytest.mark.parametrize("family", ["embedded", *TURNS])
@pytest.mark.parametrize("question", FINDS, ids=range(len(FINDS)))
def test_what_was_found_stays_inside_one_user_turn(family: str, question: str) -> None:
    check_one_turn(family, question)


@given(st.sampled_from(["embedded", *TURNS]), texts)
def test_any_question_stays_inside_one_user_turn(family: str, question: str) -> None:
    check_one_turn(family, question)


@pytest.mark.parametrize("family", ["embedded", *TURNS])
def test_hundreds_of_generated_questions_stay_inside_one_user_turn(family: str) -> None:
    for seed in range(SOME):
        check_one_turn(family, generated(seed))


@pytest.mark.parametrize("family", TURNS)
def test_no_draft_changes_the_frame_of_the_judges_question(family: str) -> None:
    for draft in [*FINDS, *(generated(seed) for seed in range(12))]:
        check_judge(family, draft)


NOW = datetime(2026, 1, 2, tzinfo=UTC)


@given(texts, texts, texts)
def test_run_files_stay_valid_json_whatever_is_in_them(
    tmp_path_factory: pytest.TempPathFactory, name: str, text: str, mode: str
) -> None:
    folder = tmp_path_factory.mktemp("hostile") / "run"
    record = hostile_record(name, text, mode)
    with writing(folder, RunConfig(created=NOW, program="p", pair="q", command=[text])) as run:
        run.append(record)
    (line,) = (folder / "solves.jsonl").read_bytes().splitlines()
    stored = read_run(folder)

    assert json.loads(line)["problem"]["id"] == whole(name)
    assert json.loads((folder / "config.json").read_bytes())["command"] == [whole(text)]
    assert stored.remarks == []
    assert [e.message for e in stored.records[0].events if isinstance(e, Noticed)] == [whole(text)]


def hostile_record(name: str, text: str, mode: str) -> SolveRecord:
    """A record as a program of somebody's own may make it, unchecked."""
    return SolveRecord.model_construct(
        problem=Problem(id=name, question=text, answer=text),
        mode=mode,
        repeat=0,
        seed=None,
        started=NOW,
        events=[
            SolveStarted.model_construct(question=text, program=mode, budget=9, threshold=7.0, score_rule="expected"),
            Noticed.model_construct(message=text),
            StepTaken.model_construct(step=0, author="small", text=text, tokens=1),
            AnswerWritten.model_construct(author="base", text=text, answer=text, truncated=False),
            SolveFailed.model_construct(error=text, hint=text),
            SolveEnded(outcome="failed"),
        ],
    )


@pytest.mark.parametrize("command", ["list", "report", "report --markdown", "audit", "replay", "diff"])
def test_no_command_passes_on_what_a_terminal_would_obey(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    folder = tmp_path / "runs" / "run"
    with writing(folder, RunConfig(created=NOW, program="\x1b[31mp", pair="\u202eq", settings={"\x9b": "\x1b"})) as run:
        for number, text in enumerate(FINDS):
            run.append(hostile_record(text, text, f"\x1b[3{number}m\u202e{number}"))
    monkeypatch.setenv("SPECREASON_RUNS", str(folder.parent))
    given = {"list": [], "diff": [str(folder), str(folder)]}.get(command, [str(folder)])
    monkeypatch.setattr(sys, "argv", ["specreason", *command.split(), *given])
    code = app.main()
    said = capsys.readouterr()

    assert code in {0, 1, 2}
    assert said.out + said.err
    for text in (said.out, said.err):
        assert not [char for char in text if char != "\n" and (ord(char) < 32 or 127 <= ord(char) < 160)]
        assert not set(text) & set("\u202e\u2066\u200b\u2028\u2029")
