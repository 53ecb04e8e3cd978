"""The views in a real terminal: keys are typed, the screen is read, and it is left as it was found."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from terminals import ENTER_SCREEN, LEAVE_SCREEN, STYLES, Multiplexer, Terminal, after_the_screen, environment

from specreason_sgl.evaluation.report import report_run, tables
from specreason_sgl.runs.store import read_run

STORY = Path(__file__).parent / "data" / "story.jsonl"

PRELUDE = f"""
import sys, time
from pathlib import Path
from specreason_sgl.errors import SpecReasonError
from specreason_sgl.runs.store import SolveRecord
from specreason_sgl.view.display import open_batch_display, open_display
records = [SolveRecord.model_validate_json(line) for line in Path({str(STORY)!r}).read_text().splitlines()]
"""
SOLVE = """
with open_display("rich", title="story-7") as sink:
    for event in records[0].events:
        sink(event)
        time.sleep(0.02)
    print("\\n", end="", file=sys.stderr)
    time.sleep({wait})
"""
BATCH = """
with open_batch_display("rich", 2, title="stories") as sink:
    keys = [sink.started("story-7", 0, record.mode) for record in records]
    for key, record in zip(keys, records):
        for event in record.events[:6]:
            sink.event(key, event)
    sys.stdin.fileno()
    time.sleep({wait})
    for key, record in zip(keys, records):
        sink.finished(key, record)
print("the run is over")
"""
LEFT_BATCH = """
with open_batch_display("rich", 3, title="stories") as sink:
    keys = [sink.started(f"story-{number}", 0, "specreason") for number in range(3)]
    sink.finished(keys[0], record(0))
    for event in records[0].events[:9]:
        sink.event(keys[1], event)
    typed()
    sink.finished(keys[1], record(1))
    time.sleep(1)
    sink.notice("a server is waited for")
    sink.finished(keys[2], record(2))
print("the run is over")
"""
LEFT_SOLVE = """
with open_display("rich", title="story-7") as sink:
    for event in records[0].events[:6]:
        sink(event)
    typed()
    for event in records[0].events[6:]:
        sink(event)
    time.sleep(1)
    print("the run is over")
"""
TYPED = """
def record(number):
    problem = records[0].problem.model_copy(update={"id": f"story-{number}"})
    return records[0].model_copy(update={"problem": problem})
def typed():
    while not Path(sys.argv[1]).exists():
        time.sleep(0.05)
