"""RLlib's group of env runners, with runners that differ in what they need and where they run."""

import logging
import time
from typing import Any

import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.util.placement_group import get_current_placement_group

from leray.algorithms.placement.groups import RunnerGroup
from leray.algorithms.placement.nodes import Ask, wait_until_placed
from leray.errors import FeatureMismatchError

logger = logging.getLogger(__name__)

PROBE_EVERY_S = 1.0
"""How often lost runners are asked whether they are back."""
PROBE_TIMEOUT_S = 0.5
"""How long the run may be held up by asking."""


class PlacedEnvRunnerGroup(EnvRunnerGroup):  # type: ignore[misc]
    """Has as many kinds of runners as its config's `runner_groups` says, or one if it says none.

    RLlib knows one kind of runner; all that is taken from the inside of its class is here. Ray
    starts a lost runner again with what it was made with, so on a node of the same kind. None of
    them is waited for while others run.
    """

    _remote_args: dict[str, Any]

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any) -> None:
        self._is_grouped = bool(config.runner_groups) and not config.in_evaluation
        flat = RunnerGroup(
            name="env runners",
            num_env_runners=max(1, config.num_env_runners),
            num_envs_per_env_runner=config.num_envs_per_env_runner,
            num_cpus=config.num_cpus_per_env_runner,
            num_gpus=config.num_gpus_per_env_runner,
            resources=dict(config.custom_resources_per_env_runner),
        )
        self.groups: list[RunnerGroup] = list(config.runner_groups) if self._is_grouped else [flat]
        """What each kind of runner needs."""
        self._owners = [each for each in self.groups for _ in range(each.num_env_runners)]
        self._configs: dict[str, ray.ObjectRef] = {}
        self._lost: set[int] = set()
        self._probed_s = 0.0
        super().__init__(config=config, **kwargs)

    def group_of(self, runner: int) -> RunnerGroup:
        """Return the group of a remote runner; they are numbered from 1, group by group."""
        return self._owners[runner - 1]

    def add_workers(self, num_workers: int, *, validate: bool = False) -> None:
        """Start remote runners and wait until all of them have found a node (RLlib's name).

        Raises:
            ConfigError: the cluster has no node for a group, and nothing that might bring one.
            FeatureMismatchError: a group's environment is not like that of the others.
        """
        super().add_workers(num_workers)
        if num_workers and get_current_placement_group() is None:  # else Tune found the nodes
            self._wait_for_nodes()
        super().add_workers(0, validate=validate)
        self._check_spaces()

    def probe_unhealthy_env_runners(self, timeout_seconds: float | None = None) -> list[int]:
        """Look, now and then, whether lost runners are back (RLlib's name).

        Returns:
            The runners that are back and need the present weights.
        """
        now_s = time.monotonic()
        if now_s - self._probed_s < PROBE_EVERY_S:
            return []
        self._probed_s = now_s
        ids = set(self._worker_manager.actor_ids())
        lost = ids - set(self.healthy_env_runner_ids())
        if lost - self._lost:
            self._tell(lost - self._lost, "lost, they return when a node takes them")
        restored: list[int] = super().probe_unhealthy_env_runners(PROBE_TIMEOUT_S)
        self._lost = lost - set(restored)
        if restored:
            self._tell(set(restored), "are back")
        return restored

    def _make_worker(self, *, worker_index: int, config: Any, **kwargs: Any) -> Any:
        """Make a runner with what its group needs; RLlib makes all of them alike."""
        flat = self._remote_args
        if self._is_grouped and worker_index > 0:
            group = self.group_of(worker_index)
            config = self._config_of(group)
            self._remote_args = flat | {
                "num_cpus": group.num_cpus,
                "num_gpus": group.num_gpus,
                "resources": dict(group.resources),
            }
            if get_current_placement_group() is None:  # else the bundle is on such a node
                self._remote_args["label_selector"] = dict(group.labels)
        try:
            return super()._make_worker(worker_index=worker_index, config=config, **kwargs)
        finally:
            self._remote_args = flat

    def _config_of(self, group: RunnerGroup) -> ray.ObjectRef:
        if group.name not in self._configs:
            self._configs[group.name] = ray.put(self._remote_config.for_group(group))
        return self._configs[group.name]

    def _title(self, group: RunnerGroup) -> str:
        return f"runner group {group.name}" if self._is_grouped else group.name

    def _wait_for_nodes(self) -> None:
        actors = self._worker_manager.actors()
        waiting = {actor.ping.remote(): runner for runner, actor in actors.items()}
        asks = {
            group.name: Ask(self._title(group), group.num_env_runners, group.needs, group.labels)
            for group in self.groups
        }

        def pending(timeout_s: float) -> list[Ask]:
            ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=timeout_s)
            for ping in ready:  # or an error, which RLlib's validation then meets
                del waiting[ping]
            missing = {self.group_of(runner).name for runner in waiting.values()}
            return [ask for name, ask in asks.items() if name in missing]

        try:
            wait_until_placed(list(asks.values()), pending)
        except Exception:
            self._worker_manager.clear()
            raise

    def _check_spaces(self) -> None:
        """Compare the environments of groups, of which one may have other keyword arguments."""
        if not any(group.env_kwargs for group in self.groups):
            return
        runners = [self._owners.index(group) + 1 for group in self.groups]
        spaces = self.foreach_env_runner(
            lambda runner: (runner.worker_index, runner.get_spaces()[INPUT_ENV_SINGLE_SPACES]),
            remote_worker_ids=runners,
            local_env_runner=False,
        )
        (_, expected), *others = sorted(spaces, key=lambda each: each[0])
        for runner, found in others:
            if found != expected:
                raise FeatureMismatchError(
                    f"{self._title(self.group_of(runner))} has observations and actions {found}, "
                    f"{self._title(self.groups[0])} has {expected}: let env_kwargs change neither"
                )

    def _tell(self, runners: set[int], event: str) -> None:
        """Say that runners are lost, or back."""
        alive = self.num_healthy_remote_env_runners()
        for group in self.groups:
            count = sum(self.group_of(runner) is group for runner in runners)
            if count:
                logger.warning(
                    "%s: %d of %d runners %s; %d of %d collect",
                    *(self._title(group), count, group.num_env_runners, event),
                    *(alive, len(self._owners)),
                )
