"""The run folder: the configuration, the status, and every solve on one line.

::

    runs/20261121-101500-specreason-3f9c/
        config.json    the resolved configuration, versions, servers, seeds
        status.json    started | success | error | cancelled, and when
        solves.jsonl   one `SolveRecord` a line, appended as each solve ends
        logs/          the servers' output

A line is a whole solve. If a crash leaves the last line incomplete, that solve is done again and never counted in part.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, field_validator, model_validator
from pydantic_core import to_json

from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.events import SCHEMA_VERSION, Event, TextStreamed, UnknownEvent, read_event
from specreason_sgl.runs import locks
from specreason_sgl.tally import Tally, tally
from specreason_sgl.text.prompts import whole

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

CONFIG, STATUS, SOLVES = "config.json", "status.json", "solves.jsonl"
PROGRAMS, RENEWED = "programs", "renewed_programs"
"""Fields of the configuration: the programs' digests by name at the start of the run, and those that changed later."""
NAMED = 5
"""How many unreadable lines are listed by number."""
LOCK_S = 1.0
"""Seconds to wait for a run's lock: a reader holds it for a moment only, so a longer holder is a writer."""

Status = Literal["started", "success", "error", "cancelled"]


class Problem(BaseModel):
    """A question, and its right answer where one is known."""

    model_config = ConfigDict(frozen=True)

    id: str
    question: str
    answer: str | None = None
    choice: bool = False
    """Whether the question has options, whose letters are the answers."""
    earlier: tuple[dict[str, str], ...] = Field((), exclude_if=lambda turns: not turns)
    """The messages before the question, each with ``role`` and ``content``; the assistant's may have
    ``reasoning_content``.
    """

    @field_validator("id", "question", "answer", "earlier", mode="before")
    @classmethod
    def _whole_characters(cls, text: Any) -> Any:
        return _whole(text)


def solve_key(problem: Problem, mode: str, repeat: int) -> str:
    """A digest that identifies a solve by its contents; the problem's id does not matter."""
    said = [list(problem.earlier)] if problem.earlier else []
    text = json.dumps([problem.question, problem.answer, mode, repeat, *said])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class SolveIdentity(BaseModel):
    """The fields of a line of the run file that identify the solve, without its events."""

    problem: Problem
    mode: str
    """The name of what solved the problem: a program, or a program with parameters."""
    repeat: int = 0

    @property
    def key(self) -> str:
        """A digest of problem, mode and repeat, by which a resumed run knows what is done."""
        return solve_key(self.problem, self.mode, self.repeat)


class SolveRecord(SolveIdentity):
    """One line of the run file: one program on one problem."""

    seed: int | None = None
    pair: str | None = Field(None, exclude_if=lambda name: name is None)
    """The name of the pair that solved it, where the run had several."""
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
    """A stored solve without its events: what a batch keeps of each solve in memory."""

    key: str
    mode: str
    tally: Tally

    @classmethod
    def of(cls, record: SolveRecord) -> Done:
        """The facts of a record that a batch keeps in memory."""
        return cls(record.key, record.mode, record.tally)


class RunStatus(BaseModel):
    """How far a run got; unknown fields are kept unchanged."""

    model_config = ConfigDict(extra="allow")

    status: Status
    updated: datetime
    message: str | None = None


class RunConfig(BaseModel):
    """Everything that is needed to repeat a run; unknown fields are kept unchanged."""

    model_config = ConfigDict(extra="allow")

    schema_version: int = SCHEMA_VERSION
    created: datetime
    program: str
    pair: str
    settings: dict[str, Any] = Field(default_factory=dict)
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The values of the program's own parameters."""
    versions: dict[str, str] = Field(default_factory=dict)
    servers: dict[str, Any] = Field(default_factory=dict)
    judge_version: str | None = None
    """The version of ``prompts``; a digest if they are the user's own."""
    prompts: dict[str, str] = Field(default_factory=dict, exclude_if=lambda words: not words)
    """The complete prompts of the pair."""
    repeatability: str | None = None
    """Whether a second run can be expected to give the same texts, and if not, why."""
    concurrency: list[int] = Field(default_factory=list)
    """For a batch, how many solves ran at the same time, as given or as fitted to the servers. There are several
    numbers if the run was resumed with another one. Empty in runs of the first version, where it is in ``job``.
    """
    command: list[str] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _whole_characters(cls, row: Any) -> Any:
        return _whole(row)


@dataclass(frozen=True)
class Run:
    """A stored run, as far as it can be read."""

    folder: Path
    config: RunConfig | None
    status: RunStatus | None
    records: list[SolveRecord]
    remarks: list[str]
    """A line for each part that could not be read."""


