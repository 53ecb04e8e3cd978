"""How long a frame takes: ``python -m specreason_sgl.measure.frames [STEPS]``."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from specreason_sgl.events import CallMade, Event, SolveStarted, StepDrafted, StepScored, StepTaken
from specreason_sgl.runs.redecide import redecide
from specreason_sgl.text.scoring import Score
from specreason_sgl.view.batch_view import BatchLook, BatchState, SolveKey, batch_frame
from specreason_sgl.view.compare import Side, compare_frame
from specreason_sgl.view.items import Look
from specreason_sgl.view.solve_view import solve_frame
from specreason_sgl.view.state import SolveState

STEPS = 1000
FRAMES = 20
WIDTH, HEIGHT = 160, 50
SENTENCE = r"So \frac{9}{s} + t = 240 [minutes], 这是一步, and the walk takes 9 / s hours. "


def long_trace(steps: int) -> list[Event]:
    """The events of a solve with so many steps, a third of them rejected, some of them long."""
    events: list[Event] = [
        SolveStarted(question=SENTENCE * 5, program="specreason", budget=100_000, threshold=7, score_rule="expected")
    ]
    for step in range(steps):
        accepted = step % 3 != 0
        text = SENTENCE * (150 if step % 50 == 0 else 1 + step % 5)
        digit = 8 if accepted else 3
        score = Score(tuple(-0.1 if place == digit else -4.0 for place in range(10)))
        events += [
            CallMade(
                at=step,
                step=step,
                model="small",
                kind="draft",
                prompt_tokens=100,
                cached_tokens=90,
                generated_tokens=40,
                wall_s=0.2,
                finish="stop",
            ),
            StepDrafted(at=step, step=step, text=text, tokens=40, closes=False),
            StepScored(
                at=step,
                step=step,
                logprobs=score.logprobs,
                greedy=score.greedy,
                expected=score.expected,
                reaching=score.reaching(7),
                entropy=score.entropy,
                missing_mass=score.missing_mass,
                accepted=accepted,
            ),
            StepTaken(at=step, step=step, author="small" if accepted else "base", text=text, tokens=40),
        ]
    return events


def milliseconds(draw: Callable[[int], Text]) -> tuple[float, float]:
    """The mean and the longest time of a frame, from the state to what the terminal is sent."""
    console = Console(file=io.StringIO(), width=WIDTH, height=HEIGHT, force_terminal=True, color_system="truecolor")
    times = []
    for number in range(FRAMES):
        begin = time.perf_counter()
        console.print(draw(number), soft_wrap=True)
        times.append(1000 * (time.perf_counter() - begin))
    return sum(times) / len(times), max(times)


def main() -> None:
    """Print a line for each view."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    events = long_trace(steps)
    state = SolveState.of(events)
    side = Side("one", state)
    again = redecide(events, 8, "expected")
    everything = frozenset(item.place for item in state.items)
    batch = BatchState(1000)
    for number in range(64):
        batch.flying[SolveKey(f"story-{number}", 0, "specreason")] = state
    stride = max(1, steps // FRAMES)
    views: dict[str, Callable[[int], Text]] = {
        "following the end": lambda _: solve_frame(state, Look(width=WIDTH, height=HEIGHT)),
        "moving about": lambda number: solve_frame(state, Look(width=WIDTH, height=HEIGHT, cursor=number * stride)),
        "everything opened": lambda number: solve_frame(
            state, Look(width=WIDTH, height=HEIGHT, cursor=number * stride, opened=everything)
        ),
        "decided again": lambda number: solve_frame(
            state, Look(width=WIDTH, height=HEIGHT, cursor=number * stride, redecision=again)
        ),
        "side by side": lambda number: compare_frame(
            side, side, Look(width=WIDTH, height=HEIGHT, cursor=number * stride)
        ),
        "batch of 64": lambda number: batch_frame(batch, BatchLook(width=WIDTH, height=HEIGHT, clock=number)),
    }
    sys.stdout.write(f"{steps} steps, {WIDTH} by {HEIGHT} cells, {FRAMES} frames each\n")
    for name, draw in views.items():
        mean, longest = milliseconds(draw)
        sys.stdout.write(f"{name:<18} {mean:6.1f} ms a frame, the longest {longest:6.1f} ms\n")


if __name__ == "__main__":
    main()
