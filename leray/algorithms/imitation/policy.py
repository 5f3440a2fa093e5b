"""What all imitation policies share: acting with memory, and the checkpoint folder. No Ray."""

import abc
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from leray.algorithms.hub import pretrained_folder
from leray.algorithms.imitation.backbone import backbones, load_backbone
from leray.algorithms.imitation.config import ImitationPolicyConfig
from leray.algorithms.imitation.inputs import Batch, check_features, prepare
from leray.algorithms.imitation.migration import network_weights, read_processor
from leray.algorithms.imitation.normalizer import Normalizer, dataset_processor
from leray.algorithms.imitation.queues import ActionQueues, Actions, History
from leray.algorithms.pretrained import WEIGHTS_FILE, read_config, read_tensors, save_folder
from leray.algorithms.processor import Processor
from leray.data.features import Features
from leray.data.names import ACTION
from leray.errors import CheckpointError


class ImitationModel(nn.Module, abc.ABC):
    """The network of an imitation policy; everything that goes in is normalised.

    Tensors are named as in LeRobot's files, so its direct children are those of LeRobot's policy.
    """

    @abc.abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch of windows [B, T, ...], and figures to report by short name.

        Random numbers come from torch's default generator of the device.
        """

    @abc.abstractmethod
    def predict(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the actions to take from now on, [B, K, A].

        Args:
            batch: observations [B, ...], or [B, T, ...] where the policy looks at T > 1 of them.
            generator: of all random numbers, on the device.
        """

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the groups of torch's optimisers; those without own options take the preset's."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def action_only_updates(self) -> int:
        """Return how many updates at the start of training read actions and no observations."""
        return 0

    def synchronized(self) -> list[Tensor]:
        """Return buffers that learn without gradients; learners average them after each update."""
        return []

    def after_update(self, num_updates: int) -> None:
        """Do what follows an update.

        Args:
            num_updates: how many there were since the start of training.
        """


