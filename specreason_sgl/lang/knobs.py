"""The knobs of a program: the annotated keyword arguments of its function.

::

    @sgl.function
    def mine(s, solve, threshold: NonNegativeFloat = 7.0, depth: int = 2):
        '''What it does.

Args:
            threshold: what the knob means, for `specreason programs`.
        '''

They are set in the same way from a command line, a job, an endpoint and a notebook. The values are checked and
converted here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Discriminator, Field, PydanticUserError, Tag, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from specreason_sgl.errors import UsageError
from specreason_sgl.tables import complaint

Several = Annotated[int, Field(ge=1, le=64)]
"""The type of a knob that says how many of something are made at the same time; a client of the endpoint may set it."""
Writer = Literal["base", "small"]
"""The type of a knob that says which model writes something."""
Thinker = Literal["base", "small", "specreason"]
"""The type of a knob that says who thinks: one model, or both by SpecReason."""
PLAIN = (bool, int, float, str)
"""Types of defaults that stand in for a missing annotation."""


@dataclass(frozen=True)
class Knob:
    """One parameter of a program that a user can set."""

    name: str
    type: Any
    default: Any
    meaning: str
    """Its line in the program's docstring; empty if there is none."""

    @property
    def is_needed(self) -> bool:
        """Whether there is no default."""
        return self.default is inspect.Parameter.empty

    @property
    def kind(self) -> str:
        """The type, as the program's author wrote it."""
        return _words(self.type)

    def read(self, value: Any) -> Any:
        """Check a given value and convert it to the knob's type.

        Raises:
            pydantic.ValidationError: the value does not have that type.
        """
        return _adapter(self.type).validate_python(value)


def _words(kind: Any) -> str:
    if isinstance(kind, type):
        return "None" if kind is NoneType else kind.__name__
    parts = get_args(kind)
    if get_origin(kind) is Annotated:
        bounds = ", ".join(_bound(told) for told in parts[1:] if not isinstance(told, Discriminator | Tag))
        return f"{_words(parts[0])} {bounds}".strip()
    if get_origin(kind) in {Literal, Union, UnionType}:
        return " or ".join(str(part) if get_origin(kind) is Literal else _words(part) for part in parts)
    return str(kind).replace("typing.", "")


def _bound(told: Any) -> str:
    """The limits of a type as text, such as ``>= 0``, from pydantic's or annotated-types' constraints."""
    limits = getattr(told, "metadata", None) or [told]
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [
        f"{sign} {getattr(limit, name)}" for limit in limits for name, sign in signs.items() if hasattr(limit, name)
    ]
    return ", ".join(found) or str(told)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))
    except PydanticUserError:  # a model has a configuration of its own
        return TypeAdapter(kind)


def knobs_of(function: Callable[..., Any]) -> tuple[dict[str, Knob], frozenset[str]]:
    """The knobs of a program's function by name, and its other parameters, which only another program can pass.

    Both come after the parameters for the state and the solve.
    """
    types, meanings = get_type_hints(function, include_extras=True), _meanings(function)
    knobs, objects = {}, set()
    for each in list(inspect.signature(function).parameters.values())[2:]:
        kind = types.get(each.name, type(each.default) if isinstance(each.default, PLAIN) else None)
        if kind is None:
            objects.add(each.name)
        else:
            knobs[each.name] = Knob(each.name, kind, each.default, meanings.get(each.name, ""))
    return knobs, frozenset(objects)


def set_knobs(known: Mapping[str, Knob], given: Mapping[str, Any], program: str) -> dict[str, Any]:
    """The value of every knob: the given one, or the default.

    Args:
        known: the program's knobs.
        given: values by name.
        program: its name, for messages.

    Raises:
        UsageError: there is no such knob, a value does not fit its type, or a knob without a default is not given.
    """
    for name in given:
        if name not in known:
            names = ", ".join(f"`{each}`" for each in known)
            raise UsageError(
                f"the program `{program}` has no parameter `{name}`",
                hint=f"it has {names}" if names else "it has none",
            )
    values = {}
    for name, knob in known.items():
        if name not in given and knob.is_needed:
            raise UsageError(f"the program `{program}` needs its parameter `{name}`", hint=knob.meaning or None)
        try:
            values[name] = knob.read(given[name]) if name in given else knob.default
        except ValidationError as error:
            wrong = "; ".join(complaint(each) for each in error.errors())
            raise UsageError(
                f"parameter `{name}` of the program `{program}`: {wrong}", hint=knob.meaning or None
            ) from error
    return values


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of knobs as a run stores them: as JSON, or as text where JSON has no form for them."""
    made: dict[str, Any] = to_jsonable_python(dict(values), fallback=str, serialize_unknown=True)
    return made


def _meanings(function: Callable[..., Any]) -> dict[str, str]:
    """What a docstring says about each argument, on one line each."""
    _, _, described = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", described, maxsplit=1)[0]
    found = re.findall(r"^    (\w+): (.+(?:\n {6,}.+)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
