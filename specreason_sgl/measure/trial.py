"""What can be learned about a pair on somebody's own machine in ten minutes, as one file to send back.

Looked at is what differs from machine to machine and from model to model: where texts may be cut, whether the caches
are used, how prompts travel, where a text stops while tokens are drafted, whether drafted tokens change a text or a
score, and how fast every mode is on the same few questions.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from specreason_sgl.embedded import SETTINGS, tales
from specreason_sgl.engine.transport import AUTO, TRANSPORTS
from specreason_sgl.errors import SpecReasonError
from specreason_sgl.evaluation.job import Job, Mode
from specreason_sgl.evaluation.modes import load_programs, pair_for
from specreason_sgl.evaluation.statistics import Comparison, ModeSummary, analyse
from specreason_sgl.lang.judging import Judge
from specreason_sgl.lang.scope import Scope
from specreason_sgl.lang.solving import solve
from specreason_sgl.measure import bench
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.settings import Settings
from specreason_sgl.text.prompts import DELIMITER
from specreason_sgl.text.steps import first_stop

if TYPE_CHECKING:
    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.lang.pair import Pair

Grade = Literal["ok", "note", "bad"]

PROBLEMS, MINUTES = 20, 10.0
"""The most problems, and the time after which no further one is begun."""
PLACES, JUDGED, TEXTS, TOKENS = 20, 6, 6, 128
"""Seams, judgements and texts that are looked at, and the tokens of a text."""
TRACE = 1200
"""The length in tokens to which a trace grows while the use of the caches is looked at."""
SOLVE_S = 300.0
REST_TRIES, REST_S = 50, 0.1
"""How often the emptying of a cache is tried, and the seconds between."""
CLOSE = 0.25
"""The most that a log-probability may differ between two ways to compute it: two quanta of 8 bits around 16."""
LIKELY = -3.0
"""The least log-probability of a digit that is compared: small ones are noise."""
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL", re.IGNORECASE)
SHORTEST = 6
"""The shortest value of a variable that is taken for a secret."""

Say = Callable[[str], None]


class Check(BaseModel):
    """The result of looking at one thing."""

    model_config = ConfigDict(frozen=True)

    what: str
    grade: Grade
    found: str


class Look(BaseModel):
    """What one server of the base model wrote and how it scored, greedily, so that two servers can be compared."""

    model_config = ConfigDict(frozen=True)

    texts: list[str]
    scores: list[tuple[float, ...]]
    """The log-probabilities of the digits, for each of the same drafts."""
    stops: int
    """Texts that ended at a stop string."""
    late: int
    """Texts for which the server named another stop string than the first one."""
    rounds: int
    """Rounds of drafted tokens; 0 where none are drafted."""
    verified: int
    """Tokens that these rounds brought."""


@dataclass
class Trial:
    """What has been found so far; `look` and `solved` add to it."""

    say: Say = lambda _: None
    checks: list[Check] = field(default_factory=list)
    looks: dict[str, Look] = field(default_factory=dict)
    records: list[SolveRecord] = field(default_factory=list)
    _modes: list[Mode] = field(default_factory=list)

    def look(self, pair: Pair[Endpoint]) -> None:
        """Look at every server of a pair.

        Args:
            pair: the servers, with nothing else to do.
        """
        for role, endpoint in pair.models.items():
            self.say(f"the {role} model's seams and caches")
            self.checks += [seams(endpoint), caches(endpoint)]
        for role in ("base", "decode"):
            if role in pair.models:
                self.say(f"what the {role} model writes and how it scores")
                self.checks.append(transports(pair.models[role]))
                self.looks[role] = look(pair.models[role])
                self.checks.append(stops(self.looks[role], role))
        if "base" in self.looks and "decode" in self.looks:
            self.checks += alike(self.looks["base"], self.looks["decode"])

    def solve(self, pair: Pair[Endpoint], kinds: Iterable[str], problems: Sequence[Problem], until: float) -> None:
        """Solve problems in turn by several kinds of modes, as long as there is time.

        Args:
            pair: the servers, with nothing else to do.
            kinds: the kinds of modes.
            problems: the problems.
            until: when no further problem is begun, by the monotonic clock.
        """
        job = Job.model_validate(
            {"name": "trial", "dataset": {"name": "tales"}, "settings": dict(SETTINGS),
             "modes": [{"kind": kind} for kind in kinds], "problem_limit_s": SOLVE_S}
        )  # fmt: skip
        self._modes += job.modes
        programs = load_programs(job.modes)
        over = [(mode, programs[mode.program], pair_for(mode, pair)) for mode in job.modes]
        for number, problem in enumerate(problems):
            if number and time.monotonic() >= until:
                self.checks.append(
                    Check(what="time", grade="note", found=f"enough for {number} of {len(problems)} problems")
                )
                return
            self.say(f"problem {number + 1} of {len(problems)} by {', '.join(mode.name for mode in job.modes)}")
            for mode, program, servers in over:
                _rest(pair)
                scope = Scope(SOLVE_S)
                self.records.append(solve(problem, program, servers, mode.settings, mode=mode.name, scope=scope))

    def figures(self) -> tuple[list[ModeSummary], list[Comparison]]:
        """What the solves came to; only problems count that every mode has solved."""
        by_mode = {mode.name: {r.problem.id for r in self.records if r.mode == mode.name} for mode in self._modes}
        shared = set.intersection(*by_mode.values()) if by_mode else set()
        joined = Job.model_validate(
            {"name": "trial", "dataset": {"name": "tales"}, "modes": [{"kind": mode.kind} for mode in self._modes]}
        )
        made = analyse([record for record in self.records if record.problem.id in shared], joined.comparisons)
        return made.summaries, made.comparisons

    def told(self) -> dict[str, Any]:
        """All of it as plain data."""
        summaries, comparisons = self.figures()
        return {
            "checks": [check.model_dump() for check in self.checks],
            "modes": [summary.model_dump() for summary in summaries],
            "comparisons": [comparison.model_dump() for comparison in comparisons],
            "looks": {role: seen.model_dump() for role, seen in self.looks.items()},
            "solves": [record.model_dump(mode="json") for record in self.records],
        }


def problems(count: int) -> list[Problem]:
    """Fresh questions of elementary arithmetic, which every model can try."""
    told = [tales.tale(number, "dev") for number in range(count)]
    return [Problem(id=f"try-{n}", question=one.question, answer=str(one.answer)) for n, one in enumerate(told)]


def seams(endpoint: Endpoint) -> Check:
    """Whether texts can be cut behind a step: both parts then have the tokens that they have together."""
    steps = [step + DELIMITER for step in tale_steps(PLACES + 1)]
    apart = [endpoint.tokens(step) for step in steps]
    exact = sum(
        endpoint.tokens(one + other) == [*left, *right]
        for (one, other), (left, right) in zip(pairwise(steps), pairwise(apart), strict=True)
    )
    grade: Grade = "ok" if exact == PLACES else "note"
    return Check(what=f"seams, {endpoint.role}", grade=grade, found=f"{exact} of {PLACES} are exact")


def caches(endpoint: Endpoint) -> Check:
    """Whether the server's cache is used on a trace that grows."""
    use = bench.cache_use(endpoint, TRACE)
    grade: Grade = "ok" if use.most_recomputed <= 2 else "note"  # noqa: PLR2004 - a seam can cost a token on each side
    share = f"{use.cached_share:.1%} of prompts beyond {bench.LONG} tokens cached"
    found = f"{share}, {use.most_recomputed} tokens recomputed"
    return Check(what=f"cache, {endpoint.role}", grade=grade, found=found)


