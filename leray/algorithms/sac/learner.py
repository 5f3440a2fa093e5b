"""The SAC update in plain torch: no Ray, no autograd graph, no host synchronisation."""

from typing import Any

import torch
from torch import Tensor

from leray.algorithms.networks import mlp, tanh_gaussian
from leray.algorithms.networks.adam import FlatAdam
from leray.algorithms.networks.encoder import Affine, VectorEncoder
from leray.algorithms.replay.sampler import BOOTSTRAP, NEXT, OFFLINE, Batch
from leray.algorithms.sac import losses
from leray.algorithms.sac.config import SACPolicyConfig
from leray.algorithms.sac.networks import SACNetworks
from leray.data.names import ACTION, REWARD


class SACLearner:
    """Updates the networks of SAC from batches of transitions.

    Args:
        config: the policy's options.
        networks: parameters to update, in place.
        encoder: observations to vectors.
        action_normalizer: environment actions to [-1, 1].
        batch_size: transitions B per batch.
        seed: seed of the action noise and of the critics' subsets.
    """

    def __init__(
        self,
        config: SACPolicyConfig,
        networks: SACNetworks,
        encoder: VectorEncoder,
        action_normalizer: Affine,
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        self.config = config
        self.networks = networks
        self.num_updates = 0
        device = networks.actor.flat.device
        self._encoder = encoder
        self._action_normalizer = action_normalizer
        self._generator = torch.Generator(device).manual_seed(seed)
        self._target_entropy = (
            -float(networks.action_size) if config.target_entropy is None else config.target_entropy
        )
        self._critic_warmup = config.critic_warmup_updates or 0
        self._bc_weight = config.bc_weight or 0.0
        self._actor_reduce = "min" if config.num_subsample_critics is None else "mean"
        self._actor_adam = FlatAdam(networks.actor.flat, config.actor_lr)
        self._critic_adam = FlatAdam(networks.critic.flat, config.critic_lr)
        self._alpha_adam = FlatAdam(networks.log_alpha, config.temperature_lr)
        self._actor_grads = networks.actor.shape.layer_views(self._actor_adam.grad)
        self._critic_grads = networks.critic.shape.layer_views(self._critic_adam.grad)
        self._actor_tape = mlp.Tape(networks.actor, batch_size)
        self._critic_tape = mlp.Tape(networks.critic, batch_size)
        self._noise = torch.empty(batch_size, networks.action_size, device=device)
        self._last: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        """Update the critics, on its turn also actor and temperature, then the target critics."""
        observation = self._encoder(batch)
        alpha = self.networks.log_alpha.exp()
        self._update_critic(batch, observation, alpha)
        self.num_updates += 1
        waiting = self.num_updates <= self._critic_warmup
        if not waiting and self.num_updates % self.config.policy_update_freq == 0:
            self._update_actor(batch, observation, alpha)
        self._update_target()

    def metrics(self) -> dict[str, float]:
        """Return the figures of the last update; this waits for the device."""
        if not self._last:
            return {}
        last = self._last
        values = {
            "loss/critic": losses.critic_loss(last["q"], last["target"]),
            "train/q_mean": last["q"].mean(),
            "train/alpha": self.networks.log_alpha.exp(),
        }
        if "log_prob" in last:
            values["loss/actor"] = losses.actor_loss(
                last["log_prob"], last["value"], self.networks.log_alpha.exp()
            )
            values["train/entropy"] = -last["log_prob"].mean()
        return {name: float(value) for name, value in values.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return optimiser moments, random state and counters; parameters are in the networks."""
        state = {
            f"{name}.{key}": tensor
            for name, adam in self._adams().items()
            for key, tensor in adam.state_dict().items()
        }
        state["generator"] = self._generator.get_state()
        state["num_updates"] = torch.tensor(self.num_updates)
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        for name, adam in self._adams().items():
            adam.load_state_dict({key: state[f"{name}.{key}"] for key in adam.state_dict()})
        self._generator.set_state(state["generator"].cpu())
        self.num_updates = int(state["num_updates"])

    def _adams(self) -> dict[str, FlatAdam]:
        return {
            "actor": self._actor_adam,
            "critic": self._critic_adam,
            "temperature": self._alpha_adam,
        }

    def _sample_action(self, observation: Tensor) -> tanh_gaussian.TanhGaussianSample:
        output = mlp.forward(self.networks.actor, observation, self._actor_tape)[0]
        self._noise.normal_(generator=self._generator)
        return tanh_gaussian.sample(output, self._noise)

    def _update_critic(self, batch: Batch, observation: Tensor, alpha: Tensor) -> None:
        """Take one step on J_Q."""
        networks, config = self.networks, self.config
        next_observation = self._encoder(batch, NEXT)
        drawn = self._sample_action(next_observation)
        next_input = torch.cat([next_observation, drawn.action], -1)
        next_q = mlp.forward(networks.target, next_input, self._critic_tape)[..., 0]
        target = losses.critic_target(
            reward=batch[REWARD],
            bootstrap=batch[BOOTSTRAP],
            next_q=next_q[self._critic_subset()],
            next_log_prob=drawn.log_prob,
            alpha=alpha,
            use_backup_entropy=config.use_backup_entropy,
        )
        action = self._action_normalizer(batch[ACTION].view(observation.shape[0], -1))
        q = mlp.forward(networks.critic, torch.cat([observation, action], -1), self._critic_tape)
        self._last |= {"q": q[..., 0].clone(), "target": target}
        mlp.backward(
            networks.critic,
            self._critic_tape,
            losses.critic_loss_grad(q, target.unsqueeze(-1)),
            grad_parameters=self._critic_grads,
            need_input=False,
        )
        self._critic_adam.step(config.grad_clip_norm)
        networks.critic.refresh()

    def _critic_subset(self) -> Any:
        """Return which target critics the minimum is taken over."""
        subset = self.config.num_subsample_critics
        if subset is None or subset == self.config.num_critics:
            return slice(None)
        device = self.networks.actor.flat.device
        order = torch.randperm(self.config.num_critics, generator=self._generator, device=device)
        return order[:subset]

    def _update_actor(self, batch: Batch, observation: Tensor, alpha: Tensor) -> None:
        """Take one step on J_pi and one on J(alpha)."""
        networks = self.networks
        drawn = self._sample_action(observation)
        critic_input = torch.cat([observation, drawn.action], -1)
        q = mlp.forward(networks.critic, critic_input, self._critic_tape)[..., 0]
        grad_q = losses.actor_value_grad(q, reduce=self._actor_reduce)
        grad_input = mlp.backward(
            networks.critic,
            self._critic_tape,
            grad_q.unsqueeze(-1),
            grad_parameters=None,
            need_input=True,
        )
        assert grad_input is not None
        batch_size = observation.shape[0]
        grad_output = tanh_gaussian.sample_backward(
            drawn,
            grad_input[:, -networks.action_size :],
            (alpha / batch_size).expand(batch_size),
        )
        if self._bc_weight > 0:
            self._add_imitation(batch, q, grad_output)
        mlp.backward(
            networks.actor,
            self._actor_tape,
            grad_output.unsqueeze(0),
            grad_parameters=self._actor_grads,
            need_input=False,
        )
        self._actor_adam.step(self.config.grad_clip_norm)
        networks.actor.refresh()
        self._alpha_adam.grad.copy_(
            losses.temperature_loss_grad(drawn.log_prob, self._target_entropy, alpha)
        )
        self._alpha_adam.step()
        value = losses.actor_value(q, reduce=self._actor_reduce)
        self._last |= {"log_prob": drawn.log_prob, "value": value}

    def _add_imitation(self, batch: Batch, q: Tensor, grad_output: Tensor) -> None:
        """Add the gradient of the imitation term on offline samples."""
        mask = batch[OFFLINE]
        if self.config.bc_q_filter:
            mask = mask * (self._last["q"].amin(0) > q.amin(0))
        action = self._action_normalizer(batch[ACTION].view(q.shape[1], -1))
        mean = self._actor_tape.outputs[-1][0, :, : self.networks.action_size]
        grad_output[:, : self.networks.action_size] += losses.imitation_grad(
            mean, action, mask, self._bc_weight
        )

    def _update_target(self) -> None:
        """Move the targets towards the critics: target += tau (critic - target)."""
        networks = self.networks
        networks.target.flat.lerp_(networks.critic.flat, self.config.critic_target_update_weight)
        networks.target.refresh()
