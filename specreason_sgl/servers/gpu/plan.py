"""How two models share the memory of the cards: a pure calculation, with results as SGLang's arguments.

What SGLang 0.5.23 does with ``--mem-fraction-static`` (``bootstrap.measure_pre_model_load_memory`` and
``KVCacheConfigurator._profile_available_bytes``): it measures the memory that is *free* after CUDA and the links
between cards are initialised and before weights are loaded (the least of all its cards), loads the weights, and gives
the cache what is free then, less ``(1 - fraction)`` of the first measurement::

    cache = free_before * fraction - weights

So the fraction is of what earlier servers have left, not of the card, and the servers have to start one after the
other, the base model first. A plan also caps both pools (``--max-total-tokens``), so that a server that finds more
free memory than foreseen does not take what the other one still needs.

Weights and cache follow from the models' configurations exactly enough. The rest is an estimate that no GPU has
confirmed yet: `CONTEXT_BYTES` before the first measurement, and what a running server allocates
(`ServedModel.reserve`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.servers.gpu.shapes import Shape

GIB = 2**30

CHUNK_TOKENS = 2048
"""Prefill chunk of both servers, in tokens. After the first prompt a call adds one step at most, so a larger chunk
would not be used."""

CONTEXT_BYTES = int(0.75 * GIB)
"""Estimate of the bytes that CUDA, its libraries and NCCL take on a card for each process, before SGLang measures."""

WORKSPACE_BYTES = GIB
"""FlashInfer's workspace, which SGLang sets to half a GiB for Qwen models, and as much again for everything small."""

GRAPH_BYTES, GRAPH_COUNT, GRAPH_REQUEST_BYTES = 8 * 2**20, 46, 2 * 2**20
"""SGLang's own figures (``reserve_for_graph_mb``): for each captured prefill size, their number, for each request."""

CACHE_SHARE = 0.9
"""The share of the remaining memory that the caches get; the rest allows for errors of the estimates."""

LEAST_CONTEXT, CONTEXT_STEP = 4096, 1024
LEAST_REQUESTS, MOST_REQUESTS = 16, 256
LEAST_STATEFUL = 4
"""The fewest requests at a time for models with linear attention, where each takes memory of a fixed size."""
STATES = 5
"""How many such states SGLang holds for each request: its own, two tracked ones, and those of the prefix cache."""
EVEN = 0.9
"""Cards count as equal if their free memory differs by no more than this ratio."""

COUNTS = (1, 2, 4, 8)
"""The numbers of cards that a model may be spread over."""
MOST_CARDS = max(COUNTS)


class DoesNotFit(SpecReasonError):
    """The models do not fit with this context and concurrency; the hint is the most similar choice that fits."""


@dataclass(frozen=True)
class Card:
    """A GPU."""

    name: str
    memory: int
    """The bytes that programs can use in total."""
    free: int
    """The bytes that are free."""
    index: int = 0
    """Its number for CUDA."""


