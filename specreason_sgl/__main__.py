"""``python -m specreason_sgl`` is ``specreason``."""

import sys

from specreason_sgl.cli.app import main

sys.exit(main())
