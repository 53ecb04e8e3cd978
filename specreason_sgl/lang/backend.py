"""What a solve needs of a model server, be it real or scripted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, Self

from specreason_sgl.lang.scope import Scope
from specreason_sgl.text.chat import ChatFormat

if TYPE_CHECKING:

    class SglBackend:
        """SGLang's base class for backends, as mypy sees it: the real class is untyped, so mypy would check nothing."""

        def flush_cache(self) -> None:
            """Empty the cache, if there is one."""

else:

    def __getattr__(name: str) -> type:
        """Import SGLang's class when it is wanted: that takes seconds, and a protocol needs none of it."""
        if name != "SglBackend":
            raise AttributeError(name)
        from sglang.lang.backend.base_backend import BaseBackend

        return BaseBackend


Hear = Callable[[str], None]
"""Called with each piece of a text as it is generated."""
Listen = Callable[[str, str], Hear | None]
"""Called before a call with the model's role and the variable that the call fills: who hears the text, if anybody."""


class Backend(Protocol):
    """A model server, as SGLang's programs use it (an `SglBackend`) and as a solve does."""

    role: str
    """The role of the model in the solve."""
    chat: ChatFormat
    context: int | None
    """The most tokens that a prompt and the text generated after it may have together; None if unknown."""
    scope: Scope
    """The scope that its calls belong to."""

    def within(
        self, scope: Scope, *, role: str | None = None, listen: Listen | None = None, seed: int | None = None
    ) -> Self:
        """The same server for the calls of one scope.

        Args:
            scope: the scope that the calls belong to.
            role: the model's role in it, which the calls' meta information names; unchanged if not given.
            listen: says who hears text as it is generated.
            seed: the seed of all sampling; if not given it is unchanged, and each call draws the same as in any scope.
        """
        ...

    def forget(self) -> None:
        """Forget what the calls of the scope have sent, and have the server forget it; for the end of a solve."""
        ...

    def tokens(self, text: str) -> list[int]:
        """The ids of a text's tokens, as the model splits it."""
        ...
