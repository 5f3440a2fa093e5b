"""A cluster that grows for a run and shrinks after it: Ray's autoscaler, on pretended nodes."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.platform.placement.helpers import TRAIN

IDLE_S = 6
HEAD = "ray.head.default"
MAPPINGS = ("auth", "docker", "file_mounts")
LISTS = (
    *("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands"),
    *("setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)
EMPTY: dict[str, object] = {key: {} for key in MAPPINGS} | {key: [] for key in LISTS}
"""What the autoscaler wants to see in a config, and does not use here."""
PROVIDER = {
    "type": "fake_multinode",
    "use_node_id_as_ip": True,  # all nodes have the address of this machine
    "disable_node_updaters": True,  # there is nothing to log in to
    "disable_launch_config_check": True,
}
WATCH = """
import json, time
import ray
ray.init()
while True:
    alive = [node for node in ray.nodes() if node["Alive"]]
    arms = sum(node["Resources"].get("robot", 0) for node in alive)
    sites = [node["Labels"].get("site") for node in alive if node["Resources"].get("robot")]
    print(json.dumps({"nodes": len(alive), "arms": arms, "sites": sites}), flush=True)
    time.sleep(0.3)
"""

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_all_of(address: str) -> None:
    """End the processes of nodes that the autoscaler has started in this cluster."""
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
        except OSError:  # it has ended
            continue
        if address.encode() in command and int(entry.name) != os.getpid():
            os.kill(int(entry.name), signal.SIGKILL)


@pytest.fixture
def address() -> Iterator[str]:
    """A head without CPUs to spare, and an autoscaler that knows nodes with a robot."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    config = EMPTY | {
        "cluster_name": "pretended",
        "max_workers": 2,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE_S / 60,
        "head_node_type": HEAD,
        "file_mounts_sync_continuously": False,
        "provider": PROVIDER | {"gcs_address": address},
        "available_node_types": {
            HEAD: {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0},
            "arm": {
                "resources": {"CPU": 1, "robot": 1, "object_store_memory": 100_000_000},
                "labels": {"site": "lab1"},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 1,
            },
        },
    }
    with tempfile.TemporaryDirectory(prefix="lr", dir="/tmp") as folder:  # sockets' paths are short
        file = Path(folder) / "autoscaling.json"
        file.write_text(json.dumps(config))
        head = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *(f"--port={port}", "--num-cpus=2", "--include-dashboard=false"),
                *("--object-store-memory=100000000", "--disable-usage-stats"),
                *(f"--autoscaling-config={file}", f"--temp-dir={folder}"),
            ],
            stdout=(Path(folder) / "head.log").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ
            | {
                "RAY_FAKE_CLUSTER": "1",
                "RAY_enable_autoscaler_v2": "0",
                "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                "RAY_NODE_TYPE_NAME": HEAD,  # as cluster launchers set it
                "RAY_TMPDIR": folder,
            },
        )
        try:
            yield address
        finally:
            head.terminate()
            try:
                head.wait(20)
            except subprocess.TimeoutExpired:
                head.kill()
            end_all_of(address)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes through /proc")
def test_a_node_comes_for_a_run_and_goes_after_it(address, drive, tmp_path):
    deadline = time.monotonic() + 60
    while True:  # the head is up when a driver can join
        watch = drive(address, "-c", WATCH)
        while watch.process.poll() is None and not watch.facts():
            time.sleep(0.1)
        if watch.facts():
            break
        assert time.monotonic() < deadline, watch.lines
    assert watch.facts()[-1] == {"nodes": 1, "arms": 0, "sites": []}

    groups = "--runners.groups=[{name: arm, resources: {robot: 1}, labels: {site: lab1}}]"
    run = drive(address, *TRAIN, f"--output_dir={tmp_path}/run", groups)
    watch.wait(lambda: watch.facts()[-1] == {"nodes": 2, "arms": 1, "sites": ["lab1"]})
    assert run.end() == 0, run.lines
    assert (tmp_path / "run/checkpoints/last").exists()

    watch.wait(lambda: watch.facts()[-1] == {"nodes": 1, "arms": 0, "sites": []}, 60 + 10 * IDLE_S)
