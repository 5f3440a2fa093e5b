"""Diffusion Policy beside LeRobot's own: tensors, numbers and updates of the same folders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from leray.algorithms.diffusion.config import DiffusionPolicyConfig
from leray.algorithms.diffusion.policy import DiffusionPolicy
from leray.data.features import Feature, Features
from tests.algorithms.interop.peer import needs_peer, run_peer

pytestmark = [pytest.mark.slow, needs_peer]

SEED = 7
ROWS = 3
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
CERTAIN = 1e-6
"""Gradients that are larger have the same sign in both."""
ENVS = 2
TINY = {"down_dims": (16, 32), "diffusion_step_embed_dim": 16, "spatial_softmax_num_keypoints": 8}
CASES = {
    "vectors": ({}, ["env"], {}),
    "one-camera": (
        {
            "crop_shape": (40, 36),
            "do_mask_loss_for_padding": True,
            "noise_scheduler_type": "DDIM",
            "num_inference_steps": 7,
        },
        ["image"],
        {},
    ),
    "two-cameras": (
        {
            "n_obs_steps": 3,
            "horizon": 8,
            "n_action_steps": 4,
            "beta_schedule": "scaled_linear",
            "num_inference_steps": 10,
            "down_dims": (16, 32, 48),
            "n_groups": 4,
            "use_group_norm": False,
            "crop_shape": (40, 33),
            "crop_is_random": False,
        },
        ["images.left", "images.right", "env"],
        {},
    ),
    "separate": (
        {
            "n_obs_steps": 1,
            "use_separate_rgb_encoder_per_camera": True,
            "resize_shape": (40, 44),
            "crop_ratio": 0.8,
            "prediction_type": "sample",
            "use_film_scale_modulation": False,
            "beta_schedule": "linear",
            "kernel_size": 3,
            "clip_sample_range": 1.5,
            "num_train_timesteps": 20,
            "noise_scheduler_type": "DDIM",
            "down_dims": (24,),
            "scheduler_name": "constant_with_warmup",
            "scheduler_warmup_steps": 30,
        },
        ["images.left", "images.right"],
        {},
    ),
    "compiled": ({"scheduler_name": "linear"}, ["image"], {"compile_model": True}),
}
FULL_SIZE = "full-size"


def _features(extra: list[str]) -> Features:
    features = {"observation.state": Feature("float32", (3,))}
    for name in extra:
        if name == "env":
            features["observation.environment_state"] = Feature("float32", (5,))
        else:
            axes = ("height", "width", "channels")
            features[f"observation.{name}"] = Feature("uint8", (48, 50, 3), axes)
    return Features({**features, "action": Feature("float32", (2,))})


def _stats(features: Features) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    stats = {}
    for name, feature in features.items():
        shape = (feature.shape[2], 1, 1) if len(feature.shape) == 3 else feature.shape
        low = rng.uniform(-2, 0, shape).astype(np.float32)
        stats[name] = {
            "min": low,
            "max": low + rng.uniform(1, 3, shape).astype(np.float32),
            "mean": rng.uniform(0.2, 0.6, shape).astype(np.float32),
            "std": rng.uniform(0.2, 0.5, shape).astype(np.float32),
        }
    return stats


def _values(feature: Feature, lead: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if feature.dtype == "uint8":
        return rng.integers(0, 256, (*lead, *feature.shape), dtype=np.uint8)
    return rng.uniform(-1.5, 1.5, (*lead, *feature.shape)).astype(np.float32)


def _data(features: Features, config: DiffusionPolicyConfig) -> dict[str, np.ndarray]:
    rng, data = np.random.default_rng(11), {}
    for name, feature in features.items():
        steps = config.horizon if name == "action" else config.n_obs_steps
        data[name] = _values(feature, (ROWS, steps), rng)
        if name != "action":
            data[f"frame/{name}"] = _values(feature, (config.n_action_steps + 1, ENVS), rng)
    data["action_is_pad"] = rng.random((ROWS, config.horizon)) < 0.3
    data["noise"] = rng.standard_normal((ENVS, config.horizon, 2), dtype=np.float32)
    return data


def _make(options: dict, features: Features) -> DiffusionPolicy:
    config = DiffusionPolicyConfig(**options)
    processor = DiffusionPolicy.make_processor(
        features, config, _stats(features), use_imagenet_stats=False
    )
    return DiffusionPolicy(config, processor)


def _write_case(folder: Path, options: dict, extra: list[str], changed: dict, keys_only: bool):
    features = _features(extra)
    torch.manual_seed(1)
    policy = _make(options, features)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    policy.save_pretrained(folder / "ours")
    spec = {"keys_only": keys_only, "set": changed}
    (folder / "case.json").write_text(json.dumps(spec))
    stats = {
        f"{name}.{stat}": torch.from_numpy(value)
        for name, known in _stats(features).items()
        for stat, value in known.items()
    }
    save_file(stats, folder / "stats.safetensors")
    data = _data(features, policy.config)
    save_file({k: torch.from_numpy(v) for k, v in data.items()}, folder / "data.safetensors")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("diffusion")
    for name, (options, extra, changed) in CASES.items():
        (root / name).mkdir()
        _write_case(root / name, {**TINY, **options}, extra, changed, keys_only=False)
    (root / FULL_SIZE).mkdir()
    _write_case(root / FULL_SIZE, {"crop_shape": (42, 42)}, ["image"], {}, keys_only=True)
    run_peer(Path(__file__).with_name("diffusion_peer.py"), root)
    return root


def _played(policy: DiffusionPolicy, frames: dict[str, np.ndarray]) -> np.ndarray:
    policy.reset()
    policy.seed(SEED)
    steps = len(frames["observation.state"])
    return np.stack(
        [policy.act({key: value[step] for key, value in frames.items()}) for step in range(steps)]
    )


def _outcome(policy: DiffusionPolicy, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    frames = {key[6:]: value.numpy() for key, value in data.items() if key.startswith("frame/")}
    windows = {key: value for key, value in data.items() if key.startswith(("obs", "act"))}
    model = policy.model
    model.eval()
    result = {"played": torch.from_numpy(_played(policy, frames))}
    torch.manual_seed(SEED)
    result["validation"] = model.loss(policy.prepare(windows))[0].detach()
    model.train()
    torch.manual_seed(SEED)
    loss = model.loss(policy.prepare(windows))[0]
    result["loss"] = loss.detach()
    loss.backward()
    preset = policy.config.optimizer
    optimizer = torch.optim.Adam(
        model.parameter_groups(), preset.lr, preset.betas, preset.eps, preset.weight_decay
    )
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), preset.grad_clip_norm)
    result["norm"] = norm.detach()
    optimizer.step()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            result[f"grad/{name}"] = parameter.grad
    for name, tensor in model.state_dict().items():
        result[f"after/{name}"] = tensor
    return result


def _first(policy: DiffusionPolicy, data: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the first action after a reset, denoised from given noise."""
    frame = {key[6:]: value[0] for key, value in data.items() if key.startswith("frame/")}
    steps = policy.config.n_obs_steps
    repeated = {key: torch.stack([value] * steps, dim=1) for key, value in frame.items()}
    policy.model.eval()
    with torch.inference_mode():
        batch = policy.prepare(repeated)
        chunk = policy.model.denoise(batch, data["noise"], torch.Generator())
    return policy.normalizer.inverse("action", chunk[:, 0])


