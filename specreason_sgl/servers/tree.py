"""All servers of a pair: ``python -m specreason_sgl.servers.tree``, which reads its instructions from standard input.

Without GPUs SGLang is imported once, which is most of the time of a start. The process is then forked into the
servers, and these fork their schedulers and detokenizers. That takes a quarter of the time and a third of the memory of
separate imports. On GPUs every server imports SGLang for itself, because CUDA does not survive a fork, and the base
model's servers have to answer before those of the small model start, because SGLang divides the memory that it finds
free.

The whole tree ends when it gets the signal to end, when its owner is gone, and when its root is killed, because the
kernel ends every process of the tree with its parent. It ends with any of its servers, too, until it gets the signal to
keep them: from then on a server that ends is started again, and those of later stages with it. The companion, a process
beside the servers, is started again by itself.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from specreason_sgl.servers import plugin
from specreason_sgl.servers.processes import GIVEN_UP, KEEP, PAIR_ENDED, POLL_S, SERVER_ENDED, Companion, ServerSpec

STAND_IN = Path(__file__).parent / "cpu" / "stand_in"
OWNER_CHECK_S = 0.5
MOST_ENDS = 3
"""A server that ends more often than this within `WITHIN_S` ends the tree."""
WITHIN_S = 600.0
PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Seconds until the companion is started again: the first pause after its first end within `WITHIN_S`, and so on."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None)


def main() -> int:
    """Serve until the signal to stop; returns the exit code, which names the server that ended, if one did."""
    told = json.load(sys.stdin)
    scratch = tempfile.mkdtemp(prefix="specreason-")
    tree = _Tree(told, Path(scratch))
    try:
        signal.signal(signal.SIGTERM, _stop)
        signal.signal(KEEP, tree.keep)
        if told["owner"]:
            _follow(told["owner"])
        _bind_children()
        if any(server.spec.core is not None for server in tree.servers):
            _load(Path(scratch))
        return tree.serve()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        tree.end()
        shutil.rmtree(scratch, ignore_errors=True)


class _Child(ABC):
    """A process that the root forks."""

    def __init__(self, log: str) -> None:
        self.log = Path(log)
        self.pid = 0
        """0 unless it runs: a number that has been waited for may be somebody else's."""
        self.ends = 0
        """How often it has ended within `WITHIN_S`."""
        self._ended_at: list[float] = []

    @abstractmethod
    def become(self) -> None:
        """Be this process from here on."""

    def start(self) -> None:
        """Fork into it."""
        pid = os.fork()
        if pid:
            self.pid = pid
            return
        try:
            for number in (signal.SIGTERM, signal.SIGALRM, KEEP):
                signal.signal(number, signal.SIG_DFL)
            log = self._open()
            os.dup2(log, 1)
            os.dup2(log, 2)
            self.become()
        except BaseException:  # noqa: BLE001 - the stack above is the parent's
            traceback.print_exc()
        finally:
            os._exit(1)

    def kill(self) -> None:
        """End it, and wait until it is gone."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def note_end(self, status: int) -> None:
        """Note that it has ended, and how."""
        now = time.monotonic()
        self.pid = 0
        self._ended_at = [*(one for one in self._ended_at if now - one < WITHIN_S), now]
        self.ends = len(self._ended_at)
        code = os.waitstatus_to_exitcode(status)
        self.note(f"the server ended {f'by signal {-code}' if code < 0 else f'with code {code}'}")

    def note(self, line: str) -> None:
        """Write a line into its log, if that can be written."""
        with suppress(OSError), os.fdopen(self._open(), "w", encoding="utf-8") as log:
            log.write(f"{line}\n")

    def _open(self) -> int:
        return os.open(self.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)


class _Server(_Child):
    """One of SGLang's servers or routers."""

    def __init__(self, spec: ServerSpec, api_key: str, scratch: Path) -> None:
        super().__init__(spec.log)
        self.spec = spec
        self.is_ready = False
        """Whether it has answered since it was started."""
        self._api_key = api_key
        self._scratch = scratch

    def become(self) -> None:
        """Serve."""
        if self.spec.is_router:
            _route(self.spec, self._api_key)
        else:
            _serve(self.spec, self._api_key, self._scratch)

    def look(self) -> None:
        """Ask whether it answers, if it has not answered yet."""
        self.is_ready = self.is_ready or (self.pid != 0 and self.spec.is_ready(self._api_key))

    def kill(self) -> None:
        """End it, and wait until it is gone."""
        super().kill()
        self.is_ready = False


