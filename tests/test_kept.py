"""Pairs that are kept up: the endpoint beside the servers, and what happens when a process of theirs ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
import urllib3

from specreason_sgl.cli import app
from specreason_sgl.errors import ServerUnreachable, SpecReasonError, UsageError
from specreason_sgl.packages import identity
from specreason_sgl.servers import pairs, processes, tree
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.servers.processes import ServerDied, ServerSpec

ROUTER = """
import ctypes, http.server, os, time

def parse_router_args(words):
    *words, key = words
    return {**dict(zip(words[::2], words[1::2])), "key": key.removeprefix("--api-key=")}

def launch_router(given):
    if not os.fork():
        ctypes.CDLL(None).prctl(1, 0)  # it is not killed with its parent
        open(given["--parts"], "a").write(f"{given['--name']} {os.getpid()}\\n")
        time.sleep(600)
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.headers.get("Authorization") == f"Bearer {given['key']}"
            known = known or self.path in ("/health", "/readiness")
            self.send_response(503 if os.path.exists(given["--sick"]) else 200 if known else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()
    open(given["--starts"], "a").write(f"{given['--name']} {os.getpid()}\\n")
    time.sleep(float(given["--late"]))
    http.server.ThreadingHTTPServer(("127.0.0.1", int(given["--port"])), Handler).serve_forever()
"""
"""Stands for SGLang's router, so that trees of several stages start without GPUs."""


def until(holds: Callable[[], bool], limit_s: float = 20) -> bool:
    deadline = time.monotonic() + limit_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def told_by(url: str) -> dict[str, Any]:
    found: dict[str, Any] = urllib3.request("GET", url, retries=False, timeout=5).json()
    return found


def ends_of(process: int) -> bool:
    return until(lambda: pairs._began(process) is None)


class Cheap:
    """A pair of cheap servers in stages, under the real tree."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.late_s = 0.0
        """How many seconds a server takes until it listens on its port."""
        (folder / "sglang_router").mkdir()
        (folder / "sglang_router" / "__init__.py").touch()
        (folder / "sglang_router" / "launch_router.py").write_text(ROUTER)
        self.sick, self.starts, self.parts = folder / "sick", folder / "starts", folder / "parts"

    def clear_away(self) -> None:
        """End what the servers have left behind, where a test has killed the root that would have ended it."""
        for line in self.parts.read_text().splitlines() if self.parts.exists() else ():
            pid = int(line.split()[1])
            with suppress(OSError):
                if "servers.tree" in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, signal.SIGKILL)

    def wanted(self, limit_s: float = 60) -> pairs.Wanted:
        return pairs.Wanted("cheap", self.lay_out, limit_s=limit_s)

    def lay_out(self, logs: Path) -> list[ServerSpec]:
        return [
            ServerSpec(name, self.arguments(name, port), port, str(logs / f"{name}.log"), None, stage, True)
            for (name, stage), port in zip(
                (("base", 0), ("other", 0), ("small", 1)), processes.free_ports(3), strict=True
            )
        ]

    def arguments(self, name: str, port: int) -> list[str]:
        own = {"--name": name, "--port": port, "--late": self.late_s, "--sick": self.sick}
        own |= {"--starts": self.starts, "--parts": self.parts}
        return [str(word) for pair in own.items() for word in pair]

    def started(self) -> list[str]:
        """The names of the servers in the order of their starts."""
        return [line.split()[0] for line in self.starts.read_text().splitlines()]

    def process(self, name: str) -> int:
        """The id of the process that was started last for a server."""
        return int(next(line.split()[1] for line in reversed(self.starts.read_text().splitlines()) if name in line))

    def kill(self, name: str) -> None:
        """Kill a server, and wait until the tree has taken note."""
        process = self.process(name)
        os.kill(process, signal.SIGKILL)
        assert ends_of(process)


@pytest.fixture
def cheap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cheap]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parent), *sys.path]))
    port = processes.free_ports(1)[0]  # tests beside this one would want the same
    monkeypatch.setattr(pairs, "SERVE_PORT", port)
    made = Cheap(tmp_path, port)
    yield made
    pairs.down()
    made.clear_away()


def serving(**options: Any) -> pairs.Serving:
    return pairs.Serving("companion", options=options)


# The endpoint


def test_an_endpoint_is_kept_beside_the_servers_and_told_all_that_it_needs(cheap: Cheap) -> None:
    pair, _ = pairs.up(cheap.wanted(), serving=serving(colour="red"))

    assert pair.serve
    assert pair.is_served()
    told = told_by(pair.serve.url)
    assert (told["label"], told["options"]) == ("cheap", {"colour": "red"})
    assert told["base"] == {"url": pair.base.url, "api_key": pair.base.api_key}
    assert told["small"] == {"url": pair.small.url, "api_key": pair.small.api_key}
    assert (f"http://127.0.0.1:{told['port']}", told["key"]) == (pair.serve.url, pair.serve.api_key)
    assert told["log"] == str(pair.logs / "serve.log")
    assert told["default"] == {"SIGTERM": True, "SIGALRM": True}
    assert not told["sglang"]  # the root of a tree on GPUs imports nothing that would hold them
    assert Path(f"/proc/{told['pid']}/cmdline").read_text().startswith("specreason::serve")
    assert pairs.running() == pair
    assert pairs.down()
    assert ends_of(told["pid"])


def test_an_endpoint_ends_with_the_root_of_its_tree(cheap: Cheap) -> None:
    pair, _ = pairs.up(cheap.wanted(), serving=serving())
    assert pair.serve
    endpoint = told_by(pair.serve.url)["pid"]
    os.kill(pair.pid, signal.SIGKILL)

    assert ends_of(endpoint)


def test_an_endpoint_that_ends_is_started_again_and_the_servers_stay(cheap: Cheap) -> None:
    pair, _ = pairs.up(cheap.wanted(), serving=serving())
    assert pair.serve
    first = told_by(pair.serve.url)["pid"]
    os.kill(first, signal.SIGKILL)

    assert ends_of(first)
    assert until(pair.is_served)
    assert told_by(pair.serve.url)["pid"] != first
    assert sorted(cheap.started()) == ["base", "other", "small"]
    assert "ended by signal 9\nit is started again" in pair.serve_log.read_text()


def test_an_endpoint_that_ends_again_and_again_is_given_up_and_the_pair_is_up(
    cheap: Cheap, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["specreason", "status"])
    pair, _ = pairs.up(cheap.wanted(), serving=serving(fails=True))
    log = pair.serve_log.read_text()

    assert log.count("RuntimeError: this endpoint fails") == len(tree.PAUSES_S) + 1
    assert log.rstrip().endswith("it is not started again")
    assert app.main() == 0
    assert f"the endpoint does not answer; its log is {pair.serve_log}" in capsys.readouterr().err
    assert sorted(cheap.started()) == ["base", "other", "small"]


def test_the_note_of_a_pair_names_its_endpoint_and_only_its_owner_reads_it(cheap: Cheap) -> None:
    pair, _ = pairs.up(cheap.wanted(), serving=serving())
    files = [pairs.own_folder() / name for name in ("pair.json", "serve.key")]
    told = json.loads(files[0].read_text())["serve"]

    assert pair.serve
    assert told == {"url": pair.serve.url, "api_key": pair.serve.api_key}
    assert files[1].read_text() == pair.serve.api_key
    assert {stat.S_IMODE(file.stat().st_mode) for file in (*files, pair.serve_log)} == {0o600}
    assert pair.serve.api_key
    assert pair.serve.api_key not in repr(pair)


def test_the_key_is_made_once_and_the_port_is_the_same_where_it_is_free(cheap: Cheap) -> None:
    first, _ = pairs.up(cheap.wanted(), serving=serving())
    pairs.down()
    second, _ = pairs.up(cheap.wanted(), serving=serving())

    assert first.serve
    assert second.serve
    assert first.serve.api_key == second.serve.api_key
    assert first.serve.url == second.serve.url == f"http://127.0.0.1:{cheap.port}"


def test_a_port_that_another_program_has_is_not_taken(cheap: Cheap, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SpecReasonError, match=f"somebody listens on port {port}") as refused:
            pairs.up(cheap.wanted(), serving=pairs.Serving("companion", port))
        assert "--serve-port" in str(refused.value.hint)

        monkeypatch.setattr(pairs, "SERVE_PORT", port)
        pair, _ = pairs.up(cheap.wanted(), serving=serving())
        assert pair.serve
        assert pair.serve.url != f"http://127.0.0.1:{port}"
        assert pair.is_served()


def test_a_note_without_an_endpoint_is_one_of_before(cheap: Cheap) -> None:
    pair, _ = pairs.up(cheap.wanted())

    assert "serve" not in json.loads((pairs.own_folder() / "pair.json").read_text())
    assert pair.serve is None
    assert pairs.running() == pair
    assert not (pairs.own_folder() / "serve.key").exists()


@pytest.mark.parametrize("key", ["", " ", "two words", "naïve", "a\tb", "a\nb", "\x7f"])
def test_a_key_that_no_header_can_carry_is_refused_in_a_line(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError):
        pairs.check_key(key)

    monkeypatch.setattr(sys, "argv", ["specreason", "up", f"--serve-key={key}"])
    assert app.main() == 2
    told = capsys.readouterr().err
    assert told.startswith("error: the endpoint's key is no single word of visible ASCII characters\nhint: ")
    assert len(told.splitlines()) == 2


def test_a_kept_key_that_is_spoilt_is_made_anew(tmp_path: Path) -> None:
    for spoilt in ("", "two words", "\0"):
        (tmp_path / "serve.key").write_text(spoilt)
        made = pairs._kept_key(tmp_path)

        assert pairs.check_key(made) == pairs._kept_key(tmp_path) == (tmp_path / "serve.key").read_text()


def test_commands_show_the_endpoint_and_its_key_and_no_other_key(
    cheap: Cheap, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["specreason", *arguments])
        assert app.main() == 0
        return capsys.readouterr().out

    monkeypatch.setattr("specreason_sgl.cli.servers._embedded", lambda *_: cheap.wanted())
    monkeypatch.setattr("specreason_sgl.cli.servers.SERVED_BY", "companion")
    monkeypatch.setenv("SPECREASON_SERVE_KEY", "from-the-environment")
    shown = call("up")
    pair = pairs.running()

    assert pair
    assert pair.serve
    assert f"\n  serve  {pair.serve.url}/v1\n  key    from-the-environment\n" in shown
    assert call("status") == shown
    for told in (json.loads(call("up", "--json")), json.loads(call("status", "--json"))):
        assert (told["serve"], told["serve_key"]) == (f"{pair.serve.url}/v1", "from-the-environment")
        assert pair.base.api_key not in told.values()
    assert pair.base.api_key
    assert pair.base.api_key not in shown

    call("down")
    assert "serve" not in json.loads(call("up", "--no-serve", "--json"))
    monkeypatch.setattr(sys, "argv", ["specreason", "up", "--serve-port", "8799"])
    assert app.main() == 0
    assert "the pair that is up has another endpoint, or none" in capsys.readouterr().err


def test_two_processes_run_the_same_code_if_their_identity_is_the_same() -> None:
    script = "import json; from specreason_sgl.packages import identity; print(json.dumps(identity()))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=Path(__file__).parents[1])

    assert json.loads(ran.stdout) == identity()


# Servers that end


def last_part(cheap: Cheap, name: str) -> int:
    """The id of the process that the last server of a name has started."""
    lines = [line.split() for line in cheap.parts.read_text().splitlines()]
    return [int(pid) for of, pid in lines if of == name][-1]


def test_a_server_that_ends_is_started_again_as_it_was_and_those_of_later_stages_after_it(cheap: Cheap) -> None:
    pair, _ = pairs.up(cheap.wanted(), serving=serving())
    other, small = cheap.process("other"), cheap.process("small")
    cheap.kill("base")

    assert ends_of(small)
    assert until(lambda: len(cheap.started()) == 5)
    assert until(pair.is_healthy)
    assert cheap.started()[3:] == ["base", "small"]
    assert cheap.process("other") == other
    assert pairs.running() == pair
    for name in ("base", "small"):
        assert (pair.logs / f"{name}.log").read_text().count("the server is started again\n") == 1
    assert "signal 9" in (pair.logs / "base.log").read_text()
    assert "started again" not in (pair.logs / "other.log").read_text()
    assert pair.is_served()

    cheap.kill("small")
    assert until(lambda: len(cheap.started()) == 6)
    assert until(pair.is_healthy)
    assert cheap.started()[5:] == ["small"]


def test_all_that_a_server_has_left_behind_is_gone_before_it_is_started_again_and_nothing_else(cheap: Cheap) -> None:
    pair, _ = pairs.up(cheap.wanted(), serving=serving())
    assert pair.serve
    assert until(lambda: len(cheap.parts.read_text().splitlines()) == 3)
    parts = {name: last_part(cheap, name) for name in ("base", "other", "small")}
    endpoint = told_by(pair.serve.url)["pid"]
    cheap.kill("base")

    assert until(lambda: len(cheap.started()) >= 4)
    assert pairs._began(parts["base"]) is None
    assert until(lambda: len(cheap.started()) == 5)
    assert pairs._began(parts["small"]) is None
    assert pairs._began(parts["other"]) is not None
    assert told_by(pair.serve.url)["pid"] == endpoint

    pairs.down()
    assert all(ends_of(last_part(cheap, name)) for name in parts)


def test_a_server_that_ends_too_often_ends_the_pair_and_status_says_why(
    cheap: Cheap, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pair, _ = pairs.up(cheap.wanted())
    for number in range(tree.MOST_ENDS):
        cheap.kill("small")
        assert until(lambda wanted=4 + number: len(cheap.started()) == wanted)  # type: ignore[misc]
        assert until(pair.is_healthy)
    cheap.kill("small")

    assert ends_of(pair.pid)
    monkeypatch.setattr(sys, "argv", ["specreason", "status"])
    assert app.main() == 1
    told = capsys.readouterr()
    assert told.out == "down\n"
    assert f"the small server ended 4 times within 10 minutes; its log is `{pair.logs / 'small.log'}`" in told.err

    pairs.up(cheap.wanted())
    pairs.down()
    assert app.main() == 1
    assert "gave itself up" not in capsys.readouterr().err


def test_a_server_that_is_not_ready_again_in_time_ends_the_pair(
    cheap: Cheap, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pair, _ = pairs.up(cheap.wanted(limit_s=5))
    cheap.sick.touch()
    cheap.kill("base")

    assert until(lambda: pairs.kept() is not None and not pair.is_healthy())
    monkeypatch.setattr(sys, "argv", ["specreason", "status", "--json"])
    assert app.main() == 1
    assert json.loads(capsys.readouterr().out)["status"] == "starting"
    with pytest.raises(ServerUnreachable, match="the pair cheap does not answer yet"):
        PairOptions().or_kept_up()
    assert ends_of(pair.pid)
    assert pairs.last_words() == f"the base server was not ready again after 5 s; its log is `{pair.logs / 'base.log'}`"


def test_a_server_that_ends_before_the_pair_was_ready_ends_it(cheap: Cheap) -> None:
    cheap.sick.touch()
    logs = cheap.folder / "logs"
    logs.mkdir()
    started = processes.Servers.start(cheap.lay_out(logs), "key", logs, owned=False)
    try:
        assert until(lambda: cheap.starts.exists() and len(cheap.started()) == 2)
        cheap.kill("base")
        with pytest.raises(ServerDied, match="the base server ended while it was starting"):
            started.wait_until_ready(lambda _: None)
    finally:
        started.stop()
    assert started.process.returncode == processes.SERVER_ENDED


class Others:
    """A server of another pair: it says to anybody that it is healthy, and the rest to who has its key alone."""

    def __init__(self, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path in {"/health", "/readiness"} else 401)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.mark.parametrize("late_s", [0.0, 0.5])
def test_a_server_of_another_pair_on_the_same_port_is_not_taken_for_ones_own(late_s: float, cheap: Cheap) -> None:
    cheap.late_s = late_s
    with Others(0) as others:
        ports = [others.port]

        def lay_out(logs: Path) -> list[ServerSpec]:
            first, *more = cheap.lay_out(logs)
            port = ports.pop() if ports else first.port
            return [replace(first, port=port, arguments=cheap.arguments(first.name, port)), *more]

        pair, _ = pairs.up(pairs.Wanted("cheap", lay_out))

        assert not ports
        assert not pair.base.url.endswith(f":{others.port}")
        assert pair.is_healthy()
        assert not replace(pair, base=replace(pair.base, url=f"http://127.0.0.1:{others.port}")).is_healthy()


def test_an_endpoint_of_another_pair_on_the_same_port_is_not_taken_for_ones_own(
    cheap: Cheap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "refuse_taken", lambda *_: None)  # it was free when it was chosen
    with Others(cheap.port):
        pair, _ = pairs.up(cheap.wanted(), serving=serving())

        assert pair.serve
        assert pair.serve.url != f"http://127.0.0.1:{cheap.port}"
        assert pair.is_served()


def test_an_endpoint_whose_own_port_another_program_has_leaves_the_pair_up(
    cheap: Cheap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "refuse_taken", lambda *_: None)
    with Others(cheap.port):
        pair, _ = pairs.up(cheap.wanted(), serving=replace(serving(), port=cheap.port))

        assert pair.is_healthy()
        assert not pair.is_served()


def test_servers_that_have_an_owner_end_with_any_of_them(cheap: Cheap) -> None:
    logs = cheap.folder / "logs"
    logs.mkdir()
    started = processes.Servers.start(cheap.lay_out(logs), "key", logs, owned=True)
    try:
        started.wait_until_ready(lambda _: None)
        cheap.kill("small")
        assert started.process.wait(20) == processes.SERVER_ENDED + 2
        assert len(cheap.started()) == 3
    finally:
        started.stop()


def test_a_group_whose_leader_was_waited_for_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True) as bystander:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        gone.pid = bystander.pid  # the number was given to somebody else
        processes.Servers(gone, [], tmp_path / "log").stop()

        assert bystander.poll() is None
        bystander.kill()


# Real servers


def part(of: int, title: str) -> int:
    """The id of a process's child with this title."""
    return next(pid for pid in tree._children_of(of) if title in Path(f"/proc/{pid}/cmdline").read_text())


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state folder of an embedded pair that is kept up with an endpoint."""
    from specreason_sgl.embedded import BASE, SMALL

    home = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECREASON_HOME", str(home))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        pairs.up(pairs.embedded(BASE, SMALL), serving=serving())
        yield home
        pairs.down()


@pytest.mark.server
def test_an_endpoint_without_gpus_has_sglang_imported_already(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECREASON_HOME", str(embedded))
    pair = pairs.running()

    assert pair
    assert pair.serve
    assert told_by(pair.serve.url)["sglang"]


@pytest.mark.server
@pytest.mark.parametrize("title", ["specreason::base", "sglang::scheduler"])
def test_a_solve_goes_on_over_a_server_that_is_killed_and_started_again(
    title: str, embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from specreason_sgl.cli.run import SAMPLE_SEED
    from specreason_sgl.embedded import SETTINGS
    from specreason_sgl.embedded.tales import tale
    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.events import CallMade, Event
    from specreason_sgl.lang.loading import load
    from specreason_sgl.lang.pair import Pair
    from specreason_sgl.lang.solving import solve
    from specreason_sgl.runs.store import Problem
    from specreason_sgl.settings import Settings

    monkeypatch.setenv("SPECREASON_HOME", str(embedded))
    kept = pairs.running()
    assert kept
    base = part(kept.pid, "specreason::base")
    victims = [base if title == "specreason::base" else part(base, title)]

    def kill(event: Event) -> None:
        if isinstance(event, CallMade) and event.model == "base" and victims:
            os.kill(victims.pop(), signal.SIGKILL)

    told = tale(SAMPLE_SEED)
    pair = Pair(
        Endpoint(kept.base.url, "base", api_key=kept.base.api_key, wait_s=60),
        Endpoint(kept.small.url, "small", api_key=kept.small.api_key, wait_s=60),
    )
    problem = Problem(id="tale", question=told.question, answer=str(told.answer))
    record = solve(problem, load("specreason"), pair, Settings(**SETTINGS), sink=kill)

    assert not victims
    assert record.tally.correct
    assert sum(event.retries for event in record.events if isinstance(event, CallMade)) > 0
    assert part(kept.pid, "specreason::base") != base
    assert pairs.running() == kept
    assert kept.is_served()


@pytest.mark.server
def test_a_model_server_that_is_killed_again_and_again_ends_the_pair(
    embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECREASON_HOME", str(embedded))
    pair = pairs.running()
    assert pair
    while pairs.kept():
        if pair.is_healthy():
            os.kill(part(pair.pid, "specreason::base"), signal.SIGKILL)
        time.sleep(0.2)

    assert str(pairs.last_words()).startswith("the base server ended 4 times within 10 minutes; its log is ")
