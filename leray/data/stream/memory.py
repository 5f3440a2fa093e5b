"""Sharing out the memory that a stream may take."""

from dataclasses import dataclass

from leray.errors import ConfigError

_MB = 2**20
_PROCESS_MB = 320
"""A worker or a consumer with its libraries and open decoders, before any frame."""
_RAY_MB = 640
"""Ray's own processes on one machine."""
_COPIES = 2
"""Chunks that a worker holds of its own: the one it decodes, and slack."""
_WAITING = 2
"""Finished chunks for each worker, and the consumer, that Ray's object store must hold at least."""
_LEAST_CHUNK_MB = 4
_DEFAULT_MB = 1024
"""Of each worker, and of the rest, where no limit is given."""


@dataclass(frozen=True)
class MemoryPlan:
    """What each part of a stream may hold, in bytes."""

    store: int
    """Of chunks in Ray's object store."""
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
    chunk_mb = max(-(-chunk_bytes // _MB), _LEAST_CHUNK_MB)
    fixed = _RAY_MB + _PROCESS_MB * (workers + 1) + _COPIES * workers * chunk_mb
    least = fixed - (-8 * _WAITING * (workers + 1) * chunk_mb // 7)  # an eighth is the arrays'
    limit = max(_DEFAULT_MB * (workers + 1), least) if limit_mb is None else limit_mb
    if limit < least:
        raise ConfigError(
            f"memory_limit_mb={limit}: {workers} workers with chunks of {chunk_mb} MiB need at "
            f"least {least}; raise it, or use fewer workers, a lower chunk_mb or smaller batches"
        )
    arrays = (limit - fixed) // 8
    return MemoryPlan(store=(limit - fixed - arrays) * _MB, arrays=arrays * _MB)
