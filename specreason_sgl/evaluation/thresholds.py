"""Thresholds that keep a promise: with a given confidence, the risk is below a wanted level.

Learn-then-test (Angelopoulos et al., arXiv 2110.01052), with MAPIE's p-values and tests. The problem is the unit,
because steps of one chain are not exchangeable: each threshold has a loss between 0 and 1 on each problem, and the risk
is their mean. For every score rule the thresholds are tested from the strictest on until one fails, and the rules share
the probability of a mistake equally; so the promise holds for whatever is chosen among all that passed.

Everything here comes from stored runs, without a server.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.audit import Judged
from specreason_sgl.evaluation.job import Job, Mode
from specreason_sgl.evaluation.report import Table
from specreason_sgl.evaluation.statistics import Estimate, Floats, Row, by_problem, rows, speed_up
from specreason_sgl.events import SolveStarted
from specreason_sgl.runs.store import SolveRecord
from specreason_sgl.tally import Tally
from specreason_sgl.text.scoring import DIGITS, RULES, Fitted, ScoreRule, features

Risk = Literal["wrong-steps", "accuracy"]

FIXED: tuple[ScoreRule, float] = ("greedy", 7.0)
"""The rule and the threshold that everything is compared with."""
EXPECTED = tuple(round(9 - place / 100, 2) for place in range(901))
"""The thresholds that are tried for a rule with fractions, the strictest first; they do not depend on the data."""
GREEDY = tuple(float(digit) for digit in reversed(range(len(DIGITS))))
LEVELS = np.linspace(0.001, 0.999, 999)
"""The levels that a bound can have."""
MOST_PROBLEMS = 1_000_000
MOST_ROUNDS = 10_000
"""Of the fit; it needs some hundred."""

Places = NDArray[np.int_]
Seed = int | tuple[int, int]


@dataclass(frozen=True)
class Curve:
    """A score rule at falling thresholds: what every problem loses there, and how many drafts are accepted."""

    rule: ScoreRule
    thresholds: tuple[float, ...]
    losses: Floats
    """From 0 to 1, by problem and threshold."""
    accepted: Floats
    """Accepted drafts, by problem and threshold."""
    drafts: Floats
    """Drafts, by problem and threshold."""

    @property
    def acceptance(self) -> Floats:
        """Accepted drafts as a share of all, by threshold."""
        return np.asarray(self.accepted.sum(axis=0) / np.maximum(self.drafts.sum(axis=0), 1.0))

    @property
    def strictest(self) -> float:
        """The mean loss of the strictest threshold that accepts anything; 1 if none does."""
        found = self.losses.mean(axis=0)[self.acceptance > 0]
        return float(found[0]) if len(found) else 1.0

    def of(self, problems: Places) -> Curve:
        """The same for some of the problems."""
        return replace(
            self, losses=self.losses[problems], accepted=self.accepted[problems], drafts=self.drafts[problems]
        )

    def at(self, threshold: float) -> Curve | None:
        """The same at one threshold; None if it is not among them."""
        if threshold not in self.thresholds:
            return None
        place = [self.thresholds.index(threshold)]
        return replace(
            self,
            thresholds=(threshold,),
            losses=self.losses[:, place],
            accepted=self.accepted[:, place],
            drafts=self.drafts[:, place],
        )


@dataclass(frozen=True)
class Pace:
    """The mean seconds of a step's calls in a run."""

    draft: float
    judge: float
    base: float
    """Of a step that the base model writes."""

    def seconds(self, drafts: Floats, accepted: Floats) -> Floats:
        """How long so many drafts take, with what is written in place of those that are not accepted."""
        return np.asarray(drafts * (self.draft + self.judge) + (drafts - accepted) * self.base)

    def speed_up(self, acceptance: float) -> float:
        """Against the base model alone, without the answer."""
        return self.base / (self.draft + self.judge + (1 - acceptance) * self.base)


class Point(BaseModel):
    """A threshold of a score rule."""

    model_config = ConfigDict(frozen=True)

    rule: str
    threshold: float
    risk: float
    """As measured."""
    bound: float
    """The risk is below it with the wanted confidence, whatever is chosen among the rules."""
    certified: bool
    acceptance: float
    speed_up: float | None
    """Against the base model alone, as predicted from what the run's calls took."""


