"""What goes wrong with the Hub, told in one line that says what to do."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from leray.errors import DatasetError

CLIENT_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
"""Base of the HTTP client's errors; which client that is depends on huggingface_hub's version."""

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPO_ID = re.compile(rf"{_PART}(?:/{_PART})?")
_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"
_TRY_LATER = frozenset({408, 429, 500, 502, 503, 504})
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class HubUnreachableError(DatasetError):
    """The Hub gave no answer: offline mode, no network, or trouble on its side."""


def check_repo_id(repo_id: str) -> None:
    """Check the form of a dataset's name on the Hub.

    Raises:
        DatasetError: it is not `user/name`, or holds signs that are not allowed.
    """
    if not _REPO_ID.fullmatch(repo_id) or any(part in repo_id for part in ("--", "..")):
        raise DatasetError(
            f"{repo_id!r} is no repo id: write user/name with letters, digits, '_', '-' and '.', "
            "the last two only single and inside, up to 96 signs each"
        )


@contextmanager
def hub_errors_told(
    repo_id: str, *, folder: Path | None = None, kind: str = "dataset"
) -> Iterator[None]:
    """Turn every error of `huggingface_hub` calls in the block into one of ours.

    Args:
        repo_id: the dataset or model that is asked for.
        folder: where files are being written, if any are.
        kind: `dataset` or `model`.

    Raises:
        HubUnreachableError: there is no answer; trying again may help.
        DatasetError: the Hub refuses, or the files cannot be stored.
    """
    try:
        yield
    except (CLIENT_ERROR, OSError, EntryNotFoundError, RuntimeError, ValueError) as error:
        # A file that could not be had or sent: why is the cause.
        wrapped = isinstance(error, (LocalEntryNotFoundError, RuntimeError))
        cause = error.__cause__
        known = wrapped and isinstance(cause, (CLIENT_ERROR, OSError))
        raise _told(cause if known and cause else error, repo_id, folder, kind) from error


def _told(error: BaseException, repo_id: str, folder: Path | None, kind: str) -> DatasetError:
    if isinstance(error, HfHubHTTPError):
        return _refused(error, repo_id, kind)
    if isinstance(error, OfflineModeIsEnabled):
        return HubUnreachableError(f"{repo_id}: offline mode is on; unset HF_HUB_OFFLINE")
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return DatasetError(f"{repo_id}: no space left at {folder}; free some and try again")
    if isinstance(error, (LocalEntryNotFoundError, CLIENT_ERROR)):
        return HubUnreachableError(
            f"{repo_id}: {constants.ENDPOINT} does not answer ({_first_line(error)}); "
            "check the network and try again, what has arrived is kept"
        )
    if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
        return DatasetError(f"{repo_id}: {folder} is not writable; give another folder")
    return DatasetError(
        f"{repo_id}: the transfer failed ({_first_line(error)}); "
        "try again, what has arrived is kept"
    )


def _refused(error: HfHubHTTPError, repo_id: str, kind: str) -> DatasetError:
    status = error.response.status_code
    if status in _TRY_LATER:
        return HubUnreachableError(f"{repo_id}: the Hub answered {status}; try again later")
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
        return DatasetError(f"{repo_id} is gated: ask for access at {page}, then {_LOG_IN}")
    if isinstance(error, RevisionNotFoundError):
        return DatasetError(f"{repo_id} has no such revision")
    if isinstance(error, RepositoryNotFoundError):
        return DatasetError(
            f"there is no {kind} {repo_id} on the Hub that you may see: check the name, "
            f"or {_LOG_IN} if it is private"
        )
    if status == 401:
        return DatasetError(f"{repo_id}: the Hub does not accept the token; {_LOG_IN}")
    if status == 403:
        return DatasetError(
            f"{repo_id}: the Hub forbids this (403); use a token with access to the repo, "
            "for a push one that may write"
        )
    return DatasetError(f"{repo_id}: the Hub refused ({_first_line(error)})")


def _first_line(error: BaseException) -> str:
    text = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]
