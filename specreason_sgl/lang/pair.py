"""The model servers that a solve runs over, by role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic

from typing_extensions import TypeVar

from specreason_sgl.events import Role

if TYPE_CHECKING:
    from specreason_sgl.lang.backend import Backend

B_co = TypeVar("B_co", bound="Backend", covariant=True, default="Backend")


@dataclass(frozen=True)
class Pair(Generic[B_co]):
    """The model servers, by role. Only those that the program uses have to be there."""

    base: B_co | None
    small: B_co | None
    others: Mapping[Role, B_co] = field(default_factory=dict)
    """Further models that a program names, such as a verifier."""

    @property
    def models(self) -> dict[Role, B_co]:
        """The servers that are there, by role."""
        named = {"base": self.base, "small": self.small, **self.others}
        return {role: model for role, model in named.items() if model is not None}

    def __iter__(self) -> Iterator[B_co]:
        """The servers that are there."""
        return iter(self.models.values())
