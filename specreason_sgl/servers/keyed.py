"""One of SGLang's programs behind a key: ``python -m specreason_sgl.servers.keyed MODULE ARGUMENTS``.

SGLang's router takes a key only from its command line, which every user of the machine can read; its server takes one
from there or from a file. Here the key comes from the environment, which only the owner of the process can read.
"""

from __future__ import annotations

import os
import runpy
import sys

from specreason_sgl.servers import API_KEY

USAGE = 2


def main() -> int:
    """Become the program; without a key nothing is started, because anybody could use its server."""
    key = os.environ.pop(API_KEY, "")
    if not key or len(sys.argv) == 1:
        wrong = "there is no program to run" if key else f"without a key in `{API_KEY}` the server would be open"
        sys.stderr.write(f"error: {wrong}\nhint: `export {API_KEY}=...`, then `keyed MODULE ARGUMENTS`\n")
        return USAGE
    del sys.argv[0]
    sys.argv.append(f"--api-key={key}")  # one word, because a key may begin like an option
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
