"""From a policy's name on the Hub to a folder on this machine."""

import re
from collections.abc import Sequence
from pathlib import Path

from leray.errors import CheckpointError, DatasetError

FILES = (
    "config.json",
    "model.safetensors",
    "adapter_config.json",
    "policy_preprocessor*",
    "policy_postprocessor*",
)
"""What is read of a policy's repo, as patterns."""

_REPO_ID = re.compile(r"[\w-][\w.-]*/[\w.-]*[\w-]")


def pretrained_folder(path_or_repo_id: str | Path, revision: str | None = None) -> Path:
    """Return the local folder of a policy: itself, or that of a repo on the Hub.

    What exists here is taken to be a folder; `user/name` that does not is a repo, whose files go to
    the cache of `huggingface_hub` (`HF_HOME`). Its token and its offline mode (`HF_HUB_OFFLINE`)
    hold; without network, what was downloaded before is used.

    Args:
        path_or_repo_id: a folder, or `user/name`.
        revision: branch, tag or commit of the repo; by default the branch main.

    Raises:
        CheckpointError: there is neither such a folder nor such a repo, or it cannot be had.
    """
    folder = Path(path_or_repo_id).expanduser()
    if folder.is_dir():
        return folder
    name = str(path_or_repo_id)
    if folder.exists() or not _REPO_ID.fullmatch(name):
        raise CheckpointError(
            f"{name}: no such folder; give a folder that holds a policy, or a policy on the Hub "
            "as user/name"
        )
    try:
        found = download(name, FILES, revision)
    except CheckpointError as error:
        raise CheckpointError(f"{error} (there is no folder {name} either)") from error
    if not (found / "config.json").is_file():
        raise CheckpointError(f"{name} on the Hub is no policy: it has no config.json")
    return found


def download(repo_id: str, files: Sequence[str], revision: str | None = None) -> Path:
    """Bring some files of a model repo into the cache, unless they are there.

    Args:
        repo_id: `user/name`.
        files: their names, or patterns.
        revision: branch, tag or commit.

    Returns:
        The folder they are in.

    Raises:
        CheckpointError: the repo does not exist or may not be read, or there is no network and
            nothing of it is here; one line says which.
    """
    from huggingface_hub import constants, snapshot_download  # only where something is asked for

    from leray.data.hub.errors import check_repo_id, hub_errors_told

    try:
        check_repo_id(repo_id)
        with hub_errors_told(repo_id, folder=Path(constants.HF_HUB_CACHE), kind="model"):
            folder = snapshot_download(
                repo_id, revision=revision, allow_patterns=list(files), library_name="leray"
            )
    except DatasetError as error:
        raise CheckpointError(str(error)) from error
    return Path(folder)
