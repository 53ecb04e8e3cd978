"""Several chains that grow side by side: candidates for the next step of each, of which some are kept."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from specreason_sgl.lang.chain import Chain
from specreason_sgl.lang.solve import Written
from specreason_sgl.text.scoring import Score


@dataclass(frozen=True)
class Beam:
    """A chain as it stands, or with a candidate for its next step."""

    chain: Chain
    total: float = 0.0
    """The summed logarithms of its steps' values, the candidate's included."""
    draft: Written | None = None
    number: int = 0
    """The candidate's number."""
    score: Score | None = None
    """The candidate's score."""

    @property
    def value(self) -> float:
        """The mean value of its steps, from 0 to 1."""
        return math.exp(self.total / max(1, len(self.chain.steps) + (self.draft is not None)))


def kept(pool: Sequence[Beam], numbers: Collection[int]) -> list[Beam]:
    """Keep some beams of a pool and take in their candidates; a chain that goes on in several ways is forked.

    All candidates are told; a chain of which nothing is kept ends as ``pruned``.

    Args:
        pool: the beams, those of one chain in a row.
        numbers: the places of those that are kept.
    """
    for number, beam in enumerate(pool):
        if beam.draft and (place := beam.chain.place()):
            beam.chain.solve.decide(place, number in numbers, beam.score, attempt=beam.number, value=beam.value)
    going_on: list[Beam] = []
    for chain in dict.fromkeys(beam.chain for beam in pool):
        mine = [pool[number] for number in sorted(numbers) if pool[number].chain is chain]
        forks = [chain.fork() for _ in mine[1:]]
        for beam, each in zip(mine, [chain, *forks], strict=False):
            if beam.draft and (place := each.place()):
                each.take(place, beam.draft)
            going_on.append(Beam(each, beam.total))
        if not mine:
            chain.end("pruned")
    return going_on
