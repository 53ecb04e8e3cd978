"""Attention on the CPU that computes only what is new.

SGLang's ``torch_native`` computes every query of a sequence again whenever the sequence is extended, and takes one
sequence after the other. Here the new queries attend to the cached keys and to themselves, and sequences go together.

Keys and values are converted to float32 as they are gathered: on the CPU, torch's attention in bfloat16 takes two to
three times as long for a single query, and as long for more. What is the same for all layers is computed once a forward
pass.

Under speculative decoding the new tokens may be drafted ones: a chain, or a tree in which each sees its ancestors only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
from sglang.srt.layers.radix_attention import AttentionType, RadixAttention
from sglang.srt.mem_cache.memory_pool import KVWriteLoc
from sglang.srt.model_executor.forward_batch_info import ForwardBatch
from sglang.srt.model_executor.model_runner import ModelRunner
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

BLOCK_QUERIES = 128
"""The most queries in a segment; this limits the mask, and skips most pairs that causality forbids."""

GROUP_KEYS = 2048
"""The most tokens whose keys are gathered together, unless one sequence alone has more. Many more would leave the
processor's cache before they are used."""


class Segment(NamedTuple):
    """Consecutive new tokens of one sequence; segments that can go together are neighbours when they are sorted."""

    queries: int
    """How many new tokens."""
    keys: int
    """How many tokens the last of them sees: itself and all before it."""
    row: int
    """The first one's place in the batch."""
    sequence: int
    """Which sequence of the batch it is."""


def segments(lengths: Sequence[int], fresh: Sequence[int]) -> Iterator[Segment]:
    """Cut the new tokens of a batch into segments.

    Args:
        lengths: the tokens of every sequence, the new ones included.
        fresh: the new tokens at the end of every sequence.
    """
    row = 0
    for sequence, (length, new) in enumerate(zip(lengths, fresh, strict=True)):
        for start in range(0, new, BLOCK_QUERIES):
            queries = min(BLOCK_QUERIES, new - start)
            yield Segment(queries, length - new + start + queries, row + start, sequence)
        row += new


def grouped(cut: Iterator[Segment]) -> list[list[Segment]]:
    """Put segments of as many queries together while their keys, padded to the longest, are few enough."""
    groups: list[list[Segment]] = []
    for segment in sorted(cut):
        last = groups[-1] if groups else []
        if last and last[0].queries == segment.queries and (len(last) + 1) * segment.keys <= GROUP_KEYS:
            last.append(segment)
        else:
            groups.append([segment])
    return groups


@dataclass(frozen=True)
class Group:
    """Segments that go through attention together."""

    count: int
    """How many segments."""
    rows: Tensor | slice
    """The places of their tokens in the batch."""
    slots: Tensor
    """Where the keys and values of each segment are in the cache: segments times keys, flat."""
    mask: Tensor | None
    """What is added to the weights, ``[segments, 1, queries, keys]``; None where every query sees every key."""

    @classmethod
    def of(cls, together: Sequence[Segment], slots: Tensor, trees: Tensor | None = None) -> Group:
        """Prepare segments of as many queries each.

        Args:
            together: the segments, the one with most keys last.
            slots: the places in the cache of every sequence's tokens, ``[sequences, longest or more]``.
            trees: which of its new tokens each new token of a sequence sees, ``[sequences, new, new]``; by itself all
                before it. A sequence then is one segment.
        """
        count, (queries, longest, row, sequence) = len(together), together[-1]
        if count == 1:
            rows: Tensor | slice = slice(row, row + queries)
            places = slots[sequence, :longest]
        else:
            rows = (torch.tensor([p.row for p in together])[:, None] + torch.arange(queries)).flatten()
            places = slots[torch.tensor([p.sequence for p in together]), :longest]
        mask = None
        if queries > 1 or together[0].keys < longest:
            seen = torch.tensor([p.keys for p in together]).view(count, 1, 1, 1)
            first = together[0].keys - queries + 1  # every query sees all keys before
            hidden = torch.arange(first, longest) > seen + torch.arange(-queries, 0).view(1, 1, queries, 1)
            if trees is not None:
                for segment, rest in zip(together, hidden, strict=True):
                    end = segment.keys - first
                    rest[0, :, end - queries + 1 : end] |= ~trees[segment.sequence, :, 1:]  # all see the root
            mask = torch.zeros(count, 1, queries, longest)
            mask[..., first:].masked_fill_(hidden, -torch.inf)
            # A masked key has no weight, but its value would still count if it were not a number: let it be one's own.
            places = places.view(count, longest)
            places = torch.where(torch.arange(longest) < seen.view(count, 1), places, places[:, :1])
        return cls(count, rows, places.flatten(), mask)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """Attention of the group's queries.

        Args:
            query: all queries of the batch, ``[tokens, heads, width]``.
            keys: the layer's cache, ``[slots, key heads, width]``.
            values: the layer's cache, ``[slots, key heads, width of a value]``.
            scaling: what the products of queries and keys are multiplied by.

        Returns:
            float32, ``[tokens of the group, heads, width of a value]``.
        """
        out = scaled_dot_product_attention(
            query[self.rows].reshape(self.count, -1, *query.shape[1:]).transpose(1, 2).float(),
            self._gathered(keys),
            self._gathered(values),
            attn_mask=self.mask,
            scale=scaling,
            enable_gqa=query.shape[1] != keys.shape[1],
        )
        return out.transpose(1, 2).flatten(0, 1)

    def _gathered(self, cache: Tensor) -> Tensor:
        # Rows of two dimensions are gathered several times faster than rows of three.
        found = cache.flatten(1).index_select(0, self.slots)
        return found.view(self.count, -1, *cache.shape[1:]).transpose(1, 2).float()


