"""Stores for tracked runs: one SQLite file and one server for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from leray.platform import delivery
from leray.platform.mlflow_store import quiet_environment
from leray.platform.run_directory import RunDirectory
from tests.platform.tracking.helpers import QUICK, Server, client


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in QUICK.items():
        monkeypatch.setattr(delivery, name, seconds)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run")


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite store for all tests, with its tables: making them takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    quiet_environment()
    client(uri).search_experiments()
    return uri


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server; a test that kills it starts it again."""
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        server.start()
        yield server
    finally:
        server.kill()
