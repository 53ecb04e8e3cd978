"""Problems from the hub's stand-ins, from files of anybody's, and from the story generator."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.cli import app
from specreason_sgl.embedded import stories, tales
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.choice import LETTERS
from specreason_sgl.evaluation.datasets import (
    DatasetSpec,
    as_listed,
    choose_order,
    load,
    step_checker,
    steps_done,
    told_story,
    truth_of,
)
from specreason_sgl.runs.store import Problem

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the public problem files are not beside the checkout")


def write(path: Path, *rows: Mapping[str, object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def gpqa_row(number: int) -> dict[str, object]:
    wrong = {f"Incorrect Answer {i}": f"wrong {i}" for i in (1, 2, 3)}
    return {"Record ID": f"rec{number}", "Question": f"Which, {number}?", "Correct Answer": "the right one\n", **wrong}


@needs_shared
@pytest.mark.parametrize(("name", "file", "count"), [("aime24", "aime24", 30), ("math500", "math500", 500)])
def test_a_benchmark_from_a_local_file(name: str, file: str, count: int) -> None:
    problems = load(DatasetSpec.model_validate({"name": name, "path": str(SHARED / f"{file}.jsonl")}))

    assert len(problems) == len({problem.id for problem in problems}) == count
    assert all(problem.question and problem.answer for problem in problems)


@needs_shared
def test_real_ids_and_answers() -> None:
    problems = load(DatasetSpec(name="aime24", path=str(SHARED / "aime24.jsonl"), ids=("61", "60")))

    assert [(problem.id, problem.answer) for problem in problems] == [("61", "113"), ("60", "204")]


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.jsonl", {"question": "1+1?", "answer": 2}, {"problem": " 2+2? ", "answer": "4", "id": "x"}
    )

    assert load(DatasetSpec(name="file", path=path)) == [
        Problem(id="0", question="1+1?", answer="2"),
        Problem(id="x", question="2+2?", answer="4"),
    ]


def test_parquet_and_csv_hold_the_same(tmp_path: Path) -> None:
    import datasets

    rows = [{"question": "1+1?", "answer": "2"}, {"question": "2+2?", "answer": "4"}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "mine.parquet")
    (tmp_path / "mine.csv").write_text("question,answer\n1+1?,2\n2+2?,4\n")
    kept = [load(DatasetSpec(name="file", path=str(tmp_path / f"mine.{kind}"))) for kind in ("parquet", "csv")]

    assert kept[0] == kept[1]
    assert [problem.answer for problem in kept[0]] == ["2", "4"]


def test_named_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", {"ask": "1+1?", "so": "2", "question": "not this"})

    (problem,) = load(DatasetSpec(name="file", path=path, question="ask", answer="so"))
    assert (problem.question, problem.answer) == ("1+1?", "2")


def test_limits_and_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", *({"id": f"p{i}", "question": f"{i}?", "answer": i} for i in range(5)))

    assert [p.id for p in load(DatasetSpec(name="file", path=path, limit=2))] == ["p0", "p1"]
    assert [p.id for p in load(DatasetSpec(name="file", path=path, ids=("p3", "p1")))] == ["p3", "p1"]
    with pytest.raises(UsageError, match="no problem `p9`"):
        load(DatasetSpec(name="file", path=path, ids=("p9",)))


def test_problems_of_other_seeds_take_the_place_of_those_that_are_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tales.tale
    monkeypatch.setattr("specreason_sgl.embedded.tales.tale", lambda seed: made(3 if seed == 5 else seed))
    problems = load(DatasetSpec(name="tales", seed=3, limit=4))

    assert [problem.id for problem in problems] == ["tale-3", "tale-4", "tale-6", "tale-7"]


def test_a_problem_that_is_there_twice_counts_once_and_equal_ids_become_numbers(tmp_path: Path) -> None:
    rows = [{"id": "x", "question": "a?", "answer": "1"}, {"id": "y", "question": "a?", "answer": "1"}]
    twice = load(DatasetSpec(name="file", path=write(tmp_path / "twice.jsonl", *rows)))
    rows[1] = {"id": "x", "question": "b?", "answer": "1"}
    alike = load(DatasetSpec(name="file", path=write(tmp_path / "alike.jsonl", *rows)))

    assert len(twice) == 1
    assert [problem.id for problem in alike] == ["0", "1"]


def test_the_answer_of_gsm8k_stands_behind_the_working(tmp_path: Path) -> None:
    path = write(tmp_path / "gsm8k.jsonl", {"question": "How many?", "answer": "2 + 2 = <<2+2=4>>4\n#### 1,004"})

    assert load(DatasetSpec(name="gsm8k", path=path))[0].answer == "1,004"


def test_options_are_ordered_by_question_and_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "gpqa.jsonl", *map(gpqa_row, range(40)))
    spec = DatasetSpec(name="gpqa-diamond", path=path)
    problems = load(spec)

    assert problems == load(spec)
    assert {problem.answer for problem in problems} == set(LETTERS[:4])
    assert [p.answer for p in problems] != [p.answer for p in load(spec.model_copy(update={"seed": 1}))]
    assert all(f"({p.answer}) the right one" in p.question.splitlines() for p in problems)
    assert spec.graded == "choice"


def test_every_option_is_offered_once() -> None:
    question, answer = choose_order("Which?", ["right", "b", "c", "d"], "seed")

    lines = dict(line.split(" ", 1) for line in question.splitlines() if line.startswith("("))
    assert sorted(lines.values()) == ["b", "c", "d", "right"]
    assert lines[f"({answer})"] == "right"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{oops", "line 1 of .* is not JSON"),
        ("[1]", "entry 1 of .* is not an object"),
        ('{"answer": 1}', "row 1 of .* has no question"),
        ('{"question": "1?"}', "row 1 of .* has no answer"),
        ("", "holds no problems"),
    ],
)
def test_a_file_that_is_none_is_told_by_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)

    with pytest.raises(UsageError, match=complaint):
        load(DatasetSpec(name="file", path=str(path)))


@pytest.mark.parametrize("name", ["nowhere.jsonl", "nowhere.parquet", "nowhere.csv"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load(DatasetSpec(name="file", path=str(tmp_path / name)))


def test_a_file_needs_a_path() -> None:
    with pytest.raises(UsageError, match="needs a path"):
        load(DatasetSpec(name="file"))


@pytest.mark.parametrize("name", ["aime24", "aime25", "math500", "gpqa-diamond", "gsm8k"])
def test_offline_without_a_cache_says_what_to_fetch_and_where_to_put_it(name: str, tmp_path: Path) -> None:
    code = (
        "from specreason_sgl.evaluation.datasets import DatasetSpec, load\n"
        "from specreason_sgl.errors import UsageError\n"
        f"try:\n    load(DatasetSpec(name={name!r}))\n"
        "except UsageError as error:\n    print(error, error.hint, sep='\\n')\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    error, hint = done.stdout.splitlines()

    assert f"`{name}` is not on this machine" in error
    assert "Hugging Face hub" in hint
    assert "--set dataset.path=" in hint


def test_stories_are_held_out_seeded_and_exact() -> None:
    spec = DatasetSpec(name="stories", limit=3, seed=500)
    problems = load(spec)

    assert [problem.id for problem in problems] == ["story-500", "story-501", "story-502"]
    assert problems[0].question == stories.story(500, "test").question
    assert load(DatasetSpec(name="stories", ids=("story-501",), limit=3)) == [problems[1]]
    assert spec.graded == "exact"


def test_a_story_knows_its_right_steps() -> None:
    (problem,) = load(DatasetSpec(name="stories", limit=1, seed=7))
    told = told_story(problem)
    is_right = step_checker(problem)
    assert told is not None
    assert is_right is not None

    assert is_right([], told.steps[0], False)
    assert not is_right([], told.steps[0], True), "it would end the thinking too early"
    assert not is_right([], told.steps[1], False)
    assert is_right(told.steps[:-1], told.steps[-1], True)
    assert is_right(["nonsense", told.steps[0]], told.steps[1], False)
    assert not is_right(told.steps, told.steps[-1], True)
    assert steps_done(told, [*told.steps, "more"]) == len(told.steps)


@pytest.mark.parametrize("identity", ["60", "story-x", "story-7"])
def test_nothing_else_is_a_story(identity: str) -> None:
    assert told_story(Problem(id=identity, question="1+1?", answer="2")) is None


GPQA = ("Record ID", "Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
MARK = b"\xef\xbb\xbf"


def of(path: Path, **more: Any) -> list[Problem]:
    return load(DatasetSpec.model_validate({"name": "file", "path": str(path)} | more))


def one_choice(path: Path, row: Mapping[str, object]) -> Problem:
    (problem,) = load(DatasetSpec(name="gpqa-diamond", path=write(path / "gpqa.jsonl", row)))
    return problem


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", MARK + b'{"question": "1+1?", "answer": "2"}\n'),
        ("a.jsonl", '{"question": "1+1?", "answer": "2"}\n'.encode("utf-16")),
        ("a.jsonl", b'{"question": "1+1?",\r\n"answer": "2"}'.replace(b"\r\n", b" ") + b"\r\n\r\n"),
        ("a.json", b'[{"question": "1+1?",\n "answer": "2"}]'),
        ("a.json", MARK + b'\n [{"question": "1+1?", "answer": "2"}]'),
        ("A.JSON", b'{"question": "1+1?", "answer": "2"}'),
        ("a.json", b'{\n "question": "1+1?",\n "answer": "2"\n}'),
        ("a.json", b'{"version": 1, "data": [{"question": "1+1?", "answer": "2"}]}'),
        ("a.json", b'{\n "problems": [\n  {"question": "1+1?", "answer": "2"}\n ]\n}'),
        ("a.jsonl.gz", gzip.compress(b'{"question": "1+1?", "answer": "2"}', mtime=0)),
        ("a.jsonl", gzip.compress(MARK + b'{"question": "1+1?", "answer": "2"}', mtime=0)),
        ("a.csv", MARK + b"question,answer\r\n1+1?,2\r\n"),
        ("A.CSV", b"question,answer\n1+1?,2"),
        ("A.csv.GZ", gzip.compress(b"question,answer\n1+1?,2", mtime=0)),
        ("a.tsv", b"question\tanswer\n1+1?\t2"),
    ],
)
def test_a_file_is_read_whatever_wrote_it(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)

    assert of(tmp_path / name) == [Problem(id="0", question="1+1?", answer="2")]


def test_a_byte_order_mark_changes_neither_ids_nor_the_order_of_options(tmp_path: Path) -> None:
    text = ",".join(GPQA) + "\n" + "".join(f"rec{n},Which {n}?,r,a,b,c\n" for n in range(8))
    (tmp_path / "plain.csv").write_text(text)
    (tmp_path / "marked.csv").write_text(text, encoding="utf-8-sig")
    plain, marked = (
        load(DatasetSpec(name="gpqa-diamond", path=str(tmp_path / f"{n}.csv"))) for n in ("plain", "marked")
    )

    assert plain == marked
    assert [problem.id for problem in marked] == [f"rec{n}" for n in range(8)]


@pytest.mark.parametrize(
    ("row", "more", "read"),
    [
        ({"problem_idx": 1, "problem": "1+1?", "answer": 2}, {}, Problem(id="0", question="1+1?", answer="2")),
        (
            {"problem": "1+1?", "solution": r"So \boxed{2}", "answer": 3},
            {"answer": "solution"},
            Problem(id="0", question="1+1?", answer=r"So \boxed{2}"),
        ),
        (
            {"body": "Ann.", "question": "1+1?", "answer": 27.0},
            {"question": "question"},
            Problem(id="0", question="1+1?", answer="27.0"),
        ),
        (
            {"id": 3, "question": "a\u2028b\r\nc?", "answer": "033"},
            {},
            Problem(id="3", question="a\u2028b\r\nc?", answer="033"),
        ),
    ],
)
def test_what_is_written_is_what_is_read(
    row: dict[str, object], more: dict[str, str], read: Problem, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_bytes(json.dumps(row, ensure_ascii=False).encode() + b"\r\n")

    assert of(tmp_path / "a.jsonl", **more) == [read]


def test_a_long_field_is_read(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text(f'question,answer\n"{"x" * 200_000}",2\n')

    assert len(of(tmp_path / "long.csv")[0].question) == 200_000


@pytest.mark.parametrize(
    "row",
    [
        {"ID": "p7", "Problem": "1+1?", "Solution": "It is two.", "Answer": 2},
        {"id": "p7", "problem": "1+1?", "expected_answer": "2"},
        {"id": "p7", "question": "1+1?", "final_answer": ["2"], "context": None},
        {"Record ID": "p7", "QUESTION": " 1+1? ", "Final Answer": "2"},
        {"unique_id": "p7", "Prompt": "1+1?", "ground-truth": "2"},
        {"id": "p7", "question": "1+1?", "answer": None, "gold": "2"},
        {"id": "p7", "question": "1+1?", "answer": float("nan"), "gold": "2"},
        {"id": "p7", "question": "1+1?", "answer": "So 1+1 is 2.\n#### 2"},
        {"id": "p7", "question": "1+1?", "answer": "2 (apples)"},
        {"id": "p7", "question": "1+1?", "answer": "2", "Answer": "3", "choices": [], "options": None},
    ],
)
def test_the_usual_columns_are_known_in_any_case(row: dict[str, object], tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row)

    assert load(DatasetSpec(name="file", path=path)) == [Problem(id="p7", question="1+1?", answer="2")]


@pytest.mark.parametrize(
    ("row", "question"),
    [
        ({"body": "Ann has 3.", "question": "How many?"}, "Ann has 3. How many?"),
        ({"Body": "Ann has 3.", "Question": "How many?"}, "Ann has 3. How many?"),
        ({"context": "Ann has 3.", "question": "How many?"}, "Ann has 3.\n\nHow many?"),
        ({"passage": None, "question": "How many?"}, "How many?"),
        ({"body": "", "question": "How many?"}, "How many?"),
    ],
)
def test_a_question_in_two_columns_is_read_whole(row: dict[str, object], question: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {**row, "answer": "3"})

    assert load(DatasetSpec(name="file", path=path))[0].question == question


def test_equal_questions_about_different_things_are_all_kept(tmp_path: Path) -> None:
    rows = [{"Body": f"{name} has 3.", "Question": "How many?", "Answer": 3.0} for name in ("Ann", "Bob")]

    assert len(load(DatasetSpec(name="file", path=write(tmp_path / "svamp.jsonl", *rows)))) == 2


OFFERED = ["Q?", "Choices:", "(A) w", "(B) x", "(C) y", "(D) z"]


@pytest.mark.parametrize(
    ("more", "gold"),
    [
        ({"choices": ["w", "x", "y", "z"], "answer": 1}, "B"),
        ({"choices": ["w", "x", "y", "z"], "answer": 0}, "A"),
        ({"choices": ["w", "x", "y", "z"], "answer": 3.0}, "D"),
        ({"choices": ["w", "x", "y", "z"], "answer": "2"}, "C"),
        ({"options": ["w", "x", "y", "z"], "answer": "d"}, "D"),
        ({"options": ["w", "x", "y", "z"], "answer": "(C)"}, "C"),
        ({"options": ["w", "x", "y", "z"], "answer": "y"}, "C"),
        ({"options": ["w", "x", "y", "z"], "answer_index": 2}, "C"),
        ({"Options": ["A) w", "B) x", "C) y", "D) z"], "correct": "D"}, "D"),
        ({"options": {"A": "w", "B": "x", "C": "y", "D": "z", "E": None}, "label": "B"}, "B"),
        ({"choices": {"text": ["w", "x", "y", "z"], "label": ["A", "B", "C", "D"]}, "answerKey": "B"}, "B"),
        ({"choices": {"text": ["w", "x", "y", "z"], "label": ["1", "2", "3", "4"]}, "answerKey": "4"}, "D"),
        ({"A": "w", "B": "x", "C": "y", "D": "z", "answer": "C"}, "C"),
        ({"option_a": "w", "option_b": "x", "option_c": "y", "option_d": "z", "answer": "A"}, "A"),
    ],
)
def test_options_are_shown_in_their_order_and_the_right_one_is_a_letter(
    more: dict[str, object], gold: str, tmp_path: Path
) -> None:
    problem = one_choice(tmp_path, {"question": "Q?", **more})

    assert problem.question.splitlines()[:6] == OFFERED
    assert problem.answer == gold


def test_a_place_counts_from_nought_whatever_the_options_say(tmp_path: Path) -> None:
    problem = one_choice(tmp_path, {"question": "Q?", "choices": ["1", "2", "3", "4"], "answer": 1})

    assert problem.answer == "B"
    assert "(B) 2" in problem.question


@pytest.mark.parametrize("gold", ["A", "j", "(C)", " D. ", ["B"]])
def test_a_letter_stands_for_an_option_of_the_question_itself(gold: object, tmp_path: Path) -> None:
    letter = one_choice(tmp_path, {"question": "Q? (A) this (B) that", "answer": gold}).answer

    assert letter is not None
    assert letter in LETTERS


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"answer": 1}, "the answer `1`, which is none of A-J"),
        ({"answer": "K"}, "none of A-J"),
        ({"answer": "AD"}, "none of A-J"),
        ({"answer": "because"}, "none of A-J"),
        ({"answer": None}, "has no answer"),
        ({"answer": ""}, "has no answer"),
        ({"choices": ["w", "x"], "answer": 2}, "none of its 2 options"),
        ({"choices": ["w", "x"], "answer": -1}, "none of its 2 options"),
        ({"choices": ["w", "x"], "answer": "C"}, "none of its 2 options"),
        ({"choices": ["w", "x"], "answer": True}, "none of its 2 options"),
        ({"choices": ["1", "2"], "answer": "1"}, "may mean several options"),
        ({"choices": ["w", "w"], "answer": "w"}, "may mean several options"),
        ({"choices": ["B", "A"], "answer": "A"}, "may mean several options"),
        ({"choices": ["w", None], "answer": 0}, "an option that is empty"),
        ({"choices": ["w", float("nan")], "answer": 0}, "an option that is empty"),
        ({"choices": ["w"], "answer": 0}, "has 1 options"),
        ({"choices": {"text": ["w", "x"], "label": 5}, "answer": "C"}, "none of its 2 options"),
        ({"choices": {"text": ["w", "x"], "label": ["A"]}, "answer": "A"}, "has 2 options"),
        ({"choices": list("abcdefghijk"), "answer": 0}, "has 11 options"),
        ({"choices": "A) w B) x", "answer": "A"}, "no list"),
        ({"A": "w", "B": "", "C": "y", "answer": "A"}, "an option that is empty"),
        ({**gpqa_row(1), "Incorrect Answer 3": None}, "option that is missing or empty"),
        ({**gpqa_row(1), "Incorrect Answer 3": float("nan")}, "option that is missing or empty"),
        ({**gpqa_row(1), "Correct Answer": " "}, "option that is missing or empty"),
        ({k: v for k, v in gpqa_row(1).items() if k != "Incorrect Answer 2"}, "option that is missing or empty"),
    ],
)
def test_a_choice_that_cannot_be_graded_is_refused_when_it_is_read(
    row: dict[str, object], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=complaint):
        one_choice(tmp_path, {"question": "Q?", **row})


def test_options_are_no_mathematics(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"question": "Q?", "choices": ["1", "2"], "answer": 1})

    with pytest.raises(UsageError, match="has options to choose from") as told:
        load(DatasetSpec(name="file", path=path))
    assert "dataset.grading=choice" in (told.value.hint or "")
    (problem,) = load(DatasetSpec(name="file", path=path, grading="choice"))
    assert problem.answer == "B"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", b'{"question": "Q?", "answer": NaN}', "row 1 of .* has no answer"),
        ("a.jsonl", b'{"question": NaN, "answer": 1}', "row 1 of .* has no question"),
        ("a.jsonl", b'{"question": " ", "answer": 1}', "row 1 of .* has no question"),
        ("a.jsonl", b'{"question": "Q?", "answer": Infinity}', "row 1 of .* has a float for its answer"),
        ("a.jsonl", b'{"question": "Q?", "final_answer": ["1", "2"]}', "has 2 values for its answer"),
        ("a.jsonl", b'{"question": "Q?", "answer": {"value": 1}}', "has a dict for its answer"),
        ("a.jsonl", b'{"prompt": [{"role": "user"}], "answer": 1}', "has a dict for its question"),
        ("a.jsonl", b'{"context": {"a": 1}, "question": "Q?", "answer": 1}', "has a dict for its context"),
        ("a.jsonl", b'{"a":' * 100_000, "line 1 of .* is not JSON"),
        ("a.json", b"[" * 100_000, "line 1 of .* is not JSON"),
        ("a.json", b"[]", "holds no problems"),
        ("a.jsonl", gzip.compress(b'{"question": "Q?"}', mtime=0)[:-5], "cannot read"),
        ("a.jsonl.gz", b"\x1f\x8bnothing", "cannot read"),
        ("a\0.jsonl", None, "cannot read .*null byte"),
        ("a.xlsx", b"PK\x03\x04\xff\xfe\xfd", "cannot read"),
        ("a.parquet", b"PAR1 and then nothing", "it is no Parquet"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1", "it is no Parquet"),
        ("a.csv", b"question,answer\nWhat is 1,000 + 1?,1001\n", "line 2 of .* has more fields than there are columns"),
        ("a.csv", b'question,answer\n"What,1\nAnd?,2\n', "is not CSV"),
        ("a.csv", b"question,answer,answer\nQ?,1,2\n", "two columns `answer`"),
        ("a.csv", b"question,answer\nQ?\n", "row 1 of .* has no answer"),
        ("a.csv", b"question,answer\nQ?,nan\n", "row 1 of .* has no answer"),
        ("a.csv", b"question,answer\nQ?,1+1 ####\n", "row 1 of .* has no answer"),
    ],
)
def test_what_cannot_be_read_right_is_one_line(
    name: str, content: bytes | None, complaint: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(UsageError, match=complaint) as told:
        of(tmp_path / name)
    assert "\n" not in str(told.value)


CELLS = st.recursive(
    st.none()
    | st.integers(-2, 12)
    | st.floats()
    | st.text("aB1\n,", max_size=3)
    | st.sampled_from(["B", "nan", "", "(c)"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["text", "label", "A", "B"]), inner, max_size=3)
    ),
    max_leaves=5,
)
COLUMNS = ("id", "question", "answer", "choices", "options", "A", "B", "C", "body", "context", *GPQA)


@given(
    row=st.dictionaries(st.sampled_from(COLUMNS), CELLS, max_size=6), grading=st.sampled_from(["math", "choice", None])
)
def test_whatever_a_row_holds_it_is_a_problem_or_refused_in_a_line(
    row: dict[str, object], grading: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = Path(write(tmp_path_factory.mktemp("odd") / "a.jsonl", {"question": "Q?", "answer": "B", **row}))
    for name in ("file", "gpqa-diamond"):
        complaint, problems = "", []
        try:
            problems = of(path, name=name, grading=grading)
        except UsageError as error:
            complaint = str(error)
        assert "\n" not in complaint
        assert bool(problems) != bool(complaint)
        for problem in problems:
            assert problem.question
            assert grading != "choice" or problem.answer in tuple(LETTERS)
            assert problem.answer not in ("", "nan")


def test_an_answer_that_was_left_blank_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer\nQ?,\nR?,2\n")

    assert [problem.answer for problem in of(tmp_path / "a.csv")] == [None, "2"]


def test_a_file_as_it_stands_keeps_every_row_and_the_order_of_options(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{**gpqa_row(1), "Incorrect Answer 1": "x"}, {"question": "Q?"}, {"question": "Q?"}]
    first, *rest = as_listed(Path(write(tmp_path / "a.jsonl", *rows)))

    assert (first.answer, first.question.splitlines()[2:4]) == ("A", ["(A) the right one", "(B) x"])
    assert [(problem.id, problem.answer) for problem in rest] == [("1", None), ("2", None)]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["specreason", *map(str, arguments)])
        return app.main(), capsys.readouterr().err

    return run


def test_a_job_with_a_byte_order_mark_is_read(call: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    job = 'name = "mine"\ndataset = { name = "stories", limit = 2 }\nmodes = [{ kind = "base" }]\n'
    (tmp_path / "job.toml").write_text(job, encoding="utf-8-sig")

    assert call("eval", tmp_path / "job.toml", "--dry-run")[0] == 0


def test_a_job_that_is_no_toml_is_one_line(call: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    for content in (b"\xff\xff", b"a = " + b"[" * 100_000):
        (tmp_path / "job.toml").write_bytes(content)
        code, told = call("eval", tmp_path / "job.toml", "--dry-run")

        assert code == 2
        assert "cannot read" in told.splitlines()[0]


def test_a_job_over_a_field_of_any_length_is_planned(call: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text(f'question,answer\n"{"x" * 200_000}",2\n')
    job = f'dataset = {{ name = "file", path = "{tmp_path / "h.csv"}" }}\nmodes = [{{ kind = "base" }}]\n'
    (tmp_path / "job.toml").write_text(job)
    code, told = call("eval", tmp_path / "job.toml", "--dry-run")

    assert code == 0, told


def test_tales_are_loaded_by_seed_and_their_steps_are_known() -> None:
    problem, other = load(DatasetSpec(name="tales", limit=2, seed=40))
    tale = tales.tale(40)
    steps = tales.said(tale, "small", Random(0))
    is_right = step_checker(problem)
    truth = truth_of(problem)

    assert (problem.id, problem.question, problem.answer) == ("tale-40", tale.question, str(tale.answer))
    assert load(DatasetSpec(name="tales", ids=("tale-41",))) == [other]
    assert is_right is not None
    assert truth is not None
    for done, step in enumerate(steps):
        last = done + 1 == len(steps)
        assert is_right(steps[:done], step, last)
        assert not is_right(steps[:done], step, not last)
        assert truth(steps[:done], step) is True
        assert truth(steps[:done], "The answer is 10001.") is False
    assert truth(["The answer is 10001."], steps[0]) is None
    assert truth(steps, steps[-1]) is None
    assert truth_of(Problem(id="tale-40", question="1+1?", answer="2")) is None
