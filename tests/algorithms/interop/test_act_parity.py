"""ACT beside LeRobot's: folders read both ways, same numbers from the same weights and noise."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from leray.algorithms.act.config import ACTPolicyConfig
from leray.algorithms.act.policy import ACTPolicy
from leray.algorithms.imitation.normalizer import dataset_processor
from leray.data.features import Feature, Features
from leray.data.names import ACTION
from tests.algorithms.interop.peer import needs_peer, run_peer

pytestmark = [pytest.mark.slow, needs_peer]

SEED, ENVS, CHUNK = 7, 3, 6
TOLERANCE = 1e-5
SMALL = {
    "chunk_size": CHUNK,
    "n_action_steps": 4,
    "dim_model": 32,
    "n_heads": 4,
    "dim_feedforward": 48,
    "latent_dim": 6,
    "n_encoder_layers": 2,
    "n_vae_encoder_layers": 2,
    "dropout": 0.0,
    "optimizer_lr": 1e-3,
    "optimizer_lr_backbone": 1e-4,
    "pretrained_backbone_weights": None,
}
VECTORS = {
    "observation.state": Feature("float32", (5,)),
    "observation.environment_state": Feature("float32", (3,)),
}
WATCHED = ("conv1.weight", "layer2.0.downsample.0.weight", "layer4.1.conv2.weight")
"""Of the backbone's tensors, those that are compared after an update."""


def _camera(height, width):
    return Feature("uint8", (height, width, 3), ("height", "width", "channels"))


STATE, ENV = ({key: VECTORS[key]} for key in VECTORS)
ONE_CAMERA = {**STATE, "observation.image": _camera(96, 96)}
TWO_CAMERAS = {
    "observation.images.wrist": _camera(64, 96),
    **STATE,
    "observation.images.front": _camera(64, 96),
}
UNEQUAL_CAMERAS = {
    **VECTORS,
    "observation.images.top": _camera(48, 80),
    "observation.images.left_side": _camera(64, 64),
}
CASES = {
    "vectors": (VECTORS, {}),
    "ensemble": (VECTORS, {"temporal_ensemble_coeff": 0.2, "n_action_steps": 1}),
    "newest_first": (VECTORS, {"temporal_ensemble_coeff": -0.4, "n_action_steps": 1}),
    "pre_norm": (
        VECTORS,
        {
            "pre_norm": True,
            "feedforward_activation": "gelu",
            "n_decoder_layers": 3,
            "kl_weight": 2.0,
            "normalization_mapping": {"STATE": "MIN_MAX", "ENV": "QUANTILES", "ACTION": "MIN_MAX"},
        },
    ),
    "one_camera": (ONE_CAMERA, {}),
    "two_cameras": (TWO_CAMERAS, {"use_vae": False, "n_decoder_layers": 2}),
    "dilated": (
        UNEQUAL_CAMERAS,
        {"vision_backbone": "resnet50", "replace_final_stride_with_dilation": 1},
    ),
    "no_state": (ENV, {}),
    "default": (
        {"observation.state": Feature("float32", (14,)), "observation.images.top": _camera(96, 96)},
        {"pretrained_backbone_weights": None},
    ),
}
KEYS_ONLY = ("no_state", "default")  # LeRobot 0.4 fails without a state when it runs
DOUBLE = ("dilated",)  # so deep that rounding moves the gradients; these are taken in float64
RUN = [name for name in CASES if name not in KEYS_ONLY]


def _stats(features):
    rng = np.random.default_rng(5)
    stats = {}
    for name, feature in features.items():
        size = 3 if len(feature.shape) == 3 else feature.size
        low = rng.normal(size=size)
        width = rng.uniform(0.5, 2, size)
        parts = {"min": 0, "q01": 0.1, "q10": 0.2, "mean": 0.4, "q90": 0.8, "q99": 0.9, "max": 1}
        stats[name] = {key: low + width * part for key, part in parts.items()}
        stats[name]["std"] = width / 3
    return stats


def _data(features):
    rng = np.random.default_rng(11)
    data = {}
    for name, feature in features.items():
        shape = (ENVS, CHUNK, *feature.shape) if name == ACTION else (ENVS, *feature.shape)
        data[name] = (
            rng.integers(0, 256, shape, np.uint8)
            if feature.dtype == "uint8"
            else rng.normal(size=shape).astype(np.float32)
        )
    data["action_is_pad"] = np.arange(CHUNK) >= np.array([[CHUNK], [2], [5]])
    return data


