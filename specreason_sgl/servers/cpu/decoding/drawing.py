"""Drawing tokens above temperature 0 under speculative decoding.

A token is drawn behind every drafted one from the base model's distribution there, before any is compared. Then the
walk down the drafted tokens goes on where the draw is the drafted token. So every token of the text is a draw from the
base model's own distribution, whatever was drafted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from specreason_sgl.servers.cpu.decoding.operations import verify_tree_greedy_cpu


def is_greedy(*, is_all_greedy: bool, **_: Any) -> bool:
    """Whether the likeliest tokens are taken: where every request of a batch wants that."""
    return is_all_greedy


def keep_top_k(probabilities: Tensor, counts: Tensor) -> Tensor:
    """The probabilities of each row's likeliest tokens, so many as its count; 0 for the others."""
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    ranks = torch.arange(ordered.shape[-1])
    return torch.zeros_like(ordered).scatter_(-1, tokens, ordered.where(ranks < counts.view(-1, 1), 0.0))


def keep_top_p(probabilities: Tensor, shares: Tensor) -> Tensor:
    """The probabilities of each row's likeliest tokens, as many as make up its share of 1; 0 for the others.

    As in SGLang's own sampling on the CPU, what `keep_top_k` has left out still counts.
    """
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(ordered).scatter_(-1, tokens, ordered.where(before <= shares.view(-1, 1), 0.0))


def keep_min_p(probabilities: Tensor, parts: Tensor) -> Tensor:
    """The probabilities of tokens that have at least a part of the likeliest one's; 0 for the others."""
    return probabilities.where(probabilities >= probabilities.amax(-1, keepdim=True) * parts[..., None], 0.0)


def with_min_p(
    chances: Callable[..., tuple[Tensor, Tensor]], *, sampling_info: Any, **more: Any
) -> tuple[Tensor, Tensor]:
    """The chances that SGLang draws, and in place of those that are not used here each request's ``min_p``."""
    drawn_for_each, _ = chances(sampling_info=sampling_info, **more)
    return drawn_for_each, sampling_info.min_ps


def drawn(probabilities: Tensor, chances: Tensor) -> Tensor:
    """A token for each row.

    Args:
        probabilities: what each token weighs, ``[rows, tokens]``; the sum can be anything above 0.
        chances: a random number from 0 up to but not 1 for each row.
    """
    sums = probabilities.double().cumsum(-1)
    return torch.searchsorted(sums, chances.double()[:, None] * sums[:, -1:], right=True).squeeze(-1)


def draw_and_walk(
    *,
    predicts: Tensor,
    accept_index: Tensor,
    accept_token_num: Tensor,
    candidates: Tensor,
    retrive_index: Tensor,
    retrive_next_token: Tensor,
    retrive_next_sibling: Tensor,
    uniform_samples: Tensor,
    uniform_samples_for_final_sampling: Tensor,
    target_probs: Tensor,
    **_: Any,
) -> None:
    """Draw a token behind every drafted one, and walk down each tree while a child is the one that was drawn.

    The arguments are those of SGLang's ``tree_speculative_sampling_target_only``, where the chances of a last draw,
    which there is none of, are what `with_min_p` put there. Its thresholds, which trade exactness for speed, are not
    used.
    """
    kept = keep_min_p(target_probs, uniform_samples_for_final_sampling[:, None])
    tokens = drawn(kept.flatten(0, 1), uniform_samples.flatten()).view_as(candidates)
    verify_tree_greedy_cpu(
        predicts=predicts,
        accept_index=accept_index,
        accept_token_num=accept_token_num,
        candidates=candidates,
        retrive_index=retrive_index,
        retrive_next_token=retrive_next_token,
        retrive_next_sibling=retrive_next_sibling,
        target_predict=tokens,
    )