@pytest.mark.parametrize("direction", ["ours", "theirs"])
@pytest.mark.parametrize("name", [name for name in CASES if name != "compiled"])
def test_the_same_folder_gives_the_same_numbers(folders, name, direction):
    folder = folders / name
    policy = DiffusionPolicy.from_pretrained(folder / direction)
    data = load_file(folder / "data.safetensors")
    expected = load_file(folder / f"{direction}.safetensors")

    first = expected.pop("first")
    if policy.config.noise_scheduler_type == "DDIM":  # which draws nothing after the first noise
        torch.testing.assert_close(_first(policy, data), first, **TOLERANCE)
    found = _outcome(policy, data)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        grad = expected.get(key.replace("after/", "grad/"))
        if key.startswith("after/") and grad is not None:
            # Adam's first step is the sign of the gradient: below rounding errors, either is right
            certain = grad.abs() > CERTAIN
            value, found[key] = value[certain], found[key][certain]
        torch.testing.assert_close(
            found[key], value, **TOLERANCE, msg=lambda m, key=key: f"{key}: {m}"
        )


@pytest.mark.parametrize("name", [*CASES, FULL_SIZE])
def test_tensors_and_learning_rates_are_lerobots(folders, name):
    listed = json.loads((folders / name / "keys.json").read_text())
    options, extra, _ = CASES.get(name, ({"crop_shape": (42, 42)}, ["image"], {}))
    policy = _make({**({} if name == FULL_SIZE else TINY), **options}, _features(extra))
    tensors = {key.replace("._orig_mod", ""): shape for key, shape in listed["tensors"].items()}
    state = policy.model.state_dict()
    assert {key: list(tensor.shape) for key, tensor in state.items()} == tensors
    parameters = [key.replace("._orig_mod", "") for key in listed["parameters"]]
    assert sorted(key for key, _ in policy.model.named_parameters()) == sorted(parameters)
    rates = [policy.config.lr_factor(update, 1200) * 1e-4 for update in range(1200)]
    assert rates == pytest.approx(listed["learning_rates"], rel=1e-9)


def test_a_folder_of_a_compiled_policy_loads(folders):
    stored = load_file(folders / "compiled" / "theirs" / "model.safetensors")
    assert any("._orig_mod." in key for key in stored)
    policy = DiffusionPolicy.from_pretrained(folders / "compiled" / "theirs")
    assert policy.config.compile_model
    for key, tensor in policy.model.state_dict().items():
        other = key.replace("diffusion.unet.", "diffusion.unet._orig_mod.")
        assert torch.equal(tensor, stored[other])
    written = json.loads((folders / "compiled" / "ours" / "config.json").read_text())
    assert "compile_model" not in written
