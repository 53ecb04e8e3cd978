"""SpecReason as an SGLang frontend program.

A small model drafts the next step of a chain of thought, the base model scores it with one constrained token, and the
step is accepted or written by the base model itself (Pan et al., arXiv 2504.07891). Importing the package imports
neither torch nor sglang.
"""

from __future__ import annotations

from importlib.metadata import version as _version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    if name == "__version__":
        return _version("specreason_sgl")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
