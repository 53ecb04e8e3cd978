"""What SGLang asks of its compiled CPU kernels for speculative decoding, in torch.

Names and arguments are SGLang's. An argument that is said to be filled is written to; nothing is returned. Slots are
places in the cache of keys and values, ``req_to_token[request, position]`` names the slot of each token, and a tree of
drafted tokens has its root, the last token that is certain, at place 0 of its ``n`` nodes.
"""

from __future__ import annotations

import ctypes
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

NONE = -1
"""What stands for no node."""
QLEN_ONLY = 1
"""SGLang's mask of drafted tokens over drafted tokens alone, which is what it asks for on the CPU."""


def copy_all_layer_kv_cache_cpu(data_ptrs: Tensor, strides: Tensor, tgt_loc: Tensor, src_loc: Tensor) -> None:
    """Copy cache rows to other slots in every buffer; all rows are read before any is written.

    Args:
        data_ptrs: the address of each buffer.
        strides: the bytes of a row in each.
        tgt_loc: the slots to write.
        src_loc: the slots to read.
    """
    if not len(tgt_loc):
        return
    target, source = tgt_loc.numpy(), src_loc.numpy()
    rows = int(max(target.max(), source.max())) + 1
    for address, width in zip(data_ptrs.tolist(), strides.tolist(), strict=True):
        held = (ctypes.c_uint8 * (rows * width)).from_address(address)
        buffer = np.frombuffer(held, np.uint8).reshape(rows, width)
        buffer[target] = buffer[source]


def assign_req_to_token_pool_cpu(
    req_pool_indices: Tensor,
    req_to_token: Tensor,
    start_offset: Tensor,
    end_offset: Tensor,
    out_cache_loc: Tensor,
    _pool_len: int,
) -> None:
    """Fill ``req_to_token[request, start:end]`` of each request with the next of the new slots."""
    rows, columns = _spans(req_pool_indices, start_offset, end_offset)
    req_to_token[rows, columns] = out_cache_loc[: len(rows)].to(req_to_token.dtype)


def assign_extend_cache_locs_cpu(
    req_pool_indices: Tensor,
    req_to_token: Tensor,
    start_offset: Tensor,
    end_offset: Tensor,
    out_cache_loc: Tensor,
    _pool_len: int,
) -> None:
    """Fill ``out_cache_loc`` with the slots ``[start, end)`` of each request, without gaps."""
    rows, columns = _spans(req_pool_indices, start_offset, end_offset)
    out_cache_loc[: len(rows)] = req_to_token[rows, columns].to(out_cache_loc.dtype)


def assign_draft_cache_locs_contiguous_cpu(
    req_pool_indices: Tensor,
    req_to_token: Tensor,
    seq_lens: Tensor,
    out_cache_loc: Tensor,
    pool_len: int,
    topk: int,
    speculative_num_steps: int,
) -> None:
    """Fill ``out_cache_loc`` with the ``topk * steps`` slots behind each request's tokens."""
    ends = seq_lens + topk * speculative_num_steps
    assign_extend_cache_locs_cpu(req_pool_indices, req_to_token, seq_lens, ends, out_cache_loc, pool_len)


def build_tree_kernel_efficient_cpu(
    _parent_list: Tensor,
    _selected_index: Tensor,
    seq_lens: Tensor,
    tree_mask: Tensor,
    positions: Tensor,
    retrive_index: Tensor,
    retrive_next_token: Tensor,
    retrive_next_sibling: Tensor,
    topk: int,
    _depth: int,
    draft_token_num: int,
    tree_mask_mode: int,
) -> None:
    """Fill mask, positions and links of one chain of drafted tokens for each request.

    Raises:
        NotImplementedError: several tokens are drafted for one place, or another mask is asked for.
    """
    if topk != 1:
        message = "trees of a draft model's tokens are not supported on this processor: --speculative-eagle-topk 1"
        raise NotImplementedError(message)
    if tree_mask_mode != QLEN_ONLY:
        message = f"SGLang asks for a mask of kind {tree_mask_mode} over drafted tokens, which is not known here"
        raise NotImplementedError(message)
    sequences, places = len(seq_lens), torch.arange(draft_token_num)
    mask = torch.ones(draft_token_num, draft_token_num, dtype=torch.bool).tril().flatten()
    tree_mask[: sequences * len(mask)] = mask.repeat(sequences)
    positions.copy_((seq_lens[:, None] + places).flatten())
    retrive_index.copy_(torch.arange(sequences * draft_token_num).view(sequences, -1))
    retrive_next_token.copy_(torch.where(places + 1 < draft_token_num, places + 1, NONE))
    retrive_next_sibling.fill_(NONE)


