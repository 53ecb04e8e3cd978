"""The front door: a pair, a solve, an evaluation and a stored run, for notebooks and scripts.

::

    import specreason_sgl as sr

    with sr.pair("embedded") as pair:
        solved = sr.solve("Mia has 12 apples. ...", pair, threshold=7)
        print(solved.answer, solved.acceptance)
        print(sr.evaluate("tales", pair, limit=5, out="runs/t").table())
    run = sr.read_run("runs/t")
"""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from specreason_sgl.embedded import SETTINGS
from specreason_sgl.engine.transport import AUTO
from specreason_sgl.engine.watch import WAIT_S
from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.evaluation.choice import is_choice
from specreason_sgl.evaluation.grading import Grader
from specreason_sgl.events import Event, Sink, SolveEnded, SolveFailed
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.scope import Scope
from specreason_sgl.lang.stopping import stoppable
from specreason_sgl.runs import index, store
from specreason_sgl.runs.provenance import versions
from specreason_sgl.servers import EMBEDDED, opening
from specreason_sgl.settings import Settings
from specreason_sgl.tables import complaint
from specreason_sgl.tally import Tally
from specreason_sgl.view.html import as_html
from specreason_sgl.view.output import note
from specreason_sgl.view.state import SolveState

if TYPE_CHECKING:
    from specreason_sgl.evaluation.report import Report, Table
    from specreason_sgl.runs.store import Problem, RunConfig, RunWriter, SolveRecord
    from specreason_sgl.view.batch_sinks import BatchSink

__all__ = ["OpenPair", "SolveError", "Solved", "StoredRun", "Tables", "evaluate", "pair", "read_run", "solve"]

FRAME_HEIGHT = 480
"""Pixels of a trace in a notebook."""


class SolveError(SpecReasonError):
    """A solve failed; with ``raises=False`` there is no exception, and `Solved.error` says why."""


@dataclass(frozen=True)
class OpenPair(Pair[Any]):
    """The connected servers of a pair, with the pair's default settings."""

    options: opening.PairOptions = field(default_factory=opening.PairOptions)
    scope: Scope = field(default_factory=Scope)
    """The scope that all calls belong to."""

    @property
    def label(self) -> str:
        """The pair's name in runs."""
        return self.options.label

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The pair's default settings."""
        return SETTINGS if self.options.is_embedded else {}

    def settings(self, given: Mapping[str, Any]) -> Settings:
        """Settings from the given values, else the pair's defaults, else the general defaults.

        Raises:
            UsageError: a value is not valid; the message names the setting.
        """
        from pydantic import ValidationError

        try:
            return Settings.model_validate({**self.defaults, **given})
        except ValidationError as error:
            raise UsageError("; ".join(complaint(each) for each in error.errors())) from error


@contextmanager
def pair(
    name: str | None = None,
    *,
    base: str | None = None,
    small: str | None = None,
    models: Mapping[str, str] | None = None,
    api_key: str | None = None,
    thinking: str | None = None,
    transport: str = AUTO,
    wait_for_server_s: float = WAIT_S,
) -> Iterator[OpenPair]:
    """The model servers of a pair, connected while the block runs.

    Args:
        name: ``embedded``, which comes with the package and is started if it is not up, or the name of a pair that
            `specreason up` keeps up. Without a name and addresses: the pair that is up, else the embedded one.
        base: the address of the base model's SGLang server, in place of a name.
        small: the address of the small model's server.
        models: addresses of further models that a program names, by role.
        api_key: the servers' key.
        thinking: how the models think; see docs/models.md.
        transport: how prompts travel: ``sessions``, ``ids``, ``text``, or ``auto``, the best that each server can do.
        wait_for_server_s: seconds to wait for a server that stops answering.

    Raises:
        SpecReasonError: a server cannot be started or reached.
    """
    options = opening.PairOptions(
        name if name == EMBEDDED else None,
        base,
        small,
        api_key,
        wait_for_server_s=wait_for_server_s,
        thinking=thinking,
        transport=transport,
        models=models or {},
    ).or_kept_up()
    if name not in {None, EMBEDDED} and options.name != name:
        raise UsageError(f"the pair `{name}` is not up", hint=f"`specreason up --pair {name}` starts it")
    with opened(options) as connected:
        yield connected


