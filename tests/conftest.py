from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from terminals import Multiplexer

    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.lang.pair import Pair
    from specreason_sgl.servers.pairs import RunningPair

# A shell that starts the tests in the background has them ignore these, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


collect_ignore = ["clients"]  # run by `make test-clients`, where the clients are installed

# How long an example takes depends on what else the machine does.
PATIENT: dict[str, Any] = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("whole", **PATIENT)
hypothesis.settings.register_profile("quick", max_examples=20, **PATIENT)
hypothesis.settings.load_profile("whole")

WANTED = re.compile(r"No module named '(sglang|torch|transformers|tokenizers|datasets)|the package `(sglang|datasets)`")
"""How a test says that it needs what is only installed where SGLang is."""


class _Module(pytest.Module):
    """Tests that may need SGLang, where there is none."""

    def _getobj(self) -> Any:
        try:
            return super()._getobj()  # type: ignore[no-untyped-call]
        except self.CollectError as error:
            if WANTED.search(str(error)):
                pytest.skip("SGLang is not installed", allow_module_level=True)
            raise


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Where SGLang has no wheels, try what works without it."""
    return None if find_spec("sglang") else _Module.from_parent(parent, path=module_path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The same for what a test imports while it runs."""
    report = yield
    if report.failed and not find_spec("sglang") and WANTED.search(f"{report.longreprtext} {report.capstderr}"):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, "Skipped: SGLang is not installed")
    return report


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither see nor touch the pair or the runs of whoever runs them."""
    monkeypatch.setenv("SPECREASON_HOME", str(tmp_path_factory.mktemp("state")))
    ours = ("SPECREASON_DISPLAY", "SPECREASON_RUNS", "SPECREASON_API_KEY", "SPECREASON_SERVE_KEY")
    for name in (*ours, "NO_COLOR", "FORCE_COLOR", "PYTHONPATH", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tmux() -> Iterator[Multiplexer]:
    """A shell in a terminal multiplexer."""
    from terminals import Multiplexer

    program = shutil.which("tmux")
    if program is None:
        pytest.skip("tmux is not installed; other tests use a pseudo-terminal instead")
    shell = Multiplexer(program)
    yield shell
    shell.close()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPair]:
    """The embedded pair on real SGLang servers, and its base model once more, for which the small one drafts tokens.

    They are started once for all tests that need them.
    """
    from specreason_sgl.embedded import BASE, SMALL
    from specreason_sgl.servers import pairs

    logs = tmp_path_factory.mktemp("servers")
    with pairs.launch(BASE, SMALL, logs, decode="small", beside=True) as running:
        yield running


@pytest.fixture(scope="session")
def pair(servers: RunningPair) -> Pair[Endpoint]:
    """The two servers as backends."""
    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.lang.pair import Pair

    return Pair(
        Endpoint(servers.base.url, "base", api_key=servers.base.api_key),
        Endpoint(servers.small.url, "small", api_key=servers.small.api_key),
    )


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPair]:
    """Tiny random models on real servers: Qwen's tokenizer and template as the base model, DeepSeek's as the small."""
    from specreason_sgl.measure import rig

    folder, templates = tmp_path_factory.mktemp("rig"), Path(__file__).parent / "data" / "templates"
    models = {
        role: rig.write(folder / role, family, (templates / f"{name}.jinja").read_text(encoding="utf-8"))
        for role, family, name in (("base", rig.QWEN, "qwen3"), ("small", rig.DEEPSEEK, "deepseek-r1"))
    }
    with rig.started(models, folder / "logs", callers=4, context=8192) as running:
        yield running
