"""A pair of servers: started for one command, or kept up for many.

A pair that is kept up is found by two files in the state folder: a lock that the pair holds as long as it lives, and a
note with its addresses, which only its owner can read. Machines that share a home directory have separate folders in
it. Process numbers are used again, so a signal is only sent after a check that the process is the one of the note.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

import urllib3

from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.servers import EMBEDDED, SERVE_KEY, SERVE_PORT
from specreason_sgl.servers.cpu.decode import Decode, arguments
from specreason_sgl.servers.processes import (
    HEALTH_S,
    HERE,
    LOCKED,
    PAIR_ENDED,
    PAIR_LOG,
    POLL_S,
    START_S,
    STOP_S,
    Companion,
    PortTaken,
    Say,
    Servers,
    ServerSpec,
    answers,
    cores,
    free_ports,
    is_ours,
    model_server,
    private,
    refuse_taken,
    router,
)

ATTEMPTS = 3

NOTE = "pair.json"
_KEY = "serve.key"
_SERVE_LOCKED = "/v1/models"
"""What only who has the endpoint's key can read of it."""
_ON = "on-"
"""What the name of a machine's folder begins with, before the machine's name."""


@dataclass(frozen=True)
class Address:
    """The URL of a server, and its API key."""

    url: str
    api_key: str | None = field(default=None, repr=False)

    def answers(self, *locked: str) -> bool:
        """Whether a server answers that has this key; ``locked`` are paths that only its key opens."""
        return answers(self.url) and is_ours(self.url, self.api_key, locked or LOCKED)


@dataclass(frozen=True)
class Wanted:
    """A pair that shall be started."""

    label: str
    lay_out: Callable[[Path], list[ServerSpec]]
    """Makes the servers' specs from the folder for logs, on ports that are free at the moment."""
    api_key: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    attempts: int = ATTEMPTS
    """How often the start is tried with new ports, if another program takes one."""
    limit_s: float = START_S
    drafted_by: Decode = "off"
    """Who drafts tokens for the base model, on this machine's processor."""


@dataclass(frozen=True)
class Serving:
    """The endpoint that shall be kept beside a pair's servers."""

    module: str
    """Its module: that of a `Companion`, which is told the pair, the port, the key and the options."""
    port: int | None = None
    """None takes `SERVE_PORT` or, if that is not free, any other."""
    key: str | None = field(default=None, repr=False)
    """None takes the key that is kept in this machine's state folder."""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunningPair:
    """The servers of a pair that can be used.

    As a context manager it stops servers that this process started for itself (`launch`), and leaves those running that
    are kept up (`up`, `running`).
    """

    base: Address
    small: Address
    logs: Path
    pid: int
    """The id of the process that leads the process group of both servers."""
    label: str = EMBEDDED
    """The pair's name in runs."""
    serve: Address | None = None
    """The endpoint that is kept beside the servers, if one is."""
    decode: Address | None = None
    """The base model once more, in a server for which tokens are drafted, if one is beside the two."""
    drafted_by: Decode = "off"
    """Who drafts tokens for the base model, on this machine's processor."""
    _owned: Servers | None = field(default=None, repr=False, compare=False)

    def __enter__(self) -> Self:
        """The pair itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the servers if this process started them for itself."""
        self.close()

    def close(self) -> None:
        """Stop the servers if this process started them for itself."""
        if self._owned:
            self._owned.stop()

    def is_healthy(self) -> bool:
        """Whether all servers answer."""
        return all(one.answers() for one in self.addresses.values())

    @property
    def addresses(self) -> dict[str, Address]:
        """The servers' addresses by the role of their models."""
        named = {"base": self.base, "small": self.small, "decode": self.decode}
        return {role: address for role, address in named.items() if address}

    def is_served(self) -> bool:
        """Whether the endpoint beside the servers answers."""
        return self.serve is not None and self.serve.answers(_SERVE_LOCKED)

    @property
    def serve_log(self) -> Path:
        """The file for the endpoint's output."""
        return self.logs / "serve.log"


@dataclass(frozen=True)
class _Note:
    """What the note of a pair that is kept up says."""

    pair: RunningPair
    host: str | None
    """The machine that the process id belongs to; None in a note of the first version."""
    started: int | None
    """When the process began: a later process with the same id began at another time."""

    def is_of(self, folder: Path) -> bool:
        """Whether the noted process still runs, on this machine."""
        if self.host is None:
            return _holds(self.pair.pid, folder / "lock")
        return self.host == host() and self.started is not None and self.started == _began(self.pair.pid)


