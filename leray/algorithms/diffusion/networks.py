"""The networks of Diffusion Policy, with LeRobot's tensor names.

Sequences are [B, T, C] outside of the U-Net and [B, C, T] within.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from leray.algorithms.diffusion.config import FINAL_GROUPS, DiffusionPolicyConfig
from leray.algorithms.diffusion.convolution import Conv1d, ConvTranspose1d
from leray.algorithms.imitation.inputs import Batch, pictures
from leray.algorithms.networks.rgb_encoder import RgbEncoder
from leray.data.features import Features
from leray.data.names import ACTION, ENVIRONMENT_STATE, OBSERVATION_STATE

_LONGEST_PERIOD = 10_000
"""Of the sines that embed diffusion steps, in steps per radian."""


class StepEmbedding(nn.Module):
    """Sines and cosines of diffusion steps (Vaswani et al. 2017, section 3.5).

    Args:
        size: even.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._half = size // 2

    def forward(self, steps: Tensor) -> Tensor:
        """Return [B, size] of steps [B]."""
        numbers = torch.arange(self._half, device=steps.device)
        frequencies = torch.exp(numbers * -(math.log(_LONGEST_PERIOD) / (self._half - 1)))
        angles = steps.unsqueeze(-1) * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class ConvBlock(nn.Module):
    """A convolution over time, group normalisation and Mish."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, n_groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Conv1d(inputs, outputs, kernel_size, padding=kernel_size // 2),
            nn.GroupNorm(n_groups, outputs),
            nn.Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, outputs, T] of [B, inputs, T]."""
        y: Tensor = self.block(x)
        return y


class ResidualBlock(nn.Module):
    """Two convolution blocks and a shortcut; the condition changes what is between them.

    Each feature is scaled and shifted (FiLM, Perez et al. 2017, arXiv 1709.07871), or shifted only.
    """

    def __init__(
        self, inputs: int, outputs: int, condition_size: int, config: DiffusionPolicyConfig
    ) -> None:
        super().__init__()
        kernel, groups = config.kernel_size, config.n_groups
        modulated = 2 * outputs if config.use_film_scale_modulation else outputs
        self.scales = config.use_film_scale_modulation
        self.conv1 = ConvBlock(inputs, outputs, kernel, groups)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(condition_size, modulated))
        self.conv2 = ConvBlock(outputs, outputs, kernel, groups)
        self.residual_conv = nn.Identity() if inputs == outputs else Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return [B, outputs, T].

        Args:
            x: [B, inputs, T].
            condition: [B, condition_size], after the activation that `cond_encoder` begins with.
        """
        y: Tensor = self.conv1(x)
        film = self.cond_encoder[1](condition).unsqueeze(-1)
        if self.scales:
            scale, shift = film.chunk(2, dim=1)
            y = torch.addcmul(shift, scale, y)
        else:
            y = y + film
        y = self.conv2(y) + self.residual_conv(x)
        return y


class Stage(nn.ModuleList):
    """Two residual blocks, and what halves or doubles the time steps after them."""

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return features before and after the number of time steps is changed."""
        first, second, resample = self
        x = second(first(x, condition), condition)
        return x, resample(x)