"""
REPLAY = """
import typer
from specreason_sgl.cli.replay import replay
app = typer.Typer()
app.command()(replay)
app({args!r})
"""
REPORT = """
import sys
from specreason_sgl.cli.app import main
sys.argv = ["specreason", "report", *{args!r}]
sys.exit(main())
"""
LIST = """
import typer
from specreason_sgl.cli.listing import list_runs
app = typer.Typer()
app.command()(list_runs)
app({args!r})
"""


def test_a_live_solve_is_shown_and_its_trace_stays() -> None:
    with Terminal(PRELUDE + SOLVE.format(wait=0.3)) as terminal:
        code = terminal.finish()
        stays = after_the_screen(terminal)

    assert code == 0
    assert "✓ accepted" in terminal.seen.split(LEAVE_SCREEN)[0]
    for words in ("Ana packs 4 crates", "■ base wrote", "✗ rejected", "◆ answered", "= right", "speed-up"):
        assert words in stays


@pytest.mark.slow
def test_keys_open_a_rejected_draft_and_leaving_the_view_does_not_end_the_run() -> None:
    with Terminal(PRELUDE + SOLVE.format(wait=2.5) + 'print("the run is over")') as terminal:
        terminal.read("= right")
        terminal.type("r")
        terminal.read("›  2")
        terminal.type("f")
        terminal.read("14 tok ▾")
        terminal.type("q")
        terminal.read(LEAVE_SCREEN)
        assert "the run is over" not in terminal.seen
        assert terminal.finish() == 0
        assert "the run is over" in after_the_screen(terminal)


@pytest.mark.parametrize("how", ["ctrl-c", "terminate", "hang up", "crash"])
def test_the_terminal_is_put_back_however_the_run_ends(how: str) -> None:
    ending = "\nraise SystemExit(7)" if how == "crash" else ""
    body = SOLVE.format(wait=60) if how != "crash" else SOLVE.format(wait=0).rstrip() + "\n    raise SystemExit(7)\n"
    with Terminal(PRELUDE + body + ending) as terminal:
        terminal.read("= right" if how != "crash" else ENTER_SCREEN)
        if how == "ctrl-c":
            terminal.type("\x03")
        elif how == "terminate":
            terminal.signal(signal.SIGTERM)
        elif how == "hang up":
            terminal.signal(signal.SIGHUP)
        code = terminal.finish()
        stays = after_the_screen(terminal)

    expected = {"ctrl-c": -signal.SIGINT, "terminate": 143, "hang up": 129, "crash": 7}
    assert code == expected[how]
    assert "Ana packs 4 crates" in stays


def test_the_screen_follows_the_size_of_the_terminal() -> None:
    with Terminal(PRELUDE + SOLVE.format(wait=60)) as terminal:
        terminal.read("= right")
        seen = len(terminal.seen)
        terminal.resize(60, 20)
        for _ in range(5):  # a frame of the old size may still be under way
            redrawn = terminal.read("─" * 60, since=seen)
            if "─" * 61 not in redrawn:
                break
            seen = len(terminal.seen)

        assert "─" * 61 not in redrawn


def test_without_colours_the_words_are_still_there() -> None:
    with Terminal(PRELUDE + SOLVE.format(wait=0.3), NO_COLOR="1") as terminal:
        terminal.finish()

    assert "✓ accepted" in terminal.seen
    assert not any(f"\x1b[{number}m" in terminal.seen for number in range(30, 38))


@pytest.mark.slow
def test_a_batch_is_watched_and_a_trace_opened() -> None:
    with Terminal(PRELUDE + BATCH.format(wait=4)) as terminal:
        terminal.read("2 in flight")
        terminal.type("\x1b[B")
        terminal.read("› ◌ drafting")
        terminal.type("\r")
        terminal.read("story-7 · specreason")
        seen = len(terminal.seen)
        terminal.type("\x1b")
        terminal.read("2 in flight", since=seen)
        terminal.type("q")
        terminal.read(LEAVE_SCREEN)
        assert terminal.finish() == 0
        stays = after_the_screen(terminal)

    assert "the run is over" in stays
    assert "2 of 2 solves" in stays


def test_a_stored_run_is_replayed_step_by_step(tmp_path: Path) -> None:
    run = stored_run(tmp_path)
    args = [str(run), "--mode", "specreason", "--step"]
    with Terminal(REPLAY.format(args=args)) as terminal:
        terminal.read("paused")
        terminal.type("n")
        terminal.read("She sells 17")
        terminal.type("r")
        terminal.read("✗ rejected")
        terminal.type("/checks\r")
        terminal.read("›  3")
        terminal.type("q")
        assert terminal.finish() == 0
        after_the_screen(terminal)


def test_a_batch_whose_view_has_been_left_goes_on_in_plain_lines(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with Terminal(PRELUDE + f"sys.argv = ['', {str(go)!r}]\n" + TYPED + LEFT_BATCH) as terminal:
        terminal.read("= right        story-0")
        terminal.type("q")
        terminal.read(LEAVE_SCREEN)
        go.touch()
        assert terminal.finish() == 0
        stays = after_the_screen(terminal)
    lines = [line for line in STYLES.sub("", stays).splitlines() if line.strip()]

    assert [line.split("  ")[:3] for line in lines[-6:-4]] == [
        ["2/3", "= right", "story-1 #0"],
        ["note: a server is waited for"],
    ]
    assert lines[-4].startswith("3/3  = right  story-2 #0")
    assert "= right 100% (44–100%) of 3" in lines[-3]
    assert "3 of 3 solves" in lines[-2]
    assert "the run is over" in lines[-1]
    assert "story-0" not in stays


def test_a_solve_whose_view_has_been_left_goes_on_in_plain_lines(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with Terminal(PRELUDE + f"sys.argv = ['', {str(go)!r}]\n" + TYPED + LEFT_SOLVE) as terminal:
        terminal.read("There are 4 crates")
        terminal.type("q")
        terminal.read(LEAVE_SCREEN)
        go.touch()
        assert terminal.finish() == 0
        stays = STYLES.sub("", after_the_screen(terminal))
    meanwhile, afterwards = stays.split("the run is over")

    assert [line[:8] for line in meanwhile.splitlines() if line.startswith("step")] == [
        f"step   {n}" for n in (1, 2, 3, 4)
    ]
    assert "There are 4 crates" in afterwards


@pytest.mark.parametrize(
    "more",
    [["--mode", "specreason"], ["--mode", "specreason", "--step"], [], ["--compare", "RUN"], ["--threshold", "8"]],
    ids=["one", "by step", "several", "compared", "decided again"],
)
def test_a_replay_without_a_keyboard_is_plain_lines_and_an_end(tmp_path: Path, more: list[str]) -> None:
    run = str(stored_run(tmp_path))
    args = [run, *(run if each == "RUN" else each for each in more)]
    with Terminal(REPLAY.format(args=args), columns=80, keyboard=False) as terminal:
        assert terminal.finish() == 0
        assert terminal.is_as_before

    assert "\x1b" not in terminal.seen
    assert "= right" in terminal.seen
    assert ("Ana packs 4 crates" in terminal.seen) == ("--mode" in more or "--compare" in more)


def test_a_replay_on_a_terminal_without_its_glyphs_is_plain_lines(tmp_path: Path) -> None:
    args = [str(stored_run(tmp_path)), "--mode", "specreason"]
    code = "from specreason_sgl.view.output import prepare; prepare()" + REPLAY.format(args=args)
    with Terminal(code, PYTHONIOENCODING="ascii") as terminal:
        assert terminal.finish() == 0

    assert "\x1b" not in terminal.seen
    assert "\\u2713 accepted" in terminal.seen


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
def test_a_report_breaks_no_figure_on_any_terminal(tmp_path: Path, columns: int) -> None:
    run = stored_run(tmp_path, mode="specreason-t7-b8192")
    with Terminal(REPORT.format(args=[str(run)]), columns=columns) as terminal:
        assert terminal.finish() == 0
    lines = STYLES.sub("", terminal.seen).splitlines()
    made = tables(report_run(read_run(run)))

    assert all(len(line.rstrip()) <= columns for line in lines)
    assert [len(table.rows) for table in made] == [2, 2, 2]
    for table in made:
        for cell in (*table.columns, *(cell for row in table.rows for cell in row)):
            assert any(cell in line for line in lines), cell


def test_a_closed_pipe_ends_a_list_quietly(tmp_path: Path) -> None:
    stored_run(tmp_path)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", LIST.format(args=["--runs", str(tmp_path)])],
        stdout=write,
        stderr=subprocess.PIPE,
        env=environment(),
        check=False,
    )
    os.close(write)

    assert (done.returncode, done.stderr) == (0, b"")


def test_the_screen_is_what_a_terminal_multiplexer_sees(tmux: Multiplexer, tmp_path: Path) -> None:
    run = stored_run(tmp_path)
    program = tmp_path / "program.py"
    program.write_text(REPLAY.format(args=[str(run), "--speed", "instant"]), encoding="utf-8")
    tmux.type(f"'{sys.executable}' '{program}'; echo left with $?", "Enter")

    rows = tmux.screen("1 of 2 right").splitlines()
    assert rows[2].startswith("› = right")
    tmux.type("Down", "Enter")
    assert "■ base wrote" in tmux.screen("30 / 3 = 9")
    tmux.type("Escape")
    tmux.screen("1 of 2 right")
    tmux.type("Up", "Enter")
    tmux.screen("›  0 │ ✓ accepted")
    tmux.type("r")
    assert "✗ rejected" in tmux.screen("›  2 ┃ ■ base wrote")
    tmux.resize(60, 20)
    narrow = tmux.screen("─" * 60)
    assert max(map(len, narrow.splitlines())) <= 60
    tmux.type("q")
    assert "base wrote" not in tmux.screen("left with 0")


def stored_run(folder: Path, mode: str = "specreason") -> Path:
    run = folder / "20260301-120000-stories-aa11"
    run.mkdir()
    lines = STORY.read_text(encoding="utf-8").replace('"mode":"specreason"', f'"mode":"{mode}"')
    (run / "solves.jsonl").write_text(lines, encoding="utf-8")
    return run
