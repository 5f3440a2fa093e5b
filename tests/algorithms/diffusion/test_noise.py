"""Noise schedules against their formulas."""

import math

import pytest
import torch

from leray.algorithms.diffusion.config import DiffusionPolicyConfig
from leray.algorithms.diffusion.noise import NoiseSchedule


def _signal(steps: int = 100) -> list[float]:
    """Return the share of the actions that is left after each step, of `squaredcos_cap_v2`."""

    def level(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    shares, share = [], 1.0
    for step in range(steps):
        beta = 1 - level((step + 1) / steps) / level(step / steps)
        share *= 1 - min(beta, 0.999)
        shares.append(share)
    return shares


def _schedule(**options) -> NoiseSchedule:
    return NoiseSchedule(DiffusionPolicyConfig(**options))


def test_noise_is_added_by_the_cosine_schedule():
    actions = torch.full((3, 1, 2), 2.0)
    noise = torch.full((3, 1, 2), -1.0)
    noisy = _schedule().add_noise(actions, noise, torch.tensor([0, 50, 99]))
    signal = _signal()
    assert signal[0] == pytest.approx(1 - 6.3e-4, abs=2e-5)
    assert signal[99] == pytest.approx(2.43e-7, rel=1e-2)
    for row, step in enumerate((0, 50, 99)):
        expected = math.sqrt(signal[step]) * 2 - math.sqrt(1 - signal[step])
        assert noisy[row, 0].tolist() == pytest.approx([expected] * 2, abs=1e-5)


def test_the_linear_schedule_begins_and_ends_as_told():
    options = {"beta_schedule": "linear", "beta_start": 0.1, "beta_end": 0.3}
    schedule = _schedule(**options, num_train_timesteps=3)
    noisy = schedule.add_noise(
        torch.ones(3, 1, 1), torch.zeros(3, 1, 1), torch.tensor([0, 1, 2])
    ).flatten()
    shares = [0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7]
    assert noisy.tolist() == pytest.approx([math.sqrt(share) for share in shares])


@pytest.mark.parametrize(("steps", "first"), [(100, 99), (10, 90), (16, 90)])
def test_denoising_takes_evenly_spaced_steps(steps, first):
    seen = []

    def predict(actions, timesteps):
        seen.append(timesteps.tolist())
        return torch.zeros_like(actions)

    schedule = _schedule(num_inference_steps=steps)
    schedule.denoise(predict, torch.zeros(2, 16, 1), torch.Generator())
    assert seen == [[first - number * (100 // steps)] * 2 for number in range(steps)]


def test_a_step_of_ddim_by_hand():
    signal = _signal()
    told, x = 0.25, 0.5
    for prediction, clip in (("epsilon", True), ("epsilon", False), ("sample", True)):
        schedule = _schedule(
            noise_scheduler_type="DDIM",
            num_inference_steps=2,
            prediction_type=prediction,
            clip_sample=clip,
            clip_sample_range=0.3,
        )
        # timesteps are 50 and 0; after the last one nothing of the noise is left
        value = x
        for now, later in ((signal[50], signal[0]), (signal[0], 1.0)):
            if prediction == "epsilon":
                clean, noise = (value - math.sqrt(1 - now) * told) / math.sqrt(now), told
            else:
                clean, noise = told, (value - math.sqrt(now) * told) / math.sqrt(1 - now)
            clean = max(-0.3, min(0.3, clean)) if clip else clean
            value = math.sqrt(later) * clean + math.sqrt(1 - later) * noise
        found = schedule.denoise(
            lambda actions, _: torch.full_like(actions, told),
            torch.full((1, 1, 1), x),
            torch.Generator(),
        )
        assert float(found) == pytest.approx(value, abs=1e-5)


def test_steps_of_ddpm_by_hand():
    schedule = _schedule(num_inference_steps=2, clip_sample=False)
    signal, told = _signal(), 0.25
    noise = torch.randn(1, 1, 1, generator=torch.Generator().manual_seed(4))
    value = 0.5
    for now, later, added in ((signal[50], signal[0], float(noise)), (signal[0], 1.0, 0.0)):
        alpha = now / later
        clean = (value - math.sqrt(1 - now) * told) / math.sqrt(now)
        mean = (math.sqrt(later) * (1 - alpha) * clean + math.sqrt(alpha) * (1 - later) * value) / (
            1 - now
        )
        value = mean + math.sqrt((1 - later) / (1 - now) * (1 - alpha)) * added
    found = schedule.denoise(
        lambda actions, _: torch.full_like(actions, told),
        torch.full((1, 1, 1), 0.5),
        torch.Generator().manual_seed(4),
    )
    assert float(found) == pytest.approx(value, abs=1e-5)


def test_all_randomness_comes_from_the_generator():
    def denoised(seed: int, kind: str) -> torch.Tensor:
        schedule = _schedule(noise_scheduler_type=kind, num_inference_steps=5)
        return schedule.denoise(
            lambda actions, _: actions / 2,
            torch.ones(2, 16, 3),
            torch.Generator().manual_seed(seed),
        )

    before = torch.get_rng_state()
    assert torch.equal(denoised(1, "DDPM"), denoised(1, "DDPM"))
    assert not torch.equal(denoised(1, "DDPM"), denoised(2, "DDPM"))
    assert torch.equal(denoised(1, "DDIM"), denoised(2, "DDIM"))
    assert torch.equal(torch.get_rng_state(), before)
