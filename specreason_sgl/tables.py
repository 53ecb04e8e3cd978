"""TOML settings with values replaced on the command line, as jobs and pair files use them."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from specreason_sgl.errors import UsageError


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``name=value`` into a dotted name and a value; the value is read as TOML, or else as text.

    Raises:
        UsageError: there is no ``=``.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"`{text}` is not `name=value`")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def put(row: dict[str, Any], names: Sequence[str], value: Any) -> None:
    """Set a value in nested tables, by the parts of its dotted name.

    Raises:
        UsageError: a part before the last is no table.
    """
    for name in names[:-1]:
        row = row.setdefault(name, {})
        if not isinstance(row, dict):
            raise UsageError(f"`--set {'.'.join(names)}=…`: `{name}` has no fields")
    row[names[-1]] = value


def complaint(error: Any) -> str:
    """One of pydantic's errors as a line with the field's name."""
    place = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"`{place}`: {message}" if place else message
