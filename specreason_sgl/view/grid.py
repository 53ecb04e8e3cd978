"""A table on as many columns as there are: whole where it fits, else on its side, in as many pieces as it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from specreason_sgl.view.output import carried
from specreason_sgl.view.text import one_line, wrap

Row = tuple[str, ...]
GAP = 3
"""Cells between two columns."""
ANY = 10_000
"""So wide that nothing is too wide."""


@dataclass(frozen=True)
class Grid:
    """A table whose figures and headers stay whole on any width that has room for the longest of them."""

    title: str
    columns: Row
    rows: tuple[Row, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """The table, laid out for this many columns."""
        columns, *rows = (
            tuple(carried(one_line(cell), options.encoding) for cell in row) for row in (self.columns, *self.rows)
        )

        def fits(table: Table) -> bool:
            return Measurement.get(console, options.update(width=ANY), table).maximum <= options.max_width

        yield Text(self.title, "bold")
        whole = _table(columns, rows)
        if fits(whole):
            yield whole
        elif len(columns) <= 2:  # noqa: PLR2004 - on its side it would be no narrower
            yield _table(columns, rows, wraps=True)
        else:
            room = max(1, options.max_width - GAP - max(map(cell_len, columns)))
            rows = [("\n".join(wrap(name, room)), *figures) for name, *figures in rows]
            while rows:
                many = next((n for n in range(len(rows), 1, -1) if fits(_on_its_side(columns, rows[:n]))), 1)
                yield _on_its_side(columns, rows[:many])
                rows = rows[many:]


def _on_its_side(columns: Row, rows: Sequence[Row]) -> Table:
    header, *lines = zip(columns, *rows, strict=True)
    return _table(header, lines)


def _table(columns: Row, rows: Sequence[Row], *, wraps: bool = False) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(
            Text(column),
            justify="right" if place else "left",
            no_wrap=not wraps,
            overflow="fold",
            vertical="bottom",
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table
