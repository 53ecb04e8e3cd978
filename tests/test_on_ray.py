"""Jobs on a real Ray cluster: two nodes on this machine, of which processes are killed while they work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from batches import carry_out, holds, start, stored_lines
from nodes import JOB, Nodes, eventually, in_threads, kill, on_ray, served, told

from specreason_sgl.embedded.stories import story
from specreason_sgl.runs.store import read_run

if not find_spec("ray"):
    pytest.skip("Ray is not installed", allow_module_level=True)

KEY = "the-key-of-the-servers"
NOBODY = "127.0.0.1:1"
OWN = """
import sglang as sgl
from specreason_sgl.lang.loading import load

think = load("base_only").module.think

@sgl.function
def own(s, solve, tells: bool = False):
    if tells:
        raise RuntimeError(f"I am {__file__}")
    chain = solve.chain()
    chain.think(solve.read(think.run(chain, backend=solve.base, **solve.sampling), "think", chain))
    s += chain.closed("base")
    s += sgl.gen("answer", **solve.answering)
    return solve.answer(s, chain)
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """The cluster; only who has its token can use it."""
    with pytest.MonkeyPatch.context() as patch, Nodes() as started:
        for name, value in started.token.items():
            patch.setenv(name, value)
        yield started


def until_it_ends(running: subprocess.Popen[str], condition: Callable[[], bool]) -> bool:
    """Wait until something holds; returns whether it did before the process ended."""
    eventually(lambda: condition() or running.poll() is not None)
    return running.poll() is None


def has_chatter(said: str) -> bool:
    """Whether something was printed that is not ours."""
    return any(word in said for word in ("raylet", "WARNING", "Traceback", "gcs", "core_worker", "\x1b"))


