"""Many solves at once, and the same ones again, on the real pair."""

from __future__ import annotations

import os
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from batches import execute, footprint, holds, make_job

from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.lang.pair import Pair
from specreason_sgl.runs.diff import diff_runs
from specreason_sgl.servers.pairs import RunningPair

pytestmark = pytest.mark.server

IN_FLIGHT = 64
ROOM_MIB = 48
"""What allocators may keep between two rounds; the traces of a round are a few MiB."""
ROOM_FDS = 16
"""Connections that a round could do without; one left behind by each solve would be 64."""


def test_sixty_four_in_flight_leave_neither_memory_nor_descriptors_nor_threads_behind(
    tmp_path: Path, pair: Pair[Endpoint], servers: RunningPair
) -> None:
    what = make_job(IN_FLIGHT, concurrency=IN_FLIGHT, budget=320, seed=9000)
    left = []
    for place in range(3):
        records = execute(tmp_path / f"run-{place}", what, pair)
        left.append((footprint(os.getpid()), footprint(servers.pid), threading.active_count()))

        assert len(records) == IN_FLIGHT
        assert not [record.tally.error for record in records if record.tally.outcome == "failed"]
    (client, supervisor, threads), (client_later, supervisor_later, _), _ = left
    kept = [descriptors for (_, descriptors), _, _ in left]

    assert client_later[0] <= client[0] + ROOM_MIB
    assert supervisor_later[0] <= supervisor[0] + ROOM_MIB
    # The calls of one round may need more connections at the same moment than those before; what leaks grows in each.
    assert min(later - earlier for earlier, later in pairwise(kept)) <= ROOM_FDS
    assert supervisor_later[1] <= supervisor[1]
    assert holds(lambda: threading.active_count() <= threads)


def test_one_at_a_time_at_temperature_zero_two_runs_tell_the_same_to_the_last_bit(
    tmp_path: Path, pair: Pair[Endpoint]
) -> None:
    what = make_job(6, concurrency=1, seed=7000, flush_cache=True)
    first, second = (execute(tmp_path / name, what, pair) for name in ("first", "second"))

    assert diff_runs(first, second).different == []
    assert len(first) == len(second) == 6
