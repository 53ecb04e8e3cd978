"""How likely texts are behind a prompt, by `sgl.select`: ``choices_method=by_likelihood``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sglang.lang.choices import ChoicesDecision

if TYPE_CHECKING:

    class ChoicesSamplingMethod:
        """SGLang's base class for ways to choose, as mypy sees it: the real class is untyped."""

else:
    from sglang.lang.choices import ChoicesSamplingMethod


class ByLikelihood(ChoicesSamplingMethod):
    """The likeliest text as a whole; the server reads every text, also where they are single tokens.

    SGLang's own methods divide by the number of tokens and count some of the prompt's among them.
    """

    def __call__(
        self, *, choices: Sequence[str], input_token_logprobs: Sequence[Sequence[Sequence[Any]]], **_: Any
    ) -> ChoicesDecision:
        """The choice whose tokens have the greatest summed log-probability."""
        totals = [sum(token[0] or 0.0 for token in row) for row in input_token_logprobs]
        return ChoicesDecision(choices[max(range(len(choices)), key=totals.__getitem__)], {})


by_likelihood = ByLikelihood()
