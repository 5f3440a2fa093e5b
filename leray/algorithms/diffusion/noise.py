"""How actions become noise and back; schedules and steps are those of diffusers."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from leray.algorithms.diffusion.config import DiffusionPolicyConfig

_SCHEDULERS = {"DDPM": DDPMScheduler, "DDIM": DDIMScheduler}


class NoiseSchedule:
    """Adds noise to actions (Ho et al. 2020) and takes it away (DDPM, or DDIM of Song et al. 2021).

    Args:
        config: names the schedule and its numbers.
    """

    def __init__(self, config: DiffusionPolicyConfig) -> None:
        self.num_train_timesteps = config.num_train_timesteps
        self._scheduler: Any = _SCHEDULERS[config.noise_scheduler_type](
            num_train_timesteps=config.num_train_timesteps,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
            beta_schedule=config.beta_schedule,
            clip_sample=config.clip_sample,
            clip_sample_range=config.clip_sample_range,
            prediction_type=config.prediction_type,
        )
        self._scheduler.set_timesteps(config.num_inference_steps or config.num_train_timesteps)

    def add_noise(self, actions: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return sqrt(a) actions + sqrt(1 - a) noise, where a belongs to each sample's timestep.

        Args:
            actions: [B, T, A].
            noise: [B, T, A].
            timesteps: int64 [B], from 0 (hardly any noise) to `num_train_timesteps` - 1.
        """
        noisy: Tensor = self._scheduler.add_noise(actions, noise, timesteps)
        return noisy

    def denoise(
        self, predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return actions [B, T, A] that noise [B, T, A] is denoised to.

        Args:
            predict: tells about noisy actions [B, T, A] at timesteps [B] what the config's
                `prediction_type` says.
            noise: where it begins.
            generator: of the noise that DDPM adds in each step.
        """
        actions = noise
        for step in self._scheduler.timesteps.tolist():
            timesteps = torch.full((len(actions),), step, device=actions.device)
            told = predict(actions, timesteps).to(torch.float32)
            actions = self._scheduler.step(told, step, actions, generator=generator).prev_sample
        return actions
