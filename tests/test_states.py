"""What a program hears of a call that failed, however it goes on."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sglang as sgl

from specreason_sgl.errors import CallFailed, SpecReasonError
from specreason_sgl.lang import loading
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.settings import Settings
from specreason_sgl.testing import Reply, ScriptedBackend
from specreason_sgl.text.scoring import DIGITS

ROOT = Path(__file__).parents[1]
REFUSED = "top_p=7.0"
"""What a server takes for no number at all, so that the call fails at once."""

SHAPES = {
    "a second call": """
        s += sgl.gen("two", max_tokens=4)
        s["two"]""",
    "a second call that nobody reads": """
        s += sgl.gen("two", max_tokens=4)""",
    "a second call after a while": """
        time.sleep(0.3)
        s += sgl.gen("two", max_tokens=4)
        s.text()""",
    "only the text": """
        s.text()""",
    "nothing": "",
    "a selection": """
        s += sgl.select("two", choices=list("0123456789"))
        s["two"]""",
    "a copy": """
        with s.copy() as copied:
            copied += sgl.gen("two", max_tokens=4)
            copied["two"]""",
    "a copy that is read afterwards": """
        with s.copy() as copied:
            copied += sgl.gen("two", max_tokens=4)
        s["two"]""",
    "a fork": """
        forks = s.fork(3)
        forks += sgl.gen("two", max_tokens=4)
        [each["two"] for each in forks]""",
    "a fork that is joined": """
        forks = s.fork(2)
        forks += sgl.gen("two", max_tokens=4)
        forks.join()
        s["two"]""",
    "a scope": """
        with s.var_scope("two"):
            s += sgl.gen(max_tokens=4)
        s["two"]""",
    "its meta information": """
        s.get_meta_info("one")["completion_tokens"]""",
    "another program on the other server": """
        other.run(s, backend=solve.small)""",
    "the solve": """
        solve.peek(s, "one")""",
    "several at the same time": """
        for number in range(50):
            s += sgl.gen(f"more_{number}", max_tokens=4)
        s["more_49"]""",
}


def write(folder: Path, shape: str, fails: str = f'sgl.gen("one", max_tokens=4, {REFUSED})') -> str:
    path = folder / "mine.py"
    path.write_text(
        f"""
import time
import sglang as sgl

@sgl.function
def other(s, state):
    s += "It is " + state["one"]
    s += sgl.gen("two", max_tokens=4)

@sgl.function
def mine(s, solve):
        s += solve.opening("base")
        s += {fails}
        {SHAPES[shape].strip()}
"""
    )
    return str(path)


def came(work: Callable[[], Any]) -> Any:
    """What something comes to, which it has to."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(30)


def ends(work: Callable[[], SolveRecord]) -> SolveRecord:
    """What a solve comes to, which it has to."""
    record = came(work)
    assert isinstance(record, SolveRecord)
    return record


@pytest.mark.parametrize("shape", SHAPES)
def test_a_program_that_goes_on_after_a_failure_ends_with_it(tmp_path: Path, shape: str) -> None:
    program = loading.load(write(tmp_path, shape))
    base = ScriptedBackend("base", [CallFailed("refused"), *[Reply("hm")] * 99])
    small = ScriptedBackend("small", [Reply("hm")] * 9)
    record = ends(lambda: solve(Problem(id="q", question="?"), program, Pair(base, small), Settings()))

    assert record.tally.error == "refused"
    assert base.left == 99, "a state that failed asks for nothing more"


@pytest.mark.server
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_on_real_servers(tmp_path: Path, pair: Pair, shape: str) -> None:
    program = loading.load(write(tmp_path, shape))
    record = ends(lambda: solve(Problem(id="q", question="?"), program, pair, Settings(temperature=0)))

    assert "top_p" in str(record.tally.error)


def test_a_failure_in_a_copy_is_no_older_value() -> None:
    @sgl.function
    def mine(s: Any) -> None:
        s += sgl.gen("one")
        with s.copy() as copied:
            copied.stream_executor.submit(sgl.gen("one"))
        with pytest.raises(SpecReasonError, match="refused"):
            s["one"]
        assert s.error() is None
        s += sgl.gen("one")
        assert s["one"] == "three"

    state = mine.run(backend=ScriptedBackend("base", [Reply("one"), CallFailed("refused"), Reply("three")]))

    assert state.error() is None
    assert state["one"] == "three"


def test_a_failure_is_known_before_anybody_who_waits_goes_on() -> None:
    for _ in range(200):
        state = asks_once.run(backend=ScriptedBackend("base", [CallFailed("refused")]))
        assert isinstance(state.error(), CallFailed)


def test_calls_that_are_added_while_another_fails_are_lost_with_it() -> None:
    for _ in range(100):
        state = asks_often.run(backend=ScriptedBackend("base", [CallFailed("refused")]))
        with pytest.raises(CallFailed, match="refused"):
            state["29"]


def test_a_state_that_has_ended_takes_nothing_more() -> None:
    state = asks_once.run(backend=ScriptedBackend("base", [Reply("hm")]))

    with pytest.raises(RuntimeError, match="after it had ended"):
        state += sgl.gen("two")
    assert state["one"] == "hm"


def test_whoever_listens_to_a_stream_hears_its_end() -> None:
    state = asks_often.run(backend=ScriptedBackend("base", [CallFailed("refused")]), stream=True)

    assert "".join(state.text_iter("29")) == ""
    assert "".join(state.text_iter()) == "?"
    assert state.error() is not None


