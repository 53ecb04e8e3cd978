"""How two models share the memory of the cards: a pure calculation, told in SGLang's own terms.

What SGLang 0.5.23 does with ``--mem-fraction-static`` (``bootstrap.measure_pre_model_load_memory`` and
``KVCacheConfigurator._profile_available_bytes``): it measures the memory that is *free* after CUDA and the links
between cards are initialised and before weights are loaded (the least of all its cards), loads the weights, and gives
the cache what is free then, less ``(1 - fraction)`` of the first measurement::

    cache = free_before * fraction - weights

So the fraction is of what earlier servers have left, not of the card, and the servers have to start one after the
other, the base model first. A plan also caps both pools (``--max-total-tokens``), so that a server that finds more
free memory than foreseen does not take what the other one still needs.

Weights and cache follow from the models' configurations exactly enough. The rest is an estimate that no GPU has
confirmed yet: `CONTEXT_BYTES` before the first measurement, and what a running server allocates (`Side.reserve`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.servers.gpu.shapes import Shape

GIB = 2**30

CHUNK_TOKENS = 2048
"""Prefill chunk of both servers. Behind the first prompt a call brings a step at most, so that more would be idle."""

CONTEXT_BYTES = int(0.75 * GIB)
"""Estimate of what CUDA, its libraries and NCCL take on a card for each process, before SGLang measures."""

WORKSPACE_BYTES = GIB
"""FlashInfer's workspace, which SGLang sets to half a GiB for Qwen models, and as much again for everything small."""

GRAPH_BYTES, GRAPH_COUNT, GRAPH_REQUEST_BYTES = 8 * 2**20, 46, 2 * 2**20
"""SGLang's own figures (``reserve_for_graph_mb``): for each captured prefill size, their number, for each request."""

CACHE_SHARE = 0.9
"""Of what is left for the caches, so that the estimates may be wrong by as much."""

LEAST_CONTEXT, CONTEXT_STEP = 4096, 1024
LEAST_REQUESTS, MOST_REQUESTS = 16, 256
LEAST_STATEFUL = 4
"""Requests at a time where each takes memory of its own, whatever its length (linear attention)."""
STATES = 5
"""What SGLang holds of such memory for each request: itself, two tracked, and what the prefix cache keeps."""
EVEN = 0.9
"""Cards whose free memory differs by no more are taken for equal."""

COUNTS = (1, 2, 4, 8)
"""Of cards that a model may be spread over."""
MOST_CARDS = max(COUNTS)


class DoesNotFit(SpecReasonError):
    """The models, the context and the concurrency do not fit; the hint is the nearest thing that does."""


@dataclass(frozen=True)
class Card:
    """A GPU."""

    name: str
    memory: int
    """Bytes that programs can use, all in all."""
    free: int
    """Bytes that are free now."""
    index: int = 0
    """Its number for CUDA."""


@dataclass(frozen=True)
class Side:
    """One model as its server is to hold it."""

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
        """What they take on each card; SGLang pads them by one, and keeps one more for each token that is drafted."""
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
    """What one server gets; bytes on each of its cards."""

    side: Side
    first_card: int
    """Position of its first card among the plan's."""
    free: int
    """What is free when SGLang measures."""
    weights: int
    cache: int
    """For tokens, and for what linear attention keeps of each request."""
    reserve: int
    tokens: int
    """Room in the cache: SGLang's ``--max-total-tokens``."""
    states: int = 0
    """SGLang's ``--max-mamba-cache-size``; 0 if the model has no linear attention."""

    @property
    def places(self) -> range:
        """Positions of its cards among the plan's."""
        return range(self.first_card, self.first_card + self.side.cards)

    @property
    def fraction(self) -> float:
        """SGLang's ``--mem-fraction-static``; rounded up, since the pool has its cap anyway."""
        return math.ceil((self.weights + self.cache) / self.free * 1000) / 1000


@dataclass(frozen=True)
class Plan:
    """A pair of servers that fits; the base model is started first."""

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
    base: Side,
    small: Side,
    cards: Sequence[Card],
    *,
    context: int,
    concurrency: int | None = None,
    fewer: bool = False,
) -> Plan:
    """Share the cards between two models.

    Each model takes neighbouring cards, as many as its `Side.cards`, so that there is most room: cards of its own for
    the small one where there are enough, else the last of the base model's. On shared cards both caches get room for
    equally many tokens, because both models read the same reasoning.

    Args:
        base: the base model.
        small: the small model.
        cards: all the cards that may be used.
        context: tokens of the longest problem, from the prompt to the answer.
        concurrency: problems of that length at the same time; as many as fit if None.
        fewer: whether the base model may take fewer cards than its `Side.cards` where they are of unequal size.

    Raises:
        DoesNotFit: there is not enough memory; the hint is what would fit.
        UsageError: there are fewer cards than asked for, a model's heads cannot be spread like that, or a model's
            positions end before the context does.
    """
    for side in (base, small):
        _check(side, len(cards), context)
    wanted = concurrency or 1
    sides = [base]
    if fewer and not _are_even(cards):
        sides += [replace(base, cards=count) for count in COUNTS if count < base.cards and base.shape.divides(count)]
    room = max((_room(side, small, cards, wanted) for side in sides), key=lambda room: room.tokens)
    if room.tokens >= wanted * context:
        return room.plan(context)
    raise DoesNotFit(
        f"{_told(room.base.side)} and {_told(small)} do not fit: {room.shortage(wanted * context)}",
        hint=_nearest(room.base.side, small, cards, context, wanted),
    )


