"""What becomes of solves whose servers refuse, delay, cut, fail, stall, die and come back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from batches import execute, make_job, stored_lines, wait_for
from faults import BLINKS, FAULTS, SURVIVED, WORDS, EveryOther, Fault, Plan, Proxy, story_pair

from specreason_sgl.embedded.stories import story
from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.engine.watch import Watch
from specreason_sgl.errors import ServerUnreachable
from specreason_sgl.evaluation.datasets import load
from specreason_sgl.events import CallMade, Event, Noticed, StepTaken, TextStreamed
from specreason_sgl.lang.loading import load as load_program
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.scope import Scope
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem, SolveRecord, read_run
from specreason_sgl.servers.pairs import RunningPair
from specreason_sgl.settings import Settings

STORIES = [story(seed) for seed in range(60)]
SETTINGS = Settings(temperature=0.0, top_p=1.0, budget=1024)


def told(records: Sequence[SolveRecord]) -> dict[str, tuple[object, ...]]:
    """What solves say and what they cost in tokens, by their keys."""
    return {
        r.key: (
            r.tally.answer,
            [e.text for e in r.events if isinstance(e, StepTaken)],
            sorted(r.tally.generated.items()),
            sorted(r.tally.calls.items()),
        )
        for r in records
    }


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, ...]]:
    """The same solves when nothing goes wrong."""
    with story_pair(STORIES) as (pair, _, _):
        return told(execute(tmp_path_factory.mktemp("calm") / "run", make_job(36), pair))


@pytest.mark.slow
def test_every_problem_is_there_once_with_the_answer_it_has_without_faults(
    tmp_path: Path, calm: dict[str, tuple[object, ...]]
) -> None:
    with story_pair(STORIES, seed=3, share=0.15) as (pair, proxies, _):
        records = execute(tmp_path / "run", make_job(36), pair)
        injected = proxies[0].plan.injected + proxies[1].plan.injected
    stored = read_run(tmp_path / "run")

    assert set(injected) == set(FAULTS)
    assert len(stored.records) == len(records) == len(calm)
    assert stored.remarks == []
    assert told(records) == calm
    seen = sum(proxy.requests["/generate"] for proxy in proxies)
    made = sum(r.tally.calls.total() for r in records)
    assert 0 < seen - made <= sum(r.tally.retries for r in records)  # a refused connection is not seen there


@pytest.mark.parametrize(
    ("fault", "stream"), [*((fault, False) for fault in FAULTS if fault != "delay"), ("cut", True), ("stall", True)]
)
def test_what_was_sent_again_is_in_the_trace_and_costs_no_tokens_twice(fault: Fault, stream: bool) -> None:
    problem = Problem(id="0", question=STORIES[0].question, answer=str(STORIES[0].answer))
    heard: list[str] = []
    with story_pair(STORIES, faults=(fault,), read_s=0.3) as (pair, proxies, _):
        calm = solve(problem, load_program("specreason"), pair, SETTINGS)
        proxies[1].plan = EveryOther(1, 0.5, (fault,))
        record = solve(
            problem, load_program("specreason"), pair, SETTINGS, stream=stream,
            sink=lambda e: heard.append(e.text) if isinstance(e, TextStreamed) and e.model == "small" else None,
        )  # fmt: skip
    calls = [event for event in record.events if isinstance(event, CallMade)]
    notices = [event.message for event in record.events if isinstance(event, Noticed)]

    assert told([record]) == told([calm])
    assert record.tally.retries == sum(call.retries for call in calls) == len(notices) > 0
    assert all(notice.startswith("sent again: ") for notice in notices)
    assert all((call.lost_s > 0) == (call.retries > 0) for call in calls)
    drafted = [e.text for e in calm.events if e.type == "step_drafted"]  # type: ignore[attr-defined]
    assert "".join(heard) == ("".join(drafted) if stream else "")


def test_a_call_that_always_fails_is_an_error_row_and_the_others_go_on(tmp_path: Path) -> None:
    with story_pair(STORIES) as (pair, proxies, _):
        poisoned = load(make_job(12).dataset)[5].question
        pass_on = Proxy.handle

        def poison(handler: object, body: bytes) -> None:
            asked = json.loads(body or b"{}").get("text", "")
            if isinstance(asked, str) and poisoned in asked:
                handler.connection.shutdown(2)  # type: ignore[attr-defined]
            else:
                pass_on(proxies[1], handler, body)  # type: ignore[arg-type]

        proxies[1].handle = poison  # type: ignore[method-assign]
        records = execute(tmp_path / "run", make_job(12), pair)
    failed = [record for record in records if record.tally.outcome == "failed"]

    assert len(records) == 12
    assert [record.problem.question for record in failed] == [poisoned]
    assert "sent 5 times in vain" in str(failed[0].tally.error)


@pytest.mark.slow
def test_a_server_that_comes_back_only_costs_time(tmp_path: Path, calm: dict[str, tuple[object, ...]]) -> None:
    with story_pair(STORIES, seconds=0.01) as (pair, _, servers):
        said: list[str] = []
        for end in (pair.base, pair.small):
            end.watch.say = said.append  # type: ignore[union-attr]

        def outage() -> None:
            for server, enough in zip(servers, (8, 16), strict=True):
                heard = len(said)
                wait_for(lambda enough=enough: stored_lines(tmp_path / "run") >= enough)  # type: ignore[misc]
                server.close()
                wait_for(lambda heard=heard: len(said) == heard + 1)  # type: ignore[misc]
                server.open()
                wait_for(lambda heard=heard: len(said) == heard + 2)  # type: ignore[misc]

        accident = threading.Thread(target=outage)
        accident.start()
        records = execute(tmp_path / "run", make_job(36), pair)
        accident.join()

    assert told(records) == calm
    assert [line.split(" at ")[0] for line in said if "pausing" in line] == ["the base server", "the small server"]
    assert sum("is back after" in line for line in said) == 2


@pytest.mark.slow
def test_a_server_that_stays_away_ends_the_run_and_the_rest_is_owed(
    tmp_path: Path, calm: dict[str, tuple[object, ...]]
) -> None:
    with story_pair(STORIES, seconds=0.01, wait_s=0.5) as (pair, _, servers):

        def outage() -> None:
            wait_for(lambda: stored_lines(tmp_path / "run") >= 5)
            servers[0].close()

        accident = threading.Thread(target=outage)
        accident.start()
        with pytest.raises(ServerUnreachable, match=r"base server .*(does not answer|broke the connection)"):
            execute(tmp_path / "run", make_job(36), pair)
        accident.join()
    stored = read_run(tmp_path / "run")
    assert 5 <= len(stored.records) < 36
    assert told(stored.records).items() <= calm.items()
    assert stored.status is not None
    assert stored.status.status == "error"
    with story_pair(STORIES) as (pair, _, _):
        assert told(execute(tmp_path / "run", make_job(36), pair)) == calm


def test_a_pause_counts_against_nobodys_time_limit() -> None:
    with story_pair(STORIES) as (pair, _, servers):
        assert pair.base is not None
        scope = Scope(0.6)
        late = pair.base.within(scope)
        servers[0].close()
        threading.Timer(1.0, servers[0].open).start()

        assert late.tokens("abc") == WORDS.ids("abc")
        assert scope.paused_s > 0.5


def test_a_pause_is_lost_time_and_no_latency() -> None:
    with story_pair(STORIES) as (pair, _, servers):
        assert pair.base is not None
        problem = Problem(id="0", question=STORIES[0].question)

        def away(event: Event) -> None:
            if isinstance(event, StepTaken) and event.step == 0:
                servers[0].close()
                threading.Timer(1.0, servers[0].open).start()

        scope = Scope()
        totals = solve(problem, load_program("specreason"), pair, SETTINGS, sink=away, scope=scope).tally

        assert totals.outcome == "answered"
        assert totals.lost_s >= scope.paused_s > 0.5
        assert totals.latency == totals.elapsed - totals.lost_s


def test_one_caller_asks_and_all_others_wait() -> None:
    asked = 0

    def is_there() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    said: list[str] = []
    watch = Watch("it", is_there, 10, said.append)
    callers = [threading.Thread(target=watch.wait, args=(Scope(),)) for _ in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert len(said) == 2
    assert asked == 3 + 19


def test_whether_a_server_is_away_is_known_without_asking_it() -> None:
    there, said = False, list[str]()
    watch = Watch("it", lambda: there, 10, said.append)
    assert not watch.is_away

    assert not watch.answers()
    assert watch.is_away
    assert not watch.answers()
    there = True
    assert watch.is_away, "nobody has asked"
    assert watch.answers()
    assert not watch.is_away
    assert [line.split()[1] for line in said] == ["does", "is"], "it does not answer, it is back"


def test_what_is_cancelled_is_aborted_on_its_server() -> None:
    with story_pair(STORIES, seconds=30, read_s=60) as (pair, _, servers):
        problem = Problem(id="0", question=STORIES[0].question)
        done: list[SolveRecord] = []
        scope = Scope()
        solving = threading.Thread(
            target=lambda: done.append(solve(problem, load_program("specreason"), pair, SETTINGS, scope=scope))
        )
        solving.start()
        while not servers[1].in_flight:
            time.sleep(0.01)
        (rid,) = servers[1].in_flight
        scope.cancel()
        solving.join(5)

        assert not solving.is_alive()
        assert servers[1].aborted == [rid]
        assert done[0].tally.outcome == "failed"


@pytest.mark.server
def test_real_servers_behind_faults_give_the_same_answers(
    tmp_path: Path, pair: Pair[Endpoint], servers: RunningPair
) -> None:
    what = make_job(6, concurrency=1, seed=40, flush_cache=True)
    calm = execute(tmp_path / "calm", what, pair)
    with (
        Proxy(servers.base.url, Plan(5, 0.0, in_a_row=SURVIVED, blinks=BLINKS), servers.base.api_key) as base,
        Proxy(servers.small.url, Plan(6, 0.0, in_a_row=SURVIVED, blinks=BLINKS), servers.small.api_key) as small,
    ):
        shaky = Pair(
            Endpoint(base.url, "base", read_s=3, wait_s=20),
            Endpoint(small.url, "small", read_s=3, wait_s=20),
        )
        base.plan.share = small.plan.share = 0.2
        records = execute(tmp_path / "run", what, shaky)

    assert {r.key: r.tally.answer for r in records} == {r.key: r.tally.answer for r in calm}
    assert sum(r.tally.retries for r in records) > 0
