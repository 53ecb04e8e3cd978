"""A decoder's layers, one by one: their parameters, and what they store for a text.

Nothing here is guessed: a kind of layer or a field about experts that is not known is refused, because too small an
assumption would plan servers that run out of memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from specreason_sgl.errors import UsageError
from specreason_sgl.servers.gpu.fields import (
    Config,
    Unusable,
    family,
    first,
    for_each_layer,
    layers_of,
    need,
    number,
    walk,
)

ROUTED = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts", "num_routed_experts")
SHARED = ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts")
ACTIVE = (
    *("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "top_k_experts"),
    *("moe_k", "moe_topk", "moe_top_k"),
)
EXPERT_WIDTH = ("moe_intermediate_size", "expert_hidden_dim", "expert_ffn_hidden_size", "moe_ffn_hidden_size")
SHARED_WIDTH = (
    *("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"),
    *("share_expert_dim", "shared_intermediate_size"),
)
HARMLESS = (
    "num_expert_group",
    "n_expert_groups",
    "expert_capacity",
    "num_experts_per_group",
    "mtp_num_experts_per_tok",
)
"""Fields about experts that do not change their sizes."""

KINDS = {
    **dict.fromkeys(("full_attention", "attention", "indexed_attention", "full", "global"), "full"),
    **dict.fromkeys(("sliding_attention", "chunked_attention", "sliding", "local"), "sliding"),
    **dict.fromkeys(("linear_attention", "linear", "kda", "lightning"), "linear"),
    **{kind: kind for kind in ("mamba", "mlp", "moe")},
}
PATTERN = {"M": "mamba", "*": "full", "-": "mlp", "E": "moe"}
"""Nemotron-H's letters for its layers."""
STRANGE = ("compress_ratios", "o_lora_rank", "conv_L_cache", "attn_layer_period")
"""Fields of kinds of attention that are not supported: DeepSeek-V4's, LFM2's, Jamba's."""

STATE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CONVOLUTION_BYTES = 2


@dataclass(frozen=True)
class Mixer:
    """What mixes the tokens of a text in a layer; sizes in elements."""

    parameters: int = 0
    kv_heads: int = 0
    """Heads whose keys and values are cached."""
    kv_width: int = 0
    """The width of a head's key and value together."""
    latent: int = 0
    """Width of what is cached for all heads together (multi-head latent attention, arXiv 2405.04434)."""
    state: int = 0
    """Bytes that are kept for a request whatever its length (linear attention)."""


@dataclass(frozen=True)
class Feed:
    """A layer's feed-forward part, in elements."""

    dense: int = 0
    """Parameters that all tokens pass, shared experts and the router among them."""
    experts: int = 0
    """Parameters of the routed experts."""
    width: int = 0
    """The width of the intermediate values of one token."""


@dataclass(frozen=True)
class Block:
    """A layer."""

    mixer: Mixer
    feed: Feed


def read(config: Config) -> tuple[Block, ...]:
    """The layers that a configuration describes.

    Args:
        config: a language model's fields.

    Raises:
        Unusable: a field is missing or has no usable value.
        UsageError: something in it is not understood.
    """
    layers = layers_of(config)
    if isinstance(searched := config.get("block_configs"), list):
        return tuple(_searched(config, block) for block in searched)
    kinds = _kinds(config, layers)
    mixers, feeds = _mixers(config, kinds), _feeds(config, layers, kinds)
    # Where feed-forward layers stand by themselves, those that mix have no such part.
    alone = bool({"mlp", "moe"} & set(kinds))
    return tuple(
        Block(mixer, feed if not alone or kind in {"mlp", "moe"} else Feed())
        for mixer, feed, kind in zip(mixers, feeds, kinds, strict=True)
    )


def _kinds(config: Config, layers: int) -> list[str]:
    kinds = _told_kinds(config, layers)
    if len(kinds) != layers:
        raise Unusable("hybrid_override_pattern" if config.get("hybrid_override_pattern") else "layer_types")
    if strange := sorted(set(kinds) - set(KINDS.values())):
        raise UsageError(f"there are layers of a kind `{strange[0]}`, which is not understood")
    is_recurrent = bool({"mamba", "linear"} & set(kinds))
    for name, value in config.items():
        if _counts(value) and (name in STRANGE or (name.startswith("mamba_") and not is_recurrent)):
            raise UsageError(f"`{name}` is not understood")
    return kinds


