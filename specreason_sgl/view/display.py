"""The display of a run: it is chosen once, opened around the run, and at the end leaves the results on the terminal."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TextIO, get_args

from specreason_sgl.errors import UsageError
from specreason_sgl.view.output import silence

if TYPE_CHECKING:
    from rich.console import Console

    from specreason_sgl.events import Event, Sink
    from specreason_sgl.runs.store import Done
    from specreason_sgl.view.batch_sinks import BatchSink
    from specreason_sgl.view.scenes import BatchScene

DisplayMode = Literal["auto", "rich", "plain", "json", "none"]

PIPED = 140
"""The width in columns where it is not known."""
MODES: tuple[DisplayMode, ...] = get_args(DisplayMode)
VARIABLE = "SPECREASON_DISPLAY"


def choose(mode: str, *, stdout_isatty: bool, env: Mapping[str, str]) -> DisplayMode:
    """The display mode: the given one, else that of the environment, else the one that suits the output.

    Output that is no capable terminal always gets plain lines.

    Raises:
        UsageError: there is no such mode.
    """
    wanted = (env.get(VARIABLE) if mode == "auto" else None) or mode
    chosen = next((known for known in MODES if known == wanted), None)
    if chosen is None:
        raise UsageError(f"there is no display `{wanted}`", hint=f"use {', '.join(f'`{known}`' for known in MODES)}")
    if chosen in {"auto", "rich"}:
        return "rich" if stdout_isatty and env.get("TERM") not in {"dumb", "unknown"} else "plain"
    return chosen


def is_screen(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can show the glyphs of the views."""
    from specreason_sgl.view.theme import OTHERS, SIGNS

    glyphs = [sign.glyph for sign in SIGNS.values()] + [glyph for glyph, _, _ in OTHERS]
    try:
        "".join(glyphs).encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return stream.isatty()


def has_colour(env: Mapping[str, str]) -> bool:
    """Whether colours are wanted at all."""
    return not env.get("NO_COLOR")


@contextmanager
def open_display(mode: DisplayMode, *, title: str = "specreason", stream: TextIO | None = None) -> Iterator[Sink]:
    """Show one solve while the block runs; at the end the whole trace with its totals stays.

    Args:
        mode: as `choose` returned it.
        title: the beginning of the header.
        stream: used instead of standard output.
    """
    if mode == "none":
        yield _ignore
    elif mode == "json":
        from specreason_sgl.view.json_lines import JsonSink

        yield JsonSink(stream)
    elif mode == "plain":
        from specreason_sgl.view.plain import PlainSink

        yield PlainSink(stream)
    else:
        with _rich_display(title, stream or sys.stdout) as sink:
            yield sink


@contextmanager
def _rich_display(title: str, stream: TextIO) -> Iterator[Sink]:
    from specreason_sgl.view.items import Look
    from specreason_sgl.view.live import beside
    from specreason_sgl.view.plain import SceneSink
    from specreason_sgl.view.scenes import SolveScene
    from specreason_sgl.view.solve_view import solve_report

    terminal = console(stream)
    scene = SolveScene(title, colour=not terminal.no_color)
    sink = SceneSink(scene, stream)
    try:
        with beside(scene, terminal, sink.left):
            yield sink
    finally:
        scene.fresh(0.0)
        if scene.state.started:
            look = Look(width=terminal.width, colour=not terminal.no_color, title=title)
            terminal.print(solve_report(scene.state, look), soft_wrap=True)


@contextmanager
def open_batch_display(
    mode: DisplayMode,
    total: int | None,
    *,
    title: str = "specreason",
    earlier: Sequence[Done] = (),
    stream: TextIO | None = None,
    began: float | None = None,
) -> Iterator[BatchSink]:
    """Show many solves while the block runs; at the end their results stay.

    Args:
        mode: as `choose` returned it.
        total: how many solves there will be, the earlier ones included; None where nobody knows.
        title: the beginning of the header.
        earlier: solves that are stored already, when a run goes on.
        stream: used instead of standard output.
        began: when the first of them began, by the monotonic clock; now if not given.
    """
    from specreason_sgl.view import batch_sinks

    began = time.monotonic() if began is None else began
    if mode == "none":
        yield batch_sinks.SilentBatch()
    elif mode == "json":
        yield batch_sinks.JsonBatch(total, stream)
    elif mode == "plain":
        lines = batch_sinks.PlainBatch(total, earlier, stream, began)
        try:
            yield lines
        finally:
            lines.close()
    else:
        from specreason_sgl.view.batch_sinks import SceneBatch
        from specreason_sgl.view.live import beside
        from specreason_sgl.view.scenes import BatchScene

        terminal = console(stream)
        scene = BatchScene(title, total, colour=not terminal.no_color, began=began, earlier=earlier)
        sink = SceneBatch(scene, stream or sys.stdout)
        with _results_stay(scene, terminal), beside(scene, terminal, sink.left):
            yield sink


def watch_batch(hear: Callable[[BatchSink], None], *, title: str, began: float, stream: TextIO | None = None) -> None:
    """Show solves that somebody else takes care of, until the user leaves them or there is no more to hear.

    Args:
        hear: reports to a sink, from a thread of its own, until there is no more; what it raises is raised here.
        title: the beginning of the header.
        began: when the first of them began, by the monotonic clock.
        stream: used instead of standard output.
    """
    from specreason_sgl.view.batch_sinks import SceneBatch
    from specreason_sgl.view.live import show, unwinding
    from specreason_sgl.view.scenes import WATCH_KEYS, BatchScene

    terminal = console(stream)
    scene = BatchScene(title, None, colour=not terminal.no_color, began=began, keys=WATCH_KEYS)
    sink = SceneBatch(scene, stream or sys.stdout)
    failures: list[Exception] = []
    silent = threading.Event()

    def listen() -> None:
        try:
            hear(sink)
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that shows it
            failures.append(error)
        finally:
            silent.set()

    threading.Thread(target=listen, name="listener", daemon=True).start()
    with _results_stay(scene, terminal), unwinding():
        show(scene, terminal, done=silent.is_set)
    if failures and not scene.over:
        raise failures[0]


@contextmanager
def _results_stay(scene: BatchScene, terminal: Console) -> Iterator[None]:
    """At the end of the block, leave the results of a batch on the terminal."""
    from specreason_sgl.view.batch_view import standing_lines
    from specreason_sgl.view.lines import page

    try:
        yield
    finally:
        clock = time.monotonic()
        scene.fresh(clock)
        lines = standing_lines(scene.state, terminal.width, clock)
        terminal.print(page(lines, terminal.width, colour=not terminal.no_color))


def console(stream: TextIO | None = None) -> Console:
    """Standard output or another stream to lay something out for; nothing in it is markup."""
    from rich.console import Console

    class Paper(Console):
        def on_broken_pipe(self) -> None:
            silence(self.file)  # type: ignore[arg-type]  # rich only asks that it can be written to

    stream = stream or sys.stdout
    told = stream.isatty() or os.environ.get("COLUMNS", "").isdecimal()
    return Paper(file=stream, highlight=False, markup=False, emoji=False, width=None if told else PIPED)


def _ignore(_event: Event) -> None:
    pass
