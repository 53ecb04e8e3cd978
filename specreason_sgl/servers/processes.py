"""The SGLang servers of a pair as one process tree: their arguments, their start, their end.

Nothing here imports SGLang. The tree's root is `specreason_sgl.servers.tree`, which loads SGLang once for both.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, BinaryIO

import urllib3

from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.servers.plugin import ATTENTION

HERE = "127.0.0.1"
"""Where servers listen that only this machine can reach."""
CONTEXT_TOKENS = 4096
POOL_TOKENS = 32768
PORTS = range(20000, 30000)
"""Ports below those that the kernel assigns by itself, so that a chosen port stays free until it is used."""

START_S = 300.0
STOP_S = 5.0
POLL_S = 0.1
HEALTH_S = 5.0
TAIL_LINES = 12
SERVER_ENDED = 64
"""Exit code of the process tree when its first server ended; the next one's is one more."""
KEEP = signal.SIGUSR1
"""The signal to the tree from which on it starts servers again."""
PAIR_LOG = "pair.log"
PAIR_ENDED = "the pair ended: "
"""How the last line of a kept pair begins that ended because a server did, before it says why."""
GIVEN_UP = "it is not started again"
"""The last line in the log of a companion that ends again and again."""

LOCKED = ("/model_info", "/workers")
"""What only who has the key can read: of a server, and of a router."""

_TAKEN = "address already in use"

Say = Callable[[str], None]


class ServerDied(SpecReasonError):
    """A server ended before it was ready, or was not ready in time; the message ends with its last log lines."""


class PortTaken(ServerDied):
    """Another program listens on the port that was free when it was chosen."""


@dataclass(frozen=True)
class ServerSpec:
    """One server or router that shall be started."""

    name: str
    """Its role, and its number where there are several: ``base``, ``base-2``, ``base-router``."""
    arguments: list[str]
    """SGLang's server arguments, or its router's."""
    port: int
    log: str
    """The file for its output."""
    core: int | None = None
    """The processor core that it is bound to; None on a GPU."""
    stage: int = 0
    """The server is started when all servers of earlier stages answer."""
    is_router: bool = False
    host: str = HERE
    """The interface that the server listens at."""

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://{self.host}:{self.port}"

    def is_ready(self, api_key: str) -> bool:
        """Whether the server with this key answers; for a router, whether one of its servers does."""
        return answers(self.url, "/readiness" if self.is_router else "/health") and is_ours(self.url, api_key)

    @property
    def model(self) -> str:
        """The model that the server shall serve."""
        return self.arguments[self.arguments.index("--model-path") + 1]


@dataclass(frozen=True)
class Companion:
    """A process beside the servers, in the same tree; on this machine's processor it has SGLang imported already."""

    module: str
    """Its function `main` is called with what it is told, and serves until it is killed."""
    told: dict[str, Any] = field(repr=False)
    """As JSON has it; ``log`` names the file for the output."""

    @property
    def log(self) -> str:
        """The file for its output."""
        return str(self.told["log"])


def model_server(
    name: str, model: Path, *, port: int, core: int, logs: Path, extra: Sequence[str] = (), host: str = HERE
) -> ServerSpec:
    """The spec of a model's server on one processor core.

    Args:
        name: the server's name.
        model: the folder with weights and tokenizer.
        port: a free port of the interface.
        core: the core that the server is bound to, on processors for which SGLang supports that.
        logs: the folder its log goes to.
        extra: further SGLang server arguments; they override ours.
        host: the address of the interface that the server listens at.
    """
    arguments = [
        "--model-path", str(model),
        "--served-model-name", name,
        # Nothing that could run code when it is loaded; SGLang trusts no remote code unless it is told to.
        "--load-format", "safetensors",
        "--host", host,
        "--port", str(port),
        "--device", "cpu",
        "--attention-backend", ATTENTION,
        "--dtype", "bfloat16",
        "--context-length", str(CONTEXT_TOKENS),
        # Without a bound the token pool takes most of the memory and half a minute to allocate.
        "--max-total-tokens", str(POOL_TOKENS),
        "--cuda-graph-backend-decode", "disabled",
        "--cuda-graph-backend-prefill", "disabled",
        # Where a grammar allows any white space, so small a model writes nothing else.
        "--grammar-backend", "xgrammar",
        "--constrained-json-disable-any-whitespace",
        # On one processor nothing overlaps: the scheduler would compute one more token behind every stop string.
        "--disable-overlap-schedule",
        # An idle scheduler would spin on the core that the other server needs.
        "--sleep-on-idle",
        "--log-level", "warning",
    ]  # fmt: skip
    return ServerSpec(name, [*arguments, *extra], port, str(logs / f"{name}.log"), core, host=host)


