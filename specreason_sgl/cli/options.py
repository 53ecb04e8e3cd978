"""The options that name a pair of servers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from specreason_sgl.engine.watch import WAIT_S
from specreason_sgl.errors import UsageError
from specreason_sgl.servers import API_KEY

PANEL = "Pair"

PairName = Annotated[
    str | None,
    typer.Option("--pair", help="`embedded`: the pair that comes with the package", rich_help_panel=PANEL),
]
BaseUrl = Annotated[
    str | None, typer.Option("--base", metavar="URL", help="SGLang server of the base model", rich_help_panel=PANEL)
]
SmallUrl = Annotated[
    str | None, typer.Option("--small", metavar="URL", help="SGLang server of the small model", rich_help_panel=PANEL)
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar=API_KEY, help="Key of the servers at --base and --small", rich_help_panel=PANEL),
]

WaitForServer = Annotated[
    float | None,
    typer.Option(
        "--wait-for-server",
        metavar="SECONDS",
        min=0,
        help=f"How long a server that goes away is waited for [{WAIT_S:.0f}]",
        rich_help_panel=PANEL,
    ),
]

ThinkingFormat = Annotated[
    str | None,
    typer.Option(
        "--thinking",
        metavar="FORMAT",
        help="How the models think, or `BASE,SMALL`: see docs/models.md [as servers and templates say]",
        rich_help_panel=PANEL,
    ),
]

TransportName = Annotated[
    str | None,
    typer.Option(
        "--transport",
        metavar="NAME",
        help="How prompts travel: `sessions`, `ids`, `text`, or `auto`, the best that each server can do [auto]",
        rich_help_panel=PANEL,
    ),
]

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="ROLE=URL",
        help="SGLang server of a further model that a program names, such as `verifier`; can be repeated",
        rich_help_panel=PANEL,
    ),
]

Servers = Annotated[
    Path | None,
    typer.Option(
        "--servers",
        metavar="FILE",
        help="Many pairs of the same models, which share the work: see docs/cluster.md",
        rich_help_panel=PANEL,
    ),
]


def named_models(given: Iterable[str] | None, **more: str | None) -> dict[str, str]:
    """The servers of further models by role.

    Args:
        given: as ``ROLE=URL``.
        more: those that have options of their own.

    Raises:
        UsageError: a text has another form, or a role is named twice.
    """
    found = {role: url for role, url in more.items() if url}
    for each in given or ():
        role, equals, url = (part.strip() for part in each.partition("="))
        if not equals or not role.isidentifier() or not url:
            raise UsageError(
                f"`--model {each}` is not `ROLE=URL`", hint="such as `--model verifier=http://127.0.0.1:30003`"
            )
        if role in {"base", "small"}:
            raise UsageError(f"`--model {each}`: the {role} model has an option of its own", hint=f"use `--{role} URL`")
        if role in found:
            raise UsageError(f"`--model {each}`: there is a {role} model already")
        found[role] = url
    return found
