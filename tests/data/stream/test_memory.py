"""The arithmetic of a memory limit: shares add up to no more than it."""

import pytest

from leray.data.stream.memory import share_memory
from leray.errors import ConfigError

MB = 2**20


@pytest.mark.parametrize(
    ("workers", "limit_mb"), [(1, 1400), (1, 2048), (2, 2048), (2, 65_536), (8, 4096), (32, 65_536)]
)
def test_processes_chunks_and_arrays_fit_the_limit(workers, limit_mb):
    fixed = 640 + 320 * (workers + 1) + 2 * workers * 4
    plan = share_memory(limit_mb, workers)
    assert fixed * MB + plan.arrays + plan.store == limit_mb * MB
    assert plan.arrays == (limit_mb - fixed) // 8 * MB
    assert plan.store >= 2 * (workers + 1) * 4 * MB


def test_two_workers_by_hand():
    # 2048 - 640 - 3 * 320 - 4 * 32 = 320 are free; 40 go to arrays, the rest to the store.
    plan = share_memory(2048, 2, 32 * MB)
    assert (plan.arrays, plan.store) == (40 * MB, 280 * MB)


@pytest.mark.parametrize("workers", [1, 3, 16])
@pytest.mark.parametrize("chunk_mb", [1, 4, 32, 500])
def test_the_least_that_is_told_suffices_and_less_does_not(workers, chunk_mb):
    with pytest.raises(ConfigError) as caught:
        share_memory(64, workers, chunk_mb * MB)
    message = str(caught.value)
    assert "\n" not in message
    least = int(message.split("need at least ")[1].split(";")[0])
    assert share_memory(least, workers, chunk_mb * MB).store >= 2 * (workers + 1) * chunk_mb * MB
    with pytest.raises(ConfigError, match=f"memory_limit_mb={least - 1}: {workers} workers"):
        share_memory(least - 1, workers, chunk_mb * MB)


def test_without_a_limit_there_is_enough():
    assert share_memory(None, 2) == share_memory(3072, 2)
    plan = share_memory(None, 2, 300 * MB + 1)
    assert plan.store >= 6 * 301 * MB