class Coverage(BaseModel):
    """How often the promise was kept where it could be checked: on the problems that were not used to make it."""

    model_config = ConfigDict(frozen=True)

    splits: int
    kept: float
    """The share of splits in which the risk on the other half was below the wanted level, or nothing was promised."""
    promised: float
    """The share of splits in which a threshold was certified."""
    risk: float | None
    """The mean risk on the other half where a threshold was certified."""
    acceptance: float | None
    """The mean share of drafts that it accepted there."""


class Calibration(BaseModel):
    """What was found out about the thresholds of a run."""

    model_config = ConfigDict(frozen=True)

    of: Risk
    risk: float
    """The wanted level."""
    confidence: float
    mode: str | None
    problems: int
    """The problems on which thresholds were tested."""
    fitted_on: int
    """Further problems, on which a rule was fitted."""
    curves: dict[str, list[Point]]
    chosen: Point | None
    """The certified one that accepts most drafts."""
    fixed: Point | None
    """The greedy digit at 7, for comparison."""
    gain: Estimate | None
    """How much faster the chosen one is than the fixed one, as predicted, paired by problem."""
    strictest: float
    """The risk of the strictest threshold that accepts anything, as measured."""
    needed: int | None
    """How many problems would certify it; None if no number would, by what was measured."""
    coverage: Coverage | None = None


@dataclass(frozen=True)
class Found:
    """A calibration, with the rule that was chosen."""

    calibration: Calibration
    rule: ScoreRule | None


def problems_of(drafts: Iterable[Judged]) -> list[str]:
    """The problems of drafts, in the order of the curves' rows."""
    return sorted({draft.problem for draft in drafts})


def curves_of(drafts: Sequence[Judged], rules: Iterable[ScoreRule] = RULES) -> list[Curve]:
    """The curves of score rules on drafts that are known to be right or wrong.

    A problem's loss is the number of wrong drafts that are accepted, as a share of its drafts.

    Args:
        drafts: the drafts; their own rule and threshold do not matter.
        rules: the rules.
    """
    problems = {problem: place for place, problem in enumerate(problems_of(drafts))}
    of = np.array([problems[draft.problem] for draft in drafts], int)
    wrong = np.array([not draft.right for draft in drafts], bool)
    count = np.bincount(of).astype(float)[:, None]
    made = []
    for rule in rules:
        thresholds = GREEDY if rule == "greedy" else EXPECTED
        values = np.array([draft.score.value(rule) for draft in drafts])
        from_place = np.searchsorted(-np.array(thresholds), -values)
        shape = len(problems), len(thresholds)
        accepted = _counted(of, from_place, shape)
        losses = _counted(of[wrong], from_place[wrong], shape) / count
        made.append(Curve(rule, thresholds, losses, accepted, np.broadcast_to(count, shape)))
    return made


def _counted(problems: Places, from_place: Places, shape: tuple[int, int]) -> Floats:
    """How many drafts are accepted, by problem and threshold, if each is from one place in the thresholds on."""
    began = np.zeros((shape[0], shape[1] + 1))
    np.add.at(began, (problems, from_place), 1.0)
    return np.asarray(began.cumsum(axis=1)[:, :-1])


Family = Mapping[ScoreRule, Mapping[float, Mode]]
"""Modes that differ in threshold and score rule alone, by both."""


def families(records: Iterable[SolveRecord], job: Job | None) -> list[Family]:
    """The modes of a run that have several thresholds beside a mode of the base model, in the job's order.

    Raises:
        UsageError: there are no such modes.
    """
    started = {record.mode: event for record in records for event in record.events if isinstance(event, SolveStarted)}
    found: dict[str, dict[ScoreRule, dict[float, Mode]]] = {}
    for mode in job.modes if job else ():
        told = started.get(mode.name)
        if told and told.threshold is not None and mode.against in started:
            rest = {name: value for name, value in mode.parameters.items() if name not in {"threshold", "score"}}
            alike = mode.model_copy(update={"name": "", "parameters": rest}).model_dump_json()
            found.setdefault(alike, {}).setdefault(told.rule, {})[told.threshold] = mode
    swept = [family for family in found.values() if max(map(len, family.values())) > 1]
    if not swept:
        raise UsageError(
            "the run has no mode for each of several thresholds beside one of the base model",
            hint="a stored run says nothing about what would have followed another decision; run a job such as "
            "`eval/thresholds.toml`",
        )
    return list(swept)


