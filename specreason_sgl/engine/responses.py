"""Reading SGLang's responses, and recognising those that are not complete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from specreason_sgl.engine.link import Hiccup
from specreason_sgl.text.prompts import whole
from specreason_sgl.text.scoring import LEAST
from specreason_sgl.text.steps import STUCK_WITHIN, first_stop, stuck_at

Generated = tuple[str, dict[str, Any]]
"""A text and its meta information."""

_PIECES = ("output_token_logprobs", "output_top_logprobs", "output_token_ids_logprobs")
"""Meta information that comes in pieces like the text, from a server with ``--incremental-streaming-output``."""

_HALF = "\ufffd"
"""What stands for the bytes of a character that is not complete."""
_OFTEN = 100
"""After so many more characters a text that streams is looked at for repeats."""


def generated(answer: Any, stops: Sequence[str] = (), *, is_half: bool = False) -> Generated:
    """Text and meta information of a response; the text ends before the first stop string in it.

    A text whose model did not end it itself, because of a limit or an abort, ends with its last whole character.

    Args:
        answer: the response.
        stops: the stop strings.
        is_half: whether an aborted generation is accepted as well.

    Raises:
        Hiccup: the response is not complete.
    """
    try:
        text, meta = answer["text"], answer["meta_info"]
        finish = (meta["finish_reason"] or {}).get("type")
        counted = isinstance(text, str) and int(meta["completion_tokens"]) >= 0 and int(meta["prompt_tokens"]) >= 0
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise Hiccup("a response lacks what every response has") from error
    if (finish == "abort" and not is_half) or not counted:
        raise Hiccup("the server aborted the call")
    text = whole(text)
    if found := first_stop(text, stops):
        return text[: found[0]], {**meta, "finish_reason": {"type": "stop", "matched": found[1]}}
    return text if finish == "stop" else text.rstrip(_HALF), meta


def together(several: Sequence[Generated]) -> tuple[list[str], dict[str, Any]]:
    """The texts of one request, with the meta information of the first text and the tokens of all."""
    texts, metas = zip(*several, strict=True)
    tokens = sum(int(meta["completion_tokens"]) for meta in metas)
    return list(texts), {**metas[0], "completion_tokens": tokens, "each": list(metas)}


class Streamed:
    """A response that comes in chunks; taking one in costs the same however much came before it."""

    def __init__(self, stops: Sequence[str], *, in_pieces: bool, heard: int = 0) -> None:
        """Begin with nothing.

        Args:
            stops: the stop strings.
            in_pieces: whether a chunk brings only what is new, and not the whole text so far.
            heard: how many characters of the text were heard already, in an attempt that broke off.
        """
        self.heard = heard
        """How many characters of the text were heard, now or earlier."""
        self._stops, self._in_pieces = stops, in_pieces
        self._overlap = max((len(stop) - 1 for stop in stops), default=0)
        self._chunk: dict[str, Any] = {}
        self._finish: str | None = None
        self._pieces: list[str] = []
        self._lists: dict[str, list[Any]] = {}
        self._near, self._begin = "", 0
        """The end of the text, as much of it as is needed, and where it begins."""
        self._length = 0
        self._stop: int | None = None
        """Where the first stop string stands."""
        self._looked = 0
        """How long the text was when it was last looked at for repeats."""

    def add(self, chunk: dict[str, Any]) -> str:
        """Take in a chunk; returns what can be heard of it: up to a stop string, and in whole characters.

        Raises:
            Hiccup: the chunk lacks what every chunk has.
        """
        try:
            self._take(chunk["text"], chunk["meta_info"])
        except (LookupError, TypeError, AttributeError) as error:
            raise Hiccup("a response lacks what every response has") from error
        self._chunk = chunk
        end = self._written
        if self._stop is None and self._finish != "stop":
            while end > self.heard and whole(self._near[end - 1 - self._begin]) == _HALF:
                end -= 1
        begin, self.heard = self.heard, max(self.heard, end)
        return self._near[begin - self._begin : self.heard - self._begin]

    @property
    def _written(self) -> int:
        """The length of the text up to a stop string."""
        return self._length if self._stop is None else self._stop

    def is_stuck(self) -> bool:
        """Whether the text repeats one phrase without end while it is being written; looked at only now and then."""
        if self._finish is not None or self._written - self._looked < _OFTEN:
            return False
        self._looked = self._written
        end = self._written - self._begin
        return stuck_at(self._near[max(0, end - STUCK_WITHIN) : end], growing=True) is not None

    def whole(self, finish: str | None = None) -> dict[str, Any]:
        """The response as if it had come at once; nothing before the first chunk.

        Args:
            finish: why it was broken off, if it was.
        """
        if not self._chunk:
            return {}
        text = "".join(self._pieces) if self._in_pieces else self._chunk["text"]
        meta = {**self._chunk["meta_info"], **self._lists}
        return {
            **self._chunk,
            "text": text,
            "meta_info": meta | ({"finish_reason": {"type": finish}} if finish else {}),
        }

    def _take(self, text: str, meta: dict[str, Any]) -> None:
        self._finish = (meta["finish_reason"] or {}).get("type")
        if self._in_pieces:
            begin = max(self._begin, min(self._length - max(self._overlap, STUCK_WITHIN), self.heard))
            self._near, self._begin = self._near[begin - self._begin :] + text, begin
            self._pieces.append(text)
            for name in _PIECES:
                if name in meta:
                    self._lists.setdefault(name, []).extend(meta[name] or ())
        else:
            if len(text) < self._length:  # the server has cut off a stop string
                self._length, self._stop = 0, None
            self._near = text
        found = first_stop(self._near, self._stops, max(0, self._length - self._overlap - self._begin))
        self._length = self._begin + len(self._near)
        if found:
            self._stop = min(self._begin + found[0], self._written)


def responses_in(answers: Any) -> list[Any]:
    """The responses to a list of texts.

    Raises:
        Hiccup: the response is no list.
    """
    if not isinstance(answers, list) or not answers:
        raise Hiccup("a response lacks what every response has")
    return answers


def scored(answer: Any) -> list[Any]:
    """A row for each token of a response's prompt: log-probability, id and text.

    Raises:
        Hiccup: the response has no such rows.
    """
    try:
        return list(answer["meta_info"]["input_token_logprobs"])
    except (LookupError, TypeError) as error:
        raise Hiccup("a response lacks the log-probabilities of the choices") from error


def total(row: Sequence[Sequence[Any]]) -> float:
    """The summed log-probability of some tokens."""
    return float(sum(LEAST if token[0] is None else token[0] for token in row))


def chosen(answer: Any, ids: Sequence[int]) -> tuple[list[float], dict[str, Any]]:
    """The log-probabilities of these token ids, in their order, and the meta information.

    Raises:
        Hiccup: the response has no log-probabilities.
    """
    _, meta = generated(answer)
    try:
        by_id = {token: max(logprob, LEAST) for logprob, token, *_ in meta["output_token_ids_logprobs"][0]}
        return [by_id[token] for token in ids], meta
    except (LookupError, TypeError, ValueError) as error:
        raise Hiccup("a response lacks the log-probabilities of the choices") from error