def _told_kinds(config: Config, layers: int) -> list[str]:
    if isinstance(pattern := config.get("hybrid_override_pattern"), str):
        return [PATTERN.get(letter, letter) for letter in pattern]
    if named := first(config, "layer_types", "layers_block_type"):
        return [KINDS.get(str(kind), str(kind)) for kind in named][:layers]
    if isinstance(linear := config.get("linear_attn_config"), Mapping):
        full, other = (linear.get(name) for name in ("full_attn_layers", "kda_layers"))
        if full is None:
            raise Unusable("linear_attn_config")
        start = 0 if 0 in {*full, *(other or ())} else 1
        return ["full" if layer + start in full else "linear" for layer in range(layers)]
    if every := number(config, "full_attention_interval", "layer_group_size"):
        return ["linear" if (layer + 1) % every else "full" for layer in range(layers)]
    if types := for_each_layer(config, layers, "attn_type_list"):
        return ["full" if one else "linear" for one in types]
    windows = for_each_layer(config, layers, "hybrid_layer_pattern") or [0] * layers
    return ["sliding" if one else "full" for one in windows]


def _mixers(config: Config, kinds: list[str]) -> list[Mixer]:
    heads = for_each_layer(config, len(kinds), "num_attention_heads")
    if not heads or not all(heads):
        raise Unusable("num_attention_heads")
    per_layer = for_each_layer(config, len(kinds), "num_key_value_heads_per_layer", "num_key_value_heads")
    return [
        _mixer(config, kind, own, kv or own) for kind, own, kv in zip(kinds, heads, per_layer or heads, strict=True)
    ]


def _mixer(config: Config, kind: str, heads: int, kv_heads: int) -> Mixer:
    if kind in {"mlp", "moe"}:
        return Mixer()
    if kind == "mamba":
        return _mamba(config)
    if kind == "linear":
        return _linear(config, heads)
    if config.get("kv_lora_rank"):
        return _latent(config, heads)
    return _attention(config, kind, heads, kv_heads)


def _attention(config: Config, kind: str, heads: int, kv_heads: int) -> Mixer:
    hidden = need(config, "hidden_size")
    key = number(config, "head_dim") or hidden // heads
    value = number(config, "v_head_dim") or key
    values = 1
    if kind == "sliding":
        heads = number(config, "swa_num_attention_heads") or heads
        kv_heads = number(config, "swa_num_key_value_heads") or kv_heads
        key = number(config, "swa_head_dim") or key
        value = number(config, "swa_v_head_dim") or (value if config.get("v_head_dim") else key)
    elif wide := number(config, "global_head_dim"):
        key = value = wide
        kv_heads = number(config, "num_global_key_value_heads") or kv_heads
        values = 0 if config.get("attention_k_eq_v") else 1
    gate = bool(config.get("attn_output_gate")) or "qwen3next" in family(config)
    query = heads * key * (2 if gate else 1)
    parameters = hidden * (query + kv_heads * (key + values * value) + heads * value)
    return Mixer(parameters, kv_heads, key + value)


def _latent(config: Config, heads: int) -> Mixer:
    hidden, rank = need(config, "hidden_size"), need(config, "kv_lora_rank")
    rope = number(config, "qk_rope_head_dim") or 0
    plain, value = need(config, "qk_nope_head_dim"), need(config, "v_head_dim")
    query_rank = number(config, "q_lora_rank")
    key = plain + rope
    query = query_rank * (hidden + heads * key) if query_rank else hidden * heads * key
    compressed = hidden * (rank + rope) + rank * heads * (plain + value)
    # DeepSeek-V3.2 looks for the tokens to attend to with small heads of their own, whose keys are cached too.
    index = number(config, "index_head_dim") or 0
    indexer = index * ((number(config, "index_n_heads") or 0) * (query_rank or hidden) + hidden)
    return Mixer(query + compressed + heads * value * hidden + indexer, latent=rank + rope + index)


