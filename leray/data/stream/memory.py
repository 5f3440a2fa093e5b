"""Sharing out the memory that a stream may take."""

from dataclasses import dataclass

from leray.errors import ConfigError

_MB = 2**20
_PROCESS_MB = 320
"""A worker or a consumer with its libraries and open decoders, before any frame."""
_RAY_MB = 640
"""Ray's own processes on one machine."""
_COPIES = 3
"""Chunks that a worker holds at once: decoded pictures, the table made of them, and slack."""
_LEAST_CHUNK_MB = 4


@dataclass(frozen=True)
class MemoryPlan:
    """What each part of a stream may hold, in bytes."""

    chunk: int
    """Of one chunk."""
    queue: int
    """Of finished chunks in Ray's object store."""
    arrays: int
    """Of memory-mapped columns in all."""


def share_memory(limit_mb: int, workers: int) -> MemoryPlan:
    """Share a limit between the processes of a stream.

    Raises:
        ConfigError: it does not even hold the processes.
    """
    fixed = _RAY_MB + _PROCESS_MB * (workers + 1)
    free = limit_mb - fixed
    slots = _COPIES * workers + 4
    if free < slots * _LEAST_CHUNK_MB:
        raise ConfigError(
            f"memory_limit_mb={limit_mb}: {workers} workers need at least "
            f"{fixed + slots * _LEAST_CHUNK_MB}; raise it, or use fewer workers"
        )
    arrays = free // 4
    chunk = (free - arrays) // slots
    return MemoryPlan(chunk=chunk * _MB, queue=2 * chunk * _MB, arrays=arrays * _MB)
