import fcntl
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from specreason_sgl.cli.import_trace import import_trace
from specreason_sgl.cli.listing import list_runs
from specreason_sgl.cli.replay import replay
from specreason_sgl.errors import UsageError
from specreason_sgl.events import Event, Noticed, StepScored, StepTaken, TextStreamed
from specreason_sgl.lang.loading import load
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.index import find, summarise_run
from specreason_sgl.runs.redecide import redecide
from specreason_sgl.runs.store import Problem, RunConfig, RunWriter, SolveRecord, read_run, writing
from specreason_sgl.settings import Settings
from specreason_sgl.testing import Reply, ScriptedBackend
from specreason_sgl.text.scoring import RULES, Score
from specreason_sgl.view.compare import Side
from specreason_sgl.view.replay import Player, ReplayScene, stretched
from specreason_sgl.view.scenes import CompareScene, RunScene
from specreason_sgl.view.state import SolveState

DATA = Path(__file__).parent / "data"
AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

app = typer.Typer()
app.command("replay")(replay)
app.command("list")(list_runs)
app.command("import-trace")(import_trace)


def stored() -> list[SolveRecord]:
    return [SolveRecord.model_validate_json(line) for line in (DATA / "story.jsonl").read_text().splitlines()]


def story() -> list[Event]:
    return list(stored()[0].events)


def write(folder: Path, records: list[SolveRecord]) -> Path:
    with writing(folder, RunConfig(created=AT, program="specreason", pair="embedded")) as writer:
        for record in records:
            writer.append(record)
    return folder


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    write(folder / "20260301-120000-stories-aa11", stored())
    write(folder / "20260302-120000-stories-bb22", stored()[:1])
    return folder


class TestPlaying:
    def test_the_stored_text_streams_in_over_the_time_of_its_call(self) -> None:
        events = stretched(story())
        pieces = [event for event in events if isinstance(event, TextStreamed) and event.step == 2]
        drafts = "".join(piece.text for piece in pieces if piece.kind == "draft")

        assert drafts == "She keeps 1 for herself, so 31 + 1 = 32 pears are shared."
        assert [event.at for event in events] == sorted(event.at for event in events)
        assert [event for event in events if not isinstance(event, TextStreamed)] == story()

    def test_a_chain_written_in_one_go_comes_step_by_step(self) -> None:
        times = [event.at for event in stretched(stored()[1].events) if isinstance(event, StepTaken)]

        assert times == sorted(times)
        assert times[0] < times[1] < times[2] == pytest.approx(1.42)

    @given(ticks=st.lists(st.floats(0, 0.5), max_size=40))
    @settings(deadline=None)
    def test_however_the_clock_ticks_the_end_is_the_stored_solve(self, ticks: list[float]) -> None:
        player, clock = Player(stretched(story()), speed=4.0), 0.0
        for tick in ticks:
            clock += tick
            player.advance(clock)
        player.finish()

        assert player.done
        assert player.state == SolveState.of(stretched(story()))
        assert player.state.tally == stored()[0].tally

    def test_speed_and_pause(self) -> None:
        player = Player(story(), speed=2.0)
        player.advance(10.0)
        player.advance(10.2)
        assert player.now == pytest.approx(0.4)
        player.paused = True
        assert not player.advance(20.0)
        assert player.now == pytest.approx(0.4)

    def test_steps_and_rejections_can_be_jumped_to(self) -> None:
        player = Player(story(), paused=True)
        player.step()
        assert [step.author for step in player.state.steps] == ["small"]
        player.rejection()
        assert player.state.steps[2].author == "base"
        player.rejection()
        assert player.done

    def test_keys_play_step_and_leave(self) -> None:
        scene = ReplayScene(story(), "title", colour=False, by_step=True)
        assert "paused" in scene.draw(100, 30, 0.0).plain
        scene.press("n")
        assert len(scene.player.state.steps) == 2
        scene.press("r")
        assert "✗ rejected" in scene.draw(100, 30, 0.0).plain
        scene.press("+")
        assert scene.player.speed == 2.0
        scene.press(" ")
        assert not scene.player.paused
        scene.press("G")
        assert scene.player.done
        assert "= right" in scene.draw(100, 30, 0.0).plain
        scene.press("q")
        assert scene.over

    def test_instant_begins_at_the_first_step_with_everything_there(self) -> None:
        scene = ReplayScene(story(), "title", colour=False, speed=None)

        assert scene.player.done
        assert "›  0" in scene.draw(100, 30, 0.0).plain

    def test_a_run_opens_one_solve_after_the_other(self) -> None:
        scene = RunScene(
            "run", stored(), lambda one: ReplayScene(one.events, one.mode, colour=False, speed=None), colour=False
        )
        scene.press("down")
        scene.press("enter")
        assert "30 / 3 = 9" in scene.draw(100, 30, 0.0).plain
        scene.press("esc")
        assert not scene.over
        assert "› ≠ wrong" in scene.draw(100, 30, 0.0).plain
        scene.press("enter")
        scene.press("q")
        assert scene.over

    def test_a_comparison_is_moved_through_step_by_step(self) -> None:
        one, other = (Side(record.mode, SolveState.of(record.events)) for record in stored())
        scene = CompareScene(one, other, colour=False)
        scene.press("n")
        assert "›  1" in scene.draw(100, 14, 0.0).plain
        scene.press("G")
        assert "◆ answered     10" in scene.draw(100, 14, 0.0).plain
        scene.press("q")
        assert scene.over