def _linear(config: Config, heads: int) -> Mixer:
    """Gated DeltaNet (arXiv 2412.06464), Kimi Delta Attention (arXiv 2510.26692), or lightning attention."""
    hidden = need(config, "hidden_size")
    kimi = config.get("linear_attn_config") or {}
    element = STATE_BYTES.get(str(config.get("mamba_ssm_dtype")), 4)
    if value_heads := number(config, "linear_num_value_heads"):
        key, value = need(config, "linear_key_head_dim"), need(config, "linear_value_head_dim")
        keys, values = need(config, "linear_num_key_heads") * key, value_heads * value
        parameters = hidden * (2 * keys + 3 * values + 2 * value_heads)
        window = (2 * keys + values) * _window(config, "linear_conv_kernel_dim")
        return Mixer(parameters, state=value_heads * key * value * element + window)
    if own := number(kimi, "num_heads") or number(config, "linear_num_heads"):
        width = number(kimi, "head_dim") or need(config, "linear_head_dim")
        inner = own * width
        parameters = hidden * (4 * inner + 2 * width + own) + 2 * width * inner
        window = 3 * inner * _window({**config, **kimi}, "short_conv_kernel_size", "linear_conv_kernel_dim")
        return Mixer(parameters, state=inner * width * element + window)
    width = number(config, "head_dim") or hidden // heads
    return Mixer(5 * hidden * heads * width, state=heads * width * width * element)


def _mamba(config: Config) -> Mixer:
    """Mamba 2 (arXiv 2405.21060)."""
    hidden, heads = need(config, "hidden_size"), need(config, "mamba_num_heads")
    inner, size = heads * need(config, "mamba_head_dim"), need(config, "ssm_state_size")
    groups = 2 * need(config, "n_groups") * size
    element = STATE_BYTES.get(str(first(config, "mamba_ssm_dtype", "mamba_ssm_cache_dtype")), 4)
    window = (inner + groups) * _window(config, "conv_kernel")
    return Mixer(hidden * (3 * inner + groups + heads), state=inner * size * element + window)


def _window(config: Config, *names: str) -> int:
    """Bytes for each channel of a short convolution: the inputs that it still needs."""
    return ((number(config, *names) or 4) - 1) * CONVOLUTION_BYTES


def _feeds(config: Config, layers: int, kinds: list[str]) -> list[Feed]:
    hidden = need(config, "hidden_size")
    matrices = 2 if "relu2" in (config.get("mlp_hidden_act"), config.get("hidden_act")) else 3
    routed = None if config.get("enable_moe_block") is False else for_each_layer(config, layers, *ROUTED)
    _understood(config, routed)
    sparse = _sparse(config, layers, kinds) if routed else [False] * layers
    routed = routed or [0] * layers
    sparse = [own and count > 1 for own, count in zip(sparse, routed, strict=True)]
    dense = for_each_layer(config, layers, "intermediate_size_mlp", "intermediate_size", "shared_intermediate_size")
    if dense is None and not all(sparse):
        raise Unusable("intermediate_size")
    plain = [Feed(matrices * hidden * width, width=width) for width in dense or [0] * layers]
    if not any(sparse):
        return plain
    active = for_each_layer(config, layers, *ACTIVE)
    width = for_each_layer(config, layers, *EXPERT_WIDTH, "intermediate_size")
    if active is None or width is None:
        raise Unusable(ACTIVE[0] if active is None else EXPERT_WIDTH[0])
    shared = _shared(config, layers, width)
    inner = number(config, "moe_latent_size") or hidden
    around = 2 * hidden * inner if inner != hidden else 0
    mixed = [
        Feed(
            matrices * hidden * beside + hidden * count + around,
            count * matrices * inner * own,
            beside + chosen * own,
        )
        for count, chosen, own, beside in zip(routed, active, width, shared, strict=True)
    ]
    return [own if has else other for own, other, has in zip(mixed, plain, sparse, strict=True)]


def _shared(config: Config, layers: int, expert: list[int]) -> list[int]:
    """The width of all shared experts of a layer together."""
    if config.get("intermediate_size_mlp") or config.get("top_k_experts"):
        # Llama 4 has one shared expert, and Gemma 4 a dense part beside the experts, under this name.
        return for_each_layer(config, layers, "intermediate_size") or [0] * layers
    counts = for_each_layer(config, layers, *SHARED)
    widths = for_each_layer(config, layers, *SHARED_WIDTH)
    if widths and not counts:
        return widths
    pairs = zip(counts or [0] * layers, widths or expert, expert, strict=True)
    return [count * (width or own) for count, width, own in pairs]