def names_of(family: Family) -> list[str]:
    """The names of the modes."""
    return [mode.name for modes in family.values() for mode in modes.values()]


def curves_by_mode(records: Iterable[SolveRecord], family: Family) -> list[Curve]:
    """The curves of modes that have several thresholds.

    A problem's loss is how much more often the base model solves it; there is no credit for problems that the mode
    solves more often.

    Args:
        records: the run's solves.
        family: the modes.

    Raises:
        UsageError: answers are not known, or there is no problem that all modes have solved.
    """
    by_mode: dict[str, list[Row]] = defaultdict(list)
    for row in rows(records):
        by_mode[row.mode].append(row)
    names = {name for modes in family.values() for mode in modes.values() for name in (mode.name, mode.against or "")}
    if not all(row.known for name in names for row in by_mode[name]):
        raise UsageError("the right answers of the run's problems are not known")
    right = {name: by_problem(by_mode[name], lambda row: row.right) for name in names}
    shared = sorted(set.intersection(*(set(means) for means in right.values())))
    if not shared:
        raise UsageError("no problem is solved in all of these modes", hint="go on with the run: `--resume`")
    made = []
    for rule, modes in family.items():
        thresholds = tuple(sorted(modes, reverse=True))
        losses, accepted, drafts = (np.zeros((len(shared), len(thresholds))) for _ in range(3))
        for place, mode in enumerate(modes[threshold] for threshold in thresholds):
            judged = by_problem(by_mode[mode.name], lambda row: row.tally.judged)
            passed = by_problem(by_mode[mode.name], lambda row: row.tally.accepted)
            base, own = right[mode.against or ""], right[mode.name]
            losses[:, place] = [max(0.0, base[problem] - own[problem]) for problem in shared]
            accepted[:, place] = [passed[problem] for problem in shared]
            drafts[:, place] = [judged[problem] for problem in shared]
        made.append(Curve(rule, thresholds, losses, accepted, drafts))
    return made


def pace_of(tallies: Sequence[Tally]) -> Pace | None:
    """What the calls of solves took; None unless drafts were judged and the base model wrote something."""
    judged = sum(tally.judged for tally in tallies)
    steps = sum(sum(tally.steps.values()) for tally in tallies)
    written = sum(tally.tokens["regenerate"] for tally in tallies)
    if not judged or not steps or not written:
        return None

    def spent(kind: str) -> float:
        return sum(float(tally.seconds[kind]) for tally in tallies)

    base = spent("regenerate") / written * sum(tally.thinking_tokens for tally in tallies) / steps
    return Pace(spent("draft") / judged, spent("judge") / judged, base) if base else None


def p_values(losses: Floats, risk: float) -> Floats:
    """For every threshold how probable losses as low as these are if its risk were above the level."""
    from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value as hoeffding_bentkus

    return np.asarray(hoeffding_bentkus(losses.mean(axis=0), len(losses), risk)[:, 0])


def bounds(losses: Floats, mistake: float) -> Floats:
    """For every threshold the least level that its risk is below, but for this probability of a mistake."""
    from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value as hoeffding_bentkus

    means, places = np.unique(losses.mean(axis=0), return_inverse=True)
    known = hoeffding_bentkus(means, len(losses), LEVELS) <= mistake
    return np.where(known.any(axis=1), LEVELS[known.argmax(axis=1)], 1.0)[places]


def certified(curve: Curve, risk: float, mistake: float) -> int:
    """How many of a curve's thresholds are certified, from the strictest on.

    Args:
        curve: a rule's curve.
        risk: the wanted level.
        mistake: the probability with which it may be wrong to certify any of them.
    """
    from mapie.risk_control import control_fwer

    return len(control_fwer(p_values(curve.losses, risk), mistake, "fixed_sequence"))