def embedded(
    base_model: Path,
    small_model: Path,
    replicas: int = 1,
    *,
    label: str = EMBEDDED,
    extra: Sequence[str] = (),
    decode: Decode = "off",
    beside: bool = False,
    host: str = HERE,
) -> Wanted:
    """A pair on this machine's processor.

    Args:
        base_model: the base model's folder.
        small_model: the small model's folder.
        replicas: the number of servers of each model; several are put behind a router.
        label: the pair's name in runs.
        extra: further SGLang server arguments of all models; they override ours.
        decode: who drafts tokens for the base model.
        beside: whether the server for which they are drafted is a further one, in the role ``decode``; else it is the
            base model's own.
        host: the address of the interface that the servers listen at.

    Raises:
        SpecReasonError: there is no such model, or nobody can draft tokens this way here.
    """
    models = {"base": base_model, "small": small_model, **({"decode": base_model} if beside else {})}
    for model in models.values():
        if not (model / "config.json").is_file():
            raise SpecReasonError(f"there is no model in `{model}`")
    own = {"decode" if beside else "base": arguments(decode, small_model.resolve())}

    def lay_out(logs: Path) -> list[ServerSpec]:
        usable = dict(zip(("base", "small", "decode"), cores(sorted(os.sched_getaffinity(0))), strict=True))
        ports = iter(free_ports(3 * replicas + 6, host))
        servers = [
            model_server(
                numbered(role, replica),
                model.resolve(),
                port=next(ports),
                core=usable[role],
                logs=logs,
                extra=(*own.get(role, ()), *extra),
                host=host,
            )
            for replica in range(replicas)
            for role, model in models.items()
        ]
        return [*servers, *routers(servers, ports, logs)]

    return Wanted(label, lay_out, drafted_by=decode)


def numbered(role: str, replica: int) -> str:
    """The name of a server from its role and its number among several."""
    return f"{role}-{replica + 1}" if replica else role


def routers(servers: Sequence[ServerSpec], ports: Iterator[int], logs: Path) -> list[ServerSpec]:
    """A router for each role that has several servers."""
    found = []
    for role in ("base", "small", "decode"):
        own = [one for one in servers if one.name.partition("-")[0] == role]
        if len(own) > 1:
            found.append(router(f"{role}-router", own, port=next(ports), metrics_port=next(ports), logs=logs))
    return found


def launch(
    base_model: Path,
    small_model: Path,
    logs: Path,
    on_progress: Say = lambda _: None,
    *,
    replicas: int = 1,
    label: str = EMBEDDED,
    extra: Sequence[str] = (),
    decode: Decode = "off",
    beside: bool = False,
) -> RunningPair:
    """Start a pair on this machine's processor for this process, with which it ends, however that happens.

    Args:
        base_model: the base model's folder.
        small_model: the small model's folder.
        logs: the folder for the servers' logs.
        on_progress: called with a line on what happens.
        replicas: the number of servers of each model; several are put behind a router.
        label: the pair's name in runs.
        extra: further SGLang server arguments of all models; they override ours.
        decode: who drafts tokens for the base model.
        beside: whether the server for which they are drafted is a further one, in the role ``decode``.

    Raises:
        SpecReasonError: there is no such model, or nobody can draft tokens this way here.
        ServerDied: a server does not start; the message ends with its last log lines.
    """
    wanted = embedded(base_model, small_model, replicas, label=label, extra=extra, decode=decode, beside=beside)
    return _start(wanted, logs, on_progress, owned=True)


