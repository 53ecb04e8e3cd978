"""The knobs of a program: read off its signature, checked, converted, and refused in a line."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, NonNegativeInt

from specreason_sgl.errors import UsageError
from specreason_sgl.lang.knobs import knobs_of, set_knobs
from specreason_sgl.lang.loading import load, stock


def program(
    s: Any,
    solve: Any,
    judge: Any = None,
    rate: Annotated[float, Field(ge=0, le=1)] = 0.5,
    rule: Literal["mode", "mean"] = "mode",
    depth: NonNegativeInt = 2,
    *,
    hint: str = "",
) -> None:
    """Do something.

    It goes on for a while.

    Args:
        rate: how often,
            and what else.
        rule: which of two: this or that.
        unknown: nobody has it.

    Raises:
        hint: no argument.
    """


def bare(s, solve, is_right, depth=2, race=False, names=()):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Say nothing of types."""


def test_annotated_arguments_are_knobs_with_their_meanings() -> None:
    knobs, objects = knobs_of(program)

    assert list(knobs) == ["judge", "rate", "rule", "depth", "hint"]
    assert (knobs["rate"].default, knobs["rate"].meaning) == (0.5, "how often, and what else.")
    assert (knobs["rule"].kind, knobs["rule"].meaning) == (
        "mode or mean",
        "which of two: this or that.",
    )
    assert [knobs[name].kind for name in ("rate", "depth", "hint")] == ["float >= 0, <= 1", "int >= 0", "str"]
    assert knobs["hint"].meaning == ""
    assert objects == frozenset()


def test_a_default_that_says_its_type_makes_a_knob_and_anything_else_is_for_programs() -> None:
    knobs, objects = knobs_of(bare)

    assert {name: knob.type for name, knob in knobs.items()} == {"depth": int, "race": bool}
    assert objects == {"is_right", "names"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (0.5, "mode", 2)),
        ({"rate": "0.25", "depth": "3"}, (0.25, "mode", 3)),
        ({"rate": 1, "rule": "mean"}, (1.0, "mean", 2)),
    ],
)
def test_values_are_converted_and_the_rest_is_as_by_default(given: dict[str, Any], expected: tuple[Any, ...]) -> None:
    knobs, _ = knobs_of(program)

    values = set_knobs(knobs, given, "mine")

    assert (values["rate"], values["rule"], values["depth"]) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rat": 1}, r"the program `mine` has no parameter `rat`"),
        ({"rate": 2}, r"parameter `rate` of the program `mine`: Input should be less than or equal to 1"),
        ({"rate": float("inf")}, r"parameter `rate` .*finite"),
        ({"rule": "median"}, r"parameter `rule` .*'mode' or 'mean'"),
        ({"depth": -1}, r"parameter `depth` "),
        ({"depth": "two"}, r"parameter `depth` .*integer"),
    ],
)
def test_a_value_of_no_use_is_refused_in_a_line(given: dict[str, Any], words: str) -> None:
    knobs, _ = knobs_of(program)

    with pytest.raises(UsageError, match=words) as refused:
        set_knobs(knobs, given, "mine")

    assert "\n" not in str(refused.value)


def test_one_that_is_needed_is_asked_for() -> None:
    def needy(s: Any, solve: Any, depth: int) -> None: ...

    knobs, _ = knobs_of(needy)

    with pytest.raises(UsageError, match="needs its parameter `depth`"):
        set_knobs(knobs, {}, "needy")


@pytest.mark.parametrize("name", stock())
def test_every_knob_of_a_stock_program_has_a_meaning_and_a_default_of_its_type(name: str) -> None:
    for knob in load(name).knobs.values():
        assert knob.meaning
        assert knob.read(knob.default) == knob.default