def new_folder(parent: Path, name: str) -> Path:
    """A path for a new run, named by the time, the given name and a random ending."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return parent / f"{stamp}-{name}-{secrets.token_hex(2)}"


class RunWriter:
    """Writes one run folder, which only its owner can read, and only one process at a time can write."""

    folder: Path
    remarks: list[str]
    """A line for each fact about the folder that the user should know."""
    _file: IO[bytes]
    _status: dict[str, Any]

    def __init__(self, folder: Path, config: RunConfig) -> None:
        """Create the folder and its configuration.

        Raises:
            UsageError: there is a run in the folder already, or the folder cannot be written.
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
        ours: Callable[[str], bool] = lambda _: False,
    ) -> tuple[RunWriter, list[Done]]:
        """Go on with a run, or begin it; returns the writer, and what ``keep`` made of the stored solves.

        An incomplete line is removed from the file. A complete line that this version cannot read stays unchanged; if
        its solve can be identified, that solve counts as done.

        Args:
            folder: the run folder.
            config: the configuration that the run would get now.
            same: the fields that must be equal in the stored configuration and in ``config``.
            keep: makes what is kept in memory of a stored solve; None removes the solve, because it is done again.
            known: converts the stored value of such a field, of any version, to the form of this version.
            ours: whether a program comes with the package. Such a program may differ between versions: the run goes
                on all the same, a remark says so, and the configuration keeps both digests.

        Raises:
            UsageError: another process is writing there, a later version wrote the run, or the configuration has
                changed; the message names the fields that differ.
        """
        self = cls.__new__(cls)
        return self, self._hold(folder, lambda: self._go_on(config, same, keep, known, ours))

    def _hold(self, folder: Path, prepare: Callable[[], T]) -> T:
        """Lock and prepare the folder; release it again if the preparation fails."""
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
        """Open and lock the file of the solves: the lock keeps writers out, and tells readers of the writer."""
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
        ours: Callable[[str], bool],
    ) -> list[Done]:
        if not (self.folder / CONFIG).exists():
            self._begin(config)
            return []
        stored = _stored_config(self.folder)
        asked = json.loads(config.model_dump_json())
        renewed = _renewed(stored, asked, ours) if PROGRAMS in same else {}
        agreed = {**stored, PROGRAMS: {**_programs(stored), **renewed}} if renewed else stored
        if changes := dict(_differences(agreed, asked, same, known)):
            msg = f"`{self.folder}` was begun with another configuration: {'; '.join(changes.values())}"
            raise UsageError(msg, hint=_hint(changes))
        with suppress(OSError, ValueError):
            self._status = dict(json.loads((self.folder / STATUS).read_bytes()))
        self._file.seek(0)
        text = self._file.read()
        done, kept = self._sort_out(text, keep)
        if kept != text:
            self._replace_solves(kept)
        stored = self._note_programs(stored, renewed)
        self._note_concurrency(stored, config.concurrency)
        return done

    def _sort_out(self, text: bytes, keep: Callable[[SolveRecord], Done | None]) -> tuple[list[Done], bytes]:
        """The solves that a run file's lines show as done, and the text of the lines that stay."""
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
                if solve := _read_line(line, SolveIdentity):
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

    def _note_programs(self, stored: dict[str, Any], renewed: dict[str, str]) -> dict[str, Any]:
        """Add to the stored configuration which programs differ from here on; everything else in it stays."""
        before = [each for each in stored.get(RENEWED) or () if isinstance(each, dict)]
        news = {name: digest for name, digest in renewed.items() if _last_known(name, before) != digest}
        if not news:
            return stored
        added = {"since": datetime.now(UTC).isoformat(), "programs": news}
        stored = {**stored, RENEWED: [*before, added]}
        self._write(CONFIG, json.dumps(stored, indent=2))
        named = ", ".join(f"`{name}`" for name in news)
        self.remarks.append(f"programs that come with the package have changed since the run was begun: {named}")
        return stored

    def _note_concurrency(self, stored: dict[str, Any], now: list[int]) -> None:
        """Add to the stored configuration that the run goes on with another concurrency; all else stays."""
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
        """Append one solve, either completely or not at all.

        Raises:
            SpecReasonError: the disk is full or the folder is gone.
        """
        kept = record.model_copy(update={"events": [e for e in record.events if not isinstance(e, TextStreamed)]})
        line = as_stored(kept) + b"\n"
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
        """Add the servers' reports about themselves to the configuration, once the servers answer."""
        with self._storing():
            self._write(CONFIG, config.model_copy(update={"servers": servers}).model_dump_json(indent=2))

    def set_status(self, status: Status, message: str | None = None) -> None:
        """Write how far the run got."""
        told = RunStatus(status=status, updated=datetime.now(UTC), message=message)
        self._status |= told.model_dump(mode="json")
        self._write(STATUS, json.dumps(self._status))

    def close(self, status: Status, message: str | None = None) -> None:
        """Write how the run ended, and release the folder.

        Raises:
            SpecReasonError: the status of a successful run cannot be written. After a run that failed this is not
                raised, because the run's own error says more.
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
    """A writer for a new run; the run's final status says how the block ended."""
    with closing(RunWriter(folder, config)) as writer:
        yield writer


