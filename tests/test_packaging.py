"""What continuous integration installs is what the project asks for, pinned, and nothing without a hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
_PIN = re.compile(
    r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>\S+) \\\n(?P<hashes>(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
)


def pins() -> dict[str, str]:
    """Versions by name; fails on any line that is not a pin with its hashes."""
    left = (ROOT / ".ci" / "requirements.txt").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    while left:
        pin = _PIN.match(left)
        assert pin, left[:200]
        found[canonicalize_name(pin["name"])] = pin["version"]
        left = left[pin.end() :]
    return found


def test_everything_that_the_project_asks_for_is_pinned_with_hashes() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [*declared["project"]["dependencies"], *declared["dependency-groups"]["dev"]]
    pinned = pins()

    for requirement in map(Requirement, asked):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement
