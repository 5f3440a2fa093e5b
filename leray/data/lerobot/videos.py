"""Which video file holds an episode's frames of one camera, and from when on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class VideoTable:
    """One camera's files; arrays [episodes], in the order of the episode table."""

    files: tuple[str, ...]
    """Video files, relative to the dataset's folder."""
    file: NDArray[np.int64]
    """Position in `files` of the file that holds the episode."""
    start_s: NDArray[np.float64]
    """Time of the episode's first frame in that file."""
    end_s: NDArray[np.float64]
    """Time at which the episode ends in that file; NaN where it is not told."""

    @classmethod
    def build(
        cls,
        paths: list[str],
        start_s: NDArray[np.float64] | None = None,
        end_s: NDArray[np.float64] | None = None,
    ) -> "VideoTable":
        """Return the table of episodes that lie in `paths`, by default from the file's start."""
        files = tuple(dict.fromkeys(paths))
        number = {path: position for position, path in enumerate(files)}
        return cls(
            files=files,
            file=np.array([number[path] for path in paths], dtype=np.int64),
            start_s=np.zeros(len(paths)) if start_s is None else start_s,
            end_s=np.full(len(paths), np.nan) if end_s is None else end_s,
        )

    def take(self, rows: NDArray[np.int64]) -> "VideoTable":
        """Return the table of some of the episodes, in the given order."""
        return VideoTable(self.files, self.file[rows], self.start_s[rows], self.end_s[rows])
