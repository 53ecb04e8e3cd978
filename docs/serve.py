"""Writes the tables of docs/serve.md that are tables of the code: ``python docs/serve.py``."""

from __future__ import annotations

import re
from pathlib import Path

from specreason_sgl.serve.chat import IDLE, REFUSED

PAGE = Path(__file__).parent / "serve.md"


def refused() -> str:
    """What is refused, the fields with the same reason in one row."""
    reasons: dict[str, list[str]] = {}
    for name, (_, why) in REFUSED.items():
        reasons.setdefault(why, []).append(f"`{name}`")
    return "".join(f"| {', '.join(names)} | {why} |\n" for why, names in reasons.items())


def idle() -> str:
    """What changes nothing."""
    return ", ".join(f"`{name}`" for name in sorted(IDLE))


def page(text: str) -> str:
    """The page with its tables as the code has them."""
    rows = re.compile(r"(?<=\| field \| why \|\n\|---\|---\|\n)(?:\|.*\n)*")
    names = re.compile(r"(?<=\*\*Without meaning here, and let pass\*\*: )[^.]*")
    return names.sub(idle(), rows.sub(lambda _: refused(), text))


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
