"""A pair of models and how to serve them, from a TOML file and the command line.

::

    context = 10240                      # tokens of the longest problem, from the prompt to the answer
    cache_dtype = "fp8_e4m3"
    base = { model = "Qwen/QwQ-32B", cards = 2, arguments = ["--enable-metrics"] }
    small = { model = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B" }
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from specreason_sgl.errors import UsageError
from specreason_sgl.files import read_toml
from specreason_sgl.gpu.decode import Method
from specreason_sgl.tables import put, told


class ModelSpec(BaseModel):
    """One model and what its server is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    """A folder, or a name on the hub."""
    cards: int | None = Field(None, ge=1)
    """The tensor parallel size; by default the base model takes as many cards as there are, the small model one."""
    dtype: str = "auto"
    quantization: str | None = None
    arguments: tuple[str, ...] = ()
    """More of SGLang's server arguments; they win over ours."""


class PairSpec(BaseModel):
    """A pair of models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: ModelSpec
    small: ModelSpec
    context: int = Field(10240, ge=1024)
    """Tokens of the longest problem: the paper's thinking budget of 8192, and room for the question and the answer."""
    concurrency: int | None = Field(None, ge=1)
    """Problems of that length at the same time; as many as fit if not given."""
    cache_dtype: str = "auto"
    """Of both models' caches, as SGLang's ``--kv-cache-dtype``."""
    attention_backend: str | None = None
    """SGLang's; if not given FlashInfer's, but for families that SGLang refuses it for."""
    decode: Method = "off"
    """How the base server drafts tokens for itself."""
    draft_head: str | None = None
    """A draft head for the base model, for EAGLE-3."""
    dummy: bool = False
    """Whether the models only have the real ones' sizes, with weights that SGLang makes up."""

    @property
    def label(self) -> str:
        """What a run on it is filed under."""
        return f"{self.base.model} + {self.small.model}{' (made-up weights)' if self.dummy else ''}"


def stock() -> dict[str, Path]:
    """The pairs that come with the package, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "pairs").glob("*.toml"))}


def read(pair: str | None, overrides: Mapping[str, Any]) -> PairSpec:
    """A pair from a file or from the command line alone.

    Args:
        pair: a TOML file, the name of a stock pair, or None.
        overrides: values by dotted name, such as ``base.model``.

    Raises:
        UsageError: there is no such file, or something in it is not what it should be; the message names the field.
    """
    row: dict[str, Any] = {}
    if pair is not None:
        found = Path(pair) if Path(pair).is_file() else stock().get(pair)
        if found is None:
            known = ", ".join(f"`{name}`" for name in ("embedded", *stock()))
            raise UsageError(f"there is no pair `{pair}`", hint=f"there are {known}, or name a file")
        row = read_toml(found)
    for name, value in overrides.items():
        put(row, name.split("."), value)
    missing = [role for role in ("base", "small") if not row.get(role)]
    if missing:
        raise UsageError(f"there is no {missing[0]} model", hint=f"name it with `--{missing[0]} MODEL`")
    try:
        return PairSpec.model_validate(row)
    except ValidationError as error:
        raise UsageError(f"the pair: {'; '.join(told(e) for e in error.errors())}") from error
