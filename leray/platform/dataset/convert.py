"""`leray dataset convert`: write a dataset of any version as v3.0."""

from dataclasses import dataclass
from pathlib import Path

from leray.algorithms.config import require
from leray.data.tools.convert import OLD_SUFFIX, convert
from leray.data.tools.rewriting.target import RewriteOptions
from leray.data.video.options import VideoOptions
from leray.platform.dataset.steps import Steps


@dataclass(kw_only=True)
class ConvertConfig:
    """Everything `leray dataset convert` is told."""

    root: Path | None = None
    """Local folder of the dataset (the one that holds `meta/info.json`); v2.0, v2.1, or with
    `repack` v3.0."""
    repo_id: str | None = None
    """Name of the dataset, `user/name`, looked up on this machine and then on the Hub; not used
    where `root` is given."""
    output: Path | None = None
    """New folder for the v3.0 dataset; the source stays as it is."""
    in_place: bool = False
    """Give the new dataset the name of the old one, which is kept as `<root>_old`; instead of
    `output`."""
    repack: bool = False
    """Also write a dataset anew that is v3.0 already: one row group per episode, files of the sizes
    below."""
    retime: bool = False
    """Count timestamps anew, as frame number / fps; LeRobot reads videos with no others."""
    vcodec: str | None = None
    """Encode videos anew: libsvtav1, h264, hevc, a hardware encoder, or auto. `null` copies them as
    they are, unless `g` or `crf` is given (then libsvtav1)."""
    g: int | None = None
    """Encode videos anew with this distance of key frames: low for fast random access. `null` takes
    2 where they are encoded."""
    crf: int | None = None
    """Encode videos anew with this quality, low is better. `null` takes 30 where they are encoded.
    """
    data_files_size_in_mb: int | None = None
    """Size of a data file (MiB) before the next one is begun; `null` takes that of the source, or
    100."""
    video_files_size_in_mb: int | None = None
    """Size of a video file (MiB) before the next one is begun; `null` takes that of the source, or
    200."""

    def __post_init__(self) -> None:
        """Check combinations."""
        require(
            self.root is not None or self.repo_id is not None,
            "no dataset given: say --root=<folder>, or --repo_id=<user/name>",
        )
        require(
            (self.output is not None) != self.in_place,
            "give either --output=<new folder> or --in_place=true",
        )
        require(
            not self.in_place or self.root is not None,
            "--in_place=true needs --root=<folder>: what was pulled from the Hub stays as it is",
        )
        self.encoding()

    def encoding(self) -> VideoOptions | None:
        """Return how videos are encoded anew; None when they are copied.

        Raises:
            ConfigError: a value is not allowed.
        """
        given = {name: getattr(self, name) for name in ("vcodec", "g", "crf")}
        given = {name: value for name, value in given.items() if value is not None}
        return VideoOptions(**given) if given else None


def run(config: ConvertConfig) -> None:
    """Write the dataset, and say what was found on the way.

    Raises:
        LerayError: there is no such dataset, it is damaged, the output exists, or the disk is full.
    """
    root = config.root
    if root is None:
        from leray.data.hub.download import resolve

        assert config.repo_id is not None
        root = resolve(config.repo_id)
    options = RewriteOptions(
        encode=config.encoding(),
        retime=config.retime,
        data_files_size_in_mb=config.data_files_size_in_mb,
        video_files_size_in_mb=config.video_files_size_in_mb,
    )
    with Steps() as steps:
        made = convert(root, config.output, options, repack=config.repack, on_progress=steps)
    for note in made.notes:
        print(f"note: {note}")
    print(f"{made.folder}: {made.num_episodes:,} episodes, {made.num_frames:,} frames, v3.0")
    if config.in_place:
        print(f"the dataset as it was is at {root}{OLD_SUFFIX}; delete it when you are content")
