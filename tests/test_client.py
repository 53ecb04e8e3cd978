"""The other end of an endpoint: what it makes of a stream, of refusals, and of servers that are not ours."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from batches import carry_out
from faults import story_pair
from hypothesis import given
from hypothesis import strategies as st
from scripted import EVENT_STREAM, ScriptedServer, answer, told
from terminals import STYLES, Terminal, after_the_screen

from specreason_sgl import packages
from specreason_sgl.embedded.stories import story
from specreason_sgl.errors import CallFailed, ServerUnreachable, SpecReasonError, UsageError
from specreason_sgl.events import Event, Noticed, SolveEnded, StepTaken, UnknownEvent
from specreason_sgl.runs.store import Problem, SolveRecord, read_run
from specreason_sgl.serve import client as client_module
from specreason_sgl.serve.client import Begun, Client, Finished, Happened, Notice, order
from specreason_sgl.serve.sse import Message, messages
from specreason_sgl.servers import pairs
from specreason_sgl.servers.pairs import Address, RunningPair
from specreason_sgl.settings import Settings

STORED = [
    SolveRecord.model_validate_json(line)
    for line in (Path(__file__).parent / "data" / "story.jsonl").read_text(encoding="utf-8").splitlines()
]
RECORD = STORED[0]
OPENED = {
    "id": "solve-1",
    "problem_id": RECORD.problem.id,
    "program": "specreason",
    "mode": "specreason threshold=5",
    "pair": "embedded",
    "seed": None,
    "started": "2026-03-01T12:00:00Z",
    "settings": {"budget": 1024},
    "parameters": {"threshold": 7.0},
    "servers": {"base": {"dtype": "bfloat16"}},
    "judge_version": "5",
    "prompts": {"judge": "?"},
    "repeatability": "exact",
    "versions": {"python": "3.11"},
    "something_new": 1,
}
ROWS = [event.model_dump(mode="json") for event in RECORD.events]
ASKED = order(RECORD.problem, "specreason", {}, Settings(), stream=False)
HEARTBEAT = b": still here\n\n"
STREAM = EVENT_STREAM + told(OPENED, "opened")

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\x00"), max_size=20)


cuts = st.lists(st.integers(0, 400), max_size=30)


def split(stream: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(ends)]


@given(
    pieces=st.lists(st.sampled_from([b"data", b"event", b":", b" ", b"\r", b"\n", b"\r\n", b"x", b"\xc2", b"\xbd"])),
    places=cuts,
)
def test_a_stream_of_any_bytes_says_the_same_wherever_it_is_split(pieces: list[bytes], places: list[int]) -> None:
    stream = b"".join(pieces)

    assert list(messages(split(stream, places))) == list(messages([stream]))


@given(
    spoken=st.lists(
        st.tuples(texts.map(str.strip), st.lists(texts, min_size=1, max_size=3), st.lists(texts, max_size=2)),
        max_size=5,
    ),
    end=st.sampled_from(["\r\n", "\n", "\r"]),
    marked=st.booleans(),
    places=cuts,
)
def test_messages_are_read_as_they_were_written(
    spoken: list[tuple[str, list[str], list[str]]], end: str, marked: bool, places: list[int]
) -> None:
    lines = ["\ufeff:"] if marked else []
    for name, data, comments in spoken:
        lines += [f":{comment}" for comment in comments]
        lines += [f"event:{name}", "id: 7", "retry", *(f"data: {each}" for each in data), ""]
    stream = "".join(line + end for line in lines).encode()

    assert list(messages(split(stream, places))) == [
        Message("\n".join(data), name or "message") for name, data, _ in spoken
    ]


@pytest.mark.parametrize(
    ("stream", "wanted"),
    [
        (b"data:x\n\n", [Message("x")]),
        (b"data:  x\n\n", [Message(" x")]),
        (b"data\n\n", [Message("")]),
        (b"data: a\ndata: b\n\n", [Message("a\nb")]),
        (b": only a comment\n\n", []),
        (b"event: lonely\n\ndata: x\n\n", [Message("x")]),
        (b"Data: x\n\n", []),
        (b"data: x\n", []),
        (b"data: x", []),
        (b"data: x\r\n\r\ndata: y\r\r", [Message("x"), Message("y")]),
        (b"data: \xff\n\n", [Message("\ufffd")]),
        ("data: ½\n\n".encode(), [Message("½")]),
    ],
)
def test_a_stream_is_read_as_the_standard_says(stream: bytes, wanted: list[Message]) -> None:
    assert list(messages([stream])) == wanted
    assert list(messages(stream[at : at + 1] for at in range(len(stream)))) == wanted


@pytest.mark.parametrize("line", [b"data: ", b"x"])
def test_a_message_without_end_is_not_kept_for_ever(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specreason_sgl.serve.sse.LARGEST", 1000)
    endless = (line + b"y" * 100 + (b"\n" if line == b"data: " else b"") for _ in iter(int, 1))

    with pytest.raises(ValueError, match="too long"):
        list(messages(endless))


def solved(script: list[bytes | threading.Event]) -> list[Event]:
    with ScriptedServer(script) as server, Client(server.url).solve(ASKED) as (_, events):
        return list(events)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_solve_is_opened_and_its_events_come_as_they_were_sent(chunked: bool) -> None:
    pieces = [told(OPENED, "opened"), HEARTBEAT, *(told(row) for row in ROWS)]
    head = EVENT_STREAM
    if chunked:
        head = head.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
        pieces = [f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces]
    with ScriptedServer([head, *pieces]) as server, Client(f"{server.url}/v1/", "the-key").solve(ASKED) as opening:
        opened, events = opening
        heard = list(events)

    assert heard == RECORD.events
    assert (opened.id, opened.parameters, opened.servers) == (
        "solve-1", {"threshold": 7.0}, {"base": {"dtype": "bfloat16"}},
    )  # fmt: skip
    assert server.lines == ["POST /v1/solves HTTP/1.1"]
    assert b"Authorization: Bearer the-key" in server.requests[0]
    assert server.body(0) == json.loads(json.dumps(ASKED))
    assert server.body(0)["answer"] == RECORD.problem.answer


def test_an_order_says_all_that_a_solve_depends_on() -> None:
    problem = Problem(id="p", question="q", answer="A", choice=True, earlier=({"role": "system", "content": "s"},))
    asked = order(problem, "base", {"depth": 2}, Settings(budget=7, seed=3), stream=True)

    assert Problem.model_validate({name: asked[name] for name in Problem.model_fields}) == problem
    assert Settings.model_validate(asked["settings"]) == Settings(budget=7, seed=3)
    assert (asked["program"], asked["parameters"], asked["stream"]) == ("base", {"depth": 2}, True)


def test_events_and_messages_of_a_later_version_do_no_harm() -> None:
    later = [
        told({"at": 1.0, "type": "guessed", "odds": 2}),
        told({"x": 1}, "weather"),
        told({"message": "w"}, "notice"),
    ]
    events = solved([STREAM, *later, told(ROWS[-1])])

    assert [type(event) for event in events] == [UnknownEvent, Noticed, SolveEnded]
    assert isinstance(events[1], Noticed)
    assert events[1].message == "w"


@pytest.mark.parametrize(
    ("status", "row", "kind", "words", "hint"),
    [
        (400, {"message": "no such knob", "hint": "it has `depth`"}, UsageError, "no such knob", "it has `depth`"),
        (401, {"message": "?"}, UsageError, "refuses the key", "SPECREASON_SERVE_KEY"),
        (404, {"message": "there is no solve"}, UsageError, "there is no solve", None),
        (404, {"error": {"message": "no such model"}}, UsageError, "no such model", None),
        (409, {"message": "it runs"}, UsageError, "it runs", None),
        (413, {"message": "too large"}, UsageError, "too large", None),
        (429, {"message": "full"}, CallFailed, "full", "in a moment"),
        (500, {"message": "oh"}, CallFailed, "oh", None),
        (503, {"message": "away", "hint": "wait"}, ServerUnreachable, "away", "wait"),
        (404, {"detail": "Not Found"}, ServerUnreachable, "is no endpoint of SpecReason", "up"),
        (302, {}, ServerUnreachable, "status 302", "up"),
        (500, [], ServerUnreachable, "status 500", "up"),
    ],
)  # fmt: skip
def test_what_an_endpoint_refuses_is_an_error_with_its_hint(
    status: int, row: object, kind: type[SpecReasonError], words: str, hint: str | None
) -> None:
    elsewhere = {"Location": "http://127.0.0.1:9/"}
    with ScriptedServer([answer(status, row, **elsewhere)]) as server:
        for ask in (
            lambda: Client(server.url).solve(ASKED).__enter__(),
            lambda: Client(server.url).watch("solve-1").__enter__(),
            lambda: Client(server.url).cancel("solve-1"),
        ):
            with pytest.raises(kind, match=words) as caught:
                ask()
            assert (hint is None) == (caught.value.hint is None)
            assert (hint or "") in (caught.value.hint or "")


HOSTILE = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "a page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<h1>Hello",
    "no stream": answer(200, {"object": "list"}),
    "an empty stream": EVENT_STREAM,
    "events that nobody opened": EVENT_STREAM + told(ROWS[0]),
    "an opening without facts": EVENT_STREAM + told({}, "opened"),
    "an opening that is a list": EVENT_STREAM + told([], "opened"),
    "an event that is no JSON": STREAM + b"data: {\n\n",
    "an event that is no object": STREAM + told(7),
    "an event without a type": STREAM + told({}),
    "an event nested without end": STREAM + b"data: " + b"[" * 100_000 + b"\n\n",
    "a packed stream": EVENT_STREAM.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") + gzip.compress(b"x"),
    "a chunk of no size": EVENT_STREAM.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n") + b"zz\r\n",
    "a chunk that breaks off": EVENT_STREAM.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    + b"99\r\n:",
}


@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE)
def test_a_server_that_is_not_ours_is_one_line(script: bytes) -> None:
    with pytest.raises(ServerUnreachable) as caught:
        solved([script])

    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_code == 3


def test_no_server_and_no_address_are_one_line() -> None:
    with pytest.raises(ServerUnreachable, match="no endpoint answers at http://127"):
        Client("http://127.0.0.1:9").solve(ASKED).__enter__()
    for wrong in ("ftp://x", "127.0.0.1:8711", "http://[", "http://x:99999"):
        with pytest.raises(UsageError, match="is not the address of an endpoint"):
            Client(wrong).solve(ASKED).__enter__()
    with pytest.raises(UsageError, match="no key can have"):
        Client("http://127.0.0.1:9", "a\nb")


def test_a_solve_that_breaks_off_is_told_of_after_what_came_of_it() -> None:
    script = [STREAM, *(told(row) for row in ROWS[:5])]
    with ScriptedServer(script) as server, Client(server.url).solve(ASKED) as (_, events):
        assert list(islice(events, 5)) == RECORD.events[:5]
        with pytest.raises(ServerUnreachable, match="in the middle"):
            next(events)


def test_silence_is_an_error_and_heartbeats_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "SILENCE_S", 0.3)
    never = threading.Event()
    with pytest.raises(ServerUnreachable, match="fell silent"):
        solved([STREAM, never])

    beats: list[threading.Event] = [threading.Event() for _ in range(4)]
    for number, beat in enumerate(beats):
        threading.Timer(0.2 * (number + 1), beat.set).start()
    script: list[bytes | threading.Event] = [STREAM]
    for beat in beats:
        script += [beat, HEARTBEAT]
    assert [type(event) for event in solved([*script, told(ROWS[-1])])] == [SolveEnded]


def test_leaving_a_solve_closes_its_connection() -> None:
    with ScriptedServer([STREAM, told(ROWS[0]), threading.Event()]) as server:
        with Client(server.url).solve(ASKED) as (_, events):
            next(events)
        assert server.left.wait(10)


def test_another_thread_that_waits_for_news_does_not_keep_a_connection_open() -> None:
    hello = told({"pair": "embedded", "since": "2026-03-01T12:00:00Z", "ended": 0}, "hello")
    with ScriptedServer([EVENT_STREAM + hello, threading.Event()]) as server:
        with Client(server.url).follow() as (_, news):
            failures: list[Exception] = []

            def wait(news: Iterator[Any] = news) -> None:
                try:
                    next(news)
                except SpecReasonError as error:
                    failures.append(error)

            waiting = threading.Thread(target=wait)
            waiting.start()
        waiting.join(10)

        assert not waiting.is_alive()
        assert server.left.wait(10)
    assert len(failures) == 1


def test_news_come_as_what_they_are_until_the_server_ends() -> None:
    record = RECORD.model_dump(mode="json")
    script = [
        told({"pair": "embedded", "since": "2026-03-01T12:00:00Z", "ended": 3}, "hello"),
        told({"id": "solve-1", "problem_id": "p", "mode": "base", "repeat": 2}, "started"),
        told({"id": "solve-1", "event": ROWS[3]}, "event"),
        told({"weather": "fine"}, "something else"),
        told({"message": "the base server is waited for"}, "notice"),
        told({"id": "solve-1", "record": record}, "finished"),
    ]
    with ScriptedServer([EVENT_STREAM, *script]) as server, Client(server.url).follow() as (hello, news):
        heard = list(islice(news, 4))
        with pytest.raises(ServerUnreachable, match="has ended"):
            next(news)

    assert (hello.pair, hello.ended, hello.since) == ("embedded", 3, datetime(2026, 3, 1, 12, tzinfo=UTC))
    assert heard == [
        Begun(id="solve-1", problem_id="p", mode="base", repeat=2),
        Happened(id="solve-1", event=RECORD.events[3]),
        Notice(message="the base server is waited for"),
        Finished(id="solve-1", record=RECORD),
    ]
    assert server.lines == ["GET /v1/solves?follow=true HTTP/1.1"]


def test_a_solve_is_looked_at_and_cancelled_by_its_name() -> None:
    with ScriptedServer([STREAM, *(told(row) for row in ROWS)], [b"HTTP/1.1 204 No Content\r\n\r\n"]) as server:
        client = Client(server.url, "k")
        with client.watch("solve-1/../x") as (opened, events):
            assert list(events) == RECORD.events
        client.cancel("solve-1")

    assert opened.id == "solve-1"
    assert server.lines == ["GET /v1/solves/solve-1%2F..%2Fx HTTP/1.1", "DELETE /v1/solves/solve-1 HTTP/1.1"]


@pytest.mark.parametrize(
    ("script", "told_of_it"),
    [
        (answer(200, {"status": "ok", "identity": ["x"]}), {"status": "ok", "identity": ["x"]}),
        (answer(503, {"status": "away", "hint": "?"}), None),
        (answer(200, ["ok"]), None),
        (b"HTTP/1.1 200 OK\r\n\r\nnot JSON", None),
        (b"", None),
    ],
)
def test_health_is_what_the_endpoint_says_while_it_can_serve(script: bytes, told_of_it: object) -> None:
    with ScriptedServer([script]) as server:
        assert Client(server.url).health() == told_of_it
        assert not server.requests or b"Authorization" not in server.requests[0]
    assert Client("http://127.0.0.1:9").health() is None


HEALTHY = answer(200, {"status": "ok", "identity": packages.identity()}, Connection="close")


def keep_up(monkeypatch: pytest.MonkeyPatch, endpoint: str, base: str = "http://127.0.0.1:9", small: str = "") -> None:
    """Have this process find a pair that is up with its endpoint."""
    pair = RunningPair(Address(base), Address(small or base), Path(), 1, serve=Address(endpoint, "the-key"))
    monkeypatch.setattr(pairs, "kept", lambda: pair)


def test_a_run_behind_an_endpoint_is_stored_as_one_of_its_own_process_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = told({"at": 0.0, "chain": 0, "type": "noticed", "message": "the base server does not answer"})
    stream = [STREAM, told(ROWS[0]), waiting, *(told(row) for row in ROWS[1:])]
    with ScriptedServer([HEALTHY], stream) as server:
        keep_up(monkeypatch, server.url)
        code = carry_out(monkeypatch, "run", "--out", str(tmp_path / "run"), "--threshold", "5", "--display", "plain")
    out, err = capsys.readouterr()
    run = read_run(tmp_path / "run")

    assert code == 0
    assert "the base server does not answer" in out
    assert "= right" in out
    assert f"run: {tmp_path / 'run'}" in err
    assert run.config
    assert run.config.parameters == {"threshold": 7.0}  # what the endpoint says, not what was asked for
    assert run.config.command == ["run", "--out", str(tmp_path / "run"), "--threshold", "5", "--display", "plain"]
    assert (run.config.servers, run.config.prompts) == (OPENED["servers"], OPENED["prompts"])
    assert run.status
    assert run.status.status == "success"
    assert [(record.mode, record.events) for record in run.records] == [("specreason", RECORD.events)]
    assert server.lines == ["GET /health HTTP/1.1", "POST /v1/solves HTTP/1.1"]
    assert server.body(1)["parameters"] == {"threshold": 5.0}
    assert server.body(1)["settings"]["temperature"] == 0.0
    assert b"Bearer the-key" in server.requests[1]


def test_a_run_whose_endpoint_is_lost_has_failed_and_keeps_what_came_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedServer([HEALTHY], [STREAM, *(told(row) for row in ROWS[:5])]) as server:
        keep_up(monkeypatch, server.url)
        code = carry_out(monkeypatch, "run", "--out", str(tmp_path / "run"), "--display", "plain")
    (record,) = read_run(tmp_path / "run").records

    assert code == 3
    assert record.events[:5] == RECORD.events[:5]
    assert record.tally.outcome == "failed"
    assert "ended the solve in the middle" in capsys.readouterr().out


def test_a_run_that_the_endpoint_refuses_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = answer(400, {"message": "the program `specreason` has no parameter `x`", "hint": "it has `threshold`"})
    with ScriptedServer([HEALTHY], [refused]) as server:
        keep_up(monkeypatch, server.url)
        code = carry_out(monkeypatch, "run", "--parameter", "x=1", "--out", str(tmp_path / "run"))

    assert code == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: the program `specreason` has no parameter `x`", "hint: it has `threshold`",
    ]  # fmt: skip
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("health", ["another version", "away", "gone"])
def test_without_an_endpoint_of_the_same_code_a_run_asks_the_servers_itself(
    health: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts = {
        "another version": answer(200, {"status": "ok", "identity": ["other"]}),
        "away": answer(503, {"status": "away"}),
        "gone": b"",
    }
    asked = story(0)
    with ScriptedServer([scripts[health]]) as server, story_pair([asked]) as (_, proxies, _):
        keep_up(monkeypatch, server.url, proxies[0].url, proxies[1].url)
        code = carry_out(monkeypatch, "run", asked.question, "--out", str(tmp_path / "run"), "--display", "none")

    assert code == 0
    assert server.lines == ["GET /health HTTP/1.1"]
    assert ("runs other code than this command" in capsys.readouterr().err) == (health == "another version")
    assert len(read_run(tmp_path / "run").records) == 1


OWN = """
import sglang as sgl
@sgl.function
def own(s, solve):
    solve.notice("in this process")
