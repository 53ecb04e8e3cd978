"""Commands that are interrupted, once and twice, and disks that are full."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from batches import start, stored_lines, wait_for
from faults import Listener, story_pair

from specreason_sgl.embedded.stories import story
from specreason_sgl.errors import SpecReasonError
from specreason_sgl.runs.store import Done, RunConfig, RunWriter, SolveRecord, closing, read_run

STORIES = [story(seed) for seed in range(60)]
JOB = """
dataset = { name = "stories", limit = 24 }
concurrency = 4
flush_cache = false
modes = [{ kind = "specreason" }]
"""


@pytest.mark.slow
def test_interrupted_once_it_aborts_what_is_in_flight_and_can_go_on(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(JOB)
    run = tmp_path / "run"
    with story_pair(STORIES, seconds=0.02, read_s=60) as (_, proxies, servers):
        over = ("--base", proxies[0].url, "--small", proxies[1].url, "--out", str(run), "--display", "plain",
                "--transport", "sessions")  # fmt: skip
        process = start("eval", str(tmp_path / "job.toml"), *over)
        wait_for(lambda: stored_lines(run) >= 5)
        for server in servers:
            server.seconds = 60  # what is in flight now would take a minute
        wait_for(lambda: sum(len(server.in_flight) for server in servers) == 4)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)

        assert process.returncode == 130
        assert "--resume` goes on from here" in said
        assert "Traceback" not in said
        assert json.loads((run / "status.json").read_text())["status"] == "cancelled"
        assert sum(len(server.aborted) for server in servers) >= 4
        wait_for(lambda: not any(server.in_flight or server.sessions for server in servers))
        before = (run / "solves.jsonl").read_bytes()
        for server in servers:
            server.seconds = 0.0
        process = start("eval", str(tmp_path / "job.toml"), *over, "--resume")
        process.communicate(timeout=60)

    assert process.returncode == 0
    assert (run / "solves.jsonl").read_bytes().startswith(before)
    assert len({record.key for record in read_run(run).records}) == stored_lines(run) == 24


@pytest.mark.slow
def test_interrupted_twice_it_is_gone_although_the_servers_neither_answer_nor_listen(tmp_path: Path) -> None:
    with story_pair(STORIES, seconds=60, read_s=60) as (_, proxies, servers):
        process = start(
            "run", STORIES[0].question, "--base", proxies[0].url, "--small", proxies[1].url,
            "--out", str(tmp_path / "run"), "--display", "plain", "--transport", "sessions",
        )  # fmt: skip
        wait_for(lambda: bool(servers[1].in_flight))
        for server in servers:
            server.aborted = _Deaf()
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, said = process.communicate(timeout=20)

    assert process.returncode == 130
    assert time.monotonic() - began < 10
    assert "Traceback" not in said
    assert read_run(tmp_path / "run").records == []


class _Deaf(list[str]):
    """Keeps whoever tells of an abort waiting."""

    def append(self, _rid: str) -> None:
        time.sleep(30)


@pytest.mark.slow
def test_a_command_that_is_killed_leaves_no_request_behind(tmp_path: Path) -> None:
    hung_up: list[str] = []

    class Watching(Listener):
        def handle(self, handler: Any, _: bytes) -> None:
            if handler.path == "/generate":
                self.requests["waiting"] += 1
                handler.connection.recv(1)  # until the other side is gone
                hung_up.append(handler.path)

    with story_pair(STORIES) as (_, proxies, _), Watching() as watching:
        process = start("run", STORIES[0].question, "--base", proxies[0].url, "--small", proxies[1].url,
                        "--out", str(tmp_path / "run"), "--display", "none")  # fmt: skip
        wait_for(lambda: proxies[1].requests["/detokenize"] >= 2)
        pass_on = proxies[1].handle
        proxies[1].handle = (  # type: ignore[method-assign]
            lambda handler, body: (watching if handler.path == "/generate" else _Passing(pass_on)).handle(handler, body)
        )
        wait_for(lambda: watching.requests["waiting"] > 0)
        process.kill()
        process.communicate()
        wait_for(lambda: bool(hung_up))

    assert read_run(tmp_path / "run").records == []


class _Passing:
    def __init__(self, handle: Callable[[Any, bytes], None]) -> None:
        self.handle = handle


CONFIG = RunConfig(created=datetime(2026, 1, 2, tzinfo=UTC), program="p", pair="q")


RECORD = SolveRecord.model_validate(
    {"problem": {"id": "1", "question": "q"}, "mode": "m", "started": CONFIG.created, "events": []}
)


@pytest.mark.parametrize("records", [[RECORD], []], ids=["a solve", "the end"])
def test_a_disk_that_fills_up_is_one_line_whatever_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: list[SolveRecord]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write() -> None:
        with closing(RunWriter(tmp_path / "run", CONFIG)) as writer:
            monkeypatch.setattr(Path, "replace", full)
            writer._file.close()
            writer._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115 - closed by the writer
            monkeypatch.setattr(os, "lseek", lambda *_: 0)
            monkeypatch.setattr(os, "ftruncate", lambda *_: None)
            for record in records:
                writer.append(record)

    with pytest.raises(SpecReasonError, match=r"cannot write `.*run`: No space left on device$"):
        write()
    monkeypatch.undo()
    again, done = RunWriter.resume(tmp_path / "run", CONFIG, (), Done.of)
    again.close("success")

    assert done == []
