"""From a search space to Ray Tune's search: the configurations of a sweep, in their order."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from ray import tune
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, Searcher
from ray.tune.search.optuna import OptunaSearch

from leray.tune.config import SweepConfig
from leray.tune.space import GRID, VALUES, Listed, Space, Values, Variable

STARTUP_TRIALS = 10
"""Configurations that Optuna draws at random before it learns from them; fewer in short sweeps."""
STARTUP_SHARE = 3
"""One of so many configurations is drawn at random, at most."""


@dataclass(frozen=True)
class Search:
    """What `ray.tune.Tuner` is to be given, so that it runs the trials of a sweep."""

    algorithm: Any
    """`search_alg` of the `TuneConfig`, which then has no metric, mode or limit of its own."""
    param_space: dict[str, Any]
    num_samples: int
    """Of the `TuneConfig`."""
    num_trials: int
    """How many trials that makes."""


def make_search(sweep: SweepConfig) -> Search:
    """Return the search of a sweep: each trial's config is `{"values": {key: value}}`."""
    space = sweep.search_space()
    if sweep.search == "optuna":
        return _optuna(sweep, space)
    trials = space.sample(sweep.num_trials, sweep.seed)
    return Search(
        algorithm=BasicVariantGenerator(max_concurrent=sweep.max_concurrent_trials or 0),
        param_space={VALUES: tune.grid_search(trials)},
        num_samples=1,
        num_trials=len(trials),
    )


def _optuna(sweep: SweepConfig, space: Space) -> Search:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    several = len(sweep.metrics) > 1
    metric: Any = sweep.metrics if several else sweep.metrics[0]
    mode: Any = sweep.modes if several else sweep.modes[0]
    startup = min(STARTUP_TRIALS, max(1, sweep.num_trials // STARTUP_SHARE))
    sampler = optuna.samplers.TPESampler(seed=sweep.seed, n_startup_trials=startup)
    suggested = OptunaSearch(DefineByRun(space), metric=metric, mode=mode, sampler=sampler)
    searcher: Searcher = Repeats(suggested, space)
    if sweep.max_concurrent_trials is not None:
        searcher = ConcurrencyLimiter(searcher, max_concurrent=sweep.max_concurrent_trials)
    total = sweep.num_trials * len(space.points())
    return Search(searcher, param_space={}, num_samples=total, num_trials=total)


@dataclass(frozen=True)
class DefineByRun:
    """Asks Optuna for the values of a space, one after the other, so that conditions can hold.

    Values of lists are asked for by their number: Optuna takes plain numbers and text only.
    """

    space: Space

    def __call__(self, trial: optuna.Trial) -> None:
        """Ask for every active value that is not of the grid."""

        def choose(variable: Variable) -> Any:
            domain, key = variable.domain, variable.key
            if variable.kind == GRID:
                return domain.at(0.0)
            if isinstance(domain, Listed):
                return domain.values[trial.suggest_categorical(key, range(len(domain.values)))]
            suggest: Any = trial.suggest_int if domain.is_whole else trial.suggest_float
            return suggest(key, domain.low, domain.high, log=domain.is_log)

        self.space.fill(choose)

    def values(self, suggested: Mapping[str, Any], point: Mapping[str, Any]) -> Values:
        """Return the values of a trial.

        Args:
            suggested: what was asked for.
            point: values of the grid.
        """

        def choose(variable: Variable) -> Any:
            domain, key = variable.domain, variable.key
            if key in point:
                return point[key]
            return domain.values[suggested[key]] if isinstance(domain, Listed) else suggested[key]

        return self.space.fill(choose)


@dataclass
class _Group:
    """The trials of one suggestion: one at each point of the grid."""

    suggested: dict[str, Any]
    waiting: list[Values]
    """Points that no trial has been started for."""
    running: set[str] = field(default_factory=set)
    scores: list[list[float]] = field(default_factory=list)
    """The metrics of each trial that ended with them."""


class Repeats(Searcher):  # type: ignore[misc]
    """Runs each suggestion of a searcher at every point of the grid, and reports the mean.

    A trial counts with the figures it ended with, also where a scheduler stopped it early. One that
    failed, or has no finite figures, is left out of the mean; where all are, the suggestion failed.
    What trials report on the way is not passed on: Optuna's pruning is not in use.

    Args:
        searcher: makes the suggestions; it is saved and restored beside this one.
        space: what is searched.
    """

    def __init__(self, searcher: OptunaSearch, space: Space) -> None:
        super().__init__(metric=searcher.metric, mode=searcher.mode)
        self.searcher = searcher
        self._asked = DefineByRun(space)
        self._points = space.points()
        self._groups: dict[str, _Group] = {}
        self._group_of: dict[str, str] = {}
        self._open: str | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the config of a trial (Ray Tune's name)."""
        if self._open is None:
            suggested = self.searcher.suggest(trial_id)
            self._groups[trial_id] = _Group(suggested, list(self._points))
            self._open = trial_id
        group = self._groups[self._open]
        self._group_of[trial_id] = self._open
        group.running.add(trial_id)
        point = group.waiting.pop(0)
        if not group.waiting:
            self._open = None
        return {VALUES: self._asked.values(group.suggested, point)}

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002 - Ray Tune's signature
    ) -> None:
        """Note the score of a trial; the last of its group makes it known (Ray Tune's name)."""
        first = self._group_of.pop(trial_id, None)
        if first is None:
            return
        group = self._groups[first]
        group.running.remove(trial_id)
        score = None if error else self._score(result or {})
        if score is not None:
            group.scores.append(score)
        if not group.running and not group.waiting:
            del self._groups[first]
            self._conclude(first, group.scores)

    def _conclude(self, first: str, scores: Sequence[Sequence[float]]) -> None:
        if not scores:
            self.searcher.on_trial_complete(first, error=True)
            return
        means = [sum(values) / len(values) for values in zip(*scores, strict=True)]
        result = dict(zip(self._names(), means, strict=True))
        self.searcher.on_trial_complete(first, result=result)

    def _score(self, result: Mapping[str, Any]) -> list[float] | None:
        figures = [float(result.get(name, math.nan)) for name in self._names()]
        return figures if all(math.isfinite(figure) for figure in figures) else None

    def _names(self) -> list[str]:
        return self.metric if isinstance(self.metric, list) else [self.metric]

    def get_state(self) -> dict[str, Any]:
        """Return everything but the searcher, which is saved by itself (Ray Tune's name)."""
        return {name: value for name, value in self.__dict__.items() if name != "searcher"}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over what `get_state` returned (Ray Tune's name)."""
        self.__dict__.update(state)

    def save(self, checkpoint_path: str) -> None:
        """Save the searcher (Ray Tune's name)."""
        self.searcher.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Restore the searcher (Ray Tune's name)."""
        self.searcher.restore(checkpoint_path)
