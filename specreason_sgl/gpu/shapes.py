"""What a model's configuration says of its memory: bytes of weights, bytes of cache for a token.

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

DTYPE_BYTES = {"float16": 2, "half": 2, "bfloat16": 2, "bf16": 2, "float32": 4, "float": 4}
AUTO_BYTES = 2
"""SGLang takes checkpoints of 32 bits as float16 unless told otherwise."""

QUANTIZED_BYTES = {
    **dict.fromkeys(("fp8", "mxfp8", "modelopt_fp8", "w8a8_fp8", "w8a8_int8", "bitsandbytes"), 1.0),
    # Four bits, and for each group of 128 weights a scale and a zero point.
    **dict.fromkeys(("awq", "awq_marlin", "gptq", "gptq_marlin"), 0.54),
    # Four bits, and a byte of scale for each group of 16.
    **dict.fromkeys(("modelopt_fp4", "nvfp4_online", "mxfp4"), 0.5625),
}
"""Bytes of a weight in the linear layers; a method that is not here counts as unquantised, which is never too few."""

CACHE_BYTES = {"fp8_e4m3": 1, "fp8_e5m2": 1, "bf16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): one compressed vector a token for all heads."""

    rank: int
    """Width of the compressed keys and values."""
    rope: int
    """Width of the shared rotary part of a key."""
    plain: int
    """Width of a head's part without rotary position."""
    value: int
    """Width of a head's value."""
    query_rank: int = 0
    """Width of the compressed query; 0 where it is not compressed."""


