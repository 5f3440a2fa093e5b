"""Starts processes that drive runs."""

from collections.abc import Callable, Iterator

import pytest

from tests.platform.placement.helpers import Driver


@pytest.fixture
def drive() -> Iterator[Callable[..., Driver]]:
    """Start processes in a cluster, given its address; they end with the test."""
    started: list[Driver] = []

    def start(address: str, *arguments: str) -> Driver:
        started.append(Driver(address, *arguments))
        return started[-1]

    yield start
    for driver in started:
        driver.process.kill()
        driver.process.wait()
