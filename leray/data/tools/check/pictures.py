"""Pictures embedded in the data files: whether they decode, at the declared size."""

from collections.abc import Callable
from typing import Any, Literal

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
        for camera in cameras:
            _check_file(contents, number, camera, findings, depth)
    progress(len(files), len(files))


def _check_file(
    contents: Contents,
    number: int,
    camera: str,
    findings: Findings,
    depth: Literal["fast", "full"],
) -> None:
    name = contents.episodes.files[number]
    path = contents.root / name
    try:
        with damage_reported(path), open_parquet(path) as file:
            if camera not in file.schema_arrow.names:
                return  # reported where schemas are compared
            rows = _rows(contents, number, depth, file.metadata.num_rows)
            breaks = np.flatnonzero(np.diff(rows) > 1) + 1
            runs = [[part[0], part[-1] + 1] for part in np.split(rows, breaks) if len(part)]
            wanted = np.array(runs, dtype=np.int64).reshape(-1, 2)
            for first, batch in iterate_rows(file, [camera], wanted, batch_rows=_BATCH_ROWS):
                here = rows[(rows >= first) & (rows < first + batch.num_rows)]
                for row in here.tolist():
                    _check_picture(
                        contents, number, camera, row, batch.column(0)[row - first], findings
                    )
    except DatasetError as error:
        findings.error("picture", str(error), file=name, column=camera)


def _rows(
    contents: Contents, number: int, depth: Literal["fast", "full"], num_rows: int
) -> NDArray[np.int64]:
    """Return which rows of a file to look at, ascending; none that it does not have."""
    positions = contents.positions_in[number]
    if depth == "full":
        return np.arange(min(int(contents.episodes.length[positions].sum()), num_rows))
    count = len(contents.episodes)
    sampled = np.linspace(0, count - 1, min(count, _SAMPLED_EPISODES)).round().astype(np.int64)
    chosen = positions[np.isin(positions, sampled)]
    first = contents.episodes.start[chosen]
    rows = np.unique(np.concatenate([first, first + contents.episodes.length[chosen] - 1]))
    return rows[rows < num_rows]


def _check_picture(
    contents: Contents, number: int, camera: str, row: int, value: Any, findings: Findings
) -> None:
    try:
        content = image_bytes(contents.root, value.as_py(), "it")
        decode_image(content, contents.features[camera], "it")
    except DatasetError as error:
        positions = contents.positions_in[number]
        starts = contents.episodes.start[positions]
        here = int(np.searchsorted(starts, row, side="right")) - 1
        findings.error(
            "picture",
            f"frame {row - starts[here]}: {error}",
            file=contents.episodes.files[number],
            episode=int(contents.episodes.index[positions[here]]),
            column=camera,
        )
