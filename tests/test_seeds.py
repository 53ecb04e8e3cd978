"""What calls draw: numbers of their own, the same in every run, however the threads run."""

from __future__ import annotations

from typing import Any

import pytest
import sglang as sgl

from specreason_sgl.lang.seeds import Draws
from specreason_sgl.testing import ScriptedBackend


class Drawing(ScriptedBackend):
    """Says the seed of each call."""

    def __init__(self, draws: Draws, role: str = "base") -> None:
        super().__init__(role, [])
        self.draws = draws
        self.drawn: list[int] = []

    def generate(self, s: Any, sampling_params: Any) -> tuple[str, dict[str, Any]]:  # noqa: ARG002
        self.drawn.append(drawn := self.draws.next(s))
        return f" {drawn}", {}


@sgl.function
def branching(s: Any) -> list[str]:
    """Asks for one variable in every way there is."""
    s += "?"
    for _ in range(2):
        s += sgl.gen("one")
    for number in range(3):
        s += sgl.gen(f"loop_{number}") + sgl.gen("loop")
    first, second = s.fork(3), s.fork(2)
    first += sgl.gen("one")
    second += sgl.gen("one")
    nested = first[0].fork(2)
    nested += sgl.gen("one") + sgl.gen("one")
    with s.copy() as copied:
        copied.stream_executor.submit(sgl.gen("one"))
        within = copied.fork(2)
        within += sgl.gen("two")
        texts = [state.text() for state in (s, copied, *first.states, *second.states, *nested.states, *within.states)]
    s += sgl.gen("last")
    return [*texts, s.text()]


def test_forks_loops_and_repeated_names_all_draw_different_numbers() -> None:
    backend = Drawing(Draws(7))
    branching.run(backend=backend)

    assert len(backend.drawn) == 2 + 6 + 5 + 4 + 1 + 2 + 1
    assert len(set(backend.drawn)) == len(backend.drawn)


def test_every_run_draws_the_same_with_threads_or_without() -> None:
    runs = [
        branching.run(backend=Drawing(Draws(7)), use_thread=use_thread).ret_value for use_thread in [True, False] * 20
    ]

    assert runs == [runs[0]] * len(runs)


@sgl.function
def asks(s: Any, prompt: str, name: str = "one") -> str:
    s += prompt
    s += sgl.gen(name)
    return str(s[name])


def test_a_call_draws_by_its_name_and_not_by_what_is_asked_or_when() -> None:
    def drawn(draws: Draws, *calls: tuple[str, str], role: str = "base") -> list[str]:
        backend = Drawing(draws, role)
        return [str(asks.run(*call, backend=backend).ret_value) for call in calls]

    first, second = drawn(Draws(7), ("a", "one"), ("b", "two"))
    assert drawn(Draws(7), ("c", "two"), ("d", "one")) == [second, first]
    others = [
        *drawn(Draws(7), ("a", "one"), role="small"),
        *drawn(Draws(8), ("a", "one")),
        *drawn(Draws(7), ("a", "one"), ("a", "one"))[1:],
    ]
    assert len({first, second, *others}) == 5


def test_a_name_may_be_any_text() -> None:
    assert asks.run("?", "\ud800", backend=Drawing(Draws(7))).ret_value


@pytest.mark.parametrize("asked", [0, 3])
def test_another_scope_counts_anew(asked: int) -> None:
    draws = Draws(7)
    (first,) = {asks.run("?", backend=Drawing(draws.anew())).ret_value for _ in range(3)}
    for _ in range(asked):
        asks.run("?", backend=Drawing(draws))

    assert asks.run("?", backend=Drawing(draws.anew())).ret_value == first
