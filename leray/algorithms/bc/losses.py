"""Losses of behaviour cloning, as pure functions; B samples of A normalised action dimensions."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from leray.algorithms.networks.tanh_gaussian import LOG_STD_MAX, LOG_STD_MIN

BOUND = 0.999
"""Largest action whose likelihood is taken. At 1 the tanh's inverse is infinite; here it is 3.8,
half a thousandth of the range away, where the tanh still has a slope for SAC to learn through."""
_LOG_2PI = math.log(2 * math.pi)


def squared_error(output: Tensor, action: Tensor) -> Tensor:
    """Return the mean of (tanh(mean) - action)^2 over all elements, shape [].

    Pomerleau 1989, "ALVINN"; the log-stds have no part in it.

    Args:
        output: means before the tanh and log-stds side by side, shape [B, 2A].
        action: recorded actions in [-1, 1], shape [B, A].
    """
    return functional.mse_loss(output.chunk(2, dim=-1)[0].tanh(), action)


def negative_log_likelihood(output: Tensor, action: Tensor, spread: float) -> Tensor:
    """Return the mean over the batch of -log pi(a|s) in nats, shape [].

    pi is the density of a = tanh(u), u ~ N(mean, std) (Haarnoja et al. 2018b, arXiv 1812.05905,
    appendix C): -log pi = sum over dimensions of
    1/2 ((u - mean) / std)^2 + log std + 1/2 log 2 pi + log(1 - a^2).

    A recorded action stands for a Gaussian around its u, of which the expectation is taken: that
    adds `spread`^2 to (u - mean)^2, so that a std below the spread does not pay.

    Args:
        output: means before the tanh and log-stds side by side, shape [B, 2A].
        action: recorded actions in [-1, 1], shape [B, A]; clipped to `BOUND`.
        spread: standard deviation of u around the recorded one; 0 is the plain likelihood.
    """
    mean, raw_log_std = output.chunk(2, dim=-1)
    log_std = raw_log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
    inside = action.clamp(-BOUND, BOUND)
    distance = (torch.atanh(inside) - mean).square() + spread**2
    slope = torch.log1p(-inside.square())
    terms = 0.5 * distance * (-2 * log_std).exp() + log_std + 0.5 * _LOG_2PI + slope
    return terms.sum(-1).mean()
