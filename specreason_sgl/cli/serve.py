"""``specreason serve``: the pair as an OpenAI-compatible endpoint."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specreason_sgl.cli.options import (
    BaseUrl,
    Models,
    PairName,
    SmallUrl,
    ThinkingFormat,
    TransportName,
    WaitForServer,
    named_models,
)
from specreason_sgl.engine.transport import AUTO
from specreason_sgl.engine.watch import WAIT_S
from specreason_sgl.errors import UsageError
from specreason_sgl.packages import need
from specreason_sgl.serve import HEARTBEAT_S
from specreason_sgl.servers import API_KEY, SERVE_KEY, SERVE_PORT
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.view.output import note, say

if TYPE_CHECKING:
    from specreason_sgl.api import OpenPair
    from specreason_sgl.runs.store import RunConfig

LIMITS, SAMPLING, DOOR, KEEP = "Limits", "What requests do not say", "Who may come", "Storing"


def serve(
    pair: PairName = None,
    base: BaseUrl = None,
    small: SmallUrl = None,
    model: Models = None,
    servers_key: Annotated[
        str | None,
        typer.Option(
            "--servers-key", envvar=API_KEY, help="Key of the servers at --base and --small", rich_help_panel="Pair"
        ),
    ] = None,
    wait_for_server: WaitForServer = None,
    thinking: ThinkingFormat = None,
    transport: TransportName = None,
    decode: Annotated[
        str | None,
        typer.Option(
            "--decode",
            help="Who drafts the base model's tokens, if the embedded pair is started for this: `small`, `ngram` or "
            "`off` [off]",
            rich_help_panel="Pair",
        ),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            "--alias",
            metavar="NAME=PROGRAM",
            help="Offer a program as a model of this name: a stock one, or a file of your own, whose code is run; "
            "`NAME=PROGRAM,threshold=5` sets parameters; can be repeated",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            help="The interface to listen at; others than this machine's own need `--api-key`",
            rich_help_panel=DOOR,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0: any free one", rich_help_panel=DOOR)
    ] = SERVE_PORT,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key", envvar=SERVE_KEY, help="The key that clients need [a random one]", rich_help_panel=DOOR
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            "--cors",
            metavar="ORIGIN",
            help="A web page that browsers may call from; can be repeated",
            rich_help_panel=DOOR,
        ),
    ] = None,
    running: Annotated[
        int | None,
        typer.Option(
            "--running", min=1, help="Solves at the same time [what the pair has room for]", rich_help_panel=LIMITS
        ),
    ] = None,
    waiting: Annotated[
        int,
        typer.Option(
            "--waiting", min=0, help="Solves that may wait; a further one is sent away", rich_help_panel=LIMITS
        ),
    ] = 64,
    limit: Annotated[
        float | None,
        typer.Option("--limit", min=1, metavar="SECONDS", help="Longest solve [none]", rich_help_panel=LIMITS),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            "--grace",
            min=0,
            metavar="SECONDS",
            help="What is in flight may go on so long after Ctrl-C",
            rich_help_panel=LIMITS,
        ),
    ] = 30.0,
    heartbeat: Annotated[
        float,
        typer.Option(
            "--heartbeat",
            min=0.1,
            metavar="SECONDS",
            help="A silent stream says so often that it lives",
            rich_help_panel=LIMITS,
        ),
    ] = HEARTBEAT_S,
    budget: Annotated[
        int | None,
        typer.Option("--budget", min=0, help="Thinking tokens [embedded: 1024, else 8192]", rich_help_panel=SAMPLING),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0, help="[embedded: 0, else 0.6]", rich_help_panel=SAMPLING)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="[embedded: 1, else 0.95]", rich_help_panel=SAMPLING)
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            "--instruction",
            help="The user's turn, with `{problem}` in it [embedded: its own words, else the message alone]",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    judge: Annotated[
        str | None, typer.Option("--judge", help="The question to the judge", rich_help_panel=SAMPLING)
    ] = None,
    duplicate_reasoning: Annotated[
        bool, typer.Option("--duplicate-reasoning", help="Send `reasoning_content` also as `reasoning`")
    ] = False,
    store: Annotated[
        Path | None,
        typer.Option("--store", metavar="RUN", help="Store all solves in this run folder", rich_help_panel=KEEP),
    ] = None,
    store_limit: Annotated[
        int,
        typer.Option(
            "--store-limit",
            metavar="MIB",
            min=1,
            help="Store no more when it is as large as that",
            rich_help_panel=KEEP,
        ),
    ] = 1024,
) -> None:
    """Serve the pair to any OpenAI client: every program is a model, and the thinking has a field of its own."""
    need("sglang", "torch")
    from specreason_sgl.api import opened
    from specreason_sgl.serve.menu import menu
    from specreason_sgl.serve.room import places
    from specreason_sgl.serve.running import is_own, listening, new_key
    from specreason_sgl.serve.running import serve as run
    from specreason_sgl.serve.service import Service
    from specreason_sgl.serve.shelf import shelf
    from specreason_sgl.serve.solves import Solves
    from specreason_sgl.servers.cpu.decode import named
    from specreason_sgl.servers.pairs import check_key
    from specreason_sgl.servers.pairs import running as running_pair
    from specreason_sgl.view.display import console

    if not is_own(host) and not api_key:
        raise UsageError(
            f"`--host {host}` lets others in than this machine", hint=f"give them a key by `{SERVE_KEY}` or `--api-key`"
        )
    key = check_key(api_key) if api_key else new_key()
    offers = menu(alias or ())
    options = PairOptions(
        pair,
        base,
        small,
        servers_key,
        wait_for_server_s=WAIT_S if wait_for_server is None else wait_for_server,
        thinking=thinking,
        transport=transport or AUTO,
        models=named_models(model),
        decode=named(decode or "off"),
        beside=False,
    ).or_kept_up()
    if decode and (not options.is_embedded or running_pair()):
        raise UsageError(
            "`--decode` is for the embedded pair that this command starts itself",
            hint=f"start servers that draft tokens by `specreason up --decode {decode}`, and leave it out here",
        )
    given = {"budget": budget, "temperature": temperature, "top_p": top_p, "instruction": instruction, "judge": judge}
    defaults = {name: value for name, value in given.items() if value is not None}
    bound = listening(host, port)
    with ExitStack() as stack:
        with console(sys.stderr).status("connecting") as status:
            connected = stack.enter_context(opened(options, status.update, twice_ends_the_process=True))
        connected.settings(defaults)
        kept = stack.enter_context(shelf(store, _config(connected, defaults), store_limit)) if store else None
        for remark in kept.writer.remarks if kept else ():
            note(remark)
        service = Service(
            connected.label, offers, defaults, heartbeat_s=heartbeat, duplicate_reasoning=duplicate_reasoning
        )
        service.serve(
            Solves(connected, running=running or places(connected), waiting=waiting, limit_s=limit, shelf=kept)
        )
        url = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
        say(f"serve  {url}/v1\nkey    {key if not api_key else 'as given'}\npage   {url}\nmodels {', '.join(offers)}")
        if not is_own(host):
            note("what is said to this server and its key can be read on the way: put a proxy with TLS before it")
        run(service, bound, key, origins=cors or (), grace_s=grace)


def _config(pair: OpenPair, defaults: dict[str, Any]) -> RunConfig:
    from datetime import UTC, datetime

    from specreason_sgl.evaluation.modes import model_name
    from specreason_sgl.runs.provenance import command_line, describe, prompts, versions
    from specreason_sgl.runs.store import RunConfig

    servers = describe(pair.models)
    settings = pair.settings(defaults)
    return RunConfig.model_validate(
        {
            "created": datetime.now(UTC),
            "program": "serve",
            "pair": pair.label,
            "settings": settings.model_dump(),
            "versions": versions(),
            "servers": servers,
            **prompts(pair.models, settings),
            "repeatability": "solves of a server share batches, and their settings are those of each request",
            "command": command_line(sys.argv[1:]),
            "models": {role: model_name(told.get("model_path")) for role, told in servers.items()},
        }
    )
