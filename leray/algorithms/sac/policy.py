"""The SAC policy: acting, and the checkpoint folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leray.algorithms.bc.config import BCPolicyConfig
from leray.algorithms.config import PolicyConfig
from leray.algorithms.networks import mlp, tanh_gaussian
from leray.algorithms.networks.encoder import VectorEncoder
from leray.algorithms.pretrained import WEIGHTS_FILE, read_config, read_tensors, save_folder
from leray.algorithms.processor import Processor, to_tensor
from leray.algorithms.sac.config import SACPolicyConfig
from leray.algorithms.sac.learner import SACLearner
from leray.algorithms.sac.networks import SACNetworks
from leray.data.features import Features
from leray.data.names import ACTION
from leray.errors import CheckpointError, FeatureMismatchError


class SACPolicy:
    """A tanh-Gaussian actor with its critics.

    Args:
        config: the policy's options.
        processor: features and their normalisation.
        device: where the parameters live.

    Raises:
        FeatureMismatchError: an observation is not a vector, or there is no action vector.
    """

    def __init__(
        self, config: SACPolicyConfig, processor: Processor, device: torch.device | None = None
    ) -> None:
        self.config = config
        self.processor = processor
        self.device = device or torch.device("cpu")
        features = processor.features
        if ACTION not in features or len(features[ACTION].shape) != 1:
            raise FeatureMismatchError(
                f"sac needs an `action` vector; there are: {', '.join(features) or 'none'}"
            )
        observations = features.select([key for key in features if key != ACTION])
        self.encoder = VectorEncoder(
            observations, {key: processor.normalizer(key) for key in observations}
        ).to(self.device)
        self.action_normalizer = processor.normalizer(ACTION).to(self.device)
        self.networks = SACNetworks(config, self.encoder.size, features[ACTION].size, self.device)
        self._generator = torch.Generator(self.device)
        self._tapes: dict[int, mlp.Tape] = {}

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
        """Return actions in the environment's units; see `Policy.act`."""
        batch = {key: to_tensor(observations[key]).to(self.device) for key in self.encoder.keys}
        vectors = self.encoder(batch)
        size = vectors.shape[0]
        if size not in self._tapes:
            self._tapes[size] = mlp.Tape(self.networks.actor, size)
        output = mlp.forward(self.networks.actor, vectors, self._tapes[size])[0]
        if deterministic:
            action = tanh_gaussian.mode(output)
        else:
            action = tanh_gaussian.draw(output, self._generator)
        return np.asarray(self.action_normalizer.inverse(action).cpu().numpy())

    def seed(self, seed: int) -> None:
        """Restart the action noise."""
        self._generator.manual_seed(seed)

    def acting_block(self) -> Tensor:
        """Return the actor's parameters as one flat tensor."""
        return self.networks.actor.flat

    def load_acting_block(self, block: Tensor) -> None:
        """Copy the actor's parameters from another policy's block."""
        self.networks.actor.flat.copy_(block)
        self.networks.actor.refresh()

    def blocks(self) -> dict[str, Tensor]:
        """Return all parameters as flat blocks; `acting` is what acting needs."""
        networks = self.networks
        return {
            "acting": networks.actor.flat,
            "critic": networks.critic.flat,
            "critic_target": networks.target.flat,
            "log_alpha": networks.log_alpha,
        }

    def refresh(self) -> None:
        """Follow changes made to the blocks."""
        self.networks.refresh()

    def initialize(self, generator: torch.Generator) -> None:
        """Draw fresh weights."""
        self.networks.reset(generator)

    def to(self, device: torch.device) -> None:
        """Move to a device; blocks are new tensors if it is another one."""
        if device == self.device:
            return
        values = self.blocks()
        self.__init__(self.config, self.processor, device)  # type: ignore[misc]
        for name, block in self.blocks().items():
            block.copy_(values[name])
        self.refresh()

    def make_learner(self, *, batch_size: int, seed: int) -> SACLearner:
        """Return the learner that updates this policy in place."""
        return SACLearner(
            self.config,
            self.networks,
            self.encoder,
            self.action_normalizer,
            batch_size=batch_size,
            seed=seed,
        )

    def save_pretrained(self, folder: Path) -> None:
        """Write `config.json`, `model.safetensors` and the processors."""
        save_folder(folder, self.config, self.processor, self.networks.named())

    @classmethod
    def from_pretrained(cls, folder: Path, device: torch.device | None = None) -> "SACPolicy":
        """Read a checkpoint folder.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the config.
        """
        config, features, _ = read_config(folder, SACPolicyConfig)
        policy = cls(config, Processor.load(folder, features), device)
        policy.load_weights(folder)
        return policy

    def start_from(self, folder: Path) -> None:
        """Take over what a checkpoint folder holds: all of SAC's, or the actor that `bc` trained.

        Raises:
            CheckpointError: it is of another kind or damaged, or does not fit.
        """
        config, features, _ = read_config(folder, PolicyConfig)
        if isinstance(config, SACPolicyConfig):
            self.load_weights(folder)
            return
        if not isinstance(config, BCPolicyConfig):
            raise CheckpointError(
                f"{folder} holds a policy of type {config.type}: sac starts from sac or bc only"
            )
        if list(features) != list(self.features):
            raise CheckpointError(
                f"{folder} was trained on {', '.join(features)}; this run has "
                f"{', '.join(self.features)}: use the environment or dataset it was trained with"
            )
        theirs, ours = config.actor_network_kwargs, self.config.actor_network_kwargs
        if theirs != ours:
            raise CheckpointError(
                f"{folder} has another actor than this run: give "
                f"--policy.actor_network_kwargs.hidden_dims={theirs.hidden_dims} "
                f"--policy.actor_network_kwargs.layer_norm={str(theirs.layer_norm).lower()}"
            )
        self._take_over(folder, "actor.")

    def load_weights(self, folder: Path) -> None:
        """Take over all parameters from a checkpoint folder.

        Raises:
            CheckpointError: the file is missing or damaged, or names or shapes differ.
        """
        self._take_over(folder, "")

    def _take_over(self, folder: Path, prefix: str) -> None:
        """Copy the parameters whose names begin with a prefix; no others may be stored."""
        stored = read_tensors(folder, self.device)
        own = {name: t for name, t in self.networks.named().items() if name.startswith(prefix)}
        wrong = sorted(
            name
            for name in own.keys() | stored.keys()
            if name not in own or name not in stored or own[name].shape != stored[name].shape
        )
        if wrong:
            raise CheckpointError(
                f"{folder / WEIGHTS_FILE} does not fit this policy; names or shapes differ for "
                f"{', '.join(wrong)}: "
                "use the network options the checkpoint was trained with"
            )
        for name, tensor in own.items():
            tensor.copy_(stored[name])
        self.networks.refresh()
