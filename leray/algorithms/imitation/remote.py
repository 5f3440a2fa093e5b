"""RLlib's Learner over a plain torch learner and its feed, alone or as one of several."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from leray.algorithms.hub import pretrained_folder
from leray.algorithms.imitation.feed import Feed
from leray.algorithms.imitation.figures import Figures
from leray.algorithms.imitation.learner import ImitationLearner
from leray.algorithms.imitation.module import ImitationModule
from leray.algorithms.imitation.policy import ImitationPolicy
from leray.algorithms.imitation.transforms import ImageTransforms
from leray.errors import CheckpointError, LearnerError


class ImitationTorchLearner(TorchLearner):  # type: ignore[misc]
    """Reads the dataset where the updates happen; RLlib's own update path is not used.

    `open` must be called first. Every method is called on all learners alike, those that write
    files on the first one only.
    """

    learner: ImitationLearner
    """What updates the policy; there after `open`."""
    feed: Feed
    """The batches of this learner; there after `open`."""

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        if config.num_learners > 0:  # in a process of its own, which speaks only when it must
            for name in ("ray._common.deprecation", "ray.train"):
                logging.getLogger(name).setLevel(logging.ERROR)
        super().__init__(config=config, **kwargs)

    @property
    def policy(self) -> ImitationPolicy:
        """What is trained."""
        module: ImitationModule = self.module[DEFAULT_MODULE_ID]
        return module.policy

    def open(self) -> None:
        """Load the weights training starts from, and open the dataset.

        Raises:
            CheckpointError: the pretrained weights are missing, damaged or of another policy.
            ConfigError: the learners cannot share a batch.
            DatasetError: the dataset is missing or damaged.
        """
        config = self.config
        rank, learners = self._learner_index, max(1, config.num_learners)
        seed, path = config.seed or 0, self.policy.config.pretrained_path
        if path is not None:
            self.policy.load_weights(pretrained_folder(path))
        elif rank == 0:
            self.policy.load_backbones()
        if learners > 1:
            copy_from_first(list(self.policy.model.state_dict().values()))
        changes = config.dataset.image_transforms
        self.learner = ImitationLearner(
            self.policy,
            total_updates=config.total_updates,
            seed=seed,
            rank=rank,
            all_reduce=average_over_learners if learners > 1 else None,
            transforms=ImageTransforms(changes) if changes.enable else None,
        )
        self.module[DEFAULT_MODULE_ID].acting_weights = self.learner.weights
        self.feed = Feed(
            config.dataset,
            self.policy.config,
            self.policy.features,
            batch_size=config.batch_size,
            seed=seed,
            rank=rank,
            learners=learners,
            action_only=self.policy.model.action_only_updates()
            * self.policy.config.gradient_accumulation_steps,
        )

    def train(self, num_updates: int) -> None:
        """Take a number of updates."""
        for _ in range(num_updates):
            self.learner.update(self.feed)

    def report(self) -> dict[str, float]:
        """Return the mean figures since the last report, and the epoch."""
        return {**self.learner.metrics(), "train/epoch": self.feed.epoch}

    def validation_figures(self) -> Figures:
        """Return the figures of this learner's share of the held-out batches."""
        config = self.config
        return self.learner.validation_figures(
            self.feed.held_out(), rank=self._learner_index, learners=max(1, config.num_learners)
        ).cpu()

    def save_pretrained(self, folder: Path) -> None:
        """Write the policy, with the weights that act, as a checkpoint folder."""
        self._check_visible(folder)
        self.policy.save_pretrained(folder, self.learner.weights())

    def save_training_state(self, folder: Path) -> int:
        """Write all that resuming needs beside the policy's weights.

        Returns:
            Batches that were used.
        """
        self._check_visible(folder)
        self.learner.save_state(folder)
        return self.feed.used

    def load_training_state(self, folder: Path, batches: int) -> int:
        """Go back to a saved state.

        Args:
            folder: what `save_training_state` wrote.
            batches: what it returned.

        Returns:
            Updates taken up to that state.
        """
        self._check_visible(folder)
        self.learner.load_state(folder)
        self.feed.go_to(batches)
        return self.learner.num_updates

    def shutdown(self) -> None:
        """Stop reading ahead (RLlib's name)."""
        if "feed" in self.__dict__:
            self.feed.close()

    def configure_optimizers_for_module(self, *args: Any, **kwargs: Any) -> None:
        """Register nothing: the plain learner has its own optimiser (RLlib's name)."""

    def compute_loss_for_module(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse RLlib's update path (RLlib's name)."""
        raise NotImplementedError("ImitationTorchLearner updates through `train`")

    def _get_optimizer_state(self) -> dict[str, Any]:
        """Return optimiser, moving average and counters for RLlib's checkpoints."""
        return {"learner": self.learner.state().copy(), "batches": self.feed.used}

    def _set_optimizer_state(self, state: dict[str, Any]) -> None:
        """Restore what `_get_optimizer_state` returned."""
        self.learner.set_state(state["learner"])
        self.feed.go_to(state["batches"])

    def _make_modules_ddp_if_necessary(self) -> None:
        """Do nothing: the plain learner averages gradients, in one message (RLlib's name)."""

    def _map_module_to_device(self, module: Any) -> None:
        """Move the policy as a whole (RLlib's name)."""
        module[DEFAULT_MODULE_ID].policy.to(self._device)

    def _check_visible(self, folder: Path) -> None:
        if not folder.is_dir():
            raise CheckpointError(
                f"{folder} is not there on machine {self.node}, where a learner runs: keep "
                "checkpoints on a file system that all machines share"
            )


def copy_from_first(tensors: list[Tensor]) -> None:
    """Take over the first learner's tensors: what was drawn elsewhere may be rounded otherwise.

    Raises:
        LearnerError: another learner is gone.
    """
    with _together():
        for tensor in tensors:
            torch.distributed.broadcast(tensor, 0)


def average_over_learners(tensors: list[Tensor]) -> None:
    """Average tensors over all learners of the process group, in place and in one message.

    Raises:
        LearnerError: another learner is gone.
    """
    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    with _together():
        torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.detach().copy_(part.view_as(tensor))


@contextmanager
def _together() -> Iterator[None]:
    """Raise `LearnerError` where talking to the other learners fails."""
    try:
        yield
    except RuntimeError as error:  # gloo and nccl raise this, or what is derived from it
        reason = str(error).splitlines()[0].split(". ")[0]
        raise LearnerError(
            f"the learners lost each other ({reason}): go on from the last checkpoint"
        ) from error