class ImitationPolicy(abc.ABC):
    """Predicts chunks of actions and plays them, for any number of environments.

    Example:
        >>> policy = load_policy(Path("outputs/.../pretrained_model"))  # doctest: +SKIP
        >>> policy.reset()  # doctest: +SKIP
        >>> action = policy.act({"observation.state": state[None]})[0]  # doctest: +SKIP

    Args:
        config: the policy's options.
        processor: features and their normalisation.
        device: where the parameters live.

    Raises:
        FeatureMismatchError: the policy cannot work with such features.
        ConfigError: options do not fit together.
    """

    config_class: ClassVar[type[ImitationPolicyConfig]]

    def __init__(
        self, config: Any, processor: Processor, device: torch.device | None = None
    ) -> None:
        check_features(processor.features, config.type)
        self.config = config
        self.processor = processor
        self.device = device or torch.device("cpu")
        self.model = self.make_model().to(self.device)
        self.normalizer = Normalizer(processor, self.device)
        self._generator = torch.Generator(self.device).manual_seed(0)
        self._history = History(config.n_obs_steps)
        self._actions = self.make_actions()

    @abc.abstractmethod
    def make_model(self) -> ImitationModel:
        """Return the network, with fresh weights."""

    def make_actions(self) -> Actions:
        """Return what plays the chunks."""
        return ActionQueues(self.config.n_action_steps)

    @classmethod
    def make_processor(
        cls, features: Features, config: Any, stats: Mapping[str, Any], *, use_imagenet_stats: bool
    ) -> Processor:
        """Return the processor for training on a dataset; see `dataset_processor`."""
        return dataset_processor(
            features, config.normalization_mapping, stats, use_imagenet_stats=use_imagenet_stats
        )

    @functools.cached_property  # looked at before every action
    def features(self) -> Features:
        """Observations the policy reads and the `action` it returns, named as they come in."""
        return self.processor.source_features

    def reset(self, envs: Sequence[int] | None = None) -> None:
        """Forget what came before in some environments, as at the start of an episode.

        Args:
            envs: their numbers; None is all.
        """
        self._history.forget(envs)
        self._actions.forget(envs)

    def act(
        self,
        observations: Mapping[str, NDArray[Any]],
        *,
        deterministic: bool = True,
        envs: Sequence[int] | None = None,
    ) -> NDArray[Any]:
        """Return one action per environment in its units, [N, A]; see `Policy.act`."""
        seen = {key: observations[key] for key in self.features if key != ACTION}
        envs = range(len(next(iter(seen.values())))) if envs is None else envs
        self._history.add(envs, seen)
        if due := self._actions.due(envs):
            self._actions.add(due, self.predict(self._history.windows(due)))
        return self._actions.take(envs)

    def predict(self, windows: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return chunks of actions in the environment's units, [N, K, A].

        Args:
            windows: raw observations [N, n_obs_steps, ...] by feature name.
        """
        if self.config.n_obs_steps == 1:
            windows = {key: values[:, 0] for key, values in windows.items()}
        with torch.inference_mode(), self.precision(), _evaluating(self.model):
            batch = self.prepare(windows)
            chunk = self.model.predict(batch, self._generator).to(torch.float32)
            return np.asarray(self.normalizer.inverse(ACTION, chunk).cpu().numpy())

    def prepare(
        self,
        batch: Mapping[str, NDArray[Any] | Tensor],
        transforms: Callable[[Tensor], Tensor] | None = None,
    ) -> Batch:
        """Return the normalised tensors of a batch; see `inputs.prepare`."""
        named = self.processor.renamed(batch)
        return prepare(named, self.processor.features, self.normalizer, self.device, transforms)

    def precision(self) -> Any:
        """Return the context in which the network computes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.use_amp)

    def seed(self, seed: int) -> None:
        """Restart the random numbers that acting draws."""
        self._generator.manual_seed(seed)

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        if device != self.device:
            self.device = device
            self.model.to(device)
            self.normalizer = Normalizer(self.processor, device)
            self._generator = torch.Generator(device).manual_seed(0)

    def save_pretrained(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write `config.json`, `model.safetensors` and the processors.

        Args:
            folder: made if it is not there.
            weights: instead of the model's own, as a moving average of them.
        """
        tensors = {**self.model.state_dict(), **(weights or {})}
        save_folder(folder, self.config, self.processor, tensors)

    @classmethod
    def from_pretrained(cls, path: str | Path, device: torch.device | None = None) -> Self:
        """Read a checkpoint, ours or LeRobot's, those of its old versions too.

        Args:
            path: the folder, or a policy on the Hub as `user/name`.
            device: where the parameters live.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the config.
        """
        folder = pretrained_folder(path)
        config, features, _ = read_config(folder, cls.config_class)
        processor = read_processor(folder, features, config.normalization_mapping)
        policy = cls(config, processor, device)
        policy.load_weights(folder)
        return policy

    def load_backbones(self) -> None:
        """Let vision backbones start from the weights that the options name, if they name any.

        It is for training from scratch, and warns where there are no such weights.

        Raises:
            ConfigError: there are no weights of that name, or they are of another network.
            CheckpointError: the file that the options name is missing or damaged.
        """
        weights = getattr(self.config, "pretrained_backbone_weights", None)
        if weights is None:
            return
        kind, path = self.config.vision_backbone, self.config.pretrained_backbone_path
        for backbone in backbones(self.model):
            if not load_backbone(backbone, weights, kind, path):
                return

    def load_weights(self, folder: Path) -> None:
        """Take over all parameters from a checkpoint folder.

        Raises:
            CheckpointError: the file is missing or damaged, or names or shapes differ.
        """
        stored = network_weights(read_tensors(folder, self.device))
        own = self.model.state_dict()
        lacking, unknown = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
        other = [
            f"{k} {list(stored[k].shape)} where {list(own[k].shape)} is needed"
            for k in own
            if k in stored and stored[k].shape != own[k].shape
        ]
        if lacking or unknown or other:
            parts = {"missing": lacking, "unknown": unknown, "of another shape": other}
            listed = "; ".join(
                f"{what}: {', '.join(names)}" for what, names in parts.items() if names
            )
            raise CheckpointError(
                f"{folder / WEIGHTS_FILE} does not fit this policy: {listed}; use the options the "
                "checkpoint was trained with"
            )
        self.model.load_state_dict(stored)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout and random crops off, and back as they were."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
