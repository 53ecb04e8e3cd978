"""How a checkpoint's weights are quantised: bytes for each weight, and which layers are not quantised."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import translate
from typing import Any

from specreason_sgl.servers.gpu.blocks import Block
from specreason_sgl.servers.gpu.fields import Config

METHOD_BYTES = {
    **dict.fromkeys(("fp8", "modelopt_fp8", "w8a8_fp8", "w8a8_int8", "bitsandbytes", "fbgemm_fp8"), 1.0),
    # A byte of scale for each group of 32.
    "mxfp8": 1.03125,
    "mxfp4": 0.53125,
    # Four bits, and for each group of 128 weights a scale and a zero point.
    **dict.fromkeys(("awq", "awq_marlin", "gptq", "gptq_marlin", "auto-round", "moe_wna16"), 0.54),
    # Four bits, and a byte of scale for each group of 16.
    **dict.fromkeys(("modelopt_fp4", "nvfp4_online"), 0.5625),
}
"""Bytes of a weight in the linear layers, by method; unknown methods count as unquantised, never as too few."""

ALGORITHMS = {"fp8": "modelopt_fp8", "nvfp4": "modelopt_fp4"}
"""ModelOpt's names of methods, and SGLang's names for them."""

LEFT_OUT = (
    *("ignore", "ignored_layers", "modules_to_not_convert", "exclude_modules", "exclude"),
    "llm_int8_skip_modules",
)
LEAST_OVERHEAD = 0.04
"""Extra bytes for each weight: files have more scales and zero points than the calculation gives."""

_PREFIXES = ("", "model.", "model.language_model.", "language_model.model.")


@dataclass(frozen=True)
class Packing:
    """How weights are packed."""

    method: str
    packed: int
    """How many parameters are packed."""
    bytes_each: float | None
    """Bytes of one packed parameter; None if the method is not known."""


def read(config: Config, blocks: tuple[Block, ...]) -> Packing | None:
    """The packing that a configuration describes; None if it describes none.

    Args:
        config: a model's fields, its ``quantization_config`` among them.
        blocks: its layers.
    """
    told = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(told, Mapping):
        return None
    algorithm = str(told.get("quant_algo") or "").lower()
    method = ALGORITHMS.get(algorithm) or told.get("quant_method") or (algorithm or None)
    if method is None:
        return None
    left = _Names(_left_out(told))
    only = _Names(_targets(told))
    packed = sum(
        size
        for place, block in enumerate(blocks)
        for names, size in _parts(place, block)
        if not any(map(left.has, names)) and (only.is_empty or any(map(only.has, names)))
    )
    return Packing(str(method), packed, _bytes(str(method), told))


def _bytes(method: str, told: Config) -> float | None:
    groups = told.get("config_groups")
    if isinstance(groups, Mapping):
        found = [_grouped(one.get("weights") or {}) for one in groups.values() if isinstance(one, Mapping)]
        return max((one for one in found if one), default=None)
    if told.get("load_in_4bit") or told.get("_load_in_4bit"):
        return 0.5625
    bits = told.get("bits", told.get("w_bit"))
    if isinstance(bits, int) and bits > 0:
        return _grouped({"num_bits": bits, "group_size": told.get("group_size", told.get("q_group_size"))})
    return METHOD_BYTES.get(method)


def _grouped(weights: Config) -> float | None:
    """Bytes of a weight of so many bits, with its part of the group's scale and zero point."""
    bits, group = weights.get("num_bits"), weights.get("group_size")
    if not isinstance(bits, int) or bits <= 0:
        return None
    if weights.get("type") == "float":
        return bits / 8 + (1 / group if isinstance(group, int) and group > 0 else 0)
    zero = 0 if weights.get("symmetric") else bits / 8
    overhead = (2 + zero) / group if isinstance(group, int) and group > 0 else 0
    return bits / 8 + max(LEAST_OVERHEAD, overhead)


def _parts(place: int, block: Block) -> Iterator[tuple[list[str], int]]:
    """Names that a layer's matrices go by, and how many parameters they are."""
    layer = f"layers.{place}"
    mixers = ("linear_attn.out_proj", "mixer.out_proj") if block.mixer.state else ("self_attn.o_proj",)
    yield [f"{layer}.{name}" for name in mixers], block.mixer.parameters
    yield _named(layer, "shared_experts.down_proj" if block.feed.experts else "down_proj"), block.feed.dense
    yield _named(layer, "experts.0.down_proj"), block.feed.experts


def _named(layer: str, part: str) -> list[str]:
    return [f"{layer}.{where}.{part}" for where in ("mlp", "block_sparse_moe", "mixer")]


def _left_out(told: Config) -> list[str]:
    found = [name for key in LEFT_OUT for name in _list(told.get(key))]
    dynamic = told.get("dynamic")
    rules = dynamic if isinstance(dynamic, Mapping) else {}
    return [*found, *(f"re:{rule.removeprefix('-:')}" for rule in rules if str(rule).startswith("-:"))]


def _targets(told: Config) -> list[str]:
    """The names of the only modules that are packed; empty if all linear layers are."""
    groups = told.get("config_groups")
    if not isinstance(groups, Mapping):
        return []
    found = [name for one in groups.values() if isinstance(one, Mapping) for name in _list(one.get("targets"))]
    return [] if "Linear" in found else found


def _list(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


class _Names:
    """Patterns of modules' names: parts of a dotted name, with ``*``, or regular expressions behind ``re:``."""

    def __init__(self, patterns: list[str]) -> None:
        tails = [f"layers.{one.partition('layers.')[2]}" if "layers." in one else one for one in patterns]
        plain = [one.strip(".") for one in tails if not one.startswith("re:")]
        self.is_empty = not patterns
        self.parts = {one for one in plain if "*" not in one}
        self.globs = [re.compile(translate(one)) for one in plain if "*" in one]
        self.globs += [re.compile(translate(f"{one}.*")) for one in plain if "*" in one]
        self.expressions = [found for one in patterns if one.startswith("re:") if (found := _compiled(one[3:]))]

    def has(self, name: str) -> bool:
        """Whether a pattern matches the module of this name, or a module that contains it."""
        words = name.split(".")
        ends = range(len(words) + 1)
        if any(".".join(words[start:end]) in self.parts for start in ends for end in ends[start + 1 :]):
            return True
        full = [prefix + name for prefix in _PREFIXES]
        if any(glob.match(one) for glob in self.globs for one in full):
            return True
        return any(found.match(one) for found in self.expressions for one in full)


def _compiled(expression: str) -> re.Pattern[str] | None:
    try:
        return re.compile(expression)
    except re.error:
        return None