class _Accompanying(_Child):
    """The companion."""

    def __init__(self, companion: Companion) -> None:
        super().__init__(companion.log)
        self.due = 0.0
        """When it may be started."""
        self._companion = companion

    def become(self) -> None:
        """Serve."""
        from setproctitle import setproctitle

        setproctitle("specreason::serve")
        importlib.import_module(self._companion.module).main(self._companion.told)

    def note_end(self, status: int) -> None:
        """Note that it has ended, and when it is started again, if at all."""
        super().note_end(status)
        pause = PAUSES_S[self.ends - 1] if self.ends <= len(PAUSES_S) else math.inf
        self.due = time.monotonic() + pause
        self.note(f"it is started again in {pause:.0f} s" if pause < math.inf else GIVEN_UP)


class _Tree:
    """The servers and the companion."""

    def __init__(self, told: dict[str, Any], scratch: Path) -> None:
        self.servers = [_Server(ServerSpec(**one), told["api_key"], scratch) for one in told["servers"]]
        self._companion = _Accompanying(Companion(**told["companion"])) if told["companion"] else None
        self.is_kept = False
        """Whether servers that end are started again."""
        self._limit_s: float = told["limit_s"]
        self._away_since = math.inf

    def serve(self) -> int:
        """Start everything, and again what ends; returns the exit code, which names the server that ended for good."""
        while True:
            self._start_what_can()
            if code := self._look():
                return code
            if self._is_at_rest:
                pid, status = os.wait()
            else:
                time.sleep(POLL_S)
                pid, status = os.waitpid(-1, os.WNOHANG)
            if pid and (code := self._note_end(pid, status)):
                return code

    def keep(self, *_: object) -> None:
        """From here on start servers again that end."""
        self.is_kept = True

    def end(self) -> None:
        """Kill everything; it has nothing to save."""
        _kill_children(spared=set())

    @property
    def _children(self) -> list[_Child]:
        return [*self.servers, *([self._companion] if self._companion else [])]

    @property
    def _is_at_rest(self) -> bool:
        """Whether nothing is to be done until a process ends."""
        awaited = self._companion and not self._companion.pid and self._companion.due < math.inf
        watched = self.is_kept or any(not server.pid for server in self.servers)
        return not awaited and not (watched and any(not server.is_ready for server in self.servers))

    def _start_what_can(self) -> None:
        if self._companion and not self._companion.pid and time.monotonic() >= self._companion.due:
            self._companion.start()
        for server in self.servers:
            earlier = [one for one in self.servers if one.spec.stage < server.spec.stage]
            if not server.pid and all(one.is_ready for one in earlier):
                server.start()

    def _look(self) -> int:
        """See which servers answer; returns the exit code if they have not become ready again in time."""
        if self._is_at_rest:
            return 0
        for server in self.servers:
            server.look()
        missing = [server for server in self.servers if not server.is_ready]
        if missing and time.monotonic() - self._away_since > self._limit_s:
            return self._give_up(missing[0], f"was not ready again after {self._limit_s:.0f} s")
        return 0

    def _note_end(self, pid: int, status: int) -> int:
        """Note that a process has ended, and make room for a new one; returns the exit code if there shall be none."""
        ended = next((child for child in self._children if child.pid == pid), None)
        if ended is None:  # the orphan of another
            return 0
        ended.note_end(status)
        if not isinstance(ended, _Server):
            return 0
        ended.is_ready = False
        if not self.is_kept:
            return self._code(ended)
        if ended.ends > MOST_ENDS:
            return self._give_up(ended, f"ended {ended.ends} times within {WITHIN_S / 60:.0f} minutes")
        self._away_since = time.monotonic()
        later = [server for server in self.servers if server.spec.stage > ended.spec.stage]
        for server in later:
            server.kill()
        # What is left of them has come to the root, and would hold their ports and memory.
        _kill_children(spared={child.pid for child in self._children})
        for server in (ended, *later):
            server.note("the server is started again")
        return 0

    def _give_up(self, server: _Server, why: str) -> int:
        sys.stderr.write(f"{PAIR_ENDED}the {server.spec.name} server {why}; its log is `{server.log}`\n")
        return self._code(server)

    def _code(self, server: _Server) -> int:
        return SERVER_ENDED + self.servers.index(server)