def written(folder: Path, text: str) -> list[Path]:
    """The files in a folder that contain a text."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def copies(name: str) -> set[Path]:
    """The files of this name that workers have written."""
    return set(Path(tempfile.gettempdir()).glob(f"specreason-*/*/{name}"))


@pytest.mark.slow
def test_solves_on_two_nodes_are_those_of_threads_and_one_s_own_program_travels(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stories = [story(5000 + number) for number in range(12)]
    (tmp_path / "own.py").write_text(OWN)
    job = tmp_path / "job.toml"
    modes = '{ kind = "specreason" }, { program = "own.py" }'
    tells = ', { program = "own.py", name = "tells", tells = true }'
    job.write_text(JOB.format(problems=12, concurrency=4, modes=modes + tells))
    monkeypatch.chdir(tmp_path)
    left_by_others = copies("own.py")
    with served(stories, seconds=0.1) as servers:
        command = on_ray(nodes, job, servers, tmp_path / "run", "--api-key", KEY, "--fail-on-error", "100")
        with start(*command) as running:
            spread = until_it_ends(running, lambda: all(map(nodes.workers, nodes.started)))
            assert until_it_ends(running, lambda: stored_lines(tmp_path / "run") >= 1)
            (tmp_path / "own.py").unlink()  # its turn comes later
            _, said = running.communicate()
        (tmp_path / "own.py").write_text(OWN)
        job.write_text(JOB.format(problems=12, concurrency=4, modes=modes))
        expected = in_threads(job, servers, tmp_path / "threads")
    stored = read_run(tmp_path / "run")
    by_mode = {is_told: [r for r in stored.records if (r.mode == "tells") == is_told] for is_told in (True, False)}
    errors = {str(record.tally.error) for record in by_mode[True]}

    assert running.returncode == 0
    assert spread
    assert told(by_mode[False]) == told(expected)
    assert stored.remarks == []
    assert len(by_mode[True]) == 12
    assert all("own.py" in error and str(tmp_path) not in error for error in errors)
    assert 1 <= len(errors) <= 2  # each worker has a copy of its own
    assert not holds(lambda: bool(nodes.workers()), 0)
    assert copies("own.py") <= left_by_others
    assert not has_chatter(said)
    assert "only" not in said
    assert written(nodes.folder, KEY) == []
    assert written(tmp_path / "run", KEY) == []


@pytest.mark.slow
def test_a_job_outlives_a_worker_and_a_node_and_goes_on_after_its_own_death(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    problems = 120
    stories = [story(5000 + number) for number in range(problems)]
    job = tmp_path / "job.toml"
    job.write_text(JOB.format(problems=problems, concurrency=8, modes='{ kind = "specreason" }'))
    run = tmp_path / "run"
    with served(stories, seconds=0.1) as servers:
        with start(*on_ray(nodes, job, servers, run, "--workers", "4")) as running:
            assert until_it_ends(running, lambda: stored_lines(run) >= 4)
            full = carry_out_meanwhile(monkeypatch, on_ray(nodes, job, servers, tmp_path / "other"))
            refused = capfd.readouterr().err
            os.kill(nodes.workers(nodes.started[0])[0], signal.SIGKILL)
            at = stored_lines(run)
            assert until_it_ends(running, lambda: stored_lines(run) >= at + 12)
            kill(nodes.started[1])
            at = stored_lines(run)
            assert until_it_ends(running, lambda: stored_lines(run) >= at + 16)
            running.kill()
            _, said = running.communicate()
        assert holds(lambda: not nodes.workers(), 20)
        assert holds(lambda: not any(server.in_flight for server in servers), 20)
        before = (run / "solves.jsonl").read_bytes()
        began = time.time()
        for server in servers:
            server.seconds = 0.0
        code = carry_out(monkeypatch, *on_ray(nodes, job, servers, run, "--resume"))
        expected = in_threads(job, servers, tmp_path / "threads")
    stored = read_run(run)
    lost = [line for line in said.splitlines() if "ended; what it was solving is given to others" in line]

    assert full == 2
    assert "the Ray cluster has no free CPU" in refused
    assert len(lost) == 3  # one, and two on the node
    assert code == 0
    assert (run / "solves.jsonl").read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert len(stored.records) == problems
    assert sum(record.started.timestamp() > began for record in stored.records) == problems - before.count(b"\n")
    assert told(stored.records) == told(expected)
    assert not has_chatter(said + capfd.readouterr().err)


def carry_out_meanwhile(monkeypatch: pytest.MonkeyPatch, command: Sequence[str]) -> int:
    """A job on the cluster that does not wait long for a place."""
    from specreason_sgl.evaluation import on_ray as module

    with monkeypatch.context() as patch:
        patch.setattr(module, "ROOM_S", 0.0)
        return carry_out(patch, *command)


@pytest.mark.slow
def test_ctrl_c_ends_the_solves_on_all_nodes(nodes: Nodes, tmp_path: Path) -> None:
    stories = [story(5000 + number) for number in range(60)]
    job = tmp_path / "job.toml"
    job.write_text(JOB.format(problems=60, concurrency=4, modes='{ kind = "base" }'))
    with served(stories, seconds=1.0) as servers:
        with start(*on_ray(nodes, job, servers, tmp_path / "run")) as running:
            assert until_it_ends(running, lambda: stored_lines(tmp_path / "run") >= 1 and bool(servers[0].in_flight))
            running.send_signal(signal.SIGINT)
            _, said = running.communicate()
        assert holds(lambda: not servers[0].in_flight and not nodes.workers(), 20)
        aborted = len(servers[0].aborted)
    stored = read_run(tmp_path / "run")

    assert running.returncode == 130
    assert aborted > 0
    assert stored.remarks == []
    assert {record.tally.outcome for record in stored.records} == {"answered"}
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "cancelled"
    assert "--resume` goes on from here" in said
    assert not has_chatter(said)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (NOBODY, f"error: no Ray cluster at `{NOBODY}`: "),
        ("no such name", "error: no Ray cluster at `no such name`: "),
        ("ray://10.0.0.1:10001", "error: `ray://10.0.0.1:10001` is Ray's address for clients outside"),
    ],
)
def test_where_no_cluster_is_one_line_says_so(
    address: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job.toml"
    job.write_text(JOB.format(problems=1, concurrency=1, modes='{ kind = "base" }'))
    with served([story(5000)]) as servers:
        urls = ("--base", servers[0].url, "--small", servers[1].url)
        command = ("eval", str(job), *urls, "--out", str(tmp_path / "run"), "--executor", "ray", "--address", address)
        code = carry_out(monkeypatch, *command)
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]

    assert code == 2
    assert len(errors) == 1
    assert errors[0].startswith(said)
