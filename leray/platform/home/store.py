"""A folder in an object store or on a remote filesystem, as whole files by name.

Object stores have no rename and no folders: a file is replaced as a whole, or it is not. On a
filesystem of another kind a file that is being replaced may be seen cut short; what must not be
(`index.py`) is written twice.
"""

import errno
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from leray.errors import ConfigError

PACKAGES = {
    "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs", "gcs": "gcsfs", "gs": "gcsfs",
    "oci": "ocifs", "oss": "ossfs", "s3": "s3fs", "s3a": "s3fs", "sftp": "paramiko",
    "smb": "smbprotocol", "ssh": "paramiko", "tos": "tosfs", "webdav": "webdav4",
}  # fmt: skip
"""What has to be installed for a scheme that fsspec brings no filesystem for."""
BUCKETS = frozenset({"abfs", "abfss", "az", "gcs", "gs", "oci", "oss", "s3", "s3a", "tos"})
"""Schemes whose first part is a bucket, which is never made here, and which need no folders."""
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
    "az": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and a key",
}
CREDENTIALS |= {"s3a": CREDENTIALS["s3"], "gcs": CREDENTIALS["gs"], "abfs": CREDENTIALS["az"]}

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+([^/].*)", re.DOTALL)
_FULL = re.compile(
    r"quota|insufficient ?storage|no space left|storage ?full|\b507\b", re.IGNORECASE
)
_REFUSED = re.compile(
    r"credential|unauthorized|forbidden|access ?denied|permission|authenticat|\b40[13]\b"
    r"|InvalidAccessKeyId|SignatureDoesNotMatch|expired ?token",
    re.I,
)


def remote_url(place: str | Path) -> str | None:
    """Return the URL that a text or path means, or None where it is on this machine's disks.

    Args:
        place: for example `s3://bucket/runs/1`, or the `Path` of it, in which one of the two
            slashes is lost.
    """
    found = _URL.fullmatch(str(place))
    if found is None or found[1].lower() in ("file", "local"):
        return None
    return str(place) if "://" in str(place) else f"{found[1]}://{found[2]}"


class Store:
    """The files below one URL. Every method may raise what the filesystem raises.

    Args:
        url: where, for example `s3://bucket/runs/1`.
        filesystem: an fsspec or pyarrow filesystem in which `url` is a path; None finds the one
            that the URL's scheme asks for.

    Raises:
        ConfigError: there is no such scheme, or its package is not installed.
    """

    def __init__(self, url: str, filesystem: Any = None) -> None:
        self.url = url.rstrip("/")
        self.scheme = self.url.partition("://")[0]
        self._filesystem = _as_fsspec(filesystem) if filesystem else _open(self.url, self.scheme)
        self._root = self._filesystem._strip_protocol(self.url).rstrip("/")  # noqa: SLF001

    def read(self, name: str) -> bytes:
        """Return a file's content; `FileNotFoundError` where it is not there."""
        content: bytes = self._filesystem.cat_file(self._path(name))
        return content

    def write(self, name: str, content: bytes) -> None:
        """Put a file of this content in place of the one there is."""
        self._with_folder(name, lambda path: self._filesystem.pipe_file(path, content))

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless it is there; where the store can, no two succeed at once."""
        pipe = self._filesystem.pipe_file
        try:
            self._with_folder(name, lambda path: pipe(path, content, mode="create"))
        except FileExistsError:
            return False
        except TypeError:  # a filesystem that has no such mode
            if self._filesystem.exists(self._path(name)):
                return False
            self.write(name, content)
        return True

    def upload(self, file: Path, name: str, moved: Callable[[int], None]) -> None:
        """Copy a local file here.

        Args:
            file: the local file.
            name: what it is called here.
            moved: told from time to time how many more bytes are done, where the filesystem tells.
        """
        from fsspec.callbacks import Callback

        class Told(Callback):  # type: ignore[misc]
            def relative_update(self, inc: int = 1) -> None:
                moved(inc)

        put = self._filesystem.put_file
        self._with_folder(name, lambda path: put(str(file), path, callback=Told()))

    def download(self, name: str, file: Path) -> None:
        """Copy a file from here to the local disk."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._filesystem.get_file(self._path(name), str(file))

    def remove(self, names: Iterable[str]) -> None:
        """Delete files; those that are not there do not matter."""
        for name in names:
            try:
                self._filesystem.rm_file(self._path(name))
            except FileNotFoundError:
                continue

    def files(self, folder: str) -> list[str]:
        """Return the names of all files below a folder."""
        self._filesystem.invalidate_cache()
        try:
            found = self._filesystem.find(self._path(folder))
        except FileNotFoundError:
            return []
        return [self._name(path) for path in found]

    def top(self, folder: str = "") -> dict[str, bool]:
        """Return the names right in a folder, and whether they are files; none where it is not."""
        self._filesystem.invalidate_cache()
        path = self._path(folder)
        try:
            found = self._filesystem.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        names = {self._name(each["name"]): each["type"] == "file" for each in found}
        return {name: is_file for name, is_file in names.items() if name != folder}

    def state(self, name: str) -> str:
        """Return what changes when a file does."""
        return str(self._filesystem.ukey(self._path(name)))

    def explain(self, error: BaseException) -> str:
        """Return in one line what an error means and what to do about it."""
        said = _one_line(error)
        text, code = f"{type(error).__name__} {error}", getattr(error, "errno", None)
        scheme, bucket = self.scheme, self.url.partition("://")[2].partition("/")[0]
        if code in (errno.ENOSPC, errno.EDQUOT) or _FULL.search(text):
            return f"the store is full ({said}): free space there"
        if isinstance(error, PermissionError) or _REFUSED.search(text):
            how = CREDENTIALS.get(scheme, "its credentials")
            return (
                f"not permitted ({said}): give {how}, of someone who may read, write, list and "
                "delete there"
            )
        if isinstance(error, FileNotFoundError):
            what = "bucket" if scheme in BUCKETS else "folder"
            return f"the {what} {bucket} is not there ({said}): make it, or correct the address"
        if isinstance(error, NotImplementedError):
            return f"{scheme}:// cannot be written to: give a store such as s3://bucket/folder"
        return f"cannot be reached ({said}): check the address and the network"

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _name(self, path: str) -> str:
        return path.lstrip("/").removeprefix(self._root.lstrip("/")).strip("/")

    def _with_folder(self, name: str, write: Callable[[str], None]) -> None:
        """Write a file, making its folder where the filesystem has folders and wants one."""
        path = self._path(name)
        try:
            write(path)
        except FileNotFoundError:
            if self.scheme in BUCKETS:
                raise
            self._filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
            write(path)


def _open(url: str, scheme: str) -> Any:
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)[0]
    except ImportError as error:
        package = PACKAGES.get(scheme.lower())
        install = f"pip install {package}" if package else f"install its package ({error})"
        raise ConfigError(
            f"{url}: {scheme}:// needs a package that is missing: {install}"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"{url}: {scheme}:// is no kind of store; allowed are a folder, "
            f"{', '.join(f'{name}://' for name in sorted(PACKAGES))} (with a bucket and a folder)"
        ) from error


def _as_fsspec(filesystem: Any) -> Any:
    from fsspec import AbstractFileSystem
    from fsspec.implementations.arrow import ArrowFSWrapper

    return filesystem if isinstance(filesystem, AbstractFileSystem) else ArrowFSWrapper(filesystem)


def _one_line(error: BaseException) -> str:
    said = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
