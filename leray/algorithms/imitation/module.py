"""The RLModule that lets RLlib carry an imitation policy."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.utils.numpy import convert_to_numpy
from torch import Tensor

from leray.algorithms.imitation.policy import ImitationPolicy
from leray.algorithms.imitation.randomness import seeded
from leray.algorithms.registry import policy_class


class ImitationModule(TorchRLModule):  # type: ignore[misc]
    """Holds `policy`, whose network is `model`; acting and learning call it, not `forward_*`."""

    def setup(self) -> None:
        """Build the policy, with fresh weights that follow from the seed alone (RLlib's name)."""
        config = self.model_config["policy"]
        with seeded(torch.device("cpu"), self.model_config["seed"]):
            self.policy: ImitationPolicy = policy_class(config.type)(
                config, self.model_config["processor"]
            )
        self.model = self.policy.model
        self.acting_weights: Callable[[], Mapping[str, Tensor]] | None = None
        """Returns what acts where that is not the network's own weights."""

    def get_state(self, *args: Any, inference_only: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Return the weights as numpy arrays; for inference, those that act (RLlib's name)."""
        if inference_only and self.acting_weights is not None:
            weights = {f"model.{name}": value for name, value in self.acting_weights().items()}
            return dict(convert_to_numpy(weights))
        state: dict[str, Any] = super().get_state(*args, **kwargs)
        return state
