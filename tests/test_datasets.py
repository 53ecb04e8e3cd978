"""Problems from the hub's stand-ins, from files of anybody's, and from the story generator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.datasets import (
    LETTERS,
    DatasetSpec,
    choose_order,
    load,
    progress,
    step_checker,
    told_story,
)
from specreason_sgl.pair import stories
from specreason_sgl.store import Problem

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
    assert progress(told, [*told.steps, "more"]) == len(told.steps)


@pytest.mark.parametrize("identity", ["60", "story-x", "story-7"])
def test_nothing_else_is_a_story(identity: str) -> None:
    assert told_story(Problem(id=identity, question="1+1?", answer="2")) is None
