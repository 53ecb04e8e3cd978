"""What reaches a terminal: on any encoding, at any width, and nothing that it would obey."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from specreason_sgl.cli import app
from specreason_sgl.errors import UsageError
from specreason_sgl.lang import loading
from specreason_sgl.packages import NEEDED, missing
from specreason_sgl.servers.pairs import Address, RunningPair
from specreason_sgl.view.json_lines import json_line

ROOT = Path(__file__).parents[1]
STORY = Path(__file__).parent / "data" / "story.jsonl"
HOSTILE = "x\x1b[31m\x1b]0;t\x07\x9b31m\r\x08\x7f\u202e\u2066\u200f\u2028\nerror: y"
NAME = HOSTILE.replace("\n", "\v")
CLOSED = {"type", "author", "model", "kind", "reason", "outcome", "started", "created", "updated", "status", "finish"}
"""Fields that hold one of a few words, or a time."""


def is_obeyed(char: str) -> bool:
    return char != "\n" and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def poisoned(value: Any, poison: str, name: str = "") -> Any:
    """Stored data with something behind every text that is anybody's to choose."""
    if isinstance(value, str):
        return value if name in CLOSED else value + poison
    if isinstance(value, list):
        return [poisoned(each, poison, name) for each in value]
    if isinstance(value, dict):
        return {key: poisoned(each, poison, key) for key, each in value.items()}
    return value


def store(folder: Path, poison: str = "", also: str = "") -> Path:
    """A run of two solves with everything that a run can hold, poisoned."""
    folder.mkdir(parents=True)
    config = {
        "created": "2026-03-01T12:00:00Z",
        "program": "specreason",
        "pair": "embedded",
        "settings": {f"threshold{poison}": "7"},
        "parameters": {f"a{poison}": "b"},
        "versions": {f"python{poison}": "3"},
        "servers": {f"base{poison}": {f"model_path{poison}": "/a/b", "url": "http://x"}},
        "judge_version": "1",
        "repeatability": "as long as nothing else runs",
        "command": ["run", "q"],
        "hardware": {f"gpu{poison}": "none"},
        "job": {f"field{poison}": "of another version"},
    }
    (folder / "config.json").write_text(json.dumps(poisoned(config, poison)))
    status = {"status": "error", "updated": "2026-03-01T12:00:00Z", "message": "no"}
    (folder / "status.json").write_text(json.dumps(poisoned(status, poison)))
    lines = []
    for line in STORY.read_text().splitlines():
        row = json.loads(line)
        row["events"].insert(1, {"type": f"of_tomorrow{poison}", "at": 0.1})
        row["events"].insert(2, {"type": "noticed", "message": "look"})
        row["events"][3:3] = [{"type": "solve_failed", "error": "no", "hint": "do"}] if "base" in row["mode"] else []
        lines.append(json.dumps(poisoned(row, poison) if not also else poisoned(row, also)) + "\n")
    (folder / "solves.jsonl").write_text("".join(lines) + '{"torn')
    return folder


Said = tuple[int, str, str]


@pytest.fixture
def call() -> Callable[..., Said]:
    """The command line in this process, on streams of an encoding."""

    def run(*arguments: object, encoding: str = "utf-8") -> Said:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["specreason", *map(str, arguments)])
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            code = app.main()
        said = [stream.buffer.getvalue().decode(encoding) for stream in streams]
        return code, said[0], said[1]

    return run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


