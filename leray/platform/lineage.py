"""What a run learned from: its dataset, told so that it can be found and compared again."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leray.errors import DatasetError
from leray.platform.sections import DatasetConfig, ValidationConfig

if TYPE_CHECKING:
    from leray.data.lerobot.reader import DatasetReader


@dataclass(frozen=True, kw_only=True)
class DatasetLineage:
    """A dataset, or some episodes of one, as MLflow keeps it."""

    context: str
    """What it is for: `training` or `validation`."""
    name: str
    """Repo id, else the folder's name."""
    digest: str
    """See `dataset_digest`."""
    source_type: str
    """`hugging_face` or `local`."""
    source: dict[str, Any]
    """`path` and `revision` (a commit) on the Hub, or the `uri` of the local folder."""
    schema: dict[str, Any]
    """Names, dtypes and shapes of the features, as MLflow's pages show them."""
    profile: dict[str, Any]
    """Counts, frame rate, robot, features, and the episodes where they are not all."""


def dataset_lineage(options: DatasetConfig, validation: ValidationConfig) -> list[DatasetLineage]:
    """Describe the dataset of a run that has been opened on this machine; the Hub is not asked.

    Reads metadata only, and looks up sizes of files; takes milliseconds to seconds.

    Returns:
        The episodes to learn from, and those held out where there are any.

    Raises:
        DatasetError: the dataset is not here, or is damaged.
    """
    from leray.data.lerobot.reader import DatasetReader

    folder, commit = _find(options)
    reader = DatasetReader.open(folder, episodes=options.episodes)
    held_out = validation.held_out(reader.episodes)
    found = []
    if held_out:
        judged = DatasetReader.open(folder, episodes=held_out)
        found.append(_describe("validation", judged, options, commit))
        kept = [number for number in reader.episodes if number not in held_out]
        reader = DatasetReader.open(folder, episodes=kept)
    return [_describe("training", reader, options, commit), *found]


def dataset_digest(reader: "DatasetReader") -> str:
    """Return 32 hex digits that are the same wherever the same episodes lie.

    They follow from the content of `meta/info.json`, of the tasks and of the episodes' metadata,
    and from names and sizes of the data files of the selected episodes; where these are not all
    episodes, also from their numbers. Videos are left out: a machine need not have them.

    Raises:
        DatasetError: a data file is missing.
    """
    root, table = reader.root, reader.metadata.episodes
    digest = hashlib.sha256()
    for path in _metadata_files(root):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    selected = set(reader.episodes)
    pairs = zip(table.index.tolist(), table.file.tolist(), strict=True)
    for name in sorted({table.files[file] for number, file in pairs if number in selected}):
        digest.update(f"{name} {_size(root / name)}\n".encode())
    if len(selected) != len(table):
        digest.update(json.dumps(reader.episodes).encode())
    return digest.hexdigest()[:32]


def _find(options: DatasetConfig) -> tuple[Path, str | None]:
    """Return the folder of a dataset, and the commit of the Hub that it is of, if it is of one."""
    from leray.data.hub.local import RECORD, Cache, lerobot_home, read_record
    from leray.data.lerobot import layout

    if options.repo_id is None:
        assert options.root is not None  # else it could not have been opened
        return options.root, None
    for folder in filter(None, (options.root, lerobot_home() / options.repo_id)):
        if (folder / layout.INFO).is_file():
            record = read_record(folder / RECORD, options.repo_id)
            return folder, None if record is None else record.commit
    cache = Cache(options.repo_id)
    versions = (*reversed(layout.VERSIONS), "main")
    for revision in versions if options.revision is None else (options.revision,):
        snapshot = cache.find(revision)
        if snapshot is not None:
            return snapshot, snapshot.name
    raise DatasetError(f"{options.repo_id} is not on this machine")


def _describe(
    context: str, reader: "DatasetReader", options: DatasetConfig, commit: str | None
) -> DatasetLineage:
    source_type, source = "local", {"uri": str(reader.root.resolve())}
    if options.repo_id is not None and commit is not None:
        source_type, source = "hugging_face", {"path": options.repo_id, "revision": commit}
    return DatasetLineage(
        context=context,
        name=(options.repo_id or reader.root.resolve().name)[:500],
        digest=dataset_digest(reader),
        source_type=source_type,
        source=source,
        schema={"mlflow_colspec": [_column(name, reader) for name in reader.features]},
        profile=_profile(reader),
    )


def _column(name: str, reader: "DatasetReader") -> dict[str, Any]:
    feature = reader.features[name]
    sizes = ", ".join(str(size) for size in feature.shape)
    return {"name": name, "type": f"{feature.dtype}[{sizes}]", "required": True}


def _profile(reader: "DatasetReader") -> dict[str, Any]:
    profile: dict[str, Any] = {
        "num_rows": reader.num_frames,
        "num_episodes": reader.num_episodes,
        "num_frames": reader.num_frames,
        "fps": reader.fps,
        "robot_type": reader.robot_type,
        "codebase_version": reader.version,
        "features": {
            name: {"dtype": each.dtype, "shape": list(each.shape), "names": each.names}
            for name, each in reader.features.items()
        },
    }
    if reader.num_episodes != len(reader.metadata.episodes):
        profile["episodes"] = reader.episodes
    return profile


def _metadata_files(root: Path) -> Iterator[Path]:
    """Yield what says which frames there are, of every format version; statistics do not."""
    for pattern in ("info.json", "tasks.*", "episodes.jsonl", "episodes/**/*.parquet"):
        yield from sorted((root / "meta").glob(pattern))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DatasetError(f"{path} is missing: {error.strerror}") from error
