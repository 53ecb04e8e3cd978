"""Jobs held against their servers before anything is solved: what is refused, what is warned of, what to change."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from batches import carry_out
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.embedded.stories import story
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.fitting import MANY, Room, check, complaints, concurrency, rooms
from specreason_sgl.evaluation.job import Job, read_job
from specreason_sgl.evaluation.modes import check_roles
from specreason_sgl.lang.loading import load, stock
from specreason_sgl.lang.outlines import outline
from specreason_sgl.lang.pair import Pair
from specreason_sgl.runs.store import Problem, read_run
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.servers.processes import CONTEXT_TOKENS, POOL_TOKENS
from specreason_sgl.testing import StoryBackend

BUDGETS = st.integers(0, 40_000)


def job(*modes: dict[str, Any], **fields: Any) -> Job:
    row = {"name": "j", "dataset": {"name": "stories"}, "modes": list(modes or [{"kind": "specreason"}])}
    return Job.model_validate({**row, **fields})


def pair(context: int | None, cache: int | None = None, *, usual: int = 150, longest: int = 400) -> list[Room]:
    told = {"max_total_num_tokens": cache} if cache else {}
    return [Room(role, context, told, usual, longest) for role in ("base", "small")]


def paper() -> Job:
    """The paper's job with the longer budget among its modes: 30 problems of AIME, 16 times."""
    made = read_job(Path("paper"), {"dataset.name": "aime24"})
    return made.only([mode.name for mode in made.modes if "decode" not in mode.roles.values()])


def test_a_budget_that_the_context_cannot_hold_is_refused_with_what_to_change() -> None:
    asked = paper()
    (told,) = complaints(asked, pair(10240, 29214), 480 * len(asked.modes))

    assert told.refuses
    assert (
        "the base server's context of 10240 tokens has room for 8938 tokens of thinking behind a question" in told.text
    )
    assert "the budget of `base-b32768`, `small-b32768`, `specreason-t3-b32768` and 3 more is 32768" in told.text
    assert "`specreason up --context 34816`" in told.hint
    kept = re.search(r"--modes (\S+)`", told.hint)
    assert kept is not None
    assert "base-b8192" in kept[1]
    shorter = asked.only(kept[1].split(","))
    assert complaints(shorter, pair(10240, 29214), 480 * len(shorter.modes)) == []


@given(BUDGETS, st.integers(1, 4000), st.integers(1024, 50_000), st.integers(0, 3000), st.integers(0, 3000))
def test_what_is_advised_is_enough(budget: int, answer: int, context: int, usual: int, more: int) -> None:
    asked = job(settings={"budget": budget, "answer_tokens": answer}, concurrency=1)
    found = complaints(asked, pair(context, usual=usual, longest=usual + more), 10)

    assert len(found) <= 1
    for told in found:
        wider, smaller = (re.search(pattern, told.hint) for pattern in (r"--context (\d+)", r"budget=(\d+)"))
        assert wider is not None
        assert smaller is not None
        assert complaints(asked, pair(int(wider[1]), usual=usual, longest=usual + more), 10) == []
        settings = {"budget": int(smaller[1]), "answer_tokens": answer}
        assert not complaints(
            job(settings=settings, concurrency=1), pair(context, usual=usual, longest=usual + more), 10
        )


def test_a_cache_that_is_smaller_than_the_context_counts_as_the_context() -> None:
    (told, *_) = complaints(job(concurrency=1), pair(40960, 4096), 10)

    assert told.refuses
    assert "the base server's cache of 4096 tokens" in told.text


def test_a_budget_that_only_the_longest_question_leaves_no_room_for_is_a_warning() -> None:
    (told,) = complaints(job(concurrency=1), pair(10240, longest=2000), 10)

    assert not told.refuses
    assert "behind the longest question of 2000" in told.text