ONE = ("--problem", "story-7", "--mode", "specreason")
COMMANDS: dict[str, tuple[str, ...]] = {
    "list": ("list",),
    "list as JSON": ("list", "--json"),
    "replay of one": ("replay", "one", *ONE),
    "replay of several": ("replay", "one"),
    "replay as JSON": ("replay", "one", "--json"),
    "decided again": ("replay", "one", "--threshold", "8"),
    "compared": ("replay", "one", *ONE, "--compare", "other"),
    "report": ("report", "one"),
    "report as Markdown": ("report", "one", "--markdown"),
    "report as JSON": ("report", "one", "--json"),
    "audit": ("audit", "one", "--truth", "answers"),
    "audit as JSON": ("audit", "one", "--truth", "answers", "--json"),
    "diff": ("diff", "one", "other"),
    "diff as JSON": ("diff", "one", "other", "--json"),
    "no such run": ("report", "nöne"),
    "no such solve": ("replay", "one", "--problem", "ñ"),
    "doctor": ("doctor",),
    "status": ("status",),
    "down": ("down",),
    "plan": ("up", "--dry-run", "--base", "ñ", "--small", "é"),
    "dry run": ("eval", "tales", "--dry-run"),
    "import": ("import-trace", "ñ.jsonl", "--out", "imported"),
    "no question": ("run", ""),
    "no such program": ("run", "q", "--program", "ñ"),
    "help": ("run", "--help"),
    "version": ("--version",),
}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_read_on_any_encoding(
    home: Path, call: Callable[..., Said], command: str, encoding: str
) -> None:
    store(home / "runs" / "one", also="–×✓ñ")
    store(home / "runs" / "other", also="…你好😀")
    arguments = [each.replace("story-7", "story-7–×✓ñ") for each in COMMANDS[command]]
    arguments = [each + "–×✓ñ" if each == "specreason" else each for each in arguments]
    _, expected, complaint = call(*arguments)
    code, out, err = call(*arguments, encoding=encoding)

    assert code in {0, 1, 2}
    assert "Traceback" not in err
    assert (len(out) > 0, len(err) > 0) == (len(expected) > 0, len(complaint) > 0)
    if "--json" in arguments:
        assert json.loads(out) == json.loads(expected)


@pytest.mark.parametrize("command", [*COMMANDS, "md", "html", "svg"])
def test_nothing_stored_is_obeyed_by_a_terminal(home: Path, call: Callable[..., Said], command: str) -> None:
    store(home / "runs" / f"one{NAME}", HOSTILE)
    store(home / "runs" / f"other{NAME}", HOSTILE, also=f"other{HOSTILE}")
    names = {
        "one": f"one{NAME}",
        "other": f"other{NAME}",
        "story-7": f"story-7{HOSTILE}",
        "specreason": f"specreason{HOSTILE}",
    }
    wanted = COMMANDS.get(command, ("replay", "one", *ONE, "--export", f"trace.{command}"))
    code, out, err = call(*(names.get(each, each) for each in wanted))
    exported = Path(f"trace.{command}")

    assert code in {0, 1, 2}
    assert out + err
    for text in (out, err, exported.read_text(encoding="utf-8") if exported.exists() else ""):
        assert not [char for char in text if is_obeyed(char)]
    assert not [row for row in err.splitlines() if row.startswith("error: y")]
    assert exported.exists() == (command in {"md", "html", "svg"})


@given(st.text(st.characters(codec=None)))
def test_a_line_of_json_is_plain_and_says_what_it_was_given(text: str) -> None:
    line = json_line({"text": text, "figure": float("nan")})

    assert json.loads(line) == {"text": text, "figure": None}
    assert all(" " <= char <= "~" for char in line)