@contextmanager
def opened(
    options: opening.PairOptions, say: Callable[[str], None] = lambda _: None, *, twice_ends_the_process: bool = False
) -> Iterator[OpenPair]:
    """The same as `pair`, from the options of a command.

    Args:
        options: which servers.
        say: called with a line on what is being waited for.
        twice_ends_the_process: whether a second Ctrl-C ends the process at once.
    """
    scope = Scope()
    with (
        stoppable(scope, twice_ends_the_process=twice_ends_the_process),
        opening.open_pair(options, say, scope) as servers,
    ):
        yield OpenPair(servers.base, servers.small, servers.others, options, scope)


@dataclass(frozen=True)
class Solved:
    """A finished solve and its result; a notebook shows its trace."""

    record: SolveRecord

    @cached_property
    def totals(self) -> Tally:
        """Tokens, seconds, calls and acceptance."""
        return self.record.tally

    @property
    def events(self) -> Sequence[Event]:
        """Everything that happened, in order."""
        return self.record.events

    @property
    def question(self) -> str:
        """What was asked."""
        return self.record.problem.question

    @property
    def answer(self) -> str | None:
        r"""The content of the last ``\boxed{}``; None without one."""
        return self.totals.answer

    @property
    def correct(self) -> bool | None:
        """Whether the answer is right; None where that is not known."""
        return self.totals.correct

    @property
    def acceptance(self) -> float | None:
        """Accepted drafts as a share of the judged ones; None where nothing was judged."""
        return self.totals.acceptance

    @property
    def seconds(self) -> float:
        """The latency: wall time without the seconds lost to servers that failed."""
        return self.totals.latency

    @property
    def error(self) -> str | None:
        """Why the solve failed; None if it did not."""
        return self.totals.error

    @cached_property
    def state(self) -> SolveState:
        """The solve's state, as the views use it."""
        state = SolveState()
        for event in self.events:
            state.add(event)
        return state

    @property
    def text(self) -> str:
        """The reasoning that was kept, step by step."""
        return "\n\n".join(step.text for step in self.state.steps if step.text and step.cut is None)

    def __repr__(self) -> str:
        """The answer, the acceptance and the time, on one line."""
        accepted = "" if self.acceptance is None else f", {self.acceptance:.0%} of the drafts accepted"
        outcome = f"failed: {self.error}" if self.error else f"answer {self.answer!r}"
        return f"<Solved {outcome}{accepted}, {self.seconds:.1f} s>"

    def _repr_html_(self) -> str:
        page = html.escape(as_html(self.state, self.record.mode), quote=True)
        return f'<iframe srcdoc="{page}" width="100%" height="{FRAME_HEIGHT}" frameborder="0"></iframe>'


def solve(
    question: str | Problem,
    pair: OpenPair,  # the word that everybody has for it
    program: str = "specreason",
    *,
    answer: str | None = None,
    sink: Sink | None = None,
    stream: bool = False,
    out: str | Path | None = None,
    raises: bool = True,
    **given: Any,
) -> Solved:
    """Solve a question.

    Args:
        question: the question's text, or a problem with messages before it.
        pair: from `pair`.
        program: a stock program's name, or the file of one of your own.
        answer: the right answer, if known; the solve's answer is graded as in evaluations.
        sink: called with every event as it happens.
        stream: whether the sink also gets text while it is generated.
        out: a folder to store the solve in, as a run.
        raises: whether a failed solve raises an exception.
        given: settings (``budget``, ``temperature``, ``seed`` ...) and the program's own knobs (``threshold`` ...).

    Raises:
        UsageError: an argument is not valid.
        SolveError: the solve failed.
    """
    from specreason_sgl.lang.loading import load
    from specreason_sgl.text.score_file import with_score_read

    problem = (
        question
        if isinstance(question, store.Problem)
        else store.Problem(id="question", question=question, answer=answer)
    )
    loaded = load(program)
    settings = pair.settings({name: value for name, value in given.items() if name in Settings.model_fields})
    knobs = with_score_read({name: value for name, value in given.items() if name not in Settings.model_fields})
    config = store.RunConfig(
        created=datetime.now(UTC),
        program=loaded.name,
        pair=pair.label,
        settings=settings.model_dump(),
        versions=versions(),
    )
    with store.writing(Path(out), config) if out else nullcontext() as run:
        record = solve_into(run, config, problem, loaded, pair, settings, knobs, sink=sink, stream=stream)
    failed = [event for event in record.events if isinstance(event, SolveFailed)]
    if failed and raises:
        raise SolveError(failed[-1].error, hint=failed[-1].hint)
    return Solved(record)


