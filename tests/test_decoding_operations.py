from __future__ import annotations

import math
import random
import warnings
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from specreason_sgl.servers.tree import STAND_IN, kernels_load

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

SLOTS = 64


@pytest.fixture(scope="module", autouse=True)
def sglang_on_the_cpu() -> None:
    """SGLang's speculative decoding, importable where its kernels cannot load."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("SGLANG_USE_CPU_ENGINE", "1")
        if not kernels_load():
            patch.syspath_prepend(STAND_IN)
        import sglang.srt.speculative.eagle_utils  # noqa: F401


def operations() -> ModuleType:
    from specreason_sgl.servers.cpu.decoding import operations

    return operations


def drawing() -> ModuleType:
    from specreason_sgl.servers.cpu.decoding import drawing

    return drawing


# Slots

spans = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 7)), min_size=1, max_size=5)


def table(rng: random.Random, requests: int, dtype: torch.dtype = torch.int32) -> Tensor:
    return torch.tensor([[rng.randrange(SLOTS) for _ in range(20)] for _ in range(requests + 2)], dtype=dtype)


@settings(deadline=None)
@given(spans=spans, seed=st.integers(0, 999))
def test_new_slots_go_behind_each_requests_own(spans: list[tuple[int, int]], seed: int) -> None:
    rng = random.Random(seed)
    found, requests = table(rng, len(spans)), rng.sample(range(len(spans) + 2), len(spans))
    expected, new = found.clone(), [rng.randrange(SLOTS) for _ in range(sum(length for _, length in spans))]
    rest = iter(new)
    for request, (start, length) in zip(requests, spans, strict=True):
        for place in range(start, start + length):
            expected[request, place] = next(rest)
    starts = torch.tensor([start for start, _ in spans], dtype=torch.int32)
    ends = torch.tensor([start + length for start, length in spans], dtype=torch.int32)
    operations().assign_req_to_token_pool_cpu(
        torch.tensor(requests), found, starts, ends, torch.tensor(new, dtype=torch.int64), 20
    )

    assert torch.equal(found, expected)


@settings(deadline=None)
@given(spans=spans, seed=st.integers(0, 999))
def test_the_slots_of_spans_are_packed(spans: list[tuple[int, int]], seed: int) -> None:
    rng = random.Random(seed)
    slots, requests = table(rng, len(spans)), rng.sample(range(len(spans) + 2), len(spans))
    expected = [int(slots[r, p]) for r, (s, n) in zip(requests, spans, strict=True) for p in range(s, s + n)]
    found = torch.full((len(expected) + 3,), -7)
    operations().assign_extend_cache_locs_cpu(
        torch.tensor(requests),
        slots,
        torch.tensor([start for start, _ in spans]),
        torch.tensor([start + length for start, length in spans]),
        found,
        20,
    )

    assert found.tolist() == [*expected, -7, -7, -7]


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 10), min_size=1, max_size=5), steps=st.integers(1, 7), seed=st.integers(0, 99))
def test_drafts_are_written_behind_what_is_certain(lengths: list[int], steps: int, seed: int) -> None:
    rng = random.Random(seed)
    slots, requests = table(rng, len(lengths)), rng.sample(range(len(lengths) + 2), len(lengths))
    found = torch.empty(len(lengths) * steps, dtype=torch.int64)
    operations().assign_draft_cache_locs_contiguous_cpu(
        torch.tensor(requests), slots, torch.tensor(lengths), found, 20, 1, steps
    )

    expected = [
        int(slots[r, length + step]) for r, length in zip(requests, lengths, strict=True) for step in range(steps)
    ]
    assert found.tolist() == expected


@settings(deadline=None)
@given(
    moves=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=12, unique_by=lambda move: move[0]),
    dtypes=st.lists(st.sampled_from([torch.bfloat16, torch.float32]), min_size=1, max_size=4),
)
def test_rows_of_the_cache_are_moved_as_if_all_at_once(moves: list[tuple[int, int]], dtypes: list[torch.dtype]) -> None:
    buffers = [torch.randn(16, 2, 3 + layer).to(dtype) for layer, dtype in enumerate(dtypes)]
    before = [buffer.clone() for buffer in buffers]
    operations().copy_all_layer_kv_cache_cpu(
        torch.tensor([buffer.data_ptr() for buffer in buffers], dtype=torch.uint64),
        torch.tensor([buffer[0].nbytes for buffer in buffers], dtype=torch.uint64),
        torch.tensor([target for target, _ in moves], dtype=torch.int64),
        torch.tensor([source for _, source in moves], dtype=torch.int64),
    )

    for buffer, old in zip(buffers, before, strict=True):
        expected = old.clone()
        for target, source in moves:
            expected[target] = old[source]
        assert torch.equal(buffer, expected)


@settings(deadline=None)
@given(accepted=st.lists(st.integers(-1, 9), min_size=1, max_size=12))
def test_the_slots_of_accepted_tokens_are_packed(accepted: list[int]) -> None:
    slots, found = torch.arange(100, 110), torch.full((len(accepted),), -7)
    operations().fill_accept_out_cache_loc_cpu(torch.tensor(accepted, dtype=torch.int32), slots, found)
    kept = [100 + node for node in accepted if node >= 0]

    assert found.tolist() == kept + [-7] * (len(accepted) - len(kept))


@settings(deadline=None)
@given(rows=st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=5), min_size=1, max_size=4))
def test_the_last_accepted_token_is_the_next_root(rows: list[list[int]]) -> None:
    padded, found = [row + [-1] * (5 - len(row)) for row in rows], torch.zeros(len(rows), dtype=torch.int32)
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int32)
    operations().fill_bonus_tokens_cpu(torch.tensor(padded), lengths, found, 5)

    assert found.tolist() == [row[-1] for row in rows]


# Trees


class Trees:
    """Some random trees of drafted tokens, by each node's parent."""

    def __init__(self, parents: list[list[int]], seed: int, tokens: int = 3) -> None:
        self.parents, rng = parents, random.Random(seed)
        self.count, self.nodes = len(parents), len(parents[0]) + 1
        self.drafted = [[rng.randrange(tokens) for _ in range(self.nodes)] for _ in parents]
        self.wanted = [[rng.randrange(tokens) for _ in range(self.nodes)] for _ in parents]
        self.before = [rng.randrange(50) for _ in parents]

    def children(self, tree: int, node: int) -> list[int]:
        return [child for child, parent in enumerate(self.parents[tree], start=1) if parent == node]

    def above(self, tree: int, node: int) -> list[int]:
        return [*self.above(tree, self.parents[tree][node - 1]), node] if node else [0]

    def mask(self) -> Tensor:
        seen = torch.zeros(self.count, self.nodes, self.nodes, dtype=torch.bool)
        for tree in range(self.count):
            for node in range(self.nodes):
                seen[tree, node, self.above(tree, node)] = True
        return seen

    def links(self) -> dict[str, list[list[int]]]:
        """SGLang's links, from each tree's children alone."""
        found: dict[str, list[list[int]]] = {"index": [], "next_token": [], "next_sibling": []}
        for tree in range(self.count):
            first, following = [-1] * self.nodes, [-1] * self.nodes
            for node in range(self.nodes):
                children = self.children(tree, node)
                first[node] = children[0] if children else -1
                for one, other in pairwise(children):
                    following[one] = other
            found["index"].append([tree * self.nodes + node for node in range(self.nodes)])
            found["next_token"].append(first)
            found["next_sibling"].append(following)
        return found

    def way(self, tree: int, depth: int) -> list[int]:
        """The nodes that are accepted."""
        found = [0]
        while len(found) < depth:
            wanted = self.wanted[tree][found[-1]]
            match = [child for child in self.children(tree, found[-1]) if self.drafted[tree][child] == wanted]
            if not match:
                break
            found.append(match[0])
        return found