def transports(endpoint: Endpoint) -> Check:
    """Whether a judgement is the same however its prompt travels."""
    from specreason_sgl.engine.backend import Endpoint

    scores: dict[str, list[tuple[float, ...]]] = {}
    for name in TRANSPORTS:
        if name == AUTO:
            continue
        try:
            way = Endpoint(endpoint.url, endpoint.role, api_key=endpoint.api_key, transport=name)
        except SpecReasonError:
            continue
        scores[name] = _scores(way)
    most = max(_apart(some, scores["text"]) for some in scores.values()) if "text" in scores else 0.0
    grade: Grade = "ok" if most <= CLOSE and "sessions" in scores else "note"
    found = f"{', '.join(scores)} agree within {most:.3f} in log-probability"
    return Check(what=f"transports, {endpoint.role}", grade=grade, found=found)


def look(endpoint: Endpoint) -> Look:
    """Have a server of the base model write some texts, step by step as well, and score some drafts."""
    texts: list[str] = []
    ended = late = rounds = verified = 0
    close = endpoint.chat.thinking.close
    for problem in problems(TEXTS):
        text = opening = endpoint.chat.opening(problem.question)
        meta: Mapping[str, Any] = {}
        answer = endpoint.complete(opening, {"max_new_tokens": TOKENS, "temperature": 0})
        texts.append(answer["text"])
        if count := answer["meta_info"].get("spec_verify_ct"):
            rounds, verified = rounds + count, verified + answer["meta_info"]["completion_tokens"] - 1
        for _ in range(PLACES):
            sampling = {"max_new_tokens": TOKENS, "temperature": 0, "stop": [DELIMITER, close], "no_stop_trim": True}
            answer = endpoint.complete(text, sampling)
            meta, found = answer["meta_info"], first_stop(answer["text"], [DELIMITER, close])
            if found is None:
                break
            ended += 1
            late += (meta["finish_reason"] or {}).get("matched") != found[1]
            if found[1] == close:
                break
            text += answer["text"][: found[0]] + found[1]
    return Look(texts=texts, scores=_scores(endpoint), stops=ended, late=late, rounds=rounds, verified=verified)