def choose(curves: Sequence[Curve], risk: float, confidence: float) -> tuple[Curve, float] | None:
    """The certified threshold that accepts most drafts, with its curve: the strictest of equals.

    None if none is certified that accepts anything.

    Args:
        curves: the rules' curves on the same problems.
        risk: the wanted level.
        confidence: the probability with which the risk has to be below it.
    """
    mistake = (1 - confidence) / len(curves)
    passed = [
        (share, threshold, number)
        for number, curve in enumerate(curves)
        for share, threshold in zip(curve.acceptance, curve.thresholds[: certified(curve, risk, mistake)], strict=False)
        if share
    ]
    if not passed:
        return None
    _, threshold, number = max(passed)
    return curves[number], threshold


def needed(curves: Sequence[Curve], risk: float, confidence: float) -> int | None:
    """How many problems would certify the strictest threshold that accepts anything if its risk is as measured.

    None if no number would.
    """
    mistake, least = (1 - confidence) / len(curves), min(curve.strictest for curve in curves)

    def is_enough(problems: int) -> bool:
        return bool(p_values(np.full((problems, 1), least), risk)[0] <= mistake)

    if least >= risk:
        return None
    enough = 1
    while not is_enough(enough):
        enough *= 2
        if enough > MOST_PROBLEMS:
            return None
    low = enough // 2
    while enough - low > 1:
        middle = (low + enough) // 2
        low, enough = (low, middle) if is_enough(middle) else (middle, enough)
    return enough


def fewest(risk: float, confidence: float, rules: int = 1) -> int:
    """The fewest problems that can certify anything: where no loss is seen at all."""
    return math.ceil(math.log((1 - confidence) / rules) / math.log(1 - risk))


def fit(drafts: Sequence[Judged]) -> Fitted:
    """Fit a score rule to drafts that are known to be right or wrong.

    Raises:
        UsageError: they are all right, or all wrong.
    """
    from sklearn.linear_model import LogisticRegression

    given = np.array([features(draft.score) for draft in drafts])
    right = np.array([draft.right for draft in drafts])
    if right.all() or not right.any():
        raise UsageError("a rule cannot be fitted: its half of the drafts is all right, or all wrong")
    model = LogisticRegression(max_iter=MOST_ROUNDS).fit(given - given.mean(axis=0), right)
    *digits, length, entropy = (float(weight) for weight in model.coef_[0])
    bias = float(model.intercept_[0] - model.coef_[0] @ given.mean(axis=0))
    return Fitted(digits=tuple(digits), length=length, entropy=entropy, bias=bias)