def router(name: str, servers: Sequence[ServerSpec], *, port: int, metrics_port: int, logs: Path) -> ServerSpec:
    """The spec of a router over servers of one model; it sends requests with the same beginning to the same server.

    Args:
        name: the router's name.
        servers: what it routes to.
        port: a free port of the servers' interface.
        metrics_port: a free port of this machine, for the Prometheus metrics, which the router always offers.
        logs: the folder its log goes to.
    """
    host = servers[0].host
    arguments = [
        "--host", host,
        "--port", str(port),
        "--prometheus-host", HERE,
        "--prometheus-port", str(metrics_port),
        "--policy", "cache_aware",
        # A call that failed is the caller's to repeat, who counts it.
        "--disable-retries",
        "--log-level", "warn",
        "--worker-urls", *(one.url for one in servers),
    ]  # fmt: skip
    stage = max(one.stage for one in servers) + 1
    return ServerSpec(name, arguments, port, str(logs / f"{name}.log"), stage=stage, is_router=True, host=host)


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of the servers: one thread each, no GPU, and no way out to the network."""
    return {
        **inherited,
        "SGLANG_USE_CPU_ENGINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        # Threads of a pool that BLAS starts while it is imported would not survive the fork into two servers.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        # Importing every model that SGLang knows takes seconds; others than these are still found, later.
        "SGLANG_EXTERNAL_MODEL_PACKAGE": "specreason_sgl.servers.cpu.models",
        # SGLang copies the inputs of a batch to places that only a captured CUDA graph needs.
        "SGLANG_EAGER_INPUT_NO_COPY": "1",
        # Otherwise being asked for its health makes a server generate, which disturbs what it serves.
        "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
        # A server that has lost a part of itself ends at once, not after 65 s of waiting for a GPU to dump its memory.
        "SGLANG_PYSPY_DUMP_BEFORE_CRASH": "0",
        "SGLANG_CUDA_COREDUMP_BEFORE_CRASH": "0",
        "GLOO_SOCKET_IFNAME": "lo",
        "HF_HUB_OFFLINE": "1",
        "no_proxy": "*",
        "NO_PROXY": "*",
    }


def gpu_environment(inherited: Mapping[str, str], host: str = HERE) -> dict[str, str]:
    """The environment of servers on GPUs: the inherited one without what disturbs a server or its start.

    Args:
        inherited: this process's environment.
        host: the interface that they listen at, which they also reach themselves by.
    """
    outside = inherited.get("no_proxy") or inherited.get("NO_PROXY") or ""
    local = ",".join(dict.fromkeys((*filter(None, [outside]), HERE, "localhost", host)))
    return {
        # A server that has lost a part of itself otherwise waits a minute for a dump that nobody has switched on.
        "SGLANG_CUDA_COREDUMP_BEFORE_CRASH": inherited.get("CUDA_ENABLE_USER_TRIGGERED_COREDUMP", "0"),
        **inherited,
        "TOKENIZERS_PARALLELISM": "false",
        "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
        "no_proxy": local,
        "NO_PROXY": local,
    }


def cores(usable: Sequence[int]) -> tuple[int, int, int]:
    """The cores of the base model, the small one and a further base model: different ones where there are so many.

    The two base models share one before either of them shares the small model's.
    """
    return usable[0], usable[1 % len(usable)], usable[2] if len(usable) > 2 else usable[0]  # noqa: PLR2004


def free_ports(count: int, host: str = HERE) -> list[int]:
    """So many free ports of an interface of this machine."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((host, port))
            found.append(port)
        if len(found) == count:
            return found
    raise SpecReasonError(f"no free port between {PORTS.start} and {PORTS.stop}")


