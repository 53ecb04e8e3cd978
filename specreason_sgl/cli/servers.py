"""``specreason up``, ``status`` and ``down``: keep a pair of servers running between commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from specreason_sgl.errors import UsageError
from specreason_sgl.packages import need
from specreason_sgl.servers import API_KEY, SERVE_KEY
from specreason_sgl.view.output import note, say

if TYPE_CHECKING:
    from specreason_sgl.servers.gpu.launch import Launch
    from specreason_sgl.servers.pairs import RunningPair, Serving, Wanted

Json = Annotated[bool, typer.Option("--json", help="Only JSON on standard output")]

DOWN = 1
STARTING = "starting"

SERVED_BY = "specreason_sgl.serve.kept"

GPU, SERVERS, ENDPOINT = "Models on GPUs", "Servers", "Endpoint"


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
            help="Token-level drafts in the base server: by `small`, `ngram` or `off`; on GPUs also `auto` or `eagle3`",
            rich_help_panel=SERVERS,
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
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="ADDRESS",
            help="This machine's address by which others shall reach the models, with a key [only this machine]",
            rich_help_panel=SERVERS,
        ),
    ] = None,
    wait: Annotated[
        int,
        typer.Option(
            "--wait", min=1, help="Seconds until all servers on GPUs have to be ready", rich_help_panel=SERVERS
        ),
    ] = 3600,
    serve_port: Annotated[
        int | None,
        typer.Option("--serve-port", min=1, max=65535, help="Its port [8711, or a free one]", rich_help_panel=ENDPOINT),
    ] = None,
    serve_key: Annotated[
        str | None,
        typer.Option(
            "--serve-key",
            envvar=SERVE_KEY,
            help="The key that its clients need [made once and kept]",
            rich_help_panel=ENDPOINT,
        ),
    ] = None,
    no_serve: Annotated[
        bool, typer.Option("--no-serve", help="Only the model servers, no endpoint", rich_help_panel=ENDPOINT)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the commands and start nothing", rich_help_panel=SERVERS)
    ] = False,
    json: Json = False,
) -> None:
    """Start a pair and keep it running behind one endpoint: the embedded one, or models on GPUs."""
    from specreason_sgl.servers import EMBEDDED, pairs
    from specreason_sgl.tables import parse_override

    serving = None if no_serve else _serving(serve_port, serve_key)
    host = _listening(listen)
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
    if pair == EMBEDDED or (pair is None and not {*overrides} - {"decode"}):
        others = [name for name in overrides if name != "decode"]
        others += [*(["gpus"] if gpus else []), *(["dry-run"] if dry_run else [])]
        wanted = _embedded(replicas, "off" if decode is None else decode, others, host)
    else:
        launch = _launch(pair, overrides, gpus, replicas, port, host, trust=trust)
        if dry_run:
            _print_plan(launch, json)
            return
        for line in launch.lines():
            say(line, err=True)
        wanted = launch.wanted(wait, lambda line: say(line, err=True))
    need("sglang", "torch")
    if replicas > 1:
        _need_router()
    running, started = pairs.up(wanted, on_progress=lambda line: say(line, err=True), serving=serving)
    if not started and serving and not _is_as_asked(running, serving):
        note("the pair that is up has another endpoint, or none; `specreason down` first changes that")
    if running.drafted_by != wanted.drafted_by:
        note("the pair that is up drafts tokens otherwise, or not; `specreason down` first changes that")
    if listen and not started and f"//{host}:" not in running.base.url:
        note("the pair that is up listens elsewhere; `specreason down` first changes that")
    _show(running, "up" if started else "already up", json, {"plan": launch.told()} if launch else {})


def status(json: Json = False) -> None:
    """Say whether the pair is up, and where; one whose servers are being started is not up yet."""
    from specreason_sgl.servers import pairs

    if pair := pairs.running():
        _show(pair, "up", json)
        return
    if pair := pairs.kept():
        _show(pair, STARTING, json)
        raise typer.Exit(DOWN)
    _say({"status": "down"}) if json else say("down")
    if why := pairs.last_words():
        note(f"the pair gave itself up: {why}")
    _tell_elsewhere()
    raise typer.Exit(DOWN)


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


def _serving(port: int | None, key: str | None) -> Serving:
    from specreason_sgl.servers import pairs

    return pairs.Serving(SERVED_BY, port, None if key is None else pairs.check_key(key))


def _is_as_asked(pair: RunningPair, serving: Serving) -> bool:
    if pair.serve is None:
        return False
    return serving.key in (None, pair.serve.api_key) and (
        serving.port is None or pair.serve.url.endswith(f":{serving.port}")
    )


def _listening(named: str | None) -> str:
    """The address of the interface that the models' servers listen at.

    Raises:
        UsageError: others do not reach this machine by it, or would need no key.
    """
    import os

    from specreason_sgl.servers.processes import HERE, interface

    if named is None:
        return HERE
    if not os.environ.get(API_KEY):
        raise UsageError(
            "`--listen` lets others in than this machine",
            hint=f"give them a key: `export {API_KEY}=...`, the same there",
        )
    return interface(named)


def _embedded(replicas: int, decode: str, not_for_it: list[str], host: str) -> Wanted:
    import os
    from dataclasses import replace

    from specreason_sgl.embedded import BASE, SMALL
    from specreason_sgl.servers import pairs
    from specreason_sgl.servers.cpu.decode import named

    if not_for_it:
        raise UsageError(
            f"the embedded pair has no {', '.join(f'`{name}`' for name in not_for_it)}",
            hint="name models with `--base MODEL --small MODEL`, or `--pair`",
        )
    wanted = pairs.embedded(BASE, SMALL, replicas, decode=named(decode), host=host)
    key = os.environ.get(API_KEY)
    return replace(wanted, api_key=key) if key else wanted


def _launch(
    pair: str | None, overrides: dict[str, Any], gpus: str | None, replicas: int, port: int, host: str, *, trust: bool
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
    return prepare(spec, cards, replicas=replicas, port=port, host=host)


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
    from specreason_sgl.view.text import one_line

    where = {role: address.url for role, address in pair.addresses.items()}
    if pair.serve:
        where |= {"serve": f"{pair.serve.url}/v1", "serve_key": pair.serve.api_key or ""}
    if json:
        _say(
            {
                "status": word,
                "pair": pair.label,
                **where,
                "drafted_by": pair.drafted_by,
                "logs": str(pair.logs),
                **(more or {}),
            }
        )
    else:
        drafts = {"drafts": pair.drafted_by} if pair.drafted_by != "off" else {}
        rows = {"pair": pair.label, **where, **drafts, "logs": pair.logs}
        lines = (f"  {name.removeprefix('serve_'):<6} {one_line(str(value))}" for name, value in rows.items())
        say("\n".join((word, *lines)))
    if pair.serve and word != STARTING and not pair.is_served():
        note(f"the endpoint does not answer; its log is {pair.serve_log}")


def _say(row: dict[str, object]) -> None:
    from specreason_sgl.view.json_lines import json_line

    say(json_line(row))
