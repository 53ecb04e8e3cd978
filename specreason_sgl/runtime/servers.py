"""One SGLang server as a child process: its command, its start, its end."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import urllib3

from specreason_sgl.errors import SpecReasonError
from specreason_sgl.events import Model

STAND_IN = Path(__file__).parent / "stand_in"
POOL_TOKENS = 32768
CONTEXT_TOKENS = 4096
START_S = 300.0
STOP_S = 3.0
TAIL_LINES = 12


class ServerDied(SpecReasonError):  # noqa: N818 - says what happened
    """A server ended before it was ready, or did not get ready in time."""


def kernels_load() -> bool:
    """Whether SGLang's compiled kernels can load here: they are linked against the CUDA driver."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def arguments(model: Path, name: str, port: int) -> list[str]:
    """SGLang's server arguments for a model on the CPU.

    The token pool is bounded because the default takes minutes and gigabytes to allocate; idle schedulers sleep
    because two of them would otherwise spin on the cores that the models need.
    """
    return [
        "--model-path", str(model),
        "--served-model-name", name,
        "--host", "127.0.0.1",
        "--port", str(port),
        "--device", "cpu",
        "--attention-backend", "torch_native",
        "--dtype", "bfloat16",
        "--context-length", str(CONTEXT_TOKENS),
        "--max-total-tokens", str(POOL_TOKENS),
        "--grammar-backend", "none",
        "--disable-cuda-graph",
        "--sleep-on-idle",
        "--log-level", "warning",
    ]  # fmt: skip


def environment(core: int, inherited: dict[str, str], *, stand_in: bool) -> dict[str, str]:
    """The environment of a server on one core of its own; nothing in it lets the server reach out to a hub."""
    path = [str(STAND_IN)] if stand_in else []
    path += [inherited["PYTHONPATH"]] if inherited.get("PYTHONPATH") else []
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(path),
        "SGLANG_USE_CPU_ENGINE": "1",
        "SGLANG_CPU_OMP_THREADS_BIND": str(core),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        # Being asked for its health must not make a server generate, or watching it would disturb what it serves.
        "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Server:
    """A running server process; the leader of a process group with its scheduler and detokenizer."""

    role: Model
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, role: Model, model: Path, core: int, log: Path, api_key: str) -> Server:
        """Start a server; `wait_until_ready` says when it can be used.

        Args:
            role: which of the two models it serves.
            model: the folder with its weights and tokenizer.
            core: the processor core it is bound to.
            log: the file its output goes to, made private to its owner.
            api_key: what callers have to show.

        Raises:
            SpecReasonError: there is no such model.
        """
        if not (model / "config.json").exists():
            raise SpecReasonError(f"there is no model in `{model}`")
        port = free_port()
        with os.fdopen(os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "specreason_sgl.runtime.serve"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(core, dict(os.environ), stand_in=not kernels_load()),
                start_new_session=True,
            )
        told = json.dumps({"arguments": arguments(model, role, port), "api_key": api_key}).encode()
        with suppress(BrokenPipeError):  # it died already; waiting for it says why
            _tell(process, told)
        return cls(role, f"http://127.0.0.1:{port}", process, log)

    def is_ready(self) -> bool:
        """Whether it answers.

        Raises:
            ServerDied: it has ended.
        """
        code = self.process.poll()
        if code is not None:
            raise ServerDied(f"the {self.role} server ended with code {code} while starting\n{self.tail()}", hint=self._hint())
        try:
            return urllib3.request("GET", f"{self.url}/health", timeout=2.0, retries=False).status == 200  # noqa: PLR2004
        except urllib3.exceptions.HTTPError:
            return False

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])

    def stop(self) -> None:
        """End it with all its processes; a server that will not is killed."""
        for kind, wait in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, kind)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(wait)
        self.process.wait()

    def _hint(self) -> str:
        log = self.log.read_text(encoding="utf-8", errors="replace").lower()
        if "address already in use" in log:
            return "another program took its port; try again"
        if "out of memory" in log or "cannot allocate memory" in log or self.process.returncode == -signal.SIGKILL:
            return "it probably ran out of memory: a server needs about 2 GB"
        if "no module named" in log:
            return "a package is missing; install the project again"
        return f"the whole log is in `{self.log}`"


def _tell(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 - it was asked for
    process.stdin.write(text)
    process.stdin.close()


def wait_until_ready(servers: list[Server], limit: float = START_S) -> None:
    """Wait for servers that are starting side by side.

    Raises:
        ServerDied: one has ended, or is not ready within ``limit`` seconds.
    """
    deadline = time.monotonic() + limit
    waiting = list(servers)
    while waiting:
        waiting = [server for server in waiting if not server.is_ready()]
        if waiting and time.monotonic() > deadline:
            slow = waiting[0]
            raise ServerDied(f"the {slow.role} server was not ready after {limit:.0f} s\n{slow.tail()}", hint=slow._hint())  # noqa: SLF001
        time.sleep(0.2 if waiting else 0)
