"""RLlib's Learner over a plain torch learner, its replay and its sampler."""

from pathlib import Path
from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner

from leray.algorithms.offpolicy.module import PolicyModule
from leray.algorithms.offpolicy.state import load_state, save_state
from leray.algorithms.replay.dataset import replay_from_dataset
from leray.algorithms.replay.hindsight import Hindsight
from leray.algorithms.replay.ring import ReplayBuffer
from leray.algorithms.replay.sampler import ReplaySampler
from leray.data.lerobot.reader import DatasetReader
from leray.envs.fragment import Fragment

Metrics = dict[str, float]


class OffPolicyLearner(TorchLearner):  # type: ignore[misc]
    """Keeps experience where the updates happen: fragments come in once, batches never travel.

    RLlib's optimisers, connectors and batches are not used; `train` is the update.
    """

    def build(self) -> None:
        """Build policy, replay, sampler and plain learner (RLlib's name)."""
        super().build()
        config = self.config
        module: PolicyModule = self.module[DEFAULT_MODULE_ID]
        self.policy = module.policy
        options = config.policy_config()
        seed = config.seed or 0
        self.policy.initialize(torch.Generator().manual_seed(seed))
        if options.pretrained_path is not None:
            self.policy.start_from(Path(options.pretrained_path))
        folder = None if config.replay_folder is None else Path(config.replay_folder)
        self.online = self._online_replay(options.online_buffer_capacity, folder)
        self.offline = self._offline_replay(options.offline_buffer_capacity, folder)
        self._dataset_steps = 0 if self.offline is None else self.offline.total_steps
        self.sampler = ReplaySampler(
            self.online,
            self.offline,
            batch_size=config.train_batch_size_per_learner,
            online_ratio=options.online_ratio,
            n_step=options.n_step,
            discount=options.discount,
            seed=seed + 1,
            device=self._device,
            hindsight=self._hindsight(options),
        )
        self.learner = self.policy.make_learner(
            batch_size=config.train_batch_size_per_learner, seed=seed + 2
        )

    def add(self, fragments: list[Fragment]) -> None:
        """Append experience; steps of human intervention also go to the offline replay."""
        for fragment in fragments:
            if self.online is not None:
                self.online.add(fragment)
            for cut in fragment.interventions():
                self._offline_for_interventions().add(cut)

    def train(self, num_updates: int) -> None:
        """Take a number of updates, each on a fresh batch."""
        for _ in range(num_updates):
            self.learner.update(self.sampler.sample())

    def report(self) -> Metrics:
        """Return losses of the last update, and the sizes of the buffers."""
        metrics: Metrics = self.learner.metrics()
        metrics["buffer/online"] = 0 if self.online is None else len(self.online)
        metrics["buffer/offline"] = 0 if self.offline is None else len(self.offline)
        return metrics

    @property
    def num_updates(self) -> int:
        """Updates taken since the start of training."""
        return int(self.learner.num_updates)

    def acting_block(self) -> torch.Tensor:
        """Return a copy of the parameters that env runners need, on the CPU."""
        block: torch.Tensor = self.policy.acting_block().detach().cpu().clone()
        return block

    def cut_streams(self) -> None:
        """Let all running episodes end here: every environment starts anew."""
        if self.online is not None:
            self.online.close_streams()

    def save_training_state(self, folder: Path) -> None:
        """Write all that resuming needs beside the policy's weights; see `state.py`."""
        save_state(self, folder)

    def load_training_state(self, folder: Path, *, exact: bool) -> int:
        """Go back to a saved state.

        Args:
            folder: what `save_training_state` wrote.
            exact: also take back experience that was added since; otherwise it is kept.

        Returns:
            Steps of experience that were kept beyond the saved state.
        """
        return load_state(self, folder, exact=exact)

    def configure_optimizers_for_module(self, *args: Any, **kwargs: Any) -> None:
        """Register nothing: the plain learner has its own optimisers (RLlib's name)."""

    def compute_loss_for_module(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse RLlib's update path (RLlib's name)."""
        raise NotImplementedError("OffPolicyLearner updates through `train`")

    def _get_optimizer_state(self) -> dict[str, Any]:
        """Return optimisers, counters, randomness and in-memory replay for RLlib's checkpoints."""
        state: dict[str, Any] = {
            "learner": {
                key: value.cpu().numpy() for key, value in self.learner.state_dict().items()
            },
            "sampler": self.sampler.state_dict(),
        }
        if self.online is not None:
            state["online"] = self.online.live_columns()
        if self.offline is not None and self.offline.total_steps > self._dataset_steps:
            state["offline"] = self.offline.live_columns()  # else the dataset holds it all
        return state

    def _set_optimizer_state(self, state: dict[str, Any]) -> None:
        """Restore what `_get_optimizer_state` returned."""
        self.policy.refresh()
        tensors = {key: torch.as_tensor(value) for key, value in state["learner"].items()}
        self.learner.load_state_dict(tensors)
        self.sampler.load_state_dict(state["sampler"])
        if self.online is not None and "online" in state:
            self.online.load_columns(state["online"])
        if "offline" in state:
            self._offline_for_interventions().load_columns(state["offline"])

    def _map_module_to_device(self, module: Any) -> None:
        """Move the policy and its buffers together (RLlib's name)."""
        module[DEFAULT_MODULE_ID].place(self._device)

    def _hindsight(self, options: Any) -> Hindsight | None:
        """Return what relabels goals, where the policy asks for it and the environment can."""
        task = self.config.goal_task() if options.her_ratio > 0 else None
        if task is None:
            return None
        return Hindsight(
            task, ratio=options.her_ratio, n_step=options.n_step, discount=options.discount
        )

    def _online_replay(self, capacity: int, folder: Path | None) -> ReplayBuffer | None:
        if not self.config.online:
            return None
        return ReplayBuffer(
            self.policy.features,
            capacity,
            folder=None if folder is None else folder / "online",
            slack=self.config.replay_slack,
        )

    def _offline_for_interventions(self) -> ReplayBuffer:
        """Return the offline replay; without a dataset, it begins with the first intervention."""
        if self.offline is None:
            folder = self.config.replay_folder
            self.offline = ReplayBuffer(
                self.policy.features,
                self.config.policy_config().offline_buffer_capacity,
                folder=None if folder is None else Path(folder) / "offline",
            )
            self.sampler.offline = self.offline
        return self.offline

    def _offline_replay(self, capacity: int, folder: Path | None) -> ReplayBuffer | None:
        if self.config.dataset_root is None:
            if folder is None or not (folder / "offline" / "layout.json").exists():
                return None
            return ReplayBuffer(self.policy.features, capacity, folder=folder / "offline")
        reader = DatasetReader.open(
            Path(self.config.dataset_root), episodes=self.config.dataset_episodes
        )
        return replay_from_dataset(
            reader,
            self.policy.features,
            capacity=capacity,
            folder=None if folder is None else folder / "offline",
        )
