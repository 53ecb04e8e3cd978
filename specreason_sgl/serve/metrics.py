"""What a server has done, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from specreason_sgl.events import CallMade, Event, StepScored, StepTaken

if TYPE_CHECKING:
    from specreason_sgl.serve.solves import Served, Solves

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000)


class Metrics:
    """Counts what happens; a `Follower` of the solves."""

    def __init__(self, solves: Solves) -> None:
        """Begin at zero."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"specreason_{name}", meaning, labels, registry=self._registry)

        def histogram(name: str, meaning: str) -> Histogram:
            return Histogram(f"specreason_{name}", meaning, ("program",), registry=self._registry, buckets=SECONDS)

        self._requests = counter("requests", "Requests, by path and status", "path", "status")
        self._solves = counter("solves", "Solves that have ended", "program", "outcome")
        self._tokens = counter("tokens", "Tokens that models generated, by what for", "model", "kind")
        self._prompts = counter(
            "prompt_tokens", "Tokens of prompts, by whether they were in the cache", "model", "cached"
        )
        self._wasted = counter("wasted_tokens", "Tokens generated for the reasoning that are not in it", "program")
        self._steps = counter("steps", "Steps that were kept", "program", "author")
        self._drafts = counter("drafts", "Drafts that were judged", "program", "decision")
        self._retries = counter("retries", "Calls that were sent again", "model")
        self._calls = Histogram(
            "specreason_call_seconds",
            "Seconds of calls to models",
            ("model", "kind"),
            registry=self._registry,
            buckets=SECONDS,
        )
        self._seconds = histogram("solve_seconds", "Seconds of solves, without those lost to servers that were away")
        self._first = histogram(
            "first_step_seconds", "Seconds until the first step was kept, the wait for a place included"
        )
        self._waited = histogram("queue_seconds", "Seconds that solves waited for a place")
        states = Gauge("specreason_in_flight", "Solves that wait or run", ("state",), registry=self._registry)
        for state in ("waiting", "running"):
            states.labels(state).set_function(lambda state=state: solves.count(state))  # type: ignore[misc]
        missed = Gauge("specreason_not_stored", "Solves that could not be stored", registry=self._registry)
        missed.set_function(lambda: solves.shelf.missed if solves.shelf else 0)

    def request(self, path: str, status: int) -> None:
        """Count a request."""
        self._requests.labels(path, status).inc()

    def started(self, served: Served) -> None:
        """Count how long it waited."""
        self._waited.labels(served.order.offer.name).observe(served.age)

    def event(self, served: Served, event: Event) -> None:
        """Count what happened."""
        program = served.order.offer.name
        match event:
            case CallMade():
                self._tokens.labels(event.model, event.kind).inc(event.generated_tokens)
                self._prompts.labels(event.model, "yes").inc(event.cached_tokens)
                self._prompts.labels(event.model, "no").inc(max(0, event.prompt_tokens - event.cached_tokens))
                self._calls.labels(event.model, event.kind).observe(event.wall_s)
                self._retries.labels(event.model).inc(event.retries)
            case StepScored():
                self._drafts.labels(program, "accepted" if event.accepted else "rejected").inc()
            case StepTaken():
                if event.step == 0 and not event.chain:
                    self._first.labels(program).observe(served.age)
                self._steps.labels(program, event.author).inc()
            case _:
                pass

    def finished(self, served: Served) -> None:
        """Count how it ended."""
        program, tally = served.order.offer.name, served.tally
        self._solves.labels(program, tally.outcome or "failed").inc()
        self._wasted.labels(program).inc(tally.wasted_tokens)
        if tally.outcome != "failed":
            self._seconds.labels(program).observe(tally.latency)

    def notice(self, message: str) -> None:
        """Nothing to count."""

    def text(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self._registry)
