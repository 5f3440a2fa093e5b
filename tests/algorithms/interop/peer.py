"""Runs programs in the Python that LERAY_LEROBOT_PYTHON names, which has LeRobot 0.4."""

import os
import subprocess
from pathlib import Path

import pytest

PYTHON = os.environ.get("LERAY_LEROBOT_PYTHON", "")
THREADS = {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}

needs_peer = pytest.mark.skipif(
    not PYTHON, reason="LERAY_LEROBOT_PYTHON names no Python that has lerobot"
)


def run_peer(program: Path, *arguments: object) -> str:
    """Run a program of this folder with LeRobot and return what it prints.

    Raises:
        AssertionError: it failed; with the end of its error output.
    """
    result = subprocess.run(
        [PYTHON, str(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **THREADS},
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout
