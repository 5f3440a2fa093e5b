"""Where a dataset lies: a local folder, or one on any filesystem that fsspec or Arrow can reach.

Code that reads takes a `Path`. A remote folder is a `UPath`, which offers the same methods; only
opening files for Arrow and PyAV has to know the difference.
"""

import os
from pathlib import Path
from typing import Any, BinaryIO, cast

from leray.errors import DatasetError


def open_folder(root: str | os.PathLike[str], filesystem: Any = None) -> Path:
    """Return a dataset's folder as a path.

    Args:
        root: a local path, an fsspec URL such as `s3://bucket/dataset`, a `UPath`, or a path inside
            `filesystem`.
        filesystem: a `pyarrow.fs.FileSystem` or an fsspec filesystem; None for local paths and
            URLs.

    Raises:
        DatasetError: the URL's protocol is unknown or its package is not installed.
    """
    if filesystem is None and isinstance(root, Path):
        return root
    text = str(root)
    if filesystem is None and "://" not in text and isinstance(root, str):
        return Path(text)
    try:
        return cast(Path, _remote(root, filesystem))
    except (ImportError, ValueError) as error:
        raise DatasetError(
            f"{text} cannot be reached: {error}; give a local folder, or install the package"
        ) from error


def is_local(path: object) -> bool:
    """Tell whether a path can be opened by the operating system."""
    return isinstance(path, Path)


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading with random access.

    Raises:
        OSError: it is missing or cannot be read.
    """
    return cast(BinaryIO, path.open("rb"))


def _remote(root: Any, filesystem: Any) -> Any:
    from upath import UPath
    from upath.registry import available_implementations

    if filesystem is None:
        path = UPath(root)
        if path.protocol in ("", "file", "local"):
            return Path(path.path)
        _ = path.fs  # says now whether the protocol's package is there
        return path
    import pyarrow.fs
    from fsspec.implementations.local import LocalFileSystem

    if isinstance(filesystem, pyarrow.fs.LocalFileSystem | LocalFileSystem):
        return Path(root)
    if not isinstance(filesystem, pyarrow.fs.FileSystem):
        protocol = filesystem.protocol
        name = protocol if isinstance(protocol, str) else protocol[0]
        if name in available_implementations() and not filesystem.storage_args:
            return UPath(root, protocol=name, **filesystem.storage_options)
        # One that an URL cannot tell, such as a folder of another: only the object itself will do.
        filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem))
    from leray.data.lerobot.arrow_path import PROTOCOL, ArrowPath

    return ArrowPath(str(root), protocol=PROTOCOL, filesystem=filesystem)
