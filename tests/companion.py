"""The smallest endpoint that can be kept beside a pair: it says what it was told, and how it runs."""

from __future__ import annotations

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def main(told: dict[str, Any]) -> None:
    """Serve until killed, or fail at once if that is an option."""
    if told["options"].get("fails"):
        raise RuntimeError("this endpoint fails")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            handlers = {number.name: signal.getsignal(number) == signal.SIG_DFL for number in OWN}
            says = {**told, "pid": os.getpid(), "sglang": "sglang" in sys.modules, "default": handlers}
            body = json.dumps(says).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    ThreadingHTTPServer(("127.0.0.1", told["port"]), Handler).serve_forever()


OWN = (signal.SIGTERM, signal.SIGALRM)
