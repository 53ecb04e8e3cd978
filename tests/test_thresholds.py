"""Thresholds that keep a promise: the curves by hand, the tests by simulation, and the command from end to end."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specreason_sgl.cli import app as command_line
from specreason_sgl.embedded.stories import story
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.audit import Judged
from specreason_sgl.evaluation.datasets import DatasetSpec, load
from specreason_sgl.evaluation.job import read_job, resolved
from specreason_sgl.evaluation.modes import load_programs
from specreason_sgl.evaluation.thresholds import (
    EXPECTED,
    GREEDY,
    Curve,
    bounds,
    calibrate,
    calibrate_drafts,
    certified,
    choose,
    conclusion,
    coverage,
    coverage_of_drafts,
    curves_of,
    fewest,
    fit,
    halves,
    needed,
    p_values,
    problems_of,
    table,
)
from specreason_sgl.events import SolveEnded, SolveStarted, StepDrafted, scores
from specreason_sgl.lang import loading
from specreason_sgl.lang.knobs import set_knobs
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.redecide import redecide
from specreason_sgl.runs.store import RunConfig, RunWriter, SolveRecord, closing, read_run
from specreason_sgl.serve.menu import menu
from specreason_sgl.settings import Settings
from specreason_sgl.testing import StoryBackend
from specreason_sgl.text.score_file import ScoreFile, read_score, with_score_read
from specreason_sgl.text.scoring import RULES, Fitted, Score, certain, features
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.steps import utility

KNOWN = [story(seed) for seed in range(200)]
HEAD = Fitted(digits=(-0.2,) * 9 + (0.3,), length=-0.1, entropy=-0.4, bias=1.0)
"""Coefficients that depend on everything."""


def judged(digit: int, *, right: bool, problem: str = "p") -> Judged:
    return Judged(problem, certain(str(digit)), 7, "greedy", right)


def invented(problems: int, seed: int, *, sure: float = 0.3) -> list[Judged]:
    """Drafts of problems, some of which have far more wrong ones; of the wrong ones some get high scores."""
    lots, made = np.random.default_rng(seed), []
    for number in range(problems):
        badness = lots.beta(0.5, 4)
        for _ in range(lots.integers(3, 9)):
            right = bool(lots.random() > badness)
            digit = int(lots.integers(6, 10)) if right or lots.random() < sure else int(lots.integers(0, 8))
            logprobs = np.log(0.02 + 0.8 * (np.arange(10) == digit)) + 0.1 * lots.normal(size=10)
            score = Score(tuple(float(p) for p in logprobs), int(lots.integers(5, 40)))
            made.append(Judged(f"{number:05}", score, 7, "greedy", right))
    return made


def falling(losses: np.ndarray[Any, Any]) -> Curve:
    """A curve with these losses, which accepts one draft more at each threshold."""
    accepted = np.broadcast_to(np.arange(1, losses.shape[1] + 1, dtype=float), losses.shape)
    thresholds = tuple(float(losses.shape[1] - place) for place in range(losses.shape[1]))
    return Curve("expected", thresholds, losses, accepted, np.full(losses.shape, float(losses.shape[1])))


def test_a_problems_loss_is_its_share_of_wrong_drafts_that_are_accepted() -> None:
    some = [
        judged(9, right=True, problem="a"),
        judged(8, right=False, problem="a"),
        judged(3, right=False, problem="a"),
        judged(9, right=False, problem="a"),
        judged(5, right=False, problem="b"),
    ]
    (curve,) = curves_of(some, ["greedy"])
    at = dict(zip(curve.thresholds, curve.losses.T.tolist(), strict=True))

    assert (at[9], at[8], at[5], at[0]) == ([0.25, 0], [0.5, 0], [0.5, 1], [0.75, 1])
    assert curve.accepted[:, GREEDY.index(5)].tolist() == [3, 1]
    assert curve.drafts[:, 0].tolist() == [4, 1]


@given(st.integers(0, 2**32), st.sampled_from([*RULES, HEAD]))
@settings(max_examples=20)
def test_curves_decide_as_the_acceptance_rule_and_never_rise_with_the_threshold(seed: int, rule: Any) -> None:
    some = invented(4, seed)
    (curve,) = curves_of(some, [rule])

    assert curve.thresholds == (GREEDY if rule == "greedy" else EXPECTED)
    for place in range(0, len(curve.thresholds), 1 if rule == "greedy" else 50):
        threshold = curve.thresholds[place]
        assert curve.accepted[:, place].sum() == sum(draft.score.accepts(rule, threshold) for draft in some)
    assert (np.diff(curve.losses, axis=1) >= 0).all()
    assert curve.accepted[:, -1].sum() == len(some), "a threshold of 0 accepts all"


@pytest.mark.parametrize("risk", [0.02, 0.2])
def test_losses_at_the_level_pass_no_more_often_than_was_allowed(risk: float) -> None:
    lots = np.random.default_rng(5)
    sorts: tuple[Callable[..., Any], ...] = (
        lambda size: lots.random(size) < risk,
        lambda size: lots.beta(0.3, 0.3 / risk - 0.3, size),
    )

    for draw in sorts:
        passed = [p_values(np.asarray(draw((150, 1)), float), risk)[0] <= 0.1 for _ in range(400)]
        assert np.mean(passed) <= 0.1 + 3 * math.sqrt(0.09 / 400)


def test_the_promise_is_kept_over_many_calibrations() -> None:
    """The risk of the threshold that is chosen, known because the losses are drawn from a known distribution."""
    lots, risk, confidence, kept, made = np.random.default_rng(1), 0.1, 0.8, [], 0
    rates = np.linspace(0.0, 0.2, 21)
    for _ in range(300):
        curves = [falling((lots.random((120, 1)) < rates).astype(float)) for _ in range(2)]
        found = choose(curves, risk, confidence)
        made += found is not None
        kept.append(found is None or rates[curves[0].thresholds.index(found[1])] < risk)

    assert made > 250
    assert np.mean(kept) >= confidence - 0.02


@given(st.integers(0, 2**32), st.floats(0.02, 0.5), st.floats(0.5, 0.99))
@settings(max_examples=20)
def test_what_is_chosen_is_certified_and_accepts_most(seed: int, risk: float, confidence: float) -> None:
    found = calibrate(curves_of(invented(60, seed)), "wrong-steps", risk, confidence)
    passed = [point for points in found.calibration.curves.values() for point in points if point.certified]
    chosen = found.calibration.chosen

    useful = [point.acceptance for point in passed if point.acceptance]
    assert (chosen is None) == (not useful) == (found.rule is None)
    for points in found.calibration.curves.values():
        marks = [point.certified for point in points]
        assert marks == sorted(marks, reverse=True), "nothing below one that failed"
        assert all(point.bound >= point.risk for point in points)
        assert all(point.bound <= risk + 0.001 for point in points if point.certified)
    if chosen:
        assert chosen.acceptance == max(useful)
        assert str(found.rule) == chosen.rule


def test_among_more_rules_the_guarantee_is_shared() -> None:
    (curve,) = curves_of(invented(400, 3), ["expected"])
    alone, together = (certified(curve, 0.1, 0.1 / rules) for rules in (1, 3))

    assert 0 < together < alone
    assert (bounds(curve.losses, 0.1 / 3) >= bounds(curve.losses, 0.1)).all()


@pytest.mark.parametrize(("risk", "confidence", "rules"), [(0.02, 0.9, 2), (0.1, 0.5, 1), (0.001, 0.99, 3)])
def test_the_fewest_problems_are_enough_without_a_loss_and_one_less_is_not(
    risk: float, confidence: float, rules: int
) -> None:
    least, mistake = fewest(risk, confidence, rules), (1 - confidence) / rules

    assert p_values(np.zeros((least, 1)), risk)[0] <= mistake
    assert p_values(np.zeros((least - 1, 1)), risk)[0] > mistake


def test_how_many_problems_it_takes_is_told_from_the_strictest_threshold() -> None:
    def curve(problems: int) -> Curve:
        return falling(np.full((problems, 1), 0.02))

    wanted = needed([curve(10)], 0.05, 0.9)

    assert wanted is not None
    assert certified(curve(wanted), 0.05, 0.1) == 1
    assert certified(curve(wanted - 1), 0.05, 0.1) == 0
    assert needed([curve(10)], 0.02, 0.9) is None


def test_too_few_problems_and_too_sure_a_judge_are_told_apart() -> None:
    def said(drafts: list[Judged]) -> str:
        return conclusion(calibrate_drafts(drafts, 0.02, 0.9).calibration)[0]

    few = said([judged(9, right=True, problem=str(number)) for number in range(40)])
    sure = said([judged(9, right=number % 10 > 0, problem=str(number)) for number in range(400)])
    some = said([judged(9, right=number % 200 > 0, problem=str(number)) for number in range(200)])

    begin = "no threshold that accepts anything can be certified at 2 % with"
    assert few == f"{begin} 40 problems: at least 149 are needed, even if no loss were seen"
    assert sure == (
        f"{begin} 400 problems: the strictest one has a risk of 10.00 % as measured, so more problems would not help"
    )
    assert some.startswith(f"{begin} 200 problems: it takes ")
    assert some.endswith(" if the strictest one's risk stays at 0.50 %")


def test_a_rule_is_fitted_to_what_the_library_says() -> None:
    from sklearn.linear_model import LogisticRegression

    some = invented(100, 7)
    rule = fit(some)
    given_features = np.array([features(draft.score) for draft in some])
    model = LogisticRegression(max_iter=10_000).fit(
        given_features - given_features.mean(axis=0), [draft.right for draft in some]
    )
    expected = model.predict_proba(given_features - given_features.mean(axis=0))[:, 1]

    assert [draft.score.value(rule) / 9 for draft in some] == pytest.approx(expected.tolist(), abs=1e-9)
    right, wrong = ([d.score.value(rule) for d in some if d.right is side] for side in (True, False))
    assert np.mean(right) > np.mean(wrong) + 1


def test_a_rule_is_never_tested_on_the_problems_that_it_was_fitted_on() -> None:
    some = invented(40, 2)
    names = problems_of(some)
    tested = {names[place] for place in halves(40, 0)[1]}
    other = [replace(draft, right=draft.right != (draft.problem in tested)) for draft in some]
    one, turned = (calibrate_drafts(drafts, 0.3, 0.8, fitting=True).calibration for drafts in (some, other))

    assert (one.fitted_on, one.problems) == (20, 20)
    assert list(one.curves) == list(turned.curves), "the same coefficients, whatever the tested half is"
    assert one.curves != turned.curves


@pytest.mark.parametrize("drafts", [[], [judged(9, right=True)], [judged(9, right=True, problem=p) for p in "abcd"]])
def test_what_cannot_be_fitted_is_refused(drafts: list[Judged]) -> None:
    with pytest.raises(UsageError, match=r"cannot be fitted|only one"):
        calibrate_drafts(drafts, 0.1, 0.9, fitting=True)


@pytest.mark.parametrize("fitting", [False, True])
def test_coverage_is_checked_on_problems_that_the_promise_did_not_use(fitting: bool) -> None:
    found = coverage_of_drafts(invented(160, 11), 0.2, 0.9, 4, fitting=fitting)

    assert found.splits == 4
    assert found.promised > 0.5
    assert found.kept == 1
    assert found.risk is not None
    assert 0 < found.risk < 0.2


def test_a_broken_promise_is_counted() -> None:
    lossy = falling(np.concatenate([np.zeros((400, 1)), np.ones((4, 1))]))
    found = coverage([lossy], 0.01, 0.5, 60)

    assert 0 < found.promised
    assert found.kept < 1


def pair(skill: float = 0.7) -> Pair:
    return Pair(StoryBackend("base", KNOWN), StoryBackend("small", KNOWN, skill=skill))


def solved(count: int = 8, program: str = "specreason", mode: str | None = None, **knobs: Any) -> list[SolveRecord]:
    loaded, problems = loading.load(program), load(DatasetSpec(name="stories", limit=count))
    values = set_knobs(loaded.knobs, knobs, program)
    records = [solve(problem, loaded, pair(), Settings(), parameters=values) for problem in problems]
    return [record.model_copy(update={"mode": mode or record.mode}) for record in records]


@pytest.mark.parametrize("program", ["specreason", "lookahead"])
def test_a_run_with_a_fitted_rule_can_be_decided_again_for_ever(program: str, tmp_path: Path) -> None:
    (record,) = solved(1, program, score=HEAD.model_dump(mode="json"), threshold=3)
    with closing(RunWriter(tmp_path / "run", RunConfig(created=datetime.now(UTC), program="x", pair="y"))) as writer:
        writer.append(record)
    (stored,) = read_run(tmp_path / "run").records
    started = stored.events[0]

    assert isinstance(started, SolveStarted)
    assert (started.rule, started.score_rule) == (HEAD, str(HEAD))
    again = redecide(stored.events, 3, started.rule)
    assert again.decisions
    assert again.flips == ()
    assert [decision.value for decision in again.decisions] == [score.value(HEAD) for _, score in scores(stored.events)]
    drafts = [event for event in stored.events if isinstance(event, StepDrafted)]
    assert {score.tokens for _, score in scores(stored.events)} == {draft.tokens for draft in drafts if draft.text}
    state = SolveState.of(stored.events)
    step = next(step for step in state.steps if step.score)
    assert step.score is not None
    assert utility(step.score, step.draft_tokens, state.rule) == (
        again.decisions[0].value,
        f"{again.decisions[0].value:.1f}",
    )


def test_a_fitted_rule_never_leaves_the_judges_scale() -> None:
    steep = Fitted(digits=(1e6,) * 10, length=1e6, entropy=1e6, bias=-1e6)
    for tokens in (-5, 0, 10**400):
        score = Score((-100.0,) * 9 + (0.0,), tokens)
        assert 0 <= score.value(steep) <= 9
        assert score.accepts(steep, 0)
        assert not score.accepts(steep, 9.01)


def test_a_stored_rule_of_another_form_is_read_as_none() -> None:
    for told in ({"digits": "many"}, {"digits": [0] * 10, "length": 1e300, "entropy": 0, "bias": 0}, 3, None):
        started = SolveStarted(question="q", program="p", budget=9, score_rule="greedy", parameters={"score": told})
        assert started.rule == "greedy"


def test_the_same_coefficients_have_the_same_name() -> None:
    other = HEAD.model_copy(update={"bias": 1.5})

    assert str(HEAD) == str(Fitted.model_validate_json(HEAD.model_dump_json())) != str(other)


def written(path: Path, threshold: float = 3.0) -> Path:
    path.write_text(ScoreFile(score=HEAD, threshold=threshold).model_dump_json(), encoding="utf-8")
    return path


def test_a_file_brings_its_threshold_unless_another_one_is_given(tmp_path: Path) -> None:
    file = str(written(tmp_path / "head.json"))
    told = HEAD.model_dump(mode="json")

    assert with_score_read({"score": file, "first_n": 1}) == {"score": told, "threshold": 3, "first_n": 1}
    assert with_score_read({"score": file, "threshold": 8}) == {"score": told, "threshold": 8}
    assert with_score_read({"score": "greedy"}) == {"score": "greedy"}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"score": "greedy"}', '{"specreason_score": 2, "score": "greedy", "threshold": 1}',
     '{"score": "best", "threshold": 1}', '{"score": "greedy", "threshold": -1}',
     '{"score": {"digits": [1], "length": 0, "entropy": 0, "bias": 0}, "threshold": 1}'],
)  # fmt: skip
def test_a_file_that_holds_no_rule_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "head.json"
    path.write_text(text)

    with pytest.raises(UsageError, match=r"holds no score rule") as refused:
        read_score(path)
    assert "\n" not in str(refused.value)


def test_a_job_takes_a_file_for_all_modes_or_for_one(tmp_path: Path) -> None:
    file = written(tmp_path / "head.json")
    path = tmp_path / "job.toml"
    path.write_text(
        'dataset = { name = "stories" }\n'
        f'parameters = {{ score = "{file}" }}\n'
        "modes = [\n"
        '  { kind = "base" }, { kind = "specreason" }, { kind = "specreason", name = "other", threshold = 5 },\n'
        f'  {{ kind = "specreason", name = "greedy", score = "greedy", threshold = 7 }},\n'
        "]\n"
    )
    job = read_job(path)
    made = resolved(job, load_programs(job.modes))
    told = HEAD.model_dump(mode="json")

    knobs = {mode.name: (mode.parameters.get("score"), mode.parameters.get("threshold")) for mode in made.modes}
    assert knobs == {"base": (None, None), "specreason": (told, 3), "other": (told, 5), "greedy": ("greedy", 7)}
    assert resolved(made, load_programs(made.modes)) == made


def test_whoever_serves_can_give_a_file_a_name(tmp_path: Path) -> None:
    offer = menu([f"careful=specreason,score={written(tmp_path / 'head.json')}"])["careful"]

    assert offer.parameters == {"score": HEAD.model_dump(mode="json"), "threshold": 3}


def test_whoever_asks_over_the_network_names_no_file(tmp_path: Path) -> None:
    known = loading.load("specreason").knobs

    with pytest.raises(UsageError, match=r"`score` of the program `specreason`: .*'expected' or 'greedy'"):
        set_knobs(known, {"score": str(written(tmp_path / "head.json"))}, "specreason")
    assert known["score"].kind == "expected or greedy or Fitted"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["specreason", *arguments])
    return command_line.main()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a mode for each of two thresholds, as a job would have made it."""
    folder = tmp_path_factory.mktemp("calibrated")
    path = folder / "job.toml"
    path.write_text(
        'dataset = { name = "stories", limit = 30 }\n'
        'modes = [{ kind = "base" }, { kind = "specreason", threshold = [2, 7] }]\n'
    )
    job = read_job(path)
    job = resolved(job, load_programs(job.modes))
    extra: dict[str, Any] = {"job": job.model_dump(mode="json")}
    config = RunConfig(created=datetime.now(UTC), program="job", pair="none", **extra)
    with closing(RunWriter(folder / "run", config)) as writer:
        for mode in job.modes:
            for record in solved(30, mode.program, mode.name, **mode.parameters):
                right = record.tally.answer == record.problem.answer
                ended = SolveEnded(outcome="answered", correct=right)
                events = [event for event in record.events if not isinstance(event, SolveEnded)]
                writer.append(record.model_copy(update={"events": [*events, ended]}))
    return folder / "run"


