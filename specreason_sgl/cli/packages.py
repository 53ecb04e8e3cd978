"""Packages that are not there: which one, and how to install it."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

from specreason_sgl.errors import UsageError

NEEDED = frozenset(
    {
        "datasets",
        "math_verify",
        "numpy",
        "pydantic",
        "scipy",
        "setproctitle",
        "sglang",
        "stamina",
        "tokenizers",
        "torch",
        "transformers",
        "urllib3",
    }
)
"""What is imported: this package's own requirements, and what it uses of SGLang's."""


def missing(error: ModuleNotFoundError) -> UsageError | None:
    """What to say of a package that is not there; None if it is another module than one that is needed."""
    module = (error.name or "").partition(".")[0]
    return _missing(module) if module in NEEDED and find_spec(module) is None else None


def need(*modules: str) -> None:
    """See that packages are there, without importing them.

    Raises:
        UsageError: one is not.
    """
    for module in modules:
        if find_spec(module) is None:
            raise _missing(module)


def _missing(module: str) -> UsageError:
    package = module.replace("_", "-")
    return UsageError(f"the package `{package}` is not installed", hint=f"`pip install '{_wanted(package)}'`")


def _wanted(package: str) -> str:
    """A package with the versions that this one works with, as far as it says."""
    try:
        told = requires("specreason_sgl") or ()
    except PackageNotFoundError:
        told = ()
    wanted = {re.split(r"[^\w.-]", each)[0]: each.partition(";")[0].strip() for each in told}
    return wanted.get(package, package)
