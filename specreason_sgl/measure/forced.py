"""Text that chains are filled with while calls behind them are measured, whatever the models write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count

from specreason_sgl.embedded import stories

WORKING = re.compile(r": .*, so")


def forced_steps(seed: int = 0) -> Iterator[str]:
    """Different short steps without end, with the result of a working and without the rest of it.

    They have 18 tokens with Qwen's tokenizer; half of the steps of real reasoning have 17 or fewer.
    """
    told = (step for number in count(seed) for step in stories.story(number, "dev").steps)
    return (WORKING.sub(" =", step) for step in told if ":" in step)
