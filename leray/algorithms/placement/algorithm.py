"""What lets an RLlib algorithm place its runners and learners on nodes of several kinds."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from ray.rllib.algorithms import algorithm as rllib
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group,
    remove_placement_group,
)

from leray.algorithms.placement.groups import RunnerGroup
from leray.algorithms.placement.nodes import Ask, wait_until_placed
from leray.algorithms.placement.runners import PlacedEnvRunnerGroup
from leray.envs.config import EnvConfig
from leray.errors import ConfigError


class PlacedConfig(AlgorithmConfig):  # type: ignore[misc]
    """RLlib's config, with groups of runners and the labels of the learners' nodes.

    * `env_options`: which environment; None where RLlib's `env` says it.
    * `runner_groups`: what each group of env runners needs; none for RLlib's flat options.
    * `learner_labels`: labels of the nodes that learners run on.
    """

    env_options: EnvConfig | None
    env_config: dict[str, Any]

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)
        self.env_options = None
        self.runner_groups: list[RunnerGroup] = []
        self.learner_labels: dict[str, str] = {}

    def group_env_runners(self, groups: Sequence[RunnerGroup]) -> Self:
        """Have these groups of env runners."""
        self.runner_groups = list(groups)
        self.env_runners(num_env_runners=sum(group.num_env_runners for group in groups))
        return self

    def label_learners(self, labels: Mapping[str, str]) -> Self:
        """Have learners run on nodes with these labels only."""
        self.learner_labels = dict(labels)
        return self

    def validate(self) -> None:
        """Check the options together (RLlib's name)."""
        super().validate()
        total = sum(group.num_env_runners for group in self.runner_groups)
        if total not in (0, self.num_env_runners) and not self.in_evaluation:
            raise ConfigError(
                f"num_env_runners={self.num_env_runners}: the groups have {total}; set them by "
                "group_env_runners() alone"
            )
        if self.learner_labels and self.num_learners == 0:
            raise ConfigError(
                f"learner_labels={self.learner_labels} needs num_learners >= 1: 0 learns in the "
                "training process, wherever that is"
            )

    def for_group(self, group: RunnerGroup) -> Self:
        """Return the config that runners of a group are built with."""
        own: Self = self.copy(copy_frozen=False)
        own.num_envs_per_env_runner = group.num_envs_per_env_runner
        if group.env_kwargs:
            own.add_env_kwargs(group.env_kwargs)
        own.freeze()
        return own

    def add_env_kwargs(self, kwargs: Mapping[str, Any]) -> None:
        """Give the environment further keyword arguments."""
        if self.env_options is None:
            self.env_config = {**self.env_config, **kwargs}
        else:
            merged = {**self.env_options.kwargs, **kwargs}
            self.env_options = dataclasses.replace(self.env_options, kwargs=merged)

    def build_learner_group(self, **options: Any) -> Any:
        """Build the learners, on nodes that have what they need (RLlib's name).

        Raises:
            ConfigError: the cluster has no such nodes, and nothing that might bring some.
        """
        asks_for_more = self.learner_labels or self.custom_resources_per_learner
        if not (self.num_learners and asks_for_more and get_current_placement_group() is None):
            return super().build_learner_group(**options)
        reservation = self._reserve_learners()
        try:
            group = super().build_learner_group(placement_group=reservation, **options)
        except BaseException:
            remove_placement_group(reservation)
            raise
        group.reservation = reservation  # RLlib does not always get to letting go of it
        return group

    def learner_bundle(self) -> dict[str, float]:
        """Return the Ray resources of each learner."""
        cpus = self.num_cpus_per_learner
        if cpus == "auto":
            cpus = 0 if self.num_gpus_per_learner else 1
        bundle = {"CPU": cpus, "GPU": self.num_gpus_per_learner}
        bundle |= self.custom_resources_per_learner
        return {name: float(amount) for name, amount in bundle.items() if amount}

    def _reserve_learners(self) -> PlacementGroup:
        """Reserve room for the learners; who stops them has to let go of it."""
        count, bundle = self.num_learners, self.learner_bundle()
        ask = Ask("learners", count, bundle, self.learner_labels)
        group = placement_group(
            [bundle] * count,
            strategy=self.placement_strategy,
            bundle_label_selector=[dict(self.learner_labels)] * count,
        )
        try:
            wait_until_placed([ask], lambda timeout_s: [] if group.wait(timeout_s) else [ask])
        except BaseException:
            remove_placement_group(group)
            raise
        return group


class PlacedAlgorithm(rllib.Algorithm):  # type: ignore[misc]
    """Goes before RLlib's own algorithm among the bases of a class."""

    def setup(self, config: Any) -> None:
        """Build runners and learners where the config places them (RLlib's name)."""
        with _placed_runners():
            super().setup(config)

    def cleanup(self) -> None:
        """Let go of runners, learners and the room reserved for them (RLlib's name)."""
        learners = getattr(self, "learner_group", None)  # none where the setup failed
        reservation = getattr(learners, "reservation", None)
        try:
            super().cleanup()
        finally:
            if reservation is not None:
                remove_placement_group(reservation)

    @classmethod
    def default_resource_request(cls, config: Any) -> PlacementGroupFactory:
        """Return what Tune reserves: the bundles of all groups, with labels (RLlib's name)."""
        request = super().default_resource_request(config)
        options = cls.get_default_config().update_from_dict(config)
        return placed_request(request, options)

    def runner_figures(self) -> dict[str, float]:
        """Return how many remote runners collect, and how often one was replaced."""
        group = self.env_runner_group
        if not group.num_remote_env_runners():
            return {}
        return {
            "train/runners": float(group.num_healthy_remote_env_runners()),
            "train/runner_restarts": float(group.num_remote_worker_restarts()),
        }


def placed_request(request: PlacementGroupFactory, config: PlacedConfig) -> PlacementGroupFactory:
    """Put each group's needs, and all labels, into what RLlib would have Tune reserve.

    Args:
        request: RLlib's bundles: the training process, runners, evaluation, learners last.
        config: says what groups and learners ask for.
    """
    if not config.runner_groups and not config.learner_labels:
        return request
    bundles = request.bundles
    labels: list[dict[str, str]] = [{} for _ in bundles]
    first = 0 if request.head_bundle_is_empty else 1
    for group in config.runner_groups:
        end = first + group.num_env_runners
        bundles[first:end] = [group.needs] * group.num_env_runners
        labels[first:end] = [dict(group.labels)] * group.num_env_runners
        first = end
    if config.num_learners:
        labels[-config.num_learners :] = [dict(config.learner_labels)] * config.num_learners
    head: list[dict[str, float]] = [{}] if request.head_bundle_is_empty else []
    return PlacementGroupFactory(
        head + bundles, strategy=request.strategy, bundle_label_selector=labels
    )


@contextmanager
def _placed_runners() -> Iterator[None]:
    """Have RLlib make our group of runners: it has no option for the class of it."""
    stock = rllib.EnvRunnerGroup
    rllib.EnvRunnerGroup = PlacedEnvRunnerGroup
    try:
        yield
    finally:
        rllib.EnvRunnerGroup = stock