@dataclass(frozen=True)
class ServedModel:
    """One model, and the form in which its server shall hold it."""

    shape: Shape
    cards: int = 1
    """The tensor parallel size."""
    dtype: str = "auto"
    quantization: str | None = None
    cache_dtype: str = "auto"
    draft: Shape | None = None
    """A second model in the same server, that drafts tokens (speculative decoding)."""
    drafted: int = 0
    """Tokens that are drafted at a time, with a draft model or without."""

    @property
    def weights(self) -> int:
        """Bytes on each card."""
        draft = self.draft.weight_bytes(self.dtype) if self.draft else 0
        return (self.shape.weight_bytes(self.dtype, self.quantization) + draft) // self.cards

    @property
    def token(self) -> int:
        """Bytes of cache for a token on each card.

        SGLang counts a drafting model's layers as if they were the model's own (``pool_configurator``).
        """
        layers = self.shape.layers
        extra = self.draft.layers if self.draft else 0
        own = self.shape.cache_bytes(self.cards, self.cache_dtype, self.dtype)
        return max(1, math.ceil(own * (layers + extra) / layers))

    def states(self, requests: int) -> int:
        """SGLang's ``--max-mamba-cache-size`` for so many requests: 0 without linear attention."""
        return STATES * requests if self.shape.state_bytes() else 0

    def state_bytes(self, requests: int) -> int:
        """Bytes of these states on each card; SGLang adds one state, and one more for each drafted token."""
        drafted = self.drafted * (requests + 1)
        return (self.states(requests) + 1 + drafted) * self.shape.state_bytes(self.cards)

    def reserve(self, requests: int) -> int:
        """Estimate of what the running server allocates on each card besides weights and cache, in bytes."""
        working = self.shape.activation_bytes(CHUNK_TOKENS, requests, self.cards)
        graphs = GRAPH_COUNT * GRAPH_BYTES + requests * GRAPH_REQUEST_BYTES
        # Twice the working set: an allocator keeps blocks of other sizes around.
        return WORKSPACE_BYTES + 2 * working + graphs


@dataclass(frozen=True)
class Share:
    """The memory that one server gets, in bytes on each of its cards."""

    served: ServedModel
    first_card: int
    """The position of its first card among the cards of the plan."""
    free: int
    """Bytes that are free when SGLang measures."""
    weights: int
    cache: int
    """Bytes for the tokens' cache, and for what linear attention stores for each request."""
    reserve: int
    tokens: int
    """Tokens that the cache has room for: SGLang's ``--max-total-tokens``."""
    states: int = 0
    """SGLang's ``--max-mamba-cache-size``; 0 if the model has no linear attention."""

    @property
    def places(self) -> range:
        """The positions of its cards among the cards of the plan."""
        return range(self.first_card, self.first_card + self.served.cards)

    @property
    def fraction(self) -> float:
        """SGLang's ``--mem-fraction-static``; rounded up, since the pool has its cap anyway."""
        return math.ceil((self.weights + self.cache) / self.free * 1000) / 1000


@dataclass(frozen=True)
class Plan:
    """A pair of servers that fits the cards; the base model is started first."""

    base: Share
    small: Share
    context: int
    requests: int
    """SGLang's ``--max-running-requests``."""

    @property
    def concurrency(self) -> int:
        """Problems of full length that both caches hold at the same time."""
        many = min(self.base.tokens, self.small.tokens) // self.context
        return min(many, self.requests) if self.base.states or self.small.states else many


def fit(
    base: ServedModel,
    small: ServedModel,
    cards: Sequence[Card],
    *,
    context: int,
    concurrency: int | None = None,
    fewer: bool = False,
) -> Plan:
    """Share the cards between two models.

    Each model takes neighbouring cards, as many as its `ServedModel.cards`, chosen so that the caches have most room:
    the small model gets cards of its own where there are enough, else the last of the base model's. On shared cards
    both caches get room for equally many tokens, because both models read the same reasoning.

    Args:
        base: the base model.
        small: the small model.
        cards: all the cards that may be used.
        context: tokens of the longest problem, from the prompt to the answer.
        concurrency: problems of that length at the same time; as many as fit if None.
        fewer: whether the base model may take fewer cards than its `ServedModel.cards` where they are of unequal size.

    Raises:
        DoesNotFit: there is not enough memory; the hint is what would fit.
        UsageError: there are fewer cards than asked for, a model's heads cannot be spread like that, or a model's
            positions end before the context does.
    """
    for served in (base, small):
        _check(served, len(cards), context)
    wanted = concurrency or 1
    choices = [base]
    if fewer and not _are_even(cards):
        choices += [replace(base, cards=count) for count in COUNTS if count < base.cards and base.shape.divides(count)]
    room = max((_room(served, small, cards, wanted) for served in choices), key=lambda room: room.tokens)
    if room.tokens >= wanted * context:
        return room.plan(context)
    raise DoesNotFit(
        f"{_told(room.base.served)} and {_told(small)} do not fit: {room.shortage(wanted * context)}",
        hint=_nearest(room.base.served, small, cards, context, wanted),
    )


