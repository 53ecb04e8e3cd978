"""Writes docs/models.md from the table that the code uses: ``python docs/models.py``."""

from __future__ import annotations

from pathlib import Path

from specreason_sgl.text.thinking import FORMATS, UNSUPPORTED

HEAD = """# Models: who thinks how

Every model is asked in its own words. The turns come from the chat template that its server renders; the marks around
the thinking, what stands between the thinking and the answer, and the newlines there come from the template, too, where
it shows them, and else from this table. What a template opens itself is kept as it is, to the byte. The two models of a
pair may think differently: only text passes between them.

| format | models | opened by | ended by | SGLang's `--reasoning-parser` |
| --- | --- | --- | --- | --- |
"""

TAIL = """
How a model thinks is decided by the first of these that says something:

1. `--thinking FORMAT` of `run` and `eval` (`pair.thinking` in a job), a format of this table; `--thinking BASE,SMALL`
   names one for each model.
2. The server's own `--reasoning-parser`.
3. What the template shows. A template that shows none of these marks is taken for one of `think`.

Where a template has a switch for its thinking (`enable_thinking`, `thinking`), it is switched on. Other switches, such
as `reasoning_effort`, are the server's: start it with
`--default-chat-template-kwargs '{"reasoning_effort": "high"}'`. A system prompt that asks for no thinking comes from
such a switch, too.

Servers with a named template (`--chat-template chatml`) or an encoder of their own work as well: they are asked for
what they render.

The templates that this is tested with are restated in `tests/data/templates`; no model of these families was run with
it yet.

## Not supported

REFUSED
think in parts or kinds of their own, and so does whatever opens its thinking by a mark that is not in the table. Such a
model is refused by name, never misread. If it can be made to think between marks of the table, by a template of its own
(`--chat-template FILE` of the server), `--thinking FORMAT` names them.
"""


def page() -> str:
    """The page."""
    rows = []
    for each in FORMATS:
        parsers = ", ".join(f"`{parser}`" for parser in each.parsers) or "–"
        marks = (f"`{mark.strip().replace('|', chr(92) + '|')}`" for mark in (each.mark, each.close))
        rows.append(f"| `{each.name}` | {each.families} | {' | '.join(marks)} | {parsers} |")
    *first, last = UNSUPPORTED
    return HEAD + "\n".join(rows) + "\n" + TAIL.replace("REFUSED", f"{', '.join(first)} and {last}")


if __name__ == "__main__":
    (Path(__file__).parent / "models.md").write_text(page(), encoding="utf-8")
