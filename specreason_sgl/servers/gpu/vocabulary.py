"""Which rows of a small model stand for the tokens of a base model that numbers some of them otherwise.

Models of one family often have the same ordinary tokens under the same ids, and differ in the tokens that were added
for turns and thinking, and in the rows that pad their embedding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specreason_sgl.errors import UsageError

NO_ROW = -1
"""What stands for the row of a token that the small model does not know."""
NAMED = 6
"""So many tokens are named in a line, and the others counted."""


@dataclass(frozen=True)
class Vocabulary:
    """A model's tokens."""

    rows: int
    """Rows of the embedding: one for each id, and padding."""
    ordinary: Mapping[str, int]
    """The ids of the tokens that texts are cut into."""
    added: Mapping[str, int]
    """The ids of the tokens that were added to those, for turns and the like."""
    end: str | None = None
    """The token that ends a text."""

    @classmethod
    def read(cls, folder: Path, rows: int) -> Vocabulary:
        """Read a tokenizer.

        Args:
            folder: the model's folder.
            rows: of its embedding.

        Raises:
            UsageError: there is no ``tokenizer.json`` with a vocabulary, or it cannot be read.
        """
        try:
            told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
            added = {str(token["content"]): int(token["id"]) for token in told.get("added_tokens") or ()}
            listed = {str(token): int(number) for token, number in told["model"]["vocab"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"`{folder / 'tokenizer.json'}` is no tokenizer that can be compared: {error}") from error
        return cls(rows, {token: number for token, number in listed.items() if token not in added}, added, _end(folder))

    @property
    def ids(self) -> dict[str, int]:
        """The ids of all tokens that have a row."""
        return {token: number for token, number in {**self.ordinary, **self.added}.items() if 0 <= number < self.rows}


@dataclass(frozen=True)
class Match:
    """The rows of a small model for the tokens of a base model."""

    rows: tuple[int, ...]
    """For each id of the base model the small model's row, or `NO_ROW`."""
    moved: tuple[str, ...]
    """The tokens that the small model has under another id."""
    unknown: tuple[str, ...]
    """The tokens that the small model does not have."""

    def __str__(self) -> str:
        """What was matched, as part of a line."""
        rows = len(self.rows)
        kept = sum(row != NO_ROW for row in self.rows)
        parts = [f"{kept} of its {rows} rows are the small model's own"]
        parts += [f"from other ids those of {_some(self.moved)}"] if self.moved else []
        parts += [f"it does not know {_some(self.unknown)}"] if self.unknown else []
        return ", ".join(parts)


def match(base: Vocabulary, small: Vocabulary) -> Match:
    """Find the small model's row for each token of the base model.

    A token that was added is looked for by its text, whatever its id; the end of a text by what it is for.

    Raises:
        UsageError: an ordinary token has another id in the small model, so that it would read other text.
    """
    by_id = {number: token for token, number in small.ordinary.items()}
    other = [token for token, number in base.ordinary.items() if by_id.get(number, token) != token]
    if other or not base.ordinary.keys() & small.ordinary.keys():
        first = f", the first of them {other[0][:20]!r}" if other else ""
        raise UsageError(f"{len(other) or 'all'} ordinary tokens have other ids in the small model{first}")
    known = small.ids
    rows, moved, unknown = [NO_ROW] * base.rows, [], []
    for token, number in sorted(base.ids.items(), key=lambda pair: pair[1]):
        is_end = token == base.end and token not in known
        row = known.get(small.end or "" if is_end else token, NO_ROW)
        if row == NO_ROW:
            unknown.append(token)
        elif row != number:
            moved.append(token)
        rows[number] = row
    return Match(tuple(rows), tuple(moved), tuple(unknown))


def _end(folder: Path) -> str | None:
    try:
        told: Any = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("eos_token")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    content = told.get("content") if isinstance(told, dict) else told
    return content if isinstance(content, str) else None


def _some(tokens: tuple[str, ...]) -> str:
    def parts() -> Iterator[str]:
        yield from (f"{token[:30]!r}" for token in tokens[:NAMED])
        if len(tokens) > NAMED:
            yield f"{len(tokens) - NAMED} more"

    return ", ".join(parts())
