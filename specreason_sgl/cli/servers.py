"""``specreason up``, ``status`` and ``down``: keep the embedded pair running between commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from specreason_sgl.runtime.pairs import RunningPair

Json = Annotated[bool, typer.Option("--json", help="Only JSON on standard output")]

DOWN = 1


def up(json: Json = False) -> None:
    """Start the embedded pair and keep it running, so that the next `run` starts at once."""
    from specreason_sgl.cli.pair import embedded_models
    from specreason_sgl.runtime import pairs

    pair, started = pairs.up(*embedded_models(), on_progress=lambda line: print(line, file=sys.stderr))
    _show(pair, "up" if started else "already up", json)


def status(json: Json = False) -> None:
    """Say whether the pair is up, and where."""
    from specreason_sgl.runtime import pairs

    pair = pairs.running()
    if pair is None:
        _say({"status": "down"}, json) if json else print("down")
        raise typer.Exit(DOWN)
    _show(pair, "up", json)


def down(json: Json = False) -> None:
    """Stop the pair that `up` keeps running."""
    from specreason_sgl.runtime import pairs

    was_up = pairs.down()
    if json:
        _say({"status": "down", "was_up": was_up}, json)
    else:
        print("down" if was_up else "no pair was up")


def _show(pair: RunningPair, word: str, json: bool) -> None:
    if json:
        _say({"status": word, "base": pair.base.url, "small": pair.small.url, "logs": str(pair.logs)}, json)
    else:
        print(f"{word}\n  base   {pair.base.url}\n  small  {pair.small.url}\n  logs   {pair.logs}")


def _say(row: dict[str, object], json: bool) -> None:
    from json import dumps

    print(dumps(row) if json else row)
