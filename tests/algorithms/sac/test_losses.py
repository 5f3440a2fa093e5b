"""SAC's losses against numbers worked out by hand, and their gradients against autograd."""

import pytest
import torch

from leray.algorithms.sac import losses


def test_critic_target_of_three_samples_by_hand():
    # alpha = 0.1, gamma = 0.9. Sample 1 terminates; sample 2 hits a time limit, which bootstraps
    # like any step; sample 3 sums two rewards (1 + 0.9 * 2 = 2.8) and bootstraps with 0.9^2 = 0.81.
    target = losses.critic_target(
        reward=torch.tensor([1.0, 0.5, 2.8]),
        bootstrap=torch.tensor([0.0, 0.9, 0.81]),
        next_q=torch.tensor([[9.0, 4.0, 2.0], [8.0, 5.0, 1.0]]),
        next_log_prob=torch.tensor([-3.0, -2.0, 1.0]),
        alpha=torch.tensor([0.1]),
        use_backup_entropy=True,
    )
    # 1: 1;  2: 0.5 + 0.9 (4 + 0.1 * 2) = 4.28;  3: 2.8 + 0.81 (1 - 0.1 * 1) = 3.529
    torch.testing.assert_close(target, torch.tensor([1.0, 4.28, 3.529]))


def test_critic_target_without_the_entropy_term_by_hand():
    target = losses.critic_target(
        reward=torch.tensor([0.5]),
        bootstrap=torch.tensor([0.9]),
        next_q=torch.tensor([[4.0], [5.0]]),
        next_log_prob=torch.tensor([-2.0]),
        alpha=torch.tensor([0.1]),
        use_backup_entropy=False,
    )
    torch.testing.assert_close(target, torch.tensor([0.5 + 0.9 * 4.0]))


def test_critic_loss_by_hand():
    q, target = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([2.0, 4.0])
    # critic 1: (1 + 4) / 2 = 2.5; critic 2: (1 + 1) / 2 = 1
    assert losses.critic_loss(q, target).item() == 3.5
    # 2 (q - y) / 2 = q - y
    assert losses.critic_loss_grad(q, target).tolist() == [[-1.0, -2.0], [1.0, 1.0]]


def test_critic_gradient_equals_autograd_also_with_a_trailing_axis():
    q, target = torch.randn(10, 32, requires_grad=True), torch.randn(32)
    (q - target).square().mean(1).sum().backward()
    torch.testing.assert_close(losses.critic_loss_grad(q.detach(), target), q.grad)
    found = losses.critic_loss_grad(q.detach().unsqueeze(-1), target.unsqueeze(-1))
    torch.testing.assert_close(found.squeeze(-1), q.grad)


def test_actor_value_by_hand():
    q = torch.tensor([[1.0, 6.0], [3.0, 2.0]])
    assert losses.actor_value(q, reduce="min").tolist() == [1.0, 2.0]
    assert losses.actor_value(q, reduce="mean").tolist() == [2.0, 4.0]
    assert losses.actor_value_grad(q, reduce="min").tolist() == [[-0.5, 0.0], [0.0, -0.5]]
    assert losses.actor_value_grad(q, reduce="mean").tolist() == [[-0.25, -0.25]] * 2


@pytest.mark.parametrize("reduce", ["min", "mean"])
def test_actor_value_gradient_equals_autograd(reduce):
    q = torch.randn(5, 64, requires_grad=True)
    value = q.min(0).values if reduce == "min" else q.mean(0)
    (-value.mean()).backward()
    torch.testing.assert_close(losses.actor_value_grad(q.detach(), reduce=reduce), q.grad)


def test_actor_loss_by_hand():
    loss = losses.actor_loss(
        torch.tensor([-1.0, 2.0]), torch.tensor([3.0, 5.0]), torch.tensor([0.5])
    )
    # (0.5 * -1 - 3 + 0.5 * 2 - 5) / 2 = (-3.5 - 4) / 2
    assert loss.item() == -3.75


def test_temperature_gradient_by_hand_and_by_autograd():
    log_prob = torch.tensor([-1.0, -2.0])
    log_alpha = torch.tensor([0.3], requires_grad=True)
    # entropy 1.5 is above the target 1: alpha must fall, so the gradient is positive
    found = losses.temperature_loss_grad(log_prob, 1.0, log_alpha.detach().exp())
    torch.testing.assert_close(found, torch.tensor([0.3]).exp() * 0.5)
    (-log_alpha.exp() * (log_prob + 1.0)).mean().backward()
    torch.testing.assert_close(found, log_alpha.grad)


def test_imitation_gradient_equals_autograd_where_the_mask_is_one():
    mean, action = torch.randn(8, 3, requires_grad=True), torch.rand(8, 3) * 2 - 1
    mask = torch.tensor([1.0, 0.0] * 4)
    (0.7 * (mask * (mean.tanh() - action).square().sum(-1)).mean()).backward()
    found = losses.imitation_grad(mean.detach(), action, mask, 0.7)
    torch.testing.assert_close(found, mean.grad)
    assert (found[1::2] == 0).all()
