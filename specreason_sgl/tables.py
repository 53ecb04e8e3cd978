"""Settings in TOML with values replaced on the command line: what jobs and pair files have in common."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from specreason_sgl.errors import UsageError


def parse_override(text: str) -> tuple[str, Any]:
    """A dotted name and its value from ``name=value``; the value is TOML, or text if it is none.

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
    """Set a value in nested tables, by its dotted name's parts.

    Raises:
        UsageError: a part on the way is a value already.
    """
    for name in names[:-1]:
        row = row.setdefault(name, {})
        if not isinstance(row, dict):
            raise UsageError(f"`--set {'.'.join(names)}=…`: `{name}` has no fields")
    row[names[-1]] = value


def told(error: Any) -> str:
    """One of pydantic's errors in a line, with the field's name."""
    place = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"`{place}`: {message}" if place else message