class TestDecidingAgain:
    def test_at_its_own_threshold_and_rule_nothing_flips(self) -> None:
        again = redecide(story(), 7, "expected")

        assert again.flips == ()
        assert again.divergence is None
        assert again.acceptance == again.stored_acceptance == 0.8
        assert not again.is_counterfactual(4)

    def test_a_higher_threshold_flips_and_makes_the_rest_counterfactual(self) -> None:
        again = redecide(story(), 7.5, "expected")

        assert again.flips == (3,)
        assert again.divergence == 3
        assert again.acceptance == 0.6
        assert [again.is_counterfactual(step) for step in range(5)] == [False, False, False, False, True]

    @given(threshold=st.floats(0, 10), rule=st.sampled_from(RULES))
    def test_every_decision_is_the_acceptance_rules(self, threshold: float, rule: str) -> None:
        known = next(each for each in RULES if each == rule)
        again = redecide(story(), threshold, known)
        scores = [event.score for event in story() if isinstance(event, StepScored)]

        assert [decision.now for decision in again.decisions] == [each.accepts(known, threshold) for each in scores]
        shares = [share for _, share in again.sweep]
        assert shares == sorted(shares, reverse=True)

    def test_a_solve_without_scores_has_nothing_to_decide(self) -> None:
        again = redecide(stored()[1].events, 5, "greedy")

        assert (again.decisions, again.acceptance, again.sweep) == ((), None, ())

    def test_ties_go_to_the_lower_digit(self) -> None:
        assert not Score((0.0, *[-9.0] * 8, 0.0)).accepts("greedy", 1)


class TestFinding:
    def test_by_path_by_name_by_either_end_and_the_latest(self, runs: Path) -> None:
        first, second = sorted(runs.iterdir())

        assert find(str(first), runs) == first
        assert find(first.name, runs) == first
        assert find("20260301", runs) == first
        assert find("bb22", runs) == second
        assert find("latest", runs) == second

    def test_the_example_comes_with_the_package_unless_a_run_has_its_name(self, runs: Path) -> None:
        write(runs / "example-of-mine", stored())

        assert [record.tally.answer for record in read_run(find("example", runs)).records] == ["193"]
        assert find("example", runs / "none") == find("example", runs)
        assert find("example", write(runs / "example", stored()).parent) == runs / "example"

    def test_what_is_not_unique_or_not_there_is_refused(self, runs: Path) -> None:
        with pytest.raises(UsageError, match="`2026` can be `20260301-120000-stories-aa11`, `20260302"):
            find("2026", runs)
        with pytest.raises(UsageError, match="there is no run `xyz`"):
            find("xyz", runs)
        with pytest.raises(UsageError, match="there is no run `latest`"):
            find("latest", runs / "none")


