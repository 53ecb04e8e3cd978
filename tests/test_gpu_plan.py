"""Models' shapes, and how two of them share the memory of cards."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specreason_sgl.errors import UsageError
from specreason_sgl.servers.gpu.plan import (
    CONTEXT_BYTES,
    GIB,
    Card,
    DoesNotFit,
    Plan,
    ServedModel,
    Share,
    fit,
    most_cards,
)
from specreason_sgl.servers.gpu.shapes import Shape, find, has_weights, hub_cache

QWQ = "Qwen/QwQ-32B"
R1_SMALL = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
R1_LLAMA = "deepseek-ai/DeepSeek-R1-Distill-Llama-70B"

# Fields of a small DeepSeek-V2 type model: latent attention and experts.
LATENT = {
    "hidden_size": 2048,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "intermediate_size": 10944,
    "vocab_size": 102400,
    "tie_word_embeddings": False,
    "max_position_embeddings": 163840,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "moe_intermediate_size": 1408,
    "first_k_dense_replace": 1,
}


def cards(count: int, gib: float) -> list[Card]:
    free = int(gib * GIB)
    return [Card("a card", free, free, index) for index in range(count)]


# Shapes


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        (QWQ, 32.76),
        (R1_SMALL, 1.78),
        ("Zyphra/ZR1-1.5B", 1.78),
        ("Skywork/Skywork-OR1-32B-Preview", 32.76),
        (R1_LLAMA, 70.55),
        ("Qwen/Qwen3-32B", 32.76),
        ("Qwen/Qwen3-14B", 14.77),
        ("Qwen/Qwen3-1.7B", 1.72),
        ("Qwen/Qwen3-0.6B", 0.60),
    ],
)
def test_parameters_are_those_that_the_models_are_published_with(model: str, billions: float) -> None:
    shape = find(model)

    assert (shape.body + shape.embedding) / 1e9 == pytest.approx(billions, abs=0.006)


# Of each model what its configuration says of sizes, its published parameters, and where both are from.
PUBLISHED = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "models.jsonl").read_text(encoding="utf-8").splitlines()
]


def published(name: str, **fields: Any) -> dict[str, Any]:
    config = next(row["config"] for row in PUBLISHED if row["name"] == name)
    return {"max_position_embeddings": 32768, **config, **fields}


@pytest.mark.parametrize("row", PUBLISHED, ids=[row["name"] for row in PUBLISHED])
def test_todays_models_have_as_many_parameters_as_they_are_published_with(row: dict[str, Any]) -> None:
    shape = Shape.read(row["name"], published(row["name"]))

    # Some are published with an encoder of pictures or a layer for drafting, which are no part of what is planned.
    assert (shape.body + shape.embedding) / 1e9 == pytest.approx(row["billions"], rel=0.03)
    assert row["source"]


@pytest.mark.parametrize(
    ("model", "gib"),
    [
        ("Qwen/Qwen3-30B-A3B", 56.8),
        ("zai-org/GLM-4.5-Air", 199.0),
        ("microsoft/Phi-4-reasoning", 27.3),
        ("mistralai/Magistral-Small-2509", 43.9),
        ("openai/gpt-oss-20b", 12.8),  # published 13.8 GB
        ("openai/gpt-oss-120b", 60.7),  # published 65.2 GB
        ("baidu/ERNIE-4.5-21B-A3B-Thinking", 40.7),
        ("Qwen/Qwen3.6-27B-FP8", 27.4),
    ],
)
def test_weights_take_what_they_are_published_with(model: str, gib: float) -> None:
    assert Shape.read(model, published(model)).weight_bytes() / GIB == pytest.approx(gib, abs=0.1)


def test_a_quantised_model_has_the_values_of_the_whole_one_and_weighs_a_third() -> None:
    whole, packed = find("Qwen/QwQ-32B"), find("Qwen/QwQ-32B-AWQ")

    assert (packed.layers, packed.body, packed.context) == (whole.layers, whole.body, whole.context)
    assert (whole.quantization, packed.quantization) == (None, "awq")
    assert 18.0 < packed.weight_bytes() / GIB < 19.0  # published 19.3 GB


@pytest.mark.parametrize(
    ("model", "kib", "state"),
    [
        ("Qwen/Qwen3.6-27B-FP8", 16 * 2 * 4 * 256 * 2 / 1024, 48 * (48 * 128 * 128 * 4 + 10240 * 3 * 2)),
        ("Qwen/Qwen3-Next-80B-A3B-Thinking", 12 * 2 * 2 * 256 * 2 / 1024, 36 * (32 * 128 * 128 * 4 + 8192 * 3 * 2)),
        ("moonshotai/Kimi-Linear-48B-A3B-Instruct", 7 * 576 * 2 / 1024, 20 * (32 * 128 * 128 * 4 + 3 * 4096 * 3 * 2)),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B", 6 * 2 * 2 * 128 * 2 / 1024, 23 * (64 * 64 * 128 * 4 + 6144 * 3 * 2)),
        ("MiniMaxAI/MiniMax-M2", 62 * 2 * 8 * 128 * 2 / 1024, 0),
        ("openai/gpt-oss-20b", 24 * 2 * 8 * 64 * 2 / 1024, 0),  # sliding windows count in full
        ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", 80 * 2 * 8 * 128 * 2 / 1024, 0),  # as SGLang's pool has it
    ],
)
def test_layers_with_linear_attention_keep_a_state_and_no_cache(model: str, kib: float, state: int) -> None:
    shape = Shape.read(model, published(model))

    assert shape.cache_bytes() == kib * 1024
    assert shape.state_bytes() == state
    assert shape.state_bytes(2) == state / 2


# A small decoder, to say one thing in many ways.
PLAIN = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 100,
    "max_position_embeddings": 4096,
}
EXPERTS = {"num_experts": 8, "moe_intermediate_size": 32, "num_experts_per_tok": 2}


def mixed(fields: dict[str, Any]) -> list[int]:
    """Routed parameters by layer."""
    return [block.feed.experts for block in Shape.read("m", PLAIN | EXPERTS | fields).blocks]


@pytest.mark.parametrize("routed", ["num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"])
@pytest.mark.parametrize("active", ["num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "moe_top_k"])
def test_experts_are_seen_under_any_of_their_names(routed: str, active: str) -> None:
    config = PLAIN | {routed: 8, active: 2, "moe_intermediate_size": 32, "moe_layer_start_index": 0}

    assert [block.feed.experts for block in Shape.read("m", config).blocks] == [8 * 3 * 64 * 32] * 4


@pytest.mark.parametrize(
    ("fields", "shared"),
    [
        ({}, 0),
        ({"n_shared_experts": 2}, 64),
        ({"num_shared_experts": 2}, 64),
        ({"moe_num_shared_experts": 2, "moe_layer_start_index": 0}, 64),
        ({"num_shared_expert": [2, 2, 2, 2]}, 64),
        ({"shared_expert_intermediate_size": 96}, 96),
        ({"num_shared_experts": 1, "moe_shared_expert_intermediate_size": 96}, 96),
        ({"shared_intermediate_size": 0}, 0),
    ],
)
def test_shared_experts_are_seen_under_any_of_their_names(fields: dict[str, Any], shared: int) -> None:
    shape = Shape.read("m", PLAIN | EXPERTS | fields)

    assert [block.feed.dense for block in shape.blocks] == [3 * 64 * shared + 64 * 8] * 4
    assert shape.blocks[0].feed.width == 2 * 32 + shared


@pytest.mark.parametrize(
    ("fields", "places"),
    [
        ({}, {0, 1, 2, 3}),
        ({"first_k_dense_replace": 1}, {1, 2, 3}),
        ({"num_dense_layers": 2}, {2, 3}),
        ({"moe_layer_freq": 2}, {0, 2}),
        ({"moe_layer_freq": [0, 1, 1, 0]}, {1, 2}),
        ({"decoder_sparse_step": 2}, {1, 3}),
        ({"mlp_only_layers": [0, 3]}, {1, 2}),
        ({"mlp_layer_types": ["dense", "sparse", "sparse", "dense"]}, {1, 2}),
        ({"is_moe_layer": [False, True, True, True]}, {1, 2, 3}),
        ({"moe_layers_enum": "2,3"}, {2, 3}),
        ({"moe_layers": [0]}, {0}),
        ({"interleave_moe_layer_step": 2}, {1, 3}),
        ({"moe_layer_start_index": 1, "moe_layer_end_index": 2}, {1, 2}),
        ({"num_experts": [8, 1, 8, 1]}, {0, 2}),
        ({"num_experts": 1}, set()),
        ({"num_experts": 0}, set()),
        ({"enable_moe_block": False}, set()),
    ],
)
def test_which_layers_have_experts(fields: dict[str, Any], places: set[int]) -> None:
    assert {place for place, experts in enumerate(mixed(fields)) if experts} == places


def test_experts_of_different_width_are_counted_one_by_one() -> None:
    assert mixed({"moe_intermediate_size": [32, 16, 8, 4]}) == [8 * 3 * 64 * width for width in (32, 16, 8, 4)]


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "qwen3_moe", "num_experts": None},
        {"architectures": ["NewMoeForCausalLM"]},
    ],
)
def test_a_family_of_experts_that_names_none_is_never_taken_for_a_dense_model(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="has no usable 'n_routed_experts'"):
        Shape.read("m", PLAIN | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"n_super_experts": 16},
        {"ffn_config": {"experts_total": 16}},
        {"moe_intermediate_size": 32},
        {"num_experts_per_tok": 2},
        {"expert_layer_period": 2},
        {**EXPERTS, "num_extra_experts": 4},
        {"n_experts": "64"},
        {"n_experts": 64.0},
        {"experts": [{"width": 32}, {"width": 32}]},
        {"moe": {"num": 8, "top_k": 2}},
        {"n_moe": 8},
        {"use_moe": True},
    ],
)
def test_experts_that_are_not_understood_are_never_taken_for_a_dense_model(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="speaks of experts in a way that is not understood") as told:
        Shape.read("m", PLAIN | fields)

    assert "start its server by hand, and name it by its URL" in str(told.value.hint)


@pytest.mark.parametrize(
    "fields",
    [{"num_experts": None, "moe_intermediate_size": None}, {"num_local_experts": 0, "output_router_logits": False}],
)
def test_experts_that_there_are_none_of_make_a_dense_model(fields: dict[str, Any]) -> None:
    assert Shape.read("m", PLAIN | fields) == Shape.read("m", PLAIN)


def test_without_dense_layers_their_width_is_not_asked_for() -> None:
    config = {name: value for name, value in (PLAIN | EXPERTS).items() if name != "intermediate_size"}

    assert Shape.read("m", config).body == Shape.read("m", PLAIN | EXPERTS).body
    with pytest.raises(UsageError, match="no usable 'intermediate_size'"):
        Shape.read("m", config | {"first_k_dense_replace": 1})


def test_sizes_may_differ_from_layer_to_layer() -> None:
    kv_heads, widths = [1, 2, 2, 4], [128, 64, 32, 16]
    shape = Shape.read("m", PLAIN | {"num_key_value_heads": kv_heads, "intermediate_size": widths})

    assert [block.mixer.kv_heads for block in shape.blocks] == kv_heads
    assert [block.feed.dense for block in shape.blocks] == [3 * 64 * width for width in widths]
    assert shape.cache_bytes() == 2 * 2 * 16 * sum(kv_heads)
    assert shape.cache_bytes(2) == 2 * 2 * 16 * (1 + 1 + 1 + 2)


def test_layers_of_an_architecture_search_are_read_block_by_block() -> None:
    nothing = {"n_heads_in_group": None, "no_op": True}
    blocks = [
        {"attention": {"n_heads_in_group": 2, "no_op": False}, "ffn": {"ffn_mult": 3.0, "no_op": False}},
        {"attention": nothing, "ffn": {"ffn_mult": None, "no_op": True}},
        {"attention": {"replace_with_linear": True}, "ffn": {"replace_with_linear": True}},
        {"attention": nothing, "ffn": {"intermediate_size": 96}},
    ]
    fields = {"num_key_value_heads": None, "intermediate_size": None, "block_configs": blocks}
    shape = Shape.read("m", PLAIN | fields)

    assert [block.mixer.parameters for block in shape.blocks] == [2 * 64 * (4 + 2) * 16, 0, 64 * 64, 0]
    assert [block.feed.dense for block in shape.blocks] == [3 * 64 * 256, 0, 64 * 64, 3 * 64 * 96]


@pytest.mark.parametrize(
    ("fields", "cached"),
    [
        ({"layer_types": ["linear_attention", "full_attention"] * 2}, [False, True, False, True]),
        ({"layer_types": ["sliding_attention", "full_attention"] * 2}, [True] * 4),
        ({"full_attention_interval": 4}, [False, False, False, True]),
        ({"attn_type_list": [0, 0, 1, 0]}, [False, False, True, False]),
        ({"linear_attn_config": {"full_attn_layers": [1, 3], "num_heads": 4, "head_dim": 16}}, [True, False] * 2),
        ({"linear_attn_config": None}, [True] * 4),
    ],
)
def test_which_layers_have_a_cache(fields: dict[str, Any], cached: list[bool]) -> None:
    assert [block.mixer.kv_heads > 0 for block in Shape.read("m", PLAIN | fields).blocks] == cached


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"layer_types": ["conv", "full_attention"] * 2}, "layers of a kind `conv`, which is not understood"),
        ({"mamba_d_state": 16}, "`mamba_d_state` is not understood"),
        ({"compress_ratios": [0, 0, 4, 128]}, "`compress_ratios` is not understood"),
        ({"conv_L_cache": 3}, "`conv_L_cache` is not understood"),
        ({"intermediate_size": None}, "no usable 'intermediate_size'"),
        ({"intermediate_size": "128"}, "no usable 'intermediate_size'"),
        ({"intermediate_size": [128, 64]}, "no usable 'intermediate_size'"),
        ({"hidden_size": None}, "no usable 'hidden_size'"),
        ({"max_position_embeddings": None}, "no usable 'max_position_embeddings'"),
        ({"num_attention_heads": None}, "no usable 'num_attention_heads'"),
        ({"num_hidden_layers": 10**9}, "no usable 'num_hidden_layers'"),
        ({"vocab_size": True}, "no usable 'vocab_size'"),
        ({"layer_types": ["full_attention"]}, "no usable 'layer_types'"),
        ({"layer_types": 4}, "is not understood"),
        ({"block_configs": [None]}, "is not understood"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_what_to_do(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as told:
        Shape.read("m", PLAIN | fields)

    assert "start its server by hand, and name it by its URL" in str(told.value.hint)


VALUES = st.none() | st.booleans() | st.integers(-2, 2**40) | st.floats() | st.text(max_size=3)
ODD = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner))


@settings(deadline=None)
@given(row=st.sampled_from(PUBLISHED), data=st.data())
def test_an_odd_value_anywhere_is_planned_or_refused_and_never_a_traceback(row: Any, data: st.DataObject) -> None:
    config = published(row["name"])
    inner = config.get("text_config", config)
    name = data.draw(st.sampled_from(sorted(inner)))
    odd = inner | {name: data.draw(ODD)}
    with contextlib.suppress(UsageError):
        shape = Shape.read("m", config | ({"text_config": odd} if inner is not config else odd))
        assert shape.weight_bytes() >= 0
        assert shape.cache_bytes() >= 0


# Packed weights


def packed(quantization: Any, **fields: Any) -> float:
    """Bytes of a weight of the layers, on the average."""
    shape = Shape.read("m", PLAIN | fields | {"quantization_config": quantization})
    return (shape.weight_bytes() - 2 * shape.embedding) / shape.body


@pytest.mark.parametrize(
    ("quantization", "size"),
    [
        (None, 2),
        ({}, 2),
        ({"quant_method": "fp8"}, 1),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 0.54),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, 1.04),
        ({"quant_method": "gptq", "bits": 3, "group_size": -1}, 0.415),
        ({"quant_method": "awq", "bits": 4, "group_size": 32}, 0.578125),
        ({"quant_method": "awq", "w_bit": 8, "q_group_size": 128}, 1.04),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 128}, 0.54),
        ({"quant_method": "awq"}, 0.54),
        ({"quant_method": "mxfp4"}, 0.53125),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.5625),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 1),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 0.5625),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, 1),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, 2),
        ({"quant_method": "somebody's own"}, 2),
        ("fp8", 2),
    ],
)
def test_bits_of_packed_weights(quantization: Any, size: float) -> None:
    assert packed(quantization) == pytest.approx(size, abs=0.001)


@pytest.mark.parametrize(
    ("weights", "size"),
    [
        ({"num_bits": 4, "type": "int", "group_size": 32, "symmetric": True}, 0.5625),
        ({"num_bits": 4, "type": "int", "group_size": 32, "symmetric": False}, 0.578125),
        ({"num_bits": 8, "type": "float", "strategy": "channel"}, 1),
        ({"num_bits": 4, "type": "float", "group_size": 16}, 0.5625),
    ],
)
def test_bits_of_compressed_tensors(weights: dict[str, Any], size: float) -> None:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}

    assert packed({"quant_method": "compressed-tensors", "config_groups": groups}) == pytest.approx(size, abs=0.001)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["text_config", "llm_config", "language_config"])
def test_a_language_model_inside_another_is_read_with_the_quantisation_of_either(name: str, *, inside: bool) -> None:
    quantization = {"quantization_config": {"quant_method": "fp8"}}
    outer = {"vision_config": {"hidden_size": 8, "num_experts": 4}, name: PLAIN | (quantization if inside else {})}
    shape = Shape.read("m", outer | ({} if inside else quantization))

    assert (shape.quantization, shape.hidden) == ("fp8", 64)
    assert shape.weight_bytes() == 2 * shape.embedding + shape.body


LEFT = "model.layers.*.self_attn"


@pytest.mark.parametrize(
    "left",
    [
        {"modules_to_not_convert": ["self_attn"]},
        {"modules_to_not_convert": [f"model.layers.{layer}.self_attn" for layer in range(4)]},
        {"modules_to_not_convert": [f"model.language_model.layers.{layer}.self_attn.o_proj" for layer in range(4)]},
        {"ignored_layers": [LEFT]},
        {"ignore": ["lm_head", "re:.*self_attn.*"]},
        {"exclude_modules": ["model.layers*.self_attn*"]},
        {"dynamic": {"-:.*self_attn.*": {}}},
    ],
)
def test_layers_that_are_left_as_they_were_keep_their_size(left: dict[str, Any]) -> None:
    shape = Shape.read("m", PLAIN | {"quantization_config": {"quant_method": "fp8", **left}})
    attention = sum(block.mixer.parameters for block in shape.blocks)

    assert shape.weight_bytes() == 2 * (shape.embedding + attention) + (shape.body - attention)


@pytest.mark.parametrize(
    "told",
    [
        {"targets": ["Linear"], "ignore": ["re:.*self_attn.*", "re:.*shared_experts.*"]},
        {"targets": ["re:.*mlp.experts.*"], "ignore": []},
    ],
)
def test_experts_alone_may_be_packed(told: dict[str, Any]) -> None:
    group = {"targets": told["targets"], "weights": {"num_bits": 8, "type": "float"}}
    quantization = {"quant_method": "compressed-tensors", "config_groups": {"g": group}, "ignore": told["ignore"]}
    shape = Shape.read("m", PLAIN | EXPERTS | {"n_shared_experts": 1, "quantization_config": quantization})
    experts = sum(block.feed.experts for block in shape.blocks)

    assert shape.weight_bytes() == 2 * (shape.embedding + shape.body - experts) + experts


@pytest.mark.parametrize("pattern", ["re:(", "re:[", "*[", ""])
def test_a_pattern_that_is_none_packs_everything(pattern: str) -> None:
    assert packed({"quant_method": "fp8", "ignore": [pattern]}) == 1


def test_experts_and_latent_attention_are_counted() -> None:
    shape = Shape.read("lite", LATENT)

    assert (shape.body + shape.embedding) / 1e9 == pytest.approx(15.7, abs=0.05)


@pytest.mark.parametrize(
    ("model", "cards_", "cache", "kib"),
    [
        (QWQ, 1, "auto", 256),
        (QWQ, 2, "auto", 128),
        (QWQ, 1, "fp8_e4m3", 128),
        (R1_SMALL, 1, "auto", 28),
        (R1_SMALL, 4, "auto", 14),  # a key-value head on each card, though there are only two
        (R1_LLAMA, 4, "auto", 80),
    ],
)
def test_cache_of_a_token_on_each_card(model: str, cards_: int, cache: str, kib: int) -> None:
    assert find(model).cache_bytes(cards_, cache) == kib * 1024


@pytest.mark.parametrize(("cards_", "cache", "size"), [(1, "auto", 31104), (8, "auto", 31104), (1, "fp8_e4m3", 15552)])
def test_a_latent_vector_is_on_every_card_whole(cards_: int, cache: str, size: int) -> None:
    assert Shape.read("lite", LATENT).cache_bytes(cards_, cache) == size


@pytest.mark.parametrize(
    ("dtype", "quantization", "gib"),
    [("auto", None, 61.0), ("float32", None, 122.1), ("auto", "fp8", 32.0), ("auto", "awq", 18.6), ("auto", "?", 61.0)],
)
def test_weights_by_dtype_and_quantization(dtype: str, quantization: str | None, gib: float) -> None:
    assert find(QWQ).weight_bytes(dtype, quantization) / GIB == pytest.approx(gib, abs=0.05)


def folder(tmp_path: Path, **fields: Any) -> Path:
    config = LATENT | {"torch_dtype": "bfloat16"} | fields
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model-1.safetensors").write_bytes(b"x" * 100)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}, "added_tokens": []}))
    return tmp_path


def test_a_folder_tells_its_own_bytes_and_tokens(tmp_path: Path) -> None:
    shape = find(str(folder(tmp_path)))

    assert shape.stored == shape.weight_bytes() == 100
    assert shape.weight_bytes("auto", "fp8") > 100
    assert shape.tokenizer == find(str(tmp_path)).tokenizer is not None


def test_files_of_32_bits_say_nothing_of_what_is_loaded(tmp_path: Path) -> None:
    assert find(str(folder(tmp_path, torch_dtype="float32"))).stored is None


def test_weights_are_there_when_all_files_of_the_index_are(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder(tmp_path) / "model.safetensors.index.json").write_text(json.dumps(index))

    assert not has_weights(tmp_path)
    (tmp_path / "model-2.safetensors").touch()
    assert has_weights(tmp_path)


def test_the_hubs_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    folder(snapshot)

    assert hub_cache() == tmp_path
    assert find("some/model").hidden == 2048


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        (None, 163840),
        ({"type": "yarn", "factor": 4.0}, 655360),
        ({"rope_type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}, 163840),
        ({"rope_type": "llama3", "factor": 8.0}, 163840),
    ],
)
def test_stretched_positions(scaling: object, expected: int) -> None:
    assert Shape.read("lite", LATENT | {"rope_scaling": scaling}).context == expected


@pytest.mark.parametrize(
    ("model", "complaint"),
    [("some/unknown", "is not known here"), ("not-even-a-name", "is not known here"), ("/", "no `config.json` in `/`")],
)
def test_a_model_that_is_nowhere_is_named(
    model: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=complaint):
        find(model)


def test_what_is_no_language_model_is_refused() -> None:
    with pytest.raises(UsageError, match="no usable 'num_attention_heads'"):
        Shape.read("an image model", {"hidden_size": 1})


# Plans. Memory is what PyTorch reports of such cards: A6000 47.5, H100 79.1, H200 139.8 GiB.


@pytest.mark.parametrize(
    ("base", "spread_over", "count", "gib", "context", "concurrency"),
    [
        (QWQ, 1, 1, 79.1, 10240, 2),
        (QWQ, 1, 1, 79.1, 28672, 1),
        (QWQ, 1, 1, 139.8, 10240, 22),
        (QWQ, 1, 1, 139.8, 36864, 6),
        (QWQ, 2, 2, 47.5, 10240, 4),  # the paper's two A6000
        (QWQ, 2, 2, 47.5, 36864, 1),
        (R1_LLAMA, 4, 4, 79.1, 10240, 32),  # the paper's four A100
        ("Qwen/Qwen3-14B", 1, 1, 47.5, 10240, 5),
    ],
)
def test_pairs_that_fit(base: str, spread_over: int, count: int, gib: float, context: int, concurrency: int) -> None:
    plan = fit(ServedModel(find(base), spread_over), ServedModel(find(R1_SMALL)), cards(count, gib), context=context)

    assert plan.concurrency == concurrency
    assert plan.small.first_card == spread_over - 1


@pytest.mark.parametrize(
    ("base", "count", "gib", "context", "concurrency", "nearest"),
    [
        (
            QWQ,
            1,
            79.1,
            36864,
            None,
            "what fits: `--context 29696`, or a cache in 8 bits (`--set cache_dtype=fp8_e4m3`)",
        ),
        (QWQ, 1, 79.1, 10240, 4, "what fits: `--concurrency 2`, or a cache in 8 bits (`--set cache_dtype=fp8_e4m3`)"),
        (QWQ, 1, 47.5, 10240, None, "what fits: a base model in 8 bits (`--set base.quantization=fp8`)"),
        (QWQ, 1, 23.6, 10240, None, "what fits: 8 such cards"),
        (R1_LLAMA, 1, 139.8, 10240, None, "what fits: a base model in 8 bits (`--set base.quantization=fp8`)"),
        (R1_LLAMA, 1, 23.6, 10240, None, "not even 8 such cards would do; take smaller models"),
    ],
)
def test_what_does_not_fit_is_told_with_the_nearest_that_does(
    base: str, count: int, gib: float, context: int, concurrency: int | None, nearest: str
) -> None:
    with pytest.raises(DoesNotFit, match="GiB of weights") as told:
        fit(
            ServedModel(find(base)),
            ServedModel(find(R1_SMALL)),
            cards(count, gib),
            context=context,
            concurrency=concurrency,
        )

    assert told.value.hint == nearest


@pytest.mark.parametrize(
    ("sizes", "base", "spread_over", "first", "small_first"),
    [
        ((79.1, 23.6), QWQ, 1, 0, 1),
        ((23.6, 79.1), QWQ, 1, 1, 0),
        ((79.1, 79.1, 23.6), QWQ, 2, 0, 2),
        ((23.6, 23.6, 79.1), QWQ, 1, 2, 1),
        ((79.1, 40.0, 40.0, 79.1), R1_LLAMA, 4, 0, 3),
    ],
)
def test_cards_of_unequal_size_are_shared_so_that_there_is_most_room(
    sizes: tuple[float, ...], base: str, spread_over: int, first: int, small_first: int
) -> None:
    found = [Card("a card", int(gib * GIB), int(gib * GIB), index) for index, gib in enumerate(sizes)]
    most = most_cards(find(base), len(found))
    plan = fit(ServedModel(find(base), most), ServedModel(find(R1_SMALL)), found, context=10240, fewer=True)

    assert (plan.base.served.cards, plan.base.first_card, plan.small.first_card) == (spread_over, first, small_first)
    for place, card in enumerate(found):
        shares = [share for share in (plan.base, plan.small) if place in share.places]
        assert sum(CONTEXT_BYTES + share.weights + share.cache + share.reserve for share in shares) <= card.free


@given(sizes=st.lists(st.floats(20, 200), min_size=1, max_size=5), fewer=st.booleans())
def test_no_card_is_promised_twice(sizes: list[float], fewer: bool) -> None:
    found = [Card("a card", int(gib * GIB), int(gib * GIB), index) for index, gib in enumerate(sizes)]
    base = ServedModel(find(QWQ), most_cards(find(QWQ), len(found)))
    try:
        plan = fit(base, ServedModel(find(R1_SMALL)), found, context=8192, fewer=fewer)
    except DoesNotFit:
        return
    for place, card in enumerate(found):
        shares = [share for share in (plan.base, plan.small) if place in share.places]
        assert sum(CONTEXT_BYTES + share.weights + share.cache + share.reserve for share in shares) <= card.free
        assert all(0 < share.fraction < 1 for share in shares)


def test_what_does_not_fit_on_unequal_cards_is_told_with_the_larger_ones() -> None:
    found = [Card("a card", int(gib * GIB), int(gib * GIB), index) for index, gib in enumerate((79.1, 23.6))]
    with pytest.raises(DoesNotFit, match=r"a card has 79\.1 GiB free") as told:
        fit(ServedModel(find(R1_LLAMA)), ServedModel(find(R1_SMALL)), found, context=10240, fewer=True)

    assert told.value.hint == "what fits: a base model in 8 bits (`--set base.quantization=fp8`)"


def test_cards_that_are_nearly_equal_are_taken_for_equal() -> None:
    found = [Card("a card", int(gib * GIB), int(gib * GIB), index) for index, gib in enumerate((79.1, 78.0))]

    assert (
        fit(ServedModel(find(QWQ), 2), ServedModel(find(R1_SMALL)), found, context=10240, fewer=True).base.served.cards
        == 2
    )


def test_states_of_linear_attention_have_their_room() -> None:
    model = "Qwen/Qwen3.6-27B-FP8"
    side = ServedModel(Shape.read(model, published(model)))
    plan = fit(side, ServedModel(find("Qwen/Qwen3-0.6B")), cards(1, 47.3), context=10240)
    many = fit(side, ServedModel(find("Qwen/Qwen3-0.6B")), cards(1, 79.1), context=10240, concurrency=12)

    assert (plan.requests, plan.base.states, plan.small.states) == (4, 20, 0)
    assert plan.base.cache == plan.base.tokens * side.token + 21 * side.shape.state_bytes()
    assert plan.concurrency == 4  # one for each request that has states, though the caches would hold more
    assert many.base.states == 5 * many.requests == 5 * 24
    assert many.concurrency >= 12
    drafting = replace(side, drafted=6)
    assert drafting.state_bytes(4) - side.state_bytes(4) == 6 * 5 * side.shape.state_bytes()


def test_with_a_card_to_spare_the_small_model_has_it_alone() -> None:
    plan = fit(ServedModel(find(QWQ)), ServedModel(find(R1_SMALL)), cards(2, 79.1), context=10240)

    assert (plan.base.first_card, plan.small.first_card) == (0, 1)
    assert plan.small.tokens > plan.base.tokens


@pytest.mark.parametrize(
    ("side", "context", "complaint"),
    [
        (ServedModel(find(QWQ), 2), 10240, "spread over 2 cards, and there are 1"),
        (ServedModel(find(QWQ)), 50000, "reads 40960 tokens at most"),
    ],
)
def test_what_cannot_be_is_refused(side: ServedModel, context: int, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        fit(side, ServedModel(find(R1_SMALL)), cards(1, 139.8), context=context)


def test_heads_that_cannot_be_spread_are_told() -> None:
    with pytest.raises(UsageError, match="12 heads and 2 key-value heads"):
        fit(ServedModel(find(QWQ)), ServedModel(find(R1_SMALL), 8), cards(8, 79.1), context=10240)


@pytest.mark.parametrize(
    ("model", "count", "expected"), [(QWQ, 1, 1), (QWQ, 3, 2), (QWQ, 8, 8), (R1_SMALL, 8, 4), (R1_LLAMA, 6, 4)]
)
def test_heads_are_spread_over_as_many_cards_as_can_be(model: str, count: int, expected: int) -> None:
    assert most_cards(find(model), count) == expected


def served(share: Share, free: int) -> tuple[int, int]:
    """Tokens that SGLang's own formula gives to the cache where so much is free, and what is free afterwards."""
    cache = int(free * share.fraction) - share.weights
    tokens = min(cache // share.served.token, share.tokens)
    return tokens, free - share.weights - tokens * share.served.token


@given(
    gib=st.floats(60, 200),
    count=st.sampled_from([1, 2, 4]),
    context=st.integers(4096, 40960),
    cache=st.sampled_from(["auto", "fp8_e4m3"]),
    unforeseen=st.floats(0, 2),
)
def test_started_one_after_the_other_both_get_what_was_planned(
    gib: float, count: int, context: int, cache: str, unforeseen: float
) -> None:
    base = ServedModel(find(QWQ), count, cache_dtype=cache)
    try:
        plan: Plan = fit(base, ServedModel(find(R1_SMALL), cache_dtype=cache), cards(count, gib), context=context)
    except DoesNotFit:
        return
    # SGLang may find more free memory than was foreseen, which changes nothing.
    more = int(unforeseen * GIB)
    tokens, left = served(plan.base, int(gib * GIB) - CONTEXT_BYTES + more)

    assert tokens == plan.base.tokens
    assert left >= plan.base.reserve
    tokens, left = served(plan.small, left - plan.base.reserve - CONTEXT_BYTES)
    assert tokens == plan.small.tokens
    assert left >= plan.small.reserve
    assert plan.concurrency >= 1
    assert 0 < plan.small.fraction < 1
