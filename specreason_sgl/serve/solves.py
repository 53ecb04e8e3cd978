"""The solves of a server: how many run and wait, who listens to them, and how they are ended.

Threads only; the web framework is in `app.py`. Every solve is a thread of a pool. Its events go to its own listeners
and to the followers of the whole server.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from specreason_sgl.api import facts
from specreason_sgl.errors import CallFailed, ServerUnreachable, SpecReasonError, UsageError
from specreason_sgl.evaluation.choice import is_choice
from specreason_sgl.evaluation.grading import Grader
from specreason_sgl.events import AnswerWritten, Event, Noticed, SolveEnded, SolveFailed, TextStreamed
from specreason_sgl.lang.chain import MARGIN
from specreason_sgl.lang.scope import Scope
from specreason_sgl.lang.solve import model_in
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import SolveRecord
from specreason_sgl.tally import Tally

if TYPE_CHECKING:
    from specreason_sgl.api import OpenPair
    from specreason_sgl.events import Role
    from specreason_sgl.serve.orders import Order
    from specreason_sgl.serve.shelf import Shelf

RUNNING, WAITING = 32, 64
"""How many solves run and how many may wait, if nothing else is said."""
REMEMBERED = 64
"""How many ended solves are kept in memory."""
LEFT = "the client left"
STOPPED = "the server was stopped"

State: TypeAlias = Literal["waiting", "running", "ended"]


class Full(SpecReasonError):
    """As many solves run and wait as are allowed."""


class Away(ServerUnreachable):
    """A model server does not answer at the moment."""


class TooLong(UsageError):
    """A conversation does not fit into a model's context."""


class NoSuchSolve(UsageError):
    """There is no solve of that name, or it was too long ago."""


class Follower(Protocol):
    """Called with everything that happens on a server, from any thread; must not take long."""

    def started(self, served: Served) -> None:
        """A solve begins."""

    def event(self, served: Served, event: Event) -> None:
        """Something happens in a solve."""

    def finished(self, served: Served) -> None:
        """A solve has ended, with its record."""

    def notice(self, message: str) -> None:
        """A message about the server, such as that it waits for a model."""


Listener = Callable[[Event | None], None]
"""Called with every event of a solve, and with None when there will be no more; must not take long."""


class Served:
    """A solve of the server."""

    def __init__(self, order: Order, parent: Scope, limit_s: float | None) -> None:
        """A solve that waits to be run."""
        self.order = order
        self.created = datetime.now(UTC)
        self.events: list[Event] = []
        """The events so far, as they are stored; without the text that streams."""
        self.tally = Tally()
        self.record: SolveRecord | None = None
        """The finished solve."""
        self.began: float | None = None
        """The `time.monotonic` of its start."""
        self.why: str | None = None
        """Why it was cancelled, if it was."""
        self._ordered, self._over = time.monotonic(), 0.0
        self._limit_s, self._parent = limit_s, parent
        self._scope: Scope | None = None
        self.future: Future[None] | None = None
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()

    @property
    def id(self) -> str:
        """Its name on this server."""
        return self.order.id

    @property
    def state(self) -> State:
        """How far it is."""
        if self.record is not None:
            return "ended"
        return "waiting" if self.began is None else "running"

    @property
    def age(self) -> float:
        """Seconds since it was ordered; of a solve that has ended, how long it took."""
        return (self._over or time.monotonic()) - self._ordered

    @contextmanager
    def running(self) -> Iterator[Scope]:
        """The scope of its calls, while it runs; its time begins here."""
        with self._lock:
            self._scope = Scope(self._limit_s, parent=self._parent)
            self.began = time.monotonic()
            is_over = self.why is not None
        if is_over:
            self._scope.cancel()
        yield self._scope

    def listen(self, listener: Listener) -> None:
        """Call a listener with every event so far and from here on."""
        with self._lock:
            for event in self.events:
                listener(event)
            if self.record is None:
                self._listeners.append(listener)
            else:
                listener(None)

    def hear(self, event: Event) -> None:
        """Pass an event on to the listeners."""
        with self._lock:
            if not isinstance(event, TextStreamed):
                self.events.append(event)
                self.tally.add(event)
            for listener in self._listeners:
                listener(event)

    def say(self, notice: Event) -> None:
        """Tell the listeners something that does not belong to the trace."""
        with self._lock:
            for listener in self._listeners:
                listener(notice)

    def end(self, record: SolveRecord) -> None:
        """Keep the record; the listeners hear of nothing more."""
        with self._lock:
            self.record, self._over = record, time.monotonic()
            for listener in self._listeners:
                listener(None)
            self._listeners.clear()

    def cancel(self, why: str) -> None:
        """End its calls on all servers; returns when they have been told."""
        with self._lock:
            if self.record is not None or self.why is not None:
                return
            self.why = why
            scope = self._scope
        if scope:
            scope.cancel()


