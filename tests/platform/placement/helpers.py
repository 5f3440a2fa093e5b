"""Processes that drive runs in a cluster that a test has started."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]
TRAIN = (
    *("-m", "leray", "train", "--policy.type=sac", "--policy.device=cpu", "--eval_freq=0"),
    "--policy.actor_network_kwargs.hidden_dims=[16,16]",
    "--policy.critic_network_kwargs.hidden_dims=[16,16]",
    *("--policy.online_step_before_learning=50", "--batch_size=16", "--eval.n_episodes=1"),
    *("--eval.max_episodes_rendered=0", "--mlflow.enable=false", "--env.type=gym"),
    *("--env.task=PandaReach-v3", "--steps=300", "--save_freq=300"),
)
"""A short run with small networks, as arguments of Python."""


class Driver:
    """A process in a cluster; collects what it prints, line by line.

    Args:
        address: of the cluster.
        arguments: of Python.
    """

    def __init__(self, address: str, *arguments: str) -> None:
        environment = os.environ | {
            "RAY_ADDRESS": address,
            "PYTHONPATH": str(REPOSITORY),
            "RAY_AIR_NEW_OUTPUT": "0",
            "RAY_CHDIR_TO_TRIAL_DIR": "0",
        }
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line.rstrip())

    def facts(self) -> list[dict[str, Any]]:
        """Return what `say` was called with."""
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def wait(self, condition: Callable[[], Any], timeout_s: float = 120.0) -> Any:
        """Wait until a condition holds while the process runs."""
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            assert self.process.poll() is None, "\n".join(self.lines)
            assert time.monotonic() < deadline, "waited in vain:\n" + "\n".join(self.lines[-50:])
            time.sleep(0.05)
        return found

    def end(self, timeout_s: float = 120.0) -> int:
        """Wait for the end; returns the exit code."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise AssertionError("it does not end:\n" + "\n".join(self.lines[-50:])) from error
        self._reader.join(10)
        return code

    def said(self, text: str) -> list[str]:
        """Return the lines that hold a text."""
        return [line for line in list(self.lines) if text in line]
