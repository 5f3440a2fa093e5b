"""The behaviour-cloning policy: observations and actions are normalised as SAC does it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leray.algorithms.bc.config import BCPolicyConfig
from leray.algorithms.bc.networks import OBSERVATION, BCModel
from leray.algorithms.imitation.inputs import Batch, RawBatch, pictures
from leray.algorithms.imitation.policy import ImitationPolicy
from leray.algorithms.imitation.queues import ActionQueues, Actions
from leray.algorithms.networks.encoder import VectorEncoder
from leray.algorithms.processor import Processor, make_processor, to_tensor
from leray.data.features import Features
from leray.data.names import ACTION
from leray.errors import FeatureMismatchError


class BCPolicy(ImitationPolicy):
    """An actor without memory; acting samples where the policy is a `gaussian` one.

    Args:
        config: the policy's options.
        processor: features and their normalisation.
        device: where the parameters live.

    Raises:
        FeatureMismatchError: a feature is a picture.
    """

    config_class: ClassVar[type[BCPolicyConfig]] = BCPolicyConfig
    model: BCModel

    def __init__(
        self, config: BCPolicyConfig, processor: Processor, device: torch.device | None = None
    ) -> None:
        features = processor.features
        if seen := pictures(features):
            raise FeatureMismatchError(
                f"{', '.join(seen)}: bc reads vectors only; use --policy.type=act or diffusion"
            )
        observations = features.select([key for key in features if key != ACTION])
        self._encoder = VectorEncoder(
            observations, {key: processor.normalizer(key) for key in observations}
        )
        super().__init__(config, processor, device)
        self._place()

    def make_model(self) -> BCModel:
        """Return the actor, with fresh weights."""
        return BCModel(self.config, self._encoder.size, self.processor.features[ACTION].size)

    def make_actions(self) -> Actions:
        """Return what plays chunks of one action."""
        return ActionQueues(1)

    @classmethod
    def make_processor(
        cls, features: Features, config: Any, stats: Mapping[str, Any], *, use_imagenet_stats: bool
    ) -> Processor:
        """Return the processor that SAC would have: sorted by name, with the action's bounds."""
        action = features[ACTION]
        bounds = (action.low, action.high)
        if not all(bound is not None and np.isfinite(bound).all() for bound in bounds):
            action = replace(action, low=None, high=None)
        observations = features.select(sorted(key for key in features if key != ACTION))
        ordered = Features({**observations, ACTION: action})
        return make_processor(ordered, config.normalization_mapping, stats)

    @torch.inference_mode()
    def act(
        self,
        observations: Mapping[str, NDArray[Any]],
        *,
        deterministic: bool = True,
        envs: Sequence[int] | None = None,
    ) -> NDArray[Any]:
        """Return one action per environment in its units, [N, A]; see `Policy.act`."""
        sampled = not deterministic and self.config.distribution == "gaussian"
        decide = self.model.draw if sampled else self.model.predict
        with self.precision():
            actions = decide(self.prepare(observations), self._generator)[:, 0].float()
        return np.asarray(self._action_normalizer.inverse(actions).cpu().numpy())

    def predict(self, windows: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return chunks of one action in the environment's units, [N, 1, A].

        Args:
            windows: raw observations [N, 1, ...] by feature name.
        """
        return self.act({key: values[:, 0] for key, values in windows.items()})[:, None]

    def prepare(
        self, batch: RawBatch, transforms: Callable[[Tensor], Tensor] | None = None
    ) -> Batch:
        """Return the normalised tensors of a batch: observations as one vector, and the action.

        Args:
            batch: arrays by feature name, [B, ...]; the action [B, 1, A], if it is there. Vectors
                of one element may come without their last axis.
            transforms: of pictures, of which there are none.
        """
        tensors = {
            key: (value if isinstance(value, Tensor) else to_tensor(value)).to(self.device)
            for key, value in self.processor.renamed(batch).items()
            if key in self.processor.features
        }
        prepared = {OBSERVATION: self._encoder(tensors)}
        if ACTION in tensors:
            action = tensors[ACTION].to(torch.float32)
            prepared[ACTION] = self._action_normalizer(action.reshape(len(action), 1, -1))
        return prepared

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        super().to(device)
        self._place()

    def _place(self) -> None:
        """Move the normalisers to the device of the network."""
        self._encoder.to(self.device)
        self._action_normalizer = self.processor.normalizer(ACTION).to(self.device)
