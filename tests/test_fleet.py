"""Jobs over many pairs: which pair does what, what becomes of a pair that is lost, and the files that name them."""

from __future__ import annotations

import csv
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from batches import carry_out, make_job, stored_lines, wait_for
from faults import StoryServer, story_servers

from specreason_sgl.embedded.stories import story
from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.errors import ServerUnreachable, UsageError
from specreason_sgl.evaluation import runner
from specreason_sgl.evaluation.datasets import load
from specreason_sgl.evaluation.executors import Threads
from specreason_sgl.evaluation.fleet import Fleet, check_alike
from specreason_sgl.evaluation.grading import Grader
from specreason_sgl.evaluation.job import Job
from specreason_sgl.evaluation.runner import Runner, done
from specreason_sgl.evaluation.tasks import Task
from specreason_sgl.events import AnswerWritten, StepTaken
from specreason_sgl.lang.pair import Pair
from specreason_sgl.measure.cost_model import Cost, Costs
from specreason_sgl.runs.store import RunConfig, RunWriter, SolveRecord, closing, read_run
from specreason_sgl.servers.opening import PairOptions, open_pair
from specreason_sgl.servers.several import read_servers
from specreason_sgl.view.batch_sinks import SilentBatch

STORIES = [story(seed) for seed in range(60)]
KEY = "nobody-is-to-see-this"
MODES = [{"kind": kind} for kind in ("base", "specreason", "small")]


