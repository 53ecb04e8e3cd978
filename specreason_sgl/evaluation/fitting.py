"""Whether a job fits its servers: what would surprise its user in the end is told before anything is solved.

A thinking budget that a server has no room for ends early, and more solves than a cache holds wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation import modes
from specreason_sgl.evaluation.job import Job, Mode
from specreason_sgl.events import Role
from specreason_sgl.lang.chain import MARGIN
from specreason_sgl.runs.store import Problem
from specreason_sgl.settings import Settings

if TYPE_CHECKING:
    from specreason_sgl.lang.pair import Pair

MANY = 100
"""From so many solves on, one at a time is refused where the job does not ask for it."""
NAMED = 3
STEP = 1024
"""Contexts are advised in multiples of this."""


@dataclass(frozen=True)
class Room:
    """What a server has room for, as far as it tells."""

    role: Role
    context: int | None = None
    """The most tokens that a prompt and what is written behind it may have together."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """Its ``/server_info``."""
    usual: int = 0
    """The tokens of a question of median length, in the template of the model."""
    longest: int = 0
    """The tokens of the longest question."""

    @property
    def most(self) -> int | None:
        """The most tokens that a solve can have, by the context or by the whole cache; None if unknown."""
        return min((each for each in (self.context, modes.cache_of(self.info)) if each), default=None)

    @property
    def place(self) -> str:
        """What holds the tokens, in words."""
        return f"the {self.role} server's {'context' if self.most == self.context else 'cache'} of {self.most} tokens"

    def thinking(self, settings: Settings, question: int) -> int:
        """The thinking tokens that fit behind a question of so many tokens, with an answer behind them."""
        room = settings.budget if self.most is None else self.most - question - settings.answer_tokens - MARGIN
        return max(0, room)

    def at_once(self, settings: Settings) -> int | None:
        """How many of the longest possible solves it has room for at the same time; None if unknown."""
        tokens = self.longest + settings.budget + settings.answer_tokens + MARGIN
        return modes.held_by(self.info, min(tokens, self.context or tokens))


@dataclass(frozen=True)
class Complaint:
    """Something about a job that its servers have no room for."""

    text: str
    hint: str
    """What to change."""
    refuses: bool
    """Whether nothing is solved unless the user says that it shall be."""


def rooms(pair: Pair[Any], job: Job, problems: Sequence[Problem]) -> list[Room]:
    """What the servers of a pair have room for; they are asked, and how many tokens the questions have.

    Args:
        pair: the servers.
        job: the job.
        problems: the problems to solve.
    """
    by_length = sorted(problems, key=lambda each: len(each.question))
    found = []
    for role, server in pair.models.items():
        room = Room(role, server.context, server.server_info())
        if room.most is not None and by_length:
            usual, longest = (
                _tokens(server, by_length[place], job.settings) for place in (len(by_length) // 2, len(by_length) - 1)
            )
            room = Room(role, room.context, room.info, usual, longest)
        found.append(room)
    return found


def _tokens(server: Any, problem: Problem, settings: Settings) -> int:
    chat = server.chat.asking(server.chat.prompts.with_words(settings.instruction, settings.judge))
    return len(server.tokens(chat.opening(problem.question, choice=problem.choice, earlier=problem.earlier)))


def concurrency(job: Job, servers: Sequence[Room]) -> int:
    """How many solves run at the same time: as the job says, or as many as the servers have room for."""
    if job.concurrency is not None:
        return job.concurrency
    prompt = max((room.longest + MARGIN for room in servers if room.longest), default=modes.PROMPT_TOKENS)
    context = min((room.context for room in servers if room.context), default=None)
    return modes.concurrency_that_fits([room.info for room in servers], job, prompt, context)


def complaints(job: Job, servers: Sequence[Room], solves: int) -> list[Complaint]:
    """What the servers have no room for.

    Args:
        job: the job.
        servers: what they have room for.
        solves: how many solves the job has.
    """
    return [*_budgets(job, servers), *_many(job, servers, solves)]


def check(found: Sequence[Complaint], *, anyway: bool, warn: Callable[[str], None]) -> None:
    """Warn of what does not fit, or refuse it.

    Args:
        found: what does not fit.
        anyway: whether nothing is refused.
        warn: called with a line for each thing that is not refused.

    Raises:
        UsageError: something is refused.
    """
    refused = [] if anyway else [each for each in found if each.refuses]
    for each in found:
        if each not in refused:
            warn(f"{each.text}; {each.hint}")
    if refused:
        hints = dict.fromkeys(each.hint for each in refused)
        raise UsageError("; ".join(each.text for each in refused), hint=f"{'; '.join(hints)}; or `--anyway` as it is")


def _budgets(job: Job, servers: Sequence[Room]) -> list[Complaint]:
    """Complaints about budgets that do not fit: behind a usual question, and behind the longest alone."""
    found: dict[bool, list[tuple[Mode, Room]]] = {True: [], False: []}
    for mode in job.modes:
        tight = min(
            _written_to(mode, servers), key=lambda room: room.thinking(mode.settings, room.longest), default=None
        )
        if tight and tight.thinking(mode.settings, tight.longest) < mode.settings.budget:
            found[tight.thinking(mode.settings, tight.usual) < mode.settings.budget].append((mode, tight))
    short = [mode for some in found.values() for mode, _ in some]
    others = [mode.name for mode in job.modes if mode not in short]
    return [_short(job, some, others, refuses=refuses) for refuses, some in found.items() if some]


def _short(job: Job, some: Sequence[tuple[Mode, Room]], others: Sequence[str], *, refuses: bool) -> Complaint:
    def left(mode: Mode, room: Room, *, least: bool = False) -> int:
        return room.thinking(mode.settings, room.usual if refuses and not least else room.longest)

    mode, room = min(some, key=lambda each: left(*each))
    which, question = ("a question", room.usual) if refuses else ("the longest question", room.longest)
    text = (
        f"{room.place} has room for {left(mode, room)} tokens of thinking behind {which} of {question}, "
        f"and the budget of {_names([mode for mode, _ in some])} is {max(mode.settings.budget for mode, _ in some)}"
    )
    wanted = max(m.settings.budget + m.settings.answer_tokens + each.longest for m, each in some) + MARGIN
    hints = [f"start the servers with `specreason up --context {-(-wanted // STEP) * STEP}`"]
    if all(mode.settings.budget == job.settings.budget for mode, _ in some):
        hints.append(f"give `--set settings.budget={min(left(*each, least=True) for each in some)}`")
    elif others:
        hints.append(f"keep to `--modes {','.join(others)}`")
    return Complaint(text, ", or ".join(hints), refuses)


def _many(job: Job, servers: Sequence[Room], solves: int) -> list[Complaint]:
    """A complaint where the servers' room and the solves at a time do not go together."""
    longest = max((mode.settings for mode in job.modes), key=lambda each: each.budget + each.answer_tokens)
    known = [(held, room.role) for room in servers if (held := room.at_once(longest)) is not None]
    if not known or solves == 1:
        return []
    held, role = min(known)
    fits = max(1, held)
    if job.concurrency is None and fits == 1:
        hints = ["give `--concurrency 1` if that is meant", "start the servers with `specreason up --concurrency N`"]
        if shorter := _roomier(job, servers):
            hints.append("keep to `--modes {1}`, of which {0} fit".format(*shorter))
        text = (
            f"{solves} solves would run one at a time, as if their latency were to be measured: "
            f"the {role} server has no room for a second one"
        )
        return [Complaint(text, ", or ".join(hints), refuses=solves >= MANY)]
    if job.concurrency is not None and job.concurrency > fits:
        text = f"{job.concurrency} solves at a time, and the {role} server has room for {fits} of the longest"
        return [Complaint(text, f"give `--concurrency {fits}`, or some of them wait for the others", refuses=False)]
    return []


def _roomier(job: Job, servers: Sequence[Room]) -> tuple[int, str] | None:
    """How many solves fit at a time in the modes with the shortest budget, and these, where that is more than one."""
    least = min(mode.settings.budget for mode in job.modes)
    some = [mode for mode in job.modes if mode.settings.budget == least]
    room = [held for mode in some for each in servers if (held := each.at_once(mode.settings)) is not None]
    fits = min(room, default=1)
    return (fits, ",".join(mode.name for mode in some)) if fits > 1 and len(some) < len(job.modes) else None


def _written_to(mode: Mode, servers: Sequence[Room]) -> list[Room]:
    """The servers of the models that a mode's reasoning has to fit into."""
    kind = modes.kind_of(mode)
    needed = modes.NEEDED.get(kind, modes.BOTH) if kind else modes.BOTH
    roles = {mode.roles.get(role, role) for role in needed}
    return [room for room in servers if room.role in roles]


def _names(some: Sequence[Mode]) -> str:
    more = f" and {len(some) - NAMED} more" if len(some) > NAMED else ""
    return ", ".join(f"`{mode.name}`" for mode in some[:NAMED]) + more