@st.composite
def trees(draw: st.DrawFn) -> Trees:
    count, nodes = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    parents = [[draw(st.integers(0, node - 1)) for node in range(1, nodes)] for _ in range(count)]
    return Trees(parents, draw(st.integers(0, 999)))


def chains(count: int, nodes: int) -> Trees:
    return Trees([list(range(nodes - 1))] * count, seed=count * nodes)


def empty(some: Trees) -> list[Tensor]:
    """Positions and links to fill."""
    return [torch.full((some.count * some.nodes,), -7), *(torch.full((some.count, some.nodes), -7) for _ in range(3))]


def check_filled(some: Trees, filled: list[Tensor]) -> None:
    positions, *links = filled
    deep = [b + len(some.above(t, n)) - 1 for t, b in enumerate(some.before) for n in range(some.nodes)]
    assert positions.tolist() == deep
    assert [each.tolist() for each in links] == list(some.links().values())


@settings(deadline=None)
@given(some=trees())
def test_links_follow_from_what_each_drafted_token_sees(some: Trees) -> None:
    filled = empty(some)
    operations().reconstruct_indices_from_tree_mask(
        some.mask().flatten(), torch.tensor(some.before), *filled, some.count, some.nodes
    )

    check_filled(some, filled)


@pytest.mark.parametrize(("count", "nodes"), [(1, 1), (1, 8), (3, 6)])
def test_what_a_model_drafts_is_a_chain(count: int, nodes: int) -> None:
    some = chains(count, nodes)
    filled, mask = empty(some), torch.ones(count * nodes * nodes + 5, dtype=torch.bool)
    operations().build_tree_kernel_efficient_cpu(
        None, None, torch.tensor(some.before), mask, *filled, 1, nodes - 1, nodes, operations().QLEN_ONLY
    )

    check_filled(some, filled)
    assert torch.equal(mask[: count * nodes * nodes].view(count, nodes, nodes), some.mask())


