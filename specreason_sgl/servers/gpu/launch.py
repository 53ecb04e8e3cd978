"""From a pair and the cards to the servers: their arguments, as commands to read and as processes to start."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from specreason_sgl.errors import UsageError
from specreason_sgl.servers import API_KEY, processes
from specreason_sgl.servers.gpu import attention, dummies
from specreason_sgl.servers.gpu.decode import MOST_DRAFTED, Decode, choose
from specreason_sgl.servers.gpu.pairfile import ModelSpec, PairSpec
from specreason_sgl.servers.gpu.plan import CHUNK_TOKENS, GIB, Card, Plan, ServedModel, Share, fit, most_cards
from specreason_sgl.servers.gpu.shapes import find
from specreason_sgl.servers.pairs import Wanted, numbered, routers

PORT = 30000
REPLICA_PORTS = 10
"""How far the servers' ports are above the port of their router."""


@dataclass(frozen=True)
class Launch:
    """A planned pair of servers on GPUs."""

    spec: PairSpec
    plan: Plan
    decode: Decode
    cards: int
    """Cards of one replica."""
    replicas: int
    port: int
    dummies: Mapping[str, Path] = field(default_factory=dict)
    """By a model's name, the folder with made-up weights that is served instead."""
    host: str = processes.HERE
    """The interface that the servers listen at."""

    def servers(self, logs: Path) -> list[processes.ServerSpec]:
        """The servers, and the routers of replicas, in the order of their start.

        Args:
            logs: the folder for their logs.
        """
        first = self.port if self.replicas == 1 else self.port + REPLICA_PORTS
        sides = {"base": (self.spec.base, self.plan.base, 0), "small": (self.spec.small, self.plan.small, 1)}
        found = [
            processes.ServerSpec(
                name := numbered(role, replica),
                self._arguments(model, share, first + 2 * replica + stage, replica),
                first + 2 * replica + stage,
                str(logs / f"{name}.log"),
                stage=stage,
                host=self.host,
            )
            for role, (model, share, stage) in sides.items()
            for replica in range(self.replicas)
        ]
        return [*found, *routers(found, iter((self.port, self.port + 2, self.port + 1, self.port + 3)), logs)]

    def commands(self) -> list[str]:
        """The servers as shell commands that read the key from `API_KEY`; run each when the last one answers.

        Where a copy of the small model drafts, the first command writes that.
        """
        copying = [self.decode.drafter.command] if self.decode.drafter else []
        return [*copying, *(_command(server) for server in self.servers(Path()))]

    def wanted(self, limit_s: float, say: processes.Say = lambda _: None) -> Wanted:
        """The pair in the form that `pairs.up` starts; a copy of the small model that it needs is written.

        Args:
            limit_s: seconds until all servers have to be ready.
            say: called with a line on such a copy.

        Raises:
            SpecReasonError: another program listens on a port that is needed, or the copy cannot be written.
        """
        if self.decode.drafter:
            say(self.decode.drafter.write())
        for server in self.servers(Path()):
            processes.refuse_taken(server.port, "--port", self.host)
        key = os.environ.get(API_KEY) or secrets.token_urlsafe(24)
        return Wanted(self.spec.label, self.servers, key, attempts=1, limit_s=limit_s)

    def lines(self) -> Iterator[str]:
        """The plan as lines for people."""
        for role, share in (("base", self.plan.base), ("small", self.plan.small)):
            shape, place = (
                share.served.shape,
                "a card" if share.served.cards == 1 else f"each of {share.served.cards} cards",
            )
            yield (
                f"{role:<6} {shape.name}: on {place} {share.weights / GIB:.1f} GiB of weights, "
                f"{share.cache / GIB:.1f} GiB of cache for {share.tokens} tokens, "
                f"{share.fraction:.3f} of what is free at its start"
            )
        per = f", on each of {self.replicas} replicas" if self.replicas > 1 else ""
        many = self.plan.concurrency
        yield f"room for {many} problem{'s' * (many > 1)} of {self.plan.context} tokens at the same time{per}"
        yield f"tokens drafted in the base server: {self.decode.why}"

    def told(self) -> dict[str, Any]:
        """The plan as plain data for programs; bytes are on each card."""
        shares = {"base": self.plan.base, "small": self.plan.small}
        return {
            role: {
                "model": share.served.shape.name,
                "cards": share.served.cards,
                "weight_bytes": share.weights,
                "cache_bytes": share.cache,
                "reserve_bytes": share.reserve,
                "tokens": share.tokens,
                "mem_fraction_static": share.fraction,
            }
            for role, share in shares.items()
        } | {
            "context": self.plan.context,
            "concurrency": self.plan.concurrency,
            "replicas": self.replicas,
            "decode": self.decode.why,
        }

    def _arguments(self, model: ModelSpec, share: Share, port: int, replica: int) -> list[str]:
        card = share.first_card + replica * self.cards
        is_base = share is self.plan.base
        options = {
            "--model-path": self.dummies.get(model.model, model.model),
            "--load-format": "safetensors",
            "--host": self.host,
            "--port": port,
            "--tp-size": share.served.cards,
            "--base-gpu-id": card,
            "--attention-backend": attention.choose(self.spec.attention_backend, share.served.shape),
            "--dtype": model.dtype,
            "--quantization": model.quantization,
            "--kv-cache-dtype": self.spec.cache_dtype,
            "--context-length": self.plan.context,
            "--mem-fraction-static": f"{share.fraction:.3f}",
            "--max-total-tokens": share.tokens,
            "--max-mamba-cache-size": share.states or None,
            "--max-running-requests": self.plan.requests,
            "--chunked-prefill-size": CHUNK_TOKENS,
        }
        given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
        decode = self.decode.arguments if is_base else ()
        return [*given, *decode, *(dummies.ARGUMENTS if self.dummies else ()), *model.arguments]


