"""Workers that Ray places on the nodes of a cluster."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

# Ray reads it when it is imported: what it says about nodes that leave would be printed across the display.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.evaluation.tasks import Task
from specreason_sgl.evaluation.workers import Told, Worker, WorkerLost
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.servers.processes import is_here

BEGIN_S = 120.0
"""Seconds that a worker gets to begin, which includes the import of SGLang's frontend."""
END_S = 2.0
"""Seconds that a worker gets to clear away what it has written."""
ANSWER_S = 5.0
"""Seconds that a cluster gets to answer."""
ROOM_S = 10.0
"""Seconds in which CPUs of the cluster may become free."""
POLL_S = 0.2
BESIDES = 4
"""Threads of a worker beside those that solve: tasks have to be cancelled while others run."""


@contextmanager
def cluster(
    address: str | None,
    pairs: Mapping[str, PairOptions],
    wanted: int | None,
    most: int,
    say: Callable[[str], None],
) -> Iterator[int]:
    """Connect to a cluster; gives the number of workers that it has room for, and leaves it in the end.

    Args:
        address: its address, `auto` for the one that this machine is a node of; None starts one on this machine.
        pairs: how to connect to the servers of each pair.
        wanted: how many workers there shall be; one a node if not given.
        most: how many would have something to do.
        say: called with messages about the whole run.

    Raises:
        UsageError: there is no such cluster, it has no free CPU, or its nodes cannot reach the servers.
    """
    _connect(address)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        _check_reach(nodes, pairs)
        count = min(wanted or len(nodes), most)
        if (room := _room(count)) < count:
            say(f"Ray has free CPUs for {room} of {count} workers")
        yield room
    finally:
        ray.shutdown()


class Actor:
    """A worker in a Ray actor."""

    def __init__(self, pairs: Mapping[str, PairOptions], *, at_once: int, connect: bool) -> None:
        """Have Ray place the worker, on the node with the fewest if it can.

        Args:
            pairs: how to connect to the servers of each pair.
            at_once: how many tasks it solves at the same time.
            connect: whether to make sure now that all servers can be reached from there.

        Raises:
            WorkerLost: Ray has no place for it, or it ended at once.
            SpecReasonError: a server cannot be reached from there.
        """
        remote: Any = ray.remote(Worker)
        self._worker = remote.options(
            num_cpus=1, max_concurrency=at_once + BESIDES, scheduling_strategy="SPREAD"
        ).remote(pairs)
        try:
            self.where, self.digest = ray.get(self._worker.begin.remote(connect=connect), timeout=BEGIN_S)
        except RayTaskError as error:
            self._kill()
            raise _cause(error) from error
        except GetTimeoutError as error:
            self._kill()
            raise WorkerLost(
                "Ray has no place for a worker", hint="`ray status` says what is free; a worker takes one CPU"
            ) from error
        except RayError as error:
            self._kill()
            raise WorkerLost(
                "a worker ended as soon as Ray had started it",
                hint="Ray does so where a node has hardly any memory left: make room there, or use fewer `--workers`",
            ) from error

    def perform(self, task: Task) -> Iterator[Sequence[Told]]:
        """Carry out a task.

        Raises:
            WorkerLost: the worker or its node ended before the task did, or cannot be reached any more.
        """
        try:
            for told in self._worker.perform.options(num_returns="streaming").remote(task):
                yield ray.get(told)
        except RayTaskError as error:
            raise _cause(error) from error
        except RayError as error:
            self._kill()  # a node that is only cut off would go on
            raise WorkerLost(f"the worker, {self.where}, ended") from error

    def cancel(self, key: str) -> None:
        """End a task by its key, if the worker is still there."""
        with suppress(RayError):
            self._worker.cancel.remote(key)

    def dismiss(self) -> None:
        """End the worker."""
        with suppress(RayError):
            ray.get(self._worker.close.remote(), timeout=END_S)
        self._kill()

    def _kill(self) -> None:
        with suppress(RayError):
            ray.kill(self._worker)


def _connect(address: str | None) -> None:
    if ray.is_initialized():
        raise UsageError("this process uses Ray already", hint="run the job in a process of its own")
    if address and "://" in address:
        raise UsageError(
            f"`{address}` is Ray's address for clients outside of the cluster",
            hint="run the job on a node of the cluster, with `--address auto`",
        )
    handled = signal.getsignal(signal.SIGTERM)
    try:
        if address and address != "auto":
            _check_answer(address)
        ray.init(
            address or "local",
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            include_dashboard=None if address else False,
        )
    except (OSError, ValueError, OverflowError, RuntimeError, RayError) as error:
        told = " ".join(str(error).split())[:200]
        raise UsageError(
            f"no Ray cluster at `{address or 'this machine'}`: {told}",
            hint="`ray start --head` starts one; docs/cluster.md shows how",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handled)  # Ray puts its own in place


def _check_answer(address: str) -> None:
    """Make sure that somebody listens: Ray itself would try for long, and say so on the screen."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=ANSWER_S).close()


def _check_reach(nodes: Sequence[Mapping[str, Any]], pairs: Mapping[str, PairOptions]) -> None:
    """Make sure that servers on this machine alone are not asked for from others."""
    others = [node["NodeManagerHostname"] for node in nodes if node["NodeManagerAddress"] != _own_address()]
    if not others:
        return
    for name, options in pairs.items():
        urls = [options.base, options.small, *options.models.values()]
        if near := next((url for url in urls if url and is_here(urlsplit(url).hostname or "")), None):
            raise UsageError(
                f"only this machine reaches {near}{f' of the pair `{name}`' if name else ''}, and {others[0]} is"
                " another node of the cluster",
                hint="`specreason up --listen ADDRESS` lets other machines in; docs/cluster.md shows how",
            )


def _own_address() -> str:
    return str(ray.util.get_node_ip_address())


def _room(count: int) -> int:
    """How many of so many workers have a free CPU; those that a job has just left are waited for.

    Raises:
        UsageError: not even one.
    """
    until = time.monotonic() + ROOM_S
    most = min(count, int(ray.cluster_resources().get("CPU", 0)))
    while (free := int(ray.available_resources().get("CPU", 0))) < most and time.monotonic() < until:
        time.sleep(POLL_S)
    if free < 1:
        raise UsageError("the Ray cluster has no free CPU", hint="a worker takes one; `ray status` says who has them")
    return min(free, count)


def _cause(error: RayTaskError) -> BaseException:
    """What was raised in a worker: an error that says what to do as it is, anything else in one line."""
    cause = error.cause
    if isinstance(cause, SpecReasonError):
        return type(cause)(str(cause).splitlines()[-1], hint=cause.hint)
    return SpecReasonError(f"a worker failed: {type(cause).__name__}: {cause}")
