"""Pictures of a stored run, with matplotlib from the ``plots`` extra."""

from __future__ import annotations

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.audit import judging_modes
from specreason_sgl.evaluation.report import Report
from specreason_sgl.events import StepScored
from specreason_sgl.runs.store import SolveRecord
from specreason_sgl.text.scoring import DIGITS
from specreason_sgl.view.text import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from specreason_sgl.evaluation.thresholds import Calibration

FORMATS = ("svg", "png")
_FEWEST = 5
"""The fewest judged drafts of a step index that gets a point in a plot."""
_KINDS = ("draft", "judge", "regenerate", "think", "answer")
_PARTS = 8
"""How many kinds of calls get a colour of their own."""
_WORD = 16
"""The most cells of a program's own word in a legend."""
_LONG = 40
"""The most cells of a mode's name in a legend."""


def draw(report: Report, records: Sequence[SolveRecord], folder: Path, image: str = "svg") -> list[Path]:
    """Draw what there is to draw, and return the files.

    Args:
        report: the run's report.
        records: the run's solves.
        folder: the folder to write the pictures into.
        image: ``svg`` or ``png``.

    Raises:
        UsageError: matplotlib is not installed, or the format is not known.
    """
    judging = frozenset(judging_modes(records))
    judged = [record for record in records if record.mode in judging]
    statistics = report.statistics
    wanted: dict[str, tuple[object, Callable[[Any], None]]] = {
        "frontier": (statistics.frontier, lambda axes: _frontier(axes, report)),
        "acceptance": (acceptance_by_step(records), lambda axes: _acceptance(axes, records)),
        "scores": (judged, lambda axes: _scores(axes, judged)),
        "time": (any(summary.shares for summary in statistics.summaries), lambda axes: _time(axes, report)),
    }
    return _painted({name: paint for name, (is_there, paint) in wanted.items() if is_there}, folder, image)


def draw_thresholds(made: Calibration, folder: Path, image: str = "svg") -> list[Path]:
    """Draw the risk of every threshold over the drafts that it accepts, and return the file.

    Args:
        made: what was found out about the thresholds.
        folder: the folder to write the picture into.
        image: ``svg`` or ``png``.

    Raises:
        UsageError: matplotlib is not installed, or the format is not known.
    """
    return _painted({"thresholds": lambda axes: _thresholds(axes, made)}, folder, image)


def _painted(pictures: Mapping[str, Callable[[Any], None]], folder: Path, image: str) -> list[Path]:
    if image not in FORMATS:
        raise UsageError(f"there is no format `{image}`", hint="use `svg` or `png`")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("plots need matplotlib", hint="`pip install 'specreason_sgl[plots]'`") from error
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, paint in pictures.items():
        figure = Figure(figsize=(6.4, 4), layout="constrained")
        paint(figure.add_subplot())
        files.append(folder / f"{name}.{image}")
        with warnings.catch_warnings():
            # Somebody's words may be in a script that the font lacks: boxes stand for them.
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure.savefig(files[-1], dpi=150)
    return files


