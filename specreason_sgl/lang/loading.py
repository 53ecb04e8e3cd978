"""Reasoning programs: finding one by name or file, and the few words that they are written with.

A program is an ``@sgl.function`` over ``(s, trace)`` in a file of its own, whose name it has (or ``program``). Its
state ``s`` lives on the base model, unless the file says ``MODEL = "small"``; ``OVERLAPS = True`` says that it makes
calls to one model at the same time. Loading a program runs its file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specreason_sgl.errors import UsageError
from specreason_sgl.events import Role
from specreason_sgl.text.prompts import CLOSE_THINKING, THINK_CLOSE
from specreason_sgl.text.scoring import DIGITS as _DIGITS

DIGITS = list(_DIGITS)

MOST_TRACEBACK = 8192
"""Characters of a traceback that are kept, its last ones."""

__all__ = ["CLOSE_THINKING", "DIGITS", "THINK_CLOSE", "Program", "find", "is_stock", "load", "place", "stock", "trail"]


@dataclass(frozen=True)
class Program:
    """A loaded program."""

    name: str
    function: Any
    """An `sglang.SglFunction` over ``(s, trace)``."""
    model: Role
    """Whose state ``s`` is."""
    path: Path
    overlaps: bool = False
    """Whether it makes calls to one model at the same time, so that they share batches."""

    @property
    def is_stock(self) -> bool:
        """Whether it came with the package."""
        return is_stock(self.path)


def stock() -> dict[str, Path]:
    """The programs that come with the package, by name."""
    package = Path(__file__).parents[1]
    folder = next(p for p in (package / "stock" / "programs", package.parent / "programs") if p.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def is_stock(path: Path) -> bool:
    """Whether a program's file came with the package."""
    return path.resolve() in {each.resolve() for each in stock().values()}


def find(name: str) -> Path:
    """The file of a stock program, by its name, or of anybody's, by its path.

    Raises:
        UsageError: there is no such program.
    """
    known = stock()
    path = known.get(name.replace("-", "_"), Path(name))
    if path.is_file():
        return path
    msg = f"there is no program `{name}`"
    raise UsageError(
        msg, hint=f"stock programs are {', '.join(f'`{n}`' for n in known)}; your own is named by its file"
    )


def load(name: str) -> Program:
    """Load a program; this runs its file.

    Raises:
        UsageError: there is no such program, or the file is not one.
    """
    path = find(name)
    # Absolute, as its frames will name it; a module of its own for each file, whatever the files are called.
    file = path.absolute()
    digest = hashlib.sha256(str(file.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    module_spec = importlib.util.spec_from_file_location(f"specreason_program_{path.stem}_{digest}", file)
    if module_spec is None or module_spec.loader is None:
        msg = f"`{path}` is not a Python file"
        raise UsageError(msg)
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # SGLang looks a function's module up by name
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_spec.name]
        msg = f"`{path}` cannot be loaded: {place(error, path)}"
        raise UsageError(msg) from error
    function = getattr(module, path.stem, None) or getattr(module, "program", None)
    if function is None or not hasattr(function, "run"):
        msg = f"`{path}` has no program"
        raise UsageError(msg, hint=f"it needs an `@sgl.function` called `{path.stem}` or `program` over `(s, trace)`")
    return Program(path.stem, function, getattr(module, "MODEL", "base"), path, getattr(module, "OVERLAPS", False))


def place(error: BaseException, path: Path) -> str:
    """An error in a line, behind the innermost line of a program's file that led to it: ``mine.py:12: ...``."""
    name, file = type(error).__name__, str(path.absolute())
    if isinstance(error, SyntaxError) and error.filename == file and error.lineno:
        return f"{path.name}:{error.lineno}: {name}: {error.msg}"
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    return f"{path.name}:{lines[-1]}: {name}: {error}" if lines else f"{name}: {error}"


def trail(error: BaseException, path: Path) -> str:
    """The traceback of an error, from a program's file on."""
    start = error.__traceback__
    while start and start.tb_frame.f_code.co_filename != str(path.absolute()):
        start = start.tb_next
    told = traceback.format_exception(type(error), error, start or error.__traceback__)
    return "".join(told)[-MOST_TRACEBACK:]
