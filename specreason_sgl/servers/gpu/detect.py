"""Which GPUs there are: as the driver reports them, or as the user describes those of another machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from specreason_sgl.errors import UsageError
from specreason_sgl.servers.gpu.plan import GIB, Card

_HINT = "two cards sold with 48 GB are `2x48`, and two L40S `2xL40S`"

Ask = Callable[[Sequence[str]], str]
"""Runs a command and returns its output; raises `OSError` or `subprocess.SubprocessError` if it cannot."""

_FIELDS = ("index", "uuid", "name", "memory.total", "memory.free", "compute_cap", "driver_version")
_QUERY = ("nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits")

KEPT_BYTES = 640 * 2**20
"""The most bytes that a driver reserves of the memory that it reports: programs see 22.0 of an L4's 22.5 GiB, 44.4 of
an A40's."""

USABLE = 0.985
"""The share of a card's nominal memory that programs see, roughly: 79.1 of 80 GiB, 47.5 of 48, 139.8 of 141."""


def run(command: Sequence[str]) -> str:
    """The output of a command that answers within seconds."""
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout  # noqa: S603


def rows(ask: Ask = run) -> list[dict[str, str]]:
    """What the driver says of each GPU, by the names of nvidia-smi's fields; memory in MiB. Empty without a driver."""
    try:
        told = ask(_QUERY)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [[cell.strip() for cell in line.split(",")] for line in told.splitlines()]
    return [dict(zip(_FIELDS, cells, strict=True)) for cells in lines if len(cells) == len(_FIELDS)]


def cards(environment: Mapping[str, str], ask: Ask = run) -> list[Card]:
    """The GPUs that CUDA will show to a server, in its order and under its numbers.

    Args:
        environment: its ``CUDA_VISIBLE_DEVICES`` hides GPUs and renumbers the others.
        ask: runs the query.
    """
    found = rows(ask)
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        wanted = [name.strip() for name in visible.split(",") if name.strip()]
        found = [row for name in wanted for row in found if row["index"] == name or row["uuid"].startswith(name)]
    return [
        Card(row["name"], _bytes(row["memory.total"]), _bytes(row["memory.free"]), index)
        for index, row in enumerate(found)
    ]


def describe(text: str) -> list[Card]:
    """Cards as ``2x48`` or ``2xL40S``: so many of so many GB each, or of that name; kinds are separated by commas.

    Raises:
        UsageError: the text has another form.
    """
    found: list[Card] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,2})x(?:(\d{1,3}(?:\.\d+)?)(?:gb)?|([a-z].*|\d{4}))", part.strip().lower())
        if not match or not int(match[1]):
            raise UsageError(f"`{text}` does not describe GPUs", hint=_HINT)
        found += [_sold(match[2]) if match[2] else _named(match[3])] * int(match[1])
    return [Card(card.name, card.memory, card.free, index) for index, card in enumerate(found)]


def _sold(size: str) -> Card:
    memory = int(float(size) * GIB * USABLE)
    return Card(f"{size} GB", memory, memory)


def _named(text: str) -> Card:
    wanted = _plain(text)
    for name, fields in _known().items():
        if wanted in {_plain(one) for one in (name, *fields.get("also", ()))}:
            memory = fields["mib"] * 2**20
            return Card(name, memory, memory - KEPT_BYTES)
    raise UsageError(f"there is no card `{text}` in the list", hint=f"{_HINT}; the list: {', '.join(_known())}")


def _plain(name: str) -> str:
    """A card's name without maker, series, signs and unit."""
    return re.sub(r"nvidia|geforce|rtx|tesla|gb$|[^a-z0-9]", "", name.lower())


@cache
def _known() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads((Path(__file__).parent / "cards.toml").read_text(encoding="utf-8"))


def _bytes(mib: str) -> int:
    return int(mib) * 2**20 if mib.isdecimal() else 0
