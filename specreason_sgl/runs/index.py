"""The stored runs: finding a run by a part of its name, and summing up runs without reading all of their text.

A run file can be gigabytes of reasoning. Each line begins with the problem and the mode, and ends with the outcome;
only these parts are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from specreason_sgl.errors import UsageError
from specreason_sgl.runs import locks
from specreason_sgl.runs.store import CONFIG, SOLVES, STATUS, RunConfig, RunStatus

M = TypeVar("M", bound=BaseModel)

LATEST = "latest"
EXAMPLE = "example"
"""The name of the run that comes with the package."""
SHOWN = 3
"""How many candidates are listed when a name is not unique."""

Word = Literal["running", "unfinished", "success", "error", "cancelled", "unknown"]

# Quotes inside a JSON string are escaped, so neither can be found in somebody's text.
_MODE = re.compile(rb'\}, ?"mode": ?"((?:[^"\\]|\\.)*)"')
_ENDED = re.compile(rb'"type": ?"solve_ended", ?"outcome": ?"(\w+)", ?"correct": ?(true|false|null)')
_TAIL = 400
"""The most bytes of the last event on a line."""


@dataclass
class Count:
    """How many solves of one mode ended in which way."""

    solves: int = 0
    right: int = 0
    graded: int = 0
    """Solves that are marked as right or wrong."""
    failed: int = 0
    """Failed solves without such a mark."""

    @property
    def accuracy(self) -> float | None:
        """Right solves as a share of graded and failed ones; None where no right answer is known."""
        return self.right / (self.graded + self.failed) if self.graded else None


@dataclass
class RunSummary:
    """A short summary of one stored run."""

    folder: Path
    status: Word = "unknown"
    config: RunConfig | None = None
    updated: datetime | None = None
    modes: dict[str, Count] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def solves(self) -> int:
        """How many solves are stored."""
        return sum(count.solves for count in self.modes.values())

    @property
    def when(self) -> datetime:
        """When the run began; if unknown, when it was last written."""
        begun = self.config.created if self.config else None
        return begun or self.updated or datetime.fromtimestamp(0, UTC)


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, or what is left of one."""
    return (folder / CONFIG).is_file() or (folder / SOLVES).is_file()


def folders(parent: Path) -> list[Path]:
    """The runs of a folder, the oldest first."""
    try:
        found = [folder for folder in parent.iterdir() if is_run(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"cannot read `{parent}`: {error.strerror or error}") from error
    return sorted(found, key=lambda folder: (_written(folder), folder.name))


def find(name: str, parent: Path) -> Path:
    """Find a run by its path, a unique beginning or end of its name, `latest` or `example`.

    Raises:
        UsageError: no run fits, or more than one.
    """
    path = Path(name)
    if is_run(path):
        return path
    known = folders(parent)
    if name == LATEST and known:
        return known[-1]
    exact = [folder for folder in known if folder.name == name]
    if name == EXAMPLE and not exact:
        return Path(__file__).parent / EXAMPLE
    meant = exact or [folder for folder in known if folder.name.startswith(name) or folder.name.endswith(name)]
    if len(meant) == 1:
        return meant[0]
    if meant:
        names = ", ".join(f"`{folder.name}`" for folder in meant[:SHOWN])
        more = f" and {len(meant) - SHOWN} more" if len(meant) > SHOWN else ""
        raise UsageError(f"`{name}` can be {names}{more}", hint="write more of the name")
    raise UsageError(f"there is no run `{name}` in `{parent}`", hint="`specreason list` shows the stored runs")


def summarise_run(folder: Path) -> RunSummary:
    """Sum up a run, finished or not; whatever cannot be read becomes a remark."""
    summary = RunSummary(folder)
    summary.config = _read(folder / CONFIG, RunConfig, summary.remarks)
    status = _read(folder / STATUS, RunStatus, summary.remarks)
    if status:
        summary.updated = status.updated
        summary.status = status.status if status.status != "started" else _started(folder / SOLVES)
    try:
        for line in _lines(folder / SOLVES, summary.remarks):
            _count(line, summary)
    except FileNotFoundError:
        pass
    except OSError as error:
        summary.remarks.append(f"`{SOLVES}` cannot be read: {error.strerror or error}")
    return summary


def _written(folder: Path) -> float:
    files = [folder / name for name in (STATUS, CONFIG, SOLVES)]
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


def _started(solves: Path) -> Word:
    """Whether a process still writes the run: the writer holds a lock, which ends with its process."""
    try:
        with solves.open("rb") as file:
            free = locks.take(file, shared=True)
    except FileNotFoundError:
        return "unfinished"
    except OSError:
        return "unknown"
    return "unknown" if free is None else "unfinished" if free else "running"


def _lines(path: Path, remarks: list[str]) -> Iterator[bytes]:
    with path.open("rb", buffering=1 << 20) as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"}\n"):
                yield line
            elif line.strip():
                what = "unknown to this version" if line.endswith(b"\n") else "half-written"
                remarks.append(f"line {number} of `{SOLVES}` is {what} and left out")


def _count(line: bytes, summary: RunSummary) -> None:
    mode = _MODE.search(line)
    count = summary.modes.setdefault(_read_text(mode[1]) if mode else "", Count())
    count.solves += 1
    ended = _ENDED.search(line, max(0, len(line) - _TAIL))
    if ended is None:
        return
    count.failed += ended[1] == b"failed" and ended[2] == b"null"
    count.graded += ended[2] != b"null"
    count.right += ended[2] == b"true"


def _read_text(inside: bytes) -> str:
    """Decode the inside of a JSON string, given without its quotes."""
    try:
        return str(json.loads(b'"%s"' % inside, strict=False))
    except ValueError:
        return inside.decode("utf-8", "replace")


def _read(path: Path, model: type[M], remarks: list[str]) -> M | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        remarks.append(f"`{path.name}` is missing")
    except (ValidationError, OSError) as error:
        remarks.append(f"`{path.name}` cannot be read: {type(error).__name__}")
    return None
