"""VQ-BeT's network: observations and queries go through a GPT, whose answers go to the head.

Lee et al. 2024 (arXiv 2403.03181), section 3.3. B samples of T observations, Q queries.
"""

import torch
from torch import Tensor, nn

from leray.algorithms.config import require
from leray.algorithms.imitation.inputs import Batch, pictures
from leray.algorithms.networks.rgb_encoder import RgbEncoder
from leray.algorithms.vqbet.config import VQBeTPolicyConfig
from leray.algorithms.vqbet.gpt import GPT
from leray.algorithms.vqbet.head import Head, Prediction, linear
from leray.data.features import Features
from leray.data.names import ACTION, ENVIRONMENT_STATE, OBSERVATION_STATE
from leray.errors import FeatureMismatchError


class VQBeTNetwork(nn.Module):
    """Encoders of observations, GPT and head; tensors are named as in LeRobot's files.

    Each observed frame becomes one token per picture and per state vector, and a query; more
    queries follow for the chunks that begin in the future.

    Args:
        config: the policy's options.
        features: observations and action.

    Raises:
        FeatureMismatchError: an observation is neither a state vector nor a picture, or pictures
            differ in size.
        ConfigError: pictures or tokens do not fit the options.
    """

    def __init__(self, config: VQBeTPolicyConfig, features: Features) -> None:
        super().__init__()
        self.config = config
        self.cameras = pictures(features)
        self.vectors = [k for k in (OBSERVATION_STATE, ENVIRONMENT_STATE) if k in features]
        _check(features, self.cameras, self.vectors)
        width = config.gpt_input_dim
        if self.cameras:
            self.rgb_encoder = RgbEncoder(
                features[self.cameras[0]].image_shape,
                vision_backbone=config.vision_backbone,
                group_norm=config.use_group_norm,
                num_keypoints=config.spatial_softmax_num_keypoints,
                crop=config.crop_shape,
                random_crop=config.crop_is_random,
            )
            self.rgb_feature_projector = linear(self.rgb_encoder.output_size, width)
        if OBSERVATION_STATE in features:
            self.state_projector = linear(features[OBSERVATION_STATE].size, width)
        if ENVIRONMENT_STATE in features:
            self.environment_state_projector = linear(features[ENVIRONMENT_STATE].size, width)
        self.action_token = nn.Parameter(torch.randn(1, 1, width))
        self.policy = GPT(
            input_size=width,
            width=config.gpt_hidden_dim,
            output_size=config.gpt_output_dim,
            num_layers=config.gpt_n_layer,
            num_heads=config.gpt_n_head,
            block_size=config.gpt_block_size,
            dropout=config.dropout,
        )
        self.action_head = Head(config, features[ACTION].size)
        # LeRobot's files hold which actions each query is for; `chunks` needs no such list
        first = torch.arange(config.num_queries).unsqueeze(1)
        self.register_buffer(
            "select_target_actions_indices", first + torch.arange(config.action_chunk_size)
        )
        self._check_length()

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Prediction:
        """Return the prediction of B * Q queries, sample by sample.

        Args:
            batch: normalised observations [B, T, ...].
            generator: what codes are drawn with; None is torch's own.
        """
        steps = self._encode(batch)
        size, num_steps, stride, _ = steps.shape
        later = self.action_token.expand(size, self.config.n_action_pred_token - 1, -1)
        answers = self.policy(torch.cat([steps.flatten(1, 2), later], dim=1))
        of_steps, of_later = answers.split([num_steps * stride, later.shape[1]], dim=1)
        queried = torch.cat([of_steps[:, stride - 1 :: stride], of_later], dim=1)
        prediction: Prediction = self.action_head(queried.flatten(0, 1), generator)
        return prediction

    def chunks(self, actions: Tensor) -> Tensor:
        """Return what B * Q queries ask for, flattened: [B * Q, D] of actions [B, T', A]."""
        windows = actions.unfold(1, self.config.action_chunk_size, 1)  # [B, Q, A, chunk]
        return windows.transpose(2, 3).flatten(2).flatten(0, 1)

    def groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters that decay, those of the VQ-VAE, and those that do not decay."""
        decaying, others = self.policy.decaying()
        vqvae = list(self.action_head.vqvae_model.parameters())
        known = {id(parameter) for parameter in (*decaying, *others, *vqvae)}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in known]
        return decaying + rest, vqvae, others

    def _encode(self, batch: Batch) -> Tensor:
        """Return the tokens of each frame, its query last: [B, T, tokens, gpt_input_dim]."""
        tokens = []
        if self.cameras:
            seen = torch.stack([batch[camera] for camera in self.cameras], dim=2)
            encoded = self.rgb_feature_projector(self.rgb_encoder(seen.flatten(0, 2)))
            tokens += encoded.unflatten(0, seen.shape[:3]).unbind(2)
        if OBSERVATION_STATE in self.vectors:
            tokens.append(self.state_projector(batch[OBSERVATION_STATE]))
        if ENVIRONMENT_STATE in self.vectors:
            tokens.append(self.environment_state_projector(batch[ENVIRONMENT_STATE]))
        query = self.action_token.to(tokens[0].dtype).expand(*tokens[0].shape[:2], -1)
        return torch.stack([*tokens, query], dim=2)

    def _check_length(self) -> None:
        config = self.config
        stride = len(self.cameras) + len(self.vectors) + 1
        length = config.n_obs_steps * stride + config.n_action_pred_token - 1
        require(
            length <= config.gpt_block_size,
            f"--policy.gpt_block_size={config.gpt_block_size}: {config.n_obs_steps} observations "
            f"and their queries are {length} tokens; give at least that",
        )


def _check(features: Features, cameras: list[str], vectors: list[str]) -> None:
    observed = [name for name in features if name != ACTION]
    unknown = [name for name in observed if name not in (*cameras, *vectors)]
    if unknown or not observed:
        raise FeatureMismatchError(
            f"VQ-BeT cannot observe {', '.join(unknown) or 'nothing'}: give it pictures, "
            f"{OBSERVATION_STATE} or {ENVIRONMENT_STATE}"
        )
    shapes = {name: features[name].image_shape for name in cameras}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise FeatureMismatchError(
            f"VQ-BeT needs pictures of one size, not {listed}: leave some out, or record them so"
        )