class UNet(nn.Module):
    """Tells about noisy actions what the noise is, or what they were (Janner et al. 2022).

    Args:
        action_size: numbers of an action.
        condition_size: numbers of an observation.
        config: widths and kinds of layers.
    """

    def __init__(
        self, action_size: int, condition_size: int, config: DiffusionPolicyConfig
    ) -> None:
        super().__init__()
        embedding, dims = config.diffusion_step_embed_dim, config.down_dims
        self.diffusion_step_encoder = nn.Sequential(
            StepEmbedding(embedding),
            nn.Linear(embedding, 4 * embedding),
            nn.Mish(),
            nn.Linear(4 * embedding, embedding),
        )

        def block(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, embedding + condition_size, config)

        self.down_modules = nn.ModuleList()
        for number, (inputs, outputs) in enumerate(zip((action_size, *dims), dims, strict=False)):
            last = number == len(dims) - 1
            halve = nn.Identity() if last else Conv1d(outputs, outputs, 3, stride=2, padding=1)
            self.down_modules.append(
                Stage([block(inputs, outputs), block(outputs, outputs), halve])
            )
        self.mid_modules = nn.ModuleList([block(dims[-1], dims[-1]) for _ in range(2)])
        self.up_modules = nn.ModuleList()
        for outputs, inputs in zip(dims[-2::-1], dims[:0:-1], strict=True):
            double = ConvTranspose1d(outputs, outputs, 4, stride=2, padding=1)
            # what comes from below, and what the same stage of the way down held
            self.up_modules.append(
                Stage([block(2 * inputs, outputs), block(outputs, outputs), double])
            )
        self.final_conv = nn.Sequential(
            ConvBlock(dims[0], dims[0], config.kernel_size, FINAL_GROUPS),
            Conv1d(dims[0], action_size, 1),
        )

    def forward(self, actions: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """Return [B, T, A].

        Args:
            actions: noisy ones [B, T, A].
            timesteps: int64 [B], how noisy they are.
            condition: [B, condition_size].
        """
        condition = torch.cat([self.diffusion_step_encoder(timesteps), condition], dim=-1)
        condition = functional.mish(condition)  # once, as all blocks begin with it
        x, held = actions.transpose(1, 2), []
        for stage in self.down_modules:
            same, x = stage(x, condition)
            held.append(same)
        for block in self.mid_modules:
            x = block(x, condition)
        for stage in self.up_modules:
            _, x = stage(torch.cat([x, held.pop()], dim=1), condition)
        told: Tensor = self.final_conv(x).transpose(1, 2)
        return told


class Denoiser(nn.Module):
    """The encoders of the observations, and the U-Net that they condition.

    Args:
        config: the policy's options.
        features: observations and action.
    """

    def __init__(self, config: DiffusionPolicyConfig, features: Features) -> None:
        super().__init__()
        self.n_obs_steps = config.n_obs_steps
        self.cameras = pictures(features)
        self.vectors = [n for n in (OBSERVATION_STATE, ENVIRONMENT_STATE) if n in features]
        self.action_size = features[ACTION].size
        size = sum(features[name].size for name in self.vectors)
        if self.cameras:
            shape = features[self.cameras[0]].shape
            if config.use_separate_rgb_encoder_per_camera:
                encoders = [_rgb_encoder(config, shape) for _ in self.cameras]
                self.rgb_encoder: nn.Module = nn.ModuleList(encoders)
            else:
                self.rgb_encoder = _rgb_encoder(config, shape)
            size += 2 * config.spatial_softmax_num_keypoints * len(self.cameras)
        self.unet = UNet(self.action_size, size * self.n_obs_steps, config)

    def condition(self, batch: Batch) -> Tensor:
        """Return what the U-Net is told of the observations, [B, C].

        Args:
            batch: observations [B, n_obs_steps, ...], or [B, ...] where that is 1.
        """
        rows = len(batch[OBSERVATION_STATE])
        parts = [batch[name].reshape(rows, self.n_obs_steps, -1) for name in self.vectors]
        if self.cameras:
            parts.insert(1, self._seen(batch, rows))
        return torch.cat(parts, dim=-1).flatten(1)

    def _seen(self, batch: Batch, rows: int) -> Tensor:
        """Return features of all pictures [B, n_obs_steps, cameras * 2K], camera by camera."""
        views = [batch[name].reshape(-1, *batch[name].shape[-3:]) for name in self.cameras]
        if isinstance(self.rgb_encoder, nn.ModuleList):
            encoders = zip(self.rgb_encoder, views, strict=True)
            seen = [encode(view) for encode, view in encoders]
        else:
            seen = list(self.rgb_encoder(torch.cat(views)).chunk(len(views)))
        return torch.cat(seen, dim=-1).view(rows, self.n_obs_steps, -1)


def _rgb_encoder(config: DiffusionPolicyConfig, shape: tuple[int, ...]) -> RgbEncoder:
    return RgbEncoder(
        shape,
        vision_backbone=config.vision_backbone,
        group_norm=config.use_group_norm,
        num_keypoints=config.spatial_softmax_num_keypoints,
        resize=config.resize_shape,
        crop=config.crop_shape,
        random_crop=config.crop_is_random,
    )
