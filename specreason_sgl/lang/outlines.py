"""The outline of a program: its name and its knobs, without its code, and so without SGLang.

Of the file only the line of the function is run, without its decorator and its body, and what its annotations and
defaults are made of. So it does for programs that make these of names that they import.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from specreason_sgl.files import read_text
from specreason_sgl.lang.knobs import knobs_of
from specreason_sgl.lang.loading import Program, find

CONSTANTS = frozenset({"MODEL", "OVERLAPS"})


def outline(name: str) -> Program:
    """A program that comes with the package, as far as it can be known without running it; it cannot be run.

    Raises:
        UsageError: there is no such program.
    """
    path = find(name)
    names: dict[str, Any] = {"__name__": path.stem}
    exec(compile(_outlined(path), str(path), "exec"), names)  # noqa: S102 - it comes with the package
    knobs, objects = knobs_of(names[path.stem])
    model, overlaps = names.get("MODEL", "base"), names.get("OVERLAPS", False)
    return Program(path.stem, None, model, path, overlaps, knobs, objects)


def _outlined(path: Path) -> ast.Module:
    """The statements of a program's file that its signature needs, and the function without its body."""
    body = ast.parse(read_text(path)).body
    at = next(at for at, each in enumerate(body) if isinstance(each, ast.FunctionDef) and each.name == path.stem)
    wanted, kept = CONSTANTS | {path.stem}, list[ast.stmt]()
    for statement in reversed(body[: at + 1]):
        if wanted & _bound(statement):
            kept.insert(0, statement)
            wanted |= _used(statement)
    return ast.Module(kept, type_ignores=[])


def _used(statement: ast.stmt) -> set[str]:
    """The names that a statement needs; a function loses its decorators, and its body behind the docstring."""
    if isinstance(statement, ast.FunctionDef):
        statement.decorator_list, statement.body = [], statement.body[:1]
        return _names(statement.args)
    return _names(statement)


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _bound(statement: ast.stmt) -> set[str]:
    """The names to which a statement gives a value."""
    match statement:
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {each.asname or each.name.partition(".")[0] for each in names}
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {name for target in targets for name in _names(target)}
        case _:
            return set()
