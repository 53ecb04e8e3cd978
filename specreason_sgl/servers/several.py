"""A file that names many pairs of the same models, for jobs that are too large for one.

::

    [[pair]]
    name = "node1"
    base = "http://node1:30000"
    small = "http://node1:30001"
    key = "NODE1_KEY"          # the environment variable that holds the servers' key, if they want one
    models.verifier = "http://node1:30002"

Several replicas behind SGLang's router count as one pair: their address is the router's.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from specreason_sgl.errors import UsageError
from specreason_sgl.events import Role
from specreason_sgl.files import read_toml
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.tables import complaint

DECODE: Role = "decode"


class NamedPair(BaseModel):
    """One pair of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    base: str | None = None
    small: str | None = None
    decode: str | None = None
    """A further server of the base model, which drafts tokens."""
    models: dict[Role, str] = Field(default_factory=dict)
    """The servers of further models, by role."""
    key: str | None = None
    """The name of the environment variable that holds the servers' key."""

    @property
    def others(self) -> dict[Role, str]:
        """The servers of models that are neither base nor small, by role."""
        return {**self.models, **({DECODE: self.decode} if self.decode else {})}

    def options(self, common: PairOptions) -> PairOptions:
        """How to connect to the pair.

        Args:
            common: what holds for all pairs, such as the thinking format.

        Raises:
            UsageError: its key is not in the environment.
        """
        key = os.environ.get(self.key) if self.key else common.api_key
        if self.key and not key:
            raise UsageError(
                f"the key of the pair `{self.name}` is not in the environment", hint=f"`export {self.key}=...`"
            )
        return replace(
            common, pair=None, base=self.base, small=self.small, api_key=key, name=self.name, models=self.others
        )

    @model_validator(mode="after")
    def _has_servers(self) -> Self:
        if not (self.base or self.small):
            raise ValueError("name its servers: `base` and `small`")
        if taken := {"base", "small", DECODE} & self.models.keys():
            raise ValueError(f"`models.{min(taken)}`: this model has a field of its own, `{min(taken)}`")
        return self


class ServersFile(BaseModel):
    """The contents of such a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pair: tuple[NamedPair, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [each.name for each in self.pair]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two pairs are called {', '.join(f'`{name}`' for name in twice)}")
        return self


def read_servers(path: Path) -> tuple[NamedPair, ...]:
    """The pairs that a file names.

    Raises:
        UsageError: the file cannot be read or holds something else.
    """
    try:
        return ServersFile.model_validate(read_toml(path)).pair
    except ValidationError as error:
        wrong = "; ".join(complaint(each) for each in error.errors())
        raise UsageError(f"`{path}`: {wrong}", hint="docs/cluster.md shows such a file") from error