def test_the_command_chooses_writes_and_draws(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, plots = tmp_path / "head.json", tmp_path / "plots"
    options = ("--mode", "specreason-t7", "--risk", "0.3", "--fit", "--coverage", "2")
    assert call(monkeypatch, "calibrate", str(run), *options, "--out", str(file), "--plots", str(plots)) == 0
    out, err = capsys.readouterr()

    assert "less than 30 % of a solve's drafts are wrong and accepted" in out
    assert "checked on the other half of the problems in 2 splits" in out
    assert f"score: {file}" in err
    assert (plots / "thresholds.svg").read_text().lstrip().startswith("<?xml")
    assert read_score(file).promise["risk"] == 0.3

    assert call(monkeypatch, "calibrate", str(run), *options, "--json", "--plots", str(plots)) == 0, "drawn anew"
    made = json.loads(capsys.readouterr().out)
    assert made["problems"] == made["fitted_on"] == 15
    assert made["chosen"]["certified"]
    assert len(made["curves"]) == 3


def test_no_rule_is_written_over(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = tmp_path / "head.json"
    rule.write_text("certified once")

    assert call(monkeypatch, "calibrate", str(run), "--risk", "0.3", "--out", str(rule)) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: `{rule}` is there already",
        "hint: nothing is written over: choose another file, or take this away",
    ]
    assert rule.read_text() == "certified once"


def test_accuracy_is_certified_from_a_mode_for_each_threshold(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "calibrate", str(run), "--of", "accuracy", "--risk", "0.2", "--json") == 0
    made = json.loads(capsys.readouterr().out)

    assert [point["threshold"] for point in made["curves"]["greedy"]] == [7, 2]
    strict, loose = made["curves"]["greedy"]
    assert strict["risk"] <= loose["risk"]
    assert loose["bound"] > 0.2
    assert made["chosen"]["threshold"] == 7
    assert made["fixed"]["threshold"] == 7


def test_a_run_is_decided_again_by_a_file_with_the_same_warnings(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ("--problem", "story-0", "--mode", "specreason-t7")
    assert call(monkeypatch, "replay", str(run), *one, "--score", str(written(tmp_path / "a.json", 9.0)), "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["solves"]

    assert (row["redecision"]["score"], row["redecision"]["threshold"]) == (str(HEAD), 9)
    assert row["redecision"]["flips"]
    assert call(monkeypatch, "replay", str(run), *one, "--score", str(tmp_path / "a.json"), "--threshold", "9.5") == 0
    out = capsys.readouterr().out
    assert f"at threshold 9.5 ({HEAD})" in out
    assert "the stored text is counterfactual after step" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--risk", "2"), "`--risk 2` is no share"),
        (("--confidence", "0"), "`--confidence 0` is no share"),
        (("--of", "speed"), "no risk `speed`"),
        (("--of", "accuracy", "--fit"), "does not go with"),
        (("--of", "accuracy", "--mode", "base"), "`base` has no other thresholds beside it"),
        (("--mode", "base"), "no drafts that a judge has scored"),
        (("--out", "head.txt"), "does not end in `.json`"),
    ],
)
def test_mistakes_are_told_in_a_line(
    run: Path,
    arguments: tuple[str, ...],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "calibrate", str(run), *arguments) == 2
    assert complaint in capsys.readouterr().err


def test_a_run_without_a_mode_for_each_threshold_says_nothing_about_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RunConfig(created=datetime.now(UTC), program="j", pair="none")
    with closing(RunWriter(tmp_path / "run", config)) as writer:
        writer.append(solved(1)[0])

    assert call(monkeypatch, "calibrate", str(tmp_path / "run"), "--of", "accuracy") == 2
    assert "a stored run says nothing about what would have followed another decision" in capsys.readouterr().err


def test_without_the_library_the_command_says_what_to_install(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mapie", None)

    assert call(monkeypatch, "calibrate", str(run)) == 2
    assert "pip install 'specreason_sgl[calibrate]'" in capsys.readouterr().err


def test_what_is_not_certified_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--mode", "specreason-t7", "--risk", "0.001", "--out", str(tmp_path / "head.json"))

    assert call(monkeypatch, "calibrate", str(run), *options) == 1
    assert (
        "no threshold that accepts anything can be certified at 0.1 % with 30 problems: at least"
        in capsys.readouterr().out
    )
    assert not (tmp_path / "head.json").exists()


def test_the_table_shows_what_differs_and_what_was_chosen() -> None:
    made = calibrate_drafts([judged(9, right=True, problem=str(n)) for n in range(60)], 0.1, 0.9).calibration
    shown = table(made).rows

    assert [row[:2] for row in shown] == [("expected", "9"), ("greedy, chosen", "9")]