def acceptance_by_step(records: Iterable[SolveRecord]) -> dict[str, list[tuple[int, float]]]:
    """For each mode that decides on drafts, the share accepted at each step index that enough solves reach."""
    decided: dict[str, dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for event in record.events:
            if isinstance(event, StepScored):
                decided[record.mode][event.step].append(event.accepted)
    curves = {
        mode: [(step, sum(each) / len(each)) for step, each in sorted(steps.items()) if len(each) >= _FEWEST]
        for mode, steps in decided.items()
    }
    return {mode: curve for mode, curve in curves.items() if curve}


def _frontier(axes: Axes, report: Report) -> None:
    summaries = {summary.mode: summary for summary in report.statistics.summaries}
    for point in report.statistics.frontier:
        accuracy, latency = summaries[point.mode].accuracy, summaries[point.mode].latency
        axes.errorbar(
            point.seconds,
            100 * point.accuracy,
            xerr=_bars(latency and latency.mean, 1),
            yerr=_bars(accuracy, 100),
            fmt="o" if point.efficient else "x",
            capsize=2,
        )
        axes.annotate(
            _words(point.mode, _LONG),
            (point.seconds, 100 * point.accuracy),
            (5, 5),
            textcoords="offset points",
            fontsize=8,
        )
    efficient = [(point.seconds, 100 * point.accuracy) for point in report.statistics.frontier if point.efficient]
    axes.plot(*zip(*efficient, strict=True), color="0.7", zorder=0)
    axes.margins(0.12)
    axes.set(xlabel="seconds per solve, single stream", ylabel="accuracy, %")
    axes.set_xlim(left=0)


def _acceptance(axes: Axes, records: Sequence[SolveRecord]) -> None:
    for mode, curve in acceptance_by_step(records).items():
        axes.plot(
            [step for step, _ in curve], [100 * share for _, share in curve], marker=".", label=_words(mode, _LONG)
        )
    axes.set(xlabel="step", ylabel="drafts accepted, %", ylim=(0, 102))
    axes.legend(fontsize=8)


def _scores(axes: Axes, records: Sequence[SolveRecord]) -> None:
    scored = [event for record in records for event in record.events if isinstance(event, StepScored)]
    given = Counter(event.greedy for event in scored)
    expected = Counter(min(math.floor(event.expected + 0.5), len(DIGITS) - 1) for event in scored)
    digits = range(len(DIGITS))
    axes.bar(
        [d - 0.2 for d in digits], [100 * given[d] / len(scored) for d in digits], 0.4, label="most probable digit"
    )
    axes.bar(
        [d + 0.2 for d in digits],
        [100 * expected[d] / len(scored) for d in digits],
        0.4,
        label="expected score, rounded",
    )
    axes.set(xlabel="utility score", ylabel=f"of {len(scored)} drafts, %", xticks=list(digits))
    axes.legend(fontsize=8)


def _time(axes: Axes, report: Report) -> None:
    summaries = report.statistics.summaries[::-1]
    left = [0.0] * len(summaries)
    named = list(dict.fromkeys((*_KINDS, *(kind for summary in summaries for kind in summary.shares))))
    parts = {_words(kind): [summary.shares.get(kind, 0.0) for summary in summaries] for kind in named[:_PARTS]}
    if len(named) > _PARTS:
        rest = [
            1 - sum(some) if summary.shares else 0.0 for summary, *some in zip(summaries, *parts.values(), strict=True)
        ]
        parts[f"{len(named) - _PARTS} more"] = rest
    for kind, shares in parts.items():
        widths = [100 * share for share in shares]
        axes.barh([_words(summary.mode, _LONG) for summary in summaries], widths, left=left, label=kind)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set(xlabel="of the time of all calls, %")
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(_KINDS))


def _thresholds(axes: Axes, made: Calibration) -> None:
    for number, (rule, points) in enumerate(made.curves.items()):
        shares = [100 * point.acceptance for point in points]
        colour = f"C{number}"
        risks, named = [100 * point.risk for point in points], _words(rule, _LONG)
        axes.plot(shares, risks, color=colour, marker=".", markersize=3, label=named)
        axes.plot(shares, [100 * point.bound for point in points], color=colour, linestyle=":")
    for point, mark, words in ((made.fixed, "s", "the greedy digit at 7"), (made.chosen, "*", "chosen")):
        if point is not None:
            place = ([100 * point.acceptance], [100 * point.risk])
            axes.plot(*place, mark, color="black", markersize=9, label=words)
    axes.axhline(100 * made.risk, color="0.5", linewidth=1, label=f"wanted: {100 * made.risk:g} %")
    axes.set(xlabel="drafts accepted, %", ylabel="risk and, dotted, its bound, %")
    axes.set_ylim(0, 100 * min(1.0, max(4 * made.risk, *(p.risk for some in made.curves.values() for p in some))))
    axes.legend(fontsize=8)


def _words(text: str, width: int = _WORD) -> str:
    """A text as matplotlib shows it unchanged: ``$`` begins a formula, and legends skip names that begin with ``_``."""
    words = shorten(text, width).replace("$", r"\$")
    return f" {words}" if words.startswith("_") else words


def _bars(estimate: Any, scale: float) -> list[list[float]] | None:
    if estimate is None or estimate.low is None:
        return None
    return [[scale * (estimate.value - estimate.low)], [scale * (estimate.high - estimate.value)]]
