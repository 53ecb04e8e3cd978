"""The memory that a model needs, from its configuration: bytes of weights, bytes of cache for a token.

Configurations come from three places, none of which needs the network: the facts of stock models (``models.toml``),
a local folder, the hub's cache on this machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from specreason_sgl.errors import UsageError
from specreason_sgl.servers.gpu import blocks, packing
from specreason_sgl.servers.gpu.blocks import Block
from specreason_sgl.servers.gpu.fields import Config, Unusable, family, flat, for_each_layer, need, number
from specreason_sgl.servers.gpu.packing import Packing

DTYPE_BYTES = {"float16": 2, "half": 2, "bfloat16": 2, "bf16": 2, "float32": 4, "float": 4}
AUTO_BYTES = 2
"""SGLang takes checkpoints of 32 bits as float16 unless told otherwise."""

CONTEXTS = ("max_sequence_length", "seq_length", "max_seq_len", "model_max_length", "max_position_embeddings")
"""SGLang's names for the longest context, in the order in which SGLang reads them."""
TIED = ("gemma", "cohere")
"""Families whose output layer is the embedding by default."""
NOT_PLANNED = "the model cannot be planned: start its server by hand, and name it by its URL"

CACHE_BYTES = {"fp8_e4m3": 1, "fp8_e5m2": 1, "bf16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes, in elements."""

    name: str
    hidden: int
    heads: int
    blocks: tuple[Block, ...]
    vocab: int
    tied: bool
    """Whether the output layer is the embedding."""
    context: int
    """Tokens that the model's positions are made for."""
    linear_heads: int = 0
    """Heads of the layers with linear attention."""
    beside: int = 0
    """Parameters of the layers' own embeddings."""
    packing: Packing | None = None
    """The checkpoint's own quantisation, if it is quantised."""
    family: frozenset[str] = frozenset()
    """The names of its family."""
    tokenizer: str | None = None
    """A digest that is equal for models with the same tokens under the same ids; None if unknown."""
    stored: int | None = None
    """Bytes of the weight files; None if they are not on this machine."""

    @classmethod
    def read(cls, name: str, config: Config) -> Shape:
        """Take the sizes from a ``config.json``.

        Args:
            name: the model's name.
            config: the file's fields, as transformers writes them.

        Raises:
            UsageError: a field is missing or not understood.
        """
        try:
            return cls._read(name, config)
        except Unusable as error:
            raise UsageError(
                f"the configuration of `{name}` has no usable '{error}'", hint=f"without it {NOT_PLANNED}"
            ) from error
        except UsageError as error:
            raise UsageError(f"the configuration of `{name}`: {error}", hint=f"so {NOT_PLANNED}") from error
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise UsageError(
                f"the configuration of `{name}` is not understood: {error}", hint=f"so {NOT_PLANNED}"
            ) from error

    @classmethod
    def _read(cls, name: str, config: Config) -> Shape:
        kinds = family(config)
        config = flat(config)
        if not config.get("num_attention_heads"):
            raise Unusable("num_attention_heads")
        layers = blocks.read(config)
        heads = max(for_each_layer(config, len(layers), "num_attention_heads") or [])
        kimi = config.get("linear_attn_config") or {}
        linear = number(config, "linear_num_value_heads", "linear_num_heads", "mamba_num_heads")
        return cls(
            name=name,
            hidden=need(config, "hidden_size"),
            heads=heads,
            blocks=layers,
            vocab=need(config, "vocab_size"),
            tied=_is_tied(config, kinds),
            context=_context(config),
            linear_heads=number(kimi, "num_heads") or linear or heads,
            beside=_beside(config, len(layers)),
            packing=packing.read(config, layers),
            family=frozenset(kinds),
            tokenizer=config.get("tokenizer"),
        )

    @property
    def layers(self) -> int:
        """Their number."""
        return len(self.blocks)

    @property
    def kv_heads(self) -> int:
        """Heads whose keys and values are cached, in the layer that has most."""
        return max(block.mixer.kv_heads for block in self.blocks) or self.heads

    @property
    def quantization(self) -> str | None:
        """The checkpoint's own, if it is quantised."""
        return self.packing.method if self.packing else None

    @property
    def embedding(self) -> int:
        """Parameters outside the layers: the embedding, and the output layer where it is one of its own."""
        return self.vocab * self.hidden * (1 if self.tied else 2) + self.beside

    @property
    def body(self) -> int:
        """Parameters of the layers' matrices, norms and biases left out: less than a thousandth."""
        return sum(block.mixer.parameters + block.feed.dense + block.feed.experts for block in self.blocks)

    def weight_bytes(self, dtype: str = "auto", quantization: str | None = None) -> int:
        """Bytes of the weights on the card, over all cards together.

        Args:
            dtype: as SGLang's ``--dtype``.
            quantization: as SGLang's ``--quantization``; the checkpoint's own if not given.
        """
        element = DTYPE_BYTES.get(dtype, AUTO_BYTES)
        is_own = quantization in (None, self.quantization)
        if self.stored is not None and is_own and element == AUTO_BYTES:
            return self.stored
        if is_own and self.packing:
            each_packed, packed = self.packing.bytes_each or element, self.packing.packed
        else:
            each_packed, packed = packing.METHOD_BYTES.get(quantization or "", element), self.body
        return int((self.embedding + self.body - packed) * element + packed * each_packed)

    def cache_bytes(self, cards: int = 1, cache_dtype: str = "auto", dtype: str = "auto") -> int:
        """Bytes of key-value cache for one token on each card.

        Grouped-query heads are spread over the cards, at least one to each; a latent vector is on every card whole.

        Args:
            cards: the tensor parallel size.
            cache_dtype: as SGLang's ``--kv-cache-dtype``.
            dtype: as SGLang's ``--dtype``, which an ``auto`` cache follows.
        """
        element = CACHE_BYTES.get(cache_dtype) or DTYPE_BYTES.get(dtype, AUTO_BYTES)
        mixers = [block.mixer for block in self.blocks]
        return element * sum(-(-mixer.kv_heads // cards) * mixer.kv_width + mixer.latent for mixer in mixers)

    def state_bytes(self, cards: int = 1) -> int:
        """Bytes that layers with linear attention keep for one request on each card, whatever its length.

        Args:
            cards: the tensor parallel size.
        """
        return -(-sum(block.mixer.state for block in self.blocks) // cards)

    def activation_bytes(self, tokens: int, requests: int, cards: int = 1) -> int:
        """Estimate of the largest working set of a forward pass on each card, in bytes.

        Residual stream, attention and feed-forward intermediates of a prefill chunk, in two bytes an element, and
        logits in four bytes three times over (raw, scaled, normalised).

        Args:
            tokens: of a prefill chunk.
            requests: in a batch.
            cards: the tensor parallel size.
        """
        head = max(block.mixer.kv_width for block in self.blocks) // 2 or self.hidden // self.heads
        attention = (self.heads + 2 * self.kv_heads) * head
        width = max(block.feed.width for block in self.blocks)
        per_token = 6 * self.hidden + (2 * attention + 3 * width) // cards
        return tokens * per_token * 2 + requests * self.vocab * 12

    def divides(self, cards: int) -> bool:
        """Whether SGLang can spread the heads over so many cards."""
        kv_heads = {block.mixer.kv_heads for block in self.blocks if block.mixer.kv_heads}
        whole = (self.heads, self.linear_heads)
        return not any(heads % cards for heads in whole) and all(kv % cards == 0 or cards % kv == 0 for kv in kv_heads)


def find(model: str) -> Shape:
    """The shape of a model, by its folder or its name on the hub.

    Args:
        model: a folder with ``config.json``, a stock model's name, or one that is in the hub's cache here.

    Raises:
        UsageError: its configuration is nowhere on this machine.
    """
    config = configuration(model)
    shape = Shape.read(model, config)
    folder = weights_folder(model)
    if folder is None:
        return shape
    known = _known().get(model, {}).get("tokenizer")
    # Files of 32 bits are twice what they become.
    stored = None if config.get("torch_dtype", config.get("dtype")) == "float32" else _stored(folder)
    return replace(shape, tokenizer=known or _fingerprint(folder), stored=stored)


def configuration(model: str) -> Mapping[str, Any]:
    """A model's ``config.json``, or the known fields of a stock model.

    Args:
        model: a folder with ``config.json``, a stock model's name, or one that is in the hub's cache here.

    Raises:
        UsageError: its configuration is nowhere on this machine.
    """
    folder = weights_folder(model)
    if folder is not None:
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"cannot read `{folder / 'config.json'}`: {error}") from error
        if not isinstance(config, dict):
            raise UsageError(f"`{folder / 'config.json'}` is not a model's configuration")
        return config
    if fields := _known().get(model):
        return fields
    if Path(model).is_dir():
        raise UsageError(f"there is no `config.json` in `{model}`")
    raise UsageError(
        f"the configuration of `{model}` is not known here",
        hint=f"download it with `hf download {model}`, or name a folder with its `config.json`",
    )


def weights_folder(model: str) -> Path | None:
    """The folder on this machine that a model's configuration is in, or None: the model's own, or the hub's cache."""
    if (Path(model) / "config.json").is_file():
        return Path(model)
    if model.count("/") != 1:
        return None
    snapshots = hub_cache() / f"models--{model.replace('/', '--')}" / "snapshots"
    found = sorted(snapshots.glob("*/config.json"), key=lambda path: path.stat().st_mtime)
    return found[-1].parent if found else None


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it downloads, by its environment variables."""
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(named)
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"


def has_weights(folder: Path) -> bool:
    """Whether a model's weight files are in a folder, all of them where an index names them."""
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return all((folder / file).exists() for file in set(index["weight_map"].values()))
    except (OSError, ValueError, KeyError):
        return any(folder.glob("*.safetensors"))


@cache
def _known() -> Mapping[str, Mapping[str, Any]]:
    models: dict[str, dict[str, Any]] = tomllib.loads(
        (Path(__file__).parent / "models.toml").read_text(encoding="utf-8")
    )
    return {
        name: models[fields.pop("parent")] | fields if "parent" in fields else fields for name, fields in models.items()
    }


def _context(config: Config) -> int:
    """As SGLang's ``get_context_length``."""
    scaling = config.get("rope_scaling") or {}
    stretched = "original_max_position_embeddings" not in scaling and scaling.get("rope_type") != "llama3"
    factor = (scaling.get("factor") or 1) if stretched else 1
    if not (longest := number(config, *CONTEXTS)):
        raise Unusable(CONTEXTS[-1])
    return int(longest * factor)


def _is_tied(config: Config, kinds: set[str]) -> bool:
    told = config.get("tie_word_embeddings")
    return any(kind.startswith(TIED) for kind in kinds) if told is None else bool(told)


def _beside(config: Config, layers: int) -> int:
    """Gemma's embeddings for each layer."""
    width = number(config, "hidden_size_per_layer_input") or 0
    return width * layers * (number(config, "vocab_size_per_layer_input") or 0)


def _stored(folder: Path) -> int | None:
    """Bytes of the safetensors files, if all are there."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) if has_weights(folder) else None


def _fingerprint(folder: Path) -> str | None:
    """A digest of a tokenizer's tokens and their ids."""
    try:
        told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        ids = dict(told["model"]["vocab"])
        ids |= {token["content"]: token["id"] for token in told.get("added_tokens", ())}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return hashlib.sha256(json.dumps(sorted(ids.items())).encode()).hexdigest()
