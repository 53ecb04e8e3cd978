"""The calculator."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.text.arithmetic import LONGEST, computed


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2+3", "5"),
        (" 7 x 3 ", "21"),
        ("7×3 \u2212 1", "20"),
        ("(1 + 2) * -3", "-9"),
        ("1/4", "0.25"),
        ("-1/4", "-0.25"),
        ("1/3", "1/3"),
        ("0.1 + 0.2", "0.3"),
        ("7 // 2 + 7 % 2", "4"),
        ("2^10", "1024"),
        ("2**-1", "0.5"),
        ("1e3", "1000"),
    ],
)
def test_arithmetic_is_exact(expression: str, value: str) -> None:
    assert computed(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "1/0",
        "2**0.5",
        "9**9**9",
        "9**999999999999",
        "1e999999",
        "(" * 150 + "1" + ")" * 150,
        "1" * (LONGEST + 1),
        "a + 1",
        "True + 1",
        "len('x')",
        "__import__('os').system('true')",
        "[1][0]",
        "1 if 1 else 2",
        "1e",
        "1 2",
        "1; 2",
        "1 < 2",
        "1j",
        "'a' * 9",
        "0 ** -1",
        "\x00",
        "2 &1",
    ],
)
def test_anything_else_has_no_value(expression: str) -> None:
    assert computed(expression) is None


@given(st.integers(-999, 999), st.integers(-999, 999))
def test_whole_numbers_are_added_and_multiplied_as_they_should(a: int, b: int) -> None:
    assert computed(f"{a} + ({b})") == str(a + b)
    assert computed(f"({a}) * ({b})") == str(a * b)


@given(st.text(max_size=60))
def test_no_text_makes_it_fail(text: str) -> None:
    assert computed(text) is None or isinstance(computed(text), str)
