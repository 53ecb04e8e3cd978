"""Problems: published benchmarks, files of the user, and generated stories.

Benchmarks come from the Hugging Face hub through `datasets`, each pinned to a commit, or from a local file instead.
Nothing is read or downloaded before `load` is called.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args
from urllib.request import getproxies

from pydantic import BaseModel, ConfigDict, Field

from specreason_sgl.embedded import stories, tales
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.choice import LETTERS, option
from specreason_sgl.files import decode, read_bytes
from specreason_sgl.runs.store import Problem

Name = Literal["aime24", "aime25", "math500", "gpqa-diamond", "gsm8k", "stories", "tales", "file"]
Grading = Literal["math", "choice", "exact"]
NAMES: tuple[Name, ...] = get_args(Name)

HUB = "huggingface.co"
_STORY, _TALE = "story-", "tale-"
GENERATED: tuple[Name, ...] = ("stories", "tales")
"""Datasets whose problems are made from seeds, and whose right steps are known."""

IsRight = Callable[[Sequence[str], str, bool], bool]
"""Whether a draft is exactly the right next step: the steps so far, the draft, whether it ends the thinking."""


class DatasetSpec(BaseModel):
    """Which problems, and how their answers are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    path: str | None = None
    """A local file instead of the hub: JSON lines, a JSON array, CSV, TSV or Parquet; required for ``file``."""
    limit: int | None = Field(None, ge=1)
    """How many problems to use, from the first on; all if not given."""
    ids: tuple[str, ...] = ()
    """The ids of the problems to use; all if empty."""
    seed: int = 0
    """The seed of the order of options in multiple-choice questions; for ``stories`` and ``tales`` the first held-out
    seed."""
    question: str | None = None
    """The column of the question; the usual names are tried if not given."""
    answer: str | None = None
    """The column of the answer; the usual names are tried if not given."""
    grading: Grading | None = None
    """How answers are compared; the dataset's own way if not given."""

    @property
    def graded(self) -> Grading:
        """How answers are compared."""
        return self.grading or ("exact" if self.name in GENERATED else _source(self.name).grading)


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

_QUESTIONS = ("question", "problem", "prompt")
_LEADS = ("body", "context", "passage", "table")
"""Columns of text that a question is about, where the question has a column of its own."""
_ANSWERS = ("answer", "expected_answer", "final_answer", "gold", "gold_answer", "ground_truth", "correct_answer")
_CHOSEN = (*_ANSWERS, "answer_key", "answerkey", "answer_index", "answer_idx", "correct_option", "correct", "label")
_IDS = ("id", "unique_id", "problem_id", "record_id", "question_id")
_OPTIONS = ("options", "choices")
_OPTION = ("{}", "option_{}", "choice_{}")
"""Names of columns with one option each, by letter; a bare letter has to be a capital, since `a` may be anything."""
_INCORRECT = ("incorrect_answer_1", "incorrect_answer_2", "incorrect_answer_3")
_LISTS = ("data", "problems", "questions", "examples", "items", "rows")
"""Keys under which a JSON object may hold the problems."""
_FORMATS = "JSON lines, JSON arrays, CSV and TSV are read, gzipped or not, and Parquet"


def load(spec: DatasetSpec) -> list[Problem]:
    """The problems of a dataset, in its order, with unique ids; a problem that is there twice is returned once.

    Raises:
        UsageError: the data are not on this machine and cannot be downloaded, or do not have the expected form.
    """
    problems = _generated(spec) if spec.name in GENERATED else _read(spec)
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
    """A function that checks the steps of a problem; None unless the problem is a story or a tale."""
    tale = told_tale(problem)
    if tale is not None:
        return partial(_tells, tale)
    told = told_story(problem)
    if told is None:
        return None

    def is_right(steps: Sequence[str], draft: str, closes: bool) -> bool:
        done = steps_done(told, steps)
        last = done + 1 == len(told.steps)
        return done < len(told.steps) and stories.grade_step(told, done, draft) == stories.RIGHT and closes == last

    return is_right