def refuse_taken(port: int, option: str, host: str = HERE) -> None:
    """Make sure that a port can be listened at.

    Args:
        port: the port.
        option: the option that chooses another one.
        host: the interface.

    Raises:
        SpecReasonError: another program listens there.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SpecReasonError(f"somebody listens on port {port}", hint=f"choose others with `{option}`") from error


def is_here(address: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def interface(named: str) -> str:
    """The address of the interface of this machine by which others reach it.

    Args:
        named: the address, or a name of this machine.

    Raises:
        UsageError: it is not this machine's, or others do not reach it that way.
    """
    try:
        address = socket.gethostbyname(named)
        with socket.socket() as probe:
            probe.bind((address, 0))
    except OSError as error:
        raise UsageError(f"`{named}` is no address of this machine", hint="`hostname -I` names them") from error
    if is_here(address) or ip_address(address).is_unspecified:
        raise UsageError(
            f"other machines do not reach this one by {address}",
            hint="name the address of one of its interfaces; `hostname -I` names them",
        )
    return address


def tail(log: str) -> str:
    """The last lines of a server's log, indented, without colours, progress bars and SGLang's keys."""
    plain = re.sub(r"\x1b\[[0-9;]*m|[^\n]*\r", "", log)
    plain = re.sub(r"(api_key'?[=:] ?)('[^']*'|\"[^\"]*\")", r"\1***", plain)
    return "\n".join(f"  {line}" for line in plain.splitlines()[-TAIL_LINES:] if line.strip())


def hint(log: str, path: Path) -> str:
    """What the user can do about a server that ended, judged by the end of its log."""
    said = log.lower()
    if re.search(r"cuda out of memory|not enough memory|leave no gpu memory", said):
        return "the GPU's memory ran out: plan with less, by `--context`, `--concurrency` or `--gpus`"
    if "no space left on device" in said:
        return "the disk is full"
    killed = "signal 9" in said and "traceback" not in said  # with one, SGLang killed itself
    if killed or re.search(r"out of memory|cannot allocate memory|memoryerror|exit code:? -9", said):
        return "it probably ran out of memory: the pair needs 2 GB"
    if "no module named" in said:
        return "a package is missing; install the project again"
    return f"the whole log is in `{path}`"


def answers(url: str, path: str = "/health", api_key: str | None = None) -> bool:
    """Whether a healthy server answers at an address, and to this key."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        with urllib3.PoolManager() as pool:  # of its own: a connection that is kept would be shared with forks
            told = pool.request("GET", url + path, headers=headers, timeout=HEALTH_S, retries=False)
            return told.status == 200  # noqa: PLR2004
    except urllib3.exceptions.HTTPError:
        return False


def is_ours(url: str, api_key: str | None, locked: Sequence[str] = LOCKED) -> bool:
    """Whether the server at an address has this key: anybody's answers on its port when asked for its health.

    Args:
        url: the address.
        api_key: the key.
        locked: paths of which such a server has one, for whoever has the key.
    """
    return any(answers(url, path, api_key) for path in locked)


