"""What a mode needs besides its program: its servers, and the parameters that are known only during a run."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.datasets import step_checker
from specreason_sgl.evaluation.job import KINDS, PROGRAMS, Job, Kind, Mode
from specreason_sgl.events import Role
from specreason_sgl.lang.backend import Backend
from specreason_sgl.lang.loading import Program, find, is_stock, load
from specreason_sgl.lang.outlines import outline
from specreason_sgl.runs.store import Problem
from specreason_sgl.text.prompts import embedded_name

if TYPE_CHECKING:
    from specreason_sgl.lang.pair import Pair
    from specreason_sgl.tally import Tally


BOTH: tuple[Role, ...] = ("base", "small")
NEEDED: Mapping[Kind, tuple[Role, ...]] = {"base": ("base",), "base+decode": ("base",), "small": ("small",)}
"""The models that a kind of mode needs, where that is not both."""
_BY_PROGRAM = {PROGRAMS[kind]: kind for kind in reversed(KINDS)}
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


def load_programs(modes: Iterable[Mode]) -> dict[str, Program]:
    """Load the programs of modes, by the name that modes use; each file is run once.

    Raises:
        UsageError: a file is not a program.
    """
    return {name: load(name) for name in {mode.program for mode in modes}}


def outlines(modes: Iterable[Mode]) -> dict[str, Program]:
    """The outlines of those programs of modes that come with the package, by the name that modes use.

    No other code is run, and SGLang is not needed.

    Raises:
        UsageError: there is no such program.
    """
    return {name: outline(name) for name in {mode.program for mode in modes} if is_stock(find(name))}


def program_digests(modes: Iterable[Mode]) -> dict[str, str]:
    """A digest of every program's text, so that a run is not resumed with a changed program."""
    return {mode.program: hashlib.sha256(find(mode.program).read_bytes()).hexdigest()[:16] for mode in modes}


def model_name(model_path: str | None) -> str | None:
    """The name of a model: its path, or for the embedded pair a name that does not depend on where the package is."""
    return model_path and (embedded_name(model_path) or model_path)


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


def kind_of(mode: Mode) -> Kind | None:
    """The mode's kind; where it has none and runs the program of a kind over its own models, that kind."""
    return mode.kind or (None if mode.roles else _BY_PROGRAM.get(mode.program))


def concurrency_that_fits(
    servers: Iterable[Mapping[str, Any]], job: Job, prompt: int = PROMPT_TOKENS, context: int | None = None
) -> int:
    """How many solves the servers have room for at the same time, from their reports about themselves.

    Args:
        servers: the servers' ``/server_info``.
        job: the job; its longest possible solve has to fit that often.
        prompt: the most tokens of a question together with the judge's turn.
        context: the most tokens that a solve can have.
    """
    longest = max(mode.settings.budget + mode.settings.answer_tokens for mode in job.modes)
    return room_for(servers, longest if context is None else min(longest, context - prompt), prompt)


def room_for(servers: Iterable[Mapping[str, Any]], tokens: int, prompt: int = PROMPT_TOKENS) -> int:
    """How many solves the servers have room for at the same time.

    Args:
        servers: the servers' ``/server_info``.
        tokens: the most tokens that a solve generates and keeps.
        prompt: the most tokens of a question together with the judge's turn.
    """
    told = (held_by(info, tokens + prompt) for info in servers)
    return max(1, min([MOST_AT_ONCE, *(each for each in told if each is not None)]))


def held_by(info: Mapping[str, Any], tokens: int) -> int | None:
    """How many solves of so many tokens a server runs at the same time, from its ``/server_info``; None if unknown."""
    cache, requests = cache_of(info), info.get("max_running_requests")
    known = [cache // max(1, tokens) if cache else None, int(requests) if requests else None]
    return min((each * int(info.get("replicas", 1)) for each in known if each is not None), default=None)


def cache_of(info: Mapping[str, Any]) -> int | None:
    """The tokens that the cache of one server has room for, from its ``/server_info``; None if it does not say."""
    told = info.get("max_total_num_tokens") or info.get("max_total_tokens")
    return int(told) if told else None


def acceptance(solves: Iterable[Tally]) -> float | None:
    """Accepted drafts as a share of the judged ones, over all the solves together."""
    judged = accepted = 0
    for solve in solves:
        judged += solve.judged
        accepted += solve.accepted
    return accepted / judged if judged else None


def check_roles(mode: Mode, roles: Collection[Role]) -> None:
    """Make sure that a mode has its models.

    Args:
        mode: the mode.
        roles: the roles of the models that there are.

    Raises:
        UsageError: the mode needs a model that is not there.
    """
    for role, other in mode.roles.items():
        if other not in roles:
            raise UsageError(
                f"mode `{mode.name}` needs a {other} model in the place of {role}",
                hint=f"name its server with `--model {other}=URL`",
            )
    kind = kind_of(mode)
    for role in NEEDED.get(kind, BOTH) if kind else ():
        if role not in roles and role not in mode.roles:
            raise UsageError(f"mode `{mode.name}` needs a {role} model", hint=f"name its server with `--{role} URL`")


def pair_for(mode: Mode, pair: Pair[Server]) -> Pair[Server]:
    """The servers a mode runs over.

    Raises:
        UsageError: the mode needs a server that is not there.
    """
    from specreason_sgl.lang.pair import Pair

    check_roles(mode, pair.models)
    models = pair.models | {role: pair.models[other] for role, other in mode.roles.items()}
    if mode.plain:
        models = {role: model.plain() for role, model in models.items()}
    return Pair(models.pop("base", None), models.pop("small", None), models)