@pytest.mark.parametrize(("topk", "mode", "complaint"), [(2, 1, "--speculative-eagle-topk 1"), (1, 0, "of kind 0")])
def test_other_trees_of_a_model_are_refused_by_name(topk: int, mode: int, complaint: str) -> None:
    some = chains(1, 4)
    with pytest.raises(NotImplementedError, match=complaint):
        operations().build_tree_kernel_efficient_cpu(
            None, None, torch.tensor(some.before), torch.empty(16, dtype=torch.bool), *empty(some), topk, 3, 4, mode
        )


def walked(some: Trees, depth: int, walk: Callable[..., None] | None = None, **more: Any) -> list[list[int]]:
    """The tokens of each text: those accepted, and the one behind them."""
    links = {name: torch.tensor(link) for name, link in some.links().items()}
    predicts = torch.zeros(some.count * some.nodes, dtype=torch.int32)
    accepted = torch.full((some.count, depth), -1, dtype=torch.int32)
    lengths = torch.empty(some.count, dtype=torch.int32)
    given = more or {"target_predict": torch.tensor(some.wanted)}
    (walk or operations().verify_tree_greedy_cpu)(
        predicts=predicts,
        accept_index=accepted,
        accept_token_num=lengths,
        candidates=torch.tensor(some.drafted),
        retrive_index=links["index"],
        retrive_next_token=links["next_token"],
        retrive_next_sibling=links["next_sibling"],
        **given,
    )
    assert lengths.tolist() == [(row != -1).sum() - 1 for row in accepted]
    return [[int(predicts[place]) for place in row if place != -1] for row in accepted]


@settings(deadline=None)
@given(some=trees(), depth=st.integers(1, 9))
def test_tokens_are_accepted_as_far_as_the_base_model_wants_them(some: Trees, depth: int) -> None:
    assert walked(some, depth) == [
        [some.wanted[tree][node] for node in some.way(tree, depth)] for tree in range(some.count)
    ]


# Drawing

rows = st.lists(st.lists(st.floats(0.01, 1), min_size=6, max_size=6), min_size=1, max_size=4)


