"""One SGLang server process, told what to do on standard input so that its key is in no process list.

``python -m specreason_sgl.runtime.serve`` reads one JSON object, ``{"arguments": [...], "api_key": ...}``, and serves until
it is stopped or whoever started it is gone.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends, however that happens (Linux)."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it went in between
            sys.exit(1)


def main() -> None:
    """Serve."""
    die_with_parent()
    told = json.loads(sys.stdin.read())
    from sglang.srt.entrypoints.http_server import launch_server
    from sglang.srt.server_args import prepare_server_args

    launch_server(prepare_server_args([*told["arguments"], "--api-key", told["api_key"]]))


if __name__ == "__main__":
    main()
