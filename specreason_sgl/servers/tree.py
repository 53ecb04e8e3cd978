"""All servers of a pair: ``python -m specreason_sgl.servers.tree``, told what to do on standard input.

On a processor SGLang is imported once, which is most of a start, and forked into the servers, and these fork their
schedulers and detokenizers. That takes a quarter of the time and a third of the memory of processes that import it
each. On GPUs, where CUDA does not survive a fork, every server imports it for itself, and the base model's servers
have to answer before the small model's start, because SGLang shares out the memory that it finds free. One tree, one
life: it ends whole when a server ends, when it is told to, when its owner is gone, and, because the kernel ends every
process in it with its parent, when a part is killed.
"""

from __future__ import annotations

import ctypes
import gc
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from specreason_sgl.servers import door, plugin
from specreason_sgl.servers.processes import POLL_S, SERVER_ENDED, Plan

STAND_IN = Path(__file__).parent / "cpu" / "stand_in"
OWNER_CHECK_S = 0.5

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None)


def main() -> int:
    """Serve until told to stop; returns the exit code, which tells which server ended if one did."""
    told = json.load(sys.stdin)
    plans = [Plan(**one) for one in told["servers"]]
    servers: list[int] = []
    attendants: list[int] = []
    scratch = tempfile.mkdtemp(prefix="specreason-")
    try:
        signal.signal(signal.SIGTERM, _stop)
        if told["owner"]:
            _follow(told["owner"])
        _bind_children()
        if any(plan.core is not None for plan in plans):
            _load(Path(scratch))
        for plan in plans:
            if ended := _wait_for(servers, [earlier for earlier in plans if earlier.stage < plan.stage], plans):
                return ended
            pid = os.fork()
            if not pid:
                _serve(plan, told["api_key"], Path(scratch))
            servers.append(pid)
        if told["door"]:
            pid = os.fork()
            if not pid:
                door.attend(Path(told["door"]))
            attendants.append(pid)
        return _first_to_end(servers, plans)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _end([*servers, *attendants])
        shutil.rmtree(scratch, ignore_errors=True)


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

    A timer rather than the kernel's own signal, which comes when the thread that started us ends; a timer rather than
    a thread, because threads and forks do not mix.
    """

    def check(*_: object) -> None:
        if os.getppid() != owner:
            _stop()

    signal.signal(signal.SIGALRM, check)
    signal.setitimer(signal.ITIMER_REAL, OWNER_CHECK_S, OWNER_CHECK_S)


def _bind_children() -> None:
    """Have the kernel kill every process forked from now on with its parent, and give us the orphans to reap."""
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
    """Import SGLang; have it fork where it asks for a new process, and leave its sockets and its like in one folder."""
    if not kernels_load():
        sys.path.insert(0, str(STAND_IN))
    gc.disable()  # collecting while thousands of modules come in is a quarter of the time
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


def _serve(plan: Plan, api_key: str, scratch: Path) -> NoReturn:
    """Become a server."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        log = os.open(plan.log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if plan.is_router:
            _route(plan, api_key)
        if plan.core is not None:
            os.environ["SGLANG_CPU_OMP_THREADS_BIND"] = str(plan.core)
            # Instead of a port that is open to the whole network.
            os.environ["SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE"] = f"file://{scratch}/{plan.name}.group"

        from setproctitle import setproctitle
        from sglang.srt.entrypoints.http_server import launch_server
        from sglang.srt.server_args import prepare_server_args

        setproctitle(f"specreason::{plan.name}")
        launch_server(prepare_server_args([*plan.arguments, f"--api-key={api_key}"]))
    except BaseException:  # noqa: BLE001 - the stack above is the parent's
        traceback.print_exc()
    finally:
        os._exit(1)


def _route(plan: Plan, api_key: str) -> NoReturn:
    """Become a router."""
    from sglang_router.launch_router import launch_router, parse_router_args

    launch_router(parse_router_args([*plan.arguments, f"--api-key={api_key}"]))
    sys.exit(0)


def _wait_for(servers: list[int], earlier: list[Plan], plans: list[Plan]) -> int:
    """Wait until servers answer; returns 0, or the exit code when one has ended instead."""
    while not all(plan.is_ready for plan in earlier):
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in servers:
            return _ended(servers.index(pid), status, plans)
        time.sleep(POLL_S)
    return 0


def _first_to_end(servers: list[int], plans: list[Plan]) -> int:
    """Wait for a server to end; returns the exit code that tells which, and its log says how."""
    while True:
        pid, status = os.wait()
        if pid in servers:
            return _ended(servers.index(pid), status, plans)


def _ended(which: int, status: int, plans: list[Plan]) -> int:
    code = os.waitstatus_to_exitcode(status)
    with Path(plans[which].log).open("a", encoding="utf-8") as log:
        log.write(f"the server ended {f'by signal {-code}' if code < 0 else f'with code {code}'}\n")
    return SERVER_ENDED + which


def _end(children: list[int]) -> None:
    """Kill the servers and whoever attends, with all their processes; there is nothing that they would have to save."""
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        while True:
            os.wait()


if __name__ == "__main__":
    sys.exit(main())
