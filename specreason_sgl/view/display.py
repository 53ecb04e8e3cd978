"""The display of a run: it is chosen once, opened around the run, and at the end leaves the results on the terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TextIO, get_args

from specreason_sgl.errors import UsageError
from specreason_sgl.view.output import silence

if TYPE_CHECKING:
    from rich.console import Console

    from specreason_sgl.events import Event, Sink
    from specreason_sgl.runs.store import Done
    from specreason_sgl.view.batch_sinks import BatchSink

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
    from specreason_sgl.view.live import beside
    from specreason_sgl.view.plain import SceneSink
    from specreason_sgl.view.scenes import SolveScene
    from specreason_sgl.view.solve_view import Look, solve_report

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
    total: int,
    *,
    title: str = "specreason",
    earlier: Sequence[Done] = (),
    stream: TextIO | None = None,
) -> Iterator[BatchSink]:
    """Show many solves while the block runs; at the end their results stay.

    Args:
        mode: as `choose` returned it.
        total: how many solves there will be, the earlier ones included.
        title: the beginning of the header.
        earlier: solves that are stored already, when a run goes on.
        stream: used instead of standard output.
    """
    from specreason_sgl.view import batch_sinks

    if mode == "none":
        yield batch_sinks.SilentBatch()
    elif mode == "json":
        yield batch_sinks.JsonBatch(total, stream)
    elif mode == "plain":
        lines = batch_sinks.PlainBatch(total, earlier, stream)
        try:
            yield lines
        finally:
            lines.close()
    else:
        with _rich_batch(title, total, earlier, stream or sys.stdout) as sink:
            yield sink


@contextmanager
def _rich_batch(title: str, total: int, earlier: Sequence[Done], stream: TextIO) -> Iterator[BatchSink]:
    from specreason_sgl.view.batch_sinks import SceneBatch
    from specreason_sgl.view.batch_view import standing_lines
    from specreason_sgl.view.lines import page
    from specreason_sgl.view.live import beside
    from specreason_sgl.view.scenes import BatchScene

    terminal = console(stream)
    colour = not terminal.no_color
    scene = BatchScene(title, total, colour=colour, began=time.monotonic(), earlier=earlier)
    sink = SceneBatch(scene, stream)
    try:
        with beside(scene, terminal, sink.left):
            yield sink
    finally:
        clock = time.monotonic()
        scene.fresh(clock)
        terminal.print(page(standing_lines(scene.state, terminal.width, clock), terminal.width, colour=colour))


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