def test_a_mode_is_held_against_the_servers_that_it_writes_on() -> None:
    wide, narrow = Room("base", 32768), Room("small", 4096)
    asked = job({"kind": "base"}, {"kind": "small"}, {"kind": "specreason"}, {"program": "small_only"}, concurrency=1)
    (told,) = complaints(asked, [wide, narrow], 10)

    assert "the small server's context" in told.text
    assert "`small`, `specreason`, `small_only` is" in told.text
    assert "`--modes base`" not in told.hint, "it is the budget of all, which can be shorter"
    decoding = job({"kind": "base+decode"}, concurrency=1)
    (told,) = complaints(decoding, [Room("base", 4096), Room("decode", 2048)], 10)
    assert "the decode server's context of 2048" in told.text


@pytest.mark.parametrize("name", ["tales", "thresholds", "methods", "decode", "bench"])
def test_nobody_with_the_embedded_pair_is_bothered(name: str) -> None:
    asked = read_job(Path(name))
    embedded = [
        Room(role, CONTEXT_TOKENS, {"max_total_num_tokens": POOL_TOKENS}, 60, 120)
        for role in ("base", "small", "decode")
    ]

    assert complaints(asked, embedded, 10_000) == []
    assert complaints(asked.model_copy(update={"concurrency": None}), embedded, 10_000) == []


@pytest.mark.parametrize(
    ("asked", "solves", "refuses"),
    [(None, MANY, True), (None, MANY - 1, False), (None, 1, None), (1, 10_000, None), (2, 10_000, False)],
)
def test_many_solves_one_at_a_time_have_to_be_asked_for(asked: int | None, solves: int, refuses: bool | None) -> None:
    told = complaints(job(concurrency=asked), pair(20_000, 15_000), solves)

    assert [each.refuses for each in told] == ([] if refuses is None else [refuses])


def test_what_would_run_one_at_a_time_is_told_of_the_modes_that_would_not() -> None:
    asked = job({"kind": "base", "budget": [8192, 32768]})
    (told,) = complaints(asked, pair(40960, 40960), 960)

    assert told.text == (
        "960 solves would run one at a time, as if their latency were to be measured: "
        "the base server has no room for a second one"
    )
    assert "give `--concurrency 1` if that is meant" in told.hint
    assert "keep to `--modes base-b8192`, of which 4 fit" in told.hint
    assert concurrency(asked, pair(40960, 40960)) == 1
    assert concurrency(asked.only(["base-b8192"]), pair(40960, 40960)) == 4


@given(st.integers(1, 200), st.integers(1024, 500_000), BUDGETS)
def test_as_many_at_a_time_as_are_advised_are_not_complained_of(asked: int, cache: int, budget: int) -> None:
    made = job(settings={"budget": budget}, concurrency=asked)
    for told in complaints(made, [Room("base", None, {"max_total_num_tokens": cache})], 1000):
        if advised := re.search(r"--concurrency (\d+)`, or some of them wait", told.hint):
            assert int(advised[1]) < asked
            fewer = made.model_copy(update={"concurrency": int(advised[1])})
            left = complaints(fewer, [Room("base", None, {"max_total_num_tokens": cache})], 1000)
            assert not any("at a time" in each.text for each in left)


def test_servers_that_tell_nothing_are_not_complained_of() -> None:
    assert complaints(job(concurrency=500), [Room("base"), Room("small")], 10_000) == []
    assert concurrency(job(), [Room("base"), Room("small")]) == 64


def test_everything_that_is_refused_is_told_at_once_and_can_be_wanted_anyway() -> None:
    asked = job({"kind": "base", "budget": [8192, 32768]})
    found, warned = complaints(asked, pair(20_000, 20_000), 960), list[str]()

    assert [each.refuses for each in found] == [True, True]
    with pytest.raises(UsageError, match=r"is 32768; 960 solves would run one at a time") as refused:
        check(found, anyway=False, warn=warned.append)
    assert str(refused.value.hint).endswith("or `--anyway` as it is")
    assert warned == []
    check(found, anyway=True, warn=warned.append)
    assert len(warned) == 2