def spread(shape: Shape, cards: int) -> int:
    """The most of so many cards that a model's heads can be spread over, a power of two."""
    return max(count for count in COUNTS if count <= max(cards, 1) and shape.divides(count))


@dataclass(frozen=True)
class _Room:
    """Both servers laid out, with the tokens that their caches have room for; negative ones if not even the weights."""

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
        """What is missing on the card that misses most."""
        both = (self.base, self.small)
        found = []
        for place, card in enumerate(self.cards):
            shares = [share for share in both if place in share.places]
            weights = sum(share.weights for share in shares)
            rest = sum(share.reserve + share.side.state_bytes(self.requests) + CONTEXT_BYTES for share in shares)
            cache = int(sum(share.side.token for share in shares) * tokens / CACHE_SHARE)
            found.append((weights + rest + cache - card.free, weights, rest, cache, card.free))
        _, *parts = max(found)
        weighs, runs, holds, free = (part / GIB for part in parts)
        return (
            f"{weighs:.1f} GiB of weights, {runs:.1f} GiB for running and {holds:.1f} GiB for a cache of {tokens} "
            f"tokens with some to spare are {weighs + runs + holds:.1f} GiB, and a card has {free:.1f} GiB free"
        )


def _room(base: Side, small: Side, cards: Sequence[Card], concurrency: int) -> _Room:
    """The layout with most room; of equal ones the first, which has the base model on the first cards."""
    rooms = (
        _laid_out(base, small, cards, concurrency, first, second)
        for first in range(len(cards) - base.cards + 1)
        for second in _places(first + base.cards, small.cards, len(cards))
    )
    return max(rooms, key=lambda room: room.tokens)


def _places(end: int, wanted: int, cards: int) -> Iterator[int]:
    """Where a small model may begin beside a base model that ends there, the best places for equal cards first."""
    within = max(0, min(end, cards) - wanted) + 1
    yield from range(end, cards - wanted + 1)
    yield from reversed(range(within))
    yield from range(within, min(end, cards - wanted + 1))


def _laid_out(base: Side, small: Side, cards: Sequence[Card], concurrency: int, first: int, second: int) -> _Room:
    is_stateful = bool(base.states(1) or small.states(1))
    requests = min(MOST_REQUESTS, max(LEAST_STATEFUL if is_stateful else LEAST_REQUESTS, 2 * concurrency))
    places = range(first, first + base.cards), range(second, second + small.cards)
    fixed = [side.weights + side.state_bytes(requests) + side.reserve(requests) for side in (base, small)]

    def room(place: int) -> int:
        """Tokens that a card has room for, in the caches of all that is on it."""
        here = [
            (taken, side.token) for side, own, taken in zip((base, small), places, fixed, strict=True) if place in own
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


def _share(side: Side, first: int, free: int, tokens: int, requests: int) -> Share:
    cache = tokens * side.token + side.state_bytes(requests)
    return Share(side, first, free, side.weights, cache, side.reserve(requests), tokens, side.states(requests))


def _are_even(cards: Sequence[Card]) -> bool:
    return min(card.free for card in cards) >= EVEN * max(card.free for card in cards)


def _check(side: Side, cards: int, context: int) -> None:
    shape = side.shape
    if side.cards > cards:
        raise UsageError(f"`{shape.name}` is to be spread over {side.cards} cards, and there are {cards}")
    if not shape.divides(side.cards):
        heads = f"{shape.heads} heads and {shape.kv_heads} key-value heads"
        raise UsageError(
            f"`{shape.name}` has {heads}, which cannot be spread over {side.cards} cards",
            hint=f"{spread(shape, cards)} would do",
        )
    if context > shape.context:
        raise UsageError(
            f"`{shape.name}` reads {shape.context} tokens at most, and {context} are asked for",
            hint=f"`--context {shape.context}`, or a copy of the model whose `config.json` has a `rope_scaling`",
        )


def _nearest(base: Side, small: Side, cards: Sequence[Card], context: int, concurrency: int) -> str:
    """What fits: less at the same time or a shorter context, if that is enough, and the mildest change otherwise."""
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


def _others(base: Side, small: Side, cards: Sequence[Card]) -> Iterator[tuple[str, Side, Side, Sequence[Card]]]:
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
            yield f"{count} {kind}", replace(base, cards=spread(base.shape, count)), small, [card] * count


def _told(side: Side) -> str:
    kind = side.quantization or side.shape.quantization
    over = f" over {side.cards} cards" if side.cards > 1 else ""
    return f"`{side.shape.name}`{f' in {kind}' if kind else ''}{over}"