def _tells(tale: tales.Tale, steps: Sequence[str], draft: str, closes: bool) -> bool:
    """Whether a draft makes an open step of a tale, and ends the thinking with the last one alone."""
    done = tales.progress(tale, steps)
    place = None if done is None else tales.made(tale, done, draft)
    return place is not None and closes == (place + 1 == len(tale.steps))


Truth = Callable[[Sequence[str], str], bool | None]
"""Whether a draft is right behind these steps; None where they are not all right ones, or nothing is left to do."""


def truth_of(problem: Problem) -> Truth | None:
    """What is known about the drafts of a problem; None unless it is a story or a tale."""
    tale = told_tale(problem)
    told = told_story(problem)

    def of_tale(steps: Sequence[str], draft: str) -> bool | None:
        done = tales.progress(tale, steps) if tale else None
        if not tale or done is None or len(done) == len(tale.steps):
            return None
        return tales.grade(tale, done, draft) == tales.RIGHT

    def of_story(steps: Sequence[str], draft: str) -> bool | None:
        done = len(steps)
        if not told or not done == steps_done(told, steps) < len(told.steps):
            return None
        return stories.grade_step(told, done, draft) == stories.RIGHT

    return of_tale if tale else of_story if told else None


def told_story(problem: Problem) -> stories.Story | None:
    """The story that a problem was made of, with all its right steps; None if the problem is no story."""
    number = problem.id.removeprefix(_STORY)
    if number == problem.id or not number.isdecimal():
        return None
    told = stories.story(int(number))
    return told if told.question == problem.question else None


def told_tale(problem: Problem) -> tales.Tale | None:
    """The tale that a problem was made of; None if the problem is no tale."""
    number = problem.id.removeprefix(_TALE)
    if number == problem.id or not number.isdecimal():
        return None
    tale = tales.tale(int(number))
    return tale if tale.question == problem.question else None


def steps_done(told: stories.Story, steps: Sequence[str]) -> int:
    """How many of a story's canonical steps a chain of thought has made, in order."""
    done = 0
    for step in steps:
        if done < len(told.steps) and step.strip() == told.steps[done]:
            done += 1
    return done


def _generated(spec: DatasetSpec) -> list[Problem]:
    prefix = _TALE if spec.name == "tales" else _STORY
    make: Callable[[int], stories.Story | tales.Tale] = tales.tale if spec.name == "tales" else stories.story

    def problem(number: str) -> Problem:
        one = make(int(number))
        return Problem(id=prefix + number, question=one.question, answer=str(one.answer))

    if spec.ids:
        listed = (i.removeprefix(prefix) for i in spec.ids)
        return [problem(number) for number in listed if number.isdecimal()]
    return list(islice(_each_once(map(problem, map(str, count(spec.seed)))), spec.limit or 200))


