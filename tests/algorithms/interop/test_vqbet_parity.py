"""VQ-BeT beside LeRobot's own: tensors, numbers and updates of the same folders."""

import json
from dataclasses import fields, replace
from pathlib import Path

import draccus
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from leray.algorithms.vqbet.config import VQBeTPolicyConfig
from leray.algorithms.vqbet.policy import VQBeTPolicy
from leray.data.features import Feature, Features
from tests.algorithms.interop.peer import needs_peer, run_peer

pytestmark = [pytest.mark.slow, needs_peer]

SEED, ROWS, ENVS = 7, 4, 2
TOLERANCE = 1e-5
SMALL = {
    "n_vqvae_training_steps": 300,
    "spatial_softmax_num_keypoints": 8,
    "vqvae_n_embed": 8,
    "vqvae_embedding_dim": 24,
    "vqvae_enc_hidden_dim": 32,
    "gpt_block_size": 30,
    "gpt_input_dim": 24,
    "gpt_output_dim": 40,
    "gpt_hidden_dim": 32,
    "gpt_n_layer": 3,
    "gpt_n_head": 4,
}
CASES = {
    "joint": {"crop_shape": (40, 36)},
    "sequential": {
        "sequentially_select": True,
        "n_obs_steps": 2,
        "n_action_pred_token": 1,
        "action_chunk_size": 3,
        "crop_shape": (40, 33),
        "crop_is_random": False,
        "use_group_norm": False,
        "dropout": 0.0,
        "scheduler_warmup_steps": 7,
        "bet_softmax_temperature": 1.0,
        "primary_code_loss_weight": 2.0,
        "secondary_code_loss_weight": 3.0,
        "offset_loss_weight": 50.0,
        "optimizer_vqvae_lr": 3e-3,
        "optimizer_vqvae_weight_decay": 1e-2,
    },
    "one-observation": {"n_obs_steps": 1, "action_chunk_size": 1, "crop_shape": None},
}
FULL_SIZE = "full-size"
FEATURES = Features(
    {
        "observation.state": Feature("float32", (3,)),
        "observation.image": Feature("uint8", (48, 50, 3), ("height", "width", "channels")),
        "action": Feature("float32", (2,)),
    }
)
PUSHT = Features(
    {
        "observation.image": Feature("uint8", (96, 96, 3), ("height", "width", "channels")),
        "observation.state": Feature("float32", (2,)),
        "action": Feature("float32", (2,)),
    }
)


def _stats(features):
    rng = np.random.default_rng(5)
    stats = {}
    for name, feature in features.items():
        low = rng.uniform(-2, 0, feature.shape).astype(np.float32)
        if feature.dtype == "float32":
            high = low + rng.uniform(1, 3, feature.shape).astype(np.float32)
            stats[name] = {"min": low, "max": high}
    return stats


def _values(feature, lead, rng):
    if feature.dtype == "uint8":
        return rng.integers(0, 256, (*lead, *feature.shape), dtype=np.uint8)
    return rng.uniform(-1.5, 1.5, (*lead, *feature.shape)).astype(np.float32)


def _data(features, config):
    rng, data = np.random.default_rng(11), {}
    for name, feature in features.items():
        length = len(config.action_delta_indices) if name == "action" else config.n_obs_steps
        data[name] = _values(feature, (ROWS, length), rng)
        if name != "action":
            data[f"frame/{name}"] = _values(feature, (config.action_chunk_size + 2, ENVS), rng)
    data["action_is_pad"] = rng.random((ROWS, len(config.action_delta_indices))) < 0.3
    return data


def _make(name):
    full = name == FULL_SIZE
    config = VQBeTPolicyConfig(**({} if full else SMALL | CASES[name]))
    features = PUSHT if full else FEATURES
    processor = VQBeTPolicy.make_processor(
        features, config, _stats(features), use_imagenet_stats=False
    )
    torch.manual_seed(1)
    return VQBeTPolicy(config, processor)


def _write_case(folder, name):
    policy = _make(name)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    policy.save_pretrained(folder / "ours")
    (folder / "case.json").write_text(json.dumps({"keys_only": name == FULL_SIZE}))
    stats = {
        f"{key}.{stat}": torch.from_numpy(value)
        for key, known in _stats(policy.features).items()
        for stat, value in known.items()
    }
    save_file(stats, folder / "stats.safetensors")
    data = _data(policy.features, policy.config)
    save_file({k: torch.from_numpy(v) for k, v in data.items()}, folder / "data.safetensors")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Folders of all cases, after LeRobot has been there."""
    root = tmp_path_factory.mktemp("vqbet")
    for name in (*CASES, FULL_SIZE):
        (root / name).mkdir()
        _write_case(root / name, name)
    run_peer(Path(__file__).with_name("vqbet_peer.py"), root)
    return root


@pytest.fixture(params=["ours", "theirs"])
def whose(request):
    """Who made the policy."""
    return request.param


def _end_first_phase(policy):
    policy.model.vqbet.action_head.vqvae_model.freeze()


def _update(policy, data):
    """Take one update; return loss, norm of the gradient and figures."""
    model, preset = policy.model, policy.config.optimizer
    optimizer = torch.optim.Adam(
        model.parameter_groups(), preset.lr, preset.betas, preset.eps, preset.weight_decay
    )
    model.train()
    torch.manual_seed(SEED)
    loss, figures = model.loss(policy.prepare(data))
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), preset.grad_clip_norm)
    optimizer.step()
    return loss.item(), norm.item(), {name: value.item() for name, value in figures.items()}


def _compare_update(policy, expected):
    """Compare gradients, and tensors where Adam's first step does not hang on rounding."""
    state = policy.model.state_dict()
    parameters = dict(policy.model.named_parameters())
    grads = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    assert {key for key in expected if key.startswith("grad/")} == {f"grad/{k}" for k in grads}
    compared = 0
    for name, tensor in state.items():
        after = expected[f"after/{name}"]
        certain = torch.ones_like(after, dtype=torch.bool)
        if name in grads:
            grad = expected[f"grad/{name}"]
            rounding = max(1e-4 * grad.abs().max().item(), 1e-6)
            np.testing.assert_allclose(grads[name], grad, atol=rounding, err_msg=name)
            certain = grad.abs() > 2 * rounding
            compared += int(certain.sum())
        np.testing.assert_allclose(
            tensor[certain], after[certain], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
        )
    assert compared > 0.5 * sum(grad.numel() for grad in grads.values())


