"""What a measurement was made on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def describe(*packages: str) -> dict:
    """Return processor, cores, Python and the versions of packages."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def cpu_name() -> str:
    """Return the processor's name."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
