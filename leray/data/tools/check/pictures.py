"""Pictures embedded in the data files: whether they decode, at the declared size."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leray.data.lerobot.images import decode_image, image_bytes
from leray.data.lerobot.parquet import damage_reported, iterate_rows, open_parquet
from leray.data.tools.check.contents import Contents
from leray.data.tools.check.findings import Findings
from leray.errors import DatasetError

_SAMPLED_EPISODES = 50
_BATCH_ROWS = 64


def check_pictures(
    contents: Contents,
    findings: Findings,
    *,
    depth: Literal["fast", "full"],
    progress: Callable[[int, int], None],
) -> None:
    """Decode the first and last picture of at most 50 episodes (`fast`), or every picture."""
    cameras = [name for name, f in contents.features.items() if f.dtype == "image"]
    cameras = [name for name in cameras if len(contents.features[name].shape) == 3]
    if not cameras:
        return
    files = contents.episodes.files
    for number in range(len(files)):
        progress(number, len(files))
        rows = _rows(contents, number, depth)
        if len(rows):
            for camera in cameras:
                _check_rows(contents, number, camera, rows, findings)
    progress(len(files), len(files))


def _rows(contents: Contents, number: int, depth: Literal["fast", "full"]) -> NDArray[np.int64]:
    """Return which rows of a file to look at, ascending."""
    positions = contents.positions_in[number]
    if depth == "full":
        return np.arange(contents.episodes.length[positions].sum(), dtype=np.int64)
    count = len(contents.episodes)
    sampled = np.linspace(0, count - 1, min(count, _SAMPLED_EPISODES)).round().astype(np.int64)
    chosen = positions[np.isin(positions, sampled)]
    first = contents.episodes.start[chosen]
    return np.unique(np.concatenate([first, first + contents.episodes.length[chosen] - 1]))


def _check_rows(
    contents: Contents, number: int, camera: str, rows: NDArray[np.int64], findings: Findings
) -> None:
    name, feature = contents.episodes.files[number], contents.features[camera]
    path = contents.root / name
    starts = contents.episodes.start[contents.positions_in[number]]
    breaks = np.flatnonzero(np.diff(rows) > 1) + 1
    runs = np.array([[part[0], part[-1] + 1] for part in np.split(rows, breaks)])
    try:
        with damage_reported(path), open_parquet(path) as file:
            if camera not in file.schema_arrow.names:
                return  # reported where schemas are compared
            for first, batch in iterate_rows(file, [camera], runs, batch_rows=_BATCH_ROWS):
                column = batch.column(0)
                for row in rows[(rows >= first) & (rows < first + batch.num_rows)].tolist():
                    try:
                        content = image_bytes(contents.root, column[row - first].as_py(), "it")
                        decode_image(content, feature, "it")
                    except DatasetError as error:
                        here = int(np.searchsorted(starts, row, side="right")) - 1
                        position = contents.positions_in[number][here]
                        findings.error(
                            "picture",
                            f"frame {row - starts[here]}: {error}",
                            file=name,
                            episode=int(contents.episodes.index[position]),
                            column=camera,
                        )
    except DatasetError as error:
        findings.error("picture", str(error), file=name, column=camera)