class TestSummaries:
    def test_outcomes_are_counted_by_mode_without_reading_the_records(self, runs: Path) -> None:
        summary = summarise_run(find("aa11", runs))

        assert summary.status == "success"
        assert {mode: (count.solves, count.right) for mode, count in summary.modes.items()} == {
            "specreason": (1, 1),
            "base": (1, 0),
        }
        assert summary.remarks == []

    def test_model_text_cannot_pass_for_an_outcome(self, tmp_path: Path) -> None:
        trap = '"},"mode":"trap","x":"type":"solve_ended","outcome":"answered","correct":true}]}\n'
        record = stored()[1]
        problem = record.problem.model_copy(update={"question": trap})
        summary = summarise_run(write(tmp_path / "run", [record.model_copy(update={"problem": problem})]))

        assert list(summary.modes) == ["base"]
        assert summary.modes["base"].right == 0

    def test_a_half_written_line_is_reported_and_left_out(self, runs: Path) -> None:
        folder = find("aa11", runs)
        with (folder / "solves.jsonl").open("ab") as file:
            file.write(b'{"problem": {"id": "torn"')

        assert summarise_run(folder).remarks == ["line 3 of `solves.jsonl` is half-written and left out"]
        assert summarise_run(folder).solves == 2

    def test_a_line_that_ends_otherwise_is_counted_all_the_same(self, runs: Path) -> None:
        folder = find("aa11", runs)
        lines = (folder / "solves.jsonl").read_bytes().splitlines()
        lines[1] = lines[1].removesuffix(b"}") + b',"of_tomorrow":{}}'
        (folder / "solves.jsonl").write_bytes(b"\n".join([*lines, b"", b"garbage", b""]))
        summary = summarise_run(folder)

        assert summary.solves == 2
        assert summary.remarks == ["line 4 of `solves.jsonl` is unknown to this version and left out"]

    def test_a_missing_configuration_is_reported(self, runs: Path) -> None:
        folder = find("aa11", runs)
        (folder / "config.json").unlink()

        assert summarise_run(folder).remarks == ["`config.json` is missing"]
        assert summarise_run(folder).solves == 2

    def test_a_run_whose_writer_is_gone_is_unfinished(self, tmp_path: Path) -> None:
        writer = RunWriter(tmp_path / "run", RunConfig(created=AT, program="p", pair="q"))
        assert summarise_run(tmp_path / "run").status == "running"
        writer._file.close()
        assert summarise_run(tmp_path / "run").status == "unfinished"

    def test_looking_does_not_take_the_writers_lock(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "run", stored())
        summarise_run(folder)
        with (folder / "solves.jsonl").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
    def test_outcomes_are_counted_however_the_lines_are_spaced(
        self, tmp_path: Path, separators: tuple[str, str]
    ) -> None:
        rows = [record.model_dump(mode="json") for record in stored()]
        rows[1]["mode"] = 'b\u00e9 "x"'
        lines = [json.dumps(row, separators=separators) + "\n" for row in rows]
        (tmp_path / "solves.jsonl").write_text("".join(lines))
        modes = summarise_run(tmp_path).modes

        assert {name: (count.solves, count.right, count.graded) for name, count in modes.items()} == {
            "specreason": (1, 1, 1),
            'b\u00e9 "x"': (1, 0, 1),
        }

    def test_half_a_character_of_a_program_does_not_change_how_a_solve_is_written(self, tmp_path: Path) -> None:
        record = stored()[0]
        odd = Noticed.model_construct(message="\ud800 é")
        folder = write(tmp_path / "run", [record.model_copy(update={"events": [odd, *record.events]})])
        (line,) = (folder / "solves.jsonl").read_bytes().splitlines()

        assert line == SolveRecord.model_validate_json(line).model_dump_json().encode()
        assert line.decode().count("\N{REPLACEMENT CHARACTER} é") == 1
        assert summarise_run(folder).modes["specreason"].right == 1


