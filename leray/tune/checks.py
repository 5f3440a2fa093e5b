"""What can be wrong with a sweep, found before anything starts."""

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from leray.algorithms.config import require
from leray.errors import ConfigError
from leray.platform.config import EVAL_METRICS, TrainConfig
from leray.platform.schema import describe, members
from leray.tune.base import SOURCE, Base
from leray.tune.space import FIXED, GRID, Space, Values, Variable

if TYPE_CHECKING:
    from leray.tune.config import SweepConfig

POPULATION = ("pbt", "pb2")
CONTINUOUS = ("uniform", "loguniform")
JUDGED = (*EVAL_METRICS, "eval/act_ms_p50", "eval/act_ms_p95", "validation/loss")
TRAINED = ("train/", "loss/", "time/", "buffer/", "validation/")
"""Beginnings of the names of figures that depend on the policy."""
CONTEXTS = 8
"""Configurations that a value is tried in, before it is said to be wrong."""


def check(sweep: "SweepConfig") -> TrainConfig:
    """Check everything that can be known before a trial starts.

    Returns:
        The training config of the first trial.

    Raises:
        ConfigError: what is wrong first, and what to do about it.
    """
    base, space = Base(sweep.train), sweep.search_space()
    for variable in space.variables:
        _check_key(variable, base)
    _check_objectives(sweep)
    _check_search(sweep, space)
    if sweep.scheduler.type in POPULATION:
        _check_population(sweep, space)
    alone = _refusal(base, {})
    for variable in space.variables:
        _check_values(sweep, space, variable, base, alone)
    first = _check_trials(sweep, space, base)
    for metric, mode in zip(sweep.metrics, sweep.modes, strict=True):
        _check_metric(metric, mode, first)
    if sweep.scheduler.type != "none":
        _check_scheduler(sweep, space, first)
    if sweep.scheduler.type in POPULATION:
        _check_changeable(sweep, space, base.changeable(first.policy.type))
    return first


def _check_key(variable: Variable, base: Base) -> None:
    base.require_variable(variable.key)
    type_ = base.type_of(variable.key)
    whole = int in members(type_) and float not in members(type_)
    require(
        not (whole and variable.kind in CONTINUOUS),
        f"--space.{variable.key}: {variable.kind}: the option is {describe(type_)}; "
        f"give {'int' if variable.kind == 'uniform' else 'logint'} instead",
    )


def _check_objectives(sweep: "SweepConfig") -> None:
    metrics, modes = sweep.metrics, sweep.modes
    require(bool(metrics), "--metric=[]: give the name of a figure, or a list of some")
    require(len(set(metrics)) == len(metrics), f"--metric={metrics}: has one twice")
    for mode in modes:
        require(mode in ("max", "min"), f"--mode={mode}: allowed are max, min")
    require(
        len(modes) == len(metrics),
        f"--mode={sweep.mode}: give one of max, min for each of the {len(metrics)} metrics",
    )
    if len(metrics) > 1:
        require(
            sweep.search == "optuna",
            f"--metric={metrics}: several need --search=optuna, not {sweep.search}",
        )
        require(
            sweep.scheduler.type == "none",
            f"--scheduler.type={sweep.scheduler.type}: compares by one metric, and there are "
            f"{len(metrics)}; give --scheduler.type=none",
        )


def _check_search(sweep: "SweepConfig", space: Space) -> None:
    grid = {variable.key for variable in space.variables if variable.kind == GRID}
    require(
        bool(grid) or space.has_sampled,
        "--space: nothing varies; give at least one domain, such as "
        "batch_size: {choice: [64, 256]}",
    )
    require(
        sweep.search != "grid" or bool(grid),
        "--search=grid: the space holds no grid; write `grid:` for domains of which each value is "
        "to be tried, or give --search=random",
    )
    if sweep.search != "optuna":
        return
    require(
        space.has_sampled,
        "--search=optuna: there is nothing to choose; give a domain other than `grid`, or "
        "--search=grid",
    )
    for variable in space.variables:
        others = set(variable.when)
        mixed = others - grid if variable.kind == GRID else others & grid
        require(
            not mixed,
            f"--space.{variable.key}: with --search=optuna each configuration runs at every point "
            f"of the grid, so its condition cannot be on {', '.join(sorted(mixed))}; write "
            "`choice` instead of `grid`",
        )


