"""What is stored with a run so that other people can repeat it: the command, versions, servers and prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from platform import python_version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specreason_sgl.events import Role
    from specreason_sgl.settings import Settings

REPORTED = (
    "model_path",
    "served_model_name",
    "attention_backend",
    "dtype",
    "tp_size",
    "replicas",
    "context_length",
    "mem_fraction_static",
    "max_total_tokens",
    "speculative_algorithm",
    "enable_deterministic_inference",
    "version",
)

KEYS = ("--api-key", "--serve-key", "--servers-key", "--key")
HIDDEN = "***"


def command_line(arguments: Sequence[str]) -> list[str]:
    """A command's arguments without keys, so that they may be stored and shown."""

    def shown(before: str, each: str) -> str:
        option, equals, _ = each.partition("=")
        return HIDDEN if before in KEYS else f"{option}={HIDDEN}" if equals and option in KEYS else each

    return [shown(before, each) for before, each in pairwise(["", *arguments])]


def versions() -> dict[str, str]:
    """The versions of packages that a run depends on."""
    found = {"python": python_version()}
    for package in ("specreason_sgl", "sglang", "torch", "flashinfer-python"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe(models: Mapping[Role, Any]) -> dict[str, Any]:
    """What the servers report about themselves, by role, without their keys."""
    told = {}
    for role, endpoint in models.items():
        info = endpoint.server_info()
        told[role] = {name: info[name] for name in REPORTED if info.get(name) is not None}
    return told


def prompts(models: Mapping[Role, Any], settings: Settings) -> dict[str, Any]:
    """The complete prompts of a pair and their version, as fields of a run's configuration."""
    asked = next((one.chat.prompts.with_words(settings.instruction, settings.judge) for one in models.values()), None)
    return {"judge_version": asked.version, "prompts": asdict(asked)} if asked else {}


def are_deterministic(servers: dict[str, Any]) -> bool:
    """Whether all servers run with deterministic inference."""
    return bool(servers) and all(told.get("enable_deterministic_inference") for told in servers.values())