class TestCommands:
    def test_list_shows_the_runs_and_what_is_wrong_with_them(self, runs: Path) -> None:
        (find("aa11", runs) / "config.json").unlink()
        result = invoke("list", "--runs", runs)

        assert result.exit_code == 0
        assert "\x1b" not in result.stdout
        assert "✓ success      20260302-120000-stories-bb22" in result.stdout
        assert "100% right" in result.stdout
        assert " 1 solve " in result.stdout
        assert " 2 solves " in result.stdout
        assert "! `config.json` is missing" in result.stdout

    @pytest.mark.parametrize(
        ("columns", "shown"),
        [
            (40, ["success", "…", "2 modes"]),
            (60, ["success", "stories-aa11", "2 modes"]),
            (80, ["success", "stories-aa11", "2 solves", "2 modes"]),
            (100, ["success", "stories-aa11", "2 solves", "2 modes", "2026-03-01"]),
            (140, ["success", "stories-aa11", "embedded", "2 solves", "specreason 100% base 0%", "2026-03-01"]),
        ],
    )
    def test_a_list_leaves_out_what_there_is_no_room_for(
        self, runs: Path, columns: int, shown: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        row, _ = invoke("list", "--runs", runs).stdout.splitlines()

        assert len(row) <= columns
        assert re.search(".*".join(map(re.escape, shown)), row)
        assert row.count("2026-03-01") == ("2026-03-01" in shown)
        assert row.count("solves") == ("2 solves" in shown)

    def test_list_as_json(self, runs: Path) -> None:
        rows = json.loads(invoke("list", "--json", "--runs", runs).stdout)

        assert [row["run"] for row in rows] == sorted(row["run"] for row in rows)
        assert rows[1]["modes"]["specreason"]["accuracy"] == 1.0
        assert {"status", "program", "pair", "solves", "created", "updated", "remarks"} <= set(rows[0])

    def test_list_of_nothing_says_so_on_standard_error(self, tmp_path: Path) -> None:
        result = invoke("list", "--runs", tmp_path)

        assert (result.exit_code, result.stdout) == (0, "")
        assert "no runs in" in result.stderr

    def test_a_piped_solve_is_plain_lines(self, runs: Path) -> None:
        result = invoke("replay", "bb22", "--runs", runs)

        assert result.exit_code == 0
        assert "\x1b" not in result.stdout
        assert sum(row.startswith("step ") for row in result.stdout.splitlines()) == 5

    def test_several_piped_solves_are_a_list(self, runs: Path) -> None:
        result = invoke("replay", "aa11", "--runs", runs)

        assert result.stdout.splitlines()[1].startswith("≠ wrong        story-7      base")
        assert "--problem" in result.stderr

    def test_a_solve_is_chosen_by_problem_mode_and_repeat(self, runs: Path) -> None:
        chosen = invoke("replay", "aa11", "--runs", runs, "--problem", "story-7", "--mode", "base", "--repeat", "0")
        assert "base_only" in chosen.stdout

        missing = invoke("replay", "aa11", "--runs", runs, "--problem", "none")
        assert isinstance(missing.exception, UsageError)
        assert missing.exception.hint == "its problems are `story-7`"

    def test_decisions_are_taken_again(self, runs: Path) -> None:
        result = invoke("replay", "bb22", "--runs", runs, "--threshold", "7.5")

        assert "1 of 5 decisions flip, acceptance 60% instead of 80%" in result.stdout
        assert "⇄ flips  step 3  score 7.34  ✓ accepted before,  ✗ rejected now" in result.stdout
        assert "the stored text is counterfactual after step 3" in result.stdout

    def test_a_solve_that_judged_nothing_cannot_be_decided_again_by_rule_alone(self, runs: Path) -> None:
        result = invoke("replay", "aa11", "--runs", runs, "--mode", "base", "--score", "greedy")

        assert isinstance(result.exception, UsageError)

    @pytest.mark.parametrize("options", [("--threshold", "5"), ("--score", "greedy"), ("--threshold", "5", "--json")])
    @pytest.mark.parametrize(
        ("program", "why"),
        [
            ("select_drafts", "it decided by a probability of its own, not by a judge's score"),
            ("random_accept", "it decided without a judge, so there is no score of any draft"),
        ],
    )
    def test_decisions_that_no_judges_score_made_are_not_taken_again(
        self, program: str, why: str, options: tuple[str, ...], tmp_path: Path
    ) -> None:
        choice: list[list[float]] = [[-9.0, -0.1]] if program == "select_drafts" else []
        small = ScriptedBackend("small", [Reply("2 and 2 make 4.", closes=True)])
        base = ScriptedBackend("base", [*choice, Reply("\\boxed{4}")])
        knobs = {"n": 1} if choice else {"rate": 1.0}
        sum_of_two = Problem(id="sum", question="What is 2 + 2?")
        record = solve(sum_of_two, load(program), Pair(base, small), Settings(), parameters=knobs)
        assert record.tally.judged == record.tally.accepted == 1
        refused = invoke("replay", write(tmp_path / "run", [record]), *options)

        assert isinstance(refused.exception, UsageError)
        assert str(refused.exception) == f"the drafts of `{program}` cannot be decided again: {why}"
        assert refused.stdout == ""
        assert invoke("replay", tmp_path / "run").exit_code == 0

    def test_decisions_by_a_judge_without_log_probabilities_are_taken_again(self, tmp_path: Path) -> None:
        small = ScriptedBackend("small", [Reply("2 and 2 make 4.", closes=True)])
        base = ScriptedBackend("base", [9, Reply("\\boxed{4}")])
        sum_of_two = Problem(id="sum", question="What is 2 + 2?")
        record = solve(sum_of_two, load("specreason"), Pair(base, small), Settings())
        again = invoke("replay", write(tmp_path / "run", [record]), "--threshold", "9.5")

        assert "1 of 1 decisions flip" in again.stdout

    def test_json_is_all_there_is_on_standard_output(self, runs: Path) -> None:
        result = invoke("replay", "bb22", "--runs", runs, "--json", "--threshold", "7.5")
        (solve,) = json.loads(result.stdout)["solves"]

        assert solve["redecision"]["flips"] == [3]
        assert solve["redecision"]["first_divergence"] == 3
        assert len(solve["events"]) == len(story())

    def test_two_runs_are_compared_step_by_step(self, runs: Path) -> None:
        result = invoke("replay", "bb22", "--runs", runs, "--compare", "aa11")
        assert "the same text throughout" in result.stdout

        result = invoke("replay", "aa11", "--runs", runs, "--mode", "specreason", "--compare", "aa11")
        assert "first different step: 1" in result.stdout

    def test_a_trace_is_exported(self, runs: Path, tmp_path: Path) -> None:
        file = tmp_path / "trace.html"
        result = invoke("replay", "bb22", "--runs", runs, "--export", file)

        assert result.stdout == ""
        assert file.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
        assert isinstance(invoke("replay", "aa11", "--runs", runs, "--export", file).exception, UsageError)

    def test_what_cannot_be_read_is_reported_in_a_line_and_the_rest_is_shown(self, runs: Path) -> None:
        folder = find("bb22", runs)
        line = json.loads((folder / "solves.jsonl").read_text())
        line["events"].insert(1, {"type": "of_tomorrow", "at": 0.1})
        (folder / "solves.jsonl").write_text(json.dumps(line) + '\n{"torn')
        (folder / "config.json").unlink()
        result = invoke("replay", folder)

        assert result.exit_code == 0
        assert "= right" in result.stdout
        assert result.stderr.splitlines() == [
            "note: `config.json` is missing",
            "note: line 2 of `solves.jsonl` is half-written and left out",
            "note: events of a newer version are not shown: of_tomorrow",
        ]

    @pytest.mark.parametrize(
        "args", [["--speed", "3"], ["--score", "mean"], ["--compare", "aa11", "--json"], ["--problem", "none"]]
    )
    def test_what_makes_no_sense_is_refused(self, args: list[str], runs: Path) -> None:
        result = invoke("replay", "bb22", "--runs", runs, *args)

        assert isinstance(result.exception, UsageError)

    def test_imported_traces_are_listed_and_replayed(self, tmp_path: Path) -> None:
        step = {"problem_id": 1, "step": 0, "text": "\\boxed{4}", "draft": "\\boxed{4}", "score": 8, "draft_tokens": 3}
        (tmp_path / "steps.jsonl").write_text(json.dumps({**step, "stop_reason": "finished"}) + "\n")
        out = tmp_path / "runs" / "imported"

        assert invoke("import-trace", tmp_path / "steps.jsonl", "--out", out).exit_code == 0
        assert "imported" in invoke("list", "--runs", tmp_path / "runs").stdout
        assert "◆ answered  4" in invoke("replay", "latest", "--runs", tmp_path / "runs").stdout

    def test_reading_needs_neither_torch_nor_sglang(self) -> None:
        code = (
            "import sys; import specreason_sgl.cli.replay, specreason_sgl.cli.listing, specreason_sgl.cli.import_trace;"
            "assert 'rich' not in sys.modules and 'pydantic' not in sys.modules, 'not light';"
            "import specreason_sgl.view.scenes, specreason_sgl.view.export, specreason_sgl.view.display;"
            "assert not {'torch', 'sglang', 'scipy'} & set(sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

        assert done.stderr == ""
