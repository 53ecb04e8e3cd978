"""Problems: the benchmarks of the field, anybody's file, and generated stories.

Benchmarks come from the Hugging Face hub through `datasets`, each pinned to a commit, or from a local file in its
place. Nothing is loaded, and nobody is asked, before `load` is called.
"""

from __future__ import annotations

import csv
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args
from urllib.request import getproxies

from pydantic import BaseModel, ConfigDict, Field

from specreason_sgl.errors import UsageError
from specreason_sgl.pair import stories
from specreason_sgl.store import Problem

Name = Literal["aime24", "aime25", "math500", "gpqa-diamond", "gsm8k", "stories", "file"]
Grading = Literal["math", "choice", "exact"]
NAMES: tuple[Name, ...] = get_args(Name)

HUB = "huggingface.co"
LETTERS = "ABCD"
_STORY = "story-"

IsRight = Callable[[Sequence[str], str, bool], bool]
"""Whether a draft is exactly the right next step: the steps so far, the draft, whether it ends the thinking."""


class DatasetSpec(BaseModel):
    """Which problems, and how their answers are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    path: str | None = None
    """A local JSON-lines, Parquet or CSV file in place of the hub; needed for ``file``."""
    limit: int | None = Field(None, ge=1)
    """Only the first so many problems."""
    ids: tuple[str, ...] = ()
    """Only the problems with these ids."""
    seed: int = 0
    """Orders the options of multiple-choice questions; of ``stories`` the first held-out seed."""
    question: str | None = None
    """The column of the question; looked for under its usual names if not given."""
    answer: str | None = None
    """The column of the answer."""
    grading: Grading | None = None
    """Overrides how answers are compared."""

    @property
    def graded(self) -> Grading:
        """How answers are compared."""
        return self.grading or ("exact" if self.name == "stories" else _source(self.name).grading)


@dataclass(frozen=True)
class _Source:
    """Where a benchmark comes from."""

    repo: str
    revision: str
    split: str
    config: str | None = None
    grading: Grading = "math"


_SOURCES: Mapping[str, _Source] = {
    "aime24": _Source("HuggingFaceH4/aime_2024", "2fe88a2f1091d5048c0f36abc874fb997b3dd99a", "train"),
    "aime25": _Source("math-ai/aime25", "563bb8404243c5f09de6ec262f2db674fe5bce9b", "test"),
    "math500": _Source("HuggingFaceH4/MATH-500", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", "test"),
    "gpqa-diamond": _Source(
        "Idavidrein/gpqa", "633f5ee89ab8ad4522a9f850766b73f62147ffdd", "train", "gpqa_diamond", "choice"
    ),
    "gsm8k": _Source("openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866", "test", "main"),
    "file": _Source("", "", ""),
}

_QUESTIONS = ("question", "problem", "prompt", "Question")
_ANSWERS = ("answer", "gold", "Answer")
_IDS = ("id", "unique_id", "problem_id", "Record ID")
_CORRECT, _INCORRECT = "Correct Answer", ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def load(spec: DatasetSpec) -> list[Problem]:
    """The problems of a dataset, in its order, with ids that are unique within it; one that is there twice counts once.

    Raises:
        UsageError: the data are not on this machine and cannot be fetched, or are not what they should be.
    """
    problems = _stories(spec) if spec.name == "stories" else _read(spec)
    if spec.ids:
        known = {problem.id: problem for problem in problems}
        missing = [wanted for wanted in spec.ids if wanted not in known]
        if missing:
            raise UsageError(
                f"`{spec.name}` has no problem {', '.join(f'`{m}`' for m in missing)}",
                hint=f"its ids are like {', '.join(f'`{p.id}`' for p in problems[:3])}",
            )
        problems = [known[wanted] for wanted in spec.ids]
    return problems[: spec.limit]


def step_checker(problem: Problem) -> IsRight | None:
    """What tells right steps from wrong ones for this problem; only stories have one."""
    told = told_story(problem)
    if told is None:
        return None

    def is_right(steps: Sequence[str], draft: str, closes: bool) -> bool:
        done = progress(told, steps)
        last = done + 1 == len(told.steps)
        return done < len(told.steps) and stories.grade_step(told, done, draft) == stories.RIGHT and closes == last

    return is_right


def told_story(problem: Problem) -> stories.Story | None:
    """The story with the truth of every step, if the problem is one."""
    number = problem.id.removeprefix(_STORY)
    if number == problem.id or not number.isdecimal():
        return None
    told = stories.story(int(number))
    return told if told.question == problem.question else None


def progress(told: stories.Story, steps: Sequence[str]) -> int:
    """How many of a story's canonical steps a chain of thought has made, in order."""
    done = 0
    for step in steps:
        if done < len(told.steps) and step.strip() == told.steps[done]:
            done += 1
    return done


