"""The networks of SAC: one actor, an ensemble of critics, their targets, and the temperature."""

import math

import torch
from torch import Tensor

from leray.algorithms.networks.mlp import MLPParameters, MLPShape
from leray.algorithms.sac.config import SACPolicyConfig


class SACNetworks:
    """All parameters of SAC, as flat blocks.

    Args:
        config: shapes, precision and initial temperature.
        observation_size: length S of the encoded observation.
        action_size: length A of the action.
        device: where the parameters live.
    """

    def __init__(
        self,
        config: SACPolicyConfig,
        observation_size: int,
        action_size: int,
        device: torch.device,
    ) -> None:
        dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
        actor, critic = config.actor_network_kwargs, config.critic_network_kwargs
        actor_sizes = (observation_size, *actor.hidden_dims, 2 * action_size)
        critic_sizes = (observation_size + action_size, *critic.hidden_dims, 1)
        actor_shape = MLPShape(1, actor_sizes, actor.layer_norm)
        critic_shape = MLPShape(config.num_critics, critic_sizes, critic.layer_norm)
        self.action_size = action_size
        self.actor = MLPParameters(actor_shape, device, dtype)
        self.critic = MLPParameters(critic_shape, device, dtype)
        self.target = MLPParameters(critic_shape, device, dtype)
        alpha = config.temperature_init or 1.0
        self.log_alpha = torch.full((1,), math.log(alpha), device=device)

    def reset(self, generator: torch.Generator) -> None:
        """Draw fresh weights; targets equal critics."""
        self.actor.reset(generator)
        self.critic.reset(generator)
        self.target.flat.copy_(self.critic.flat)
        self.target.refresh()

    def named(self) -> dict[str, Tensor]:
        """Return every parameter by name, as float32 views."""
        groups = {"actor": self.actor, "critic": self.critic, "critic_target": self.target}
        named = {
            f"{group}.{name}": tensor
            for group, parameters in groups.items()
            for name, tensor in parameters.named().items()
        }
        return named | {"log_alpha": self.log_alpha}

    def refresh(self) -> None:
        """Bring the compute copies up to date after the float32 parameters were changed."""
        for parameters in (self.actor, self.critic, self.target):
            parameters.refresh()
