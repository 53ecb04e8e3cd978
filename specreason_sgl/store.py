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
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, field_validator, model_validator
from pydantic_core import to_json

from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.events import Event, TextStreamed, read_event
from specreason_sgl.prompts import whole
from specreason_sgl.tally import Tally, tally

M = TypeVar("M", bound=BaseModel)

Status = Literal["started", "success", "error", "cancelled"]


class Problem(BaseModel):
    """A question, and its right answer where one is known."""

    model_config = ConfigDict(frozen=True)

    id: str
    question: str
    answer: str | None = None

    @field_validator("id", "question", "answer", mode="before")
    @classmethod
    def _whole_characters(cls, text: Any) -> Any:
        return _whole(text)


def solve_key(problem: Problem, mode: str, repeat: int) -> str:
    """What identifies a solve by content, whatever the problem is called."""
    text = json.dumps([problem.question, problem.answer, mode, repeat])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class SolveRecord(BaseModel):
    """One line of the run file: one program on one problem."""

    problem: Problem
    mode: str
    """What solved it: a program, or a program with parameters under a name of its own."""
    repeat: int = 0
    seed: int | None = None
    started: datetime
    events: list[SerializeAsAny[Event]]

    @field_validator("events", mode="before")
    @classmethod
    def _read_events(cls, value: Any) -> Any:
        return [read_event(row) if isinstance(row, dict) else row for row in value]

    @property
    def key(self) -> str:
        """Identifies problem, mode and repeat by content, so that a resumed run knows what is done."""
        return solve_key(self.problem, self.mode, self.repeat)

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
    """How far a run got."""

    status: Status
    updated: datetime
    message: str | None = None


class RunConfig(BaseModel):
    """Everything somebody needs to repeat a run; extra fields are kept as they are."""

    model_config = ConfigDict(extra="allow")

    schema_version: int = 1
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

    def __init__(self, folder: Path, config: RunConfig) -> None:
        """Create the folder and its configuration.

        Raises:
            UsageError: the folder holds a run already, or cannot be written.
        """
        self.folder = folder
        with self._complaining():
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            self._lock = _lock(folder)
            if (folder / "config.json").exists():
                os.close(self._lock)
                msg = f"`{folder}` already holds a run"
                raise UsageError(msg, hint="go on with it with `--resume`, or choose another folder with `--out`")
            self._write("config.json", config.model_dump_json(indent=2))
            self._open()

    @classmethod
    def resume(
        cls, folder: Path, config: RunConfig, same: Sequence[str], keep: Callable[[SolveRecord], Done | None]
    ) -> tuple[RunWriter, list[Done]]:
        """Go on with a run, or begin it if it is not there; returns what is kept in mind of the solves that are done.

        A half-written line is taken out of the file.

        Args:
            folder: of the run.
            config: what the run would be given now.
            same: the fields in which the stored configuration must agree with it.
            keep: what to keep in mind of a stored solve; None takes it out, because it is to be done again.

        Raises:
            UsageError: another process is writing there, or the configuration has changed; the message names the
                fields that differ.
        """
        if not (folder / "config.json").exists():
            return cls(folder, config), []
        self = cls.__new__(cls)
        self.folder = folder
        with self._complaining():
            self._lock = _lock(folder)
            try:
                return self, self._take_up(config, same, keep)
            except BaseException:
                os.close(self._lock)
                raise

    def _take_up(
        self, config: RunConfig, same: Sequence[str], keep: Callable[[SolveRecord], Done | None]
    ) -> list[Done]:
        stored = json.loads((self.folder / "config.json").read_bytes())
        asked = json.loads(config.model_dump_json())
        if changes := [line for name in same for line in _changes(name, stored.get(name), asked.get(name))]:
            msg = f"`{self.folder}` was begun with another configuration: {'; '.join(changes)}"
            raise UsageError(msg, hint="change it back, or begin another run with `--out`")
        path = self.folder / "solves.jsonl"
        stored_lines = path.read_bytes() if path.exists() else b""
        done, lines = [], []
        for line in stored_lines.split(b"\n"):
            if (record := _read_record(line)) and (kept := keep(record)) is not None:
                done.append(kept)
                lines.append(line + b"\n")
        if (whole_lines := b"".join(lines)) != stored_lines:
            self._write("solves.jsonl", whole_lines)
        self._open()
        return done

    def _open(self) -> None:
        self.set_status("started")
        self._file = os.fdopen(
            os.open(self.folder / "solves.jsonl", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab", buffering=0
        )
        # The folder's lock keeps writers out; this one tells readers that somebody is writing.
        fcntl.flock(self._file, fcntl.LOCK_EX)

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
            self._write("config.json", config.model_copy(update={"servers": servers}).model_dump_json(indent=2))

    def set_status(self, status: Status, message: str | None = None) -> None:
        """Say how far the run got."""
        self._write(
            "status.json", RunStatus(status=status, updated=datetime.now(UTC), message=message).model_dump_json()
        )

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
            os.close(self._lock)

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
    solves = folder / "solves.jsonl"
    if not folder.is_dir() or not (solves.exists() or (folder / "config.json").exists()):
        msg = f"`{folder}` holds no run"
        raise UsageError(msg, hint="`specreason list` shows the stored runs")
    remarks: list[str] = []
    config = _read_json(folder / "config.json", RunConfig, remarks)
    status = _read_json(folder / "status.json", RunStatus, remarks)
    records = list(_read_records(solves, remarks)) if solves.exists() else []
    unknown = sorted({e.type for r in records for e in r.events if type(e).__name__ == "UnknownEvent"})  # type: ignore[attr-defined]
    if unknown:
        remarks.append(f"events of a newer version are not shown: {', '.join(unknown)}")
    return Run(folder, config, status, records, remarks)


def _whole(value: Any) -> Any:
    """The value with whole characters in all its texts."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict):
        return {_whole(key): _whole(each) for key, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list | tuple) else value


def _lock(folder: Path) -> int:
    """Keep other processes out, for as long as the returned descriptor is open."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        msg = f"another process is writing `{folder}`"
        raise UsageError(msg) from error
    return descriptor


def _changes(name: str, stored: Any, asked: Any) -> Iterator[str]:
    """One line for each field, by its dotted name, in which two configurations differ."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        for key in sorted(stored.keys() | asked.keys()):
            yield from _changes(f"{name}.{key}", stored.get(key), asked.get(key))
    elif isinstance(stored, list) and isinstance(asked, list) and len(stored) == len(asked):
        for place, (old, new) in enumerate(zip(stored, asked, strict=True)):
            yield from _changes(f"{name}[{place}]", old, new)
    elif stored != asked:
        yield f"`{name}` was {json.dumps(stored)[:60]} and is {json.dumps(asked)[:60]}"


def _read_record(line: bytes) -> SolveRecord | None:
    """A record from its line; None if the line is half-written or malformed."""
    try:
        return SolveRecord.model_validate(json.loads(line))
    except ValueError:
        return None


def _read_records(path: Path, remarks: list[str]) -> Iterator[SolveRecord]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if record := _read_record(line):
                yield record
            else:
                torn = not line.endswith(b"\n")
                remarks.append(
                    f"line {number} of `{path.name}` is {'half-written' if torn else 'malformed'} and left out"
                )


def _read_json(path: Path, model: type[M], remarks: list[str]) -> M | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        remarks.append(f"`{path.name}` is missing")
    except (ValueError, OSError) as error:
        remarks.append(f"`{path.name}` cannot be read: {type(error).__name__}")
    return None
