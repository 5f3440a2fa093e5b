"""ACT's loss, as pure functions (Zhao et al. 2023, arXiv 2304.13705, algorithm 1)."""

from torch import Tensor


def reconstruction_loss(predicted: Tensor, actions: Tensor, is_pad: Tensor) -> Tensor:
    """Return the mean of |predicted - actions|, where a padded step counts as one without error.

    The mean goes over all elements, padded ones too, as LeRobot 0.4 takes it (section IV-C of the
    paper: L1 instead of L2).

    Args:
        predicted: shape [B, K, A].
        actions: shape [B, K, A].
        is_pad: steps after the end of the episode, bool [B, K].
    """
    error = (predicted - actions).abs()
    return error.masked_fill(is_pad.unsqueeze(-1), 0.0).mean()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) || N(0, 1)), summed over the latent, averaged over the batch.

    That is -1/2 (1 + log s^2 - m^2 - s^2) for each element (Kingma and Welling 2014, arXiv
    1312.6114, appendix B).

    Args:
        mean: shape [B, L].
        log_variance: shape [B, L].
    """
    terms = 1 + log_variance - mean.square() - log_variance.exp()
    return -0.5 * terms.sum(-1).mean()
