"""Writing a report's files: whole or not at all, and a refusing disk is one line."""

from pathlib import Path

from leray.errors import ConfigError
from leray.files import write_atomic


def write_report(path: Path, content: bytes) -> None:
    """Write a file of the report; an existing one is replaced as a whole.

    Raises:
        ConfigError: the disk is full or refuses the write.
    """
    try:
        write_atomic(path, content)
    except OSError as error:
        raise ConfigError(
            f"{path}: not written: {error.strerror or error}; make room, or give another "
            "--output_dir; the trials' own folders are untouched"
        ) from error
