"""Whether a machine has what a pair needs: facts, gathered once, and findings, a pure function of the facts."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from specreason_sgl.errors import SpecReasonError
from specreason_sgl.servers.gpu import detect
from specreason_sgl.servers.gpu.launch import PORT, prepare
from specreason_sgl.servers.gpu.pairfile import PairSpec
from specreason_sgl.servers.gpu.plan import GIB, Card
from specreason_sgl.servers.gpu.shapes import find, has_weights, hub_cache, weights_folder

Grade = Literal["ok", "note", "bad"]

PACKAGES = ("sglang", "torch", "flashinfer-python", "sglang-router")
NEWEST_PYTHON = (3, 12)
"""The newest Python for which all of SGLang 0.5.23's requirements have wheels."""
LEAST_CAPABILITY = 8.0
"""The lowest compute capability for FlashInfer's attention and bfloat16: Ampere and newer cards."""
LEAST_DRIVER = 580
"""The driver branch that came with CUDA 13, which SGLang 0.5.23's torch is built for."""
EMBEDDED_MEMORY = 2 * GIB


@dataclass(frozen=True)
class Facts:
    """The facts about a machine."""

    python: tuple[int, int]
    system: str
    packages: Mapping[str, str]
    """The versions of installed packages, by name."""
    wanted_sglang: str | None
    """The version that this project is made for."""
    gpus: Sequence[Mapping[str, str]]
    """The GPUs as the driver reports them, a row for each."""
    cards: Sequence[Card]
    """The GPUs that CUDA shows to programs."""
    memory: int
    """Bytes of main memory that are available."""
    disk: Mapping[str, int]
    """Free bytes by folder."""
    taken_ports: Sequence[int]
    missing: Mapping[str, int] = field(default_factory=dict)
    """Bytes of weights that would have to be downloaded, by model."""
    spec: PairSpec | None = None
    """The pair that the machine shall serve; None for the embedded pair."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    what: str
    grade: Grade
    found: str
    advice: str | None = None


def gather(spec: PairSpec | None = None) -> Facts:
    """Look at this machine.

    Args:
        spec: the pair that it is to serve, if any.

    Raises:
        UsageError: a model's configuration is not known here.
    """
    missing = {}
    for model in (spec.base, spec.small) if spec else ():
        folder = weights_folder(model.model)
        if folder is None or not has_weights(folder):
            missing[model.model] = find(model.model).weight_bytes()
    folders = [hub_cache(), Path(os.environ.get("TMPDIR") or "/tmp")]  # noqa: S108 - where SGLang's scratch goes
    return Facts(
        python=sys.version_info[:2],
        system=platform.system(),
        packages={name: found for name in PACKAGES if (found := _version(name))},
        wanted_sglang=_wanted(),
        gpus=detect.rows(),
        cards=detect.cards(os.environ),
        memory=_available(),
        disk={str(folder): _free(folder) for folder in folders},
        taken_ports=[port for port in (PORT, PORT + 1) if _is_taken(port)],
        missing=missing,
        spec=spec,
    )


def examine(facts: Facts) -> list[Finding]:
    """Judge the facts for serving a pair; every ``bad`` finding has advice.

    A machine without a GPU is good enough for the embedded pair, unless another pair is asked for.
    """
    found = [_python(facts), *_packages(facts), *_gpus(facts), _memory(facts), *_disk(facts), _ports(facts)]
    return [*found, *_pair(facts)] if facts.spec else found


def _python(facts: Facts) -> Finding:
    told = f"{facts.python[0]}.{facts.python[1]} on {facts.system}"
    if facts.system != "Linux":
        return Finding("python", "bad", told, "SGLang's servers run on Linux; reading stored runs works anywhere")
    if facts.python < (3, 11):
        return Finding("python", "bad", told, "install Python 3.11 or newer")
    if facts.python > NEWEST_PYTHON and "sglang" not in facts.packages:
        return Finding("python", "bad", told, "SGLang has no wheels for it: use Python 3.11 or 3.12")
    return Finding("python", "ok", told)


def _packages(facts: Facts) -> list[Finding]:
    found = []
    sglang = facts.packages.get("sglang")
    for name in PACKAGES:
        has = facts.packages.get(name)
        if has is None and name == "sglang-router":
            found.append(Finding(name, "note", "not installed", "only `--replicas` needs it: the extra `router`"))
        elif has is None:
            found.append(Finding(name, "bad", "not installed", "install the project again: it brings SGLang"))
        elif name == "sglang" and facts.wanted_sglang not in (None, sglang):
            advice = f"this project is made for {facts.wanted_sglang}: `pip install sglang=={facts.wanted_sglang}`"
            found.append(Finding(name, "bad", has, advice))
        else:
            found.append(Finding(name, "ok", has))
    return found


def _gpus(facts: Facts) -> list[Finding]:
    if not facts.gpus:
        advice = (
            "the embedded pair runs here; real models want an NVIDIA GPU of 40 GB or more and its driver, "
            "and `specreason up --pair qwq --gpus 1x80 --dry-run` plans for another machine"
        )
        return [Finding("gpu", "bad" if facts.spec else "note", "none", advice)]
    driver = facts.gpus[0]["driver_version"]
    branch = driver.partition(".")[0]
    old = branch.isdecimal() and int(branch) < LEAST_DRIVER
    advice = f"torch is built for CUDA 13: update the driver to {LEAST_DRIVER} or newer"
    found = [Finding("driver", "bad", driver, advice) if old else Finding("driver", "ok", driver)]
    if not facts.cards:
        advice = "`CUDA_VISIBLE_DEVICES` hides them all: unset it or name one"
        return [*found, Finding("gpu", "bad" if facts.spec else "note", "none visible", advice)]
    for card in facts.cards:
        told = f"{card.name}, {card.free / GIB:.1f} of {card.memory / GIB:.1f} GiB free"
        busy = card.free < card.memory * 0.9
        used = "somebody else uses it; `nvidia-smi` says who" if busy else None
        found.append(Finding(f"gpu {card.index}", "note" if busy else "ok", told, used))
    for row in facts.gpus:
        with suppress(ValueError):
            if float(row["compute_cap"]) < LEAST_CAPABILITY:
                advice = "older than Ampere: try `--attention-backend triton --set base.dtype=float16`"
                found.append(Finding("capability", "note", f"{row['name']}: {row['compute_cap']}", advice))
    return found


def _memory(facts: Facts) -> Finding:
    told = f"{facts.memory / GIB:.1f} GiB available"
    if facts.memory < EMBEDDED_MEMORY:
        return Finding("memory", "bad", told, "even the embedded pair wants 2 GiB: stop something else")
    return Finding("memory", "ok", told)


def _disk(facts: Facts) -> list[Finding]:
    needed = sum(facts.missing.values())
    found = []
    for place, (folder, free) in enumerate(facts.disk.items()):
        wanted = GIB + (needed if place == 0 else 0)
        told = f"{free / GIB:.0f} GiB free in `{folder}`"
        advice = f"{wanted / GIB:.0f} GiB are needed there: make room, or set `HF_HOME` or `TMPDIR` to another disk"
        found.append(Finding("disk", "bad", told, advice) if free < wanted else Finding("disk", "ok", told))
    return found


def _ports(facts: Facts) -> Finding:
    if not facts.taken_ports:
        return Finding("ports", "ok", f"{PORT} and {PORT + 1} are free")
    told = f"somebody listens on {' and '.join(map(str, facts.taken_ports))}"
    return Finding("ports", "note", told, "choose others with `--port`, or name the servers by `--base` and `--small`")


def _pair(facts: Facts) -> list[Finding]:
    found = []
    for model in (facts.spec.base.model, facts.spec.small.model) if facts.spec else ():
        if size := facts.missing.get(model):
            advice = f"SGLang downloads them at its start; before: `hf download {model}`"
            found.append(Finding("weights", "note", f"`{model}`: not here, about {size / GIB:.0f} GiB", advice))
        else:
            found.append(Finding("weights", "ok", f"`{model}`: here"))
    if facts.spec and facts.cards:
        try:
            plan = prepare(facts.spec, facts.cards).plan
        except SpecReasonError as error:
            found.append(Finding("plan", "bad", str(error), error.hint or "choose another pair"))
        else:
            found.append(Finding("plan", "ok", f"room for {plan.concurrency} of {plan.context} tokens at a time"))
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _wanted() -> str | None:
    with suppress(PackageNotFoundError):
        for line in requires("specreason_sgl") or ():
            if line.startswith("sglang=="):
                return line.removeprefix("sglang==").split(";")[0].strip()
    return None


def _available() -> int:
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    return 0


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
