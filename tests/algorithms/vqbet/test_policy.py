import numpy as np
import pytest
import torch

from leray.algorithms.imitation.learner import ImitationLearner
from leray.algorithms.vqbet.policy import VQBeTPolicy
from leray.data.features import Feature, Features
from leray.errors import CheckpointError
from tests.algorithms.vqbet.conftest import PICTURES, STATES

VQVAE = "vqbet.action_head.vqvae_model"
CERTAIN = {"bet_softmax_temperature": 1e-6}
"""Draws the likeliest codes."""


def trained(policy):
    """Return the policy in its second phase."""
    policy.model.vqbet.action_head.vqvae_model.freeze()
    return policy


def new_learner(policy):
    return ImitationLearner(policy, total_updates=10, seed=0)


def test_each_phase_trains_its_own_part(make_policy, make_batch):
    policy = make_policy(PICTURES)
    loss, figures = policy.model.loss(policy.prepare(make_batch(policy)))
    loss.backward()
    first = {name for name, p in policy.model.named_parameters() if p.grad is not None}
    assert first
    assert all(name.startswith((f"{VQVAE}.encoder", f"{VQVAE}.decoder")) for name in first)
    assert figures.keys() == {"reconstruction", "commitment"}
    expected = figures["reconstruction"] + 5 * figures["commitment"]
    assert loss.item() == pytest.approx(expected.item())

    policy.model.zero_grad()
    loss, figures = trained(policy).model.loss(policy.prepare(make_batch(policy)))
    loss.backward()
    second = {name for name, p in policy.model.named_parameters() if p.grad is not None}
    assert second == {name for name, _ in policy.model.named_parameters()} - first
    weights = {"primary_code": 5.0, "secondary_code": 0.5, "offset": 10000.0}
    expected = sum(weight * figures[name].item() for name, weight in weights.items())
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_first_phase_leaves_pictures_alone(make_policy, make_batch):
    policy = make_policy(PICTURES)
    batch = make_batch(policy)
    assert policy.prepare(batch).keys() == {"action"}
    seen = {name: values for name, values in batch.items() if name.startswith("observation")}
    assert policy.prepare(seen).keys() == seen.keys()
    assert trained(policy).prepare(batch).keys() == batch.keys()


def test_the_first_phase_has_exactly_its_updates(make_policy, make_batch, train):
    policy = make_policy(n_vqvae_training_steps=3)
    learner, vqvae = new_learner(policy), policy.model.vqbet.action_head.vqvae_model
    train(learner, [make_batch(policy, seed) for seed in range(2)])
    assert not vqvae.discretized
    assert len(policy.model.synchronized()) == 4
    train(learner, [make_batch(policy, 2)])
    assert vqvae.discretized
    assert policy.model.synchronized() == []
    assert learner.metrics().keys() >= {"loss/reconstruction", "loss/commitment"}
    before = {name: values.clone() for name, values in vqvae.state_dict().items()}
    token = policy.model.vqbet.action_token.clone()
    train(learner, [make_batch(policy, seed) for seed in (3, 4)])
    assert all(torch.equal(before[name], values) for name, values in vqvae.state_dict().items())
    assert not torch.equal(token, policy.model.vqbet.action_token)
    assert learner.metrics().keys() >= {"loss/primary_code", "loss/secondary_code", "loss/offset"}


def test_the_first_phase_leaves_what_the_second_trains(make_policy, make_batch, train):
    policy = make_policy(PICTURES, n_vqvae_training_steps=3)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    train(new_learner(policy), [make_batch(policy, seed) for seed in range(3)])
    changed = {n for n, p in policy.model.named_parameters() if not torch.equal(before[n], p)}
    assert changed == {n for n in before if n.startswith(f"{VQVAE}.")}


