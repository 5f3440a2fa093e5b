"""The RLlib Algorithm of off-policy learning: collect, store, update, publish; on two clocks."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.core import ALL_MODULES
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_TRAINED_LIFETIME,
    NUM_EPISODES,
)

from leray.algorithms.learners import on_learners
from leray.algorithms.offpolicy.learner import OffPolicyLearner
from leray.algorithms.offpolicy.pacing import Pacing
from leray.algorithms.placement.algorithm import PlacedAlgorithm
from leray.envs.fragment import Fragment
from leray.errors import EnvError

_TAG = "collect"
_WINDOW = 100
"""Episodes that running means are taken over."""
MAX_TRAINING_STEP_S = 1.0
"""How long a training step goes on towards a boundary before the caller may look around."""
STEPS_PER_TRAINING_STEP = 64
"""Environment steps between two reports to RLlib's metrics, in sync mode."""
UPDATES_PER_SYNC_STEP = 1024
"""Most updates between two looks at whether to stop."""
UPDATES_PER_ASYNC_STEP = 16
"""Most updates between two looks at what the runners have sent."""
REQUESTS_IN_FLIGHT = 2
"""Fragments asked of a runner ahead, so that it never waits for the learner."""
FETCH_TIMEOUT_S = 0.02
"""How long to wait for experience when there is nothing to learn from."""


