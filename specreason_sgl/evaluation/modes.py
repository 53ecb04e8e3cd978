"""What a mode needs besides its program: the pair it runs over and the parameters that only a run can know."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.datasets import step_checker
from specreason_sgl.evaluation.job import Job, Kind, Mode
from specreason_sgl.lang.loading import Program, find, load
from specreason_sgl.runs.store import Problem

if TYPE_CHECKING:
    from specreason_sgl.engine.endpoint import Endpoint
    from specreason_sgl.lang.solve import Pair
    from specreason_sgl.tally import Tally


ALONE: frozenset[Kind] = frozenset({"base", "base+decode"})
"""Kinds that do without a small model."""
MOST_AT_ONCE = 64
PROMPT_TOKENS = 1024
"""What a question and the judge's turn are reckoned at, at most."""


def load_programs(modes: Iterable[Mode]) -> dict[str, Program]:
    """The programs, by the name that modes have for them; each file is run once.

    Raises:
        UsageError: one of them is not a program.
    """
    return {name: load(name) for name in {mode.program for mode in modes}}


def program_digests(modes: Iterable[Mode]) -> dict[str, str]:
    """A digest of every program's text, so that a run is not resumed with another one."""
    return {mode.program: hashlib.sha256(find(mode.program).read_bytes()).hexdigest()[:16] for mode in modes}


def phases(job: Job) -> list[list[Mode]]:
    """The modes in the order in which they can run: those that need figures of others come last."""
    later = [mode for mode in job.modes if mode.of is not None]
    return [wave for wave in ([m for m in job.modes if m.of is None], later) if wave]


def parameters(mode: Mode, problem: Problem, rates: Mapping[str, float | None]) -> dict[str, Any]:
    """The keyword arguments of the mode's program for a problem.

    Args:
        mode: which.
        problem: the one to be solved.
        rates: the acceptance that modes had, by name.

    Raises:
        UsageError: the truth or the acceptance that the mode needs is not known.
    """
    if mode.kind == "oracle":
        is_right = step_checker(problem)
        if is_right is None:
            raise UsageError(f"nobody knows which steps of `{problem.id}` are right")
        return {**mode.parameters, "is_right": is_right}
    if mode.of is not None:
        rate = rates.get(mode.of)
        if rate is None:
            raise UsageError(f"`{mode.of}` judged no draft, so `{mode.name}` has no acceptance to aim at")
        return {"rate": rate, **mode.parameters}
    return mode.parameters


def fitting(servers: Iterable[Mapping[str, Any]], job: Job) -> int:
    """How many solves the servers can hold at the same time, from what they tell of themselves.

    Args:
        servers: their ``/server_info``.
        job: whose longest solve has to fit that often.
    """
    longest = max(mode.settings.budget + mode.settings.answer_tokens for mode in job.modes) + PROMPT_TOKENS
    room = [MOST_AT_ONCE]
    for told in servers:
        replicas = int(told.get("replicas", 1))
        if cache := told.get("max_total_num_tokens") or told.get("max_total_tokens"):
            room.append(int(cache) // longest * replicas)
        if requests := told.get("max_running_requests"):
            room.append(int(requests) * replicas)
    return max(1, min(room))


def acceptance(solves: Iterable[Tally]) -> float | None:
    """Accepted drafts as a share of the judged ones, over all the solves together."""
    judged = accepted = 0
    for solve in solves:
        judged += solve.judged
        accepted += solve.accepted
    return accepted / judged if judged else None


def pair_for(mode: Mode, pair: Pair, decode: Endpoint | None) -> Pair:
    """The servers a mode runs over.

    Raises:
        UsageError: it needs one that is not there.
    """
    from specreason_sgl.lang.solve import Pair

    base = decode if mode.decodes else pair.base
    if mode.kind is not None and (
        (base is None and mode.kind != "small") or (pair.small is None and mode.kind not in ALONE)
    ):
        missing = "base" if base is None else "small"
        raise UsageError(f"mode `{mode.name}` needs a {missing} model", hint=f"name its server with `--{missing} URL`")
    found = Pair(base, pair.small)
    return Pair(found.base and found.base.plain(), found.small and found.small.plain()) if mode.plain else found
