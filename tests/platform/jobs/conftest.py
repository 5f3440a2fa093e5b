"""A real Ray head with token authentication, on loopback, in processes of its own."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
START_TIMEOUT_S = 300.0


PORTS = (
    "port",
    "dashboard-port",
    "ray-client-server-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "runtime-env-agent-port",
)


@dataclass
class Head:
    """A running cluster of one node, and how to speak to it."""

    address: str
    folder: Path
    ports: dict[str, int]
    environment: dict[str, str]
    """What a client of the cluster has set, the token among it."""

    def start(self, *arguments: object, cwd: Path, **environment: str) -> "subprocess.Popen[str]":
        """Start a program of this Python in a folder, as a user of the cluster."""
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def leray(
        self, *arguments: object, cwd: Path, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Call the command line on the cluster."""
        process = self.start("-m", "leray", *arguments, cwd=cwd, **environment)
        out, err = process.communicate(timeout=500)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def free_ports(names: tuple[str, ...]) -> dict[str, int]:
    probes = [socket.socket() for _ in names]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in probes]
        return dict(zip(names, ports, strict=True))
    finally:
        for probe in probes:
            probe.close()


def start(
    folder: Path, environment: dict[str, str], *arguments: object
) -> "subprocess.Popen[bytes]":
    """Start what makes a node, by a Python that lacks this package."""
    programs = f"{folder / 'venv/bin'}:{Path(sys.executable).parent}"
    with (folder / "nodes.log").open("a") as log:
        return subprocess.Popen(
            [folder / "venv/bin/python", *map(str, arguments)],
            env={**environment, "PATH": f"{programs}:{environment['PATH']}"},
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=folder,
        )


def bare_python(folder: Path) -> None:
    """Make an environment with all libraries but without this package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Folders named in such a file are searched, but what is installed by `.pth` there is not.
    (packages / "libraries.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder with this package, told from the installed one by its version."""
    root = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "leray", root / "leray", ignore=ignore)
    for name in (".gitignore", ".rayignore"):
        shutil.copy(REPOSITORY / name, root)
    version = root / "leray/__init__.py"
    version.write_text(version.read_text() + '\n__version__ = "9.9.9"\n')
    return root


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head started by `ray start --head`; only what it started is ended."""
    folder = Path(tempfile.mkdtemp(prefix="lj-", dir="/tmp"))  # sockets need a short path
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    environment = {
        **inherited,
        "HOME": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "200",  # a busy machine needs more than Ray expects
        "OMP_NUM_THREADS": "1",
    }
    bare_python(folder / "venv")
    ports = free_ports(PORTS)
    process = start(
        folder,
        environment,
        *("-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address=127.0.0.1", f"--temp-dir={folder / 'ray'}", "--num-cpus=4"),
        *("--object-store-memory=80000000", "--min-worker-port=0", "--max-worker-port=0"),
        *(f"--{name}={port}" for name, port in ports.items()),
    )
    try:
        address = f"http://127.0.0.1:{ports['dashboard-port']}"
        wait_until_up(process, address, folder / "nodes.log")
        client = {"PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1"}
        yield Head(address, folder, ports, environment | client)
    finally:
        end_all(folder)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


JOIN = """
import sys, time
from ray._private.node import Node
from ray._private.parameter import RayParams

parameters = RayParams(
    gcs_address=sys.argv[1],
    node_ip_address="127.0.0.1",
    num_cpus=1,
    object_store_memory=80_000_000,
    min_worker_port=0,
    max_worker_port=0,
    dashboard_agent_listen_port=0,
)
Node(parameters, head=False, shutdown_at_exit=True, spawn_reaper=True)
time.sleep(600)
"""


@pytest.fixture
def second_node(head) -> Iterator[None]:
    """A further node of the cluster; `ray start` would not join one on loopback."""
    environment = {k: v for k, v in head.environment.items() if not k.startswith("PYTHON")}
    process = start(head.folder, environment, "-c", JOIN, f"127.0.0.1:{head.ports['port']}")
    yield
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until_up(process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=2)
        except urllib.error.HTTPError:  # it is there, and asks for the token
            return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        else:
            raise AssertionError("the head asks for no token")


def end_all(folder: Path) -> None:
    """End the processes that name the head's own folder, or have it as theirs."""
    from ray._private.services import psutil  # Ray brings its own

    found = True
    while found:  # until nothing is left that might start others
        found = False
        time.sleep(0.1)
        for process in psutil.process_iter():
            try:
                named = str(folder) in " ".join([*process.cmdline(), process.cwd()])
                if named and process.status() != psutil.STATUS_ZOMBIE:
                    found = True
                    process.kill()
            except psutil.Error:  # it has ended, or is somebody else's
                continue