def _sparse(config: Config, layers: int, kinds: list[str]) -> list[bool]:
    """Which layers have experts."""
    places = range(layers)
    if "moe" in kinds:
        return [kind == "moe" for kind in kinds]
    if named := config.get("mlp_layer_types"):
        found = [kind == "sparse" for kind in named][:layers]
    elif isinstance(flags := first(config, "is_moe_layer", "moe_layer_freq"), list):
        found = [bool(flag) for flag in flags][:layers]
    elif listed := first(config, "moe_layers_enum", "moe_layers"):
        numbers = listed.split(",") if isinstance(listed, str) else listed
        chosen = {int(one) for one in numbers if str(one).strip().isdecimal()}
        found = [place in chosen for place in places]
    else:
        # ERNIE's configurations leave out what transformers has as a default: the first layer is dense.
        ernie = 1 if "moe_num_experts" in config else 0
        start = max(
            number(config, "first_k_dense_replace", "num_dense_layers") or 0,
            ernie if config.get("moe_layer_start_index") is None else number(config, "moe_layer_start_index") or 0,
        )
        last = first(config, "moe_layer_end_index")
        end = last if isinstance(last, int) and last >= 0 else layers - 1
        step = number(config, "decoder_sparse_step", "moe_layer_interval", "interleave_moe_layer_step") or 1
        every = number(config, "moe_layer_freq") or 1
        apart = set(config.get("mlp_only_layers") or ())
        found = [
            start <= place <= end and (place + 1) % step == 0 and place % every == 0 and place not in apart
            for place in places
        ]
    if len(found) != layers:
        raise Unusable("mlp_layer_types" if named else "moe_layer_freq")
    return found


def _understood(config: Config, routed: list[int] | None) -> None:
    """Refuse unknown fields about experts, because their parameters would be left out of the sum.

    Raises:
        UsageError: there is such a field.
    """
    known = {*ROUTED, *SHARED, *ACTIVE, *EXPERT_WIDTH, *SHARED_WIDTH, *HARMLESS}
    is_dense = routed is None and config.get("enable_moe_block") is not False
    for name, value in walk(config):
        told = name.lower()
        strange = "expert" in told and name not in known and _counts(value)
        if strange or (is_dense and _of_experts(told) and (value is True or _counts(value))):
            raise UsageError(f"`{name}` speaks of experts in a way that is not understood")
    if is_dense and any("moe" in kind for kind in family(config)):
        raise Unusable(ROUTED[0])


def _of_experts(name: str) -> bool:
    return "expert" in name or "moe" in re.split(r"[^a-z]", name)


def _counts(value: Any) -> bool:
    """Whether a value may be a number of things, however it is written, or holds such numbers."""
    if isinstance(value, list | Mapping):
        return any(_counts(one) for one in (value.values() if isinstance(value, Mapping) else value))
    if isinstance(value, str):
        return value.isdecimal() and value.strip("0") not in {"", "1"}
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 1 and value % 1 == 0


def _searched(config: Config, block: Mapping[str, Any]) -> Block:
    """A layer of DeciLM (Nemotron), whose layers differ since an architecture search shaped them.

    SGLang's cache has room for all layers, those without attention included.
    """
    hidden, heads = need(config, "hidden_size"), need(config, "num_attention_heads")
    attention, feed = block.get("attention") or {}, block.get("ffn") or {}
    if feed.get("moe"):
        raise UsageError("`block_configs` speaks of experts in a way that is not understood")
    all_kv = [_kv_heads(one.get("attention") or {}, heads) for one in config["block_configs"]]
    key = number(config, "head_dim") or hidden // heads
    full = _attention(config, "full", heads, _kv_heads(attention, heads) or max(all_kv) or heads)
    parameters = full.parameters
    if attention.get("no_op") or attention.get("replace_with_linear"):
        parameters = hidden * hidden if attention.get("replace_with_linear") else 0
    mixer = Mixer(parameters, full.kv_heads, 2 * key)
    if feed.get("no_op"):
        return Block(mixer, Feed())
    if feed.get("replace_with_linear"):
        return Block(mixer, Feed(hidden * hidden, width=hidden))
    width = number(feed, "intermediate_size")
    if width is None:
        times = feed.get("ffn_mult")
        if not isinstance(times, int | float):
            raise Unusable("block_configs")
        width = -(-int(2 * times * hidden / 3) // 256) * 256
    return Block(mixer, Feed(3 * hidden * width, width=width))


def _kv_heads(attention: Mapping[str, Any], heads: int) -> int:
    grouped = number(attention, "n_heads_in_group")
    return heads // grouped if grouped else number(attention, "num_key_value_heads") or 0
