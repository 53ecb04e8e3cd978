"""A pair of models and how to serve them, from a TOML file and the command line.

::

    context = 10240                      # tokens of the longest problem, from the prompt to the answer
    cache_dtype = "fp8_e4m3"
    base = { model = "Qwen/QwQ-32B", cards = 2, arguments = ["--enable-metrics"] }
    small = { model = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B" }
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from specreason_sgl.errors import UsageError
from specreason_sgl.files import read_toml
from specreason_sgl.servers import API_KEY
from specreason_sgl.servers.gpu.decode import Method
from specreason_sgl.servers.processes import is_here
from specreason_sgl.tables import complaint, put

RUN_CODE = (
    "--trust-remote-code",
    "--enable-custom-logit-processor",
    "--custom-weight-loader",
    "--forward-hooks",
    "--sidecar",
    "--unified-cache-external-linker-config",
    "--config",
)
"""SGLang's options that make a server run foreign code, or that read further options from a file."""
LOAD_FORMATS = ("--load-format", "--speculative-draft-load-format")
SAFE_FORMATS = ("safetensors", "dummy")
KEYS = ("--api-key", "--admin-api-key")


class ModelSpec(BaseModel):
    """One model, and the options of its server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    """A folder, or a name on the hub."""
    cards: int | None = Field(None, ge=1)
    """The tensor parallel size; by default the base model takes as many cards as there are, the small model one."""
    dtype: str = "auto"
    quantization: str | None = None
    arguments: tuple[str, ...] = ()
    """Further SGLang server arguments; they override ours."""

    @field_validator("arguments")
    @classmethod
    def _without_keys(cls, arguments: tuple[str, ...]) -> tuple[str, ...]:
        if any(_means(name, key) for name, _ in _options(arguments) for key in KEYS):
            raise ValueError(f"a key is not for files and process lists; it is taken from `{API_KEY}`")
        return arguments

    def risks(self) -> Iterator[str]:
        """The dangerous effects of its arguments, which the user has to allow."""
        for name, value in _options(self.arguments):
            if any(_means(name, option) for option in RUN_CODE) or (
                _means(name, "--hicache-storage-backend") and value == "dynamic"
            ):
                yield f"`{name}` may run code that comes with a model or a file"
            elif any(_means(name, option) for option in LOAD_FORMATS) and value not in SAFE_FORMATS:
                yield f"`{name} {value}` loads weights that are not safetensors"
            elif _means(name, "--host") and not is_here(value):
                yield f"`{name} {value}` opens the server to the network"


class PairSpec(BaseModel):
    """A pair of models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: ModelSpec
    small: ModelSpec
    context: int = Field(10240, ge=1024)
    """Tokens of the longest problem: the paper's thinking budget of 8192, and room for the question and the answer."""
    concurrency: int | None = Field(None, ge=1)
    """How many problems of that length run at the same time; as many as fit if not given."""
    cache_dtype: str = "auto"
    """The type of both models' caches, as SGLang's ``--kv-cache-dtype``."""
    attention_backend: str | None = None
    """SGLang's ``--attention-backend``; if not given FlashInfer, except for families where SGLang refuses it."""
    decode: Method = "off"
    """How the base server drafts tokens for itself."""
    draft_head: str | None = None
    """A draft head for the base model, for EAGLE-3."""
    dummy: bool = False
    """Whether the models only have the real ones' sizes, with weights that SGLang makes up."""

    @property
    def label(self) -> str:
        """The pair's name in runs."""
        return f"{self.base.model} + {self.small.model}{' (made-up weights)' if self.dummy else ''}"


def risks(spec: PairSpec) -> list[str]:
    """The dangerous effects of a pair's arguments, which a file alone may not cause."""
    return [f"{role}: {risk}" for role, model in (("base", spec.base), ("small", spec.small)) for risk in model.risks()]


def stock() -> dict[str, Path]:
    """The pairs that come with the package, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "pairs").glob("*.toml"))}


def read(pair: str | None, overrides: Mapping[str, Any]) -> PairSpec:
    """A pair from a file or from the command line alone.

    Args:
        pair: a TOML file, the name of a stock pair, or None.
        overrides: values by dotted name, such as ``base.model``.

    Raises:
        UsageError: there is no such file, or a value in it is not valid; the message names the field.
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
        raise UsageError(f"the pair: {'; '.join(complaint(e) for e in error.errors())}") from error


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options among server arguments, each with its value, if it has one."""
    for argument, following in pairwise([*arguments, ""]):
        name, given, value = argument.partition("=")
        if name.startswith("--"):
            yield name, value if given else following


def _means(name: str, option: str) -> bool:
    """Whether SGLang takes a name for an option; SGLang accepts shortened names."""
    return option.startswith(name) and name != "--"
