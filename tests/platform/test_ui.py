"""`leray ui`: refuses clearly, serves really, leaves nothing running."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from leray.errors import ConfigError, LerayError
from leray.platform import ui
from leray.platform.run_directory import RunDirectory
from leray.platform.sections import MLflowConfig
from leray.platform.tracking import open_tracker
from leray.platform.ui import UiConfig, run, server_command


def test_without_runs_it_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match=r"no runs yet: .*outputs/mlflow.db .* `leray train"):
        run(UiConfig())


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127.0.0.1:{port} .*--port="):
            run(UiConfig(port=port, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"))


def test_a_server_s_own_pages_are_pointed_to() -> None:
    with pytest.raises(ConfigError, match="open it in a browser"):
        server_command(UiConfig(tracking_uri="http://host:5000"))


def test_ports_are_checked() -> None:
    with pytest.raises(ConfigError, match="--port=0: give a whole number from 1 to 65535"):
        UiConfig(port=0)


def test_a_server_that_ends_early_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import sys; print('the disk is on fire'); sys.exit(3)"
    command = [sys.executable, "-c", program]
    monkeypatch.setattr(ui, "server_command", lambda config: command)
    with pytest.raises(
        LerayError, match=r"did not start, code 3; the last it said: the disk is on"
    ):
        run(UiConfig(port=free_port()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def read_line(process: subprocess.Popen[str], start: str, timeout_s: float) -> str:
    """Return the first line of output that begins as wanted."""
    assert process.stdout is not None
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if select.select([process.stdout], [], [], 0.2)[0]:
            line = process.stdout.readline()
            if line.startswith(start):
                return line
        assert process.poll() is None, "leray ui ended early"
    raise AssertionError("leray ui printed no address")


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_the_runs_until_interrupted(tmp_path: Path, sign: signal.Signals) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    folder = RunDirectory.create(tmp_path / "run")
    artifact = tmp_path / "note.txt"
    artifact.write_text("seen in the pages")
    with open_tracker(
        MLflowConfig(tracking_uri=uri), folder, params={}, run_name="shown"
    ) as record:
        record.log_metrics({"a": 1}, 1)
        record.log_artifact(artifact)
    run_id = (folder.root / "mlflow_run_id").read_text().strip()
    port = free_port()
    command = [sys.executable, "-m", "leray", "ui", f"--port={port}", f"--tracking_uri={uri}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )
    try:
        line = read_line(process, "MLflow is at ", 60)
        address = f"http://127.0.0.1:{port}"
        assert line.startswith(f"MLflow is at {address} ")
        with urllib.request.urlopen(f"{address}/api/2.0/mlflow/runs/get?run_id={run_id}") as answer:
            assert json.load(answer)["run"]["info"]["run_name"] == "shown"
        with urllib.request.urlopen(
            f"{address}/get-artifact?path=note.txt&run_uuid={run_id}"
        ) as answer:
            assert answer.read() == b"seen in the pages"
        process.send_signal(sign)
        assert process.wait(20) == 130
        with pytest.raises(urllib.error.URLError, match="refused"):
            urllib.request.urlopen(f"{address}/health", timeout=2)
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGINT)
            process.wait(20)
