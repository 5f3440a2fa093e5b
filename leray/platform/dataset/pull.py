"""`leray dataset pull`: bring a dataset of the Hugging Face Hub to this machine."""

from dataclasses import dataclass
from pathlib import Path

from leray.data.hub.download import resolve
from leray.data.lerobot.metadata import read_info


@dataclass(kw_only=True)
class PullConfig:
    """Everything `leray dataset pull` is told."""

    repo_id: str
    """Name of the dataset on the Hub, `user/name`. For private ones the token is that of
    `hf auth login` or of `$HF_TOKEN`."""
    root: Path | None = None
    """New folder to put it in, or one pulled earlier that is to gain files; `null` takes the cache
    `$HF_LEROBOT_HOME/hub`."""
    revision: str | None = None
    """Branch, tag or commit; `null` takes the newest format version that can be read."""
    episodes: list[int] | None = None
    """Download only what these episodes need; `null` takes all."""
    download_videos: bool = True
    """Download the cameras' files."""
    force_cache_sync: bool = False
    """Ask the Hub even when the dataset is here."""


def run(config: PullConfig) -> None:
    """Download what is not here yet and print where it is.

    Raises:
        DatasetError: the dataset is neither here nor can it be had.
    """
    folder = resolve(
        config.repo_id,
        root=config.root,
        revision=config.revision,
        episodes=config.episodes,
        download_videos=config.download_videos,
        force_cache_sync=config.force_cache_sync,
    )
    info = read_info(folder)
    print(
        f"{config.repo_id}: {info['codebase_version']}, {info.get('total_episodes')} episodes, "
        f"{info.get('total_frames')} frames; it is at {folder}"
    )
