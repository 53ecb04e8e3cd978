"""`run` and `watch` as clients of the endpoint that `up` keeps, on real servers and real terminals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from batches import LONGEST, carry_out, start, wait_for
from terminals import ENTER_SCREEN, LEAVE_SCREEN, STYLES, Multiplexer, Terminal, after_the_screen

from specreason_sgl.embedded.tales import tale
from specreason_sgl.runs.store import read_run
from specreason_sgl.servers import pairs
from specreason_sgl.servers.pairs import Address

pytestmark = pytest.mark.server

COMMAND = """
import sys
from specreason_sgl.cli.app import main
sys.argv = ["specreason", *{args!r}]
sys.exit(main())
"""
IMPORTS = """
import sys
from specreason_sgl.cli.app import main
sys.argv = ["specreason", *sys.argv[1:]]
code = main()
heavy = {"torch", "sglang", "transformers", "scipy", "numpy", "sympy", "math_verify", "fastapi"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else code)
"""
TIMES = re.compile(r"[\d.]+ (ms|s)\b|speed-up.*?(?= ·)")
CHOICE = "Tom has 3 cards. Tom wins 2 cards. How many cards does Tom have now? (A) 6 (B) 5"
ONCE = {"at", "wall_s", "engine_s", "started", "created", "updated", "command", "cached_tokens"}
"""What differs between two runs of the same: times, and what was in a cache."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state folder of a pair that is kept up with its endpoint."""
    folder = tmp_path_factory.mktemp("home")
    env = {**os.environ, "SPECREASON_HOME": str(folder)}
    command = [sys.executable, "-m", "specreason_sgl"]
    subprocess.run([*command, "up"], check=True, env=env)
    yield folder
    subprocess.run([*command, "down"], check=True, env=env)


@pytest.fixture
def endpoint(home: Path, monkeypatch: pytest.MonkeyPatch) -> Address:
    """The endpoint of the pair, which commands of this process and its children find."""
    monkeypatch.setenv("SPECREASON_HOME", str(home))
    pair = pairs.running()
    assert pair
    assert pair.serve
    wait_for(lambda: counts(pair.serve) == (0, 0))
    return pair.serve


def asked(endpoint: Address | None, path: str) -> dict[str, Any]:
    assert endpoint
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    told: dict[str, Any] = urllib3.request("GET", f"{endpoint.url}{path}", headers=headers, timeout=10).json()
    return told


def flush_caches() -> None:
    """Have both models compute everything anew: what comes from a cache differs in the last digits."""
    pair = pairs.kept()
    assert pair
    for server in (pair.base, pair.small):
        headers = {"Authorization": f"Bearer {server.api_key}"}
        assert urllib3.request("POST", f"{server.url}/flush_cache", headers=headers, timeout=10).status == 200


def counts(endpoint: Address | None) -> tuple[int, int]:
    """How many solves wait and run there."""
    told = asked(endpoint, "/v1/solves")
    return told["waiting"], told["running"]


def stored(folder: Path) -> dict[str, Any]:
    """All files of a run but for what no two runs have in common."""
    return {path.name: without_times(json.loads(path.read_text())) for path in sorted(folder.iterdir())}