@contextmanager
def closing(writer: RunWriter) -> Iterator[RunWriter]:
    """The given writer; the run's final status says how the block ended."""
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
    """Read a run folder, complete or not; a part that cannot be read becomes a remark.

    Raises:
        UsageError: there is no run in the folder.
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


def as_stored(part: BaseModel) -> bytes:
    """A solve or an event as the JSON that is stored, on one line."""
    try:
        return part.model_dump_json().encode()
    except ValueError:  # somebody's own program has put half a character into an event
        return to_json(_whole(part.model_dump()), inf_nan_mode="null", fallback=str)


def _whole(value: Any) -> Any:
    """The value without halves of surrogate pairs in any of its texts."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict):
        return {_whole(key): _whole(each) for key, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list | tuple) else value


def _stored_config(folder: Path) -> dict[str, Any]:
    """The stored configuration of a run that is resumed, with its unknown fields.

    Raises:
        UsageError: the configuration cannot be read, or a later version wrote it.
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
    """The concurrency that the first version fitted to the servers but stored as if the user had given it."""
    job = stored.get("job")
    asked = any(re.fullmatch(r"(--set=)?(--)?concurrency(=.*)?", word) for word in stored.get("command") or ())
    return job.get("concurrency") if isinstance(job, dict) and "concurrency" not in stored and not asked else None


def _differences(
    stored: dict[str, Any], asked: dict[str, Any], names: Sequence[str], known: Callable[[str, Any], Any]
) -> Iterator[tuple[str, str]]:
    """Each field that differs between the stored and the requested configuration, and a line about it."""
    for name in names:
        for field, old, new in _changes(name, known(name, stored.get(name)), asked.get(name)):
            if not (field == "job.concurrency" and new is None and _fitted(stored)):
                yield field, f"`{field}` was {json.dumps(old)[:60]} and is {json.dumps(new)[:60]}"


def _hint(changes: Collection[str]) -> str:
    """What to do about fields that differ."""
    own = [field.removeprefix(f"{PROGRAMS}.") for field in changes if field.startswith(f"{PROGRAMS}.")]
    if len(own) < len(changes):
        return "change it back, or begin another run with `--out`"
    named = ", ".join(f"`{name}`" for name in own)
    return f"give {named} the text back that it had when the run was begun, or begin another run with `--out`"


def _programs(config: dict[str, Any]) -> dict[str, Any]:
    """The digests of a configuration's programs; values that are no digests are left out."""
    told = config.get(PROGRAMS)
    return told if isinstance(told, dict) else {}


def _renewed(stored: dict[str, Any], asked: dict[str, Any], ours: Callable[[str], bool]) -> dict[str, str]:
    """The digests of the stock programs that have changed since the run was begun."""
    before = _programs(stored)
    return {
        name: digest for name, digest in _programs(asked).items() if before.get(name, digest) != digest and ours(name)
    }


def _last_known(name: str, renewed: Sequence[dict[str, Any]]) -> Any:
    """A program's digest as of the last resume that found it changed; None if there was none."""
    return next((_programs(each)[name] for each in reversed(renewed) if name in _programs(each)), None)


def _changes(name: str, stored: Any, asked: Any) -> Iterator[tuple[str, Any, Any]]:
    """The fields in which two configurations differ: dotted name, stored value, requested value."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        for key in sorted(stored.keys() | asked.keys()):
            yield from _changes(f"{name}.{key}", stored.get(key), asked.get(key))
    elif isinstance(stored, list) and isinstance(asked, list) and len(stored) == len(asked):
        for place, (old, new) in enumerate(zip(stored, asked, strict=True)):
            yield from _changes(f"{name}[{place}]", old, new)
    elif stored != asked:
        yield name, stored, asked


def _read_line(line: bytes, model: type[M]) -> M | None:
    """A line of the run file, validated as the given model; None if it does not have that form."""
    try:
        return model.model_validate(json.loads(line))
    except (ValueError, RecursionError):
        return None


def _is_whole(line: bytes) -> bool:
    """Whether a last line without a line feed is complete nevertheless."""
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
    """A stored word with its control characters made visible, so that it is safe to print."""
    return json.dumps(text)[1:-1]


def _read_json(path: Path, model: type[M], remarks: list[str]) -> M | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        remarks.append(f"`{path.name}` is missing")
    except (ValueError, OSError) as error:
        remarks.append(f"`{path.name}` cannot be read: {type(error).__name__}")
    return None