def test_learning_rates_of_the_groups_follow_the_schedule(make_policy, make_batch, train):
    policy = make_policy(n_vqvae_training_steps=2, scheduler_warmup_steps=2)
    learner, rates = new_learner(policy), []
    for seed in range(4):
        train(learner, [make_batch(policy, seed)])
        rates.append(learner.metrics()["train/lr"])
    assert rates == pytest.approx([1e-4, 1e-4, 0.0, 0.5e-4])


def test_a_run_resumes_in_the_middle_of_the_first_phase(make_policy, make_batch, train, tmp_path):
    whole = make_policy(n_vqvae_training_steps=4)
    learner = new_learner(whole)
    batches = [make_batch(whole, seed) for seed in range(7)]
    train(learner, batches[:2])
    whole.save_pretrained(tmp_path, learner.weights())
    learner.save_state(tmp_path)
    train(learner, batches[2:])

    resumed = make_policy(seed=1, n_vqvae_training_steps=4)
    resumed.load_weights(tmp_path)
    learner = new_learner(resumed)
    learner.load_state(tmp_path)
    train(learner, batches[2:3])
    assert not resumed.model.vqbet.action_head.vqvae_model.frozen
    train(learner, batches[3:4])
    assert resumed.model.vqbet.action_head.vqvae_model.frozen
    train(learner, batches[4:])
    expected = whole.model.state_dict()
    assert all(torch.equal(v, expected[name]) for name, v in resumed.model.state_dict().items())


def test_training_goes_on_in_the_second_phase(make_policy, make_batch, train, tmp_path):
    trained(make_policy()).save_pretrained(tmp_path)
    policy = make_policy(seed=1)
    policy.load_weights(tmp_path)
    learner = new_learner(policy)
    train(learner, [make_batch(policy)])
    assert "loss/offset" in learner.metrics()


def test_taking_over_codebooks_changes_nothing_for_one_learner(make_policy, make_batch):
    policy = make_policy()
    policy.model.loss(policy.prepare(make_batch(policy)))
    before = {name: values.clone() for name, values in policy.model.state_dict().items()}
    policy.model.after_update(1)
    assert all(torch.equal(before[k], v) for k, v in policy.model.state_dict().items())


def test_targets_are_the_windows_of_each_query(make_policy):
    policy = make_policy()  # chunks of 4, 3 observations and 1 future query: 4 queries of 7 actions
    actions = torch.arange(2 * 7 * 2).view(2, 7, 2)
    chunks = policy.model.vqbet.chunks(actions)
    assert chunks.shape == (8, 8)
    assert chunks[2].tolist() == actions[0, 2:6].flatten().tolist()
    assert chunks[7].tolist() == actions[1, 3:7].flatten().tolist()
    indices = policy.model.vqbet.select_target_actions_indices
    assert torch.equal(actions[:, indices].flatten(2).flatten(0, 1), chunks)


@pytest.mark.parametrize("sequential", [False, True])
def test_saved_policies_act_as_before(make_policy, make_batch, tmp_path, sequential):
    policy = trained(make_policy(PICTURES, sequentially_select=sequential))
    policy.save_pretrained(tmp_path)
    loaded = VQBeTPolicy.from_pretrained(tmp_path)
    assert loaded.config == policy.config
    expected = policy.model.state_dict()
    assert all(torch.equal(v, expected[name]) for name, v in loaded.model.state_dict().items())
    assert loaded.model.vqbet.action_head.vqvae_model.frozen
    windows = make_batch(policy)
    windows.pop("action")
    assert np.array_equal(loaded.predict(windows), policy.predict(windows))


def test_options_must_fit_the_weights(make_policy, tmp_path):
    make_policy(STATES).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="map_to_cbet_preds_primary_bin"):
        make_policy(STATES, sequentially_select=True).load_weights(tmp_path)


def rows(policy, size, seed):
    rng = np.random.default_rng(seed)
    return {
        name: rng.uniform(-1, 2, (size, *feature.shape)).astype(np.float32)
        for name, feature in policy.features.items()
        if name != "action"
    }


