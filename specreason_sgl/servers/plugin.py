"""What this package adds to SGLang, through the entry point group ``sglang.srt.plugins``.

SGLang loads this module in each of its processes, so heavy imports wait until they are needed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from specreason_sgl.engine import drafted

ATTENTION = drafted.OURS
"""Name of the attention backend, for ``--attention-backend``."""


@cache
def register() -> None:
    """Make the attention backend known to SGLang, mend how texts end, and refuse what does not hold; once."""
    from sglang.srt.layers.attention.attention_registry import register_attention_backend
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType
    from sglang.srt.server_args import ATTENTION_BACKEND_CHOICES, add_attention_backend_choices

    from specreason_sgl.servers import stops, unfit

    if ATTENTION not in ATTENTION_BACKEND_CHOICES:
        add_attention_backend_choices([ATTENTION])
    register_attention_backend(ATTENTION)(_create)
    HookRegistry.register(stops.PLACE, stops.end_in_turn, HookType.AROUND)
    HookRegistry.register(unfit.PLACE, unfit.refuse, HookType.AROUND)


def _create(runner: Any) -> Any:
    from specreason_sgl.servers.cpu.attention import IncrementalAttention
    from specreason_sgl.servers.cpu.decoding import places

    if not runner.spec_algorithm.is_none():
        places.fill(ATTENTION)
    return IncrementalAttention(runner)
