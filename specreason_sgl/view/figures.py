"""Figures as words and small pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

SPARKS = "▁▂▃▄▅▆▇█"
_MINUTE, _HOUR = 60, 3600
DIGITS = 10


def seconds(value: float) -> str:
    """A time in the unit it is best read in."""
    if value < 0.9995:  # noqa: PLR2004 - rounds to a whole second
        return f"{value * 1000:.0f} ms"
    if value < _MINUTE:
        return f"{value:.1f} s"
    if value < _HOUR:
        return f"{value // _MINUTE:.0f} min {value % _MINUTE:02.0f} s"
    return f"{value // _HOUR:.0f} h {value % _HOUR // _MINUTE:02.0f} min"


def about(value: float) -> str:
    """A time that is only an estimate, rounded so that it does not dance."""
    if value < _MINUTE:
        return f"~{max(5, 5 * math.ceil(value / 5))} s"
    if value < _HOUR:
        return f"~{math.ceil(value / _MINUTE)} min"
    whole = math.ceil(value / 300) * 5
    return f"~{whole // _MINUTE} h {whole % _MINUTE:02d} min"


def count(value: float) -> str:
    """A whole number with thousands separated."""
    return f"{value:,.0f}"


def steps(number: int) -> str:
    """So many steps."""
    return f"{number} step" if number == 1 else f"{number:,} steps"


def solves(number: int) -> str:
    """So many solves."""
    return f"{number} solve" if number == 1 else f"{number:,} solves"


def share(value: float | None) -> str:
    """A share in per cent, or a dash."""
    return "–" if value is None else f"{100 * value:.0f}%"


def times(value: float | None) -> str:
    """An estimated factor, or a dash."""
    return "–" if value is None else f"~{value:.1f}×"


def gauge(value: float, threshold: float | None) -> tuple[str, str]:
    """A utility score as ten cells, the reached ones first; a cross marks the threshold's cell."""
    reached = min(DIGITS, max(0, math.floor(value + 0.5) + 1))
    mark = None if threshold is None else math.ceil(threshold)
    cells = ["━"] * reached + ["─"] * (DIGITS - reached)
    if mark is not None and mark < DIGITS:
        cells[mark] = "╋" if mark < reached else "┼"
    return "".join(cells[:reached]), "".join(cells[reached:])


def progress(part: float, width: int) -> tuple[str, str]:
    """A bar, as what is done and what is left."""
    done = round(min(1.0, max(0.0, part)) * width)
    return "━" * done, "─" * (width - done)


def sparkline(distribution: Sequence[float]) -> str:
    """A distribution as one small bar each, the highest full."""
    most = max(distribution) or 1.0
    return "".join(SPARKS[min(len(SPARKS) - 1, int(p / most * len(SPARKS)))] for p in distribution)


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    if not total:
        return 0.0, 1.0
    z = 1.959964
    p = right / total
    spread = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    middle = p + z * z / (2 * total)
    scale = 1 + z * z / total
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
