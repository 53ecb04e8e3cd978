"""Jobs: what a file may say, what it stands for, and what is told of mistakes in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.cli import app
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.job import KINDS, PROGRAMS, Job, read_job, resolved, stock
from specreason_sgl.evaluation.modes import concurrency_that_fits, load_programs, parameters, phases, program_digests
from specreason_sgl.files import read_toml
from specreason_sgl.lang.loading import load
from specreason_sgl.lang.loading import stock as stock_programs
from specreason_sgl.runs.store import Problem
from specreason_sgl.tables import parse_override

SMALL: dict[str, Any] = {"name": "j", "dataset": {"name": "stories", "limit": 3}}
BASE, SPECREASON = {"kind": "base"}, {"kind": "specreason"}


def job(*modes: dict[str, Any], **fields: Any) -> Job:
    return Job.model_validate({**SMALL, "modes": list(modes), **fields})


def read(tmp_path: Path, text: str, **overrides: Any) -> Job:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return read_job(path, overrides)


def test_a_mode_is_a_program_plus_parameters() -> None:
    made = job(BASE, {**SPECREASON, "threshold": 5}, {"program": "mine.py", "parameters": {"width": 2}})

    assert [(mode.name, mode.program) for mode in made.modes] == [
        ("base", "base_only"),
        ("specreason", "specreason"),
        ("mine", "mine.py"),
    ]
    assert made.modes[1].parameters == {"threshold": 5}
    assert made.modes[2].parameters == {"width": 2}
    assert set(PROGRAMS) == set(KINDS)
    assert set(PROGRAMS.values()) <= stock_programs().keys()


def test_a_list_makes_a_mode_of_each_value() -> None:
    made = job(BASE, {**SPECREASON, "threshold": [3, 9], "budget": [100, 200]})

    assert [mode.name for mode in made.modes[1:]] == [
        "specreason-t3-b100",
        "specreason-t3-b200",
        "specreason-t9-b100",
        "specreason-t9-b200",
    ]
    assert made.modes[2].settings.budget == 200


def test_modes_share_the_settings_they_do_not_change() -> None:
    made = job(BASE, {**SPECREASON, "temperature": 0.5}, settings={"temperature": 0.0, "budget": 99})

    assert [mode.settings.temperature for mode in made.modes] == [0.0, 0.5]
    assert {mode.settings.budget for mode in made.modes} == {99}


def test_knobs_are_shared_by_the_modes_whose_program_has_them() -> None:
    asked = job(BASE, SPECREASON, {**SPECREASON, "name": "three", "threshold": 3}, parameters={"threshold": 8})
    made = resolved(asked, load_programs(asked.modes))

    assert [mode.parameters.get("threshold") for mode in made.modes] == [None, 8.0, 3.0]
    assert made.modes[1].parameters.keys() == load("specreason").knobs.keys()
    assert resolved(made, load_programs(made.modes)) == made


def test_knobs_that_were_settings_once_are_knobs_wherever_a_job_has_them() -> None:
    asked = job(BASE, {**SPECREASON, "settings": {"first_n": 2}}, settings={"budget": 99, "score": "expected"})
    made = resolved(asked, load_programs(asked.modes))

    assert (made.modes[1].parameters["first_n"], made.modes[1].parameters["score"]) == (2, "expected")
    assert made.modes[0].parameters == {}
    assert {mode.settings.budget for mode in made.modes} == {99}


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ({"thresold": 5}, "mode `specreason`: the program `specreason` has no parameter `thresold`"),
        ({"threshold": -1}, "mode `specreason`: parameter `threshold` of the program `specreason`"),
    ],
)
def test_a_knob_that_the_program_has_not_is_refused_by_its_mode(mode: dict[str, Any], words: str) -> None:
    asked = job(BASE, {**SPECREASON, **mode})

    with pytest.raises(UsageError, match=words):
        resolved(asked, load_programs(asked.modes))


def test_a_mode_says_which_model_stands_in_for_which() -> None:
    made = job(BASE, {"kind": "base+decode"}, {"name": "mine", "program": "base_only", "roles": {"base": "verifier"}})

    assert [mode.roles for mode in made.modes] == [{}, {"base": "decode"}, {"base": "verifier"}]


def test_a_job_can_leave_the_dataset_to_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "open.toml"
    path.write_text('modes = [{ kind = "base" }]\n')

    with pytest.raises(UsageError, match="leaves the dataset open") as refused:
        read_job(path)
    assert refused.value.hint == "name it with `--dataset NAME`"
    assert read_job(path, {"dataset.name": "stories"}).name == "open-stories"


def test_what_a_pair_brings_holds_where_the_job_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text('settings = { budget = 7 }\ndataset = { name = "stories" }\nmodes = [{ kind = "base" }]\n')
    made = read_job(path, None, lambda _: {"budget": 9, "temperature": 0.0})

    assert (made.settings.budget, made.settings.temperature) == (7, 0.0)


def test_a_mode_is_compared_with_the_base_model_on_the_same_budget() -> None:
    made = job({"kind": "base", "budget": [100, 200]}, {**SPECREASON, "budget": [100, 200, 300]})

    assert [mode.against for mode in made.modes] == [None, None, "base-b100", "base-b200", "base-b100"]


def test_what_drafts_tokens_is_also_compared_with_the_base_model_that_only_drafts_tokens() -> None:
    kinds = ("base", "base+decode", "specreason", "specreason+decode", "lookahead+decode")
    made = job(*({"kind": kind, "budget": [100, 200]} for kind in kinds), {"kind": "random", "of": "specreason-b200"})

    assert {(mode, against) for mode, against in made.comparisons if mode.endswith("b200") or "of" in mode} == {
        *((f"{kind}-b200", "base-b200") for kind in kinds[1:]),
        ("specreason+decode-b200", "base+decode-b200"),
        ("lookahead+decode-b200", "base+decode-b200"),
        ("specreason-b200", "random"),
    }
    assert [mode.program for mode in made.modes if mode.kind == "lookahead+decode"] == ["lookahead"] * 2
    assert all(
        mode.roles == {"base": "decode"} for mode in made.modes if mode.name.partition("-")[0].endswith("+decode")
    )


def test_the_control_takes_after_a_specreason_mode_and_runs_behind_it() -> None:
    made = job({"kind": "random"}, BASE, {**SPECREASON, "threshold": [3, 7]}, settings={"threshold": 7})
    control = made.modes[0]

    assert control.of == "specreason-t7"
    assert control.settings == made.mode("specreason-t7").settings
    assert control.against == "base"
    assert [[mode.name for mode in wave] for wave in phases(made)] == [
        ["base", "specreason-t3", "specreason-t7"],
        ["random"],
    ]


def test_controls_at_equal_cost_are_declared_and_the_base_model_alone_is_one_of_them() -> None:
    majority = {"name": "majority", "program": "fractured", "n": [2, 4], "equal_cost": True}
    made = job({"kind": "base", "budget": [100, 200]}, SPECREASON, majority)

    assert made.controls == ["base-b100", "base-b200", "majority-n2", "majority-n4"]
    assert job(BASE, SPECREASON).controls == []
    assert Job.model_validate(made.model_dump()) == made
    assert made.only(["base-b100", "majority-n4"]).controls == ["base-b100", "majority-n4"]


def test_a_job_without_such_controls_is_stored_as_before_there_were_any() -> None:
    assert all("equal_cost" not in mode for mode in job(BASE, SPECREASON).model_dump()["modes"])


@pytest.mark.parametrize("name", ["methods", "methods-paper"])
def test_the_jobs_of_the_methods_have_controls_at_equal_cost(name: str) -> None:
    made = read_job(Path(name), {"dataset.name": "stories"})

    assert {made.mode(control).program for control in made.controls} == {"base_only", "fractured", "elastic"}
    assert not any(made.mode(control).parameters.get("thinker") for control in made.controls)


def test_what_a_mode_has_to_be_told() -> None:
    made = job(SPECREASON, {"kind": "random"}, {"kind": "oracle"})
    problem = Problem(id="p", question="?")

    assert parameters(made.mode("random"), problem, {"specreason": 0.25}) == {"rate": 0.25}
    with pytest.raises(UsageError, match="no acceptance"):
        parameters(made.mode("random"), problem, {"specreason": None})
    with pytest.raises(UsageError, match="nobody knows"):
        parameters(made.mode("oracle"), problem, {})


def test_only_some_modes_and_those_they_need() -> None:
    made = job(BASE, SPECREASON, {"kind": "random"}).only(["random"])

    assert [mode.name for mode in made.modes] == ["specreason", "random"]
    assert [mode.against for mode in made.modes] == [None, None]
    with pytest.raises(UsageError, match="no mode `nope`"):
        made.only(["nope"])


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"repeat": 2}, "repeat"),
        ({"dataset": {"name": "nope"}}, "dataset.name"),
        ({"dataset": {"name": "stories", "size": 3}}, "dataset.size"),
        ({"settings": {"treshold": 3}}, "treshold"),
        ({"settings": {"budget": -1}}, "budget"),
        ({"settings": {"stop": ["x", ""]}}, "stop.1"),
        ({"settings": {"json_schema": "[1]"}}, "`json_schema`: it has to be the text of a JSON object"),
        ({"settings": {"json_schema": "{"}}, "`json_schema`: it has to be the text of a JSON object"),
        ({"settings": {"regex": "("}}, "`regex`: it is no regular expression: missing )"),
        ({"settings": {"json_schema": "{}", "regex": "a"}}, "`regex`: an answer has a JSON schema or a regular"),
        ({"concurrency": 0}, "concurrency"),
        ({"modes": []}, "modes"),
        ({"modes": [{"threshold": 3}]}, "needs a `kind` or a `program`"),
        ({"modes": [{"kind": "magic"}]}, "no kind of mode `magic`"),
        ({"modes": ["base"]}, "a mode is a table"),
        ({"modes": [BASE, BASE]}, "two modes are called `base`"),
        ({"modes": [{**BASE, "equal_cost": 2}]}, "equal_cost"),
        (
            {"modes": [{"program": "base_only", "equal_cost": True, "roles": {"base": "compressed"}}]},
            "mode `base_only` is no control at equal cost: another model stands in for base",
        ),
        ({"modes": [BASE, {**BASE, "name": "b", "against": "c"}]}, "`c`, which is no mode"),
        ({"modes": [{"kind": "random"}]}, "needs a `specreason` mode"),
        ({"modes": [{"kind": "oracle"}], "dataset": {"name": "aime24"}}, "only `stories` and `tales` tell"),
    ],
)
def test_a_mistake_is_told_by_its_field(tmp_path: Path, fields: dict[str, Any], complaint: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('dataset = { name = "stories" }\nmodes = [{ kind = "base" }]\n')

    with pytest.raises(UsageError) as error:
        read_job(path, fields)
    assert complaint in str(error.value)
    assert "mine.toml" in str(error.value)


def test_every_value_can_be_replaced(tmp_path: Path) -> None:
    text = 'repeats = 2\ndataset = { name = "stories" }\nmodes = [{ kind = "base" }]\n'
    made = read(tmp_path, text, **{"repeats": 3, "dataset.limit": 5, "settings.budget": 99, "pair.base": "http://x"})

    assert (made.name, made.repeats, made.dataset.limit, made.pair.base) == ("mine", 3, 5, "http://x")
    assert made.modes[0].settings.budget == 99


def test_a_program_is_looked_for_beside_the_job(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("")
    made = read(
        tmp_path, 'dataset = { name = "stories" }\nmodes = [{ program = "own.py" }, { program = "specreason" }]\n'
    )

    assert [mode.program for mode in made.modes] == [str(tmp_path / "own.py"), "specreason"]
    assert len(set(program_digests(made.modes).values())) == 2


def test_a_job_tells_of_the_code_that_it_brings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text("import sglang as sgl\n@sgl.function\ndef own(s, solve):\n    pass\n")
    (tmp_path / "theirs.toml").write_text(
        'dataset = { name = "stories" }\n'
        'modes = [{ program = "own.py" }, { program = "own.py", name = "again" }, { kind = "base" }]\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["specreason", "eval", "theirs.toml", "--base", "http://127.0.0.1:9", "--wait-for-server", "0"]
    )

    assert app.main() == 3
    assert capsys.readouterr().err.splitlines()[0] == "note: this job runs the code in `own.py`"


@pytest.mark.parametrize("text", ["repeats = ", "repeats: 2"])
def test_a_file_that_is_not_toml(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read(tmp_path, text)


def test_a_job_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(UsageError) as error:
        read_job(Path("nope.toml"))

    assert "`thresholds`" in str(error.value.hint)


@pytest.mark.parametrize("name", sorted(stock()))
def test_the_stock_jobs_are_good_and_so_are_their_programs(name: str) -> None:
    is_open = "name" not in read_toml(stock()[name]).get("dataset", {})
    made = read_job(Path(name), {"dataset.name": "math500"} if is_open else {})

    assert made.name == (f"{name}-math500" if is_open else name)
    assert resolved(made, load_programs(made.modes)).modes


@pytest.mark.parametrize("dataset", ["aime24", "aime25", "math500", "gpqa-diamond", "gsm8k"])
def test_the_benchmarks_have_the_settings_of_the_paper(dataset: str) -> None:
    asked = read_job(Path("paper"), {"dataset.name": dataset})
    made = resolved(asked, load_programs(asked.modes))
    some = [mode for mode in made.modes if mode.kind == "specreason"]

    assert (made.name, made.repeats) == (f"paper-{dataset}", 16)
    assert {(m.settings.temperature, m.settings.top_p, m.parameters["score"]) for m in some} == {(0.6, 0.95, "greedy")}
    assert {m.settings.budget for m in some} == {8192, 32768}
    assert {m.parameters["threshold"] for m in some} == {3, 5, 7, 9}
    assert {m.parameters["first_n"] for m in some} == {0, 10, 20, 30, 40}


@pytest.mark.parametrize(
    ("text", "value"),
    [("a=1", 1), ("a = 0.5", 0.5), ("a=true", True), ('a="x"', "x"), ("a=x.jsonl", "x.jsonl"), ("a=[1, 2]", [1, 2])],
)
def test_an_override_is_toml_or_text(text: str, value: Any) -> None:
    assert parse_override(text) == ("a", value)


def test_an_override_without_a_value() -> None:
    with pytest.raises(UsageError, match="not `name=value`"):
        parse_override("repeats")


@given(st.lists(st.sampled_from([1, 3.5, 7, 9]), min_size=1, max_size=4, unique=True), st.booleans())
def test_a_resolved_job_resolves_to_itself(thresholds: list[float], control: bool) -> None:
    made = job(BASE, {**SPECREASON, "threshold": thresholds}, *([{"kind": "random"}] if control else []))

    assert Job.model_validate(made.model_dump()) == made
    assert Job.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("servers", "most"),
    [
        ([], 64),
        ([{"max_total_num_tokens": 32768}], 9),
        ([{"max_total_num_tokens": 32768}, {"max_total_num_tokens": 8192}], 2),
        ([{"max_total_num_tokens": 32768, "max_running_requests": 4}], 4),
        ([{"max_total_num_tokens": 100}], 1),
    ],
)
def test_as_many_at_once_as_the_servers_hold(servers: list[dict[str, Any]], most: int) -> None:
    assert concurrency_that_fits(servers, job(BASE, settings={"budget": 2048, "answer_tokens": 512})) == most
