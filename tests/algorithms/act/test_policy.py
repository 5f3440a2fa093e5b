"""The ACT policy: acting, its loss, learning, and the checkpoint folder."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from leray.algorithms.act.policy import ACTPolicy
from leray.algorithms.registry import load_policy
from leray.errors import CheckpointError, FeatureMismatchError
from tests.algorithms.act.conftest import features_of

LEROBOT_FIELDS = {
    *("type", "n_obs_steps", "input_features", "output_features", "device", "use_amp"),
    *("use_peft", "push_to_hub", "repo_id", "private", "tags", "license", "pretrained_path"),
    *("chunk_size", "n_action_steps", "normalization_mapping", "vision_backbone"),
    *("pretrained_backbone_weights", "replace_final_stride_with_dilation", "pre_norm"),
    *("dim_model", "n_heads", "dim_feedforward", "feedforward_activation", "n_encoder_layers"),
    *("n_decoder_layers", "use_vae", "latent_dim", "n_vae_encoder_layers"),
    *("temporal_ensemble_coeff", "dropout", "kl_weight", "optimizer_lr"),
    *("optimizer_weight_decay", "optimizer_lr_backbone"),
}
"""All fields that LeRobot 0.4.4 accepts in the config.json of an ACT policy."""


def _rows(batch, rows):
    return {key: value[rows] for key, value in batch.items()}


def _windows(batch):
    return {key: value[:, None] for key, value in batch.items()}


@pytest.mark.parametrize("inputs", ["state env", "state front top"])
def test_a_batch_is_acted_on_as_its_rows_are(make_policy, make_batch, inputs):
    policy = make_policy(inputs)
    batch = make_batch(policy, actions=False)
    whole = policy.predict(_windows(batch))
    assert whole.shape == (4, 5, 2)
    assert whole.dtype == np.float32
    for row in range(4):
        part = policy.predict(_windows(_rows(batch, slice(row, row + 1))))
        np.testing.assert_allclose(part[0], whole[row], atol=1e-5)


def test_a_chunk_is_played_before_the_next_is_predicted(make_policy, make_batch):
    policy = make_policy()  # plays 3 of 5
    first, second = (make_batch(policy, seed=seed, actions=False) for seed in (0, 1))
    chunks = [policy.predict(_windows(one)) for one in (first, second)]
    policy.reset()
    played = [policy.act(first), policy.act(second), policy.act(second), policy.act(second)]
    expected = [chunks[0][:, 0], chunks[0][:, 1], chunks[0][:, 2], chunks[1][:, 0]]
    np.testing.assert_allclose(played, expected, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"n_action_steps": 1, "temporal_ensemble_coeff": 0.1}])
def test_environments_that_come_and_go_are_as_if_alone(make_policy, make_batch, options):
    policy = make_policy(**options)
    alone = [make_policy(**options) for _ in range(4)]
    for step in range(12):
        batch = make_batch(policy, seed=step, actions=False)
        if step in (4, 5, 9):
            over = [[1], [0, 3], [2]][(4, 5, 9).index(step)]
            policy.reset(over)
            for env in over:
                alone[env].reset()
        envs = [[0, 1, 2, 3], [3, 1], [2, 0, 1]][step % 3]
        actions = policy.act(_rows(batch, envs), envs=envs)
        for row, env in enumerate(envs):
            single = alone[env].act(_rows(batch, [env]))
            np.testing.assert_allclose(actions[row], single[0], atol=1e-5)


def test_overlapping_chunks_are_averaged(make_policy, make_batch):
    policy = make_policy(n_action_steps=1, temporal_ensemble_coeff=0.0)
    first, second = (make_batch(policy, seed=seed, actions=False) for seed in (0, 1))
    chunks = [policy.predict(_windows(one)) for one in (first, second)]
    np.testing.assert_allclose(policy.act(first), chunks[0][:, 0], atol=1e-6)
    expected = (chunks[0][:, 1] + chunks[1][:, 0]) / 2
    np.testing.assert_allclose(policy.act(second), expected, atol=1e-6)
    policy.reset()
    np.testing.assert_allclose(policy.act(second), chunks[1][:, 0], atol=1e-6)


def test_acting_draws_nothing_and_leaves_training_as_it_was(make_policy, make_batch):
    policy = make_policy(dropout=0.5)
    batch = make_batch(policy, actions=False)
    policy.model.train()
    before = torch.get_rng_state()
    first, second = policy.predict(_windows(batch)), policy.predict(_windows(batch))
    assert np.array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert policy.model.training


def test_the_loss_is_the_sum_of_its_parts(make_policy, make_batch):
    policy = make_policy(kl_weight=3.0)
    batch = policy.prepare(make_batch(policy))
    noise = torch.randn(4, 4)
    loss, parts = policy.model.loss(batch, noise)
    assert loss.item() == pytest.approx((parts["l1"] + 3 * parts["kl"]).item())
    assert not parts["l1"].requires_grad
    mean, log_variance = policy.model.model.posterior(batch)
    actions = policy.model.model(batch, mean + (log_variance / 2).exp() * noise)
    error = (actions - batch["action"]).abs() * ~batch["action_is_pad"][..., None]
    assert parts["l1"].item() == pytest.approx(error.mean().item())
    torch.manual_seed(5)
    drawn = torch.randn(4, 4)
    torch.manual_seed(5)
    assert policy.model.loss(batch)[0].item() == policy.model.loss(batch, drawn)[0].item()


def test_without_a_latent_the_loss_is_l1_alone(make_policy, make_batch):
    policy = make_policy(use_vae=False)
    before = torch.get_rng_state()
    loss, parts = policy.model.loss(policy.prepare(make_batch(policy)))
    assert list(parts) == ["l1"]
    assert loss.item() == parts["l1"].item()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_backbone_has_its_own_rate(make_policy):
    policy = make_policy("state front", optimizer_lr_backbone=3e-6)
    rest, backbone = policy.model.parameter_groups()
    assert backbone["lr"] == 3e-6
    assert "lr" not in rest
    assert len(backbone["params"]) == 20
    names = {id(parameter): name for name, parameter in policy.model.named_parameters()}
    assert all(names[id(p)].startswith("model.backbone.") for p in backbone["params"])
    assert len(rest["params"]) + 20 == len(names)
    assert make_policy().model.parameter_groups()[1]["params"] == []


@pytest.mark.parametrize("options", [{}, {"use_vae": False, "pre_norm": True}])
def test_it_learns_a_batch_by_heart(make_policy, make_batch, options):
    policy = make_policy(**options)
    batch = policy.prepare(make_batch(policy))
    policy.model.train()
    optimizer = torch.optim.AdamW(policy.model.parameter_groups(), lr=5e-3)
    torch.manual_seed(0)
    errors = []
    for _ in range(80):
        loss, parts = policy.model.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(parts["l1"].item())
    assert np.mean(errors[-10:]) < 0.45 * errors[0]


def test_bfloat16_is_near_and_its_loss_is_float32(make_policy, make_batch):
    exact, rough = make_policy("state env front"), make_policy("state env front", use_amp=True)
    raw = make_batch(exact)
    observations = make_batch(exact, actions=False)
    np.testing.assert_allclose(
        rough.predict(_windows(observations)), exact.predict(_windows(observations)), atol=0.1
    )
    noise = torch.randn(4, 4)
    with rough.precision():
        loss, _ = rough.model.loss(rough.prepare(raw), noise)
    assert loss.dtype == torch.float32
    expected = exact.model.loss(exact.prepare(raw), noise)[0]
    assert loss.item() == pytest.approx(expected.item(), rel=0.03)
    loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in rough.model.parameters())


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ("state env", {"n_action_steps": 1, "temporal_ensemble_coeff": 0.05}),
        ("state front wrist", {"use_vae": False, "pre_norm": True}),
    ],
)
def test_a_saved_policy_acts_the_same(make_policy, make_batch, tmp_path, inputs, options):
    policy = make_policy(inputs, optimizer_lr=2e-4, **options)
    policy.save_pretrained(tmp_path)
    batches = [make_batch(policy, seed=seed, actions=False) for seed in range(4)]
    expected = [policy.act(batch) for batch in batches]
    for loaded in (ACTPolicy.from_pretrained(tmp_path), load_policy(tmp_path, "cpu")):
        assert loaded.config == policy.config
        assert loaded.features == policy.features
        assert np.array_equal([loaded.act(batch) for batch in batches], expected)
        stored = loaded.model.state_dict()
        for name, tensor in policy.model.state_dict().items():
            assert torch.equal(tensor, stored[name]), name


def test_the_folder_has_lerobots_names_only(make_policy, tmp_path):
    make_policy("state wrist", ema_decay=0.9).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert next(iter(config)) == "type"
    assert config["type"] == "act"
    assert config.keys() <= LEROBOT_FIELDS
    assert config["input_features"] == {
        "observation.state": {"type": "STATE", "shape": [3]},
        "observation.images.wrist_left": {"type": "VISUAL", "shape": [3, 40, 32]},
    }
    tensors = load_file(tmp_path / "model.safetensors")
    assert all(name.startswith("model.") for name in tensors)
    assert tensors["model.backbone.bn1.running_var"].shape == (64,)


def test_lerobots_own_fields_are_passed_over(make_policy, tmp_path):
    make_policy().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    lerobots = {"push_to_hub": True, "repo_id": "a/b", "replace_final_stride_with_dilation": 0}
    file.write_text(json.dumps(json.loads(file.read_text()) | lerobots))
    assert ACTPolicy.from_pretrained(tmp_path).config.replace_final_stride_with_dilation == 0


def test_all_that_does_not_fit_is_listed_in_one_line(make_policy, tmp_path):
    make_policy().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.action_head.bias"], tensors["model.vae_encoder_pos_enc"]
    tensors["model.extra"] = torch.zeros(1)
    tensors["model.action_head.weight"] = torch.zeros(7, 16)
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as caught:
        ACTPolicy.from_pretrained(tmp_path)
    assert str(caught.value) == (
        f"{path} does not fit this policy: "
        "missing: model.action_head.bias, model.vae_encoder_pos_enc; unknown: model.extra; "
        "of another shape: model.action_head.weight [7, 16] where [2, 16] is needed; "
        "use the options the checkpoint was trained with"
    )


def test_features_without_picture_and_environment_state_are_refused(make_policy):
    with pytest.raises(FeatureMismatchError, match=r"ACT needs a picture or observation\.env"):
        make_policy(features=features_of("state"))