def _each_once(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The problems without those that are there already, by whatever id."""
    seen = set()
    for problem in problems:
        if (told := (problem.question, problem.answer)) not in seen:
            seen.add(told)
            yield problem


def _source(name: str) -> _Source:
    return _SOURCES[name]


def as_listed(path: Path) -> list[Problem]:
    """All problems of a file, unchanged: none is left out, and options keep the order of their columns.

    An answer may be missing.

    Raises:
        UsageError: the file cannot be read or holds no problems.
    """
    rows = [_Row(row, number, str(path)) for number, row in enumerate(_read_file(path), start=1)]
    if not rows:
        raise UsageError(f"`{path}` holds no problems")
    return [
        _problem(DatasetSpec(name="file", grading="choice" if row.has_options else "math"), row, as_listed=True)
        for row in rows
    ]


def _read(spec: DatasetSpec) -> list[Problem]:
    place = spec.path or spec.name
    rows = _read_file(Path(spec.path)) if spec.path else _download(spec.name)
    read = [_problem(spec, _Row(row, number, place)) for number, row in enumerate(rows, start=1)]
    if not read:
        raise UsageError(f"`{place}` holds no problems")
    problems = list(_each_once(read))
    ids = [problem.id for problem in problems]
    if len(set(ids)) != len(ids):
        problems = [problem.model_copy(update={"id": f"{number}"}) for number, problem in enumerate(problems)]
    return problems


class _Row:
    """One row; columns are found by name in upper or lower case, and empty cells count as missing."""

    def __init__(self, row: Mapping[str, Any], number: int, place: str) -> None:
        self.number = number
        self.where = f"row {number} of `{place}`"
        self._row = row
        plain = sorted(row.items(), key=lambda column: _name(column[0]) == column[0])  # as it is spelled here wins
        self._named = {_name(name): value for name, value in plain if not _is_missing(value)}
        self._all = {_name(name) for name in row}

    def value(self, names: Sequence[str]) -> Any:
        """The value of the first of these columns that is not empty; else None."""
        return next((self._named[name] for name in names if name in self._named), None)

    def has(self, name: str) -> bool:
        """Whether there is such a column, even if it is empty."""
        return name in self._all

    def is_blank(self, column: str | None, names: Sequence[str]) -> bool:
        """Whether the column that `wanted` would read is there but empty: a problem without a known answer."""
        wanted = {_name(column)} if column else set(names)
        blank = any(isinstance(v, str) and not v.strip() for name, v in self._row.items() if _name(name) in wanted)
        return blank and self.value(tuple(wanted)) is None

    def wanted(self, column: str | None, names: Sequence[str], what: str) -> Any:
        """The value of the column that the job names, else of the first of the usual columns.

        Raises:
            UsageError: the column is missing or empty.
        """
        if column is not None and column in self._row:
            value = None if _is_missing(self._row[column]) else self._row[column]
        else:
            value = self.value([_name(column)] if column else names)
        if value is None:
            columns = ", ".join(f"`{name}`" for name in self._row)
            raise self.refused(
                f"has no {what}", hint=f"its columns are {columns}; name the right one with `dataset.{what}`"
            )
        return value

    @property
    def has_options(self) -> bool:
        """Whether the question has options."""
        return any(map(self.has, _INCORRECT)) or self.value(_OPTIONS) is not None or self._lettered() is not None

    def _lettered(self) -> dict[str, str] | None:
        """The columns that hold one option each, by letter; None if there are none."""
        for pattern in _OPTION:
            columns = {letter: pattern.format(letter.lower()) for letter in LETTERS}
            there = {x: name for x, name in columns.items() if (x in self._row if pattern == "{}" else self.has(name))}
            if "".join(there).startswith("ABC"):
                return there
        return None

    def options(self) -> tuple[list[str], list[str]]:
        """The labels of the options, and their texts.

        Raises:
            UsageError: an option is empty, or the cell does not hold options.
        """
        if lettered := self._lettered():
            found: Any = {letter: self.value([name]) for letter, name in lettered.items()}
        else:
            found = self.value(_OPTIONS)
        if isinstance(found, Mapping) and isinstance(found.get("text"), list):
            labels, texts = found.get("label"), found["text"]
            labels = labels if isinstance(labels, list) else list(LETTERS[: len(texts)])
        elif isinstance(found, Mapping):
            filled = {label: text for label, text in found.items() if not (_is_missing(text) and not lettered)}
            labels, texts = list(filled), list(filled.values())
        elif isinstance(found, list | tuple):
            labels, texts = list(LETTERS[: len(found)]), list(found)
        else:
            raise self.refused("has options that are no list", hint="write them as a list of texts")
        if not 1 < len(texts) <= len(LETTERS) or len(labels) != len(texts):
            raise self.refused(f"has {len(texts)} options, and 2 to {len(LETTERS)} can be told apart by letter")
        if any(map(_is_missing, texts)):
            raise self.refused("has an option that is empty")
        return [str(label).strip() for label in labels], _unlabelled([self.text(text, "option") for text in texts])

    def text(self, value: Any, what: str) -> str:
        """A cell as text; a list of one value counts as that value.

        Raises:
            UsageError: the cell is neither text nor a number.
        """
        if isinstance(value, list | tuple) and len(value) == 1 and not _is_missing(value[0]):
            return self.text(value[0], what)
        if isinstance(value, str | int | float | Decimal) and not (isinstance(value, float) and math.isinf(value)):
            return str(value).strip()
        kind = f"{len(value)} values" if isinstance(value, list | tuple) else f"a {type(value).__name__}"
        raise self.refused(
            f"has {kind} for its {what}", hint=f"write one text or number, or name another column with `dataset.{what}`"
        )

    def refused(self, why: str, *, hint: str | None = None) -> UsageError:
        """The error that says what is wrong with this row."""
        return UsageError(f"{self.where} {why}", hint=hint)


def _name(column: str) -> str:
    return re.sub(r"[\s_-]+", "_", column.strip()).lower()


def _is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: null, not a number, or blank."""
    if isinstance(value, str):
        return value.strip().lower() in {"", "nan"}
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value)) or value in ([], {}, ())


