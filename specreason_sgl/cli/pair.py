"""The options that name a pair of servers, and opening the pair they name."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specreason_sgl.cli.packages import need
from specreason_sgl.cli.stops import stoppable
from specreason_sgl.engine.patience import WAIT_S, Patience
from specreason_sgl.errors import UsageError
from specreason_sgl.servers import API_KEY, EMBEDDED
from specreason_sgl.text.thinking import named

if TYPE_CHECKING:
    from specreason_sgl.engine.endpoint import Endpoint
    from specreason_sgl.events import Role
    from specreason_sgl.lang.solve import Pair
    from specreason_sgl.servers.pairs import Address

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

OWNED_WAIT_S = 2.0
"""For servers that this command has started for itself: when they are gone nobody starts them again."""


@dataclass(frozen=True)
class PairOptions:
    """Which servers to use."""

    pair: str | None = None
    base: str | None = None
    small: str | None = None
    api_key: str | None = None
    name: str | None = None
    """What the models are, if that is known."""
    wait_for_server_s: float = WAIT_S
    """How long a server that goes away is waited for."""
    call_limit_s: float | None = None
    """How long a call may stay silent before it is sent again; the endpoint's default if not given."""
    thinking: str | None = None
    """How the models think: a format, or two of them for base and small."""

    def __post_init__(self) -> None:
        """Refuse contradictions before anything is started.

        Raises:
            UsageError: both a pair and servers are named, or a pair or a way to think that is not known.
        """
        for name in (self.thinks("base"), self.thinks("small")):
            if name is not None:
                named(name)
        if self.pair and (self.base or self.small):
            raise UsageError("`--pair` and `--base`/`--small` exclude each other")
        if self.pair not in (None, EMBEDDED):
            raise UsageError(
                f"there is no pair `{self.pair}`", hint="use `--pair embedded`, or `--base URL --small URL`"
            )

    def thinks(self, role: Role) -> str | None:
        """How one of the models thinks, if that is said."""
        base, comma, small = (self.thinking or "").partition(",")
        return (small if comma and role == "small" else base).strip() or None

    @property
    def is_embedded(self) -> bool:
        """Whether the pair that comes with the package is meant."""
        return not (self.base or self.small)

    @property
    def label(self) -> str:
        """What the run is filed under."""
        if self.name:
            return self.name
        return EMBEDDED if self.is_embedded else " + ".join(url for url in (self.base, self.small) if url)

    def or_kept_up(self) -> PairOptions:
        """Itself, or where it names nothing, the pair of other models than the embedded ones that is up."""
        from specreason_sgl.servers import pairs

        if self.pair or self.base or self.small:
            return self
        running = pairs.running()
        if running is None or running.label == EMBEDDED:
            return self
        return replace(self, base=running.base.url, small=running.small.url, name=running.label)


def embedded_models() -> tuple[Path, Path]:
    """The folders of the embedded base and small model."""
    pair = Path(__file__).parents[1] / "pair"
    return pair / "base", pair / "small"


@contextmanager
def open_pair(options: PairOptions, say: Callable[[str], None] = lambda _: None) -> Iterator[Pair]:
    """The servers, connected: those named, the embedded pair that is up, or one started for this command alone.

    Args:
        options: which servers.
        say: told in a line what is being waited for.

    Raises:
        SpecReasonError: a server cannot be started or reached.
    """
    patience = Patience(options.wait_for_server_s)
    with stoppable(patience):
        yield from _opened(options, patience, say)


def _opened(options: PairOptions, patience: Patience, say: Callable[[str], None]) -> Iterator[Pair]:
    from specreason_sgl.servers import pairs

    if not options.is_embedded:
        yield _connect(
            pairs.Address(options.base, options.api_key or pairs.key_of(options.base)) if options.base else None,
            pairs.Address(options.small, options.api_key or pairs.key_of(options.small)) if options.small else None,
            options,
            patience,
        )
    elif (running := pairs.running()) and running.label == EMBEDDED:
        yield _connect(running.base, running.small, options, patience)
    else:
        need("sglang", "torch")
        # SGLang's frontend takes seconds to import; while servers start that costs nothing.
        threading.Thread(target=_import_frontend, daemon=True).start()
        with tempfile.TemporaryDirectory(prefix="specreason-") as logs:
            base, small = embedded_models()
            with pairs.launch(base, small, Path(logs), on_progress=say) as started:
                patience.limit_s = min(patience.limit_s, OWNED_WAIT_S)
                yield _connect(started.base, started.small, options, patience)


def _connect(base: Address | None, small: Address | None, options: PairOptions, patience: Patience) -> Pair:
    from specreason_sgl.engine.endpoint import READ_S, Endpoint
    from specreason_sgl.lang.solve import Pair

    read_s = options.call_limit_s or READ_S

    def endpoint(address: Address | None, role: Role) -> Endpoint | None:
        if address is None:
            return None
        thinking = options.thinks(role)
        return Endpoint(address.url, role, api_key=address.api_key, read_s=read_s, patience=patience, thinking=thinking)

    return Pair(endpoint(base, "base"), endpoint(small, "small"))


def _import_frontend() -> None:
    import specreason_sgl.engine.endpoint  # noqa: F401
