"""One of SGLang's programs behind a key: ``python -m specreason_sgl.servers.keyed MODULE ARGUMENTS``.

SGLang's router takes a key from its command line alone, which everybody on a machine can read, and its server
from there or from a file that would have to be kept; an environment is its owner's.
"""

from __future__ import annotations

import os
import runpy
import sys

from specreason_sgl.servers import API_KEY

USAGE = 2


def main() -> int:
    """Become the program; without a key, which would leave its server open, nothing is started."""
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
