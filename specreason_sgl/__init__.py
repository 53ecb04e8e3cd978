"""SpecReason as an SGLang frontend program.

A small model drafts the next step of a chain of thought, the base model scores it with one constrained token, and the
step is accepted or written by the base model itself (Pan et al., arXiv 2504.07891). What a notebook wants is here:
`pair`, `solve`, `evaluate`, `read_run`. Importing the package imports nothing else and changes nothing in the process.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specreason_sgl.api import OpenPair, Solved, SolveError, StoredRun, evaluate, pair, read_run, solve

    __version__: str

__all__ = [
    "OpenPair",
    "SolveError",
    "Solved",
    "StoredRun",
    "__version__",
    "evaluate",
    "pair",
    "read_run",
    "solve",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version("specreason_sgl")
    if name in __all__:
        return getattr(import_module("specreason_sgl.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
