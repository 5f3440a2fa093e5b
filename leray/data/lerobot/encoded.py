"""The pictures of one episode once they are encoded."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from leray.data.statistics import Statistics


@dataclass(frozen=True, slots=True)
class Segment:
    """The video of one episode and camera, complete and on disk."""

    path: Path
    num_frames: int
    num_bytes: int
    kind: tuple[Any, ...]
    """What videos must have in common to be joined: codec, size, sound."""


@dataclass(slots=True)
class EncodedPictures:
    """The pictures of one episode, by feature."""

    images: dict[str, pa.ChunkedArray] = field(default_factory=dict)
    """Columns of `image` features."""
    segments: dict[str, Segment] = field(default_factory=dict)
    """Of `video` features, under temporary names."""
    stats: Statistics = field(default_factory=dict)

    def discard(self) -> None:
        """Delete the videos."""
        for segment in self.segments.values():
            segment.path.unlink(missing_ok=True)
