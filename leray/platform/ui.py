"""`leray ui`: MLflow's comparison pages on this project's store."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from leray.errors import ConfigError, LerayError
from leray.platform.mlflow_store import quiet_environment, resolve_tracking_uri, sqlite_path

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0


@dataclass(kw_only=True)
class UiConfig:
    """Everything `leray ui` is told."""

    host: str = "127.0.0.1"
    """Address to listen on; the default is reachable from this machine only."""
    port: int = 5000
    """TCP port to listen on."""
    tracking_uri: str | None = None
    """Store to show; `null` takes `$MLFLOW_TRACKING_URI`, else `outputs/mlflow.db`."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"--port={self.port}: give a whole number from 1 to 65535")


def run(config: UiConfig) -> None:
    """Serve the pages until interrupted; the server is a child process that ends with this one.

    Raises:
        ConfigError: there are no runs to show, or the port is taken.
        LerayError: the server ends by itself or does not start within a minute.
    """
    command = server_command(config)
    _require_free(config.host, config.port)
    quiet_environment()
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ}
    ending = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryFile(prefix="leray-ui-") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_until_up(server, config)
            print(f"MLflow is at {_url(config)} (Ctrl-C stops it)", flush=True)
            server.wait()
            raise LerayError(f"the MLflow server ended by itself, code {server.returncode}")
        except LerayError as error:
            log.seek(0)
            lines = log.read().decode(errors="replace").split("\n")
            said = next((line for line in reversed(lines) if line.strip()), "nothing")
            raise LerayError(f"{error}; the last it said: {said.strip()}") from error
        finally:
            _stop(server)
            signal.signal(signal.SIGTERM, ending)


def server_command(config: UiConfig) -> list[str]:
    """Return the command that serves a store's pages.

    Raises:
        ConfigError: the store does not exist yet, or is a server that has its own pages.
    """
    uri = resolve_tracking_uri(config.tracking_uri)
    if uri.startswith(("http", "databricks")):
        raise ConfigError(f"{uri} is an MLflow server with its own pages: open it in a browser")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", config.host, "--port", str(config.port), "--workers", "1"]
    database = sqlite_path(uri)
    if database is not None:
        if not database.is_file():
            raise ConfigError(
                f"no runs yet: {database} does not exist; start with `leray train "
                "--policy.type=sac --env.type=gym --env.task=<id>`, or name another store "
                "with --tracking_uri=<uri>"
            )
        command += ["--artifacts-destination", (database.parent / "mlartifacts").as_uri()]
    return command


def _require_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error.strerror or error}); "
                f"if something else is using it, choose another: --port={min(port + 1, 65535)}"
            ) from error


def _url(config: UiConfig) -> str:
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::", "") else config.host
    return f"http://[{host}]:{config.port}" if ":" in host else f"http://{host}:{config.port}"


def _wait_until_up(server: subprocess.Popen[bytes], config: UiConfig) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise LerayError(f"the MLflow server did not start, code {server.returncode}")
        try:
            with urllib.request.urlopen(f"{_url(config)}/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise LerayError(f"the MLflow server did not answer within {START_TIMEOUT_S:.0f} s")


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and the workers it started, which share its process group."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, sign)
        except ProcessLookupError:
            break
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