def shares(weights: list[list[float]]) -> Tensor:
    found = torch.tensor(weights)
    return found / found.sum(-1, keepdim=True)


@settings(deadline=None)
@given(weights=rows, seed=st.integers(0, 999))
def test_as_many_tokens_are_kept_as_in_plain_decoding(weights: list[list[float]], seed: int) -> None:
    from sglang.srt.layers.sampler import top_k_top_p_min_p_sampling_from_probs_torch as plain

    rng, probabilities = random.Random(seed), shares(weights)
    counts = torch.tensor([rng.randint(1, 6) for _ in weights], dtype=torch.int32)
    parts = torch.tensor([rng.uniform(0.05, 1) for _ in weights])
    least = torch.tensor([rng.uniform(0, 1) for _ in weights])
    kept = drawing().keep_top_p(drawing().keep_top_k(probabilities, counts), parts)
    kept = drawing().keep_min_p(kept, least)
    _, weighed, order, _ = plain(
        probabilities.clone(), counts, parts, least, True, None, None, return_filtered_probs=True
    )

    assert torch.equal((kept > 0).gather(1, order), weighed > 0)
    assert torch.equal(kept[kept > 0], probabilities[kept > 0])


@settings(deadline=None)
@given(weights=rows, chance=st.floats(0, 1, exclude_max=True, width=32))
def test_a_draw_is_the_token_in_whose_share_the_chance_falls(weights: list[list[float]], chance: float) -> None:
    probabilities = shares(weights)
    probabilities[:, 2] = probabilities[:, 5] = 0
    found = drawing().drawn(probabilities, torch.full((len(weights),), chance))

    for row, token in zip(probabilities.double().tolist(), found.tolist(), strict=True):
        assert row[token] > 0
        total = math.fsum(row)
        assert sum(row[:token]) / total - 1e-9 <= chance <= sum(row[: token + 1]) / total + 1e-9


NEVER = 1e-6
"""A correct draw is taken for a wrong one as seldom as this; the seed is fixed besides."""


@pytest.mark.parametrize("is_chain", [True, False])
def test_whatever_is_drafted_texts_come_as_often_as_the_base_model_writes_them(is_chain: bool) -> None:
    texts, tokens, rng = 4000, 3, torch.Generator().manual_seed(7)
    first = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    second = torch.tensor([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2], [0.05, 0.05, 0.9]], dtype=torch.float64)
    # A root; drafted behind it a token, or two of the three; behind the first of them another one.
    parents = [[0, 1]] * texts if is_chain else [[0, 0, 1]] * texts
    some = Trees(parents, seed=3, tokens=tokens)
    some.drafted = [[9, 0, 1] if is_chain else [9, 1, 0, 2] for _ in range(texts)]
    behind = [first, *(second[token] for token in some.drafted[0][1 : 2 if is_chain else 3])]
    behind += [torch.ones(tokens).double() / tokens] * (some.nodes - len(behind))
    probabilities = torch.stack(behind).expand(texts, -1, -1).contiguous()
    written = walked(
        some,
        3,
        drawing().draw_and_walk,
        uniform_samples=torch.rand(texts, some.nodes, generator=rng),
        target_probs=probabilities,
        uniform_samples_for_final_sampling=torch.zeros(texts),
    )
    seconds = torch.rand(texts, generator=rng)
    pairs = [[0] * tokens for _ in range(tokens)]
    for text, chance in zip(written, seconds, strict=True):
        # Where nothing drafted was accepted the next round begins with the second token.
        after = text[1] if len(text) > 1 else int(drawing().drawn(second[text[0]][None], chance[None]))
        pairs[text[0]][after] += 1

    assert {len(text) for text in written} == {1, 2, 3}
    expected = first[:, None] * second * texts
    assert chisquare([count for row in pairs for count in row], expected.flatten()).pvalue > NEVER