@dataclass(frozen=True)
class Servers:
    """The servers, running or starting; their process leads a session and a process group of its own."""

    process: subprocess.Popen[bytes]
    specs: Sequence[ServerSpec]
    log: Path
    """The file for the output of the tree's root, before the servers have their own logs."""
    api_key: str = field(default="", repr=False)

    @classmethod
    def start(
        cls,
        specs: Sequence[ServerSpec],
        api_key: str,
        logs: Path,
        *,
        owned: bool,
        limit_s: float = START_S,
        keep: Sequence[int] = (),
        companion: Companion | None = None,
    ) -> Servers:
        """Start the servers, stage by stage; `wait_until_ready` says when they can be used.

        Args:
            specs: the servers.
            api_key: the key that callers need; it is passed through a pipe, so that no process list shows it.
            logs: the folder for the logs.
            owned: whether they end when this process ends, however that happens.
            limit_s: seconds that servers have to become ready when they are started again.
            keep: open file descriptors that live as long as the servers.
            companion: a process beside the servers, started at once.
        """
        told = {
            "servers": [asdict(one) for one in specs],
            "api_key": api_key,
            "owner": os.getpid() if owned else None,
            "limit_s": limit_s,
            "companion": asdict(companion) if companion else None,
        }
        for written in (*(one.log for one in specs), *([companion.log] if companion else [])):
            Path(written).unlink(missing_ok=True)  # what an earlier server said is not to be taken for this one's
        log = logs / PAIR_LOG
        with _spoken(json.dumps(told)) as orders, private(log) as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "specreason_sgl.servers.tree"],
                stdin=orders,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=gpu_environment(os.environ, specs[0].host) if _on_gpus(specs) else environment(os.environ),
                cwd="/",
                start_new_session=True,
                pass_fds=keep,
            )
        return cls(process, specs, log, api_key)

    def wait_until_ready(self, say: Say, limit_s: float = START_S) -> None:
        """Wait until both servers answer.

        Raises:
            PortTaken: another program listens on a server's port.
            ServerDied: a server has ended, or is not ready within ``limit_s`` seconds.
        """
        began = time.monotonic()
        waiting = list(self.specs)
        say("loading SGLang")
        while waiting:
            if self._has_ended():
                raise self._death()
            if time.monotonic() - began > limit_s:
                raise _died(waiting[0], f"was not ready after {limit_s:.0f} s")
            for one in waiting:
                if _was_taken(one):  # SGLang itself would go on for minutes
                    raise _taken(one)
            for one in [one for one in waiting if one.is_ready(self.api_key)]:
                waiting.remove(one)
                say(f"the {one.name} {'' if one.is_router else 'model '}is ready")
            time.sleep(POLL_S if waiting else 0)
        say(f"both models were ready after {time.monotonic() - began:.0f} s")

    def wait_until_accompanied(
        self, companion: Companion, is_there: Callable[[], bool], limit_s: float = START_S
    ) -> bool:
        """Wait until the companion is there, is given up, or ``limit_s`` seconds are over.

        Returns:
            False if another program listens on its port.

        Raises:
            ServerDied: the servers have ended.
        """
        began = time.monotonic()
        while not is_there() and time.monotonic() - began < limit_s:
            if self._has_ended():
                raise self._death()
            if _was_taken(companion):
                return False
            if _said(companion).rstrip().endswith(GIVEN_UP):
                break
            time.sleep(POLL_S)
        return True

    def keep(self) -> None:
        """From here on have servers that end started again, instead of the others ended."""
        if not self._has_ended():
            os.kill(self.process.pid, KEEP)

    def stop(self) -> None:
        """End both servers and all their processes; processes that do not end by themselves are killed.

        The leader is waited for at the very end: until then its number is no other process's.
        """
        if self.process.returncode is not None:
            return
        os.kill(self.process.pid, signal.SIGTERM)
        killed_at = time.monotonic() + STOP_S
        while not self._has_ended() and time.monotonic() < killed_at:
            time.sleep(POLL_S / 10)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _has_ended(self) -> bool:
        """Whether the leader has ended; it is not waited for."""
        return self.process.returncode is not None or bool(
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        )

    def _death(self) -> ServerDied:
        self.stop()
        which = self.process.returncode - SERVER_ENDED
        if which in range(len(self.specs)):
            ended = self.specs[which]
            return _taken(ended) if _was_taken(ended) else _died(ended, "ended while it was starting")
        said = self.log.read_text(encoding="utf-8", errors="replace")
        how = f"the servers ended with exit code {self.process.returncode} while they were starting"
        return ServerDied(f"{how}\n{tail(said)}".rstrip(), hint=hint(f"{said}\n{how}", self.log))


def private(path: Path) -> BinaryIO:
    """A file to write that only its owner can read."""
    return os.fdopen(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb")


def _on_gpus(specs: Sequence[ServerSpec]) -> bool:
    return all(one.core is None for one in specs)


def _spoken(text: str) -> BinaryIO:
    """A pipe to read a short text from."""
    read, write = os.pipe()
    os.write(write, text.encode())
    os.close(write)
    return os.fdopen(read, "rb")


def _said(server: ServerSpec | Companion) -> str:
    path = Path(server.log)
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _was_taken(server: ServerSpec | Companion) -> bool:
    """Whether a server has found that another program listens on its port."""
    return _TAKEN in _said(server).lower()


def _taken(server: ServerSpec) -> PortTaken:
    return PortTaken(f"port {server.port} of the {server.name} server was taken by another program", hint="try again")


def _died(server: ServerSpec, how: str) -> ServerDied:
    said = _said(server)
    return ServerDied(f"the {server.name} server {how}\n{tail(said)}".rstrip(), hint=hint(said, Path(server.log)))
