"""The folder that a job gets a copy of: what is in it, and whether Ray takes it."""

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE, _dir_travel, _get_excludes

from leray.errors import ConfigError

logger = logging.getLogger(__name__)

MIB = 2**20
NAMED = 3
"""How many of the largest entries are named."""


def check_working_dir(working_dir: str | None) -> str | None:
    """Return a working directory as Ray wants it, after a look into it.

    Args:
        working_dir: a folder, the address of a zip file, or None.

    Raises:
        ConfigError: there is no such folder, it is too large, or it would break every worker.
    """
    if working_dir is None or "://" in working_dir:
        return working_dir
    folder = Path(working_dir).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(f"--working_dir={working_dir}: no such folder")
    sizes = entry_sizes(folder)
    _refuse_hidden_modules(folder, sizes)
    if sizes.total() >= GCS_STORAGE_MAX_SIZE:
        largest = ", ".join(f"{name} {n / MIB:.0f} MiB" for name, n in sizes.most_common(NAMED))
        raise ConfigError(
            f"--working_dir={working_dir}: holds {sizes.total() / MIB:.0f} MiB, Ray takes less "
            f"than {GCS_STORAGE_MAX_SIZE / MIB:.0f}; the largest are {largest}; name what the job "
            "does not need in .rayignore, written like .gitignore"
        )
    return str(folder)


def entry_sizes(folder: Path) -> Counter[str]:
    """Return the bytes of each entry of a folder, less what Ray leaves out.

    Ray packs without compression, so that these bytes are those of the package.
    """
    sizes = Counter[str]()

    def count(path: Path) -> None:
        if path.is_file():
            sizes[path.relative_to(folder).parts[0]] += path.stat().st_size

    excludes = [_get_excludes(folder, get_runtime_env_default_excludes())]
    git = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1"
    _dir_travel(folder, excludes, count, include_gitignore=git, logger=logger)
    return sizes


def _refuse_hidden_modules(folder: Path, names: Iterable[str]) -> None:
    """Refuse entries that Python would take for modules of its own.

    Workers would end, or hang, before they can say why.
    """
    for entry in (folder / name for name in names):
        is_module = entry.suffix == ".py" or (entry / "__init__.py").is_file()
        if is_module and entry.stem in sys.stdlib_module_names:
            raise ConfigError(
                f"{entry}: hides Python's own module {entry.stem} from the job's workers; "
                "rename it, or name it in .rayignore"
            )