def kernels_load() -> bool:
    """Whether SGLang's compiled kernels can load here: they are linked against the CUDA driver."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _stop(*_: object) -> NoReturn:
    raise SystemExit(0)


def _follow(owner: int) -> None:
    """Stop when the owner is gone.

    This uses a timer. The kernel's own signal would come when the thread that started us ends, and a thread of our own
    would not survive the forks.
    """

    def check(*_: object) -> None:
        if os.getppid() != owner:
            _stop()

    signal.signal(signal.SIGALRM, check)
    signal.setitimer(signal.ITIMER_REAL, OWNER_CHECK_S, OWNER_CHECK_S)


def _bind_children() -> None:
    """Have the kernel kill each process forked from here on when its parent ends, and let this one reap orphans."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    parent = 0

    def note() -> None:
        nonlocal parent
        parent = os.getpid()

    def bind() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it went in between
            os._exit(1)

    os.register_at_fork(before=note, after_in_child=bind)


def _load(scratch: Path) -> None:
    """Import SGLang; make it fork where it starts processes, and put its sockets and the like into one folder."""
    gc.disable()  # collecting while thousands of modules come in is a quarter of the time
    if kernels_load():
        from specreason_sgl.servers.cpu.decoding.operations import provide

        provide(importlib.import_module("sgl_kernel"))
    else:
        sys.path.insert(0, str(STAND_IN))
    from sglang.srt.entrypoints import http_server  # noqa: F401
    from sglang.srt.managers import load_snapshot

    from specreason_sgl.servers.cpu import attention  # noqa: F401 - once for both servers

    plugin.register()  # the server's options are read before SGLang looks for plugins
    multiprocessing.set_start_method("fork", force=True)
    multiprocessing.set_start_method = lambda *_, **__: None
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
    load_snapshot.shm_path_for = lambda name: str(scratch / f"{name}.loads")
    # What is never collected is not written to either, so the processes go on sharing it.
    gc.freeze()
    gc.enable()


def _serve(spec: ServerSpec, api_key: str, scratch: Path) -> None:
    """Be a server."""
    if spec.core is not None:
        group = scratch / f"{spec.name}.group"
        group.unlink(missing_ok=True)  # of the server before
        os.environ["SGLANG_CPU_OMP_THREADS_BIND"] = str(spec.core)
        # Instead of a port that is open to the whole network.
        os.environ["SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE"] = f"file://{group}"

    from setproctitle import setproctitle
    from sglang.srt.entrypoints.http_server import launch_server
    from sglang.srt.server_args import prepare_server_args

    setproctitle(f"specreason::{spec.name}")
    launch_server(prepare_server_args([*spec.arguments, f"--api-key={api_key}"]))


def _route(spec: ServerSpec, api_key: str) -> None:
    """Be a router."""
    from sglang_router.launch_router import launch_router, parse_router_args

    launch_router(parse_router_args([*spec.arguments, f"--api-key={api_key}"]))


def _kill_children(spared: set[int]) -> None:
    """Kill the children of this process but some, and those that come to it thereby, and wait until they are gone."""
    while doomed := [pid for pid in _children_of(os.getpid()) if pid not in spared]:
        for pid in doomed:
            os.kill(pid, signal.SIGKILL)
        for pid in doomed:
            os.waitpid(pid, 0)


def _children_of(parent: int) -> list[int]:
    """The child processes of a process, those included that have ended and were not waited for."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            told = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            if int(told.rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found


if __name__ == "__main__":
    sys.exit(main())
