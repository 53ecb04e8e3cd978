"""What a server's tokenizer does: how many tokens a text has, and where a text may be cut in two.

At an exact seam both parts have, each on its own, the tokens that they have together. Behind the delimiter of steps
that is the rule for the tokenizers of today's models, but not for all of them nor everywhere, so the server is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Post = Callable[[str, dict[str, Any]], Any]
"""Sends a request to a path of a server, and returns the JSON of the response."""

AROUND = 16
"""How many characters on either side of a seam are tried: what merges into one token lies close together."""
_LEFT, _WORD, _OTHER = 4, 2, 12
"""By how many characters a seam is remembered: those left of it, and those right of it in a word or elsewhere."""
_MOST = 4096


def tokens_of(post: Post, text: str, *, in_front: bool = False) -> list[int]:
    """The ids of a text's tokens by the server's tokenizer; control tokens are recognised.

    Args:
        post: sends the request.
        text: any text.
        in_front: whether to keep the tokens that the server puts in front of every text by itself.
    """
    ids: list[int] = post("/tokenize", {"prompt": text, "add_special_tokens": in_front})["tokens"]
    return ids


class Seams:
    """What the tokenizer of one server has answered; shared by all scopes."""

    def __init__(self, in_front: str = "") -> None:
        """Begin without answers.

        Args:
            in_front: the text that the server puts in front of every prompt by itself. It takes the same text off what
                goes on from an earlier request, so that no seam before it is exact.
        """
        self._in_front = in_front
        self._counts: dict[str, int] = {}
        self._exact: dict[tuple[str, str], bool] = {}

    def counted(self, text: str) -> int | None:
        """How many tokens a text has on its own, if that was asked before."""
        return self._counts.get(text)

    def count(self, post: Post, text: str) -> int:
        """How many tokens a text has on its own."""
        known = self._counts.get(text)
        if known is None:
            _make_room(self._counts)
            known = self._counts[text] = len(tokens_of(post, text))
        return known

    def is_exact(self, post: Post, left: str, right: str) -> bool:
        """Whether a text may be cut between these two parts of it."""
        if not left or not right:
            return True
        if self._in_front and right.startswith(self._in_front):
            return False
        seam = left[-_LEFT:], right[: _WORD if right[0].isalnum() else _OTHER]
        known = self._exact.get(seam)
        if known is None:
            _make_room(self._exact)
            known = self._exact[seam] = are_apart(post, left[-AROUND:], right[:AROUND])
        return known


def are_apart(post: Post, left: str, right: str) -> bool:
    """Whether two texts, one after the other, have no token that lies in both of them."""
    texts = [left + right, left, right]
    together, before, behind = post("/tokenize", {"prompt": texts, "add_special_tokens": False})["tokens"]
    return bool(together == [*before, *behind])


def _make_room(answers: dict[Any, Any]) -> None:
    if len(answers) >= _MOST:
        answers.clear()
