"""Opening a pair of servers: named ones, the pair that is up, or the embedded pair, started for this purpose."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from specreason_sgl.embedded import BASE, SMALL
from specreason_sgl.engine.transport import AUTO, transport_named
from specreason_sgl.engine.watch import WAIT_S
from specreason_sgl.errors import ServerUnreachable, UsageError
from specreason_sgl.lang.scope import Scope
from specreason_sgl.packages import need
from specreason_sgl.servers import EMBEDDED
from specreason_sgl.servers.cpu.decode import Decode, named
from specreason_sgl.text.thinking import thinking_named

if TYPE_CHECKING:
    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.events import Role
    from specreason_sgl.lang.pair import Pair
    from specreason_sgl.servers.pairs import Address

OWNED_WAIT_S = 2.0
"""Seconds to wait for a server that this command itself has started: nothing would start it again."""


@dataclass(frozen=True)
class PairOptions:
    """Which servers to use."""

    pair: str | None = None
    base: str | None = None
    small: str | None = None
    api_key: str | None = field(default=None, repr=False)
    """The key of all servers that have none in `keys`."""
    name: str | None = None
    """The pair's name for the run, if it has one."""
    wait_for_server_s: float = WAIT_S
    """Seconds to wait for a server that stops answering."""
    call_limit_s: float | None = None
    """Seconds without any answer after which a call is sent again; the endpoint's default if not given."""
    thinking: str | None = None
    """The models' thinking format, or two with a comma between them, for base and small."""
    transport: str = AUTO
    """How prompts travel; see `engine/transport.py`."""
    models: Mapping[Role, str] = field(default_factory=dict)
    """Addresses of further models, by role."""
    keys: Mapping[Role, str | None] = field(default_factory=dict, repr=False)
    """The servers' keys, by the role of their models."""
    decode: Decode = "off"
    """Who drafts tokens for the embedded pair's base model, if the pair is started."""
    beside: bool = True
    """Whether they are drafted in a further server of the base model, in the role ``decode``; else in its own."""

    def __post_init__(self) -> None:
        """Refuse contradictions before anything is started.

        Raises:
            UsageError: both a pair and servers are named; the pair, thinking format or transport is not known.
        """
        transport_named(self.transport)
        for name in (self.thinks("base"), self.thinks("small")):
            if name is not None:
                thinking_named(name)
        if self.pair and (self.base or self.small):
            raise UsageError("`--pair` and `--base`/`--small` exclude each other")
        if self.pair not in (None, EMBEDDED):
            raise UsageError(
                f"there is no pair `{self.pair}`", hint="use `--pair embedded`, or `--base URL --small URL`"
            )

    def thinks(self, role: str) -> str | None:
        """The thinking format of one of the models; None if not given."""
        base, comma, small = (self.thinking or "").partition(",")
        return (small if comma and role == "small" else base).strip() or None

    @property
    def is_embedded(self) -> bool:
        """Whether the options mean the pair that comes with the package."""
        return not (self.base or self.small)

    @property
    def roles(self) -> frozenset[Role]:
        """The roles of the models that there will be."""
        own = {"base": self.base or self.is_embedded, "small": self.small or self.is_embedded}
        named = {role for role, is_there in own.items() if is_there}
        return frozenset({*named, *self.models, *({"decode"} if self.has_decode else ())})

    @property
    def has_decode(self) -> bool:
        """Whether there is a further server, for whose base model tokens are drafted."""
        return self.beside and self.decode != "off"

    @property
    def label(self) -> str:
        """What the run is filed under."""
        if self.name:
            return self.name
        return EMBEDDED if self.is_embedded else " + ".join(url for url in (self.base, self.small) if url)

    def open_as(self, pair: Pair[Endpoint]) -> PairOptions:
        """These options with every server named, so that another process connects to the same ones.

        Args:
            pair: what `open_pair` made of these options.
        """
        urls = {role: server.url for role, server in pair.models.items()}
        keys = {role: server.api_key for role, server in pair.models.items()}
        wait_s = min((server.watch.limit_s for server in pair), default=self.wait_for_server_s)
        return replace(
            self,
            pair=None,
            base=urls.pop("base", None),
            small=urls.pop("small", None),
            models=urls,
            keys=keys,
            name=self.label,
            decode="off",
            wait_for_server_s=wait_s,
        )

    def drafting(self, told: str | None) -> PairOptions:
        """These options with a further server of the base model, which drafts tokens.

        Args:
            told: its address, or for the embedded pair who drafts: `small` or `ngram`; None for none.

        Raises:
            UsageError: nobody of that name can draft, or it is not the embedded pair that is to be started.
        """
        if told is None:
            return self
        if "://" in told:
            return replace(self, models={**self.models, "decode": told})
        if not self.is_embedded:
            raise UsageError(
                f"`--decode {told}` starts a server for the embedded pair only",
                hint="name the server of these models that drafts tokens: `--decode URL`",
            )
        return replace(self, decode=named(told))

    def or_kept_up(self) -> PairOptions:
        """These options; or, if they name no servers and a pair other than the embedded one is up, that pair.

        Raises:
            ServerUnreachable: that pair does not answer, and the embedded one would be no substitute.
        """
        from specreason_sgl.servers import pairs

        if self.pair or self.base or self.small:
            return self
        running = pairs.running()
        if running is None and (kept := pairs.kept()) and kept.label != EMBEDDED:
            raise ServerUnreachable(
                f"the pair {kept.label} does not answer yet", hint="`specreason status` says when it is up"
            )
        if running is None or running.label == EMBEDDED:
            return self
        return replace(self, base=running.base.url, small=running.small.url, name=running.label)


