"""`specreason eval` and `specreason report` from end to end, on a pair that solves stories without a model."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from specreason_sgl.cli import app as command_line
from specreason_sgl.embedded.stories import story
from specreason_sgl.evaluation import plots
from specreason_sgl.evaluation.job import Job
from specreason_sgl.evaluation.report import Report, as_json, markdown, provenance, report_run, tables, terminal
from specreason_sgl.events import AnswerWritten, CallMade, SolveEnded
from specreason_sgl.runs.store import Problem, Run, RunConfig, RunWriter, SolveRecord, read_run
from specreason_sgl.view.grid import Grid

JOB = """
repeats = 2
concurrency = 1
dataset = { name = "stories", limit = 6 }
settings = { score = "greedy", budget = 500 }
modes = [
  { kind = "base" },
  { kind = "small" },
  { kind = "specreason", threshold = [3, 7] },
  { kind = "random", of = "specreason-t7" },
  { kind = "oracle" },
]
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job file, and a pair to run it on."""

    @contextmanager
    def opened(*_: Any) -> Iterator[Any]:
        from specreason_sgl.lang.pair import Pair
        from specreason_sgl.testing import StoryBackend

        known = [story(seed) for seed in range(10)]
        yield Pair(StoryBackend("base", known), StoryBackend("small", known, skill=0.7))

    monkeypatch.setattr("specreason_sgl.servers.opening.open_pair", opened)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.toml"
    path.write_text(JOB)
    return path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["specreason", *arguments])
    return command_line.main()


@pytest.fixture
def run(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    assert call(monkeypatch, "eval", str(job), "--out", str(tmp_path / "run"), "--display", "none") == 0
    capsys.readouterr()
    return read_run(tmp_path / "run")


def test_a_whole_job_says_what_came_of_it(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call(monkeypatch, "eval", str(job), "--out", str(tmp_path / "run"), "--display", "plain")
    out, err = capsys.readouterr()

    assert code == 0
    assert "specreason-t7" in out
    assert "not significant" in out
    assert "command: `specreason eval" in out
    assert f"run: {tmp_path / 'run'}" in err
    assert len(read_run(tmp_path / "run").records) == 72


def test_standard_output_is_json_alone(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call(
        monkeypatch, "eval", str(job), "--out", str(tmp_path / "run"), "--json", "--modes", "base,small", "--limit", "2"
    )
    made = json.loads(capsys.readouterr().out)

    assert code == 0
    assert [summary["mode"] for summary in made["summaries"]] == ["base", "small"]
    assert made["config"]["job"]["dataset"]["limit"] == 2
    assert made["status"] == "success"


def test_a_dry_run_starts_nothing(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--limit", "3", "--repeats", "5", "--concurrency", "4", "--seed", "9", "--set", "parameters.first_n=2")
    code = call(monkeypatch, "eval", str(job), "--dry-run", "--json", *options)
    made = json.loads(capsys.readouterr().out)

    assert code == 0
    assert made["solves"] == 3 * 5 * 6
    assert (made["job"]["concurrency"], made["job"]["seed"]) == (4, 9)
    knobs = [mode["parameters"]["first_n"] for mode in made["job"]["modes"] if "first_n" in mode["parameters"]]
    assert knobs == [2] * 4
    assert not list(tmp_path.glob("run*"))


def test_one_problem(job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "eval", str(job), "--problem-id", "story-4", "--dry-run") == 0
    assert "1 problems x 2 repeats x 6 modes = 12 solves" in capsys.readouterr().out


OWN = ("--base", "http://x", "--small", "http://y")


def test_the_embedded_pair_gets_budgets_that_fit(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "eval", str(job), "--dry-run", "--json", "--set", "settings.budget=8192")
    embedded = json.loads(capsys.readouterr().out)
    call(monkeypatch, "eval", str(job), "--dry-run", "--json", "--set", "settings.budget=8192", *OWN)
    own = json.loads(capsys.readouterr().out)

    assert {mode["settings"]["budget"] for mode in embedded["job"]["modes"]} == {1024}
    assert {mode["settings"]["budget"] for mode in own["job"]["modes"]} == {8192}


def test_modes_with_speculative_decoding_are_left_out_without_such_a_server(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job.write_text('dataset = { name = "stories" }\nmodes = [{ kind = "base" }, { kind = "base+decode" }]\n')
    call(monkeypatch, "eval", str(job), "--dry-run", "--json")
    out, err = capsys.readouterr()
    call(monkeypatch, "eval", str(job), "--dry-run", "--json", "--decode", "http://x", "--base", "http://y")

    assert [mode["name"] for mode in json.loads(out)["job"]["modes"]] == ["base"]
    assert "`base+decode`" in err
    assert len(json.loads(capsys.readouterr().out)["job"]["modes"]) == 2


def test_resuming_a_finished_run_solves_nothing_and_a_changed_job_is_refused(
    job: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ("eval", str(job), "--out", str(run.folder), "--display", "none")
    before = (run.folder / "solves.jsonl").read_bytes()

    assert call(monkeypatch, *again, "--resume") == 0
    assert (run.folder / "solves.jsonl").read_bytes() == before
    assert call(monkeypatch, *again, "--resume", "--set", "settings.temperature=1.0") == 2
    assert "`job.settings.temperature` was 0.0 and is 1.0" in capsys.readouterr().err
    assert call(monkeypatch, *again) == 2
    assert "already holds a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nope.toml",), "there is no job"),
        (("mine.toml", "--resume"), "needs the run folder"),
        (("mine.toml", "--modes", "nope"), "no mode `nope`"),
        (("mine.toml", "--set", "oops"), "not `name=value`"),
        (("mine.toml", "--set", "settings.oops=1"), "oops"),
        (("mine.toml", "--problem-id", "story-x"), "no problem `story-x`"),
    ],
)
@pytest.mark.usefixtures("job")
def test_mistakes_are_told_in_a_line(
    arguments: tuple[str, ...], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "eval", *arguments) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(("options", "code"), [((), 1), (("--fail-on-error", "0.9"), 0), (("--fail-on-error", "1"), 1)])
def test_failed_solves_decide_the_exit_code(
    options: tuple[str, ...], code: int, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd.py").write_text(
        "import sglang as sgl\nfrom random import Random\n"
        "@sgl.function\ndef odd(s, trace):\n"
        "    if Random(trace.settings.seed).random() < 0.8: raise ValueError('odd')\n"
    )
    job.write_text('dataset = { name = "stories", limit = 10 }\nmodes = [{ program = "odd.py" }]\n')

    assert call(monkeypatch, "eval", str(job), "--display", "none", *options) == code


def test_reports_are_the_same_in_every_form(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = report_run(run)
    call(monkeypatch, "report", str(run.folder), "--json")
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(as_json(report)))
    call(monkeypatch, "report", str(run.folder), "--markdown")
    assert capsys.readouterr().out == markdown(report)
    call(monkeypatch, "report", str(run.folder))
    shown = capsys.readouterr().out
    assert all(cell in shown for row in tables(report)[0].rows for cell in row)


def test_markdown_tables_have_as_many_cells_in_every_row(run: Run) -> None:
    for block in markdown(report_run(run)).split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1


def test_everything_is_compared_with_the_base_model_and_the_judge_with_chance(run: Run) -> None:
    found = {(c.mode, c.against) for c in report_run(run).statistics.comparisons}

    assert found == {
        *((mode, "base") for mode in ("small", "specreason-t3", "specreason-t7", "random", "oracle")),
        ("specreason-t7", "random"),
    }


def test_modes_come_in_the_order_of_the_job(run: Run) -> None:
    names = ["base", "small", "specreason-t3", "specreason-t7", "random", "oracle"]

    assert [row[0] for row in tables(report_run(run))[0].rows] == names


def test_what_it_takes_to_repeat_a_run_is_told(run: Run) -> None:
    told = "\n".join(provenance(report_run(run)))

    for words in (
        "command: `specreason eval",
        "versions: python",
        "sglang 0.5",
        "hardware: processor",
        "cores",
        "base server: model_path",
    ):
        assert words in told


def test_an_unfinished_run_can_be_looked_at(run: Run) -> None:
    path = run.folder / "solves.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:9]) + lines[9][:50])
    report = report_run(read_run(run.folder))

    assert sum(summary.solves for summary in report.statistics.summaries) == 9
    assert any("half-written" in remark for remark in report.remarks)
    assert any("nothing is stored of mode `random`" in remark for remark in report.remarks)


def test_what_was_lost_is_shown_beside_the_latency(run: Run) -> None:
    def after_an_outage(record: SolveRecord) -> SolveRecord:
        first = next(event for event in record.events if isinstance(event, CallMade))
        later = [event.model_copy(update={"at": event.at + 9 * (event.at >= first.at)}) for event in record.events]
        later[record.events.index(first)] = first.model_copy(update={"at": first.at + 9, "lost_s": 9.0})
        return record.model_copy(update={"events": later})

    calm, shaky = (
        report_run(Run(run.folder, run.config, run.status, records, []))
        for records in (run.records, [after_an_outage(record) for record in run.records])
    )
    columns = [tables(report)[1].columns for report in (calm, shaky)]

    assert [names[-1] for names in columns] == ["retries", "lost s"]
    assert {row[-1] for row in tables(shaky)[1].rows} == {"9.00"}
    assert [summary["lost_s"] for summary in as_json(shaky)["summaries"]] == [pytest.approx(9)] * 6
    for one, other in zip(calm.statistics.summaries, shaky.statistics.summaries, strict=True):
        assert one.latency is not None
        assert other.latency is not None
        assert other.latency.mean.value == pytest.approx(one.latency.mean.value, abs=1e-4)


def test_a_job_of_a_later_version_hides_none_of_its_solves(run: Run) -> None:
    path = run.folder / "config.json"
    stored = json.loads(path.read_text())
    stored["job"]["modes"][0]["kind"] = "of_tomorrow"
    path.write_text(json.dumps(stored))
    report = report_run(read_run(run.folder))

    assert len(report.statistics.summaries) == 6
    assert any("its job is of a form" in remark for remark in report.remarks)


def test_a_fitted_concurrency_is_shown_and_is_not_what_was_asked(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job.write_text(JOB.replace("concurrency = 1", ""))
    command = ("eval", str(job), "--out", str(tmp_path / "run"), "--json", "--modes", "base")
    fitted = iter((5, 3))
    monkeypatch.setattr("specreason_sgl.evaluation.modes.concurrency_that_fits", lambda *_: next(fitted))
    call(monkeypatch, *command)
    first = json.loads(capsys.readouterr().out)

    assert (first["concurrency"], first["measurement"]) == (5, "throughput")
    assert (first["config"]["job"]["concurrency"], first["config"]["concurrency"]) == (None, [5])
    assert call(monkeypatch, *command, "--resume") == 0
    out, err = capsys.readouterr()
    assert "note: the run goes on with 3 solves at a time, where it was 5 before" in err
    assert json.loads(out)["remarks"] == ["solves at a time, as the run went on: 5, 3"]


def test_a_run_of_one_question_can_be_reported_too(tmp_path: Path, run: Run) -> None:
    config = run.config
    assert config is not None
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "solves.jsonl").write_text(run.records[0].model_dump_json() + "\n")
    report = report_run(read_run(tmp_path / "one"))

    assert len(report.statistics.summaries) == 1
    assert provenance(report) == []


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    config = RunConfig(created=datetime.now(UTC), program="specreason", pair="embedded")
    RunWriter(tmp_path / "empty", config).close("cancelled")
    return tmp_path / "empty"


@pytest.mark.parametrize("form", [(), ("--markdown",), ("--plots", "plots")])
def test_a_run_without_a_solve_is_told_in_a_line(
    empty: Path, form: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(empty.parent)
    code = call(monkeypatch, "report", str(empty), *form)

    assert (code, capsys.readouterr()) == (
        2,
        (
            "",
            f"error: no solve is stored in `{empty}` (cancelled)\nhint: `specreason list` shows how far the runs got\n",
        ),
    )
    assert not (empty.parent / "plots").exists()


def test_what_is_wrong_with_a_run_without_a_solve_is_told_too(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "solves.jsonl").write_text("no\n")

    assert call(monkeypatch, "report", str(empty)) == 2
    assert capsys.readouterr().err.startswith(
        "note: line 1 of `solves.jsonl` is unknown to this version and left out\nerror: "
    )


def test_a_program_is_told_of_a_run_without_a_solve_as_of_any_other(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "report", str(empty), "--json") == 0
    made = json.loads(capsys.readouterr().out)

    assert (made["status"], made["summaries"]) == ("cancelled", [])


def test_runs_with_solves_are_reported_beside_one_without(
    run: Run, empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "report", str(empty), str(run.folder)) == 2
    out, err = capsys.readouterr()

    assert out.count("Results") == 1
    assert err.startswith(f"error: no solve is stored in `{empty}`")


@pytest.mark.parametrize("command", ["run", "eval"])
def test_solving_can_be_watched_on_any_encoding(command: str, job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    code = call(monkeypatch, *(("eval", str(job), "--limit", "1") if command == "eval" else ("run", story(4).question)))
    out, err = (stream.buffer.getvalue().decode("ascii") for stream in streams)

    assert code == 0
    assert r"\xb7" in out + err
    assert "run: " in err


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize("rows", [1, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_no_figure_and_no_header_is_ever_broken(count: int, rows: int, width: int, encoding: str) -> None:
    columns = tuple(f"column-{place}{'-b8192' * (place % 3)}" for place in range(count))
    cells = tuple(
        (f"mode-{row}-t7-b8192", *(f"{row}{place}{10**place}.5 [{row}.25, {place}.75]" for place in range(count)))
        for row in range(rows)
    )
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=width, color_system=None).print(Grid("a title", ("mode", *columns), cells))
    stream.flush()
    lines = stream.buffer.getvalue().decode(encoding).splitlines()
    shown = {word.strip() for line in lines for word in re.split(r" {2,}|\|", line)}

    assert max(map(len, lines)) <= width
    assert {*columns, *(cell for row in cells for cell in row)} <= shown


def test_throughput_and_latency_do_not_mix(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "eval", str(job), "--out", str(tmp_path / "run"), "--json", "--concurrency", "3")
    made = json.loads(capsys.readouterr().out)
    first = tables(report_run(read_run(tmp_path / "run")))[0]

    assert made["measurement"] == "throughput"
    assert {summary["latency"] for summary in made["summaries"]} == {None}
    assert {comparison["speed_up"] for comparison in made["comparisons"]} == {None}
    assert (made["budgets"], made["frontier"]) == ([], [])
    assert first.columns[-2:] == ("solves/min", "tokens/s")


@pytest.mark.parametrize("image", ["svg", "png"])
def test_plots(run: Run, tmp_path: Path, image: str) -> None:
    files = plots.draw(report_run(run), run.records, tmp_path / "plots", image)

    assert [path.name for path in files] == [f"{name}.{image}" for name in ("frontier", "acceptance", "scores", "time")]
    assert all(path.stat().st_size > 1000 for path in files)


def test_a_run_without_a_judge_has_no_scores_to_draw(run: Run, tmp_path: Path) -> None:
    alone = Run(run.folder, run.config, run.status, [r for r in run.records if r.mode == "base"], [])
    files = plots.draw(report_run(alone), alone.records, tmp_path / "plots")

    assert [path.name for path in files] == ["frontier.svg", "time.svg"]


def test_acceptance_by_step_leaves_out_what_few_solves_reach(run: Run) -> None:
    curves = plots.acceptance_by_step(run.records)

    assert set(curves) == {"specreason-t3", "specreason-t7", "random", "oracle"}
    assert [step for step, _ in curves["oracle"]] == list(range(len(curves["oracle"])))
    assert all(0 <= share <= 1 for curve in curves.values() for _, share in curve)


def test_plots_from_the_command_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "report", str(run.folder), "--plots", str(tmp_path / "plots")) == 0
    assert f"plot: {tmp_path / 'plots' / 'time.svg'}" in capsys.readouterr().err
    assert call(monkeypatch, "report", str(run.folder), "--plots", str(tmp_path / "plots"), "--format", "gif") == 2


def test_nothing_is_markup(run: Run) -> None:
    records = [record.model_copy(update={"mode": "[red]mode[/red]"}) for record in run.records[:4]]
    report: Report = report_run(Run(run.folder, run.config, run.status, records, ["[bold]remark"]))
    console = Console(width=140, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    with console.file:
        for part in terminal(report):
            console.print(part)

    assert "[red]mode[/red]" in (shown := console.export_text())
    assert "note: [bold]remark" in shown


def test_the_command_line_answers_without_the_engine() -> None:
    heavy = ("torch", "sglang", "scipy", "datasets", "math_verify")
    code = f"import sys, specreason_sgl.cli.app; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_report_says_what_the_knobs_of_each_mode_were(run: Run) -> None:
    lines = [line for line in provenance(report_run(run)) if line.startswith("knobs of ")]

    assert any("threshold 7.0, score greedy, first_n 0" in line for line in lines)
    assert not any(line.startswith("knobs of base:") for line in lines)


METHODS: dict[str, Any] = {
    "name": "methods",
    "dataset": {"name": "stories"},
    "modes": [
        {"kind": "base"},
        {"kind": "small"},
        {"name": "twice", "program": "twice", "equal_cost": True},
        {"name": "cheats", "program": "cheats", "equal_cost": True},
        {"name": "fair", "program": "fair"},
        {"name": "cheap", "program": "cheap"},
        {"name": "rewarded", "program": "rewarded"},
    ],
}
SPENT = {
    "base": (20, {"base": 100}),
    "small": (40, {"small": 100}),
    "twice": (15, {"base": 200}),
    "cheats": (15, {"base": 200, "small": 1}),
    "fair": (0, {"base": 190, "small": 100}),
    "cheap": (20, {"base": 5, "small": 60}),
    "rewarded": (15, {"base": 100, "reward": 9}),
}
"""Of each mode the wrong solves of 40, and the tokens of each; a token of the base model takes ten times as long."""


def methods(folder: Path) -> Run:
    """A stored run of methods with controls at equal cost, made by hand."""

    def solve(number: int, mode: str) -> SolveRecord:
        wrong, tokens = SPENT[mode]
        seconds = sum(many / (1000 if role == "small" else 100) for role, many in tokens.items())
        calls = [
            CallMade(model=role, kind="think", prompt_tokens=1, cached_tokens=0, generated_tokens=many,
                     wall_s=seconds, finish="stop", at=seconds)
            for role, many in tokens.items()
        ]  # fmt: skip
        answer = AnswerWritten(at=seconds, author="base", text="1", answer="1", truncated=False)
        ended = SolveEnded(at=seconds, outcome="answered", correct=number >= wrong)
        return SolveRecord(
            problem=Problem(id=str(number), question=str(number), answer="1"),
            mode=mode,
            started=datetime.fromtimestamp(1000 * number, UTC),
            events=[*calls, answer, ended],
        )

    told = Job.model_validate(METHODS).model_dump(mode="json", exclude={"pair"})
    config = RunConfig.model_validate({"created": datetime.now(UTC), "program": "methods", "pair": "p", "job": told})
    with_solves = RunWriter(folder, config)
    for number in range(40):
        for mode in SPENT:
            with_solves.append(solve(number, mode))
    with_solves.close("success")
    return read_run(folder)


def test_one_table_has_each_mode_against_base_and_against_base_at_equal_cost(tmp_path: Path) -> None:
    results = tables(report_run(methods(tmp_path / "run")))[0]
    by_mode = {row[0]: dict(zip(results.columns, row, strict=True)) for row in results.rows}

    assert {mode: row["at equal cost"] for mode, row in by_mode.items() if row["at equal cost"] != "–"} == {
        "fair": "+37.5"
    }
    assert {mode: row["cost"] for mode, row in by_mode.items()} == {
        "base": "100", "small": "10", "twice": "200", "cheats": "200", "fair": "200", "cheap": "11", "rewarded": "–",
    }  # fmt: skip
    assert by_mode["fair"]["difference"] == "+50.0"
    assert "after Holm's correction for 6 comparisons" in results.note


def test_what_no_control_costs_as_much_as_is_said_plainly(tmp_path: Path) -> None:
    made = next(t for t in tables(report_run(methods(tmp_path / "run"))) if t.title.endswith("at equal cost"))
    found = {row[0]: dict(zip(made.columns, row, strict=True)) for row in made.rows}

    assert list(found) == ["small", "fair", "cheap"]
    assert (found["fair"]["control"], found["fair"]["ratio"], found["fair"]["which is"]) == (
        "twice",
        "1.00×",
        "significant",
    )
    assert (found["cheap"]["control"], found["cheap"]["ratio"], found["cheap"]["which is"]) == (
        "base",
        "0.11×",
        "not at equal cost",
    )
    assert "No control costs within 15 % of 2 of the modes" in made.note
    assert "a token of small costs 0.1, by the time that a token took in small and in base, of this run" in made.note
    assert "Of rewarded the cost is not known" in made.note


def test_a_declared_control_that_is_none_is_told(tmp_path: Path) -> None:
    report = report_run(methods(tmp_path / "run"))

    assert [remark for remark in report.remarks if "equal cost" in remark] == [
        "mode `cheats` asked other models than the base model, so nothing is compared with it at equal cost"
    ]
    assert not report_run(Run(tmp_path, None, None, [], [])).remarks


def test_programs_get_the_prices_and_the_words_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    methods(tmp_path / "run")
    prices = ("--price", "small=0.5", "--price", "reward=2")
    assert call(monkeypatch, "report", str(tmp_path / "run"), "--json", *prices) == 0
    made = json.loads(capsys.readouterr().out)

    assert made["prices"] == [
        {"model": "base", "base_tokens": 1.0, "measured": None},
        {"model": "small", "base_tokens": 0.5, "measured": None},
        {"model": "reward", "base_tokens": 2.0, "measured": None},
    ]
    assert {summary["mode"]: summary["cost"] for summary in made["summaries"]}["rewarded"] == pytest.approx(118)
    assert [(row["mode"], row["control"], row["is_equal"]) for row in made["equal_cost"]] == [
        ("small", "base", False), ("fair", "twice", False), ("cheap", "base", False), ("rewarded", "base", False)
    ]  # fmt: skip
    assert {row["accuracy"] for row in made["equal_cost_verdicts"]} == {"not at equal cost"}
    assert all(row["difference_p_corrected"] >= row["difference_p"] for row in made["comparisons"])


@pytest.mark.parametrize(
    ("price", "complaint"),
    [
        ("small", "`small` is not `name=value`"),
        ("small=cheap", "the price of `small` is no number from 0 on: `cheap`"),
        ("small=-1", "the price of `small` is no number from 0 on: `-1`"),
        ("small=inf", "the price of `small` is no number from 0 on: `inf`"),
        ("small=true", "the price of `small` is no number from 0 on: `True`"),
        ("base=2", "a token of `base` costs 1"),
    ],
)
def test_a_price_that_is_none_is_refused(
    price: str, complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "report", "example", "--price", price) == 2
    assert capsys.readouterr().err.startswith(f"error: {complaint}")


def test_without_controls_a_report_has_no_costs_to_compare(run: Run) -> None:
    made = tables(report_run(run))

    assert "cost" not in made[0].columns
    assert not [table for table in made if "equal cost" in table.title]


def test_a_dry_run_says_how_many_problems_show_two_points(
    job: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "eval", str(job), "--dry-run") == 0
    assert "assumed, since no stored run of this dataset has these modes" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setenv("SPECREASON_RUNS", str(tmp_path))
    assert call(monkeypatch, "eval", str(job), "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)["power"]

    assert (told["run"], told["seen"], told["difference"], told["level"]) == (run.folder.name, 6, 0.02, 0.05)
    assert [(need["mode"], need["against"]) for need in told["needs"]] == [
        *((mode, "base") for mode in ("small", "specreason-t3", "specreason-t7", "random", "oracle")),
        ("specreason-t7", "random"),
    ]
    assert all(need["as_one_of_many"] > need["problems"] >= 390 for need in told["needs"])
