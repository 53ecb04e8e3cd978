"""What this machine is, for the record beside a measurement."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

from specreason_sgl.servers.gpu.detect import rows


def hardware() -> dict[str, str]:
    """Processor, cores, memory and GPUs of this machine; the servers may run on another one."""
    found = {"processor": _processor(), "cores": str(os.cpu_count()), "system": platform.system()}
    with suppress(ValueError, OSError):
        found["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    if gpus := _gpus():
        found["gpus"] = gpus
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> str:
    return "; ".join(f"{row['name']}, {row['memory.total']} MiB, {row['driver_version']}" for row in rows())
