"""A pair of servers: started for one command, or kept up for many.

A pair that is kept up belongs to a supervisor process of its own; what it is and how to reach it stands in a state file
that only its owner can read.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import urllib3

from specreason_sgl.errors import SpecReasonError
from specreason_sgl.runtime.servers import START_S, Server, ServerDied, wait_until_ready

Say = Callable[[str], None]


@dataclass(frozen=True)
class Address:
    """Where a server is and what it wants to be shown."""

    url: str
    api_key: str | None = field(default=None, repr=False)

    def answers(self) -> bool:
        """Whether a server is there and healthy."""
        try:
            return urllib3.request("GET", f"{self.url}/health", timeout=5.0, retries=False).status == 200  # noqa: PLR2004
        except urllib3.exceptions.HTTPError:
            return False


@dataclass(frozen=True)
class RunningPair:
    """Two servers that can be used."""

    base: Address
    small: Address
    logs: Path
    supervisor: int | None = None
    """The process that owns them; None where it is this one."""


def state_folder() -> Path:
    """Where what is up is written down: ``$SPECREASON_HOME``, else the user's state folder."""
    home = os.environ.get("SPECREASON_HOME")
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    folder = Path(home) if home else Path(state) / "specreason"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def cores() -> tuple[int, int]:
    """The cores of the base and the small model: two different ones where there are two."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    return usable[0], usable[1 % len(usable)]


@contextmanager
def launch(base_model: Path, small_model: Path, logs: Path, on_progress: Say = lambda _: None) -> Iterator[RunningPair]:
    """Two servers for the time of the block, started side by side.

    Args:
        base_model: the base model's folder.
        small_model: the small model's folder.
        logs: the folder for ``base.log`` and ``small.log``.
        on_progress: told in a line what is being waited for.

    Raises:
        SpecReasonError: a server does not start; the message ends with its last words.
    """
    key = secrets.token_urlsafe(24)
    logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    servers: list[Server] = []
    began = time.monotonic()
    try:
        for role, model, core in zip(("base", "small"), (base_model, small_model), cores(), strict=True):
            servers.append(Server.start(role, model, core, logs / f"{role}.log", key))  # type: ignore[arg-type]
        on_progress("the embedded pair is starting, which takes half a minute")
        wait_until_ready(servers)
        on_progress(f"both servers were ready after {time.monotonic() - began:.0f} s")
        base, small = servers
        yield RunningPair(Address(base.url, key), Address(small.url, key), logs)
    finally:
        for server in servers:
            server.stop()


def running() -> RunningPair | None:
    """The pair that is up, if there is one; a state that no longer holds is cleared away."""
    path = state_folder() / "pair.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        pair = RunningPair(
            Address(**state["base"]), Address(**state["small"]), Path(state["logs"]), supervisor=int(state["supervisor"])
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        path.unlink(missing_ok=True)
        return None
    if _is_supervisor(pair.supervisor) and pair.base.answers() and pair.small.answers():
        return pair
    if not _is_supervisor(pair.supervisor):
        path.unlink(missing_ok=True)
    return None


def up(base_model: Path, small_model: Path, on_progress: Say = lambda _: None) -> tuple[RunningPair, bool]:
    """A pair that stays up after this command; returns it, and whether it was started now.

    Raises:
        SpecReasonError: it does not start, or somebody else is starting it right now.
    """
    folder = state_folder()
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SpecReasonError("the pair is being started by another command", hint="`specreason status` says when it is up") from error
        if pair := running():
            return pair, False
        logs = folder / "logs"
        logs.mkdir(exist_ok=True, mode=0o700)
        said = logs / "supervisor.log"
        with os.fdopen(os.open(said, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as output:
            supervisor = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "specreason_sgl.runtime.supervise", str(base_model), str(small_model)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        on_progress("the embedded pair is starting, which takes half a minute")
        deadline = time.monotonic() + START_S
        try:
            while time.monotonic() < deadline:
                if pair := running():
                    return pair, True
                if supervisor.poll() is not None:
                    raise ServerDied(said.read_text(encoding="utf-8", errors="replace").strip() or "the pair did not start")
                time.sleep(0.2)
        except BaseException:
            _end(supervisor.pid)
            raise
        _end(supervisor.pid)
        raise ServerDied(f"the pair was not up after {START_S:.0f} s", hint=f"the logs are in `{logs}`")


def down() -> bool:
    """Stop the pair that is up; returns whether there was one."""
    path = state_folder() / "pair.json"
    try:
        supervisor = int(json.loads(path.read_text(encoding="utf-8"))["supervisor"])
    except (FileNotFoundError, ValueError, KeyError):
        path.unlink(missing_ok=True)
        return False
    was_up = _is_supervisor(supervisor)
    if was_up:
        _end(supervisor)
    path.unlink(missing_ok=True)
    return was_up


def note_running(pair: RunningPair) -> None:
    """Write down that this process keeps a pair up."""
    state = {
        "base": asdict(pair.base),
        "small": asdict(pair.small),
        "logs": str(pair.logs),
        "supervisor": os.getpid(),
    }
    new = state_folder() / "pair.json.new"
    with os.fdopen(os.open(new, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        json.dump(state, file)
    new.replace(state_folder() / "pair.json")


def forget_running() -> None:
    """Take that back."""
    (state_folder() / "pair.json").unlink(missing_ok=True)


def _is_supervisor(pid: int | None) -> bool:
    """Whether that process is a supervisor of ours and not another that got its number later."""
    if pid is None:
        return False
    try:
        return b"specreason_sgl.runtime.supervise" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _end(supervisor: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(supervisor, signal.SIGTERM)
    deadline = time.monotonic() + 15
    while _is_supervisor(supervisor) and time.monotonic() < deadline:
        with suppress(ChildProcessError, OSError):
            os.waitpid(supervisor, os.WNOHANG)
        time.sleep(0.1)
    with suppress(ProcessLookupError):
        os.kill(supervisor, signal.SIGKILL)
