"""Diffusion Policy: actions from noise, given what was observed; saved as LeRobot saves it."""

import torch
from torch import Tensor, nn

from leray.algorithms.diffusion.config import DiffusionPolicyConfig
from leray.algorithms.diffusion.losses import denoising_loss
from leray.algorithms.diffusion.networks import Denoiser
from leray.algorithms.diffusion.noise import NoiseSchedule
from leray.algorithms.imitation.inputs import Batch, pictures
from leray.algorithms.imitation.policy import ImitationModel, ImitationPolicy
from leray.data.features import Features
from leray.data.names import ACTION, ENVIRONMENT_STATE, OBSERVATION_STATE, PAD_SUFFIX
from leray.errors import FeatureMismatchError


class DiffusionModel(ImitationModel):
    """The networks, their loss, and how they act.

    Args:
        config: the policy's options.
        features: observations and action.

    Raises:
        FeatureMismatchError: the policy cannot work with such features.
        ConfigError: the pictures are too small for the crop.
    """

    def __init__(self, config: DiffusionPolicyConfig, features: Features) -> None:
        super().__init__()
        _check(features)
        self.config = config
        self.schedule = NoiseSchedule(config)
        self.diffusion = Denoiser(config, features)
        if config.compile_model:
            self.diffusion.unet.compile(mode=config.compile_mode)

    def loss(
        self, batch: Batch, noise: Tensor | None = None, timesteps: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch of windows; there are no further figures.

        Args:
            batch: observations [B, n_obs_steps, ...], actions [B, horizon, A], and their mask
                where `do_mask_loss_for_padding` is set.
            noise: [B, horizon, A]; None draws it.
            timesteps: int64 [B]; None draws them.
        """
        actions = batch[ACTION]
        condition = self.diffusion.condition(batch)  # draws the crops, before the noise is drawn
        if noise is None:
            noise = torch.randn_like(actions)
        if timesteps is None:
            count = self.schedule.num_train_timesteps
            timesteps = torch.randint(0, count, (len(actions),), device=actions.device)
        noisy = self.schedule.add_noise(actions, noise, timesteps)
        told = self.diffusion.unet(noisy, timesteps, condition)
        target = noise if self.config.prediction_type == "epsilon" else actions
        is_pad = batch[ACTION + PAD_SUFFIX] if self.config.do_mask_loss_for_padding else None
        return denoising_loss(told, target, is_pad), {}

    def predict(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the actions to take from now on, [B, n_action_steps, A]."""
        rows = len(batch[OBSERVATION_STATE])
        shape = (rows, self.config.horizon, self.diffusion.action_size)
        noise = torch.randn(shape, generator=generator, device=generator.device)
        return self.denoise(batch, noise, generator)

    def denoise(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Return the actions that noise becomes, as `predict` does.

        Args:
            batch: observations [B, ...], or [B, n_obs_steps, ...] of several.
            noise: [B, horizon, A].
            generator: of the noise that DDPM adds in each step.
        """
        condition = self.diffusion.condition(batch)
        actions = self.schedule.denoise(
            lambda noisy, timesteps: self.diffusion.unet(noisy, timesteps, condition),
            noise,
            generator,
        )
        start = self.config.n_obs_steps - 1
        return actions[:, start : start + self.config.n_action_steps]

    def synchronized(self) -> list[Tensor]:
        """Return the statistics of batch normalisation, where the ResNets have it."""
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        return [
            statistic
            for norm in norms
            for statistic in (norm.running_mean, norm.running_var)
            if statistic is not None
        ]


class DiffusionPolicy(ImitationPolicy):
    """Diffusion Policy; see `ImitationPolicy`."""

    config_class = DiffusionPolicyConfig

    def make_model(self) -> DiffusionModel:
        """Return the networks, with fresh weights."""
        return DiffusionModel(self.config, self.processor.features)


def _check(features: Features) -> None:
    """Refuse features that Diffusion Policy cannot work with."""
    shapes = {name: features[name].shape for name in pictures(features)}
    if OBSERVATION_STATE not in features or not (shapes or ENVIRONMENT_STATE in features):
        raise FeatureMismatchError(
            f"there are {', '.join(features)}; Diffusion Policy needs {OBSERVATION_STATE}, and "
            f"pictures or {ENVIRONMENT_STATE}"
        )
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise FeatureMismatchError(
            f"there are {listed}; Diffusion Policy needs all pictures of one shape: leave some "
            "out, or record them alike"
        )
