"""Which packages are not installed, how to install them, and which version of this one runs."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from specreason_sgl.errors import UsageError

NEEDED = frozenset(
    {
        "datasets",
        "fastapi",
        "httpx",
        "latex2mathml",
        "math_verify",
        "numpy",
        "openai",
        "packaging",
        "prometheus_client",
        "pydantic",
        "pydantic_core",
        "scipy",
        "setproctitle",
        "sglang",
        "starlette",
        "sympy",
        "tokenizers",
        "torch",
        "transformers",
        "typing_extensions",
        "urllib3",
        "uvicorn",
    }
)
"""The modules that are imported: from this package's requirements, and from SGLang's."""

UNIX = frozenset({"fcntl", "resource", "termios"})
"""Modules of Python that Windows does not have; starting servers needs them."""


def identity() -> list[str]:
    """What two processes have in common that run the same code: the interpreter, the package, and its newest file."""
    package = Path(__file__).parent
    programs = package.parent / "programs"  # in a checkout they are no part of the package
    newest = max(path.stat().st_mtime_ns for path in (*package.rglob("*.py"), *programs.glob("*.py")))
    return [sys.executable, str(package), str(newest)]


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