@contextmanager
def open_pair(
    options: PairOptions, say: Callable[[str], None] = lambda _: None, scope: Scope | None = None
) -> Iterator[Pair[Endpoint]]:
    """The servers, connected: those named, the embedded pair that is up, or one started for this scope alone.

    Args:
        options: which servers.
        say: called with a line on what is being waited for.
        scope: the scope that all calls belong to.

    Raises:
        SpecReasonError: a server cannot be started or reached.
    """
    from specreason_sgl.servers import pairs

    scope = scope or Scope()
    if not options.is_embedded:
        base, small = _address("base", options.base, options), _address("small", options.small, options)
        yield connect(base, small, options, scope)
    elif (running := pairs.running()) and running.label == EMBEDDED and (running.decode or not options.has_decode):
        yield connect(running.base, running.small, options, scope, running.decode)
    else:
        need("sglang", "torch")
        # SGLang's frontend takes seconds to import; while servers start that costs nothing.
        threading.Thread(target=_import_frontend, daemon=True).start()
        with (
            tempfile.TemporaryDirectory(prefix="specreason-") as logs,
            pairs.launch(
                BASE, SMALL, Path(logs), on_progress=say, decode=options.decode, beside=options.has_decode
            ) as started,
        ):
            owned = replace(options, wait_for_server_s=min(options.wait_for_server_s, OWNED_WAIT_S))
            yield connect(started.base, started.small, owned, scope, started.decode)


def connect(
    base: Address | None, small: Address | None, options: PairOptions, scope: Scope, decode: Address | None = None
) -> Pair[Endpoint]:
    """Connect to running servers, each in its role.

    Raises:
        SpecReasonError: a server cannot be reached.
    """
    from specreason_sgl.lang.pair import Pair

    named = {role: _address(role, url, options) for role, url in options.models.items()}
    others = {**({"decode": decode} if decode else {}), **named}
    return Pair(
        endpoint(base, "base", options, scope) if base else None,
        endpoint(small, "small", options, scope) if small else None,
        {role: endpoint(address, role, options, scope) for role, address in others.items() if address},
    )


def _address(role: Role, url: str | None, options: PairOptions) -> Address | None:
    """The address of a server that is named; None if it is not."""
    from specreason_sgl.servers.pairs import Address, key_of

    return Address(url, options.keys.get(role) or options.api_key or key_of(url)) if url else None


def endpoint(address: Address, role: str, options: PairOptions, scope: Scope) -> Endpoint:
    """Connect to one running server, with the time limits of the options.

    Raises:
        SpecReasonError: the server cannot be reached.
    """
    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.engine.link import READ_S

    return Endpoint(
        address.url,
        role,
        api_key=address.api_key,
        read_s=options.call_limit_s or READ_S,
        wait_s=options.wait_for_server_s,
        thinking=options.thinks(role),
        transport=transport_named(options.transport),
        scope=scope,
    )


def _import_frontend() -> None:
    import specreason_sgl.engine.backend  # noqa: F401