def _make(name):
    observations, options = CASES[name]
    features = Features({**observations, ACTION: Feature("float32", (4,))})
    config = ACTPolicyConfig(**(options if name == "default" else SMALL | options))
    stats = _stats(features)
    processor = dataset_processor(
        features, config.normalization_mapping, stats, use_imagenet_stats=False
    )
    torch.manual_seed(2)
    return ACTPolicy(config, processor), _data(features)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of all cases, after LeRobot has been there."""
    root = tmp_path_factory.mktemp("act")
    for name in CASES:
        policy, data = _make(name)
        case = root / name
        policy.save_pretrained(case / "ours")
        tensors = {key: torch.from_numpy(value) for key, value in data.items()}
        save_file(tensors, case / "data.safetensors")
        flat = {
            f"{key}.{stat}": torch.from_numpy(value)
            for key, stats in policy.processor.stats.items()
            for stat, value in stats.items()
        }
        save_file(flat, case / "stats.safetensors")
        spec = {"keys_only": name in KEYS_ONLY, "double": name in DOUBLE, "watched": WATCHED}
        (case / "case.json").write_text(json.dumps(spec))
    run_peer(Path(__file__).with_name("act_peer.py"), root)
    return root


def _played(policy, data):
    observations = {key: value for key, value in data.items() if key.startswith("observation")}
    policy.reset()
    return np.stack(
        [
            policy.act({key: np.roll(value, shift, 0) for key, value in observations.items()})
            for shift in range(7)
        ]
    )


@pytest.mark.parametrize("name", CASES)
def test_tensors_and_their_order_are_lerobots(folder, name):
    policy, _ = _make(name)
    theirs = json.loads((folder / name / "keys.json").read_text())
    ours = {key: list(tensor.shape) for key, tensor in policy.model.state_dict().items()}
    assert ours == theirs["tensors"]
    assert [key for key, _ in policy.model.named_parameters()] == theirs["parameters"]
    assert [len(g["params"]) for g in policy.model.parameter_groups()] == theirs["groups"]


@pytest.mark.parametrize("whose", ["ours", "theirs"])
@pytest.mark.parametrize("name", RUN)
def test_actions_are_lerobots(folder, name, whose):
    policy = ACTPolicy.from_pretrained(folder / name / whose)
    expected = load_file(folder / name / f"{whose}.safetensors")
    data = _data(policy.features)
    windows = {key: value[:, None] for key, value in data.items() if key.startswith("obs")}
    np.testing.assert_allclose(policy.predict(windows), expected["chunk"], atol=TOLERANCE)
    np.testing.assert_allclose(_played(policy, data), expected["played"], atol=TOLERANCE)


@pytest.mark.parametrize("whose", ["ours", "theirs"])
@pytest.mark.parametrize("name", RUN)
def test_losses_and_an_update_are_lerobots(folder, name, whose):
    policy = ACTPolicy.from_pretrained(folder / name / whose)
    expected = load_file(folder / name / f"{whose}.safetensors")
    batch = policy.prepare(_data(policy.features))
    policy.model.train()
    if name in DOUBLE:
        policy.model.double()
        batch = {key: x.double() if x.is_floating_point() else x for key, x in batch.items()}
    torch.manual_seed(SEED)
    loss, figures = policy.model.loss(batch)
    assert loss.item() == pytest.approx(expected["loss"].item(), abs=TOLERANCE, rel=TOLERANCE)
    parts = [figure.item() for figure in figures.values()]
    assert parts == pytest.approx(expected["parts"].tolist(), abs=TOLERANCE, rel=TOLERANCE)
    preset = policy.config.optimizer
    optimizer = torch.optim.AdamW(
        policy.model.parameter_groups(),
        lr=preset.lr,
        betas=preset.betas,
        eps=preset.eps,
        weight_decay=preset.weight_decay,
    )
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), preset.grad_clip_norm)
    assert norm.item() == pytest.approx(expected["norm"].item(), rel=1e-4)
    optimizer.step()
    _compare_update(policy, expected)


def _compare_update(policy, expected):
    compared = 0
    for name, parameter in policy.model.named_parameters():
        if f"grad/{name}" in expected:
            grad, after = expected[f"grad/{name}"], expected[f"after/{name}"]
            rounding = max(1e-4 * grad.abs().max().item(), 1e-6)
            np.testing.assert_allclose(parameter.grad, grad, atol=rounding, err_msg=name)
            certain = grad.abs() > 2 * rounding  # elsewhere Adam's first step has either sign
            difference = (parameter.detach() - after).abs()[certain]
            assert (difference < TOLERANCE).all(), name
            compared += difference.numel()
    assert compared > 1000