"""


@pytest.mark.parametrize(
    "options", [["--wait-for-server", "1"], ["--transport", "text"], ["--thinking", "think"], ["--program", "own.py"]]
)
def test_what_the_endpoint_cannot_do_is_done_in_the_users_own_process(
    options: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN, encoding="utf-8")
    asked = story(0)
    with ScriptedServer([HEALTHY]) as server, story_pair([asked]) as (_, proxies, _):
        keep_up(monkeypatch, server.url, proxies[0].url, proxies[1].url)
        carry_out(monkeypatch, "run", asked.question, *options, "--out", "run", "--display", "none")
    told_of_it = "which has to import SGLang first" in capsys.readouterr().err

    assert server.lines == []
    assert len(read_run(Path("run")).records) == 1
    assert told_of_it == ("own.py" in options)


def test_a_command_behind_an_endpoint_imports_no_computing_library() -> None:
    script = (
        "import sys\n"
        "from specreason_sgl.cli import run, session, watch\n"
        "from specreason_sgl.serve import client\n"
        "from specreason_sgl.servers import pairs\n"
        "from specreason_sgl.view import batch_sinks, live, plain, scenes\n"
        "heavy = {'torch', 'sglang', 'transformers', 'datasets', 'scipy', 'numpy', 'sympy', 'math_verify', 'fastapi'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def feed(*more: bytes) -> bytes:
    started = [
        told({"id": f"solve-{number}", "problem_id": "question", "mode": mode, "repeat": 0}, "started")
        for number, mode in ((1, "specreason"), (2, "base"))
    ]
    hello = told({"pair": "embedded", "since": "2026-03-01T12:00:00Z", "ended": 0}, "hello")
    return EVENT_STREAM + hello + b"".join([*started, *more])


def finished(number: int) -> bytes:
    record = STORED[number - 1].model_dump(mode="json")
    record["problem"]["id"] = "question"
    return told({"id": f"solve-{number}", "record": record}, "finished")


def test_a_watched_server_is_a_line_for_each_solve_that_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notice = told({"message": "the base server is away\x1b[2J"}, "notice")
    taken = next(event for event in RECORD.events if isinstance(event, StepTaken)).model_dump(mode="json")
    step = told({"id": "solve-2", "event": taken}, "event")
    with ScriptedServer([feed(step, finished(1), notice, finished(2))]) as server:
        code = carry_out(monkeypatch, "watch", "--url", server.url, "--key", "k")
    out, err = capsys.readouterr()
    lines = out.splitlines()

    assert code == 3
    assert lines[0].startswith("1  = right  question #0  specreason  10  5 steps")
    assert "\x1b" not in out
    assert lines[1].startswith("note: the base server is away")
    assert lines[2].startswith("2  ≠ wrong  question #0  base  9  3 steps")
    assert "2 solves" in lines[-1]
    assert "2 of" not in out
    assert "the endpoint at" in err
    assert "has ended" in err
    assert len(err.splitlines()) == 2
    assert b"Authorization: Bearer k" in server.requests[0]


def test_a_watched_server_is_json_lines_for_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPECREASON_SERVE_KEY", "from-the-environment")
    with ScriptedServer([feed(finished(2), finished(1))]) as server:
        code = carry_out(monkeypatch, "watch", "--url", server.url, "--json")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert code == 3
    assert [(row["type"], row["id"], row["correct"]) for row in rows] == [
        ("solve_finished", "solve-2", False), ("solve_finished", "solve-1", True),
    ]  # fmt: skip
    assert all("total" not in row for row in rows)
    assert b"Bearer from-the-environment" in server.requests[0]


def test_without_a_pair_there_is_nothing_to_watch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert carry_out(monkeypatch, "watch") == 2
    assert "no pair is up" in capsys.readouterr().err
    monkeypatch.setattr(pairs, "kept", lambda: RunningPair(Address("http://b"), Address("http://s"), Path(), 1))
    assert carry_out(monkeypatch, "watch") == 2


def test_a_reader_that_goes_away_ends_the_watching() -> None:
    with ScriptedServer([feed(finished(1), finished(2)), threading.Event()]) as server:
        with subprocess.Popen(
            [sys.executable, "-m", "specreason_sgl", "watch", "--url", server.url], stdout=subprocess.PIPE
        ) as watching:
            assert watching.stdout
            watching.stdout.close()
            assert watching.wait(30) == 0
        assert server.left.wait(10)


WATCH = """
import sys
from specreason_sgl.cli.app import main
sys.argv = ["specreason", "watch", "--url", {url!r}]
sys.exit(main())
"""


@pytest.mark.parametrize("how", ["q", "ctrl-c", "the server ends"])
def test_a_watched_server_is_shown_like_a_batch_until_it_is_left(how: str) -> None:
    more, end = threading.Event(), threading.Event()
    steps = [told({"id": "solve-2", "event": row}, "event") for row in ROWS[:9]]
    with (
        ScriptedServer([feed(*steps), more, finished(1), end]) as server,
        Terminal(WATCH.format(url=server.url)) as watch,
    ):
        watch.read("2 in flight")
        watch.type("\x1b[B\x1b[B\r")
        watch.read("question · base")
        seen = len(watch.seen)
        watch.type("\x1b")
        watch.read("q quit", since=seen)
        more.set()
        watch.read("1 ended")
        watch.read("last finished")
        if how == "the server ends":
            end.set()
        else:
            watch.type("q" if how == "q" else "\x03")
        code = watch.finish()
        stays = STYLES.sub("", after_the_screen(watch))

    assert code == (3 if how == "the server ends" else 0)
    assert ("has ended" in stays) == (code == 3)
    assert "Traceback" not in watch.seen
    assert "1 solve " in stays
    assert " of 2" not in watch.seen
    assert how == "the server ends" or server.left.wait(10)
