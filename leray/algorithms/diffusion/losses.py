"""The loss of Diffusion Policy."""

from torch import Tensor
from torch.nn import functional


def denoising_loss(prediction: Tensor, target: Tensor, is_pad: Tensor | None = None) -> Tensor:
    """Return the mean squared error of what the network tells about noisy actions.

    Chi et al. 2023 (arXiv 2303.04137), equation 5: MSE(eps_k, eps_theta(O, A + eps_k, k)); the
    target may be the clean actions as well.

    Args:
        prediction: [B, T, A].
        target: [B, T, A], the noise or the clean actions.
        is_pad: bool [B, T], true where an action is a copy; those count as no error, and are
            part of the mean, as in LeRobot 0.4.

    Returns:
        A scalar.
    """
    if is_pad is None:
        return functional.mse_loss(prediction, target)
    errors = functional.mse_loss(prediction, target, reduction="none")
    return errors.masked_fill(is_pad.unsqueeze(-1), 0).mean()