def test_a_batch_is_decoded_greedily_only_where_all_its_requests_want_that() -> None:
    asked = {"is_cpu": True, "is_hip": False, "is_xpu": False, "use_rejection_sampling": False}

    assert drawing().is_greedy(is_all_greedy=True, **asked)
    assert not drawing().is_greedy(is_all_greedy=False, **asked)


# How they come to SGLang


def test_sglang_has_every_place_that_drafting_needs() -> None:
    from sglang.srt.speculative import draft_utils, eagle_utils, spec_utils

    from specreason_sgl.servers.cpu.decoding import places

    replaced = (*places.DRAWING, places.CHANCES)
    with pytest.MonkeyPatch.context() as patch:
        for name in replaced:
            patch.setattr(eagle_utils, name, getattr(eagle_utils, name))
        patch.setattr(spec_utils, places.COMPILED, getattr(spec_utils, places.COMPILED))
        patch.setattr(draft_utils.DraftBackendFactory, places.CREATE, draft_utils.DraftBackendFactory._create_backend)
        places.fill.__wrapped__("torch_incremental")

        assert {name: getattr(eagle_utils, name) for name in places.DRAWING} == places.DRAWING
        assert getattr(eagle_utils, places.CHANCES).func is drawing().with_min_p
        assert not hasattr(getattr(spec_utils, places.COMPILED), "_torchdynamo_orig_callable")


@pytest.mark.parametrize("name", ["_verify_uses_greedy", "top_p_renorm_prob", "_verify_coins"])
def test_a_place_that_another_sglang_lacks_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt.speculative import eagle_utils

    from specreason_sgl.servers.cpu.decoding import places

    monkeypatch.delattr(eagle_utils, name)
    before = vars(eagle_utils).copy()
    with pytest.raises(NotImplementedError, match=rf"needs `sglang\.srt\.speculative\.eagle_utils\.{name}`, which"):
        places.fill.__wrapped__("torch_incremental")

    assert vars(eagle_utils) == before


@pytest.mark.skipif(kernels_load(), reason="SGLang's own kernels load here")
def test_every_operation_that_sglang_imports_for_drafting_is_ours_where_it_has_none() -> None:
    from sglang.kernels.ops.kvcache import cache_move
    from sglang.kernels.ops.speculative import cache_locs, eagle, reconstruct_tree, spec_tree
    from sglang.srt.mem_cache import allocation

    ours = operations()
    assert cache_move.copy_all_layer_kv_cache_cpu is ours.copy_all_layer_kv_cache_cpu
    assert allocation.assign_req_to_token_pool_cpu is ours.assign_req_to_token_pool_cpu
    assert cache_locs.assign_extend_cache_locs_cpu is ours.assign_extend_cache_locs_cpu
    assert cache_locs.assign_draft_cache_locs_contiguous_cpu is ours.assign_draft_cache_locs_contiguous_cpu
    assert spec_tree.sgl_build_tree_kernel_efficient_cpu is ours.build_tree_kernel_efficient_cpu
    assert spec_tree.sgl_verify_tree_greedy_cpu is ours.verify_tree_greedy_cpu
    assert eagle.fill_bonus_tokens_cpu is ours.fill_bonus_tokens_cpu
    assert eagle.fill_accept_out_cache_loc_cpu is ours.fill_accept_out_cache_loc_cpu
    assert reconstruct_tree.reconstruct_indices_from_tree_mask is ours.reconstruct_indices_from_tree_mask


def test_an_operation_that_the_compiled_library_has_stays_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, theirs = SimpleNamespace(verify_tree_greedy_cpu=1, reconstruct_indices_from_tree_mask=1), object()
    monkeypatch.setattr(operations().torch, "ops", SimpleNamespace(sgl_kernel=compiled))
    kernels = ModuleType("sgl_kernel")
    kernels.verify_tree_greedy_cpu = theirs  # type: ignore[attr-defined]
    operations().provide(kernels)

    assert kernels.verify_tree_greedy_cpu is theirs
    assert kernels.fill_bonus_tokens_cpu is operations().fill_bonus_tokens_cpu