def most_cards(shape: Shape, cards: int) -> int:
    """The most of so many cards that a model's heads can be spread over, a power of two."""
    return max(count for count in COUNTS if count <= max(cards, 1) and shape.divides(count))


@dataclass(frozen=True)
class _Room:
    """A layout of both servers, and the tokens that their caches have room for; negative if the weights do not fit."""

    base: Share
    small: Share
    requests: int
    cards: Sequence[Card]

    @property
    def tokens(self) -> int:
        return min(self.base.tokens, self.small.tokens)

    def plan(self, context: int) -> Plan:
        return Plan(self.base, self.small, context, self.requests)

    def shortage(self, tokens: int) -> str:
        """The missing memory on the card that lacks most, as text."""
        both = (self.base, self.small)
        found = []
        for place, card in enumerate(self.cards):
            shares = [share for share in both if place in share.places]
            weights = sum(share.weights for share in shares)
            rest = sum(share.reserve + share.served.state_bytes(self.requests) + CONTEXT_BYTES for share in shares)
            cache = int(sum(share.served.token for share in shares) * tokens / CACHE_SHARE)
            found.append((weights + rest + cache - card.free, weights, rest, cache, card.free))
        _, *parts = max(found)
        weighs, runs, holds, free = (part / GIB for part in parts)
        return (
            f"{weighs:.1f} GiB of weights, {runs:.1f} GiB for running and {holds:.1f} GiB for a cache of {tokens} "
            f"tokens with some to spare are {weighs + runs + holds:.1f} GiB, and a card has {free:.1f} GiB free"
        )


def _room(base: ServedModel, small: ServedModel, cards: Sequence[Card], concurrency: int) -> _Room:
    """The layout with most room; of equal layouts the first, with the base model on the first cards."""
    rooms = (
        _laid_out(base, small, cards, concurrency, first, second)
        for first in range(len(cards) - base.cards + 1)
        for second in _places(first + base.cards, small.cards, len(cards))
    )
    return max(rooms, key=lambda room: room.tokens)


def _places(end: int, wanted: int, cards: int) -> Iterator[int]:
    """The cards where a small model may begin if the base model ends at ``end``, for equal cards the best first."""
    within = max(0, min(end, cards) - wanted) + 1
    yield from range(end, cards - wanted + 1)
    yield from reversed(range(within))
    yield from range(within, min(end, cards - wanted + 1))


def _laid_out(
    base: ServedModel, small: ServedModel, cards: Sequence[Card], concurrency: int, first: int, second: int
) -> _Room:
    is_stateful = bool(base.states(1) or small.states(1))
    requests = min(MOST_REQUESTS, max(LEAST_STATEFUL if is_stateful else LEAST_REQUESTS, 2 * concurrency))
    places = range(first, first + base.cards), range(second, second + small.cards)
    fixed = [served.weights + served.state_bytes(requests) + served.reserve(requests) for served in (base, small)]

    def room(place: int) -> int:
        """Tokens that a card has room for, in the caches of all that is on it."""
        here = [
            (taken, served.token)
            for served, own, taken in zip((base, small), places, fixed, strict=True)
            if place in own
        ]
        left = cards[place].free - sum(taken + CONTEXT_BYTES for taken, _ in here)
        return int(left * CACHE_SHARE) // sum(token for _, token in here)

    base_tokens, small_tokens = (min(map(room, own)) for own in places)
    shared = set(places[0]) & set(places[1])
    if shared:
        base_tokens = small_tokens = min(base_tokens, small_tokens)
    before = CONTEXT_BYTES + fixed[0] + base_tokens * base.token
    base_free = min(cards[place].free for place in places[0]) - CONTEXT_BYTES
    small_free = min(cards[place].free - (before if place in shared else 0) for place in places[1]) - CONTEXT_BYTES
    return _Room(
        _share(base, first, base_free, base_tokens, requests),
        _share(small, second, small_free, small_tokens, requests),
        requests,
        cards,
    )


