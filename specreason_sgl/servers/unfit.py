"""Refusing what a server that drafts tokens would not do, before it writes a text that is not what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specreason_sgl.engine import drafted

PLACE = "sglang.srt.managers.tokenizer_manager.TokenizerManager._validate_one_request"
"""SGLang's method that checks a request; what it raises is the answer, with the status 400."""
OPTIONS = ("speculative_algorithm", "attention_backend")


def refuse(check: Callable[..., None], manager: Any, asked: Any, *more: Any) -> None:
    """Check a request as SGLang does, and what it asks for besides.

    Raises:
        ValueError: it asks for what does not hold while tokens are drafted.
    """
    options = {name: getattr(manager.server_args, name, None) for name in OPTIONS}
    sampling = {
        **(getattr(asked, "sampling_params", None) or {}),
        "custom_logit_processor": getattr(asked, "custom_logit_processor", None),
    }
    if told := drafted.unfit(sampling, options, nearly=True):
        raise ValueError(told)
    check(manager, asked, *more)
