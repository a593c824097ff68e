"""What a benchmark ran on, in a line."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

__all__ = ["describe"]


def describe(*packages: str) -> str:
    """Date, processor, cores and the versions of the packages that are installed."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        facts = dict(
            [part.strip() for part in line.split(":", 1)]
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if ":" in line
        )
        processor = f"{facts.get('model name', processor)} (family {facts.get('cpu family', '?')})"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = [f"{name} {metadata.version(name)}" for name in packages if _is_there(name)]
    return f"{datetime.now(UTC):%Y-%m-%d}, {processor}, {cores} cores, {', '.join(versions)}"


def _is_there(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