def _check_population(sweep: "SweepConfig", space: Space) -> None:
    name = sweep.scheduler.type
    label = f"--scheduler.type={name}"
    require(
        sweep.search == "random",
        f"{label}: varies values by itself; give --search=random, not {sweep.search}",
    )
    require(
        sweep.num_trials >= 2,
        f"{label}: exchanges between trials; give --num_trials of 2 or more",
    )
    for variable in space.variables:
        key, kind = variable.key, variable.kind
        require(
            kind != GRID,
            f"--space.{key}: {name} varies values while trials run; write `choice` instead of "
            "`grid`",
        )
        require(
            not variable.when, f"--space.{key}: {name} cannot keep to a condition; drop its `when`"
        )
        require(
            name != "pb2" or kind in (*CONTINUOUS, FIXED),
            f"--space.{key}: {kind}: pb2 varies continuous values only; give uniform or "
            "loguniform, or --scheduler.type=pbt",
        )


def _check_changeable(sweep: "SweepConfig", space: Space, allowed: list[str]) -> None:
    for variable in space.variables:
        require(
            variable.kind == FIXED or variable.key in allowed,
            f"--space.{variable.key}: {sweep.scheduler.type} varies values while trials run, and "
            f"this one is settled when they start; allowed are {', '.join(allowed)}",
        )


def _check_values(
    sweep: "SweepConfig",
    space: Space,
    variable: Variable,
    base: Base,
    alone: ConfigError | None,
) -> None:
    """Try each value of a list, and both ends of a range, in a training config.

    Whether a value is right may depend on others of the space, so several of those are tried. What
    is wrong with the base `alone`, and not put right by the space, is told as such.
    """
    pinned = space.activating(variable.key)
    for value in variable.domain.extremes():
        first: ConfigError | None = None
        for number in range(CONTEXTS):
            error = _refusal(base, space.draw(sweep.seed, number, {**pinned, variable.key: value}))
            first = first or error
            if error is None:
                break
        else:
            if str(first) == str(alone):
                raise ConfigError(f"--train: {_reason(alone)}") from alone
            raise ConfigError(f"--space.{variable.key}: {_reason(first)}") from first


def _check_trials(sweep: "SweepConfig", space: Space, base: Base) -> TrainConfig:
    """Try the configurations as random search draws them; optuna's are of the same kind."""
    trials = space.sample(sweep.num_trials, sweep.seed)
    for values in trials:
        if error := _refusal(base, values):
            raise ConfigError(
                f"--space: {_shown(values)} do not go together: {_reason(error)}; "
                "a condition (`when`) can keep them apart"
            ) from error
    return base.config(trials[0])


def _refusal(base: Base, values: Values) -> ConfigError | None:
    try:
        base.config(values)
    except ConfigError as error:
        return error
    return None


def _reason(error: ConfigError | None) -> str:
    return str(error).removeprefix(f"{SOURCE}: ")


def _check_metric(metric: str, mode: str, first: TrainConfig) -> None:
    near = difflib.get_close_matches(metric, JUDGED, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    require(
        metric in JUDGED or metric.startswith(TRAINED),
        f"--metric={metric}: unknown figure; allowed are {', '.join(JUDGED)}, and what the policy "
        f"reports as {', '.join(TRAINED)}...{hint}",
    )
    require(
        not metric.startswith("eval/") or first.env is not None,
        f"--metric={metric}: needs an environment to judge the policy in; give "
        "--train.env.type=... --train.env.task=..., or --metric=validation/loss",
    )
    require(
        not metric.startswith("validation/") or first.validation.is_asked_for,
        f"--metric={metric}: needs episodes that are held out; give "
        "--train.validation.fraction=0.1",
    )
    require(
        "loss" not in metric or mode == "min",
        f"--mode={mode}: the sweep would look for the highest {metric}; give --mode=min",
    )


def _check_scheduler(sweep: "SweepConfig", space: Space, first: TrainConfig) -> None:
    options = sweep.scheduler
    for key in ("steps", "eval_freq"):
        require(
            all(variable.key != key for variable in space.variables),
            f"--space.{key}: --scheduler.type={options.type} compares trials of the same {key}; "
            "give it under `train`",
        )
    require(
        1 <= first.eval_freq < first.steps,
        f"--train.eval_freq={first.eval_freq}: --scheduler.type={options.type} compares trials "
        f"while they run; give 1 to less than --train.steps={first.steps}",
    )
    for name in ("grace_steps", "perturbation_steps"):
        value = getattr(options, name)
        require(
            value is None or value < first.steps,
            f"--scheduler.{name}={value}: give less than --train.steps={first.steps}",
        )


def _shown(values: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())
