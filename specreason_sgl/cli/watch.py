"""``specreason watch``: what a server is doing, live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from specreason_sgl.errors import UsageError
from specreason_sgl.servers import SERVE_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from specreason_sgl.serve.client import Client, Hello, News
    from specreason_sgl.view.batch_sinks import BatchSink


def watch(
    url: Annotated[
        str | None, typer.Option("--url", help="The endpoint's address [that of the pair that is up]")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", envvar=SERVE_KEY, help="The key of the endpoint at --url")] = None,
    display: Annotated[
        str,
        typer.Option("--display", envvar="SPECREASON_DISPLAY", help="`auto`, `rich`, `plain`, `json` or `none`"),
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output")] = False,
) -> None:
    """Watch what a server solves; Ctrl-C or `q` leaves, and disturbs nothing."""
    import os
    import sys
    from contextlib import suppress

    from specreason_sgl.view.display import choose, is_screen

    shown = choose("json" if json else display, stdout_isatty=is_screen(sys.stdout), env=os.environ)
    client = _client(url, key)
    with suppress(KeyboardInterrupt), client.follow() as (hello, news):
        from specreason_sgl.view.display import open_batch_display, watch_batch

        title, began = f"{hello.pair} · {client.url}", _began(hello)
        if shown == "rich":
            watch_batch(lambda sink: _report(news, sink), title=title, began=began)
        else:
            with open_batch_display(shown, None, title=title, began=began) as sink:
                _report(news, sink)


def _client(url: str | None, key: str | None) -> Client:
    from specreason_sgl.serve.client import Client

    if url:
        return Client(url, key)
    from specreason_sgl.servers import pairs

    pair = pairs.kept()
    if pair is None or pair.serve is None:
        raise UsageError(
            "no pair is up whose server could be watched",
            hint="`specreason up` starts one; another server is named with `--url URL --key KEY`",
        )
    return Client(pair.serve.url, pair.serve.api_key)


def _began(hello: Hello) -> float:
    """When the server began, by the monotonic clock of this process."""
    import time
    from datetime import UTC, datetime

    since = hello.since if hello.since.tzinfo else hello.since.replace(tzinfo=UTC)
    return time.monotonic() - max(0.0, (datetime.now(UTC) - since).total_seconds())


def _report(news: Iterable[News], sink: BatchSink) -> None:
    """Report what an endpoint tells to a sink, as long as somebody reads what the sink writes."""
    from specreason_sgl.serve.client import Begun, Finished, Happened
    from specreason_sgl.view.batch_view import SolveKey

    keys: dict[str, SolveKey] = {}
    for each in news:
        match each:
            case Begun():
                keys[each.id] = sink.started(each.problem_id, each.repeat, each.mode, each.id)
            case Happened() if each.id in keys:
                sink.event(keys[each.id], each.event)
            case Finished():
                record = each.record
                known = SolveKey(record.problem.id, record.repeat, record.mode, each.id)
                sink.finished(keys.pop(each.id, known), record)
            case Happened():
                pass
            case _:
                sink.notice(each.message)
        if sink.closed:
            return