@pytest.mark.parametrize(
    "command",
    [
        ("report", "LONG"),
        ("replay", "LONG"),
        ("diff", "LONG", "LONG"),
        ("run", "q", "--program", "LONG"),
        ("eval", "LONG"),
        ("up", "--pair", "LONG", "--dry-run"),
        ("up", "--base", "LONG", "--small", "LONG", "--gpus", "1x80", "--dry-run"),
        ("doctor", "--pair", "LONG"),
        ("status",),
        ("run", "q"),
    ],
)
def test_a_file_that_cannot_be_looked_at_is_a_line(
    call: Callable[..., Said], command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "LONG" not in command:
        monkeypatch.setenv("SPECREASON_HOME", "h" * 300)
    code, out, err = call(*(each.replace("LONG", "n" * 300) for each in command))

    assert (code, out) == (2, "")
    assert re.search(r"^error: cannot use `.*[hn]{300}.*`: File name too long\n\Z", err, re.MULTILINE)


def test_a_file_name_that_is_no_text_is_shown_in_a_resolved_job(call: Callable[..., Said]) -> None:
    code, out, _ = call("eval", "tales", "--dry-run", "--limit", "1", "--set", "dataset.path=a\udcffñ")

    assert code == 0
    assert '"path": "a⟨U+DCFF⟩ñ"' in out


def test_half_a_character_in_a_name_is_no_trouble_for_a_line_of_json() -> None:
    assert json.loads(json_line([{"a\ud800": ["b\ud800", {"\udfff": 1}]}])) == [{"a\ufffd": ["b\ud800", {"\ufffd": 1}]}]


def test_the_note_of_a_pair_is_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pair = RunningPair(Address(HOSTILE, "k"), Address(HOSTILE, "k"), Path(HOSTILE), 1, HOSTILE)
    monkeypatch.setattr("specreason_sgl.servers.pairs.running", lambda: pair)
    monkeypatch.setattr(sys, "argv", ["specreason", "status"])

    assert app.main() == 0
    assert not [char for char in capsys.readouterr().out if is_obeyed(char)]


def start(*arguments: str, without: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, where some modules are not there."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({without.split()!r}))\n"
        "sys.argv = ['specreason', *sys.argv[1:]]\n"
        "from specreason_sgl.cli.app import main; sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        check=False,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["latin-1", "C"],
)
def test_a_report_is_whole_where_output_is_not_utf8(tmp_path: Path, environment: dict[str, str]) -> None:
    done = start("report", str(store(tmp_path / "run")), **environment)

    assert (done.returncode, done.stderr) == (0, "")
    assert "settings: " in done.stdout


def test_a_command_whose_output_is_closed_ends_as_it_would() -> None:
    command = f"'{sys.executable}' -m specreason_sgl list --runs /nowhere >&- 2>&-"  # only a shell closes a stream
    done = subprocess.run(
        ["sh", "-c", command],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "without"),
    [
        (("report", "RUN"), "scipy"),
        (("audit", "RUN"), "scipy"),
        (("list",), "pydantic"),
        (("run", "q"), "sglang"),
        (("run", "q", "--base", "http://127.0.0.1:9", "--small", "http://127.0.0.1:9"), "sglang"),
        (("run", "q"), "torch"),
        (("up",), "torch"),
        (("eval", "paper", "--dataset", "gsm8k", "--dry-run"), "datasets"),
    ],
)
def test_a_package_that_is_not_there_is_named_in_a_line(
    tmp_path: Path, arguments: tuple[str, ...], without: str
) -> None:
    run = store(tmp_path / "runs" / "one")
    environment = {"SPECREASON_RUNS": str(run.parent)}
    done = start(*(str(run) if each == "RUN" else each for each in arguments), without=without, **environment)
    told = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]

    assert done.returncode == 2
    assert told[0] == f"error: the package `{without}` is not installed"
    assert told[1].startswith(f"hint: `pip install '{without}")
    assert len(told) == 2


def test_plots_without_matplotlib_are_told_after_the_report(tmp_path: Path) -> None:
    run = store(tmp_path / "run")
    done = start("report", str(run), "--plots", str(tmp_path / "plots"), without="matplotlib matplotlib.figure")

    assert done.returncode == 2
    assert "Results" in done.stdout
    assert done.stderr.splitlines()[0] == "error: plots need matplotlib"


def test_somebodys_own_missing_module_is_not_taken_for_a_package(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("import of_my_own\n")

    assert missing(ModuleNotFoundError(name="of_my_own")) is None
    assert missing(ModuleNotFoundError(name="pydantic")) is None  # it is there; something in it is not
    with pytest.raises(
        UsageError, match=r"`.*mine.py` cannot be loaded: mine.py:1: ModuleNotFoundError: No module named 'of_my"
    ):
        loading.load(str(mine))


def test_every_requirement_is_known_by_what_it_is_imported_as() -> None:
    import tomllib

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {Requirement(each).name.replace("-", "_") for each in wanted}

    assert names - {"typer", "rich"} <= NEEDED  # the command line is made of these two


@pytest.mark.parametrize("command", ["list", "report", "audit"])
def test_a_reader_that_has_gone_is_no_failure(command: str, tmp_path: Path) -> None:
    store(tmp_path / "one")
    about = {"list": [], "report": ["one"], "audit": ["one", "--truth", "answers"]}[command]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody:
        done = subprocess.run(
            [sys.executable, "-m", "specreason_sgl", command, *about, "--runs", str(tmp_path)],
            stdout=nobody,
            stderr=subprocess.PIPE,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_a_full_device_is_not_taken_for_a_reader_that_has_gone(tmp_path: Path) -> None:
    shutil.copytree(store(tmp_path / "one"), tmp_path / "two")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "specreason_sgl", "list", "--runs", str(tmp_path)],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["error: cannot write: the disk is full", "hint: free some space"]
