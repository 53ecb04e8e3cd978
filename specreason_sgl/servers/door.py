"""Commands that begin at once: while a pair is kept up, a warm process that has imported everything runs them.

Importing SGLang and torch takes seconds, far longer than drafting a step. The warm process is forked from the one that
imported them for the servers, and listens at a socket, the door. A command knocks: it hands over its command line, its
environment and its three standard files. The warm process forks a child that runs the command. The command passes on
the signals that it gets, and ends with the child's exit code.
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from specreason_sgl.errors import SIGNALLED

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH)
COME_IN = b"\n"
PATIENCE_S = 10.0
"""Seconds to wait for the warm process before running normally."""

WAITING = 16
FILES = 3

inside = False
"""Whether this process was forked from the warm process to run a command."""


def identity() -> list[str]:
    """What must be the same in the command and the warm process: the interpreter, and this package when imported."""
    package = Path(__file__).parents[1]
    newest = max(path.stat().st_mtime_ns for path in package.rglob("*.py"))
    return [sys.executable, str(package), str(newest)]


def knock(path: Path, argv: Sequence[str]) -> int | None:
    """Have a command carried out by the warm process.

    Args:
        path: the socket of the warm process.
        argv: the command line, without the program's name.

    Returns:
        The exit code; None if there is no warm process, or one with another version of this package.
    """
    with socket.socket(socket.AF_UNIX) as line:
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        try:
            if not _is_let_in(line, path, argv):
                return None

            def pass_on(number: int, _: FrameType | None) -> None:
                with suppress(OSError):
                    line.sendall(bytes([number]))

            before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        try:
            code = line.recv(1)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return code[0] if code else 1


def _is_let_in(line: socket.socket, path: Path, argv: Sequence[str]) -> bool:
    umask = os.umask(0)
    os.umask(umask)
    order = {
        "identity": identity(),
        "argv": list(argv),
        "cwd": str(Path.cwd()),
        "env": dict(os.environ),
        "umask": umask,
    }
    try:
        line.settimeout(PATIENCE_S)
        line.connect(str(path))
        socket.send_fds(line, [b"!"], [0, 1, 2])
        line.sendall(json.dumps(order).encode() + b"\n")
        if line.recv(1) != COME_IN:
            return False
        line.settimeout(None)
    except OSError:
        return False
    return True


def attend(path: Path) -> NoReturn:
    """Become the warm process, in a fork that has one thread; its own forks run commands."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets them by itself
        ours = identity()
        _load()
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as door:
            before = os.umask(0o177)
            door.bind(str(path))
            os.umask(before)
            door.listen(WAITING)
            while True:
                line, _ = door.accept()
                if not os.fork():
                    door.close()
                    _become(line, ours)
                line.close()
    except BaseException:  # noqa: BLE001 - the stack above is the parent's
        traceback.print_exc()
    finally:
        os._exit(1)


def _load() -> None:
    """Import what a run needs."""
    import sglang  # noqa: F401
    from setproctitle import setproctitle

    from specreason_sgl.cli import app, session  # noqa: F401
    from specreason_sgl.engine import backend  # noqa: F401
    from specreason_sgl.evaluation import job  # noqa: F401
    from specreason_sgl.lang import solve  # noqa: F401
    from specreason_sgl.view import display, live, plain  # noqa: F401

    setproctitle("specreason::door")


def _become(line: socket.socket, ours: list[str]) -> NoReturn:
    global inside
    try:
        _, files, _, _ = socket.recv_fds(line, 1, FILES)
        order = json.loads(line.makefile("rb").readline())
        if order["identity"] != ours:
            os._exit(0)
        _settle(files, order)
        line.sendall(COME_IN)
        command = os.fork()
    except BaseException:  # noqa: BLE001 - the stack above is the door's
        traceback.print_exc()
        os._exit(1)
    if command:
        _attend_to(command, line)
    line.close()
    inside, code = True, 1
    try:
        from specreason_sgl.cli.app import main

        code = main()
    except BaseException:  # noqa: BLE001 - nobody else would tell
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _attend_to(command: int, line: socket.socket) -> NoReturn:
    """Pass signals from the client on to the command, and the command's exit code to the client, however it ends."""
    try:
        ended = os.pidfd_open(command)
        while ended not in select.select([line.fileno(), ended], [], [])[0]:
            if not (number := line.recv(1)):
                os.kill(command, signal.SIGHUP)  # they are gone, and with them the terminal
                break
            os.kill(command, number[0])
        code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
        with suppress(OSError):
            line.sendall(bytes([code if code >= 0 else SIGNALLED - code]))
    finally:
        os._exit(0)


def _settle(files: array.array[int] | list[int], order: dict[str, Any]) -> None:
    """Take over the client's standard files, folder and environment, and the usual signal handling of a process."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1 if os.isatty(1) else -1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    os.umask(order["umask"])
    tempfile.tempdir = None
    sys.argv = ["specreason", *order["argv"]]
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
