"""``specreason doctor --try``: start a pair, look at it for ten minutes, and write what was found into one file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from specreason_sgl.errors import UsageError
from specreason_sgl.files import refuse_existing, write_new
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.view.output import say

if TYPE_CHECKING:
    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.lang.pair import Pair
    from specreason_sgl.lang.scope import Scope
    from specreason_sgl.measure.trial import Trial
    from specreason_sgl.servers.gpu.doctor import Finding
    from specreason_sgl.servers.gpu.pairfile import PairSpec

ALONE = ("base", "small", "specreason", "lookahead")
DECODING = ("base+decode", "specreason+decode", "lookahead+decode")
WAIT_S = 3600.0
"""Seconds until servers on GPUs have to be ready; their weights may have to be downloaded."""
DECODE = "decode"
"""The role of a server of the base model that drafts tokens."""
MARKS = {"ok": "✓", "note": "!", "bad": "✗"}


@dataclass(frozen=True)
class Plan:
    """What is to be tried."""

    spec: PairSpec | None
    """A pair for GPUs; None for the embedded pair, or for servers that run already."""
    options: PairOptions
    problems: int
    minutes: float
    out: Path


def attempt(plan: Plan, findings: Sequence[Finding]) -> Path:
    """Try a pair; returns the file with what was found.

    Args:
        plan: what is to be tried.
        findings: what the doctor found before.

    Raises:
        SpecReasonError: a server cannot be started or reached, another pair is up, or the file is there already.
    """
    from specreason_sgl.lang.scope import Scope
    from specreason_sgl.lang.stopping import stoppable
    from specreason_sgl.measure import trial
    from specreason_sgl.runs.provenance import describe, versions
    from specreason_sgl.servers.hardware import hardware
    from specreason_sgl.view.json_lines import json_line

    refuse_existing(plan.out)
    found = trial.Trial(lambda line: say(f"trying {line}", err=True))
    asked = trial.problems(plan.problems)
    servers: dict[str, object] = {}
    keys: list[str | None] = []
    started: list[float] = []
    with stoppable(scope := Scope()):
        for phase in _phases(plan):
            began = time.monotonic()
            with phase.opened(scope) as pair:
                started.append(time.monotonic() - began)
                servers |= describe(pair.models)
                keys += [endpoint.api_key for endpoint in pair]
                found.look(pair)
                kinds = [*phase.kinds, *(DECODING if DECODE in pair.models and phase.kinds == ALONE else ())]
                found.solve(pair, kinds, asked, time.monotonic() + 60 * plan.minutes / len(_phases(plan)))
    row = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "hardware": hardware(),
        "findings": [asdict(finding) for finding in findings],
        "started_s": started,
        "servers": servers,
        **found.told(),
    }
    write_new(plan.out, trial.scrubbed(json_line(row), keys) + "\n")
    _show(found)
    return plan.out


@dataclass(frozen=True)
class Phase:
    """Servers that are up at the same time, and the kinds of modes that are solved by over them."""

    kinds: tuple[str, ...]
    options: PairOptions
    spec: PairSpec | None = None

    @contextmanager
    def opened(self, scope: Scope) -> Iterator[Pair[Endpoint]]:
        """Start the servers, or connect to them.

        Args:
            scope: the scope that all calls belong to.
        """
        from specreason_sgl.servers.opening import open_pair
        from specreason_sgl.view.display import console

        with ExitStack() as stack:
            options = self.options if self.spec is None else stack.enter_context(_started(self.spec, self.options))
            with console(sys.stderr).status("connecting") as status:
                pair = stack.enter_context(open_pair(options, status.update, scope))
            yield pair


def _phases(plan: Plan) -> list[Phase]:
    """All at once where there is room; on GPUs, where two base models seldom fit, one after the other."""
    if plan.spec is None:
        return [Phase(ALONE, plan.options)]
    decoding = plan.spec.model_copy(update={"decode": "auto" if plan.spec.decode == "off" else plan.spec.decode})
    alone = plan.spec.model_copy(update={"decode": "off"})
    return [Phase(ALONE, plan.options, alone), Phase(DECODING, plan.options, decoding)]


@contextmanager
def _started(spec: PairSpec, options: PairOptions) -> Iterator[PairOptions]:
    """A pair on this machine's GPUs, stopped at the end; its base model is in the role of one that drafts as well.

    Raises:
        SpecReasonError: it does not fit, does not start, or another pair is up.
    """
    import os

    from specreason_sgl.servers import pairs
    from specreason_sgl.servers.gpu import detect
    from specreason_sgl.servers.gpu.launch import prepare

    if kept := pairs.kept():
        raise UsageError(f"a pair is up: {kept.label}", hint="`specreason down` stops it")
    launch = prepare(spec, detect.cards(os.environ))
    for line in launch.lines():
        say(line, err=True)
    wanted = launch.wanted(WAIT_S, lambda line: say(line, err=True))
    running, _ = pairs.up(wanted, on_progress=lambda line: say(line, err=True))
    try:
        named = replace(options, base=running.base.url, small=running.small.url)
        yield named if spec.decode == "off" else replace(named, models={DECODE: running.base.url})
    finally:
        pairs.down()


def _show(found: Trial) -> None:
    from specreason_sgl.measure.bench import share_of, speed

    for check in found.checks:
        say(f"{MARKS[check.grade]} {check.what:<22} {check.found}")
    summaries, comparisons = found.figures()
    against = {c.mode: c for c in comparisons if c.against == "base"}
    for summary in summaries:
        latency = f"{summary.latency.mean.value:.2f} s" if summary.latency else ""
        right = share_of(summary.accuracy.value if summary.accuracy else None)
        say(f"  {summary.mode:<22} {latency:>8}  {speed(against.get(summary.mode)):<20} right {right}")
