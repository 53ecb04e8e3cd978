"""A solve as a task: described by values alone, so that it can be carried out anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from specreason_sgl.errors import ServerUnreachable, SpecReasonError, UsageError
from specreason_sgl.evaluation import modes
from specreason_sgl.evaluation.job import Mode
from specreason_sgl.events import Event, SolveEnded, SolveFailed, TextStreamed
from specreason_sgl.lang.loading import Program, find, is_stock, load, stock
from specreason_sgl.runs.store import Problem, SolveRecord

if TYPE_CHECKING:
    from specreason_sgl.evaluation.modes import Server
    from specreason_sgl.lang.pair import Pair
    from specreason_sgl.lang.scope import Scope

Hear = Callable[[Event], None]


@dataclass(frozen=True)
class Source:
    """A program as it travels: a stock program by its name, one's own with its file."""

    name: str
    """As a mode names it."""
    text: bytes | None = None
    """The file's contents; None for a stock program."""

    @classmethod
    def of(cls, name: str) -> Source:
        """The program that a mode names.

        Raises:
            UsageError: there is no such program.
        """
        path = find(name)
        return cls(name, None if is_stock(path) else path.read_bytes())

    def load(self, folder: Path) -> Program:
        """The program; its own file if that is here too, unchanged.

        Args:
            folder: where the file is written if it is not.

        Raises:
            UsageError: it cannot be loaded.
        """
        here = Path(self.name)
        if self.text is None or (here.is_file() and here.read_bytes() == self.text):
            return load(self.name)
        file = folder / hashlib.sha256(self.text).hexdigest()[:16] / here.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.text)
        return load(str(file))


@dataclass(frozen=True)
class Task:
    """One solve that shall be done."""

    problem: Problem
    mode: Mode
    repeat: int
    seed: int
    source: Source
    """The mode's program."""
    rates: Mapping[str, float | None]
    """The acceptance of finished modes, by name."""
    limit_s: float | None
    """The seconds that it may take."""
    pair: str
    """The name of the pair that it runs over."""
    id: str = field(default_factory=lambda: uuid4().hex)
    """By which it is cancelled."""


def perform(task: Task, program: Program, pair: Pair[Server], hear: Hear, scope: Scope) -> SolveRecord:
    """Carry out a task; whatever ends the solve is in the record, which is not graded.

    Args:
        task: the solve.
        program: the mode's program, loaded.
        pair: the servers of the task's pair; the mode chooses among them.
        hear: called with every event as it happens.
        scope: the scope of the solve's calls.
    """
    from specreason_sgl.lang.solving import solve  # imports SGLang, which a worker does not need to begin

    heard: list[Event] = []
    started = datetime.now(UTC)

    def note(event: Event) -> None:
        hear(event)
        if not isinstance(event, TextStreamed):
            heard.append(event)

    try:
        record = solve(
            task.problem,
            program,
            modes.pair_for(task.mode, pair),
            task.mode.settings.model_copy(update={"seed": task.seed}),
            sink=note,
            scope=scope,
            mode=task.mode.name,
            repeat=task.repeat,
            parameters=modes.parameters(task.mode, task.problem, task.rates),
            grade=_later,
        )
    except Exception as error:  # noqa: BLE001 - whatever ends a solve is its row
        record = failed(task, error, started=started, heard=heard)
    return record.model_copy(update={"pair": task.pair or None})


def failed(
    task: Task, error: Exception, *, started: datetime | None = None, heard: Sequence[Event] = ()
) -> SolveRecord:
    """The record of a solve that something outside of its program ended.

    Args:
        task: the solve.
        error: what ended it.
        started: when the solve began; now if it never did.
        heard: what had happened until then.
    """
    at = heard[-1].at if heard else 0.0
    ending = SolveFailed(
        at=at,
        error=str(error) if isinstance(error, SpecReasonError) else f"{type(error).__name__}: {error}",
        hint=error.hint if isinstance(error, SpecReasonError) else None,
        exit_code=error.exit_code if isinstance(error, ServerUnreachable) else 1,
    )
    return SolveRecord(
        problem=task.problem,
        mode=task.mode.name,
        repeat=task.repeat,
        seed=task.seed,
        pair=task.pair or None,
        started=started or datetime.now(UTC),
        events=[*heard, ending, SolveEnded(at=at, outcome="failed")],
    )


def seed(first: int, problem: Problem, repeat: int) -> int:
    """The seed for a problem and a repeat; it is the same in every mode."""
    text = f"{first}:{repeat}:{problem.question}"
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4]) >> 1


def check_same(digest: str, theirs: str, where: str) -> None:
    """Make sure that a worker runs this package's code.

    Raises:
        UsageError: it runs another version.
    """
    if digest != theirs:
        raise UsageError(
            f"{where} has another version of this package",
            hint="install the same one on every node; docs/cluster.md says how",
        )


def code_digest() -> str:
    """A digest of this package's code and of the programs that come with it, wherever they were installed."""
    package = Path(__file__).parents[1]
    modules = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    programs = {f"stock/programs/{path.name}": path for path in stock().values()}
    digest = hashlib.sha256()
    for name, path in sorted((modules | programs).items()):
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _later(_answer: str | None, _gold: str) -> None:
    """Grade nothing during a solve: grading is done after the solve's clock has stopped."""
