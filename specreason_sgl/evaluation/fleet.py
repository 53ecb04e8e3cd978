"""Many pairs for one job: each solve goes to the pair that has the fewest, and stays there."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from specreason_sgl.errors import ServerUnreachable, UsageError
from specreason_sgl.evaluation.modes import model_name

if TYPE_CHECKING:
    from specreason_sgl.evaluation.modes import Server
    from specreason_sgl.lang.pair import Pair


class Fleet:
    """The pairs of a job by name, and how many solves run on each; thread-safe."""

    def __init__(self, pairs: Mapping[str, Pair[Server]]) -> None:
        """All are there, and none is busy."""
        self.pairs = pairs
        self._busy = dict.fromkeys(pairs, 0)
        self._lost: dict[str, ServerUnreachable] = {}
        self._lock = threading.Lock()

    @property
    def there(self) -> list[str]:
        """The names of the pairs that answer, as far as is known."""
        with self._lock:
            return [name for name in self.pairs if name not in self._lost]

    @contextmanager
    def least_busy(self, among: Collection[str]) -> Iterator[str | None]:
        """The name of the pair with the fewest solves, which has one more while the block runs; None if all are lost.

        Args:
            among: the names of the pairs that may be taken.
        """
        with self._lock:
            there = [name for name in among if name not in self._lost]
            name = min(there, key=self._busy.__getitem__, default=None)
            if name is not None:
                self._busy[name] += 1
        if name is None:
            yield None
            return
        try:
            yield name
        finally:
            with self._lock:
                self._busy[name] -= 1

    def lose(self, name: str, error: ServerUnreachable) -> bool:
        """Give a pair up whose server stopped answering; returns whether it was there until then.

        Raises:
            ServerUnreachable: it was the last one.
        """
        with self._lock:
            is_new = name not in self._lost
            self._lost.setdefault(name, error)
            if len(self._lost) == len(self.pairs):
                raise error
        return is_new


def check_alike(served: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Make sure that all pairs serve the same models, or their solves could not be compared.

    Args:
        served: what the servers report about themselves, by the pair's name and the model's role.

    Raises:
        UsageError: they do not.
    """
    (first, expected), *others = served.items()
    for name, models in others:
        if missing := sorted({*expected} ^ {*models}):
            raise UsageError(f"only one of the pairs `{first}` and `{name}` has a model for {', '.join(missing)}")
        for role, told in models.items():
            ours, theirs = (model_name(each.get("model_path")) for each in (expected[role], told))
            if ours != theirs:
                raise UsageError(
                    f"the pairs `{first}` and `{name}` have different {role} models: `{ours}` and `{theirs}`",
                    hint="a job runs over pairs of the same models, served from the same path or name",
                )