class Streaming(ScriptedBackend):
    """A scripted server whose replies come in one piece where a program is streamed."""

    def generate_stream(self, s: Any, sampling_params: Any) -> Any:
        yield self.generate(s, sampling_params)


def test_a_listener_hears_a_scope_or_its_end() -> None:
    closing, heard = threading.Event(), Reply("hm")

    @sgl.function
    def mine(s: Any) -> None:
        with s.var_scope("scope"):
            s += sgl.gen("one")
            closing.wait()
        s += sgl.gen("two")

    for script, told in (([heard, heard], "hm"), ([CallFailed("refused")], "")):
        closing.clear()
        state = mine.run(backend=Streaming("base", script), stream=True)
        threading.Timer(0.05, closing.set).start()
        assert came(partial("".join, state.text_iter("scope"))) == told


def test_what_a_streamed_program_raises_is_told_to_whoever_asks() -> None:
    @sgl.function
    def mine(s: Any) -> None:
        s += sgl.gen("one")
        s["one"]
        raise ValueError("its own")

    state = mine.run(backend=Streaming("base", [Reply("hm")]), stream=True)

    assert "".join(state.text_iter()) == "hm"
    assert str(state.error()) == "its own"


def test_nobody_waits_for_a_scope_that_only_he_can_close() -> None:
    @sgl.function
    def mine(s: Any) -> None:
        with suppress(ValueError), s.var_scope("scope"):
            s += sgl.gen("one")
            raise ValueError("its own")
        with pytest.raises(RuntimeError, match="before its scope was closed"):
            s["scope"]

    state = came(lambda: mine.run(backend=ScriptedBackend("base", [Reply("hm")])))

    with pytest.raises(CallFailed, match="before its scope was closed"):
        came(lambda: state["scope"])


def test_text_without_what_failed_is_given_to_nobody() -> None:
    @sgl.function
    def by_text(s: Any) -> None:
        s += "?"
        with s.copy() as copied:
            copied.stream_executor.submit(sgl.gen("one"))
            s += copied.text()

    @sgl.function
    def by_joining(s: Any) -> None:
        s += "?"
        forks = s.fork(2)
        forks += sgl.gen("one")
        forks.join("concate_and_append")
        s += sgl.gen("two")

    with pytest.raises(CallFailed, match="refused"):
        by_text.run(backend=ScriptedBackend("base", [CallFailed("refused")]))
    joined = by_joining.run(backend=ScriptedBackend("base", [CallFailed("refused"), Reply("b"), Reply("c")]))
    assert str(joined.error()) == "refused"


def test_a_state_may_be_ended_twice() -> None:
    @sgl.function
    def mine(s: Any) -> str:
        copied = s.fork(1)[0]
        copied += sgl.gen("one")
        for _ in range(2):
            copied.stream_executor.end()
        return str(came(copied.text))

    for _ in range(50):
        assert mine.run(backend=ScriptedBackend("base", [Reply("hm")])).ret_value == "hm"


def test_a_wait_with_a_limit_ends_with_it() -> None:
    going_on = threading.Event()

    class Waiting(ScriptedBackend):
        def generate(self, *_: Any, **__: Any) -> Any:
            going_on.wait(30)
            raise CallFailed("refused")

    @sgl.function
    def mine(s: Any) -> None:
        s += sgl.gen("one")
        with pytest.raises(TimeoutError, match="`one`"):
            s.stream_executor.get_meta_info("one", 0.01)
        going_on.set()

    mine.run(backend=Waiting("base", []))


def test_branches_of_a_text_that_is_just_being_added_fill_the_cache_once() -> None:
    class Committing(ScriptedBackend):
        committed: list[str]

        def commit_lazy_operations(self, s: Any) -> None:
            self.committed.append(s.text_)

    backend = Committing("base", [3] * 4)
    backend.committed = []
    for _ in range(100):
        forks_at_once.run(backend=backend)

    assert backend.committed == ["?" * 1000] * 100


@sgl.function
def asks_once(s: Any) -> None:
    s += "?"
    s += sgl.gen("one")


@sgl.function
def asks_often(s: Any) -> None:
    s += "?"
    for number in range(30):
        s += sgl.gen(str(number))


@sgl.function
def forks_at_once(s: Any) -> None:
    s += "?" * 1000
    s.fork(4)


def test_digits_are_choices_of_a_failed_state_too() -> None:
    @sgl.function
    def mine(s: Any) -> None:
        s += sgl.gen("one")
        s += sgl.select("score", choices=list(DIGITS))
        with pytest.raises(CallFailed, match="refused"):
            s["score"]

    mine.run(backend=ScriptedBackend("base", [CallFailed("refused")]))


KEEPER = """
import sglang as sgl
from specreason_sgl.errors import CallFailed
from specreason_sgl.testing import Reply, ScriptedBackend

kept = []

@sgl.function
def mine(s):
    s += "?"
    kept.extend(s.fork(2).states)
    kept[0] += sgl.gen("one")
    kept[1] += sgl.gen("one")

mine.run(backend=ScriptedBackend("base", [CallFailed("refused"), Reply("hm")]))
print([state.error() is None for state in kept].count(True))
"""


@pytest.mark.slow
def test_a_state_that_somebody_keeps_does_not_keep_the_interpreter() -> None:
    command = [sys.executable, "-c", KEEPER]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=ROOT)

    assert (ended.returncode, ended.stdout) == (0, "1\n"), ended.stderr
