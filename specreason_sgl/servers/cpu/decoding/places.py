"""Where speculative decoding on the CPU goes into SGLang, without an edit to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import version
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from specreason_sgl.servers.cpu.decoding import drawing

if TYPE_CHECKING:
    from specreason_sgl.servers.cpu.attention import DraftAttention

EAGLE = "sglang.srt.speculative.eagle_utils"
"""Where SGLang compares drafted tokens, also those of a whole model and those from n-grams."""
COMPILED = "_select_top_k_tokens_later"
CREATE = "_create_backend"
CHANCES = "_verify_coins"

DRAWING = {
    "_verify_uses_greedy": drawing.is_greedy,
    "top_k_renorm_prob": drawing.keep_top_k,
    "top_p_renorm_prob": drawing.keep_top_p,
    "tree_speculative_sampling_target_only": drawing.draw_and_walk,
}


@cache
def fill(attention: str) -> None:
    """Have SGLang draw tokens above temperature 0, draft through our attention, and compile nothing for it.

    Args:
        attention: the name of our attention backend.

    Raises:
        NotImplementedError: this SGLang has no such place, so that it would decode otherwise than it should.
    """
    eagle, several = _holder(EAGLE, CHANCES, *DRAWING), _holder("sglang.srt.speculative.spec_utils", COMPILED)
    factory = _holder("sglang.srt.speculative.draft_utils:DraftBackendFactory", CREATE)
    for name, ours in DRAWING.items():
        setattr(eagle, name, ours)
    setattr(eagle, CHANCES, partial(drawing.with_min_p, getattr(eagle, CHANCES)))
    later = getattr(several, COMPILED)
    # Compiling it takes as long as a hundred answers, and a compiler; it saves nothing on so few numbers.
    setattr(several, COMPILED, getattr(later, "_torchdynamo_orig_callable", later))
    setattr(factory, CREATE, _with_ours(getattr(factory, CREATE), attention))


def _with_ours(create: Callable[..., Any], attention: str) -> Callable[..., Any]:
    """SGLang's choice of a backend for drafting, with our attention among the backends."""

    def create_backend(
        factory: Any, backend_name: str, backend_map: dict[str, Any], *more: Any, stamps_children: bool = False
    ) -> Any:
        def drafting() -> tuple[str, DraftAttention]:
            from specreason_sgl.servers.cpu.attention import DraftAttention

            return attention, DraftAttention(factory.draft_model_runner, factory.topk, factory.speculative_num_steps)

        # Drafting takes a backend for each step; what a draft model reads goes through the one that it has.
        ours = drafting if stamps_children else lambda: (attention, None)
        known = {**backend_map, attention: ours}
        return create(factory, backend_name, known, *more, stamps_children=stamps_children)

    return create_backend


def _holder(path: str, *names: str) -> Any:
    """A module or class of SGLang that has to have these names."""
    try:
        found = resolve_name(path)
    except (ImportError, AttributeError) as error:
        raise _unknown(path) from error
    for name in names:
        if not hasattr(found, name):
            raise _unknown(f"{path}.{name}")
    return found


def _unknown(place: str) -> NotImplementedError:
    return NotImplementedError(
        f"speculative decoding on this processor needs `{place}`, which SGLang {version('sglang')} does not have"
    )
