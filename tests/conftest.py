"""Settings of every test process, and the one local Ray cluster that tests share."""

import os
import resource

for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}.items():
    os.environ.setdefault(_name, _value)  # read when ray and torch are first imported

import pytest  # noqa: E402 - after the settings above

FILE_SIZES = resource.getrlimit(resource.RLIMIT_FSIZE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Lift what stood for a full disk before the outcome is printed, perhaps into a file."""
    try:
        return (yield)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, FILE_SIZES)


@pytest.fixture(scope="session", autouse=True)
def array_cache(tmp_path_factory):
    """Keep the caches of datasets out of the user's own, also in the processes tests start."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["LERAY_CACHE"] = str(folder)
    yield folder
    del os.environ["LERAY_CACHE"]


@pytest.fixture(scope="session")
def ray_session():
    """A local Ray cluster of four CPUs, shared by all tests of the process."""
    import ray

    ray.init(
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=150_000_000,
        log_to_driver=False,
    )
    yield
    ray.shutdown()
