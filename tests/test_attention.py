from __future__ import annotations

import itertools
import sys
import warnings
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specreason_sgl.servers.tree import STAND_IN, kernels_load

if TYPE_CHECKING:
    from specreason_sgl.servers.cpu import attention

SLOTS = 4096


@pytest.fixture(scope="module", autouse=True)
def sglang_on_the_cpu() -> None:
    """SGLang's attention backends, importable where its kernels cannot load."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("SGLANG_USE_CPU_ENGINE", "1")
        if not kernels_load():
            patch.syspath_prepend(STAND_IN)
        import specreason_sgl.servers.cpu.attention  # noqa: F401


def ours() -> type[attention.IncrementalAttention]:
    from specreason_sgl.servers.cpu.attention import IncrementalAttention

    return IncrementalAttention


def native() -> Any:
    from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend

    return TorchNativeAttnBackend


@dataclass
class Batch:
    """A random batch of sequences that are cached up to their last tokens, which are new."""

    cached: list[int]
    fresh: list[int]
    heads: int = 4
    key_heads: int = 4
    width: int = 16
    dtype: torch.dtype = torch.float32
    decodes: bool = False
    drafted: bool = False
    """Whether the new tokens are drafted ones that the base model reads; all sequences have as many."""
    tree: torch.Tensor | None = None
    """Which of them each sees, if they are no chain."""
    sliding_window: int = -1
    seed: int = 0
    caches: list[torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        rng = torch.Generator().manual_seed(self.seed)

        def noise(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=rng).to(self.dtype)

        count, lengths = len(self.cached), [c + n for c, n in zip(self.cached, self.fresh, strict=True)]
        self.caches = [noise(SLOTS, self.key_heads, self.width) for _ in "kv"]
        free = torch.randperm(SLOTS, generator=rng).tolist()
        # Requests in no order, each with the slots of some earlier request behind its own.
        requests = torch.randperm(count + 2, generator=rng)[:count]
        table = torch.randint(SLOTS, (count + 2, max(lengths) + 5), generator=rng, dtype=torch.int32)
        for request, length in zip(requests.tolist(), lengths, strict=True):
            table[request, :length] = torch.tensor([free.pop() for _ in range(length)])
        written = [
            table[request, cached : cached + new]
            for request, cached, new in zip(requests.tolist(), self.cached, self.fresh, strict=True)
        ]
        new = sum(self.fresh)
        self.query = noise(new, self.heads * self.width)
        self.key, self.value = noise(new, self.key_heads, self.width), noise(new, self.key_heads, self.width)
        self.table = table
        mode = SimpleNamespace(
            is_decode=lambda: self.decodes,
            is_decode_or_idle=lambda: self.decodes,
            is_idle=lambda: False,
            is_mixed=lambda: False,
            is_target_verify=lambda: self.drafted,
        )
        untold = self.decodes or self.drafted
        self.forward_batch = SimpleNamespace(
            forward_mode=mode,
            req_pool_indices=requests,
            seq_lens=torch.tensor(self.cached if self.drafted else lengths),
            extend_prefix_lens=None if untold else torch.tensor(self.cached, dtype=torch.int32),
            extend_seq_lens=None if untold else torch.tensor(self.fresh, dtype=torch.int32),
            spec_info=SimpleNamespace(
                draft_token_num=self.fresh[0],
                tree_topk=1 if self.tree is None else -1,
                custom_mask=None if self.tree is None else self.tree.flatten(),
            ),
            out_cache_loc=torch.cat(written).long(),
            encoder_lens=None,
        )

    def through(self, backend: Any) -> torch.Tensor:
        """What an attention backend makes of the batch."""
        from sglang.srt.layers.radix_attention import AttentionType

        caches = [cache.clone() for cache in self.caches]

        def write(_: object, where: Any, *what: torch.Tensor) -> None:
            for cache, rows in zip(caches, what, strict=True):
                cache[where.loc] = rows

        pool = SimpleNamespace(
            set_kv_buffer=write,
            get_key_buffer=lambda _: caches[0],
            get_value_buffer=lambda _: caches[1],
            get_kv_buffer=lambda _: tuple(caches),
        )
        layer = SimpleNamespace(
            layer_id=0,
            tp_q_head_num=self.heads,
            tp_k_head_num=self.key_heads,
            qk_head_dim=self.width,
            v_head_dim=self.width,
            scaling=self.width**-0.5,
            is_cross_attention=False,
            attn_type=AttentionType.DECODER,
            sliding_window_size=self.sliding_window,
        )
        runner = SimpleNamespace(
            device="cpu",
            req_to_token_pool=SimpleNamespace(req_to_token=self.table),
            token_to_kv_pool=pool,
            spec_algorithm=SimpleNamespace(is_none=lambda: True),
        )
        made = backend(runner)
        made.init_forward_metadata(self.forward_batch)
        out = made.forward(self.query, self.key, self.value, layer, self.forward_batch)
        assert isinstance(out, torch.Tensor)
        return out


TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def assert_same(batch: Batch) -> None:
    found, expected = batch.through(ours()), batch.through(native())

    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, atol=TOLERANCE[batch.dtype], rtol=TOLERANCE[batch.dtype])


shapes = st.fixed_dictionaries(
    {
        "heads": st.just(4),
        "key_heads": st.sampled_from([1, 2, 4]),
        "width": st.sampled_from([8, 48]),
        "dtype": st.sampled_from(list(TOLERANCE)),
        "seed": st.integers(0, 2**16),
    }
)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    sequences=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 150)), min_size=1, max_size=6),
    shape=shapes,
)
def test_extended_sequences_come_out_as_from_torch_native(
    sequences: list[tuple[int, int]], shape: dict[str, Any]
) -> None:
    cached, fresh = zip(*sequences, strict=True)

    assert_same(Batch(list(cached), list(fresh), **shape))


@settings(deadline=None, max_examples=60)
@given(cached=st.lists(st.integers(0, 300), min_size=1, max_size=12), shape=shapes)
def test_decoded_sequences_come_out_as_from_torch_native(cached: list[int], shape: dict[str, Any]) -> None:
    assert_same(Batch(cached, [1] * len(cached), decodes=True, **shape))


@pytest.mark.parametrize(
    ("cached", "fresh"),
    [
        ([0], [1]),  # nothing cached
        ([0], [700]),  # more new tokens than go together
        ([5, 300], [128, 129]),  # exactly as many, and one more
        ([300] * 12, [40] * 12),  # more keys than go together
        ([1500, 3, 3], [7, 7, 7]),
    ],
)
def test_blocks_and_groups_leave_no_trace(cached: list[int], fresh: list[int]) -> None:
    assert_same(Batch(cached, fresh))


@settings(deadline=None, max_examples=60)
@given(cached=st.lists(st.integers(0, 300), min_size=1, max_size=6), count=st.integers(1, 12), shape=shapes)
def test_a_drafted_chain_is_read_as_if_it_were_a_prompt(cached: list[int], count: int, shape: dict[str, Any]) -> None:
    fresh = [count] * len(cached)
    found = Batch(cached, fresh, drafted=True, **shape).through(ours())

    assert torch.equal(found, Batch(cached, fresh, **shape).through(ours()))


@st.composite
def trees(draw: st.DrawFn) -> torch.Tensor:
    """Which nodes each node of some trees of one size sees: itself and those above it."""
    count, nodes = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    seen = torch.zeros(count, nodes, nodes, dtype=torch.bool)
    for tree in seen:
        tree[0, 0] = True
        for node in range(1, nodes):
            tree[node] = tree[draw(st.integers(0, node - 1))]
            tree[node, node] = True
    return seen


@settings(deadline=None, max_examples=25)
@given(tree=trees(), cached=st.lists(st.integers(0, 300), min_size=4, max_size=4), shape=shapes)
def test_a_drafted_token_sees_only_those_that_it_follows(
    tree: torch.Tensor, cached: list[int], shape: dict[str, Any]
) -> None:
    count, nodes = tree.shape[:2]
    batch = Batch(cached[:count], [nodes] * count, drafted=True, tree=tree, **shape)
    found = batch.through(ours()).view(count, nodes, -1)

    for sequence, node in itertools.product(range(count), range(nodes)):
        way, length = torch.nonzero(tree[sequence, node]).flatten(), cached[sequence]
        alone = Batch([length], [len(way)], **shape)
        alone.caches = batch.caches
        for name in ("query", "key", "value"):
            rows = getattr(batch, name)
            setattr(alone, name, rows.view(count, nodes, *rows.shape[1:])[sequence, way])
        slots = batch.forward_batch.out_cache_loc.view(count, nodes)[sequence, way]
        alone.forward_batch.out_cache_loc = slots
        (mine,), theirs = alone.forward_batch.req_pool_indices, batch.forward_batch.req_pool_indices[sequence]
        alone.table[mine, : length + len(way)] = torch.cat([batch.table[theirs, :length], slots.int()])

        expected = alone.through(ours())[-1]
        tolerance = TOLERANCE[batch.dtype]
        torch.testing.assert_close(found[sequence, node], expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("step", [0, 1, 4])
def test_each_drafted_token_sees_all_before_it(step: int) -> None:
    from specreason_sgl.servers.cpu.attention import DraftAttention

    cached = [3, 90, 17]
    batch = Batch([length + step for length in cached], [1, 1, 1], decodes=True)
    expected = batch.through(ours())
    batch.forward_batch.seq_lens = torch.tensor(cached)  # what is certain

    def drafting(runner: Any) -> Any:
        backend = DraftAttention(runner, 1, 6)
        backend.init_forward_metadata(batch.forward_batch)
        made = backend.attn_backends[step]
        return SimpleNamespace(init_forward_metadata=lambda _: None, forward=made.forward)

    assert torch.equal(batch.through(drafting), expected)


def test_what_is_not_supported_when_drafting_is_named() -> None:
    from specreason_sgl.servers.cpu.attention import DraftAttention

    with pytest.raises(NotImplementedError, match="--speculative-eagle-topk 1"):
        DraftAttention(SimpleNamespace(), 2, 4)
    with pytest.raises(NotImplementedError, match="attention over the whole sequence only"):
        Batch([20], [3], drafted=True, sliding_window=6).through(ours())
    with pytest.raises(NotImplementedError, match="at most 128 tokens can be drafted"):
        Batch([20], [129], drafted=True, tree=torch.ones(1, 129, 129, dtype=torch.bool)).through(ours())


def test_a_sliding_window_is_kept() -> None:
    assert_same(Batch([20, 40], [3, 9], sliding_window=6))


def test_what_is_not_a_number_stays_in_its_own_sequence() -> None:
    batch = Batch([5, 40, 90], [1, 1, 1], decodes=True)
    poisoned = batch.forward_batch.req_pool_indices[2]
    for cache in batch.caches:
        cache[batch.table[poisoned, :3]] = torch.nan
    clean = batch.table[batch.forward_batch.req_pool_indices[0]]
    clean[6:] = batch.table[poisoned, 0]  # what an earlier request left behind
    found = batch.through(ours())

    assert found.isnan().all(1).tolist() == [False, False, True]


def test_the_backend_can_be_chosen_by_name() -> None:
    from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS
    from sglang.srt.server_args import ATTENTION_BACKEND_CHOICES

    from specreason_sgl.servers.plugin import ATTENTION, register

    register()
    register()

    assert ATTENTION_BACKEND_CHOICES.count(ATTENTION) == 1
    batch = Batch([3], [2])
    assert torch.equal(batch.through(ATTENTION_BACKENDS[ATTENTION]), batch.through(ours()))


def test_the_plugin_is_found_by_sglang_and_brings_nothing_heavy_along() -> None:
    import subprocess
    import tomllib
    from pathlib import Path

    declared = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    (entry,) = declared["project"]["entry-points"]["sglang.srt.plugins"].values()
    module, _, function = entry.partition(":")
    script = f"import sys, {module}; {module}.{function}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
