"""Where a server's solves are stored: a run folder like any other, of limited size."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from specreason_sgl.errors import SpecReasonError
from specreason_sgl.runs.store import SOLVES, Done, RunConfig, RunWriter, SolveRecord, closing, solve_key

LIMIT_MB = 1024
SAME = ("pair", "models")
"""The fields of the configuration that must not have changed when a server goes on with a run."""


class Shelf:
    """Stores the solves of a server, until the folder is as large as it may be; thread-safe."""

    def __init__(self, writer: RunWriter, counts: Counter[str], limit_bytes: int) -> None:
        """Store with this writer.

        Args:
            writer: writes the run folder.
            counts: how often each problem was solved in each mode.
            limit_bytes: the size at which no more is stored.
        """
        self.writer = writer
        self.missed = 0
        """How many solves were not stored."""
        self._counts, self._limit = counts, limit_bytes
        self._lock = threading.Lock()

    def put(self, record: SolveRecord) -> tuple[SolveRecord, str | None]:
        """Store a solve; returns it as it is stored, and a line the first time that one cannot be stored."""
        with self._lock:
            key = solve_key(record.problem, record.mode, 0)
            record = record.model_copy(update={"repeat": self._counts[key]})
            try:
                self._check_size()
                self.writer.append(record)
            except (SpecReasonError, OSError) as error:
                self.missed += 1
                return record, f"solves are not stored: {error}" if self.missed == 1 else None
            self._counts[key] += 1
            return record, None

    def _check_size(self) -> None:
        size = (self.writer.folder / SOLVES).stat().st_size
        if size >= self._limit:
            raise SpecReasonError(f"`{self.writer.folder}` is as large as it may be ({size >> 20} MiB)")


@contextmanager
def shelf(folder: Path, config: RunConfig, limit_mb: int = LIMIT_MB) -> Iterator[Shelf]:
    """Store a server's solves in a folder; one that holds a server's run already is gone on with.

    Raises:
        UsageError: another process writes there, or the run in it is of another pair.
    """
    counts = Counter[str]()

    def keep(record: SolveRecord) -> Done:
        counts[solve_key(record.problem, record.mode, 0)] += 1
        return Done.of(record)

    writer, _ = RunWriter.resume(folder, config, SAME, keep)
    with closing(writer):
        yield Shelf(writer, counts, limit_mb << 20)