def test_chunks_are_played_to_their_end_and_follow_the_history(make_policy):
    policy = trained(make_policy(**CERTAIN))  # 3 observations, 4 actions
    seen = [rows(policy, 1, seed) for seed in range(5)]
    actions = [policy.act(row) for row in seen]
    first = {name: np.stack([values] * 3, axis=1) for name, values in seen[0].items()}
    chunk = policy.predict(first)[0]
    assert chunk.shape == (4, 2)
    np.testing.assert_allclose(np.concatenate(actions[:4]), chunk, atol=1e-6)
    last = {name: np.stack([row[name] for row in seen[2:]], axis=1) for name in seen[0]}
    np.testing.assert_allclose(actions[4][0], policy.predict(last)[0, 0], atol=1e-6)


def test_environments_are_apart(make_policy):
    policy, alone = trained(make_policy(**CERTAIN)), trained(make_policy(**CERTAIN))
    for step in range(9):
        both = rows(policy, 2, step)
        if step == 3:
            policy.reset([1])
            alone.reset()
        actions = policy.act(both)
        expected = alone.act({name: values[1:] for name, values in both.items()})
        np.testing.assert_allclose(actions[1:], expected, atol=1e-5)


def test_drawing_follows_the_seed(make_policy, make_batch):
    policy = trained(make_policy(bet_softmax_temperature=10.0))
    windows = make_batch(policy)
    policy.seed(3)
    first, second = policy.predict(windows), policy.predict(windows)
    assert not np.array_equal(first, second)
    policy.seed(3)
    torch.manual_seed(99)
    assert np.array_equal(policy.predict(windows), first)


def test_one_observation_is_enough(make_policy, make_batch):
    policy = make_policy(n_obs_steps=1, n_action_pred_token=1)
    loss, _ = policy.model.loss(policy.prepare(make_batch(policy)))
    loss, _ = trained(policy).model.loss(policy.prepare(make_batch(policy)))
    assert loss.isfinite()
    assert policy.act(rows(policy, 2, 0)).shape == (2, 2)


def test_actions_come_in_their_units(make_policy):
    policy = trained(make_policy())
    vqbet = policy.model.vqbet
    for parameter in (*vqbet.action_head.parameters(), *vqbet.policy.parameters()):
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(vqbet.action_head.vqvae_model.decoder[4].bias, 0.5)
    # normalised 0.5 within -2 .. 2 is 1
    np.testing.assert_allclose(policy.act(rows(policy, 3, 0)), np.ones((3, 2)), atol=1e-6)


def test_several_pictures_are_tokens_of_their_own(make_policy, make_batch):
    features = Features(
        {
            f"observation.images.{name}": Feature(
                "uint8", (42, 40, 3), ("height", "width", "channels")
            )
            for name in ("front", "wrist")
        }
        | {"action": Feature("float32", (2,))}
    )
    policy = trained(make_policy(features))
    batch = policy.prepare(make_batch(policy))
    swapped = {
        "observation.images.front": batch["observation.images.wrist"],
        "observation.images.wrist": batch["observation.images.front"],
    }
    policy.model.eval()
    logits = policy.model.vqbet(batch).logits
    assert logits.shape == (5 * 4, 2, 6)
    assert torch.equal(policy.model.vqbet(batch).logits, logits)
    assert not torch.equal(policy.model.vqbet(swapped).logits, logits)


@pytest.mark.parametrize("phase", [1, 2])
def test_bfloat16_keeps_the_loss_close(make_policy, make_batch, phase):
    losses = []
    for use_amp in (False, True):
        policy = make_policy(PICTURES, use_amp=use_amp, dropout=0.0, **CERTAIN)
        if phase == 2:
            trained(policy)
        policy.model.eval()
        with policy.precision():
            loss, _ = policy.model.loss(policy.prepare(make_batch(policy)))
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
