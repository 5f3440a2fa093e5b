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
_DEFAULT_MB = 1024
"""Of each worker, and of the rest, where no limit is given."""


@dataclass(frozen=True)
class MemoryPlan:
    """What each part of a stream may hold, in bytes."""

    chunk: int
    """Of one chunk."""
    queue: int
    """Of finished chunks in Ray's object store."""
    arrays: int
    """Of memory-mapped columns in all."""


def share_memory(limit_mb: int | None, workers: int, chunk_bytes: int = 0) -> MemoryPlan:
    """Share a limit between the processes of a stream.

    Args:
        limit_mb: in MiB; None is enough for what is needed.
        workers: processes that gather chunks.
        chunk_bytes: memory of one chunk.

    Raises:
        ConfigError: it does not hold the processes and their chunks.
    """
    fixed = _RAY_MB + _PROCESS_MB * (workers + 1)
    slots = _COPIES * workers + 4
    needed_mb = max(-(-chunk_bytes // _MB), _LEAST_CHUNK_MB)
    least = fixed - (-4 * slots * needed_mb // 3)  # a fourth of what is free goes to the arrays
    limit = max(_DEFAULT_MB * (workers + 1), least) if limit_mb is None else limit_mb
    if limit < least:
        raise ConfigError(
            f"memory_limit_mb={limit}: {workers} workers with chunks of {needed_mb} MiB need at "
            f"least {least}; raise it, or use fewer workers, a lower chunk_mb or smaller batches"
        )
    free = limit - fixed
    arrays = free // 4
    chunk = (free - arrays) // slots
    return MemoryPlan(chunk=chunk * _MB, queue=2 * chunk * _MB, arrays=arrays * _MB)