def _part(expected, prefix):
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in expected.items() if k.startswith(start)}


@pytest.mark.parametrize("name", CASES)
def test_an_update_of_the_first_phase_is_lerobots(folders, name, whose):
    policy = VQBeTPolicy.from_pretrained(folders / name / whose)
    expected = _part(load_file(folders / name / f"{whose}.safetensors"), "first")
    before = policy.model.vqbet.action_head.vqvae_model.vq_layer.codebooks[0].embed.clone()
    loss, norm, figures = _update(policy, _data(FEATURES, policy.config))
    policy.model.after_update(1)
    assert loss == pytest.approx(expected["loss"].item(), rel=TOLERANCE)
    assert norm == pytest.approx(expected["norm"].item(), rel=1e-4)
    wanted = expected["figure/recon_l1_error"].item()
    assert figures["reconstruction"] == pytest.approx(wanted, rel=TOLERANCE)
    assert not torch.equal(before, expected["after/" + _codebook(0)])
    _compare_update(policy, expected)


def _codebook(level):
    return f"vqbet.action_head.vqvae_model.vq_layer.layers.{level}._codebook.embed"


@pytest.mark.parametrize("name", CASES)
def test_an_update_of_the_second_phase_is_lerobots(folders, name, whose):
    policy = VQBeTPolicy.from_pretrained(folders / name / whose)
    _end_first_phase(policy)
    expected = _part(load_file(folders / name / f"{whose}.safetensors"), "second")
    loss, norm, figures = _update(policy, _data(FEATURES, policy.config))
    assert loss == pytest.approx(expected["loss"].item(), rel=TOLERANCE)
    assert norm == pytest.approx(expected["norm"].item(), rel=1e-4)
    config = policy.config
    codes = (
        config.primary_code_loss_weight * figures["primary_code"]
        + config.secondary_code_loss_weight * figures["secondary_code"]
    )
    assert codes == pytest.approx(expected["figure/classification_loss"].item(), rel=TOLERANCE)
    for ours, theirs in (("offset", "offset_loss"), ("decoded", "vq_action_error")):
        wanted = expected[f"figure/{theirs}"].item()
        assert figures[ours] == pytest.approx(wanted, rel=TOLERANCE)
    _compare_update(policy, expected)


@pytest.mark.parametrize("name", CASES)
def test_acting_and_validating_draw_lerobots_numbers(folders, name, whose):
    policy = VQBeTPolicy.from_pretrained(folders / name / whose)
    _end_first_phase(policy)
    expected = load_file(folders / name / f"{whose}.safetensors")
    data = _data(FEATURES, policy.config)
    frames = {key[6:]: value for key, value in data.items() if key.startswith("frame/")}
    policy.seed(SEED)
    played = [
        policy.act({key: value[step] for key, value in frames.items()})
        for step in range(policy.config.action_chunk_size + 2)
    ]
    np.testing.assert_allclose(np.stack(played), expected["played"], atol=TOLERANCE)
    policy.model.eval()
    torch.manual_seed(SEED)
    loss, _ = policy.model.loss(policy.prepare(data))
    assert loss.item() == pytest.approx(expected["validation"].item(), rel=TOLERANCE)


@pytest.mark.parametrize("name", [*CASES, FULL_SIZE])
def test_tensors_groups_and_learning_rates_are_lerobots(folders, name):
    theirs = json.loads((folders / name / "keys.json").read_text())
    policy = _make(name)
    state = policy.model.state_dict()
    assert {key: list(tensor.shape) for key, tensor in state.items()} == theirs["tensors"]
    names = {id(p): key for key, p in policy.model.named_parameters()}
    groups = [[names[id(p)] for p in g["params"]] for g in policy.model.parameter_groups()]
    assert [sorted(group) for group in groups] == [sorted(group) for group in theirs["groups"]]
    rates = [policy.config.lr_factor(update, 1200) * 1e-4 for update in range(1200)]
    assert rates == pytest.approx(theirs["learning_rates"], rel=1e-9)


def test_defaults_are_lerobots(folders):
    theirs = json.loads((folders / FULL_SIZE / "keys.json").read_text())["defaults"]
    training_only = {f.name for f in fields(VQBeTPolicyConfig) if f.metadata.get("training_only")}
    ours = draccus.encode(VQBeTPolicyConfig(device="cpu"), VQBeTPolicyConfig)
    mapping = ours["normalization_mapping"]
    assert mapping.pop("ENV") == "MIN_MAX"  # LeRobot's has no such input
    for name in ours.keys() - training_only - {"type"}:
        assert ours[name] == theirs[name], name


def test_options_read_back_are_the_same(folders):
    for name in CASES:
        loaded = VQBeTPolicy.from_pretrained(folders / name / "theirs").config
        assert loaded.pretrained_path is None
        assert replace(loaded, device=None) == _make(name).config
