"""The options of `ray start`, which are KubeRay's `rayStartParams` too."""

import difflib
import functools


@functools.cache
def start_options() -> frozenset[str]:
    """Return the options of the installed Ray's `ray start`; empty where it does not tell."""
    try:
        from ray.scripts.scripts import start
    except ImportError:
        return frozenset()
    names = (name for each in start.params for name in (*each.opts, *each.secondary_opts))
    return frozenset(name.removeprefix("--") for name in names)


def option_problem(name: str) -> str | None:
    """Return what is wrong with the name of an option, or None."""
    known = start_options()
    if not known or name in known:
        return None
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else "`ray start --help` lists all"
    return f"{name}: no option of `ray start`; {hint}"
