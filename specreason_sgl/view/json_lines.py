"""Events as JSON lines on standard output, for programs."""

from __future__ import annotations

import json
from typing import TextIO

from pydantic_core import to_jsonable_python

from specreason_sgl.events import Event, TextStreamed
from specreason_sgl.text.prompts import whole
from specreason_sgl.view.output import Output


class JsonSink:
    """Writes every event but streamed text as one line of JSON."""

    def __init__(self, stream: TextIO | None = None, **common: object) -> None:
        """Write to this stream, or to standard output; `common` is added to every line."""
        self._output = Output(stream)
        self._common = common

    def __call__(self, event: Event) -> None:
        """Write one event."""
        if isinstance(event, TextStreamed):
            return
        self._output.line(json_line({**self._common, **event.model_dump(mode="json")}))


def json_line(value: object) -> str:
    """A value as one line of JSON that any stream can carry and no terminal obeys."""
    plain = to_jsonable_python(_named(value), inf_nan_mode="null")
    return json.dumps(plain, ensure_ascii=True).replace("\x7f", "\\u007f")


def _named(value: object) -> object:
    """The value with whole characters in all names: pydantic takes no others there."""
    if isinstance(value, dict):
        return {whole(name) if isinstance(name, str) else name: _named(each) for name, each in value.items()}
    return [_named(each) for each in value] if isinstance(value, list | tuple) else value
