from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from specreason_sgl.lang.solve import Pair
    from specreason_sgl.servers.pairs import RunningPair

# A shell that starts the tests in the background has them ignore these, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither see nor touch the pair or the runs of whoever runs them."""
    monkeypatch.setenv("SPECREASON_HOME", str(tmp_path_factory.mktemp("state")))
    ours = ("SPECREASON_DISPLAY", "SPECREASON_RUNS", "SPECREASON_API_KEY")
    for name in (*ours, "NO_COLOR", "FORCE_COLOR", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPair]:
    """The embedded pair on real SGLang servers, started once for all tests that need it."""
    from specreason_sgl.cli.pair import embedded_models
    from specreason_sgl.servers import pairs

    with pairs.launch(*embedded_models(), tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture(scope="session")
def pair(servers: RunningPair) -> Pair:
    """The two servers as backends."""
    from specreason_sgl.engine.endpoint import Endpoint
    from specreason_sgl.lang.solve import Pair

    return Pair(
        Endpoint(servers.base.url, "base", api_key=servers.base.api_key),
        Endpoint(servers.small.url, "small", api_key=servers.small.api_key),
    )
