"""Reading pickles as plain data: nothing that a pickle names is imported or called.

Lists, dicts, text and numbers need no names. NumPy writes a scalar as a call of a named function, so these names, and
no others, are replaced by functions of our own that decode the number.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from collections.abc import Callable
from typing import Any

_FORMATS = {
    **{f"i{size}": code for size, code in zip((1, 2, 4, 8), "bhiq", strict=True)},
    **{f"u{size}": code for size, code in zip((1, 2, 4, 8), "BHIQ", strict=True)},
    **{f"f{size}": code for size, code in zip((2, 4, 8), "efd", strict=True)},
    "b1": "?",
}


class Unreadable(ValueError):
    """The pickle is broken, or needs more than plain data."""


def load(data: bytes) -> object:
    """The plain data that a pickle holds.

    Raises:
        Unreadable: the pickle is incomplete, holds anything but plain data, or was made to do harm.
    """
    try:
        _check_places(data)
        return _Reader(io.BytesIO(data)).load()
    except Unreadable:
        raise
    except Exception as error:  # whatever a reader makes of bytes that somebody else chose
        raise Unreadable(f"it is no whole pickle ({type(error).__name__})") from error


def _check_places(data: bytes) -> None:
    """Refuse a pickle that is incomplete, or whose memo indices are so large that they would take much memory."""
    for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
        if operation.name in {"PUT", "BINPUT", "LONG_BINPUT"} and argument is not None and argument > count:
            raise Unreadable("it keeps things at places that are not its own")


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Our own function for a name; all other names are refused."""
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise Unreadable(f"it wants to use {f'{module}.{name}'[:80]!r}, and only plain data are read")
        return _Sealed(stand_in)


class _Sealed:
    """A function that a pickle may call but cannot change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: object) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: object) -> None:
        raise Unreadable("it wants to change what reads it")


class _Kind:
    """The kind of a NumPy scalar, by its code such as ``f8``."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, *_: object) -> None:
        self.code = code
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _scalar(kind: object, raw: bytes) -> Any:
    if not isinstance(kind, _Kind) or kind.code not in _FORMATS:
        raise Unreadable("it holds NumPy's data that are no numbers")
    return struct.unpack(kind.order + _FORMATS[kind.code], raw)[0]


def _encode(text: str, encoding: str) -> bytes:
    """The call by which old pickle protocols write bytes."""
    if encoding != "latin1":
        raise Unreadable(f"it holds bytes as {encoding}")
    return text.encode(encoding)


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Kind,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,
}