class Solves:
    """The solves of one server over one pair."""

    def __init__(
        self,
        pair: OpenPair,
        *,
        running: int = RUNNING,
        waiting: int = WAITING,
        limit_s: float | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        """Begin without solves.

        Args:
            pair: the models.
            running: how many solves run at the same time.
            waiting: how many more may wait.
            limit_s: seconds that a solve may take, without pauses for a server that is away.
            shelf: where ended solves are stored.
        """
        self.pair, self.limit_s, self.shelf = pair, limit_s, shelf
        self.most_running, self.most_waiting = running, waiting
        self.since = datetime.now(UTC)
        self.ended = 0
        """How many solves have ended since the start."""
        self._live: dict[str, Served] = {}
        self._past: deque[Served] = deque(maxlen=REMEMBERED)
        self._followers: list[Follower] = []
        self._is_closing = False
        self._lock = threading.RLock()
        self._resources = ExitStack()
        self._graders = {kind: self._resources.enter_context(Grader(kind, workers=2)) for kind in ("math", "choice")}
        self._pool = ThreadPoolExecutor(running, thread_name_prefix="solve")
        for server in pair:
            server.watch.say = self.notice

    @property
    def control(self) -> tuple[str, ...]:
        """The control tokens of all models."""
        return tuple(dict.fromkeys(token for model in self.pair for token in model.chat.control))

    def close(self, why: str = STOPPED) -> None:
        """Cancel what runs and waits, and wait for its end."""
        with self._lock:
            self._is_closing = True
            live = list(self._live.values())
        threads = [threading.Thread(target=self.cancel, args=(served, why), daemon=True) for served in live]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._pool.shutdown(wait=True)
        self._resources.close()

    def refuse(self) -> None:
        """Take no more orders."""
        self._is_closing = True

    def count(self, state: State) -> int:
        """How many solves wait or run."""
        with self._lock:
            return sum(served.state == state for served in self._live.values())

    def all(self) -> list[Served]:
        """The solves that wait or run and the last that have ended, in the order in which they were ordered."""
        with self._lock:
            return sorted([*self._past, *self._live.values()], key=lambda served: served.created)

    def find(self, name: str) -> Served | None:
        """The solve of that name, as far as it is remembered."""
        with self._lock:
            return self._live.get(name) or next((served for served in self._past if served.id == name), None)

    def make_room(self, orders: int = 1) -> None:
        """Make sure that so many more solves may be ordered, and that the models answer.

        Raises:
            Full: as many solves run and wait as are allowed.
            Away: a model server does not answer.
        """
        if self._is_closing:
            raise Away("the server is being stopped", hint="send the request again when it is back")
        if len(self._live) + orders > self.most_running + self.most_waiting:
            raise Full(
                f"{self.count('running')} solves are running and {self.count('waiting')} are waiting",
                hint="come again a little later",
            )
        self.ask_models(only_doubtful=True)

    def ask_models(self, *, only_doubtful: bool = False) -> None:
        """Make sure that the models answer.

        Args:
            only_doubtful: whether only those are asked that did not answer the last time.

        Raises:
            Away: a model server does not answer.
        """
        for server in self.pair:
            if (server.watch.is_away or not only_doubtful) and not server.watch.answers():
                raise Away(f"the {server.role} server does not answer", hint="it is waited for; send the request again")

    def prompt_tokens(self, order: Order) -> int:
        """The tokens of the conversation in the template of the model that answers; asks its server."""
        role = order.program.model
        return len(model_in(self.pair.models, role).tokens(self._opening(order, role)))

    def check_length(self, order: Order) -> None:
        """Make sure that a conversation fits into the models' contexts; asks their servers only where it is long.

        Raises:
            TooLong: with an answer it does not fit into the context of a model.
        """
        answer = order.settings.answer_tokens
        for role, model in self.pair.models.items():
            if model.context is None:
                continue
            opening, room = self._opening(order, role), model.context - answer - MARGIN
            if len(opening.encode("utf-8", "replace")) <= room:  # a token has at least one byte
                continue
            if (tokens := len(model.tokens(opening))) > room:
                raise TooLong(
                    f"The input ({tokens} tokens) is longer than the {role} model's context length "
                    f"({model.context} tokens) leaves room for, beside an answer of {answer} tokens."
                )

    def _opening(self, order: Order, role: Role) -> str:
        asked, settings = order.problem, order.settings
        chat = model_in(self.pair.models, role).chat
        chat = chat.asking(chat.prompts.with_words(settings.instruction, settings.judge))
        text: str = chat.opening(asked.question, choice=asked.choice, earlier=asked.earlier)
        return text

    def facts(self, order: Order) -> dict[str, Any]:
        """What is stored with a run of one such solve, so that somebody else can repeat it; asks the servers."""
        return facts(self.pair, order.program, order.settings, order.knobs)

    def begin(self, order: Order, listener: Listener | None = None) -> Served:
        """Run an order as soon as there is a place for it.

        Raises:
            Full: as many solves run and wait as are allowed.
            Away: the server is being stopped.
        """
        served = Served(order, self.pair.scope, self.limit_s)
        if listener:
            served.listen(listener)
        with self._lock:
            if self._is_closing or len(self._live) >= self.most_running + self.most_waiting:
                self.make_room()
            self._live[served.id] = served
            served.future = self._pool.submit(self._run, served)
        return served

    def cancel(self, served: Served, why: str = LEFT) -> None:
        """End a solve, with its calls on all servers; returns when they have been told."""
        served.cancel(why)
        if served.future and served.future.cancel():  # it has not begun
            self._finish(served, self._failed(served, CallFailed(why)))

    def follow(self, follower: Follower) -> Callable[[], None]:
        """Tell a follower of the last ended solves, of the running ones so far, and of all that happens from here on.

        Returns:
            A function that ends it.
        """
        with self._lock:
            for served in self._past:
                follower.started(served)
                follower.finished(served)
            for served in self._live.values():
                if served.state == "running":
                    follower.started(served)
                    for event in list(served.events):
                        follower.event(served, event)
            self._followers.append(follower)

        def leave() -> None:
            with self._lock, suppress(ValueError):
                self._followers.remove(follower)

        return leave

    def notice(self, message: str) -> None:
        """Tell everybody something about the server."""
        with self._lock:
            live = [served for served in self._live.values() if served.state == "running"]
            self._tell(lambda follower: follower.notice(message))
        for served in live:
            served.say(Noticed(message=message))

    def _tell(self, call: Callable[[Follower], None]) -> None:
        with self._lock:
            for follower in list(self._followers):
                call(follower)

    def _run(self, served: Served) -> None:
        with served.running() as scope:
            self._tell(lambda follower: follower.started(served))
            try:
                record = self._graded(served, scope)
            except Exception as error:  # noqa: BLE001 - whatever ends a solve is its last event
                record = self._failed(served, error)
        self._finish(served, record)

    def _finish(self, served: Served, record: SolveRecord) -> None:
        if self.shelf:
            record, lost = self.shelf.put(record)
            if lost:
                self.notice(lost)
        with self._lock:
            del self._live[served.id]
            self._past.append(served)
            self.ended += 1
            served.end(record)
            self._tell(lambda follower: follower.finished(served))

    def _graded(self, served: Served, scope: Scope) -> SolveRecord:
        order = served.order
        choice = is_choice(order.problem.question, order.problem.answer)
        held: list[Event] = []

        def hear(event: Event) -> None:
            # What grading may still change is told when it is graded.
            if held or isinstance(event, SolveEnded) or (choice and isinstance(event, AnswerWritten)):
                held.append(event)
            else:
                self._hear(served, event)

        record = solve(
            order.problem,
            order.program,
            self.pair,
            order.settings,
            sink=hear,
            stream=order.stream,
            mode=order.mode,
            parameters=order.knobs,
            scope=scope,
            grade=lambda _answer, _gold: None,
        )
        if served.why:
            record = record.model_copy(update={"events": [_named(event, served.why) for event in record.events]})
        record = self._graders["choice" if choice else "math"].graded(record)
        for event in record.events[len(record.events) - len([each for each in held if _is_stored(each)]) :]:
            self._hear(served, event)
        return record

    def _failed(self, served: Served, error: Exception) -> SolveRecord:
        told = str(error) if isinstance(error, SpecReasonError) else f"{type(error).__name__}: {error}"
        hint = error.hint if isinstance(error, SpecReasonError) else None
        code = error.exit_code if isinstance(error, SpecReasonError) else 1
        at = served.events[-1].at if served.events else 0.0
        for event in (
            SolveFailed(at=at, error=served.why or told, hint=hint, exit_code=code),
            SolveEnded(at=at, outcome="failed"),
        ):
            self._hear(served, event)
        order = served.order
        return SolveRecord(
            problem=order.problem,
            mode=order.mode,
            seed=order.settings.seed,
            started=datetime.now(UTC),
            events=list(served.events),
        )

    def _hear(self, served: Served, event: Event) -> None:
        served.hear(event)
        if _is_stored(event):
            self._tell(lambda follower: follower.event(served, event))


def _is_stored(event: Event) -> bool:
    return not isinstance(event, TextStreamed)


def _named(event: Event, why: str) -> Event:
    """A failure that somebody wanted, under its own reason."""
    return event.model_copy(update={"error": why}) if isinstance(event, SolveFailed) else event
