"""The embedded pair: what it knows, how it is trained, its weights."""

from pathlib import Path
from types import MappingProxyType
from typing import Any

BASE, SMALL = (Path(__file__).parent / "pair" / role for role in ("base", "small"))
"""The folders of its models."""
SETTINGS = MappingProxyType[str, Any]({"temperature": 0.0, "top_p": 1.0, "budget": 1024})
"""The default settings of the embedded pair; a longer thinking does not fit into its context."""
