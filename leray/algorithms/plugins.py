"""Which policies and environments exist: ours, and those of installed packages."""

import importlib
from importlib.metadata import entry_points

from leray.errors import ConfigError

BUILT_IN = (
    "leray.algorithms.sac.config",
    "leray.algorithms.ppo.config",
    "leray.algorithms.appo.config",
    "leray.algorithms.bc.config",
    "leray.algorithms.act.config",
    "leray.algorithms.diffusion.config",
    "leray.algorithms.vqbet.config",
    "leray.envs.config",
)
ENTRY_POINT_GROUPS = ("leray.policies", "leray.envs")


def register_plugins() -> None:
    """Make every policy and environment kind known, ours and those of installed packages.

    Ours are the modules of `BUILT_IN`; other packages name theirs in the entry-point groups
    `leray.policies` and `leray.envs`, and loading the entry point must register the class.

    Raises:
        ConfigError: an installed plugin does not load.
    """
    for module in BUILT_IN:
        importlib.import_module(module)
    for group in ENTRY_POINT_GROUPS:
        for plugin in entry_points(group=group):
            try:
                plugin.load()
            except Exception as error:  # whatever a foreign module raises
                owner = plugin.dist.name if plugin.dist else "unknown package"
                raise ConfigError(
                    f"plugin {plugin.name} of {owner} ({plugin.value}) does not load: "
                    f"{type(error).__name__}: {error}; repair or uninstall {owner}"
                ) from error