def halves(problems: int, seed: Seed) -> tuple[Places, Places]:
    """The places of problems, split at random into two halves."""
    drawn = np.random.default_rng(seed).permutation(problems)
    return np.sort(drawn[: problems // 2]), np.sort(drawn[problems // 2 :])


def calibrate_drafts(
    drafts: Sequence[Judged], risk: float, confidence: float, *, fitting: bool = False, pace: Pace | None = None,
    mode: str | None = None, seed: int = 0,
) -> Found:  # fmt: skip
    """Find the threshold that accepts most drafts while wrong ones are accepted below a wanted level.

    Args:
        drafts: drafts that are known to be right or wrong.
        risk: the wanted level: wrong drafts that are accepted, as a share of a problem's drafts.
        confidence: the probability with which the risk has to be below it.
        fitting: whether to fit a rule on half of the problems; all rules are then tested on the other half.
        pace: what the run's calls took.
        mode: the mode whose drafts they are.
        seed: the seed of the halves.

    Raises:
        UsageError: there is no draft, or a rule is to be fitted and cannot be.
    """
    tested, rules, fitted_on = _apart(drafts, fitting, seed)
    return calibrate(curves_of(tested, rules), "wrong-steps", risk, confidence, pace, mode=mode, fitted_on=fitted_on)


def _apart(drafts: Sequence[Judged], fitting: bool, seed: Seed) -> tuple[list[Judged], list[ScoreRule], int]:
    """The drafts on which thresholds are tested, the rules, and the number of problems on which one was fitted."""
    if not fitting:
        return list(drafts), list(RULES), 0
    problems = problems_of(drafts)
    if len(problems) < 2:  # noqa: PLR2004
        raise UsageError("a rule is fitted on half of the problems, and there is only one")
    first = {problems[place] for place in halves(len(problems), seed)[0]}
    fitted = fit([draft for draft in drafts if draft.problem in first])
    return [draft for draft in drafts if draft.problem not in first], [*RULES, fitted], len(first)


def calibrate(
    curves: Sequence[Curve], of: Risk, risk: float, confidence: float, pace: Pace | None = None, *,
    mode: str | None = None, fitted_on: int = 0,
) -> Found:  # fmt: skip
    """Choose among the thresholds of curves on the same problems.

    Args:
        curves: the curves.
        of: which risk their losses are.
        risk: the wanted level.
        confidence: the probability with which the risk has to be below it.
        pace: what the run's calls took.
        mode: the mode whose drafts they are about.
        fitted_on: further problems, on which a rule was fitted.
    """
    mistake = (1 - confidence) / len(curves)
    points = {str(curve.rule): _points(curve, certified(curve, risk, mistake), mistake, pace) for curve in curves}
    found = choose(curves, risk, confidence)
    fixed = next((c for curve in curves if curve.rule == FIXED[0] and (c := curve.at(FIXED[1]))), None)
    chosen = found[0].at(found[1]) if found else None

    def point(of: Curve | None) -> Point | None:
        return next((p for p in points[str(of.rule)] if p.threshold == of.thresholds[0]), None) if of else None

    gain = None
    if chosen and fixed and pace:
        gain = speed_up(*(pace.seconds(each.drafts[:, 0], each.accepted[:, 0]) for each in (chosen, fixed)))
    return Found(
        Calibration(
            of=of,
            risk=risk,
            confidence=confidence,
            mode=mode,
            problems=len(curves[0].losses),
            fitted_on=fitted_on,
            curves=points,
            chosen=point(chosen),
            fixed=point(fixed),
            gain=gain,
            strictest=min(curve.strictest for curve in curves),
            needed=None if chosen else needed(curves, risk, confidence),
        ),
        chosen.rule if chosen else None,
    )


def _points(curve: Curve, passed: int, mistake: float, pace: Pace | None) -> list[Point]:
    each = zip(
        curve.thresholds, curve.losses.mean(axis=0), bounds(curve.losses, mistake), curve.acceptance, strict=True
    )
    return [
        Point(
            rule=str(curve.rule),
            threshold=threshold,
            risk=float(risk),
            bound=float(bound),
            certified=place < passed,
            acceptance=float(share),
            speed_up=pace.speed_up(float(share)) if pace else None,
        )
        for place, (threshold, risk, bound, share) in enumerate(each)
    ]


def coverage_of_drafts(
    drafts: Sequence[Judged], risk: float, confidence: float, splits: int, *, fitting: bool = False
) -> Coverage:
    """How often the promise is kept: thresholds are chosen on one half of the problems, and checked on the other.

    Args:
        drafts: drafts that are known to be right or wrong.
        risk: the wanted level.
        confidence: the probability with which the risk has to be below it.
        splits: in how many ways the problems are split.
        fitting: whether a rule is fitted, on half of the first half.
    """
    problems = problems_of(drafts)
    checked = []
    known = curves_of(drafts)
    for number in range(splits):
        first, other = halves(len(problems), number)
        if not fitting:
            checked.append(_checked([curve.of(first) for curve in known], known, other, risk, confidence))
            continue
        names = {problems[place] for place in first}
        tested, rules, _ = _apart([draft for draft in drafts if draft.problem in names], fitting, (number, 1))
        all_curves = [*known, *curves_of(drafts, rules[len(RULES) :])]
        left = np.array([problems.index(name) for name in problems_of(tested)])
        checked.append(_checked([curve.of(left) for curve in all_curves], all_curves, other, risk, confidence))
    return _coverage(checked, risk)


def coverage(curves: Sequence[Curve], risk: float, confidence: float, splits: int) -> Coverage:
    """The same for curves on the same problems."""
    checked = []
    for number in range(splits):
        first, other = halves(len(curves[0].losses), number)
        checked.append(_checked([curve.of(first) for curve in curves], curves, other, risk, confidence))
    return _coverage(checked, risk)


def _checked(
    some: Sequence[Curve], curves: Sequence[Curve], other: Places, risk: float, confidence: float
) -> tuple[float, float] | None:
    """The risk and the acceptance, on other problems, of what is chosen on some; None if nothing is certified."""
    found = choose(some, risk, confidence)
    if found is None:
        return None
    curve = next(curve for curve in curves if curve.rule == found[0].rule).of(other).at(found[1])
    if curve is None:
        return None
    return float(curve.losses.mean()), float(curve.acceptance[0])


def _coverage(checked: Sequence[tuple[float, float] | None], risk: float) -> Coverage:
    promised = [each for each in checked if each is not None]
    broken = sum(found > risk for found, _ in promised)
    return Coverage(
        splits=len(checked),
        kept=1 - broken / len(checked),
        promised=len(promised) / len(checked),
        risk=float(np.mean([found for found, _ in promised])) if promised else None,
        acceptance=float(np.mean([share for _, share in promised])) if promised else None,
    )


MEANING: Mapping[Risk, str] = {
    "wrong-steps": "of a solve's drafts are wrong and accepted",
    "accuracy": "of the problems are lost that the base model solves",
}


def conclusion(made: Calibration) -> list[str]:
    """What was found, in plain sentences."""
    lines = [_promise(made, made.chosen) if made.chosen else _why_not(made)]
    if gain := made.gain:
        interval = "" if gain.low is None or gain.high is None else f" [{gain.low:.2f}, {gain.high:.2f}]"
        rule, threshold = FIXED
        lines.append(
            f"steps are {gain.value:.2f}{interval} times as fast as with `{rule}` at {threshold:g}, as predicted"
        )
    if held := made.coverage:
        lines.append(
            f"checked on the other half of the problems in {held.splits} splits: kept in {100 * held.kept:.1f} %, "
            f"promised in {100 * held.promised:.1f} %"
            + ("" if held.risk is None else f", where the mean risk was {100 * held.risk:.2f} %")
            + ("" if held.acceptance is None else f" and {100 * held.acceptance:.0f} % of the drafts were accepted")
        )
    return lines


def _promise(made: Calibration, chosen: Point) -> str:
    return (
        f"`{chosen.rule}` at {chosen.threshold:g}: with {100 * made.confidence:g} % confidence less than "
        f"{100 * made.risk:g} % {MEANING[made.of]}; measured on {_problems(made)}: {100 * chosen.risk:.2f} %, with "
        f"{100 * chosen.acceptance:.0f} % of the drafts accepted"
    )


def _why_not(made: Calibration) -> str:
    least = fewest(made.risk, made.confidence, len(made.curves))
    strictest = f"{100 * made.strictest:.2f} %"
    why = [f"at least {least} are needed, even if no loss were seen"] if made.problems < least else []
    if made.needed is None:
        why.append(f"the strictest one has a risk of {strictest} as measured, so more problems would not help")
    elif made.needed > max(least, made.problems):
        why.append(f"it takes {made.needed} if the strictest one's risk stays at {strictest}")
    return (
        f"no threshold that accepts anything can be certified at {100 * made.risk:g} % with {_problems(made)}: "
        f"{'; '.join(why) or 'a stricter one has failed'}"
    )


def _problems(made: Calibration) -> str:
    return f"{made.problems} problem{'s' if made.problems != 1 else ''}"


def table(made: Calibration) -> Table:
    """The curves at whole thresholds, as far as they differ, and what was chosen."""
    timed = any(point.speed_up for points in made.curves.values() for point in points)
    whole = [[point for point in points if point.threshold.is_integer()] for points in made.curves.values()]
    alike = {
        (below.rule, below.threshold)
        for points in whole
        for above, below in pairwise(points)
        if (above.risk, above.acceptance) == (below.risk, below.acceptance)
    }
    rows = [
        (
            f"{point.rule}{', chosen' if point == made.chosen else ''}",
            f"{point.threshold:g}",
            f"{100 * point.risk:.2f}",
            f"{100 * point.bound:.1f}",
            "yes" if point.certified else "no",
            f"{100 * point.acceptance:.0f} %",
            *([f"{point.speed_up:.2f}x"] if point.speed_up else []),
        )
        for points in made.curves.values()
        for point in points
        if point == made.chosen or (point.threshold.is_integer() and (point.rule, point.threshold) not in alike)
    ]
    columns = ("rule", "threshold", "risk, %", "below, %", "certified", "accepted", *(["speed-up"] if timed else []))
    note = f"Risk: how many {MEANING[made.of]}."
    if timed:
        note += (
            " Speed-ups of the thinking are against the base model alone, as predicted from what the calls of this run "
            "took under its load."
        )
    return Table("Thresholds", columns, tuple(rows), note)