def _stories(spec: DatasetSpec) -> list[Problem]:
    count = spec.limit or 200
    numbers = [i.removeprefix(_STORY) for i in spec.ids] or [str(spec.seed + i) for i in range(count)]
    told = {number: stories.story(int(number)) for number in numbers if number.isdecimal()}
    return [Problem(id=_STORY + n, question=s.question, answer=str(s.answer)) for n, s in told.items()]


def _source(name: str) -> _Source:
    return _SOURCES[name]


def _read(spec: DatasetSpec) -> list[Problem]:
    rows = list(_read_file(Path(spec.path)) if spec.path else _download(spec.name))
    place = spec.path or spec.name
    if not rows:
        raise UsageError(f"`{place}` holds no problems")
    read = [_problem(spec, row, number, place) for number, row in enumerate(rows)]
    problems = list({(problem.question, problem.answer): problem for problem in reversed(read)}.values())[::-1]
    ids = [problem.id for problem in problems]
    if len(set(ids)) != len(ids):
        problems = [problem.model_copy(update={"id": f"{number}"}) for number, problem in enumerate(problems)]
    return problems


def _problem(spec: DatasetSpec, row: Mapping[str, Any], number: int, place: str) -> Problem:
    question = str(_column(row, (spec.question,) if spec.question else _QUESTIONS, "question", number, place))
    identity = str(next((row[name] for name in _IDS if row.get(name) is not None), number))
    if _CORRECT in row:
        options = [str(row[name]).strip() for name in (_CORRECT, *_INCORRECT)]
        question, answer = choose_order(question, options, f"{spec.seed}:{identity}")
    else:
        answer = str(_column(row, (spec.answer,) if spec.answer else _ANSWERS, "answer", number, place))
    if spec.name == "gsm8k":
        answer = answer.rsplit("####", 1)[-1]
    return Problem(id=identity, question=question.strip(), answer=answer.strip(), choice=spec.graded == "choice")


def choose_order(question: str, options: Sequence[str], seed: str) -> tuple[str, str]:
    """A multiple-choice question with its options in an order of its own, and the letter of the right one.

    Args:
        question: without options.
        options: the right one first.
        seed: the same one gives the same order on every machine.
    """
    order = list(range(len(options)))
    Random(seed).shuffle(order)
    lines = [f"({letter}) {options[place]}" for letter, place in zip(LETTERS, order, strict=True)]
    asked = "\n".join((question.strip(), "Choices:", *lines))
    return asked, LETTERS[order.index(0)]


def _column(row: Mapping[str, Any], names: Sequence[str], what: str, number: int, place: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise UsageError(
        f"row {number + 1} of `{place}` has no {what}",
        hint=f"its columns are {', '.join(f'`{name}`' for name in row)}; name the right one with `dataset.{what}`",
    )


def _read_file(path: Path) -> Iterator[dict[str, Any]]:
    reader = {".parquet": _read_parquet, ".csv": _read_csv}.get(path.suffix, _read_json_lines)
    try:
        yield from reader(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read `{path}`: {error}") from error


def _read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UsageError(f"line {number} of `{path}` is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UsageError(f"line {number} of `{path}` is not an object")
            yield row


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    from datasets import Dataset

    path.open("rb").close()
    with tempfile.TemporaryDirectory() as cache:
        yield from Dataset.from_parquet(str(path), cache_dir=cache, keep_in_memory=True)


def _download(name: Name) -> Iterator[dict[str, Any]]:
    source = _source(name)
    if not source.repo:
        raise UsageError(f"the dataset `{name}` needs a path", hint="name it with `--set dataset.path=FILE.jsonl`")
    if not (getproxies() or _resolves(HUB)):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # else the library asks six times before it looks at its cache
    import datasets

    try:
        yield from datasets.load_dataset(source.repo, source.config, split=source.split, revision=source.revision)
    except Exception as error:
        raise UsageError(
            f"`{name}` is not on this machine and cannot be fetched ({type(error).__name__})",
            hint=f"download the {source.split} split of `{source.repo}` at revision {source.revision[:12]} from the "
            "Hugging Face hub (log in first if it is gated) as JSON lines or Parquet, and name the file with "
            "`--set dataset.path=FILE`",
        ) from error


def _resolves(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, 443))
    except OSError:
        return False
