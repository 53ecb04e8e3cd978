"""What can go wrong, as exceptions that carry an exit code and a hint.

Exit codes: 0 done, 1 not solved or failed problems, 2 usage or a call that a server refuses, 3 server
unreachable, 130 interrupted.
"""

from __future__ import annotations

SIGNALLED = 128
"""The exit code after a signal is this number plus the signal's number."""


class SpecReasonError(Exception):
    """A failure whose message is one line, with a hint that says what to do."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Keep the message, and the hint that is shown on the line below it."""
        super().__init__(message)
        self.hint = hint


class UsageError(SpecReasonError):
    """What the user asked for cannot be carried out."""

    exit_code = 2


class ServerUnreachable(SpecReasonError):
    """A model server does not answer, or the address is not that of a model server."""

    exit_code = 3


class CallFailed(SpecReasonError):
    """A call to a model failed, so the solve it belongs to cannot go on."""


class CallRefused(CallFailed):
    """A server does not take what a call asks for, such as a prompt that is too long; sending it again is no use."""

    exit_code = 2
