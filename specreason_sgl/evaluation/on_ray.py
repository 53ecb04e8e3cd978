"""Workers that Ray places on the nodes of a cluster."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.evaluation.tasks import Task
from specreason_sgl.evaluation.workers import Told, Worker, WorkerLost
from specreason_sgl.servers.opening import PairOptions

BEGIN_S = 120.0
"""Seconds that a worker gets to begin, which includes the import of SGLang's frontend."""
BESIDES = 4
"""Threads of a worker beside those that solve: tasks have to be cancelled while others run."""


@contextmanager
def cluster(address: str | None) -> Iterator[int]:
    """Connect to a cluster; gives the number of its nodes, and leaves it in the end.

    Args:
        address: its address, `auto` for the one that this machine is a node of; None starts one on this machine.

    Raises:
        UsageError: there is no such cluster.
    """
    if ray.is_initialized():
        raise UsageError("this process uses Ray already", hint="run the job in a process of its own")
    try:
        ray.init(
            address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False if not address else None
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        told = " ".join(str(error).split())[:200]
        raise UsageError(
            f"no Ray cluster at `{address or 'this machine'}`: {told}",
            hint="`ray start --head` starts one; docs/cluster.md shows how",
        ) from error
    try:
        yield sum(node["Alive"] for node in ray.nodes())
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
            self.dismiss()
            raise _cause(error) from error
        except GetTimeoutError as error:
            self.dismiss()
            raise WorkerLost(
                "Ray has no place for a worker", hint="`ray status` says what is free; a worker takes one CPU"
            ) from error
        except RayError as error:
            self.dismiss()
            raise WorkerLost("a worker ended as soon as Ray had started it") from error

    def perform(self, task: Task) -> Iterator[Sequence[Told]]:
        """Carry out a task.

        Raises:
            WorkerLost: the worker or its node ended before the task did.
        """
        try:
            for told in self._worker.perform.options(num_returns="streaming").remote(task):
                yield ray.get(told)
        except RayTaskError as error:
            raise _cause(error) from error
        except RayError as error:
            raise WorkerLost(f"the worker, {self.where}, ended") from error

    def cancel(self, key: str) -> None:
        """End a task by its key, if the worker is still there."""
        with suppress(RayActorError):
            self._worker.cancel.remote(key)

    def dismiss(self) -> None:
        """End the worker."""
        with suppress(RayError):
            ray.kill(self._worker)


def _cause(error: RayTaskError) -> BaseException:
    """What was raised in a worker: an error that says what to do as it is, anything else in one line."""
    cause = error.cause
    if isinstance(cause, SpecReasonError):
        return type(cause)(str(cause).splitlines()[-1], hint=cause.hint)
    return SpecReasonError(f"a worker failed: {type(cause).__name__}: {cause}")
