import numpy as np
import pytest
import torch

from leray.algorithms.imitation.learner import ImitationLearner


@pytest.fixture
def learn(make_policy, train):
    """Train a policy on chunks near 1 or -1; return what it predicts, and what was wanted."""
    rng = np.random.default_rng(0)

    def batch(size=64, told=0.0):
        side = rng.choice([-1.0, 1.0], (size, 1, 1))
        actions = side + rng.normal(0, 0.05, (size, 7, 2))
        return {
            "observation.state": np.broadcast_to(told * side, (size, 3, 3)).astype(np.float32),
            "observation.environment_state": np.zeros((size, 3, 2), np.float32),
            "action": actions.astype(np.float32),
        }

    def run(told, **options):
        policy = make_policy(
            n_vqvae_training_steps=400,
            vqvae_enc_hidden_dim=32,
            optimizer_vqvae_lr=4e-3,
            optimizer_lr=1e-3,
            dropout=0.0,
            sequentially_select=True,
            bet_softmax_temperature=1.0,
            **options,
        )
        for parameter in policy.model.vqbet.action_head.map_to_cbet_preds_offset.parameters():
            torch.nn.init.zeros_(parameter)
        learner = ImitationLearner(policy, total_updates=500, seed=0)
        train(learner, (batch(told=told) for _ in range(500)))
        test = batch(200, told)
        wanted = test.pop("action")[:, 2:6]
        return policy.predict(test), wanted

    return run


def test_two_modes_stay_apart(learn):
    """From one state demonstrations go both ways; the policy goes both ways, and not between.

    Without offsets, which learn towards what was demonstrated whatever code was drawn.
    """
    chunks, _ = learn(told=0.0, offset_loss_weight=0.0)
    assert (np.abs(chunks) < 0.5).mean() < 0.1
    assert 0.25 < (chunks[:, 0, 0] > 0).mean() < 0.75


def test_the_state_tells_the_mode(learn):
    chunks, wanted = learn(told=1.0, offset_loss_weight=10.0)
    assert np.abs(chunks - wanted).mean() < 0.2