class Watched(SilentBatch):
    """Keeps the notices, and which solves have ended."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.ended: list[str] = []

    def notice(self, message: str) -> None:
        self.notices.append(message)

    def finished(self, _key: object, record: SolveRecord) -> None:
        self.ended.append(record.key)


@contextmanager
def fleet(count: int, **more: Any) -> Iterator[tuple[dict[str, Pair[Endpoint]], dict[str, list[StoryServer]]]]:
    """Pairs `a`, `b` and so on, with their servers."""
    with story_servers(STORIES, count, **more) as servers, ExitStack() as stack:
        named = dict(zip("abcd", servers, strict=False))
        yield (
            {
                name: stack.enter_context(open_pair(PairOptions(base=base.url, small=small.url, wait_for_server_s=0.3)))
                for name, (base, small) in named.items()
            },
            named,
        )


def execute(
    folder: Path, job: Job, pairs: Mapping[str, Pair[Endpoint]], sink: SilentBatch | None = None
) -> list[SolveRecord]:
    """Run a job, or go on with it."""
    config = RunConfig(created=datetime.now(UTC), program=job.name, pair="tests")
    writer, earlier = RunWriter.resume(folder, config, (), done)
    with closing(writer), Grader("exact") as grader:
        Runner(job, load(job.dataset), Fleet(pairs), writer, grader, sink or SilentBatch()).run(earlier)
    return read_run(folder).records


def told(records: Sequence[SolveRecord]) -> dict[str, tuple[Any, ...]]:
    """What solves say, by their keys; each is there once."""
    assert len({record.key for record in records}) == len(records)
    return {r.key: (r.tally.answer, *(e.text for e in r.events if isinstance(e, StepTaken))) for r in records}


class Traffic:
    """How many solves ran on each pair at the same time, and when caches were emptied."""

    def __init__(self, pairs: Mapping[str, Pair[Endpoint]], monkeypatch: pytest.MonkeyPatch) -> None:
        self.most: Counter[str] = Counter()
        self.flushed_while_busy: list[str] = []
        self.flushes: Counter[str] = Counter()
        busy: Counter[str] = Counter()
        lock = threading.Lock()
        of = {id(server): name for name, pair in pairs.items() for server in pair}
        solve, empty = Threads.solve, runner.empty_cache

        def counted(threads: Threads, task: Task, *more: Any, **options: Any) -> SolveRecord:
            with lock:
                busy[task.pair] += 1
                self.most[task.pair] = max(self.most[task.pair], busy[task.pair])
            try:
                return solve(threads, task, *more, **options)
            finally:
                with lock:
                    busy[task.pair] -= 1

        def emptied(server: Any) -> None:
            name = of[id(server)]
            with lock:
                self.flushes[name] += 1
                self.flushed_while_busy += [name] if busy[name] else []
            empty(server)

        monkeypatch.setattr(Threads, "solve", counted)
        monkeypatch.setattr(runner, "empty_cache", emptied)


# Who does what.


def test_a_solve_goes_to_the_pair_with_the_fewest_and_to_none_that_is_lost() -> None:
    names = Fleet({name: Pair(None, None) for name in "abc"})
    with ExitStack() as stack:
        taken = [stack.enter_context(names.least_busy("abc")) for _ in range(7)]
        assert Counter(taken) == {"a": 3, "b": 2, "c": 2}
        assert stack.enter_context(names.least_busy("ac")) == "c"
        assert names.lose("b", ServerUnreachable("gone"))
        assert not names.lose("b", ServerUnreachable("gone again"))
        assert {stack.enter_context(names.least_busy("abc")) for _ in range(4)} == {"a", "c"}
    assert names.there == ["a", "c"]
    with names.least_busy("b") as nobody:
        assert nobody is None
    names.lose("a", ServerUnreachable("gone too"))
    with pytest.raises(ServerUnreachable, match="the last one"):
        names.lose("c", ServerUnreachable("the last one"))


def test_many_at_a_time_are_shared_out_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fleet(3, seconds=0.005) as (pairs, _):
        traffic = Traffic(pairs, monkeypatch)
        records = execute(tmp_path / "run", make_job(30, concurrency=2, flush_cache=True), pairs)
        monkeypatch.undo()
        alone = execute(tmp_path / "alone", make_job(30), {"": pairs["a"]})
    shares = Counter(record.pair for record in records)

    assert told(records) == told(alone)
    assert set(shares) == set(pairs)
    assert min(shares.values()) >= 5
    assert all(traffic.most[name] == 2 for name in "bc")
    assert traffic.flushed_while_busy == []
    assert traffic.flushes["b"] == 2


def test_one_at_a_time_each_pair_works_alone_and_does_all_modes_of_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(8, concurrency=1, repeats=3, modes=MODES, flush_cache=True)
    with fleet(2, seconds=0.002) as (pairs, _):
        traffic = Traffic(pairs, monkeypatch)
        records = execute(tmp_path / "run", job, pairs)
    by_problem = defaultdict(set)
    for record in records:
        by_problem[record.problem.id].add(record.pair)

    assert len(told(records)) == 8 * 3 * 3
    assert traffic.most == {"a": 1, "b": 1}
    assert all(len(names) == 1 for names in by_problem.values())
    assert set.union(*by_problem.values()) == {"a", "b"}
    assert traffic.flushed_while_busy == []
    assert traffic.flushes.total() == 2 * 8 * 3


def test_one_pair_without_a_name_leaves_records_as_they_were(tmp_path: Path) -> None:
    with fleet(1) as (pairs, _):
        (record,) = execute(tmp_path / "run", make_job(1), {"": pairs["a"]})

    assert record.pair is None
    assert "pair" not in json.loads((tmp_path / "run" / "solves.jsonl").read_text())


# Pairs that are lost.


@pytest.mark.parametrize(("concurrency", "repeats"), [(2, 1), (1, 3)])
def test_what_a_lost_pair_owes_is_done_by_the_others(
    tmp_path: Path, concurrency: int, repeats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(5 if repeats > 1 else 10, concurrency=concurrency, repeats=repeats, modes=MODES[:2])
    sink = Watched()
    with fleet(2, seconds=0.002) as (pairs, servers):
        traffic = Traffic(pairs, monkeypatch)

        def leave() -> None:
            wait_for(lambda: stored_lines(tmp_path / "run") >= 5)
            servers["b"][0].close()

        leaving = threading.Thread(target=leave)
        leaving.start()
        records = execute(tmp_path / "run", job, pairs, sink)
        leaving.join()
        monkeypatch.undo()
        alone = execute(tmp_path / "alone", job, {"": pairs["a"]})

    assert told(records) == told(alone)
    assert {record.pair for record in records} == {"a", "b"}
    assert sorted(sink.ended) == sorted(record.key for record in records), "what was lost is not told as ended"
    (notice,) = [line for line in sink.notices if "given up" in line]
    assert notice.startswith("the pair b is given up, and the others do its solves: the base server at http://")
    assert traffic.most["a"] == concurrency, "the other pair has room for no more"


@pytest.mark.parametrize("concurrency", [1, 3])
def test_without_any_pair_the_run_ends_and_goes_on_later(tmp_path: Path, concurrency: int) -> None:
    job = make_job(8, concurrency=concurrency)
    with fleet(2, seconds=0.002) as (pairs, servers):

        def leave() -> None:
            wait_for(lambda: stored_lines(tmp_path / "run") >= 3)
            for pair in servers.values():
                pair[1].close()

        leaving = threading.Thread(target=leave)
        leaving.start()
        with pytest.raises(ServerUnreachable, match="small server") as raised:
            execute(tmp_path / "run", job, pairs)
        leaving.join()
        before = (tmp_path / "run" / "solves.jsonl").read_bytes()
        servers["b"][1].open()
        records = execute(tmp_path / "run", job, {"b": pairs["b"]})
        alone = execute(tmp_path / "alone", job, {"": pairs["b"]})

    assert raised.value.exit_code == 3
    assert 3 <= before.count(b"\n") < 8
    assert (tmp_path / "run" / "solves.jsonl").read_bytes().startswith(before)
    assert told(records) == told(alone)


def test_pairs_of_different_models_are_refused() -> None:
    one = {"base": {"model_path": "m/base"}, "small": {"model_path": "m/small"}}
    check_alike({"a": one, "b": dict(one), "c": one})
    with pytest.raises(UsageError, match="`a` and `b` have different small models: `m/small` and `m/other`"):
        check_alike({"a": one, "b": {**one, "small": {"model_path": "m/other"}}})
    with pytest.raises(UsageError, match="only one of the pairs `a` and `c` has a model for verifier"):
        check_alike({"a": one, "b": one, "c": {**one, "verifier": {"model_path": "v"}}})


# The command and its file.


JOB = """
dataset = { name = "stories", limit = 6 }
settings = { budget = 1024, temperature = 0.0 }
concurrency = 2
flush_cache = false
modes = [{ kind = "base" }, { kind = "specreason" }]
"""


def servers_file(folder: Path, servers: Sequence[Sequence[StoryServer]], names: str = "ab", more: str = "") -> Path:
    path = folder / "servers.toml"
    path.write_text(
        "".join(
            f'[[pair]]\nname = "{name}"\nbase = "{base.url}"\nsmall = "{small.url}"\n{more}\n'
            for name, (base, small) in zip(names, servers, strict=False)
        )
    )
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a job in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path


def test_a_run_over_many_pairs_names_them_wherever_it_is_shown(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NODE_KEY", KEY)
    with story_servers(STORIES, 2) as servers:
        path = servers_file(here, servers, more='key = "NODE_KEY"')
        code = carry_out(
            monkeypatch, "eval", "job.toml", "--servers", str(path), "--out", "runs/many", "--display", "json"
        )
    told_all = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{"type"')]
    stored = read_run(here / "runs" / "many")
    config = json.loads((here / "runs" / "many" / "config.json").read_text())

    assert code == 0
    assert {record.pair for record in stored.records} == {"a", "b"} == {row["pair"] for row in told_all}
    assert (config["pair"], set(config["pairs"]), config["concurrency"]) == ("a + b", {"a", "b"}, [2])
    assert config["pairs"]["b"]["small"]["model_path"] == "specreason_sgl/embedded/small"
    assert not any(KEY in each.read_text() for each in (here / "runs" / "many").iterdir())
    first = stored.records[0]
    which = ("--problem", first.problem.id, "--mode", first.mode)
    for command in (
        ("report", "many"),
        ("list",),
        ("replay", "many", *which, "--export", "solve.md"),
        ("audit", "many"),
    ):
        assert carry_out(monkeypatch, *command) == 0, capsys.readouterr()
    assert f"{first.problem.id} · {first.mode} · {first.pair}" in (here / "solve.md").read_text()
    assert "a + b" in capsys.readouterr().out
    assert carry_out(monkeypatch, "report", "many", "--export", "rows") == 0, capsys.readouterr()
    with (here / "rows" / "solves.csv").open(newline="") as file:
        assert {row["pair"] for row in csv.DictReader(file)} == {"a", "b"}


def test_a_file_of_one_pair_makes_a_run_as_two_addresses_do(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with story_servers(STORIES, 1) as servers:
        path = servers_file(here, servers, names=["the pair"])  # type: ignore[arg-type]
        assert carry_out(monkeypatch, "eval", "job.toml", "--servers", str(path), "--out", "one") == 0
    stored = read_run(here / "one")
    config = json.loads((here / "one" / "config.json").read_text())

    assert {record.pair for record in stored.records} == {None}
    assert config["pair"] == "the pair"
    assert not {"pairs", "executor"} & config.keys()
    assert any(isinstance(event, AnswerWritten) for event in stored.records[0].events)


def test_servers_with_other_models_are_refused_before_anything_is_stored(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with story_servers(STORIES, 2) as (one, two):
        path = servers_file(here, [one, two[::-1]])
        assert carry_out(monkeypatch, "eval", "job.toml", "--servers", str(path), "--out", "run") == 2
    error, hint = capsys.readouterr().err.splitlines()[-2:]

    assert "error: the pairs `a` and `b` have different base models: " in error
    assert hint.startswith("hint: a job runs over pairs of the same models")
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "cannot read `servers.toml`: No such file"),
        ("[[pair]\n", "cannot read `servers.toml`: "),
        ("\udcff", "cannot read `servers.toml`: "),
        ("", "`servers.toml`: `pair`: Field required"),
        ("pair = []\n", "`servers.toml`: `pair`: "),
        ("pair = 3\n", "`servers.toml`: `pair`: "),
        ('[[pair]]\nname = "a"\n', "`servers.toml`: `pair.0`: name its servers: `base` and `small`"),
        ('[[pair]]\nbase = "http://h:1"\n', "`servers.toml`: `pair.0.name`: Field required"),
        ('[[pair]]\nname = ""\nbase = "http://h:1"\n', "`servers.toml`: `pair.0.name`: "),
        ('[[pair]]\nname = "a"\nbase = "http://h:1"\nbig = 1\n', "`servers.toml`: `pair.0.big`: "),
        ('[[pair]]\nname = "a"\nbase = 1\n', "`servers.toml`: `pair.0.base`: "),
        (
            '[[pair]]\nname = "a"\nbase = "http://h:1"\nmodels.small = "http://h:2"\n',
            "`servers.toml`: `pair.0`: `models.small`: this model has a field of its own, `small`",
        ),
        (
            '[[pair]]\nname = "a"\nbase = "http://h:1"\nsmall = "http://h:2"\n' * 2,
            "`servers.toml`: two pairs are called `a`",
        ),
        (
            '[[pair]]\nname = "a"\nbase = "http://h:1"\nsmall = "http://h:2"\nkey = "NO_SUCH_KEY"\n',
            "the key of the pair `a` is not in the environment",
        ),
        (
            '[[pair]]\nname = "a"\nbase = "http://h:1"\nsmall = "http://h:2"\n[[pair]]\nname = "b"\nbase = "http://h:1"',
            "mode `specreason` needs a small model",
        ),
    ],
)
def test_a_file_of_servers_that_is_of_no_use_is_one_line(
    text: str | None, complaint: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (here / "servers.toml").write_bytes(text.encode("utf-8", "surrogateescape"))

    assert carry_out(monkeypatch, "eval", "job.toml", "--servers", "servers.toml") == 2
    captured = capsys.readouterr()
    error, *hints = captured.err.splitlines()
    assert error.startswith(f"error: {complaint}")
    assert all(line.startswith("hint: ") for line in hints)
    assert captured.out == ""
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    "option", [("--base", "http://h:1"), ("--small", "http://h:1"), ("--pair", "embedded"), ("--model", "v=http://h:1"),
               ("--decode", "http://h:1")]
)  # fmt: skip
def test_servers_are_named_by_a_file_or_by_options(
    option: tuple[str, str], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "servers.toml").write_text('[[pair]]\nname = "a"\nbase = "http://h:1"\nsmall = "http://h:2"\n')

    assert carry_out(monkeypatch, "eval", "job.toml", "--servers", "servers.toml", *option) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: `--servers` names all servers"
    assert hint.startswith("hint: leave out ")


def test_a_pair_of_the_file_has_its_own_key_and_models(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "servers.toml").write_text(
        '[[pair]]\nname = "a"\nbase = "http://h:1"\nsmall = "http://h:2"\nkey = "NODE_KEY"\nmodels.verifier = "http://h:3"\n'
        '[[pair]]\nname = "b"\nbase = "http://h:4"\nsmall = "http://h:5"\ndecode = "http://h:6"\n'
    )
    monkeypatch.setenv("NODE_KEY", KEY)
    common = PairOptions(api_key="common", thinking="think", wait_for_server_s=5.0)
    a, b = (each.options(common) for each in read_servers(here / "servers.toml"))

    assert (a.api_key, b.api_key) == (KEY, "common")
    assert (a.models, b.models) == ({"verifier": "http://h:3"}, {"decode": "http://h:6"})
    assert (a.label, a.thinking, a.wait_for_server_s) == ("a", "think", 5.0)
    assert KEY not in repr(a)


def test_many_pairs_divide_the_hours(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cost = [Cost(context=256, batch=batch, seconds=0.01) for batch in (1, 8)]
    costs = Costs(base=cost, small=cost, judge=cost, call_s=0.0, crowding=1.0)
    (here / "costs.json").write_text(costs.model_dump_json())
    pair = '[[pair]]\nname = "{}"\nbase = "http://h:1"\nsmall = "http://h:2"\n'
    for name, count in (("one", 1), ("four", 4)):
        (here / f"{name}.toml").write_text("".join(pair.format(number) for number in range(count)))
    command = ("eval", "job.toml", "--dry-run", "--estimate", "--costs", "costs.json", "--servers")
    hours = []
    for name in ("one", "four"):
        assert carry_out(monkeypatch, *command, f"{name}.toml", "--json") == 0
        hours.append([mode["seconds"] for mode in json.loads(capsys.readouterr().out)["estimate"]["modes"]])

    assert hours[1] == pytest.approx([one / 4 for one in hours[0]])
    assert carry_out(monkeypatch, *command, "four.toml") == 0
    assert "Hours, 2 at a time on each of 4 pairs" in " ".join(capsys.readouterr().out.split())