def up(
    wanted: Wanted, on_progress: Say = lambda _: None, *, serving: Serving | None = None
) -> tuple[RunningPair, bool]:
    """Make sure that a pair is up, which stays up after this process; returns the one that is up already, or a new one.

    Args:
        wanted: the pair.
        on_progress: called with a line on what happens.
        serving: the endpoint beside a new pair; the pair is up even if this does not answer.

    Returns:
        The pair, and whether this call started it.

    Raises:
        SpecReasonError: another pair is up, the pair does not answer, or a server serves another model.
        ServerDied: a server does not start; the message ends with its last log lines.
    """
    folder = own_folder()
    with _usable(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    deadline = time.monotonic() + wanted.limit_s
    is_waiting = False
    while time.monotonic() < deadline:
        if found := _found():
            pair = found[1].pair
            if pair.label != wanted.label:
                raise SpecReasonError(f"another pair is up: {pair.label}", hint="`specreason down` stops it")
            if pair.is_healthy():
                return pair, False
        else:
            _refuse_namesake(folder)
            with _lock(folder) as lock:
                if lock is not None:
                    return _start_noted(wanted, folder, lock, on_progress, serving), True
        if not is_waiting:
            on_progress("waiting for the pair that another command starts")
        is_waiting = True
        time.sleep(POLL_S)
    raise SpecReasonError("the pair that is up does not answer", hint="`specreason down` stops it")


def running() -> RunningPair | None:
    """The pair that `up` keeps up, if all its servers answer; the files of a dead pair are removed."""
    pair = kept()
    return pair if pair and pair.is_healthy() else None


def kept() -> RunningPair | None:
    """The pair that `up` keeps up, whether or not it answers at the moment."""
    found = _found()
    return found[1].pair if found else None


def last_words() -> str | None:
    """Why the last pair that was kept up ended, if it gave itself up."""
    try:
        said = (own_folder() / "logs" / PAIR_LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return said[-1].removeprefix(PAIR_ENDED) if said and said[-1].startswith(PAIR_ENDED) else None


def key_of(url: str) -> str | None:
    """The API key for an address, if it is a server of the pair that is up; else None."""
    found = _found()
    own = found[1].pair.addresses if found else {}
    return next((address.api_key for address in own.values() if address.url == url.rstrip("/")), None)


def down() -> bool:
    """Stop the pair that `up` keeps up or is starting; returns whether there was one.

    Raises:
        SpecReasonError: the pair does not end, or was started on another machine of the same name.
    """
    found = _found()
    if found is None:
        _refuse_namesake(own_folder())
        return False
    folder, note = found
    killed_at = time.monotonic() + STOP_S
    while time.monotonic() < killed_at + STOP_S:
        with _lock(folder) as lock:
            if lock is not None:
                _forget(folder)
                return True
        note = _noted(folder) or note
        with suppress(ProcessLookupError):
            if note.is_of(folder):
                if time.monotonic() < killed_at:
                    os.kill(note.pair.pid, signal.SIGTERM)
                elif os.getpgid(note.pair.pid) == note.pair.pid:
                    os.killpg(note.pair.pid, signal.SIGKILL)
        time.sleep(POLL_S)
    raise SpecReasonError(f"the pair of process {note.pair.pid} does not end")


def elsewhere() -> list[str]:
    """The names of other machines on which a pair was started, by the notes in the state folder that they share."""
    notes = state_folder().glob(f"{_ON}*/{NOTE}")
    return sorted(note.parent.name.removeprefix(_ON) for note in notes if note.parent != own_folder())


def state_folder() -> Path:
    """The folder for the notes of pairs: ``$SPECREASON_HOME``, else a folder in the user's state folder."""
    if home := os.environ.get("SPECREASON_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "specreason"


def own_folder() -> Path:
    """This machine's folder in the state folder."""
    return state_folder() / (_ON + re.sub(r"[^.\w-]", "_", socket.gethostname()))


def host() -> str:
    """An identifier of what a process id is valid in: this machine until its next boot, as seen from this container."""
    seen = [socket.gethostname()]
    with suppress(OSError):
        seen.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        seen.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(seen)


def _start_noted(wanted: Wanted, folder: Path, lock: int, say: Say, serving: Serving | None) -> RunningPair:
    """Start a pair that holds the lock; its note is written as soon as it has a process."""
    _forget(folder)
    if serving:
        serving = replace(serving, key=serving.key or _kept_key(folder))
    try:
        return _start(
            wanted,
            folder / "logs",
            say,
            owned=False,
            keep=(lock,),
            note=lambda pair: _write_note(folder, pair),
            serving=serving,
        )
    except BaseException:
        _forget(folder)
        raise


def _start(
    wanted: Wanted,
    logs: Path,
    say: Say,
    *,
    owned: bool,
    keep: Sequence[int] = (),
    note: Callable[[RunningPair], None] = lambda _: None,
    serving: Serving | None = None,
) -> RunningPair:
    """Start a pair, on other ports if another program takes one first; a pair that does not become ready is stopped."""
    logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    logs = logs.resolve()
    lost: set[int] = set()
    attempts = 0
    while True:
        attempts += 1
        specs = wanted.lay_out(logs)
        ports = {one.port for one in specs}
        port = _serve_port(serving.port, ports | lost) if serving else 0
        entrances = {role: Address(url, wanted.api_key) for role, url in _entrances(specs).items()}
        pair = RunningPair(
            entrances["base"],
            entrances["small"],
            logs,
            0,
            wanted.label,
            decode=entrances.get("decode"),
            drafted_by=wanted.drafted_by,
        )
        companion = _companion(replace(serving, port=port), pair, ports) if serving else None
        servers = Servers.start(
            specs, wanted.api_key, logs, owned=owned, limit_s=wanted.limit_s, keep=keep, companion=companion
        )
        try:
            serve = Address(f"http://127.0.0.1:{port}", serving.key) if serving else None
            pair = replace(pair, pid=servers.process.pid, serve=serve, _owned=servers if owned else None)
            note(pair)
            servers.wait_until_ready(say, wanted.limit_s)
            for one in specs:
                _check(one, wanted.api_key)
            if not owned:
                servers.keep()
            if serving and companion:
                lost.add(port)  # should it turn out to be another program's
                may_move = serving.port is None and attempts < wanted.attempts
                _accompany(servers, companion, pair, wanted.limit_s, may_move=may_move)
        except BaseException as error:
            servers.stop()
            if not isinstance(error, PortTaken) or attempts == wanted.attempts:
                raise
        else:
            if not owned:
                # Should the pair end before this process does, somebody has to take note of it.
                Thread(target=servers.process.wait, daemon=True).start()
            return pair


def _accompany(servers: Servers, companion: Companion, pair: RunningPair, limit_s: float, *, may_move: bool) -> None:
    """Wait until the endpoint answers; the pair is up even if it does not, unless it may move to another port."""
    has_port = servers.wait_until_accompanied(companion, pair.is_served, limit_s)
    if may_move and not has_port:
        raise PortTaken(f"port {companion.told['port']} of the endpoint was taken by another program", hint="try again")


def _companion(serving: Serving, pair: RunningPair, taken: set[int]) -> Companion:
    """The endpoint as a process of the pair's tree."""
    if serving.port in taken:
        raise SpecReasonError(
            f"port {serving.port} is that of a model's server", hint="choose another with `--serve-port`"
        )
    told = {
        "label": pair.label,
        "base": asdict(pair.base),
        "small": asdict(pair.small),
        "port": serving.port,
        "key": serving.key,
        "log": str(pair.serve_log),
        "options": dict(serving.options),
    }
    return Companion(serving.module, told)


def _serve_port(wanted: int | None, avoided: set[int]) -> int:
    """The port that is wanted, or a free one that is none of those to be avoided.

    Raises:
        SpecReasonError: another program listens on the port that is wanted.
    """
    try:
        refuse_taken(wanted or SERVE_PORT, "--serve-port")
    except SpecReasonError:
        if wanted:
            raise
        avoided = avoided | {SERVE_PORT}
    if wanted or SERVE_PORT not in avoided:
        return wanted or SERVE_PORT
    return next(port for port in free_ports(len(avoided) + 1) if port not in avoided)


def _kept_key(folder: Path) -> str:
    """The endpoint's key, which is made once, so that clients stay configured."""
    path = folder / _KEY
    with suppress(OSError, UsageError):
        return check_key(path.read_text(encoding="utf-8", errors="replace").strip())
    key = secrets.token_urlsafe(24)
    _write_private(path, key)
    return key


def check_key(key: str) -> str:
    """The key, if it can stand in a header.

    Raises:
        UsageError: it cannot.
    """
    if key and key.isascii() and key.isprintable() and " " not in key:
        return key
    raise UsageError(
        "the endpoint's key is no single word of visible ASCII characters",
        hint=f"give another, in `{SERVE_KEY}` for example, or none: then one is made",
    )


def _entrances(specs: Sequence[ServerSpec]) -> dict[str, str]:
    """Where requests for a model go, by its role: to the router if there is one, else to the server."""
    urls = {one.name: one.url for one in specs}
    return {role: urls.get(f"{role}-router", urls[role]) for role in ("base", "small", "decode") if role in urls}


def _check(server: ServerSpec, api_key: str) -> None:
    """Make sure that a server serves its model: another program could have had the port already."""
    if server.is_router:
        return
    headers = {"Authorization": f"Bearer {api_key}"}
    try:
        told = urllib3.request("GET", f"{server.url}/model_info", headers=headers, timeout=HEALTH_S, retries=False)
        serves = told.json().get("model_path")
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise SpecReasonError(f"the {server.name} server does not say what it serves: {error}") from error
    if serves != server.model:
        raise SpecReasonError(f"the {server.name} server serves `{serves}` instead of `{server.model}`")


def _found() -> tuple[Path, _Note] | None:
    """The note of the pair that is up or starting on this machine, and the folder of the note.

    The folder is this machine's own, or that of the first version, which all machines shared. The files of a dead pair
    are removed from the own folder only: in the shared one they may belong to a pair on another machine, whose lock
    cannot be seen from here.
    """
    own = own_folder()
    for folder in (own, state_folder()):
        if not (folder / NOTE).is_file():
            continue
        with _lock(folder) as lock:
            if lock is None and (note := _noted(folder)) and note.is_of(folder):
                return folder, note
            if lock is not None and folder == own:
                _forget(own)
    return None


def _refuse_namesake(folder: Path) -> None:
    """Refuse to stop a pair whose process id belongs to another machine or container."""
    note = _noted(folder)
    if note and note.host not in (None, host()):
        name = folder.name.removeprefix(_ON)
        raise SpecReasonError(
            f"the pair was started on another machine, or in another container, that is called `{name}` too",
            hint="stop it there, or name a folder for this one in `SPECREASON_HOME`",
        )


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpecReasonError(
            f"cannot use the state folder `{folder}`: {error.strerror or error}",
            hint="name a folder on a disk of this machine in `SPECREASON_HOME`",
        ) from error


@contextmanager
def _lock(folder: Path) -> Iterator[int | None]:
    """Take the lock: yields its file descriptor, which child processes may inherit, or None if it is taken."""
    with _usable(folder):
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        with _usable(folder):
            is_free = _take(lock)
        yield lock if is_free else None
    finally:
        os.close(lock)


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_note(folder: Path, pair: RunningPair) -> None:
    row = {
        "label": pair.label,
        **{role: asdict(address) for role, address in pair.addresses.items()},
        "logs": str(pair.logs),
        "pid": pair.pid,
        "host": host(),
        "started": _began(pair.pid),
        "drafted_by": pair.drafted_by,
        **({"serve": asdict(pair.serve)} if pair.serve else {}),
    }
    _write_private(folder / NOTE, json.dumps(row))


def _write_private(path: Path, text: str) -> None:
    """Write a file as a whole that only its owner can read."""
    new = path.with_name(f"{path.name}.new")
    with _usable(path.parent):
        with private(new) as file:
            file.write(text.encode())
        new.replace(path)


def _noted(folder: Path) -> _Note | None:
    """The note in a folder; None if there is none or it cannot be read."""
    try:
        row = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        found = {
            name: Address(row[name]["url"], row[name].get("api_key"))
            for name in ("base", "small", "serve", "decode")
            if row.get(name)
        }
        pair = RunningPair(
            found["base"],
            found["small"],
            Path(row["logs"]),
            int(row["pid"]),
            str(row.get("label", EMBEDDED)),
            found.get("serve"),
            found.get("decode"),
            row.get("drafted_by", "off"),
        )
        return _Note(pair, row.get("host"), row.get("started"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _began(pid: int) -> int | None:
    """When a process began, in the kernel's ticks since it booted; None if it has ended."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = told.rpartition(")")[2].split()  # the name in brackets may hold anything
    return None if state in "ZX" else int(rest[18])


def _holds(pid: int, lock: Path) -> bool:
    """Whether a process holds a lock, as far as that can be seen; others may have its file open to try it."""
    try:
        opened = [each for each in Path(f"/proc/{pid}/fd").iterdir() if each.samefile(lock)]
        told = [Path(f"/proc/{pid}/fdinfo/{each.name}").read_text(encoding="ascii") for each in opened]
    except OSError:
        return False
    return any(line.startswith("lock:") for each in told for line in each.splitlines())


def _forget(folder: Path) -> None:
    (folder / NOTE).unlink(missing_ok=True)
