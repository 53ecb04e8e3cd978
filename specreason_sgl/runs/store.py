"""The run folder: what was asked, with what, and every solve as one line.

::

    runs/20261121-101500-specreason-3f9c/
        config.json    the resolved configuration, versions, servers, seeds
        status.json    started | success | error | cancelled, and when
        solves.jsonl   one `SolveRecord` a line, appended as each solve ends
        logs/          whatever the servers said

A line is a whole solve, so that a torn last line is one solve owed again and never a half-counted one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, field_validator, model_validator
from pydantic_core import to_json

from specreason_sgl.runs import locks
from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.events import SCHEMA_VERSION, Event, TextStreamed, UnknownEvent, read_event
from specreason_sgl.text.prompts import whole
from specreason_sgl.tally import Tally, tally

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

CONFIG, STATUS, SOLVES = "config.json", "status.json", "solves.jsonl"
NAMED = 5
"""So many lines are named that cannot be read."""
LOCK_S = 1.0
"""Readers take the lock of a run for a moment; who holds it for longer writes."""

Status = Literal["started", "success", "error", "cancelled"]


class Problem(BaseModel):
    """A question, and its right answer where one is known."""

    model_config = ConfigDict(frozen=True)

    id: str
    question: str
    answer: str | None = None
    choice: bool = False
    """Whether it is a question with options, whose letters are the answers."""

    @field_validator("id", "question", "answer", mode="before")
    @classmethod
    def _whole_characters(cls, text: Any) -> Any:
        return _whole(text)


def solve_key(problem: Problem, mode: str, repeat: int) -> str:
    """What identifies a solve by content, whatever the problem is called."""
    text = json.dumps([problem.question, problem.answer, mode, repeat])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Solve(BaseModel):
    """Which solve a line of the run file tells of, whatever else is in it."""

    problem: Problem
    mode: str
    """What solved it: a program, or a program with parameters under a name of its own."""
    repeat: int = 0

    @property
    def key(self) -> str:
        """Identifies problem, mode and repeat by content, so that a resumed run knows what is done."""
        return solve_key(self.problem, self.mode, self.repeat)


class SolveRecord(Solve):
    """One line of the run file: one program on one problem."""

    seed: int | None = None
    started: datetime
    events: list[SerializeAsAny[Event]]

    @field_validator("events", mode="before")
    @classmethod
    def _read_events(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [read_event(row) if isinstance(row, dict) else row for row in value]

    @property
    def tally(self) -> Tally:
        """The totals of this solve."""
        return tally(list(self.events))


@dataclass(frozen=True)
class Done:
    """A stored solve without its events: what a batch remembers of each, however many there are."""

    key: str
    mode: str
    tally: Tally

    @classmethod
    def of(cls, record: SolveRecord) -> Done:
        """What is remembered of a record."""
        return cls(record.key, record.mode, record.tally)


class RunStatus(BaseModel):
    """How far a run got; extra fields are kept as they are."""

    model_config = ConfigDict(extra="allow")

    status: Status
    updated: datetime
    message: str | None = None


class RunConfig(BaseModel):
    """Everything somebody needs to repeat a run; extra fields are kept as they are."""

    model_config = ConfigDict(extra="allow")

    schema_version: int = SCHEMA_VERSION
    created: datetime
    program: str
    pair: str
    settings: dict[str, Any] = Field(default_factory=dict)
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The program's own."""
    versions: dict[str, str] = Field(default_factory=dict)
    servers: dict[str, Any] = Field(default_factory=dict)
    judge_version: str | None = None
    repeatability: str | None = None
    """Whether a second run can be expected to say the same, and why not."""
    concurrency: list[int] = Field(default_factory=list)
    """Of a batch: solves at the same time, as asked for or as fitted to the servers; more than one where it went on
    with another number. Empty in runs of the first version, whose ``job`` has it.
    """
    command: list[str] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _whole_characters(cls, row: Any) -> Any:
        return _whole(row)


@dataclass(frozen=True)
class Run:
    """A stored run, as much of it as can be read."""

    folder: Path
    config: RunConfig | None
    status: RunStatus | None
    records: list[SolveRecord]
    remarks: list[str]
    """One line for each thing that could not be read."""


