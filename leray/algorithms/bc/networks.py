"""SAC's actor as a module for autograd, with the names and shapes of tensors that SAC has."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from leray.algorithms.bc import losses
from leray.algorithms.bc.config import BCPolicyConfig
from leray.algorithms.imitation.inputs import Batch
from leray.algorithms.imitation.policy import ImitationModel
from leray.algorithms.networks import tanh_gaussian
from leray.algorithms.networks.mlp import LAYER_NORM_EPS
from leray.algorithms.sac.config import MLPConfig
from leray.data.names import ACTION

OBSERVATION = "observation"
"""All observations of a batch as one vector each."""


class Norm(nn.Module):
    """Layer norm of one member of an ensemble.

    Args:
        width: of the layer.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 1, width))
        self.shift = nn.Parameter(torch.zeros(1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of [1, B, width]."""
        normed = functional.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)
        return torch.addcmul(self.shift, normed, self.scale)


class Layer(nn.Module):
    """A linear layer of one member, [1, inputs, outputs]; weights begin as `nn.Linear`'s do.

    Args:
        inputs: width of what comes in.
        outputs: width of what goes out.
        layer_norm: normalise the output.
    """

    def __init__(self, inputs: int, outputs: int, *, layer_norm: bool) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(1, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(1, 1, outputs).uniform_(-bound, bound))
        self.norm = Norm(outputs) if layer_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """Return [1, B, outputs] of [1, B, inputs]."""
        y = torch.baddbmm(self.bias, x, self.weight)
        return y if self.norm is None else self.norm(y)


class Actor(nn.Module):
    """Vectors to means before the tanh and log-stds.

    Args:
        config: shape of the network.
        observation_size: S.
        action_size: A.
    """

    def __init__(self, config: MLPConfig, observation_size: int, action_size: int) -> None:
        super().__init__()
        sizes = (observation_size, *config.hidden_dims, 2 * action_size)
        last = len(sizes) - 2
        self.layers = nn.ModuleList(
            Layer(inputs, outputs, layer_norm=config.layer_norm and index < last)
            for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, 2A] of [B, S]."""
        return self.head(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """Return what the last layer reads, [1, B, H], of [B, S]."""
        hidden = x.unsqueeze(0)
        for layer in self.layers[:-1]:
            hidden = functional.relu(layer(hidden))
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Return [B, 2A] of what the last layer reads, [1, B, H]."""
        return self.layers[-1](hidden)[0]  # type: ignore[no-any-return]  # modules return Any


class BCModel(ImitationModel):
    """The actor and how it is trained.

    Args:
        config: the policy's options.
        observation_size: S.
        action_size: A.
    """

    def __init__(self, config: BCPolicyConfig, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.actor = Actor(config.actor_network_kwargs, observation_size, action_size)
        self._gaussian = config.distribution == "gaussian"
        self._std = config.exploration_std
        if not self._gaussian:
            self._fix_std(action_size)

    def forward(self, observation: Tensor) -> Tensor:
        """Return means before the tanh and log-stds, [B, 2A], of observations [B, S]."""
        return self.actor(observation)  # type: ignore[no-any-return]  # modules return Any

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of observations [B, S] and actions [B, 1, A].

        The likelihood teaches the last layer's log-stds and nothing else. If it taught the means
        too, those that are hard would be given a large std instead of the right value (Stirn et
        al. 2023, "Faithful Heteroscedastic Regression", arXiv 2212.09184).
        """
        action, hidden = batch[ACTION][:, 0], self.actor.hidden(batch[OBSERVATION])
        output = self.actor.head(hidden).float()
        error = losses.squared_error(output, action)
        if not self._gaussian:
            return error, {}
        size = action.shape[-1]
        log_stds = self.actor.head(hidden.detach())[:, size:].float()
        fixed = torch.cat([output[:, :size].detach(), log_stds], -1)
        likelihood = losses.negative_log_likelihood(fixed, action, self._std)
        figures = {"squared_error": error, "negative_log_likelihood": likelihood}
        return error + likelihood, {name: value.detach() for name, value in figures.items()}

    def predict(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the most likely actions, [B, 1, A]."""
        return tanh_gaussian.mode(self(batch[OBSERVATION])).unsqueeze(1)

    def draw(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return sampled actions, [B, 1, A]."""
        return tanh_gaussian.draw(self(batch[OBSERVATION]), generator).unsqueeze(1)

    def parameter_groups(self) -> list[dict[str, object]]:
        """Return the parameters; nothing but the loss moves the last layer, which holds the std."""
        head = list(self.actor.layers[-1].parameters())
        rest = [parameter for layer in self.actor.layers[:-1] for parameter in layer.parameters()]
        return [{"params": rest}, {"params": head, "weight_decay": 0.0}]

    @torch.no_grad()
    def _fix_std(self, action_size: int) -> None:
        """Make the log-std a constant, which the squared error leaves as it is."""
        head = self.actor.layers[-1]
        assert isinstance(head, Layer)
        head.weight[..., action_size:] = 0.0
        head.bias[..., action_size:] = math.log(self._std)
