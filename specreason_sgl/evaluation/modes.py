"""What a mode needs besides its program: its servers, and the parameters that are known only during a run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.datasets import step_checker
from specreason_sgl.evaluation.job import Job, Kind, Mode
from specreason_sgl.events import Role
from specreason_sgl.lang.backend import Backend
from specreason_sgl.lang.loading import Program, find, is_stock, load
from specreason_sgl.runs.store import Problem

if TYPE_CHECKING:
    from specreason_sgl.lang.pair import Pair
    from specreason_sgl.tally import Tally


NEEDED: Mapping[Kind, tuple[Role, ...]] = {"base": ("base",), "base+decode": ("base",), "small": ("small",)}
"""The models that a kind of mode needs, where that is not both."""
MOST_AT_ONCE = 64
PROMPT_TOKENS = 1024
"""The assumed most tokens of a question together with the judge's turn."""


class Server(Backend, Protocol):
    """What a run needs of a model server, in addition to what a solve needs."""

    def plain(self) -> Self:
        """The same server, called as SGLang's own frontend does."""
        ...

    def flush_cache(self) -> None:
        """Empty its radix cache.

        Raises:
            RuntimeError: the cache is in use.
        """
        ...


def load_programs(modes: Iterable[Mode], *, stock: bool = False) -> dict[str, Program]:
    """Load the programs of modes, by the name that modes use; each file is run once.

    Args:
        modes: the modes.
        stock: whether to load only programs that come with the package, so that no other code is run.

    Raises:
        UsageError: a file is not a program.
    """
    names = {mode.program for mode in modes}
    return {name: load(name) for name in names if not stock or is_stock(find(name))}


def program_digests(modes: Iterable[Mode]) -> dict[str, str]:
    """A digest of every program's text, so that a run is not resumed with a changed program."""
    return {mode.program: hashlib.sha256(find(mode.program).read_bytes()).hexdigest()[:16] for mode in modes}


def phases(job: Job) -> list[list[Mode]]:
    """The modes in groups, in the order in which they can run: modes that need results of other modes come last."""
    later = [mode for mode in job.modes if mode.of is not None]
    return [wave for wave in ([m for m in job.modes if m.of is None], later) if wave]


def parameters(mode: Mode, problem: Problem, rates: Mapping[str, float | None]) -> dict[str, Any]:
    """The keyword arguments of the mode's program for a problem.

    Args:
        mode: the mode.
        problem: the problem to be solved.
        rates: the acceptance of finished modes, by name.

    Raises:
        UsageError: the right steps or the acceptance that the mode needs are not known.
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


def concurrency_that_fits(servers: Iterable[Mapping[str, Any]], job: Job) -> int:
    """How many solves the servers have room for at the same time, from their reports about themselves.

    Args:
        servers: the servers' ``/server_info``.
        job: the job; its longest possible solve has to fit that often.
    """
    return room_for(servers, max(mode.settings.budget + mode.settings.answer_tokens for mode in job.modes))


def room_for(servers: Iterable[Mapping[str, Any]], tokens: int) -> int:
    """How many solves the servers have room for at the same time.

    Args:
        servers: the servers' ``/server_info``.
        tokens: the most tokens that a solve generates and keeps.
    """
    longest = tokens + PROMPT_TOKENS
    room = [MOST_AT_ONCE]
    for info in servers:
        replicas = int(info.get("replicas", 1))
        if cache := info.get("max_total_num_tokens") or info.get("max_total_tokens"):
            room.append(int(cache) // longest * replicas)
        if requests := info.get("max_running_requests"):
            room.append(int(requests) * replicas)
    return max(1, min(room))


def acceptance(solves: Iterable[Tally]) -> float | None:
    """Accepted drafts as a share of the judged ones, over all the solves together."""
    judged = accepted = 0
    for solve in solves:
        judged += solve.judged
        accepted += solve.accepted
    return accepted / judged if judged else None


def pair_for(mode: Mode, pair: Pair[Server]) -> Pair[Server]:
    """The servers a mode runs over.

    Raises:
        UsageError: the mode needs a server that is not there.
    """
    from specreason_sgl.lang.pair import Pair

    for role, other in mode.roles.items():
        if other not in pair.models:
            raise UsageError(
                f"mode `{mode.name}` needs a {other} model in the place of {role}",
                hint=f"name its server with `--model {other}=URL`",
            )
    models = pair.models | {role: pair.models[other] for role, other in mode.roles.items()}
    for role in NEEDED.get(mode.kind, ("base", "small")) if mode.kind else ():
        if role not in models:
            raise UsageError(f"mode `{mode.name}` needs a {role} model", hint=f"name its server with `--{role} URL`")
    if mode.plain:
        models = {role: model.plain() for role, model in models.items()}
    return Pair(models.pop("base", None), models.pop("small", None), models)
