"""Reading a ``config.json``: different authors use different names for the same field, and null, a number or a list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Config = Mapping[str, Any]

INNER = ("text_config", "llm_config", "language_config", "thinker_config")
"""Tables that hold the language model's fields in models for images or sound."""
FOREIGN = ("vision_config", "audio_config", "quantization_config", "compression_config")
"""Tables of a configuration that do not describe the language model's sizes."""
MOST_LAYERS = 1000


class Unusable(Exception):
    """A field is missing, or has no usable value."""


def flat(config: Config) -> Config:
    """The language model's fields; fields that it lacks are taken from the outer table."""
    inner = next((config[name] for name in INNER if isinstance(config.get(name), Mapping)), None)
    if inner is None:
        return config
    return {**config, **{name: value for name, value in flat(inner).items() if value is not None}}


def first(config: Config, *names: str) -> Any:
    """The first of some fields that has a value, or None."""
    return next((config[name] for name in names if config.get(name) is not None), None)


def number(config: Config, *names: str) -> int | None:
    """The first of some fields that has a value, as a whole number; None if none has.

    Raises:
        Unusable: the value is no whole number.
    """
    value = first(config, *names)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Unusable(next(name for name in names if config.get(name) is not None))
    return value


def need(config: Config, *names: str) -> int:
    """The first of some fields that has a value, as a positive whole number.

    Raises:
        Unusable: there is no value, or it is not a positive whole number.
    """
    value = number(config, *names)
    if not value:
        raise Unusable(names[0])
    return value


def for_each_layer(config: Config, layers: int, *names: str) -> list[int] | None:
    """A number for each layer, from a list or from one number for all layers; None if there is no value.

    Raises:
        Unusable: the value is something else, or a list of another length.
    """
    value = first(config, *names)
    if not isinstance(value, list):
        one = number(config, *names)
        return None if one is None else [one] * layers
    if len(value) != layers or not all(isinstance(one, int) and one >= 0 for one in value):
        raise Unusable(next(name for name in names if config.get(name) is not None))
    return value


def layers_of(config: Config) -> int:
    """The number of layers.

    Raises:
        Unusable: the number is missing or impossible.
    """
    named = first(config, "layers_block_type", "hybrid_override_pattern")
    counted = {"num_hidden_layers": len(named)} if isinstance(named, list | str) else {}
    layers = need({**counted, **config}, "num_hidden_layers")
    if layers > MOST_LAYERS:
        raise Unusable("num_hidden_layers")
    return layers


def walk(config: Config) -> Iterator[tuple[str, Any]]:
    """All fields, also those of inner tables, except of tables in `FOREIGN`."""
    for name, value in config.items():
        if name in FOREIGN:
            continue
        yield name, value
        if isinstance(value, Mapping):
            yield from walk(value)


def family(config: Config) -> set[str]:
    """The names of a model's family, with type and architecture in the same spelling: ``gptoss``, ``qwen3next``."""
    inner: Config = next((config[name] for name in INNER if isinstance(config.get(name), Mapping)), {})
    found = [config.get("model_type"), inner.get("model_type"), *(config.get("architectures") or ())]
    plain = [name.lower().replace("_", "").removesuffix("text") for name in found if isinstance(name, str)]
    return {name.removesuffix("forcausallm").removesuffix("forconditionalgeneration") for name in plain}
