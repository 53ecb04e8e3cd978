"""All servers of a pair: ``python -m specreason_sgl.servers.tree``, which reads its instructions from standard input.

Without GPUs SGLang is imported once, which is most of the time of a start. The process is then forked into the
servers, and these fork their schedulers and detokenizers. That takes a quarter of the time and a third of the memory of
separate imports. On GPUs every server imports SGLang for itself, because CUDA does not survive a fork, and the base
model's servers have to answer before those of the small model start, because SGLang divides the memory that it finds
free. The whole tree ends when a server ends, when it gets the signal to end, when its owner is gone, and when one of
its processes is killed, because the kernel ends every process of the tree with its parent.
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
from specreason_sgl.servers.processes import POLL_S, SERVER_ENDED, ServerSpec

STAND_IN = Path(__file__).parent / "cpu" / "stand_in"
OWNER_CHECK_S = 0.5

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None)


def main() -> int:
    """Serve until the signal to stop; returns the exit code, which names the server that ended, if one did."""
    told = json.load(sys.stdin)
    specs = [ServerSpec(**one) for one in told["servers"]]
    servers: list[int] = []
    attendants: list[int] = []
    scratch = tempfile.mkdtemp(prefix="specreason-")
    try:
        signal.signal(signal.SIGTERM, _stop)
        if told["owner"]:
            _follow(told["owner"])
        _bind_children()
        if any(spec.core is not None for spec in specs):
            _load(Path(scratch))
        for spec in specs:
            if ended := _wait_for(servers, [earlier for earlier in specs if earlier.stage < spec.stage], specs):
                return ended
            pid = os.fork()
            if not pid:
                _serve(spec, told["api_key"], Path(scratch))
            servers.append(pid)
        if told["door"]:
            pid = os.fork()
            if not pid:
                door.attend(Path(told["door"]))
            attendants.append(pid)
        return _first_to_end(servers, specs)
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


def _serve(spec: ServerSpec, api_key: str, scratch: Path) -> NoReturn:
    """Become a server; never returns."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        log = os.open(spec.log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if spec.is_router:
            _route(spec, api_key)
        if spec.core is not None:
            os.environ["SGLANG_CPU_OMP_THREADS_BIND"] = str(spec.core)
            # Instead of a port that is open to the whole network.
            os.environ["SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE"] = f"file://{scratch}/{spec.name}.group"

        from setproctitle import setproctitle
        from sglang.srt.entrypoints.http_server import launch_server
        from sglang.srt.server_args import prepare_server_args

        setproctitle(f"specreason::{spec.name}")
        launch_server(prepare_server_args([*spec.arguments, f"--api-key={api_key}"]))
    except BaseException:  # noqa: BLE001 - the stack above is the parent's
        traceback.print_exc()
    finally:
        os._exit(1)


def _route(spec: ServerSpec, api_key: str) -> NoReturn:
    """Become a router; never returns."""
    from sglang_router.launch_router import launch_router, parse_router_args

    launch_router(parse_router_args([*spec.arguments, f"--api-key={api_key}"]))
    sys.exit(0)


def _wait_for(servers: list[int], earlier: list[ServerSpec], specs: list[ServerSpec]) -> int:
    """Wait until servers answer; returns 0, or the exit code when one has ended instead."""
    while not all(spec.is_ready for spec in earlier):
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in servers:
            return _ended(servers.index(pid), status, specs)
        time.sleep(POLL_S)
    return 0


def _first_to_end(servers: list[int], specs: list[ServerSpec]) -> int:
    """Wait for a server to end; returns the exit code that says which one, and notes in its log how it ended."""
    while True:
        pid, status = os.wait()
        if pid in servers:
            return _ended(servers.index(pid), status, specs)


def _ended(which: int, status: int, specs: list[ServerSpec]) -> int:
    code = os.waitstatus_to_exitcode(status)
    with Path(specs[which].log).open("a", encoding="utf-8") as log:
        log.write(f"the server ended {f'by signal {-code}' if code < 0 else f'with code {code}'}\n")
    return SERVER_ENDED + which


def _end(children: list[int]) -> None:
    """Kill the servers and the warm process, with all their child processes; they have nothing to save."""
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        while True:
            os.wait()


if __name__ == "__main__":
    sys.exit(main())