@dataclass(frozen=True)
class Experts:
    """Mixture-of-experts layers."""

    routed: int
    shared: int
    active: int
    """Routed experts of a token."""
    intermediate: int
    dense_layers: int
    """So many first layers have no experts."""


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes, in elements."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    """Whether the output layer is the embedding."""
    context: int
    """Tokens that the model's positions are made for."""
    quantization: str | None = None
    """The checkpoint's own, if it is quantised."""
    latent: Latent | None = None
    experts: Experts | None = None
    tokenizer: str | None = None
    """Equal for models that have the same tokens under the same ids; None if unknown."""
    stored: int | None = None
    """Bytes of the weight files, where they are at hand."""

    @classmethod
    def read(cls, name: str, config: Mapping[str, Any]) -> Shape:
        """Take the sizes from a ``config.json``.

        Args:
            name: the model's name.
            config: the file's fields, as transformers writes them.

        Raises:
            UsageError: a field is missing: not the configuration of a decoder-only language model.
        """
        config = config.get("text_config") or config
        try:
            heads = config["num_attention_heads"]
            hidden = config["hidden_size"]
            return cls(
                name=name,
                hidden=hidden,
                layers=config["num_hidden_layers"],
                heads=heads,
                kv_heads=config.get("num_key_value_heads") or heads,
                head_dim=config.get("head_dim") or hidden // heads,
                intermediate=config["intermediate_size"],
                vocab=config["vocab_size"],
                tied=bool(config.get("tie_word_embeddings", False)),
                context=_context(config),
                quantization=(config.get("quantization_config") or {}).get("quant_method"),
                latent=_latent(config),
                experts=_experts(config),
                tokenizer=config.get("tokenizer"),
            )
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"the configuration of `{name}` has no usable {error}",
                hint="only decoder-only language models can be planned; start others by hand and name them by URL",
            ) from error

    @property
    def embedding(self) -> int:
        """Parameters outside the layers: the embedding, and the output layer where it is one of its own."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def body(self) -> int:
        """Parameters of the layers' matrices, norms and biases left out: less than a thousandth."""
        return self.layers * self._attention + self._feed_forward

    def weight_bytes(self, dtype: str = "auto", quantization: str | None = None) -> int:
        """Bytes of the weights on the card, over all cards together.

        Args:
            dtype: as SGLang's ``--dtype``.
            quantization: as SGLang's ``--quantization``; the checkpoint's own if not given.
        """
        element = DTYPE_BYTES.get(dtype, AUTO_BYTES)
        method = quantization or self.quantization
        if self.stored is not None and method == self.quantization and element == AUTO_BYTES:
            return self.stored
        return int(self.embedding * element + self.body * QUANTIZED_BYTES.get(method or "", element))

    def cache_bytes(self, cards: int = 1, cache_dtype: str = "auto", dtype: str = "auto") -> int:
        """Bytes of key-value cache for one token on each card.

        Grouped-query heads are spread over the cards, at least one to each; a latent vector is on every card whole.

        Args:
            cards: the tensor parallel size.
            cache_dtype: as SGLang's ``--kv-cache-dtype``.
            dtype: as SGLang's ``--dtype``, which an ``auto`` cache follows.
        """
        element = CACHE_BYTES.get(cache_dtype) or DTYPE_BYTES.get(dtype, AUTO_BYTES)
        if self.latent:
            return self.layers * (self.latent.rank + self.latent.rope) * element
        return 2 * self.layers * max(1, -(-self.kv_heads // cards)) * self.head_dim * element

    def activation_bytes(self, tokens: int, requests: int, cards: int = 1) -> int:
        """Estimate of the largest working set of a forward pass on each card, in bytes.

        Residual stream, attention and feed-forward intermediates of a prefill chunk, in two bytes an element, and
        logits in four bytes three times over (raw, scaled, normalised).

        Args:
            tokens: of a prefill chunk.
            requests: in a batch.
            cards: the tensor parallel size.
        """
        attention = (self.heads + 2 * self.kv_heads) * self.head_dim
        width = self.intermediate
        if self.experts:
            width = max(width, (self.experts.active + self.experts.shared) * self.experts.intermediate)
        per_token = 6 * self.hidden + (2 * attention + 3 * width) // cards
        return tokens * per_token * 2 + requests * self.vocab * 12

    def divides(self, cards: int) -> bool:
        """Whether SGLang can spread the heads over so many cards."""
        return self.heads % cards == 0 and (self.kv_heads % cards == 0 or cards % self.kv_heads == 0)

    @property
    def _attention(self) -> int:
        if not self.latent:
            return 2 * self.hidden * (self.heads + self.kv_heads) * self.head_dim
        own = self.latent
        key = own.plain + own.rope
        query = own.query_rank * (self.hidden + self.heads * key) if own.query_rank else self.hidden * self.heads * key
        compressed = self.hidden * (own.rank + own.rope) + own.rank * self.heads * (own.plain + own.value)
        return query + compressed + self.heads * own.value * self.hidden

    @property
    def _feed_forward(self) -> int:
        if not self.experts:
            return self.layers * 3 * self.hidden * self.intermediate
        own = self.experts
        each = (own.routed + own.shared) * 3 * self.hidden * own.intermediate + own.routed * self.hidden
        return own.dense_layers * 3 * self.hidden * self.intermediate + (self.layers - own.dense_layers) * each


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
    """A model's ``config.json``, or for a stock model what is known of it.

    Args:
        model: a folder with ``config.json``, a stock model's name, or one that is in the hub's cache here.

    Raises:
        UsageError: its configuration is nowhere on this machine.
    """
    folder = weights_folder(model)
    if folder is not None:
        try:
            config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read `{folder / 'config.json'}`: {error}") from error
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
    return {name: models[fields["parent"]] if "parent" in fields else fields for name, fields in models.items()}


def _context(config: Mapping[str, Any]) -> int:
    """As SGLang's ``get_context_length``."""
    scaling = config.get("rope_scaling") or {}
    stretched = "original_max_position_embeddings" not in scaling and scaling.get("rope_type") != "llama3"
    return int(config["max_position_embeddings"] * (scaling.get("factor", 1) if stretched else 1))


def _latent(config: Mapping[str, Any]) -> Latent | None:
    if not config.get("kv_lora_rank"):
        return None
    return Latent(
        rank=config["kv_lora_rank"],
        rope=config["qk_rope_head_dim"],
        plain=config["qk_nope_head_dim"],
        value=config["v_head_dim"],
        query_rank=config.get("q_lora_rank") or 0,
    )


def _experts(config: Mapping[str, Any]) -> Experts | None:
    routed = config.get("n_routed_experts") or config.get("num_experts") or config.get("num_local_experts")
    if not routed:
        return None
    return Experts(
        routed=routed,
        shared=config.get("n_shared_experts") or 0,
        active=config["num_experts_per_tok"],
        intermediate=config.get("moe_intermediate_size") or config["intermediate_size"],
        dense_layers=config.get("first_k_dense_replace") or 0,
    )


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