def new_folder(parent: Path, name: str) -> Path:
    """A path for a new run, named by time, contents and a random tail."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return parent / f"{stamp}-{name}-{secrets.token_hex(2)}"


class RunWriter:
    """Writes one run folder; private to its owner, and to one process at a time."""

    folder: Path
    remarks: list[str]
    """One line for each thing that whoever writes here should be told."""
    _file: IO[bytes]
    _status: dict[str, Any]

    def __init__(self, folder: Path, config: RunConfig) -> None:
        """Create the folder and its configuration.

        Raises:
            UsageError: the folder holds a run already, or cannot be written.
        """
        self._hold(folder, lambda: self._begin(config))

    @classmethod
    def resume(
        cls,
        folder: Path,
        config: RunConfig,
        same: Sequence[str],
        keep: Callable[[SolveRecord], Done | None],
        known: Callable[[str, Any], Any] = lambda _, value: value,
    ) -> tuple[RunWriter, list[Done]]:
        """Go on with a run, or begin it if it is not there; returns what is kept in mind of the solves that are done.

        A half-written line is taken out of the file. A whole line that this version cannot read stays as it is; if it
        says which solve it is of, that one is done.

        Args:
            folder: of the run.
            config: what the run would be given now.
            same: the fields in which the stored configuration must agree with it.
            keep: what to keep in mind of a stored solve; None takes it out, because it is to be done again.
            known: what the stored value of such a field, of whatever version, is to this one.

        Raises:
            UsageError: another process is writing there, the run is of a later version, or the configuration has
                changed; the message names the fields that differ.
        """
        self = cls.__new__(cls)
        return self, self._hold(folder, lambda: self._go_on(config, same, keep, known))

    def _hold(self, folder: Path, prepare: Callable[[], T]) -> T:
        """Prepare a folder that nobody else writes, and let go of it again if that fails."""
        self.folder, self.remarks, self._status = folder, [], {}
        with self._complaining():
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            self._file = self._open(SOLVES)
            try:
                prepared = prepare()
                self.set_status("started")
            except BaseException:
                self._file.close()
                raise
            return prepared

    def _open(self, name: str) -> IO[bytes]:
        """The file of the solves, locked: that keeps other writers out, and tells readers that somebody is writing."""
        path = self.folder / name
        file = os.fdopen(os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600), "a+b", buffering=0)
        try:
            locked = locks.take(file, wait_s=LOCK_S)
            # Whoever had the lock until then may have put another file in its place.
            is_there = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except BaseException:
            file.close()
            raise
        if locked is False or not is_there:
            file.close()
            raise UsageError(f"another process is writing `{self.folder}`")
        if locked is None and not self.remarks:
            self.remarks.append(
                f"`{self.folder}` is on a file system without locks: nothing keeps a second process from writing there"
            )
        return file

    def _begin(self, config: RunConfig) -> None:
        if (self.folder / CONFIG).exists():
            msg = f"`{self.folder}` already holds a run"
            raise UsageError(msg, hint="go on with it with `--resume`, or choose another folder with `--out`")
        if self._file.seek(0, os.SEEK_END):
            msg = f"`{self.folder}` holds solves, and no `{CONFIG}` that says of what"
            raise UsageError(msg, hint="choose another folder with `--out`")
        self._write(CONFIG, config.model_dump_json(indent=2))

    def _go_on(
        self,
        config: RunConfig,
        same: Sequence[str],
        keep: Callable[[SolveRecord], Done | None],
        known: Callable[[str, Any], Any],
    ) -> list[Done]:
        if not (self.folder / CONFIG).exists():
            self._begin(config)
            return []
        stored = _stored_config(self.folder)
        asked = json.loads(config.model_dump_json())
        if changes := list(_differences(stored, asked, same, known)):
            msg = f"`{self.folder}` was begun with another configuration: {'; '.join(changes)}"
            raise UsageError(msg, hint="change it back, or begin another run with `--out`")
        with suppress(OSError, ValueError):
            self._status = dict(json.loads((self.folder / STATUS).read_bytes()))
        self._file.seek(0)
        text = self._file.read()
        done, kept = self._sort_out(text, keep)
        if kept != text:
            self._replace_solves(kept)
        self._note_concurrency(stored, config.concurrency)
        return done

    def _sort_out(self, text: bytes, keep: Callable[[SolveRecord], Done | None]) -> tuple[list[Done], bytes]:
        """What is done by the lines of a run file, and the lines that stay."""
        done, lines = list[Done](), list[bytes]()
        unread, known = list[int](), 0
        *whole_lines, last = text.split(b"\n")
        for number, line in enumerate([*whole_lines, last], start=1):
            if record := _read_line(line, SolveRecord):
                if (one := keep(record)) is None:
                    continue
                done.append(one)
            elif not line.strip() or (number > len(whole_lines) and not _is_whole(line)):
                continue
            else:
                unread.append(number)
                if solve := _read_line(line, Solve):
                    done.append(Done(solve.key, solve.mode, Tally()))
                    known += 1
            lines.append(line + b"\n")
        if unread:
            more = f" and {len(unread) - NAMED} more" if len(unread) > NAMED else ""
            named = ", ".join(map(str, unread[:NAMED]))
            self.remarks.append(
                f"lines of `{SOLVES}` that this version cannot read stay as they are: {named}{more}; "
                f"{known} of {len(unread)} tell which solve they are of and count as done"
            )
        return done, b"".join(lines)

    def _replace_solves(self, content: bytes) -> None:
        self._write(SOLVES, content)
        self._file.close()
        self._file = self._open(SOLVES)

    def _note_concurrency(self, stored: dict[str, Any], now: list[int]) -> None:
        """Have the configuration, with all that is in it, say that the run goes on with another number of solves."""
        fitted = _fitted(stored)
        before = stored.get("concurrency") or [fitted]
        if now and before[-1] not in {None, now[-1]}:
            job = {"job": {**stored["job"], "concurrency": None}} if fitted else {}
            self._write(CONFIG, json.dumps({**stored, **job, "concurrency": [*before, *now]}, indent=2))
            self.remarks.append(f"the run goes on with {now[-1]} solves at a time, where it was {before[-1]} before")

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = f"cannot write the run folder `{self.folder}`: {error.strerror or error}"
            raise UsageError(msg, hint="choose another folder with `--out`") from error

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = f"cannot write `{self.folder}`: {error.strerror or error}"
            raise SpecReasonError(msg, hint="free some space; what was stored before is intact") from error

    def append(self, record: SolveRecord) -> None:
        """Store one solve, all of it or nothing.

        Raises:
            SpecReasonError: the disk is full or the folder has gone.
        """
        kept = record.model_copy(update={"events": [e for e in record.events if not isinstance(e, TextStreamed)]})
        try:
            line = kept.model_dump_json().encode() + b"\n"
        except ValueError:  # somebody's own program has put half a character into an event
            line = to_json(_whole(kept.model_dump()), inf_nan_mode="null", fallback=str) + b"\n"
        start = os.lseek(self._file.fileno(), 0, os.SEEK_END)
        with self._storing():
            try:
                written = self._file.write(line)
            except OSError:
                os.ftruncate(self._file.fileno(), start)
                raise
            if written != len(line):
                os.ftruncate(self._file.fileno(), start)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def note_servers(self, config: RunConfig, servers: dict[str, Any]) -> None:
        """Add to the configuration what the servers said of themselves, once they are there to be asked."""
        with self._storing():
            self._write(CONFIG, config.model_copy(update={"servers": servers}).model_dump_json(indent=2))

    def set_status(self, status: Status, message: str | None = None) -> None:
        """Say how far the run got."""
        told = RunStatus(status=status, updated=datetime.now(UTC), message=message)
        self._status |= told.model_dump(mode="json")
        self._write(STATUS, json.dumps(self._status))

    def close(self, status: Status, message: str | None = None) -> None:
        """Say how it ended and let go of the folder.

        Raises:
            SpecReasonError: the run was a success and that cannot be written down; of one that was not, its own error
                says more.
        """
        try:
            with self._storing():
                self.set_status(status, message)
        except SpecReasonError:
            if status == "success":
                raise
        finally:
            self._file.close()

    def _write(self, name: str, content: str | bytes) -> None:
        new = self.folder / f"{name}.new"
        with os.fdopen(os.open(new, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
            file.write(content if isinstance(content, bytes) else f"{content}\n".encode())
        new.replace(self.folder / name)


@contextmanager
def writing(folder: Path, config: RunConfig) -> Iterator[RunWriter]:
    """A writer of a new run whose final status says how the block ended."""
    with closing(RunWriter(folder, config)) as writer:
        yield writer


@contextmanager
def closing(writer: RunWriter) -> Iterator[RunWriter]:
    """The writer, whose final status says how the block ended."""
    try:
        yield writer
    except KeyboardInterrupt:
        writer.close("cancelled")
        raise
    except BaseException as error:
        writer.close("error", str(error))
        raise
    writer.close("success")


def read_run(folder: Path) -> Run:
    """Read a run folder, whole or not; what cannot be read becomes a remark and the rest is returned.

    Raises:
        UsageError: there is no run there.
    """
    solves = folder / SOLVES
    if not folder.is_dir() or not (solves.exists() or (folder / CONFIG).exists()):
        msg = f"`{folder}` holds no run"
        raise UsageError(msg, hint="`specreason list` shows the stored runs")
    remarks: list[str] = []
    config = _read_json(folder / CONFIG, RunConfig, remarks)
    if config and config.schema_version > SCHEMA_VERSION:
        remarks.append("the run is of a later version; what this one knows of it is shown")
    status = _read_json(folder / STATUS, RunStatus, remarks)
    records = list(_read_records(solves, remarks)) if solves.exists() else []
    if unknown := sorted({e.type for r in records for e in r.events if isinstance(e, UnknownEvent)}):
        remarks.append(f"events of a newer version are not shown: {', '.join(map(_quoted, unknown))}")
    return Run(folder, config, status, records, remarks)


def _whole(value: Any) -> Any:
    """The value with whole characters in all its texts."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict):
        return {_whole(key): _whole(each) for key, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list | tuple) else value


