"""``specreason up``, ``status`` and ``down``: keep a pair of servers running between commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from specreason_sgl.errors import UsageError
from specreason_sgl.packages import need
from specreason_sgl.servers import API_KEY
from specreason_sgl.view.output import note, say

if TYPE_CHECKING:
    from specreason_sgl.servers.gpu.launch import Launch
    from specreason_sgl.servers.pairs import RunningPair, Wanted

Json = Annotated[bool, typer.Option("--json", help="Only JSON on standard output")]

DOWN = 1

GPU, SERVERS = "Models on GPUs", "Servers"


def up(
    pair: Annotated[
        str | None, typer.Option("--pair", help="`embedded`, a stock pair or a TOML file", rich_help_panel=GPU)
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="MODEL", help="The base model", rich_help_panel=GPU)
    ] = None,
    small: Annotated[
        str | None, typer.Option("--small", metavar="MODEL", help="The small model", rich_help_panel=GPU)
    ] = None,
    context: Annotated[
        int | None, typer.Option("--context", help="Tokens of the longest problem [10240]", rich_help_panel=GPU)
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="Problems at the same time [what fits]", rich_help_panel=GPU)
    ] = None,
    decode: Annotated[
        str | None,
        typer.Option(
            "--decode",
            help="Token-level drafts in the base server: `auto`, `standalone`, `eagle3`, `ngram` or `off`",
            rich_help_panel=GPU,
        ),
    ] = None,
    draft_head: Annotated[
        str | None, typer.Option("--draft-head", metavar="MODEL", help="Draft head for `eagle3`", rich_help_panel=GPU)
    ] = None,
    attention_backend: Annotated[
        str | None,
        typer.Option("--attention-backend", help="SGLang's [flashinfer if it fits]", rich_help_panel=GPU),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other value of a pair, such as base.quantization=fp8",
            rich_help_panel=GPU,
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Start although a pair's arguments run code or open a server to the network",
            rich_help_panel=GPU,
        ),
    ] = False,
    dummy: Annotated[
        bool,
        typer.Option("--dummy", help="Made-up weights of the real sizes: for `bench --calibrate`", rich_help_panel=GPU),
    ] = False,
    gpus: Annotated[
        str | None,
        typer.Option("--gpus", help="Plan for these cards, such as 2x48 or 2xL40S [those here]", rich_help_panel=GPU),
    ] = None,
    replicas: Annotated[
        int, typer.Option("--replicas", min=1, help="Servers of each model, behind routers", rich_help_panel=SERVERS)
    ] = 1,
    port: Annotated[
        int, typer.Option("--port", min=1, max=65000, help="Port of the base model on GPUs", rich_help_panel=SERVERS)
    ] = 30000,
    wait: Annotated[
        int,
        typer.Option(
            "--wait", min=1, help="Seconds until all servers on GPUs have to be ready", rich_help_panel=SERVERS
        ),
    ] = 3600,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the commands and start nothing", rich_help_panel=SERVERS)
    ] = False,
    json: Json = False,
) -> None:
    """Start a pair and keep it running, so that the next `run` starts at once: the embedded one, or models on GPUs."""
    from specreason_sgl.servers import EMBEDDED, pairs
    from specreason_sgl.tables import parse_override

    given = {
        "base.model": base,
        "small.model": small,
        "context": context,
        "concurrency": concurrency,
        "decode": decode,
        "draft_head": draft_head,
        "attention_backend": attention_backend,
        "dummy": dummy or None,
    }
    overrides = dict(map(parse_override, override or ()))
    overrides |= {name: value for name, value in given.items() if value is not None}
    launch: Launch | None = None
    if pair == EMBEDDED or (pair is None and not overrides):
        wanted = _embedded(replicas, [*overrides, *(["gpus"] if gpus else []), *(["dry-run"] if dry_run else [])])
    else:
        launch = _launch(pair, overrides, gpus, replicas, port, trust=trust)
        if dry_run:
            _print_plan(launch, json)
            return
        for line in launch.lines():
            say(line, err=True)
        wanted = launch.wanted(wait)
    need("sglang", "torch")
    if replicas > 1:
        _need_router()
    running, started = pairs.up(wanted, on_progress=lambda line: say(line, err=True))
    _show(running, "up" if started else "already up", json, {"plan": launch.told()} if launch else {})


def status(json: Json = False) -> None:
    """Say whether the pair is up, and where."""
    from specreason_sgl.servers import pairs

    pair = pairs.running()
    if pair is None:
        _say({"status": "down"}) if json else say("down")
        _tell_elsewhere()
        raise typer.Exit(DOWN)
    _show(pair, "up", json)


def down(json: Json = False) -> None:
    """Stop the pair that `up` keeps running on this machine."""
    from specreason_sgl.servers import pairs

    was_up = pairs.down()
    if json:
        _say({"status": "down", "was_up": was_up})
    else:
        say("down" if was_up else "no pair was up")
    if not was_up:
        _tell_elsewhere()


def _tell_elsewhere() -> None:
    """Name other machines that have a pair, since machines with a shared home directory are easily confused."""
    from specreason_sgl.servers import pairs

    if hosts := pairs.elsewhere():
        note(f"a pair was started on {', '.join(f'`{name}`' for name in hosts)}: it is asked for and stopped there")


def _embedded(replicas: int, not_for_it: list[str]) -> Wanted:
    from specreason_sgl.servers import pairs
    from specreason_sgl.servers.opening import embedded_models

    if not_for_it:
        raise UsageError(
            f"the embedded pair has no {', '.join(f'`{name}`' for name in not_for_it)}",
            hint="name models with `--base MODEL --small MODEL`, or `--pair`",
        )
    return pairs.embedded(*embedded_models(), replicas)


def _launch(
    pair: str | None, overrides: dict[str, Any], gpus: str | None, replicas: int, port: int, *, trust: bool
) -> Launch:
    import os

    from specreason_sgl.servers.gpu import detect
    from specreason_sgl.servers.gpu.launch import prepare
    from specreason_sgl.servers.gpu.pairfile import read, risks

    spec = read(pair, overrides)
    found = risks(spec)
    if found and not trust:
        raise UsageError(
            f"the pair's arguments are not safe: {'; '.join(found)}", hint="if you want that, add `--trust`"
        )
    for risk in found:
        note(risk)
    cards = detect.cards(os.environ) if gpus is None else detect.describe(gpus)
    return prepare(spec, cards, replicas=replicas, port=port)


def _need_router() -> None:
    from importlib.util import find_spec

    if find_spec("sglang_router") is None:
        raise UsageError("replicas need SGLang's router", hint="install the extra `router`: `sglang-router`")


def _print_plan(launch: Launch, json: bool) -> None:
    if json:
        _say({"plan": launch.told(), "commands": launch.commands()})
        return
    from specreason_sgl.view.text import one_line

    say("\n".join(f"# {one_line(line)}" for line in launch.lines()))
    say("# each command when the server before answers: its fraction is of the memory that is free then")
    say(f"# all with the same key in {API_KEY}")
    say("\n".join(launch.commands()))


def _show(pair: RunningPair, word: str, json: bool, more: dict[str, Any] | None = None) -> None:
    if json:
        urls = {"base": pair.base.url, "small": pair.small.url}
        _say({"status": word, "pair": pair.label, **urls, "logs": str(pair.logs), **(more or {})})
    else:
        say(f"{word}\n  pair   {pair.label}\n  base   {pair.base.url}\n  small  {pair.small.url}")
        say(f"  logs   {pair.logs}")


def _say(row: dict[str, object]) -> None:
    from specreason_sgl.view.json_lines import json_line

    say(json_line(row))
