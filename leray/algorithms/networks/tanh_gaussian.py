"""The tanh-squashed diagonal Gaussian that continuous-control actors sample from."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
_LOG_2PI = math.log(2 * math.pi)
_LOG_2 = math.log(2.0)


class TanhGaussianSample(NamedTuple):
    """A reparameterised sample and what its gradient needs; A action dimensions, B samples."""

    action: Tensor
    """tanh(u), shape [B, A]."""
    log_prob: Tensor
    """Log-density of the action in nats, shape [B]."""
    offset: Tensor
    """u - mean = std * noise, shape [B, A]."""
    unclamped: Tensor
    """1 where the log-std was inside its bounds, else 0; shape [B, A]."""


@torch.no_grad()
def sample(output: Tensor, noise: Tensor) -> TanhGaussianSample:
    """Draw actions from network outputs (Haarnoja et al. 2018b, appendix C).

    Args:
        output: means and log-stds side by side, shape [B, 2A].
        noise: standard normal draws, shape [B, A].
    """
    mean, raw_log_std = output.chunk(2, dim=-1)
    log_std = raw_log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
    offset = log_std.exp().mul_(noise)
    pre_tanh = mean + offset
    # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), stable for any u
    squash = torch.nn.functional.softplus(-2 * pre_tanh).add_(pre_tanh).sub_(_LOG_2).mul_(2)
    log_prob = squash.sub_(log_std).addcmul_(noise, noise, value=-0.5).sum(-1)
    log_prob.sub_(0.5 * _LOG_2PI * noise.shape[-1])
    return TanhGaussianSample(
        pre_tanh.tanh_(), log_prob, offset, raw_log_std.eq(log_std).to(output.dtype)
    )


@torch.no_grad()
def sample_backward(
    drawn: TanhGaussianSample, grad_action: Tensor, grad_log_prob: Tensor
) -> Tensor:
    """Propagate gradients of a sample's action and log-probability to the network outputs.

    With u = mean + std * noise and a = tanh(u): da/du = 1 - a^2, dlog_prob/du = 2a,
    dlog_prob/dlog_std = 2a * std * noise - 1.

    Args:
        drawn: the sample.
        grad_action: shape [B, A].
        grad_log_prob: shape [B].

    Returns:
        Gradient with respect to `output`, shape [B, 2A].
    """
    action, offset = drawn.action, drawn.offset
    weight = grad_log_prob.unsqueeze(-1)
    grad_u = torch.addcmul(grad_action, action * action, grad_action, value=-1)
    grad_u.addcmul_(action, weight, value=2)
    grad_log_std = torch.addcmul(-weight.expand_as(offset), grad_u, offset)
    return torch.cat([grad_u, grad_log_std.mul_(drawn.unclamped)], dim=-1)


def mode(output: Tensor) -> Tensor:
    """Return the deterministic action tanh(mean), shape [B, A], of network outputs [B, 2A]."""
    return output.chunk(2, dim=-1)[0].tanh()


def draw(output: Tensor, generator: torch.Generator) -> Tensor:
    """Return sampled actions, shape [B, A], of network outputs [B, 2A]; no log-probability."""
    mean, log_std = output.chunk(2, dim=-1)
    noise = torch.empty_like(mean).normal_(generator=generator)
    return torch.addcmul(mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX).exp_(), noise).tanh_()
