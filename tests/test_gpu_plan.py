"""Models' shapes, and how two of them share the memory of cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.errors import UsageError
from specreason_sgl.gpu.plan import CONTEXT_BYTES, GIB, Card, DoesNotFit, Plan, Share, Side, fit, spread
from specreason_sgl.gpu.shapes import Shape, find, has_weights, hub_cache

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
    plan = fit(Side(find(base), spread_over), Side(find(R1_SMALL)), cards(count, gib), context=context)

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
        fit(Side(find(base)), Side(find(R1_SMALL)), cards(count, gib), context=context, concurrency=concurrency)

    assert told.value.hint == nearest


def test_with_a_card_to_spare_the_small_model_has_it_alone() -> None:
    plan = fit(Side(find(QWQ)), Side(find(R1_SMALL)), cards(2, 79.1), context=10240)

    assert (plan.base.first_card, plan.small.first_card) == (0, 1)
    assert plan.small.tokens > plan.base.tokens


@pytest.mark.parametrize(
    ("side", "context", "complaint"),
    [
        (Side(find(QWQ), 2), 10240, "spread over 2 cards, and there are 1"),
        (Side(find(QWQ)), 50000, "reads 40960 tokens at most"),
    ],
)
def test_what_cannot_be_is_refused(side: Side, context: int, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        fit(side, Side(find(R1_SMALL)), cards(1, 139.8), context=context)


def test_heads_that_cannot_be_spread_are_told() -> None:
    with pytest.raises(UsageError, match="12 heads and 2 key-value heads"):
        fit(Side(find(QWQ)), Side(find(R1_SMALL), 8), cards(8, 79.1), context=10240)


@pytest.mark.parametrize(
    ("model", "count", "expected"), [(QWQ, 1, 1), (QWQ, 3, 2), (QWQ, 8, 8), (R1_SMALL, 8, 4), (R1_LLAMA, 6, 4)]
)
def test_heads_are_spread_over_as_many_cards_as_can_be(model: str, count: int, expected: int) -> None:
    assert spread(find(model), count) == expected


def served(share: Share, free: int) -> tuple[int, int]:
    """Tokens that SGLang's own formula gives to the cache where so much is free, and what is free afterwards."""
    cache = int(free * share.fraction) - share.weights
    tokens = min(cache // share.side.token, share.tokens)
    return tokens, free - share.weights - tokens * share.side.token


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
    base = Side(find(QWQ), count, cache_dtype=cache)
    try:
        plan: Plan = fit(base, Side(find(R1_SMALL), cache_dtype=cache), cards(count, gib), context=context)
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
