"""Stands in for SGLang's compiled kernels where they cannot load, which is wherever there is no libcuda.

A Llama-type model with plain torch attention calls none of them but for speculative decoding, whose operations are here
in torch. Of the others SGLang only imports the names. Whoever does call one is told which it was.
"""

from __future__ import annotations

import sys
from collections.abc import MutableSequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn


class _Missing:
    """A name of the compiled module; it can be passed around but not called."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> _Missing:
        return _missing(f"{self._name}.{name}")

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        message = f"`{self._name}` needs SGLang's compiled kernels, which cannot load on this machine"
        raise NotImplementedError(message)


def _missing(name: str) -> _Missing:
    if name.rsplit(".", 1)[-1].startswith("__"):
        raise AttributeError(name)
    return _Missing(name)


class _StandIn(ModuleType):
    __path__: MutableSequence[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> _Missing:
        return _missing(f"{self.__name__}.{name}")


class _Finder(MetaPathFinder, Loader):
    """Finds every submodule there might be."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        return ModuleSpec(name, self, is_package=True) if name.startswith(f"{__name__}.") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


sys.meta_path.insert(0, _Finder())
sys.modules[__name__].__class__ = _StandIn

from specreason_sgl.servers.cpu.decoding.operations import provide  # noqa: E402 - it adds to the finished module

provide(sys.modules[__name__])
