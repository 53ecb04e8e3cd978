"""Draw the README's pictures from a stored run: ``python docs/pictures.py RUN [--problem ID]``.

They are the views themselves, at a moment of what is stored; nothing in them is staged. The batch is the run's solves
put back in flight, eight at a time. The comparison is of two solves of one problem, in different modes if there are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from specreason_sgl.events import Event, StepScored
from specreason_sgl.runs.store import SolveRecord, read_run
from specreason_sgl.view.batch_view import BatchLook, BatchState, SolveKey, batch_frame
from specreason_sgl.view.compare import Side, compare_frame
from specreason_sgl.view.export import picture
from specreason_sgl.view.items import Look
from specreason_sgl.view.listing import EndedSolve
from specreason_sgl.view.replay import stretched
from specreason_sgl.view.solve_view import solve_frame
from specreason_sgl.view.state import SolveState

FOLDER = Path(__file__).parent / "pictures"
WIDTH, HEIGHT = 100, 28
LANES = 8
TOLD = 0.6
"""How much of a solve has happened in the picture."""


def live(record: SolveRecord, height: int) -> str:
    """A solve in the middle of writing a step."""
    events = stretched(record.events)
    rejections = [place for place, event in enumerate(events) if isinstance(event, StepScored) and not event.accepted]
    place = min(rejections, key=lambda place: abs(place - TOLD * len(events)), default=int(TOLD * len(events)))
    seen = events[: place + 16]
    look = Look(width=WIDTH, height=height, now=seen[-1].at, title=f"{record.mode} · {record.problem.id}")
    return picture(solve_frame(SolveState.of(seen), look), "specreason run", WIDTH)


def batch(records: Sequence[SolveRecord], height: int) -> str:
    """The run in the middle of its way, as if its solves had been in flight eight at a time."""
    free = [0.0] * LANES
    flights: list[tuple[float, SolveRecord, list[Event]]] = []
    for record in records:
        lane = min(range(LANES), key=free.__getitem__)
        flights.append((free[lane], record, stretched(record.events)))
        free[lane] += record.tally.elapsed
    now = max(free) * TOLD
    state = BatchState(len(records))
    for begin, record, events in sorted(flights, key=lambda flight: flight[0] + flight[2][-1].at):
        key = SolveKey(record.problem.id, record.repeat, record.mode)
        if begin > now:
            continue
        state.started(key)
        for event in events:
            if begin + event.at <= now:
                state.heard(key, event)
        if begin + events[-1].at <= now:
            state.finished(key, EndedSolve.of(record))
            state.tick(begin + events[-1].at)
    state.tick(now)
    look = BatchLook(
        width=WIDTH, height=height, clock=now, chosen=next(iter(state.flying), None), title="specreason eval"
    )
    return picture(batch_frame(state, look), "specreason eval", WIDTH)


def comparison(left: SolveRecord, right: SolveRecord, height: int) -> str:
    """Two solves of one problem, where they part."""
    sides = [
        Side(
            f"{record.mode} #{record.repeat}" if left.mode == right.mode else record.mode, SolveState.of(record.events)
        )
        for record in (left, right)
    ]
    look = Look(width=130, height=height, cursor=0)
    return picture(compare_frame(sides[0], sides[1], look), "specreason replay --compare", 130)


def _counterpart(record: SolveRecord, records: Sequence[SolveRecord]) -> SolveRecord:
    others = [other for other in records if other.problem.id == record.problem.id and other.key != record.key]
    return min(others, key=lambda other: other.mode == record.mode)


def main() -> None:
    """Draw all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--problem", help="the problem to show [the one with most rejections]")
    parser.add_argument("--repeat", type=int, help="and which of its repeats")
    parser.add_argument("--height", type=int, default=HEIGHT, help="lines of each picture [%(default)s]")
    asked = parser.parse_args()
    records = read_run(asked.run).records
    chosen = max(
        (
            record
            for record in records
            if asked.problem in (None, record.problem.id) and asked.repeat in (None, record.repeat)
        ),
        key=lambda record: record.tally.judged - record.tally.accepted,
    )
    FOLDER.mkdir(exist_ok=True)
    pictures = {
        "live": live(chosen, asked.height),
        "batch": batch(records, asked.height),
        "compare": comparison(chosen, _counterpart(chosen, records), asked.height),
    }
    for name, drawn in pictures.items():
        (FOLDER / f"{name}.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
