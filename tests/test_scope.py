"""Scopes: what is cancelled with them and what is not, and how long their calls may take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from batches import make_job, wait_for
from faults import WORDS, Listener, StoryServer, hang_up, reply, story_pair

from specreason_sgl.embedded.stories import story
from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.engine.watch import Watch
from specreason_sgl.errors import CallFailed, ServerUnreachable
from specreason_sgl.evaluation.datasets import load
from specreason_sgl.evaluation.fleet import Fleet
from specreason_sgl.evaluation.grading import Grader
from specreason_sgl.evaluation.runner import Runner
from specreason_sgl.lang.loading import load as load_program
from specreason_sgl.lang.scope import CANCELLED, OUT_OF_TIME, Scope
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem, RunConfig, RunWriter, SolveRecord, closing, read_run
from specreason_sgl.settings import Settings
from specreason_sgl.view.batch_sinks import SilentBatch

STORIES = [story(seed) for seed in range(8)]
SETTINGS = Settings(temperature=0.0, top_p=1.0, budget=1024)


def test_cancelling_a_solve_leaves_the_others_on_the_same_servers_alone() -> None:
    with story_pair(STORIES, seconds=60, read_s=90) as (pair, _, servers):
        scopes = [Scope(), Scope()]
        done: dict[int, SolveRecord] = {}

        def work(number: int) -> None:
            problem = Problem(id=f"{number}", question=STORIES[number].question)
            done[number] = solve(problem, load_program("specreason"), pair, SETTINGS, scope=scopes[number])

        workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for worker in workers:
            worker.start()
        wait_for(lambda: len(servers[1].in_flight) == 2)
        scopes[0].cancel()
        workers[0].join(30)
        assert done[0].tally.error == CANCELLED
        (still,) = servers[1].in_flight.values()
        assert not still.is_set()
        for server in servers:
            server.seconds = 0.0
        still.set()  # an abort that is nobody's: the call is sent again
        workers[1].join(30)

    assert done[1].tally.outcome == "answered"
    assert done[1].tally.retries == 1


class Deaf(Listener):
    """Greets like a server, and then neither answers a generation nor listens to an abort."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.stories = StoryServer("base", STORIES)
        super().__init__()

    def handle(self, handler: Any, body: bytes) -> None:
        self.requests[handler.path] += 1
        if handler.path in {"/generate", "/abort_request"}:
            self.over.wait(60)
            hang_up(handler)
        else:
            self.stories.handle(handler, body)

    def close(self) -> None:
        self.over.set()
        self.stories.close()
        super().close()


def test_a_call_is_broken_off_where_the_server_neither_answers_nor_listens() -> None:
    with Deaf() as deaf:
        scope, failed = Scope(), list[Exception]()
        endpoint = Endpoint(deaf.url, "base", transport="text").within(scope)

        def work() -> None:
            try:
                endpoint.complete("?", {})
            except CallFailed as error:
                failed.append(error)

        worker = threading.Thread(target=work)
        worker.start()
        wait_for(lambda: deaf.requests["/generate"] == 1)
        scope.cancel()
        worker.join(30)

        assert not worker.is_alive()
        assert [str(error) for error in failed] == [CANCELLED]
        assert deaf.requests["/generate"] == 1


def cancelled(scope: Scope, when: Callable[[], bool]) -> threading.Thread:
    """Have a scope cancelled as soon as something holds."""

    def cancel() -> None:
        wait_for(when)
        scope.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    return thread


HALF = {"prompt_tokens": 3, "completion_tokens": 5, "finish_reason": {"type": "abort"}}


class Halves(StoryServer):
    """Aborts what it is told to, with what it has."""

    def _generate(self, handler: Any, asked: dict[str, Any]) -> None:
        stopped = self.in_flight.setdefault(asked["rid"], threading.Event())
        stopped.wait(60)
        reply(handler, {"text": "half a st", "meta_info": HALF})


@pytest.mark.parametrize("alone", [True, False])
def test_what_an_aborted_chance_has_is_counted_and_an_aborted_solve_has_failed(alone: bool) -> None:
    import sglang as sgl

    @sgl.function
    def asks(s: Any) -> None:
        s += "?"
        s += sgl.gen("one")

    with Halves("base", STORIES) as server:
        scope = Scope()
        chance = scope.child()
        backend = Endpoint(server.url, "base", transport="text").within(chance)
        canceller = cancelled(chance if alone else scope, when=lambda: bool(server.in_flight))
        state = asks.run(backend=backend)
        error = state.error()
        canceller.join()

        if alone:
            assert state["one"] == "half a st"
            assert state.get_meta_info("one")["completion_tokens"] == 5
            assert str(asks.run(backend=backend).error()) == CANCELLED
            assert not scope.is_over
        else:
            assert str(error) == CANCELLED