def _share(served: ServedModel, first: int, free: int, tokens: int, requests: int) -> Share:
    cache = tokens * served.token + served.state_bytes(requests)
    return Share(served, first, free, served.weights, cache, served.reserve(requests), tokens, served.states(requests))


def _are_even(cards: Sequence[Card]) -> bool:
    return min(card.free for card in cards) >= EVEN * max(card.free for card in cards)


def _check(served: ServedModel, cards: int, context: int) -> None:
    shape = served.shape
    if served.cards > cards:
        raise UsageError(f"`{shape.name}` is to be spread over {served.cards} cards, and there are {cards}")
    if not shape.divides(served.cards):
        heads = f"{shape.heads} heads and {shape.kv_heads} key-value heads"
        raise UsageError(
            f"`{shape.name}` has {heads}, which cannot be spread over {served.cards} cards",
            hint=f"{most_cards(shape, cards)} would do",
        )
    if context > shape.context:
        raise UsageError(
            f"`{shape.name}` reads {shape.context} tokens at most, and {context} are asked for",
            hint=f"`--context {shape.context}`, or a copy of the model whose `config.json` has a `rope_scaling`",
        )


def _nearest(base: ServedModel, small: ServedModel, cards: Sequence[Card], context: int, concurrency: int) -> str:
    """A choice that fits: lower concurrency or a shorter context, if that is enough, else the smallest other change."""
    found = []
    fewer = _room(base, small, cards, 1).tokens // context
    shorter = _room(base, small, cards, concurrency).tokens // concurrency // CONTEXT_STEP * CONTEXT_STEP
    if concurrency > 1 and fewer >= 1:
        found.append(f"`--concurrency {min(fewer, concurrency - 1)}`")
    elif shorter >= LEAST_CONTEXT:
        found.append(f"`--context {shorter}`")
    for what, other_base, other_small, other_cards in _others(base, small, cards):
        if _room(other_base, other_small, other_cards, concurrency).tokens >= concurrency * context:
            found.append(what)
            break
    if not found:
        return f"not even {MOST_CARDS} such cards would do; take smaller models"
    return f"what fits: {', or '.join(found)}"


def _others(
    base: ServedModel, small: ServedModel, cards: Sequence[Card]
) -> Iterator[tuple[str, ServedModel, ServedModel, Sequence[Card]]]:
    light, small_light = replace(base, cache_dtype="fp8_e4m3"), replace(small, cache_dtype="fp8_e4m3")
    yield "a cache in 8 bits (`--set cache_dtype=fp8_e4m3`)", light, small_light, cards
    if base.quantization is None and base.shape.quantization is None:
        eight = "`--set base.quantization=fp8"
        yield f"a base model in 8 bits ({eight}`)", replace(base, quantization="fp8"), small, cards
        both = f"a base model and a cache in 8 bits ({eight} --set cache_dtype=fp8_e4m3`)"
        yield both, replace(light, quantization="fp8"), small_light, cards
    are_even = _are_even(cards)
    card = (min if are_even else max)(cards, key=lambda card: card.free)
    for count in COUNTS[1:]:
        if count > len(cards) or not are_even:
            kind = "such cards" if are_even else f"cards of {card.free / GIB:.1f} GiB"
            yield f"{count} {kind}", replace(base, cards=most_cards(base.shape, count)), small, [card] * count


def _told(served: ServedModel) -> str:
    kind = served.quantization or served.shape.quantization
    over = f" over {served.cards} cards" if served.cards > 1 else ""
    return f"`{served.shape.name}`{f' in {kind}' if kind else ''}{over}"
