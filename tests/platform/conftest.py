"""The command line, called in this process or in one of its own, with small networks."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NETWORKS = [
    "--policy.actor_network_kwargs.hidden_dims=[32,32]",
    "--policy.critic_network_kwargs.hidden_dims=[32,32]",
]
TRAIN = [
    "train",
    "--policy.type=sac",
    *NETWORKS,
    "--policy.device=cpu",
    "--policy.online_step_before_learning=50",
    "--policy.online_buffer_capacity=5000",
    "--policy.offline_buffer_capacity=5000",
    "--batch_size=16",
    "--eval_freq=0",
    "--eval.n_episodes=2",
    "--eval.max_episodes_rendered=0",
    "--mlflow.enable=false",
]


def join(arguments: tuple[str, ...], options: dict[str, Any]) -> list[str]:
    """Return a command line; `a__b=1` stands for `--a.b=1`."""
    return [*arguments, *(f"--{key.replace('__', '.')}={value}" for key, value in options.items())]


@pytest.fixture(scope="session")
def leray(ray_session) -> Callable[..., int]:
    """Call the command line in this process; returns its exit code."""
    from leray.cli import main

    return lambda *arguments, **options: main(join(arguments, options))


@pytest.fixture(scope="session")
def train(leray) -> Callable[..., int]:
    """Call `leray train` with small networks in this process; returns its exit code."""
    return lambda *arguments, **options: leray(*TRAIN, *arguments, **options)


@pytest.fixture
def spawn(ray_session) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command line in a process of its own, in the tests' Ray cluster.

    `script` replaces `python -m leray` by Python code, which finds the command line in `sys.argv`.
    """
    import ray

    started: list[subprocess.Popen[str]] = []
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
    }

    def start(*arguments: str, script: str | None = None, **options: Any) -> subprocess.Popen[str]:
        program = ["-m", "leray"] if script is None else ["-c", script]
        started.append(
            subprocess.Popen(
                [sys.executable, *program, *join(arguments, options)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def spawn_train(spawn) -> Callable[..., subprocess.Popen[str]]:
    """Start `leray train` with small networks in a process of its own."""
    return lambda *arguments, **options: spawn(*TRAIN, *arguments, **options)


@pytest.fixture(scope="session")
def demonstrations(leray, tmp_path_factory) -> Path:
    """25 episodes of the expert reaching, as `leray record` writes them."""
    root = tmp_path_factory.mktemp("datasets") / "reach"
    code = leray(
        "record",
        env__type="gym",
        env__task="PandaReach-v3",
        dataset__root=root,
        dataset__num_episodes=25,
        policy__noise=0.3,
    )
    assert code == 0
    return root
