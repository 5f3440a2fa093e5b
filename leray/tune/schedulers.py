"""From the options of a scheduler to Ray Tune's: which trials go on, and with what."""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.schedulers.pb2 import PB2

from leray.platform.config import TrainConfig
from leray.tune.config import SchedulerConfig, SweepConfig, trial_config
from leray.tune.space import FIXED, VALUES, Listed, Range, Space


def make_scheduler(sweep: SweepConfig) -> TrialScheduler:
    """Return the scheduler of a sweep; it compares by the first metric, over `step`."""
    options, space = sweep.scheduler, sweep.search_space()
    common = {"time_attr": "step", "metric": sweep.metrics[0], "mode": sweep.modes[0]}
    train = trial_config(sweep, space.sample(1, sweep.seed)[0])
    makers: dict[str, Callable[[], TrialScheduler]] = {
        "none": FIFOScheduler,
        "asha": lambda: _asha(options, train, common),
        "median": lambda: _median(options, train, common),
        "pbt": lambda: _pbt(options, train, common, space),
        "pb2": lambda: _pb2(options, train, common, space),
    }
    return makers[options.type]()


def _asha(options: SchedulerConfig, train: TrainConfig, common: dict[str, Any]) -> TrialScheduler:
    return ASHAScheduler(
        **common,
        max_t=train.steps,
        grace_period=options.grace_steps or train.eval_freq,
        reduction_factor=options.reduction_factor,
    )


def _median(options: SchedulerConfig, train: TrainConfig, common: dict[str, Any]) -> TrialScheduler:
    return MedianStoppingRule(
        **common,
        grace_period=options.grace_steps or train.eval_freq,
        min_time_slice=math.inf,  # else trials without company are put aside for those that wait
    )


def _pbt(
    options: SchedulerConfig, train: TrainConfig, common: dict[str, Any], space: Space
) -> TrialScheduler:
    domains = _varied(space)
    return PopulationBasedTraining(
        **common,
        perturbation_interval=options.perturbation_steps or train.eval_freq,
        hyperparam_mutations={VALUES: {key: _mutation(d) for key, d in domains.items()}},
        quantile_fraction=options.quantile_fraction,
        resample_probability=options.resample_probability,
        custom_explore_fn=WithinDomains(domains),
        require_attrs=False,
    )


def _pb2(
    options: SchedulerConfig, train: TrainConfig, common: dict[str, Any], space: Space
) -> TrialScheduler:
    domains = _varied(space)
    bounds = {key: [d.low, d.high] for key, d in domains.items() if isinstance(d, Range)}
    return PB2(
        **common,
        perturbation_interval=options.perturbation_steps or train.eval_freq,
        hyperparam_bounds={VALUES: bounds},
        quantile_fraction=options.quantile_fraction,
        custom_explore_fn=WithinDomains(domains),
        require_attrs=False,
    )


@dataclass(frozen=True)
class WithinDomains:
    """Brings values back into their ranges, which Ray Tune's factors and rounding lead out of."""

    domains: Mapping[str, Listed | Range]

    def __call__(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return a trial's config with every value in its range."""
        values = dict(config[VALUES])
        for key, domain in self.domains.items():
            if isinstance(domain, Range):
                values[key] = domain.nearest(values[key])
        return {**config, VALUES: values}


def _varied(space: Space) -> dict[str, Listed | Range]:
    return {v.key: v.domain for v in space.variables if v.kind != FIXED}


def _mutation(domain: Listed | Range) -> list[Any] | Callable[[], Any]:
    """Return a domain as population-based training takes it: neighbours, or a way to draw."""
    return list(domain.values) if isinstance(domain, Listed) else partial(_draw, domain)


def _draw(domain: Range) -> float:
    return domain.at(random.random())