def _unlabelled(options: list[str]) -> list[str]:
    """Options without the letters A, B, ... at their beginnings, if all have them in this order."""
    found = [re.fullmatch(r"\(?([A-J])[).:]\s*(.+)", option, re.DOTALL) for option in options]
    labels = "".join(match[1] for match in found if match)
    return [match[2] for match in found if match] if labels == LETTERS[: len(options)] else options


def _problem(spec: DatasetSpec, row: _Row, *, as_listed: bool = False) -> Problem:
    question = row.text(row.wanted(spec.question, _QUESTIONS, "question"), "question")
    identity = str(next((v for name in _IDS if isinstance(v := row.value([name]), str | int)), row.number - 1)).strip()
    if spec.question is None:
        question = _whole(row, question)
    if row.has_options and spec.graded != "choice":
        raise row.refused("has options to choose from", hint="say so with `--set dataset.grading=choice`")
    if any(map(row.has, _INCORRECT)):
        options = [row.value([name]) for name in ("correct_answer", *_INCORRECT)]
        if None in options:
            raise row.refused("has an option that is missing or empty")
        options = [row.text(option, "option") for option in options]
        if as_listed:
            return Problem(id=identity, question=_asked(question, options), answer=LETTERS[0], choice=True)
        question, answer = choose_order(question, options, f"{spec.seed}:{identity}")
        return Problem(id=identity, question=question, answer=answer, choice=True)
    answers = _CHOSEN if spec.graded == "choice" else _ANSWERS
    left_blank = spec.graded != "choice" and row.is_blank(spec.answer, answers)
    if left_blank or (as_listed and row.value(answers) is None):
        return Problem(id=identity, question=question)
    found = row.wanted(spec.answer, answers, "answer")
    if row.has_options:
        labels, options = row.options()
        place = _place(row, found, labels, options)
        return Problem(id=identity, question=_asked(question, options), answer=LETTERS[place], choice=True)
    answer = _result(row.text(found, "answer"))
    if not answer:
        raise row.refused("has no answer behind its working")
    if spec.graded == "choice":
        answer = _letter(row, answer)
    return Problem(id=identity, question=question, answer=answer, choice=spec.graded == "choice")


def _whole(row: _Row, question: str) -> str:
    """The question, after the text that it is about."""
    parts = [row.text(value, name) for name in _LEADS if (value := row.value([name])) is not None]
    return " ".join((*parts, question)) if row.has("body") else "\n\n".join((*parts, question))


def _result(answer: str) -> str:
    """An answer without the working before it, and without a unit in brackets after a number."""
    answer = answer.rsplit("####", 1)[-1].strip()
    counted = re.fullmatch(r"(-?[\d.,/]*\d)\s*\([^\W\d][^()\d]*\)", answer)
    return counted[1] if counted else answer


def _letter(row: _Row, answer: str) -> str:
    """An option's letter by itself."""
    if (chosen := option(answer)) is None:
        raise row.refused(
            f"has the answer `{_short(answer)}`, which is none of {LETTERS[0]}-{LETTERS[-1]}",
            hint="write the letter of the right option, or give the options as a list",
        )
    return chosen