def verify_tree_greedy_cpu(
    *,
    predicts: Tensor,
    accept_index: Tensor,
    accept_token_num: Tensor,
    candidates: Tensor,
    retrive_index: Tensor,
    retrive_next_token: Tensor,
    retrive_next_sibling: Tensor,
    target_predict: Tensor,
) -> None:
    """Walk down each tree while a child is the token that the base model wants there.

    Args:
        predicts: filled at each node on the way with the base model's token, flat over all trees.
        accept_index: filled with the nodes on the way, ``[trees, depth]``; the rest stays.
        accept_token_num: filled with the drafted tokens on the way.
        candidates: the drafted tokens, ``[trees, n]``.
        retrive_index: each node's place in ``predicts``.
        retrive_next_token: each node's first child.
        retrive_next_sibling: each node's next sibling.
        target_predict: the base model's token behind each node.
    """
    drafted, wanted = candidates.tolist(), target_predict.tolist()
    children, siblings = retrive_next_token.tolist(), retrive_next_sibling.tolist()
    depth = accept_index.shape[1]
    for tree, index in enumerate(retrive_index.tolist()):
        way = [0]
        while len(way) < depth:
            child = children[tree][way[-1]]
            while child != NONE and drafted[tree][child] != wanted[tree][way[-1]]:
                child = siblings[tree][child]
            if child == NONE:
                break
            way.append(child)
        places = torch.tensor([index[node] for node in way])
        predicts[places] = torch.tensor([wanted[tree][node] for node in way], dtype=predicts.dtype)
        accept_index[tree, : len(way)] = places.to(accept_index.dtype)
        accept_token_num[tree] = len(way) - 1


def fill_bonus_tokens_cpu(accept_tokens: Tensor, accept_lens: Tensor, bonus_tokens: Tensor, accept_stride: int) -> None:
    """Fill ``bonus_tokens`` with the last accepted token of each request."""
    places = torch.arange(len(accept_lens)) * accept_stride + accept_lens - 1
    bonus_tokens.copy_(accept_tokens.flatten()[places])


def fill_accept_out_cache_loc_cpu(accept_index: Tensor, out_cache_loc: Tensor, accept_out_cache_loc: Tensor) -> None:
    """Fill ``accept_out_cache_loc`` with the slots of the accepted nodes, without gaps; the rest stays."""
    accepted = accept_index.flatten()
    accepted = accepted[accepted != NONE]
    accept_out_cache_loc[: len(accepted)] = out_cache_loc[accepted]


def reconstruct_indices_from_tree_mask(
    tree_mask: Tensor,
    verified_seq_len: Tensor,
    positions: Tensor,
    retrive_index: Tensor,
    retrive_next_token: Tensor,
    retrive_next_sibling: Tensor,
    batch_size: int,
    draft_token_num: int,
) -> None:
    """Fill positions and links of trees from their masks.

    Args:
        tree_mask: whether the second node is an ancestor of the first or itself, ``[trees, n, n]``, flat.
        verified_seq_len: the tokens before each tree.
        positions: filled with each node's position in its sequence.
        retrive_index: filled with each node's place among all nodes.
        retrive_next_token: filled with each node's first child.
        retrive_next_sibling: filled with each node's next sibling.
        batch_size: the number of trees.
        draft_token_num: the number of nodes ``n``.
    """
    nodes = torch.arange(draft_token_num)
    above = tree_mask.view(batch_size, draft_token_num, draft_token_num).tril(-1)
    parents = torch.where(above, nodes, NONE).amax(2)
    positions.copy_((above.sum(2) + verified_seq_len[:, None]).flatten())
    retrive_index.copy_(torch.arange(batch_size * draft_token_num).view(batch_size, -1))
    is_child = parents[:, :, None] == nodes
    retrive_next_token.copy_(_first(is_child, nodes))
    is_sibling = (parents[:, :, None] == parents[:, None]) & (nodes[:, None] > nodes) & (parents[:, None] != NONE)
    retrive_next_sibling.copy_(_first(is_sibling, nodes))


def provide(kernels: ModuleType) -> None:
    """Add to the module of SGLang's kernels what its compiled library lacks; SGLang must not be imported yet."""
    compiled = torch.ops.sgl_kernel
    for operation in _OPERATIONS:
        if not hasattr(compiled, operation.__name__):
            setattr(kernels, operation.__name__, operation)
    if not hasattr(compiled, reconstruct_indices_from_tree_mask.__name__):
        part: Any = import_module(f"{kernels.__name__}.speculative")
        part.reconstruct_indices_from_tree_mask = reconstruct_indices_from_tree_mask


_OPERATIONS = (
    copy_all_layer_kv_cache_cpu,
    assign_req_to_token_pool_cpu,
    assign_extend_cache_locs_cpu,
    assign_draft_cache_locs_contiguous_cpu,
    build_tree_kernel_efficient_cpu,
    verify_tree_greedy_cpu,
    fill_bonus_tokens_cpu,
    fill_accept_out_cache_loc_cpu,
)


def _spans(requests: Tensor, starts: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and columns of ``req_to_token`` in ``[start, end)`` of each request, one request after the other."""
    lengths = (ends - starts).long()
    before = (lengths.cumsum(0) - lengths - starts).repeat_interleave(lengths)
    rows = requests.long().repeat_interleave(lengths)
    return rows, torch.arange(len(rows)) - before


def _first(is_one: Tensor, nodes: Tensor) -> Tensor:
    """For each node of the last dimension, the first of the last but one that is one; `NONE` if there is none."""
    found = torch.where(is_one, nodes[:, None], len(nodes)).amin(1)
    return torch.where(found < len(nodes), found, NONE)