def test_what_is_made_in_a_cancelled_scope_is_cancelled() -> None:
    scope = Scope()
    part = Scope(parent=Scope(parent=scope))
    scope.cancel()

    assert all(one.is_over for one in (scope, part, Scope(parent=scope), scope.child()))
    assert not scope.child().is_dropped
    with pytest.raises(CallFailed, match=CANCELLED):
        part.check()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time, to be set."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    yield now
    monkeypatch.undo()


def test_time_is_over_for_a_scope_when_it_is_for_the_one_it_is_a_part_of(clock: list[float]) -> None:
    whole = Scope(10)
    part = Scope(8, parent=whole)
    chance = part.child()
    clock[0] += 3

    assert Scope().left() is None
    assert (whole.left(), part.left(), chance.left(), Scope(60, parent=whole).left()) == (7, 5, 5, 7)
    clock[0] += 5
    assert whole.left() == 2
    for late in (part, chance):
        with pytest.raises(CallFailed, match=OUT_OF_TIME):
            late.left()


def test_what_calls_wait_for_a_server_that_is_away_counts_once_and_against_no_limit(clock: list[float]) -> None:
    whole = Scope(10)
    part, other = Scope(10, parent=whole), Scope(10, parent=whole)
    with part.paused():
        clock[0] += 5
        with part.child().paused():
            clock[0] += 20
        assert part.left() == whole.left() == 10
    clock[0] += 4

    assert (part.paused_s, whole.paused_s, other.paused_s) == (25, 25, 0)
    assert part.left() == whole.left() == 6
    with pytest.raises(CallFailed, match=OUT_OF_TIME):
        other.left()


def test_a_server_that_was_given_up_and_answers_again_is_used_again() -> None:
    with story_pair(STORIES, wait_s=0.3) as (pair, _, servers):
        said: list[str] = []
        assert pair.base is not None
        pair.base.watch.say = said.append
        for _ in range(2):
            servers[0].close()
            for _ in ("when it is found out", "later"):
                with pytest.raises(ServerUnreachable, match="base server"):
                    pair.base.tokens("abc")
            servers[0].open()
            assert pair.base.tokens("abc") == WORDS.ids("abc")
        servers[0].close()
        threading.Timer(0.1, servers[0].open).start()
        assert pair.base.tokens("abc") == WORDS.ids("abc")

    words = ["pausing" if "pausing" in line else "back" if "is back after" in line else line for line in said]
    assert words == ["pausing", "back"] * 3


def test_whoever_waits_for_a_server_hears_of_its_end_from_the_one_who_asks() -> None:
    asked = 0

    def is_there() -> bool:
        nonlocal asked
        asked += 1
        return False

    watch = Watch("it", is_there, 0.5)
    came: list[bool] = []
    together = threading.Barrier(10)

    def wait() -> None:
        together.wait(10)
        came.append(watch.wait(Scope()))

    callers = [threading.Thread(target=wait) for _ in range(10)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert came == [False] * 10
    assert asked <= 3, "one asks for all"


def test_a_call_that_is_cancelled_waits_for_no_server_whoever_asks_for_it() -> None:
    going = threading.Event()
    watch = Watch("it", going.is_set, 60)
    asking, waiting = Scope(), Scope()
    came: dict[str, bool] = {}
    threads = {}
    for name, scope in (("asking", asking), ("waiting", waiting)):
        threads[name] = threading.Thread(target=lambda n=name, s=scope: came.update({n: watch.wait(s)}))
        threads[name].start()
        wait_for(watch._asking.locked)
    waiting.cancel()
    threads["waiting"].join(30)

    assert came == {"waiting": False}
    going.set()
    threads["asking"].join(30)
    assert came == {"waiting": False, "asking": True}


def test_a_run_whose_scope_is_cancelled_stores_no_failures(tmp_path: Path) -> None:
    job, scope = make_job(8), Scope()
    config = RunConfig.model_validate({"created": "2026-01-02T00:00:00Z", "program": "p", "pair": "q"})
    with story_pair(STORIES, seconds=60, read_s=90) as (pair, _, servers):
        canceller = cancelled(scope, when=lambda: len(servers[1].in_flight) == 4)
        writer = RunWriter(tmp_path / "run", config)
        with closing(writer), Grader("exact") as grader:
            runner = Runner(job, load(job.dataset), Fleet({"": pair}), writer, grader, SilentBatch(), scope=scope)
            with pytest.raises(CallFailed, match=CANCELLED):
                runner.run()
        canceller.join()

    assert read_run(tmp_path / "run").records == []
