"""The policy of PPO and APPO: acting as RLlib's env runners do, and the checkpoint folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from leray.algorithms.networks.encoder import VectorEncoder
from leray.algorithms.onpolicy.options import ActorCriticConfig
from leray.algorithms.pretrained import CONFIG_FILE, read_config, read_tensors, save_folder
from leray.algorithms.processor import (
    MIN_MAX,
    Processor,
    make_processor,
    to_tensor,
)
from leray.data.features import Feature, Features
from leray.data.names import ACTION
from leray.errors import CheckpointError

NORM_MAP = {"ACTION": MIN_MAX}
"""The network acts between -1 and 1; observations go in as they are."""
LOG_STD_LIMIT = 20.0
"""RLlib's bound on the logarithm of the standard deviation."""
_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "silu": functional.silu}


class ActorCriticPolicy:
    """A Gaussian or categorical policy with the parameters of RLlib's default module.

    Args:
        config: the policy's options.
        processor: features, and the bounds of the action.
        tensors: all parameters by RLlib's names; those of the value network are only carried.
        num_actions: how many actions to choose from; None where actions are vectors.
        device: where to act.

    Raises:
        CheckpointError: a parameter is missing or of another shape than the config says.
    """

    def __init__(
        self,
        config: ActorCriticConfig,
        processor: Processor,
        tensors: Mapping[str, Tensor],
        *,
        num_actions: int | None,
        device: torch.device | None = None,
    ) -> None:
        self.config = config
        self.processor = processor
        self.num_actions = num_actions
        self.device = device or torch.device("cpu")
        self.tensors = {
            name: tensor.detach().to(self.device, copy=True).contiguous()
            for name, tensor in tensors.items()
        }
        observations = [key for key in processor.features if key != ACTION]
        self._encoder = VectorEncoder(processor.features.select(observations), {}).to(self.device)
        self._acting = self._acting_names()
        self._bounds = _bounds(processor)
        self._activation = _ACTIVATIONS[config.activation]
        self._generator = torch.Generator(self.device)

    @property
    def features(self) -> Features:
        """Observations the policy reads and the `action` it returns."""
        return self.processor.features

    def reset(self, envs: Sequence[int] | None = None) -> None:
        """Do nothing: each action follows from the present observation alone."""

    @torch.no_grad()
    def act(
        self,
        observations: Mapping[str, NDArray[Any]],
        *,
        deterministic: bool,
        envs: Sequence[int] | None = None,
    ) -> NDArray[Any]:
        """Return actions in the environment's units; see `Policy.act`.

        Returns:
            float32 of shape [N, A], or int64 of shape [N] where there is a choice of actions.
        """
        batch = {key: to_tensor(observations[key]).to(self.device) for key in self._encoder.keys}
        output = self._forward(self._encoder(batch))
        if self.num_actions is not None:
            return np.asarray(self._choose(output, deterministic=deterministic).cpu().numpy())
        action, log_std = output.chunk(2, -1)
        if not deterministic:
            std = log_std.clamp(-LOG_STD_LIMIT, LOG_STD_LIMIT).exp()
            noise = torch.randn(action.shape, generator=self._generator, device=self.device)
            action = torch.addcmul(action, std, noise)
        return self._to_units(action.cpu().numpy())

    def seed(self, seed: int) -> None:
        """Restart the random numbers that sampling draws."""
        self._generator.manual_seed(seed)

    def acting_block(self) -> Tensor:
        """Return the policy network's parameters as one flat float32 tensor."""
        return torch.cat([self.tensors[name].reshape(-1) for name in self._acting])

    def load_acting_block(self, block: Tensor) -> None:
        """Copy the policy network's parameters from another policy's block."""
        sizes = [self.tensors[name].numel() for name in self._acting]
        for name, part in zip(self._acting, torch.split(block, sizes), strict=True):
            self.tensors[name].copy_(part.view_as(self.tensors[name]))

    def save_pretrained(self, folder: Path) -> None:
        """Write `config.json`, `model.safetensors` and the processors."""
        extra = {"num_actions": self.num_actions}
        save_folder(folder, self.config, self.processor, self.tensors, **extra)

    @classmethod
    def from_pretrained(
        cls, folder: Path, device: torch.device | None = None
    ) -> "ActorCriticPolicy":
        """Read a checkpoint folder.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the config.
        """
        config, features, raw = read_config(folder, ActorCriticConfig)
        num_actions = _stored_choice(raw, folder)
        if num_actions is not None:
            features = Features({**features, ACTION: Feature("int64", (1,))})
        processor = Processor.load(folder, features)
        tensors = read_tensors(folder)
        return cls(config, processor, tensors, num_actions=num_actions, device=device)

    def _forward(self, x: Tensor) -> Tensor:
        """Return the distribution's parameters: mean and log std [N, 2A], or logits [N, n]."""
        tensors, names = self.tensors, self._acting
        for weight, bias in zip(names[:-2:2], names[1:-2:2], strict=True):
            x = self._activation(functional.linear(x, tensors[weight], tensors[bias]))
        return functional.linear(x, tensors[names[-2]], tensors[names[-1]])

    def _choose(self, logits: Tensor, *, deterministic: bool) -> Tensor:
        if deterministic:
            return logits.argmax(-1)
        return torch.multinomial(logits.softmax(-1), 1, generator=self._generator)[:, 0]

    def _to_units(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """Stretch [-1, 1] to the action's bounds and clip, as RLlib's connectors do.

        Unbounded actions are the network's own. The order of the operations is RLlib's, so that
        the rounding is the same.
        """
        if self._bounds is None:
            return action
        low, high = self._bounds
        scaled = low + (action + np.float32(1.0)) * (high - low) / np.float32(2.0)
        return np.clip(scaled, low, high)

    def _acting_names(self) -> list[str]:
        """Return the names of the policy network's parameters, layer by layer, once checked."""
        sizes = [self._encoder.size, *self.config.hidden_dims]
        sizes.append(self.num_actions or 2 * self.features[ACTION].size)
        layers = [
            f"encoder.actor_encoder.net.mlp.{2 * i}" for i in range(len(self.config.hidden_dims))
        ]
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, before, after in zip(
            [*layers, "pi.net.mlp.0"], sizes[:-1], sizes[1:], strict=True
        ):
            shapes |= {f"{layer}.weight": (after, before), f"{layer}.bias": (after,)}
        wrong = [
            name
            for name, shape in shapes.items()
            if name not in self.tensors or tuple(self.tensors[name].shape) != shape
        ]
        if wrong:
            raise CheckpointError(
                f"the weights do not fit this policy; names or shapes differ for "
                f"{', '.join(wrong)}: use the options the checkpoint was trained with"
            )
        return list(shapes)


def actor_critic_processor(features: Features) -> Processor:
    """Return how features go in and out of the network: only bounded actions are scaled."""
    return make_processor(features, NORM_MAP, None)


def _bounds(processor: Processor) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    stats = processor.stats.get(ACTION, {})
    return (stats["min"], stats["max"]) if {"min", "max"} <= stats.keys() else None


def _stored_choice(raw: Mapping[str, Any], folder: Path) -> int | None:
    """Return how many actions a stored policy chooses from; None where actions are vectors."""
    found = raw.get("num_actions", "nothing")
    if found is None or (isinstance(found, int) and found > 0):
        return found
    raise CheckpointError(
        f"{folder / CONFIG_FILE} says num_actions={found!r} where null or a number >= 1 is "
        "expected: give another checkpoint"
    )
