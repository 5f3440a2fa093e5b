"""What `leray info` shows: the versions and devices a bug report needs."""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import leray

PACKAGES = (
    "ray",
    "torch",
    "numpy",
    "gymnasium",
    "mujoco",
    "mlflow",
    "pyarrow",
    "av",
    "draccus",
    "huggingface_hub",
)
GL_BACKENDS = ("egl", "osmesa", "glfw")
PROBE = """
import mujoco
context = mujoco.GLContext(64, 64)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), 50)
"""
PROBE_TIMEOUT_S = 20


@dataclass(kw_only=True)
class InfoConfig:
    """Everything `leray info` is told."""

    json: bool = False
    """Print JSON instead of a table."""


def git_commit(folder: Path) -> str | None:
    """Return the commit a folder is at, with `-dirty` after local changes; None outside git."""
    head = _output(["git", "-C", str(folder), "rev-parse", "HEAD"])
    if head is None:
        return None
    changes = _output(["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"])
    return f"{head}-dirty" if changes else head


def collect() -> dict[str, Any]:
    """Gather versions, machine, devices, rendering and extras; takes a few seconds."""
    return {
        "leray": leray.__version__,
        "git_commit": git_commit(Path(leray.__file__).parent),
        "python": platform.python_version(),
        "os": platform.platform(),
        "cpus": _cpus(),
        "memory_gib": _memory_gib(),
        **{package: _version(package) for package in PACKAGES},
        "cuda": _cuda(),
        "rendering": _rendering(),
        "extras": _extras(),
    }


def run(config: InfoConfig) -> None:
    """Print what `collect` gathers."""
    facts = collect()
    if config.json:
        print(json.dumps(facts, indent=2))
    else:
        print(_table(facts))


def _table(facts: Mapping[str, Any]) -> str:
    width = max(len(name) for name in facts)
    return "\n".join(f"{name:<{width}}  {_words(value)}" for name, value in facts.items())


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_words(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(str(each) for each in value) or "none"
    return "not found" if value is None else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _output(command: list[str]) -> str | None:
    """Return a command's output, or None when it is missing, fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpus() -> int:
    """Return how many CPUs this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _memory_gib() -> float | None:
    """Return the machine's memory, or its container's limit when that is lower, in GiB."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return round((min(size, int(text)) if text.isdecimal() else size) / 2**30, 1)


def _cuda() -> dict[str, Any]:
    """Return the CUDA devices torch can use; a driver that torch cannot use is said too."""
    found: dict[str, Any] = {"devices": []}
    driver = _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    if driver:
        found["driver"] = driver.splitlines()[0]
    if importlib.util.find_spec("torch") is None:
        return found
    import torch

    found["torch_built_for"] = torch.version.cuda or "cpu"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            found["devices"].append(f"{device.name} ({device.total_memory / 2**30:.0f} GiB)")
    return found


def _rendering() -> str:
    """Return the first MuJoCo rendering backend that draws here, tried in a process of its own."""
    if importlib.util.find_spec("mujoco") is None:
        return "none: mujoco is not installed"
    asked = os.environ.get("MUJOCO_GL")
    for backend in (asked,) if asked else GL_BACKENDS:
        if backend == "glfw" and not asked and not os.environ.get("DISPLAY"):
            continue
        environment = {**os.environ, "MUJOCO_GL": backend}
        try:
            done = subprocess.run(
                [sys.executable, "-c", PROBE],
                env=environment,
                capture_output=True,
                timeout=PROBE_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return f"{backend} (MUJOCO_GL)" if asked else backend
    tried = asked or ", ".join(GL_BACKENDS)
    return f"none of {tried} works: install libEGL or libOSMesa"


def _extras() -> dict[str, bool]:
    """Return for each optional extra whether all its packages are installed."""
    from packaging.requirements import Requirement

    try:
        metadata = distribution("leray").metadata
    except PackageNotFoundError:  # run from the source tree
        return {}
    found: dict[str, bool] = {}
    for extra in metadata.get_all("Provides-Extra") or []:
        needed = [
            requirement
            for text in metadata.get_all("Requires-Dist") or []
            if (requirement := Requirement(text)).marker
            and requirement.marker.evaluate({"extra": extra})
            and not requirement.marker.evaluate({"extra": ""})
        ]
        found[extra] = all(_version(each.name) is not None for each in needed)
    return found
