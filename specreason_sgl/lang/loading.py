"""Reasoning programs: finding one by name or file, and loading it.

A program is an ``@sgl.function`` over ``(s, solve)`` in a file of its own. It has the file's name or is called
``program``; its further parameters are its knobs (`knobs.py`). Its state ``s`` runs on the base model, unless the file
says ``MODEL = "small"``. ``OVERLAPS = True`` says that it makes several calls to one model at the same time. Loading a
program runs its file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specreason_sgl.errors import UsageError
from specreason_sgl.events import Role
from specreason_sgl.lang.knobs import Knob, knobs_of

MOST_TRACEBACK = 8192
"""How many characters of a traceback are kept, counted from its end."""


@dataclass(frozen=True)
class Program:
    """A loaded program."""

    name: str
    function: Any
    """An `sglang.SglFunction` over ``(s, solve)``."""
    model: Role
    """The model that the state ``s`` runs on."""
    path: Path
    overlaps: bool = False
    """Whether it makes several calls to one model at the same time, which then share batches."""
    knobs: Mapping[str, Knob] = field(default_factory=dict)
    objects: frozenset[str] = frozenset()
    """Parameters that are no knobs; only another program can pass them."""
    module: Any = None
    """The module that its file became."""

    @property
    def meaning(self) -> str:
        """What it does: the first line of its docstring."""
        return (inspect.getdoc(self.function.func) or "").partition("\n")[0]

    @property
    def is_stock(self) -> bool:
        """Whether it came with the package."""
        return is_stock(self.path)


def stock() -> dict[str, Path]:
    """The programs that come with the package, by name."""
    package = Path(__file__).parents[1]
    folder = next(p for p in (package / "stock" / "programs", package.parent / "programs") if p.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def baselines() -> dict[str, Path]:
    """The programs that come with the package for measurements only, by name."""
    return {path.stem: path for path in (Path(__file__).parents[1] / "measure" / "reference.py",)}


def is_stock(path: Path) -> bool:
    """Whether a program's file came with the package."""
    return path.resolve() in {each.resolve() for each in (*stock().values(), *baselines().values())}


def find(name: str) -> Path:
    """The file of a program: of a stock program by its name, of any other by its path.

    Raises:
        UsageError: there is no such program.
    """
    known = stock()
    path = (known | baselines()).get(name.replace("-", "_"), Path(name))
    if path.is_file():
        return path
    msg = f"there is no program `{name}`"
    raise UsageError(
        msg, hint=f"stock programs are {', '.join(f'`{n}`' for n in known)}; your own is named by its file"
    )


def comes_with_us(name: str) -> bool:
    """Whether the name that a job gives for a program is that of a stock program."""
    return is_stock(find(name))


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
        raise UsageError(msg, hint=f"it needs an `@sgl.function` called `{path.stem}` or `program` over `(s, solve)`")
    try:
        knobs, objects = knobs_of(function.func)
    except (NameError, TypeError, ValueError) as error:  # of its annotations
        raise UsageError(f"`{path}` cannot be loaded: {type(error).__name__}: {error}") from error
    return Program(
        path.stem,
        function,
        getattr(module, "MODEL", "base"),
        path,
        getattr(module, "OVERLAPS", False),
        knobs,
        objects,
        module,
    )


def place(error: BaseException, path: Path) -> str:
    """An error on one line, after the innermost line of the program's file that led to it: ``mine.py:12: ...``."""
    name, file = type(error).__name__, str(path.absolute())
    if isinstance(error, SyntaxError) and error.filename == file and error.lineno:
        return f"{path.name}:{error.lineno}: {name}: {error.msg}"
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    return f"{path.name}:{lines[-1]}: {name}: {error}" if lines else f"{name}: {error}"


def trail(error: BaseException, path: Path) -> str:
    """The traceback of an error, beginning at the program's file."""
    start = error.__traceback__
    while start and start.tb_frame.f_code.co_filename != str(path.absolute()):
        start = start.tb_next
    told = traceback.format_exception(type(error), error, start or error.__traceback__)
    return "".join(told)[-MOST_TRACEBACK:]
