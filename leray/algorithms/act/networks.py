"""ACT's networks (Zhao et al. 2023, arXiv 2304.13705, section IV-C), named as in LeRobot's files.

B samples, S state and E environment-state elements, A action elements, K steps of a chunk, D
`dim_model`, L `latent_dim`.
"""

from collections.abc import Iterable
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional

from leray.algorithms.act.config import ACTPolicyConfig
from leray.algorithms.act.transformer import Decoder, Encoder
from leray.algorithms.imitation.inputs import Batch, pictures
from leray.algorithms.networks.positions import picture_sinusoids, sinusoids
from leray.algorithms.networks.resnet import ResNet
from leray.data.features import Features
from leray.data.names import ACTION, ENVIRONMENT_STATE, OBSERVATION_STATE, PAD_SUFFIX
from leray.errors import FeatureMismatchError

CHANNELS = 3
"""Of the pictures that the backbone reads."""


class ACTNetwork(nn.Module):
    """From an observation, and a latent variable that tells how to act, to a chunk of actions.

    Parameters are made in the order of LeRobot's, which their optimisers count them by.

    Args:
        config: the policy's options.
        features: of the policy; others than state, environment state, pictures and action are not
            read.

    Raises:
        FeatureMismatchError: there is neither a picture nor an environment state, or a picture
            does not have three channels.
    """

    vae_encoder_pos_enc: Tensor

    def __init__(self, config: ACTPolicyConfig, features: Features) -> None:
        super().__init__()
        self.cameras = pictures(features)
        _check(features, self.cameras)
        self.vectors = [key for key in (OBSERVATION_STATE, ENVIRONMENT_STATE) if key in features]
        self.latent_dim = config.latent_dim
        size = config.dim_model
        if config.use_vae:
            self._make_vae_encoder(config, features)
        if self.cameras:
            self.backbone = ResNet(
                config.vision_backbone,
                "frozen",
                dilate_last=bool(config.replace_final_stride_with_dilation),
            )
        self.encoder = Encoder(config, config.n_encoder_layers)
        self.decoder = Decoder(config)
        if OBSERVATION_STATE in features:
            self.encoder_robot_state_input_proj = nn.Linear(features[OBSERVATION_STATE].size, size)
        if ENVIRONMENT_STATE in features:
            self.encoder_env_state_input_proj = nn.Linear(features[ENVIRONMENT_STATE].size, size)
        self.encoder_latent_input_proj = nn.Linear(config.latent_dim, size)
        if self.cameras:
            self.encoder_img_feat_input_proj = nn.Conv2d(self.backbone.channels, size, 1)
        self.encoder_1d_feature_pos_embed = nn.Embedding(1 + len(self.vectors), size)
        self.decoder_pos_embed = nn.Embedding(config.chunk_size, size)
        self.action_head = nn.Linear(size, features[ACTION].size)
        for parameter in chain(self.encoder.parameters(), self.decoder.parameters()):
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def _make_vae_encoder(self, config: ACTPolicyConfig, features: Features) -> None:
        size, tokens = config.dim_model, 1 + config.chunk_size
        self.vae_encoder = Encoder(config, config.n_vae_encoder_layers)
        self.vae_encoder_cls_embed = nn.Embedding(1, size)
        if OBSERVATION_STATE in features:
            tokens += 1
            self.vae_encoder_robot_state_input_proj = nn.Linear(
                features[OBSERVATION_STATE].size, size
            )
        self.vae_encoder_action_input_proj = nn.Linear(features[ACTION].size, size)
        self.vae_encoder_latent_output_proj = nn.Linear(size, 2 * config.latent_dim)
        self.register_buffer("vae_encoder_pos_enc", sinusoids(tokens, size).unsqueeze(0))

    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return mean and log variance [B, L] of the latent variable behind a demonstration.

        Args:
            batch: `observation.state` [B, S], `action` [B, K, A] and `action_is_pad` [B, K].
        """
        actions, is_pad = batch[ACTION], batch[ACTION + PAD_SUFFIX]
        count = len(actions)
        tokens = [self.vae_encoder_cls_embed.weight.expand(count, 1, -1)]
        if OBSERVATION_STATE in self.vectors:
            state = self.vae_encoder_robot_state_input_proj(batch[OBSERVATION_STATE])
            tokens.append(state.unsqueeze(1))
        is_pad = functional.pad(is_pad, (len(tokens), 0), value=False)
        tokens.append(self.vae_encoder_action_input_proj(actions))
        summary = self.vae_encoder(
            torch.cat(tokens, 1), self.vae_encoder_pos_enc[0], is_pad=is_pad, outputs=1
        )
        parameters = self.vae_encoder_latent_output_proj(summary[:, 0])
        exact = torch.promote_types(parameters.dtype, torch.float32)  # also where it is bfloat16
        mean, log_variance = parameters.to(exact).chunk(2, dim=-1)
        return mean, log_variance

    def forward(self, batch: Batch, latent: Tensor | None = None) -> Tensor:
        """Return chunks of actions [B, K, A].

        Args:
            batch: observations; vectors [B, S], pictures [B, 3, height, width].
            latent: [B, L]; None is zero, the mean of what it is drawn from.
        """
        count = len(batch[(self.vectors or self.cameras)[0]])
        if latent is None:
            latent = self.encoder_latent_input_proj.weight.new_zeros(count, self.latent_dim)
        vectors = [self.encoder_latent_input_proj(latent)]
        if OBSERVATION_STATE in self.vectors:
            vectors.append(self.encoder_robot_state_input_proj(batch[OBSERVATION_STATE]))
        if ENVIRONMENT_STATE in self.vectors:
            vectors.append(self.encoder_env_state_input_proj(batch[ENVIRONMENT_STATE]))
        tokens, positions = torch.stack(vectors, 1), self.encoder_1d_feature_pos_embed.weight
        if self.cameras:
            maps = list(self._maps([batch[camera] for camera in self.cameras]))
            tokens = torch.cat([tokens, *(self._pixels(one) for one in maps)], 1)
            positions = torch.cat([positions, *(self._places(one) for one in maps)])
        memory = self.encoder(tokens, positions)
        decoded = self.decoder(self.decoder_pos_embed.weight, memory, positions)
        actions: Tensor = self.action_head(decoded)
        return actions

    def _maps(self, images: list[Tensor]) -> Iterable[Tensor]:
        """Return each camera's map of features, [B, C, height, width]."""
        if len({image.shape for image in images}) > 1:
            return [self.backbone(image) for image in images]
        maps: Tensor = self.backbone(torch.cat(images))
        return maps.chunk(len(images))

    def _pixels(self, features: Tensor) -> Tensor:
        """Return a map's pixels row by row as tokens, [B, height * width, D]."""
        project = self.encoder_img_feat_input_proj
        pixels = features.flatten(2).transpose(1, 2)
        return functional.linear(pixels, project.weight.flatten(1), project.bias)

    def _places(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        size = self.encoder_img_feat_input_proj.out_channels
        return picture_sinusoids(height, width, size, features.device)


def _check(features: Features, cameras: list[str]) -> None:
    listed = f"the policy's features are {', '.join(features) or 'none'}"
    if ACTION not in features:
        raise FeatureMismatchError(f"{listed}; ACT needs {ACTION}")
    if not cameras and ENVIRONMENT_STATE not in features:
        raise FeatureMismatchError(f"{listed}; ACT needs a picture or {ENVIRONMENT_STATE}")
    for name in (OBSERVATION_STATE, ENVIRONMENT_STATE, ACTION):
        if name in features and len(features[name].shape) != 1:
            raise FeatureMismatchError(
                f"{name} is {features[name].dtype}{list(features[name].shape)}; ACT needs a vector"
            )
    for camera in cameras:
        if features[camera].shape[-1] != CHANNELS:
            raise FeatureMismatchError(
                f"{camera} is {list(features[camera].shape)} (height, width, channels); ACT needs "
                f"{CHANNELS} channels"
            )