class OffPolicyAlgorithm(PlacedAlgorithm):
    """Collects with env runners and learns from replay.

    *Sync*: each runner collects one fragment, in order, then the updates that are due are taken;
    the same seed gives the same weights. *Async*: runners collect while the learner learns, both
    held to the replay ratio by asking for no more experience than it allows.
    """

    def setup(self, config: Any) -> None:
        """Build runners and learner (RLlib's name)."""
        super().setup(config)
        options = self.config.policy_config()
        self.pacing = Pacing(
            options.utd_ratio, options.online_step_before_learning, options.critic_warmup_updates
        )
        self._random_before_learning = bool(options.random_before_learning)
        self.episodes: list[dict[str, Any]] = []
        """The newest finished episodes."""
        self.num_episodes = 0
        self.boundary: int | None = None
        """Progress (see `progress`) that a training step must not go beyond in sync mode."""
        self.stop_requested = False
        """Set from outside to end a training step early."""
        self._in_flight: dict[int, int] = {}
        self._expected: dict[int, int] = {}
        self._staleness: list[float] = []
        # not 0 if a run on the async clock ended before its first checkpoint: its steps count
        self.pacing.env_steps = self._on_learner(_recorded_steps)
        self._publish()

    def training_step(self) -> None:
        """Advance by a small batch of steps on the clock in force (RLlib's name)."""
        episodes, env_steps, updates = self.num_episodes, self.env_steps, self.pacing.updates
        if not self.config.online:
            left = None if self.boundary is None else self.boundary - self.pacing.updates
            chunk = self.config.updates_per_training_step
            self._train(chunk if left is None else max(0, min(chunk, left)))
        elif self.config.resolved_clock == "sync":
            until, began_s = self._boundary(), time.monotonic()
            due = self.pacing.updates_due
            while (self.env_steps < until or due) and not self.stop_requested:
                self._sync_step()
                due = self.pacing.updates_due  # taken before others look around
                late = time.monotonic() - began_s > MAX_TRAINING_STEP_S
                if self.boundary is not None and late and not due:
                    break
        else:
            self._async_step()
        self._log(
            self.num_episodes - episodes, self.env_steps - env_steps, self.pacing.updates - updates
        )

    @property
    def env_steps(self) -> int:
        """Environment steps taken since the start of training."""
        return self.pacing.env_steps

    @property
    def num_updates(self) -> int:
        """Updates taken since the start of training."""
        return self.pacing.updates

    @property
    def progress(self) -> int:
        """What the run's length is counted in: environment steps, or updates offline."""
        return self.env_steps if self.config.online else self.num_updates

    def report(self) -> dict[str, float]:
        """Return the run's figures under the names that every algorithm shares."""
        metrics: dict[str, float] = self._on_learner(lambda learner: learner.report())
        metrics |= self.runner_figures()
        recent = self.episodes[-_WINDOW:]
        if recent:
            metrics["train/episode_return"] = float(np.mean([e["return"] for e in recent]))
            metrics["train/episode_length"] = float(np.mean([e["length"] for e in recent]))
            success = [e["success"] for e in recent if e["success"] is not None]
            if success:
                metrics["train/success_rate"] = float(np.mean(success))
        if self._staleness:
            metrics["train/weight_staleness_updates"] = float(np.mean(self._staleness))
            self._staleness = []
        return metrics

    def validate(self) -> dict[str, float]:
        """Return nothing: what the losses are on held-out data does not tell how well it acts."""
        return {}

    def checkpoint_boundary(self) -> None:
        """In sync mode, end all episodes and derive what follows from seed and step alone.

        So a run that goes on and one that is resumed here do the same, whatever the environment.
        """
        if self.config.online and self.config.resolved_clock == "sync":
            step, group = self.env_steps, self.env_runner_group
            if group.local_env_runner is not None:
                group.local_env_runner.restart(step)
            if group.num_remote_env_runners():
                group.foreach_env_runner("restart", kwargs={"step": step}, local_env_runner=False)
            self._on_learner(lambda learner: learner.cut_streams())

    def save_training_state(self, folder: Path) -> dict[str, Any]:
        """Write the learner's state and return the counters."""
        self._on_learner(lambda learner: learner.save_training_state(folder))
        return {
            "env_steps": self.env_steps,
            "pacing_updates": self.pacing.updates,
            "num_episodes": self.num_episodes,
            "episodes": self.episodes[-_WINDOW:],
            "clock": self.config.resolved_clock,
        }

    def load_training_state(self, folder: Path, counters: dict[str, Any]) -> None:
        """Go back to a saved state; weights come from the pretrained path of the config."""
        exact = self.config.resolved_clock == "sync" or not self.config.online
        kept = self._on_learner(lambda learner: learner.load_training_state(folder, exact=exact))
        self.pacing.env_steps = counters["env_steps"] + kept
        self.pacing.updates = counters["pacing_updates"]
        self.num_episodes = counters["num_episodes"]
        self.episodes = counters["episodes"]
        self.checkpoint_boundary()
        self._publish()

    def save_pretrained(self, folder: Path) -> None:
        """Write the policy as a checkpoint folder."""
        self._on_learner(lambda learner: learner.policy.save_pretrained(folder))

    def acting_block(self) -> torch.Tensor:
        """Return the acting parameters as one flat block."""
        block: torch.Tensor = self._on_learner(lambda learner: learner.acting_block())
        return block

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's state and the counters (RLlib's name)."""
        state: dict[str, Any] = super().get_state(*args, **kwargs)
        state["pacing"] = [self.pacing.env_steps, self.pacing.updates]
        state["episodes"] = [self.num_episodes, self.episodes[-_WINDOW:]]
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore RLlib's state and the counters (RLlib's name)."""
        super().set_state(state)
        self.pacing.env_steps, self.pacing.updates = state["pacing"]
        self.num_episodes, self.episodes = state["episodes"]
        self._publish()

    def _boundary(self) -> int:
        """Return the environment step up to which this training step goes."""
        if self.boundary is not None:
            return self.boundary
        iteration = max(1, self.config.min_sample_timesteps_per_iteration or 1)
        left = iteration - self.env_steps % iteration
        return self.env_steps + min(STEPS_PER_TRAINING_STEP, left)

    def _sync_step(self) -> None:
        if not self.pacing.updates_due:
            self._collect()
        due = min(self.pacing.updates_due, UPDATES_PER_SYNC_STEP)
        self._train(due)
        if due:
            self._publish()

    def _collect(self) -> None:
        """Let each runner collect one fragment."""
        group = self.env_runner_group
        if group.num_remote_env_runners():
            results = group.foreach_env_runner(
                "try_sample",
                kwargs=self._request() | {"block": self._block_ref},
                local_env_runner=False,
            )
        else:
            results = [group.local_env_runner.try_sample(**self._request())]
        for result in results:
            self._receive(_unwrap(result))

    def _async_step(self) -> None:
        self._ask()
        timeout_s = 0.0 if self.pacing.updates_due else FETCH_TIMEOUT_S
        ready = self.env_runner_group.fetch_ready_async_reqs(tags=[_TAG], timeout_seconds=timeout_s)
        for runner, result in ready:
            self._in_flight[runner] = max(0, self._in_flight.get(runner, 0) - 1)
            self._receive(_unwrap(result))
        self._ask()
        due = min(self.pacing.updates_due, UPDATES_PER_ASYNC_STEP)
        self._train(due)
        if due:
            self._publish()

    def _request(self) -> dict[str, Any]:
        """Return the arguments of one call of a runner's `try_sample`."""
        learning = self.env_steps >= self.pacing.steps_before_learning
        return {
            "random_actions": self._random_before_learning and not learning,
            "version": self.pacing.updates,
        }

    def _ask(self) -> None:
        """Ask runners for their next fragments, as far as the replay ratio allows."""
        group = self.env_runner_group
        healthy = group.healthy_env_runner_ids()
        self._in_flight = {runner: self._in_flight.get(runner, 0) for runner in healthy}
        length = self.config.rollout_fragment_length
        steps = {
            runner: length * group.group_of(runner).num_envs_per_env_runner for runner in healthy
        }
        slack = REQUESTS_IN_FLIGHT * sum(steps.values())
        for _ in range(REQUESTS_IN_FLIGHT):
            for runner in healthy:
                asked = sum(self._in_flight[each] * steps[each] for each in healthy)
                free = self._in_flight[runner] < REQUESTS_IN_FLIGHT
                if free and self.pacing.steps_allowed(asked, slack) >= steps[runner]:
                    self._in_flight[runner] += group.foreach_env_runner_async(
                        "try_sample",
                        tag=_TAG,
                        kwargs=self._request() | {"block": self._block_ref},
                        remote_worker_ids=[runner],
                    )

    def _receive(self, fragments: list[Fragment]) -> None:
        """Hand experience to the learner and note what ended."""
        for fragment in fragments:
            if fragment.sequence != self._expected.get(fragment.runner, 0) and fragment.sequence:
                fragment.continues = False  # a block was lost on the way
            self._expected[fragment.runner] = fragment.sequence + 1
            self.pacing.env_steps += fragment.env_steps()
            self.episodes += fragment.statistics
            self.num_episodes += len(fragment.statistics)
            self._staleness.append(float(self.pacing.updates - fragment.policy_version))
        del self.episodes[:-_WINDOW]
        self._on_learner(lambda learner: learner.add(fragments))

    def _train(self, num_updates: int) -> None:
        if num_updates:
            self._on_learner(lambda learner: learner.train(num_updates))
            self.pacing.updates += num_updates

    def _publish(self) -> None:
        """Make the newest weights those that runners act with from their next fragment on."""
        group = self.env_runner_group
        block = self.acting_block()
        if group.local_env_runner is not None:
            group.local_env_runner.set_weights(self.pacing.updates, block)
        if group.num_remote_env_runners():
            self._block_ref = ray.put(block)

    def _log(self, episodes: int, env_steps: int, updates: int) -> None:
        """Report to RLlib's metrics, once per training step."""
        for record in self.episodes[len(self.episodes) - min(episodes, len(self.episodes)) :]:
            for key, name in ((EPISODE_RETURN_MEAN, "return"), (EPISODE_LEN_MEAN, "length")):
                self.metrics.log_value(
                    (ENV_RUNNER_RESULTS, key), record[name], reduce="mean", window=_WINDOW
                )
        log = self.metrics.log_value
        log((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED), env_steps, reduce="sum")
        log((ENV_RUNNER_RESULTS, NUM_EPISODES), episodes, reduce="sum")
        log((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), env_steps, reduce="lifetime_sum")
        trained = updates * self.config.train_batch_size_per_learner
        path = (LEARNER_RESULTS, ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME)
        log(path, trained, reduce="lifetime_sum")

    def _on_learner(self, function: Callable[[OffPolicyLearner], Any]) -> Any:
        """Run a function on the one learner, here or in its own process."""
        return on_learners(self.learner_group, function)[0]


def _recorded_steps(learner: OffPolicyLearner) -> int:
    return 0 if learner.online is None else learner.online.total_steps


def _unwrap(result: list[Fragment] | str) -> list[Fragment]:
    """Return fragments, or raise the error a runner sent instead."""
    if isinstance(result, str):
        raise EnvError(result)
    return result