def test_questions_are_counted_where_a_server_tells_of_its_room() -> None:
    problems = [Problem(id=f"{n}", question="word " * n) for n in (3, 900, 7)]
    base, small = StoryBackend("base", []), StoryBackend("small", [])
    base.context = 4096
    first, second = rooms(Pair(base, small), job(), problems)

    assert first.longest - first.usual == 893
    assert (second.context, second.longest) == (None, 0)


@pytest.mark.parametrize(
    ("mode", "roles", "words"),
    [
        ({"kind": "small"}, {"base"}, "mode `small` needs a small model"),
        ({"program": "lookahead"}, {"base"}, "mode `lookahead` needs a small model"),
        ({"kind": "base+decode"}, {"base"}, "needs a decode model in the place of base"),
        ({"kind": "base"}, {"small"}, "mode `base` needs a base model"),
        ({"kind": "base+decode"}, {"decode"}, None),
        ({"program": "fractured"}, {"base"}, None),
    ],
)
def test_a_mode_without_its_model_is_refused(mode: dict[str, Any], roles: set[str], words: str | None) -> None:
    (made,) = job(mode).modes
    if words is None:
        check_roles(made, roles)
        return
    with pytest.raises(UsageError, match=words):
        check_roles(made, roles)


def test_the_roles_of_a_pair_are_known_before_it_is_opened() -> None:
    assert PairOptions().roles == {"base", "small"}
    assert PairOptions(base="http://b").roles == {"base"}
    assert PairOptions(small="http://s", models={"verifier": "http://v"}).roles == {"small", "verifier"}
    assert PairOptions().drafting("small").roles == {"base", "small", "decode"}
    assert PairOptions(decode="small", beside=False).roles == {"base", "small"}


JOB = """
dataset = { name = "stories", limit = 6 }
settings = { budget = 5000 }
modes = [{ kind = "base" }, { kind = "small", budget = 50 }]
"""


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[PairOptions]:
    """A job file, and a pair with 4096 tokens of context to run it on; collects the options by which it is opened."""
    asked = list[PairOptions]()

    @contextmanager
    def opened(options: PairOptions, *_: Any) -> Iterator[Any]:
        asked.append(options)
        known = [story(seed) for seed in range(10)]
        made = Pair(StoryBackend("base", known), StoryBackend("small", known))
        for server in made:
            server.context = 4096
        yield made

    monkeypatch.setattr("specreason_sgl.servers.opening.open_pair", opened)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(JOB)
    return asked


SERVERS = ("--base", "http://b", "--small", "http://s")


@pytest.mark.usefixtures("opened")
def test_a_job_that_does_not_fit_solves_nothing_unless_it_is_wanted_anyway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("eval", "mine.toml", *SERVERS, "--out", "run", "--display", "none")

    assert carry_out(monkeypatch, *command) == 2
    refused, hint = capsys.readouterr().err.splitlines()
    assert refused.startswith("error: the base server's context of 4096 tokens has room for")
    assert hint.startswith(
        "hint: start the servers with `specreason up --context 6144`, or give `--set settings.budget="
    )
    assert not (tmp_path / "run").exists()
    assert carry_out(monkeypatch, *command, "--anyway") == 0
    assert capsys.readouterr().err.startswith("note: the base server's context of 4096 tokens")
    assert len(read_run(tmp_path / "run").records) == 12


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_modes_without_their_server_are_refused_before_any_is_opened(
    more: Sequence[str], opened: list[PairOptions], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert carry_out(monkeypatch, "eval", "mine.toml", "--base", "http://b", *more) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: mode `small` needs a small model",
        "hint: name its server with `--small URL`",
    ]
    assert opened == []


@pytest.mark.parametrize("name", sorted(stock()))
def test_the_outline_of_a_program_is_what_it_is_when_it_is_loaded(name: str) -> None:
    whole, made = load(name), outline(name)

    assert str(made.knobs) == str(whole.knobs), "pydantic's fields are equal only to themselves"
    assert (made.name, made.model, made.overlaps, made.objects) == (
        whole.name, whole.model, whole.overlaps, whole.objects
    )  # fmt: skip