def solve_into(
    run: RunWriter | None,
    config: RunConfig,
    problem: Problem,
    program: Any,
    pair: OpenPair,
    settings: Settings,
    parameters: Mapping[str, Any],
    *,
    sink: Sink | None = None,
    stream: bool = False,
) -> SolveRecord:
    """Solve a problem, grade the answer, and store the solve if a run is given."""
    from specreason_sgl.lang.knobs import set_knobs
    from specreason_sgl.lang.solving import solve as carry_out

    knobs = set_knobs(program.knobs, parameters, program.name)
    if run is not None:
        known = facts(pair, program, settings, knobs)
        run.note_servers(config.model_copy(update=known), known["servers"])

    def hear(event: Event) -> None:
        if sink and not isinstance(event, SolveEnded):  # told when it is graded
            sink(event)

    with Grader("choice" if is_choice(problem.question, problem.answer) else "math") as grader:
        record = carry_out(
            problem, program, pair, settings,
            sink=sink and hear, stream=stream, parameters=knobs, scope=Scope(parent=pair.scope),
        )  # fmt: skip
        record = grader.graded(record)
    if sink:
        sink(record.events[-1])
    if run is not None:
        run.append(record)
    return record


def facts(pair: Pair[Any], program: Any, settings: Settings, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored with a run of one solve so that somebody else can repeat it; asks the servers."""
    from specreason_sgl.lang.knobs import as_json
    from specreason_sgl.runs import provenance
    from specreason_sgl.runs.diff import repeatability

    servers = provenance.describe(pair.models)
    expected = repeatability(
        temperature=settings.temperature,
        concurrency=1,
        deterministic=provenance.are_deterministic(servers),
        overlapping=program.overlaps,
        timed=bool(knobs.get("back_off")),
        stock=program.is_stock,
    )
    return {
        "servers": servers,
        "repeatability": expected,
        "parameters": as_json(knobs),
        **provenance.prompts(pair.models, settings),
    }


@dataclass(frozen=True)
class Tables:
    """Tables that a notebook, a terminal and a program can show."""

    tables: tuple[Table, ...]

    def __str__(self) -> str:
        """The tables as text."""
        from specreason_sgl.evaluation.report import rendered
        from specreason_sgl.view.display import console

        text = StringIO()
        paper = console(text)
        for table in self.tables:
            for part in rendered(table):
                paper.print(part)
        return text.getvalue().rstrip("\n")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        return "".join(
            f"<h4>{html.escape(table.title)}</h4><table>{row(table.columns, 'th')}"
            f"{''.join(row(cells, 'td') for cells in table.rows)}</table><p>{html.escape(table.note)}</p>"
            for table in self.tables
        )


@dataclass(frozen=True)
class StoredRun:
    """A stored run, as far as it can be read."""

    run: store.Run

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run.folder

    @property
    def config(self) -> RunConfig | None:
        """The run's configuration; None if it cannot be read."""
        return self.run.config

    @property
    def remarks(self) -> Sequence[str]:
        """A line for each part that could not be read."""
        return self.run.remarks

    @cached_property
    def solves(self) -> Sequence[Solved]:
        """The solves, in the order in which they ended."""
        return [Solved(record) for record in self.run.records]

    @cached_property
    def report(self) -> Report:
        """The results of each mode and their comparison by problem, with intervals."""
        from specreason_sgl.evaluation.report import report_run

        return report_run(self.run)

    def table(self) -> Tables:
        """The report's tables, the most important one first."""
        from specreason_sgl.evaluation.report import tables

        return Tables(tuple(tables(self.report)))

    def frame(self, of: Literal["solves", "steps"] = "solves") -> Any:
        """The solves as a pandas DataFrame, a row for each, or with ``steps`` all that was written in them.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise UsageError("pandas is not installed", hint="`pip install pandas`") from error
        from specreason_sgl.evaluation.rows import SolveRow, TextRow, solve_row, text_rows

        name, records = self.folder.name, self.run.records
        if of == "steps":
            return pd.DataFrame([row for each in records for row in text_rows(each, name)], columns=TextRow._fields)
        return pd.DataFrame([solve_row(each, name) for each in records], columns=SolveRow._fields)

    def __repr__(self) -> str:
        """The run on one line."""
        status = self.run.status.status if self.run.status else "unknown"
        return f"<StoredRun {self.folder}, {len(self.run.records)} solves, {status}>"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def read_run(name: str | Path, runs: str | Path = "runs") -> StoredRun:
    """A stored run.

    Args:
        name: the run's folder, a part of its name, or ``latest``.
        runs: the folder in which runs are looked up by name.

    Raises:
        UsageError: there is no such run.
    """
    return StoredRun(store.read_run(index.find(str(name), Path(runs))))


def evaluate(
    job: str | Path,
    pair: OpenPair,
    *,
    out: str | Path | None = None,
    modes: Sequence[str] | None = None,
    resume: bool = False,
    display: str = "none",
    anyway: bool = False,
    executor: str = "threads",
    workers: int | None = None,
    **given: Any,
) -> StoredRun:
    """Run a job: every mode on the same problems.

    Args:
        job: a job's file, or the name of one that comes with the package.
        pair: from `pair`.
        out: the run folder; one under ``runs`` if not given.
        modes: the names of the modes to run; all if not given.
        resume: whether to go on with the run in ``out``.
        display: how to show the solves while they run: ``rich``, ``plain`` or ``none``.
        anyway: whether a job is also run that the servers have no room for.
        executor: who carries the solves out: ``threads`` of this process or ``processes`` of this machine. A script
            that wants processes calls this under ``if __name__ == "__main__":``.
        workers: how many processes; one a core if not given.
        given: other values of the job: ``limit``, ``dataset``, ``repeats``, ``seed``, ``concurrency``, and any other by
            its dotted name with two underscores for a dot, such as ``settings__budget``.

    Raises:
        SpecReasonError: the job or a value is not valid, the servers have no room for it, or one stopped answering.
    """
    from specreason_sgl.evaluation.datasets import load as load_problems
    from specreason_sgl.evaluation.evaluating import carry_out
    from specreason_sgl.evaluation.executors import THREADS, executor_named
    from specreason_sgl.evaluation.job import read_job, resolved
    from specreason_sgl.evaluation.modes import load_programs
    from specreason_sgl.view.display import open_batch_display

    wanted = executor_named(executor, workers, None)
    short = {"limit": "dataset.limit", "dataset": "dataset.name"}
    overrides = {short.get(name, name.replace("__", ".")): value for name, value in given.items()}
    made = read_job(Path(job), overrides, lambda _: pair.defaults)
    made = made.only(list(modes)) if modes else made
    made = resolved(made, load_programs(made.modes))
    problems = load_problems(made.dataset)
    folder = Path(out) if out else store.new_folder(Path("runs"), made.name)

    def show(_run: RunWriter, total: int, earlier: Sequence[store.Done]) -> AbstractContextManager[BatchSink]:
        return open_batch_display(display, total, title=made.name, earlier=earlier, stream=sys.stdout)  # type: ignore[arg-type]

    scope = Scope(parent=pair.scope)
    carry_out(
        made,
        problems,
        {"": pair},
        folder,
        show,
        label=pair.label,
        executor=wanted,
        options={"": pair.options.open_as(pair)} if wanted != THREADS else None,
        resume=resume,
        scope=scope,
        anyway=anyway,
        warn=note,
    )
    return read_run(folder)
