"""SAC's losses and their gradients, as pure functions.

Equations are those of Haarnoja et al. 2018b, "Soft Actor-Critic Algorithms and Applications"
(arXiv 1812.05905); the subset minimum is Chen et al. 2021, "Randomized Ensembled Double
Q-Learning" (REDQ, arXiv 2101.05982). B samples, E critics.
"""

import torch
from torch import Tensor


@torch.no_grad()
def critic_target(
    *,
    reward: Tensor,
    bootstrap: Tensor,
    next_q: Tensor,
    next_log_prob: Tensor,
    alpha: Tensor,
    use_backup_entropy: bool,
) -> Tensor:
    """Return the soft Bellman target r + gamma^n (1 - d) (min_e Q_e(s', a') - alpha log pi(a'|s')).

    Haarnoja et al. 2018b, section 4.2; the paper has n = 1.

    Args:
        reward: discounted sum of the n rewards, shape [B].
        bootstrap: gamma^n where the state after them is not terminal, else 0; shape [B].
        next_q: target critics the minimum is taken over, shape [E', B].
        next_log_prob: log pi(a'|s'), shape [B].
        alpha: temperature, shape [].
        use_backup_entropy: whether the entropy term is kept.
    """
    value = next_q.amin(0)
    if use_backup_entropy:
        value = torch.addcmul(value, alpha, next_log_prob, value=-1)
    return torch.addcmul(reward, bootstrap, value)


@torch.no_grad()
def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Return sum over critics of the batch mean of (Q_e - y)^2 (section 4.2, J_Q), shape [].

    The paper halves each term; dropping the half only rescales the learning rate of Adam's input.

    Args:
        q: shape [E, B].
        target: shape [B].
    """
    return (q - target).square_().mean(1).sum()


@torch.no_grad()
def critic_loss_grad(q: Tensor, target: Tensor) -> Tensor:
    """Return the gradient of `critic_loss` with respect to q: 2 (Q_e - y) / B, shape [E, B]."""
    return (q - target).mul_(2.0 / q.shape[1])


@torch.no_grad()
def actor_value(q: Tensor, *, reduce: str) -> Tensor:
    """Return the value an actor climbs: the ensemble's minimum (SAC) or mean (REDQ), shape [B]."""
    return q.amin(0) if reduce == "min" else q.mean(0)


@torch.no_grad()
def actor_value_grad(q: Tensor, *, reduce: str) -> Tensor:
    """Return d(-mean_b actor_value)/dq, shape [E, B]."""
    members, batch = q.shape
    if reduce == "mean":
        return torch.full_like(q, -1.0 / (members * batch))
    lowest = torch.zeros_like(q)
    return lowest.scatter_(0, q.argmin(0, keepdim=True), -1.0 / batch)


@torch.no_grad()
def actor_loss(log_prob: Tensor, value: Tensor, alpha: Tensor) -> Tensor:
    """Return mean of alpha log pi(a|s) - Q(s, a) (section 4.2, J_pi), shape []."""
    return torch.addcmul(-value, alpha, log_prob).mean()


@torch.no_grad()
def temperature_loss_grad(log_prob: Tensor, target_entropy: float, alpha: Tensor) -> Tensor:
    """Return the gradient of J(alpha) = mean(-alpha (log pi + H)) with respect to log alpha.

    Section 5, J(alpha); since d alpha / d log alpha = alpha, it equals the loss itself. Shape [].
    """
    return -alpha * (log_prob.mean() + target_entropy)


@torch.no_grad()
def imitation_grad(mean: Tensor, action: Tensor, mask: Tensor, weight: float) -> Tensor:
    """Return the gradient of weight * mean_b mask_b |tanh(mean_b) - action_b|^2 w.r.t. the mean.

    The behaviour-cloning term of Nair et al. 2018 (arXiv 1709.10089, section IV-B); with their
    Q-filter the mask is 0 where the critics rate the recorded action below the actor's.

    Args:
        mean: the actor's mean before the tanh, shape [B, A].
        action: recorded actions in [-1, 1], shape [B, A].
        mask: which samples count, shape [B].
        weight: of the term in the actor's loss.
    """
    squashed = mean.tanh()
    slope = torch.addcmul(torch.ones_like(mean), squashed, squashed, value=-1)
    scale = (2.0 * weight / mean.shape[0]) * mask.unsqueeze(-1)
    return (squashed - action) * slope * scale