def stops(seen: Look, role: str) -> Check:
    """Whether texts end at the first stop string in them, as the server sees it; the client cuts there anyway."""
    if not seen.stops:
        return Check(what=f"stops, {role}", grade="note", found="no text met a stop string")
    found = f"{seen.stops - seen.late} of {seen.stops} named their first stop string"
    return Check(what=f"stops, {role}", grade="note" if seen.late else "ok", found=found)


def alike(plain: Look, decoding: Look) -> list[Check]:
    """Whether drafted tokens change what is written, and how it is scored."""
    same = sum(one == other for one, other in zip(plain.texts, decoding.texts, strict=True))
    digits = sum(_digit(one) == _digit(other) for one, other in zip(plain.scores, decoding.scores, strict=True))
    apart = _apart(plain.scores, decoding.scores)
    grades: tuple[Grade, ...] = (
        "ok" if same == len(plain.texts) else "note",
        "ok" if digits == len(plain.scores) and apart <= CLOSE else "note",
        "ok" if decoding.rounds else "bad",
    )
    brought = f"{decoding.verified / decoding.rounds:.2f} tokens a round" if decoding.rounds else "no token was drafted"
    return [
        Check(what="texts under decoding", grade=grades[0], found=f"{same} of {len(plain.texts)} are the same"),
        Check(
            what="scores under decoding",
            grade=grades[1],
            found=f"{digits} of {len(plain.scores)} digits are the same, log-probabilities within {apart:.3f}",
        ),
        Check(what="drafted tokens", grade=grades[2], found=brought),
    ]


def scrubbed(text: str, keys: Iterable[str | None] = (), environment: Mapping[str, str] = os.environ) -> str:
    """A text without secrets and without the name of the home folder.

    Args:
        text: any text, JSON as well.
        keys: keys that must not be in it.
        environment: the variables; the values of those that are named like a secret must not be in it.
    """
    named = [value for name, value in environment.items() if SECRET.search(name) and len(value) >= SHORTEST]
    for secret in sorted({*named, *filter(None, keys)}, key=len, reverse=True):
        text = text.replace(secret, "***")
    home = str(Path(environment["HOME"])) if environment.get("HOME") else "/"
    return text.replace(home, "~") if home != "/" else text


def tale_steps(count: int) -> list[str]:
    """Steps of fresh tales, in the base model's style."""
    told = ((tales.tale(number, "dev"), Random(number)) for number in range(10**6))
    found = (step for tale, rng in told for step in tales.said(tale, "base", rng))
    return [next(found) for _ in range(count)]


def _rest(pair: Pair[Endpoint]) -> None:
    """Empty the servers' caches, so that no mode reads what another one wrote; a call given up may still run there."""
    for server in pair:
        for _ in range(REST_TRIES):
            try:
                server.flush_cache()
                break
            except RuntimeError:
                time.sleep(REST_S)


def _scores(endpoint: Endpoint) -> list[tuple[float, ...]]:
    """The digits' log-probabilities of some drafts, each behind the others."""
    steps = tale_steps(JUDGED + 40)
    judge = Judge(endpoint, bench.PROBLEM, Settings.model_validate({}))
    return [tuple(judge.score(steps[: 40 + n], steps[40 + n]).logprobs) for n in range(JUDGED)]


def _digit(logprobs: Sequence[float]) -> int:
    return max(range(len(logprobs)), key=lambda digit: logprobs[digit])


def _apart(some: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    """The largest difference between log-probabilities of likely digits."""
    pairs = [each for one, other in zip(some, others, strict=True) for each in zip(one, other, strict=True)]
    return max((abs(a - b) for a, b in pairs if max(a, b) >= LIKELY), default=0.0)