def _stored_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run that is to go on, with everything in it.

    Raises:
        UsageError: it cannot be read, or it is of a later version.
    """
    hint = "begin another run with `--out`"
    try:
        stored = json.loads((folder / CONFIG).read_bytes())
        version = stored.get("schema_version", SCHEMA_VERSION)
        if version <= SCHEMA_VERSION:
            RunConfig.model_validate(stored)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"`{CONFIG}` of `{folder}` cannot be read: {type(error).__name__}", hint=hint) from error
    if version > SCHEMA_VERSION:
        raise UsageError(f"`{folder}` is a run of a later version", hint=f"go on with that version, or {hint}")
    return dict(stored)


def _fitted(stored: dict[str, Any]) -> int | None:
    """The concurrency that the first version fitted to the servers and stored as if it had been asked for."""
    job = stored.get("job")
    asked = any(re.fullmatch(r"(--set=)?(--)?concurrency(=.*)?", word) for word in stored.get("command") or ())
    return job.get("concurrency") if isinstance(job, dict) and "concurrency" not in stored and not asked else None


def _differences(
    stored: dict[str, Any], asked: dict[str, Any], names: Sequence[str], known: Callable[[str, Any], Any]
) -> Iterator[str]:
    """One line for each field in which a stored configuration is not what is asked for."""
    for name in names:
        for field, old, new in _changes(name, known(name, stored.get(name)), asked.get(name)):
            if not (field == "job.concurrency" and new is None and _fitted(stored)):
                yield f"`{field}` was {json.dumps(old)[:60]} and is {json.dumps(new)[:60]}"


def _changes(name: str, stored: Any, asked: Any) -> Iterator[tuple[str, Any, Any]]:
    """The fields, by their dotted names, in which two configurations differ, and what they are in both."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        for key in sorted(stored.keys() | asked.keys()):
            yield from _changes(f"{name}.{key}", stored.get(key), asked.get(key))
    elif isinstance(stored, list) and isinstance(asked, list) and len(stored) == len(asked):
        for place, (old, new) in enumerate(zip(stored, asked, strict=True)):
            yield from _changes(f"{name}[{place}]", old, new)
    elif stored != asked:
        yield name, stored, asked


def _read_line(line: bytes, model: type[M]) -> M | None:
    """What a line tells, as much as the model wants to know; None if it does not tell that."""
    try:
        return model.model_validate(json.loads(line))
    except (ValueError, RecursionError):
        return None


def _is_whole(line: bytes) -> bool:
    """Whether a line that nothing ends is a whole one all the same."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _read_records(path: Path, remarks: list[str]) -> Iterator[SolveRecord]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if record := _read_line(line, SolveRecord):
                yield record
            elif line.strip():
                what = "unknown to this version" if line.endswith(b"\n") else "half-written"
                remarks.append(f"line {number} of `{path.name}` is {what} and left out")


def _quoted(text: str) -> str:
    """A stored word that no terminal obeys, whoever prints it."""
    return json.dumps(text)[1:-1]


def _read_json(path: Path, model: type[M], remarks: list[str]) -> M | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        remarks.append(f"`{path.name}` is missing")
    except (ValueError, OSError) as error:
        remarks.append(f"`{path.name}` cannot be read: {type(error).__name__}")
    return None
