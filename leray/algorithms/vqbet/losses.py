"""VQ-BeT's losses, as pure functions.

Lee et al. 2024, "Behavior Generation with Latent Actions" (arXiv 2403.03181). N samples, C codes.
"""

from torch import Tensor
from torch.nn import functional

COMMITMENT_WEIGHT = 5.0
"""Of the commitment loss next to the reconstruction; lambda in the paper's section 3.2."""
FOCUS = 2.0
"""gamma of the focal loss."""


def quantization_loss(reconstruction: Tensor, commitment: Tensor) -> Tensor:
    """Return L_RVQ = |a - psi(z_q)|_1 + lambda |phi(a) - sg(e)|^2 of section 3.2.

    Args:
        reconstruction: mean absolute difference of actions and decoded actions, [].
        commitment: mean squared distance of what was encoded and its codes' vectors, summed over
            the levels, [].
    """
    return reconstruction + COMMITMENT_WEIGHT * commitment


def focal_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """Return the mean of -(1 - p)^gamma log p, where p is the probability of the right code.

    Lin et al. 2017, "Focal Loss for Dense Object Detection" (arXiv 1708.02002), equation 4.

    Args:
        logits: of all codes, [N, C].
        codes: the right ones, [N].
    """
    log_p = functional.log_softmax(logits, dim=-1).gather(-1, codes.unsqueeze(-1)).squeeze(-1)
    return -((1 - log_p.exp()) ** FOCUS * log_p).mean()
