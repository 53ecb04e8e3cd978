"""The judge, for use outside of a program; it is asked exactly as `programs/specreason.py` asks it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from specreason_sgl.lang.chain import Place
from specreason_sgl.lang.loading import load
from specreason_sgl.lang.solve import Solve

if TYPE_CHECKING:
    from specreason_sgl.lang.backend import Backend
    from specreason_sgl.runs.store import Problem
    from specreason_sgl.settings import Settings
    from specreason_sgl.text.scoring import Score


class Judge:
    """Scores steps of a problem's reasoning."""

    def __init__(self, base: Backend, problem: Problem, settings: Settings) -> None:
        """Keep the arguments; nothing is asked before `score`.

        Args:
            base: the base model's server.
            problem: its question stands before the reasoning.
            settings: the delimiter, and the judge's question.
        """
        self._ask = load("specreason").module.judge
        self._solve = Solve(problem, settings, {"base": base}, program="judge")
        self._chain = self._solve.chain()

    def score(self, before: Sequence[str], step: str) -> Score:
        """The utility score of a step, given the steps before it.

        Raises:
            SpecReasonError: the call failed, or gave no score.
        """
        chain = self._chain.supposed()
        for text in before:
            chain.suppose(text)
        place = Place(chain, len(before), self._solve.settings.max_step_tokens)
        return self._solve.score(self._ask.run(chain, place, step, backend=self._solve.base), place)