class IncrementalAttention(TorchNativeAttnBackend):  # type: ignore[misc]
    """SGLang's attention backend for decoders with multi-head or grouped-query attention over the whole sequence.

    Layers of another kind (cross attention, encoders, sliding windows) are left to ``torch_native``.
    """

    def __init__(self, runner: ModelRunner) -> None:
        """Attention over the token pools of a model runner."""
        super().__init__(runner)
        self._groups: list[Group] = []

    def init_forward_metadata(self, forward_batch: ForwardBatch) -> None:
        """Prepare a forward pass: all that does not depend on the layer."""
        super().init_forward_metadata(forward_batch)
        lengths: list[int] = forward_batch.seq_lens.tolist()
        trees = None
        if forward_batch.forward_mode.is_target_verify():
            drafted = forward_batch.spec_info
            count = drafted.draft_token_num
            lengths, fresh = [length + count for length in lengths], [count] * len(lengths)
            if drafted.tree_topk != 1:
                trees = _trees(drafted.custom_mask, len(lengths), count)
        elif forward_batch.forward_mode.is_decode_or_idle():
            fresh = [1] * len(lengths)
        else:
            fresh = forward_batch.extend_seq_lens.tolist()
        self.prepare(forward_batch.req_pool_indices, lengths, fresh, trees)

    def prepare(
        self, requests: Tensor, lengths: Sequence[int], fresh: Sequence[int], trees: Tensor | None = None
    ) -> None:
        """Prepare a forward pass over the new tokens at the end of sequences.

        Args:
            requests: each sequence's row in the table of slots.
            lengths: the tokens of every sequence, the new ones included.
            fresh: the new tokens at the end of every sequence.
            trees: which of its new tokens each new token sees, as in `Group.of`.
        """
        slots = self.req_to_token_pool.req_to_token[requests, : max(lengths, default=0)]
        self._groups = [Group.of(together, slots, trees) for together in grouped(segments(lengths, fresh))]

    def forward(
        self,
        q: Tensor,
        k: Tensor | None,
        v: Tensor | None,
        layer: RadixAttention,
        forward_batch: ForwardBatch,
        save_kv_cache: bool = True,
        **more: Any,
    ) -> Tensor:
        """Attention of a batch's new tokens in one layer.

        Args:
            q: their queries, ``[tokens, heads * width]``.
            k: their keys, ``[tokens, key heads, width]``.
            v: their values, ``[tokens, key heads, width of a value]``.
            layer: the layer, for its shape.
            forward_batch: the batch that `init_forward_metadata` prepared.
            save_kv_cache: whether keys and values are to be written to the cache first.
            **more: what other backends know.

        Returns:
            ``[tokens, heads * width of a value]``.
        """
        if not self._is_ours(layer, forward_batch):
            if forward_batch.forward_mode.is_target_verify():
                message = "speculative decoding on this processor knows attention over the whole sequence only"
                raise NotImplementedError(message)
            theirs: Tensor = super().forward(q, k, v, layer, forward_batch, save_kv_cache, **more)
            return theirs
        pool = self.token_to_kv_pool
        if save_kv_cache and k is not None:
            pool.set_kv_buffer(layer, KVWriteLoc(forward_batch.out_cache_loc), k, v)
        keys, values = pool.get_kv_buffer(layer.layer_id)
        query = q.view(-1, layer.tp_q_head_num, layer.qk_head_dim)
        out = q.new_empty(len(query), layer.tp_q_head_num, layer.v_head_dim)
        for group in self._groups:
            out[group.rows] = group.attend(query, keys, values, layer.scaling).to(out.dtype)
        return out.flatten(1)

    def _is_ours(self, layer: RadixAttention, forward_batch: ForwardBatch) -> bool:
        return (
            layer.attn_type == AttentionType.DECODER
            and layer.sliding_window_size < 0
            and not self.use_sliding_window_kv_pool
            and forward_batch.encoder_lens is None
            and not forward_batch.forward_mode.is_idle()
        )


class DraftAttention:
    """The attention of a draft model while it writes a chain: a backend for each token but the last."""

    def __init__(self, runner: ModelRunner, topk: int, steps: int) -> None:
        """Attention over the token pools of a draft model's runner.

        Args:
            runner: the model runner.
            topk: how many tokens are drafted for each place.
            steps: how many places are drafted.

        Raises:
            NotImplementedError: more than one token is drafted for a place.
        """
        if topk != 1:
            message = "a draft model on this processor writes one chain: --speculative-eagle-topk 1"
            raise NotImplementedError(message)
        self.attn_backends = [IncrementalAttention(runner) for _ in range(steps - 1)]
        """SGLang's name."""

    def init_forward_metadata(self, forward_batch: ForwardBatch) -> None:
        """Prepare all steps: the first one's new token stands behind what is certain."""
        lengths: list[int] = forward_batch.seq_lens.tolist()
        for step, backend in enumerate(self.attn_backends, start=1):
            grown = [length + step for length in lengths]
            backend.prepare(forward_batch.req_pool_indices, grown, [1] * len(grown))


def _trees(mask: Tensor, sequences: int, nodes: int) -> Tensor:
    if nodes > BLOCK_QUERIES:
        message = f"at most {BLOCK_QUERIES} tokens can be drafted at a time on this processor, not {nodes}"
        raise NotImplementedError(message)
    return mask.view(sequences, nodes, nodes)
