"""`leray dataset push`: publish a dataset folder on the Hugging Face Hub."""

from dataclasses import dataclass, field
from pathlib import Path

from leray.data.hub.local import lerobot_home
from leray.data.hub.upload import push


@dataclass(kw_only=True)
class PushConfig:
    """Everything `leray dataset push` is told."""

    repo_id: str
    """Name of the dataset on the Hub, `user/name`; the repo is made if there is none. The token is
    that of `hf auth login` or of `$HF_TOKEN`."""
    root: Path | None = None
    """Folder of the dataset; `null` takes `$HF_LEROBOT_HOME/<repo_id>`."""
    private: bool = False
    """Make the repo private; a repo that is already public is refused."""
    branch: str | None = None
    """Branch to commit to; `null` takes `main`."""
    tags: list[str] = field(default_factory=list)
    """Tags of the dataset card, besides LeRobot and leray."""
    license: str = "apache-2.0"
    """Licence on the dataset card, by the Hub's identifier."""
    push_videos: bool = True
    """Publish the cameras' files; without, those on the Hub stay as they are."""
    allow_patterns: list[str] | None = None
    """Publish only files that match one of these, such as `[meta/*]`, and remove none; `null`
    publishes the whole dataset, and files that it has no more leave the branch."""
    commit_message: str | None = None
    """First line of the commit; `null` tells the number of episodes and frames."""


def run(config: PushConfig) -> None:
    """Publish the dataset and print where it is.

    Raises:
        DatasetError: the folder holds no readable, whole dataset, or the Hub refuses.
    """
    address = push(
        config.root or lerobot_home() / config.repo_id,
        config.repo_id,
        private=config.private,
        branch=config.branch,
        tags=config.tags,
        license=config.license,
        push_videos=config.push_videos,
        allow_patterns=config.allow_patterns,
        commit_message=config.commit_message,
    )
    print(f"{config.repo_id} is at {address}")