def _place(row: _Row, answer: Any, labels: Sequence[str], options: Sequence[str]) -> int:
    """The position of the right option, given as a position from 0, a letter, a label, or the option's text.

    Raises:
        UsageError: the answer fits no option, or more than one.
    """
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    said = row.text(answer, "answer")
    bare = said.strip("(). :").lower()
    named = {place for place, label in enumerate(labels) if label.lower() == bare}
    if not isinstance(answer, int) or isinstance(answer, bool):
        named |= {place for place, option in enumerate(options) if option == said}
    counted = (
        {int(bare)} & set(range(len(options))) if bare.isascii() and bare.isdecimal() and len(bare) == 1 else set()
    )
    meant = named | (counted if not any(map(str.isdecimal, labels)) else set())
    if len(meant) == 1:
        return meant.pop()
    if not meant:
        raise row.refused(
            f"has the answer `{_short(said)}`, which is none of its {len(options)} options",
            hint="write the right one's letter, its place from 0 on, or its text",
        )
    raise row.refused(f"has the answer `{_short(said)}`, which may mean several options", hint="write its letter")


def _short(text: str) -> str:
    return " ".join(text.split())[:40]


def _asked(question: str, options: Sequence[str]) -> str:
    lines = [f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join((question.strip(), "Choices:", *lines))


def choose_order(question: str, options: Sequence[str], seed: str) -> tuple[str, str]:
    """A multiple-choice question with its options in random order, and the letter of the right one.

    Args:
        question: the question without options.
        options: the options, the right one first.
        seed: the seed of the order; equal seeds give equal orders on every machine.
    """
    order = list(range(len(options)))
    Random(seed).shuffle(order)
    return _asked(question, [options[place] for place in order]), LETTERS[order.index(0)]


def _read_file(path: Path) -> Iterator[dict[str, Any]]:
    data = read_bytes(path)
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    if data.startswith(b"PAR1") or ending == ".parquet":
        return _read_parquet(data, path)
    text = decode(data, f"`{path}`", hint=_FORMATS)
    if ending in {".csv", ".tsv"}:
        return _read_csv(text, path, "\t" if ending == ".tsv" else ",")
    return _read_json(text, path)


def _read_json(text: str, path: Path) -> Iterator[dict[str, Any]]:
    if text.lstrip().startswith(("[", "{")):
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError):
            pass  # JSON lines, or something else, which is told by its line
        else:
            if isinstance(rows, dict):
                held = [rows[name] for name in _LISTS if isinstance(rows.get(name), list)]
                rows = held[0] if len(held) == 1 else [rows]
            yield from (_object(row, f"entry {number} of `{path}`") for number, row in enumerate(rows, start=1))
            return
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if line.strip():
            where = f"line {number} of `{path}`"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{where} is not JSON: {error}", hint=_FORMATS) from error
            yield _object(row, where)


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UsageError(f"{where} is not an object")
    return row


def _read_csv(text: str, path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = reader.fieldnames or []
        if twice := sorted({name for name in columns if columns.count(name) > 1}):
            raise UsageError(f"`{path}` has two columns `{twice[0]}`")
        for row in reader:
            if None in row:
                raise UsageError(
                    f"line {reader.line_num} of `{path}` has more fields than there are columns",
                    hint=f"put texts that hold `{delimiter}` into quotation marks".replace("\t", "tabs"),
                )
            yield row
    except csv.Error as error:
        raise UsageError(f"line {reader.line_num} of `{path}` is not CSV: {error}") from error


def _read_parquet(data: bytes, path: Path) -> Iterator[dict[str, Any]]:
    from datasets import Dataset

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.parquet")
        file.write_bytes(data)
        try:
            yield from Dataset.from_parquet(str(file), cache_dir=folder, keep_in_memory=True)
        except Exception as error:
            raise UsageError(f"cannot read `{path}`: it is no Parquet ({type(error).__name__})") from error


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
