"""The attention backend of a server: FlashInfer, or SGLang's own choice for families where SGLang refuses it."""

from __future__ import annotations

from specreason_sgl.errors import UsageError
from specreason_sgl.servers.gpu.shapes import Shape

FLASHINFER = "flashinfer"

SUPPORTED = {
    "gptoss": ("triton", "fa3", "fa4", "trtllm_mha"),
    "llama4": ("triton", "fa3", "trtllm_mha"),
    **dict.fromkeys(("gemma4", "gemma4unified"), ("triton", "fa4", "trtllm_mha")),
    **dict.fromkeys(("exaone4", "exaonemoe"), ("triton", "fa3", "trtllm_mha")),
    **dict.fromkeys(("olmo2", "olmo3"), ("triton", "fa3", "trtllm_mha")),
    "inkling": ("triton", "fa4"),
}
"""The backends that SGLang 0.5.23 accepts for families where it refuses FlashInfer (``arg_groups/model_hook.py``)."""

OWN = ("deepseekv32", "glmmoedsa", "deepseekv4", "kimik3", "minimaxm3sparse", "minimaxm3vl")
"""Families with an attention backend of their own, which SGLang takes if none is named."""


def choose(wanted: str | None, shape: Shape) -> str | None:
    """SGLang's ``--attention-backend`` for a model; None if SGLang shall choose.

    Args:
        wanted: what was asked for, if anything.
        shape: the model.

    Raises:
        UsageError: SGLang refuses it for this family of models.
    """
    supported = next((SUPPORTED[kind] for kind in sorted(shape.family) if kind in SUPPORTED), None)
    if wanted is None:
        return None if supported or shape.family & set(OWN) else FLASHINFER
    if wanted == FLASHINFER and supported:
        raise UsageError(
            f"SGLang refuses `{shape.name}` with `--attention-backend {wanted}`",
            hint=f"leave the option out, or take {', '.join(f'`{name}`' for name in supported)}",
        )
    return wanted
