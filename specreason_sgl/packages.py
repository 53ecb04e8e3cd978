"""Packages that are not installed: which one is missing, and how to install it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

from packaging.requirements import Requirement

from specreason_sgl.errors import UsageError

NEEDED = frozenset(
    {
        "datasets",
        "math_verify",
        "numpy",
        "packaging",
        "pydantic",
        "pydantic_core",
        "scipy",
        "setproctitle",
        "sglang",
        "sympy",
        "tokenizers",
        "torch",
        "transformers",
        "typing_extensions",
        "urllib3",
    }
)
"""The modules that are imported: from this package's requirements, and from SGLang's."""

UNIX = frozenset({"fcntl", "resource", "termios"})
"""Modules of Python that Windows does not have; starting servers needs them."""


def missing(error: ModuleNotFoundError) -> UsageError | None:
    """The error to show for a missing package; None if the missing module is not one of those needed."""
    module = (error.name or "").partition(".")[0]
    if module not in NEEDED | UNIX or find_spec(module) is not None:
        return None
    return _missing("sglang" if module in UNIX else module)


def need(*modules: str) -> None:
    """Make sure that packages are installed, without importing them.

    Raises:
        UsageError: a package is missing.
    """
    for module in modules:
        if find_spec(module) is None:
            raise _missing(module)


def _missing(module: str) -> UsageError:
    package = _wanted(module.replace("_", "-"))
    if package.marker and not package.marker.evaluate():
        here = f"Python {'.'.join(platform.python_version_tuple()[:2])} on {platform.system()} {platform.machine()}"
        return UsageError(
            f"the package `{package.name}` cannot be installed here: {here}",
            hint="models are asked from 64-bit Linux with Python 3.11 or 3.12; stored runs can be read here, "
            "such as `specreason replay example`",
        )
    package.marker = None
    return UsageError(f"the package `{package.name}` is not installed", hint=f"`pip install '{package}'`")


def _wanted(package: str) -> Requirement:
    """The requirement for a package, with the versions that this package asks for, if any."""
    try:
        told = [Requirement(each) for each in requires("specreason_sgl") or ()]
    except PackageNotFoundError:
        told = []
    return next((each for each in told if each.name == package), Requirement(package))
