"""What a measurement was made on."""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PEER_PACKAGES = ("lerobot", "torch", "torchcodec", "av", "datasets", "numpy")


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


def peer_versions(python: str) -> dict[str, str]:
    """Return the versions of the peer and of what it stands on."""
    listed = "import importlib.metadata as m, json; "
    listed += f"print(json.dumps({{n: m.version(n) for n in {PEER_PACKAGES}}}))"
    result = subprocess.run([python, "-c", listed], capture_output=True, text=True, check=False)
    versions: dict[str, str] = json.loads(result.stdout or "{}")
    return versions