def without_times(row: Any) -> Any:
    if isinstance(row, dict):
        return {name: without_times(value) for name, value in row.items() if name not in ONCE}
    return [without_times(each) for each in row] if isinstance(row, list) else row


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], 0),
        ([CHOICE, "--answer", "B", "--first-n", "1", "--seed", "3"], 0),
        ([tale(3).question, "--answer", rf"\frac{{{2 * tale(3).answer}}}{{2}}", "--program", "base_only"], 0),
        ([tale(3).question, "--answer", "1", "--score", "expected", "--threshold", "5"], 1),
    ],
    ids=["sample", "choice", "mathematics", "wrong"],
)
def test_a_stored_run_does_not_say_who_carried_it_out(
    options: list[str],
    code: int,
    endpoint: Address,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    before = len(asked(endpoint, "/v1/solves")["data"])
    shown = []
    for more in (["--out", str(there)], ["--out", str(here), "--wait-for-server", "100"]):
        flush_caches()
        assert carry_out(monkeypatch, "run", *options, *more, "--display", "plain") == code
        shown.append(TIMES.sub("", capsys.readouterr().out))

    assert len(asked(endpoint, "/v1/solves")["data"]) == before + 1
    assert stored(there) == stored(here)
    assert [path.stat().st_mode for path in sorted(there.iterdir())] == [
        path.stat().st_mode for path in sorted(here.iterdir())
    ]
    assert shown[0] == shown[1]


@pytest.mark.usefixtures("endpoint")
def test_a_run_behind_the_endpoint_imports_no_computing_library(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, "run", "--out", str(tmp_path / "run"), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert (rows[0]["type"], rows[-1]["type"]) == ("solve_started", "solve_ended")
    assert not any(row["type"] == "text_streamed" for row in rows)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--threshold", "-1"], "`threshold`"),
        (["--parameter", "x=1"], "has no parameter `x`"),
        (["--program", "nothing"], "there is no program `nothing`"),
    ],
)
@pytest.mark.usefixtures("endpoint")
def test_bad_input_is_one_clear_line_behind_the_endpoint_too(options: list[str], words: str, tmp_path: Path) -> None:
    with start("run", "q", *options, "--out", str(tmp_path / "run")) as running:
        out, err = running.communicate(timeout=60)

    assert running.returncode == 2
    assert words in err
    assert out == ""
    assert not [line for line in err.splitlines() if not line.startswith(("error: ", "hint: ", "note: "))]
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("endpoint")
def test_keys_of_a_run_work_while_a_pair_is_up(tmux: Multiplexer, tmp_path: Path) -> None:
    command = (
        f"'{sys.executable}' -m specreason_sgl run --program base_only --out '{tmp_path / 'run'}'; echo left with $?"
    )
    tmux.type(command, "Enter")
    tmux.screen("◇ thinking")
    tmux.resize(60, 20)
    narrow = tmux.screen("─" * 60)
    assert max(map(len, narrow.splitlines())) <= 60
    tmux.type("q")

    left = tmux.screen("left with 0")
    assert "= right" in left
    assert len(read_run(tmp_path / "run").records) == 1


def test_ctrl_c_ends_a_run_and_its_solve_on_the_server(endpoint: Address, tmp_path: Path) -> None:
    args = ["run", "--program", "base_only", "--out", str(tmp_path / "run")]
    with Terminal(COMMAND.format(args=args)) as terminal:
        terminal.read(ENTER_SCREEN)
        wait_for(lambda: counts(endpoint) == (0, 1))
        terminal.type("\x03")
        assert terminal.finish() == 130
        after_the_screen(terminal)

    wait_for(lambda: counts(endpoint) == (0, 0))
    assert asked(endpoint, "/v1/solves")["data"][-1]["outcome"] == "failed"
    run = read_run(tmp_path / "run")
    assert run.status
    assert (run.status.status, run.records) == ("cancelled", [])


def test_a_server_is_watched_and_left_without_disturbing_it(endpoint: Address, tmp_path: Path) -> None:
    with Terminal(COMMAND.format(args=["watch"])) as terminal:
        terminal.read("0 in flight")
        args = ["--program", "base_only", "--out", str(tmp_path / "run"), "--display", "none"]
        with start("run", LONGEST.question, *args, quiet=True) as running:
            terminal.read("1 in flight")
            terminal.type("\r")
            terminal.read("question · base_only")
            seen = len(terminal.seen)
            terminal.type("\x1b")
            terminal.read("in flight", since=seen)
            terminal.type("q")
            assert terminal.finish() == 0
            stays = STYLES.sub("", after_the_screen(terminal))
            assert running.wait(60) == 0

    assert "solve" in stays
    assert read_run(tmp_path / "run").records[0].tally.outcome == "answered"
    assert counts(endpoint) == (0, 0)


def test_a_watch_counts_what_ends_and_is_left_with_ctrl_c(endpoint: Address, tmp_path: Path) -> None:
    before = len(asked(endpoint, "/v1/solves")["data"])
    with Terminal(COMMAND.format(args=["watch"]), columns=120) as terminal:
        terminal.read(f"{before} ended")
        with start("run", "--out", str(tmp_path / "run"), quiet=True) as running:
            assert running.wait(60) == 0
        terminal.read(f"{before + 1} ended")
        terminal.type("\x03")
        assert terminal.finish() == 0
        after_the_screen(terminal)
        assert "error" not in terminal.seen.split(LEAVE_SCREEN)[1]


def test_a_piped_watch_is_a_line_for_each_solve_that_ended(endpoint: Address, tmp_path: Path) -> None:
    known = [row["id"] for row in asked(endpoint, "/v1/solves")["data"]]
    with start("watch", "--json") as watching:
        assert watching.stdout
        earlier = [json.loads(watching.stdout.readline())["id"] for _ in known]
        with start("run", "--out", str(tmp_path / "run"), quiet=True) as running:
            assert running.wait(60) == 0
        row = json.loads(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
        assert watching.communicate(timeout=20) == ("", "")

    assert watching.returncode == 0
    assert sorted(earlier) == sorted(known)
    assert row["id"] not in known
    assert (row["type"], row["correct"], row["mode"]) == ("solve_finished", True, "specreason")
