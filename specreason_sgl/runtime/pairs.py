"""A pair of servers: started for one command, or kept up for many.

A pair that is kept up is found again by two files in the state folder: the lock that it holds as long as it lives, and
a note of where it is, which only its owner can read.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Self

from specreason_sgl.errors import SpecReasonError
from specreason_sgl.runtime.servers import (
    POLL_S,
    START_S,
    STOP_S,
    PortTaken,
    Say,
    Servers,
    answers,
    cores,
    free_ports,
    plan,
    private,
)

ATTEMPTS = 3


@dataclass(frozen=True)
class Address:
    """Where a server is, and what it wants to be shown."""

    url: str
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class RunningPair:
    """Two servers that can be used.

    As a context manager it stops them at the end where this process started them for itself (`launch`), and leaves
    them alone where they are kept up (`up`, `running`).
    """

    base: Address
    small: Address
    logs: Path
    pid: int
    """The process that both servers belong to, which leads their process group."""
    _owned: Servers | None = field(default=None, repr=False, compare=False)

    def __enter__(self) -> Self:
        """The pair itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the servers if they are owned."""
        self.close()

    def close(self) -> None:
        """Stop the servers if they are owned."""
        if self._owned:
            self._owned.stop()

    def is_healthy(self) -> bool:
        """Whether both servers answer."""
        return answers(self.base.url) and answers(self.small.url)


def launch(base_model: Path, small_model: Path, logs: Path, on_progress: Say = lambda _: None) -> RunningPair:
    """Start both servers for this process; they end with it, however it ends.

    Args:
        base_model: the base model's folder.
        small_model: the small model's folder.
        logs: the folder for the servers' logs.
        on_progress: told in a line what happens.

    Raises:
        SpecReasonError: there is no such model.
        ServerDied: a server does not start; the message ends with its last log lines.
    """
    return _start(base_model, small_model, logs, on_progress, owned=True)


def up(base_model: Path, small_model: Path, on_progress: Say = lambda _: None) -> tuple[RunningPair, bool]:
    """A pair that stays up after this process: the one that is up already, or else a new one.

    Args:
        base_model: the base model's folder, for a new pair.
        small_model: the small model's folder, for a new pair.
        on_progress: told in a line what happens.

    Returns:
        The pair, and whether it was started now.

    Raises:
        SpecReasonError: there is no such model, or a pair is up that does not answer.
        ServerDied: a server does not start; the message ends with its last log lines.
    """
    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with _lock(folder) as lock:
            if lock is not None:
                _forget(folder)
                try:
                    pair = _start(
                        base_model,
                        small_model,
                        folder / "logs",
                        on_progress,
                        owned=False,
                        keep=(lock,),
                        note=lambda pair: _note(folder, pair),
                    )
                except BaseException:
                    _forget(folder)
                    raise
                return pair, True
        if found := running():
            return found, False
        on_progress("waiting for the pair that another command starts")
        time.sleep(POLL_S)
    raise SpecReasonError("the pair that is up does not answer", hint="`specreason down` stops it")


def running() -> RunningPair | None:
    """The pair that `up` keeps up, once both servers answer; what a dead one left behind is cleared away."""
    folder = state_folder()
    pair = _noted(folder)
    if pair is None:
        return None
    with _lock(folder) as lock:
        if lock is not None:
            _forget(folder)
            return None
    return pair if pair.is_healthy() else None


def down() -> bool:
    """Stop the pair that `up` keeps up, or is starting; returns whether there was one."""
    folder = state_folder()
    pair = _noted(folder)
    if pair is None:
        return False
    killed_at = time.monotonic() + STOP_S
    was_up = False
    while True:
        with _lock(folder) as lock:
            if lock is not None:
                _forget(folder)
                return was_up
        with suppress(ProcessLookupError):
            if time.monotonic() < killed_at:
                os.kill(pair.pid, signal.SIGTERM)
            else:
                os.killpg(pair.pid, signal.SIGKILL)
        was_up = True
        time.sleep(POLL_S)


def state_folder() -> Path:
    """Where the pair that is up is noted: ``$SPECREASON_HOME``, else a folder in the user's state folder."""
    if home := os.environ.get("SPECREASON_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "specreason"


def door_path() -> Path:
    """Where commands can knock while a pair is kept up."""
    return state_folder() / "door"


def _start(
    base_model: Path,
    small_model: Path,
    logs: Path,
    say: Say,
    *,
    owned: bool,
    keep: Sequence[int] = (),
    note: Callable[[RunningPair], None] = lambda _: None,
) -> RunningPair:
    """Start a pair, on other ports if somebody takes one first; a pair that does not get ready is stopped."""
    for model in (base_model, small_model):
        if not (model / "config.json").is_file():
            raise SpecReasonError(f"there is no model in `{model}`")
    logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    logs = logs.resolve()
    key = secrets.token_urlsafe(24)
    attempts = 0
    while True:
        attempts += 1
        base_port, small_port = free_ports(2)
        base_core, small_core = cores(sorted(os.sched_getaffinity(0)))
        base = plan("base", base_model.resolve(), port=base_port, core=base_core, logs=logs)
        small = plan("small", small_model.resolve(), port=small_port, core=small_core, logs=logs)
        servers = Servers.start((base, small), key, logs, owned=owned, keep=keep, door=None if owned else door_path())
        try:
            pair = RunningPair(
                Address(base.url, key), Address(small.url, key), logs, servers.process.pid, servers if owned else None
            )
            note(pair)
            servers.wait_until_ready(say)
        except BaseException as error:
            servers.stop()
            if not isinstance(error, PortTaken) or attempts == ATTEMPTS:
                raise
        else:
            if not owned:
                # Should the pair end before this process does, somebody has to take note of it.
                Thread(target=servers.process.wait, daemon=True).start()
            return pair


@contextmanager
def _lock(folder: Path) -> Iterator[int | None]:
    """The lock's file descriptor while nobody else holds it, else None; who inherits it goes on holding the lock."""
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield None
    else:
        yield lock
    finally:
        os.close(lock)


def _note(folder: Path, pair: RunningPair) -> None:
    row = {"base": asdict(pair.base), "small": asdict(pair.small), "logs": str(pair.logs), "pid": pair.pid}
    new = folder / "pair.json.new"
    with private(new) as file:
        file.write(json.dumps(row).encode())
    new.replace(folder / "pair.json")


def _noted(folder: Path) -> RunningPair | None:
    try:
        row = json.loads((folder / "pair.json").read_text(encoding="utf-8"))
        return RunningPair(Address(**row["base"]), Address(**row["small"]), Path(row["logs"]), int(row["pid"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        _forget(folder)
        return None


def _forget(folder: Path) -> None:
    (folder / "pair.json").unlink(missing_ok=True)
    (folder / "door").unlink(missing_ok=True)