def prepare(
    spec: PairSpec, cards: Sequence[Card], *, replicas: int = 1, port: int = PORT, host: str = processes.HERE
) -> Launch:
    """Plan a pair on cards.

    Args:
        spec: the pair.
        cards: all the cards that may be used.
        replicas: servers of each model, each pair of them on cards of its own.
        port: the base model's port; the small model has the next.
        host: the address of the interface that the servers listen at.

    Raises:
        DoesNotFit: there is not enough memory; the hint is what would fit.
        UsageError: there are too few cards, a model's configuration is not known, or the models do not allow the way of
            drafting tokens.
    """
    if spec.dummy and spec.decode != "off":
        raise UsageError("made-up weights say nothing about drafting tokens", hint="leave out `--dummy` or `--decode`")
    each = len(cards) // replicas
    if not each:
        raise UsageError(
            f"there {'is' if len(cards) == 1 else 'are'} {len(cards) or 'no'} GPU{'' if len(cards) == 1 else 's'} here"
            f"{f' for {replicas} replicas' if replicas > 1 else ''}",
            hint="to plan for another machine describe its cards, such as `--gpus 1x80 --dry-run`",
        )
    base, small = find(spec.base.model), find(spec.small.model)
    for shape in (base, small):
        attention.choose(spec.attention_backend, shape)
    decode = choose(spec.decode, base, small, spec.draft_head)
    sides = [
        ServedModel(shape, model.cards or most, model.dtype, model.quantization, spec.cache_dtype)
        for shape, model, most in ((base, spec.base, most_cards(base, each)), (small, spec.small, 1))
    ]
    copy = replace(small, vocab=base.vocab, stored=None) if decode.drafter else None
    draft = copy or (find(decode.draft) if decode.draft else None)
    # One plan for all replicas, so each place has what its poorest card has.
    poorest = [min(cards[place : replicas * each : each], key=lambda card: card.free) for place in range(each)]
    plan = fit(
        replace(sides[0], draft=draft, drafted=MOST_DRAFTED if decode.arguments else 0),
        sides[1],
        poorest,
        context=spec.context,
        concurrency=spec.concurrency,
        fewer=spec.base.cards is None,
    )
    stand_ins = {model: dummies.dummy(model) for model in (spec.base.model, spec.small.model)} if spec.dummy else {}
    return Launch(spec, plan, decode, each, replicas, port, stand_ins, host)


def _command(server: processes.ServerSpec) -> str:
    module = "sglang_router.launch_router" if server.is_router else "sglang.launch_server"
    return shlex.join(["python", "-m", "specreason_sgl.servers.keyed", module, *server.arguments])
