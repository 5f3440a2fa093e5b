"""The shell lines of the `ray up` files do in a real shell what they are meant to do."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

CLUSTER = Path(__file__).resolve().parents[3] / "cluster"
LISTS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
STUB = '#!/bin/sh\nprintf "%s\\n" "$RAY_AUTH_MODE" "$@"\n'


def run(command: str, folder: Path, host: str) -> list[str]:
    """Run a shell line where `ray` prints the token mode and its arguments, one a line."""
    for name, text in (("ray", STUB), ("hostname", f"#!/bin/sh\necho {host}\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    environment = {"PATH": path, "RAY_HEAD_IP": "10.0.0.1", "HOME": str(folder)}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["aws", "gcp", "onprem"])
def test_every_line_is_shell(name):
    config = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    lines = [line for key in LISTS for line in config.get(key, [])]
    assert len(lines) >= 4
    for line in lines:
        subprocess.run(["bash", "-n", "-c", line], check=True)


@pytest.mark.parametrize(
    ("host", "resources", "label"),
    [
        ("robot3", {"robot": 1}, "--labels=role=robot"),
        ("sim-a", {"sim": 16}, "--labels=role=sim"),
    ],
)
def test_a_worker_offers_what_its_name_says(tmp_path, host, resources, label):
    config = yaml.safe_load((CLUSTER / "onprem.yaml").read_text())
    mode, *arguments = run(config["worker_start_ray_commands"][-1], tmp_path, host)
    assert mode == "token"
    assert arguments[:2] == ["start", "--address=10.0.0.1:6379"]
    assert json.loads(arguments[2].removeprefix("--resources=")) == resources
    assert arguments[3] == label


@pytest.mark.parametrize("name", ["aws", "gcp", "onprem"])
def test_the_head_keeps_its_dashboard_to_itself(tmp_path, name):
    config = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    mode, *arguments = run(config["head_start_ray_commands"][-1], tmp_path, "head")
    container = config.get("docker", {}).get("run_options", [])
    assert mode == "token" or "--env RAY_AUTH_MODE=token" in container
    assert {"start", "--head", "--dashboard-host=127.0.0.1"} <= set(arguments)


def test_the_environment_of_logins_is_written_once(tmp_path):
    config = yaml.safe_load((CLUSTER / "onprem.yaml").read_text())
    (tmp_path / ".bashrc").touch()
    for line in 2 * config["setup_commands"][-2:]:
        run(line, tmp_path, "any")
    assert (tmp_path / ".bashrc").read_text() == ". ~/.leray-env\n"
    shown = run(". ~/.leray-env; echo $PATH; echo $RAY_AUTH_MODE", tmp_path, "any")
    assert shown[0].startswith(f"{tmp_path}/leray-venv/bin:")
    assert shown[1] == "token"
